import { describe, expect, test } from "bun:test";
import { createHmac } from "node:crypto";
import { join } from "node:path";
import { wipe } from "../../src/crypto/bytes.ts";
import { xaesOpen, xaesSeal } from "../../src/crypto/xaes.ts";
import { lockKey } from "../../src/wire/lockedmemory.ts";
import { testUnless } from "../support/skip.ts";

const MODULE = join(import.meta.dir, "..", "..", "src", "wire", "lockedmemory.ts");

const key = (first: number, length = 32) => Uint8Array.from({ length }, (_, i) => (first + i) & 0xff);

describe("lockKey", () => {
  test("gives the same bytes, usable as a key, and wipes where they were if it moved them", () => {
    const given = key(7);
    const locked = lockKey(given);
    expect(locked).toEqual(key(7));
    if (locked !== given) expect(given).toEqual(new Uint8Array(32));
    const sealed = xaesSeal(locked, key(1, 24), new Uint8Array(), key(9));
    expect(xaesOpen(key(7), key(1, 24), new Uint8Array(), sealed)).toEqual(key(9));
    expect(createHmac("sha256", locked).update("x").digest()).toEqual(
      createHmac("sha256", key(7)).update("x").digest(),
    );
  });

  test("keys do not overlap, and each has a buffer of its own", () => {
    const all = Array.from({ length: 20 }, (_, i) => lockKey(key(i, (i % 64) + 1)));
    for (const [i, one] of all.entries()) {
      expect(one).toEqual(key(i, (i % 64) + 1));
      expect(one.buffer.byteLength).toBe(one.length);
    }
    wipe(all[3]);
    expect(all[4]).toEqual(key(4, 5));
    expect(all[2]).toEqual(key(2, 3));
  });

  test("what is too long or empty stays where it is, and so does one too many", () => {
    for (const length of [0, 65, 4_096]) {
      const given = key(1, length);
      expect(lockKey(given)).toBe(given);
      expect(given).toEqual(key(1, length));
    }
    const many = Array.from({ length: 600 }, (_, i) => lockKey(key(i)));
    expect(many.every((one, i) => Buffer.compare(one, key(i)) === 0)).toBe(true);
    const last = key(5);
    expect(lockKey(last)).toBe(last);
  });
});

const linux = process.platform === "linux" ? undefined : "needs Linux";

/** Runs code with `lockKey` in scope under a limit of locked memory; gives what it prints as JSON. */
async function inChild(limitKib: number, code: string): Promise<ReturnType<typeof JSON.parse>> {
  const script = `import { readFileSync } from "node:fs";
    import { lockKey } from ${JSON.stringify(MODULE)};
    const locked = () => Number(/^VmLck:\\s+(\\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);
    ${code}`;
  // as root the limit binds only without the capability to ignore it
  const drop = process.getuid?.() === 0 ? 'setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock -- "$@"' : '"$@"';
  const child = Bun.spawn(
    ["bash", "-c", `ulimit -l ${limitKib} && exec ${drop}`, "bash", process.execPath, "-e", script],
    { stdin: "ignore", stdout: "pipe", stderr: "inherit" },
  );
  return JSON.parse(await child.stdout.text());
}

testUnless(linux, "the memory is locked where the limit allows it", async () => {
  const [before, after, moved] = await inChild(
    64,
    `const before = locked(); const given = new Uint8Array(32).fill(5); const kept = lockKey(given);
     console.log(JSON.stringify([before, locked(), kept !== given && kept[31] === 5 && given[0] === 0]));`,
  );
  expect([before, after, moved]).toEqual([0, 32, true]);
});

testUnless(linux, "where it does not, keys stay usable in ordinary memory", async () => {
  const found = await inChild(
    0,
    `const given = new Uint8Array(32).fill(5);
     console.log(JSON.stringify([lockKey(given) === given, given[31], locked()]));`,
  );
  expect(found).toEqual([true, 5, 0]);
});

testUnless(linux, "a slot that nobody reaches any more is cleared and used again", async () => {
  const found = await inChild(
    64,
    `for (let round = 0; round < 20; round++) {
       for (let i = 0; i < 500; i++) lockKey(new Uint8Array(32).fill(5));
       Bun.gc(true);
       await new Promise((done) => setTimeout(done, 1));
     }
     const given = new Uint8Array(64).fill(6);
     console.log(JSON.stringify([lockKey(given) !== given, locked()]));`,
  );
  expect(found).toEqual([true, 32]);
});
