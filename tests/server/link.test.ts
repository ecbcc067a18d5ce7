import { afterEach, beforeEach, expect, test } from "bun:test";
import type { SessionId } from "../../src/ids.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { sweepLogins } from "../../src/server/handlers/login.ts";
import {
  call,
  errorOf,
  finishRaw,
  logInRaw,
  logOf,
  outputOf,
  postInput,
  type RawOwner,
  type RawSession,
  registerRaw,
  startRaw,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";

/** Device links as the server keeps them (docs/protocol.md §5.9). */

let server: TestServer;
let alice: RawOwner;
let session: RawSession;
let sealed: Uint8Array;

beforeEach(async () => {
  server = await startTestServer({ limits: { loginFreeFailuresPerAddress: 1_000 } });
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
  sealed = random(200);
});
afterEach(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
});

const leave = async (linkId: Uint8Array, by = session) => {
  const answer = await call(server, by, "account.device.link", { linkId, sealed });
  return answer.code;
};
const take = (linkId: Uint8Array) => postInput(server, "account.device.accept", { linkId });
const taken = async (linkId: Uint8Array) => {
  const reply = await take(linkId);
  return reply.status === 200 ? outputOf("account.device.accept", reply).sealed : errorOf(reply).code;
};
const placeOf = (linkId: Uint8Array) => linkId.subarray(0, 16).toHex() as SessionId;

test("a parcel is given out once, and the owner's log has it", async () => {
  const linkId = random(32);
  expect(await leave(linkId)).toBe("ok");
  expect(await taken(linkId)).toEqual(sealed);
  expect(await taken(linkId)).toBe("not_found");
  const actions = (await logOf(server, alice.userId)).map(({ action, status }) => `${action} ${status}`);
  expect(actions.filter((one) => one.startsWith("account.device"))).toEqual([
    "account.device.link ok",
    "account.device.accept ok",
  ]);
});

test("of two who ask at once one gets it", async () => {
  const linkId = random(32);
  await leave(linkId);
  const answers = await Promise.all([taken(linkId), taken(linkId), taken(linkId)]);
  expect(answers.filter((one) => one === "not_found")).toHaveLength(2);
  expect(answers.filter((one) => one !== "not_found")).toEqual([sealed]);
});

test("used, old, another's half of the id, unknown and of a disabled account: one answer", async () => {
  const [used, old, whole, off] = [random(32), random(32), random(32), random(32)];
  await leave(used);
  await take(used);
  await leave(old);
  server.advance(DEFAULTS.deviceLinkMs + 1);
  const answers = [await take(used), await take(old), await take(random(32))];
  await leave(whole);
  const half = new Uint8Array([...whole.subarray(0, 16), ...random(16)]);
  answers.push(await take(half));
  await leave(off);
  await server.store.transaction((tx) => tx.setDisabled(alice.userId, true));
  answers.push(await take(off));
  expect(new Set(answers.map((reply) => `${reply.status} ${String(reply.body)}`)).size).toBe(1);
  expect(errorOf(answers[0] ?? (await take(used))).code).toBe("not_found");
  await server.store.transaction((tx) => tx.setDisabled(alice.userId, false));
  // who knew but half of it has taken nothing
  expect(await taken(whole)).toEqual(sealed);
});

test("what nobody took is swept, without an entry", async () => {
  await leave(random(32));
  const before = (await logOf(server, alice.userId)).length;
  server.advance(DEFAULTS.deviceLinkMs + 1);
  expect(await sweepLogins(server.ctx)).toBe(1);
  expect(await logOf(server, alice.userId)).toHaveLength(before);
});

test("another account can neither replace nor take it by its place", async () => {
  const linkId = random(32);
  await leave(linkId);
  const bob = await registerRaw(server, "bobby");
  const his = await logInRaw(server, "bobby", bob.password);
  expect(await leave(linkId, his)).toBe("conflict");
  expect(await leave(new Uint8Array([...linkId.subarray(0, 16), ...random(16)]), his)).toBe("conflict");
  expect(await taken(linkId)).toEqual(sealed);
});

test("its row ends no login and no recovery, and theirs are no links; all go on", async () => {
  const linkId = random(32);
  await leave(linkId);
  expect(errorOf(await finishRaw(server, { sessionId: placeOf(linkId), fitting: undefined })).code).toBe(
    "login_failed",
  );
  const proof = {
    sessionId: placeOf(linkId),
    signature: random(64),
    request: (await startRaw(server, "x", "y")).response.subarray(0, 32),
  };
  expect(errorOf(await postInput(server, "account.recover.prove", proof)).code).toBe("login_failed");
  expect(await taken(linkId)).toEqual(sealed);
  const login = await startRaw(server, "alice", alice.password);
  expect(await taken(new Uint8Array([...Uint8Array.fromHex(login.sessionId), ...random(16)]))).toBe("not_found");
  expect((await finishRaw(server, login)).status).toBe(200);
});

test("links of an account are limited; one that is taken frees them", async () => {
  const first = random(32);
  await leave(first);
  for (let i = 1; i < DEFAULTS.deviceLinksPerAccount; i++) expect(await leave(random(32))).toBe("ok");
  expect(await leave(random(32))).toBe("ok");
  expect(await leave(random(32))).toBe("rate_limited");
  expect(await taken(first)).toEqual(sealed);
  expect(await leave(random(32))).toBe("ok");
});

test("questions for links are counted against the address; a good one gives its count back", async () => {
  Object.assign(server.ctx, { limits: { ...server.ctx.limits, loginFreeFailuresPerAddress: 3 } });
  for (let i = 0; i < 5; i++) {
    const linkId = random(32);
    await server.store.transaction((tx) => tx.dropLimit(`device-link:${alice.userId}`));
    await leave(linkId);
    expect(await taken(linkId)).toEqual(sealed);
  }
  const login = await startRaw(server, "alice", alice.password);
  // half logins of others are asked for in vain, and it counts
  const other = new Uint8Array([...Uint8Array.fromHex(login.sessionId), ...random(16)]);
  for (let i = 0; i < 3; i++) expect(await taken(other)).toBe("not_found");
  expect(await taken(other)).toBe("rate_limited");
});
