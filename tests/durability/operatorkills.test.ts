import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { newAgeIdentity } from "../../src/formats/age.ts";
import { binary, type Home, keyhold, openWorld, serve, type World } from "../binary/world.ts";
import { testNeeding } from "../support/skip.ts";

/** Rotations, backups and restores that are killed at a step: by strace, on entering a call for a path. */

const PASSWORD = "correct horse battery staple kills";

let world: World;
let ada: Home;
let operator: string;
let port: number;
let files: { data: string; keys: string };
let identity: string;
let recipient: string;
const source = () => join(world.dir, "server");
const image = () => join(world.dir, "image");

beforeAll(async () => {
  world = await openWorld();
  operator = join(world.dir, "operator");
  mkdirSync(operator, { mode: 0o700 });
  ada = world.home("ada", PASSWORD);
  await ada.register("ada", { login: false });
  await ada.ok(["store", "db", ...ada.password], { stdin: "s3cret" });
  const made = await newAgeIdentity();
  recipient = made.recipient;
  identity = world.file("age.txt", `${made.identity}\n`);
  files = { data: join(world.dir, "b.db"), keys: join(world.dir, "b.age") };
  const backup = ["--data", files.data, "--keys", files.keys, "--recipient", made.recipient];
  expect((await server("backup", "--dir", source(), ...backup)).code).toBe(0);
  port = world.server.port;
  await world.server.stop();
}, 120_000);
afterAll(() => world.close());
afterEach(() => rmSync(image(), { recursive: true, force: true }));

const server = (...argv: string[]) => keyhold(operator, ["server", ...argv, "--json", "--no-input"]);

/** Where to kill: on entering the nth such call that concerns the path, before it has any effect. */
interface Kill {
  readonly call: string;
  /** Below the image, "" for itself; null for any. Of a rename strace sees the old name alone. */
  readonly path: string | null;
  readonly nth: number;
}

