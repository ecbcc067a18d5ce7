import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newAgeIdentity } from "../../src/formats/age.ts";
import { HANG_MS, type Home, keyhold, openWorld, serve, serverFlags, type World } from "./world.ts";

const PASSWORD = "correct horse battery staple backup";

let world: World;
let operator: string;
let identity: string;
let recipient: string;

beforeAll(async () => {
  world = await openWorld();
  operator = join(world.dir, "operator");
  mkdirSync(operator, { mode: 0o700 });
  const made = await newAgeIdentity();
  recipient = made.recipient;
  identity = world.file("age.txt", `# created for a test\n${made.identity}\n`);
});
afterAll(() => world.close());

const server = (...argv: string[]) => keyhold(operator, ["server", ...argv, "--json", "--no-input"]);
const dirFlags = () => ["--dir", join(world.dir, "server")];

async function backup(name: string): Promise<{ data: string; keys: string }> {
  const files = { data: join(world.dir, `${name}.db`), keys: join(world.dir, `${name}.age`) };
  const ran = await server(
    ...["backup", ...dirFlags(), "--data", files.data, "--keys", files.keys, "--recipient", recipient],
  );
  expect([ran.code, ran.err]).toEqual([0, ""]);
  return files;
}

const restore = (dir: string, { data, keys }: { data: string; keys: string }, by = ["--identity", identity]) =>
  server("restore", "--dir", dir, "--data", data, "--keys", keys, ...by);

const code = (ran: { err: string }) => JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "").error.code;

const values = async (home: Home, names: readonly string[]) =>
  Promise.all(
    names.map(async (name) => {
      const ran = await home.run(["read", name, "--fresh", ...home.password]);
      if (ran.code !== 0) throw new Error(`${name}: exit ${ran.code}: ${ran.err}`);
      return ran.out;
    }),
  );

