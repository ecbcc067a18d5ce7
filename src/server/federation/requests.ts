import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, UserId } from "../../ids.ts";
import { verifyRequest } from "../../protocol/federation/request.ts";
import { advance, draftLife } from "../../protocol/federation/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import type { FederatedCaller } from "../context.ts";
import { checkBody, checkTimes } from "./bodyrules.ts";
import {
  APPROVAL,
  listStored,
  MEMBER,
  memberId,
  OPEN_REQUEST,
  REQUEST,
  type RequestBodyRow,
  readStored,
} from "./documents.ts";
import { note } from "./events.ts";
import { approversOf, enclaveIdentity, gather, type Standing } from "./evidence.ts";
import {
  callApprovers,
  distinctKeys,
  noSuchRequest,
  readRequest,
  type StoredRequest,
  saveRequest,
  turnOf,
} from "./life.ts";
import { type Desk, putVote, rule, standingOf, whyOf } from "./ruling.ts";
import { type FederationService, memberOfAccount } from "./service.ts";
import { includesKey, requestViewOf } from "./views.ts";

type Work = Pick<FederationService, "federation.submit" | "federation.request" | "federation.requests">;

/** A page of requests: so many, and about so many bytes of what they carry. */
const PAGE = 16;
const PAGE_BYTES = 256 * 1_024;

/** Everything that a new request must satisfy before a policy is asked. @throws Fault integrity, denied, stale, bad_input */
async function admit(desk: Desk, tx: Tx, row: RequestBodyRow, userId: UserId, standing: Standing): Promise<void> {
  const { ctx } = desk.site;
  const { request } = row.request;
  const member = await memberOfAccount(tx, request.federationId, userId);
  if (!equalBytes(member.requestKey, request.requester))
    throw new Fault("denied", "this request was signed by another account");
  if (request.epoch !== standing.manifest.manifest.epoch)
    throw new Fault("stale", "the federation has another manifest now", { hint: "keyhold federation show" });
  checkTimes(request, ctx.now(), ctx.limits);
  checkBody(request, standing);
  const open = await listStored(tx, OPEN_REQUEST, userId, null, ctx.limits.openRequests);
  if (open.length >= ctx.limits.openRequests)
    throw new Fault("rate_limited", "too many requests of this account are open", {
      hint: "end some: keyhold request cancel",
    });
}

/** True for whom one of the request's policies names. */
async function mayVote(tx: Tx, row: StoredRequest, userId: UserId, identity: Uint8Array): Promise<boolean> {
  const member = await readStored(tx, MEMBER, memberId(row.value.request.request.federationId, userId));
  if (!member) return false;
  try {
    const standing = await gather(tx, row.value.request, row.id, identity);
    return includesKey(approversOf(standing), member.value.approvalKey);
  } catch (error) {
    if (error instanceof Fault && error.code !== "corrupt" && error.code !== "storage") return false;
    throw error;
  }
}

/**
 * A request that the caller may see: the own one, or one whose policy names its approval key. All others are like
 * one that does not exist (P8).
 *
 * @throws Fault not_found
 */
export async function visibleRequest(
  tx: Tx,
  id: FederatedRequestId,
  userId: UserId,
  identity: Uint8Array,
): Promise<StoredRequest> {
  const row = await readRequest(tx, id);
  if (!row) throw noSuchRequest();
  if (row.owner === userId || (await mayVote(tx, row, userId, identity))) return row;
  throw noSuchRequest();
}

function draftRow(request: RequestBodyRow["request"], label: Uint8Array | null, nowMs: number): RequestBodyRow {
  const { body } = request.request;
  return {
    request,
    status: "pending",
    why: "",
    label,
    attempt: 0,
    order: null,
    rounds: [],
    outcome: null,
    messages: [],
    signed: [],
    explanations: [],
    called: [],
    decision: null,
    contradiction: null,
    certificate: null,
    culprits: [],
    policy: "policy" in body ? body.policy : null,
    updatedAtMs: nowMs,
  };
}

