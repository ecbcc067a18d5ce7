import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { testNeeding } from "../support/skip.ts";
import { filesBelow, traces } from "./traces.ts";
import { binary, type Home, keyhold, openWorld, SETUP_MS, serve, serverFlags, type World } from "./world.ts";

/** All byte values, so that nothing of it is UTF-8. */
const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, i) => i);
const LARGEST = Uint8Array.from({ length: 65_536 }, (_, i) => (i * 31 + (i >> 8)) & 255);

setDefaultTimeout(60_000);
let world: World;
let laptop: Home;
beforeAll(async () => {
  world = await openWorld();
  laptop = await world.home("laptop").register("ada");
}, SETUP_MS);
afterAll(() => world.close());

describe("the executable alone in an empty directory", () => {
  test("does the main job from first start to logout, with the key derivation that people get", async () => {
    const alone = world.file("alone");
    mkdirSync(alone);
    const program = join(alone, "kh");
    copyFileSync(await binary(), program);
    const serverDir = world.file("alone-server");
    mkdirSync(serverDir);
    const server = await serve(serverDir, ["--listen", "127.0.0.1:0"], { program });
    try {
      const options = { program, cwd: alone };
      const first = world.home("alone-first", "eins zwei drei vier");
      const second = world.home("alone-second", "eins zwei drei vier");
      const registered = await first.ok(["register", ...serverFlags(server, "grete"), ...first.password], options);
      expect(registered.data).toEqual({ account: "grete", userId: expect.any(String), profile: "default" });
      const { data: login } = await first.ok(["login", ...first.password], options);
      expect(login.session.id).toMatch(/^[0-9a-f]{32}$/);

      const { data: made } = await first.ok(["generate", "db/prod"], options);
      expect(made).toMatchObject({ name: "db/prod", type: "bytes", version: 1 });
      expect(JSON.stringify(made)).not.toContain("value");
      const once = (await first.ok(["get", "db/prod", "--reveal"], options)).data;
      const twice = (await first.ok(["get", "db/prod", "--reveal"], options)).data;
      expect(Buffer.from(once.valueB64, "base64url")).toHaveLength(32);
      expect(twice.valueB64).toBe(once.valueB64);

      await first.ok(["store", "bin", "--in-file", world.file("bin", EVERY_BYTE)], options);
      await second.ok(["login", ...serverFlags(server, "grete"), ...second.password], options);
      expect(Uint8Array.from((await second.run(["read", "kh://bin"], options)).bytes)).toEqual(EVERY_BYTE);
      const there = (await second.ok(["get", "db/prod", "--reveal"], options)).data;
      expect(there.valueB64).toBe(once.valueB64);

      const backup = world.file("alone-backup.json");
      const { data: exported } = await second.ok(["export", "--all", "--to", "json", "--out", backup], options);
      expect(exported.count).toBe(2);
      const { data: imported } = await first.ok(["import", backup, "--prefix", "again/"], options);
      expect(imported).toMatchObject({ imported: 2, skipped: 0, lost: [] });
      const again = (await first.ok(["get", "again/db/prod", "--reveal"], options)).data;
      expect(again.valueB64).toBe(once.valueB64);

      const { data: verified } = await first.ok(["audit", "verify"], options);
      expect(verified).toMatchObject({ ok: true });
      expect(verified.size).toBeGreaterThan(8);
      await first.ok(["logout"], options);
      expect(await first.fails(4, ["get", "db/prod"], options)).toMatchObject({ code: "not_logged_in" });
      expect(readdirSync(alone)).toEqual(["kh"]);
    } finally {
      await server.stop("SIGKILL");
    }
  });

  test("takes nothing from a hostile working directory", async () => {
    const trap = world.file("trap");
    const stolen = join(trap, "stolen");
    mkdirSync(join(trap, "node_modules", "evil"), { recursive: true });
    const evil = `require("node:fs").appendFileSync(${JSON.stringify(stolen)}, "x");`;
    const files: Record<string, string> = {
      ".env": `NODE_TLS_REJECT_UNAUTHORIZED=0\nKEYHOLD_HOME=${trap}\nKEYHOLD_PROFILE=evil\nKEYHOLD_LISTEN=nonsense\n`,
      ".env.production": "KEYHOLD_PROFILE=evil\n",
      "bunfig.toml": `preload = ["${trap}/evil.js"]\n[run]\nbun = true\n`,
      "evil.js": evil,
      "package.json":
        '{"name":"keyhold","type":"commonjs","imports":{"#x":"./evil.js"},"bun":{"preload":["./evil.js"]}}',
      "tsconfig.json": '{"compilerOptions":{"paths":{"*":["./evil.js"]},"baseUrl":"."}}',
      "config.json": '{"profile":"evil"}',
      "keyhold.json": '{"profile":"evil"}',
      "node_modules/evil/index.js": evil,
    };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(trap, name), text);
    const before = readdirSync(trap).sort();
    const { data } = await laptop.ok(["status"], { cwd: trap });
    expect(data).toMatchObject({ profile: "default", account: { name: "ada" } });
    await laptop.ok(["generate", "from/the/trap"], { cwd: trap });
    const elsewhere = world.home("trapped", "correct horse battery staple laptop");
    await elsewhere.ok(["login", ...serverFlags(world.server, "ada"), ...elsewhere.password, "--kdf", "test"], {
      cwd: trap,
    });
    const { data: config } = await laptop.ok(["config", "show", "--origin"], { cwd: trap });
    expect(JSON.stringify(config)).not.toContain("evil");
    const server = await serve(world.file("trap-server"), ["--listen", "127.0.0.1:0"], { cwd: trap });
    expect(await server.stop()).toBe(0);
    expect(readdirSync(trap).sort()).toEqual(before);
  });

  test("refuses a server of another identity even when the environment turns the checks off", async () => {
    const env = {
      NODE_TLS_REJECT_UNAUTHORIZED: "0",
      HTTPS_PROXY: "http://127.0.0.1:9",
      BUN_CONFIG_VERBOSE_FETCH: "curl",
    };
    const { url } = world.server;
    const pin = `sha256:${"A".repeat(43)}`;
    const home = world.home("turned-off");
    const error = await home.fails(
      7,
      ["register", "--server", url, "--pin", pin, "--account", "x", ...home.password, "--kdf", "test"],
      { env },
    );
    expect(error.code).toBe("pin_mismatch");
    const ran = await laptop.run(["get", "from/the/trap", "--fresh"], { env });
    expect([ran.code, ran.err.includes("Request")]).toEqual([0, false]);
  });
});

