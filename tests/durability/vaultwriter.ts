import { readFileSync, writeFileSync, writeSync } from "node:fs";
import {
  clearPending,
  readVaultFile,
  removeVaultFile,
  replaceVaultFile,
  withVaultLock,
  writePending,
} from "../../src/client/vaultfile.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { createVault, openVaultWithKey, sealPending, writeVault } from "../../src/protocol/vault.ts";
import { vaultBody } from "./vaultcheck.ts";

/**
 * Writes a vault as commands do, again and again: `vaultwriter.ts PATH KEYFILE TIMES [forever]`. Each round keeps a
 * pending request, replaces the vault, and drops the request; each step is said once it is durable. The key goes to
 * KEYFILE, outside the vault's directory, for whoever checks.
 */

const [path = "", keyFile = "", times = "1", mode = ""] = process.argv.slice(2);
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
const say = (text: string) => writeSync(1, `${text}\n`);

/** Opens what is there, or makes the first generation. */
async function begin(): Promise<Uint8Array> {
  if (readVaultFile(path) !== null) return Uint8Array.fromHex(readFileSync(keyFile, "utf8"));
  await removeVaultFile(path);
  const vault = await createVault(
    new TextEncoder().encode("a long enough password"),
    { cost: KDF.test, allowTestKdf: true },
    random,
  );
  writeFileSync(keyFile, vault.key.toHex());
  await replaceVaultFile(path, writeVault(vault, vaultBody(0), random), { expectGeneration: null });
  say("vault 0");
  return vault.key;
}

const key = await begin();
for (let round = 0; mode === "forever" || round < Number(times); round++) {
  await withVaultLock(path, async (lock) => {
    const { vault, body } = openVaultWithKey(readVaultFile(path) ?? new Uint8Array(0), key);
    const next = Number.parseInt(new TextDecoder().decode(body), 10) + 1;
    await writePending(path, sealPending(vault, vaultBody(next), random), { lock });
    say(`pending ${next}`);
    // every so often the generation before is not kept, as after a purge
    await replaceVaultFile(path, writeVault(vault, vaultBody(next), random), {
      expectGeneration: vault.generation,
      lock,
      forgetPrevious: next % 7 === 0,
    });
    say(`vault ${next}`);
    await clearPending(path, { lock });
    say(`dropped ${next}`);
  });
}
