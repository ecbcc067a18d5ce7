import { toBase64url } from "../../crypto/bytes.ts";
import type { Certificate } from "../../protocol/federation/certificate.ts";
import { factsOf } from "../../protocol/federation/policyaction.ts";
import type { VerifiedChain } from "../../protocol/federation/policychain.ts";
import { requestBytes, requestIdOf, type SignedRequest } from "../../protocol/federation/request.ts";
import { bool, bytes, type Json, struct, text, u53 } from "../codec.ts";

/** What a remote engine is asked and what it answers (docs/protocol.md §8.7, docs/policies.md). */

/** Bytes of an engine's answer at most. */
export const VERDICT_MAX = 16 * 1_024;

const verdictFields = {
  allow: bool,
  castAtMs: u53,
  expiresAtMs: u53,
  signature: bytes({ length: 64 }),
};

/** The `result` of an engine's answer; `reason` may be left out. */
export const verdict = struct({ ...verdictFields, reason: text({ max: 512 }) });

export interface RemoteQuestion {
  readonly signed: SignedRequest;
  /** Of the key that the request is about; null for one that makes a key. */
  readonly certificate: Certificate | null;
  /** The policy that names the engine. */
  readonly policy: Pick<VerifiedChain, "policyId" | "head" | "headHash">;
  readonly nowMs: number;
}

/**
 * The document that an engine decides on: what is asked for, and the very bytes that the requester signed. What the
 * requester's client contributes to a new key's randomness is no part of a request.
 *
 * @throws Fault bad_input when the certificate is missing or another key's.
 */
export function engineInput({ signed, certificate, policy, nowMs }: RemoteQuestion): Json {
  const { request, signature } = signed;
  const { body } = request;
  const { action, type, amount, recipients, keyId } = factsOf(request, certificate);
  const made = body.kind === "generate" || body.kind === "import" ? body : null;
  const held = made ?? certificate;
  const shares = "holders" in body ? { threshold: body.threshold, holders: [...body.holders] } : null;
  return {
    federation: request.federationId,
    epoch: request.epoch,
    requestId: requestIdOf(request),
    policy: {
      id: policy.policyId,
      name: policy.head.name,
      version: policy.head.version,
      hash: policy.headHash.toHex(),
    },
    action,
    kind: body.kind,
    requester: request.requester.toHex(),
    keyring: request.keyring && {
      id: request.keyring.keyringId,
      workspace: request.keyring.workspaceId,
      registry: request.keyring.registry.toHex(),
    },
    createdAtMs: request.createdAtMs,
    expiresAtMs: request.expiresAtMs,
    nowMs,
    key: {
      id: keyId,
      generation: "generation" in body ? body.generation : null,
      type,
      custody: held?.custody ?? null,
      control: held?.control ?? null,
      length: held?.length ?? null,
    },
    form: "form" in body ? body.form : null,
    input: "input" in body ? body.input : null,
    message: "message" in body && body.message !== null ? toBase64url(body.message) : null,
    amount: amount && { unit: amount.unit, value: amount.value },
    recipients: recipients && [...recipients],
    mode: body.kind === "reshare" ? body.mode : null,
    shares,
    signed: { bytes: toBase64url(requestBytes(request)), signature: toBase64url(signature) },
  };
}
