import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createServer } from "node:net";
import { keyhold, openWorld, SETUP_MS, serve, serverFlags, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

describe("the server is away", () => {
  test("reads come from the vault with a notice, what needs it exits 7, and everything comes back", async () => {
    const one = await world.home("away").register("away");
    const two = world.home("away-two", "correct horse battery staple away");
    await two.login("away");
    await one.ok(["store", "kept"], { stdin: "from the vault" });
    await one.ok(["store", "there", "--store", "server"], { stdin: "only there" });
    // accepts and says nothing
    const silent = createServer(() => undefined);
    await new Promise<void>((done) => silent.listen(0, "127.0.0.1", () => done()));
    const address = silent.address();
    const port = typeof address === "object" ? address?.port : 0;
    await world.server.stop();
    const fresh = world.home("away-new");
    const registering = (server: { url: string; pin: string }) => [
      ...["register", ...serverFlags(server, "n"), ...fresh.password, "--kdf", "test", "--json"],
    ];
    const [read, insisted, mute] = await Promise.all([
      one.run(["get", "kept", "--reveal"]),
      two.fails(7, ["list", "--fresh"]),
      fresh.run(registering({ url: `https://127.0.0.1:${port}`, pin: world.server.pin })),
    ]);
    silent.close();
    expect([read.code, read.out]).toEqual([0, "from the vault\n"]);
    expect(read.err).toContain("away");
    expect(insisted.code).toBe("unreachable");
    expect([7, 11]).toContain(mute.code);
    // without the agent too
    const { data } = await one.ok(["get", "kept", ...one.password]);
    expect([data.from, typeof data.syncedAt]).toEqual(["vault", "string"]);
    expect((await one.run(["read", "kept", ...one.password])).out).toBe("from the vault");
    const needing = [
      ["get", "kept", "--fresh"],
      ["get", "there", "--reveal"],
      ["store", "kept", "--in-file", one.password[1], "--store", "server"],
      ["audit", "verify"],
      ["account", "sessions"],
      ["sync"],
    ];
    for (const argv of needing) expect((await one.fails(7, [...argv, ...one.password])).code).toBe("unreachable");
    await one.fails(7, ["login", ...one.password]);
    expect((await fresh.run(registering(world.server))).code).toBe(7);
    const written = await one.ok(["store", "while/away", "--store", "local", ...one.password], { stdin: "local" });
    expect(written.data.where).toBe("local");
    await world.restart();
    expect((await one.run(["read", "there", ...one.password])).out).toBe("only there");
    expect((await one.run(["read", "kept", "--fresh", ...one.password])).out).toBe("from the vault");
  });

  test("another server behind the address is refused by its pin, before anything is sent", async () => {
    const one = await world.home("swapped").register("swapped");
    await one.ok(["store", "x"], { stdin: "y" });
    const { port } = world.server;
    await world.server.stop();
    const evil = await serve(world.home("evil").dir, ["--listen", `127.0.0.1:${port}`]);
    expect((await one.fails(7, ["get", "x", "--fresh"])).code).toMatch(/pin_mismatch|tls_refused/);
    expect((await one.fails(7, ["login", ...one.password])).code).toMatch(/pin_mismatch|tls_refused/);
    expect((await keyhold(one.dir, ["server", "user", "list", "--dir", world.file("evil"), "--json"])).out).toContain(
      '"items":[]',
    );
    await evil.stop("SIGKILL");
    world.server = await serve(world.file("server"), ["--listen", `127.0.0.1:${port}`]);
    await one.ok(["login", ...one.password]);
    expect((await one.run(["read", "x", "--fresh"])).out).toBe("y");
  });
});

test("status says where everything stands, locked, unlocked and logged out", async () => {
  const one = await world.home("status").register("status", { login: false });
  const { data: before } = await one.ok(["status"]);
  expect(before).toMatchObject({
    account: { name: "status" },
    session: null,
    vault: { locked: true },
    loggedOut: false,
  });
  await one.login();
  await one.ok(["generate", "s"]);
  const { data: open } = await one.ok(["status"]);
  expect(open.server).toEqual({ url: world.server.url, pin: world.server.pin, reachable: true });
  expect([open.session.valid, open.vault.locked, open.vault.secrets, open.sync.pending]).toEqual([
    true,
    false,
    1,
    false,
  ]);
  const { data: agent } = await one.ok(["agent", "status"]);
  expect(agent.running).toBe(true);
  await one.ok(["lock"]);
  expect((await one.ok(["agent", "status"])).data.running).toBe(false);
  expect((await one.fails(4, ["get", "s"])).code).toBe("password_needed");
  await one.ok(["unlock", ...one.password]);
  await one.ok(["get", "s"]);
  await one.ok(["logout"]);
  expect((await one.ok(["status"])).data).toMatchObject({ loggedOut: true, session: null, vault: { locked: true } });
});
