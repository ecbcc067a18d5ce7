import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { type Attempted, type Journal, openJournal } from "../../src/enclave/journal.ts";
import type { Fault } from "../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId } from "../../src/ids.ts";

const KEY = new Uint8Array(32).fill(1);
const id = (n: number): string => n.toString(16).padStart(2, "0").repeat(32);
const request = (n: number) => id(n) as FederatedRequestId;

const record = (n: number, attempt = 1, atMs = 1_000 * n): Attempted => ({
  requestId: request(n),
  attempt,
  action: "sign",
  requester: new Uint8Array(32).fill(n),
  keyId: id(200) as FederatedKeyId,
  amount: { unit: "EUR", value: "12" },
  atMs,
});
const mark = (number: number, hash = number) =>
  ({ scope: "key", id: id(200) as FederatedKeyId, number, hash: new Uint8Array(32).fill(hash) }) as const;

let directory: string;
let path: string;
const opened: Journal[] = [];

function open(key = KEY): Journal {
  const journal = openJournal(path, key);
  opened.push(journal);
  return journal;
}

const codeOf = (work: () => unknown): string => {
  try {
    work();
    return "ok";
  } catch (error) {
    return (error as Fault).code;
  }
};

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "keyhold-journal-"));
  path = join(directory, "journal");
  writeFileSync(path, "", { mode: 0o600 });
});
afterEach(() => {
  for (const journal of opened.splice(0)) journal.close();
  rmSync(directory, { recursive: true, force: true });
});

describe("a journal", () => {
  test("remembers attempts and marks over a restart", () => {
    const first = open();
    first.attempted(record(1));
    first.attempted(record(2));
    first.attempted(record(1, 2, 9_000));
    first.mark(mark(0));
    first.mark(mark(1));
    for (const journal of [first, open()]) {
      // an attempt after the first is the same use, at the same time
      expect(journal.attemptOf(request(1))).toEqual({ ...record(1, 2), atMs: 1_000 });
      expect(journal.attemptOf(request(3))).toBeUndefined();
      expect(journal.marked("key", mark(1).id)).toEqual(mark(1));
      expect(journal.marked("policy", mark(1).id)).toBeUndefined();
      expect(journal.since(0).map(({ requestId }) => requestId)).toEqual([request(1), request(2)]);
      expect(journal.since(1_001).map(({ requestId }) => requestId)).toEqual([request(2)]);
      expect(journal.since(2_001)).toEqual([]);
    }
  });

  test("counts all of a window although the clock was put back meanwhile", () => {
    const journal = open();
    for (const [n, atMs] of [
      [1, 5_000],
      [2, 1_000],
      [3, 6_000],
    ] as const)
      journal.attempted(record(n, 1, atMs));
    expect(journal.since(5_000).map(({ requestId }) => requestId)).toEqual([request(1), request(3)]);
  });

  test("is on disk when the call returns", () => {
    const journal = open();
    journal.attempted(record(1));
    expect(readFileSync(path, "utf8")).toContain(request(1));
  });

  test("a mark goes up alone, and one number has one hash", () => {
    const journal = open();
    journal.mark(mark(3));
    const size = statSync(path).size;
    journal.mark(mark(3));
    expect(statSync(path).size).toBe(size);
    expect(codeOf(() => journal.mark(mark(2)))).toBe("stale");
    expect(codeOf(() => journal.mark(mark(3, 4)))).toBe("conflict");
    journal.mark({ ...mark(1), scope: "policy" });
    expect(journal.marked("key", mark(3).id)?.number).toBe(3);
  });

  test("takes nothing more once a write failed", () => {
    const journal = open();
    journal.close();
    opened.splice(0);
    expect(codeOf(() => journal.attempted(record(1)))).toBe("storage");
    expect(codeOf(() => journal.attempted(record(1)))).toBe("storage");
    expect(open().attemptOf(request(1))).toBeUndefined();
  });
});

