import type { EnclaveOutput } from "../../enclave/frames.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { certificateHash } from "../../protocol/federation/certificate.ts";
import type { SignedMessage } from "../../protocol/federation/message.ts";
import { coordinatorOf, orderHash, type SignedOrder, verifyOrder } from "../../protocol/federation/request.ts";
import { advance, isUse, type RequestEvent, type RequestLife } from "../../protocol/federation/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { FederatedCaller } from "../context.ts";
import { checkUsable } from "./bodyrules.ts";
import {
  KEY,
  PENDING_SHARE,
  pendingShareId,
  putStored,
  type RequestBodyRow,
  readStored,
  SHARE,
  shareId,
} from "./documents.ts";
import { note } from "./events.ts";
import { evidenceOf, headsOf, type Standing } from "./evidence.ts";
import { changedMeanwhile, keyOf, lifeOf, ownRequest, type StoredRequest, saveRequest, turnOf } from "./life.ts";
import { type Desk, type Ruled, reconsider, rule, standingOf, whyOf } from "./ruling.ts";
import type { FederationService } from "./service.ts";
import { clauseOf } from "./views.ts";

type Work = Pick<FederationService, "federation.begin" | "federation.relay">;
type Step = EnclaveOutput<"begin">;
/** What an attempt's caller gets: all that this server has said in it. */
type Said = { messages: SignedMessage[]; outcome: Step["outcome"] };

const said = ({ messages, outcome }: Pick<Step, "messages" | "outcome">): Said => ({
  messages: [...messages],
  outcome,
});

/** The enclave does not hold the attempt any more: all of it is gone, on purpose. */
const isGone = (error: unknown): boolean =>
  error instanceof Fault && (error.code === "unavailable" || error.code === "not_found");

/** What it began under does not hold any more: votes, policies, epoch, shares. */
const hasMovedOn = (error: unknown): boolean =>
  error instanceof Fault && (error.code === "denied" || error.code === "pending" || error.code === "stale");

/** @throws Fault denied, pending */
function demandAllow(ruled: Pick<Ruled, "ruling" | "explanations">): void {
  if (ruled.ruling === "deny") throw new Fault("denied", "a policy denies this request", { why: whyOf(ruled) });
  if (ruled.ruling === "wait") throw new Fault("pending", "this request waits for approval", { why: whyOf(ruled) });
}

/** Writes a life's next state beside the other changes of a row. */
export function withLife(row: RequestBodyRow, life: RequestLife, nowMs: number): RequestBodyRow {
  const { status, attempt, signed } = life;
  return { ...row, status: status === "draft" ? row.status : status, attempt, signed, updatedAtMs: nowMs };
}

