import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { armor } from "age-encryption";
import fc from "fast-check";
import {
  ageOpen,
  ageSeal,
  ageSealChecked,
  ageStanzas,
  checkAgeRecipient,
  newAgeIdentity,
} from "../../src/formats/age.ts";
import { age } from "../../src/formats/agearchive.ts";
import { sshIdentity } from "../../src/formats/agessh.ts";
import { json } from "../../src/formats/json.ts";
import { sshPublicBlob, sshPublicLine, writeSshPrivate } from "../../src/formats/sshkey.ts";
import { testNeeding } from "../support/skip.ts";
import { ascii, asksFor, asksWith, BAD_INPUT, NO_ASKS, SAMPLES, sample } from "./samples.ts";

const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const read = async (file: Uint8Array, asks = NO_ASKS) =>
  (await age.read?.(file, { name: null, map: new Map(), asks }))?.items;
const write = async (recipients: readonly string[], asks = NO_ASKS) => {
  const written = await age.write?.(SAMPLES, { recipients, asks });
  if (!written) throw new Error("not written");
  return written;
};
const WRONG = { name: "Fault", code: "wrong_password" };
const KEYS = {
  ed25519: { type: "ed25519", key: sample("ed25519").value },
  rsa: { type: "rsa", key: sample("rsa").value },
} as const;
const lineOf = (type: keyof typeof KEYS) => sshPublicLine(sshPublicBlob(type, KEYS[type].key), "me");
const fileOf = (type: keyof typeof KEYS) => writeSshPrivate(type, KEYS[type].key, "me");
const x = await newAgeIdentity();
const other = await newAgeIdentity();

describe("an archive", () => {
  test("to a password comes back with it alone", async () => {
    const asks = asksFor("a password, grün");
    const { file, checked } = await write([], asks);
    expect(checked).toBeUndefined();
    expect(age.sniff(file, "")).toBe(true);
    expect(text(file)).not.toContain("sample/");
    expect(await read(file, asks)).toEqual([...SAMPLES]);
    expect(asks.asked).toBe(2);
    await expect(read(file, asksFor("a password"))).rejects.toMatchObject(WRONG);
  });

  test("to several keys of age and ssh comes back with each of them", async () => {
    const { file, checked } = await write([x.recipient, lineOf("ed25519"), lineOf("rsa")]);
    expect(checked).toBe(true);
    expect(ageStanzas(file).map(([type]) => type)).toEqual(["X25519", "ssh-ed25519", "ssh-rsa"]);
    const pem = `-----BEGIN PRIVATE KEY-----\n${KEYS.rsa.key.toBase64()}\n-----END PRIVATE KEY-----\n`;
    for (const identity of [`# a comment\n\n${x.identity}\n`, fileOf("ed25519"), fileOf("rsa"), pem]) {
      expect(await read(file, asksWith(identity))).toEqual([...SAMPLES]);
    }
    expect(await read(file, asksWith(other.identity, fileOf("rsa")))).toEqual([...SAMPLES]);
    await expect(read(file, asksWith(other.identity))).rejects.toMatchObject(WRONG);
    const stranger = writeSshPrivate("ed25519", new Uint8Array(32).fill(7), "");
    await expect(read(file, asksWith(stranger))).rejects.toMatchObject(WRONG);
  });

  test("in text form is read too", async () => {
    const { file } = await write([x.recipient]);
    const armoured = armor.encode(file);
    for (const form of [armoured, armoured.replaceAll("\n", "\r\n"), `\n${armoured}\n`]) {
      expect(age.sniff(ascii(form), "")).toBe(true);
      expect(await read(ascii(form), asksWith(x.identity))).toEqual([...SAMPLES]);
    }
    for (const bad of [armoured.slice(0, -5), armoured.replace("\n", "\n\n"), armoured.replace("END", "and")]) {
      await expect(read(ascii(bad), asksWith(x.identity))).rejects.toMatchObject(BAD_INPUT);
    }
  });
});

test("any text to any of the keys comes back", async () => {
  const kinds = fc.uniqueArray(fc.constantFrom("x", "ed25519", "rsa"), { minLength: 1 });
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), kinds, async (plain, to) => {
      const recipients = to.map((kind) => (kind === "x" ? x.recipient : lineOf(kind as keyof typeof KEYS)));
      const file = await ageSealChecked(plain, recipients);
      const [last = "x"] = to.slice(-1);
      const identity = last === "x" ? x.identity : KEYS[last as keyof typeof KEYS];
      expect(await ageOpen(file, { identities: [identity] })).toEqual(plain);
    }),
    { numRuns: 15 },
  );
});

