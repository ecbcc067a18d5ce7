import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { onTerminal } from "./terminal.ts";
import { binary, environment, exitOf, type Home, openWorld, SETUP_MS, spawn, type World } from "./world.ts";

setDefaultTimeout(60_000);
const COUNT = 100;
const SECRET = "hunter22-correct-horse";
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
  const item = (name: string, type: string, value: string, fields: object[] = []) => ({
    name,
    type,
    value,
    tags: [],
    createdAt: "2026-01-01T00:00:00Z",
    fields,
    expiresAt: null,
  });
  const items = [
    ...Array.from({ length: COUNT }, (_, i) => item(`many/${i}`, "token", `value ${i}`)),
    item("db/prod", "login", SECRET, [
      { name: "user", kind: "text", value: "app" },
      { name: "url", kind: "url", value: "https://one.example" },
      { name: "url", kind: "url", value: "https://two.example" },
      { name: "otp", kind: "otp", value: "otpauth://totp/db?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&period=86400" },
    ]),
    item("counted", "hotp", "otpauth://hotp/c?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&counter=1"),
    item("lines", "note", "line one\nline two\n"),
    item("tiny", "pin", "123"),
  ];
  await home.ok(["import", world.file("items.json", JSON.stringify({ keyhold: "export", v: 2, items }))]);
  await home.ok(["store", "bin"], { stdin: Uint8Array.of(0xff, 0, 1) });
  await home.ok(["generate", "key", "--type", "ed25519"]);
}, SETUP_MS);
afterAll(() => world.close());

const many = () => world.file("many.env", Array.from({ length: COUNT }, (_, i) => `V${i}=kh://many/${i}`).join("\n"));

/** Actions in the log with the number of requests that asked for each, since a place in it. */
async function requests(since: number): Promise<{ size: number; counts: Record<string, number> }> {
  const { items } = (await home.ok(["audit", "list"])).data;
  const seen: Record<string, Set<string>> = {};
  for (const { seq, action, requestId } of items) {
    if (seq > since && !action.startsWith("audit.")) seen[action] = (seen[action] ?? new Set()).add(requestId);
  }
  return {
    size: items.length,
    counts: Object.fromEntries(Object.entries(seen).map(([action, ids]) => [action, ids.size])),
  };
}

describe("many references", () => {
  test("take one request through the agent, and one login and one request without it", async () => {
    const script = ["--", "sh", "-c", 'env | grep -c "^V"; printf %s "$V99"'];
    let { size } = await requests(0);
    const through = await home.run(["run", "--env-file", many(), ...script]);
    expect([through.code, through.out]).toEqual([0, `${COUNT}\nvalue 99`]);
    let after = await requests(size);
    // the look into the log is followed by a sync of its own
    expect(after.counts).toEqual({ "secret.get": 1, "state.sync": 1 });
    size = after.size;
    const direct = await home.run(["run", "--env-file", many(), ...home.password, ...script]);
    expect([direct.code, direct.out]).toEqual([0, `${COUNT}\nvalue 99`]);
    after = await requests(size);
    expect(after.counts).toEqual({ "secret.get": 1, "state.sync": 1, "session.login": 1, "session.close": 1 });
  });

  test("to one secret ask for it once", async () => {
    const { size } = await requests(0);
    const template = world.file("same.tpl", "{{ kh://db/prod }}{{ kh://db/prod#user }}{{kh://db/prod?version=1#url}}");
    expect((await home.run(["inject", template])).out).toBe(`${SECRET}apphttps://one.example`);
    expect((await requests(size)).counts["secret.get"]).toBe(1);
    const { items } = (await home.ok(["audit", "list", "db/prod", "--action", "secret.get"])).data;
    // the newest, and the version that was asked for by its number
    expect(items.filter(({ seq }: { seq: number }) => seq > size)).toHaveLength(2);
  });

  test("in two profiles open each once, with a password that is given once", async () => {
    const other = world.home("two", "the same password for both");
    await other.ok(["init", "--local", "--kdf", "test", ...other.password]);
    await other.ok(["init", "--local", "--kdf", "test", ...other.password, "--profile", "work"]);
    await other.ok(["store", "a", ...other.password], { stdin: "private value" });
    await other.ok(["store", "a", ...other.password, "--profile", "work"], { stdin: "work value" });
    const template = world.file(
      "profiles.tpl",
      "{{ kh://a }}, {{ kh://a?profile=work }}, {{ kh://a?profile=default }}",
    );
    const ran = await other.run(["inject", template, "--password-stdin"], { stdin: "the same password for both" });
    expect([ran.out, ran.code]).toEqual(["private value, work value, private value", 0]);
  });
});

