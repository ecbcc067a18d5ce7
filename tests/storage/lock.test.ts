import { afterAll, describe, expect, test } from "bun:test";
import { statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { lockDirectory } from "../../src/storage/lock.ts";
import type { LockMethod } from "../../src/wire/filelock.ts";
import { rejection } from "./rejection.ts";
import { temporaryDirectories } from "./temporary.ts";

const directories = temporaryDirectories();
afterAll(directories.clean);

const HOLDER = join(import.meta.dir, "lockholder.ts");

async function startHolder(directory: string, method: LockMethod) {
  const child = Bun.spawn([process.execPath, HOLDER, directory, method], { stdin: "ignore", stdout: "pipe" });
  const reader = child.stdout.getReader();
  await reader.read();
  return {
    pid: child.pid,
    kill: async () => {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

const METHODS: readonly LockMethod[] = process.platform === "win32" ? ["owner-file"] : ["flock", "owner-file"];

describe.each(METHODS)("a directory's lock by %s", (method) => {
  test("is held once, even in one process, and free again after its release", async () => {
    const directory = directories.make();
    const lock = await lockDirectory(directory, method);
    const fault = await rejection(lockDirectory(directory, method));
    expect(fault).toMatchObject({
      code: "conflict",
      message: `cannot use "${directory}": another keyhold (pid ${process.pid}) holds it`,
    });
    await lock.release();
    await lock.release();
    const again = await lockDirectory(directory, method);
    await again.release();
    expect(statSync(join(directory, "lock")).mode & 0o777).toBe(0o600);
  });

  test("names the process that holds it, and ends when that is killed", async () => {
    const directory = directories.make();
    const holder = await startHolder(directory, method);
    try {
      expect(await rejection(lockDirectory(directory, method))).toMatchObject({
        code: "conflict",
        message: expect.stringContaining(`(pid ${holder.pid})`),
      });
    } finally {
      await holder.kill();
    }
    const lock = await lockDirectory(directory, method);
    await lock.release();
  });

  test("is given to one of many that ask at once", async () => {
    const directory = directories.make();
    const asked = await Promise.allSettled(Array.from({ length: 20 }, () => lockDirectory(directory, method)));
    const won = asked.filter((result) => result.status === "fulfilled");
    expect(won.length).toBe(1);
    for (const lock of won) await lock.value.release();
  });

  test("is a fault where the directory is not there", async () => {
    const missing = join(directories.make(), "none");
    expect(await rejection(lockDirectory(missing, method))).toMatchObject({ code: "storage" });
  });
});

test.skipIf(process.platform === "win32")("a symbolic link in the lock's place is not followed", async () => {
  const directory = directories.make();
  const target = join(directories.make(), "target");
  writeFileSync(target, "theirs");
  symlinkSync(target, join(directory, "lock"));
  expect(await rejection(lockDirectory(directory))).toMatchObject({ code: "denied" });
});
