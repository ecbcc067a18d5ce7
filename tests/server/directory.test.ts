import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { verifySignature } from "../../src/crypto/identity.ts";
import { initialised, openServerDirectory } from "../../src/server/directory.ts";
import { random, tempDir } from "../support/listener.ts";

const FILES = ["account-name.key", "identity.ed25519", "log.ed25519", "opaque.json", "sealing.key", "shadow.key"];

describe("server directory", () => {
  let temp: ReturnType<typeof tempDir>;
  let dir: string;
  let setups: number;
  const umask = process.umask();
  const open = (more: { databaseExists?: boolean } = {}) =>
    openServerDirectory(dir, {
      random,
      createOpaqueSetup: async () => {
        setups += 1;
        return `setup-${setups}`;
      },
      ...more,
    });
  const key = (name: string) => join(dir, "keys", name);

  beforeEach(() => {
    temp = tempDir();
    dir = join(temp.path, "deep", "server");
    setups = 0;
  });
  afterEach(() => {
    process.umask(umask);
    temp.remove();
  });

  test("the first start makes all keys, private, and the next one finds the same", async () => {
    expect(initialised(dir)).toBe(false);
    const first = await open();
    expect(initialised(dir)).toBe(true);
    expect(readdirSync(dir)).toEqual(["keys"]);
    expect(readdirSync(join(dir, "keys")).sort()).toEqual(FILES);
    const second = await open();
    expect(setups).toBe(1);
    expect(second.identity.publicKey).toEqual(first.identity.publicKey);
    expect(second.log.publicKey).toEqual(first.log.publicKey);
    expect(second.opaque).toEqual(first.opaque);
    expect(second.opaque).toEqual({ current: { id: expect.any(String), setup: "setup-1" }, previous: null });
    for (const name of ["accountNameKey", "sealingKey", "shadowKey"] as const) {
      expect(second[name]).toEqual(first[name]);
      expect(second[name]).toHaveLength(32);
    }
    const all = [first.accountNameKey, first.sealingKey, first.shadowKey].map((bytes) => bytes.toHex());
    expect(new Set(all).size).toBe(3);
    const message = new Uint8Array([1, 2, 3]);
    expect(verifySignature(first.identity.publicKey, message, second.identity.sign(message))).toBe(true);
  });

  test.skipIf(process.platform === "win32")("modes are 0700 and 0600 whatever the umask was", async () => {
    process.umask(0);
    await open();
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    expect(statSync(join(dir, "keys")).mode & 0o777).toBe(0o700);
    for (const name of FILES) expect(statSync(key(name)).mode & 0o777).toBe(0o600);
    writeFileSync(join(dir, "later"), "");
    expect(statSync(join(dir, "later")).mode & 0o077).toBe(0);
  });

  test("two first starts at once agree on one set of keys", async () => {
    const [a, b] = await Promise.all([open(), open()]);
    expect(a.identity.publicKey).toEqual(b.identity.publicKey);
    expect(a.opaque).toEqual(b.opaque);
    expect(readdirSync(dir)).toEqual(["keys"]);
  });

  test("a failing set-up leaves no keys behind", async () => {
    const failing = openServerDirectory(dir, { random, createOpaqueSetup: () => Promise.reject(new Error("no")) });
    await expect(failing).rejects.toThrow("no");
    expect(initialised(dir)).toBe(false);
  });

  test("leftovers of a killed first start are swept and never used", async () => {
    mkdirSync(join(dir, ".keys-0123456789abcdef"), { recursive: true, mode: 0o700 });
    chmodSync(dir, 0o700);
    writeFileSync(join(dir, ".keys-0123456789abcdef", "identity.ed25519"), new Uint8Array(32));
    const keys = await open();
    expect(readdirSync(dir)).toEqual(["keys"]);
    expect(readFileSync(key("identity.ed25519")).every((byte) => byte === 0)).toBe(false);
    expect(keys.identity.publicKey).toHaveLength(32);
  });

  test("a database without keys is refused and gets no new ones", async () => {
    await open();
    rmSync(join(dir, "keys"), { recursive: true });
    writeFileSync(join(dir, "keyhold.db"), "");
    await expect(open()).rejects.toMatchObject({ code: "corrupt", hint: expect.stringContaining("backup") });
    expect(initialised(dir)).toBe(false);
    rmSync(join(dir, "keyhold.db"));
    await expect(open({ databaseExists: true })).rejects.toMatchObject({ code: "corrupt" });
    expect(initialised(dir)).toBe(false);
  });

  test.each(FILES)("a missing %s is refused by name and not made anew", async (name) => {
    await open();
    rmSync(key(name));
    await expect(open()).rejects.toMatchObject({ code: "corrupt", message: expect.stringContaining(name) });
    expect(existsSync(key(name))).toBe(false);
  });

  test.each(FILES)("a truncated %s is refused", async (name) => {
    await open();
    truncateSync(key(name), 1);
    await expect(open()).rejects.toMatchObject({ code: "corrupt", message: expect.stringContaining(name) });
  });

  test("a longer key and a malformed set-up are refused", async () => {
    await open();
    const whole = readFileSync(key("sealing.key"));
    writeFileSync(key("sealing.key"), new Uint8Array(33));
    await expect(open()).rejects.toMatchObject({ code: "corrupt" });
    writeFileSync(key("sealing.key"), whole);
    writeFileSync(key("opaque.json"), '{"current":null,"previous":null}');
    await expect(open()).rejects.toMatchObject({ code: "corrupt", message: expect.stringContaining("opaque.json") });
  });

  test.skipIf(process.platform === "win32").each([0o640, 0o604, 0o620, 0o666])(
    "a key of mode %o is refused with the fix",
    async (mode) => {
      await open();
      chmodSync(key("sealing.key"), mode);
      await expect(open()).rejects.toMatchObject({
        code: "denied",
        message: expect.stringContaining("sealing.key"),
        hint: expect.stringContaining("chmod 600"),
      });
    },
  );

  test.skipIf(process.platform === "win32")("a symbolic link in a key's place is refused", async () => {
    await open();
    renameSync(key("sealing.key"), join(temp.path, "elsewhere"));
    symlinkSync(join(temp.path, "elsewhere"), key("sealing.key"));
    await expect(open()).rejects.toMatchObject({ code: "denied", message: expect.stringContaining("symbolic link") });
    rmSync(key("sealing.key"));
    mkdirSync(key("sealing.key"));
    await expect(open()).rejects.toMatchObject({ message: expect.stringContaining("sealing.key") });
  });

  test.skipIf(process.platform === "win32")("directories that others may enter are refused with the fix", async () => {
    await open();
    for (const path of [dir, join(dir, "keys")]) {
      chmodSync(path, 0o750);
      await expect(open()).rejects.toMatchObject({ code: "denied", hint: `chmod 700 ${path}` });
      chmodSync(path, 0o700);
    }
    await open();
  });

  test.skipIf(process.platform === "win32")("an empty directory is closed, one in use is not touched", async () => {
    mkdirSync(dir, { recursive: true });
    chmodSync(dir, 0o755);
    await open();
    expect(statSync(dir).mode & 0o777).toBe(0o700);

    dir = join(temp.path, "home");
    mkdirSync(dir);
    writeFileSync(join(dir, "something"), "");
    chmodSync(dir, 0o755);
    await expect(open()).rejects.toMatchObject({ code: "denied" });
    expect(statSync(dir).mode & 0o777).toBe(0o755);
    expect(initialised(dir)).toBe(false);
  });

  test("a file in the directory's place is refused", async () => {
    mkdirSync(join(temp.path, "deep"));
    writeFileSync(dir, "");
    await expect(open()).rejects.toMatchObject({ code: "storage" });
  });
});
