import { equalBytes } from "../../crypto/bytes.ts";
import type { evidence as evidenceCodec } from "../../enclave/api.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, PolicyId } from "../../ids.ts";
import type { SignedManifest } from "../../protocol/federation/manifest.ts";
import {
  type PolicyChain,
  type PolicyDocument,
  policyHash,
  type SignedVote,
} from "../../protocol/federation/policy.ts";
import type { SignedRequest } from "../../protocol/federation/request.ts";
import type { Ruling } from "../../protocol/federation/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { Of } from "../../wire/codec.ts";
import type { Explanation } from "../../wire/federation/operations.ts";
import { POLICY_MAX } from "../../wire/federation/records.ts";
import { eachStored, KEY, type KeyBody, MEMBER, memberId, POLICY, readStored, type Stored, VOTE } from "./documents.ts";
import { keyOf, noSuchKey } from "./life.ts";
import { currentManifest, type FederationSite, manifestAt, memberByKey } from "./service.ts";

export type Evidence = Of<typeof evidenceCodec>;

/** A policy's newest link, which votes name. */
interface PolicyHead {
  readonly policyId: PolicyId;
  readonly document: PolicyDocument;
  readonly hash: Uint8Array;
  readonly chain: PolicyChain;
}

/** What a request refers to, as this server knows it at one moment. */
export interface Standing {
  /** Newest manifest. */
  readonly manifest: SignedManifest;
  /** This server's index in it. */
  readonly index: number;
  /** Of uses and resharings: the key, and the manifest of its epoch. */
  readonly key: Stored<KeyBody> | null;
  readonly certificateManifest: SignedManifest | null;
  /** The operator's policy. */
  readonly serverPolicy: PolicyHead | null;
  /** The policy of shared control. */
  readonly keyPolicy: PolicyHead | null;
  /** Approval key of the requester's account, 32 bytes; null where it has left. Of a workspace's owner its one key. */
  readonly requesterApproval: Uint8Array | null;
  /** Newest of each key under either policy's newest link. */
  readonly votes: readonly SignedVote[];
}

/** Votes that the enclave is shown: of everybody whom the two policies can name, so that none pushes another out. */
const VOTES_MAX = 2 * (POLICY_MAX.approvers + POLICY_MAX.remotes);

/** @throws Fault denied: a policy that this server does not know allows nothing. */
async function headOf(tx: Tx, policyId: PolicyId | null): Promise<PolicyHead | null> {
  if (policyId === null) return null;
  const chain = (await readStored(tx, POLICY, policyId))?.value.chain;
  const newest = chain?.at(-1);
  if (!chain || !newest)
    throw new Fault("denied", "this server does not know the policy that approves this", {
      why: `policy ${policyId.slice(0, 16)}`,
      hint: "keyhold policy set, at every server of the federation",
    });
  return { policyId, document: newest.document, hash: policyHash(newest.document), chain };
}

async function approvalKeyOf(
  tx: Tx,
  { requester, federationId, keyring }: SignedRequest["request"],
): Promise<Uint8Array | null> {
  // an owner asks and votes with one key
  if (keyring) return requester;
  const account = await memberByKey(tx, requester);
  if (account?.role !== "request" || account.federationId !== federationId) return null;
  return (await readStored(tx, MEMBER, memberId(federationId, account.userId)))?.value.approvalKey ?? null;
}

/** Policies that have a say, the operator's first. */
export function headsOf(standing: Pick<Standing, "serverPolicy" | "keyPolicy">): readonly PolicyHead[] {
  return [standing.serverPolicy, standing.keyPolicy].filter((head) => head !== null);
}

/** Approval keys that any of its policies names. */
export function approversOf(standing: Pick<Standing, "serverPolicy" | "keyPolicy">): readonly Uint8Array[] {
  return headsOf(standing).flatMap(({ document }) => document.approvers.map(({ key }) => key));
}

/** Where this server's enclave stands in a manifest. @throws Fault not_found */
export function indexIn({ manifest }: SignedManifest, identity: Uint8Array): number {
  const own = manifest.servers.find((server) => equalBytes(server.identity, identity));
  if (!own) throw new Fault("not_found", "this server is not a member of that federation");
  return own.index;
}

/** Ed25519 key of this server's enclave, 32 bytes. @throws Fault unavailable */
export async function enclaveIdentity({ enclave }: Pick<FederationSite, "enclave">): Promise<Uint8Array> {
  const known = identities.get(enclave);
  if (known) return known;
  const { identity } = await enclave.call("info", {});
  identities.set(enclave, identity);
  return identity;
}

/** It comes from the sealing key of the server's directory: as long as the server runs, the same one. */
const identities = new WeakMap<FederationSite["enclave"], Uint8Array>();

/**
 * Gathers what a request refers to.
 *
 * @param identity From {@link enclaveIdentity}.
 * @throws Fault not_found, denied, corrupt
 */
export async function gather(
  tx: Tx,
  { request }: SignedRequest,
  id: FederatedRequestId,
  identity: Uint8Array,
): Promise<Standing> {
  const { federationId, body } = request;
  const manifest = await currentManifest(tx, federationId);
  const index = indexIn(manifest, identity);
  const keyId = keyOf(body);
  const key = keyId === null ? null : ((await readStored(tx, KEY, keyId)) ?? null);
  const certificate = key?.value.certificate.certificate;
  if (keyId !== null && certificate?.federationId !== federationId) throw noSuchKey();
  const own = manifest.manifest.servers.find((server) => server.index === index);
  const policyId = "policy" in body ? body.policy : (certificate?.policy ?? null);
  const serverPolicy = await headOf(tx, own?.policy ?? null);
  const keyPolicy = await headOf(tx, policyId);
  const hashes = new Set(headsOf({ serverPolicy, keyPolicy }).map(({ hash }) => hash.toHex()));
  const votes = (await eachStored(tx, VOTE, id))
    .map(({ value }) => value.vote)
    .filter(({ vote }) => hashes.has(vote.policyHash.toHex()))
    .slice(-VOTES_MAX);
  return {
    manifest,
    index,
    key,
    certificateManifest: certificate ? await manifestAt(tx, federationId, certificate.epoch) : null,
    serverPolicy,
    keyPolicy,
    requesterApproval: await approvalKeyOf(tx, request),
    votes,
  };
}

/** The same in the form that the enclave takes. */
export function evidenceOf(standing: Standing, request: SignedRequest): Evidence {
  return {
    manifest: standing.manifest,
    request,
    certificate: standing.key?.value.certificate ?? null,
    certificateManifest: standing.certificateManifest,
    serverPolicy: standing.serverPolicy && [...standing.serverPolicy.chain],
    keyPolicy: standing.keyPolicy && [...standing.keyPolicy.chain],
    requesterApproval: standing.requesterApproval,
    votes: [...standing.votes],
  };
}

/** Several policies as one: a denial wins, then whoever still waits. */
export function rulingOf(explanations: readonly Explanation[]): Ruling {
  if (explanations.some(({ decision }) => decision === "deny")) return "deny";
  return explanations.some(({ decision }) => decision === "wait") ? "wait" : "allow";
}
