import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { concat } from "../../src/crypto/bytes.ts";
import { sshPublicKey } from "../../src/formats/openssh.ts";
import { openssh } from "../../src/formats/opensshfile.ts";
import {
  parseSshPrivate,
  SSH_KEY_TYPES,
  type SshKeyType,
  sshFingerprint,
  sshPublicBlob,
  sshPublicLine,
  writeSshPrivate,
} from "../../src/formats/sshkey.ts";
import { testNeeding } from "../support/skip.ts";
import { ascii, BAD_INPUT, sample } from "./samples.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const armour = (bytes: Uint8Array) =>
  ascii(
    `-----BEGIN OPENSSH PRIVATE KEY-----\n${bytes.toBase64().replace(/.{70}/g, "$&\n").trimEnd()}\n-----END OPENSSH PRIVATE KEY-----\n`,
  );
const bare = (file: Uint8Array) => Uint8Array.fromBase64(text(file).replace(/-----[A-Z ]+-----|\n/g, ""));

function reason(file: Uint8Array): string {
  try {
    openssh.read(file, { name: "a" });
  } catch (error) {
    expect(error).toMatchObject(BAD_INPUT);
    return `${(error as { why?: string }).why}`;
  }
  throw new Error("accepted");
}

describe("writes and reads", () => {
  test.each(SSH_KEY_TYPES)("%s comes back with its comment", (type) => {
    const { value } = sample(type);
    const file = writeSshPrivate(type, value, "me @ höme");
    const parsed = parseSshPrivate(file);
    expect(parsed).toMatchObject({ type, key: value, comment: "me @ höme" });
    expect(parsed.publicBlob).toEqual(sshPublicBlob(type, value));
    expect(sshPublicKey(file)).toEqual(parsed.publicBlob);
    expect(writeSshPrivate(type, value, "me @ höme")).toEqual(file);
  });

  test("any scalar and any comment", () => {
    const scalar = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => {
      bytes[0] = (bytes[1] ?? 0) >> ((bytes[2] ?? 0) % 9);
      return bytes;
    });
    fc.assert(
      fc.property(fc.constantFrom("ed25519", "p256"), scalar, fc.string(), (type: SshKeyType, key, comment) => {
        if (key.every((byte) => byte === 0) || (type === "p256" && key[0] === 255)) return;
        const parsed = parseSshPrivate(writeSshPrivate(type, key, comment));
        expect(parsed.key).toEqual(key);
        expect(parsed.comment).not.toMatch(/[\n\r]/);
      }),
      { numRuns: 60 },
    );
  });

  test("an imported file is of type ssh, with its comment as a field; a key of a type of its own becomes a file", () => {
    const file = writeSshPrivate("p384", sample("p384").value, "deploy");
    const [item] = openssh.read(file, { name: "a" }).items;
    expect(item).toMatchObject({
      type: "ssh",
      value: file,
      fields: [{ name: "comment", kind: "text", value: "deploy" }],
    });
    expect(openssh.read(writeSshPrivate("p384", sample("p384").value, ""), { name: "a" }).items[0]?.fields).toEqual([]);
    expect(parseSshPrivate(openssh.write([sample("rsa")])).comment).toBe("sample/rsa");
    if (!item) throw new Error("nothing was read");
    const renamed = { ...item, fields: [{ name: "comment", kind: "text", value: "new" } as const] };
    expect(parseSshPrivate(openssh.write([renamed])).comment).toBe("new");
    expect(openssh.same?.(sample("p384"), item)).toBe(true);
    expect(openssh.same?.(sample("p256"), item)).toBe(false);
  });
});

