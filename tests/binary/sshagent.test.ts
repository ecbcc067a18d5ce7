import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { testUnless } from "../support/skip.ts";
import { NO_SSHD, type Sshd, startSshd } from "../support/sshd.ts";
import {
  binary,
  ended,
  environment,
  exitOf,
  type Home,
  keyhold,
  openWorld,
  SETUP_MS,
  spawn,
  type World,
} from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
let sshd: Sshd;

const KEYS = [
  ["login/ed25519", "ssh"],
  ["login/p256", "p256"],
  ["login/p384", "p384"],
  ["login/rsa", "rsa"],
] as const;

beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
  for (const [name, type] of KEYS) {
    await home.ok(["generate", name, "--type", type, ...(type === "ssh" ? [] : ["--tag", "ssh"])]);
  }
  await home.ok(["generate", "other/key", "--type", "ed25519"]);
  if (NO_SSHD === undefined) sshd = await startSshd(join(world.dir, "sshd"));
}, SETUP_MS);
afterAll(async () => {
  await sshd?.stop();
  await home.run(["lock"]);
  await world.close();
});

const lineOf = async (name: string): Promise<string> =>
  (await home.ok(["key", "public", name, "--as", "ssh"])).data.publicKey;
const fingerprintOf = async (name: string): Promise<string> =>
  (await home.ok(["key", "list", name])).data.items[0].fingerprint;

/** A program with an environment of its own. */
async function ran(command: readonly string[], socket: string, stdin: string | null = null) {
  const child = Bun.spawn([...command], {
    env: environment(home.dir, { SSH_AUTH_SOCK: socket }),
    stdin: stdin === null ? "ignore" : Buffer.from(stdin),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code: exitOf(child), out, err };
}

/** `keyhold ssh-agent` in the foreground, ready. */
async function serving(args: readonly string[] = []) {
  const child = await spawn(home.dir, ["ssh-agent", "--json", ...args]);
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  reader.releaseLock();
  const text = new TextDecoder().decode(value);
  if (text === "") throw new Error(await child.stderr.text());
  const { ready } = JSON.parse(text);
  return {
    socket: ready.socket as string,
    pid: ready.pid as number,
    child,
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
      return exitOf(child);
    },
  };
}

const unlock = (more: readonly string[] = []) => home.ok(["unlock", ...home.password, "--kdf", "test", ...more]);

