import { afterAll, beforeAll, describe, expect } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { binary, environment, type Home, openWorld, SETUP_MS, type World } from "../binary/world.ts";
import { testUnless, testUnprivileged } from "../support/skip.ts";

describe("other processes of the same user", () => {
  let world: World;
  let home: Home;
  let sealed: readonly number[] = [];

  beforeAll(async () => {
    world = await openWorld();
    home = await world.home("alice").register("alice");
    sealed = [world.server.pid, (await home.ok(["agent", "status"])).data.pid];
  }, SETUP_MS);
  afterAll(async () => {
    await home.run(["logout"]);
    await world.close();
  });

  testUnprivileged("can read neither the memory nor the environment of server and agent", async () => {
    for (const pid of sealed) {
      expect(readFileSync(`/proc/${pid}/comm`, "utf8")).not.toBe("");
      for (const name of ["environ", "maps", "mem", "auxv"]) {
        expect(() => readFileSync(`/proc/${pid}/${name}`)).toThrow(/EACCES|EPERM/);
      }
    }
    // a process that is not sealed is open to them
    const open = Bun.spawn(["sleep", "60"], { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
    try {
      // before it has become the program it has none of its own
      const environment = () => readFileSync(`/proc/${open.pid}/environ`, "utf8");
      for (let tries = 0; environment() === "" && tries < 400; tries++) await Bun.sleep(5);
      expect(environment()).not.toBe("");
    } finally {
      open.kill("SIGKILL");
      await open.exited;
    }
  });

  testUnprivileged("nor that of a command that holds a password, which leaves no core either", async () => {
    const child = Bun.spawn([await binary(), "list", "--password-fd", "0"], {
      env: environment(home.dir),
      cwd: home.dir,
      stdin: "pipe",
      stdout: "ignore",
      stderr: "ignore",
    });
    // it waits for the end of the password
    child.stdin.write("half of a canary");
    await child.stdin.flush();
    const owner = () => statSync(`/proc/${child.pid}/mem`).uid;
    for (let tries = 0; owner() !== 0 && tries < 2_000; tries++) await Bun.sleep(5);
    expect(owner()).toBe(0);
    for (const name of ["environ", "maps", "mem"]) {
      expect(() => readFileSync(`/proc/${child.pid}/${name}`)).toThrow(/EACCES|EPERM/);
    }
    child.kill("SIGKILL");
    await child.exited;
    // what it becomes is a program like any other
    const ran = await home.run(["run", "--", "sh", "-c", "test -r /proc/$$/environ"]);
    expect(ran.code).toBe(0);
  });

  testUnprivileged("nor that of an enclave, which alone holds shares", async () => {
    const dir = mkdtempSync(join(tmpdir(), "keyhold-enclave-"));
    const child = Bun.spawn([await binary(), "__enclave", "--dir", dir], {
      env: environment(home.dir),
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
    });
    try {
      // its first word comes once it has its key
      await child.stdout.getReader().read();
      for (const name of ["environ", "maps", "mem"]) {
        expect(() => readFileSync(`/proc/${child.pid}/${name}`)).toThrow(/EACCES|EPERM/);
      }
    } finally {
      await child.stdin.end();
      await child.exited;
      rmSync(dir, { recursive: true, force: true });
    }
  });

  const asRoot = process.getuid?.() === 0 ? "needs a user other than root" : undefined;
  testUnless(Bun.which("strace") === null ? "needs strace" : asRoot, "cannot attach to them", async () => {
    for (const pid of sealed) {
      const child = Bun.spawn(["strace", "-p", String(pid)], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
      const errors = await child.stderr.text();
      expect(await child.exited).toBe(1);
      expect(errors).toMatch(/attach: .*Operation not permitted/);
    }
  });
});
