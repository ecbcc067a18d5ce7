import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { StoredKeyId } from "../../../src/ids.ts";
import { tokenHash, tokenText } from "../../../src/protocol/keyring/token.ts";
import type { KeyStoreService } from "../../../src/server/ceremony/service.ts";
import { createDispatcher, type Dispatcher } from "../../../src/server/dispatch.ts";
import { random } from "../../support/harness.ts";
import { codeOf } from "../../support/registryworld.ts";
import { hookedStore, recorder } from "../../support/storeprobe.ts";
import { HOTP, type OtpPerson, type OtpWorld, otpWorld } from "./world.ts";

const DAY = 86_400_000;
const hooked = hookedStore();
let asked = 0;
let world: OtpWorld;
let ann: OtpPerson;
let ben: OtpPerson;
let keyId: StoredKeyId;
let dispatcher: Dispatcher;
const faults: unknown[] = [];

beforeEach(async () => {
  hooked.hook = null;
  world = await otpWorld({
    wrap: hooked.wrap,
    limits: { loginFreeFailuresPerAddress: 3, tokensPerWorkspace: 3 },
    call: (enclave) => (operation, input) => {
      asked += 1;
      return enclave.handle(operation, input);
    },
  });
  ann = await world.person("ann");
  ben = await world.person("ben");
  keyId = (await world.key(ann, "door")).record.keyId;
  await world.grant(ann, keyId, ben);
  faults.length = 0;
  const service = { ...world.service } as unknown as KeyStoreService;
  dispatcher = createDispatcher(world.ctx, (fault) => faults.push(fault), null, null, service);
});
afterEach(async () => {
  expect(faults).toEqual([]);
  await world.close();
});

const create = (who = ann, name = "shop", lifeMs = DAY, id = keyId) =>
  world.call("otp.token.create", { keyId: id, name, expiresAtMs: world.nowMs + lifeMs }, who);

async function verify(token: string | null, code: string, address = "192.0.2.1") {
  const body = new TextEncoder().encode(JSON.stringify({ code }));
  const authorization = token === null ? null : `Bearer ${token}`;
  const reply = await dispatcher.handle("otp.verify", "application/json", body, { address, authorization });
  return { ...JSON.parse(String(reply.body)), status: reply.status } as {
    readonly status: number;
    readonly accepted?: boolean;
  };
}
const REFUSED = { status: 401, code: "session_invalid", message: "this token verifies no codes", retryAfterMs: null };
const ofAnother = (code: string) => code.replace(/\d$/, (digit) => String((Number(digit) + 1) % 10));
const logOf = async (who: OtpPerson) =>
  (
    await world.store.transaction((tx) =>
      tx.audit(who.userId, {
        ...{ after: 0, limit: 100, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null },
      }),
    )
  ).map(({ entry: { action, status, keyId: about, count } }) => [action, status, about, count] as unknown);

test("the text of a token says what it is for, and neither kind is taken for the other", () => {
  const bytes = new Uint8Array(32).fill(7);
  const [ours, theirs] = [tokenText(bytes, "otp"), tokenText(bytes)];
  expect(ours).toBe("kho_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc");
  expect([tokenHash(ours), tokenHash(theirs, "otp")]).toEqual([null, null]);
  expect(tokenHash(ours, "otp")).not.toEqual(tokenHash(theirs));
});

