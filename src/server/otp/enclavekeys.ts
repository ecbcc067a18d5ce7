import { Fault } from "../../errors.ts";
import type { Tx } from "../../storage/store.ts";
import type { CeremonyKeys, KeyInUse } from "../ceremony/keys.ts";
import type { KeyStoreSite } from "../ceremony/service.ts";

/** A key pair of this server to which something was sealed. @throws Fault stale once it is gone, corrupt */
export async function keyInUse(keys: Pick<CeremonyKeys, "find">, tx: Tx, number: number): Promise<KeyInUse> {
  const found = await keys.find(tx, number);
  if (!found) throw new Fault("stale", "the server no longer has the key that this was sealed to");
  return { statement: found.statement, sealed: found.sealed };
}

/** Asks the enclave for its identity once; 32 bytes. */
export function enclaveIdentity({ enclave }: Pick<KeyStoreSite, "enclave">): () => Promise<Uint8Array> {
  let known: Uint8Array | undefined;
  return async () => {
    known ??= (await enclave.call("info", {})).identity;
    return known;
  };
}
