import { readVaultFile, replaceVaultFile, withVaultLock, writePending } from "../../src/client/vaultfile.ts";
import { openVaultWithKey, writeVault } from "../../src/protocol/vault.ts";
import { type LockMethod, takeFileLock } from "../../src/wire/filelock.ts";

/** A second process for tests/client/vaultfile.test.ts: `vaultchild.ts JOB PATH KEYHEX [ARGUMENT]`. */

const [job, path = "", keyHex = "", argument = ""] = process.argv.slice(2);
const key = Uint8Array.fromHex(keyHex);
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

/** Reads the counter in the vault's body and writes it back plus one, padded to `size` bytes. */
async function increment(size: number): Promise<number> {
  return await withVaultLock(path, async (lock) => {
    const { vault, body } = openVaultWithKey(readVaultFile(path) ?? new Uint8Array(), key);
    const next = Number(new TextDecoder().decode(body)) + 1;
    const text = new TextEncoder().encode(String(next).padEnd(size));
    await replaceVaultFile(path, writeVault(vault, text, random), { expectGeneration: vault.generation, lock });
    await writePending(path, text, { lock });
    return next;
  });
}

if (job === "count") {
  for (let i = 0; i < Number(argument); i++) await increment(1);
} else if (job === "loop") {
  for (;;) {
    const counter = await increment(20_000);
    process.stdout.write(`${counter}\n`);
  }
} else if (job === "once") {
  try {
    await increment(Number(argument));
    process.stdout.write("written");
  } catch (error) {
    process.stdout.write(error instanceof Error && "code" in error ? String(error.code) : "unknown");
  }
} else if (job === "hold") {
  await takeFileLock(path, { timeoutMs: 5_000, method: argument as LockMethod });
  process.stdout.write("held\n");
  await new Promise(() => setInterval(() => undefined, 1_000));
}
