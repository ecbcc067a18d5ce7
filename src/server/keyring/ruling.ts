import { equalBytes } from "../../crypto/bytes.ts";
import type { FederatedKeyId } from "../../ids.ts";
import type { Certificate } from "../../protocol/federation/certificate.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import { actionOf, type CountUses } from "../../protocol/federation/policyaction.ts";
import { evaluateRequest, type RequestEvaluation } from "../../protocol/federation/policydecision.ts";
import type { FederatedRequest, SignedRequest } from "../../protocol/federation/request.ts";
import type { Ruling } from "../../protocol/federation/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import type { Explanation } from "../../wire/federation/operations.ts";
import { eachStored, listStored, putStored, readStored } from "../documents.ts";
import { USE, VOTE } from "./requestdocuments.ts";
import { askedOf, callOwners, type ItemScene, itemsOf, manifestOf, type Scene } from "./scene.ts";
import { headOf, type WorkspaceHead } from "./workspaces.ts";

/** Uses that are counted at most: a window with more of them is full for every rule. */
const USES_MAX = 4_096;
const WHY_MAX = 1_024;

/** Under whose name uses are counted: the key's, of a new key the requester's. */
const usesOf = (keyId: FederatedKeyId | null, requester: Uint8Array): string => keyId ?? requester.toHex();

const keyIdOf = ({ body }: FederatedRequest): FederatedKeyId | null => ("keyId" in body ? body.keyId : null);

/** What began within the longest window of the policy's rates. */
async function countUses(tx: Tx, head: WorkspaceHead, request: FederatedRequest, nowMs: number): Promise<CountUses> {
  const windows = head.document.rules.flatMap(({ rate }) => (rate ? [rate.windowMs] : []));
  if (windows.length === 0) return () => 0;
  const since = Math.max(0, nowMs - Math.max(...windows));
  const owner = usesOf(keyIdOf(request), request.requester);
  const rows = await listStored(tx, USE, owner, { place: since, id: "" }, USES_MAX);
  if (rows.length >= USES_MAX) return () => Number.POSITIVE_INFINITY;
  return (sinceMs, { except, actions, keyId, requester }) =>
    rows.filter(
      ({ id, place, value }) =>
        place >= sinceMs &&
        id !== except &&
        value.keyId === keyId &&
        actions.includes(value.action) &&
        (keyId !== null || equalBytes(value.requester, requester)),
    ).length;
}

/** Notes that an item began: from then on it counts against rates. */
export async function noteUse(scene: Scene, item: ItemScene, { request }: SignedRequest): Promise<void> {
  const { tx, nowMs } = scene;
  if (await readStored(tx, USE, item.id)) return;
  const keyId = keyIdOf(request);
  const value = { action: actionOf(request.body), requester: request.requester, keyId };
  await putStored(tx, USE, { id: item.id, owner: usesOf(keyId, request.requester), place: nowMs, value }, 0);
}

/** What the newest head of the workspace's policy says of one item, without any server's policy. @throws Fault not_found, corrupt */
export async function ruleItem(
  scene: Scene,
  item: Pick<ItemScene, "id">,
  { request }: SignedRequest,
  certificate: Certificate | null,
  given?: { readonly manifest: Manifest; readonly head: WorkspaceHead },
): Promise<RequestEvaluation> {
  const { tx, nowMs } = scene;
  const manifest = given?.manifest ?? (await manifestOf(scene));
  const head = given?.head ?? (await headOf(tx, scene.value.workspaceId));
  const votes = (await eachStored(tx, VOTE, item.id))
    .map(({ value }) => value.vote)
    .filter(({ vote }) => equalBytes(vote.policyHash, head.hash));
  return evaluateRequest({
    manifest,
    index: null,
    request,
    requestId: item.id,
    certificate,
    serverPolicy: null,
    keyPolicy: head.chain,
    // one key of an owner signs requests and votes alike
    requesterApproval: request.requester,
    votes,
    uses: await countUses(tx, head, request, nowMs),
    nowMs,
  });
}

/** The word of one item's policy as it is shown. */
export function explanationOf({ explanations }: RequestEvaluation): Explanation {
  const [first] = explanations;
  if (!first) return { policy: null, decision: "deny", rule: null, why: "no policy was asked" };
  return { ...first, why: first.why.slice(0, WHY_MAX) };
}

/** What the policy says of the whole request. */
export interface Ruled {
  readonly ruling: Ruling;
  readonly why: string;
}

/**
 * Asks the newest head about every item that has no result yet: one denial denies, else one that waits waits. Keeps
 * what it says, and lists the request for the owners whose vote would still count.
 */
export async function ruleRequest(scene: Scene): Promise<Ruled> {
  const given = { manifest: await manifestOf(scene), head: await headOf(scene.tx, scene.value.workspaceId) };
  const missing = new Map<string, Uint8Array>();
  let ruling: Ruling = "allow";
  let why = "";
  for (const item of await itemsOf(scene)) {
    const { stage } = item.value.course;
    if (stage === "settling" || stage === "over") continue;
    const asked = await askedOf(scene.tx, item.id);
    // a certificate belongs to the item from its result on; before that it is the key that it uses
    const ruled = await ruleItem(scene, item, asked, item.value.certificate?.certificate ?? null, given);
    const explanation = explanationOf(ruled);
    if (JSON.stringify(explanation) !== JSON.stringify(item.value.explanation)) {
      item.value = { ...item.value, explanation };
    }
    if (ruled.decision === "deny" && ruling !== "deny") [ruling, why] = ["deny", explanation.why];
    if (ruled.decision === "wait" && ruling === "allow") [ruling, why] = ["wait", explanation.why];
    for (const { key } of ruled.waiting.flatMap((one) => one.missing)) missing.set(key.toHex(), key);
  }
  await callOwners(scene, ruling === "wait" ? [...missing.values()] : []);
  const { ruledUnder } = scene.value;
  if (!ruledUnder || !equalBytes(ruledUnder, given.head.hash))
    scene.value = { ...scene.value, ruledUnder: given.head.hash };
  return { ruling, why };
}