describe("ssh-agent", () => {
  testUnless(NO_SSHD, "ssh-add lists the keys of ssh, by name, with fingerprints", async () => {
    const listed = await keyhold(home.dir, ["ssh-agent", "--", "ssh-add", "-l"]);
    expect(listed.code).toBe(0);
    const lines = listed.out.trimEnd().split("\n");
    expect(lines.map((line) => line.split(" ").slice(2).join(" "))).toEqual([
      "login/ed25519 (ED25519)",
      "login/p256 (ECDSA)",
      "login/p384 (ECDSA)",
      "login/rsa (RSA)",
    ]);
    for (const [i, [name]] of KEYS.entries()) expect(lines[i]?.split(" ")[1]).toBe(await fingerprintOf(name));
    const full = await keyhold(home.dir, ["ssh-agent", "--", "ssh-add", "-L"]);
    expect(full.out.trimEnd().split("\n")).toEqual(await Promise.all(KEYS.map(([name]) => lineOf(name))));
  });

  testUnless(NO_SSHD, "--key and --tag choose", async () => {
    const names = async (...flags: string[]) =>
      (await keyhold(home.dir, ["ssh-agent", ...flags, "--", "ssh-add", "-L"])).out.match(/\S+$/gm) ?? [];
    expect(await names("--key", "other/key")).toEqual(["other/key"]);
    expect(await names("--key", "other/key", "--tag", "ssh")).toEqual([
      "login/p256",
      "login/p384",
      "login/rsa",
      "other/key",
    ]);
    const none = await keyhold(home.dir, ["ssh-agent", "--key", "nobody", "--", "ssh-add", "-l"]);
    expect([none.code, none.out]).toEqual([1, "The agent has no identities.\n"]);
    expect(none.err).toContain("no key of ssh with the name nobody");
  });

  testUnless(NO_SSHD, "logs in to a real sshd with each kind of key, which never touches the disk", async () => {
    for (const [name] of KEYS) {
      sshd.authorize(await lineOf(name));
      const before = sshd.log().length;
      const inside = await keyhold(home.dir, ["ssh-agent", "--", ...sshd.login]);
      expect([name, inside.code, inside.err]).toEqual([name, 0, ""]);
      expect(sshd.log().slice(before)).toContain(await fingerprintOf(name));
    }
    sshd.authorize(await lineOf("other/key"));
    expect((await keyhold(home.dir, ["ssh-agent", "--", ...sshd.login])).code).toBe(255);
    for (const [name] of KEYS) {
      const { bytes } = await home.run(["read", name]);
      expect(bytes.length).toBeGreaterThan(31);
      const forms = formsOf(bytes);
      expect([name, holding(world.dir, forms)]).toEqual([name, []]);
      const proof = world.file("proof", Buffer.from(forms[0] ?? "", "latin1"));
      expect(holding(world.dir, forms)).toEqual([proof]);
      writeFileSync(proof, "");
    }
  });

  testUnless(NO_SSHD, "logs in while the key server is stopped", async () => {
    sshd.authorize(await lineOf("login/ed25519"));
    await world.server.stop();
    try {
      const inside = await keyhold(home.dir, ["ssh-agent", "--", ...sshd.login]);
      expect([inside.code, inside.err]).toEqual([0, ""]);
    } finally {
      await world.restart();
    }
  });

  testUnless(NO_SSHD, "refuses once locked, and serves again after unlock, the same process", async () => {
    sshd.authorize(await lineOf("login/ed25519"));
    const agent = await serving();
    expect((await ran(sshd.login, agent.socket)).code).toBe(0);
    await home.ok(["lock"]);
    expect(await ran(["ssh-add", "-l"], agent.socket)).toMatchObject({
      code: 1,
      out: "The agent has no identities.\n",
    });
    expect((await ran(sshd.login, agent.socket)).code).toBe(255);
    await unlock();
    expect((await ran(sshd.login, agent.socket)).code).toBe(0);
    expect(await agent.stop()).toBe(0);
    expect(existsSync(agent.socket)).toBe(false);
  });

  testUnless(NO_SSHD, "ssh-keygen signs and verifies files through it, by each kind of key", async () => {
    const agent = await serving();
    const signers = world.file("signers", "");
    for (const [name] of KEYS) {
      const line = await lineOf(name);
      const pub = world.file("signer.pub", `${line}\n`);
      writeFileSync(signers, `me ${line}\n`);
      const signed = await ran(["ssh-keygen", "-Y", "sign", "-n", "file", "-f", pub], agent.socket, "a message");
      expect([name, signed.code]).toEqual([name, 0]);
      const signature = world.file("message.sig", signed.out);
      const verify = ["ssh-keygen", "-Y", "verify", "-n", "file", "-f", signers, "-I", "me", "-s", signature];
      expect((await ran(verify, "", "a message")).code).toBe(0);
      expect((await ran(verify, "", "another")).code).not.toBe(0);
    }
    expect(await agent.stop()).toBe(0);
  });

  testUnless(NO_SSHD, "takes no keys in, gives none up, and cannot be locked", async () => {
    const agent = await serving();
    const file = join(world.dir, "stranger");
    expect(Bun.spawnSync(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file]).exitCode).toBe(0);
    for (const command of [
      ["ssh-add", file],
      ["ssh-add", "-D"],
      ["ssh-add", "-d", `${file}.pub`],
    ]) {
      expect([command, (await ran(command, agent.socket)).code]).toEqual([command, 1]);
    }
    expect((await ran(["ssh-add", "-l"], agent.socket)).out.split("\n")).toHaveLength(KEYS.length + 1);
    await agent.stop();
  });

  testUnless(NO_SSHD, "--confirm asks before each use of such a key, through the owner's program", async () => {
    const verdict = world.file("verdict", "1");
    const asked = world.file("asked", "");
    const program = world.file("ask", `#!/bin/sh\nenv | grep ^KEYHOLD_CONFIRM >> ${asked}\nexit $(cat ${verdict})\n`);
    chmodSync(program, 0o700);
    sshd.authorize(await lineOf("login/ed25519"), await lineOf("login/p256"));
    const settings = world.file("settings.json", JSON.stringify({ confirmCommand: program }));
    const flags = ["--config", settings, "--confirm", "login/ed*"];
    const denied = await keyhold(home.dir, ["ssh-agent", "--key", "login/ed25519", ...flags, "--", ...sshd.login]);
    expect(denied.code).toBe(255);
    expect(denied.err).toContain("the owner did not confirm this");
    expect(readFileSync(asked, "utf8")).toContain("KEYHOLD_CONFIRM_NAME=login/ed25519\n");
    expect(readFileSync(asked, "utf8")).toContain("KEYHOLD_CONFIRM_METHOD=ssh-sign\n");
    expect(readFileSync(asked, "utf8")).toMatch(/^KEYHOLD_CONFIRM_EXE=.*\/ssh$/m);
    writeFileSync(asked, "");
    const unasked = await keyhold(home.dir, ["ssh-agent", "--key", "login/p256", ...flags, "--", ...sshd.login]);
    expect([unasked.code, readFileSync(asked, "utf8")]).toEqual([0, ""]);
    writeFileSync(verdict, "0");
    const allowed = await keyhold(home.dir, ["ssh-agent", "--key", "login/ed25519", ...flags, "--", ...sshd.login]);
    expect(allowed.code).toBe(0);
    expect(readFileSync(asked, "utf8")).toContain("KEYHOLD_CONFIRM_NAME=login/ed25519\n");
    expect((await home.fails(2, ["ssh-agent", "--confirm", "always", "--", "true"])).message).toContain("a program");
  });

  testUnless(NO_SSHD, "each use stands in the account's log", async () => {
    const of = async () => (await home.ok(["audit", "list", "login/p384", "--action", "secret.get"])).data.items.length;
    sshd.authorize(await lineOf("login/p384"));
    const before = await of();
    expect((await keyhold(home.dir, ["ssh-agent", "--", ...sshd.login])).code).toBe(0);
    expect(await of()).toBe(before + 1);
  });

  test("a command has the agent in its environment, and its exit code is passed on", async () => {
    const shown = await keyhold(home.dir, [
      "ssh-agent",
      "--",
      "sh",
      "-c",
      'echo "$SSH_AUTH_SOCK"; test -S "$SSH_AUTH_SOCK"',
    ]);
    expect(shown.code).toBe(0);
    expect(lstatSync(shown.out.trim(), { throwIfNoEntry: false })).toBeUndefined();
    // neither a socket nor its lock stays
    expect(readdirSync(join(home.dir, "run")).filter((name) => /ssh-agent-default-\d/.test(name))).toEqual([]);
    const inside = await keyhold(home.dir, ["ssh-agent", "--", "sh", "-c", 'echo "$KEYHOLD_HOME"']);
    expect(inside.out).toBe(`${home.dir}\n`);
    expect((await home.fails(2, ["ssh-agent", ...home.password, "--", "true"])).message).toContain("takes no password");
    const codes: [string[], number][] = [
      [["sh", "-c", "exit 7"], 7],
      [["sh", "-c", "kill -TERM $$"], 143],
      [["no-such-command-here"], 127],
    ];
    for (const [command, code] of codes) {
      expect((await keyhold(home.dir, ["ssh-agent", "--", ...command])).code).toBe(code);
    }
  });

  test("its socket is this user's alone, and it ends when that vanishes", async () => {
    const dir = world.file("sockets");
    mkdirSync(dir, { mode: 0o700 });
    const agent = await serving(["--socket", join(dir, "agent")]);
    expect([agent.socket, statSync(agent.socket).mode & 0o777]).toEqual([join(dir, "agent"), 0o600]);
    expect((await home.fails(6, ["ssh-agent", "--socket", agent.socket])).code).toBe("exists");
    Bun.spawnSync(["rm", agent.socket]);
    await agent.child.exited;
    expect(exitOf(agent.child)).toBe(0);
    chmodSync(dir, 0o755);
    expect((await home.fails(5, ["ssh-agent", "--socket", join(dir, "agent")])).message).toContain("others may enter");
    expect(statSync(dir).mode & 0o777).toBe(0o755);
  });

  testUnless(NO_SSHD, "--background serves a shell until ssh-agent -k, and starts once only", async () => {
    const tools = world.file("tools");
    mkdirSync(tools);
    writeFileSync(join(tools, "keyhold"), `#!/bin/sh\nexec ${await binary()} "$@"\n`, { mode: 0o700 });
    const script = `eval "$(keyhold ssh-agent --background)" && ssh-add -l && pid=$SSH_AGENT_PID &&
      eval "$(keyhold ssh-agent --background --quiet)" && test "$pid" = "$SSH_AGENT_PID" && ssh-agent -k && echo "$pid"`;
    const child = Bun.spawn(["sh", "-c", script], {
      env: environment(home.dir, { PATH: `${tools}:${process.env["PATH"] ?? ""}` }),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    expect([exitOf(child), err]).toEqual([0, ""]);
    expect(out).toContain("login/rsa (RSA)");
    const pid = Number(out.trimEnd().split("\n").at(-1));
    while (!ended(pid)) await Bun.sleep(20);
    expect(existsSync(join(home.dir, "run", "ssh-agent-default.sock"))).toBe(false);
  });
});

/** A key as it may be written somewhere: bytes, hexadecimal, base64 of any alignment and alphabet. */
function formsOf(key: Uint8Array): string[] {
  const text = Buffer.from(key).toString("latin1");
  const core = key.length > 100 ? (/^[A-Za-z0-9+/]{70}$/gm.exec(text.slice(120))?.[0] ?? text.slice(-64, -8)) : text;
  const bytes = Buffer.from(core, "latin1");
  const aligned = [0, 1, 2].map((skip) => bytes.subarray(skip).toString("base64").slice(0, 30));
  return [
    core,
    bytes.toString("hex"),
    ...aligned,
    ...aligned.map((one) => one.replace(/\+/g, "-").replace(/\//g, "_")),
  ];
}

/** Files below a directory that hold one of these texts. */
function holding(dir: string, forms: readonly string[]): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => {
      const text = readFileSync(path, "latin1");
      return forms.some((form) => text.includes(form));
    });
}
