import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testNeeding } from "../support/skip.ts";
import { onTerminal } from "./terminal.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(120_000);
const BITWARDEN = join(import.meta.dir, "..", "vectors", "formats", "bitwarden.json");
const ARCHIVE_PASSWORD = "a password for archives";
let world: World;
let home: Home;
let archive: readonly [string, string];
beforeAll(async () => {
  world = await openWorld({ server: false });
  home = await localHome("home");
  archive = ["--archive-password-file", world.file("archive.password", ARCHIVE_PASSWORD)];
}, SETUP_MS);
afterAll(() => world.close());

async function localHome(name: string): Promise<Home> {
  const made = world.home(name);
  await made.ok(["init", "--local", "--no-kit", ...made.password, "--kdf", "test"]);
  await made.ok(["unlock", ...made.password]);
  return made;
}

async function run(argv: readonly string[], env: Record<string, string> = {}, stdin = ""): Promise<string> {
  const child = Bun.spawn([...argv], {
    env: { PATH: process.env["PATH"] ?? "", LANG: "C.UTF-8", QT_QPA_PLATFORM: "offscreen", HOME: world.dir, ...env },
    stdin: Buffer.from(stdin),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect([argv, code, code === 0 ? "" : err]).toEqual([argv, 0, ""]);
  return out;
}

/** All that a home holds, in the native format, in the order of names. */
async function contentOf(of: Home): Promise<readonly Record<string, unknown>[]> {
  const { bytes } = await of.run(["export", "--all", "--to", "json", "--out", "-", "--quiet"]);
  const { items } = JSON.parse(new TextDecoder().decode(bytes));
  return items.toSorted((a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1));
}

const SHOW = ["age", "keepassxc-cli", "pass", "gpg", "gpgconf"];
testNeeding(
  SHOW,
  "a Bitwarden export, a KDBX file and a pass tree go to age and come back elsewhere, the same",
  async () => {
    const here = await localHome("from");
    const bitwarden = await here.ok(["import", BITWARDEN, "--prefix", "bitwarden/"]);
    expect([bitwarden.code, bitwarden.data.format]).toEqual([10, "bitwarden"]);

    const kdbx = world.file("old.kdbx");
    const keepassxc = (lines: string, ...argv: string[]) => run(["keepassxc-cli", ...argv], {}, lines);
    await keepassxc("pw\npw\n", "db-create", "-q", "-p", kdbx, "-t", "100");
    await keepassxc(
      "pw\nsecret one\n",
      "add",
      "-q",
      "-u",
      "ada",
      "--url",
      "https://example.com",
      "-p",
      kdbx,
      "Exämple",
    );
    const password = ["--archive-password-file", world.file("kdbx.password", "pw")];
    const fromKdbx = await here.ok(["import", kdbx, "--prefix", "keepass/", ...password]);
    expect(fromKdbx.data).toMatchObject({ format: "kdbx", skipped: 0 });

    // short, since gpg's agent has its socket in it
    const gnupg = mkdtempSync(join(tmpdir(), "kh-gpg-"));
    try {
      const env = { GNUPGHOME: gnupg, HOME: gnupg, PASSWORD_STORE_DIR: join(gnupg, "store") };
      const batch = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""];
      await run([...batch, "--quick-generate-key", "ada@example.com", "future-default", "default", "never"], env);
      await run(["pass", "init", "ada@example.com"], env);
      await run(["pass", "insert", "-m", "Work/Mail"], env, "p@ss wörd\nuser: ada\n");
      const fromPass = await here.ok(["import", env.PASSWORD_STORE_DIR, "--prefix", "pass/"], {
        env: { GNUPGHOME: gnupg },
      });
      expect(fromPass.data).toMatchObject({ format: "pass", imported: 1, skipped: 0 });
      await run(["gpgconf", "--kill", "all"], env);
    } finally {
      rmSync(gnupg, { recursive: true, force: true });
    }

    const identity = await run(["age-keygen"]);
    const [, recipient = ""] = /public key: (age1\w+)/.exec(identity) ?? [];
    const identityFile = world.file("show.identity", identity);
    const sealed = world.file("show.age");
    const exported = await here.ok(["export", "--all", "--out", sealed, "--recipient", recipient]);
    expect([exported.code, exported.data.format, exported.data.encrypted]).toEqual([0, "age", true]);
    expect(statSync(sealed).mode & 0o777).toBe(0o600);
    expect(readFileSync(sealed).includes("Exämple")).toBe(false);
    const opened = JSON.parse(await run(["age", "-d", "-i", identityFile, sealed]));
    expect(opened.items).toHaveLength(exported.data.count);

    const elsewhere = await localHome("elsewhere");
    const back = await elsewhere.ok(["import", sealed, "--identity", identityFile]);
    expect(back.data).toMatchObject({ imported: exported.data.count, skipped: 0, lost: [] });
    expect(await contentOf(elsewhere)).toEqual(await contentOf(here));
    const again = await elsewhere.ok(["import", sealed, "--identity", identityFile]);
    expect(again.data).toMatchObject({ imported: 0, skipped: exported.data.count });
  },
);

describe("archives", () => {
  beforeAll(async () => {
    await home.ok(["store", "note/one", "--tag", "kept"], { stdin: "the first" });
    await home.ok(["store", "note/two"], { stdin: "the second" });
    await home.ok(["generate", "key/ed", "--type", "ed25519"]);
    await home.ok(["generate", "key/ssh", "--type", "ssh"]);
  });

  test("age is the default; the password alone opens it, a wrong one imports nothing", async () => {
    const path = world.file("all.age");
    const { data } = await home.ok(["export", "--all", "--out", path, ...archive]);
    expect(data).toMatchObject({ format: "age", lost: [], encrypted: true });
    const other = await localHome("archives");
    const wrong = ["--archive-password-file", world.file("wrong.password", "another password")];
    expect((await other.fails(4, ["import", path, ...wrong])).code).toBe("wrong_password");
    const unasked = await other.fails(4, ["import", path]);
    expect([unasked.code, unasked.hint]).toEqual([
      "password_needed",
      expect.stringContaining("--archive-password-file"),
    ]);
    expect((await other.ok(["list"])).data.items).toEqual([]);
    expect((await other.ok(["import", path, ...archive])).data).toMatchObject({ imported: data.count });
    expect(await contentOf(other)).toEqual(await contentOf(home));
    const none = world.file("unasked.age");
    expect((await home.fails(4, ["export", "--all", "--out", none])).code).toBe("password_needed");
    expect(existsSync(none)).toBe(false);
  });

  test("at a terminal the archive's password is asked for: twice for a new one, once for a known one", async () => {
    const path = world.file("asked.age");
    const twice = [
      { expect: "Password of the archive", type: `${ARCHIVE_PASSWORD}\r` },
      { expect: "Again", type: `${ARCHIVE_PASSWORD}\r` },
    ];
    const made = await onTerminal(home.dir, ["export", "note/one", "note/two", "--out", path], twice);
    expect([made.code, made.shown.includes("read back and compared")]).toEqual([0, true]);
    const once = [{ expect: "Password of the archive", type: `${ARCHIVE_PASSWORD}\r` }];
    const read = await onTerminal(home.dir, ["import", path, "--dry-run"], once);
    expect([read.code, /note\/one\s+note\s+same/.test(read.shown)]).toEqual([0, true]);
    expect(made.shown + read.shown).not.toContain(ARCHIVE_PASSWORD);
  });

  testNeeding(
    ["age", "ssh-keygen"],
    "to keys of ssh, from a file of recipients; without the key a clear refusal",
    async () => {
      const key = world.file("id");
      await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]);
      const list = world.file("recipients", `# ours\n${readFileSync(`${key}.pub`, "utf8")}`);
      const path = world.file("ssh.age");
      await home.ok(["export", "--all", "--out", path, "--recipient", `@${list}`]);
      expect(JSON.parse(await run(["age", "-d", "-i", key, path])).keyhold).toBe("export");
      const refused = await home.fails(2, ["import", path]);
      expect(refused.hint).toContain("--identity");
      expect((await home.ok(["import", path, "--identity", key])).data).toMatchObject({ imported: 0 });
      chmodSync(key, 0o644);
      expect((await home.fails(5, ["import", path, "--identity", key])).code).toBe("denied");
      for (const bad of ["age1nonsense", "@/no/such/file", "ssh-rsa AAAA"]) {
        const error = await home.run(["export", "--all", "--out", world.file("bad.age"), "--recipient", bad, "--json"]);
        expect([bad, [2, 3].includes(error.code)]).toEqual([bad, true]);
      }
      await home.fails(2, ["export", "--all", "--to", "json", "--out", world.file("bad.age"), "--recipient", "age1x"]);
      expect(existsSync(world.file("bad.age"))).toBe(false);
    },
  );

  test("a file of 1 MiB goes into an archive and comes back", async () => {
    const value = Uint8Array.from({ length: 1_048_576 }, (_, i) => (i * 7 + (i >> 8)) & 255);
    const item = { name: "file/large", type: "file", valueB64: Buffer.from(value).toString("base64url") };
    const small = { name: "file/small", type: "file", valueB64: "AAEC" };
    const items = [item, small].map((one) => ({ ...one, tags: ["t"], createdAt: null }));
    const path = world.file("files.json", JSON.stringify({ keyhold: "export", v: 1, items }));
    const from = await localHome("files");
    const dry = await from.ok(["import", path, "--dry-run"]);
    expect(dry.data.items.map(({ outcome }: { outcome: string }) => outcome)).toEqual(["new", "new"]);
    expect((await from.ok(["list"])).data.items).toEqual([]);
    expect((await from.ok(["import", path])).data).toMatchObject({ imported: 2, skipped: 0 });
    expect((await from.ok(["import", path])).data).toMatchObject({ imported: 0, skipped: 2 });
    const sealed = world.file("files.age");
    expect((await from.ok(["export", "--all", "--out", sealed, ...archive])).data.count).toBe(2);
    const to = await localHome("files-again");
    expect((await to.ok(["import", sealed, ...archive])).data).toMatchObject({ imported: 2 });
    const [large] = await contentOf(to);
    expect(Buffer.from(`${large?.["valueB64"]}`, "base64url").equals(value)).toBe(true);
  });
});

