import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import { type SignedVote, voteBytes } from "../../protocol/federation/policy.ts";
import { verifyVote } from "../../protocol/federation/votes.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import { putStored, readStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { live, reconsider, steer } from "./coordinator.ts";
import { ownerKeyOf } from "./people.ts";
import { perform } from "./performing.ts";
import { REQUEST, VOTE, voteId } from "./requestdocuments.ts";
import { type Desk, itemOf, itemsOf, noSuchRequest, type Scene } from "./scene.ts";
import type { RegistryService } from "./service.ts";
import { requestView } from "./views.ts";
import { demandOwner, type WorkspaceHead } from "./workspaces.ts";

/** An owner of the request's workspace; to others it is like one that does not exist (P8). @throws Fault not_found */
export async function demandReader({ tx, value }: Scene, userId: UserId): Promise<WorkspaceHead> {
  try {
    return (await demandOwner(tx, value.workspaceId, userId)).head;
  } catch (error) {
    if (error instanceof Fault && error.code === "not_found") throw noSuchRequest();
    throw error;
  }
}

/** The vote's form, key, policy and time. @throws Fault denied, integrity, stale, bad_input */
function checkVote(scene: Scene, signed: SignedVote, head: WorkspaceHead, key: Uint8Array): void {
  const { vote } = signed;
  const { nowMs } = scene;
  if (!equalBytes(vote.key, key)) throw new Fault("denied", "this vote was signed by another account");
  if (!verifyVote(signed)) throw new Fault("integrity", "the signature under this vote does not hold");
  if (!equalBytes(vote.policyHash, head.hash))
    throw new Fault("stale", "the workspace's policy has another version now: look at the request again");
  if (vote.castAtMs > nowMs + scene.desk.site.ctx.limits.clockSkewMs)
    throw new Fault("bad_input", "this vote comes from the future");
  if (vote.expiresAtMs <= nowMs || vote.expiresAtMs <= vote.castAtMs)
    throw new Fault("bad_input", "this vote has expired");
  if (vote.verdict === "reject" && vote.reason.trim() === "")
    throw new Fault("bad_input", "a rejection gives its reason");
}

/**
 * Keeps the newest vote of a key on an item.
 *
 * @returns false for one that is there.
 * @throws Fault conflict for one that was cast before another one
 */
async function putVote(scene: Scene, signed: SignedVote): Promise<boolean> {
  const { tx, nowMs } = scene;
  const { vote } = signed;
  const id = voteId(vote.requestId, vote.key, vote.policyHash);
  const before = await readStored(tx, VOTE, id);
  const known = before?.value.vote.vote;
  if (known && equalBytes(voteBytes(known), voteBytes(vote))) return false;
  if (known && known.castAtMs >= vote.castAtMs) throw new Fault("conflict", "a later vote of this key is there");
  const row = { id, owner: vote.requestId, place: nowMs, value: { vote: signed } };
  if (!(await putStored(tx, VOTE, row, before?.version ?? 0))) throw changedMeanwhile();
  return true;
}

/** Votes and cancellations of owners (docs/protocol.md §9.6). */
export function createVoting(desk: Desk): Pick<RegistryService, "keyring.vote" | "keyring.cancel"> {
  async function vote(scene: Scene, userId: UserId, votes: readonly SignedVote[]) {
    const head = await demandReader(scene, userId);
    const key = await ownerKeyOf(scene.tx, userId);
    if (!isOpenLife(scene.value.life))
      throw new Fault("conflict", `this request is ${scene.value.life.status} already`);
    for (const signed of votes) {
      checkVote(scene, signed, head, key);
      const { vote: said } = signed;
      await itemOf(scene, said.requestId);
      if (!(await putVote(scene, signed))) continue;
      const { workspaceId, life } = scene.value;
      const subject = { workspaceId, keyringId: life.keyringId, requestId: scene.requestId };
      await scene.tell({ event: "request.vote", ...subject, detail: said.verdict });
    }
    await reconsider(scene);
    if (!isOpenLife(scene.value.life)) return;
    // an item that the policy held back
    for (const item of await itemsOf(scene))
      if (item.value.course.stage === "preparing") await steer(scene, item, { type: "tick" });
  }

  return {
    "keyring.vote": ({ account: { userId } }, { requestId, votes }) =>
      perform(desk, requestId, async (scene) => {
        await vote(scene, userId, votes);
        return () => shown(desk, scene, userId);
      }).then((show) => show()),
    "keyring.cancel": ({ account: { userId } }, { requestId }) =>
      perform(desk, requestId, async (scene) => {
        await demandReader(scene, userId);
        await live(scene, { type: "cancel" }, "an owner cancelled it");
        return () => shown(desk, scene, userId);
      }).then((show) => show()),
  };
}

/** A request as it is stored now. @throws Fault not_found, corrupt */
export function shown(desk: Desk, { requestId }: Pick<Scene, "requestId">, userId: UserId) {
  return desk.site.ctx.store.transaction((tx) => viewNow(tx, requestId, userId));
}

async function viewNow(tx: Scene["tx"], requestId: Scene["requestId"], userId: UserId) {
  const row = await readStored(tx, REQUEST, requestId);
  if (!row) throw noSuchRequest();
  return requestView(tx, row, userId);
}
