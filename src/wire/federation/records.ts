import { SEAL_OVERHEAD } from "../../crypto/aead.ts";
import type { FederatedKeyId, FederatedRequestId, FederationId, KeyringId, PolicyId } from "../../ids.ts";
import type { Certificate, CertificateSignature, SignedCertificate } from "../../protocol/federation/certificate.ts";
import {
  CONTROLS,
  CUSTODIES,
  FEDERATED_TYPES,
  importKind,
  KEY_ORIGINS,
  SERVERS_MAX,
  SIGN_FORMS,
} from "../../protocol/federation/kinds.ts";
import type { FederationServer, Manifest, SignedManifest } from "../../protocol/federation/manifest.ts";
import type { Culprit, Message, Payload, SignedMessage } from "../../protocol/federation/message.ts";
import type { PolicyDocument, PolicyTree, SignedPolicy, SignedVote, Vote } from "../../protocol/federation/policy.ts";
import type {
  AttemptOrder,
  Decision,
  FederatedRequest,
  RequestBody,
  SignedDecision,
  SignedOrder,
  SignedRequest,
} from "../../protocol/federation/request.ts";
import {
  bool,
  bytes,
  type Codec,
  hashIdOf,
  list,
  nullable,
  oneOf,
  recursive,
  schemaOf,
  struct,
  tagged,
  text,
  u53,
  uint,
} from "../codec.ts";
import { hash32, signature } from "../records.ts";

/** Codecs of the federation's records (docs/protocol.md §8). Limits in bytes. */

/** What one request to sign may carry. */
export const MESSAGE_MAX = 64 * 1_024;
/** What a `bytes` key may hold. */
const VALUE_MAX = 64 * 1_024;
/** Points and scalars of every group, proofs of knowledge. */
const POINT_MAX = 33;
const PROOF_MAX = 80;
const point = bytes({ min: 32, max: POINT_MAX });
const index = uint(255, 1);
const indices = list(index, { max: SERVERS_MAX });
const number32 = uint(0xffff_ffff);

export const serverUrl = text({ min: 8, max: 512, pattern: /^https?:\/\/[^\s]+$/ });
export const serverPin = text({ min: 50, max: 64, pattern: /^sha256:[A-Za-z0-9_-]{43}$/ });
const FEDERATION_NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
export const federationName = text({ min: 1, max: 64, pattern: FEDERATION_NAME });

/** True for what a federation may be called: 1 to 64 lower-case letters, digits, `.` `_` `-`. */
export const isFederationName = (name: string): boolean => FEDERATION_NAME.test(name);

const server: Codec<FederationServer> = struct({
  index,
  identity: hash32,
  sealing: hash32,
  url: serverUrl,
  pin: serverPin,
  policy: nullable(hashIdOf<PolicyId>()),
});

export const manifest: Codec<Manifest> = struct({
  federationId: hashIdOf<FederationId>(),
  name: federationName,
  epoch: uint(0xffff_ffff, 1),
  threshold: uint(SERVERS_MAX, 1),
  servers: list(server, { min: 2, max: SERVERS_MAX }),
  createdAtMs: u53,
  nonce: hash32,
  previous: hash32,
});

export const manifestSignature = struct({ identity: hash32, signature });

export const signedManifest: Codec<SignedManifest> = struct({
  manifest,
  signatures: list(manifestSignature, { max: 2 * SERVERS_MAX }),
});

const unit = text({ min: 1, max: 64, pattern: /^[A-Za-z0-9._-]+$/ });
const digits = text({ min: 1, max: 40, pattern: /^(0|[1-9][0-9]*)$/ });
const amount = struct({ unit, value: digits });

const purpose = {
  type: oneOf(FEDERATED_TYPES),
  length: uint(VALUE_MAX, 1),
  custody: oneOf(CUSTODIES),
  control: oneOf(CONTROLS),
  policy: nullable(hashIdOf<PolicyId>()),
  owner: nullable(struct({ point, proof: bytes({ min: 32, max: PROOF_MAX }) })),
};

const dealt = {
  ...purpose,
  threshold: uint(SERVERS_MAX, 2),
  holders: indices,
  commitments: list(point, { min: 2, max: SERVERS_MAX }),
  sealedValue: nullable(bytes({ min: SEAL_OVERHEAD + 1, max: VALUE_MAX + SEAL_OVERHEAD })),
};