/** Beginning and driving attempts (docs/protocol.md §8.3, §8.5). */
export function createAttempts(desk: Desk): Work {
  const { site, turns } = desk;
  const { ctx } = site;

  /** Stores one event's effect on the life alone. */
  async function happen(row: StoredRequest, event: RequestEvent, why: string | null): Promise<StoredRequest> {
    return ctx.store.transaction(async (tx) => {
      const nowMs = ctx.now();
      const next = withLife(row.value, advance(lifeOf(row.value), event).life, nowMs);
      return saveRequest(tx, row, why === null ? next : { ...next, why });
    });
  }

  /** An attempt that cannot go on: what is left of it goes, the refusal is kept, and the caller learns why. */
  async function giveUp(row: StoredRequest, error: unknown): Promise<never> {
    await ctx.store.transaction(async (tx) => {
      const { life } = advance(lifeOf(row.value), { type: "lost", attempt: row.value.attempt });
      await saveRequest(tx, row, { ...withLife(row.value, life, ctx.now()), why: clauseOf(error) });
      const status = error instanceof Fault ? error.code : "internal";
      await note(site, tx, {
        owner: row.owner,
        action: "federation.refusal",
        status,
        requestId: row.id,
        keyId: keyOf(row.value.request.request.body),
      });
    });
    await site.enclave.call("forget", { requestId: row.id }).catch(() => undefined);
    throw error;
  }

  /** Marks a key as let out: for good, and before the share leaves. */
  async function markReleased(tx: Tx, row: StoredRequest): Promise<void> {
    const keyId = keyOf(row.value.request.request.body);
    const key = keyId === null ? undefined : await readStored(tx, KEY, keyId);
    if (!key || key.value.released) return;
    if (!(await putStored(tx, KEY, { ...key, value: { ...key.value, released: true } }, key.version)))
      throw changedMeanwhile();
  }

  async function keepPending(tx: Tx, row: StoredRequest, { outcome, sealed }: Step): Promise<void> {
    if (sealed === null || outcome === null) return;
    const id = pendingShareId(row.id, row.value.attempt);
    if (await readStored(tx, PENDING_SHARE, id)) return;
    const { certificate, signature } = outcome;
    const value = { sealed, certificate, signature };
    if (!(await putStored(tx, PENDING_SHARE, { id, owner: row.id, place: row.value.attempt, value }, 0)))
      throw changedMeanwhile();
    await note(site, tx, { owner: row.owner, action: "federation.seal", requestId: row.id });
  }

  /** Takes in what the enclave has said and done: durable before it leaves this server. */
  async function absorb(row: StoredRequest, step: Step): Promise<Said> {
    const { attempt } = row.value;
    const own = step.messages.map(({ message }) => message);
    const rounds = [...new Set(own.map(({ payload }) => payload.round))];
    const fresh = rounds.filter((round) => !row.value.rounds.includes(round));
    if (fresh.length === 0 && step.outcome === null) return said(step);
    const { body } = row.value.request.request;
    const keyId = keyOf(body);
    await ctx.store.transaction(async (tx) => {
      const nowMs = ctx.now();
      let life = lifeOf(row.value);
      const happened = (event: RequestEvent) => {
        life = advance(life, event).life;
      };
      for (const round of fresh) happened({ type: "spoken", attempt, round });
      const certificate = step.outcome?.certificate;
      const confirm = own.find(({ payload }) => payload.round === "confirm")?.payload;
      if (confirm?.round === "confirm") happened({ type: "signed", attempt, certificateHash: confirm.certificateHash });
      else if (certificate) happened({ type: "signed", attempt, certificateHash: certificateHash(certificate) });
      const { outcome } = step;
      if (outcome?.result === "done" || outcome?.result === "failed")
        happened({ type: "finished", attempt, result: outcome.result });
      const culprits = outcome?.culprits ?? [];
      const named = culprits.map(({ index, reason }) => `server ${index}: ${reason}`).join(", ");
      for (const _ of fresh)
        await note(site, tx, { owner: row.owner, action: "federation.round", requestId: row.id, keyId });
      await keepPending(tx, row, step);
      if (fresh.includes("partial")) {
        const released = body.kind === "release";
        if (released) await markReleased(tx, row);
        const action = released ? "federation.release" : "federation.use";
        await note(site, tx, { owner: row.owner, action, requestId: row.id, keyId });
      }
      if (outcome?.result === "failed")
        await note(site, tx, {
          owner: row.owner,
          action: "federation.refusal",
          status: "integrity",
          requestId: row.id,
        });
      await saveRequest(tx, row, {
        ...withLife(row.value, life, nowMs),
        rounds,
        outcome,
        messages: outcome === null ? [] : step.messages,
        culprits: [...row.value.culprits.filter((old) => !culprits.some((c) => c.index === old.index)), ...culprits],
        why: named === "" ? row.value.why : named,
      });
    });
    // from here on the stored answer is the answer
    if (step.outcome !== null) await site.enclave.call("forget", { requestId: row.id }).catch(() => undefined);
    return said(step);
  }

  /** Passes messages on to the enclave; of none it tells what was said so far. */
  async function relay(row: StoredRequest, messages: readonly SignedMessage[]): Promise<Said> {
    const { outcome, attempt } = row.value;
    if (outcome !== null) return said({ messages: [...row.value.messages], outcome });
    const life = lifeOf(row.value);
    // confirmed without its outcome being known here: nothing more can be said
    if (life.decision) throw new Fault("conflict", "this request is decided");
    let step: Step;
    try {
      step = await site.enclave.call("relay", { requestId: row.id, attempt, messages: [...messages] });
    } catch (error) {
      if (hasMovedOn(error)) return giveUp(row, error);
      if (!isGone(error)) throw error;
      return giveUp(
        row,
        new Fault("unavailable", "this server has lost the attempt: order a new one", {
          why: "its enclave was restarted, and forgets attempts on purpose",
          hint: "give the same command again",
        }),
      );
    }
    return absorb(row, step);
  }

  async function shareOf(standing: Standing, row: StoredRequest): Promise<Uint8Array | null> {
    const { body } = row.value.request.request;
    if (!("keyId" in body)) return null;
    const { certificate } = standing.key?.value.certificate ?? {};
    if (!certificate?.holders.includes(standing.index)) return null;
    const share = await ctx.store.transaction((tx) => readStored(tx, SHARE, shareId(body.keyId, body.generation)));
    if (!share && isUse(body.kind))
      throw new Fault("not_found", "this server holds no share of that key", { hint: "keyhold key repair" });
    return share?.value.sealed ?? null;
  }

  async function begin(caller: FederatedCaller, signed: SignedOrder): Promise<Said> {
    const { order } = signed;
    const { userId } = caller.account;
    let row = await ctx.store.transaction((tx) => ownRequest(tx, order.requestId, userId));
    const { request } = row.value.request;
    verifyOrder(coordinatorOf(request), signed);
    const nowMs = ctx.now();
    const event = { type: "begun", attempt: order.attempt, orderHash: orderHash(order), nowMs } as const;
    const before = lifeOf(row.value);
    const repeats = before.status !== "awaiting_approval" && advance(before, event).effects.includes("repeat");
    if (repeats) return relay(row, []);
    const { row: newest, ruled } = await reconsider(desk, row);
    row = newest;
    const { standing } = ruled;
    if (request.epoch !== standing.manifest.manifest.epoch)
      throw new Fault("stale", "the federation has another manifest now: ask again");
    if ("keyId" in request.body) checkUsable(request.body.generation, standing);
    if (!order.roster.includes(standing.index))
      throw new Fault("bad_input", "this server is not in the roster of that attempt");
    const { life } = advance(lifeOf(row.value), event);
    demandAllow(ruled);
    const share = await shareOf(standing, row);
    // durable before anything is said: this attempt is this order's for good
    row = await ctx.store.transaction((tx) =>
      saveRequest(tx, row, {
        ...withLife(row.value, life, nowMs),
        order: signed,
        rounds: [],
        outcome: null,
        messages: [],
        why: "",
      }),
    );
    let step: Step;
    try {
      const evidence = evidenceOf(standing, row.value.request);
      step = await site.enclave.call("begin", { evidence, order: signed, share });
    } catch (error) {
      return giveUp(row, error);
    }
    return absorb(row, step);
  }

  /** A vote, a policy or an epoch that came since it began counts: nothing more is said against it. */
  async function demandAllowed(row: StoredRequest): Promise<void> {
    try {
      const { request } = row.value;
      const standing = await standingOf(site, request, row.id);
      if (request.request.epoch !== standing.manifest.manifest.epoch)
        throw new Fault("stale", "the federation has another manifest now: ask again");
      if (headsOf(standing).length > 0) demandAllow(await rule(desk, request, row.id, standing));
    } catch (error) {
      await giveUp(row, error);
    }
  }

  async function relayed(
    caller: FederatedCaller,
    id: FederatedRequestId,
    attempt: number,
    messages: readonly SignedMessage[],
  ): Promise<Said> {
    let row = await ctx.store.transaction((tx) => ownRequest(tx, id, caller.account.userId));
    if (attempt !== row.value.attempt) {
      if (attempt < row.value.attempt) throw new Fault("stale", "a later attempt of this request was begun");
      throw new Fault("conflict", "this attempt was not begun here");
    }
    if (row.value.status === "cancelled") throw new Fault("conflict", "this request was cancelled");
    if (row.value.outcome === null) {
      const tick = { type: "tick", nowMs: ctx.now() } as const;
      if (advance(lifeOf(row.value), tick).life.status !== row.value.status) row = await happen(row, tick, null);
      if (row.value.status === "expired") {
        await site.enclave.call("forget", { requestId: id }).catch(() => undefined);
        throw new Fault("conflict", "this request has expired");
      }
      const { body } = row.value.request.request;
      if ("keyId" in body) {
        const key = (await ctx.store.transaction((tx) => readStored(tx, KEY, body.keyId))) ?? null;
        try {
          checkUsable(body.generation, { key });
        } catch (error) {
          return giveUp(row, error);
        }
      }
      const { status } = row.value;
      if (status !== "committing" && status !== "sharing" && status !== "confirming")
        throw new Fault("unavailable", "this server has lost the attempt: order a new one");
      // with its signature under a certificate the owner alone ends it
      if (status !== "confirming") await demandAllowed(row);
    }
    return relay(row, messages);
  }

  return {
    async "federation.begin"(caller, { order }) {
      const { requestId } = order.order;
      const { userId } = caller.account;
      const { value } = await ctx.store.transaction((tx) => ownRequest(tx, requestId, userId));
      return turns.take(turnOf(requestId, value.request.request.body), () => begin(caller, order));
    },
    async "federation.relay"(caller, { requestId, attempt, messages }) {
      const { userId } = caller.account;
      const { value } = await ctx.store.transaction((tx) => ownRequest(tx, requestId, userId));
      return turns.take(turnOf(requestId, value.request.request.body), () =>
        relayed(caller, requestId, attempt, messages),
      );
    },
  };
}
