import type { FederatedKeyId, FederatedRequestId, FederationId, PolicyId, UserId } from "../../ids.ts";
import {
  bool,
  bytes,
  type Codec,
  hashIdOf,
  id,
  list,
  nullable,
  type Of,
  struct,
  text,
  u53,
  uint,
} from "../../wire/codec.ts";
import {
  culprit,
  federationName,
  manifest,
  serverPin,
  serverUrl,
  signedCertificate,
  signedDecision,
  signedManifest,
  signedOrder,
  signedRequest,
} from "../../wire/federation/records.ts";
import { hash32 } from "../../wire/records.ts";
import { ceremoniesOf, ceremonyFields, NO_CEREMONIES } from "../ceremony/held.ts";
import { keyringFields, keyringsOf, NO_KEYRINGS } from "../keyring/held.ts";
import { logPinCodec } from "../logpin.ts";

/** Epochs of one federation, federations, keys and open requests of one vault at most. */
const HELD_MAX = {
  epochs: 1_024,
  federations: 64,
  keys: 100_000,
  requests: 10_000,
  attempts: 1_000,
  contacts: 8,
  policies: 256,
} as const;

/** Name of a federated key, as of a secret. */
const keyName = nullable(text({ min: 1, max: 512 }));
const index = uint(255, 1);

/** One server as this vault knows it: what is needed beside the manifest to meet the same one again. */
export const heldServer = struct({
  /** Of the manifest; 0 for a registry. */
  index: uint(255),
  /** Account there; null before the first registration. */
  userId: nullable(id<UserId>()),
  /** The account's request and approval keys are tied to it there. */
  enrolled: bool,
  /** PEM of its identity as certificate authority; null before first contact. */
  caPem: nullable(text({ min: 1, max: 65_536 })),
  /** Number of the newest statement that was verified. */
  statementNumber: u53,
  /** Log of the account there, verified up to here, with the revision of the account at that point. */
  verified: struct({ seq: u53, link: hash32, revision: u53 }),
  /** The server-wide log, as far as it was seen. */
  log: logPinCodec,
});

/** The newest link of a policy's chain that this vault has verified. */
const heldPolicy = struct({ policyId: hashIdOf<PolicyId>(), version: uint(0xffff_ffff, 1), hash: hash32 });

const federation = struct({
  federationId: hashIdOf<FederationId>(),
  name: federationName,
  /** Verified, each by the one before it; the newest last is what this vault goes by. */
  manifests: list(signedManifest, { min: 1, max: HELD_MAX.epochs }),
  joinedAtMs: u53,
  servers: list(heldServer, { max: 255 }),
  /** Policies that were seen, each with the newest link that was verified: none is taken back. */
  policies: list(heldPolicy, { max: HELD_MAX.policies }),
});

/** A federation as a kit or a device link names it: enough to find it, and to take no other for it. */
const federationPin = struct({
  federationId: hashIdOf<FederationId>(),
  name: federationName,
  epoch: uint(0xffff_ffff, 1),
  /** Hash of the manifest of that epoch. */
  hash: hash32,
  contacts: list(struct({ url: serverUrl, pin: serverPin }), { min: 1, max: HELD_MAX.contacts }),
});

export const federationPins: Codec<readonly Of<typeof federationPin>[]> = list(federationPin, {
  max: HELD_MAX.federations,
});

/** A key that this account owns. */
const key = struct({
  name: keyName,
  federationId: hashIdOf<FederationId>(),
  keyId: hashIdOf<FederatedKeyId>(),
  /** Newest generation that was accepted. */
  certificate: signedCertificate,
  /** Nonce of the request that made a self-custodial key: with F it gives the owner's part. */
  nonce: nullable(hash32),
  /** Shares were let out: control is unilateral in fact, for good. */
  released: bool,
  /** Of `bytes` imported into self custody: the value, sealed under the key; otherwise null. */
  sealed: nullable(bytes({ min: 1, max: 66_000 })),
});

