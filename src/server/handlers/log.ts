import { consistencyPlan, foldProof, inclusionPlan, type ProofPlan } from "../../crypto/tree.ts";
import { Fault } from "../../errors.ts";
import { auditPseudonym } from "../../protocol/audit.ts";
import type { Tx } from "../../storage/store.ts";
import type { AnonymousHandler, SessionHandler } from "../context.ts";

async function proofOf(tx: Tx, plan: ProofPlan): Promise<Uint8Array[]> {
  return foldProof(plan, await tx.logNodes(plan.flat()));
}

const unsigned = () => new Fault("unavailable", "the server-wide log has no checkpoint yet");

/** The newest checkpoint, and proofs in it: of the account's newest logged position, and from an earlier size. */
export const proveLogged: SessionHandler<"log.proof"> = async (_ctx, tx, { account }, { since }) => {
  const newest = await tx.checkpoint();
  if (!newest) throw unsigned();
  const { size, note: checkpoint } = newest;
  if (since > size) throw new Fault("bad_input", "the log has no such size");
  const consistency = await proofOf(tx, consistencyPlan(since, size));
  const { logSalt: salt } = await tx.auditPosition(account.userId);
  const found = salt ? await tx.loggedPosition(auditPseudonym(account.userId, salt), size) : undefined;
  if (!salt || !found) return { output: { checkpoint, logged: null, consistency } };
  const { seq, link, index } = found;
  const inclusion = await proofOf(tx, inclusionPlan(index, size));
  return { output: { checkpoint, logged: { salt, seq, link, index, inclusion }, consistency } };
};

/** The newest checkpoint, for anyone. */
export const latestCheckpoint: AnonymousHandler<"log.checkpoint"> = async ({ store }) => {
  const newest = await store.transaction((tx) => tx.checkpoint());
  if (!newest) throw unsigned();
  return { checkpoint: newest.note };
};
