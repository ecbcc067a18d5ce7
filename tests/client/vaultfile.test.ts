import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  clearPending,
  readPending,
  readPreviousVaultFile,
  readVaultFile,
  removeVaultFile,
  replaceVaultFile,
  vaultGeneration,
  withVaultLock,
  writePending,
} from "../../src/client/vaultfile.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import {
  createVault,
  openVaultWithKey,
  openVaultWithPassword,
  type Vault,
  writeVault,
} from "../../src/protocol/vault.ts";
import { type LockMethod, takeFileLock, tryFileLock } from "../../src/wire/filelock.ts";

const CHILD = new URL("../support/vaultchild.ts", import.meta.url).pathname;
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
const utf8 = (text: string) => new TextEncoder().encode(text);
const password = utf8("a long enough password");

let home: string;
let path: string;
let vault: Vault;

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), "keyhold-vault-"));
  path = join(home, "data", "vault");
  vault = await createVault(password, { cost: KDF.test, allowTestKdf: true }, random);
});

afterEach(() => rmSync(home, { recursive: true, force: true }));

function child(job: string, ...args: string[]) {
  return Bun.spawn([process.execPath, CHILD, job, ...args], { stdout: "pipe", stderr: "inherit" });
}

/** Writes the vault's first generation with a counter at `start`. */
async function begin(start = 0): Promise<Uint8Array> {
  const bytes = writeVault(vault, utf8(String(start)), random);
  await replaceVaultFile(path, bytes, { expectGeneration: null });
  return bytes;
}

function counter(): number {
  const bytes = readVaultFile(path);
  if (!bytes) throw new Error("no vault");
  return Number(new TextDecoder().decode(openVaultWithKey(bytes, vault.key).body));
}

const contents = (file: string): Uint8Array => new Uint8Array(readFileSync(file));
const mode = (file: string) => lstatSync(file).mode & 0o777;
const entries = () => readdirSync(join(home, "data")).sort();