/** A request that is not settled: all that is needed to go on after a kill, written before anything of it is sent. */
const request = struct({
  requestId: hashIdOf<FederatedRequestId>(),
  federationId: hashIdOf<FederationId>(),
  request: signedRequest,
  /** Name of the key that it makes or uses. */
  name: keyName,
  /** What the servers keep beside it (labels.ts). */
  label: nullable(bytes({ min: 1, max: 1_024 })),
  /** Attempts that were ordered, the newest last. */
  orders: list(signedOrder, { max: HELD_MAX.attempts }),
  /** The single decision with the certificate that it accepts. */
  decision: nullable(signedDecision),
  certificate: nullable(signedCertificate),
  /** Seed of the X25519 key that answers are sealed to; of sign and release. */
  recipientSeed: nullable(hash32),
  /** Of an import: what is shared out. */
  material: nullable(bytes({ min: 1, max: 70_000 })),
  /** Servers that have not heard the decision yet. */
  owed: list(index, { max: 255 }),
  /** Servers that were proven to cheat in it. */
  culprits: list(culprit, { max: 255 }),
});

/** Fields of the vault's body that are there once the vault has to do with a federation (docs/protocol.md §8.2). */
export const heldFields = {
  /** The federation secret F, 32 bytes; null where no federation was joined. */
  federationSecret: nullable(bytes({ length: 32 })),
  federations: list(federation, { max: HELD_MAX.federations }),
  /** Federations that a kit or a link named, and whose manifests were not fetched yet. */
  federationPins,
  /** Manifests that this vault has laid before servers. */
  federationDrafts: list(manifest, { max: HELD_MAX.federations }),
  federatedKeys: list(key, { max: HELD_MAX.keys }),
  /** Requests that are not settled. */
  federatedRequests: list(request, { max: HELD_MAX.requests }),
  /** Of what the account's server keeps for the recovery kit, so that a change is noticed; null: nothing. */
  federationParcel: nullable(hash32),
};

export type HeldServer = Of<typeof heldServer>;
export type HeldFederation = Of<typeof federation>;
export type HeldPolicy = Of<typeof heldPolicy>;
export type HeldKey = Of<typeof key>;
export type HeldRequest = Of<typeof request>;
export type FederationPin = Of<typeof federationPin>;

/** Those, and what is there once the vault has to do with a registry of keyrings (docs/protocol.md §9.1). */
export const keyringAndHeldFields = { ...heldFields, ...keyringFields };

/** Those, and what is there once the vault has to do with ceremonies (docs/protocol.md §7.3). */
export const allFields = { ...keyringAndHeldFields, ...ceremonyFields };

/** All that a vault holds of federations, keyrings and ceremonies; a change puts another object in its place. */
export type Held = { readonly [K in keyof typeof allFields]: Of<(typeof allFields)[K]> };

/** A vault that has nothing to do with any federation, nor with keyrings or ceremonies. */
export const NOTHING_HELD: Held = {
  federationSecret: null,
  federations: [],
  federationPins: [],
  federationDrafts: [],
  federatedKeys: [],
  federatedRequests: [],
  federationParcel: null,
  ...NO_KEYRINGS,
  ...NO_CEREMONIES,
};

function areEmpty(held: Held, names: readonly string[]): boolean {
  return names.every((name) => {
    const value = held[name as keyof Held];
    return value === null || (Array.isArray(value) && value.length === 0);
  });
}

/** True where a vault holds nothing of all that: then its body is of a version before it. */
export const holdsNothing = (held: Held): boolean => areEmpty(held, Object.keys(NOTHING_HELD));

/** True where a vault holds nothing of keyrings: then its body is of the version before them. */
export const holdsNoKeyrings = (held: Held): boolean => areEmpty(held, Object.keys(NO_KEYRINGS));

/** True where a key, or a request for one, says that a ceremony's server has seen it: no version before them reads it. */
const holdsSeen = ({ federatedKeys, federatedRequests }: Held): boolean =>
  federatedKeys.some(({ certificate }) => certificate.certificate.origin === "custodial") ||
  federatedRequests.some(
    ({ request: { request: one }, certificate }) =>
      (one.body.kind === "import" && one.body.origin === "custodial") ||
      certificate?.certificate.origin === "custodial",
  );

/** True where a vault holds nothing of ceremonies: then its body is of a version before them. */
export const holdsNoCeremonies = (held: Held): boolean =>
  areEmpty(held, Object.keys(NO_CEREMONIES)) && !holdsSeen(held);

/** The fields of a body that are {@link Held}'s. */
export function heldOf(body: Held): Held {
  return {
    federationSecret: body.federationSecret,
    federations: body.federations,
    federationPins: body.federationPins,
    federationDrafts: body.federationDrafts,
    federatedKeys: body.federatedKeys,
    federatedRequests: body.federatedRequests,
    federationParcel: body.federationParcel,
    ...keyringsOf(body),
    ...ceremoniesOf(body),
  };
}
