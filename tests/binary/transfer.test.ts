import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { testNeeding } from "../support/skip.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
}, SETUP_MS);
afterAll(() => world.close());

testNeeding("openssl", "openssl reads the exported keys, and keyhold those of openssl", async () => {
  const openssl = async (...argv: string[]) => {
    const child = Bun.spawn(["openssl", ...argv], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
    const [out, code] = await Promise.all([child.stdout.text(), child.exited]);
    expect([argv, code]).toEqual([argv, 0]);
    return out;
  };
  await home.ok(["generate", "tls/key", "--type", "p256"]);
  await home.ok(["export", "tls/key", "--to", "pem", "--out", world.file("tls.pem")]);
  await openssl("pkey", "-in", world.file("tls.pem"), "-check", "-noout");
  const kinds = [
    ["ed25519", "genpkey", "-algorithm", "ed25519"],
    ["p256", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    ["rsa", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
  ];
  for (const [type = "", ...argv] of kinds) {
    const path = world.file(`openssl-${type}.pem`);
    await openssl(...argv, "-out", path);
    const { data } = await home.ok(["import", path, "--name", `openssl/${type}`]);
    expect(data).toMatchObject({ imported: 1 });
    expect((await home.ok(["get", `openssl/${type}`])).data.type).toBe(type);
    const back = world.file(`openssl-${type}-back.pem`);
    await home.ok(["export", `openssl/${type}`, "--to", "pem", "--out", back]);
    expect(await openssl("pkey", "-in", back, "-pubout")).toBe(await openssl("pkey", "-in", path, "-pubout"));
  }
});

describe("import and export", () => {
  test("every format gives back what it was given", async () => {
    const value = Uint8Array.from({ length: 200 }, (_, i) => 255 - i);
    await home.ok(["store", "format/source"], { stdin: value });
    for (const format of ["raw", "hex", "base64", "len8", "jwk"]) {
      const path = world.file(`format.${format}`);
      const { data } = await home.ok(["export", "format/source", "--to", format, "--out", path]);
      expect(data).toMatchObject({ count: 1, digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) });
      expect(statSync(path).mode & 0o777).toBe(0o600);
      const { data: done } = await home.ok(["import", path, "--from", format, "--name", `format/${format}`]);
      expect(done).toMatchObject({ imported: 1, skipped: 0 });
      expect(Buffer.compare((await home.run(["read", `format/${format}`])).bytes, value)).toBe(0);
      const again = await home.ok(["import", path, "--from", format, "--name", `format/${format}`]);
      expect(again.data).toMatchObject({ imported: 0, skipped: 1 });
    }
  });

  test("export --all, then import into another account, gives the same names, types, tags and values", async () => {
    const path = world.file("all.json");
    const { data } = await home.ok(["export", "--all", "--to", "json", "--out", path]);
    const other = await world.home("importer").register("importer");
    const done = await other.ok(["import", path]);
    expect(done.data).toMatchObject({ imported: data.count, skipped: 0, lost: [] });
    const again = world.file("all-again.json");
    await other.ok(["export", "--all", "--to", "json", "--out", again]);
    const items = (file: string) =>
      JSON.parse(readFileSync(file, "utf8"))
        .items.sort((a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1))
        .map(({ createdAt: _, ...item }: Record<string, unknown>) => item);
    expect(items(again)).toEqual(items(path));
  });

  test("--dry-run changes nothing, and says what would happen", async () => {
    const items = [{ name: "dry/a", type: "note", value: "v", tags: [], createdAt: null }];
    const path = world.file("dry.json", JSON.stringify({ keyhold: "export", v: 1, items }));
    const before = await home.ok(["list"]);
    const { data } = await home.ok(["import", path, "--dry-run"]);
    expect(data).toMatchObject({ imported: 1, dryRun: true, items: [{ name: "dry/a", outcome: "new" }] });
    expect((await home.ok(["list", "--fresh"])).data.items).toEqual(before.data.items);
  });

  test("what a file holds beside the secret is listed as lost, exit 10", async () => {
    const { privateKey } = generateKeyPairSync("ed25519");
    const jwk = { ...privateKey.export({ format: "jwk" }), x5u: "https://example.org/" };
    const path = world.file("lossy.jwk", JSON.stringify(jwk));
    const done = await home.ok(["import", path, "--name", "lossy"]);
    expect([done.code, done.data.imported]).toEqual([10, 1]);
    expect(done.data.lost.join()).toContain("x5u");
  });

  test("damaged, mislabelled, over-long and malicious files: exit 2, nothing imported", async () => {
    const before = (await home.ok(["list"])).data.items;
    const item = { name: "bad/a", type: "note", value: "v", tags: [], createdAt: null };
    const archive = (items: unknown, more: object = {}) => JSON.stringify({ keyhold: "export", v: 1, items, ...more });
    const cases: [string, string | Uint8Array, string[]][] = [
      ["truncated json", archive([item]).slice(0, -5), []],
      ["two values", archive([{ ...item, valueB64: "dg" }]), []],
      ["unknown field", archive([{ ...item, evil: 1 }]), []],
      ["prototype", archive([item]).replace('"tags"', '"__proto__":{},"tags"'), []],
      ["newer version", archive([item]).replace('"v":1', '"v":2'), []],
      ["one name twice", archive([item, item]), []],
      ["path out", archive([{ ...item, name: "../../etc/passwd" }]), []],
      ["control character", archive([{ ...item, name: "a\u001b[2J" }]), []],
      ["second of two bad", archive([item, { ...item, name: "bad/b", type: "nonsense" }]), []],
      ["empty value", archive([{ ...item, value: "" }]), []],
      ["value too long", archive([{ ...item, value: "x".repeat(65_537) }]), []],
      ["deep", archive(JSON.parse(`${"[".repeat(2_000)}${"]".repeat(2_000)}`)), []],
      ["hex that is none", "abcxyz", ["--from", "hex"]],
      ["odd hex", "abc", ["--from", "hex"]],
      ["len8 too short", Uint8Array.of(5, 1, 2), ["--from", "len8"]],
      ["raw too long", new Uint8Array(65_537), ["--from", "raw"]],
      ["public key", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n", []],
      ["no format", "hello", []],
      ["unknown format", "hello", ["--from", "nonsense"]],
      ["mislabelled", archive([item]), ["--from", "pem"]],
    ];
    for (const [what, content, flags] of cases) {
      const path = world.file("bad-import", content);
      const error = await home.fails(2, ["import", path, "--name", "bad/single", ...flags]);
      expect([what, ["bad_input", "too_large", "usage"].includes(error.code)]).toEqual([what, true]);
    }
    expect((await home.fails(3, ["import", world.file("there-is-none")])).code).toBe("not_found");
    expect((await home.fails(2, ["import", world.dir])).code).toBe("bad_input");
    expect((await home.ok(["list", "--fresh"])).data.items).toEqual(before);
  });

  test("an existing file is never written over, and a refused export leaves none", async () => {
    const path = world.file("exists.json", "precious");
    for (const argv of [
      ["export", "--all", "--to", "json", "--out", path],
      ["read", "format/source", "--out", path],
      ["audit", "export", "--out", path],
      ["vault", "backup", "--out", path],
    ]) {
      expect((await home.fails(6, argv)).code).toBe("exists");
    }
    expect(readFileSync(path, "utf8")).toBe("precious");
    const none = world.file("none.json");
    await home.fails(3, ["export", "no/such", "--to", "json", "--out", none]);
    await home.fails(2, ["export", "format/source", "--to", "pem", "--out", none]);
    await home.fails(2, ["export", "--all", "--to", "raw", "--out", none]);
    await home.fails(2, ["export", "--all", "format/source", "--to", "json", "--out", none]);
    expect(existsSync(none)).toBe(false);
  });
});

test("an import without the server is kept for it: exit 10, and sent when it is back", async () => {
  const items = [
    { name: "away/a", type: "note", value: "first", tags: [], createdAt: null },
    { name: "away/b", type: "note", value: "second", tags: ["t"], createdAt: null },
  ];
  const path = world.file("away.json", JSON.stringify({ keyhold: "export", v: 1, items }));
  await world.server.stop("SIGTERM");
  const { data, code } = await home.ok(["import", path]);
  expect([code, data.imported, data.queued]).toEqual([10, 2, true]);
  expect((await home.ok(["import", path])).data).toMatchObject({ imported: 0, skipped: 2 });
  await world.restart();
  await home.ok(["sync"]);
  const listed = await home.ok(["list", "away/", "--fresh"]);
  expect(listed.data.items.map(({ name }: { name: string }) => name)).toEqual(["away/a", "away/b"]);
});
