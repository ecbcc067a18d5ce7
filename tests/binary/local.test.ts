import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { hashCanon } from "../../src/crypto/kdf.ts";
import { filesBelow, traces } from "./traces.ts";
import { ended, type Home, openWorld, SETUP_MS, spawn, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld({ server: false });
}, SETUP_MS);
afterAll(() => world.close());

async function localHome(name: string, options: { unlock?: boolean } = {}): Promise<Home> {
  const home = world.home(name);
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  if (options.unlock !== false) await home.ok(["unlock", ...home.password]);
  return home;
}

/** Makes the plain hash over the header fit again (docs/vault-format.md §2), as an attacker can. */
function mendCheck(vault: Buffer): void {
  const end = 221 + (vault[220] === 1 ? 73 : 0) + 4;
  vault.set(hashCanon("keyhold/v1/vault-check", vault.subarray(0, end)), end);
}

const vaultOf = (home: Home) => join(home.dir, "data", "vaults", "default.vault");

test("works with no server at all, with the key derivation that people get", async () => {
  const home = world.home("real", "a real password of a person");
  const { data } = await home.ok(["init", "--local", ...home.password]);
  expect(data).toEqual({ profile: "default", vault: vaultOf(home), kit: { confirmed: false } });
  expect((await home.fails(6, ["init", "--local", ...home.password])).code).toBe("exists");
  const { data: made } = await home.ok(["generate", "wifi", "--type", "passphrase", "--tag", "home", ...home.password]);
  expect(made).toMatchObject({ name: "wifi", where: "local", version: 1 });
  await home.ok(["unlock", ...home.password]);
  await home.ok(["store", "bin"], { stdin: Uint8Array.of(0, 255, 0) });
  expect([...(await home.run(["read", "bin"])).bytes]).toEqual([0, 255, 0]);
  const { data: list } = await home.ok(["list"]);
  expect(list.items.map(({ name }: { name: string }) => name).sort()).toEqual(["bin", "wifi"]);
  expect((await home.ok(["vault", "check", ...home.password])).data).toMatchObject({ ok: true, secrets: 2 });
  const { data: status } = await home.ok(["vault", "status"]);
  expect(status.path).toBe(vaultOf(home));
  expect(status.memoryKib).toBeGreaterThanOrEqual(65_536);
});

test("does everything that needs no server", async () => {
  const home = await localHome("does");
  await home.ok(["store", "a"], { stdin: "one" });
  await home.ok(["store", "a"], { stdin: "two" });
  await home.ok(["rename", "a", "b"]);
  await home.ok(["tag", "b", "--add", "t"]);
  expect((await home.run(["read", "kh://b?version=1"])).out).toBe("one");
  await home.ok(["restore", "b", "--version", "1"]);
  expect((await home.run(["read", "b"])).out).toBe("one");
  expect((await home.ok(["history", "b"])).data.items.length).toBeGreaterThanOrEqual(3);
  const out = world.file("does.json");
  await home.ok(["export", "--all", "--to", "json", "--out", out]);
  await home.ok(["remove", "b", "--purge", "--yes"]);
  await home.fails(3, ["get", "b"]);
  expect((await home.ok(["import", out])).data.imported).toBe(1);
  expect((await home.run(["run", "--env", "B=kh://b", "--", "sh", "-c", 'printf %s "$B"'])).out).toBe("one");
  expect((await home.fails(2, ["store", "c", "--store", "server"], { stdin: "x" })).code).toBe("bad_input");
  expect((await home.fails(2, ["login", ...home.password])).code).toBe("bad_input");
});

test("locked or with a wrong password every read exits 4; the right one opens it again", async () => {
  const home = await localHome("locks");
  await home.ok(["store", "a"], { stdin: "x" });
  expect((await home.ok(["lock"])).data).toMatchObject({ locked: true, was: true });
  expect((await home.ok(["lock"])).data).toMatchObject({ was: false });
  expect((await home.fails(4, ["get", "a"])).code).toBe("password_needed");
  const wrong = ["--password-file", world.file("locks-wrong", "not the password")];
  for (const argv of [
    ["get", "a"],
    ["list"],
    ["unlock"],
    ["vault", "check"],
    ["export", "a", "--to", "raw", "--out", world.file("locks-out")],
  ]) {
    expect((await home.fails(4, [...argv, ...wrong])).code).toBe("wrong_password");
  }
  await home.ok(["unlock", ...home.password]);
  // given explicitly it is checked even if the agent is unlocked
  expect((await home.fails(4, ["get", "a", ...wrong])).code).toBe("wrong_password");
  expect((await home.run(["read", "a"])).out).toBe("x");
});