describe("restore drill", () => {
  let ada: Home;
  let phone: Home;
  let files: { data: string; keys: string };
  let restored: string;

  beforeAll(async () => {
    ada = world.home("ada", PASSWORD);
    await ada.register("ada");
    for (const name of ["kept", "changed", "removed", "elsewhere"])
      await ada.ok(["store", name], { stdin: `${name} 1` });
    phone = world.home("phone", PASSWORD);
    await phone.login("ada");
    await phone.ok(["get", "kept", "--save"]);
    files = await backup("drill");
    await ada.ok(["store", "changed"], { stdin: "changed 2" });
    await ada.ok(["store", "later"], { stdin: "later 1" });
    await ada.ok(["store", "uncopied", "--store", "server"], { stdin: "uncopied 1" });
    await ada.ok(["store", "mine", "--store", "local"], { stdin: "mine 1" });
    await ada.ok(["rename", "elsewhere", "renamed"]);
    await ada.ok(["remove", "removed", "--yes"]);
    await phone.ok(["store", "from/phone"], { stdin: "phone 1" });

    const { port } = world.server;
    await world.server.stop("SIGKILL");
    restored = join(world.dir, "restored");
    const ran = await restore(restored, files);
    expect(ran.err).toBe("");
    expect(JSON.parse(ran.out).data).toMatchObject({ accounts: 1, dir: restored });
    world.server = await serve(restored, ["--listen", `127.0.0.1:${port}`]);
  });

  test("the two files are private, and the keys are sealed", () => {
    for (const path of [files.data, files.keys]) expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readFileSync(files.keys, "utf8")).toStartWith("age-encryption.org/v1\n");
  });

  test("without the owner's word every command that meets the server stops, with exit 8", async () => {
    // its session died with the restore; a login then meets the new incarnation
    await ada.fails(4, ["list", "--fresh"]);
    const refused = await ada.fails(8, ["login", ...ada.password]);
    expect(refused).toMatchObject({ code: "integrity", hint: expect.stringContaining("--accept-restore") });
    await ada.fails(8, ["list", "--fresh", ...ada.password]);
    await ada.fails(2, ["sync", "--accept-restore", "--no-input", ...ada.password]);
  });

  test("with it the vault gives back what was lost, and says what it cannot", async () => {
    const { data, code: exit } = await ada.ok(["sync", "--accept-restore", "--yes", ...ada.password]);
    expect(exit).toBe(10);
    expect(data).toMatchObject({ lost: ["uncopied"], removed: ["removed"] });
    expect([...data.uploaded].sort()).toEqual(["changed", "later", "renamed"]);
    expect(data.serverRevision).toBeLessThan(data.knownRevision);
    expect(await values(ada, ["kept", "changed", "later", "renamed"])).toEqual([
      "kept 1",
      "changed 2",
      "later 1",
      "elsewhere 1",
    ]);
    expect((await ada.run(["read", "mine", ...ada.password])).out).toBe("mine 1");
    await ada.fails(3, ["get", "removed", ...ada.password]);
    await ada.fails(2, ["sync", "--accept-restore", "--yes", ...ada.password]);
  });

  test("a second device adopts too, with what it alone has", async () => {
    await phone.fails(8, ["list", "--fresh", ...phone.password]);
    const { data } = await phone.ok(["sync", "--accept-restore", "--yes", ...phone.password]);
    expect(data.uploaded).toEqual(["from/phone"]);
    for (const home of [ada, phone]) {
      expect(await values(home, ["changed", "later", "from/phone", "kept"])).toEqual([
        "changed 2",
        "later 1",
        "phone 1",
        "kept 1",
      ]);
      expect((await home.ok(["audit", "verify", ...home.password])).data.ok).toBe(true);
    }
    const { data: log } = await ada.ok(["audit", "list", "--action", "account.adopt", ...ada.password]);
    expect(log.items.map(({ signed }: { signed: boolean }) => signed)).toEqual([true, true]);
  });

  test("a new device needs no word, and the account goes on", async () => {
    const fresh = world.home("fresh", PASSWORD);
    await fresh.login("ada");
    await fresh.ok(["store", "after"], { stdin: "after 1" });
    expect(await values(ada, ["after"])).toEqual(["after 1"]);
    const check = await keyhold(operator, ["server", "check", "--dir", restored, "--json"]);
    expect([check.code, check.err]).toEqual([0, ""]);
  });
});

