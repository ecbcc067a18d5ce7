import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { commitSettings } from "../../src/client/commit.ts";
import { boundOf, signersOf } from "../../src/client/model.ts";
import { deviceEntry, newDevice } from "../../src/client/register.ts";
import { withVault } from "../../src/client/vaultbox.ts";
import { hpkeOpen } from "../../src/crypto/hpke.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { clientRegisterFinish, clientRegisterStart } from "../../src/crypto/opaque.ts";
import { newId, type RequestId, type SessionId } from "../../src/ids.ts";
import { wrapAccountKey } from "../../src/protocol/account.ts";
import { DEFAULTS, KDF } from "../../src/protocol/defaults.ts";
import {
  type KitKeys,
  kitKeys,
  openWithKit,
  recoveryChallenge,
  recoveryReplyInfo,
  wrapForKit,
} from "../../src/protocol/kit.ts";
import { type Settings, settingsHash, signState, stateHash } from "../../src/protocol/state.ts";
import { sweepLogins } from "../../src/server/handlers/login.ts";
import { decodeJson } from "../../src/wire/codec.ts";
import { type InputOf, recoverReply, requestHash } from "../../src/wire/operations.ts";
import { errorOf, finishRaw, logInRaw, logOf, outputOf, postInput, startRaw, utf8 } from "../support/attacker.ts";
import {
  addTestDevice,
  random,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
  testSurroundings,
} from "../support/harness.ts";
import { hookedStore, recorder } from "../support/storeprobe.ts";

/** Recovery as an attacker meets it (docs/protocol.md §5.8). */

const PASSWORD = "a password of ada";
const NEXT = "another password of ada";
const hooked = hookedStore();
let server: TestServer;
let ada: TestDevice;
let kit: KitKeys;
const ends: TestDevice[] = [];

beforeEach(async () => {
  server = await startTestServer({ wrap: hooked.wrap, limits: { loginFreeFailuresPerAddress: 1_000 } });
  registering = clientRegisterStart(NEXT);
  ada = await person("alice");
  kit = await giveKit(ada);
});
afterEach(async () => {
  hooked.hook = null;
  for (const device of ends.splice(0)) await device.end();
  expect(server.faults).toEqual([]);
  await server.close();
});

async function person(account: string): Promise<TestDevice> {
  const device = await registerDevice(server.link(), account, PASSWORD);
  ends.push(device);
  return device;
}

/** Makes a kit and signs it into the account. */
async function giveKit({ open, login }: TestDevice): Promise<KitKeys> {
  const made = await kitKeys(random(32));
  const { model } = open.box;
  const { identity } = signersOf(model);
  const kitWrapped = await wrapForKit(made, model.owner, identity.publicKey, model.accountKey, random);
  await withVault(open.box, open.around, (held) =>
    commitSettings(model, held, login.session, open.around, "account.kit", (before) => ({
      settings: { ...before, kit: made.publicKeys, kitWrapped },
    })),
  );
  return made;
}

async function begin(account: string) {
  const reply = await postInput(server, "account.recover.start", { account });
  return { reply, ...outputOf("account.recover.start", reply) };
}

interface Proof {
  readonly account?: string;
  readonly identity?: Uint8Array;
  readonly by?: KitKeys;
}

let registering: ReturnType<typeof clientRegisterStart>;

/** Answers a challenge: with ada's kit unless told otherwise. */
function prove(at: { sessionId: SessionId; challenge: Uint8Array }, proof: Proof = {}, to: SessionId = at.sessionId) {
  const identity = proof.identity ?? server.ctx.keys.identity;
  const message = recoveryChallenge(identity, at.sessionId, proof.account ?? "alice", at.challenge);
  const signature = (proof.by ?? kit).signer.sign(message);
  return postInput(server, "account.recover.prove", { sessionId: to, signature, request: registering.request });
}

/** The last request of an honest recovery. */
async function lastRequest(
  edit: (settings: Settings) => Settings = (settings) => settings,
): Promise<InputOf<"account.recover">> {
  const at = await begin("alice");
  const { sealed } = outputOf("account.recover.prove", await prove(at));
  const info = recoveryReplyInfo(server.ctx.keys.identity, at.sessionId, "alice");
  const shown = decodeJson(recoverReply, await hpkeOpen(kit.hpke, info, sealed));
  const { record, exportKey } = clientRegisterFinish(NEXT, "alice", registering.state, shown.response, KDF.test);
  const { userId, settings, head } = shown;
  const accountKey = await openWithKit(kit, userId, settings);
  const around = testSurroundings();
  const device = newDevice("rescued", around);
  const { model } = ada.open.box;
  const revision = head.state.revision + 1;
  const next = edit({
    ...settings,
    ...wrapAccountKey(exportKey, userId, revision, accountKey, random),
    devices: [...settings.devices, deviceEntry(model, device, around)],
  });
  const requestId = newId<RequestId>(random);
  const body = { requestId, sessionId: at.sessionId, record, settings: next };
  const state = {
    ...head.state,
    deviceId: device.id,
    revision,
    previous: stateHash(head.state),
    requestId,
    requestHash: requestHash("account.recover", { ...body, state: head }),
    settingsHash: settingsHash(next),
  };
  return { ...body, state: signState(state, signersOf(model).identity, signerFromSeed(device.seed)) };
}

