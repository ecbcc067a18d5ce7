import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { requestSigner } from "../../protocol/federation/credentials.ts";
import type { Culprit } from "../../protocol/federation/message.ts";
import {
  type AttemptOrder,
  type RequestBody,
  requestIdOf,
  type SignedOrder,
  signRequest,
} from "../../protocol/federation/request.ts";
import type { Judge, Standstill } from "../../wire/federation/exchange.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import { type Answer, askAll, everyone, urlOf } from "./answers.ts";
import { type Contribute, makeOrder, runAttempt } from "./attempt.ts";
import type { Ground } from "./ground.ts";
import type { HeldRequest } from "./held.ts";
import { type Chooser, nextStep } from "./standing.ts";

/** Attempts of one request at most: an enclave answers no more of a use. */
export const ATTEMPTS_MAX = 8;
/** How long a request may wait for its approvers, in milliseconds: a day. */
export const REQUEST_LIFE_MS = 86_400_000;

/** Who spoiled an attempt. */
export interface Spoilt {
  readonly culprits: readonly Culprit[];
  readonly suspects: ReadonlyMap<number, string>;
}

/** What one kind of request does differently; made anew for each run. */
export interface Plan<T> {
  readonly choose: Chooser;
  readonly contribute: Contribute;
  /** The owner's fresh nonces for the next attempt, which live in this plan alone. */
  readonly ownerNonces?: (attempt: number) => AttemptOrder["ownerNonces"];
  readonly judge: (held: HeldRequest, order: SignedOrder) => Judge;
  /** What an attempt has come to: a result that is whole and verified, or who spoiled it. */
  conclude(held: HeldRequest, order: SignedOrder, end: Standstill): Promise<{ readonly result: T } | Spoilt>;
}

export type Driven<T> =
  | { readonly at: "waiting"; readonly absent: readonly number[] }
  | { readonly at: "done"; readonly held: HeldRequest; readonly result: T; readonly absent: readonly number[] };

/** A new request, signed, as it is kept before it is sent. */
export function newRequest(
  ground: Ground,
  body: RequestBody,
  beside: { readonly name: string | null; readonly recipientSeed?: Uint8Array; readonly nonce?: Uint8Array },
): HeldRequest {
  const { fleet, secret, random, now } = ground;
  const { federationId, epoch } = fleet.manifest;
  const signer = requestSigner(secret, federationId);
  const createdAtMs = now();
  const signed = signRequest(signer, {
    federationId,
    epoch,
    requester: signer.publicKey,
    nonce: beside.nonce ?? random(32),
    createdAtMs,
    expiresAtMs: createdAtMs + REQUEST_LIFE_MS,
    keyring: null,
    body,
  });
  return {
    requestId: requestIdOf(signed.request),
    federationId,
    request: signed,
    name: beside.name,
    label: null,
    orders: [],
    decision: null,
    certificate: null,
    recipientSeed: beside.recipientSeed ?? null,
    material: null,
    owed: [],
    culprits: [],
  };
}

/** Keeps a request, new or as another process left it. */
export async function keepRequest({ keeping }: Pick<Ground, "keeping">, fresh: HeldRequest): Promise<HeldRequest> {
  return (await keeping.changeRequest(fresh.requestId, (held) => held ?? fresh)) ?? fresh;
}

/** Submits a request to every server: idempotent, so that each run begins with it. */
export function submit({ fleet }: Ground, held: HeldRequest): Promise<readonly Answer<RequestView>[]> {
  return askAll(fleet, everyone(fleet), "federation.submit", () => ({ request: held.request, label: held.label }));
}

/**
 * Brings a request as far as it goes now: submits it, orders attempts among those who approve and can be reached, each
 * with fresh randomness and without those who spoiled one, until one has come to a result.
 *
 * @throws Fault denied, integrity with culprits, unavailable, conflict
 */
export async function drive<T>(ground: Ground, start: HeldRequest, plan: Plan<T>): Promise<Driven<T>> {
  const { fleet } = ground;
  const strikes = new Map<number, number>();
  const resumed = await resume(ground, start, plan);
  if (resumed.done) return resumed.done;
  let held = resumed.held;
  for (const [index] of resumed.suspects) strikes.set(index, 1);
  for (;;) {
    const answers = await submit(ground, held);
    const step = nextStep(
      fleet.manifest,
      answers,
      plan.choose,
      strikes,
      held.culprits.map(({ index }) => index),
    );
    const absent = answers.flatMap(({ index, fault }) => (fault === null ? [] : [index]));
    if (step.step === "wait") return { at: "waiting", absent };
    if (step.step === "refused") throw withRequest(step.fault, held.requestId);
    const before = Math.max(held.orders.at(-1)?.order.attempt ?? 0, begunElsewhere(answers, fleet.manifest.threshold));
    if (before >= ATTEMPTS_MAX) throw spent(ground, held, strikes);
    const { held: kept, order } = await orderNext(ground, held, before + 1, step.roster, plan);
    const end = await runAttempt(ground, kept, order, plan.judge(kept, order));
    const concluded = await plan.conclude(kept, order, end);
    if ("result" in concluded) return done(ground, kept, order, concluded.result);
    held = await keepCulprits(ground, kept, concluded.culprits);
    for (const [index] of concluded.suspects) strikes.set(index, (strikes.get(index) ?? 0) + 1);
  }
}