/** Runs a command of the operator's until it is killed there; false if it ended before. */
async function killed(argv: readonly string[], { call, path, nth }: Kill): Promise<boolean> {
  const only = path === null ? [] : ["-P", join(image(), path)];
  const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:signal=SIGKILL:when=${nth}`, ...only];
  const program = await keyhold(operator, ["-f", "-o", "/dev/null", ...inject, await binary(), "server", ...argv], {
    program: Bun.which("strace") ?? "strace",
  });
  return program.code === 137;
}

const RENAME = "rename,renameat,renameat2";
const UNLINK = "unlink,unlinkat";
const WAL = "keyhold.db-wal";
const walSyncs = (count: number): Kill[] =>
  Array.from({ length: count }, (_, i) => ({ call: "fsync,fdatasync", path: WAL, nth: i + 1 }));

/** The rows of the image are sound, and the account's name opens. */
async function demandSound(dir: string): Promise<void> {
  const check = await server("check", "--dir", dir);
  expect([check.code, check.err]).toEqual([0, ""]);
  const users = await server("user", "list", "--dir", dir);
  expect(JSON.parse(users.out).data.items).toMatchObject([{ account: "ada" }]);
  const keys = readdirSync(join(dir, "keys"));
  // what is not complete was completed by the start
  expect(keys.filter((name) => name.includes("previous"))).toEqual([]);
}

/** The account logs in, on a device that knows no more than the image: as `from` was when the image was made. */
async function demandLogin(dir: string, from: string = ada.dir): Promise<void> {
  const twin = world.home("twin", PASSWORD);
  if (from !== twin.dir) {
    rmSync(twin.dir, { recursive: true, force: true });
    cpSync(from, twin.dir, { recursive: true });
  }
  const running = await serve(dir, ["--listen", `127.0.0.1:${port}`]);
  try {
    const ran = await twin.run(["read", "db", "--fresh", ...twin.password]);
    expect([ran.code, ran.out]).toEqual([0, "s3cret"]);
  } finally {
    await running.stop();
  }
}

describe("a rotation", () => {
  const first = { call: RENAME, path: null, nth: 1 };
  const keys = (nth: number) => ({ call: "fsync", path: "keys", nth });
  const POINTS: Record<string, Kill[]> = {
    "--sealing": [
      ...[first, keys(1), keys(2), keys(3)],
      { call: UNLINK, path: "keys/sealing.previous.key", nth: 1 },
      ...walSyncs(5),
    ],
    "--audit-key": [
      ...[first, keys(1), keys(2), keys(3)],
      { call: UNLINK, path: "keys/log.previous.ed25519", nth: 1 },
      ...walSyncs(5),
    ],
    "--opaque": [first, keys(1), ...walSyncs(4)],
    "--tls": [
      { call: UNLINK, path: "keys/tls.crt", nth: 1 },
      { call: UNLINK, path: "keys/tls.key", nth: 1 },
    ],
  };
  for (const [flag, kills] of Object.entries(POINTS)) {
    testNeeding(
      "strace",
      `${flag}, killed at each step: the server starts with either key and completes it`,
      async () => {
        let died = 0;
        for (const kill of kills) {
          cpSync(source(), image(), { recursive: true });
          if (await killed(["rotate", flag, "--dir", image()], kill)) died += 1;
          await demandSound(image());
          // and can be rotated again
          if (flag !== "--opaque") expect((await server("rotate", flag, "--dir", image())).code).toBe(0);
          await demandLogin(image());
          rmSync(image(), { recursive: true, force: true });
        }
        expect(died).toBeGreaterThanOrEqual(Math.min(kills.length, 2));
      },
      120_000,
    );
  }

  testNeeding(
    "strace",
    "--opaque --finish, killed at each step: the window is open or closed",
    async () => {
      cpSync(source(), image(), { recursive: true });
      expect((await server("rotate", "--opaque", "--dir", image())).code).toBe(0);
      await demandLogin(image());
      const [open, then] = [join(world.dir, "open"), join(world.dir, "then")];
      cpSync(image(), open, { recursive: true });
      cpSync(join(world.dir, "twin"), then, { recursive: true });
      for (const kill of [first, keys(1), ...walSyncs(3)]) {
        rmSync(image(), { recursive: true, force: true });
        cpSync(open, image(), { recursive: true });
        await killed(["rotate", "--opaque", "--finish", "--dir", image()], kill);
        await demandSound(image());
        await demandLogin(image(), then);
      }
      rmSync(open, { recursive: true, force: true });
    },
    120_000,
  );
});

describe("a restore", () => {
  const restore = () => [
    ...["restore", "--dir", image(), "--data", files.data, "--keys", files.keys, "--identity", identity],
    ...["--json", "--no-input"],
  ];
  const POINTS: Kill[] = [
    { call: "openat", path: "restore-not-complete", nth: 1 },
    ...[1, 2, 3].map((nth) => ({ call: RENAME, path: null, nth })),
    { call: UNLINK, path: "restore-not-complete", nth: 1 },
    ...[1, 2, 3].map((nth) => ({ call: "fsync", path: "", nth })),
    ...[1, 2, 3, 4].map((nth) => ({ call: "fsync,fdatasync", path: "keyhold.db.restoring-wal", nth })),
    { call: "fsync", path: "keyhold.db.restoring", nth: 1 },
  ];
  testNeeding(
    "strace",
    "killed at each step leaves nothing that starts as a server, and is completed by the same command",
    async () => {
      let died = 0;
      for (const kill of POINTS) {
        mkdirSync(image(), { mode: 0o700 });
        const before = await killed(restore(), kill);
        if (before) {
          died += 1;
          // nothing was begun, or what was begun is refused
          const half = existsSync(join(image(), "keyhold.db")) || existsSync(join(image(), "keys"));
          if (existsSync(join(image(), "restore-not-complete"))) {
            const start = await server("init", "--dir", image());
            expect([start.code, JSON.parse(start.err.trimEnd().split("\n").at(-1) ?? "").error.code]).toEqual([
              8,
              "corrupt",
            ]);
            const again = await keyhold(operator, ["server", ...restore()]);
            expect([again.code, again.err]).toEqual([0, ""]);
          } else if (!half) {
            expect((await keyhold(operator, ["server", ...restore()])).code).toBe(0);
          }
        }
        await demandSound(image());
        expect(existsSync(join(image(), "restore-not-complete"))).toBe(false);
        rmSync(image(), { recursive: true, force: true });
      }
      expect(died).toBeGreaterThan(POINTS.length / 2);
    },
    120_000,
  );

  test("that fails leaves the directory empty", async () => {
    mkdirSync(image(), { mode: 0o700 });
    const foreign = world.file("foreign.db", "not a database");
    const argv = restore().map((arg) => (arg === files.data ? foreign : arg));
    expect((await keyhold(operator, ["server", ...argv])).code).toBe(8);
    expect(readdirSync(image())).toEqual([]);
  });
});

describe("a backup on a full disk", () => {
  /** Runs the executable so that a file above its limit is an error and not its end. */
  const limited = (blocks: string): string => {
    const script = world.file(`limited-${blocks}.sh`);
    writeFileSync(script, `#!/bin/sh\ntrap '' XFSZ\nulimit -f ${blocks}\nexec "$KEYHOLD" "$@"\n`, { mode: 0o700 });
    return script;
  };
  const backup = (dir: string, name: string) => {
    const [data, keys] = [join(world.dir, `${name}.db`), join(world.dir, `${name}.age`)];
    return {
      data,
      keys,
      argv: ["server", "backup", "--dir", dir, "--data", data, "--keys", keys, "--recipient", recipient],
    };
  };
  const failed = (ran: { code: number; err: string }) => [
    ran.code,
    JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "").error.code,
  ];

  testNeeding(
    ["prlimit", "sh"],
    "leaves neither file, where the data or the keys find no room; the server goes on",
    async () => {
      cpSync(source(), image(), { recursive: true });
      const program = limited("unlimited");
      const env = { KEYHOLD: await binary() };
      const running = await serve(image(), ["--listen", `127.0.0.1:${port}`], { program, env });
      try {
        const limit = (bytes: string) =>
          Bun.spawnSync(["prlimit", "--pid", `${running.pid}`, `--fsize=${bytes}:unlimited`]);
        const full = backup(image(), "full");
        expect(limit("20000").exitCode).toBe(0);
        expect(failed(await keyhold(operator, [...full.argv, "--json"]))).toEqual([1, "storage"]);
        expect(limit("unlimited").exitCode).toBe(0);
        expect([existsSync(full.data), existsSync(full.keys)]).toEqual([false, false]);
        const ran = await keyhold(operator, [...full.argv, "--json"], { program: limited("0"), env });
        expect(failed(ran)).toEqual([1, "storage"]);
        expect([existsSync(full.data), existsSync(full.keys)]).toEqual([false, false]);
        expect((await keyhold(operator, [...full.argv, "--json"])).code).toBe(0);
      } finally {
        await running.stop();
      }
      await demandSound(image());
    },
    60_000,
  );
});