test("a large file keeps its time of creation, fields and expiry, and they are compared", async () => {
  const value = Buffer.alloc(100_000, 7).toString("base64url");
  const fields = [{ name: "notes", kind: "text", value: "one" }];
  const times = { createdAt: "2020-01-02T03:04:05.678Z", expiresAt: "2031-01-31T00:00:00.000Z" };
  const large = { name: "large", type: "file", valueB64: value, tags: ["t"], fields, ...times };
  const pathOf = (name: string, ...items: unknown[]) =>
    world.file(name, JSON.stringify({ keyhold: "export", v: 2, items }));
  const to = await localHome("large-whole");
  const path = pathOf("large.json", large);
  expect((await to.ok(["import", path])).data.imported).toBe(1);
  expect(await contentOf(to)).toEqual([large]);
  const { data } = await to.ok(["list"]);
  expect((await to.ok(["get", "large"])).data.origin).toBe("imported:json");
  expect((await to.ok(["import", path])).data).toMatchObject({ imported: 0, skipped: 1 });
  expect((await to.ok(["list"])).data).toEqual(data);
  const other = { ...large, fields: [{ name: "notes", kind: "text", value: "two" }], expiresAt: null };
  expect((await to.ok(["import", pathOf("other.json", other)])).data).toMatchObject({ imported: 1, skipped: 0 });
  expect(await contentOf(to)).toEqual([other]);
  const wordy = { ...large, fields: [{ name: "notes", kind: "text", value: "x".repeat(20_000) }] };
  const small = { name: "small", type: "note", value: "v", tags: [], createdAt: null, fields: [], expiresAt: null };
  await to.fails(2, ["import", pathOf("wordy.json", small, wordy)]);
  expect(await contentOf(to)).toEqual([other]);
});

