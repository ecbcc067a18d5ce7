import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, KeyringId, KeyringRequestId, WorkspaceId } from "../../ids.ts";
import {
  type Certificate,
  certificateHash,
  keyIdOf,
  type SignedCertificate,
  verifyCertificate,
} from "../federation/certificate.ts";
import type { Manifest } from "../federation/manifest.ts";
import { type GenerateBody, type SignedRequest, verifyRequest } from "../federation/request.ts";
import { keyringRequestIdOf, type Party, type Snapshot } from "./keyring.ts";
import {
  isResponseEquivocation,
  type PartyResponse,
  responseValue,
  type SignedResponse,
  verifyResponse,
} from "./response.ts";

/** What parties say of an item that was fulfilled, their own key, policy and words aside. */
export type FulfilledWord = Pick<
  PartyResponse,
  "keyringId" | "requestId" | "verdict" | "attempt" | "keyId" | "publicKey" | "certificateHash"
>;

/** The word that fulfils an item: on a new key that its attempt made, or on the key that its attempt used. */
export function fulfilledWord(
  keyringId: KeyringId,
  itemId: FederatedRequestId,
  attempt: number,
  certificate: Certificate,
): FulfilledWord {
  const { keyId, publicKey } = certificate;
  const hash = certificateHash(certificate);
  return { keyringId, requestId: itemId, verdict: "fulfilled", attempt, keyId, publicKey, certificateHash: hash };
}

/** `responseValue` of {@link fulfilledWord}, 32 bytes: what the `result` of an item pins. */
export function fulfilledValue(
  keyringId: KeyringId,
  itemId: FederatedRequestId,
  attempt: number,
  certificate: Certificate,
): Uint8Array {
  const none = new Uint8Array(32);
  return responseValue({
    ...fulfilledWord(keyringId, itemId, attempt, certificate),
    policyHash: none,
    reason: "",
    key: none,
  });
}

const integrity = (message: string) => new Fault("integrity", message);

/** A snapshot that a keyring of this federation can have had. @throws Fault integrity */
function checkSnapshot({ parties, threshold }: Pick<Snapshot, "parties" | "threshold">, manifest: Manifest): void {
  const distinct = (of: (p: Party) => string) => new Set(parties.map(of)).size === parties.length;
  const members = parties.every((p) => manifest.servers.some((s) => s.index === p.index));
  const bounds = threshold >= manifest.threshold && threshold <= parties.length;
  const apart = distinct((p) => p.name) && distinct((p) => `${p.index}`) && distinct((p) => p.key.toHex());
  if (!members || !bounds || !apart) throw integrity("the parties and threshold of this request cannot be");
}

/** The word of one party among what is shown of it: null when there is none that holds, or two. */
function wordOf(responses: readonly SignedResponse[], requestId: FederatedRequestId, key: Uint8Array) {
  const own = responses.filter(({ response: r }) => r.requestId === requestId && equalBytes(r.key, key));
  const [first, ...others] = own.filter((one) => holds(one));
  if (!first || others.some((other) => isResponseEquivocation(first, other))) return null;
  return first.response;
}

function holds(signed: SignedResponse): boolean {
  try {
    verifyResponse(signed);
    return true;
  } catch {
    return false;
  }
}

/**
 * Which parties of a snapshot have confirmed an item: each with one valid response that has the value.
 *
 * @param value As of {@link fulfilledValue}, 32 bytes.
 * @returns Names, ascending by index.
 */
export function confirmedBy(
  parties: readonly Party[],
  itemId: FederatedRequestId,
  value: Uint8Array,
  responses: readonly SignedResponse[],
): readonly string[] {
  const agrees = ({ key }: Party) => {
    const word = wordOf(responses, itemId, key);
    return word !== null && equalBytes(responseValue(word), value);
  };
  return parties
    .filter(agrees)
    .toSorted((a, b) => a.index - b.index)
    .map((p) => p.name);
}

/** What a registry shows of a key, and what its reader knows by itself. */
export interface FulfilmentClaim {
  /** Pinned: Ed25519 identity of the registry, 32 bytes. */
  readonly registry: Uint8Array;
  /** Pinned: of the epoch of the certificate. */
  readonly manifest: Manifest;
  readonly keyringId: KeyringId;
  readonly workspaceId: WorkspaceId;
  /** Of the request through the keyring. */
  readonly requestId: KeyringRequestId;
  /** Its one item, as an owner signed it. */
  readonly item: SignedRequest;
  readonly snapshot: Pick<Snapshot, "parties" | "threshold">;
  readonly certificate: SignedCertificate;
  readonly responses: readonly SignedResponse[];
}

/** The item's body, after its signature and its place in the request. @throws Fault integrity */
function verifyItem(claim: FulfilmentClaim): { itemId: FederatedRequestId; body: GenerateBody } {
  const { keyringId, workspaceId, manifest } = claim;
  const { request } = claim.item;
  const itemId = verifyRequest(claim.item);
  if (keyringRequestIdOf(keyringId, workspaceId, [itemId]) !== claim.requestId)
    throw integrity("this item is not the one of the request");
  const mark = request.keyring;
  const marked =
    mark !== null &&
    equalBytes(mark.registry, claim.registry) &&
    mark.keyringId === keyringId &&
    mark.workspaceId === workspaceId;
  const { body } = request;
  const asked =
    body.kind === "generate" &&
    body.custody === "delegated" &&
    body.control === "shared" &&
    body.policy === workspaceId &&
    body.owner === null;
  if (!marked || !asked || request.federationId !== manifest.federationId || request.epoch !== manifest.epoch)
    throw integrity("this item does not ask for a key of this workspace through this keyring");
  return { itemId, body };
}

/** That the certificate answers its item and nothing else. @throws Fault integrity */
function checkAnswer(claim: FulfilmentClaim, itemId: FederatedRequestId, body: GenerateBody, c: Certificate): void {
  const { federationId, requestId, attempt, transcript, publicKey } = c;
  const answers =
    requestId === itemId &&
    equalBytes(c.owner, claim.registry) &&
    c.keyId === keyIdOf(federationId, requestId, attempt, transcript, publicKey) &&
    c.policy === claim.workspaceId &&
    c.type === body.type &&
    c.length === body.length &&
    c.custody === body.custody &&
    c.control === body.control &&
    c.ownerPoint === null &&
    c.value === null &&
    c.origin === "generated" &&
    c.generation === 0 &&
    c.predecessor === null;
  if (!answers) throw integrity("this certificate does not answer the request");
}

/**
 * Verifies a key that a registry shows: that an owner of the registry's accounts asked for it, that the pinned
 * federation made it for this workspace, and that at least the threshold of the keyring's parties have confirmed it.
 * Whether the requester was an owner of the workspace, the servers have verified by its policy.
 *
 * @returns Names of the parties that confirmed, ascending by index.
 * @throws Fault integrity
 */
export function verifyFulfilment(claim: FulfilmentClaim): readonly string[] {
  const { manifest, snapshot, keyringId } = claim;
  checkSnapshot(snapshot, manifest);
  const { itemId, body } = verifyItem(claim);
  const c = verifyCertificate(claim.certificate, manifest);
  checkAnswer(claim, itemId, body, c);
  const names = confirmedBy(snapshot.parties, itemId, fulfilledValue(keyringId, itemId, c.attempt, c), claim.responses);
  if (names.length < snapshot.threshold) throw integrity("too few parties of the keyring have confirmed this key");
  return names;
}