describe("a relying service", () => {
  test("learns yes once, and no for everything else", async () => {
    const { token } = await create();
    const code = await world.code(keyId, ben);
    expect(await verify(token, ofAnother(code))).toEqual({ status: 200, accepted: false });
    expect(await verify(token, code)).toEqual({ status: 200, accepted: true });
    expect(await verify(token, code)).toEqual({ status: 200, accepted: false });
    const revoked = await world.code(keyId, ben);
    await world.call("otp.revoke", { keyId, grantId: null, askId: null }, ann);
    expect(await verify(token, revoked)).toEqual(REFUSED);
  });

  test("gets the same answer at the same cost for a code that is used, expired, revoked or unknown", async () => {
    const { token } = await create();
    const [used, late] = [await world.code(keyId, ben), await world.code(keyId, ben)];
    await verify(token, used);
    const revoked = await world.code(keyId, ben);
    const { items } = await world.call("otp.handouts", { keyId, after: null }, ann);
    const open = items.filter(({ state }) => state === "open");
    world.nowMs += 300_000;
    expect(open.length).toBe(2);
    const fresh = await world.code(keyId, ben);
    const last = (await world.call("otp.handouts", { keyId, after: null }, ann)).items.find(
      (one) => one.state === "open",
    );
    if (last) await world.call("otp.revoke", { keyId, grantId: null, askId: last.askId }, ann);
    // the first refusal of a window is written down
    await verify(token, "123456789");
    const answers: unknown[] = [];
    for (const code of [used, late, revoked, fresh, "1234567890"]) {
      world.nowMs += 20_000;
      const [record, before] = [recorder(), asked];
      hooked.hook = record.hook;
      const answer = await verify(token, code);
      hooked.hook = null;
      const lines = record.lines.map((line) => line.replaceAll(/\d+ characters/g, "text"));
      answers.push({ answer, lines, asked: asked - before });
    }
    for (const one of answers) expect(one).toEqual(answers[0]);
    expect(answers[0]).toMatchObject({ answer: { accepted: false }, asked: 1 });
  });

  test("waits after five wrong codes, and so does the key for everyone", async () => {
    const { token } = await create();
    const other = await create(ann, "gate");
    const code = await world.code(keyId, ben);
    for (let i = 0; i < 6; i++) expect((await verify(token, ofAnother(code))).accepted).toBe(false);
    for (const one of [token, other.token])
      expect(await verify(one, code)).toMatchObject({ status: 429, code: "rate_limited" });
    const elsewhere = (await world.key(ann, "elsewhere")).record.keyId;
    expect((await verify((await create(ann, "x", DAY, elsewhere)).token, code)).accepted).toBe(false);
    world.nowMs += 1_000;
    expect((await verify(other.token, code)).accepted).toBe(true);
  });

  test("leaves accepted codes in the issuer's log, each, and refused ones counted", async () => {
    const { token } = await create();
    const codes = [await world.code(keyId, ben), await world.code(keyId, ben)];
    for (let i = 0; i < 3; i++) await verify(token, "1234567890");
    for (const code of codes) await verify(token, code);
    const about = keyId.slice(0, 32);
    const handed = ["otp.request", "ok", about, 1];
    const accepted = ["otp.verify", "ok", about, 1];
    const expected = [handed, handed, ["otp.verify", "denied", about, 1], accepted, accepted];
    expect(await logOf(ann)).toEqual(expected);
    world.nowMs += 15 * 60_000 + 1;
    await world.service.sweep();
    expect(await logOf(ann)).toEqual([...expected, ["otp.verify", "denied", about, 2]]);
    expect(JSON.stringify(await logOf(ann))).not.toContain(codes[0] ?? "?");
  });
});

