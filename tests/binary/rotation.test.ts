import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync } from "node:fs";
import { join } from "node:path";
import { type Home, openWorld, SETUP_MS, serve, spawn, type World } from "./world.ts";

setDefaultTimeout(60_000);
const PASSWORD = "a password of somebody";
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

let count = 0;
/** An account with two homes, each with its agent, and a value that both have. */
async function account(): Promise<{ name: string; desk: Home; phone: Home }> {
  const name = `person-${count++}`;
  const desk = await world.home(`${name}-desk`, PASSWORD).register(name);
  await desk.ok(["store", "old"], { stdin: "known to both" });
  const phone = await world.home(`${name}-phone`, PASSWORD).login(name);
  await phone.ok(["get", "old", "--save"]);
  return { name, desk, phone };
}

const revealed = async (home: Home, name: string, ...flags: readonly string[]) =>
  (await home.ok(["get", name, "--reveal", ...flags])).data.value;
const deviceOf = async (home: Home) =>
  (await home.ok(["account", "device", "list", ...home.password])).data.items.find(
    (one: { current: boolean }) => one.current,
  ).deviceId;

describe("account password --rotate-key", () => {
  test("with another password: agents of both devices are told what to do, and both go on with the new one", async () => {
    const { name, desk, phone } = await account();
    const next = world.file(`${name}.next`, "the next password");
    const flags = ["--password-file", next];
    const done = await desk.ok(["account", "password", "--rotate-key", ...desk.password, "--new-password-file", next]);
    expect(done.data).toEqual({ account: name, changed: true, rotated: true, rewrapped: 2 });
    expect((await desk.fails(4, ["get", "old"])).code).toBe("password_needed");
    const told = await phone.fails(4, ["get", "old", "--fresh"]);
    expect(told).toMatchObject({ code: "session_invalid", hint: "keyhold login" });
    expect((await phone.fails(4, ["list", ...phone.password])).code).toBe("login_failed");
    for (const home of [desk, phone]) expect(await revealed(home, "old", ...flags)).toBe("known to both");
    const { data } = await phone.ok(["status", ...flags]);
    expect(data.sync).toMatchObject({ pending: false, rewrapping: false });
    await phone.ok(["store", "new", ...flags], { stdin: "after" });
    expect(await revealed(desk, "new", ...flags)).toBe("after");
    expect((await desk.ok(["audit", "verify", ...flags])).data.ok).toBe(true);
    const { items } = (await desk.ok(["audit", "list", "--action", "account.rotate", ...flags])).data;
    expect(items).toMatchObject([{ status: "ok", requestId: done.requestId }]);
    expect((await world.home("x").run(["server", "check", "--dir", join(world.dir, "server")])).code).toBe(0);
  });

  test("with the same password; --keep-password alone is refused", async () => {
    const { desk, phone } = await account();
    expect((await desk.fails(2, ["account", "password", "--keep-password", ...desk.password])).code).toBe("usage");
    const { data } = await desk.ok(["account", "password", "--rotate-key", "--keep-password", ...desk.password]);
    expect(data).toMatchObject({ changed: false, rotated: true });
    for (const home of [desk, phone]) expect(await revealed(home, "old", ...home.password)).toBe("known to both");
  });
});

