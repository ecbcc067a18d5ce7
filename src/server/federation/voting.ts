import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { type SignedVote, voteBytes } from "../../protocol/federation/policy.ts";
import { isOpen } from "../../protocol/federation/requestlife.ts";
import { verifyVote } from "../../protocol/federation/votes.ts";
import type { Tx } from "../../storage/store.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import type { FederatedCaller } from "../context.ts";
import { actsFor } from "./connectors.ts";
import { readStored, VOTE, voteId } from "./documents.ts";
import { note } from "./events.ts";
import { enclaveIdentity, gather, headsOf, type Standing } from "./evidence.ts";
import { lifeOf, type StoredRequest, turnOf } from "./life.ts";
import { visibleRequest } from "./requests.ts";
import { type Desk, putVote, reconsider } from "./ruling.ts";
import { type FederationService, memberOfAccount } from "./service.ts";
import { includesKey, requestViewOf } from "./views.ts";

type Work = Pick<FederationService, "federation.vote">;

const denied = (message: string) => new Fault("denied", message);

/** The vote's form and place: its key, its policy, its time. @throws Fault denied, stale, bad_input, integrity */
function checkVote({ vote }: SignedVote, row: StoredRequest, standing: Standing, nowMs: number, skewMs: number): void {
  const { request } = row.value.request;
  if (vote.federationId !== request.federationId || vote.epoch !== request.epoch)
    throw new Fault("bad_input", "this vote is about another federation or epoch");
  const head = headsOf(standing).find(({ document }) =>
    includesKey(
      document.approvers.map(({ key }) => key),
      vote.key,
    ),
  );
  if (!head) throw denied("no policy of this request names that key");
  const named = headsOf(standing).find(({ hash }) => equalBytes(hash, vote.policyHash));
  if (!named) throw new Fault("stale", "the policy has another version now: look at the request again");
  const keys = named.document.approvers.map(({ key }) => key);
  if (!includesKey(keys, vote.key)) throw denied("that policy does not name this key");
  if (vote.castAtMs > nowMs + skewMs) throw new Fault("bad_input", "this vote comes from the future");
  if (vote.expiresAtMs <= nowMs || vote.expiresAtMs <= vote.castAtMs)
    throw new Fault("bad_input", "this vote has expired");
  if (vote.verdict === "reject" && vote.reason.trim() === "")
    throw new Fault("bad_input", "a rejection gives its reason");
}

/**
 * True when this very vote is there, or one of its key that was cast later.
 *
 * @param brings A connector brings all that it was given, in any order.
 * @throws Fault conflict when an approver casts a vote before another one of its own
 */
async function isKnown(tx: Tx, { vote }: SignedVote, row: StoredRequest, brings: boolean): Promise<boolean> {
  const before = (await readStored(tx, VOTE, voteId(row.id, vote.key, vote.policyHash)))?.value.vote.vote;
  if (!before || before.castAtMs < vote.castAtMs) return false;
  if (brings || equalBytes(voteBytes(before), voteBytes(vote))) return true;
  throw new Fault("conflict", "a later vote of this key is there");
}

/** Taking votes of approvers (docs/protocol.md §8.7). */
export function createVoting(desk: Desk): Work {
  const { site, turns } = desk;
  const { ctx } = site;

  async function vote(caller: FederatedCaller, signed: SignedVote, identity: Uint8Array): Promise<RequestView> {
    const { userId } = caller.account;
    const { requestId } = signed.vote;
    const row = await ctx.store.transaction(async (tx) => {
      const found = await visibleRequest(tx, requestId, userId, identity);
      const { request } = found.value.request;
      const brings = request.keyring !== null && (await actsFor(tx, userId, found.owner));
      if (!brings) {
        const member = await memberOfAccount(tx, request.federationId, userId);
        if (!equalBytes(member.approvalKey, signed.vote.key)) throw denied("this vote was signed by another account");
      }
      if (!verifyVote(signed)) throw new Fault("integrity", "the signature under this vote does not hold");
      if (await isKnown(tx, signed, found, brings)) return found;
      if (!isOpen(lifeOf(found.value))) throw new Fault("conflict", `this request is ${found.value.status} already`);
      const standing = await gather(tx, found.value.request, requestId, identity);
      const nowMs = ctx.now();
      if (nowMs > request.expiresAtMs) throw new Fault("conflict", "this request has expired");
      checkVote(signed, found, standing, nowMs, ctx.limits.clockSkewMs);
      await putVote(tx, requestId, signed, nowMs);
      for (const owner of new Set(brings ? [found.owner] : [found.owner, userId])) {
        const status = signed.vote.verdict === "approve" ? "ok" : "denied";
        await note(site, tx, { owner, action: "federation.vote", status, requestId });
      }
      return found;
    });
    // also when this vote was there: its first answer may have been lost before it counted
    const { status, request } = row.value;
    // of many that a connector brings those after the last needed one change nothing: what may run is asked when it begins
    const settled = request.request.keyring !== null && signed.vote.verdict === "approve";
    const waits = status === "awaiting_approval" || (status === "pending" && !settled);
    const next = waits ? (await reconsider(desk, row)).row : row;
    return ctx.store.transaction(async (tx) => requestViewOf(tx, next, await actsFor(tx, userId, next.owner)));
  }

  return {
    async "federation.vote"(caller, { vote: signed }) {
      const { requestId } = signed.vote;
      caller.concerns(requestId);
      const identity = await enclaveIdentity(site);
      const { body } = await ctx.store.transaction(
        async (tx) => (await visibleRequest(tx, requestId, caller.account.userId, identity)).value.request.request,
      );
      return turns.take(turnOf(requestId, body), () => vote(caller, signed, identity));
    },
  };
}
