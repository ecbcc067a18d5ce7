import type { AadContext } from "../crypto/aead.ts";
import { wipe } from "../crypto/bytes.ts";
import { type HpkeKeyPair, hpkeKeyPair } from "../crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../crypto/identity.ts";
import { deriveKey } from "../crypto/kdf.ts";
import { lockKey } from "../wire/lockedmemory.ts";

/** All that an enclave derives from its sealing key (docs/protocol.md §8.8). */
export interface EnclaveKeys {
  /** Ed25519 identity: signs messages, certificates, manifests and erasures. */
  readonly signer: Signer;
  /** X25519: what clients seal to this server. */
  readonly hpke: HpkeKeyPair;
  /** Seals shares at rest, 32 bytes. */
  readonly shareKey: Uint8Array;
  /** Authenticates the journal, 32 bytes. */
  readonly journalKey: Uint8Array;
  /** Seals values of the key store, 32 bytes. */
  readonly storeKey: Uint8Array;
  /** Seals the private halves of keys for ceremonies, and ceremonies' seeds, 32 bytes. */
  readonly ceremonyKey: Uint8Array;
  /** Authenticates one-time codes, so that a hand-out is found by its code, 32 bytes. */
  readonly tagKey: Uint8Array;
}

type Purpose = "identity" | "sealing" | "share" | "journal" | "store" | "ceremony" | "tag";

const NO_SALT = new Uint8Array(0);

function derive(sealingKey: Uint8Array, purpose: Purpose): Uint8Array {
  return deriveKey(sealingKey, 32, NO_SALT, "keyhold/v1/enclave-key", purpose);
}

/** Derives an enclave's keys. @param sealingKey 32 bytes, the caller's to wipe. */
export async function enclaveKeys(sealingKey: Uint8Array): Promise<EnclaveKeys> {
  const identity = derive(sealingKey, "identity");
  const sealing = derive(sealingKey, "sealing");
  try {
    return {
      signer: signerFromSeed(identity),
      hpke: await hpkeKeyPair(sealing),
      shareKey: lockKey(derive(sealingKey, "share")),
      journalKey: lockKey(derive(sealingKey, "journal")),
      storeKey: lockKey(derive(sealingKey, "store")),
      ceremonyKey: lockKey(derive(sealingKey, "ceremony")),
      tagKey: lockKey(derive(sealingKey, "tag")),
    };
  } finally {
    wipe(identity, sealing);
  }
}

/** What a ceremony's sealed seed is bound to. @param seedHash Of its manifest, 32 bytes. */
export const ceremonySeedContext = ({ signer }: EnclaveKeys, seedHash: Uint8Array): AadContext => ({
  kind: "ceremony-seed",
  server: signer.publicKey,
  seedHash,
});
