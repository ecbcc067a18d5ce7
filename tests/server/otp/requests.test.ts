import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { Signer } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import type { StoredKeyId } from "../../../src/ids.ts";
import { type OtpAsk, signOtpAsk } from "../../../src/protocol/otphandout.ts";
import { random } from "../../support/harness.ts";
import { codeOf } from "../../support/registryworld.ts";
import { hookedStore, recorder } from "../../support/storeprobe.ts";
import { device, type OtpPerson, type OtpWorld, otpWorld, TOTP } from "./world.ts";

const HOUR = 3_600_000;
const hooked = hookedStore();
let world: OtpWorld;
let ann: OtpPerson;
let ben: OtpPerson;
let eve: OtpPerson;
let keyId: StoredKeyId;

beforeEach(async () => {
  hooked.hook = null;
  world = await otpWorld({ wrap: hooked.wrap, limits: { otpKeyPerMinute: 40, loginFreeFailuresPerAddress: 3 } });
  ann = await world.person("ann");
  ben = await world.person("ben");
  eve = await world.person("eve");
  keyId = (await world.key(ann, "door")).record.keyId;
  await world.grant(ann, keyId, ben);
});
afterEach(() => world.close());

const faultOf = async (work: Promise<unknown>) =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? [error.code, error.message, error.hint] : error),
  );
const asks = async (who: OtpPerson | Signer, change: Partial<OtpAsk> = {}, id = keyId) =>
  world.request(await world.ask(id, change), who);
const DENIED = ["denied", "the server hands nothing of this key to you", undefined];

describe("who is not entitled", () => {
  test("uses up no counter where nothing can be sealed to its key", async () => {
    const ask = { recipient: new Uint8Array(32) };
    expect(await codeOf(world.ask(keyId, ask).then((asked) => world.request(asked, ben)))).toBe("bad_input");
    const { items } = await world.call("otp.entries", { after: null }, ann);
    expect(items.map(({ record, counter }) => [record.keyId, counter])).toContainEqual([keyId, 0]);
  });

  test("gets one answer, and costs the same statements, whatever the reason", async () => {
    const phone = device("phone");
    const over = await world.person("over");
    const ended = await world.person("ended");
    await world.grant(ann, keyId, over, { untilMs: world.nowMs + 1_000 });
    const { grants } = await world.grant(ann, keyId, ended);
    const grantId = grants.find(({ to }) => to.kind === "account" && to.account === "ended")?.grantId ?? "";
    await world.call("otp.revoke", { keyId, grantId, askId: null }, ann);
    const gone = (await world.key(ann, "gone")).record.keyId;
    await world.grant(ann, gone, ben);
    await world.call("otp.revoke", { keyId: gone, grantId: null, askId: null }, ann);
    world.nowMs += 1_000;
    const unknown = random(32).toHex() as StoredKeyId;
    const reasons: [string, OtpPerson | Signer, Partial<OtpAsk>, StoredKeyId][] = [
      ["unknown key", ben, {}, unknown],
      ["no grant", eve, {}, keyId],
      ["the issuer without a grant", ann, {}, keyId],
      ["a grant that ended", over, {}, keyId],
      ["a revoked grant", ended, {}, keyId],
      ["a revoked key", ben, {}, gone],
      ["another wish", ben, { want: "provision" }, keyId],
    ];
    const lines: unknown[] = [];
    for (const [reason, who, change, id] of reasons) {
      const asked = await world.ask(id, change);
      const record = recorder();
      hooked.hook = record.hook;
      const answer = await faultOf(world.request(asked, who));
      hooked.hook = null;
      expect([reason, answer]).toEqual([reason, DENIED]);
      lines.push(record.lines);
    }
    for (const one of lines) expect(one).toEqual(lines[0]);
    expect(await faultOf(asks(phone))).toEqual(DENIED);
    expect(await codeOf(asks(ben))).toBe("ok");
  });

  test("is told when the ask is for another server, and nothing is counted", async () => {
    expect(await codeOf(asks(ben, { server: random(32) }))).toBe("denied");
    const { items } = await world.call("otp.handouts", { keyId, after: null }, ann);
    expect(items).toEqual([]);
  });

  test("an ask of another time is stale, and one within a minute is not", async () => {
    for (const [by, code] of [
      [-60_001, "stale"],
      [60_001, "stale"],
      [-60_000, "ok"],
      [60_000, "ok"],
    ] as const)
      expect([by, await codeOf(asks(ben, { atMs: world.nowMs + by }))]).toEqual([by, code]);
  });

  test("takes no grant over with a name that became free", async () => {
    const { credentialId } = eve.row;
    const { record } = await world.key(ann, "kept");
    await world.grant(ann, record.keyId, eve);
    await world.store.transaction((tx) => tx.removeAccount(eve.userId));
    const row = { ...(await world.person("other")).row, credentialId };
    expect(await codeOf(world.request(await world.ask(record.keyId), { ...eve, userId: row.userId, row }))).toBe(
      "denied",
    );
  });

  test("a grant for a name that nobody has is given and shown alike, and is the first account's of that name", async () => {
    const view = await world.call(
      "otp.grant",
      { keyId, to: { kind: "account", account: "zoe" }, wants: ["code"], perHour: null, untilMs: null },
      ann,
    );
    expect(view.grants.map(({ to }) => to)).toContainEqual({ kind: "account", account: "zoe" });
    const zoe = await world.person("zoe");
    expect(await codeOf(asks(zoe))).toBe("ok");
    const later = { ...zoe, userId: eve.userId, row: { ...eve.row, credentialId: zoe.row.credentialId } };
    expect(await faultOf(asks(later))).toEqual(DENIED);
  });
});

