import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import {
  ended,
  errorOf,
  type Home,
  openWorld,
  SETUP_MS,
  type Server,
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

/** The entries of an account's log under one request id. */
async function entries(home: Home, requestId: string): Promise<{ action: string; status: string }[]> {
  const { data } = await home.ok(["audit", "list", "--request", requestId]);
  return data.items.map(({ action, status }: { action: string; status: string }) => ({ action, status }));
}

describe("register", () => {
  test("makes an account, audited; a second time the name is taken and nothing changes", async () => {
    const first = world.home("taken-first");
    const { requestId, data } = await first.ok(registering(first, "taken"));
    await first.login();
    expect(await entries(first, requestId)).toEqual([{ action: "account.register", status: "ok" }]);
    await first.ok(["store", "mine"], { stdin: "still here" });
    const second = world.home("taken-second", "another password altogether");
    expect((await second.fails(6, registering(second, "taken"))).code).toBe("exists");
    expect((await second.fails(4, ["list", ...second.password])).code).toBe("not_logged_in");
    expect((await second.ok(["profile", "list"])).data.items).toEqual([]);
    expect((await first.run(["read", "mine", "--fresh"])).out).toBe("still here");
    const { data: audit } = await first.ok(["audit", "list", "--action", "account.register"]);
    expect(audit.items.map(({ status }: { status: string }) => status)).toEqual(["ok", "exists"]);
    // in the home that has the account, too
    expect((await first.fails(6, registering(first, "taken"))).code).toBe("exists");
    expect(data.userId).toMatch(/^[0-9a-f]{32}$/);
  });

  test("of one name at the same instant: one wins, the others are told, the winner works", async () => {
    const homes = [0, 1, 2, 3].map((i) => world.home(`race-${i}`, `password of racer ${i}`));
    const ran = await Promise.all(homes.map((home) => home.run([...registering(home, "race"), "--json"])));
    expect(ran.map(({ code }) => code).sort()).toEqual([0, 6, 6, 6]);
    for (const [i, home] of homes.entries()) {
      if (ran[i]?.code !== 0) {
        expect((await home.fails(4, ["list", ...home.password])).code).toBe("not_logged_in");
        continue;
      }
      await home.login();
      await home.ok(["store", "mine"], { stdin: "won" });
      expect((await home.run(["read", "mine", "--fresh"])).out).toBe("won");
    }
  });

  test("killed at any moment, then again: completes, and the name is not lost", async () => {
    for (const afterMs of [40, 55, 65, 75, 85, 100]) {
      const home = world.home(`killed-${afterMs}`);
      const child = await spawn(home.dir, registering(home, `killed-${afterMs}`));
      await Bun.sleep(afterMs);
      child.kill("SIGKILL");
      await child.exited;
      const again = await home.run([...registering(home, `killed-${afterMs}`), "--json"]);
      // 6: the killed one had ended all its work
      if (again.code !== 0)
        expect([afterMs, again.code, errorOf(again).message]).toEqual([
          afterMs,
          6,
          'the profile "default" exists already',
        ]);
      await home.login();
      await home.ok(["store", "a"], { stdin: "b" });
      expect((await home.run(["read", "a", "--fresh"])).out).toBe("b");
      expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
    }
  });

  test("with a name that is no name is refused", async () => {
    const home = world.home("noname");
    for (const name of ["", "a\nb", "a\u001b[2Jb", "x".repeat(129), "\u202eevil"]) {
      const error = await home.fails(2, registering(home, name));
      expect(JSON.stringify(error)).not.toContain("\u202e");
    }
  });
});

describe("login", () => {
  test("twice gives two sessions; each can close the other", async () => {
    const one = await world.home("two-one").register("two");
    const other = world.home("two-other", "correct horse battery staple two-one");
    await other.login("two");
    const { data } = await one.ok(["account", "sessions"]);
    expect(data.items).toHaveLength(2);
    const { sessionId } = data.items.find(({ current }: { current: boolean }) => !current);
    expect((await one.ok(["account", "sessions", "--close", sessionId])).data.closed).toBe(1);
    expect((await other.fails(4, ["get", "x", "--fresh"])).code).toMatch(/session_invalid|not_logged_in/);
    expect((await one.ok(["account", "sessions"])).data.items).toHaveLength(1);
    expect((await one.fails(3, ["account", "sessions", "--close", sessionId])).code).toBe("not_found");
    const { data: devices } = await one.ok(["account", "device", "list"]);
    expect(devices.items).toHaveLength(2);
    // what a closed session is told does not stand in the way of a new one
    await other.login();
    await other.ok(["list", "--fresh"]);
  });

  test("the session of another account cannot be closed, and answers like one that is not", async () => {
    const one = await world.home("closer").register("closer");
    const two = await world.home("closee").register("closee");
    const { data } = await two.ok(["account", "sessions"]);
    const foreign = await one.fails(3, ["account", "sessions", "--close", data.items[0].sessionId]);
    const fake = await one.fails(3, ["account", "sessions", "--close", "0".repeat(32)]);
    expect({ ...foreign, requestId: "" }).toEqual({ ...fake, requestId: "" });
    await two.ok(["list", "--fresh"]);
  });

  test("after a logout what changes the account asks for a login first, even with the password", async () => {
    const home = await world.home("outside").register("outside");
    await home.ok(["logout"]);
    const next = world.file("outside.next", "the password that comes next");
    for (const argv of [
      ["account", "password", "--new-password-file", next],
      ["account", "recovery-kit"],
      ["account", "delete", "--yes"],
    ]) {
      expect((await home.fails(4, [...argv, ...home.password])).code).toBe("not_logged_in");
    }
    await home.ok(["login", ...home.password]);
  });

  test("two password changes at once in one home: the one that lost is not made later", async () => {
    const home = await world.home("twochanges").register("twochanges");
    const files = ["x", "y"].map((name) => world.file(`twochanges.${name}`, `the new password of ${name}`));
    const change = (file: string) => home.run(["account", "password", "--new-password-file", file, ...home.password]);
    const ran = await Promise.all(files.map(change));
    const won = files.filter((_, i) => ran[i]?.code === 0);
    expect(won.length).toBeGreaterThan(0);
    const opens = async () => {
      const tried: string[] = [];
      for (const file of files) {
        const login = await home.run(["login", "--password-file", file]);
        if (login.code === 0) tried.push(file);
        else expect(login.code).toBe(4);
      }
      return tried;
    };
    // one password holds, it is one that was acknowledged, and no later command puts another in its place
    const now = await opens();
    expect(now).toHaveLength(1);
    expect(won).toContain(now[0] ?? "");
    await home.ok(["store", "after", "--password-file", now[0] ?? ""], { stdin: "1" });
    expect(await opens()).toEqual(now);
  });

  test("logout is fine twice, closes the session on the server, and is audited", async () => {
    const one = await world.home("out-one").register("out");
    const other = world.home("out-other", "correct horse battery staple out-one");
    await other.login("out");
    const { requestId } = await other.ok(["logout"]);
    expect((await other.ok(["logout"])).data.closed).toBe(0);
    expect((await one.ok(["account", "sessions"])).data.items).toHaveLength(1);
    expect(await entries(one, requestId)).toEqual([{ action: "session.close", status: "ok" }]);
    await other.login();
    await one.ok(["logout", "--all"]);
    expect((await other.fails(4, ["get", "x", "--fresh"])).code).toMatch(/session_invalid|not_logged_in/);
  });

  test("failures are counted: exit 12 with the time to wait; the known device gets in; it recovers by itself", async () => {
    const owner = await world.home("limit-owner").register("limited", { login: false });
    const thief = world.home("limit-thief", "guess number something");
    const guess = () =>
      thief.run(["login", ...serverFlags(world.server, "limited"), ...thief.password, "--kdf", "test", "--json"]);
    const codes: number[] = [];
    let last = await guess();
    for (let i = 0; i < 14 && last.code === 4; i++) {
      codes.push(last.code);
      last = await guess();
    }
    expect(codes.length).toBeGreaterThanOrEqual(10);
    expect(last.code).toBe(12);
    const refused = errorOf(last);
    expect(refused.code).toBe("rate_limited");
    expect(refused.retryAfterMs).toBeGreaterThan(0);
    // an unknown name is limited alike
    const unknown = world.home("limit-unknown");
    const other = ["login", ...serverFlags(world.server, "limited-unknown"), ...unknown.password, "--kdf", "test"];
    const seen: number[] = [];
    for (let i = 0; i <= codes.length; i++) seen.push((await unknown.run(other)).code);
    expect(seen).toEqual([...codes, 12]);
    await owner.login();
    await owner.ok(["store", "mine"], { stdin: "mine" });
    const { data } = await owner.ok(["audit", "list", "--action", "session.login"]);
    const failed = data.items.filter(({ status }: { status: string }) => status === "login_failed");
    expect(failed).toHaveLength(codes.length);
    const right = world.home("limit-right", "correct horse battery staple limit-owner");
    const deadline = Date.now() + 20_000;
    let code = 12;
    while (code === 12 && Date.now() < deadline) {
      const ran = await right.run([
        "login",
        ...serverFlags(world.server, "limited"),
        ...right.password,
        "--kdf",
        "test",
        "--json",
      ]);
      code = ran.code;
      if (code === 12) await Bun.sleep(errorOf(ran).retryAfterMs ?? 100);
    }
    expect(code).toBe(0);
  });

  test("a home that is deleted stays deleted: its agent ends and writes nothing more", async () => {
    await world.home("gone").register("gone");
    const other = world.home("gone-other", "correct horse battery staple gone");
    await other.login("gone");
    await other.ok(["store", "x"], { stdin: "y" });
    const { data: agent } = await other.ok(["agent", "status"]);
    rmSync(other.dir, { recursive: true });
    const deadline = Date.now() + 20_000;
    while (!ended(agent.pid) && Date.now() < deadline) await Bun.sleep(50);
    expect([ended(agent.pid), existsSync(other.dir)]).toEqual([true, false]);
  });

  test("a restart of the server keeps sessions and data", async () => {
    const home = await world.home("restart").register("restart");
    await home.ok(["store", "kept"], { stdin: "kept value" });
    const { data: before } = await home.ok(["account", "sessions"]);
    await world.restart();
    const { data: after } = await home.ok(["account", "sessions"]);
    expect(after.items.map((one: Record<string, unknown>) => one["sessionId"])).toEqual(
      before.items.map((one: Record<string, unknown>) => one["sessionId"]),
    );
    expect((await home.run(["read", "kept", "--fresh"])).out).toBe("kept value");
    expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
  });
});

describe("account password", () => {
  test("the old password is dead at once, other sessions are closed, and the other device's vault follows", async () => {
    const one = await world.home("pw-one").register("pw");
    const other = world.home("pw-other", "correct horse battery staple pw-one");
    await one.ok(["store", "s"], { stdin: "before the change" });
    await other.login("pw");
    const next = world.file("pw-next", "a new password, quite another");
    const nextFlags = ["--password-file", next];
    const wrong = await one.fails(4, ["account", "password", "--password-file", next, "--new-password-file", next]);
    expect(wrong.code).toBe("login_failed");
    const { requestId } = await one.ok(["account", "password", ...one.password, "--new-password-file", next]);
    expect((await one.fails(4, ["list", ...one.password])).code).toBe("login_failed");
    expect((await one.run(["read", "s", ...nextFlags])).out).toBe("before the change");
    expect(await entriesWith(one, requestId, nextFlags)).toEqual([{ action: "account.password", status: "ok" }]);
    // the other device's session is closed: it says so instead of serving the vault
    expect((await other.fails(4, ["get", "s", "--fresh"])).code).toMatch(/session_invalid|not_logged_in/);
    expect((await other.fails(4, ["login", ...other.password])).code).toBe("login_failed");
    await other.ok(["login", ...nextFlags]);
    expect((await other.run(["read", "s", "--fresh"])).out).toBe("before the change");
    await other.ok(["lock"]);
    // both vaults take the new password alone, without the server too
    for (const home of [one, other]) {
      expect((await home.fails(4, ["vault", "check", ...home.password])).code).toBe("wrong_password");
      expect((await home.ok(["vault", "check", ...nextFlags])).data.ok).toBe(true);
    }
    const fresh = world.home("pw-fresh", "a new password, quite another");
    await fresh.login("pw");
    expect((await fresh.run(["read", "s"])).out).toBe("before the change");
  });

  test("killed at any moment leaves the old or the new password working, on the device and on a fresh one", async () => {
    const home = await world.home("pwkill").register("pwkill", { login: false });
    await home.ok(["store", "s", ...home.password], { stdin: "kept" });
    const files = [
      home.password[1],
      world.file("pwkill-b", "the second password"),
      world.file("pwkill-c", "the third password"),
    ];
    let now = 0;
    for (const [round, afterMs] of [45, 60, 75, 90, 110].entries()) {
      const next = (now + 1) % files.length;
      const argv = [
        "account",
        "password",
        "--password-file",
        files[now] ?? "",
        "--new-password-file",
        files[next] ?? "",
      ];
      const child = await spawn(home.dir, argv);
      await Bun.sleep(afterMs);
      child.kill("SIGKILL");
      await child.exited;
      const tried = await Promise.all(
        [now, next].map((i) => home.run(["read", "s", "--fresh", "--password-file", files[i] ?? ""])),
      );
      const working = tried.map(({ code, out }) => code === 0 && out === "kept");
      expect([round, working.filter(Boolean)]).toEqual([round, [true]]);
      now = working[0] === true ? now : next;
      const fresh = world.home(`pwkill-${round}`);
      const device = [...serverFlags(world.server, "pwkill"), "--password-file", files[now] ?? "", "--kdf", "test"];
      await fresh.ok(["login", ...device]);
      expect((await fresh.run(["read", "s", "--fresh"])).out).toBe("kept");
      await fresh.ok(["logout"]);
    }
    expect((await home.ok(["audit", "verify", "--password-file", files[now] ?? ""])).data.ok).toBe(true);
  });
});

async function entriesWith(home: Home, requestId: string, password: readonly string[]) {
  const { data } = await home.ok(["audit", "list", "--request", requestId, ...password]);
  return data.items.map(({ action, status }: { action: string; status: string }) => ({ action, status }));
}
