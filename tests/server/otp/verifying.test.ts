import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { IncarnationId, OtpAskId, StoredKeyId } from "../../../src/ids.ts";
import { otpCode, parseOtpUri } from "../../../src/protocol/otp.ts";
import { LOOK_AHEAD, RESTORE_JUMP } from "../../../src/protocol/otpwindow.ts";
import { EARLIER } from "../../../src/server/incarnations.ts";
import { codeOf } from "../../support/registryworld.ts";
import { HOTP, type OtpPerson, type OtpWorld, otpWorld, RFC_SECRET, requester, TOTP } from "./world.ts";

const DAY = 86_400_000;
const STEP = 30_000;
let world: OtpWorld;
let ann: OtpPerson;
let ben: OtpPerson;
let eve: OtpPerson;

beforeEach(async () => {
  world = await otpWorld();
  ann = await world.person("ann");
  ben = await world.person("ben");
  eve = await world.person("eve");
});
afterEach(() => world.close());

const BOTH = { wants: ["code", "provision"] as const };

async function keyFor(output: typeof HOTP | typeof TOTP = HOTP, secret: string | null = null): Promise<StoredKeyId> {
  const { keyId } = (await world.key(ann, "door", output, secret)).record;
  for (const who of [ben, eve]) await world.grant(ann, keyId, who, BOTH);
  return keyId;
}

/** What an authenticator has of a key, for good. */
async function provision(keyId: StoredKeyId, who = ben) {
  const asked = await world.ask(keyId, { want: "provision" });
  const { value } = await world.open(asked, await world.request(asked, who));
  const key = parseOtpUri(value);
  return {
    value,
    /** Code of a counter, or of a step beside the one of now. */
    at: (n: number) =>
      key.kind === "hotp"
        ? otpCode({ ...key, counter: n }, 0).code
        : otpCode(key, world.nowMs + n * key.period * 1_000).code,
    first: key.counter,
  };
}

const ofAnother = (code: string) => code.replace(/\d$/, (digit) => String((Number(digit) + 1) % 10));
const handouts = async (keyId: StoredKeyId) => (await world.call("otp.handouts", { keyId, after: null }, ann)).items;

describe("a code that was handed out", () => {
  test("is unknown to another key, used once, expired in its time, revoked at its issuer's word", async () => {
    const keyId = await keyFor();
    const other = (await world.key(ann, "other")).record.keyId;
    const codes = await Promise.all(Array.from({ length: 4 }, () => world.code(keyId, ben)));
    const [one = "", two = "", three = "", four = ""] = codes;
    expect(await world.check(ann, other, one)).toBe("unknown");
    expect(await world.check(ann, keyId, one)).toBe("accepted");
    expect(await world.check(ann, keyId, one)).toBe("used");
    const { askId } = (await handouts(keyId)).find(({ state }) => state === "open") ?? { askId: "" };
    await world.call("otp.revoke", { keyId, grantId: null, askId: askId as OtpAskId }, ann);
    const verdicts: string[] = [];
    for (const code of [two, three, four]) verdicts.push(await world.check(ann, keyId, code));
    expect(verdicts.toSorted()).toEqual(["accepted", "accepted", "revoked"]);
    const five = await world.code(keyId, ben);
    world.nowMs += 299_999;
    const six = await world.code(keyId, ben);
    world.nowMs += 1;
    expect(await world.check(ann, keyId, five)).toBe("expired");
    expect(await world.check(ann, keyId, six)).toBe("accepted");
    expect((await handouts(keyId)).map(({ state }) => state).toSorted()).toEqual(
      ["expired", "revoked", "used", "used", "used", "used"].toSorted() as never,
    );
  });

  test("is revoked with its grant and with its key, in the middle of its life", async () => {
    const keyId = await keyFor();
    const [bens, eves] = [await world.code(keyId, ben), await world.code(keyId, eve)];
    const { grants } = await world.grant(ann, keyId, ben, BOTH);
    const { grantId = "" } = grants.find(({ to }) => to.kind === "account" && to.account === "ben") ?? {};
    const { grants: left } = await world.call("otp.revoke", { keyId, grantId, askId: null }, ann);
    expect(left.map(({ to }) => to)).toEqual([requester(eve)]);
    expect(await world.check(ann, keyId, bens)).toBe("revoked");
    const more = await world.code(keyId, eve);
    expect(await world.check(ann, keyId, eves)).toBe("accepted");
    const { status } = await world.call("otp.revoke", { keyId, grantId: null, askId: null }, ann);
    expect(status).toBe("revoked");
    expect(await world.check(ann, keyId, more)).toBe("revoked");
    expect(await world.check(ann, keyId, ofAnother(more))).toBe("revoked");
    expect(await codeOf(world.code(keyId, eve))).toBe("denied");
    // for good
    expect(await codeOf(world.grant(ann, keyId, eve))).toBe("conflict");
  });

  test("of a step is good to the end of the next one", async () => {
    const keyId = await keyFor(TOTP);
    const codes = [await world.code(keyId, ben), await world.code(keyId, eve)];
    world.nowMs += 2 * STEP;
    expect(await world.check(ann, keyId, codes[0] ?? "")).toBe("expired");
    world.nowMs += STEP - 1;
    expect(await world.check(ann, keyId, codes[1] ?? "")).toBe("accepted");
  });

  test("says to its issuer who was handed it, and to nobody else anything", async () => {
    const keyId = await keyFor();
    const code = await world.code(keyId, eve);
    const { handedTo } = await world.call("otp.check", { keyId, code, next: null }, ann);
    expect(handedTo).toEqual(requester(eve));
    for (const id of [keyId, "7".repeat(64) as StoredKeyId])
      expect(await codeOf(world.call("otp.check", { keyId: id, code, next: null }, eve))).toBe("not_found");
  });

  test("is listed for a day after its end, then forgotten with everything that finds it", async () => {
    const keyId = await keyFor();
    const code = await world.code(keyId, ben);
    await world.service.sweep();
    world.nowMs += 300_000 + DAY - 1;
    await world.service.sweep();
    expect((await handouts(keyId)).map(({ state }) => state)).toEqual(["expired"]);
    world.nowMs += 1;
    await world.service.sweep();
    expect(await handouts(keyId)).toEqual([]);
    expect(await world.check(ann, keyId, code)).toBe("unknown");
    const left = await world.store.transaction(async (tx) =>
      Promise.all([tx.documentCount("otpTag", "", 9), tx.documentCount("otpMinute", "", 9)]),
    );
    expect(left).toEqual([0, 0]);
    expect((await world.call("otp.entries", { after: null }, ann)).items[0]?.counter).toBe(1);
  });
});

