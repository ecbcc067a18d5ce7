import { equalBytes } from "../../crypto/bytes.ts";
import type { SignedVote, Vote } from "../../protocol/federation/policy.ts";
import { signatureHolds } from "../../protocol/federation/signing.ts";
import { verifyVote } from "../../protocol/federation/votes.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import { confirmedBy, fulfilledValue } from "../../protocol/keyring/fulfilment.ts";
import type { Party } from "../../protocol/keyring/keyring.ts";
import { isResponseEquivocation, type SignedResponse, verifyResponse } from "../../protocol/keyring/response.ts";
import type { KeyringItemView } from "../../wire/keyring/views.ts";
import { shownPublicKey } from "../federation/making.ts";
import { schemeOf } from "../federation/use.ts";
import type { KeyringItemInfo, KeyringRequestInfo } from "../keyringapi.ts";
import { type KnownChain, ownerName } from "./chains.ts";
import { checked, lie } from "./ground.ts";
import { checkSameKey, signingType, verifyMade } from "./keys.ts";
import type { KnownRequest } from "./known.ts";
import type { Looks } from "./looks.ts";
import { nameShown } from "./names.ts";
import { ownKey } from "./owner.ts";
import { factsOfMaking, factsOfUse, signableBy, useBodyOf } from "./usefacts.ts";

/** A request as the client tells of it: nothing in it that was not verified here, but for its status while it is open. */
export async function requestInfo(looks: Looks, request: KnownRequest): Promise<KeyringRequestInfo> {
  const { ground } = looks;
  const { view, requester } = request;
  const chain = await looks.chain(view.workspaceId);
  const keyring = await looks.keyring(view.keyringId);
  const name = ownerName(chain, requester);
  if (name === null) throw lie(ground, "a request of somebody who was never an owner of the workspace");
  const items: KeyringItemInfo[] = [];
  for (const item of view.items) items.push(await itemInfo(looks, request, item));
  const signed = view.items.map((item) => item.request.request);
  return {
    requestId: view.requestId,
    workspace: nameShown(ground, "workspace", chain.head.name, view.workspaceId),
    keyring: nameShown(ground, "keyring", keyring.view.name, view.keyringId),
    kind: view.kind,
    status: view.status,
    approved: view.approved,
    why: view.why,
    fee: view.fee,
    threshold: view.threshold,
    createdAt: new Date(Math.min(...signed.map(({ createdAtMs }) => createdAtMs))).toISOString(),
    expiresAt: new Date(Math.min(...signed.map(({ expiresAtMs }) => expiresAtMs))).toISOString(),
    requester: name,
    words: digestWords(Uint8Array.fromHex(view.requestId)),
    parties: view.parties.map((party) => ({ name: party.name, state: partyState(request, party) })),
    votes: votesOf(request, chain),
    items,
    finishable: isFinishable(request, ownKey(ground)),
  };
}

/** True where shares were let out to this owner's client, and a signature is still to be made of them. */
export function isFinishable({ view, requester }: KnownRequest, own: Uint8Array | null): boolean {
  const open = view.status === "pending" || view.status === "partial";
  return open && own !== null && equalBytes(own, requester) && view.items.some(isLetOut);
}

/** True for an item whose shares came, and which has no signature yet. */
export const isLetOut = ({ result, order, partials, request }: KeyringItemView): boolean =>
  result === null && order !== null && partials.length > 0 && request.request.body.kind === "release";

