import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { chmodSync, statSync } from "node:fs";
import { binary, type Home, keyhold, openWorld, SETUP_MS, serve, type World } from "../binary/world.ts";
import { testNeeding } from "../support/skip.ts";

setDefaultTimeout(90_000);
let world: World;
beforeAll(async () => {
  world = await openWorld({ server: false });
}, SETUP_MS);
afterAll(() => world.close());

/** The executable with a limit on files as an error and not as the end of the process. */
async function underLimits(name: string): Promise<string> {
  const script = world.file(`${name}.sh`, `#!/bin/sh\ntrap '' XFSZ\nexec '${await binary()}' "$@"\n`);
  chmodSync(script, 0o700);
  return script;
}

/** Lets no file of a process grow, or all of them again. */
function limitFiles(pid: number, bytes: number | "unlimited"): void {
  const done = Bun.spawnSync(["prlimit", "--pid", String(pid), `--fsize=${bytes}:unlimited`]);
  if (done.exitCode !== 0) throw new Error(done.stderr.toString());
}

async function storedNames(home: Home): Promise<string[]> {
  const { data } = await home.ok(["list", "--fresh"]);
  return data.items.map(({ name }: { name: string }) => name).sort();
}

testNeeding(
  ["prlimit", "sh"],
  "a server whose disk is full says so, loses nothing that it acknowledged, and goes on by itself when there is space",
  async () => {
    const dir = world.home("full-server").dir;
    world.server = await serve(dir, ["--listen", "127.0.0.1:0"], { program: await underLimits("serve") });
    const home = await world.home("full").register("full");
    const acknowledged = ["before"];
    await home.ok(["store", "before"], { stdin: "value before" });
    await home.ok(["store", "again"], { stdin: "value again" });
    acknowledged.push("again");
    for (const round of [1, 2]) {
      limitFiles(world.server.pid, 1);
      const error = await home.fails(1, ["store", `full/${round}`], { stdin: "nowhere" });
      expect([error.code, error.hint]).toEqual(["storage", expect.stringContaining("disk space")]);
      // a read is an event that cannot be recorded either; what the vault knows is there all the same
      expect((await home.fails(1, ["get", "before", "--reveal", "--fresh"])).code).toBe("storage");
      limitFiles(world.server.pid, "unlimited");
      // the refused change was kept and is made now, or was told of; either way it is there at most once
      await home.ok(["store", `after/${round}`], { stdin: `value after ${round}` });
      acknowledged.push(`after/${round}`);
    }
    const names = await storedNames(home);
    expect(acknowledged.filter((name) => !names.includes(name))).toEqual([]);
    expect(new Set(names).size).toBe(names.length);
    expect((await home.run(["read", "before"])).out).toBe("value before");
    expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
    const checked = await keyhold(world.dir, ["server", "check", "--dir", dir, "--json"]);
    expect([checked.code, checked.err]).toEqual([0, ""]);
    expect(await world.server.stop()).toBe(0);
    expect(world.server.log()).not.toContain("internal");
  },
);

testNeeding(["sh"], "a server that cannot make its database at all says why and leaves nothing half made", async () => {
  const dir = world.home("no-space").dir;
  const limited = world.file("no-space.sh", `#!/bin/sh\ntrap '' XFSZ\nulimit -f 8\nexec '${await binary()}' "$@"\n`);
  chmodSync(limited, 0o700);
  const ran = await keyhold(dir, ["serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json"], { program: limited });
  expect([ran.code, ran.out]).toEqual([1, ""]);
  expect(JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "").error.code).toBe("storage");
  expect(statSync(`${dir}/keyhold.db`, { throwIfNoEntry: false })).toBeUndefined();
  // with space the same directory serves
  const server = await serve(dir);
  expect(await server.stop()).toBe(0);
});

testNeeding(
  ["sh"],
  "a vault whose disk is full keeps what it held, and takes the next change when there is space",
  async () => {
    const home = world.home("full-vault");
    await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
    await home.ok(["store", "kept", ...home.password], { stdin: "kept" });
    const limited = world.file("vault.sh", `#!/bin/sh\ntrap '' XFSZ\nulimit -f 8\nexec '${await binary()}' "$@"\n`);
    chmodSync(limited, 0o700);
    const error = await home.fails(1, ["store", "lost", ...home.password], {
      stdin: "x".repeat(20_000),
      program: limited,
    });
    expect(error.code).toBe("storage");
    const { data } = await home.ok(["list", ...home.password]);
    expect(data.items.map(({ name }: { name: string }) => name)).toEqual(["kept"]);
    await home.ok(["store", "next", ...home.password], { stdin: "x".repeat(20_000) });
    expect((await home.ok(["vault", "check", ...home.password])).data).toMatchObject({ ok: true, secrets: 2 });
  },
);