describe("hand-outs of one minute", () => {
  const left = async (keyId: StoredKeyId) => ({
    listed: (await handouts(keyId)).length,
    minutes: await world.store.transaction((tx) => tx.documentCount("otpMinute", "", 9)),
  });

  test("share one note, and each is forgotten in its own time, with none of the minutes beside it", async () => {
    const keyId = await keyFor();
    world.nowMs = Math.ceil(world.nowMs / 60_000) * 60_000;
    const start = world.nowMs;
    for (const at of [-1, 0, 30_000, 59_999, 60_000]) {
      world.nowMs = start + at;
      await world.code(keyId, ben);
    }
    expect(await left(keyId)).toEqual({ listed: 5, minutes: 3 });
    const due = start + 300_000 + DAY;
    for (const [at, listed, minutes] of [
      [-1, 4, 2],
      [0, 3, 2],
      [59_998, 2, 2],
      [59_999, 1, 1],
      [60_000, 0, 0],
    ] as const) {
      world.nowMs = due + at;
      await world.service.sweep();
      expect(await left(keyId)).toEqual({ listed, minutes });
    }
  });

  test("have their note also after the clock went back, and while it is between two parts of a minute", async () => {
    const keyId = await keyFor();
    const start = (Math.ceil(world.nowMs / 60_000) + 1) * 60_000;
    for (const [at, minutes] of [
      [0, 1],
      [1, 1],
      [-1, 2],
      [-60_001, 3],
      [4_999, 3],
      [5_000, 3],
      [60_000, 4],
    ] as const) {
      world.nowMs = start + at;
      await world.code(keyId, ben);
      expect((await left(keyId)).minutes).toBe(minutes);
    }
    world.nowMs = start + 60_000 + 300_000 + DAY;
    await world.service.sweep();
    expect(await left(keyId)).toEqual({ listed: 0, minutes: 0 });
  });

  test("are forgotten in one sweep, however many there are", async () => {
    const keyId = await keyFor();
    for (let i = 0; i < 70; i++) await world.code(keyId, ben);
    const [first] = await handouts(keyId);
    world.nowMs = (first?.expiresAtMs ?? 0) + DAY;
    await world.service.sweep();
    expect(await left(keyId)).toEqual({ listed: 0, minutes: 0 });
  });
});

