import type { Signer } from "../../src/crypto/identity.ts";
import { asHashId, type FederatedKeyId, type FederationId, type KeyringId, type WorkspaceId } from "../../src/ids.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import type { FederatedType } from "../../src/protocol/federation/kinds.ts";
import {
  type PolicyChain,
  type PolicyDocument,
  policyHash,
  policyIdOf,
  type SignedVote,
} from "../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../src/protocol/federation/policychain.ts";
import {
  type FederatedRequest,
  type GenerateBody,
  type KeyringMark,
  type ReleaseBody,
  type RequestBody,
  registryScope,
  requestIdOf,
  type SignBody,
  type SignedRequest,
  signRequest,
} from "../../src/protocol/federation/request.ts";
import { signVote } from "../../src/protocol/federation/votes.ts";
import { HOUR, NOON, rule, signerOf } from "./policies.ts";

/** Workspaces, and requests through a keyring, for tests; owners go by their names (`signerOf` of policies.ts). */

export const KEYRING: KeyringId = asHashId("4b".repeat(32));

export interface WorkspaceOptions {
  /** Ed25519 identity of the registry. */
  readonly registry: Uint8Array;
  /** Names of the owners, who are its approvers. */
  readonly owners?: readonly string[];
  /** How many of the owners agree to a link, and (unless `rules` say otherwise) to a request. */
  readonly quorum?: number;
  readonly name?: string;
  readonly rules?: PolicyDocument["rules"];
  readonly createdAtMs?: number;
}

/** A workspace of tests: its policy's chain and how it goes on. */
export interface TestWorkspace {
  readonly registry: Uint8Array;
  readonly scope: FederationId;
  readonly workspaceId: WorkspaceId;
  readonly chain: PolicyChain;
  readonly head: PolicyDocument;
  readonly headHash: Uint8Array;
  readonly mark: KeyringMark;
  /** The same with one link more, which these owners have signed (all of the newest link unless told). */
  extend(over: Partial<PolicyDocument>, signers?: readonly string[]): TestWorkspace;
  /** Without that owner: as many of the others agree as before. */
  without(name: string): TestWorkspace;
}

function workspaceOf(registry: Uint8Array, chain: PolicyChain, keyringId: KeyringId): TestWorkspace {
  const [first, head] = [chain[0]?.document, chain.at(-1)?.document];
  if (!first || !head) throw new Error("no link");
  const workspaceId = policyIdOf(first);
  const space: TestWorkspace = {
    registry,
    scope: registryScope(registry),
    workspaceId,
    chain,
    head,
    headHash: policyHash(head),
    mark: { registry, keyringId, workspaceId },
    extend(over, signers = head.approvers.map(({ name }) => name)) {
      const document = { ...head, version: head.version + 1, previous: policyHash(head), ...over };
      const signatures = signers.map((name) => signPolicy(signerOf(name), document));
      return workspaceOf(registry, [...chain, { document, signatures }], keyringId);
    },
    without(name) {
      const approvers = head.approvers.filter((one) => one.name !== name);
      const groups = head.groups.map((one) => ({ ...one, members: one.members.filter((member) => member !== name) }));
      return space.extend({ approvers, groups });
    },
  };
  return space;
}

/** A workspace's policy: a chain of one link of the registry's scope; by default `quorum` (1) of ann and ben. */
export function makeWorkspacePolicy(options: WorkspaceOptions): TestWorkspace {
  const { registry, owners = ["ann", "ben"], quorum = 1, name = "treasury", createdAtMs = NOON } = options;
  const tree = { kind: "group", name: "owners", atLeast: quorum } as const;
  const actions = ["generate", "sign", "release"] as const;
  const document: PolicyDocument = {
    federationId: registryScope(registry),
    name,
    version: 1,
    previous: new Uint8Array(32),
    approvers: owners.map((one) => ({ name: one, key: signerOf(one).publicKey })),
    groups: [{ name: "owners", members: owners }],
    remotes: [],
    admins: tree,
    rules: options.rules ?? [rule({ name: "use", actions, require: tree, requesterMayApprove: true })],
    createdAtMs,
  };
  const signatures = owners.map((one) => signPolicy(signerOf(one), document));
  return workspaceOf(registry, [{ document, signatures }], KEYRING);
}

/** What a workspace asks for: a key of its policy's own. */
export const keyringGenerateBody = (workspaceId: WorkspaceId, type: FederatedType = "ed25519"): GenerateBody => ({
  kind: "generate",
  type,
  length: 32,
  custody: "delegated",
  control: "shared",
  policy: workspaceId,
  owner: null,
});

/** A use of a key of the workspace: its servers sign, or of an ECDSA key release their shares to sign. */
export function keyringUseBody(
  { keyId, generation, type }: Pick<Certificate, "keyId" | "generation" | "type">,
  recipient: Uint8Array,
  message = "message",
): SignBody | ReleaseBody {
  const use = {
    keyId: keyId as FederatedKeyId,
    generation,
    form: "message",
    input: 0,
    message: new TextEncoder().encode(message),
    amount: null,
    recipient,
  } as const;
  const released = type === "secp256k1" || type === "p256";
  return released ? { kind: "release", purpose: "sign", ...use } : { kind: "sign", ...use };
}

/** What a certificate of a workspace's key says differently from one of an account. */
export const keyringCertificate = ({ registry, workspaceId }: TestWorkspace): Partial<Certificate> => ({
  owner: registry,
  control: "shared",
  policy: workspaceId,
});

export interface KeyringRequestOptions {
  readonly federationId: FederationId;
  readonly epoch?: number;
  readonly workspace: TestWorkspace;
  readonly body: RequestBody;
  readonly nonce: Uint8Array;
  readonly nowMs: number;
  /** Owner who signs it: "ann" unless told. */
  readonly signer?: Signer;
  readonly change?: Partial<FederatedRequest>;
}

/** A request through a keyring, signed by an owner of the workspace. */
export function makeKeyringRequest(options: KeyringRequestOptions): SignedRequest {
  const { federationId, epoch = 1, workspace, body, nonce, nowMs, signer = signerOf("ann"), change = {} } = options;
  return signRequest(signer, {
    federationId,
    epoch,
    requester: signer.publicKey,
    nonce,
    createdAtMs: nowMs,
    expiresAtMs: nowMs + HOUR,
    keyring: workspace.mark,
    body,
    ...change,
  });
}

/** An owner's vote on a request under the newest link of its workspace's policy, cast now. */
export function keyringVote(
  { request }: SignedRequest,
  { headHash }: TestWorkspace,
  nowMs: number,
  signer: Signer = signerOf("ann"),
  verdict: "approve" | "reject" = "approve",
): SignedVote {
  return signVote(signer, {
    federationId: request.federationId,
    epoch: request.epoch,
    requestId: requestIdOf(request),
    verdict,
    policyHash: headHash,
    castAtMs: nowMs,
    expiresAtMs: nowMs + HOUR,
    reason: verdict === "reject" ? "not today" : "",
  });
}
