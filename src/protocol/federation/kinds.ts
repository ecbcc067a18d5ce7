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