describe("devices", () => {
  test("sign their asks; guesses from an address wait, and are not even verified then", async () => {
    const phone = device("phone");
    await world.grant(ann, keyId, phone);
    const { ask } = await world.ask(keyId);
    const signed = signOtpAsk(phone, ask);
    const forged = { ...signed, signature: signed.signature.map((byte, at) => (at === 0 ? byte ^ 1 : byte)) };
    const from = { address: "192.0.2.9" };
    for (let i = 0; i < 4; i++) expect(await codeOf(world.service["otp.request.device"](from, forged))).toBe("denied");
    expect(await codeOf(world.service["otp.request.device"](from, forged))).toBe("rate_limited");
    expect(await codeOf(world.service["otp.request.device"](from, signed))).toBe("rate_limited");
    const elsewhere = { address: "192.0.2.10" };
    expect(await codeOf(world.service["otp.request.device"](elsewhere, signed))).toBe("ok");
    // what was signed for one key is not taken from another
    const other = device("other");
    await world.grant(ann, keyId, other);
    const borrowed = { ...signed, device: other.publicKey };
    expect(await codeOf(world.service["otp.request.device"](elsewhere, borrowed))).toBe("denied");
  });

  test("get the same bytes for the same ask from whomever it comes", async () => {
    const phone = device("phone");
    await world.grant(ann, keyId, phone);
    const asked = await world.ask(keyId);
    const first = await world.request(asked, phone);
    expect(await world.request(asked, phone, "198.51.100.1")).toEqual(first);
  });
});

describe("the same ask", () => {
  test("gets the same bytes, later than an ask of its time would be taken, and counts once", async () => {
    const asked = await world.ask(keyId);
    const first = await world.request(asked, ben);
    world.nowMs += 120_000;
    expect(await world.request(asked, ben)).toEqual(first);
    const { items } = await world.call("otp.entries", { after: null }, ann);
    expect(items[0]?.counter).toBe(1);
    // one byte else is another ask
    expect(await codeOf(world.request({ ...asked, ask: { ...asked.ask, nonce: random(32) } }, ben))).toBe("stale");
  });

  test("is another one for another requester", async () => {
    await world.grant(ann, keyId, eve);
    const asked = await world.ask(keyId);
    const [one, two] = [await world.request(asked, ben), await world.request(asked, eve)];
    expect(one.askId).not.toBe(two.askId);
    expect((await world.open(asked, one)).value).not.toBe((await world.open(asked, two)).value);
  });

  test("gets nothing once its grant, the hand-out or the key is revoked", async () => {
    const asked = await world.ask(keyId);
    const { askId } = await world.request(asked, ben);
    await world.call("otp.revoke", { keyId, grantId: null, askId }, ann);
    expect(await faultOf(world.request(asked, ben))).toEqual(DENIED);
    const again = await world.ask(keyId);
    await world.request(again, ben);
    const { grants } = await world
      .call("otp.entries", { after: null }, ann)
      .then(({ items }) => items[0] ?? { grants: [] });
    await world.call("otp.revoke", { keyId, grantId: grants[0]?.grantId ?? "", askId: null }, ann);
    expect(await faultOf(world.request(again, ben))).toEqual(DENIED);
    // a grant made anew does not bring it back
    await world.grant(ann, keyId, ben);
    expect(await faultOf(world.request(again, ben))).toEqual(DENIED);
  });
});

