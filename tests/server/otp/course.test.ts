import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import vectors from "../../vectors/otp.json";
import { device, HOTP, type OtpPerson, type OtpWorld, otpWorld, RFC_SECRET, requester, TOTP } from "./world.ts";

let world: OtpWorld;
let ann: OtpPerson;
let ben: OtpPerson;

beforeEach(async () => {
  world = await otpWorld();
  ann = await world.person("ann");
  ben = await world.person("ben");
});
afterEach(() => world.close());

describe("codes that are handed out", () => {
  test("are those of RFC 4226 appendix D, one after the other, each accepted once", async () => {
    const { record } = await world.key(ann, "door", HOTP, RFC_SECRET);
    await world.grant(ann, record.keyId, ben);
    for (const expected of vectors.hotp.codes) {
      const code = await world.code(record.keyId, ben);
      expect(code).toBe(expected);
      expect(await world.check(ann, record.keyId, code)).toBe("accepted");
      expect(await world.check(ann, record.keyId, code)).toBe("used");
    }
    const { items } = await world.call("otp.entries", { after: null }, ann);
    expect(items.map(({ record: { name }, counter }) => [name, counter])).toEqual([
      ["door", vectors.hotp.codes.length],
    ]);
  });

  test.each(vectors.totp.rows)("is that of RFC 6238 appendix B at $timeS s ($algorithm)", async (row) => {
    const output = {
      ...TOTP,
      digits: vectors.totp.digits,
      period: vectors.totp.periodS,
      algorithm: row.algorithm as "SHA1",
    };
    world.nowMs = row.timeS * 1_000;
    const { record } = await world.key(ann, "door", output, row.secretAscii);
    await world.grant(ann, record.keyId, ben);
    const asked = await world.ask(record.keyId);
    const handed = await world.request(asked, ben);
    const fromMs = row.timeS * 1_000 - ((row.timeS * 1_000) % 30_000);
    expect(await world.open(asked, handed)).toEqual({ value: row.code, fromMs, untilMs: fromMs + 30_000 });
    expect(handed.expiresAtMs).toBe(fromMs + 60_000);
    expect(await world.check(ann, record.keyId, row.code)).toBe("accepted");
    expect(await world.check(ann, record.keyId, row.code)).toBe("used");
  });

  test("go to devices without an account, too", async () => {
    const { record } = await world.key(ann, "door", HOTP, RFC_SECRET);
    const phone = device("phone");
    await world.grant(ann, record.keyId, phone);
    const code = await world.code(record.keyId, phone);
    expect(code).toBe(vectors.hotp.codes[0] ?? "");
    const { verdict, handedTo } = await world.call("otp.check", { keyId: record.keyId, code, next: null }, ann);
    expect({ verdict, handedTo }).toEqual({ verdict: "accepted", handedTo: requester(phone) });
  });
});