/** Handing requests in and looking at them (docs/protocol.md §8.3). */
export function createRequests(desk: Desk): Work {
  const { site, turns } = desk;
  const { ctx } = site;

  async function submit(caller: FederatedCaller, draft: RequestBodyRow, id: FederatedRequestId): Promise<RequestView> {
    const { userId } = caller.account;
    const known = await ctx.store.transaction(async (tx) => {
      const before = await readRequest(tx, id);
      if (!before) return undefined;
      if (before.owner !== userId) throw new Fault("denied", "this request was signed by another account");
      return requestViewOf(tx, before, true);
    });
    if (known) return known;
    const standing = await standingOf(site, draft.request, id);
    await ctx.store.transaction((tx) => admit(desk, tx, draft, userId, standing));
    const ruled = await rule(desk, draft.request, id, standing);
    const view = await ctx.store.transaction(async (tx) => {
      await admit(desk, tx, draft, userId, standing);
      const nowMs = ctx.now();
      const { kind } = draft.request.request.body;
      const { life } = advance(draftLife(kind, draft.request.request.expiresAtMs), {
        type: "submitted",
        ruling: ruled.ruling,
      });
      if (life.status === "draft") throw noSuchRequest();
      const policy = ruled.standing.keyPolicy?.policyId ?? ruled.standing.serverPolicy?.policyId ?? null;
      const value: RequestBodyRow = {
        ...draft,
        status: life.status,
        why: whyOf(ruled),
        explanations: ruled.explanations,
        called: life.status === "awaiting_approval" ? distinctKeys(ruled.awaited) : [],
        policy,
        updatedAtMs: nowMs,
      };
      // newest first
      const place = Number.MAX_SAFE_INTEGER - nowMs;
      const row = await saveRequest(tx, { id, owner: userId, place, version: 0, value }, value);
      for (const verdict of ruled.verdicts) await putVote(tx, id, verdict, nowMs);
      await callApprovers(tx, row, value.called);
      if (life.status === "rejected")
        await note(site, tx, { userId, action: "federation.refusal", status: "denied", requestId: id });
      return requestViewOf(tx, row, true);
    });
    if (view.status === "awaiting_approval") {
      const { federationId, body } = draft.request.request;
      site.notify({ event: "federation.approval", requestId: id, federationId, action: body.kind, why: view.why });
    }
    return view;
  }

  return {
    async "federation.submit"(caller, { request, label }) {
      const id = verifyRequest(request);
      caller.concerns(id);
      const draft = draftRow(request, label, ctx.now());
      return turns.take(turnOf(id, request.request.body), () => submit(caller, draft, id));
    },
    async "federation.request"(caller, { requestId }) {
      const identity = await enclaveIdentity(site);
      const { userId } = caller.account;
      return ctx.store.transaction(async (tx) => {
        const row = await visibleRequest(tx, requestId, userId, identity);
        return requestViewOf(tx, row, row.owner === userId);
      });
    },
    async "federation.requests"(caller, { federationId, role, after }) {
      const { userId } = caller.account;
      const identity = await enclaveIdentity(site);
      return ctx.store.transaction(async (tx) => {
        const member = await memberOfAccount(tx, federationId, userId);
        const from = after === null ? null : await visibleRequest(tx, after, userId, identity);
        const pageOf = async (last: { id: string; place: number } | null) => {
          if (role === "requester") return listStored(tx, REQUEST, userId, last, PAGE);
          return listStored(tx, APPROVAL, member.approvalKey.toHex(), last, PAGE);
        };
        const key = member.approvalKey.toHex();
        const cursor = (row: StoredRequest) => ({
          id: role === "requester" ? row.id : `${key}:${row.id}`,
          place: row.place,
        });
        const items: RequestView[] = [];
        let bytes = 0;
        let last = from && cursor(from);
        for (;;) {
          const page = await pageOf(last);
          for (const entry of page) {
            const id = (role === "requester" ? entry.id : entry.id.slice(key.length + 1)) as FederatedRequestId;
            last = { id: entry.id, place: entry.place };
            const row = await readRequest(tx, id);
            if (!row || row.value.request.request.federationId !== federationId) continue;
            if (role === "approver" && !(await mayVote(tx, row, userId, identity))) continue;
            const { body } = row.value.request.request;
            const carried = "message" in body ? body.message : body.kind === "import" ? body.sealedValue : null;
            bytes += 4_096 + (carried?.length ?? 0) * 2;
            if (items.length >= PAGE || (items.length > 0 && bytes > PAGE_BYTES)) return { items, more: true };
            items.push(await requestViewOf(tx, row, row.owner === userId));
          }
          if (page.length < PAGE) return { items, more: false };
        }
      });
    },
  };
}