describe("ssh-keygen", () => {
  let dir = "";
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), "keyhold-ssh-"));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const keygen = (...args: string[]) => {
    const done = Bun.spawnSync(["ssh-keygen", ...args], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    expect([args, done.exitCode, done.exitCode === 0 ? "" : done.stderr.toString()]).toEqual([args, 0, ""]);
    return done.stdout.toString().trim();
  };
  const MADE = [
    ["ed25519", "-t", "ed25519"],
    ["p256", "-t", "ecdsa", "-b", "256"],
    ["p384", "-t", "ecdsa", "-b", "384"],
    ["rsa", "-t", "rsa", "-b", "2048"],
  ] as const;

  for (const [type, ...flags] of MADE) {
    testNeeding("ssh-keygen", `reads ${type} as it is written, and its own files are read`, () => {
      const ours = join(dir, `${type}.ours`);
      const { value } = sample(type);
      writeFileSync(ours, writeSshPrivate(type, value, "a comment"), { mode: 0o600 });
      const blob = sshPublicBlob(type, value);
      expect(keygen("-y", "-f", ours)).toBe(sshPublicLine(blob, "a comment"));
      expect(keygen("-l", "-f", ours)).toContain(` ${sshFingerprint(blob)} a comment `);
      const theirs = join(dir, `${type}.theirs`);
      keygen("-q", ...flags, "-N", "", "-C", "their comment", "-f", theirs);
      const [item] = openssh.read(readFileSync(theirs), { name: "a" }).items;
      if (!item) throw new Error("nothing was read");
      const parsed = parseSshPrivate(item.value);
      expect(parsed).toMatchObject({ type, comment: "their comment" });
      expect(`${sshPublicLine(parsed.publicBlob, parsed.comment)}\n`).toBe(readFileSync(`${theirs}.pub`, "utf8"));
      writeFileSync(`${theirs}.again`, item.value, { mode: 0o600 });
      expect(keygen("-y", "-f", `${theirs}.again`)).toBe(readFileSync(`${theirs}.pub`, "utf8").trim());
    });
  }

  testNeeding("ssh-keygen", "with a passphrase, on P-521, for RSA of 1024 bits: refused with the reason", () => {
    const path = (name: string) => join(dir, name);
    keygen("-q", "-t", "ed25519", "-N", "only a test", "-f", path("locked"));
    expect(reason(readFileSync(path("locked")))).toContain("passphrase");
    expect(sshPublicKey(readFileSync(path("locked")))[3]).toBe(11);
    keygen("-q", "-t", "ecdsa", "-b", "521", "-N", "", "-f", path("p521"));
    expect(reason(readFileSync(path("p521")))).toContain("P-384");
    keygen("-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", path("small"));
    expect(reason(readFileSync(path("small")))).toContain("2048");
    keygen("-q", "-p", "-N", "", "-P", "only a test", "-f", path("locked"));
    expect(openssh.read(readFileSync(path("locked")), { name: "a" }).items[0]?.type).toBe("ssh");
  });
});

describe("refuses", () => {
  const file = writeSshPrivate("ed25519", sample("ed25519").value, "me");
  const bytes = bare(file);

  test.each(SSH_KEY_TYPES)("%s cut off anywhere", (type) => {
    const whole = bare(writeSshPrivate(type, sample(type).value, "me"));
    for (let at = 0; at < whole.length; at += 1 + Math.floor(whole.length / 60)) reason(armour(whole.slice(0, at)));
    reason(armour(concat(whole, Uint8Array.of(0))));
  });

  test.each(SSH_KEY_TYPES)("%s with any byte bent", (type) => {
    const whole = bare(writeSshPrivate(type, sample(type).value, ""));
    const comment = whole.length - 20;
    for (let at = 0; at < comment; at += 1 + Math.floor(whole.length / 60)) {
      reason(armour(whole.map((byte, i) => (i === at ? byte ^ 0x41 : byte))));
    }
  });

  test("other armour, lengths beyond the file, two keys, other versions, unknown types", () => {
    const replaced = (from: string, to: string) => {
      const at = Buffer.from(bytes).indexOf(from);
      expect(at).not.toBe(-1);
      const bent = bytes.slice();
      bent.set(ascii(to), at);
      return armour(bent);
    };
    const at = (index: number, ...to: number[]) => {
      const bent = bytes.slice();
      bent.set(to, index);
      return armour(bent);
    };
    const bad: Uint8Array[] = [
      ascii(""),
      ascii("-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n"),
      ascii(text(file).replace("OPENSSH", "OTHER")),
      ascii(text(file).replace("END OPENSSH", "END OTHER")),
      ascii(text(file).slice(0, -20)),
      ascii(text(file).replace("b3Bl", "b3B*")),
      ascii(`${text(file)}${text(file)}`),
      ascii(`x\n${text(file)}`),
      Uint8Array.of(0xff, 0xfe),
      new Uint8Array(40_000).fill(0x41),
      replaced("openssh-key-v1", "openssh-key-v2"),
      replaced("none", "nine"),
      at(15, 0xff, 0xff, 0xff, 0xff),
      at(15, 0x7f, 0xff, 0xff, 0xff),
      at(15 + 8 + 8 + 4, 0, 0, 0, 2),
      at(15 + 8 + 8 + 4, 0, 0, 0, 0),
      at(15 + 8 + 8 + 8, 0, 0, 1, 0xff),
      armour(concat(bytes.slice(0, 15), new Uint8Array(4))),
      armour(new Uint8Array(64)),
      ascii(
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n-----BEGIN OPENSSH PRIVATE KEY-----\n",
      ),
    ];
    for (const one of bad) reason(one);
    const inner = Buffer.from(bytes).lastIndexOf("ssh-ed25519");
    const security = bytes.slice();
    security.set(ascii("sk-ssh-ed25"), inner);
    expect(reason(armour(security))).toContain("security key");
  });

  test("a public part of another key", () => {
    const other = writeSshPrivate("ed25519", new Uint8Array(32).fill(9), "me");
    const bent = bytes.slice();
    const publicAt = Buffer.from(bytes).indexOf("ssh-ed25519") + 15;
    bent.set(bare(other).subarray(publicAt, publicAt + 32), publicAt);
    expect(reason(armour(bent))).toContain("contradict");
  });
});
