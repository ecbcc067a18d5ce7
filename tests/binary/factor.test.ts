import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { testNeeding } from "../support/skip.ts";
import { onTerminal } from "./terminal.ts";
import { type Home, openWorld, SETUP_MS, type Server, serve, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** RFC 4648 §6. */
function base32(bytes: Uint8Array): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return (bits.match(/.{5}/g) ?? []).map((five) => LETTERS[Number.parseInt(five, 2)]).join("");
}

function fromBase32(text: string): Uint8Array {
  const bits = [...text].map((letter) => LETTERS.indexOf(letter).toString(2).padStart(5, "0")).join("");
  return Uint8Array.from((bits.match(/.{8}/g) ?? []).map((eight) => Number.parseInt(eight, 2)));
}

/** RFC 6238 with SHA-1 and six digits, by itself; `steps` later than now. */
function codeOf(key: Uint8Array, steps = 0): string {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const mac = createHmac("sha1", key).update(counter).digest();
  const at = (mac.at(-1) ?? 0) & 15;
  return String((mac.readUInt32BE(at) & 0x7fff_ffff) % 1_000_000).padStart(6, "0");
}

/** Never a code: every one has another first digit around now. */
function wrongCode(key: Uint8Array): string {
  const near = [-2, -1, 0, 1, 2].map((steps) => codeOf(key, steps)[0]);
  const digit = [..."0123456789"].find((one) => !near.includes(one)) ?? "0";
  return digit.repeat(6);
}

interface Guarded {
  readonly home: Home;
  readonly key: Uint8Array;
  /** Recovery codes, each to be used once. */
  readonly codes: string[];
}

let files = 0;
const secret = (text: string) => world.file(`code${files++}`, `${text}\n`);
const byCode = (text: string) => ["--factor-file", secret(text)];

/** A home whose account has a second factor, set without anybody at a terminal. */
async function guarded(name: string): Promise<Guarded> {
  const home = await world.home(name).register(name, { login: false });
  const key = new Uint8Array(randomBytes(20));
  const out = join(world.dir, `${name}.codes`);
  const given = ["--key-file", secret(base32(key)), "--code-file", secret(codeOf(key)), "--out", out];
  const { data } = await home.ok(["account", "factor", "enable", ...given, ...home.password]);
  expect(data).toEqual({ account: name, enabled: true, recoveryCodes: { out } });
  expect(statSync(out).mode & 0o777).toBe(0o600);
  const codes = readFileSync(out, "utf8").match(/\b(?:[0-9A-Z]{4}-){4}[0-9A-Z]{4}\b/g) ?? [];
  expect(new Set(codes).size).toBe(10);
  return { home, key, codes: [...codes] };
}

const take = ({ codes }: Guarded): string => codes.pop() ?? "";

