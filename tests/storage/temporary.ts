import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Makes directories under the system's temporary one; `clean` removes all that were made. */
export function temporaryDirectories(): { make(): string; clean(): void } {
  const made: string[] = [];
  return {
    make: () => {
      const directory = mkdtempSync(join(tmpdir(), "keyhold-storage-"));
      made.push(directory);
      return directory;
    },
    clean: () => {
      for (const directory of made.splice(0)) rmSync(directory, { recursive: true, force: true });
    },
  };
}
