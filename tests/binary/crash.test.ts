import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { connect, createServer, type Socket } from "node:net";
import { dataOf, type Home, keyhold, openWorld, SETUP_MS, serve, spawn, type World } from "./world.ts";

setDefaultTimeout(90_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

/** Everything that was acknowledged is there, once, and all of server, log and vault holds together. */
async function whole(home: Home, acknowledged: ReadonlyMap<string, string>, password: readonly string[] = []) {
  const { data } = await home.ok(["list", "--fresh", ...password]);
  const names = data.items.map(({ name }: { name: string }) => name);
  expect(new Set(names).size).toBe(names.length);
  expect([...acknowledged.keys()].filter((name) => !names.includes(name))).toEqual([]);
  const file = world.file(`whole-${Math.random()}.json`);
  await home.ok(["export", "--all", "--to", "json", "--out", file, "--fresh", ...password]);
  const { items } = await Bun.file(file).json();
  const values = new Map(items.map(({ name, value }: Record<string, string>) => [name, value]));
  for (const [name, value] of acknowledged) expect([name, values.get(name)]).toEqual([name, value]);
  expect((await home.ok(["audit", "verify", ...password])).data.ok).toBe(true);
  expect((await home.ok(["vault", "check", ...home.password])).data.ok).toBe(true);
  const checked = await keyhold(home.dir, ["server", "check", "--dir", world.file("server"), "--json"]);
  expect([checked.code, checked.err]).toEqual([0, ""]);
}

test("the server killed ten times among writes: nothing acknowledged is lost, nothing is half done", async () => {
  const home = await world.home("kill-server").register("kill-server");
  const acknowledged = new Map<string, string>();
  const requests: string[] = [];
  let stop = false;
  const writing = (async () => {
    for (let i = 0; !stop; i++) {
      const ran = await home.run(["store", `w/${i}`, "--json"], { stdin: `value ${i}` });
      // unknown or refused is allowed; said to be done must be done
      if (ran.code !== 0) continue;
      acknowledged.set(`w/${i}`, `value ${i}`);
      requests.push(dataOf(ran).requestId);
    }
  })();
  const { port } = world.server;
  for (let kill = 0; kill < 10; kill++) {
    await Bun.sleep(60 + Math.random() * 120);
    expect(await world.server.stop("SIGKILL")).toBe(137);
    world.server = await serve(world.file("server"), ["--listen", `127.0.0.1:${port}`]);
    const before = acknowledged.size;
    while (acknowledged.size === before) await Bun.sleep(10);
  }
  stop = true;
  await writing;
  expect(acknowledged.size).toBeGreaterThanOrEqual(10);
  await whole(home, acknowledged);
  const { data } = await home.ok(["audit", "list", "--action", "secret.store"]);
  const entries = data.items.filter(({ status }: { status: string }) => status === "ok");
  for (const id of requests) {
    expect([id, entries.filter(({ requestId }: { requestId: string }) => requestId === id)]).toEqual([
      id,
      [expect.anything()],
    ]);
  }
});

test("the client killed at any moment: nothing acknowledged is lost, the next command takes up what was left", async () => {
  const home = await world.home("kill-client").register("kill-client", { login: false });
  const acknowledged = new Map<string, string>();
  for (let round = 0; round < 16; round++) {
    const name = `k/${round}`;
    const child = await spawn(home.dir, ["store", name, ...home.password], { stdin: name });
    await Bun.sleep(30 + round * 5);
    child.kill("SIGKILL");
    if ((await child.exited) === 0) acknowledged.set(name, name);
  }
  await home.ok(["store", "last", ...home.password], { stdin: "last" });
  acknowledged.set("last", "last");
  await whole(home, acknowledged, home.password);
  const { data } = await home.ok(["list", ...home.password]);
  for (const { version } of data.items) expect(version).toBe(1);
});

test("the agent killed among writes: nothing acknowledged is lost", async () => {
  const home = await world.home("kill-agent").register("kill-agent");
  const acknowledged = new Map<string, string>();
  for (let round = 0; round < 5; round++) {
    const { data } = await home.ok(["agent", "status"]);
    const writes = [0, 1, 2].map((i) => home.run(["store", `a/${round}/${i}`], { stdin: `${i}` }));
    await Bun.sleep(20 + round * 12);
    process.kill(data.pid, "SIGKILL");
    for (const [i, ran] of (await Promise.all(writes)).entries()) {
      if (ran.code === 0) acknowledged.set(`a/${round}/${i}`, `${i}`);
    }
    await home.ok(["unlock", ...home.password]);
  }
  await whole(home, acknowledged);
});

/** Passes bytes through; on demand it loses the next answers and cuts their connections. */
async function lossyProxy(port: number) {
  const state = { lose: 0, lost: 0 };
  const open = new Set<Socket>();
  const proxy = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    let flights = 0;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on("error", end).on("close", () => {
        open.delete(socket);
        end();
      });
    }
    near.on("data", (bytes) => {
      flights += 1;
      far.write(bytes);
    });
    far.on("data", (bytes) => {
      // the first flight is the greeting of a new connection: what comes later answers a request
      if (flights > 1 && state.lose > 0) {
        state.lose -= 1;
        state.lost += 1;
        // the server has time to do all of it
        setTimeout(end, 60);
        far.removeAllListeners("data").on("data", () => undefined);
        return;
      }
      near.write(bytes);
    });
  });
  await new Promise<void>((done) => proxy.listen(0, "127.0.0.1", () => done()));
  const address = proxy.address();
  return {
    port: typeof address === "object" ? (address?.port ?? 0) : 0,
    state,
    close() {
      proxy.close();
      for (const socket of open) socket.destroy();
    },
  };
}

test("answers that are lost on the way are asked for again: one key, one entry", async () => {
  const proxy = await lossyProxy(world.server.port);
  try {
    const home = world.home("lost");
    const server = ["--server", `https://127.0.0.1:${proxy.port}`, "--pin", world.server.pin, "--account", "lost"];
    await home.ok(["register", ...server, ...home.password, "--kdf", "test"]);
    await home.login();
    for (let round = 0; round < 6; round++) {
      proxy.state.lose = 1 + (round % 3);
      const { data, requestId } = await home.ok(["generate", `lost/${round}`, "--type", "token"]);
      expect(data.version).toBe(1);
      const { data: log } = await home.ok(["audit", "list", "--request", requestId]);
      expect(log.items.map(({ action, status }: Record<string, string>) => [action, status])).toEqual([
        ["secret.generate", "ok"],
      ]);
    }
    expect(proxy.state.lost).toBeGreaterThan(6);
    const { data } = await home.ok(["list", "--fresh"]);
    expect(data.items).toHaveLength(6);
    expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
  } finally {
    proxy.close();
  }
});