describe("without a terminal", () => {
  let ada: Guarded;
  beforeAll(async () => {
    ada = await guarded("ada");
  }, SETUP_MS);

  test("a login without a code ends with 4 and says how to give one; a wrong one too", async () => {
    const { home, key } = ada;
    for (const argv of [["login"], ["sync"], ["list", "--fresh"], ["account", "factor", "status"]]) {
      const failure = await home.fails(4, [...argv, ...home.password]);
      expect(failure).toMatchObject({ code: "factor_required", hint: expect.stringContaining("--factor-file") });
    }
    for (const argv of [["login"], ["list"]]) {
      expect((await home.fails(4, [...argv, ...home.password, ...byCode(wrongCode(key))])).code).toBe("factor_failed");
    }
    expect((await home.fails(4, ["list", ...home.password, ...byCode("not a code")])).code).toBe("factor_failed");
    // the password comes first: without it the code is not even looked at
    const other = ["--password-file", secret("another password")];
    expect((await home.fails(4, ["list", ...other, ...byCode(codeOf(key, 1))])).code).toBe("login_failed");
  });

  test("what the vault has needs no code: it is read, unlocked and told of without one, and said to be", async () => {
    const { home } = ada;
    const value = world.file("kept", "v0");
    await home.ok(["store", "kept", "--in-file", value, "--store", "both", ...home.password, ...byCode(take(ada))]);
    const said = "only the vault of this device is open (keyhold login)";
    for (const argv of [["list"], ["get", "kept", "--reveal"], ["read", "kept"]]) {
      const ran = await home.run([...argv, ...home.password]);
      expect([ran.code, ran.out.includes(argv[0] === "read" ? "v0" : ""), ran.err.includes(said)]).toEqual([
        0,
        true,
        true,
      ]);
    }
    expect((await home.run(["status", ...home.password])).out).toContain("(not asked: it wants a code)");
    expect((await home.fails(3, ["get", "nothing", ...home.password])).code).toBe("not_found");
    // an agent over the vault alone goes on so, and a login brings the server back
    const { data } = await home.ok(["unlock", ...home.password]);
    expect(data.online).toBe(false);
    expect((await home.run(["read", "kept"])).out).toBe("v0");
    expect((await home.fails(4, ["sync"])).code).toBe("factor_required");
    await home.ok(["login", ...home.password, ...byCode(take(ada))]);
    await home.ok(["remove", "kept", "--yes"]);
    await home.ok(["lock"]);
  });

  test("a code opens one login, and not a second one", async () => {
    const { home, key } = ada;
    const code = byCode(codeOf(key, 1));
    expect((await home.ok(["list", ...home.password, ...code])).data.items).toEqual([]);
    expect((await home.fails(4, ["list", ...home.password, ...code])).code).toBe("factor_failed");
  });

  test("a recovery code opens one login: of a command, and of the agent, which asks no more then", async () => {
    const { home } = ada;
    const used = take(ada);
    await home.ok(["store", "one", "--in-file", world.file("value", "v"), ...home.password, ...byCode(used)]);
    expect((await home.fails(4, ["list", ...home.password, ...byCode(used)])).code).toBe("factor_failed");
    await home.ok(["login", ...home.password, ...byCode(take(ada).toLowerCase())]);
    expect((await home.run(["read", "one"])).out).toBe("v");
    const { data } = await home.ok(["account", "factor", "status"]);
    expect(data).toMatchObject({ enabled: true, recoveryCodes: 6, required: false });
    expect(Date.parse(data.enabledAt)).toBeGreaterThan(Date.now() - 600_000);
    await home.ok(["lock"]);
  });

  test("a code comes through a descriptor too, and never stands in argv", async () => {
    const { home } = ada;
    const code = take(ada);
    const script = 'exec "$0" list --json --password-file "$1" --factor-fd 3 3< <(printf %s "$CODE")';
    const { binary, environment } = await import("./world.ts");
    const child = Bun.spawn(["bash", "-c", script, await binary(), home.password[1]], {
      env: environment(home.dir, { CODE: code }),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(JSON.parse(await child.stdout.text()).data.items).toHaveLength(1);
    expect(await child.exited).toBe(0);
    await home.fails(2, ["list", "--factor", code]);
  });

  test("the vault of this disk opens by the password alone while the server is away", async () => {
    const { home } = ada;
    await home.ok(["sync", ...home.password, ...byCode(take(ada))]);
    const { port } = world.server;
    await world.server.stop();
    try {
      const ran = await home.run(["list", ...home.password]);
      expect([ran.code, ran.out.includes("one")]).toEqual([0, true]);
    } finally {
      world.server = await serve(join(world.dir, "server"), ["--listen", `127.0.0.1:${port}`]);
    }
  });

  test("a further device needs a code too, and leaves nothing behind without one", async () => {
    const second = world.home("ada2");
    const { url, pin } = world.server;
    const place = ["--server", url, "--pin", pin, "--account", "ada", "--kdf", "test", ...ada.home.password];
    expect((await second.fails(4, ["login", ...place])).code).toBe("factor_required");
    expect(existsSync(join(second.dir, "vaults"))).toBe(false);
    await second.ok(["login", ...place, ...byCode(take(ada))]);
    expect((await second.ok(["status"])).data.account.name).toBe("ada");
    await second.ok(["lock"]);
  });

  test("codes are renewed and the factor is taken off, each by a code", async () => {
    const bob = await guarded("bob");
    const { home } = bob;
    await home.fails(4, ["account", "factor", "disable", "--yes", ...home.password]);
    const old = take(bob);
    const renewed = await home.ok(["account", "factor", "codes", ...home.password, ...byCode(take(bob))]);
    const fresh: string[] = renewed.data.recoveryCodes.codes;
    expect(fresh).toHaveLength(10);
    expect((await home.fails(4, ["list", ...home.password, ...byCode(old)])).code).toBe("factor_failed");
    await home.ok(["login", ...home.password, ...byCode(fresh[0] ?? "")]);
    // one that is given is checked, though right after its login an agent's session needs none
    const given = ["account", "factor", "disable", "--yes", ...byCode("000000")];
    expect((await home.fails(4, given)).code).toBe("factor_failed");
    const off = await home.ok(["account", "factor", "disable", "--yes"]);
    expect(off.data).toEqual({ disabled: true });
    await home.ok(["lock"]);
    expect((await home.ok(["list", ...home.password])).data.items).toEqual([]);
    expect((await home.ok(["account", "factor", "disable", "--yes", ...home.password])).data.disabled).toBe(false);
  });

  test("it is replaced only where that was asked for", async () => {
    const cora = await guarded("cora");
    const { home } = cora;
    const next = new Uint8Array(randomBytes(20));
    const given = ["--key-file", secret(base32(next)), "--code-file", secret(codeOf(next)), ...home.password];
    const refused = await home.fails(6, ["account", "factor", "enable", ...given, ...byCode(take(cora))]);
    expect(refused).toMatchObject({ code: "exists", hint: expect.stringContaining("--replace") });
    await home.ok(["account", "factor", "enable", "--replace", ...given, ...byCode(take(cora))]);
    expect((await home.fails(4, ["list", ...home.password, ...byCode(take(cora))])).code).toBe("factor_failed");
    await home.ok(["list", ...home.password, ...byCode(codeOf(next, 1))]);
  });

  test("nothing of keys and codes is in the server's directory or log in clear", async () => {
    const dora = await guarded("dora");
    const code = codeOf(dora.key, 1);
    await dora.home.ok(["list", ...dora.home.password, ...byCode(code)]);
    const used = take(dora);
    await dora.home.ok(["list", ...dora.home.password, ...byCode(used)]);
    const { port } = world.server;
    const ended = world.server;
    await ended.stop();
    const stored = Buffer.concat(
      ["keyhold.db", "keyhold.db-wal"]
        .map((name) => join(world.dir, "server", name))
        .filter((path) => existsSync(path))
        .map((path) => readFileSync(path)),
    );
    world.server = await serve(join(world.dir, "server"), ["--listen", `127.0.0.1:${port}`]);
    expect(stored.length).toBeGreaterThan(10_000);
    for (const text of [
      base32(dora.key),
      used,
      used.replaceAll("-", ""),
      Buffer.from(dora.key).toString("base64url"),
    ]) {
      expect([stored.includes(text), ended.log().includes(text)]).toEqual([false, false]);
    }
    expect(stored.includes(Buffer.from(dora.key))).toBe(false);
    expect(ended.log()).not.toContain(code);
  });

  test("the recovery kit gives a new password and asks for a code all the same", async () => {
    const ivy = await guarded("ivy");
    const { home } = ivy;
    const kit = join(world.dir, "ivy.kit");
    await home.ok(["account", "recovery-kit", "--out", kit, "--yes", ...home.password, ...byCode(take(ivy))]);
    const next = secret("another password of ivy");
    const place = world.home("ivy2");
    const recover = ["account", "recover", "--kit-file", kit, "--password-file", next, "--kdf", "test"];
    expect((await place.fails(4, recover)).code).toBe("factor_required");
    // the new password is set by then: what was missing is the code alone
    const login = ["login", "--server", world.server.url, "--pin", world.server.pin, "--account", "ivy"];
    const given = ["--password-file", next, "--kdf", "test"];
    expect((await place.fails(4, [...login, ...given])).code).toBe("factor_required");
    await place.ok([...login, ...given, ...byCode(take(ivy))]);
    await place.ok(["lock"]);
    const third = world.home("ivy3");
    await third.ok([...recover, ...byCode(take(ivy))]);
  });

  test("it goes on after the server's sealing key was replaced", async () => {
    const jan = await guarded("jan");
    const { home } = jan;
    await world.home("rotating").ok(["server", "rotate", "--sealing", "--dir", join(world.dir, "server")]);
    expect((await home.fails(4, ["sync", ...home.password])).code).toBe("factor_required");
    await home.ok(["list", ...home.password, ...byCode(codeOf(jan.key, 1))]);
    await home.ok(["list", ...home.password, ...byCode(take(jan))]);
  });

  testNeeding("oathtool", "the codes are those of oathtool", async () => {
    const erin = await guarded("erin");
    const at = new Date(Date.now() + 30_000).toISOString();
    const made = Bun.spawnSync(["oathtool", "--totp", "-b", "--now", at, base32(erin.key)]);
    const code = made.stdout.toString().trim();
    expect(code).toMatch(/^\d{6}$/);
    await erin.home.ok(["list", ...erin.home.password, ...byCode(code)]);
  });

  test("the operator takes it off for an owner who has lost everything, which stands in the log", async () => {
    const fred = await guarded("fred");
    const reset = ["server", "user", "factor-reset", "fred", "--yes", "--dir", join(world.dir, "server")];
    const admin = world.home("admin");
    expect((await admin.ok(reset)).data).toMatchObject({ account: "fred", reset: true });
    await admin.fails(3, reset);
    const { data } = await fred.home.ok(["audit", "list", ...fred.home.password]);
    expect(data.items.map(({ action }: { action: string }) => action)).toContain("server.user.factor-reset");
  });
});

describe("at a terminal", () => {
  test("the key is shown as QR code and text, a code of it is asked for, and recovery codes are given once", async () => {
    const home = await world.home("gina").register("gina", { login: false });
    const typed = readFileSync(home.password[1], "utf8");
    let key: Uint8Array = new Uint8Array(20);
    const asked = await onTerminal(
      home.dir,
      ["account", "factor", "enable"],
      [
        { expect: "Password", type: `${typed}\r` },
        {
          expect: /otpauth:[\s\S]*Code that the authenticator shows/,
          type: (shown) => {
            key = fromBase32((/Key: ((?:[A-Z2-7]{4} ?){8})/.exec(shown)?.[1] ?? "").replaceAll(" ", ""));
            expect(shown).toMatch(/█▀|▀█/);
            return `${wrongCode(key)}\r`;
          },
        },
        { expect: /is the clock right[\s\S]*Code that the authenticator shows/, type: () => `${codeOf(key)}\r` },
      ],
      { cols: 100 },
    );
    expect(asked.code).toBe(0);
    const codes = asked.shown.match(/\b(?:[0-9A-HJ-NP-TV-Z]{4}-){4}[0-9A-HJ-NP-TV-Z]{4}\b/g) ?? [];
    expect(codes).toHaveLength(10);

    // a login asks for the password, then for a code, which is not shown, and again after a wrong one
    const login = await onTerminal(
      home.dir,
      ["login"],
      [
        { expect: "Password", type: `${typed}\r` },
        { expect: "Code of the second factor", type: () => `${wrongCode(key)}\r` },
        { expect: /the code is wrong[\s\S]*Code of the second factor/, type: `${codes[0]}\r` },
      ],
    );
    expect(login.code).toBe(0);
    expect(login.shown).not.toContain(codes[0] ?? "");
    await home.ok(["lock"]);

    const single = await onTerminal(
      home.dir,
      ["sync"],
      [
        { expect: "Password", type: `${typed}\r` },
        { expect: "Code of the second factor", type: "\u0003" },
      ],
    );
    expect(single.code).toBe(130);
    const local = await onTerminal(home.dir, ["list"], [{ expect: "Password", type: `${typed}\r` }]);
    expect([local.code, local.shown.includes("Code of the second factor")]).toEqual([0, false]);
    const unlocked = await onTerminal(
      home.dir,
      ["unlock"],
      [
        { expect: "Password", type: `${typed}\r` },
        { expect: "(empty: this vault alone)", type: "\r" },
      ],
    );
    expect([
      unlocked.code,
      unlocked.shown.replaceAll(/\s+/g, " ").includes("only the vault of this device is open"),
    ]).toEqual([0, true]);
    await home.ok(["lock"]);
    // what the vault does not have is asked for with a code
    const right = await onTerminal(
      home.dir,
      ["list", "--fresh"],
      [
        { expect: "Password", type: `${typed}\r` },
        { expect: "Code of the second factor", type: () => `${codeOf(key, 1)}\r` },
      ],
    );
    expect(right.code).toBe(0);
  });
});

describe("a server that requires a second factor", () => {
  let strict: Server;
  let dir: string;
  beforeAll(async () => {
    dir = join(world.dir, "strict");
    mkdirSync(dir, { mode: 0o700 });
    strict = await serve(dir, ["--listen", "127.0.0.1:0", "--second-factor", "required"]);
  }, SETUP_MS);
  afterAll(async () => {
    await strict?.stop("SIGKILL");
  });

  test("lets an account do nothing before it has one, and keep it then", async () => {
    const home = world.home("hana");
    const place = ["--server", strict.url, "--pin", strict.pin, "--account", "hana", "--kdf", "test"];
    await home.ok(["register", ...place, ...home.password]);
    for (const argv of [["login"], ["sync"], ["account", "factor", "status"]]) {
      const failure = await home.fails(4, [...argv, ...home.password]);
      expect(failure).toMatchObject({ code: "factor_required", hint: "keyhold account factor enable" });
    }
    const key = new Uint8Array(randomBytes(20));
    const given = ["--key-file", secret(base32(key)), "--code-file", secret(codeOf(key))];
    const { data } = await home.ok(["account", "factor", "enable", ...given, ...home.password]);
    const codes: string[] = data.recoveryCodes.codes;
    await home.ok(["login", ...home.password, ...byCode(codes[0] ?? "")]);
    expect((await home.ok(["account", "factor", "status"])).data).toMatchObject({ enabled: true, required: true });
    expect((await home.fails(5, ["account", "factor", "disable", "--yes"])).code).toBe("denied");
    await home.ok(["lock"]);
  });

  test("init leads a new account into one; without a terminal, or put off, the command that it names works", async () => {
    const init = (name: string) => ["init", "--server", strict.url, "--pin", strict.pin, "--account", name];
    const scripted = world.home("irma");
    const ran = await scripted.run([...init("irma"), "--kdf", "test", "--no-kit", "--yes", ...scripted.password]);
    expect([ran.code, ran.out.includes("Next: keyhold account factor enable, then keyhold login")]).toEqual([0, true]);
    const key = new Uint8Array(randomBytes(20));
    const given = ["--key-file", secret(base32(key)), "--code-file", secret(codeOf(key))];
    await scripted.ok(["account", "factor", "enable", ...given, ...scripted.password]);

    const led = world.home("jo");
    let drawn: Uint8Array = new Uint8Array(20);
    const asked = await onTerminal(
      led.dir,
      [...init("jo"), "--kdf", "test", "--no-kit", ...led.password],
      [
        {
          expect: /asks every account for a second factor[\s\S]*Code that the authenticator shows/,
          type: (shown) => {
            drawn = fromBase32((/Key: ((?:[A-Z2-7]{4} ?){8})/.exec(shown)?.[1] ?? "").replaceAll(" ", ""));
            return `${codeOf(drawn)}\r`;
          },
        },
        { expect: "Enter when they are on paper", type: "\r" },
      ],
      { cols: 100, env: { SHELL: "/bin/sh" } },
    );
    expect([asked.code, asked.shown.includes("Next: keyhold login")]).toEqual([0, true]);
    const codes = asked.shown.match(/\b(?:[0-9A-HJ-NP-TV-Z]{4}-){4}[0-9A-HJ-NP-TV-Z]{4}\b/g) ?? [];
    await led.ok(["login", ...led.password, ...byCode(codes[0] ?? "")]);
    await led.ok(["lock"]);

    const later = world.home("kai");
    const left = await onTerminal(
      later.dir,
      [...init("kai"), "--kdf", "test", "--no-kit", ...later.password],
      [{ expect: "Code that the authenticator shows", type: "\u0003" }],
      { cols: 100, env: { SHELL: "/bin/sh" } },
    );
    expect([left.code, left.shown.includes("Next: keyhold account factor enable")]).toEqual([0, true]);
  });
});