describe("fields", () => {
  test("are read by reference, alike in all three commands", async () => {
    const key = (await home.ok(["get", "key"])).data.publicKeyHex;
    for (const [reference, value] of [
      ["kh://db/prod", SECRET],
      ["kh://db/prod#value", SECRET],
      ["kh://db/prod#user", "app"],
      ["kh://db/prod#url", "https://one.example"],
      ["kh://key#public-key", key],
    ] as const) {
      expect([reference, (await home.run(["read", reference])).out]).toEqual([reference, value]);
      const run = await home.run(["run", "--env", `A=${reference}`, "--", "sh", "-c", 'printf %s "$A"']);
      expect([reference, run.out]).toEqual([reference, value]);
      const inject = await home.run(["inject", "-"], { stdin: `{{ ${reference} }}` });
      expect([reference, inject.out]).toEqual([reference, value]);
    }
  });

  test("#otp is the code of now, never the key; counted codes are refused", async () => {
    const ran = await home.run(["read", "kh://db/prod#otp"]);
    expect(ran.out).toMatch(/^\d{6}$/);
    expect(ran.out).toBe((await home.ok(["otp", "code", "db/prod"])).data.code);
    const counted = await home.fails(2, ["read", "kh://counted#otp"]);
    expect([counted.code, counted.hint]).toEqual(["unsupported", "keyhold otp code NAME"]);
  });

  test("that are not there are named with those that are", async () => {
    const { message, hint } = await home.fails(3, ["read", "kh://db/prod#pin"]);
    expect([message, hint]).toEqual(['"db/prod" has no field "pin"', "it has #value, #user, #url, #otp"]);
    await home.fails(3, ["read", "kh://bin#public-key"]);
  });
});

describe("run", () => {
  const env = ["--env", "PW=kh://db/prod"];

  test("starts nothing when one reference fails", async () => {
    const touched = world.file("touched");
    const file = world.file("bad.env", "A=kh://many/1\nB=kh://many/none\n");
    const failure = await home.fails(3, ["run", "--env-file", file, "--", "touch", touched]);
    expect(failure.message).toContain('"many/none"');
    for (const [content, message] of [
      ["A=1\nB=kh://x?nonsense=hunter22\n", "line 2"],
      ["A=1\n\nhunter22\n", "line 3"],
    ] as const) {
      const bad = await home.fails(2, ["run", "--env-file", world.file("bad.env", content), "--", "touch", touched]);
      expect(bad.message).toContain(message);
      expect(bad.message).not.toContain("hunter22");
    }
    await home.fails(2, ["run", "--env-file", many(), "--env", "A=literal", "--", "touch", touched]);
    await home.fails(3, ["run", "--env-file", world.file("no-such-file"), "--", "touch", touched]);
    for (const mask of [[], ["--mask"]]) {
      await home.fails(2, ["run", ...mask, "--env", "A=kh://bin", "--encoding", "none", "--", "touch", touched]);
      expect((await home.run(["run", ...mask, ...env, "--", "no-such-command-anywhere"])).code).toBe(127);
    }
    expect(existsSync(touched)).toBe(false);
  });

  test("no reference sets what decides which code runs, unless told to", async () => {
    for (const name of [
      "LD_PRELOAD",
      "PATH",
      "NODE_OPTIONS",
      "BASH_ENV",
      "ENV",
      "DYLD_INSERT_LIBRARIES",
      "https_proxy",
    ]) {
      const given = [
        ["--env", `${name}=kh://db/prod`],
        ["--env-file", world.file("unsafe.env", `${name}=kh://db/prod`)],
      ];
      for (const how of given) {
        expect([name, (await home.fails(5, ["run", ...how, "--", "true"])).code]).toEqual([name, "denied"]);
      }
    }
    const allowed = [
      "run",
      "--allow-unsafe-env",
      "--env",
      "NODE_OPTIONS=kh://db/prod",
      "--",
      "printenv",
      "NODE_OPTIONS",
    ];
    expect((await home.run(allowed)).out).toBe(`${SECRET}\n`);
    const literal = world.file("literal.env", "NODE_OPTIONS=--max-old-space-size=64\n");
    expect((await home.run(["run", "--env-file", literal, "--", "printenv", "NODE_OPTIONS"])).code).toBe(0);
  });

  test("the user's environment is the child's, without ours; --clean leaves little of it", async () => {
    const options = {
      env: { NODE_OPTIONS: "--mine", KEYHOLD_PROFILE: "default", BUN_INSPECT: "", MINE: "1", LANG: "C" },
    };
    const names = async (argv: readonly string[]) =>
      (await home.run(argv, options)).out.split("\n").flatMap((line) => line.split("=", 1));
    const all = await names(["run", ...env, "--", "env"]);
    for (const name of ["NODE_OPTIONS", "MINE", "PW", "PATH"]) expect(all).toContain(name);
    expect(all.filter((name) => /^(KEYHOLD|BUN)_/.test(name))).toEqual([]);
    const clean = await names(["run", "--clean", ...env, "--", "env"]);
    expect(clean.filter((name) => name !== "").toSorted()).toEqual(["HOME", "LANG", "PATH", "PW", "TERM"]);
  });
});

