import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import type { Field } from "../../src/protocol/content.ts";
import { registerDevice, type TestDevice } from "../support/harness.ts";
import { rejected, startVillain, type Villain } from "../support/hostile.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array | null) => new TextDecoder().decode(bytes ?? new Uint8Array(0));
const FIELDS: readonly Field[] = [
  { name: "user", kind: "text", value: "ada" },
  { name: "url", kind: "url", value: "https://example.org/login" },
  { name: "pin", kind: "hidden", value: "1234" },
];

let villain: Villain;
let ada: TestDevice;
let client: KeyholdClient;
let count = 0;

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  ada = await registerDevice(villain.link, `fields ${count++}`, "a password of ada");
  ({ client } = ada);
});
afterEach(() => ada.end());

const store = (more: object = {}) =>
  client.store({ name: "web", type: "login", value: ascii("secret"), tags: [], where: null, fields: FIELDS, ...more });
const get = (version: number | null = null) =>
  client.get({ name: "web", version, reveal: true, fresh: true, save: false });

describe("secrets with fields", () => {
  test("come back as they were stored; metadata shows user and address, and search finds them", async () => {
    const { info } = await store({ expiresAt: "2027-01-31" });
    expect(info).toMatchObject({ user: "ada", urls: ["https://example.org/login"] });
    expect(info.expiresAt).toBe("2027-01-31T00:00:00.000Z");
    const got = await get();
    expect(text(got.value)).toBe("secret");
    expect(got.fields).toEqual(FIELDS);
    const hidden = await client.get({ name: "web", version: null, reveal: false, fresh: false, save: false });
    expect([hidden.value, hidden.fields]).toEqual([null, null]);
    for (const search of ["example.org", "ADA"]) {
      expect((await client.list({ prefix: null, search, tag: null, fresh: false })).items).toHaveLength(1);
    }
    expect((await client.list({ prefix: null, search: "1234", tag: null, fresh: false })).items).toHaveLength(0);
  });

  test("a new value keeps fields and expiry, new fields keep the value, and both can be taken away", async () => {
    await store({ expiresAt: "2027-01-31" });
    await store({ value: ascii("second"), fields: undefined });
    expect(await get()).toMatchObject({ fields: FIELDS, info: { expiresAt: "2027-01-31T00:00:00.000Z" } });
    await store({ value: null, type: null, fields: [FIELDS[0]], expiresAt: null });
    const third = await get();
    expect([text(third.value), third.info.type, third.info.expiresAt]).toEqual(["second", "login", null]);
    await store({ value: ascii("bare"), fields: [] });
    expect((await get()).fields).toEqual([]);
    expect((await get(1)).fields).toEqual(FIELDS);
    await client.restore({ name: "web", version: 1 });
    const restored = await get();
    expect(restored.fields).toEqual(FIELDS);
    expect(restored.info).toMatchObject({ version: 5, expiresAt: "2027-01-31T00:00:00.000Z", user: "ada" });
  });

  test("what was seen must still be there: another version is a conflict, and nothing is stored", async () => {
    await rejected(store({ ifVersion: 1 }), "conflict");
    await store({ ifVersion: 0 });
    await rejected(store({ ifVersion: 0 }), "conflict");
    await store({ ifVersion: 1 });
    expect((await get()).info.version).toBe(2);
  });

  test("refuses a value that is not there, and fields that could not be read again", async () => {
    await rejected(store({ value: null }), "not_found");
    await rejected(store({ value: new Uint8Array(0), fields: [] }), "bad_input");
    await rejected(store({ value: new Uint8Array(0), type: "token" }), "bad_input");
    await rejected(store({ fields: [FIELDS[0], FIELDS[0]] }), "bad_input");
    for (const expiresAt of ["soon", "+010000-01-01T00:00:00Z", "-000001-01-01T00:00:00Z"]) {
      await rejected(store({ expiresAt }), "bad_input");
    }
    expect((await client.list({ prefix: null, search: null, tag: null, fresh: true })).items).toEqual([]);
    await store({ value: new Uint8Array(0) });
    expect((await get()).value).toEqual(new Uint8Array(0));
  });

  test("an import of the same content is skipped; with another field it is a version", async () => {
    const item = { name: "web", type: "login" as const, value: ascii("secret"), tags: [], createdAt: null };
    const importing = (fields: readonly Field[], expiresAt: string | null = null) =>
      client.importItems({
        items: [{ ...item, fields, expiresAt }],
        prefix: "",
        dryRun: false,
        origin: "x",
        where: null,
      });
    expect(await importing(FIELDS)).toMatchObject({ imported: 1, skipped: 0 });
    expect(await importing(FIELDS)).toMatchObject({ imported: 0, skipped: 1 });
    expect(await importing(FIELDS.slice(0, 2))).toMatchObject({ imported: 1, skipped: 0 });
    expect(await importing(FIELDS.slice(0, 2), "2027-01-31T00:00:00.000Z")).toMatchObject({ imported: 1 });
    expect((await get()).fields).toEqual(FIELDS.slice(0, 2));
  });

  test("keys and one-time passwords are made in the form that they are kept in", async () => {
    const make = async (type: "ssh" | "totp" | "hotp" | "bip39" | "p384" | "login") => {
      await client.generate({ name: type, type, length: null, tags: [], replace: false, where: null });
      return client.get({ name: type, version: null, reveal: true, fresh: true, save: false });
    };
    const ssh = await make("ssh");
    expect(text(ssh.value)).toStartWith("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    expect(text(ssh.info.publicKey?.subarray(4, 15) ?? null)).toBe("ssh-ed25519");
    expect(text((await make("totp")).value)).toMatch(/^otpauth:\/\/totp\/totp\?.*secret=[A-Z2-7]{32}/);
    expect(text((await make("hotp")).value)).toMatch(/^otpauth:\/\/hotp\/hotp\?.*counter=0/);
    expect(text((await make("bip39")).value).split(" ")).toHaveLength(24);
    expect((await make("p384")).info.publicKey).toHaveLength(49);
    expect(text((await make("login")).value)).toHaveLength(24);
  });
});
