import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId, FederatedRequestId } from "../../ids.ts";
import { transactionFacts } from "../transaction/index.ts";
import type { Certificate } from "./certificate.ts";
import type { FederatedType, SignForm } from "./kinds.ts";
import type { PolicyAction, PolicyRule } from "./policy.ts";
import type { Amount, FederatedRequest, RequestBody } from "./request.ts";

/** Every action, in the order of documents. */
export const POLICY_ACTIONS = ["generate", "import", "sign", "release", "reshare", "retrieve", "export"] as const;

/** Actions by which shares leave the servers: no rule allows one without naming it. */
export const RELEASING: readonly PolicyAction[] = ["release", "retrieve", "export"];

/** The one action that a request is: a release is `retrieve`, `export` or, to sign, `release`. */
export function actionOf(body: RequestBody): PolicyAction {
  if (body.kind !== "release") return body.kind;
  return body.purpose === "sign" ? "release" : body.purpose;
}

/**
 * True when a rule is about an action. Narrow where it allows: what lets shares out must be named. Wide where it
 * denies: `sign` denies a release to sign too, and `release` everything that lets shares out.
 */
export function covers({ effect, actions }: Pick<PolicyRule, "effect" | "actions">, action: PolicyAction): boolean {
  if (actions.includes(action)) return true;
  const releasing = RELEASING.includes(action);
  if (actions.length === 0) return effect === "deny" || !releasing;
  if (effect === "allow") return false;
  return (action === "release" && actions.includes("sign")) || (releasing && actions.includes("release"));
}

/** What rules look at. */
export interface RequestFacts {
  readonly action: PolicyAction;
  readonly type: FederatedType;
  /** How what is to be signed is read; null where nothing is signed. */
  readonly form: SignForm | null;
  /** Of a transaction what its bytes say, never what is declared; none of a digest; of a message what is declared. */
  readonly amount: Amount | null;
  /** Who is paid, empty where that cannot be read; null for what is no transaction. */
  readonly recipients: readonly string[] | null;
  /** Null for a key that is to be made. */
  readonly keyId: FederatedKeyId | null;
  /** A resharing after which fewer servers than now have the key: no rule allows it without naming `reshare`. */
  readonly lowers: boolean;
}

/**
 * What a policy sees of a request.
 *
 * @param certificate Of the key that the request is about; null for one that makes a key.
 * @throws Fault bad_input when the certificate is missing, or another key's; for a transaction that cannot be read.
 */
export function factsOf({ body }: FederatedRequest, certificate: Certificate | null): RequestFacts {
  const action = actionOf(body);
  if (body.kind === "generate" || body.kind === "import") {
    if (certificate !== null) throw new Fault("bad_input", "this request is about no key");
    return { action, type: body.type, form: null, amount: null, recipients: null, keyId: null, lowers: false };
  }
  if (certificate === null || certificate.keyId !== body.keyId) {
    throw new Fault("bad_input", "the certificate of the request's key is missing");
  }
  const { type, publicKey } = certificate;
  const about = { action, type, keyId: body.keyId };
  if (body.kind === "reshare") {
    return { ...about, form: null, amount: null, recipients: null, lowers: body.threshold < certificate.threshold };
  }
  const { message } = body;
  const form = message === null ? null : body.form;
  const read = message === null ? null : transactionFacts({ ...body, message }, { type, publicKey });
  if (read !== null) return { ...about, form, amount: read.amount, recipients: read.recipients, lowers: false };
  return { ...about, form, amount: form === "digest" ? null : body.amount, recipients: null, lowers: false };
}

/** Which requests count against a rate. */
export interface UseFilter {
  /** The request itself, which is no use before it. */
  readonly except: FederatedRequestId;
  readonly actions: readonly PolicyAction[];
  /** Uses of this key; null for requests that make keys: those of `requester`. */
  readonly keyId: FederatedKeyId | null;
  readonly requester: Uint8Array;
}

/** How many requests that fit the filter began at `sinceMs` or later. */
export type CountUses = (sinceMs: number, filter: UseFilter) => number;

/** One request that was begun, as a journal keeps it; `action` as {@link actionOf} names it. */
export interface UseEntry {
  readonly requestId: FederatedRequestId;
  readonly action: string;
  readonly requester: Uint8Array;
  readonly keyId: FederatedKeyId | null;
}

/**
 * Counts uses in a journal.
 *
 * @param since Requests begun at that moment or later, each once.
 */
export function useCounter(since: (sinceMs: number) => readonly UseEntry[]): CountUses {
  return (sinceMs, { except, actions, keyId, requester }) =>
    since(sinceMs).filter(
      (use) =>
        use.requestId !== except &&
        use.keyId === keyId &&
        actions.some((action) => action === use.action) &&
        (keyId !== null || equalBytes(use.requester, requester)),
    ).length;
}
