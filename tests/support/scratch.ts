import { accessSync, constants, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Where directories live in memory: for what syncs thousands of times without the disk being what is tested. */
const MEMORY = "/dev/shm";

function base(): string {
  try {
    accessSync(MEMORY, constants.W_OK | constants.X_OK);
    return MEMORY;
  } catch {
    return tmpdir();
  }
}

/** Makes a directory for one run; the caller removes it. */
export function scratchDirectory(prefix: string): string {
  return mkdtempSync(join(base(), prefix));
}
