import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicKey } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { calculateJwkThumbprint } from "jose";
import { testNeeding } from "../support/skip.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
const TYPES = ["ed25519", "p256", "p384", "rsa", "secp256k1", "ssh", "x25519"] as const;
let world: World;
let home: Home;
/** Where files are made; nothing but what a test asked for may be left in it. */
let dir: string;

beforeAll(async () => {
  world = await openWorld({ server: false });
  home = world.home("home");
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  await home.ok(["unlock", ...home.password, "--kdf", "test"]);
  for (const type of TYPES) await home.ok(["generate", `k/${type}`, "--type", type]);
  await home.ok(["generate", "another", "--type", "x25519"]);
  await home.ok(["generate", "no/key", "--type", "token"]);
  dir = world.file("files");
  mkdirSync(dir);
}, SETUP_MS);
afterAll(async () => {
  await home.run(["lock"]);
  await world.close();
});

function tool(command: readonly string[], stdin: Uint8Array | null = null) {
  const done = Bun.spawnSync([...command], { cwd: dir, stdin: stdin ?? "ignore", stdout: "pipe", stderr: "pipe" });
  return { code: done.exitCode, out: done.stdout, text: done.stdout.toString(), err: done.stderr.toString() };
}
function file(name: string, content: Uint8Array | string): string {
  const path = join(dir, name);
  writeFileSync(path, content);
  return path;
}
const publicOf = async (name: string, as: string): Promise<string> =>
  (await home.ok(["key", "public", name, "--as", as])).data.publicKey;

describe("key list and key public", () => {
  test("list has the key pairs alone, with fingerprints where ssh knows the type", async () => {
    const { data } = await home.ok(["key", "list"]);
    const shown = data.items.map(({ name, fingerprint }: { name: string; fingerprint: string | null }) => [
      name,
      fingerprint?.startsWith("SHA256:") ?? false,
    ]);
    expect(shown).toEqual([["another", false], ...TYPES.map((type) => [`k/${type}`, !/k1|x25519/.test(type)])]);
    const plain = await home.run(["key", "list", "k/ed", "--plain"]);
    expect(plain.out.split("\t").slice(0, 3)).toEqual(["k/ed25519", "ed25519", "1"]);
  });

  testNeeding(["openssl", "ssh-keygen"], "every form is read by the program it is for", async () => {
    for (const type of TYPES) {
      const pem = file("key.pem", `${await publicOf(`k/${type}`, "pem")}\n`);
      const read = tool(["openssl", "pkey", "-pubin", "-in", pem, "-noout", "-text"]);
      expect([type, read.code, read.err]).toEqual([type, 0, ""]);
      const members = JSON.parse(await publicOf(`k/${type}`, "jwk"));
      expect(members.kid).toBe(await calculateJwkThumbprint(members));
      expect(Object.keys(members).filter((member) => ["d", "p", "q", "k"].includes(member))).toEqual([]);
      if (type !== "secp256k1") {
        const again = createPublicKey({ key: members, format: "jwk" }).export({ format: "pem", type: "spki" });
        expect([type, again]).toEqual([type, readFileSync(pem, "utf8")]);
      }
      if (type === "secp256k1" || type === "x25519") {
        expect((await home.fails(2, ["key", "public", `k/${type}`, "--as", "ssh"])).code).toBe("bad_input");
        continue;
      }
      const line = file("key.pub", `${await publicOf(`k/${type}`, "ssh")}\n`);
      const [, fingerprint, comment] = tool(["ssh-keygen", "-l", "-f", line]).text.split(" ");
      const { data } = await home.ok(["key", "list", `k/${type}`]);
      expect([fingerprint, comment]).toEqual([data.items[0].fingerprint, `k/${type}`]);
    }
  });

  test("what is no key pair, and a form that does not fit, are refused", async () => {
    expect((await home.fails(2, ["key", "public", "no/key"])).message).toContain("no key pair");
    for (const type of ["p256", "p384", "secp256k1"]) {
      expect((await home.fails(2, ["key", "public", `k/${type}`, "--as", "age"])).code).toBe("bad_input");
      expect((await home.fails(2, ["key", "encrypt", `k/${type}`, "--in-file", "-"])).message).toContain(
        "opens no files",
      );
    }
    await home.fails(3, ["key", "public", "nobody"]);
  });
});