describe("run --mask into pipes", () => {
  const run = (script: string, more: readonly string[] = [], options = {}) =>
    home.run(["run", "--mask", "--env", "PW=kh://db/prod", ...more, "--", "bash", "-c", script], options);

  test.skipIf(!existsSync("/dev/full"))("says that a disk is full, and nothing of the program's insides", async () => {
    for (const argv of ["run --mask --env PW=kh://db/prod -- echo x", "read kh://db/prod", "list"]) {
      const env = { ...environment(home.dir), KH: await binary() };
      const ran = Bun.spawnSync(["sh", "-c", `exec "$KH" ${argv} >/dev/full`], { env, stdin: "ignore" });
      const said = ran.stderr.toString();
      expect([argv, ran.exitCode, said]).toEqual([argv, 1, expect.stringMatching(/^keyhold: cannot write the output/)]);
    }
  });

  test("masks stdout and stderr apart, in every form, and passes stdin and exit code on", async () => {
    const ran = await run(
      'cat; echo "$PW"; printf %s "$PW" | base64; printf %s "$PW" | xxd -p; echo "$PW" >&2; exit 7',
      [],
      {
        stdin: "through\n",
      },
    );
    const label = "<kh://db/prod>";
    expect([ran.code, ran.err]).toEqual([7, `${label}\n`]);
    expect(ran.out.split("\n")).toEqual(["through", label, expect.stringContaining(label), label, ""]);
    expect(ran.out.length).toBeLessThan(80);
  });

  test("a value in pieces, of several lines, and one that is no text", async () => {
    const more = ["--env", "L=kh://lines", "--env", "B=kh://bin"];
    const script =
      'printf %s "${PW:0:12}"; sleep 0.1; echo "${PW:12}"; echo "$L"; printf %s "$B" | basenc -d --base64url';
    const ran = await run(`${script} 2>/dev/null; true`, more);
    expect(ran.out.startsWith("<kh://db/prod>\n<kh://lines>\n")).toBe(true);
    expect((await run('printf "\\377\\0\\1"', more)).bytes.length).toBe(3);
    const short = await run('printf %s "$T"', ["--env", "T=kh://tiny"]);
    expect([short.out, short.err]).toEqual(["123", "values of fewer than 4 bytes are not masked\n"]);
  });

  test("gives signals to the child and its signal back", async () => {
    expect((await run("kill -TERM $$")).code).toBe(143);
    expect((await run("kill -KILL $$")).code).toBe(137);
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      const script = `trap 'echo got ${signal}; exit 9' ${signal}; echo ready; while :; do sleep 0.02; done`;
      const child = await spawn(home.dir, ["run", "--mask", "--env", "PW=kh://db/prod", "--", "bash", "-c", script]);
      const reader = child.stdout.getReader();
      let shown = "";
      for (let sent = false; ; ) {
        const { value, done } = await reader.read();
        if (done) break;
        shown += new TextDecoder().decode(value);
        if (!sent && shown.includes("ready")) {
          sent = true;
          child.kill(signal);
        }
      }
      await child.exited;
      expect([signal, shown, exitOf(child)]).toEqual([signal, `ready\ngot ${signal}\n`, 9]);
    }
  });

  test("a reader that leaves ends the child as without us", async () => {
    const { dir } = home;
    const child = Bun.spawn(
      ["bash", "-c", `"$KH" run --mask --env PW=kh://db/prod -- yes "$W" | head -1; echo \${PIPESTATUS[0]}`],
      {
        env: environment(dir, { KH: await binary(), W: "word" }),
        stdout: "pipe",
        stdin: "ignore",
      },
    );
    expect(await child.stdout.text()).toBe("word\n141\n");
  });

  test("changes no other byte, however much there is", async () => {
    const ran = await run("seq 1 300000");
    expect(ran.out).toBe(`${Array.from({ length: 300_000 }, (_, i) => i + 1).join("\n")}\n`);
  });
});