test("--skip-unsupported leaves out what a format cannot hold of a type that it can, and says so", async () => {
  const from = await localHome("unsupported");
  const field = (name: string, kind: string, value: string) => ({ name, kind, value });
  const uri = "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP";
  const one = (name: string, type: string, value: object, ...fields: object[]) => ({
    ...{ name, type, ...value, tags: [], createdAt: null, fields, expiresAt: null },
  });
  const items = [
    one("a/otp", "login", { value: "pw" }, field("otp", "otp", uri)),
    one("b/plain", "login", { value: 'it\'s "a" `b`' }),
    one("c/fields", "login", { value: "" }, field("user", "text", "ada")),
    one("d/zero", "password", { value: "\0" }),
    one("e/bytes", "bytes", { valueB64: Buffer.alloc(60_000, 255).toString("base64url") }),
    one("f/file", "file", { valueB64: "_w" }, field("notes", "text", "of a file")),
  ];
  await from.ok(["import", world.file("unsupported.json", JSON.stringify({ keyhold: "export", v: 2, items }))]);
  const kept = { otpauth: ["a/otp"], dotenv: ["a/otp"], bitwarden: ["a/otp", "b/plain", "c/fields", "d/zero"] };
  for (const [format, names] of Object.entries(kept)) {
    const path = world.file(`unsupported.${format}`);
    const all = ["export", "--all", "--to", format, "--out", path];
    await from.fails(2, all);
    const done = await from.run([...all, "--skip-unsupported", "--json"]);
    expect([format, done.code]).toEqual([format, 10]);
    const { count, lost } = JSON.parse(done.out).data;
    expect([format, count]).toEqual([format, names.length]);
    for (const { name } of items.filter((item) => !names.includes(item.name))) expect(lost.join()).toContain(name);
  }
  const bare = ["export", "b/plain", "--to", "otpauth", "--skip-unsupported", "--out", world.file("bare.txt")];
  expect((await from.fails(2, bare)).message).toBe("there is nothing to export as otpauth");
  const again = await localHome("unsupported-again");
  const table = world.file("unsupported.csv");
  await from.ok(["export", "--all", "--to", "csv", "--out", table]);
  await again.ok(["import", table]);
  expect((await contentOf(again)).map(({ createdAt: _, ...rest }) => rest)).toEqual(
    (await contentOf(from)).map(({ createdAt: _, ...rest }) => rest),
  );
});