test("passwords come by file, descriptor, stdin and credentials directory; a readable file is refused", async () => {
  const home = await localHome("sources", { unlock: false });
  const password = readFileSync(home.password[1], "utf8");
  await home.ok(["list", "--password-stdin"], { stdin: `${password}\n` });
  await home.ok(["list", "--password-fd", "0"], { stdin: password });
  expect((await home.fails(4, ["list", "--password-stdin"], { stdin: `${password}\n\n` })).code).toBe("wrong_password");
  const credentials = join(world.dir, "credentials");
  mkdirSync(credentials);
  writeFileSync(join(credentials, "keyhold-password"), password, { mode: 0o600 });
  await home.ok(["list"], { env: { CREDENTIALS_DIRECTORY: credentials } });
  writeFileSync(join(world.dir, "open-password"), password);
  // whatever umask an earlier test of this process left
  chmodSync(join(world.dir, "open-password"), 0o644);
  expect((await home.fails(5, ["list", "--password-file", world.file("open-password")])).code).toBe("denied");
  expect((await home.fails(3, ["list", "--password-file", world.file("no-such-password")])).code).toBe("not_found");
  expect((await home.fails(2, ["list", "--password-fd", "77"])).code).toBe("bad_input");
  expect((await home.fails(2, ["store", "x", "--password-stdin"], { stdin: "both" })).code).toBe("usage");
  const short = world.home("sources-short", "short");
  expect((await short.fails(2, ["init", "--local", ...short.password])).code).toBe("bad_input");
});

describe("a damaged vault file", () => {
  test("cut at any length, with any bit flipped, is refused and left as it is", async () => {
    const home = await localHome("damaged", { unlock: false });
    await home.ok(["store", "a", ...home.password], { stdin: "x" });
    const path = vaultOf(home);
    const good = readFileSync(path);
    const damaged: [string, Uint8Array][] = [];
    for (const length of [0, 1, 13, 14, 100, 221, 300, good.length - 1])
      damaged.push([`cut ${length}`, good.subarray(0, length)]);
    const middle = Math.floor(good.length / 2);
    for (const at of [0, 15, 31, 65, 80, 107, 150, 215, 220, 240, 300, middle, good.length - 1]) {
      const flipped = Buffer.from(good);
      flipped[at] = (flipped[at] ?? 0) ^ 1;
      damaged.push([`bit ${at}`, flipped]);
    }
    damaged.push(
      ["longer", Buffer.concat([good, Buffer.alloc(1)])],
      ["zeros", Buffer.alloc(good.length)],
      ["text", Buffer.from("hello")],
    );
    for (const [what, bytes] of damaged) {
      writeFileSync(path, bytes);
      for (const argv of [["list"], ["vault", "check"], ["store", "b", "--in-file", home.password[1]]]) {
        const error = await home.fails(8, [...argv, ...home.password]);
        expect([what, error.code]).toEqual([what, "corrupt"]);
      }
      expect([what, Buffer.compare(readFileSync(path), bytes)]).toEqual([what, 0]);
    }
    writeFileSync(path, good);
    expect((await home.run(["read", "a", ...home.password])).out).toBe("x");
  });

  test("of a newer version or of absurd cost is refused with exit 2 and left as it is", async () => {
    const home = await localHome("newer", { unlock: false });
    const path = vaultOf(home);
    const good = readFileSync(path);
    const newer = Buffer.from(good);
    newer[13] = 2;
    writeFileSync(path, newer);
    expect((await home.fails(2, ["list", ...home.password])).message).toMatch(/format 2 is unknown/);
    expect(Buffer.compare(readFileSync(path), newer)).toBe(0);
    // the check is a plain hash, so that an attacker can make it fit
    for (const [at, value] of [
      [63, 0xffff_ffff],
      [67, 0xffff],
      [71, 0xffff],
      [63, 1],
    ] as const) {
      const dear = Buffer.from(good);
      dear.writeUInt32BE(value, at);
      mendCheck(dear);
      writeFileSync(path, dear);
      expect([at, value, (await home.fails(2, ["list", ...home.password])).code]).toEqual([at, value, "bad_input"]);
      expect(Buffer.compare(readFileSync(path), dear)).toBe(0);
    }
  });

  test("that is a symbolic link, a directory or gone is refused", async () => {
    const home = await localHome("link", { unlock: false });
    const path = vaultOf(home);
    const aside = world.file("link-target");
    renameSync(path, aside);
    expect((await home.fails(3, ["list", ...home.password])).code).toBe("not_found");
    symlinkSync(aside, path);
    for (const argv of [["list"], ["store", "x", "--in-file", home.password[1]]]) {
      const ran = await home.run([...argv, ...home.password, "--json"]);
      expect([argv, [2, 5, 8].includes(ran.code), ran.err]).toEqual([argv, true, expect.stringMatching(/link/)]);
    }
    rmSync(path);
    mkdirSync(path);
    const ran = await home.run(["list", ...home.password, "--json"]);
    expect([2, 5, 8]).toContain(ran.code);
  });
});