describe("one process", () => {
  test("there is no vault before the first write", () => {
    expect(readVaultFile(path)).toBeNull();
    expect(readPreviousVaultFile(path)).toBeNull();
    expect(readPending(path)).toBeNull();
  });

  test("writes, keeps the generation before, and leaves nothing else behind", async () => {
    const first = await begin();
    const second = writeVault({ ...vault, generation: 1 }, utf8("1"), random);
    await replaceVaultFile(path, second, { expectGeneration: 1 });
    expect(readVaultFile(path)).toEqual(second);
    expect(readPreviousVaultFile(path)).toEqual(first);
    expect(entries()).toEqual(["vault", "vault.lock", "vault.previous"]);
  });

  test("modes are 0600 and 0700, whatever the umask, and looser ones are tightened", async () => {
    const umask = process.umask(0);
    try {
      mkdirSync(join(home, "data"), { mode: 0o777 });
      await begin();
      await writePending(path, utf8("pending"));
      await replaceVaultFile(path, writeVault({ ...vault, generation: 1 }, utf8("1"), random), { expectGeneration: 1 });
    } finally {
      process.umask(umask);
    }
    expect(mode(join(home, "data"))).toBe(0o700);
    expect(entries().map((entry) => [entry, mode(join(home, "data", entry))])).toEqual([
      ["vault", 0o600],
      ["vault.lock", 0o600],
      ["vault.pending", 0o600],
      ["vault.previous", 0o600],
    ]);
    chmodSync(path, 0o644);
    expect(readVaultFile(path)).not.toBeNull();
    expect(mode(path)).toBe(0o600);
  });

  test("another generation than expected is stale and changes nothing", async () => {
    const first = await begin();
    const next = writeVault({ ...vault, generation: 1 }, utf8("1"), random);
    for (const expectGeneration of [null, 0, 2]) {
      await expect(replaceVaultFile(path, next, { expectGeneration })).rejects.toMatchObject({ code: "stale" });
    }
    await expect(replaceVaultFile(path, first, { expectGeneration: 1 })).rejects.toMatchObject({ code: "internal" });
    expect(readVaultFile(path)).toEqual(first);
    expect(entries()).toEqual(["vault", "vault.lock"]);
  });

  test("a first write without a vault to replace is stale when one was expected", async () => {
    const bytes = writeVault(vault, utf8("0"), random);
    await expect(replaceVaultFile(path, bytes, { expectGeneration: 1 })).rejects.toMatchObject({ code: "stale" });
    expect(existsSync(path)).toBe(false);
  });

  test("a damaged vault is not overwritten", async () => {
    const bytes = await begin();
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    const next = writeVault({ ...vault, generation: 1 }, utf8("1"), random);
    await expect(replaceVaultFile(path, next, { expectGeneration: 1 })).rejects.toMatchObject({ code: "corrupt" });
    expect(contents(path)).toEqual(bytes);
  });

  test("the generation is read from the header alone: damage there and a cut tell, damage behind it does not", async () => {
    expect(vaultGeneration(path)).toBeNull();
    const bytes = await begin();
    expect(vaultGeneration(path)).toBe(1);
    const large = writeVault({ ...vault, generation: 1 }, new Uint8Array(100_000), random);
    await replaceVaultFile(path, large, { expectGeneration: 1 });
    expect(vaultGeneration(path)).toBe(2);
    for (const [at, code] of [
      [0, "corrupt"],
      [215, "corrupt"],
      [240, "corrupt"],
      [50_000, null],
    ] as const) {
      const damaged = new Uint8Array(large);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      writeFileSync(path, damaged);
      if (code === null) expect(vaultGeneration(path)).toBe(2);
      else expect(() => vaultGeneration(path)).toThrow(expect.objectContaining({ code }));
    }
    for (const cut of [0, 100, 300, 420, large.length - 1]) {
      writeFileSync(path, large.subarray(0, cut));
      expect(() => vaultGeneration(path)).toThrow(expect.objectContaining({ code: "corrupt" }));
    }
    writeFileSync(path, bytes);
    expect(vaultGeneration(path)).toBe(1);
  });

  test("wrong password, damage, truncation: the file stays as it is", async () => {
    const bytes = await begin();
    const damaged = new Uint8Array(bytes);
    damaged[damaged.length - 1] = (damaged.at(-1) ?? 0) ^ 1;
    for (const [content, secret, code] of [
      [bytes, utf8("wrong"), "wrong_password"],
      [damaged, password, "corrupt"],
      [bytes.subarray(0, 280), password, "corrupt"],
    ] as const) {
      writeFileSync(path, content);
      const before = statSync(path);
      const read = readVaultFile(path) ?? new Uint8Array();
      await expect(openVaultWithPassword(read, secret, { allowTestKdf: true })).rejects.toMatchObject({ code });
      expect(contents(path)).toEqual(content);
      expect(statSync(path)).toMatchObject({ ino: before.ino, mtimeMs: before.mtimeMs });
    }
  });

  test("after a new password the generation before can be forgotten", async () => {
    await begin();
    await replaceVaultFile(path, writeVault({ ...vault, generation: 1 }, utf8("1"), random), { expectGeneration: 1 });
    const third = writeVault({ ...vault, generation: 2 }, utf8("2"), random);
    await replaceVaultFile(path, third, { expectGeneration: 2, forgetPrevious: true });
    expect(readPreviousVaultFile(path)).toBeNull();
    expect(readVaultFile(path)).toEqual(third);
  });

  test("a previous generation that is the same file does not leave a second name", async () => {
    await begin();
    linkSync(path, `${path}.previous`);
    await replaceVaultFile(path, writeVault({ ...vault, generation: 1 }, utf8("1"), random), { expectGeneration: 1 });
    expect(entries()).toEqual(["vault", "vault.lock", "vault.previous"]);
    expect(counter()).toBe(1);
  });

  test("the pending request is kept, replaced and cleared", async () => {
    await writePending(path, utf8("one"));
    await writePending(path, utf8("two"));
    expect(readPending(path)).toEqual(utf8("two"));
    await clearPending(path);
    await clearPending(path);
    expect(readPending(path)).toBeNull();
  });

  test("removal takes all but the lock", async () => {
    await begin();
    await writePending(path, utf8("one"));
    await removeVaultFile(path);
    expect(entries()).toEqual(["vault.lock"]);
  });

  test("stray temporary files go at the next open, others' files stay", async () => {
    await begin();
    const strays = ["vault", "vault.previous", "vault.pending"].map((name) => `${name}.tmp-123-0123456789abcdef`);
    const kept = ["other.tmp-123-0123456789abcdef", "vault.tmp-mine", "vault.backup"];
    for (const name of [...strays, ...kept]) writeFileSync(join(home, "data", name), "x");
    readVaultFile(path);
    expect(entries()).toEqual([...kept, "vault", "vault.lock"].sort());
  });

  test("stray temporary files go at the next change too", async () => {
    await begin();
    writeFileSync(`${path}.tmp-123-0123456789abcdef`, "x");
    await clearPending(path);
    expect(entries()).toEqual(["vault", "vault.lock"]);
  });

  test("a writer's temporary file is not swept while it holds the lock", async () => {
    await begin();
    const temp = `${path}.tmp-123-0123456789abcdef`;
    await withVaultLock(path, async () => {
      writeFileSync(temp, "being written");
      readVaultFile(path);
      expect(existsSync(temp)).toBe(true);
    });
  });
});

