import { Fault } from "../../errors.ts";
import { type FederatedKeyId, type FederatedRequestId, type FederationId, hashId } from "../../ids.ts";
import type { Certificate } from "./certificate.ts";
import type { FederatedType } from "./kinds.ts";
import type { PolicyAction, PolicyDocument, Vote } from "./policy.ts";
import { factsOf } from "./policyaction.ts";
import { decide, type Evaluation } from "./policyrules.ts";
import type { Amount, FederatedRequest, RequestBody } from "./request.ts";

/** A request that nobody has made, and who is supposed to have said what of it. */
export interface PolicyTrial {
  readonly document: PolicyDocument;
  readonly action: PolicyAction;
  readonly type: FederatedType;
  readonly amount: Amount | null;
  /** Whom a transaction pays; null: the request is none. */
  readonly recipients?: readonly string[] | null;
  /** An approver who asks, or null for somebody else. */
  readonly requester: string | null;
  /** Names of approvers and engines. */
  readonly approve: readonly string[];
  readonly reject: readonly string[];
  /** Uses within every window. */
  readonly used: number;
  readonly nowMs: number;
}

const ZEROS = new Uint8Array(32);
const NOBODY = new Uint8Array(32).fill(0xff);
const KEY_ID: FederatedKeyId = hashId(ZEROS);
const REQUEST_ID: FederatedRequestId = hashId(ZEROS);

function bodyOf({ action, type, amount }: PolicyTrial): RequestBody {
  const purpose = { type, length: 32, custody: "delegated", control: "shared", policy: null, owner: null } as const;
  const use = { keyId: KEY_ID, generation: 0, message: ZEROS, amount, recipient: ZEROS };
  switch (action) {
    case "generate":
      return { kind: "generate", ...purpose };
    case "import":
      return {
        kind: "import",
        ...purpose,
        origin: "imported",
        threshold: 2,
        holders: [],
        commitments: [],
        sealedValue: null,
      };
    case "sign":
      return { kind: "sign", form: "message" as const, input: 0, ...use };
    case "release":
      return { kind: "release", form: "message" as const, input: 0, ...use, purpose: "sign" };
    case "retrieve":
    case "export":
      return { kind: "release", form: "message" as const, input: 0, ...use, message: null, purpose: action };
    case "reshare":
      return { kind: "reshare", keyId: KEY_ID, generation: 0, mode: "refresh", threshold: 2, holders: [] };
  }
}

/** A key that nobody has, for rules that look at its type. */
const certificateOf = (type: FederatedType, federationId: FederationId): Certificate => ({
  keyId: KEY_ID,
  federationId,
  epoch: 1,
  requestId: REQUEST_ID,
  attempt: 1,
  owner: NOBODY,
  type,
  length: 32,
  custody: "delegated",
  control: "shared",
  origin: "generated",
  policy: null,
  publicKey: ZEROS,
  commitments: [],
  untweaked: null,
  ownerPoint: null,
  threshold: 2,
  holders: [],
  generation: 0,
  transcript: ZEROS,
  predecessor: null,
  value: null,
});

/** What a policy would decide. @throws Fault bad_input for a name that it does not know */
export function tryPolicy(trial: PolicyTrial): Evaluation {
  const { document, nowMs, used } = trial;
  const keyOf = (name: string): Uint8Array => {
    const found = [...document.approvers, ...document.remotes].find((one) => one.name === name);
    if (found) return found.key;
    throw new Fault("bad_input", `the policy names no "${name}"`, { hint: "approvers and remotes of the file" });
  };
  const vote =
    (verdict: Vote["verdict"]) =>
    (name: string): Vote => ({
      federationId: document.federationId,
      epoch: 1,
      requestId: REQUEST_ID,
      verdict,
      policyHash: ZEROS,
      castAtMs: nowMs,
      expiresAtMs: Number.MAX_SAFE_INTEGER,
      reason: "",
      key: keyOf(name),
    });
  const requester = trial.requester === null ? NOBODY : keyOf(trial.requester);
  const body = bodyOf(trial);
  const made = body.kind === "generate" || body.kind === "import";
  const request: FederatedRequest = {
    federationId: document.federationId,
    epoch: 1,
    requester,
    nonce: ZEROS,
    createdAtMs: nowMs,
    expiresAtMs: Number.MAX_SAFE_INTEGER,
    keyring: null,
    body,
  };
  const certificate = made ? null : certificateOf(trial.type, document.federationId);
  return decide({
    request,
    requestId: REQUEST_ID,
    certificate,
    facts: { ...factsOf(request, certificate), recipients: trial.recipients ?? null },
    requesterApproval: requester,
    document,
    votes: [...trial.approve.map(vote("approve")), ...trial.reject.map(vote("reject"))],
    uses: () => used,
    nowMs,
  });
}