describe("age, the program", () => {
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "keyhold-age-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const file = (name: string, content: string | Uint8Array) => {
    const path = join(dir, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  };
  const run = (args: readonly string[], stdin?: Uint8Array) => {
    const done = Bun.spawnSync(["age", ...args], { stdin: stdin ?? "ignore", stdout: "pipe", stderr: "pipe" });
    expect([args, done.exitCode, done.exitCode === 0 ? "" : done.stderr.toString()]).toEqual([args, 0, ""]);
    return new Uint8Array(done.stdout);
  };

  testNeeding("age", "opens what is sealed to keys of age and ssh", async () => {
    const sealed = file("sealed.age", (await write([x.recipient, lineOf("ed25519"), lineOf("rsa")])).file);
    for (const identity of [x.identity, fileOf("ed25519"), fileOf("rsa")]) {
      expect(text(run(["-d", "-i", file("identity", identity), sealed]))).toBe(text(json.write(SAMPLES)));
    }
  });

  testNeeding("age", "its own files are read: age, ssh-ed25519, ssh-rsa, in text form", async () => {
    const plain = json.write(SAMPLES);
    const ways = [
      [["-r", x.recipient], x.identity],
      [["-r", lineOf("ed25519")], fileOf("ed25519")],
      [["-r", lineOf("rsa")], fileOf("rsa")],
      [
        ["-a", "-r", other.recipient, "-R", file("keys.pub", `# both\n${lineOf("rsa")}\n${lineOf("ed25519")}\n`)],
        fileOf("ed25519"),
      ],
    ] as const;
    for (const [flags, identity] of ways) {
      expect(await read(run(flags, plain), asksWith(identity))).toEqual([...SAMPLES]);
    }
  });

  /** Runs age at a terminal and types the passphrase wherever it asks for one. */
  const atTerminal = async (args: readonly string[], passphrase: string) => {
    let shown = "";
    const child = Bun.spawn(["age", ...args], {
      terminal: {
        cols: 200,
        rows: 24,
        data(terminal, data) {
          const text = new TextDecoder().decode(data);
          shown += text;
          if (/passphrase[^\n]*: ?$/i.test(text)) terminal.write(`${passphrase}\r`);
        },
      },
    });
    expect([await child.exited, shown.includes("error")]).toEqual([0, false]);
  };

  testNeeding("age", "passphrases, both ways", async () => {
    const plain = json.write(SAMPLES);
    const sealed = file("password.age", (await write([], asksFor("only a test, grün"))).file);
    const opened = join(dir, "password.json");
    await atTerminal(["-d", "-o", opened, sealed], "only a test, grün");
    expect(readFileSync(opened, "utf8")).toBe(text(plain));
    const theirs = join(dir, "theirs.age");
    await atTerminal(["-p", "-a", "-o", theirs, file("plain.json", plain)], "another test");
    expect(await read(readFileSync(theirs), asksFor("another test"))).toEqual([...SAMPLES]);
    await expect(read(readFileSync(theirs), asksFor("only a test"))).rejects.toMatchObject(WRONG);
  });

  testNeeding(["age", "ssh-keygen"], "keys of ssh-keygen, both ways", async () => {
    for (const flags of [["ed25519"], ["rsa", "-b", "2048"]]) {
      const path = join(dir, `made-${flags[0]}`);
      Bun.spawnSync(["ssh-keygen", "-q", "-t", ...flags, "-N", "", "-f", path]);
      const sealed = await write([readFileSync(`${path}.pub`, "utf8")]);
      expect(text(run(["-d", "-i", path, file("made.age", sealed.file)]))).toBe(text(json.write(SAMPLES)));
      expect(await read(run(["-R", `${path}.pub`], json.write(SAMPLES)), asksWith(readFileSync(path)))).toHaveLength(
        SAMPLES.length,
      );
    }
  });
});