describe("run on a terminal", () => {
  const masked = (script: string, ...more: string[]) => [
    "run",
    "--mask",
    "--env",
    "PW=kh://db/prod",
    ...more,
    "--",
    "bash",
    "-c",
    script,
  ];

  test("the child has a terminal of its own of the same size, and the keys", async () => {
    const script =
      'test -t 0 && test -t 1 && test -t 2 && stty size; echo "$PW"; read -r -p "go> " x; echo "got $x"; exit 5';
    const { shown, code } = await onTerminal(home.dir, masked(script), [{ expect: "go> ", type: "word\r" }]);
    expect(code).toBe(5);
    expect(shown).toBe("24 80\r\n<kh://db/prod>\r\ngo> word\r\ngot word\r\n");
  });

  test("what is typed is masked too; Ctrl-D and Ctrl-C arrive", async () => {
    const typed = await onTerminal(home.dir, masked("echo ready; cat; echo end"), [
      { expect: "ready", type: `${SECRET}\r` },
      { expect: "<kh://db/prod>", type: "\u0004" },
    ]);
    expect([typed.code, typed.shown.includes(SECRET), typed.shown.endsWith("end\r\n")]).toEqual([0, false, true]);
    const script = "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.02; done";
    const ended = await onTerminal(home.dir, masked(script), [{ expect: "ready", type: "\u0003" }]);
    expect([ended.code, ended.shown.endsWith("interrupted\r\n")]).toEqual([6, true]);
  });

  test("the size follows the window", async () => {
    const script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done";
    const { shown } = await onTerminal(home.dir, masked(script), [
      { expect: "ready", resize: [100, 30] },
      { expect: "30 100", resize: [80, 24] },
      { expect: "24 80", type: "\u0003" },
    ]);
    expect(shown).toContain("30 100");
  });

  test("signals and their codes, with the terminal as it was", async () => {
    for (const argv of [masked("kill -TERM $$"), masked("kill -TERM $$").filter((word) => word !== "--mask")]) {
      expect((await onTerminal(home.dir, argv, [])).code).toBe(143);
    }
    const script = "echo ready; exec sleep 60";
    for (const [signal, code] of [
      ["SIGTERM", 143],
      ["SIGHUP", 129],
      ["SIGQUIT", 131],
    ] as const) {
      const { code: seen } = await onTerminal(home.dir, masked(script), [{ expect: "ready", signal }]);
      expect([signal, seen]).toEqual([signal, code]);
    }
    expect((await onTerminal(home.dir, masked("stty raw -echo; exit 3"), [])).code).toBe(3);
  });

  test("a password is asked for first, and no key is lost afterwards", async () => {
    const argv = masked('read -r -p "one> " a; read -r -p "two> " b; echo "[$a$b]"');
    const alone = await world.home("alone", "a password to be typed").register("alone", { login: false });
    await alone.ok(["store", "db/prod", ...alone.password], { stdin: SECRET });
    const { shown, code } = await onTerminal(alone.dir, argv, [
      { expect: "Password", type: "a password to be typed\r" },
      { expect: "one> ", type: "first\r" },
      { expect: "two> ", type: "second\r" },
    ]);
    expect([code, shown.includes("[firstsecond]")]).toEqual([0, true]);
  });

  test("an editor on the whole screen, with --mask and without", async () => {
    for (const mask of [true, false]) {
      const file = world.file(`edited-${mask}`);
      const argv = masked('exec vim -u NONE -n "$0"').filter((word) => mask || word !== "--mask");
      const { code, shown } = await onTerminal(
        home.dir,
        [...argv, file],
        [
          { expect: `edited-${mask}`, type: `i${SECRET} kept` },
          { expect: "kept", type: "\u001b:wq\r" },
        ],
      );
      expect([code, readFileSync(file, "utf8")]).toEqual([0, `${SECRET} kept\n`]);
      expect(shown).toContain("\u001b[?1049h");
      expect(shown).toContain("\u001b[?1049l");
      expect(shown.includes(SECRET)).toBe(!mask);
    }
  });
});