describe("key sign", () => {
  const CASES: [string, string[], string[]][] = [
    ["ed25519", [], ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "PEM", "-sigfile", "SIG", "-in", "MSG"]],
    ["p256", ["--format", "der"], ["dgst", "-sha256", "-verify", "PEM", "-signature", "SIG", "MSG"]],
    ["p384", ["--format", "der"], ["dgst", "-sha384", "-verify", "PEM", "-signature", "SIG", "MSG"]],
    ["secp256k1", ["--format", "der"], ["dgst", "-sha256", "-verify", "PEM", "-signature", "SIG", "MSG"]],
    ["rsa", [], ["dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-verify", "PEM", "-signature", "SIG", "MSG"]],
    ["rsa", ["--scheme", "rsa-pkcs1-sha256"], ["dgst", "-sha256", "-verify", "PEM", "-signature", "SIG", "MSG"]],
    ["rsa", ["--scheme", "rsa-pkcs1-sha512"], ["dgst", "-sha512", "-verify", "PEM", "-signature", "SIG", "MSG"]],
    ["ssh", [], ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "PEM", "-sigfile", "SIG", "-in", "MSG"]],
  ];

  testNeeding("openssl", "openssl verifies each type and scheme, and refuses another message", async () => {
    await verified(file("message", crypto.getRandomValues(new Uint8Array(3_000))), CASES);
  });

  testNeeding("openssl", "of files that are not sent whole too", async () => {
    const hashed = CASES.filter(([type]) => type !== "ed25519" && type !== "ssh");
    await verified(
      file(
        "message",
        new Uint8Array(5 * 1_024 * 1_024).map((_, i) => i * 31),
      ),
      hashed,
    );
  });

  testNeeding("openssl", "with --hedge each signature is another one, and holds", async () => {
    await home.ok(["generate", "hedge", "--type", "bytes", "--length", "32"]);
    const message = file("message", "hedged");
    const hedged: typeof CASES = CASES.filter(([type]) => ["p256", "p384", "secp256k1"].includes(type)).map(
      ([type, flags, verify]) => [type, [...flags, "--hedge", "hedge"], verify],
    );
    await verified(message, hedged);
    const sign = async (...flags: string[]) =>
      (await home.ok(["key", "sign", "k/p256", "--message-file", message, ...flags])).data.signatureHex;
    expect(await sign()).toBe(await sign());
    expect(await sign("--hedge", "hedge")).not.toBe(await sign("--hedge", "hedge"));
    const refused = ["key", "sign", "k/ed25519", "--message-file", message, "--hedge", "hedge"];
    expect((await home.fails(2, refused)).code).toBe("bad_input");
    await home.fails(3, ["key", "sign", "k/p256", "--message-file", message, "--hedge", "nobody"]);
  });

  async function verified(message: string, cases: typeof CASES): Promise<void> {
    const other = file("other", "another message");
    for (const [type, flags, verify] of cases) {
      const pem = file("key.pem", `${await publicOf(`k/${type}`, "pem")}\n`);
      const signature = join(dir, "message.sig");
      const argv = ["key", "sign", `k/${type}`, "--message-file", message, "--out", signature, "--force", ...flags];
      const { data } = await home.ok(argv);
      expect([data.out, data.signatureHex]).toEqual([signature, readFileSync(signature).toString("hex")]);
      const words: Record<string, string> = { PEM: pem, SIG: signature, MSG: message };
      const run = (map: Record<string, string>) => tool(["openssl", ...verify.map((word) => map[word] ?? word)]).code;
      expect([type, flags, run(words)]).toEqual([type, flags, 0]);
      expect([type, run({ ...words, MSG: other })]).toEqual([type, 1]);
    }
  }

  testNeeding("ssh-keygen", "ssh-keygen verifies --format ssh, of files of any size", async () => {
    const message = file(
      "large",
      new Uint8Array(9 * 1_024 * 1_024).map((_, i) => i * 31),
    );
    for (const type of ["ssh", "ed25519", "p256", "p384", "rsa"]) {
      const signers = file("signers", `me ${await publicOf(`k/${type}`, "ssh")}\n`);
      const signature = join(dir, `${type}.sig`);
      const argv = ["key", "sign", `k/${type}`, "--message-file", message, "--format", "ssh", "--out", signature];
      expect((await home.ok([...argv, "--namespace", "git"])).data.format).toBe("ssh");
      const verify = (namespace: string, of: Uint8Array) =>
        tool(["ssh-keygen", "-Y", "verify", "-n", namespace, "-f", signers, "-I", "me", "-s", signature], of).code;
      expect([type, verify("git", readFileSync(message))]).toEqual([type, 0]);
      expect([type, verify("file", readFileSync(message))]).not.toEqual([type, 0]);
      expect([type, verify("git", readFileSync(message).subarray(1))]).not.toEqual([type, 0]);
    }
    // transactions and digests are for keys of a federation
    await home.fails(2, ["key", "sign", "k/ed25519", "--digest", "00".repeat(32)]);
    await home.fails(2, ["key", "sign", "k/ed25519", "--evm-file", message]);
    const large = await home.fails(2, ["key", "sign", "k/ed25519", "--message-file", message]);
    expect([large.code, large.hint]).toEqual(["too_large", expect.stringContaining("--format ssh")]);
    expect((await home.fails(2, ["key", "sign", "k/x25519", "--message-file", message, "--format", "ssh"])).code).toBe(
      "bad_input",
    );
  });

  test("from stdin; JSON and text say the same; nothing is written where it fails", async () => {
    const stdin = "a message";
    const { data } = await home.ok(["key", "sign", "k/ed25519", "--message-file", "-"], { stdin });
    expect(data).toEqual({
      name: "k/ed25519",
      scheme: "ed25519",
      format: "raw",
      signatureHex: expect.stringMatching(/^[0-9a-f]{128}$/),
    });
    const shown = await home.run(["key", "sign", "k/ed25519", "--message-file", "-"], { stdin });
    expect(shown.out).toBe(`${data.signatureHex}\n`);
    const before = readdirSync(dir);
    const out = join(dir, "never.sig");
    const argv = ["--message-file", "-", "--out", out];
    await home.fails(2, ["key", "sign", "k/ed25519", ...argv, "--format", "der"], { stdin });
    await home.fails(2, ["key", "sign", "k/ed25519", ...argv, "--scheme", "rsa-pss-sha256"], { stdin });
    await home.fails(2, ["key", "sign", "k/x25519", ...argv], { stdin });
    await home.fails(3, ["key", "sign", "nobody", ...argv], { stdin });
    await home.fails(3, ["key", "sign", "k/ed25519", "--message-file", join(dir, "nothing")]);
    expect(readdirSync(dir)).toEqual(before);
    const there = file("there.sig", "mine");
    expect(
      (await home.fails(6, ["key", "sign", "k/ed25519", "--message-file", "-", "--out", there], { stdin })).code,
    ).toBe("exists");
    expect(readFileSync(there, "utf8")).toBe("mine");
  });
});

const ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/** The key in an identity of age (BIP 173). */
function identityBytes(identity: string): Uint8Array {
  const values = [...identity.toLowerCase().slice(identity.lastIndexOf("1") + 1, -6)].map((c) => ALPHABET.indexOf(c));
  const bits = values.map((value) => value.toString(2).padStart(5, "0")).join("");
  return Uint8Array.from({ length: 32 }, (_, i) => Number.parseInt(bits.slice(8 * i, 8 * i + 8), 2));
}

describe("key encrypt and key decrypt", () => {
  testNeeding(["age", "age-keygen"], "both ways with Debian's age, by an identity that is kept here too", async () => {
    const identity = join(dir, "identity");
    expect(tool(["age-keygen", "-o", identity]).code).toBe(0);
    const secret = /^AGE-SECRET-KEY-1.*$/m.exec(readFileSync(identity, "utf8"))?.[0] ?? "";
    await home.ok(["store", "age/mine", "--type", "x25519", "--in-file", "-"], { stdin: identityBytes(secret) });
    const recipient = await publicOf("age/mine", "age");
    expect(recipient).toBe(tool(["age-keygen", "-y", identity]).text.trim());
    const bytes = crypto.getRandomValues(new Uint8Array(60_000));
    const content = file("content", Buffer.concat([bytes, bytes, bytes]));
    for (const flags of [[], ["-a"]]) {
      const theirs = join(dir, `theirs${flags.join("")}.age`);
      expect(tool(["age", ...flags, "-r", recipient, "-o", theirs, content]).code).toBe(0);
      const out = join(dir, `opened${flags.join("")}`);
      const { data } = await home.ok(["key", "decrypt", "age/mine", "--in-file", theirs, "--out", out]);
      expect(data).toEqual({ name: "age/mine", size: 180_000, out });
      expect(Buffer.compare(readFileSync(out), readFileSync(content))).toBe(0);
      expect(statSync(out).mode & 0o777).toBe(0o600);
    }
    const ours = join(dir, "ours.age");
    const made = await home.ok(["key", "encrypt", "age/mine", "--in-file", content, "--out", ours]);
    expect(made.data).toMatchObject({ recipients: 1, size: statSync(ours).size });
    expect(Buffer.compare(tool(["age", "-d", "-i", identity, ours]).out, readFileSync(content))).toBe(0);
    const both = join(dir, "both.age");
    await home.ok(["key", "encrypt", "another", "--recipient", recipient, "--in-file", content, "--out", both]);
    expect(tool(["age", "-d", "-i", identity, both]).code).toBe(0);
    await home.ok(["key", "decrypt", "another", "--in-file", both, "--out", join(dir, "both")]);
  });

  testNeeding("age", "both ways with keys of ssh, Ed25519 and RSA", async () => {
    await home.ok(["import", "--from", "openssh", file("id_rsa", sshKey("rsa")), "--name", "ssh/rsa"]);
    for (const name of ["k/ssh", "ssh/rsa"]) {
      const line = file("id.pub", `${await publicOf(name, "ssh")}\n`);
      const theirs = join(dir, "theirs.age");
      expect(tool(["age", "-R", line, "-o", theirs], Buffer.from("for a key of ssh")).code).toBe(0);
      const opened = await home.run(["key", "decrypt", name, "--in-file", theirs]);
      expect([name, opened.code, opened.out]).toEqual([name, 0, "for a key of ssh"]);
      const ours = await home.run(["key", "encrypt", name, "--in-file", "-"], { stdin: "from here" });
      const key = file("id", (await home.run(["read", name])).bytes);
      Bun.spawnSync(["chmod", "600", key]);
      expect([name, tool(["age", "-d", "-i", key], ours.bytes).text]).toEqual([name, "from here"]);
    }
  });

  test("another key, a changed and a cut off file: told so, and nothing is left behind", async () => {
    const content = file("plain", new Uint8Array(150_000).fill(7));
    const sealed = join(dir, "plain.age");
    await home.ok(["key", "encrypt", "k/x25519", "--in-file", content, "--out", sealed]);
    const whole = readFileSync(sealed);
    const flipped = Buffer.from(whole);
    flipped[100_000] = (flipped[100_000] ?? 0) ^ 1;
    const cut = file("cut.age", whole.subarray(0, 70_000));
    const changed = file("changed.age", flipped);
    const old = file("old", "as it was");
    const before = readdirSync(dir);
    const out = join(dir, "out");
    const decrypt = (key: string, from: string, ...more: string[]) => [
      "key",
      "decrypt",
      key,
      "--in-file",
      from,
      ...more,
    ];
    expect((await home.fails(2, decrypt("another", sealed, "--out", out))).message).toContain(
      "not encrypted to this key",
    );
    expect((await home.fails(2, decrypt("k/p256", sealed, "--out", out))).message).toContain("opens no files");
    expect((await home.fails(2, decrypt("k/x25519", content, "--out", out))).message).toContain("not an age file");
    for (const bad of [cut, changed]) {
      expect((await home.fails(8, decrypt("k/x25519", bad, "--out", out))).code).toBe("corrupt");
      expect((await home.fails(8, decrypt("k/x25519", bad, "--out", old, "--force"))).code).toBe("corrupt");
    }
    const onStdout = await home.run(decrypt("k/x25519", cut));
    expect([onStdout.code, onStdout.bytes.length]).toEqual([8, 65_536]);
    expect((await home.fails(6, decrypt("k/x25519", sealed, "--out", old))).code).toBe("exists");
    expect([readdirSync(dir), readFileSync(old, "utf8")]).toEqual([before, "as it was"]);
    await home.fails(2, [
      "key",
      "encrypt",
      "k/x25519",
      "--recipient",
      "age1nobody",
      "--in-file",
      content,
      "--out",
      out,
    ]);
    expect(readdirSync(dir)).toEqual(before);
    expect((await home.ok(decrypt("k/x25519", sealed, "--out", out))).data.size).toBe(150_000);
  });

  test("locked: no key opens or signs anything", async () => {
    const sealed = join(dir, "locked.age");
    await home.ok(["key", "encrypt", "k/x25519", "--in-file", file("secret", "x"), "--out", sealed]);
    await home.ok(["lock"]);
    try {
      await home.fails(4, ["key", "decrypt", "k/x25519", "--in-file", sealed]);
      await home.fails(4, ["key", "sign", "k/ed25519", "--message-file", sealed]);
      await home.fails(4, ["key", "list"]);
      // a password that is given does without the agent
      const { out } = await home.run([
        "key",
        "decrypt",
        "k/x25519",
        "--in-file",
        sealed,
        ...home.password,
        "--kdf",
        "test",
      ]);
      expect(out).toBe("x");
    } finally {
      await home.ok(["unlock", ...home.password, "--kdf", "test"]);
    }
  });
});

/** A new key of ssh as its file, without passphrase. */
function sshKey(type: "rsa"): Uint8Array {
  const path = join(dir, "made");
  const made = Bun.spawnSync(["ssh-keygen", "-q", "-t", type, "-b", "2048", "-N", "", "-f", path]);
  expect(made.exitCode).toBe(0);
  return readFileSync(path);
}