/** The newest attempt, perhaps another device's, that `threshold` servers know of: fewer may be liars, who invent none. */
function begunElsewhere(answers: readonly Answer<RequestView>[], threshold: number): number {
  const attempts = answers.map(({ value }) => value?.attempt ?? 0).sort((a, b) => b - a);
  return attempts[threshold - 1] ?? 0;
}

function done<T>(ground: Ground, held: HeldRequest, order: SignedOrder, result: T): Driven<T> {
  const absent = everyone(ground.fleet).filter((index) => !order.order.roster.includes(index));
  return { at: "done", held, result, absent };
}

/** Goes on with an attempt that was ordered before this run: its servers repeat what they have said. */
async function resume<T>(ground: Ground, held: HeldRequest, plan: Plan<T>) {
  const nobody: ReadonlyMap<number, string> = new Map();
  const order = held.orders.at(-1);
  // the owner's nonces were in the memory of another run; and so were the servers', of which a liar says others now:
  // partials over those that were brought before would look wrong, and convict the honest
  if (order === undefined || held.request.request.body.kind === "sign") return { done: null, held, suspects: nobody };
  const end = await runAttempt(ground, held, order, plan.judge(held, order));
  const concluded = await plan.conclude(held, order, end);
  if ("result" in concluded) return { done: done(ground, held, order, concluded.result), held, suspects: nobody };
  // who merely forgot the attempt may well take part in the next one
  return { done: null, held: await keepCulprits(ground, held, concluded.culprits), suspects: nobody };
}

/** Signs the next order and keeps it; an order that another process has kept meanwhile ends this run. */
async function orderNext<T>(
  ground: Ground,
  held: HeldRequest,
  attempt: number,
  roster: readonly number[],
  plan: Plan<T>,
): Promise<{ readonly held: HeldRequest; readonly order: SignedOrder }> {
  const nonces = plan.ownerNonces?.(attempt) ?? null;
  const order = await makeOrder(ground, held, attempt, roster, plan.contribute, nonces);
  const kept = await ground.keeping.changeRequest(held.requestId, (now) => {
    if (now === null || now.decision !== null) throw settledElsewhere(held.requestId);
    const newest = now.orders.at(-1)?.order.attempt ?? 0;
    if (newest >= attempt) throw settledElsewhere(held.requestId);
    return { ...now, orders: [...now.orders, order] };
  });
  if (kept === null) throw settledElsewhere(held.requestId);
  return { held: kept, order };
}

async function keepCulprits(ground: Ground, held: HeldRequest, found: readonly Culprit[]): Promise<HeldRequest> {
  const fresh = found.filter(({ index }) => !held.culprits.some((c) => c.index === index));
  if (fresh.length === 0) return held;
  for (const { index, reason } of fresh) {
    ground.notice(`${urlOf(ground.fleet.manifest, index)} was proven to cheat (${reason}): it is left out`);
  }
  const kept = await ground.keeping.changeRequest(held.requestId, (now) => {
    if (now === null) return null;
    const others = fresh.filter(({ index }) => !now.culprits.some((c) => c.index === index));
    return { ...now, culprits: [...now.culprits, ...others] };
  });
  if (kept === null) throw settledElsewhere(held.requestId);
  return kept;
}

/** Another process of this device has ended the request, or works on it. */
export function settledElsewhere(requestId: FederatedRequestId): Fault {
  return new Fault("conflict", "another command works on this request, or has ended it", {
    hint: `keyhold request show ${requestId.slice(0, 16)}`,
    requestId,
  });
}

function spent({ fleet }: Ground, held: HeldRequest, strikes: ReadonlyMap<number, number>): Fault {
  const culprits = held.culprits.map(({ index }) => urlOf(fleet.manifest, index));
  const silent = [...strikes.keys()].map((index) => urlOf(fleet.manifest, index));
  return new Fault(culprits.length > 0 ? "integrity" : "unavailable", "this request has used up its attempts", {
    ...(silent.length > 0 ? { why: `stopped in the middle: ${silent.join(", ")}` } : {}),
    hint: "keyhold federation check, then cancel it and ask again",
    culprits,
    requestId: held.requestId,
  });
}

const goOn = (hint: string, requestId: FederatedRequestId): string =>
  `${hint}; the request stays: keyhold request watch ${requestId.slice(0, 16)}`;

function withRequest(fault: Fault, requestId: FederatedRequestId): Fault {
  const { code, why, hint, culprits } = fault;
  return new Fault(code, fault.message, {
    ...(why === undefined ? {} : { why }),
    ...(hint === undefined ? {} : { hint: code === "unavailable" ? goOn(hint, requestId) : hint }),
    ...(code === "denied" && hint === undefined && { hint: `keyhold request show ${requestId.slice(0, 16)}` }),
    culprits,
    requestId,
  });
}
