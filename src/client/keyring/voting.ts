import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { SignedVote, Vote } from "../../protocol/federation/policy.ts";
import { signVote } from "../../protocol/federation/votes.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import type { KeyringItemView, KeyringRequestView } from "../../wire/keyring/views.ts";
import type { KeyringClient, KeyringRequestInfo } from "../keyringapi.ts";
import { isOwner } from "./chains.ts";
import { checked, everyPage, type Ground } from "./ground.ts";
import { pinKeyring } from "./keyrings.ts";
import { answered, findRequest, type KnownRequest, knownRequest } from "./known.ts";
import { type Looks, looksOf } from "./looks.ts";
import { ownerSigner, ownKey } from "./owner.ts";
import { signableBy, useBodyOf } from "./usefacts.ts";
import { requestInfo } from "./views.ts";

/** Nobody approves what this client cannot read itself. */
async function readable(looks: Looks, { request: { request } }: KeyringItemView): Promise<void> {
  const body = useBodyOf(request);
  if (body === null) return;
  const key = await looks.key(body.keyId);
  checked(looks.ground, "a request to sign what cannot be read", () => signableBy(key, body));
}

/** Signs one vote for each item, by the newest verified link of the workspace's policy, and brings them. */
export async function bringVotes(
  looks: Looks,
  request: KnownRequest,
  verdict: Vote["verdict"],
  reason: string,
): Promise<KnownRequest> {
  const { ground } = looks;
  const { view } = request;
  const { headHash } = await looks.chain(view.workspaceId);
  await pinKeyring(ground, await looks.keyring(view.keyringId));
  if (verdict === "approve") for (const item of view.items) await readable(looks, item);
  const signer = ownerSigner(ground);
  const castAtMs = ground.now();
  const votes = view.items.map(({ itemId, request: { request: signed } }): SignedVote => {
    const { federationId, epoch, expiresAtMs } = signed;
    if (castAtMs >= expiresAtMs) throw new Fault("conflict", "this request has expired", { requestId: view.requestId });
    const vote = {
      federationId,
      epoch,
      requestId: itemId,
      verdict,
      policyHash: headHash,
      castAtMs,
      expiresAtMs,
      reason,
    };
    return signVote(signer, vote);
  });
  const { requestId } = view;
  return answered(ground, requestId, await ground.call("keyring.vote", { requestId, votes }));
}

/**
 * Votes on a request: on what this device has verified itself, its owner's signature, who asks, and the newest link of
 * the workspace's policy.
 *
 * @throws Fault not_found, ambiguous, bad_input, denied, conflict, integrity
 */
export async function castVote(
  ground: Ground,
  { requestId, verdict, reason }: Parameters<KeyringClient["voteKeyring"]>[0],
): Promise<KeyringRequestInfo> {
  const request = await findRequest(ground, requestId);
  const looks = looksOf(ground);
  // nobody votes on what could not be shown
  await requestInfo(looks, request);
  const { head } = await looks.chain(request.view.workspaceId);
  if (!isOwner(head, ownerSigner(ground).publicKey)) {
    throw new Fault("denied", "this account is no owner of the workspace", { requestId: request.view.requestId });
  }
  if (verdict === "approve" && !isOwner(head, request.requester)) {
    throw new Fault("denied", "whoever asked is no owner of the workspace any more", {
      requestId: request.view.requestId,
    });
  }
  return requestInfo(looks, await bringVotes(looks, request, verdict, reason));
}

/** True where this owner's votes on every item count now: by the newest link, and not run out. */
const hasVoted = (view: KeyringRequestView, own: Uint8Array, headHash: Uint8Array, nowMs: number): boolean =>
  view.items.every(({ itemId, votes }) =>
    votes.some(
      ({ vote }) =>
        vote.requestId === itemId &&
        equalBytes(vote.key, own) &&
        equalBytes(vote.policyHash, headHash) &&
        vote.expiresAtMs > nowMs,
    ),
  );

/** What waits for this owner's vote, over all its workspaces; newest first. @throws Fault integrity */
export async function inboxOf(ground: Ground): Promise<readonly KeyringRequestInfo[]> {
  const own = ownKey(ground);
  if (own === null) return [];
  const looks = looksOf(ground);
  const views = await everyPage<KeyringRequestView>(ground, (last) =>
    ground.call("workspace.inbox", { after: last?.requestId ?? null }),
  );
  const found: KeyringRequestInfo[] = [];
  for (const view of views) {
    // a party that answers early makes it partial, and takes it out of nobody's inbox by that
    if (view.approved || !isOpenLife(view)) continue;
    const request = knownRequest(ground, view);
    const { head, headHash } = await looks.chain(view.workspaceId);
    if (isOwner(head, own) && !hasVoted(view, own, headHash, ground.now()))
      found.push(await requestInfo(looks, request));
  }
  return found;
}
