import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedKeyId, FederatedRequestId } from "../../ids.ts";
import { type Certificate, certificateHash, type SignedCertificate } from "../../protocol/federation/certificate.ts";
import {
  coordinatorOf,
  type Decision,
  type SignedDecision,
  verifyDecision,
} from "../../protocol/federation/request.ts";
import { advance, type RequestLife } from "../../protocol/federation/requestlife.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import type { FederatedCaller } from "../context.ts";
import { demandAccepted, demandAsked } from "./acceptance.ts";
import { withLife } from "./attempts.ts";
import { KEY, readStored } from "./documents.ts";
import { note } from "./events.ts";
import { freezeKey, keepCertificate, stateErasure } from "./keeping.ts";
import {
  dropPending,
  keyOf,
  lifeOf,
  ownRequest,
  readRequest,
  recallApprovers,
  type StoredRequest,
  saveRequest,
  turnOf,
} from "./life.ts";
import type { Desk } from "./ruling.ts";
import { type FederationService, manifestAt } from "./service.ts";
import { requestViewOf } from "./views.ts";

type Work = Pick<FederationService, "federation.decide">;

/** An acceptance names attempt and certificate, a cancellation neither. @throws Fault bad_input */
function checkForm({ verdict, attempt, certificateHash: hash }: Decision): void {
  const accepts = verdict === "accept";
  if (accepts !== attempt > 0 || accepts !== (hash !== null))
    throw new Fault("bad_input", "an acceptance names attempt and certificate, a cancellation neither");
}

/** The verified certificate of an acceptance; it must be what was asked for, and what this server itself has signed. */
async function acceptedOf(
  desk: Desk,
  row: StoredRequest,
  decision: SignedDecision,
  signed: SignedCertificate | null,
): Promise<Certificate> {
  const { request } = row.value.request;
  const { manifest, before } = await desk.site.ctx.store.transaction(async (tx) => {
    const keyId = keyOf(request.body);
    return {
      manifest: (await manifestAt(tx, request.federationId, request.epoch)).manifest,
      before: keyId === null ? undefined : (await readStored(tx, KEY, keyId))?.value.certificate.certificate,
    };
  });
  const certificate = demandAccepted(row.id, decision, signed, manifest);
  demandAsked(request, manifest, certificate, before ?? null);
  const own = row.value.signed.find(({ attempt }) => attempt === certificate.attempt);
  if (own && !equalBytes(own.certificateHash, certificateHash(certificate)))
    throw new Fault("integrity", "this server has signed another certificate in that attempt");
  return certificate;
}

/** Both decisions are kept, and every key that they are about serves nothing any more. @throws Fault conflict, always */
async function freeze(
  desk: Desk,
  row: StoredRequest,
  life: RequestLife,
  decision: SignedDecision,
  signed: SignedCertificate | null,
): Promise<never> {
  const { ctx } = desk.site;
  const { owner, id, value } = row;
  const other = await acceptedOf(desk, row, decision, signed).catch((error: unknown) => {
    if (error instanceof Fault) return null;
    throw error;
  });
  await ctx.store.transaction(async (tx) => {
    const contradiction = value.contradiction ?? decision;
    await saveRequest(tx, row, {
      ...withLife(value, life, ctx.now()),
      contradiction,
      why: "two contradictory decisions were signed",
    });
    const ids = [keyOf(value.request.request.body), value.certificate?.certificate.keyId, other?.keyId];
    for (const keyId of new Set(ids.filter((one): one is FederatedKeyId => one !== null && one !== undefined)))
      await freezeKey(desk, tx, owner, keyId);
    if (value.contradiction === null)
      await note(desk.site, tx, { owner, action: "federation.freeze", status: "conflict", requestId: id });
  });
  if (value.contradiction === null)
    desk.site.notify({ event: "federation.frozen", requestId: id, federationId: value.request.request.federationId });
  // a new key that was accepted too is remembered, so that nobody takes it for a good one here
  const makes = keyOf(value.request.request.body) === null;
  if (makes && other && signed)
    await keepCertificate(desk, {
      owner,
      signed,
      label: value.label,
      frozen: true,
      also: async () => undefined,
    });
  throw new Fault("conflict", "another decision was signed before: the key is frozen", {
    why: "a request has one acceptance or one cancellation",
  });
}

async function cancel(desk: Desk, row: StoredRequest, life: RequestLife, decision: SignedDecision): Promise<void> {
  const { site } = desk;
  await site.ctx.store.transaction(async (tx) => {
    await saveRequest(tx, row, { ...withLife(row.value, life, site.ctx.now()), decision, called: [] });
    await recallApprovers(tx, row.id, row.value.called);
    await dropPending(tx, row.id);
  });
  await site.enclave.call("forget", { requestId: row.id }).catch(() => undefined);
}

async function accept(
  desk: Desk,
  row: StoredRequest,
  life: RequestLife,
  decision: SignedDecision,
  signed: SignedCertificate,
): Promise<void> {
  const { site } = desk;
  await keepCertificate(desk, {
    owner: row.owner,
    signed,
    label: row.value.label,
    frozen: false,
    also: async (tx) => {
      const next = withLife(row.value, life, site.ctx.now());
      await saveRequest(tx, row, { ...next, decision, certificate: signed, called: [], why: "" });
      await recallApprovers(tx, row.id, row.value.called);
      await dropPending(tx, row.id);
    },
  });
  await site.enclave.call("forget", { requestId: row.id }).catch(() => undefined);
}

/**
 * Takes the owner's word on a request, in the request's turn.
 *
 * @throws Fault integrity, bad_input, conflict, unavailable
 */
export async function decide(
  desk: Desk,
  row: StoredRequest,
  decision: SignedDecision,
  signed: SignedCertificate | null,
): Promise<void> {
  const { request } = row.value.request;
  verifyDecision(coordinatorOf(request), decision);
  checkForm(decision.decision);
  const { life, effects } = advance(lifeOf(row.value), { type: "decided", decision: decision.decision });
  if (effects.includes("repeat")) {
    // what a crash left undone after the decision was stored
    const keyId = row.value.certificate?.certificate.keyId;
    if (keyId) await stateErasure(desk, row.owner, keyId);
    return;
  }
  if (effects.includes("freeze")) return freeze(desk, row, life, decision, signed);
  if (!effects.includes("keep") || !signed) {
    if (effects.includes("keep")) throw new Fault("bad_input", "an acceptance brings its certificate");
    return cancel(desk, row, life, decision);
  }
  await acceptedOf(desk, row, decision, signed);
  await accept(desk, row, life, decision, signed);
}

/** The one acceptance or cancellation of a request (docs/protocol.md §8.3). */
export function createDecisions(desk: Desk): Work {
  const { ctx } = desk.site;

  async function work(
    caller: FederatedCaller,
    id: FederatedRequestId,
    input: Parameters<Work["federation.decide"]>[1],
  ) {
    const { userId } = caller.account;
    const row = await ctx.store.transaction((tx) => ownRequest(tx, id, userId));
    await decide(desk, row, input.decision, input.certificate);
    return ctx.store.transaction(async (tx): Promise<RequestView> => {
      return requestViewOf(tx, (await readRequest(tx, id)) ?? row, true);
    });
  }

  return {
    async "federation.decide"(caller, input) {
      const { requestId } = input.decision.decision;
      const { userId } = caller.account;
      const { value } = await ctx.store.transaction((tx) => ownRequest(tx, requestId, userId));
      if (input.certificate) caller.concerns(input.certificate.certificate.keyId);
      return desk.turns.take(turnOf(requestId, value.request.request.body), () => work(caller, requestId, input));
    },
  };
}
