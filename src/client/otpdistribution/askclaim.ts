import { rmSync } from "node:fs";
import { type FileLock, tryFileLock } from "../../wire/filelock.ts";

/** An ask that one call waits for: no other call takes it for one whose answer was lost. */
export interface AskClaim {
  /** Gives it up; `settled` once nobody will send the ask again. */
  end(settled: boolean): void;
}

const NAME_DIGITS = 32;

/**
 * Claims an ask of a vault for one call, until that ends or its process does; null where another call, of this process
 * or of another one, has it.
 *
 * @param nonce Of the ask.
 * @throws Fault denied, storage
 */
export function claimAsk(vaultPath: string, nonce: Uint8Array): AskClaim | null {
  const path = `${vaultPath}.ask-${nonce.toHex().slice(0, NAME_DIGITS)}`;
  const lock: FileLock | null = tryFileLock(path);
  return (
    lock && {
      end(settled) {
        if (settled) rmSync(path, { force: true });
        lock.release();
      },
    }
  );
}