async function itemInfo(looks: Looks, request: KnownRequest, item: KeyringItemView): Promise<KeyringItemInfo> {
  const signed = item.request.request;
  const body = useBodyOf(signed);
  if (body === null) return madeInfo(looks, request, item);
  const { ground } = looks;
  const { view } = request;
  const key = await looks.key(body.keyId);
  const { certificate } = key;
  if (key.view.workspaceId !== view.workspaceId) throw lie(ground, "a use of another workspace's key");
  checkSameKey(ground, key, item.certificate?.certificate ?? null);
  const { result } = item;
  if (result !== null) {
    const signable = checked(ground, "a signature of what cannot be signed", () => signableBy(key, body));
    if (!signatureHolds(certificate, signable.bytes, result, signable.prehashed))
      throw lie(ground, "a signature that does not hold", `key ${key.view.keyId}`);
  }
  if (view.status === "fulfilled") {
    if (result === null) throw lie(ground, "a fulfilled request without its signature");
    const value = fulfilledValue(view.keyringId, item.itemId, item.attempt, certificate);
    if (confirmedBy(view.parties, item.itemId, value, item.responses).length < view.threshold)
      throw lie(ground, "a fulfilled request that too few parties have confirmed");
  }
  return {
    itemId: item.itemId,
    keyId: body.keyId,
    type: certificate.type,
    publicKeyHex: shownPublicKey(certificate),
    facts: factsOfUse(key, body),
    signatureHex: result?.toHex() ?? null,
    scheme: result === null ? null : schemeOf(signingType(certificate), body.form),
  };
}

/** A new key is shown once it was fulfilled, and verified. */
async function madeInfo(looks: Looks, request: KnownRequest, item: KeyringItemView): Promise<KeyringItemInfo> {
  const signed = item.request.request;
  const fulfilled = request.view.status === "fulfilled";
  if (fulfilled && item.certificate === null) throw lie(looks.ground, "a fulfilled request without its key");
  const made =
    fulfilled && item.certificate !== null
      ? await verifyMade(looks, request, { certificate: item.certificate, responses: [] })
      : null;
  return {
    itemId: item.itemId,
    keyId: made?.certificate.keyId ?? null,
    type: signed.body.kind === "generate" ? signed.body.type : "",
    publicKeyHex: made && shownPublicKey(made.certificate),
    facts: factsOfMaking(signed),
    signatureHex: null,
    scheme: null,
  };
}

const isOf = (party: Party) => (one: SignedResponse) => equalBytes(one.response.key, party.key);

function holds(signed: SignedResponse): boolean {
  try {
    verifyResponse(signed);
    return true;
  } catch {
    return false;
  }
}

/** What one party has said to all items: only words that it signed itself. */
function partyState({ view }: KnownRequest, party: Party): string {
  if (view.evidence.some(({ first, second }) => isOf(party)(first) && isResponseEquivocation(first, second)))
    return "quarantined";
  const said = view.items.map(
    ({ itemId, responses }) =>
      responses.find((one) => isOf(party)(one) && one.response.requestId === itemId && holds(one))?.response,
  );
  const rejected = said.find((one) => one?.verdict === "rejected");
  if (rejected) return `rejected: ${rejected.reason}`;
  return said.every((one) => one !== undefined) ? "answered" : "waiting";
}

/** The newest genuine vote of each key on one item. */
function newestVotes({ itemId, votes }: KeyringItemView): ReadonlyMap<string, Vote> {
  const newest = new Map<string, Vote>();
  for (const signed of votes satisfies readonly SignedVote[]) {
    const { vote } = signed;
    if (vote.requestId !== itemId || !verifyVote(signed)) continue;
    const id = vote.key.toHex();
    if ((newest.get(id)?.castAtMs ?? -1) <= vote.castAtMs) newest.set(id, vote);
  }
  return newest;
}

/** Owners' votes: an approval is one of every item, a rejection one of any. */
function votesOf({ view }: KnownRequest, chain: KnownChain): KeyringRequestInfo["votes"] {
  const byItem = view.items.map(newestVotes);
  const keys = new Set(byItem.flatMap((votes) => [...votes.keys()]));
  return [...keys].flatMap((key) => {
    const owner = ownerName(chain, Uint8Array.fromHex(key));
    const votes = byItem.flatMap((one) => one.get(key) ?? []);
    const rejected = votes.find(({ verdict }) => verdict === "reject");
    const vote = rejected ?? votes[0];
    if (owner === null || vote === undefined) return [];
    if (!rejected && votes.length < view.items.length) return [];
    return [{ owner, verdict: vote.verdict, reason: vote.reason }];
  });
}