describe("import", () => {
  test("a path that leads nowhere is told as such", async () => {
    const loop = world.file("loop");
    symlinkSync(loop, loop);
    await home.fails(5, ["import", loop]);
    await home.fails(5, ["import", `${loop}/x`]);
    await home.fails(5, ["import", "a".repeat(5_000)]);
  });

  test("--dry-run shows what maps where and what is lost, and changes nothing", async () => {
    const before = await contentOf(home);
    const shown = await home.run(["import", BITWARDEN, "--dry-run", "--prefix", "dry/"]);
    expect(shown.code).toBe(10);
    expect(shown.out).toMatch(/^NAME +TYPE +FIELDS +OUTCOME\n/);
    expect(shown.out).toMatch(/^dry\/\S.* login +.*user.* new$/m);
    expect(shown.out).toMatch(/^would import \d+, skipped 0/m);
    expect(shown.out).toMatch(/^lost: /m);
    expect(await contentOf(home)).toEqual(before);
  });

  test("stdin, a table with --map, and a name for the one secret", async () => {
    const table = "Titel,Kennwort,Konto\nMail,geheim,ada\n";
    const map = ["--from", "csv", "--map", "name=Titel,value=Kennwort,user=Konto"];
    const done = await home.ok(["import", "-", ...map, "--prefix", "csv/"], { stdin: table });
    expect(done.data.items).toEqual([{ name: "csv/Mail", type: "login", fields: ["user"], outcome: "new" }]);
    await home.ok(["import", "-", "--from", "hex", "--name", "from/stdin"], { stdin: "00ff" });
    expect([...(await home.run(["read", "from/stdin"])).bytes]).toEqual([0, 255]);
    await home.fails(2, ["import", "-", "--from", "hex"], { stdin: "00ff" });
    for (const bad of ["x", "=x", "a=", "a=1,a=2", ""]) {
      await home.fails(2, ["import", "-", ...map.slice(0, 3), bad], { stdin: table });
    }
  });

  test("a directory that is none of pass, a file as a directory, a format that is not read", async () => {
    const empty = world.file("empty");
    mkdirSync(empty);
    await home.fails(2, ["import", empty]);
    await home.fails(2, ["import", empty, "--from", "json"]);
    await home.fails(2, ["import", BITWARDEN, "--from", "pass"]);
    await home.fails(2, ["import", BITWARDEN, "--from", "unheard-of"]);
    await home.fails(3, ["import", world.file("nothing-here"), "--from", "json"]);
    expect(readdirSync(empty)).toEqual([]);
  });
});

