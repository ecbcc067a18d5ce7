import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { verifyByToken } from "../../../src/client/otpdistribution/verifying.ts";
import { Fault } from "../../../src/errors.ts";
import { otpCode, parseOtpUri } from "../../../src/protocol/otp.ts";
import type { OutputOf } from "../../../src/wire/operations.ts";
import { pinOf } from "../../../src/wire/pin.ts";
import { random, testSurroundings } from "../../support/harness.ts";
import { rejected } from "../../support/hostile.ts";
import { HOTP, type Keeper, meddling, type Person, TOTP, type World, world } from "./world.ts";

/* One-time codes from issuer to requester to relying service, through vaults. */

setDefaultTimeout(60_000);

let made: World;
let at: Keeper;
let issuer: Person;
let user: Person;
let door: Person;
let turn = 0;

beforeAll(async () => {
  made = world();
  at = await made.keeper();
  issuer = await made.account("issuer", at);
  user = await made.account("user", at);
  door = await made.local("door");
});
afterEach(() => {
  at.middle = null;
});
afterAll(() => made.end());

const server = () => ({ url: at.url, pin: at.pin });
const GRANT = { wants: ["code"], perHour: null, untilMs: null } as const;

async function key(output = HOTP as never) {
  const name = `code${++turn}`;
  const entry = await issuer.client.otpCreate({ name, output, from: null });
  return { name, keyId: entry.keyId };
}

async function forUser(wants: readonly ("code" | "provision")[] = ["code"]) {
  const one = await key();
  await issuer.client.otpGrant({ ...GRANT, key: one.name, to: { kind: "account", name: "user" }, wants });
  return one;
}

async function forDevice() {
  const one = await key();
  const { keyHex } = await door.client.otpDevice();
  await issuer.client.otpGrant({ ...GRANT, key: one.name, to: { kind: "device", name: keyHex } });
  return one;
}