describe("refuses", () => {
  test("recipients that are none", async () => {
    const rsa = lineOf("rsa");
    const ecdsa = sshPublicLine(sshPublicBlob("p256", sample("p256").value), "");
    const bad = [
      "",
      "age1",
      x.recipient.slice(0, -1),
      x.recipient.toUpperCase(),
      x.identity,
      "ssh-ed25519",
      "ssh-ed25519 AAAA",
      "ssh-ed25519 *",
      lineOf("ed25519").replace("ssh-ed25519", "ssh-rsa"),
      lineOf("ed25519").slice(0, 60),
      rsa.slice(0, 200),
      ecdsa,
      "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
      "ssh-dss AAAAB3NzaC1kc3M=",
    ];
    for (const one of bad) {
      expect(() => checkAgeRecipient(one)).toThrow(expect.objectContaining(BAD_INPUT));
      await expect(ageSealChecked(ascii("x"), [x.recipient, one])).rejects.toMatchObject(BAD_INPUT);
    }
    for (const one of [x.recipient, rsa, lineOf("ed25519")]) checkAgeRecipient(one);
  });

  test("identities that are none, encrypted ones, ECDSA", async () => {
    const { file } = await write([x.recipient]);
    const sealed = await ageSeal(ascii(x.identity), { recipients: [x.recipient] });
    const ecdsa = writeSshPrivate("p256", sample("p256").value, "");
    for (const one of ["x", "AGE-SECRET-KEY-1", x.recipient, sealed, ecdsa, Uint8Array.of(0xff)]) {
      await expect(read(file, asksWith(one))).rejects.toMatchObject(BAD_INPUT);
    }
    expect(() => sshIdentity({ type: "p384", key: sample("p384").value })).toThrow(expect.objectContaining(BAD_INPUT));
    await expect(read(file, asksWith("# nothing\n"))).rejects.toMatchObject(WRONG);
  });

  test("work factors beyond bounds, before any work", async () => {
    const { file } = await write([], asksFor("only a test"));
    const head = Buffer.from(file).toString("latin1");
    const asks = asksFor("only a test");
    for (const factor of ["21", "22", "63", "64", "99", "255", "1000000", "0", "-1", "018", "1e1", "", "x"]) {
      const bent = new Uint8Array(Buffer.from(head.replace(/^(-> scrypt \S+) 18$/m, `$1 ${factor}`), "latin1"));
      await expect(read(bent, asks)).rejects.toMatchObject(BAD_INPUT);
    }
  });

  test("stanzas of a passphrase that are bent, or do not stand alone", async () => {
    const { file } = await write([], asksFor("only a test"));
    const head = Buffer.from(file).toString("latin1");
    const bent = [
      head.replace(/^-> scrypt (\S+)/m, "-> scrypt $1A"),
      head.replace(/^-> scrypt \S+/m, "-> scrypt AAAA"),
      head.replace(/^-> scrypt \S+/m, "-> scrypt *"),
      head.replace(/^(-> scrypt \S+) 18$/m, "$1 18 more"),
      head.replace(/^(-> scrypt \S+) 18$/m, "$1 10"),
      head.replace(/^-> scrypt/m, "-> X25519 AAAA\n\n-> scrypt"),
      head.replace(/^(-> scrypt .*\n)./m, "$1"),
    ];
    for (const one of bent) {
      const bytes = new Uint8Array(Buffer.from(one, "latin1"));
      await expect(read(bytes, asksFor("only a test"))).rejects.toMatchObject({ name: "Fault" });
    }
  });

  test("headers that are damaged, endless or mixed", async () => {
    const { file } = await write([x.recipient]);
    const head = Buffer.from(file).toString("latin1");
    const bytes = (latin1: string) => new Uint8Array(Buffer.from(latin1, "latin1"));
    const broken: (Uint8Array | string)[] = [
      "",
      "age-encryption.org/v1",
      "age-encryption.org/v1\n",
      "age-encryption.org/v1\n---",
      head.replace("v1", "v2"),
      head.replace("age-encryption.org/v1\n", `age-encryption.org/v1\n${"-> X25519 a\n\n".repeat(100_000)}`),
      head.replace(/\n--- .*\n/s, "\n"),
    ];
    for (const one of broken) {
      await expect(read(typeof one === "string" ? bytes(one) : one, asksWith(x.identity))).rejects.toMatchObject(
        BAD_INPUT,
      );
    }
    const changed = [
      head.replace("-> X25519 ", "-> X25519 a"),
      head.replace("-> X25519 ", "-> X25520 "),
      head.replace("-> X25519 ", "-> X25519  "),
      head.replace("-> X25519 ", "-> other\n\n-> X25519 "),
      head.replace(/\n--- (.)/, (_, one: string) => `\n--- ${one === "A" ? "B" : "A"}`),
      head.slice(0, -1),
      head.slice(0, -20),
      `${head}x`,
      `${head}${head}`,
    ];
    for (const one of changed) await expect(read(bytes(one), asksWith(x.identity))).rejects.toMatchObject(WRONG);
    const start = head.indexOf("\n--- ") + 6;
    for (let at = start; at < file.length; at += Math.ceil(file.length / 20)) {
      const bent = file.map((byte, i) => (i === at ? byte ^ 1 : byte));
      await expect(read(bent, asksWith(x.identity))).rejects.toMatchObject(WRONG);
    }
  });

  test("what opens and holds no archive", async () => {
    for (const plain of ["", "hello", "{}", '{"keyhold":"export","v":9,"items":[]}']) {
      const file = await ageSeal(ascii(plain), { recipients: [x.recipient] });
      await expect(read(file, asksWith(x.identity))).rejects.toMatchObject(BAD_INPUT);
    }
  });

  test("stanzas of ssh that are bent", async () => {
    const { file } = await write([lineOf("ed25519"), lineOf("rsa")]);
    const head = Buffer.from(file).toString("latin1");
    const bent = [
      head.replace(/^(-> ssh-ed25519 \S+ )\S+/m, "$1AAAA"),
      head.replace(/^(-> ssh-ed25519 \S+) \S+/m, "$1"),
      head.replace(/^(-> ssh-ed25519 \S+ )\S+/m, `$1${Buffer.alloc(32).toString("base64").replace("=", "")}`),
      head.replace(/^(-> ssh-rsa \S+)/m, "$1 more"),
    ].map((one) => new Uint8Array(Buffer.from(one, "latin1")));
    const identities = [fileOf("ed25519"), fileOf("ed25519"), fileOf("ed25519"), fileOf("rsa")];
    for (const [i, one] of bent.entries()) {
      await expect(read(one, asksWith(identities[i] ?? ""))).rejects.toMatchObject(WRONG);
    }
  });
});