describe("a journal that was touched", () => {
  function written(count: number): Buffer {
    const journal = open();
    for (let n = 1; n <= count; n++) journal.attempted(record(n));
    journal.mark(mark(1));
    return readFileSync(path);
  }

  test("a torn tail is cut off, wherever it broke, and the journal goes on", () => {
    const whole = written(2);
    const lines = whole.toString().split("\n");
    const lastStart = whole.length - Buffer.byteLength(`${lines[2]}\n`);
    for (let end = lastStart; end < whole.length; end++) {
      writeFileSync(path, whole.subarray(0, end));
      const journal = openJournal(path, KEY);
      expect(statSync(path).size).toBe(lastStart);
      expect(journal.attemptOf(request(2))?.attempt).toBe(1);
      expect(journal.marked("key", mark(1).id)).toBeUndefined();
      journal.attempted(record(3));
      journal.close();
      const again = openJournal(path, KEY);
      expect(again.attemptOf(request(3))?.attempt).toBe(1);
      again.close();
    }
  });

  test("zeros that a power cut left behind the last record are cut off", () => {
    const whole = written(1);
    appendFileSync(path, new Uint8Array(512));
    expect(open().attemptOf(request(1))?.attempt).toBe(1);
    expect(statSync(path).size).toBe(whole.length);
  });

  test("each changed byte of a whole record is refused", () => {
    const whole = new Uint8Array(written(2));
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), (at, bit) => {
        const other = whole.slice();
        other[at] = (other[at] ?? 0) ^ bit;
        writeFileSync(path, other);
        const lastLine = at >= whole.lastIndexOf(10, whole.length - 2) + 1;
        // without its newline the last record is a torn one
        const torn =
          lastLine &&
          other[whole.length - 1] !== 10 &&
          other.indexOf(10, whole.lastIndexOf(10, whole.length - 2) + 1) < 0;
        const code = codeOf(() => openJournal(path, KEY).close());
        expect(code).toBe(torn ? "ok" : "corrupt");
      }),
      { numRuns: 300 },
    );
  });

  test("a record taken out, put in twice or moved is refused", () => {
    const lines = written(3).toString("utf8").trimEnd().split("\n") as [string, string, string, string];
    const [a, b, c, d] = lines;
    for (const wrong of [
      [b, c, d],
      [a, c, d],
      [a, b, d],
      [a, a, b, c, d],
      [b, a, c, d],
      [a, b, c, d, d],
      [a, c],
    ]) {
      writeFileSync(path, `${wrong.join("\n")}\n`);
      expect([wrong.length, codeOf(open)]).toEqual([wrong.length, "corrupt"]);
    }
    writeFileSync(path, `${lines.join("\n")}\n`);
    expect(codeOf(open)).toBe("ok");
  });

  test("another enclave's journal is refused", () => {
    written(1);
    expect(codeOf(() => open(new Uint8Array(32).fill(2)))).toBe("corrupt");
  });

  test("one that is gone is not made anew", () => {
    rmSync(path);
    expect(codeOf(open)).toBe("not_found");
  });
});

describe("kill -9", () => {
  const CHILD = join(import.meta.dir, "../support/journalchild.ts");

  test("at any moment leaves every record that was reported, whole", async () => {
    for (const afterMs of [0, 3, 9]) {
      const child = Bun.spawn([process.execPath, CHILD, path], { stdout: "pipe", stderr: "inherit" });
      let reported = 0;
      const enough = Promise.withResolvers<void>();
      const reading = (async () => {
        for await (const chunk of child.stdout) {
          reported += chunk.filter((byte) => byte === 10).length;
          if (reported > 20) enough.resolve();
        }
      })();
      await enough.promise;
      await Bun.sleep(afterMs);
      child.kill("SIGKILL");
      await Promise.all([child.exited, reading]);
      const journal = openJournal(path, KEY);
      const kept = journal.since(0).length;
      journal.close();
      expect(kept).toBeGreaterThanOrEqual(reported);
      writeFileSync(path, "");
    }
  });
});
