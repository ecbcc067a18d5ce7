import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { temporaryDirectories } from "./temporary.ts";

const directories = temporaryDirectories();
afterAll(directories.clean);

const WRITER = join(import.meta.dir, "writer.ts");
const KILLS = 10;
const ROUND = 1_000_000;
const LIMIT_MS = 60_000;

/** Lines that a child said whole; stops it with SIGKILL once it said `killAfter`. */
async function linesOf(command: string[], killAfter = Number.POSITIVE_INFINITY): Promise<string[]> {
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  const decoder = new TextDecoder();
  let text = "";
  let count = 0;
  for await (const chunk of child.stdout) {
    const part = decoder.decode(chunk, { stream: true });
    text += part;
    count += part.split("\n").length - 1;
    if (count >= killAfter) child.kill("SIGKILL");
  }
  await child.exited;
  return text.split("\n").slice(0, -1);
}

/** Both halves of each acknowledged row are there, and no half stands alone. */
async function expectWhole(path: string, acknowledged: readonly number[]): Promise<void> {
  const store = await openSqlite(path);
  expect(await store.check()).toEqual([]);
  await store.transaction(async (tx) => {
    for (const n of acknowledged) {
      expect((await tx.setting(`a${n}`))?.length).toBe(500);
      expect((await tx.setting(`b${n}`))?.length).toBe(500);
    }
    const last = Math.max(...acknowledged);
    for (let n = last; n < last + 300; n += 1) {
      expect((await tx.setting(`a${n}`)) === undefined).toBe((await tx.setting(`b${n}`)) === undefined);
    }
  });
  await store.close();
}

test(
  "kill -9 in a stream of writes loses none that was acknowledged",
  async () => {
    const path = join(directories.make(), "keyhold.db");
    const acknowledged: number[] = [];
    for (let round = 0; round < KILLS; round += 1) {
      const command = [process.execPath, WRITER, path, String(round * ROUND), "16"];
      const lines = await linesOf(command, 1 + round * 40);
      expect(lines.length).toBeGreaterThan(0);
      expect(lines.some((line) => line.startsWith("fault"))).toBe(false);
      acknowledged.push(...lines.map(Number));
      await expectWhole(path, acknowledged);
    }
  },
  LIMIT_MS,
);

test.skipIf(process.platform === "win32")(
  "a file that cannot grow is a storage fault; what was acknowledged stays and reading goes on",
  async () => {
    const path = join(directories.make(), "keyhold.db");
    // 1,000 blocks of 512 or 1,024 bytes; the ignored signal turns the limit into a failing write.
    const script = `trap '' XFSZ; ulimit -f 1000; exec "$0" "$@"`;
    const lines = await linesOf(["sh", "-c", script, process.execPath, WRITER, path, "0", "8"]);
    expect(lines.slice(-2)).toEqual(["fault storage", "read 500"]);
    const acknowledged = lines.slice(0, -2).map(Number);
    expect(acknowledged.length).toBeGreaterThan(10);
    await expectWhole(path, acknowledged);
  },
  LIMIT_MS,
);
