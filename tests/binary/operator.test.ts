import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import {
  errorOf,
  exitOf,
  type Home,
  keyhold,
  openWorld,
  SETUP_MS,
  type Server,
  serve,
  serverFlags,
  spawn,
  type World,
} from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

const registering = (home: Home, account: string, more: readonly string[] = [], server: Server = world.server) => [
  "register",
  ...serverFlags(server, account),
  ...home.password,
  "--kdf",
  "test",
  ...more,
];

describe("the operator", () => {
  let invited: Server;
  let dir: string;
  const operate = async (code: number, ...argv: string[]) => {
    const ran = await keyhold(dir, ["server", ...argv, "--dir", dir, "--json"]);
    expect([argv, ran.code, ran.err]).toEqual([argv, code, code === 0 ? "" : ran.err]);
    return code === 0 ? JSON.parse(ran.out).data : errorOf(ran);
  };
  beforeAll(async () => {
    dir = world.home("operator").dir;
    invited = await serve(dir, ["--listen", "127.0.0.1:0", "--registration", "invite"]);
  });
  afterAll(() => invited.stop("SIGKILL"));

  let guests = 0;
  const enter = async (code: number, name: string, invite: string | null) => {
    const home = world.home(`guest-${++guests}`);
    const argv = registering(home, name, invite === null ? [] : ["--invite", invite], invited);
    const ran = await home.run([...argv, "--json"]);
    expect([name, ran.code]).toEqual([name, code]);
    return { home, error: code === 0 ? null : errorOf(ran) };
  };

  test("the first code is in the ready line; without, used, expired and void codes are refused alike", async () => {
    expect(invited.invite).toMatch(/^[0-9A-Z]{4}(-[0-9A-Z]{4}){4}$/);
    const none = await enter(5, "none", null);
    const fake = await enter(5, "fake", "0000-0000-0000-0000-0000");
    await enter(0, "first", (invited.invite ?? "").toLowerCase());
    const used = await enter(5, "used", invited.invite ?? "");
    const { code: short } = await operate(0, "invite", "create", "--expires", "1s");
    await Bun.sleep(1_100);
    const expired = await enter(5, "expired", short);
    const { code: revoked } = await operate(0, "invite", "create");
    await operate(0, "invite", "revoke", revoked.slice(0, 4));
    const gone = await enter(5, "gone", revoked);
    const answers = [none, fake, used, expired, gone].map(({ error }) => JSON.stringify(error));
    expect(new Set(answers).size).toBe(1);
    expect(none.error?.hint).toContain("--invite");
    // the code is checked first: who has none learns nothing about names
    expect(JSON.stringify((await enter(5, "first", null)).error)).toBe(answers[0] ?? "");
    const { items } = await operate(0, "invite", "list");
    expect(items.map(({ state }: { state: string }) => state).sort()).toEqual(["expired", "used"]);
    expect(JSON.stringify(items)).not.toContain(invited.invite ?? "");
  });

  test("five conflicts void a code", async () => {
    const { code } = await operate(0, "invite", "create");
    for (let i = 0; i < 5; i++) await enter(6, "first", code);
    await enter(5, "somebody", code);
  });

  test("accounts are listed, disabled, enabled and removed", async () => {
    const { code } = await operate(0, "invite", "create");
    const { home } = await enter(0, "eve", code);
    await home.ok(["login", ...home.password]);
    await home.ok(["store", "x"], { stdin: "y" });
    const { items } = await operate(0, "user", "list");
    expect(items.map(({ account }: { account: string }) => account).sort()).toEqual(["eve", "first"]);
    expect(await operate(0, "user", "disable", "eve")).toMatchObject({ account: "eve", disabled: true });
    expect((await home.fails(4, ["get", "x", "--fresh"])).code).toMatch(/session_invalid|not_logged_in/);
    expect((await home.fails(4, ["login", ...home.password])).code).toBe("login_failed");
    await operate(0, "user", "enable", "eve");
    await home.ok(["login", ...home.password]);
    const { data } = await home.ok(["audit", "list"]);
    const actions = data.items.map(({ action }: { action: string }) => action);
    expect(actions).toContain("server.user.disable");
    expect(actions).toContain("server.user.enable");
    expect((await operate(3, "user", "remove", "nobody", "--yes")).code).toBe("not_found");
    expect((await operate(2, "user", "remove", "eve")).code).toBe("input_needed");
    await operate(0, "user", "remove", "eve", "--yes");
    expect((await home.fails(4, ["get", "x", "--fresh"])).code).toMatch(/session_invalid|not_logged_in/);
    expect((await operate(0, "user", "list")).items).toHaveLength(1);
    // accounts in which nothing is wrong are counted, not listed: the answer stays short
    while (!(await operate(0, "status")).ceremonyKey) await Bun.sleep(50);
    const names = ["database", "server-wide log", "ceremony keys", "sealed values"];
    expect(await operate(0, "check")).toEqual({
      ok: true,
      checks: 5,
      items: names.map((name) => ({ name, ok: true, detail: null })),
    });
  });

  test("status and check answer with the server running and without; a second server on the directory is refused", async () => {
    const running = await operate(0, "status");
    expect(running).toMatchObject({ url: invited.url, pin: invited.pin, pid: invited.pid, registration: "invite" });
    const second = await keyhold(dir, ["serve", "--dir", dir, "--listen", "127.0.0.1:0", "--json"]);
    expect([second.code, errorOf(second).code]).toEqual([6, "conflict"]);
    expect(await invited.stop()).toBe(0);
    const stopped = await operate(0, "status");
    expect(stopped).toMatchObject({ pin: invited.pin, accounts: running.accounts });
    expect(await operate(0, "check")).toMatchObject({ ok: true });
    expect(await operate(0, "init")).toMatchObject({ pin: invited.pin, created: false });
    invited = await serve(dir, ["--listen", "127.0.0.1:0", "--registration", "invite"]);
    expect(invited.invite).toBeUndefined();
  });

  test("init makes a directory of its own; the other commands want one", async () => {
    const home = world.home("inits");
    const fresh = join(home.dir, "srv");
    const none = await home.fails(3, ["server", "status", "--dir", fresh]);
    expect(none.code).toBe("not_found");
    const { data } = await home.ok(["server", "init", "--dir", fresh]);
    expect(data).toMatchObject({ created: true, pin: expect.stringMatching(/^sha256:/) });
    expect((await home.ok(["server", "init", "--dir", fresh])).data).toEqual({ ...data, created: false });
  });
});

