import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { createServer, type Socket, type Server as TcpServer } from "node:net";
import { type Home, keyhold, openWorld, SETUP_MS, serve, spawn, type World } from "./world.ts";

setDefaultTimeout(90_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

/** Stops the server, does something without it, and starts it again on its port. */
async function without<T>(work: () => Promise<T>): Promise<T> {
  const { port } = world.server;
  await world.server.stop();
  try {
    return await work();
  } finally {
    world.server = await serve(world.file("server"), ["--listen", `127.0.0.1:${port}`]);
  }
}

const entries = async (home: Home, name: string, action: string) =>
  (await home.ok(["audit", "list", name, "--action", action, ...home.password])).data.items;

test("reads come from the vault and say how old it is; writes wait and go out with the next command, once", async () => {
  const one = await world.home("offline").register("offline");
  await one.ok(["store", "db/url"], { stdin: "postgres://" });
  await without(async () => {
    for (const password of [[], one.password]) {
      const got = await one.run(["get", "db/url", "--reveal", ...password]);
      expect([got.code, got.out]).toEqual([0, "postgres://\n"]);
      expect(got.err).toMatch(/the server is away.*: from the vault, synced (just now|\d+ [smh] ago)/);
      expect((await one.run(["list", ...password])).code).toBe(0);
      const ran = await one.run(["run", "--env", "URL=kh://db/url", ...password, "--", "sh", "-c", "echo $URL"]);
      expect([ran.code, ran.out]).toEqual([0, "postgres://\n"]);
      expect((await one.fails(7, ["get", "db/url", "--fresh", ...password])).code).toBe("unreachable");
      expect((await one.fails(7, ["list", "--fresh", ...password])).code).toBe("unreachable");
      await one.fails(7, ["store", "x", "--store", "server", ...password], { stdin: "x" });
      await one.fails(7, ["remove", "db/url", "--purge", "--yes", ...password]);
    }
    const stored = await one.run(["store", "ci/token"], { stdin: "t1" });
    expect(stored.code).toBe(10);
    expect(stored.out).toContain("queued: goes to the server with the next command that reaches it");
    const next = await one.ok(["store", "ci/token", ...one.password], { stdin: "t2" });
    expect([next.code, next.data.queued, next.data.version, next.requestId]).toEqual([10, true, 2, undefined as never]);
    expect((await one.ok(["rename", "db/url", "db/dsn"])).data.queued).toBe(true);
    expect((await one.ok(["tag", "db/dsn", "--add", "live"])).code).toBe(10);
    expect((await one.ok(["generate", "made"])).code).toBe(10);
    const { checks } = (await one.ok(["doctor"])).data;
    expect(checks).toContainEqual(
      expect.objectContaining({ check: "sync", state: "warn", detail: expect.stringMatching(/^\d+ changes wait/) }),
    );
    // two processes of one home at once
    const both = await Promise.all([
      one.ok(["store", "p1"], { stdin: "1" }),
      one.ok(["store", "p2", ...one.password], { stdin: "2" }),
    ]);
    expect(both.map(({ code }) => code)).toEqual([10, 10]);
    const { data } = await one.ok(["list"]);
    expect(data.items.map(({ name, queued }: { name: string; queued: boolean }) => [name, queued])).toEqual([
      ["ci/token", true],
      ["db/dsn", true],
      ["made", true],
      ["p1", true],
      ["p2", true],
    ]);
    expect((await one.run(["read", "ci/token"])).out).toBe("t2");
    const { data: status } = await one.ok(["status"]);
    expect([status.sync.queued, status.sync.pending]).toEqual([7, false]);
    expect((await one.run(["status"])).out).toContain("7 changes wait for the server");
  });
  const { data } = await one.ok(["sync", ...one.password]);
  expect([data.sent, data.conflicts]).toEqual([7, 0]);
  expect((await one.run(["read", "ci/token", "--fresh", ...one.password])).out).toBe("t2");
  expect((await one.ok(["history", "ci/token", ...one.password])).data.items).toHaveLength(2);
  expect(await entries(one, "ci/token", "secret.store")).toHaveLength(2);
  expect(await entries(one, "db/dsn", "secret.update")).toHaveLength(2);
  expect(await entries(one, "made", "secret.generate")).toHaveLength(1);
  expect((await one.ok(["audit", "verify", ...one.password])).data.ok).toBe(true);
  expect((await one.ok(["sync", ...one.password])).data.sent).toBe(0);
});

test("an agent that was unlocked without the server goes on from the vault and queues, until a login", async () => {
  const one = await world.home("unlocked").register("unlocked");
  await one.ok(["store", "a"], { stdin: "1" });
  await one.ok(["lock"]);
  await without(async () => {
    const unlocked = await one.ok(["unlock", ...one.password]);
    expect(unlocked.data.online).toBe(false);
    expect((await one.run(["read", "a"])).out).toBe("1");
  });
  const read = await one.run(["get", "a", "--reveal"]);
  expect([read.code, read.out]).toEqual([0, "1\n"]);
  expect(read.err).toContain("keyhold login");
  expect((await one.ok(["store", "a"], { stdin: "2" })).code).toBe(10);
  expect((await one.fails(7, ["read", "a", "--fresh"])).hint).toContain("keyhold login");
  expect((await one.run(["status"])).out).toContain("keyhold login sends them");
  await one.ok(["login", ...one.password]);
  const { data } = await one.ok(["status"]);
  expect(data.sync).toMatchObject({ queued: 0, conflicts: [] });
  expect((await one.run(["read", "a", "--fresh"])).out).toBe("2");
});

test("what another device changed meanwhile becomes a version; status names both and what solves it", async () => {
  const one = await world.home("conflict").register("conflict");
  const two = world.home("conflict-two", "correct horse battery staple conflict");
  await two.login("conflict");
  await one.ok(["store", "a"], { stdin: "first" });
  await two.ok(["sync"]);
  await without(async () => {
    expect((await one.ok(["store", "a", ...one.password], { stdin: "of one" })).code).toBe(10);
  });
  await two.ok(["store", "a", ...two.password], { stdin: "of two" });
  expect((await one.ok(["sync", ...one.password])).data).toMatchObject({ sent: 1, conflicts: 1 });
  const { data } = await one.ok(["status", ...one.password]);
  expect(data.sync.conflicts).toMatchObject([{ name: "a", kind: "changed", theirs: 2, ours: 3 }]);
  const shown = (await one.run(["status", ...one.password])).out;
  expect(shown).toContain("another device made version 2, this one version 3");
  expect(shown).toContain("keyhold history a");
  expect(shown).toContain("keyhold restore a --version 2");
  await two.ok(["sync", ...two.password]);
  const versions = await Promise.all(
    ["2", "3"].map((version) => two.run(["read", `kh://a?version=${version}`, ...two.password])),
  );
  expect(versions.map(({ out }) => out)).toEqual(["of two", "of one"]);
  await one.ok(["restore", "a", "--version", "2", ...one.password]);
  expect((await one.ok(["status", ...one.password])).data.sync.conflicts).toEqual([]);
  expect((await two.run(["read", "a", "--fresh", ...two.password])).out).toBe("of two");
});

/** Takes connections on a port and never says a word. */
async function blackHole(port: number): Promise<{ close(): void }> {
  const sockets = new Set<Socket>();
  const server: TcpServer = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", () => done()));
  return {
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

test("a server that takes connections and says nothing does not hold a command up", async () => {
  const one = await world.home("mute").register("mute");
  await one.ok(["store", "a"], { stdin: "1" });
  await without(async () => {
    const hole = await blackHole(world.server.port);
    try {
      for (const argv of [
        ["get", "a", "--reveal"],
        ["get", "a", "--reveal", ...one.password],
        ["get", "a", "--reveal"],
      ]) {
        const began = performance.now();
        const got = await one.run(argv);
        expect([got.code, got.out]).toEqual([0, "1\n"]);
        // far below the 30 seconds that a request has
        expect(performance.now() - began).toBeLessThan(10_000);
      }
      expect((await one.ok(["store", "b", ...one.password], { stdin: "2" })).code).toBe(10);
      expect((await one.ok(["store", "c"], { stdin: "3" })).code).toBe(10);
    } finally {
      hole.close();
    }
  });
  expect((await one.ok(["sync", ...one.password])).data.sent).toBe(2);
});

test("killed again and again while the queue is sent: everything arrives, once", async () => {
  const one = await world.home("killed").register("killed", { login: false });
  const names = Array.from({ length: 12 }, (_, i) => `k/${String(i).padStart(2, "0")}`);
  await without(async () => {
    for (const name of names) {
      await one.ok(["store", name, ...one.password], { stdin: `${name} first` });
      await one.ok(["store", name, ...one.password], { stdin: `${name} second` });
    }
  });
  for (let kill = 0; kill < 8; kill++) {
    const child = await spawn(one.dir, ["sync", ...one.password]);
    await Bun.sleep(120 + kill * 25);
    child.kill("SIGKILL");
    await child.exited;
  }
  await one.ok(["sync", ...one.password]);
  const { data } = await one.ok(["list", "--fresh", ...one.password]);
  expect(data.items.map(({ name, version }: { name: string; version: number }) => [name, version])).toEqual(
    names.map((name) => [name, 2]),
  );
  for (const name of [names[0] ?? "", names.at(-1) ?? ""]) {
    expect((await one.run(["read", name, "--fresh", ...one.password])).out).toBe(`${name} second`);
    expect(await entries(one, name, "secret.store")).toHaveLength(2);
  }
  expect((await one.ok(["audit", "verify", ...one.password])).data.ok).toBe(true);
  const checked = await keyhold(one.dir, ["server", "check", "--dir", world.file("server"), "--json"]);
  expect([checked.code, checked.err]).toEqual([0, ""]);
});