describe("rates", () => {
  test("a requester gets so many in any hour, and is told how long to wait", async () => {
    await world.grant(ann, keyId, ben, { perHour: 3 });
    await world.grant(ann, keyId, eve, { perHour: 3 });
    for (let i = 0; i < 3; i++) expect(await codeOf(asks(ben))).toBe("ok");
    const { ask } = await world.ask(keyId);
    const refused = await world.call("otp.request", { ask }, ben).catch((error: unknown) => error as Fault);
    if (!(refused instanceof Fault)) throw new Error("it was handed out");
    expect(refused.code).toBe("rate_limited");
    expect(refused.retryAfterMs).toBeGreaterThan(0);
    expect(refused.retryAfterMs).toBeLessThanOrEqual(HOUR + HOUR / 12);
    expect(await codeOf(asks(eve))).toBe("ok");
    world.nowMs += refused.retryAfterMs ?? 0;
    expect(await codeOf(asks(ben))).toBe("ok");
  });

  test("a new word on a grant does not begin its hour anew", async () => {
    await world.grant(ann, keyId, ben, { perHour: 1 });
    expect(await codeOf(asks(ben))).toBe("ok");
    await world.grant(ann, keyId, ben, { perHour: 1 });
    expect(await codeOf(asks(ben))).toBe("rate_limited");
  });

  test("a key hands out so many in any minute, to all together", async () => {
    await world.grant(ann, keyId, eve);
    for (let i = 0; i < 40; i++) expect(await codeOf(asks(i % 2 ? ben : eve))).toBe("ok");
    expect(await codeOf(asks(ben))).toBe("rate_limited");
    expect(await codeOf(asks(eve))).toBe("rate_limited");
    world.nowMs += 65_000;
    expect(await codeOf(asks(ben))).toBe("ok");
  });

  test("a step has one code: this one, the next one, and then none until it has begun", async () => {
    world.nowMs = 1_800_000_000_000;
    const { record } = await world.key(ann, "steps", TOTP);
    await world.grant(ann, record.keyId, ben);
    const windows: (number | null)[] = [];
    for (let i = 0; i < 2; i++) {
      const asked = await world.ask(record.keyId);
      windows.push((await world.open(asked, await world.request(asked, ben))).fromMs);
    }
    expect(windows).toEqual([world.nowMs, world.nowMs + 30_000]);
    const none = await asks(ben, {}, record.keyId).catch((error: unknown) => error as Fault);
    expect(none).toMatchObject({ code: "rate_limited", retryAfterMs: 30_000 });
    world.nowMs += 30_000;
    expect(await codeOf(asks(ben, {}, record.keyId))).toBe("ok");
  });

  test("a requester that asks at every beginning leaves the next step to those who have none", async () => {
    world.nowMs = 1_800_000_000_000;
    const { record } = await world.key(ann, "steps", TOTP);
    for (const who of [ben, eve]) await world.grant(ann, record.keyId, who);
    const ask = (who: OtpPerson) => asks(who, {}, record.keyId);
    const got = { ben: 0, eve: 0 };
    for (let step = 0; step < 8; step++) {
      // ben as soon and as often as he can, eve once in the middle
      for (let time = 0; time < 3; time++) if ((await codeOf(ask(ben))) === "ok") got.ben += 1;
      world.nowMs += 15_000;
      if ((await codeOf(ask(eve))) === "ok") got.eve += 1;
      world.nowMs += 15_000;
    }
    expect(got).toEqual({ ben: 5, eve: 4 });
    // he has that of now, which he was handed early
    expect(await ask(ben).catch((error: unknown) => error)).toMatchObject({
      code: "rate_limited",
      retryAfterMs: 30_000,
    });
    // nothing was counted for what was refused
    world.nowMs += 30_000;
    expect(await codeOf(ask(ben))).toBe("ok");
  });

  test("what has one requester alone, or is an authenticator's, is left to nobody", async () => {
    world.nowMs = 1_800_000_000_000;
    const { record } = await world.key(ann, "steps", TOTP);
    for (const who of [ben, eve]) await world.grant(ann, record.keyId, who, { wants: ["code", "provision"] });
    await asks(ben, { want: "provision" }, record.keyId);
    for (let time = 0; time < 2; time++) expect(await codeOf(asks(ben, {}, record.keyId))).toBe("ok");
  });
});