describe("guesses", () => {
  test("are free five times, then wait, for a right code too; a right one in time takes a wrong one back", async () => {
    const keyId = await keyFor();
    const good = await world.code(keyId, ben);
    const bad = ofAnother(good);
    for (let i = 0; i < 6; i++) expect(await world.check(ann, keyId, bad)).toBe("unknown");
    expect(await codeOf(world.check(ann, keyId, good))).toBe("rate_limited");
    world.nowMs += 1_000;
    expect(await world.check(ann, keyId, good)).toBe("accepted");
    // five failures count now: the next ones wait longer each
    expect(await world.check(ann, keyId, good)).toBe("used");
    expect(await codeOf(world.check(ann, keyId, bad))).toBe("rate_limited");
    world.nowMs += 1_000;
    expect(await world.check(ann, keyId, bad)).toBe("unknown");
    world.nowMs += 1_000;
    expect(await codeOf(world.check(ann, keyId, bad))).toBe("rate_limited");
    world.nowMs += 1_000;
    expect(await world.check(ann, keyId, bad)).toBe("unknown");
  });

  test("at once are no more than one after the other", async () => {
    const keyId = await keyFor();
    const bad = ofAnother(await world.code(keyId, ben));
    const answers = await Promise.all(Array.from({ length: 30 }, () => codeOf(world.check(ann, keyId, bad))));
    expect(answers.filter((one) => one === "ok").length).toBe(6);
    expect(answers.filter((one) => one === "rate_limited").length).toBe(24);
  });
});

describe("a key in an authenticator", () => {
  test("is one requester's for good, and nobody is handed codes of a hotp any more", async () => {
    const keyId = await keyFor(HOTP, RFC_SECRET);
    await world.code(keyId, ben);
    const { value, first } = await provision(keyId);
    expect([first, value]).toEqual([1, value]);
    expect(value).toStartWith("otpauth://hotp/");
    expect(await codeOf(provision(keyId, eve))).toBe("conflict");
    for (const who of [ben, eve]) expect(await codeOf(world.code(keyId, who))).toBe("conflict");
    const { items } = await world.call("otp.entries", { after: null }, ann);
    expect(items.map(({ provisioned }) => provisioned)).toEqual([true]);
    // who lost the authenticator gets the same key anew
    expect((await provision(keyId)).value).toBe(value);
  });

  test("waits until no code of it is open with somebody else", async () => {
    const keyId = await keyFor(TOTP);
    const code = await world.code(keyId, eve);
    expect(await codeOf(provision(keyId))).toBe("rate_limited");
    expect(await world.check(ann, keyId, code)).toBe("accepted");
    expect(await codeOf(provision(keyId))).toBe("ok");
  });

  test("waits for an open code of somebody else behind many that were used since", async () => {
    const keyId = await keyFor();
    await world.code(keyId, eve);
    for (let n = 0; n < 70; n++) {
      world.nowMs += 1;
      expect(await world.check(ann, keyId, await world.code(keyId, ben))).toBe("accepted");
    }
    expect(await codeOf(provision(keyId))).toBe("rate_limited");
  });

  test.each([HOTP, TOTP])("of an authenticator is revoked with the grant of whoever has it: %o", async (output) => {
    const keyId = await keyFor(output);
    const { at, first } = await provision(keyId);
    const grants = (await world.grant(ann, keyId, ben, BOTH)).grants;
    const own = grants.find(({ to }) => to.kind === "account" && to.account === "ben");
    world.nowMs += 3 * STEP;
    const code = at(output.kind === "hotp" ? first : 0);
    await world.call("otp.revoke", { keyId, grantId: own?.grantId ?? null, askId: null }, ann);
    expect(await world.check(ann, keyId, code)).toBe("revoked");
    // back with a new grant, and the code was not used up by who asked in vain
    await world.grant(ann, keyId, ben, BOTH);
    expect(await world.check(ann, keyId, code)).toBe("accepted");
  });

  test("of a hotp is accepted in order, up to ten ahead, and each code once", async () => {
    const keyId = await keyFor();
    const { at } = await provision(keyId);
    expect(await world.check(ann, keyId, at(LOOK_AHEAD))).toBe("unknown");
    expect(await world.check(ann, keyId, at(LOOK_AHEAD - 1))).toBe("accepted");
    expect(await world.check(ann, keyId, at(LOOK_AHEAD - 1))).toBe("unknown");
    expect(await world.check(ann, keyId, at(0))).toBe("unknown");
    expect(await world.check(ann, keyId, at(LOOK_AHEAD))).toBe("accepted");
  });

  test("of a hotp that ran ahead is found again by two codes in a row", async () => {
    const keyId = await keyFor();
    const { at } = await provision(keyId);
    expect(await world.check(ann, keyId, at(500))).toBe("unknown");
    expect(await world.check(ann, keyId, at(500), at(502))).toBe("unknown");
    expect(await world.check(ann, keyId, at(500), at(501))).toBe("accepted");
    expect(await world.check(ann, keyId, at(500), at(501))).toBe("unknown");
    expect(await world.check(ann, keyId, at(502))).toBe("accepted");
    expect(await world.check(ann, keyId, at(1_600), at(1_601))).toBe("unknown");
  });

  test("of a totp is accepted a step around now, each step once, also when the clock goes back", async () => {
    const keyId = await keyFor(TOTP);
    const { at } = await provision(keyId);
    for (const far of [-2, 2]) expect([far, await world.check(ann, keyId, at(far))]).toEqual([far, "unknown"]);
    for (const near of [-1, 0, 1]) {
      const code = at(near);
      expect([near, await world.check(ann, keyId, code)]).toEqual([near, "accepted"]);
      expect([near, await world.check(ann, keyId, code)]).toEqual([near, "used"]);
    }
    const code = at(0);
    world.nowMs += 3 * STEP;
    expect(await world.check(ann, keyId, at(0))).toBe("accepted");
    world.nowMs -= 3 * STEP;
    expect(await world.check(ann, keyId, code)).not.toBe("accepted");
  });

  test("of a totp shows what its holder may also be handed: used once in all", async () => {
    const keyId = await keyFor(TOTP);
    const { at } = await provision(keyId);
    const code = await world.code(keyId, ben);
    expect(code).toBe(at(0));
    expect(await codeOf(world.code(keyId, eve))).toBe("conflict");
    expect(await world.check(ann, keyId, code)).toBe("accepted");
    expect(await world.check(ann, keyId, at(0))).toBe("used");
    expect(await world.check(ann, keyId, at(1))).toBe("accepted");
  });
});

