import { existsSync, readdirSync } from "node:fs";
import { dirname } from "node:path";
import { readPending, readPreviousVaultFile, readVaultFile, withVaultLock } from "../../src/client/vaultfile.ts";
import { openPending, openVaultWithKey, type Vault } from "../../src/protocol/vault.ts";
import type { Recovered } from "./storecheck.ts";

/** Body of round `n`: its number, and a length that differs from round to round. */
export const vaultBody = (n: number): Uint8Array =>
  new TextEncoder().encode(`${n} `.padEnd(2_000 + ((n * 1_237) % 9_000), "v"));

const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const numberOf = (body: Uint8Array) => Number.parseInt(new TextDecoder().decode(body.subarray(0, 12)), 10);

/** Highest number said after a word. */
function newest(said: readonly string[], word: string): number {
  const numbers = said.filter((line) => line.startsWith(`${word} `)).map((line) => Number(line.slice(word.length + 1)));
  return numbers.length === 0 ? -1 : (numbers.at(-1) ?? -1);
}

/**
 * Opens a vault as the next command does and holds it to what vaultwriter.ts said.
 *
 * @param unsaid Rounds that may have been written without a word at most.
 */
export async function recoverVault(
  path: string,
  key: Uint8Array,
  said: readonly string[],
  unsaid = 1,
): Promise<Recovered> {
  const lost: number[] = [];
  const corrupt: string[] = [];
  const [written, pending, dropped] = [newest(said, "vault"), newest(said, "pending"), newest(said, "dropped")];
  try {
    const bytes = readVaultFile(path);
    let vault: Vault | null = null;
    if (bytes === null) {
      if (written >= 0) lost.push(written);
    } else {
      const opened = openVaultWithKey(bytes, key);
      ({ vault } = opened);
      const number = numberOf(opened.body);
      if (!same(opened.body, vaultBody(number))) corrupt.push("the vault holds something else");
      if (number < written) lost.push(written);
      if (number > Math.max(written, 0) + unsaid)
        corrupt.push(`the vault is of round ${number}, ${written} was the last`);
    }
    const previous = readPreviousVaultFile(path);
    if (previous) openVaultWithKey(previous, key);
    const sealed = readPending(path);
    if (sealed && vault) {
      if (numberOf(openPending(vault, sealed)) <= dropped) corrupt.push("a request that was dropped came back");
    } else if (!sealed && pending > Math.max(written, dropped)) {
      // kept before it was to be sent: without it nobody knows what became of the change
      if (!vault || numberOf(openVaultWithKey(bytes ?? new Uint8Array(0), key).body) < pending) lost.push(pending);
    }
    await withVaultLock(path, async () => undefined);
    const stray = existsSync(dirname(path)) ? readdirSync(dirname(path)).filter((name) => name.includes(".tmp-")) : [];
    if (stray.length > 0) corrupt.push(`stray files: ${stray.join(", ")}`);
  } catch (error) {
    corrupt.push(`it does not open: ${String(error)}`);
  }
  return { lost, corrupt };
}
