import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { noteBackup } from "../../src/client/backupnote.ts";
import { examineServer } from "../../src/client/examine.ts";
import { type Home, openWorld, type RunOptions, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
}, SETUP_MS);
afterAll(() => world.close());

interface Checked {
  readonly check: string;
  readonly state: string;
  readonly detail: string;
  readonly fix: string | null;
}

async function doctor(at: Home, argv: readonly string[] = [], options: RunOptions = {}) {
  const { data, code } = await at.ok(["doctor", ...argv], options);
  const checks: readonly Checked[] = data.checks;
  return { data, code, of: (check: string) => checks.filter((one) => one.check === check) };
}

describe("doctor", () => {
  test("finds a healthy home healthy, without a password", async () => {
    const { data, code, of } = await doctor(home);
    expect({ code, ok: data.ok, fixed: data.fixed }).toEqual({ code: 0, ok: true, fixed: [] });
    for (const check of ["permissions", "cloud folder", "server", "clock", "agent", "sync", "core dumps"]) {
      expect([check, of(check).map(({ state }) => state)]).toEqual([check, ["ok"]]);
    }
    expect(of("recovery kit")).toMatchObject([{ state: "warn", fix: "keyhold account recovery-kit" }]);
    const shown = await home.run(["doctor"]);
    expect(shown.out).toMatch(/^ok {4}permissions/m);
    expect(shown.out).toMatch(/0 failed$/m);
  });

  test("says on an empty home how to begin", async () => {
    const { code, of } = await doctor(world.home("empty"));
    expect([code, of("vault")[0]?.fix]).toEqual([0, "keyhold init"]);
  });

  test("finds files that others can use, and mends them on demand alone", async () => {
    const config = join(home.dir, "config", "profiles");
    chmodSync(config, 0o755);
    const broken = await doctor(home);
    expect([broken.code, broken.of("permissions")[0]?.state]).toEqual([10, "fail"]);
    expect(statSync(config).mode & 0o777).toBe(0o755);
    const mended = await doctor(home, ["--fix"]);
    expect([mended.code, mended.data.fixed]).toEqual([0, ["permissions"]]);
    expect(statSync(config).mode & 0o777).toBe(0o700);
  });

  test("quotes what it tells to paste: a file's name is no command", async () => {
    const path = join(home.dir, "data", "it's $(touch x)");
    writeFileSync(path, "");
    chmodSync(path, 0o666);
    const { of } = await doctor(home);
    const fix = of("permissions")[0]?.fix?.replace("   (or --fix)", "") ?? "";
    expect(fix).toStartWith("chmod go= '");
    expect(Bun.spawnSync(["sh", "-c", fix.replace("chmod go=", "printf %s")]).stdout.toString()).toBe(path);
    rmSync(path);
  });

  test("says that an agent hangs, and how to end it", async () => {
    const stuck = await world.home("stuck").register("stuck");
    const pid = (await stuck.ok(["agent", "status"])).data.pid as number;
    process.kill(pid, "SIGSTOP");
    try {
      const { code, of } = await doctor(stuck);
      expect([code, of("agent")[0]?.state, of("agent")[0]?.fix]).toEqual([
        10,
        "fail",
        expect.stringContaining(`kill -9 ${pid}`),
      ]);
      expect(of("environment").length).toBeGreaterThan(0);
    } finally {
      process.kill(pid, "SIGCONT");
    }
  });

  test("finds a vault in a synchronised folder, by its name and by its mark", async () => {
    for (const name of ["Dropbox", "plain"]) {
      const dir = join(world.dir, name, "keyhold");
      mkdirSync(join(dir, "data"), { recursive: true, mode: 0o700 });
      if (name === "plain") mkdirSync(join(world.dir, name, ".stfolder"));
      const { of } = await doctor(world.home("empty"), [], { env: { KEYHOLD_HOME: dir } });
      expect([name, of("cloud folder")[0]?.state]).toEqual([name, "warn"]);
    }
  });

  test("names variables that act inside keyhold, and those that it does not use", async () => {
    const { code, of } = await doctor(home, [], { env: { BUN_OPTIONS: "", LD_PRELOAD: "", HTTPS_PROXY: "http://x" } });
    expect([code, of("environment").map(({ state }) => state)]).toEqual([0, ["warn"]]);
    const acting = await doctor(home, [], { env: { BUN_BE_BUN: "0x" } }).catch(() => null);
    // the runtime itself may take the variable up: then no code of ours runs at all
    if (acting) expect([acting.code, acting.of("environment")[0]?.state]).toEqual([10, "fail"]);
  });

  test("finds a left-over socket and takes it away on demand", async () => {
    const away = await world.home("socket").register("socket", { login: false });
    const run = join(away.dir, "run");
    mkdirSync(run, { recursive: true, mode: 0o700 });
    const socket = join(run, "agent-default.sock");
    // a process that ends without a word leaves its file behind
    const bind = `require("node:net").createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 9))`;
    await Bun.spawn([process.execPath, "-e", bind], { stdio: ["ignore", "ignore", "ignore"] }).exited;
    chmodSync(socket, 0o600);
    symlinkSync(socket, join(run, "other"));
    const found = await doctor(away);
    expect(found.of("permissions").map(({ state }) => state)).toContain("warn");
    expect(found.of("agent")).toMatchObject([{ state: "warn" }]);
    const mended = await doctor(away, ["--fix"]);
    expect(mended.data.fixed).toContain("agent");
    expect(mended.of("agent")).toMatchObject([{ state: "ok" }]);
  });

  test("tells a server that is away from one that is another", async () => {
    const other = await world.home("pins").register("pins", { login: false });
    const file = join(other.dir, "config", "profiles", "profiles", "default.json");
    const profile = JSON.parse(readFileSync(file, "utf8"));
    const save = (server: object) => writeFileSync(file, JSON.stringify({ ...profile, server }), { mode: 0o600 });
    save({ ...profile.server, pin: `sha256:${"A".repeat(43)}`, caPem: null });
    const wrong = await doctor(other);
    expect([wrong.code, wrong.of("server")[0]?.state]).toEqual([10, "fail"]);
    save({ ...profile.server, url: "https://127.0.0.1:1" });
    const away = await doctor(other);
    expect([away.code, away.of("server")[0]?.state]).toEqual([0, "warn"]);
    writeFileSync(file, "{", { mode: 0o600 });
    const damaged = await doctor(other);
    expect([damaged.code, damaged.of("profile")[0]?.state]).toEqual([10, "fail"]);
  });

  test("measures the clock against the server's", async () => {
    const profile = JSON.parse(readFileSync(join(home.dir, "config", "profiles", "profiles", "default.json"), "utf8"));
    const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
    for (const aheadMs of [0, -50_000, 50_000]) {
      const around = { now: () => Date.now() + aheadMs, random, notice: () => undefined };
      const { fault, skewMs } = await examineServer(profile.server, around);
      expect(fault).toBeNull();
      expect(Math.abs((skewMs ?? Number.NaN) + aheadMs)).toBeLessThan(5_000);
    }
  });

  test("knows the age of the newest backup, and that a vault without a server needs one", async () => {
    const local = world.home("local");
    await local.ok(["init", "--local", "--kdf", "test", ...local.password]);
    expect((await doctor(local)).of("backup")).toMatchObject([{ state: "warn" }]);
    await local.ok(["vault", "backup", "--out", join(local.dir, "copy.vault")]);
    expect((await doctor(local)).of("backup")).toMatchObject([{ state: "ok" }]);
    const state = join(local.dir, "state");
    noteBackup(state, "default", Date.now() - 40 * 86_400_000);
    expect((await doctor(local)).of("backup")).toMatchObject([
      { state: "warn", detail: expect.stringContaining("40 days") },
    ]);
    expect((await doctor(local)).of("vault")).toContainEqual(expect.objectContaining({ state: "warn" }));
  });

  test("finds a damaged vault", async () => {
    const local = world.home("damaged");
    await local.ok(["init", "--local", "--kdf", "test", ...local.password]);
    const vaults = join(local.dir, "data", "vaults");
    const [file = ""] = [...new Bun.Glob("*.vault").scanSync({ cwd: vaults })];
    writeFileSync(join(vaults, file), "nothing");
    const { code, of } = await doctor(local);
    expect([code, of("vault")[0]?.state]).toEqual([10, "fail"]);
  });
});