test("a closed server takes nobody, also with a code", async () => {
  const dir = world.home("closed").dir;
  const closed = await serve(dir, ["--listen", "127.0.0.1:0", "--registration", "closed"]);
  const home = world.home("closed-out");
  expect((await home.fails(5, registering(home, "x", [], closed))).code).toBe("denied");
  await closed.stop("SIGKILL");
});

test("--metrics-open alone opens nothing: it is refused before anything is made", async () => {
  const home = world.home("figureless");
  expect((await home.fails(2, ["serve", "--listen", "127.0.0.1:0", "--metrics-open"])).code).toBe("usage");
  expect(readdirSync(home.dir)).toEqual([]);
});

test("plaintext is refused beyond this machine, on both sides", async () => {
  const home = world.home("plain");
  const serving = await home.run(["serve", "--listen", "0.0.0.0:0", "--plaintext", "--json"]);
  expect([serving.code, errorOf(serving).code]).toEqual([2, "bad_input"]);
  const pin = world.server.pin;
  for (const url of ["http://192.0.2.1:7443", "http://keys.example.org"]) {
    const argv = ["register", "--server", url, "--pin", pin, "--account", "x", ...home.password, "--kdf", "test"];
    expect((await home.fails(2, argv)).code).toBe("bad_input");
  }
  // on loopback it is allowed: the pin still decides
  const dir = world.home("plain-server").dir;
  const plain = await serve(dir, ["--listen", "127.0.0.1:0", "--plaintext"]);
  expect(plain.url).toMatch(/^http:\/\/127\.0\.0\.1:/);
  const wrong = ["register", "--server", plain.url, "--pin", pin, "--account", "x", ...home.password, "--kdf", "test"];
  expect((await home.fails(7, wrong)).code).toBe("pin_mismatch");
  await home.ok(["register", ...serverFlags(plain, "x"), ...home.password, "--kdf", "test"]);
  await home.login();
  await plain.stop("SIGKILL");
});

test("a command that is killed by a signal says so in its code", async () => {
  const home = world.home("signalled");
  const child = await spawn(home.dir, ["serve", "--listen", "127.0.0.1:0", "--json"]);
  await child.stdout.getReader().read();
  child.kill("SIGKILL");
  await child.exited;
  expect(exitOf(child)).toBe(137);
});