describe("a token", () => {
  test("is refused with one answer when unknown, of another kind, expired, revoked, or its key or maker is gone", async () => {
    const [soon, gone, kept] = [await create(ann, "a", 1_000), await create(ann, "b"), await create(ann, "c")];
    await world.call("otp.token.revoke", { keyId, tokenId: gone.tokenId }, ann);
    world.nowMs += 1_000;
    const wrong = [null, "", "x", tokenText(random(32), "otp"), tokenText(random(32)), soon.token, gone.token];
    for (const [at, token] of wrong.entries())
      expect([at, await verify(token, "123456", `198.51.100.${at}`)]).toEqual([at, REFUSED]);
    expect((await verify(kept.token, "123456")).status).toBe(200);
    await world.store.transaction((tx) => tx.setDisabled(ann.userId, true));
    expect(await verify(kept.token, "123456", "203.0.113.1")).toEqual(REFUSED);
  });

  test("that is wrong waits after a few; a right one is answered all the same", async () => {
    const { token } = await create();
    const guess = tokenText(random(32), "otp");
    for (let i = 0; i < 4; i++) expect((await verify(guess, "123456")).status).toBe(401);
    expect((await verify(guess, "123456")).status).toBe(429);
    expect((await verify(token, "123456")).status).toBe(200);
  });

  test("has a name and an end, is one of so many, and its issuer's alone", async () => {
    for (const lifeMs of [0, 365 * DAY + 1]) expect(await codeOf(create(ann, "x", lifeMs))).toBe("bad_input");
    const { tokenId, token } = await create(ann, "a");
    expect(await codeOf(create(ann, "a"))).toBe("exists");
    await create(ann, "b", 1_000);
    await create(ann, "c");
    expect(await codeOf(create(ann, "d"))).toBe("rate_limited");
    world.nowMs += 1_000;
    await create(ann, "d");
    const { items } = await world.call("otp.token.list", { keyId }, ann);
    expect(items.map(({ name }) => name).toSorted()).toEqual(["a", "c", "d"]);
    expect(JSON.stringify(items)).not.toContain(token.slice(4));
    expect(await codeOf(create(ben))).toBe("not_found");
    expect(await codeOf(world.call("otp.token.list", { keyId }, ben))).toBe("not_found");
    expect(await codeOf(world.call("otp.token.revoke", { keyId, tokenId }, ben))).toBe("not_found");
    const other = (await world.key(ben, "other")).record.keyId;
    expect(await codeOf(world.call("otp.token.revoke", { keyId: other, tokenId }, ben))).toBe("not_found");
  });
});

describe("keys", () => {
  test("are listed by name, in pages, with those of which one may have codes", async () => {
    for (let i = 0; i < 20; i++) await world.key(ben, `key-${String(i).padStart(2, "0")}`, { ...HOTP, label: `${i}` });
    const first = await world.call("otp.entries", { after: null }, ben);
    expect([first.items.length, first.more, first.items[0]?.record.name]).toEqual([16, true, "door"]);
    expect(first.items.map(({ own, grants, counter }) => [own, grants.length, counter]).slice(0, 2)).toEqual([
      [false, 1, null],
      [true, 0, 0],
    ]);
    const after = first.items.at(-1)?.record.keyId ?? null;
    const rest = await world.call("otp.entries", { after }, ben);
    expect([rest.items.length, rest.more]).toEqual([5, false]);
  });

  test("have names of their own, an issuer, and one nonce each", async () => {
    const nonce = random(32);
    const input = { name: "door", output: HOTP, nonce, value: null };
    expect(await codeOf(world.call("otp.create", input, ann))).toBe("exists");
    const made = await world.call("otp.create", { ...input, name: "gate" }, ann);
    expect(await world.call("otp.create", { ...input, name: "gate" }, ann)).toEqual(made);
    expect(await codeOf(world.call("otp.create", { ...input, name: "roof" }, ann))).toBe("conflict");
    expect(await codeOf(world.call("otp.create", { ...input, name: "gate" }, ben))).toBe("conflict");
    const output = { kind: "secp256k1" as const };
    expect(await codeOf(world.call("otp.create", { ...input, nonce: random(32), output }, ann))).toBe("bad_input");
  });

  test("go with their issuer's account, with all that was stored about them", async () => {
    await world.code(keyId, ben);
    await create();
    await world.store.transaction((tx) => tx.removeAccount(ann.userId));
    expect(await codeOf(world.code(keyId, ben))).toBe("denied");
    await world.service.sweep();
    const left = await world.store.transaction(async (tx) => {
      const counts: number[] = [];
      for (const kind of ["otpGrant", "otpHandout", "otpToken"]) counts.push(await tx.documentCount(kind, keyId, 9));
      for (const kind of ["otpTag", "otpMinute", "otpKey"]) counts.push(await tx.documentCount(kind, "", 9));
      return counts;
    });
    expect(left).toEqual([0, 0, 0, 0, 0, 0]);
    expect((await world.call("otp.entries", { after: null }, ben)).items).toEqual([]);
  });
});