test("modes are 0600 and 0700, and nothing in the home holds a name or a value in clear", async () => {
  const home = await localHome("modes");
  await home.ok(["store", "canary/wallaby", "--tag", "canary-tag"], { stdin: "canary value thylacine" });
  await home.ok(["vault", "backup", "--out", world.file("modes-backup")]);
  const files = filesBelow(home.dir);
  expect(files.length).toBeGreaterThan(3);
  for (const { path, mode } of files) expect([path, mode]).toEqual([path, 0o600]);
  const walk = (dir: string): string[] =>
    readdirSync(dir, { withFileTypes: true }).flatMap((one) =>
      one.isDirectory() ? [join(dir, one.name), ...walk(join(dir, one.name))] : [],
    );
  for (const dir of walk(home.dir)) expect([dir, statSync(dir).mode & 0o777]).toEqual([dir, 0o700]);
  expect(statSync(join(home.dir, "run", "agent-default.sock")).mode & 0o777).toBe(0o600);
  const everything = [...files, { path: "backup", bytes: readFileSync(world.file("modes-backup")) }];
  for (const text of ["wallaby", "canary-tag", "thylacine", "correct horse"]) {
    for (const form of traces(text)) {
      expect([text, everything.filter(({ bytes }) => bytes.includes(form)).map(({ path }) => path)]).toEqual([
        text,
        [],
      ]);
    }
  }
});

test("two processes at once lose nothing", async () => {
  const home = await localHome("both", { unlock: false });
  const writes = Array.from({ length: 8 }, (_, i) =>
    home.run(["store", `n/${i}`, ...home.password], { stdin: `${i}` }),
  );
  expect((await Promise.all(writes)).map(({ code }) => code)).toEqual(writes.map(() => 0));
  expect((await home.ok(["list", ...home.password])).data.items).toHaveLength(8);
});

test("backup, restore and rekey", async () => {
  const home = await localHome("care");
  await home.ok(["store", "a"], { stdin: "before" });
  const backup = world.file("care-backup");
  await home.ok(["vault", "backup", "--out", backup]);
  expect(statSync(backup).mode & 0o777).toBe(0o600);
  await home.ok(["store", "a"], { stdin: "after" });
  const next = world.file("care-next", "the next password");
  const nextFlags = ["--password-file", next];
  expect((await home.fails(4, ["vault", "rekey", ...nextFlags, "--new-password-file", next])).code).toBe(
    "wrong_password",
  );
  await home.ok(["vault", "rekey", ...home.password, "--new-password-file", next]);
  // the agent that held the old keys has ended
  expect((await home.fails(4, ["get", "a"])).code).toBe("password_needed");
  expect((await home.fails(4, ["get", "a", ...home.password])).code).toBe("wrong_password");
  expect((await home.run(["read", "a", ...nextFlags])).out).toBe("after");

  const before = readFileSync(vaultOf(home));
  expect((await home.fails(2, ["vault", "restore", backup, ...home.password])).code).toBe("input_needed");
  expect((await home.fails(4, ["vault", "restore", backup, ...nextFlags, "--yes"])).code).toBe("wrong_password");
  const broken = world.file("care-broken", readFileSync(backup).subarray(0, 300));
  expect((await home.fails(8, ["vault", "restore", broken, ...home.password, "--yes"])).code).toBe("corrupt");
  expect((await home.fails(3, ["vault", "restore", world.file("care-none"), ...home.password, "--yes"])).code).toBe(
    "not_found",
  );
  expect(Buffer.compare(readFileSync(vaultOf(home)), before)).toBe(0);
  const { data } = await home.ok(["vault", "restore", backup, ...home.password, "--yes"]);
  expect(data.generation).toBeGreaterThan(0);
  expect((await home.run(["read", "a", ...home.password])).out).toBe("before");
});

test("killed at any moment of a write: never corrupt, nothing acknowledged lost, no stray files afterwards", async () => {
  const home = await localHome("killed", { unlock: false });
  const acknowledged = new Set<string>();
  for (let round = 0; round < 12; round++) {
    const name = `k/${round}`;
    const child = await spawn(home.dir, ["store", name, ...home.password], { stdin: name });
    await Bun.sleep(35 + round * 4);
    child.kill("SIGKILL");
    if ((await child.exited) === 0) acknowledged.add(name);
  }
  await home.ok(["store", "last", ...home.password], { stdin: "last" });
  const { data } = await home.ok(["list", ...home.password]);
  const names = data.items.map(({ name }: { name: string }) => name);
  for (const name of acknowledged) expect(names).toContain(name);
  expect((await home.ok(["vault", "check", ...home.password])).data.ok).toBe(true);
  expect(readdirSync(join(home.dir, "data", "vaults")).sort()).toEqual([
    "default.vault",
    "default.vault.lock",
    "default.vault.previous",
  ]);
});

