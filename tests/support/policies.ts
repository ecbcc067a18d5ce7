import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import { asHashId, type FederatedKeyId, type FederatedRequestId, type FederationId } from "../../src/ids.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import {
  type PolicyChain,
  type PolicyDocument,
  type PolicyRule,
  policyHash,
  type SignedPolicy,
  type SignedVote,
  type Vote,
} from "../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../src/protocol/federation/policychain.ts";
import { type FederatedRequest, type RequestBody, requestIdOf } from "../../src/protocol/federation/request.ts";
import { signVote } from "../../src/protocol/federation/votes.ts";

/** Policies, requests and votes for tests; everything follows from names. */

export const seedOf = (name: string): Uint8Array => sha256(new TextEncoder().encode(`test seed of ${name}`));

const signers = new Map<string, Signer>();

/** The signer of a name: the same at each call. */
export function signerOf(name: string): Signer {
  const known = signers.get(name) ?? signerFromSeed(seedOf(name));
  signers.set(name, known);
  return known;
}

export const keyOf = (name: string): Uint8Array => signerOf(name).publicKey;

export const FEDERATION: FederationId = asHashId("fe".repeat(32));
export const KEY: FederatedKeyId = asHashId("ab".repeat(32));
export const OWNER = "owner";
/** Wednesday, 7 January 2026, 12:00 UTC. */
export const NOON = Date.UTC(2026, 0, 7, 12);
export const HOUR = 3_600_000;

/** A rule that lets the requester alone do what needs no name. */
export const rule = (over: Partial<PolicyRule> = {}): PolicyRule => ({
  name: "rule",
  effect: "allow",
  actions: [],
  types: [],
  rate: null,
  amount: null,
  recipients: null,
  time: null,
  require: { kind: "requester" },
  requesterMayApprove: false,
  voteMs: 24 * HOUR,
  ...over,
});

export const denial = (over: Partial<PolicyRule> = {}): PolicyRule =>
  rule({ name: "denial", effect: "deny", require: null, ...over });

export const PEOPLE = ["alice", "bob", "carol", "dave"] as const;

export const policy = (over: Partial<PolicyDocument> = {}): PolicyDocument => ({
  federationId: FEDERATION,
  name: "treasury",
  version: 1,
  previous: new Uint8Array(32),
  approvers: PEOPLE.map((name) => ({ name, key: keyOf(name) })),
  groups: [{ name: "admins", members: ["alice", "bob", "carol"] }],
  remotes: [{ name: "risk", url: "https://risk.example/v1/data/keyhold", key: keyOf("risk"), timeoutMs: 1_000 }],
  admins: { kind: "group", name: "admins", atLeast: 2 },
  rules: [rule()],
  createdAtMs: NOON,
  ...over,
});

export const signedBy = (document: PolicyDocument, ...names: readonly string[]): SignedPolicy => ({
  document,
  signatures: names.map((name) => signPolicy(signerOf(name), document)),
});

/** The next link of a chain, signed by alice and bob. */
export function extended(chain: PolicyChain, over: Partial<PolicyDocument> = {}): PolicyChain {
  const last = chain.at(-1);
  if (last === undefined) return [signedBy(policy(over), "alice", "bob")];
  const { document } = last;
  const next = { ...document, version: document.version + 1, previous: policyHash(document), ...over };
  return [...chain, signedBy(next, "alice", "bob")];
}

export const request = (body: RequestBody, over: Partial<FederatedRequest> = {}): FederatedRequest => ({
  federationId: FEDERATION,
  epoch: 3,
  requester: keyOf(OWNER),
  nonce: new Uint8Array(32).fill(7),
  createdAtMs: NOON - HOUR,
  expiresAtMs: NOON + 24 * HOUR,
  keyring: null,
  body,
  ...over,
});

export const recipient = new Uint8Array(32).fill(9);

export const bodies = {
  generate: {
    kind: "generate",
    type: "ed25519",
    length: 32,
    custody: "delegated",
    control: "unilateral",
    policy: null,
    owner: null,
  },
  import: {
    kind: "import",
    type: "ed25519",
    length: 32,
    custody: "delegated",
    control: "unilateral",
    policy: null,
    owner: null,
    origin: "imported" as const,
    threshold: 2,
    holders: [1, 2, 3],
    commitments: [new Uint8Array(32), new Uint8Array(32)],
    sealedValue: null,
  },
  sign: {
    kind: "sign",
    form: "message" as const,
    input: 0,
    keyId: KEY,
    generation: 0,
    message: new Uint8Array(5),
    amount: null,
    recipient,
  },
  release: {
    kind: "release",
    form: "message" as const,
    input: 0,
    keyId: KEY,
    generation: 0,
    purpose: "sign",
    message: new Uint8Array(5),
    amount: null,
    recipient,
  },
  retrieve: {
    kind: "release",
    form: "message" as const,
    input: 0,
    keyId: KEY,
    generation: 0,
    purpose: "retrieve",
    message: null,
    amount: null,
    recipient,
  },
  export: {
    kind: "release",
    form: "message" as const,
    input: 0,
    keyId: KEY,
    generation: 0,
    purpose: "export",
    message: null,
    amount: null,
    recipient,
  },
  reshare: { kind: "reshare", keyId: KEY, generation: 0, mode: "refresh", threshold: 2, holders: [1, 2, 3] },
} as const satisfies Record<string, RequestBody>;

export const certificate = (over: Partial<Certificate> = {}): Certificate => ({
  keyId: KEY,
  federationId: FEDERATION,
  epoch: 3,
  requestId: asHashId("cd".repeat(32)),
  attempt: 1,
  owner: keyOf(OWNER),
  type: "ed25519",
  length: 32,
  custody: "delegated",
  control: "unilateral",
  origin: "generated",
  policy: null,
  publicKey: new Uint8Array(32),
  commitments: [new Uint8Array(32), new Uint8Array(32)],
  untweaked: null,
  ownerPoint: null,
  threshold: 2,
  holders: [1, 2, 3],
  generation: 0,
  transcript: new Uint8Array(32),
  predecessor: null,
  value: null,
  ...over,
});

/** A certificate where the body is about a key; null where it makes one. */
export const certificateFor = (body: RequestBody, over: Partial<Certificate> = {}): Certificate | null =>
  "keyId" in body ? certificate({ keyId: body.keyId, ...over }) : null;

export const idOf = (of: FederatedRequest): FederatedRequestId => requestIdOf(of);

/** A valid vote of `name` on a request under a policy, cast an hour before noon and good for a day. */
export function voteOf(
  name: string,
  of: FederatedRequest,
  document: PolicyDocument,
  over: Partial<Omit<Vote, "key">> = {},
): SignedVote {
  return signVote(signerOf(name), {
    federationId: of.federationId,
    epoch: of.epoch,
    requestId: requestIdOf(of),
    verdict: "approve",
    policyHash: policyHash(document),
    castAtMs: NOON - HOUR,
    expiresAtMs: NOON + 23 * HOUR,
    reason: over.verdict === "reject" ? "not today" : "",
    ...over,
  });
}