describe("in the way", () => {
  const next = () => writeVault({ ...vault, generation: 1 }, utf8("1"), random);

  test("a symbolic link to the vault is neither read nor written through", async () => {
    const bytes = await begin();
    const target = join(home, "target");
    writeFileSync(target, bytes);
    rmSync(path);
    symlinkSync(target, path);
    expect(() => readVaultFile(path)).toThrow(expect.objectContaining({ code: "denied" }));
    await expect(replaceVaultFile(path, next(), { expectGeneration: 1 })).rejects.toMatchObject({ code: "denied" });
    expect(contents(target)).toEqual(bytes);
    expect(lstatSync(path).isSymbolicLink()).toBe(true);
  });

  test.each(["previous", "lock"])("a symbolic link named .%s is refused, the vault stays", async (ending) => {
    const bytes = await begin();
    const target = join(home, "target");
    writeFileSync(target, "precious");
    rmSync(`${path}.${ending}`, { force: true });
    symlinkSync(target, `${path}.${ending}`);
    await expect(replaceVaultFile(path, next(), { expectGeneration: 1 })).rejects.toMatchObject({ code: "denied" });
    expect(readFileSync(target, "utf8")).toBe("precious");
    expect(contents(path)).toEqual(bytes);
  });

  test("a symbolic link named .pending is refused", async () => {
    const target = join(home, "target");
    writeFileSync(target, "precious");
    mkdirSync(join(home, "data"));
    symlinkSync(target, `${path}.pending`);
    await expect(writePending(path, utf8("x"))).rejects.toMatchObject({ code: "denied" });
    expect(() => readPending(path)).toThrow(expect.objectContaining({ code: "denied" }));
    expect(readFileSync(target, "utf8")).toBe("precious");
  });

  test("a directory or a FIFO instead of the vault is refused without hanging", async () => {
    mkdirSync(path, { recursive: true });
    expect(() => readVaultFile(path)).toThrow(expect.objectContaining({ code: "denied" }));
    rmSync(path, { recursive: true });
    expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
    expect(() => readVaultFile(path)).toThrow(expect.objectContaining({ code: "denied" }));
  });

  test("a file instead of the directory is refused", async () => {
    writeFileSync(join(home, "data"), "x");
    await expect(begin()).rejects.toMatchObject({ code: "storage" });
  });

  test("a directory shared by all, as /tmp is, is refused and left alone", async () => {
    const shared = join(home, "shared");
    mkdirSync(shared);
    chmodSync(shared, 0o1777);
    const write = replaceVaultFile(join(shared, "vault"), next(), { expectGeneration: null });
    await expect(write).rejects.toMatchObject({ code: "denied" });
    expect(lstatSync(shared).mode & 0o7777).toBe(0o1777);
  });

  test("another user's directory is refused and left alone", async () => {
    let foreign = "/usr";
    if (process.geteuid?.() === 0) {
      foreign = join(home, "foreign");
      mkdirSync(foreign, { mode: 0o755 });
      chownSync(foreign, 65_534, 65_534);
    }
    const write = replaceVaultFile(join(foreign, "vault"), next(), { expectGeneration: null });
    await expect(write).rejects.toMatchObject({ code: "denied" });
    expect(mode(foreign)).toBe(0o755);
    expect(existsSync(join(foreign, "vault.lock"))).toBe(false);
  });
});

