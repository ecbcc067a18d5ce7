import { closeSync, fsyncSync, openSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { Fault } from "../../errors.ts";

function sync(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a consistent copy of a database, in a Worker, so that requests go on: durable on return.
 *
 * @param to A file that does not exist; made with the process's umask.
 * @throws Fault storage, exists
 */
export async function snapshot(from: string, to: string): Promise<void> {
  const worker = new Worker(new URL("./snapshot.worker.ts", import.meta.url));
  try {
    const error = await new Promise<string | null>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<{ error: string | null }>) => resolve(data.error);
      worker.onerror = () => reject(new Fault("internal", "the copy of the database failed"));
      worker.postMessage({ from, to });
    });
    if (error !== null) {
      throw new Fault("storage", "cannot copy the database", { why: `SQLite says ${error}.` });
    }
    sync(to);
    if (process.platform !== "win32") sync(dirname(to));
  } catch (error) {
    rmSync(to, { force: true });
    throw error;
  } finally {
    worker.terminate();
  }
}