describe("after a restore", () => {
  const restored = async () => {
    world.incarnation = "2".repeat(32) as IncarnationId;
    await world.store.transaction((tx) => tx.putSetting(EARLIER, "1".repeat(32)));
  };

  test("a counter jumps ahead, and no code of before is accepted", async () => {
    const keyId = await keyFor();
    const asked = await world.ask(keyId);
    const handed = await world.request(asked, ben);
    const { value } = await world.open(asked, handed);
    await restored();
    expect(await world.check(ann, keyId, value)).toBe("expired");
    expect(await world.request(asked, ben)).toEqual(handed);
    await world.code(keyId, ben);
    const { items } = await world.call("otp.entries", { after: null }, ann);
    expect(items[0]?.counter).toBe(1 + RESTORE_JUMP + 1);
    await world.code(keyId, ben);
    expect((await world.call("otp.entries", { after: null }, ann)).items[0]?.counter).toBe(1 + RESTORE_JUMP + 2);
  });

  test("a key whose first code is younger than the backup jumps, too", async () => {
    const keyId = await keyFor();
    await world.store.transaction((tx) => tx.removeDocument("otpState", keyId));
    await restored();
    await world.code(keyId, ben);
    expect((await world.call("otp.entries", { after: null }, ann)).items[0]?.counter).toBe(RESTORE_JUMP + 1);
  });

  test("no step of the last minutes is handed out or accepted", async () => {
    const keyId = await keyFor(TOTP);
    const { at } = await provision(keyId);
    await restored();
    for (const near of [-1, 0, 1]) expect(await world.check(ann, keyId, at(near))).toBe("unknown");
    expect(await codeOf(world.code(keyId, ben))).toBe("rate_limited");
    world.nowMs += STEP;
    expect(await world.check(ann, keyId, at(0))).toBe("unknown");
    expect(await world.check(ann, keyId, at(1))).toBe("accepted");
  });

  test("an authenticator of a hotp is found again by two codes, and taken by one no more until then", async () => {
    const keyId = await keyFor();
    const { at } = await provision(keyId);
    await restored();
    expect(await world.check(ann, keyId, at(3))).toBe("unknown");
    expect(await world.check(ann, keyId, at(4), at(5))).toBe("accepted");
    expect(await world.check(ann, keyId, at(6))).toBe("accepted");
  });
});