describe("account device revoke", () => {
  test("takes a device off: it is refused at once, and its vault is kept by detaching it", async () => {
    const { desk, phone } = await account();
    const [mine, theirs] = [await deviceOf(desk), await deviceOf(phone)];
    const asked = ["account", "device", "revoke"];
    expect((await desk.fails(2, [...asked, theirs, ...desk.password])).code).toBe("input_needed");
    expect((await desk.fails(2, [...asked, mine, "--yes", ...desk.password])).code).toBe("bad_input");
    expect((await desk.fails(3, [...asked, "0000000000", "--yes", ...desk.password])).code).toBe("not_found");
    expect((await desk.fails(3, [...asked, "no id", "--yes", ...desk.password])).code).toBe("not_found");
    await phone.ok(["sync"]);
    const { data } = await desk.ok([...asked, theirs.slice(0, 12), "--yes", ...desk.password]);
    expect(data).toMatchObject({ deviceId: theirs, changed: false });
    await desk.login();
    expect((await desk.ok(["account", "device", "list"])).data.items.length).toBe(1);
    await desk.ok(["store", "new"], { stdin: "after" });

    expect((await phone.fails(4, ["get", "old", "--fresh"])).code).toBe("session_invalid");
    const refused = await phone.fails(5, ["list", ...phone.password]);
    expect([refused.code, refused.hint]).toEqual(["denied", expect.stringContaining("keyhold vault detach")]);
    expect((await phone.fails(2, ["vault", "detach", ...phone.password])).code).toBe("input_needed");
    expect((await phone.ok(["vault", "detach", "--yes", ...phone.password])).data).toMatchObject({
      kept: 1,
      dropped: 0,
    });
    expect(await revealed(phone, "old", ...phone.password)).toBe("known to both");
    expect((await desk.ok(["list"])).data.items.length).toBe(2);
  });
});

describe("account delete", () => {
  test("asks, erases, and tells the other device when and by whom; the name is free", async () => {
    const { name, desk, phone } = await account();
    await desk.ok(["store", "server alone", "--store", "server"], { stdin: "x" });
    expect((await desk.fails(2, ["account", "delete", ...desk.password])).code).toBe("input_needed");
    const { data } = await desk.ok(["account", "delete", "--yes", ...desk.password]);
    expect(data).toMatchObject({ account: name, kept: 1, dropped: 1 });
    expect(await revealed(desk, "old", ...desk.password)).toBe("known to both");
    expect((await desk.ok(["status", ...desk.password])).data.server).toBeNull();

    expect((await phone.fails(4, ["get", "old", "--fresh"])).code).toBe("session_invalid");
    const told = await phone.fails(4, ["list", ...phone.password]);
    expect(told.message).toMatch(/deleted by its owner on \d{4}-\d\d-\d\dT/);
    expect(await revealed(phone, "old", ...phone.password)).toBe("known to both");
    await world.home(`${name}-again`, "another person's").register(name);
    // what is left in the server's logs is whole
    const { code, out } = await desk.run(["server", "check", "--dir", join(world.dir, "server"), "--json"]);
    expect([code, out.includes('"ok":false')]).toEqual([0, false]);
  });
});

describe("the administrator", () => {
  const administer = (...argv: readonly string[]) =>
    world.home("administrator").ok(["server", "user", ...argv, "--dir", join(world.dir, "server")]);

  test("disables: as a wrong password looks, sessions are dead at once; enables: everything is there", async () => {
    const { name, desk, phone } = await account();
    const wrong = world.file(`${name}.wrong`, "not the password");
    const other = await desk.run(["list", "--json", "--password-file", wrong]);
    await administer("disable", name);
    for (const home of [desk, phone]) {
      const ran = await home.run(["list", "--json", ...home.password]);
      expect([ran.code, ran.out, ran.err]).toEqual([other.code, other.out, other.err]);
      expect((await home.fails(4, ["get", "old", "--fresh"])).code).toBe("session_invalid");
    }
    await administer("enable", name);
    for (const home of [desk, phone]) expect(await revealed(home, "old", ...home.password)).toBe("known to both");
    await desk.ok(["store", "new", ...desk.password], { stdin: "after" });
    expect((await desk.ok(["audit", "verify", ...desk.password])).data.ok).toBe(true);
  });

  test("removes: as a wrong password looks, and the vault is kept by detaching it", async () => {
    const { name, desk, phone } = await account();
    const wrong = world.file(`${name}.wrong`, "not the password");
    const other = await desk.run(["list", "--json", "--password-file", wrong]);
    await administer("remove", name, "--yes");
    for (const home of [desk, phone]) {
      const ran = await home.run(["list", "--json", ...home.password]);
      expect([ran.code, ran.out, ran.err]).toEqual([other.code, other.out, other.err]);
      await home.ok(["vault", "detach", "--yes", ...home.password]);
      expect(await revealed(home, "old", ...home.password)).toBe("known to both");
    }
    await world.home(`${name}-again`, "another person's").register(name);
  });
});

