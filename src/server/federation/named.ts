import type { AnyHashId, KeyId } from "../../ids.ts";
import { policyIdOf } from "../../protocol/federation/policy.ts";
import { requestIdOf } from "../../protocol/federation/request.ts";
import type { InputOf } from "../../wire/operations.ts";
import type { FederatedOperation } from "../context.ts";

/** An id of 256 bits as the audit log names it: its first 128 bits. */
export function shortId(id: AnyHashId): KeyId {
  return id.slice(0, 32) as KeyId;
}

type Inputs = { readonly [N in FederatedOperation]: (input: InputOf<N>) => AnyHashId | undefined };

const NAMED: Inputs = {
  "federation.enrol": (input) => input.federationId,
  "federation.submit": ({ request: { request } }) =>
    "keyId" in request.body ? request.body.keyId : requestIdOf(request),
  "federation.request": (input) => input.requestId,
  "federation.requests": (input) => input.federationId,
  "federation.begin": ({ order }) => order.order.requestId,
  "federation.relay": (input) => input.requestId,
  "federation.decide": ({ decision }) => decision.decision.requestId,
  "federation.vote": ({ vote }) => vote.vote.requestId,
  "federation.keys": (input) => input.federationId,
  "federation.key": (input) => input.keyId,
  "federation.inform": ({ certificate }) => certificate.certificate.keyId,
  "federation.policies": (input) => input.federationId,
  "federation.policy": (input) => input.policyId,
  "federation.policy.set": ({ policy: { document } }) =>
    document.version === 1 ? policyIdOf(document) : document.federationId,
};

/** The key, request, policy or federation that a request names. */
export function namedBy<N extends FederatedOperation>(name: N, input: InputOf<N>): AnyHashId | undefined {
  return (NAMED[name] as (input: InputOf<N>) => AnyHashId | undefined)(input);
}
