import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import { Fault } from "../../src/errors.ts";
import type { KeyId } from "../../src/ids.ts";
import { type Middle, random, registerDevice, type TestDevice } from "../support/harness.ts";
import {
  asking,
  EVERYTHING,
  impatient,
  onDisk,
  rejected,
  reopened,
  startVillain,
  storing,
  textOf,
  type Villain,
} from "../support/hostile.ts";

const PASSWORD = "a password of ada";
let villain: Villain;
let count = 0;
let account: string;
let ada: TestDevice;
let client: KeyholdClient;
const ends: (() => Promise<void>)[] = [];

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `ada ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  ({ client } = ada);
  ends.push(() => ada.end());
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  expect(villain.server.faults).toEqual([]);
});

const names = async (): Promise<string[]> => (await client.list(EVERYTHING)).items.map(({ name }) => name);
const generating = (name: string, more = {}) => ({
  name,
  type: "bytes" as const,
  length: null,
  tags: [],
  replace: false,
  where: null,
  ...more,
});
const away: Middle = async () => {
  throw new Fault("unreachable", "nobody listens");
};
const offline = <T>(work: () => Promise<T>): Promise<T> => villain.during(away, work);
const stored = (keyId: KeyId, version: number): Promise<Uint8Array | undefined> =>
  villain.server.store.transaction((tx) => tx.sealedValue(ada.open.box.model.owner, keyId, version));

describe("names and tags", () => {
  const GOOD = [
    "a",
    "db/prod",
    "ключ/тест",
    "with space",
    "a.b",
    "...",
    "a/..b",
    "🔑",
    "x".repeat(512),
    "-dash",
    "--flag",
    "a\u00a0b",
  ];
  for (const name of GOOD) {
    test(`${JSON.stringify(name.slice(0, 20))} is a name`, async () => {
      await client.store(storing(name, "value"));
      expect(await textOf(client, name)).toBe("value");
      expect(await names()).toEqual([name]);
    });
  }
  const BAD = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "./a",
    "a\nb",
    "a\0",
    "\u001b[31m",
    "a\u2028b",
    "x".repeat(513),
    "é".repeat(257),
    "\ud800",
    "a\u007f",
  ];
  test("what is no name is refused everywhere, before the server hears of it", async () => {
    await client.store(storing("there", "value"));
    villain.seen.length = 0;
    for (const name of BAD) {
      await rejected(client.store(storing(name, "value")), "bad_input");
      await rejected(client.generate(generating(name)), "bad_input");
      await rejected(client.rename({ from: "there", to: name }), "bad_input");
      const item = { name, type: "note" as const, value: Uint8Array.of(65), tags: [], createdAt: null };
      await rejected(
        client.importItems({ items: [item], prefix: "", dryRun: false, origin: "json", where: null }),
        "bad_input",
      );
      await rejected(client.get(asking(name)), "not_found");
    }
    expect(villain.seen.some(({ operation }) => operation === "secret.store" || operation === "secret.reserve")).toBe(
      false,
    );
    expect(await names()).toEqual(["there"]);
  });

  test("names are equal when their NFC is", async () => {
    await client.store(storing("cafe\u0301", "one"));
    await client.store(storing("caf\u00e9", "two"));
    expect(await names()).toEqual(["caf\u00e9"]);
    expect(await textOf(client, "cafe\u0301")).toBe("two");
    expect((await client.get(asking("caf\u00e9"))).version).toBe(2);
  });

  test("tags: sorted, each once, added and removed; too many, too long and malformed ones refused", async () => {
    await client.store(storing("a", "value", { tags: ["b", "a", "b"] }));
    expect((await client.get(asking("a"))).info.tags).toEqual(["a", "b"]);
    const done = await client.tag({ name: "a", add: ["c", "a"], remove: ["b", "never there"] });
    expect(done.info.tags).toEqual(["a", "c"]);
    // a next version keeps them unless it brings its own
    expect((await client.store(storing("a", "second"))).info.tags).toEqual(["a", "c"]);
    expect((await client.store(storing("a", "third", { tags: ["z"] }))).info.tags).toEqual(["z"]);
    const bad = [[""], ["x".repeat(129)], ["a\tb"], Array.from({ length: 65 }, (_, i) => `t${i}`)];
    for (const tags of bad) {
      await rejected(client.store(storing("a", "value", { tags })), "bad_input");
      await rejected(client.tag({ name: "a", add: tags, remove: [] }), "bad_input");
    }
    expect((await client.get(asking("a"))).info).toMatchObject({ tags: ["z"], version: 3 });
  });

  test("the longest name with the most and worst tags is stored or refused, and the vault opens again", async () => {
    const tags = Array.from({ length: 64 }, (_, i) => `${i}${'"'.repeat(126)}`.slice(0, 128));
    for (const where of ["local", "server"] as const) {
      const work = client.store(storing('"'.repeat(512), "value", { tags, where }));
      await work.catch((error) => expect(error).toMatchObject({ code: "bad_input" }));
      const next = await reopened(villain.link, ada, account, PASSWORD);
      ends.push(() => next.client.close());
      await next.client.list(EVERYTHING);
    }
  });
});

describe("looking up", () => {
  test("an exact name wins, then a unique prefix of the key id of at least four digits", async () => {
    const { info } = await client.store(storing("a", "value"));
    for (const length of [4, 8, 32])
      expect((await client.get(asking(info.keyId.slice(0, length)))).info.name).toBe("a");
    expect((await client.get(asking(info.keyId.toUpperCase()))).info.name).toBe("a");
    await rejected(client.get(asking(info.keyId.slice(0, 3))), "not_found");
    await client.store(storing(info.keyId.slice(0, 4), "named like an id"));
    expect(await textOf(client, info.keyId.slice(0, 4))).toBe("named like an id");
  });

  test("an ambiguous prefix names the ids and reads nothing", async () => {
    const seen = new Map<string, string>();
    const { model } = ada.open.box;
    // local secrets draw their ids here: two with the same beginning
    let fixed = 2;
    Object.assign(ada.open.around, {
      random: (length: number) => {
        const drawn = random(length);
        if (length === 16 && fixed-- > 0) drawn.set([0xab, 0xcd]);
        return drawn;
      },
    });
    await client.store(storing("one", "1", { where: "local" }));
    await client.store(storing("two", "2", { where: "local" }));
    for (const [keyId, secret] of model.secrets) seen.set(secret.meta?.name ?? "", keyId);
    const fault = await rejected(client.get(asking("abcd")), "ambiguous");
    for (const keyId of seen.values()) expect(fault.why).toContain(keyId);
    await rejected(client.remove({ name: "abcd", purge: true }), "ambiguous");
    expect(await names()).toEqual(["one", "two"]);
  });

  test("no secret is called like another one's whole id: it could stand in for it", async () => {
    const { info } = await client.store(storing("a", "value of a"));
    await rejected(client.store(storing(info.keyId, "an impostor")), "bad_input");
    await client.store(storing("b", "value of b"));
    await rejected(client.rename({ from: "b", to: info.keyId }), "bad_input");
    expect(await names()).toEqual(["a", "b"]);
    expect((await client.rename({ from: info.keyId, to: "c" })).info).toMatchObject({ keyId: info.keyId, name: "c" });
    expect(await textOf(client, info.keyId)).toBe("value of a");
  });

  test("another user's id, a purged one and one that never was answer alike", async () => {
    const eve = await registerDevice(villain.link, `eve ${count}`, PASSWORD);
    ends.push(() => eve.end());
    const hers = (await eve.client.store(storing("a", "value"))).info.keyId;
    const purged = (await client.store(storing("p", "value"))).info.keyId;
    await client.remove({ name: "p", purge: true });
    const never = random(16).toHex();
    const faults: Fault[] = [];
    for (const id of [hers, purged, never]) faults.push(await rejected(client.get(asking(id)), "not_found"));
    const shown = faults.map(({ message, hint, why, exit }) => ({ message, hint, why, exit }));
    expect(shown[1]).toEqual(shown[0] as (typeof shown)[0]);
    expect(shown[2]).toEqual(shown[0] as (typeof shown)[0]);
    const { items } = await client.auditList({
      name: null,
      action: "secret.get",
      fromMs: null,
      untilMs: null,
      requestId: null,
      limit: null,
      cursor: null,
      purpose: "list",
    });
    expect(
      items.filter(({ keyId, status }) => status === "not_found" && (keyId === hers || keyId === never)).length,
    ).toBe(2);
  });

  test("list: prefix, search in names and tags without regard to case, tag; sorted", async () => {
    await client.store(storing("db/prod", "1", { tags: ["Live"] }));
    await client.store(storing("db/test", "2"));
    await client.store(storing("mail", "3", { tags: ["live"] }));
    const ask = async (query: object) => (await client.list({ ...EVERYTHING, ...query })).items.map(({ name }) => name);
    expect(await ask({ prefix: "db/" })).toEqual(["db/prod", "db/test"]);
    expect(await ask({ search: "PROD" })).toEqual(["db/prod"]);
    expect(await ask({ search: "live" })).toEqual(["db/prod", "mail"]);
    expect(await ask({ tag: "live" })).toEqual(["mail"]);
    expect(await ask({ prefix: "db/", tag: "live" })).toEqual([]);
    expect(await ask({ prefix: "nothing" })).toEqual([]);
  });
});

describe("values", () => {
  test("come back byte for byte: 1 byte, every byte, not UTF-8, 64 KiB", async () => {
    const values = [
      Uint8Array.of(0),
      Uint8Array.from({ length: 256 }, (_, i) => i),
      Uint8Array.of(0xff, 0xfe, 0xc0, 0x80),
      random(65_536),
      new Uint8Array(65_536),
    ];
    for (const [i, value] of values.entries()) {
      for (const where of ["server", "local", "both"] as const) {
        await client.store(storing(`${where} ${i}`, value, { where }));
        expect((await client.get(asking(`${where} ${i}`, { fresh: true }))).value).toEqual(value);
      }
    }
    const next = await reopened(villain.link, ada, account, PASSWORD);
    ends.push(() => next.client.close());
    expect((await next.client.get(asking("local 3"))).value).toEqual(values[3] as Uint8Array);
  });

  test("0 bytes and 64 KiB + 1 are refused everywhere, and nothing is left behind", async () => {
    const before = onDisk(ada);
    for (const length of [0, 65_537]) {
      for (const where of ["server", "local", "both"] as const) {
        await rejected(client.store(storing("a", new Uint8Array(length), { where })), "bad_input");
      }
      const item = { name: "a", type: "bytes" as const, value: new Uint8Array(length), tags: [], createdAt: null };
      await rejected(
        client.importItems({ items: [item], prefix: "", dryRun: false, origin: "json", where: null }),
        "bad_input",
      );
    }
    expect(onDisk(ada)).toBe(before);
    expect(await names()).toEqual([]);
  });

  test("the type follows the value: text is a note, else bytes; text types take UTF-8 only", async () => {
    expect((await client.store(storing("text", "grüße"))).info.type).toBe("note");
    expect((await client.store(storing("raw", Uint8Array.of(0xff)))).info.type).toBe("bytes");
    for (const type of ["note", "password", "passphrase", "pin", "token", "uuid"] as const) {
      await rejected(client.store(storing("bad", Uint8Array.of(0xff), { type })), "bad_input");
    }
    // a next version keeps the type
    expect((await client.store(storing("raw", "now text"))).info.type).toBe("bytes");
  });

  test("a caller's buffer is neither kept nor changed; what get returns is the caller's own", async () => {
    const value = random(40);
    const copy = value.slice();
    await client.store(storing("a", value));
    expect(value).toEqual(copy);
    value.fill(0);
    const first = (await client.get(asking("a"))).value;
    expect(first).toEqual(copy);
    first?.fill(0);
    expect((await client.get(asking("a"))).value).toEqual(copy);
    expect((await client.get(asking("a", { reveal: false }))).value).toBeNull();
  });

  test("every type is generated, read back and never returned by generate", async () => {
    for (const type of [
      "bytes",
      "password",
      "passphrase",
      "pin",
      "token",
      "uuid",
      "secp256k1",
      "p256",
      "ed25519",
      "x25519",
    ] as const) {
      const made = await client.generate(generating(`of ${type}`, { type }));
      expect(made.info).toMatchObject({ type, version: 1, origin: "generated" });
      expect("value" in made).toBe(false);
      const got = await client.get(asking(`of ${type}`));
      expect(got.value?.length).toBeGreaterThan(3);
      expect(got.info.publicKey !== null).toBe(["secp256k1", "p256", "ed25519", "x25519"].includes(type));
    }
    await rejected(client.generate(generating("n", { type: "note" })), "bad_input");
    await rejected(client.generate(generating("n", { length: 0 })), "bad_input");
    await rejected(client.generate(generating("n", { length: 65_537 })), "bad_input");
    expect((await client.generate(generating("max", { length: 65_536 }))).info.version).toBe(1);
  });
});

describe("versions", () => {
  test("generate on an existing name: exists, or with replace a new version; store makes one", async () => {
    await client.generate(generating("a"));
    await rejected(client.generate(generating("a")), "exists");
    expect((await client.generate(generating("a", { replace: true }))).info.version).toBe(2);
    expect((await client.store(storing("a", "third"))).info.version).toBe(3);
    expect((await client.generate(generating("new", { replace: true }))).info.version).toBe(1);
    const { items } = await client.history({ name: "a" });
    expect(items.map(({ version, current }) => [version, current])).toEqual([
      [1, false],
      [2, false],
      [3, true],
    ]);
  });

  test("restore makes an old value the newest version, and keeps the others", async () => {
    for (const value of ["one", "two", "three"]) await client.store(storing("a", value));
    expect((await client.restore({ name: "a", version: 1 })).info.version).toBe(4);
    expect(await textOf(client, "a")).toBe("one");
    expect(await textOf(client, "a", 3)).toBe("three");
    for (const version of [0, 5, 99]) await rejected(client.restore({ name: "a", version }), "not_found");
    await rejected(client.get(asking("a", { version: 9 })), "not_found");
  });

  test("restore gives a version its own type back", async () => {
    await client.store(storing("a", Uint8Array.of(0xff)));
    await client.store(storing("a", "text", { type: "note" }));
    expect((await client.restore({ name: "a", version: 1 })).info.type).toBe("bytes");
    expect((await client.get(asking("a"))).value).toEqual(Uint8Array.of(0xff));
  });

  for (const where of ["server", "local", "both"] as const) {
    test(`a removed secret (${where}) is gone from get and list, its history stays, and restore brings it back`, async () => {
      await client.store(storing("a", "one", { where }));
      await client.store(storing("a", "two", { where }));
      await client.remove({ name: "a", purge: false });
      await rejected(client.get(asking("a")), "not_found");
      expect(await names()).toEqual([]);
      expect((await client.history({ name: "a" })).items.map(({ status }) => status)).toEqual([
        "live",
        "live",
        "removed",
      ]);
      await rejected(client.remove({ name: "a", purge: false }), "not_found");
      await rejected(client.rename({ from: "a", to: "b" }), "not_found");
      expect((await client.restore({ name: "a", version: 2 })).info.version).toBe(3);
      expect(await textOf(client, "a")).toBe("two");
    });
  }

  test("a removed secret does not come back over one that took its name", async () => {
    await client.store(storing("a", "old"));
    await client.remove({ name: "a", purge: false });
    await client.store(storing("a", "new"));
    expect((await client.get(asking("a"))).version).toBe(1);
    const old =
      [...ada.open.box.model.secrets.values()].find(({ leaf }) => leaf.status === "removed")?.leaf.keyId ?? "";
    await rejected(client.restore({ name: old, version: 1 }), "exists");
    expect(await textOf(client, "a")).toBe("new");
  });

  for (const where of ["server", "local", "both"] as const) {
    test(`purge (${where}) erases values and metadata, on the server and in the vault`, async () => {
      const { keyId } = (await client.store(storing("canary name", "one", { where }))).info;
      await client.store(storing("canary name", "two", { where }));
      await client.remove({ name: "canary name", purge: true });
      await rejected(client.get(asking("canary name")), "not_found");
      await rejected(client.restore({ name: keyId, version: 1 }), "not_found");
      await rejected(client.remove({ name: keyId, purge: true }), "not_found");
      if (where !== "local") {
        expect(await stored(keyId, 1)).toBeUndefined();
        expect(await stored(keyId, 2)).toBeUndefined();
        const rows = await villain.server.store.transaction((tx) => tx.history(ada.open.box.model.owner, keyId, 0, 10));
        expect(rows.length).toBe(3);
        for (const row of rows) expect(row.meta).toBeNull();
      }
      const secret = ada.open.box.model.secrets.get(keyId);
      expect(secret?.meta).toBeNull();
      if (secret?.place === "server") expect(secret.sealed).toBeNull();
      if (secret?.place === "local") {
        expect(secret.values).toEqual([]);
        expect(secret.leaves.every(({ meta }) => meta === null)).toBe(true);
      }
      const next = await reopened(villain.link, ada, account, PASSWORD);
      ends.push(() => next.client.close());
      expect(next.open.box.model.secrets.get(keyId)?.leaf.status).toBe("purged");
      expect((await next.client.auditVerify()).ok).toBe(true);
    });
  }

  test("a removed secret can still be purged", async () => {
    const { keyId } = (await client.store(storing("a", "one"))).info;
    await client.remove({ name: "a", purge: false });
    await client.remove({ name: "a", purge: true });
    expect(await stored(keyId, 1)).toBeUndefined();
  });

  test("rename: to itself fine, over another refused, over a removed one fine", async () => {
    await client.store(storing("a", "value a"));
    await client.store(storing("b", "value b"));
    await rejected(client.rename({ from: "a", to: "b" }), "exists");
    await rejected(client.rename({ from: "none", to: "c" }), "not_found");
    expect((await client.rename({ from: "a", to: "a" })).info.name).toBe("a");
    await client.remove({ name: "b", purge: false });
    await client.rename({ from: "a", to: "b" });
    expect(await textOf(client, "b")).toBe("value a");
  });
});

describe("where a secret lies", () => {
  test("server, local and both, and what each allows next", async () => {
    expect((await client.store(storing("s", "1", { where: "server" }))).info.where).toBe("server");
    expect((await client.store(storing("l", "1", { where: "local" }))).info.where).toBe("local");
    expect((await client.store(storing("b", "1", { where: "both" }))).info.where).toBe("both");
    expect((await client.store(storing("d", "1"))).info.where).toBe("both");
    // without a wish a next version stays where the secret is
    for (const [name, where] of [
      ["s", "server"],
      ["l", "local"],
      ["b", "both"],
    ] as const) {
      expect((await client.store(storing(name, "2"))).info.where).toBe(where);
    }
    expect((await client.store(storing("s", "3", { where: "both" }))).info.where).toBe("both");
    expect((await client.store(storing("b", "3", { where: "server" }))).info.where).toBe("server");
    await rejected(client.store(storing("s", "4", { where: "local" })), "conflict");
    await rejected(client.store(storing("l", "4", { where: "server" })), "conflict");
    await rejected(client.store(storing("l", "4", { where: "both" })), "conflict");
    expect(await textOf(client, "l")).toBe("2");
    expect(villain.seen.some(({ body }) => Buffer.from(body).includes("canary"))).toBe(false);
  });

  test("the server never hears of a local secret", async () => {
    villain.seen.length = 0;
    await client.store(storing("l", "1", { where: "local" }));
    await client.generate(generating("g", { where: "local" }));
    await client.rename({ from: "l", to: "m" });
    await client.remove({ name: "m", purge: true });
    expect(villain.seen).toEqual([]);
  });

  test("get --save keeps a copy, which serves when the server is away", async () => {
    impatient(ada);
    await client.store(storing("s", "value", { where: "server" }));
    await rejected(
      offline(() => client.get(asking("s"))),
      "unreachable",
    );
    const saved = await client.get(asking("s", { save: true }));
    expect(saved.info.where).toBe("both");
    const next = await reopened(null, ada, account, PASSWORD);
    ends.push(() => next.client.close());
    const got = await next.client.get(asking("s"));
    expect(new TextDecoder().decode(got.value ?? undefined)).toBe("value");
    expect(got.from).toBe("vault");
    expect([got.syncedAt, typeof saved.syncedAt]).toEqual([saved.syncedAt, "string"]);
    expect(next.notices.join()).toContain("the server is away");
  });

  test("a copy of an older version does not pass for the newest", async () => {
    await client.store(storing("a", "first", { where: "both" }));
    await client.store(storing("a", "second", { where: "server" }));
    impatient(ada);
    await rejected(
      offline(() => client.get(asking("a"))),
      "unreachable",
    );
  });
});

describe("while the server is away", () => {
  test("reads come from the vault and say so; fresh insists; what must reach the server fails and changes nothing", async () => {
    await client.store(storing("a", "value"));
    impatient(ada);
    const before = onDisk(ada);
    const got = await offline(() => client.get(asking("a")));
    expect(new TextDecoder().decode(got.value ?? undefined)).toBe("value");
    expect(got.from).toBe("vault");
    expect(ada.notices.at(-1)).toContain("the server is away: from the vault, synced");
    const listed = await offline(() => client.list({ ...EVERYTHING, fresh: false }));
    expect([listed.from, listed.items.length]).toEqual(["vault", 1]);
    for (const work of [
      () => client.get(asking("a", { fresh: true })),
      () => client.list(EVERYTHING),
      () => client.getMany({ refs: [{ name: "a", version: null }], fresh: true, purpose: "get" }),
      () => client.store(storing("b", "value", { where: "server" })),
      () => client.generate(generating("b", { where: "server" })),
      () => client.remove({ name: "a", purge: true }),
      () => client.sync(),
      () => client.auditVerify(),
      () => client.sessions(),
    ]) {
      const fault = await offline(() => rejected(work(), "unreachable", "outcome_unknown"));
      expect(fault.exit).toBe(7);
    }
    expect(onDisk(ada)).toBe(before);
    expect((await offline(() => client.status())).server?.reachable).toBe(false);
    await offline(() => client.store(storing("l", "local", { where: "local" })));
    expect(await names()).toEqual(["a", "l"]);
  });
});

describe("import", () => {
  const item = (name: string, value: string, more = {}) => ({
    name,
    type: "note" as const,
    value: new TextEncoder().encode(value),
    tags: [],
    createdAt: null,
    ...more,
  });
  const importing = (items: readonly ReturnType<typeof item>[], more = {}) => ({
    items,
    prefix: "",
    dryRun: false,
    origin: "json",
    where: null,
    ...more,
  });

  test("new, same and another value: imported, skipped, a version", async () => {
    await client.store(storing("same", "value"));
    await client.store(storing("other", "old"));
    const done = await client.importItems(
      importing([
        item("same", "value"),
        item("other", "new"),
        item("fresh", "x", { tags: ["t"], createdAt: "2020-01-02T03:04:05.000Z" }),
      ]),
    );
    expect(done.items.map(({ name, outcome }) => `${name} ${outcome}`)).toEqual([
      "same same",
      "other version",
      "fresh new",
    ]);
    expect([done.imported, done.skipped]).toEqual([2, 1]);
    expect(await textOf(client, "other")).toBe("new");
    expect((await client.get(asking("fresh"))).info).toMatchObject({
      tags: ["t"],
      createdAt: "2020-01-02T03:04:05.000Z",
      origin: "imported:json",
    });
    const again = await client.importItems(importing([item("same", "value"), item("other", "new")]));
    expect([again.imported, again.skipped]).toEqual([0, 2]);
  });

  test("a dry run tells the same and changes nothing", async () => {
    await client.store(storing("other", "old"));
    const before = onDisk(ada);
    const revision = ada.open.box.model.bound?.head.state.revision;
    const done = await client.importItems(importing([item("other", "new"), item("fresh", "x")], { dryRun: true }));
    expect(done.items.map(({ outcome }) => outcome)).toEqual(["version", "new"]);
    expect(onDisk(ada)).toBe(before);
    expect(ada.open.box.model.bound?.head.state.revision).toBe(revision as number);
    expect(await names()).toEqual(["other"]);
  });

  test("many items, large ones too, all arrive under the prefix", async () => {
    const items = Array.from({ length: 45 }, (_, i) => ({
      ...item(`n${i}`, ""),
      type: "bytes" as const,
      value: random(i % 9 === 0 ? 60_000 : 40),
    }));
    const done = await client.importItems(importing(items as never, { prefix: "backup/" }));
    expect(done.imported).toBe(45);
    const got = await client.getMany({
      refs: items.map(({ name }) => ({ name: `backup/${name}`, version: null })),
      fresh: true,
      purpose: "export",
    });
    for (const [i, one] of got.entries()) expect(one.value).toEqual(items[i]?.value as Uint8Array);
  });

  test("one bad item and nothing is imported: name, value, type, twin, time, origin", async () => {
    const bad = [
      importing([item("good", "x"), item("a//b", "x")]),
      importing([item("good", "x"), item("empty", "")]),
      importing([item("good", "x"), item("good", "y")]),
      importing([item("good", "x"), item("cafe\u0301", "x"), item("caf\u00e9", "y")]),
      importing([item("good", "x"), { ...item("raw", ""), value: Uint8Array.of(0xff) }]),
      importing([item("good", "x"), item("when", "x", { createdAt: "yesterday" })]),
      importing([item("good", "x"), item("when", "x", { createdAt: "1960-01-01T00:00:00.000Z" })]),
      importing([item("good", "x")], { origin: "o".repeat(100) }),
    ];
    for (const where of ["server", "local"] as const) {
      for (const input of bad) await rejected(client.importItems({ ...input, where }), "bad_input");
    }
    // the last of many, beyond what one request holds
    const many = Array.from({ length: 30 }, (_, i) => item(`n${i}`, "x"));
    for (const last of [
      item("empty", ""),
      item("huge", "x".repeat(65_537)),
      item("when", "x", { createdAt: "yesterday" }),
    ]) {
      await rejected(client.importItems(importing([...many, last])), "bad_input");
      await rejected(client.importItems(importing([...many, last], { dryRun: true })), "bad_input");
    }
    const blocked = [...many, item("local", "x")];
    await client.store(storing("local", "here", { where: "local" }));
    await rejected(client.importItems(importing(blocked, { where: "server" })), "conflict");
    expect(await names()).toEqual(["local"]);
    const next = await reopened(villain.link, ada, account, PASSWORD);
    ends.push(() => next.client.close());
    expect((await next.client.list(EVERYTHING)).items.length).toBe(1);
  });
});

describe("close", () => {
  test("ends what runs, refuses what comes after, wipes the keys, and twice is once", async () => {
    const next = await reopened(villain.link, ada, account, PASSWORD);
    const running = next.client.store(storing("a", "value"));
    const closing = next.client.close();
    await rejected(next.client.get(asking("a")), "locked");
    await running;
    await Promise.all([closing, next.client.close()]);
    expect(next.open.box.model.accountKey.every((byte) => byte === 0)).toBe(true);
    expect(next.open.box.model.keys.record.every((byte) => byte === 0)).toBe(true);
    await rejected(next.client.list(EVERYTHING), "locked");
    expect(await textOf(client, "a")).toBe("value");
  });

  test("a session that was closed elsewhere: exit 4, and the vault is as it was", async () => {
    const next = await reopened(villain.link, ada, account, PASSWORD);
    ends.push(() => next.client.close());
    await client.store(storing("a", "value"));
    const mine = next.session?.sessionId ?? null;
    expect((await client.closeSession({ sessionId: mine, all: false })).closed).toBe(1);
    const fault = await rejected(next.client.list(EVERYTHING), "session_invalid");
    expect(fault.exit).toBe(4);
    expect((await next.client.status()).session?.valid).toBe(false);
    expect((await client.sessions()).items.filter(({ current }) => current).length).toBe(1);
  });
});
