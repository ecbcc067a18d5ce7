import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { binary, type Home, openWorld, SETUP_MS, serverFlags, type World } from "../binary/world.ts";
import { testUnless } from "../support/skip.ts";
import { environmentOf, memoryHolds } from "./processes.ts";

const linux = process.platform === "linux" ? undefined : "needs Linux";
const asRoot = process.getuid?.() === 0 ? undefined : "needs root, who may read what is closed to the same user";

const SECRET = "canary-3f1c9a77-secret-of-alice";
const PASSWORD = "canary-8be2d015-password-of-alice";

describe("server and agent", () => {
  let world: World;
  let home: Home;
  let agentPid = 0;

  beforeAll(async () => {
    world = await openWorld();
    home = world.home("alice", PASSWORD);
    const env = {
      KEYHOLD_PROFILE: "default",
      LD_LIBRARY_PATH: "/nonexistent",
      LD_BIND_NOW: "1",
      BUN_CONFIG_VERBOSE_FETCH: "0",
      BUN_JSC_useZombieMode: "0",
      NODE_OPTIONS: "--no-warnings",
      AWS_SECRET_ACCESS_KEY: "canary-of-another-program",
    };
    const account = serverFlags(world.server, "alice");
    await home.ok(["register", ...account, ...home.password, "--kdf", "test"]);
    await home.ok(["login", ...home.password, "--kdf", "test"], { env });
    await home.ok(["store", "db", "--type", "password", "--in-file", world.file("value", SECRET)]);
    agentPid = (await home.ok(["agent", "status"])).data.pid;
    expect(agentPid).toBeGreaterThan(1);
  }, SETUP_MS);
  afterAll(async () => {
    await home.run(["logout"]);
    await world.close();
  });

  testUnless(linux, "write no core, whatever limit their starter set", async () => {
    for (const pid of [world.server.pid, agentPid]) {
      expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/^Max core file size +0 +0 /m);
    }
    const dir = join(world.dir, "aborted");
    mkdirSync(join(dir, "server"), { recursive: true });
    const ready = join(dir, "ready");
    // as a shell tells of it: "Aborted", with "(core dumped)" if one was written
    const script = `ulimit -c "$(ulimit -H -c)"; cd "$1"; "$0" serve --dir "$1/server" --listen 127.0.0.1:0 --json >"$2" &
      while [ ! -s "$2" ]; do sleep 0.02; done; kill -ABRT $!; wait $!`;
    const child = Bun.spawn(["bash", "-c", script, await binary(), dir, ready], {
      env: { PATH: process.env["PATH"] ?? "", HOME: dir },
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const errors = await child.stderr.text();
    expect(await child.exited).toBe(134);
    expect(errors).not.toContain("core dumped");
    expect(readdirSync(dir).filter((name) => name.startsWith("core"))).toEqual([]);
    expect(existsSync(ready)).toBe(true);
  });

  testUnless(linux, "keep their long-lived keys in locked memory, where the limit allows it", () => {
    const limit = /^Max locked memory +(\S+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1] ?? "0";
    const allowed = limit === "unlimited" || Number(limit) >= 32_768;
    for (const pid of [world.server.pid, agentPid]) {
      const locked = Number(/^VmLck:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
      if (allowed) expect(locked).toBe(32);
    }
  });

  testUnless(linux ?? asRoot, "the agent was started without the variables of other programs", () => {
    const names = environmentOf(agentPid).map((line) => line.slice(0, line.indexOf("=")));
    expect(names).toContain("PATH");
    expect(names.filter((name) => /^(KEYHOLD|LD|BUN|NODE|AWS)_/.test(name))).toEqual([]);
  });

  testUnless(linux ?? asRoot, "the server's memory holds neither a value nor a password of its users", async () => {
    await home.ok(["get", "db", "--reveal"]);
    await home.ok(["audit", "verify"]);
    const utf8 = (text: string) => new TextEncoder().encode(text);
    const wide = (text: string) => new Uint8Array(Buffer.from(text, "utf16le"));
    const secrets = [SECRET, PASSWORD].flatMap((text) => [utf8(text), wide(text)]);
    // what it does hold is found: where it lies, and a key out of the locked memory
    const held = [
      utf8(join(world.dir, "server")),
      new Uint8Array(readFileSync(join(world.dir, "server", "keys", "sealing.key"))),
    ];
    expect(memoryHolds(world.server.pid, [...secrets, ...held])).toEqual([false, false, false, false, true, true]);
  });
});