describe("values", () => {
  const cases: [string, Uint8Array][] = [
    ["every byte", EVERY_BYTE],
    ["64 KiB", LARGEST],
    ["one zero byte", new Uint8Array(1)],
    ["not UTF-8", Uint8Array.of(0xff, 0xfe, 0xc3, 0x28)],
    ["text with newlines at its end", new TextEncoder().encode("äöü\r\n\n")],
  ];
  for (const [what, value] of cases) {
    test(`come back byte for byte: ${what}`, async () => {
      const name = `value/${what}`;
      const { data } = await laptop.ok(["store", name], { stdin: value });
      expect(data.type).toBe(what.startsWith("text") ? "note" : what === "one zero byte" ? "note" : "bytes");
      const read = await laptop.run(["read", name]);
      expect([read.code, Buffer.compare(read.bytes, value)]).toEqual([0, 0]);
      const out = world.file(`out-${what}`);
      await laptop.ok(["read", name, "--out", out, "--fresh"]);
      expect(Buffer.compare(readFileSync(out), value)).toBe(0);
      const { data: got } = await laptop.ok(["get", name, "--reveal"]);
      const shown = "value" in got ? Buffer.from(got.value) : Buffer.from(got.valueB64, "base64url");
      expect(Buffer.compare(shown, value)).toBe(0);
    });
  }

  test("of no byte or of one too many are refused and leave nothing", async () => {
    const before = await laptop.ok(["list"]);
    expect((await laptop.fails(2, ["store", "empty"], { stdin: [] })).code).toBe("bad_input");
    expect((await laptop.fails(2, ["store", "empty", "--in-file", world.file("empty", "")])).code).toBe("bad_input");
    const large = await laptop.fails(2, ["store", "large", "--type", "bytes"], { stdin: new Uint8Array(65_537) });
    expect(large.code).toBe("too_large");
    expect((await laptop.ok(["list"])).data.items).toEqual(before.data.items);
  });

  test("are not shown without being asked for", async () => {
    await laptop.ok(["store", "quiet"], { stdin: "xyzzy-canary" });
    for (const argv of [
      ["get", "quiet"],
      ["list"],
      ["history", "quiet"],
      ["search", "quiet"],
      ["audit", "list"],
      ["status"],
    ]) {
      const human = await laptop.run(argv);
      expect([argv, human.code, `${human.out}${human.err}`.includes("xyzzy")]).toEqual([argv, 0, false]);
      const machine = await laptop.run([...argv, "--json"]);
      expect([argv, machine.code, `${machine.out}${machine.err}`.includes("xyzzy")]).toEqual([argv, 0, false]);
    }
  });
});