describe("export", () => {
  const out = (name: string) => world.file(name);

  testNeeding("openssl", "--protect: openssl opens the key with the password", async () => {
    const path = out("protected.pem");
    await home.ok(["export", "key/ed", "--to", "pem", "--protect", "--out", path, ...archive]);
    expect(readFileSync(path, "utf8")).toStartWith("-----BEGIN ENCRYPTED PRIVATE KEY-----");
    await run(["openssl", "pkey", "-in", path, "-passin", `pass:${ARCHIVE_PASSWORD}`, "-noout"]);
    const { data } = await home.ok(["import", path, "--name", "key/back", ...archive]);
    expect(data.items).toMatchObject([{ name: "key/back", type: "ed25519" }]);
    await home.fails(2, ["export", "--all", "--to", "json", "--protect", "--out", out("none")]);
  });

  test("in clear it says so; --skip-unsupported leaves out by name, otherwise it names the formats that can", async () => {
    const clear = await home.run(["export", "key/ed", "--to", "pem", "--out", out("clear.pem")]);
    expect([clear.code, clear.err.includes("in clear (--protect")]).toEqual([0, true]);
    const quiet = await home.run(["export", "key/ed", "--to", "pem", "--out", out("quiet.pem"), "--quiet"]);
    expect([quiet.code, quiet.err]).toEqual([0, ""]);
    const refused = await home.fails(2, ["export", "--all", "--to", "jwks", "--out", out("keys.jwks")]);
    expect(refused.hint).toStartWith("use --to ");
    expect(existsSync(out("keys.jwks"))).toBe(false);
    const flags = ["--prefix", "key/", "--to", "jwks", "--skip-unsupported"];
    await home.fails(2, ["export", ...flags, "key/ed", "--out", out("keys.jwks")]);
    const { data, code } = await home.ok(["export", "key/ed", "key/ssh", ...flags.slice(2), "--out", out("keys.jwks")]);
    expect([code, data.count, data.lost]).toEqual([10, 1, ['key/ssh: type "ssh"']]);
  });

  test("--tag and --prefix choose", async () => {
    const tagged = await home.ok(["export", "--tag", "kept", "--to", "json", "--out", out("tag.json")]);
    expect(tagged.data.count).toBe(1);
    const both = await home.ok(["export", "--prefix", "note/", "--to", "json", "--out", out("prefix.json")]);
    expect(both.data.count).toBe(2);
    await home.fails(2, ["export", "--to", "json", "--out", out("nothing.json")]);
  });

  test("an existing file, a directory, no room for names: refused, and nothing is left behind", async () => {
    const dir = out("target");
    mkdirSync(dir);
    writeFileSync(join(dir, "there"), "precious");
    await home.fails(6, ["export", "--all", "--to", "json", "--out", join(dir, "there")]);
    await home.fails(5, ["export", "--all", "--to", "json", "--out", dir]);
    await home.fails(3, ["export", "--all", "--to", "json", "--out", join(dir, "no", "such")]);
    await home.fails(2, ["export", "note/one", "--to", "bip39", "--out", join(dir, "words")]);
    await home.fails(3, ["export", "no/such", "--to", "json", "--out", join(dir, "words")]);
    expect(readdirSync(dir)).toEqual(["there"]);
    expect(readFileSync(join(dir, "there"), "utf8")).toBe("precious");
  });

  test("bip39: the words of 32 bytes, with the caution", async () => {
    await home.ok(["generate", "bytes32"]);
    const words = await home.run(["export", "bytes32", "--to", "bip39", "--out", "-"]);
    expect([words.out.split(" ").length, words.err.includes("no seed of a wallet")]).toEqual([24, true]);
    const { data } = await home.ok(["import", "-", "--name", "bytes32-again"], { stdin: words.out });
    expect(data).toMatchObject({ imported: 1, format: "bip39" });
    const [one, other] = [await home.run(["read", "bytes32"]), await home.run(["read", "bytes32-again"])];
    expect(Buffer.from(one.bytes).equals(other.bytes)).toBe(true);
  });
});