describe("inject and read", () => {
  test("write a file of the mode asked for, whole or not at all", async () => {
    const template = world.file(
      "t.tpl",
      Uint8Array.of(0xff, ...new TextEncoder().encode("{{kh://db/prod|json}}\r\n"), 0, 0xfe),
    );
    const out = world.file("out");
    const { data } = await home.ok(["inject", template, "--out", out]);
    expect(data).toEqual({ count: 1, out });
    expect([...readFileSync(out)]).toEqual([0xff, ...new TextEncoder().encode(`"${SECRET}"\r\n`), 0, 0xfe]);
    expect(statSync(out).mode & 0o777).toBe(0o600);
    await home.fails(6, ["inject", template, "--out", out]);
    await home.ok(["inject", template, "--out", out, "--force", "--mode", "0640"]);
    expect(statSync(out).mode & 0o777).toBe(0o640);
    await home.fails(2, ["inject", template, "--out", out, "--force", "--mode", "0666"]);
    await home.fails(2, ["inject", template, "--mode", "0600"]);
    const read = world.file("read");
    expect((await home.ok(["read", "bin", "--out", read, "--mode", "0400"])).data).toMatchObject({
      name: "bin",
      out: read,
    });
    expect([...readFileSync(read)]).toEqual([0xff, 0, 1]);
    expect(statSync(read).mode & 0o777).toBe(0o400);
  });

  test("leave nothing behind when a reference fails", async () => {
    const [out, old] = [world.file("none"), world.file("old", "old")];
    const cases: [string, number, string][] = [
      ["{{ kh://db/prod }}\n{{ kh://no/such }}", 3, 'line 2 of the template: cannot read "no/such"'],
      ["\n{{ kh://db/prod#no }}", 3, 'line 2 of the template: "db/prod" has no field'],
      ["{{ }}", 2, "line 1"],
      ["a\n{{ other }}", 2, "line 2"],
      ["{{ kh://bin | shell | nope }}", 2, "unknown filter"],
    ];
    const before = readdirSync(world.dir).toSorted();
    for (const [content, code, message] of cases) {
      const template = world.file("bad.tpl", content);
      expect((await home.fails(code, ["inject", template, "--out", out])).message).toContain(message);
      await home.fails(code, ["inject", template, "--out", old, "--force"]);
      const ran = await home.run(["inject", template]);
      expect([content, ran.out]).toEqual([content, ""]);
    }
    await home.fails(3, ["read", "no/such", "--out", out]);
    expect(
      readdirSync(world.dir)
        .filter((name) => name !== "bad.tpl")
        .toSorted(),
    ).toEqual(before.filter((name) => name !== "bad.tpl"));
    expect(readFileSync(old, "utf8")).toBe("old");
  });

  test("stdin cannot give both template and password", async () => {
    const ran = await home.run(["inject", "-", "--password-stdin"], { stdin: "x" });
    expect([ran.code, ran.out]).toEqual([2, ""]);
  });
});

test("all of it works from the vault while the server is stopped", async () => {
  await home.ok(["get", "db/prod", "--save"]);
  await world.server.stop("SIGTERM");
  const env = ["--env", "PW=kh://db/prod"];
  expect((await home.run(["run", ...env, "--", "printenv", "PW"])).out).toBe(`${SECRET}\n`);
  expect((await home.run(["run", "--mask", ...env, "--", "printenv", "PW"])).out).toBe("<kh://db/prod>\n");
  expect((await home.run(["run", ...env, "--", "sh", "-c", "kill -TERM $$"])).code).toBe(143);
  expect((await home.run(["run", "--mask", ...env, "--", "sh", "-c", "kill -TERM $$"])).code).toBe(143);
  expect((await home.run(["inject", "-"], { stdin: "{{ kh://db/prod }}" })).out).toBe(SECRET);
  expect((await home.run(["read", "kh://db/prod#user"])).out).toBe("app");
});
