/** Servers of a federation at most; indices are 1 to 255, so that none is ever used again. */
export const SERVERS_MAX = 32;

/** What a federation makes keys of (docs/protocol.md §8.6). */
export const FEDERATED_TYPES = ["bytes", "ed25519", "schnorr", "secp256k1", "p256", "ristretto255"] as const;
export type FederatedType = (typeof FEDERATED_TYPES)[number];
/** `self`: the owner keeps an additive part, without which the servers' shares make no key. */
export const CUSTODIES = ["self", "delegated"] as const;
export type Custody = (typeof CUSTODIES)[number];
/** `shared`: the key's policy approves creation and each use. */
export const CONTROLS = ["unilateral", "shared"] as const;
export type Control = (typeof CONTROLS)[number];
/** Of a key that was shared out: `imported` by its owner, or `custodial` where a ceremony's enclave had combined it. */
export const IMPORT_ORIGINS = ["imported", "custodial"] as const;
export type ImportOrigin = (typeof IMPORT_ORIGINS)[number];
/** What an import is called where it is signed and sent: its owner's word on where the secret comes from. */
export const importKind = (origin: ImportOrigin): "import" | "import-custodial" =>
  origin === "custodial" ? "import-custodial" : "import";
/** Where a key comes from, for good: the servers made it, or as in {@link IMPORT_ORIGINS}. */
export const KEY_ORIGINS = ["generated", ...IMPORT_ORIGINS] as const;
export type KeyOrigin = (typeof KEY_ORIGINS)[number];

/**
 * How the message of a use is read: as it is, as a digest that is not hashed again, or as an unsigned transaction
 * whose sighash each server computes for itself (docs/protocol.md §8.12).
 */
export const SIGN_FORMS = ["message", "digest", "evm", "bitcoin"] as const;
export type SignForm = (typeof SIGN_FORMS)[number];
