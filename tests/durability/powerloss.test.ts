import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { emptyDisk } from "../support/diskimage.ts";
import { seeded } from "../support/seeded.ts";
import { testNeeding } from "../support/skip.ts";
import { readTrace } from "../support/strace.ts";
import { storeLoss, vaultLoss } from "./powerloss.ts";

setDefaultTimeout(120_000);

const STORE = { transactions: 130, writers: 3, images: 250, seed: 11 } as const;
const VAULT = { rounds: 20, images: 250, seed: 12 } as const;

describe("the embedded store", () => {
  testNeeding("strace", "whatever a power loss leaves, every acknowledged commit is there and all fits", async () => {
    const { lost, corrupt, images, acknowledged } = await storeLoss(STORE);
    expect({ lost, corrupt, images, acknowledged }).toEqual({ lost: 0, corrupt: [], images: 250, acknowledged: 130 });
  });

  testNeeding("strace", "control: commits that are not synced are lost, so the images would show a loss", async () => {
    const { losing, corrupt } = await storeLoss({ ...STORE, images: 60, control: "relaxed" });
    expect(losing).toBeGreaterThan(6);
    // the log of SQLite stays whole all the same: only what was acknowledged goes
    expect(corrupt).toEqual([]);
  });

  testNeeding("strace", "control: on a disk that does not sync at all the database is damaged too", async () => {
    const { losing, corrupt } = await storeLoss({ ...STORE, images: 60, control: "lying" });
    expect(losing).toBeGreaterThan(6);
    expect(corrupt.length).toBeGreaterThan(0);
  });
});

describe("the vault file", () => {
  testNeeding(
    "strace",
    "whatever a power loss leaves, the acknowledged vault and request are there and open",
    async () => {
      const { lost, corrupt, images, acknowledged } = await vaultLoss(VAULT);
      expect({ lost, corrupt, images, acknowledged }).toEqual({ lost: 0, corrupt: [], images: 250, acknowledged: 61 });
    },
  );

  testNeeding("strace", "control: without its syncs the vault is lost and damaged", async () => {
    const { losing, corrupt } = await vaultLoss({ ...VAULT, images: 60, control: "lying" });
    expect(losing).toBeGreaterThan(6);
    expect(corrupt.length).toBeGreaterThan(6);
  });

  testNeeding("strace", "control: without the syncs of its directory acknowledged vaults are lost", async () => {
    const { losing } = await vaultLoss({ ...VAULT, images: 60, control: "names" });
    expect(losing).toBeGreaterThan(6);
  });
});

describe("reading a trace", () => {
  const hex = (text: string) =>
    [...Buffer.from(text)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  const lines = (...all: string[]) => all.map((line) => `7  ${line}`).join("\n");
  const OPEN = `openat(AT_FDCWD, "${hex("/d/f")}", O_RDWR|O_CREAT, 0600) = 4`;

  test("writes, syncs and names come out in order, foreign files do not", () => {
    const steps = readTrace(
      lines(
        OPEN,
        `openat(AT_FDCWD, "${hex("/e/f")}", O_RDWR|O_CREAT, 0600) = 5`,
        `write(5, "${hex("no")}", 2) = 2`,
        `write(4, "${hex("ab")}", 2) = 2`,
        `write(4, "${hex("cd")}", 2 <unfinished ...>`,
        "<... write resumed>) = 1",
        `pwrite64(4, "${hex("e")}", 1, 8) = 1`,
        "fsync(4) = 0",
        "fdatasync(4) = 0 (INJECTED)",
        `rename("${hex("/d/f")}", "${hex("/d/g")}") = 0`,
        `write(1, "${hex("done\n")}", 5) = 5`,
        `unlink("${hex("/d/missing")}") = -1 ENOENT (No such file or directory)`,
      ),
      "/d",
    );
    const bytes = (text: string) => new Uint8Array(Buffer.from(text));
    expect(steps).toEqual([
      { kind: "create", path: "/d/f", inode: 0 },
      { kind: "write", inode: 0, offset: 0, bytes: bytes("ab") },
      { kind: "write", inode: 0, offset: 2, bytes: bytes("c") },
      { kind: "write", inode: 0, offset: 8, bytes: bytes("e") },
      { kind: "sync", inode: 0 },
      { kind: "rename", inode: 0, from: "/d/f", to: "/d/g" },
      { kind: "say", text: "done\n" },
    ]);
  });

  test("what it cannot read it refuses, so that no write is overlooked", () => {
    for (const line of ["writev(4, [{iov_base=0x1, iov_len=1}], 1) = 1", "fallocate(4, 0, 0, 5) = 0", "dup(4) = 9"]) {
      expect(() => readTrace(lines(OPEN, line), "/d")).toThrow();
    }
    expect(() =>
      readTrace(lines(OPEN, "mmap(NULL, 9, PROT_READ|PROT_WRITE, MAP_SHARED, 4, 0) = 0x7f00"), "/d"),
    ).toThrow();
  });

  test("an image holds what was synced, and everything else only sometimes", () => {
    const contents = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const disk = emptyDisk();
      disk.apply({ kind: "create", path: "/d/f", inode: 0 });
      disk.apply({ kind: "write", inode: 0, offset: 0, bytes: new Uint8Array(1_024).fill(1) });
      disk.apply({ kind: "sync", inode: 0 });
      disk.apply({ kind: "sync-directory", path: "/d" });
      disk.apply({ kind: "write", inode: 0, offset: 512, bytes: new Uint8Array(1_024).fill(2) });
      const [bytes = new Uint8Array(0)] = disk.image(seeded(seed)).values();
      expect(bytes.subarray(0, 512)).toEqual(new Uint8Array(512).fill(1));
      contents.add(`${bytes.length} ${bytes[512]} ${bytes[1_024]}`);
    }
    // nothing, all, the first sector alone, the second alone
    expect([...contents].sort()).toEqual(["1024 1 undefined", "1024 2 undefined", "1536 1 2", "1536 2 2"]);
  });
});