describe("the agent", () => {
  test("says what it is, serves, and ends when its home vanishes", async () => {
    const home = await localHome("agent");
    const { data } = await home.ok(["agent", "status"]);
    expect(data.running).toBe(true);
    expect(Date.parse(data.locksAt)).toBeLessThan(Date.parse(data.endsAt));
    expect(ended(data.pid)).toBe(false);
    rmSync(home.dir, { recursive: true, force: true });
    const deadline = Date.now() + 20_000;
    while (!ended(data.pid) && Date.now() < deadline) await Bun.sleep(50);
    expect(ended(data.pid)).toBe(true);
  });

  test("killed, its socket left behind, is noticed and replaced", async () => {
    const home = await localHome("agent-killed");
    await home.ok(["store", "a"], { stdin: "x" });
    const { data } = await home.ok(["agent", "status"]);
    process.kill(data.pid, "SIGKILL");
    const deadline = Date.now() + 20_000;
    while (!ended(data.pid) && Date.now() < deadline) await Bun.sleep(20);
    expect((await home.fails(4, ["get", "a"])).code).toBe("password_needed");
    expect((await home.ok(["agent", "status"])).data).toMatchObject({ running: false });
    await home.ok(["agent", "start", ...home.password]);
    expect((await home.run(["read", "a"])).out).toBe("x");
    const { data: second } = await home.ok(["agent", "status"]);
    await home.ok(["unlock", ...home.password]);
    const { data: third } = await home.ok(["agent", "status"]);
    expect(third.pid).not.toBe(second.pid);
    process.kill(third.pid, "SIGTERM");
    while (!ended(third.pid) && Date.now() < deadline) await Bun.sleep(20);
    expect((await home.ok(["agent", "status"])).data.running).toBe(false);
    expect(existsSync(join(home.dir, "run", "agent-default.sock"))).toBe(false);
  });

  test("locks itself when nothing is asked of it", async () => {
    const home = await localHome("agent-idle", { unlock: false });
    await home.ok(["unlock", ...home.password], { env: { KEYHOLD_AGENT_IDLE: "1s" } });
    const deadline = Date.now() + 20_000;
    let running = true;
    while (running && Date.now() < deadline) {
      await Bun.sleep(300);
      running = (await home.ok(["agent", "status"])).data.running;
    }
    expect(running).toBe(false);
  });
});

test("profiles keep apart what they hold", async () => {
  const home = world.home("profiles");
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  const other = world.file("profiles-other", "another password here");
  const otherFlags = ["--password-file", other, "--kdf", "test"];
  await home.ok(["init", "--local", "--profile", "work", ...otherFlags]);
  await home.ok(["store", "a", ...home.password], { stdin: "private" });
  await home.ok(["store", "a", "--profile", "work", ...otherFlags], { stdin: "work" });
  expect((await home.run(["read", "a", ...home.password])).out).toBe("private");
  expect((await home.run(["read", "a", ...otherFlags], { env: { KEYHOLD_PROFILE: "work" } })).out).toBe("work");
  expect((await home.run(["read", "kh://a?profile=work", ...otherFlags])).out).toBe("work");
  expect((await home.fails(4, ["read", "a", "--profile", "work", ...home.password])).code).toBe("wrong_password");
  await home.ok(["profile", "use", "work"]);
  expect((await home.run(["read", "a", ...otherFlags])).out).toBe("work");
  const { data } = await home.ok(["profile", "list"]);
  expect(data.items.map((one: Record<string, unknown>) => [one["name"], one["default"]])).toEqual([
    ["default", false],
    ["work", true],
  ]);
  expect((await home.fails(4, ["list", "--profile", "none", ...home.password])).message).toContain("none");
  for (const bad of ["../x", "a/b", "", ".", "a\nb"]) {
    expect((await home.fails(2, ["init", "--local", "--profile", bad, ...home.password])).code).toMatch(
      /usage|bad_input/,
    );
  }
  await home.ok(["profile", "remove", "work", "--yes"]);
  expect(readdirSync(join(home.dir, "data", "vaults"))).not.toContain("work.vault");
  expect((await home.run(["read", "a", "--profile", "default", ...home.password])).out).toBe("private");
});
