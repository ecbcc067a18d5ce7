import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, UserId } from "../../ids.ts";
import { type FederatedRequest, registryScope, verifyRequest } from "../../protocol/federation/request.ts";
import { advance, draftLife } from "../../protocol/federation/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import type { FederatedCaller } from "../context.ts";
import { checkBody, checkTimes } from "./bodyrules.ts";
import { actsFor, type Holder, scopesOf } from "./connectors.ts";
import {
  APPROVAL,
  listStored,
  MEMBER,
  memberId,
  OPEN_REQUEST,
  REQUEST,
  type RequestBodyRow,
  readStored,
  type Stored,
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
import { currentManifest, type FederationService, memberOfAccount } from "./service.ts";
import { includesKey, requestViewOf } from "./views.ts";

type Work = Pick<FederationService, "federation.submit" | "federation.request" | "federation.requests">;

/** A page of requests: so many, and about so many bytes of what they carry. */
const PAGE = 16;
const PAGE_BYTES = 256 * 1_024;

const signedByAnother = () => new Fault("denied", "this request was signed by another account");

/**
 * To whom a request belongs that this account brings: itself, or the registry whose connector it is. Of a registry that
 * it does not act for it learns what it would learn of another account's request (P8).
 *
 * @throws Fault denied, not_found
 */
async function holderOf(tx: Tx, { keyring, federationId, requester }: FederatedRequest, userId: UserId) {
  const scope = keyring && registryScope(keyring.registry);
  if (scope && (await actsFor(tx, userId, scope))) return scope;
  if (keyring) await currentManifest(tx, federationId);
  const { requestKey } = await memberOfAccount(tx, federationId, userId);
  if (keyring || !equalBytes(requestKey, requester)) throw signedByAnother();
  return userId;
}

/** Everything that a new request must satisfy before a policy is asked. @throws Fault integrity, denied, stale, bad_input */
async function admit(desk: Desk, tx: Tx, row: RequestBodyRow, userId: UserId, standing: Standing): Promise<Holder> {
  const { ctx } = desk.site;
  const { request } = row.request;
  const holder = await holderOf(tx, request, userId);
  if (request.epoch !== standing.manifest.manifest.epoch)
    throw new Fault("stale", "the federation has another manifest now", { hint: "keyhold federation show" });
  checkTimes(request, ctx.now(), ctx.limits);
  checkBody(request, standing);
  const most = request.keyring ? ctx.limits.registryRequests : ctx.limits.openRequests;
  if ((await tx.documentCount(OPEN_REQUEST.kind, holder, most)) >= most)
    throw new Fault("rate_limited", `too many requests of this ${request.keyring ? "registry" : "account"} are open`, {
      hint: "end some: keyhold request cancel",
    });
  return holder;
}

/**
 * True for whom one of the request's policies names; of a request through a keyring this server's own policy alone, for
 * the owners of its workspace vote at the registry.
 */
async function mayVote(tx: Tx, row: StoredRequest, userId: UserId, identity: Uint8Array): Promise<boolean> {
  const member = await readStored(tx, MEMBER, memberId(row.value.request.request.federationId, userId));
  if (!member) return false;
  try {
    const standing = await gather(tx, row.value.request, row.id, identity);
    const { serverPolicy } = standing;
    const asked = row.value.request.request.keyring ? { serverPolicy, keyPolicy: null } : standing;
    return includesKey(approversOf(asked), member.value.approvalKey);
  } catch (error) {
    if (error instanceof Fault && error.code !== "corrupt" && error.code !== "storage") return false;
    throw error;
  }
}

/**
 * A request that the caller may see: the own one, that of a registry whose connector it is, or one whose policy names
 * its approval key. All others are like one that does not exist (P8).
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
  if ((await actsFor(tx, userId, row.owner)) || (await mayVote(tx, row, userId, identity))) return row;
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
      const { request } = draft.request;
      // what other accounts bring to a registry's requests tells nothing of whether they are here
      if (request.keyring) await holderOf(tx, request, userId);
      const before = await readRequest(tx, id);
      if (!before) return undefined;
      if (!(await actsFor(tx, userId, before.owner))) throw signedByAnother();
      return requestViewOf(tx, before, true);
    });
    if (known) return known;
    const standing = await standingOf(site, draft.request, id);
    await ctx.store.transaction((tx) => admit(desk, tx, draft, userId, standing));
    const ruled = await rule(desk, draft.request, id, standing);
    let calls = false;
    const view = await ctx.store.transaction(async (tx) => {
      const owner = await admit(desk, tx, draft, userId, standing);
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
      const row = await saveRequest(tx, { id, owner, place, version: 0, value }, value);
      for (const verdict of ruled.verdicts) await putVote(tx, id, verdict, nowMs);
      await callApprovers(tx, row, value.called);
      if (life.status === "rejected")
        await note(site, tx, { owner, action: "federation.refusal", status: "denied", requestId: id });
      calls = value.called.length > 0;
      return requestViewOf(tx, row, true);
    });
    // owners of a workspace hear of it from their registry
    if (view.status === "awaiting_approval" && (calls || draft.request.request.keyring === null)) {
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
        return requestViewOf(tx, row, await actsFor(tx, userId, row.owner));
      });
    },
    async "federation.requests"(caller, { federationId, role, after }) {
      const { userId } = caller.account;
      const identity = await enclaveIdentity(site);
      return ctx.store.transaction(async (tx) => {
        const scopes = await scopesOf(tx, userId);
        // connectors join no federation
        const member =
          scopes.length > 0
            ? (await readStored(tx, MEMBER, memberId(federationId, userId)))?.value
            : await memberOfAccount(tx, federationId, userId);
        const from = after === null ? null : await visibleRequest(tx, after, userId, identity);
        const key = member?.approvalKey.toHex() ?? "";
        const lists = role === "requester" ? [userId, ...scopes] : member ? [key] : [];
        const kind = role === "requester" ? REQUEST : APPROVAL;
        const idOf = (entry: string) =>
          (role === "requester" ? entry : entry.slice(key.length + 1)) as FederatedRequestId;
        const items: RequestView[] = [];
        let bytes = 0;
        const begun = from && (role === "requester" ? lists.indexOf(from.owner) : 0);
        let last = from && { id: role === "requester" ? from.id : `${key}:${from.id}`, place: from.place };
        for (const list of lists.slice(Math.max(0, begun ?? 0))) {
          for (let full = true; full; ) {
            const page: readonly Stored<unknown>[] = await listStored<unknown>(tx, kind, list, last, PAGE);
            for (const entry of page) {
              last = { id: entry.id, place: entry.place };
              const row = await readRequest(tx, idOf(entry.id));
              if (!row || row.value.request.request.federationId !== federationId) continue;
              if (role === "approver" && !(await mayVote(tx, row, userId, identity))) continue;
              const { body } = row.value.request.request;
              const carried = "message" in body ? body.message : body.kind === "import" ? body.sealedValue : null;
              bytes += 4_096 + (carried?.length ?? 0) * 2;
              if (items.length >= PAGE || (items.length > 0 && bytes > PAGE_BYTES)) return { items, more: true };
              items.push(await requestViewOf(tx, row, await actsFor(tx, userId, row.owner)));
            }
            full = page.length >= PAGE;
          }
          last = null;
        }
        return { items, more: false };
      });
    },
  };
}