describe("several processes", () => {
  test("three processes that count lose nothing", async () => {
    await begin();
    const children = [1, 2, 3].map(() => child("count", path, vault.key.toHex(), "25"));
    expect(await Promise.all(children.map(async (process) => await process.exited))).toEqual([0, 0, 0]);
    expect(counter()).toBe(75);
    expect(openVaultWithKey(readVaultFile(path) ?? new Uint8Array(), vault.key).vault.generation).toBe(76);
  }, 30_000);

  test("killed thirty times: what was written stays, nothing is damaged, no stray files", async () => {
    await begin();
    for (let round = 0; round < 30; round++) {
      const writer = child("loop", path, vault.key.toHex());
      const reader = writer.stdout.getReader();
      let seen = "";
      const lines = 1 + (round % 4);
      while (seen.split("\n").length <= lines) {
        const { value, done } = await reader.read();
        if (done) throw new Error("the writer ended by itself");
        seen += new TextDecoder().decode(value);
      }
      // somewhere within the next write
      await Bun.sleep((round * 7) % 5);
      writer.kill("SIGKILL");
      await writer.exited;
      for (let rest = await reader.read(); !rest.done; rest = await reader.read()) {
        seen += new TextDecoder().decode(rest.value);
      }
      const acknowledged = Number(seen.trimEnd().split("\n").at(-1));
      expect(counter()).toBeGreaterThanOrEqual(acknowledged);
      expect(entries().filter((entry) => entry.includes(".tmp-"))).toEqual([]);
      expect(openVaultWithKey(readPreviousVaultFile(path) ?? new Uint8Array(), vault.key).body.length).toBeGreaterThan(
        0,
      );
      expect(readPending(path)).not.toBeNull();
    }
  }, 60_000);

  test("a full disk is a storage fault and leaves the old file", async () => {
    const bytes = await begin();
    // the limit counts blocks of 512 or 1,024 bytes; 100,000 bytes exceed it either way
    const command = `ulimit -f 32; exec "$0" "$@"`;
    const limited = Bun.spawn(
      ["sh", "-c", command, process.execPath, CHILD, "once", path, vault.key.toHex(), "100000"],
      {
        stdout: "pipe",
        stderr: "ignore",
      },
    );
    expect(await limited.stdout.text()).toBe("storage");
    expect(contents(path)).toEqual(bytes);
    expect(entries()).toEqual(["vault", "vault.lock"]);
    const free = child("once", path, vault.key.toHex(), "100000");
    expect(await free.stdout.text()).toBe("written");
  });
});

describe("locks", () => {
  const methods: LockMethod[] = ["flock", "owner-file"];

  test.each(methods)("%s: one holder at a time, also within a process", async (method) => {
    const file = join(home, "lock");
    const first = tryFileLock(file, method);
    expect(first).not.toBeNull();
    expect(tryFileLock(file, method)).toBeNull();
    await expect(takeFileLock(file, { timeoutMs: 30, method })).rejects.toMatchObject({ code: "timed_out" });
    const waiting = takeFileLock(file, { timeoutMs: 5_000, method });
    first?.release();
    const second = await waiting;
    first?.release();
    expect(tryFileLock(file, method)).toBeNull();
    second.release();
    tryFileLock(file, method)?.release();
  });

  test.each(methods)("%s: another process's lock ends when it is killed", async (method) => {
    const file = join(home, "lock");
    const holder = child("hold", file, "", method);
    await holder.stdout.getReader().read();
    expect(tryFileLock(file, method)).toBeNull();
    holder.kill("SIGKILL");
    await holder.exited;
    const lock = tryFileLock(file, method);
    expect(lock).not.toBeNull();
    lock?.release();
    expect(readdirSync(home).filter((entry) => /owner\..|dead/.test(entry))).toEqual([]);
  });

  test("owner-file: a reused process id is told by its start time", () => {
    const file = join(home, "lock");
    writeFileSync(`${file}.owner`, `${process.pid} 1 x`);
    const lock = tryFileLock(file, "owner-file");
    expect(lock).not.toBeNull();
    lock?.release();
    expect(existsSync(`${file}.owner`)).toBe(false);
  });

  test("flock: a lock file that was replaced meanwhile does not count", () => {
    const file = join(home, "lock");
    const old = tryFileLock(file, "flock");
    rmSync(file);
    const fresh = tryFileLock(file, "flock");
    expect(fresh).not.toBeNull();
    expect(tryFileLock(file, "flock")).toBeNull();
    old?.release();
    fresh?.release();
  });

  test("the vault's lock gives up after its time and names no path of a secret", async () => {
    await withVaultLock(path, async () => {
      const second = withVaultLock(path, async () => undefined, { timeoutMs: 20 });
      await expect(second).rejects.toMatchObject({ code: "timed_out" });
    });
  });

  test("the vault's lock is released when the work fails", async () => {
    const failing = withVaultLock(path, () => Promise.reject(new Error("work")));
    await expect(failing).rejects.toThrow("work");
    await withVaultLock(path, async () => undefined, { timeoutMs: 0 });
  });

  test("a lock of another vault does not serve", async () => {
    await withVaultLock(path, async (lock) => {
      const write = writePending(join(home, "data", "other"), utf8("x"), { lock });
      await expect(write).rejects.toMatchObject({ code: "internal" });
    });
  });
});