const REFUSED = { status: 401, code: "login_failed" };
const refusal = (reply: Awaited<ReturnType<typeof postInput>>) => ({ status: reply.status, code: errorOf(reply).code });

describe("who has not the kit learns nothing", () => {
  test("a wrong kit, no kit, a disabled account and a name of nobody: one answer, the same statements and rows", async () => {
    const bobby = await person("bobby");
    const david = await person("david");
    const davids = await giveKit(david);
    await server.store.transaction((tx) => tx.setDisabled(david.login.userId, true));
    expect(boundOf(bobby.open.box.model).settings.kit).toBeNull();
    const wrong = await kitKeys(random(32));
    const cases = [
      ["alice", wrong],
      ["bobby", wrong],
      ["david", davids],
      ["nobdy", wrong],
    ] as const;
    const attempt = async (account: string, by: KitKeys) => {
      const at = await begin(account);
      return { start: at.reply, proof: await prove(at, { account, by }) };
    };
    // a first failure each, so that a log and a bucket exist for all
    for (const [account, by] of cases) await attempt(account, by);
    const seen: { lines: string[]; start: unknown; proof: Awaited<ReturnType<typeof prove>> }[] = [];
    for (const [account, by] of cases) {
      const record = recorder();
      hooked.hook = record.hook;
      const { start, proof } = await attempt(account, by);
      hooked.hook = null;
      seen.push({ lines: record.lines, start: [start.status, String(start.body).length], proof });
    }
    expect(seen.map(({ proof }) => refusal(proof))).toEqual(cases.map(() => REFUSED));
    expect(seen[0]?.lines.length).toBeGreaterThan(6);
    for (const other of seen.slice(1)) expect(other).toEqual(seen[0] as typeof other);
  });

  test("failures are in the owner's log, one counted entry a window; a challenge that is left is one too", async () => {
    const wrong = await kitKeys(random(32));
    for (let i = 0; i < 3; i++) await prove(await begin("alice"), { by: wrong });
    await begin("alice");
    server.advance(DEFAULTS.recoveryMs + 1);
    expect(await sweepLogins(server.ctx)).toBe(1);
    const failed = () =>
      logOf(server, ada.login.userId).then((all) => all.filter((one) => one.action === "account.recover"));
    expect((await failed()).map(({ status, count }) => [status, count])).toEqual([["login_failed", 1]]);
    server.advance(DEFAULTS.loginBackoffMaxMs);
    await prove(await begin("alice"), { by: wrong });
    expect((await failed()).at(-1)?.count).toBe(4);
  });

  test("challenges are counted against the address, and a kit gives its count back", async () => {
    Object.assign(server.ctx, { limits: { ...server.ctx.limits, loginFreeFailuresPerAddress: 3 } });
    for (let i = 0; i < 6; i++) expect((await prove(await begin("alice"))).status).toBe(200);
    for (let i = 0; i < 4; i++) await begin("nobdy");
    expect(errorOf(await postInput(server, "account.recover.start", { account: "alice" })).code).toBe("rate_limited");
  });
});

describe("a proof", () => {
  test("is good once", async () => {
    const at = await begin("alice");
    expect((await prove(at)).status).toBe(200);
    expect(refusal(await prove(at))).toEqual(REFUSED);
  });

  test("is not good for another exchange, name or server", async () => {
    const [one, two] = [await begin("alice"), await begin("alice")];
    expect(refusal(await prove(one, {}, two.sessionId))).toEqual(REFUSED);
    expect(refusal(await prove(await begin("alice"), { account: "bobby" }))).toEqual(REFUSED);
    expect(refusal(await prove(await begin("alice"), { identity: random(32) }))).toEqual(REFUSED);
    expect((await prove(one)).status).toBe(200);
  });

  test("comes in time, and so does what follows it", async () => {
    const late = await begin("alice");
    const { sessionId } = await begin("alice");
    expect(sessionId).not.toBe(late.sessionId);
    const last = await lastRequest();
    server.advance(DEFAULTS.recoveryMs + 1);
    expect(refusal(await prove(late))).toEqual(REFUSED);
    expect(refusal(await postInput(server, "account.recover", last))).toEqual(REFUSED);
  });

  test("is needed before the last request", async () => {
    const last = await lastRequest();
    const { sessionId } = await begin("alice");
    const body = { ...last, sessionId };
    expect(refusal(await postInput(server, "account.recover", body))).toEqual(REFUSED);
  });
});