const anyBody = tagged("kind", {
  generate: struct(purpose),
  import: struct(dealt),
  "import-custodial": struct(dealt),
  sign: struct({
    keyId: hashIdOf<FederatedKeyId>(),
    generation: number32,
    form: oneOf(SIGN_FORMS),
    input: uint(0xffff),
    message: bytes({ max: MESSAGE_MAX }),
    amount: nullable(amount),
    recipient: hash32,
  }),
  release: struct({
    keyId: hashIdOf<FederatedKeyId>(),
    generation: number32,
    purpose: oneOf(["retrieve", "export", "sign"]),
    form: oneOf(SIGN_FORMS),
    input: uint(0xffff),
    message: nullable(bytes({ max: MESSAGE_MAX })),
    amount: nullable(amount),
    recipient: hash32,
  }),
  reshare: struct({
    keyId: hashIdOf<FederatedKeyId>(),
    generation: number32,
    mode: oneOf(["repair", "refresh", "reshare"]),
    threshold: uint(SERVERS_MAX, 2),
    holders: indices,
  }),
});

/** An import says by its kind where the secret comes from, as its signed bytes do. */
const body: Codec<RequestBody> = {
  decode(value, path) {
    const read = anyBody.decode(value, path);
    if (read.kind === "import") return { ...read, origin: "imported" };
    return read.kind === "import-custodial" ? { ...read, kind: "import", origin: "custodial" } : read;
  },
  encode: (value) => anyBody.encode(value.kind === "import" ? { ...value, kind: importKind(value.origin) } : value),
  schema: () => schemaOf(anyBody),
};

const request: Codec<FederatedRequest> = struct({
  federationId: hashIdOf<FederationId>(),
  epoch: uint(0xffff_ffff, 1),
  requester: hash32,
  nonce: hash32,
  createdAtMs: u53,
  expiresAtMs: u53,
  keyring: nullable(struct({ registry: hash32, keyringId: hashIdOf<KeyringId>(), workspaceId: hashIdOf<PolicyId>() })),
  body,
});

export const signedRequest: Codec<SignedRequest> = struct({ request, signature });

const order: Codec<AttemptOrder> = struct({
  requestId: hashIdOf<FederatedRequestId>(),
  attempt: uint(1_000, 1),
  roster: list(index, { min: 1, max: SERVERS_MAX }),
  contributions: list(struct({ index, sealed: bytes({ min: 48, max: 256 }) }), { max: SERVERS_MAX }),
  ownerNonces: nullable(struct({ hiding: point, binding: point })),
});

export const signedOrder: Codec<SignedOrder> = struct({ order, signature });

const decision: Codec<Decision> = struct({
  requestId: hashIdOf<FederatedRequestId>(),
  verdict: oneOf(["accept", "cancel"]),
  attempt: uint(1_000),
  certificateHash: nullable(hash32),
});

export const signedDecision: Codec<SignedDecision> = struct({ decision, signature });

const payload: Codec<Payload> = tagged("round", {
  commit: struct({
    commitments: list(point, { max: SERVERS_MAX }),
    proof: bytes({ max: PROOF_MAX }),
    sealing: hash32,
  }),
  echo: struct({ seen: list(struct({ index, hash: hash32 }), { max: SERVERS_MAX }) }),
  share: struct({ sealed: bytes({ min: 48, max: 256 }) }),
  complaint: struct({ accused: indices }),
  reveal: struct({ shares: list(struct({ to: index, share: bytes({ min: 32, max: 32 }) }), { max: SERVERS_MAX }) }),
  confirm: struct({ certificateHash: hash32, signature, proof: bytes({ max: PROOF_MAX }) }),
  nonces: struct({ hiding: point, binding: point }),
  partial: struct({ sealed: bytes({ min: 48, max: 256 }) }),
});

const message: Codec<Message> = struct({
  requestId: hashIdOf<FederatedRequestId>(),
  attempt: uint(1_000, 1),
  orderHash: hash32,
  from: index,
  to: uint(255),
  payload,
});

export const signedMessage: Codec<SignedMessage> = struct({ message, signature });
/** Every message that one step brings or gives. */
export const messages = list(signedMessage, { max: 4 * SERVERS_MAX });

export const culprit: Codec<Culprit> = struct({
  index,
  reason: oneOf(["equivocation", "bad_proof", "bad_commitments", "bad_share", "bad_partial", "bad_echo"]),
  evidence: list(signedMessage, { max: SERVERS_MAX + 1 }),
});

