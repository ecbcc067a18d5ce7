import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { KeyholdClient, SecretInfo } from "../../src/client/api.ts";
import { Fault } from "../../src/errors.ts";
import type { PlainItem } from "../../src/formats/index.ts";
import { json } from "../../src/formats/json.ts";
import type { CeremonyId, StoredKeyId } from "../../src/ids.ts";
import { ceremonyOrigin, isCustodial, provisionedOrigin } from "../../src/protocol/provenance.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { addTestDevice, type Middle, registerDevice, type TestDevice } from "../support/harness.ts";
import { asking, EVERYTHING, rejected, reopened, startVillain, storing, type Villain } from "../support/hostile.ts";

setDefaultTimeout(60_000);

/** A value that a server's enclave has seen says so for good (P12). */

const PASSWORD = "a password of ada";
const ORIGIN = ceremonyOrigin("5a".repeat(32) as CeremonyId);
const HOTP = "otpauth://hotp/bank:ada?issuer=bank&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&counter=0";
const seen = { custody: "custodial", origin: ORIGIN } as const;

let villain: Villain;
let ada: TestDevice;
let client: KeyholdClient;
let account: string;
let count = 0;
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `custody ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  ({ client } = ada);
});
afterEach(() => ada.end());

const infoOf = async (name: string, of = client): Promise<SecretInfo> =>
  (await of.get(asking(name, { reveal: false }))).info;
const refused: Middle = async () => {
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};
const collected = (name = "k", value = "the value") => client.store(storing(name, value, { origin: ORIGIN }));

test("an origin holds as much of an id as nobody finds twice, and no other origin counts as one", () => {
  expect(ORIGIN).toBe(`ceremony:${"5a".repeat(16)}`);
  expect(provisionedOrigin("0f".repeat(32) as StoredKeyId)).toBe(`provisioned:${"0f".repeat(16)}`);
  for (const origin of ["stored", "generated", "imported:json", `imported:${ORIGIN}`, "ceremony:", `${ORIGIN}0`, ""])
    expect(isCustodial(origin)).toBe(false);
});

describe("a collected value", () => {
  test("is shown as custodial by whatever shows it; any other is not", async () => {
    expect((await collected()).info).toMatchObject(seen);
    await client.store(storing("other", "mine"));
    const { items } = await client.list(EVERYTHING);
    expect(items.map(({ name, custody }) => [name, custody])).toEqual([
      ["k", "custodial"],
      ["other", undefined],
    ]);
    expect(await infoOf("k")).toMatchObject(seen);
    expect((await client.history({ name: "k" })).items).toMatchObject([{ version: 1, custody: "custodial" }]);
    const every = { action: null, fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null } as const;
    const log = async (name: string) =>
      (await client.auditList({ ...every, name, purpose: "list" })).items.map(({ custody }) => custody);
    expect(new Set(await log("k"))).toEqual(new Set(["custodial"]));
    expect(new Set(await log("other"))).toEqual(new Set([undefined]));
  });

  test("stays so under another name, other tags, fields and expiry, removed and brought back, and the same value again", async () => {
    await collected();
    await client.rename({ from: "k", to: "key" });
    await client.tag({ name: "key", add: ["a", "b"], remove: [] });
    await client.tag({ name: "key", add: [], remove: ["a", "b", "custodial"] });
    const fields = [{ name: "notes", kind: "text" as const, value: "of five people" }];
    await client.store({ name: "key", type: null, value: null, tags: ["t"], where: null, fields });
    expect(await infoOf("key")).toMatchObject(seen);
    const value = new TextEncoder().encode("the value");
    await client.store({ name: "key", type: null, value, tags: [], where: null, expiresAt: null });
    expect(await infoOf("key")).toMatchObject({ ...seen, version: 3 });
    await client.remove({ name: "key", purge: false });
    await client.restore({ name: "key", version: 1 });
    expect(await infoOf("key")).toMatchObject(seen);
  });

  test("is told apart by version: another value is end to end, and the one before stays what it was", async () => {
    await collected();
    const { info } = await client.store(storing("k", "typed by hand"));
    expect([info.custody, info.origin]).toEqual([undefined, "stored"]);
    const old = await client.get(asking("k", { version: 1 }));
    expect(old.info).toMatchObject({ ...seen, version: 2 });
    const now = await client.get(asking("k", { version: 2 }));
    expect(now.info.custody).toBeUndefined();
    expect((await client.history({ name: "k" })).items.map(({ custody }) => custody)).toEqual(["custodial", undefined]);
    // neither is an old value washed by a restore, nor does a later one inherit the mark
    expect((await client.restore({ name: "k", version: 1 })).info).toMatchObject(seen);
    const refs = [1, 2].map((version) => ({ name: "k", version }));
    const many = await client.getMany({ refs, fresh: false, purpose: "get" });
    expect(many.map((one) => one.info.custody)).toEqual(["custodial", undefined]);
    expect(Object.keys(many[0] ?? {})).not.toContain("origin");
    const made = { name: "k", type: "bytes", length: null, tags: [], replace: true, where: null } as const;
    expect((await client.generate(made)).info.custody).toBeUndefined();
    expect((await client.restore({ name: "k", version: 2 })).info.custody).toBeUndefined();
  });

  test("of a counter stays so while codes are made of it", async () => {
    await client.store(storing("otp", HOTP, { type: "hotp", origin: ORIGIN }));
    for (let i = 0; i < 2; i++) await client.otp({ name: "otp", fresh: false });
    expect(await infoOf("otp")).toMatchObject({ ...seen, version: 3 });
  });

  test("is known to the account's other devices and to the vault that opens again", async () => {
    await collected();
    const second = await addTestDevice(villain.link, account, PASSWORD);
    try {
      expect(await infoOf("k", second.client)).toMatchObject(seen);
      // one device gives it a tag while the other changes its name without the server
      await second.client.tag({ name: "k", add: ["theirs"], remove: [] });
      await villain.during(refused, () => client.rename({ from: "k", to: "mine" }));
      await client.sync();
      await second.client.sync();
      expect(await infoOf("mine", second.client)).toMatchObject({ ...seen, tags: ["theirs"] });
    } finally {
      await second.end();
    }
    const again = await reopened(villain.link, ada, account, PASSWORD);
    expect(await infoOf("mine", again.client)).toMatchObject(seen);
    await again.client.close();
  });

  test("counts as the same value where nobody can tell: an edit without the server does not wash it", async () => {
    await client.store(storing("far", "the value", { origin: ORIGIN, where: "server" }));
    await villain.during(refused, () => client.store(storing("far", "the value")));
    await client.sync();
    expect(await infoOf("far")).toMatchObject({ ...seen, version: 2 });
  });

  test("an origin is given of what a server has seen, and of nothing else", async () => {
    for (const origin of ["", "generated", "imported:json", "ceremony:5a", `${ORIGIN} `])
      await rejected(client.store(storing("k", "v", { origin })), "bad_input");
    const one: PlainItem = { name: "k", type: "note", value: new Uint8Array(1).fill(65), tags: [], createdAt: null };
    const importing = { prefix: "", dryRun: false, origin: "json", where: null };
    await rejected(client.importItems({ ...importing, items: [{ ...one, origin: "generated" }] }), "bad_input");
    expect((await client.list(EVERYTHING)).items).toEqual([]);
  });
});

describe("an archive", () => {
  const importing = (items: readonly PlainItem[]) =>
    client.importItems({ items, prefix: "", dryRun: false, origin: "json", where: null });
  const item = (change: Partial<PlainItem> = {}): PlainItem => ({
    ...{ name: "k", type: "note", value: new TextEncoder().encode("the value"), tags: [], createdAt: null },
    ...change,
  });

  test("brings the mark along, and back", async () => {
    const { items } = json.read(json.write([item({ origin: ORIGIN }), item({ name: "other" })]), { name: null });
    await importing(items);
    expect(await infoOf("k")).toMatchObject(seen);
    expect(await infoOf("other")).toMatchObject({ origin: "imported:json" });
    expect((await infoOf("other")).custody).toBeUndefined();
  });

  test("that does not say so takes it from no value, and one that says so is not skipped", async () => {
    await collected();
    expect((await importing([item()])).skipped).toBe(1);
    await importing([item({ expiresAt: "2030-01-01T00:00:00Z" })]);
    expect(await infoOf("k")).toMatchObject({ ...seen, version: 2 });
    await importing([item({ type: "password" })]);
    expect(await infoOf("k")).toMatchObject({ ...seen, version: 3, type: "password" });
    await importing([item({ value: new TextEncoder().encode("another") })]);
    expect(await infoOf("k")).toMatchObject({ origin: "imported:json", version: 4 });
    await client.store(storing("plain", "the value"));
    expect((await importing([item({ name: "plain", origin: ORIGIN })])).imported).toBe(1);
    expect(await infoOf("plain")).toMatchObject(seen);
  });
});
