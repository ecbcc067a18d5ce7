import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { onTerminal } from "./terminal.ts";
import { filesBelow, traces } from "./traces.ts";
import { binary, environment, errorOf, exitOf, type Home, openWorld, SETUP_MS, spawn, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
  await home.ok(["store", "wifi", "--tag", "house"], { stdin: "hunter22" });
  await home.ok(["store", "bin"], { stdin: Uint8Array.of(0xff, 0, 1) });
}, SETUP_MS);
afterAll(() => world.close());

/** Runs shell text with `$KH` as the executable. */
async function shell(text: string, env: Record<string, string> = {}) {
  const child = Bun.spawn(["bash", "-c", text], {
    env: environment(home.dir, { KH: await binary(), ...env }),
    cwd: home.dir,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err, code: exitOf(child) };
}

describe("run", () => {
  const env = ["--env", "WIFI=kh://wifi"];

  test("hands everything after -- to the command, flags of ours too", async () => {
    const ran = await home.run([
      "run",
      ...env,
      "--",
      "printf",
      "%s|",
      "--help",
      "--json",
      "--version",
      "-h",
      "--",
      "--env",
    ]);
    expect([ran.code, ran.out]).toEqual([0, "--help|--json|--version|-h|--|--env|"]);
    expect((await home.run(["run", ...env, "--", "ls", "--help"])).out).toContain("Usage: ls");
    const none = await home.run(["run", ...env]);
    expect([none.code, none.out]).toEqual([2, ""]);
  });

  test("gives the child its values, its own streams, and nothing of keyhold's", async () => {
    const ran = await home.run(["run", ...env, "--env", "BIN=kh://bin", "--", "env"], {
      env: { KEYHOLD_PROFILE: "default", BUN_OPTIONS: "", SSL_CERT_FILE: "/mine", OTHER: "kept" },
    });
    const seen = ran.out.split("\n");
    for (const line of ["WIFI=hunter22", "BIN=_wAB", "OTHER=kept", "SSL_CERT_FILE=/mine"]) expect(seen).toContain(line);
    expect(seen.filter((line) => /^(KEYHOLD_|BUN_BE_BUN)/.test(line))).toEqual([]);
    const hex = await home.run([
      "run",
      "--env",
      "BIN=kh://bin",
      "--encoding",
      "hex",
      "--",
      "sh",
      "-c",
      'printf %s "$BIN"',
    ]);
    expect(hex.out).toBe("ff0001");
    const piped = await home.run(["run", ...env, "--", "sh", "-c", 'cat; printf %s "$WIFI" >&2'], { stdin: "through" });
    expect([piped.out, piped.err]).toEqual(["through", "hunter22"]);
  });

  test("reads an env file, in which only references are resolved", async () => {
    const file = world.file("vars", "# comment\nexport A=kh://wifi\nB='plain'\n\n");
    const ran = await home.run(["run", "--env-file", file, "--", "sh", "-c", 'printf "%s,%s" "$A" "$B"']);
    expect(ran.out).toBe("hunter22,plain");
  });

  test("passes the child's exit code and signal through", async () => {
    for (const code of [0, 1, 7, 42, 255]) {
      expect((await home.run(["run", ...env, "--", "sh", "-c", `exit ${code}`])).code).toBe(code);
    }
    expect((await home.run(["run", ...env, "--", "sh", "-c", "kill -TERM $$"])).code).toBe(143);
    expect((await home.run(["run", ...env, "--", "sh", "-c", "kill -KILL $$"])).code).toBe(137);
    const child = await spawn(home.dir, ["run", ...env, "--", "sleep", "60"]);
    while (!readFileSync(`/proc/${child.pid}/cmdline`, "utf8").startsWith("sleep")) await Bun.sleep(10);
    child.kill("SIGTERM");
    await child.exited;
    expect(exitOf(child)).toBe(143);
  });

  test("126 for what cannot be run, 127 for what is not there, and what it lacks is never run", async () => {
    writeFileSync(world.file("plain-file"), "x", { mode: 0o644 });
    expect((await home.run(["run", ...env, "--", world.file("plain-file")])).code).toBe(126);
    expect((await home.run(["run", ...env, "--", "no-such-command-anywhere"])).code).toBe(127);
    const touched = world.file("touched");
    expect((await home.run(["run", "--env", "A=kh://no/such", "--", "touch", touched])).code).toBe(3);
    for (const bad of ["A=plain", "A", "1A=kh://wifi", "A=kh://", "A=kh://wifi?version=x", "A=kh://%zz"]) {
      expect([bad, (await home.run(["run", "--env", bad, "--", "touch", touched])).code]).toEqual([bad, 2]);
    }
    expect(readdirSync(world.dir)).not.toContain("touched");
  });
});

describe("what is typed wrong", () => {
  test("an unknown command or flag exits 2, names the nearest, and runs nothing", async () => {
    const cases: [string[], string][] = [
      [["lst"], "list"],
      [["generat", "x"], "generate"],
      [["audit", "verfy"], "verify"],
      [["list", "--jsn"], "--json"],
      [["generate", "typo/x", "--tpye", "pin"], "--type"],
      [["generate", "typo/x", "--type", "pinn"], "pin"],
      [["get", "wifi", "--reveal=maybe"], "--reveal"],
    ];
    for (const [argv, nearest] of cases) {
      const ran = await home.run(argv);
      expect([argv, ran.code, ran.out]).toEqual([argv, 2, ""]);
      expect([argv, ran.err.includes(nearest)]).toEqual([argv, true]);
      expect(errorOf(await home.run([...argv, "--json"])).code).toMatch(/usage|bad_input/);
    }
    for (const argv of [
      ["list", "a", "b"],
      ["get"],
      ["get", "wifi", "--version", "0"],
      ["list", "--limit", "x"],
      ["get", "--version"],
      ["audit"],
    ]) {
      const ran = await home.run(argv);
      expect([argv, ran.code, ran.out]).toEqual([argv, 2, ""]);
    }
    await home.fails(3, ["get", "typo/x"]);
  });

  test("a secret that is not there: the name that may have been meant, from an open vault alone", async () => {
    for (const [typed, meant] of [
      ["wfii", "wifi"],
      ["WIFI", "wifi"],
    ] as const) {
      for (const command of [["get"], ["read"], ["history"], ["tag", "--add", "x"], ["remove", "--yes"]]) {
        const [name = "", ...flags] = command;
        const { hint } = await home.fails(3, [name, typed, ...flags]);
        expect([name, hint]).toEqual([name, `there is ${JSON.stringify(meant)}   (keyhold list)`]);
      }
    }
    await home.ok(["store", "far/deep/place"], { stdin: "x" });
    expect((await home.fails(3, ["get", "place"])).hint).toContain('"far/deep/place"');
    expect((await home.fails(3, ["get", "nothing-like-it"])).hint).toBe("keyhold list");
    // another account learns nothing of it, nor does anybody without the password
    const other = await world.home("other").register("other");
    expect((await other.fails(3, ["get", "wfii"])).hint).toBe("keyhold list");
    await other.ok(["lock"]);
    expect(JSON.stringify(await other.fails(4, ["get", "wfii"]))).not.toContain("wifi");
    await home.ok(["remove", "far/deep/place", "--yes"]);
    expect((await home.fails(3, ["get", "place"])).hint).toBe("keyhold list");
  });

  test("the shells get names from a running agent, and none without it", async () => {
    const names = async (kind: string) => (await home.run(["__names", kind])).out.trim().split("\n");
    expect(await names("secret")).toContain("wifi");
    expect(await names("reference")).toContain("kh://wifi");
    expect(await names("profile")).toEqual(["default"]);
    const locked = await world.home("names").register("names", { login: false });
    for (const stdin of [undefined, "closed"] as const) {
      const ran = await locked.run(["__names", "secret"], stdin === undefined ? {} : { stdin });
      expect(ran).toMatchObject({ code: 0, out: "", err: "" });
    }
  });

  test("the last of a repeated flag wins, lists collect, and a value may start with a dash", async () => {
    const { data } = await home.ok(["generate", "flags", "--type", "pin", "--type", "uuid", "--tag", "a", "--tag=-b"]);
    expect([data.type, data.tags]).toEqual(["uuid", ["-b", "a"]]);
    expect((await home.ok(["list", "--tag", "-b"])).data.items).toHaveLength(1);
    await home.ok(["generate", "--type", "pin", "--", "-dash"]);
    expect((await home.ok(["get", "--", "-dash"])).data.name).toBe("-dash");
  });

  test("a value or a password in argv has no flag", async () => {
    for (const flag of ["--password", "--value", "--secret"]) {
      expect((await home.run(["store", "x", flag, "hunter22"])).code).toBe(2);
      expect((await home.run(["store", "x", `${flag}=hunter22`])).err).not.toContain("hunter22");
    }
  });
});

describe("streams", () => {
  test("a reader that leaves early is no error", async () => {
    for (let i = 0; i < 3; i++) await home.ok(["generate", `many/${i}`]);
    const ran = await shell(
      '"$KH" list | head -1; echo "${PIPESTATUS[0]}"; "$KH" man | head -c 10 >/dev/null; "$KH" audit export | head -1 >/dev/null',
    );
    expect(ran.err).toBe("");
    expect(ran.out.split("\n")[0]).toContain("NAME");
    expect(["0", "141"]).toContain(ran.out.trimEnd().split("\n").at(-1) ?? "");
    const closed = await shell('"$KH" get wifi --json >&-; echo $?');
    expect(closed.err).not.toContain("    at ");
  });

  test("NO_COLOR and a pipe have no escape codes; --color always has them", async () => {
    const failing = ["get", "no/such"];
    expect((await home.run(failing)).err).not.toContain("\u001b");
    expect((await home.run(failing, { env: { NO_COLOR: "true", FORCE_COLOR: "1" } })).err).not.toContain("\u001b");
    expect((await home.run([...failing, "--color", "always"])).err).toContain("\u001b[31m");
    const terminal = await onTerminal(home.dir, failing, [], { env: { NO_COLOR: "true" } });
    expect([terminal.code, terminal.shown.includes("\u001b[")]).toEqual([3, false]);
    const painted = await onTerminal(home.dir, failing, []);
    expect(painted.shown).toContain("\u001b[31m");
  });

  test("a narrow terminal and one without a width still show every word", async () => {
    for (const cols of [0, 40]) {
      const { shown, code } = await onTerminal(home.dir, ["list"], [], { cols });
      expect([cols, code]).toEqual([cols, 0]);
      expect(shown).toContain("wifi");
    }
  });

  test("help and version are data on stdout", async () => {
    for (const argv of [
      ["help"],
      ["--help"],
      ["get", "--help"],
      ["help", "exit-codes"],
      ["version"],
      ["audit", "--help"],
    ]) {
      const ran = await home.run(argv);
      expect([argv, ran.code, ran.err, ran.out.length > 10]).toEqual([argv, 0, "", true]);
    }
    expect((await home.ok(["version"])).data).toMatchObject({ version: expect.any(String), bun: "1.4.5" });
  });
});

test("no process of keyhold shows password or value in its command line or environment", async () => {
  const [password, value] = ["canary-password-quoll", "canary-value-dingo"] as const;
  const fresh = await world.home("proc", password).register("proc");
  await fresh.ok(["store", "x"], { stdin: value });
  const program = await binary();
  const seen = new Set<string>();
  let leaks: string[] = [];
  let stop = false;
  const watch = (async () => {
    while (!stop) {
      for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
        try {
          const line = readFileSync(`/proc/${pid}/cmdline`);
          if (!line.includes(program)) continue;
          seen.add(line.toString().split("\0")[1] ?? "");
          const shown = Buffer.concat([line, readFileSync(`/proc/${pid}/environ`)]);
          leaks = leaks.concat(
            [password, value]
              .flatMap(traces)
              .filter((form) => shown.includes(form))
              .map(String),
          );
        } catch {
          // it has ended meanwhile
        }
      }
      await Bun.sleep(2);
    }
  })();
  await fresh.ok(["login", ...fresh.password]);
  await fresh.ok(["store", "y", "--password-stdin", "--in-file", world.file("proc-value", value)], { stdin: password });
  await fresh.ok(["get", "x", "--reveal"]);
  await fresh.run(["read", "x", ...fresh.password]);
  stop = true;
  await watch;
  expect(leaks).toEqual([]);
  for (const name of ["serve", "__agent", "store"]) expect([...seen]).toContain(name);
  // and nothing of it lies in the device's files
  for (const text of [password, value]) {
    for (const form of traces(text)) {
      expect(
        filesBelow(fresh.dir)
          .filter(({ bytes }) => bytes.includes(form))
          .map(({ path }) => path),
      ).toEqual([]);
    }
  }
});
