import { createPublicKey, type KeyObject } from "node:crypto";
import { type AadContext, open, seal } from "../crypto/aead.ts";
import { concat, equalBytes, wipe } from "../crypto/bytes.ts";
import { type HpkeKeyPair, hpkeKeyPair } from "../crypto/hpke.ts";
import { generateRsa } from "../crypto/rsa.ts";
import { RSA_OAEP, rsaOaepKey } from "../crypto/rsaoaep.ts";
import { Fault } from "../errors.ts";
import type { CeremonyKey, SignedCeremonyKey } from "../protocol/ceremony/model.ts";
import { ceremonyKeyBytes, ceremonyKeyHash } from "../protocol/ceremony/records.ts";
import type { EnclaveInput, EnclaveOutput } from "./frames.ts";
import type { EnclaveParts } from "./parts.ts";

/** Private halves of a key pair for ceremonies, held by the platform. */
export interface OpenedCeremonyKey {
  readonly hpke: HpkeKeyPair;
  readonly rsa: KeyObject;
}

/** A key pair as the parent keeps it: statement, and private halves that only this enclave can open. */
export interface KeyInUse {
  readonly statement: SignedCeremonyKey;
  readonly sealed: Uint8Array;
}

/** The enclave's key pairs for ceremonies (docs/protocol.md §10.1). */
export interface CeremonyKeys {
  make(input: EnclaveInput<"ceremony.key">): Promise<EnclaveOutput<"ceremony.key">>;
  /** Opens a key pair of this enclave; the last few stay open. @throws Fault integrity */
  open(key: KeyInUse): Promise<OpenedCeremonyKey>;
  /** True if both private halves open, and are those of the statement. */
  holds(key: KeyInUse): Promise<boolean>;
  clear(): void;
}

/** Opened key pairs that stay in memory: the newest, and those in their overlap. */
const OPEN_MAX = 8;
const SEED_BYTES = 32;

/** Makes and opens key pairs for ceremonies. */
export function createCeremonyKeys({ keys, now, random }: EnclaveParts): CeremonyKeys {
  const identity = keys.signer.publicKey;
  const opened = new Map<string, OpenedCeremonyKey>();

  const context = (key: CeremonyKey): AadContext => ({
    kind: "ceremony-key",
    server: identity,
    number: key.number,
    statementHash: ceremonyKeyHash(key),
  });

  async function unseal(statement: CeremonyKey, sealed: Uint8Array): Promise<OpenedCeremonyKey> {
    const halves = open(keys.ceremonyKey, context(statement), sealed);
    const seed = halves.subarray(0, SEED_BYTES);
    try {
      return { hpke: await hpkeKeyPair(seed), rsa: rsaOaepKey(halves.subarray(SEED_BYTES)) };
    } finally {
      wipe(halves);
    }
  }

  return {
    async make({ server, number }) {
      const seed = random(SEED_BYTES);
      const rsa = await generateRsa(RSA_OAEP.bits);
      const halves = concat(seed, rsa.value);
      try {
        const { publicKey: sealing } = await hpkeKeyPair(seed);
        const key: CeremonyKey = {
          server,
          enclave: identity,
          number,
          sealing,
          rsa: rsa.publicKey,
          createdAtMs: now(),
        };
        return {
          key,
          enclaveSignature: keys.signer.sign(ceremonyKeyBytes(key)),
          sealed: seal(keys.ceremonyKey, context(key), halves, random),
        };
      } finally {
        wipe(seed, rsa.value, halves);
      }
    },
    async open({ statement: { key }, sealed }) {
      if (!equalBytes(key.enclave, identity)) throw new Fault("integrity", "this is another enclave's key");
      const name = ceremonyKeyHash(key).toHex();
      const held = opened.get(name);
      if (held) return held;
      const fresh = await unseal(key, sealed);
      const oldest = opened.keys().next();
      if (opened.size >= OPEN_MAX && !oldest.done) opened.delete(oldest.value);
      opened.set(name, fresh);
      return fresh;
    },
    async holds({ statement: { key }, sealed }) {
      const { hpke, rsa } = await unseal(key, sealed);
      const stated = createPublicKey(rsa).export({ type: "spki", format: "der" });
      return equalBytes(hpke.publicKey, key.sealing) && equalBytes(stated, key.rsa);
    },
    clear: () => opened.clear(),
  };
}
