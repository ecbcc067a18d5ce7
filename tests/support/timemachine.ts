import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { startTestServer } from "./harness.ts";
import { type Villain, villainOver } from "./hostile.ts";

/** A server on disk that can be wound back: the villain swaps the whole database. */
export interface TimeMachine {
  readonly villain: Villain;
  /** Copies the database as it is now. */
  snapshot(): Promise<string>;
  /** Serves a copy from now on (the copy itself stays as it is). */
  serve(snapshot: string): Promise<void>;
  close(): Promise<void>;
}

/** Starts one in a directory of its own. */
export async function startTimeMachine(): Promise<TimeMachine> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-time-"));
  let count = 0;
  const fresh = (): string => {
    const path = join(directory, String(count++), "keyhold.db");
    mkdirSync(dirname(path), { mode: 0o700 });
    return path;
  };
  let path = fresh();
  const limits = { loginFreeFailures: 10_000, loginFreeFailuresPerAddress: 10_000 };
  const server = await startTestServer({ path, limits });
  const villain = villainOver(server);
  const copy = (from: string): string => {
    const to = fresh();
    for (const file of readdirSync(dirname(from))) {
      if (/\.db(-wal)?$/.test(file)) copyFileSync(join(dirname(from), file), join(dirname(to), file));
    }
    return to;
  };
  const start = async (at: string): Promise<void> => {
    path = at;
    villain.server = await startTestServer({ path, as: server, limits });
  };
  return {
    villain,
    async snapshot() {
      await villain.server.close();
      const made = copy(path);
      await start(path);
      return made;
    },
    async serve(snapshot) {
      await villain.server.close();
      await start(copy(snapshot));
    },
    async close() {
      await villain.server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
