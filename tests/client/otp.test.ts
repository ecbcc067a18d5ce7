import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import { otpCode, parseOtpUri } from "../../src/protocol/otp.ts";
import { registerDevice, type TestDevice } from "../support/harness.ts";
import { rejected, startVillain, type Villain } from "../support/hostile.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const HOTP = "otpauth://hotp/bank:ada?issuer=bank&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&counter=0";
const TOTP = "otpauth://totp/web:ada?issuer=web&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const CODES = ["755224", "287082", "359152", "969429", "338314"];

let villain: Villain;
let ada: TestDevice;
let client: KeyholdClient;
let count = 0;
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  ada = await registerDevice(villain.link, `otp ${count++}`, "a password of ada");
  ({ client } = ada);
});
afterEach(() => ada.end());

const keep = (name: string, type: "totp" | "hotp", uri: string) =>
  client.store({ name, type, value: ascii(uri), tags: [], where: null });
const code = async (name: string) => (await client.otp({ name, fresh: false })).code;

describe("one-time passwords of the owner", () => {
  test("of a counter come once each, in order, and every one has its version", async () => {
    await keep("bank", "hotp", HOTP);
    for (const expected of CODES) expect(await code("bank")).toBe(expected);
    const got = await client.get({ name: "bank", version: null, reveal: true, fresh: true, save: false });
    expect(parseOtpUri(new TextDecoder().decode(got.value ?? undefined))).toMatchObject({ counter: 5, issuer: "bank" });
    expect(got.info.version).toBe(6);
    expect(got.info.type).toBe("hotp");
  });

  test("asked for at once never come twice", async () => {
    await keep("bank", "hotp", HOTP);
    const codes = await Promise.all(CODES.map(() => code("bank")));
    expect(codes.toSorted()).toEqual(CODES.toSorted());
  });

  test("of the time are those of now, with their end", async () => {
    await keep("web", "totp", TOTP);
    const { code: now, expiresAt, periodS } = await client.otp({ name: "web", fresh: false });
    const until = Date.parse(expiresAt ?? "");
    expect(now).toBe(otpCode(parseOtpUri(TOTP), until - 1).code);
    expect([until % 30_000, periodS]).toEqual([0, 30]);
  });

  test("of a login lie in its field, and its counter keeps the rest as it is", async () => {
    const fields = [
      { name: "user", kind: "text" as const, value: "ada" },
      { name: "otp", kind: "otp" as const, value: HOTP },
    ];
    await client.store({ name: "login", type: "login", value: ascii("secret"), tags: ["web"], where: null, fields });
    expect([await code("login"), await code("login")]).toEqual(CODES.slice(0, 2));
    const got = await client.get({ name: "login", version: null, reveal: true, fresh: true, save: false });
    expect([new TextDecoder().decode(got.value ?? undefined), got.fields?.[0]]).toEqual(["secret", fields[0]]);
    expect(got.info).toMatchObject({ tags: ["web"], type: "login", user: "ada" });
  });

  test("are not found where there are none", async () => {
    await client.store({ name: "plain", type: "password", value: ascii("x"), tags: [], where: null });
    await rejected(client.otp({ name: "plain", fresh: false }), "not_found");
    await rejected(client.otp({ name: "nothing", fresh: false }), "not_found");
  });
});