describe("logged out", () => {
  test("every use of the account exits 4, with and without the password, until the next login", async () => {
    const home = await world.home("leaving").register("leaving");
    await home.ok(["store", "a"], { stdin: "b" });
    await home.ok(["logout"]);
    for (const argv of [
      ["get", "a"],
      ["list"],
      ["read", "a"],
      ["store", "c", "--in-file", home.password[1]],
      ["sync"],
    ]) {
      expect((await home.fails(4, argv)).code).toBe("not_logged_in");
      expect((await home.fails(4, [...argv, ...home.password])).code).toBe("not_logged_in");
    }
    await home.ok(["logout"]);
    await home.login();
    expect((await home.run(["read", "a"])).out).toBe("b");
  });
});

describe("a login that fails", () => {
  test("says the same for a wrong password, an unknown and a disabled account", async () => {
    await world.home("known").register("known", { login: false });
    await world.home("barred").register("barred", { login: false });
    await keyhold(world.dir, ["server", "user", "disable", "barred", "--dir", world.file("server")]);
    const wrong = world.home("wrong", "not the password of anyone");
    const right = world.home("right", "correct horse battery staple barred");
    const attempts = [
      ["known", wrong],
      ["unknown", wrong],
      ["barred", wrong],
      ["barred", right],
    ] as const;
    const humans = new Set<string>();
    const machines = new Set<string>();
    for (const [account, home] of attempts) {
      const argv = ["login", ...serverFlags(world.server, account), ...home.password, "--kdf", "test"];
      const human = await home.run(argv);
      const machine = await home.run([...argv, "--json"]);
      expect([account, human.code, machine.code]).toEqual([account, 4, 4]);
      humans.add(`${human.out}|${human.err}`);
      machines.add(`${machine.out}|${machine.err}`);
    }
    expect([...humans]).toHaveLength(1);
    expect([...machines]).toHaveLength(1);
    expect([...machines][0]).toContain('"code":"login_failed"');
    expect([...machines][0]).not.toContain("requestId");
  });
});

testNeeding("openssl", "TLS 1.2 is refused and 1.3 is spoken", async () => {
  const connect = async (version: string) => {
    const address = `127.0.0.1:${world.server.port}`;
    const child = Bun.spawn(["openssl", "s_client", version, "-connect", address], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { text: out + err, code };
  };
  const old = await connect("-tls1_2");
  expect(old.code).not.toBe(0);
  expect(old.text).toMatch(/alert protocol version|handshake failure/);
  expect((await connect("-tls1_3")).text).toContain("TLSv1.3");
});

test("the server's directory and log hold neither name nor value nor tag nor password nor account name", async () => {
  const canaries = {
    account: "canary-account-quokka",
    name: "canary/name/wombat",
    renamed: "canary/renamed/numbat",
    value: "canary value bilby 7f3a",
    tag: "canary-tag-dunnart",
    imported: "canary imported value kowari",
    password: "canary password potoroo",
  };
  const home = await world.home("canary", canaries.password).register(canaries.account);
  await home.ok(["store", canaries.name, "--tag", canaries.tag], { stdin: canaries.value });
  await home.ok(["get", canaries.name, "--reveal", "--fresh"]);
  await home.ok(["rename", canaries.name, canaries.renamed]);
  await home.fails(3, ["get", canaries.name]);
  const items = [
    { name: canaries.name, type: "note", value: canaries.imported, tags: [canaries.tag], createdAt: null },
  ];
  const file = world.file("canary.json", JSON.stringify({ keyhold: "export", v: 1, items }));
  await home.ok(["import", file]);
  await home.ok(["remove", canaries.name, "--yes"]);
  const { data: token } = await home.ok(["generate", "canary/generated", "--type", "token"]);
  const { data: generated } = await home.ok(["get", "canary/generated", "--reveal"]);
  await keyhold(world.dir, ["server", "check", "--dir", world.file("server")]);
  await home.ok(["audit", "verify"]);
  const files = filesBelow(world.file("server"));
  expect(files.map(({ path }) => path)).toContain(join(world.file("server"), "keyhold.db"));
  const log = Buffer.from(world.server.log());
  const forbidden = [...Object.values(canaries), generated.value, "quokka", "wombat", "bilby"];
  for (const text of forbidden) {
    for (const form of traces(text)) {
      const held = files.filter(({ bytes }) => bytes.includes(form)).map(({ path }) => path);
      expect([text, form.toString("latin1"), held, log.includes(form)]).toEqual([
        text,
        form.toString("latin1"),
        [],
        false,
      ]);
    }
  }
  // the search itself finds what is there
  const keyId = Buffer.from(token.keyId, "hex");
  expect(files.some(({ bytes }) => bytes.includes(keyId) || bytes.includes(token.keyId))).toBe(true);
  for (const { path, mode } of files) expect([path, mode & 0o077]).toEqual([path, 0]);
});