describe("codes", () => {
  test("an account and a device are handed codes, each good once", async () => {
    const { name, keyId } = await forUser();
    const { keyHex, words } = await door.client.otpDevice();
    expect(words).toHaveLength(6);
    expect(await door.again().client.otpDevice()).toEqual({ keyHex, words });
    const granted = await issuer.client.otpGrant({ ...GRANT, key: name, to: { kind: "device", name: keyHex } });
    expect(granted.grants.map(({ to }) => to)).toContainEqual({ kind: "device", name: keyHex });
    const first = await user.client.otpRequest({ key: name, want: "code", server: null });
    const second = await door.client.otpRequest({ key: keyId, want: "code", server: server() });
    expect([first.value, second.value].every((code) => /^[0-9]{6}$/.test(code))).toBe(true);
    expect(first.askId).not.toBe(second.askId);
    expect(user.open.box.model.held.otpAsks).toEqual([]);
    const check = (code: string) => issuer.client.otpCheck({ key: name, code, next: null });
    expect(await check(first.value)).toEqual({ verdict: "accepted", handedTo: { kind: "account", name: "user" } });
    expect(await check(first.value)).toMatchObject({ verdict: "used" });
    const { tokenId, token } = await issuer.client.otpTokenCreate({
      key: name,
      name: "gate",
      untilMs: Date.now() + 1e6,
    });
    const verify = (code: string, given = token) => door.client.otpVerify({ server: server(), token: given, code });
    // as a person reads it out
    expect(await verify(`${second.value.slice(0, 3)} ${second.value.slice(3)}`)).toEqual({ accepted: true });
    expect(await verify(second.value)).toEqual({ accepted: false });
    // as a service without a vault asks
    const third = await user.client.otpRequest({ key: name, want: "code", server: null });
    const alone = () => verifyByToken(testSurroundings(), { server: server(), token, code: third.value }, made);
    expect([await alone(), await alone()]).toEqual([{ accepted: true }, { accepted: false }]);
    expect(await issuer.client.otpTokens({ key: name })).toMatchObject([{ tokenId, name: "gate" }]);
    await issuer.client.otpTokenRevoke({ key: name, tokenId });
    await rejected(verify("000000"), "session_invalid");
    // no login mends a token, with a vault or without one
    const given = { server: server(), token, code: "000000" };
    for (const refused of [door.client.otpVerify(given), verifyByToken(testSurroundings(), given, made)]) {
      const error = await refused.catch((fault: unknown) => fault);
      expect(error).toMatchObject({
        code: "session_invalid",
        hint: expect.stringContaining("keyhold otp token create"),
      });
    }
    await rejected(verify("12"), "bad_input");
    const used = { state: "used" };
    expect(await issuer.client.otpHandouts({ key: name })).toMatchObject([used, used, used]);
  });

  test("keys of one name by two issuers are told apart by what their records say of the issuer", async () => {
    const other = await made.account("other", at);
    const name = `code${++turn}`;
    for (const [who, said] of [
      [issuer, "Acme doors"],
      [other, ""],
    ] as const) {
      await who.client.otpCreate({ name, output: { ...HOTP, issuer: said } as never, from: null });
      await who.client.otpGrant({ ...GRANT, key: name, to: { kind: "account", name: "user" } });
    }
    const entries = (await user.client.otpEntries()).filter((one) => one.name === name);
    expect(entries.map(({ own, issuer: by }) => [own, by]).toSorted()).toEqual([
      [false, null],
      [false, "Acme doors"],
    ]);
    const { why } = await rejected(user.client.otpRequest({ key: name, want: "code", server: null }), "ambiguous");
    for (const { keyId, issuer: by } of entries)
      expect(why).toContain(by === null ? `${name} ${keyId}` : `${name} of ${by} ${keyId}`);
  });

  test("an ask whose answer was lost is sent again as it was", async () => {
    for (const arrives of [true, false]) {
      const { keyId, name } = await forDevice();
      let lost = false;
      at.middle = async (operation, body, forward) => {
        if (operation !== "otp.request.device" || lost) return forward(operation, body);
        lost = true;
        if (arrives) await forward(operation, body);
        throw new Fault("outcome_unknown", "the answer was lost");
      };
      const wanted = { key: keyId, want: "code", server: server() } as const;
      await rejected(door.client.otpRequest(wanted), "outcome_unknown");
      const [waiting] = door.open.box.model.held.otpAsks;
      expect(waiting).toMatchObject({ device: true, ask: { keyId } });
      await door.again().client.otpRequest(wanted);
      expect(await issuer.client.otpHandouts({ key: name })).toHaveLength(1);
      const next = await door.client.otpRequest(wanted);
      expect(await issuer.client.otpHandouts({ key: name })).toMatchObject([{ askId: next.askId }, {}]);
    }
  });

  test("two calls at once are two asks, of one process or of two; what one of them loses it asks again", async () => {
    const { keyId, name } = await forDevice();
    const wanted = { key: keyId, want: "code", server: server() } as const;
    // both have sent before either has an answer
    const both = Promise.withResolvers<void>();
    let sent = 0;
    at.middle = async (operation, body, forward) => {
      if (operation !== "otp.request.device") return forward(operation, body);
      if (++sent === 2) both.resolve();
      await both.promise;
      const reply = await forward(operation, body);
      if (sent++ === 3) throw new Fault("outcome_unknown", "the answer was lost");
      return reply;
    };
    const done = await Promise.allSettled([door, door.again()].map(({ client }) => client.otpRequest(wanted)));
    expect(done.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
    at.middle = null;
    const first = done.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    const again = await door.again().client.otpRequest(wanted);
    const handouts = await issuer.client.otpHandouts({ key: name });
    expect(handouts.map(({ askId }) => askId).toSorted()).toEqual([again, ...first].map((one) => one.askId).toSorted());
    expect(handouts).toHaveLength(2);
    const pair = await Promise.all([door.client.otpRequest(wanted), door.client.otpRequest(wanted)]);
    expect(new Set(pair.map(({ askId }) => askId)).size).toBe(2);
    // nothing is left beside the vault
    const path = door.open.box.path;
    expect(readdirSync(dirname(path)).filter((file) => file.includes(".ask-"))).toEqual([]);
  });

  test("an answer that is not to this ask is refused, and so is another key's", async () => {
    const { keyId } = await forDevice();
    const wanted = { key: keyId, want: "code", server: server() } as const;
    type Handed = OutputOf<"otp.request">;
    const wrong: readonly ((handed: Handed) => Handed)[] = [
      (handed) => ({ ...handed, sealed: random(handed.sealed.length) }),
      (handed) => ({ ...handed, askId: "ab".repeat(32) as never }),
      (handed) => ({ ...handed, record: { ...handed.record, keyId: "cd".repeat(32) as never } }),
      (handed) => ({ ...handed, record: { ...handed.record, version: 2 } }),
    ];
    for (const change of wrong) {
      at.middle = meddling("otp.request.device", change as never);
      const fault = await rejected(door.client.otpRequest(wanted), "integrity");
      expect(fault.culprits).toEqual([at.url]);
    }
    at.middle = null;
    await door.client.otpRequest(wanted);
  });

  test("who has no grant is refused, and keeps no ask", async () => {
    const { keyId, name } = await key();
    await rejected(user.client.otpRequest({ key: keyId, want: "code", server: null }), "denied");
    expect(user.open.box.model.held.otpAsks).toEqual([]);
    await rejected(user.client.otpRequest({ key: name, want: "code", server: null }), "not_found");
    await rejected(door.client.otpRequest({ key: name, want: "code", server: server() }), "bad_input");
    await rejected(door.client.otpRequest({ key: keyId, want: "code", server: null }), "bad_input");
    await rejected(door.client.otpCreate({ name: "x", output: HOTP as never, from: null }), "bad_input");
    await rejected(issuer.client.otpGrant({ ...GRANT, key: name, to: { kind: "device", name: "short" } }), "bad_input");
  });

  test("grants, codes and keys are revoked", async () => {
    const { name } = await forUser();
    const code = await user.client.otpRequest({ key: name, want: "code", server: null });
    await issuer.client.otpRevoke({ key: name, grantId: null, askId: code.askId });
    expect(await issuer.client.otpCheck({ key: name, code: code.value, next: null })).toMatchObject({
      verdict: "revoked",
    });
    const [entry] = (await issuer.client.otpEntries()).filter((one) => one.name === name);
    await issuer.client.otpRevoke({ key: name, grantId: entry?.grants[0]?.grantId ?? "", askId: null });
    await rejected(user.client.otpRequest({ key: entry?.keyId ?? "", want: "code", server: null }), "denied");
    expect(await issuer.client.otpRevoke({ key: name, grantId: null, askId: null })).toMatchObject({
      status: "revoked",
    });
  });
});

describe("keys", () => {
  test("one of this vault is brought to the store, and gives the same codes", async () => {
    const uri =
      "otpauth://totp/test:own?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=test&algorithm=SHA1&digits=6&period=30";
    const { storeSecret } = await import("../../../src/client/writing.ts");
    const value = new TextEncoder().encode(uri);
    await storeSecret(issuer.open, { name: "own", type: "totp", value, tags: [], where: null });
    await storeSecret(issuer.open, { name: "note", type: "note", value: random(8).fill(65), tags: [], where: null });
    await rejected(issuer.client.otpCreate({ name: "own", output: null, from: "note" }), "bad_input");
    await rejected(issuer.client.otpCreate({ name: "own", output: null, from: null }), "bad_input");
    const entry = await issuer.client.otpCreate({ name: "own", output: null, from: "own" });
    expect(entry).toMatchObject({ kind: "totp", own: true, ceremonyId: null });
    await issuer.client.otpGrant({ ...GRANT, key: "own", to: { kind: "account", name: "user" } });
    at.server.freeze();
    const got = await user.client.otpRequest({ key: "own", want: "code", server: null });
    const atMs = got.from === null ? at.server.ctx.now() : Date.parse(got.from);
    expect(got.value).toBe(otpCode(parseOtpUri(uri), atMs).code);
  });

  test("a provisioning is one requester's for good: again, the same", async () => {
    const { name, keyId } = await forUser(["code", "provision"]);
    const { keyHex } = await door.client.otpDevice();
    await issuer.client.otpGrant({ ...GRANT, key: name, to: { kind: "device", name: keyHex }, wants: ["provision"] });
    const first = await user.client.otpRequest({ key: name, want: "provision", server: null });
    expect(parseOtpUri(first.value).kind).toBe("hotp");
    expect(await user.again().client.otpRequest({ key: name, want: "provision", server: null })).toEqual(first);
    await rejected(door.client.otpRequest({ key: keyId, want: "provision", server: server() }), "conflict");
    await rejected(user.client.otpRequest({ key: name, want: "code", server: null }), "conflict");
    const [entry] = (await issuer.client.otpEntries()).filter((one) => one.name === name);
    expect(entry?.provisioned).toBe(true);
  });

  test("a key moves to another server, and no other", async () => {
    const other = await made.keeper("two");
    const there = await made.account("issuer", other);
    const { name, keyId } = await key(TOTP as never);
    const to = { url: other.url, pin: other.pin };
    await rejected(issuer.client.otpSend({ key: name, server: server() }), "bad_input");
    await rejected(issuer.client.otpSend({ key: name, server: { ...to, pin: at.pin } }), "bad_input");
    const stranger = pinOf(random(32));
    await rejected(issuer.client.otpSend({ key: name, server: { ...to, pin: stranger } }), "pin_mismatch");
    const parcel = await issuer.client.otpSend({ key: name, server: to });
    expect(await issuer.client.otpSend({ key: keyId, server: to })).toEqual(parcel);
    await rejected(issuer.client.otpReceive({ parcel }), "bad_input");
    await rejected(there.client.otpReceive({ parcel: random(40) }), "bad_input");
    const text = new TextDecoder().decode(parcel);
    const changed = text.replace(/"counter":\d+/, '"counter":7');
    await rejected(there.client.otpReceive({ parcel: new TextEncoder().encode(changed) }), "integrity");
    const received = await there.client.otpReceive({ parcel });
    expect(received).toMatchObject({ name, version: 1, status: "active" });
    expect(received.keyId).not.toBe(keyId);
    expect(await there.client.otpReceive({ parcel })).toEqual(received);
    const [entry] = (await issuer.client.otpEntries()).filter((one) => one.keyId === keyId);
    expect(entry).toMatchObject({ status: "moved", movedTo: other.pin });
  });

  test("who asks for a key that has left is told where and how to go on", async () => {
    const other = await made.keeper("three");
    const there = await made.account("issuer", other);
    const { name, keyId } = await forUser();
    const { keyHex } = await door.client.otpDevice();
    await issuer.client.otpGrant({ ...GRANT, key: name, to: { kind: "device", name: keyHex } });
    const parcel = await issuer.client.otpSend({ key: name, server: { url: other.url, pin: other.pin } });
    const received = await there.client.otpReceive({ parcel });
    for (const ask of [
      () => user.client.otpRequest({ key: name, want: "code", server: null }),
      () => door.client.otpRequest({ key: keyId, want: "code", server: server() }),
    ]) {
      const { hint } = await rejected(ask(), "conflict");
      expect(hint).toContain(`keyhold otp request ${received.keyId} --server URL --pin ${other.pin}`);
    }
    expect(user.open.box.model.held.otpAsks.filter(({ ask }) => ask.keyId === keyId)).toEqual([]);
    await there.client.otpGrant({ ...GRANT, key: name, to: { kind: "device", name: keyHex } });
    const at = { url: other.url, pin: other.pin };
    const { value } = await door.client.otpRequest({ key: received.keyId, want: "code", server: at });
    expect(value).toMatch(/^[0-9]{6}$/);
  });
});