describe("what does not restore", () => {
  let files: { data: string; keys: string };
  beforeAll(async () => {
    files = await backup2();
  });

  async function backup2() {
    const dir = join(world.dir, "restored");
    const made = { data: join(world.dir, "second.db"), keys: join(world.dir, "second.age") };
    const ran = await server(
      "backup",
      "--dir",
      dir,
      "--data",
      made.data,
      "--keys",
      made.keys,
      "--recipient",
      recipient,
    );
    expect(ran.code).toBe(0);
    return made;
  }

  /** The restore fails so, and leaves no server behind. */
  async function refused(name: string, wanted: [number, string], given: Partial<typeof files>, by?: string[]) {
    const dir = join(world.dir, name);
    const ran = await restore(dir, { ...files, ...given }, by);
    expect([ran.code, code(ran)]).toEqual(wanted);
    expect(existsSync(dir) ? readdirSync(dir) : []).toEqual([]);
  }

  test("another key, a changed key file, a key file of something else", async () => {
    const other = world.file("other.txt", `${(await newAgeIdentity()).identity}\n`);
    await refused("r1", [4, "wrong_password"], {}, ["--identity", other]);
    const bytes = readFileSync(files.keys);
    bytes[bytes.length - 3] = (bytes[bytes.length - 3] ?? 0) ^ 1;
    await refused("r2", [4, "wrong_password"], { keys: world.file("bent.age", new Uint8Array(bytes)) });
    // the two files mistaken for each other: no password is wrong
    await refused("r2", [2, "bad_input"], { data: files.keys, keys: files.data });
  });

  test("a damaged, cut or foreign data file", async () => {
    const bytes = new Uint8Array(readFileSync(files.data));
    const bent = bytes.slice();
    // some pages whole, whatever they hold
    bent.fill(0x55, 3 * 4_096, 6 * 4_096);
    await refused("r3", [8, "corrupt"], { data: world.file("bent.db", bent) });
    await refused("r4", [8, "corrupt"], { data: world.file("cut.db", bytes.slice(0, bytes.length / 2)) });
    await refused("r5", [8, "corrupt"], { data: world.file("foreign.db", "not a database") });
  });

  test("keys of another server", async () => {
    const elsewhere = join(world.dir, "elsewhere");
    mkdirSync(elsewhere, { mode: 0o700 });
    const init = await server("init", "--dir", elsewhere);
    expect(init.code).toBe(0);
    const made = { data: join(world.dir, "e.db"), keys: join(world.dir, "e.age") };
    const ran = await server(
      ...["backup", "--dir", elsewhere, "--data", made.data, "--keys", made.keys, "--recipient", recipient],
    );
    expect(ran.code).toBe(0);
    await refused("r6", [8, "corrupt"], { keys: made.keys });
  });

  test("a target that holds anything, which stays as it is", async () => {
    const dir = join(world.dir, "r7");
    mkdirSync(dir, { mode: 0o700 });
    writeFileSync(join(dir, "mine.txt"), "mine");
    const ran = await restore(dir, files);
    expect([ran.code, code(ran)]).toEqual([6, "exists"]);
    expect(readdirSync(dir)).toEqual(["mine.txt"]);
  });

  test("backup never overwrites, and refuses a recipient that is none and one file for both", async () => {
    const dir = ["--dir", join(world.dir, "restored")];
    const run = (data: string, keys: string, to = recipient) =>
      server("backup", ...dir, "--data", data, "--keys", keys, "--recipient", to);
    const before = readFileSync(files.data);
    const none = join(world.dir, "none");
    expect((await run(files.data, none)).code).toBe(6);
    expect((await run(none, files.keys)).code).toBe(6);
    expect((await run(none, none)).code).toBe(2);
    expect((await run(none, `${none}2`, "age1nonsense")).code).toBe(2);
    expect((await run(none, join(none, "keys"))).code).toBe(3);
    expect((await run(join(none, "data"), none)).code).toBe(3);
    expect(existsSync(none)).toBe(false);
    expect(readFileSync(files.data).equals(before)).toBe(true);
  });

  test(
    "a password instead of a recipient",
    async () => {
      const dir = ["--dir", join(world.dir, "restored")];
      const password = world.file("archive.password", "a long archive password");
      const made = { data: join(world.dir, "p.db"), keys: join(world.dir, "p.age") };
      const flags = ["--data", made.data, "--keys", made.keys];
      expect((await server("backup", ...dir, ...flags)).code).toBe(4);
      expect(existsSync(made.data)).toBe(false);
      expect((await server("backup", ...dir, ...flags, "--archive-password-file", password)).code).toBe(0);
      await refused("r8", [4, "wrong_password"], made, [
        "--archive-password-file",
        world.file("wrong.password", "another archive password"),
      ]);
      expect((await restore(join(world.dir, "r9"), made, ["--archive-password-file", password])).code).toBe(0);
      // four times a stretched password, each a second and more
    },
    HANG_MS,
  );
});

test("the data file alone names nothing", async () => {
  const bytes = readFileSync(join(world.dir, "second.db")).toString("latin1");
  for (const word of ["changed", "later", "phone", "ada", "kept"]) {
    expect(bytes.includes(`"${word}"`)).toBe(false);
    expect(bytes.includes(`${word} 1`)).toBe(false);
  }
  expect(serverFlags(world.server, "ada")).toHaveLength(6);
});