export const certificate: Codec<Certificate> = struct({
  keyId: hashIdOf<FederatedKeyId>(),
  federationId: hashIdOf<FederationId>(),
  epoch: uint(0xffff_ffff, 1),
  requestId: hashIdOf<FederatedRequestId>(),
  attempt: uint(1_000, 1),
  owner: hash32,
  type: oneOf(FEDERATED_TYPES),
  length: uint(VALUE_MAX, 1),
  custody: oneOf(CUSTODIES),
  control: oneOf(CONTROLS),
  origin: oneOf(KEY_ORIGINS),
  policy: nullable(hashIdOf<PolicyId>()),
  publicKey: point,
  commitments: list(point, { min: 2, max: SERVERS_MAX }),
  untweaked: nullable(point),
  ownerPoint: nullable(point),
  value: nullable(struct({ requestId: hashIdOf<FederatedRequestId>(), hash: hash32 })),
  threshold: uint(SERVERS_MAX, 2),
  holders: list(index, { min: 2, max: SERVERS_MAX }),
  generation: number32,
  transcript: hash32,
  predecessor: nullable(hash32),
});

export const certificateSignature: Codec<CertificateSignature> = struct({ index, signature });

export const signedCertificate: Codec<SignedCertificate> = struct({
  certificate,
  signatures: list(certificateSignature, { max: SERVERS_MAX }),
  acceptance: signedDecision,
});

const partyName = text({ min: 1, max: 64, pattern: /^[a-z0-9][a-z0-9._-]*$/ });
/** Branches of one node, nodes deep, rules and people of a policy at most. */
export const POLICY_MAX = { branches: 16, depth: 6, rules: 64, approvers: 64, groups: 16, remotes: 8 } as const;

const tree: Codec<PolicyTree> = recursive<PolicyTree>(POLICY_MAX.depth, (self) => {
  const of = list(self, { min: 1, max: POLICY_MAX.branches });
  return tagged("kind", {
    approver: struct({ name: partyName }),
    group: struct({ name: partyName, atLeast: uint(POLICY_MAX.approvers, 1) }),
    remote: struct({ name: partyName }),
    requester: struct({}),
    all: struct({ of }),
    any: struct({ of }),
    threshold: struct({ atLeast: uint(POLICY_MAX.branches, 1), of }),
  });
});

const rule = struct({
  name: partyName,
  effect: oneOf(["allow", "deny"]),
  actions: list(oneOf(["generate", "import", "sign", "release", "reshare", "retrieve", "export"]), { max: 8 }),
  types: list(oneOf(FEDERATED_TYPES), { max: FEDERATED_TYPES.length }),
  rate: nullable(struct({ count: number32, windowMs: u53 })),
  amount: nullable(struct({ unit, max: digits })),
  recipients: nullable(list(text({ min: 1, max: 128 }), { min: 1, max: 64 })),
  time: nullable(struct({ fromMinute: uint(1_440), toMinute: uint(1_440), days: list(uint(6), { min: 1, max: 7 }) })),
  require: nullable(tree),
  requesterMayApprove: bool,
  voteMs: u53,
});

export const policyDocument: Codec<PolicyDocument> = struct({
  federationId: hashIdOf<FederationId>(),
  name: partyName,
  version: uint(0xffff_ffff, 1),
  previous: hash32,
  approvers: list(struct({ name: partyName, key: hash32 }), { max: POLICY_MAX.approvers }),
  groups: list(struct({ name: partyName, members: list(partyName, { min: 1, max: POLICY_MAX.approvers }) }), {
    max: POLICY_MAX.groups,
  }),
  remotes: list(
    struct({
      name: partyName,
      url: text({ min: 9, max: 512, pattern: /^https:\/\/[^\s]+$/ }),
      key: hash32,
      timeoutMs: uint(30_000, 100),
    }),
    { max: POLICY_MAX.remotes },
  ),
  admins: tree,
  rules: list(rule, { max: POLICY_MAX.rules }),
  createdAtMs: u53,
});

export const signedPolicy: Codec<SignedPolicy> = struct({
  document: policyDocument,
  signatures: list(struct({ key: hash32, signature }), { max: POLICY_MAX.approvers }),
});

const vote: Codec<Vote> = struct({
  federationId: hashIdOf<FederationId>(),
  epoch: uint(0xffff_ffff, 1),
  requestId: hashIdOf<FederatedRequestId>(),
  verdict: oneOf(["approve", "reject"]),
  policyHash: hash32,
  castAtMs: u53,
  expiresAtMs: u53,
  reason: text({ max: 512 }),
  key: hash32,
});

export const signedVote: Codec<SignedVote> = struct({ vote, signature });

/** Holders that stated, signed, that they erased their shares of a generation. */
export const erasure = struct({ index, keyId: hashIdOf<FederatedKeyId>(), generation: number32, signature });