describe("its rows are no half logins", () => {
  test("a recovery does not end as a login, and a login not as a recovery; both go on", async () => {
    const at = await begin("alice");
    expect(refusal(await finishRaw(server, { sessionId: at.sessionId, fitting: undefined }))).toEqual(REFUSED);
    expect((await prove(at)).status).toBe(200);
    expect(refusal(await finishRaw(server, { sessionId: at.sessionId, fitting: undefined }))).toEqual(REFUSED);

    const login = await startRaw(server, "alice", PASSWORD);
    expect(refusal(await prove({ sessionId: login.sessionId, challenge: at.challenge }))).toEqual(REFUSED);
    const last = { ...(await lastRequest()), sessionId: login.sessionId };
    expect(refusal(await postInput(server, "account.recover", last))).toEqual(REFUSED);
    expect((await finishRaw(server, login)).status).toBe(200);
  });
});

describe("the last request", () => {
  test("gives a new password and one device more; every session ends and the old password is dead", async () => {
    const phone = await addTestDevice(server.link(), "alice", PASSWORD);
    ends.push(phone);
    const before = await server.store.transaction((tx) => tx.account(ada.login.userId));
    expect((await postInput(server, "account.recover", await lastRequest())).status).toBe(200);
    const after = await server.store.transaction((tx) => tx.account(ada.login.userId));
    expect(after?.settings.devices.length).toBe((before?.settings.devices.length ?? 0) + 1);
    expect(after?.recordVersion).toBe((before?.recordVersion ?? 0) + 1);
    expect(await server.store.transaction((tx) => tx.sessionsOf(ada.login.userId))).toEqual([]);
    expect((await startRaw(server, "alice", PASSWORD)).fitting).toBeUndefined();
    await logInRaw(server, "alice", NEXT);
  });

  test("again gets the same answer and changes nothing; with another body its id is taken", async () => {
    const last = await lastRequest();
    const first = await postInput(server, "account.recover", last);
    const again = await postInput(server, "account.recover", last);
    expect(outputOf("account.recover", again)).toEqual(outputOf("account.recover", first));
    expect((await logOf(server, ada.login.userId, last.requestId)).length).toBe(1);
    expect(refusal(await postInput(server, "account.recover", { ...last, record: random(192) }))).toEqual(REFUSED);
  });

  test.each<[string, (settings: Settings) => Settings]>([
    ["takes a device off", (s) => ({ ...s, devices: s.devices.slice(1) })],
    ["adds two devices", (s) => ({ ...s, devices: [...s.devices.slice(0, 1), ...s.devices] })],
    ["drops the kit", (s) => ({ ...s, kit: null, kitWrapped: null })],
    ["puts another identity in", (s) => ({ ...s, identity: random(32) })],
    ["keeps the password's revision", (s) => ({ ...s, credentialRevision: s.credentialRevision - 1 })],
  ])("that %s is refused, and the old password still opens", async (_what, edit) => {
    const reply = await postInput(server, "account.recover", await lastRequest(edit));
    expect(errorOf(reply).code).toBe("bad_input");
    await logInRaw(server, "alice", PASSWORD);
  });

  test("loses to a change of another device, and begins anew", async () => {
    const last = await lastRequest();
    await giveKit(ada).then((made) => {
      kit = made;
    });
    expect(errorOf(await postInput(server, "account.recover", last)).code).toBe("stale");
    expect((await postInput(server, "account.recover", await lastRequest())).status).toBe(200);
  });

  test("after the account was disabled is refused like a wrong kit", async () => {
    const last = await lastRequest();
    await server.store.transaction((tx) => tx.setDisabled(ada.login.userId, true));
    expect(refusal(await postInput(server, "account.recover", last))).toEqual(REFUSED);
  });
});

test("rows that were altered in the database are refused like a wrong kit", async () => {
  const at = await begin("alice");
  await server.store.transaction(async (tx) => {
    const row = await tx.takeLoginState(at.sessionId);
    if (row) await tx.putLoginState({ ...row, expiresAtMs: row.expiresAtMs + 1 });
  });
  expect(refusal(await prove(at))).toEqual(REFUSED);
  expect(utf8(at.sessionId)).toHaveLength(32);
});