describe("killed", () => {
  /** Kills a command of a copied home after so many milliseconds; gives the copy. */
  async function killed(from: Home, label: string, argv: readonly string[], afterMs: number): Promise<Home> {
    const home = world.home(label, PASSWORD);
    cpSync(from.dir, home.dir, { recursive: true });
    const child = await spawn(home.dir, argv);
    setTimeout(() => child.kill("SIGKILL"), afterMs);
    await child.exited;
    return home;
  }

  test("a rotation killed at many moments: the old or the new password opens everything, and it is finished", async () => {
    for (const afterMs of [90, 180, 270]) {
      const { name, desk, phone } = await account();
      const next = world.file(`${name}.next`, "the next password");
      const rotate = ["account", "password", "--rotate-key", ...desk.password, "--new-password-file", next];
      await desk.ok(["lock"]);
      const cut = await killed(desk, `${name}-cut`, rotate, afterMs);
      const works: string[][] = [];
      // the first login may complete what was pending: then only the new one works
      for (const flags of [[...cut.password], ["--password-file", next], [...cut.password]]) {
        const ran = await cut.run(["get", "old", "--reveal", "--json", ...flags]);
        if (ran.code === 0) works.push(flags);
        else expect([ran.code, ran.err]).toEqual([4, expect.stringContaining("login_failed")]);
      }
      expect(works.length).toBeGreaterThan(0);
      const flags = works.at(-1) ?? [];
      await cut.ok(["sync", ...flags]);
      const { data } = await cut.ok(["status", ...flags]);
      expect([afterMs, data.sync.pending, data.sync.rewrapping]).toEqual([afterMs, false, false]);
      expect(await revealed(phone, "old", ...flags)).toBe("known to both");
      expect((await cut.ok(["audit", "verify", ...flags])).data.ok).toBe(true);
    }
  });

  test("a deletion killed at many moments: the account is whole, or gone and the vault says so", async () => {
    for (const afterMs of [90, 180, 270]) {
      const { name, desk } = await account();
      await desk.ok(["lock"]);
      const cut = await killed(desk, `${name}-cut`, ["account", "delete", "--yes", ...desk.password], afterMs);
      const ran = await cut.run(["get", "old", "--reveal", "--json", ...cut.password]);
      if (ran.code !== 0) expect([ran.code, ran.err]).toEqual([4, expect.stringContaining("deleted by its owner")]);
      expect(await revealed(cut, "old", ...cut.password)).toBe("known to both");
      const { server } = (await cut.ok(["status", ...cut.password])).data;
      if (server !== null) await cut.ok(["account", "delete", "--yes", ...cut.password]);
      await world.home(`${name}-again`, "another person's").register(name);
    }
  });

  test("a server killed while the keys are renewed: started again, the old or the new password opens everything", async () => {
    for (const afterMs of [100, 220]) {
      const { name, desk, phone } = await account();
      const next = world.file(`${name}.next`, "the next password");
      const rotate = ["account", "password", "--rotate-key", ...desk.password, "--new-password-file", next, "--json"];
      const running = desk.run(rotate);
      await Bun.sleep(afterMs);
      const { port, stop } = world.server;
      await stop("SIGKILL");
      world.server = await serve(join(world.dir, "server"), ["--listen", `127.0.0.1:${port}`]);
      const { code } = await running;
      const works: string[][] = [];
      for (const flags of [[...desk.password], ["--password-file", next], [...desk.password]]) {
        const ran = await desk.run(["get", "old", "--reveal", "--json", ...flags]);
        if (ran.code === 0) works.push(flags);
        else expect([ran.code, ran.err]).toEqual([4, expect.stringContaining("login_failed")]);
      }
      if (code === 0) expect(works).toEqual([["--password-file", next]]);
      const flags = works.at(-1) ?? [];
      await desk.ok(["sync", ...flags]);
      expect((await desk.ok(["status", ...flags])).data.sync).toMatchObject({ pending: false, rewrapping: false });
      expect(await revealed(phone, "old", ...flags)).toBe("known to both");
      expect((await desk.ok(["audit", "verify", ...flags])).data.ok).toBe(true);
    }
  });
});
