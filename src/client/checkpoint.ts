import { equalBytes } from "../crypto/bytes.ts";
import { EMPTY_ROOT, verifyConsistency, verifyInclusion } from "../crypto/tree.ts";
import { Fault } from "../errors.ts";
import { type AuditHead, auditPseudonym } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type Checkpoint, logOrigin, openCheckpoint, positionLeaf, promiseHolds } from "../protocol/log.ts";
import type { OutputOf } from "../wire/operations.ts";
import { notePromise, noteProven, type Promised } from "./logpin.ts";
import { type Bound, boundOf, type Model, noteReceipt, pauseIn, type Surroundings } from "./model.ts";
import { type HeadSummary, isSealed, type Session, type ShownPromise } from "./session.ts";

const broken = (why: string): Fault =>
  new Fault("integrity", "the server's log does not hold what it must", {
    why,
    hint: "trust this server no more; keep its checkpoint and promises as evidence",
  });

const originOf = (bound: Bound): string => logOrigin(bound.serverIdentity, bound.incarnation);

type Stated = Pick<Session, "statement" | "renewStatement">;

/** What a log key signed, under the key that the session knows, or under one that was put in its place since. */
async function underLogKey<T>(
  session: Stated,
  check: (logKey: Uint8Array) => T | undefined | false,
): Promise<T | null> {
  const held = check(session.statement.logKey);
  if (held) return held;
  return ((await session.renewStatement()) && check(session.statement.logKey)) || null;
}

/** Holds a salt to the one that is known, so that the account has one pseudonym for ever. */
function takeSalt(bound: Bound, salt: Uint8Array): void {
  if (bound.log.salt !== null && !equalBytes(bound.log.salt, salt)) {
    throw broken("it knows the account under another pseudonym than before");
  }
  bound.log = { ...bound.log, salt };
}

/**
 * Verifies the inclusion promise beside an answer and keeps it until the log was seen to hold the position.
 *
 * @param owed True where the answer must bring one: a mutation was acknowledged.
 * @throws Fault integrity when it is missing or not the log key's.
 */
export async function takePromise(
  model: Model,
  session: Stated,
  head: HeadSummary,
  { promise, owed }: { readonly promise: ShownPromise | null; readonly owed: boolean },
  nowMs: number,
): Promise<void> {
  if (promise === null) {
    if (owed) throw broken("it acknowledged a change without promising to log it");
    return;
  }
  const bound = boundOf(model);
  const { auditSeq: seq, auditLink: link } = head;
  const { salt, atMs, signature } = promise;
  const promised = { origin: originOf(bound), pseudonym: auditPseudonym(bound.userId, salt), seq, link, atMs };
  if (!(await underLogKey(session, (logKey) => promiseHolds(logKey, promised, signature)))) {
    throw broken("its promise to log a change does not carry the log key's signature");
  }
  takeSalt(bound, salt);
  bound.log = notePromise(bound.log, { seq, link, atMs, seenMs: nowMs, signature });
  model.unsaved = true;
}

/** A verified answer of `log.proof`. */
export interface LogProof {
  readonly checkpoint: Checkpoint;
  readonly note: string;
  /** The account's newest position in the log; null before its first one. */
  readonly logged: OutputOf<"log.proof">["logged"];
}

function pinned(bound: Bound): Checkpoint | null {
  const { checkpoint } = bound.log;
  if (checkpoint === null) return null;
  const opened = openCheckpoint(checkpoint.note, originOf(bound), checkpoint.key);
  if (!opened) throw new Fault("corrupt", "the vault's pinned checkpoint is not one of this server's log");
  return opened;
}

/** Answers to `log.proof` that are no reason for suspicion: the server could not, and says so. */
const FAILED: ReadonlySet<string> = new Set(["unavailable", "storage", "internal", "rate_limited"]);

async function ask(session: Session, since: number): Promise<{ proof: OutputOf<"log.proof">; auditSeq: number }> {
  try {
    const { output, head } = await session.call("log.proof", { since });
    return { proof: output, auditSeq: head.auditSeq };
  } catch (error) {
    if (!(error instanceof Fault) || !isSealed(error) || FAILED.has(error.code)) throw error;
    throw broken(`it withholds the proof that its log continues the one of ${since} leaves (${error.code})`);
  }
}

/** The oldest promise that is not kept, once it was due by this machine's clock. */
function missing(model: Model, nowMs: number): Promised | null {
  const { oldest } = boundOf(model).log;
  return oldest !== null && nowMs > oldest.seenMs + DEFAULTS.logMergeMs ? oldest : null;
}

/**
 * Asks for the newest checkpoint and proofs, verifies all of it and pins it: the log key's signature, that the log
 * continues the pinned checkpoint, that it holds the account, at no earlier position than was proven or promised in
 * time (docs/protocol.md §6.3). The position becomes a receipt: the account's chain must pass through it.
 *
 * @throws Fault integrity
 */
export async function proveLog(model: Model, session: Session, around: Around): Promise<LogProof> {
  const first = await prove(model, session);
  if (missing(model, around.now()) === null) return first;
  // a clock that jumped is no proof of a broken word: once more, after two batches
  await pauseIn(around, 2 * DEFAULTS.logBatchMs);
  const second = await prove(model, session);
  const due = missing(model, around.now());
  if (due === null) return second;
  throw broken(`it promised to hold entry ${due.seq} of this account and does not, after its time`);
}

type Around = Pick<Surroundings, "now" | "pause">;

async function prove(model: Model, session: Session): Promise<LogProof> {
  const before = pinned(boundOf(model));
  const { proof, auditSeq } = await ask(session, before?.size ?? 0);
  const bound = boundOf(model);
  const checkpoint = await underLogKey(session, (key) => openCheckpoint(proof.checkpoint, originOf(bound), key));
  if (!checkpoint) throw broken("its checkpoint is not signed by the log key for this server and incarnation");
  const { size, root } = before ?? { size: 0, root: EMPTY_ROOT };
  if (checkpoint.size < size) throw broken(`it went back from ${size} leaves to ${checkpoint.size}`);
  if (!verifyConsistency(size, root, checkpoint.size, checkpoint.root, proof.consistency)) {
    throw broken(`its ${checkpoint.size} leaves do not continue the ${size} that were seen`);
  }
  const { logged, checkpoint: note } = proof;
  if (logged) checkPosition(bound, checkpoint, logged, auditSeq);
  const seq = logged?.seq ?? 0;
  if (seq < bound.log.seq) throw broken(`it lost entry ${bound.log.seq} of this account`);
  bound.log = noteProven({ ...bound.log, checkpoint: { note, key: session.statement.logKey } }, seq);
  if (logged) noteReceipt(model, { seq, link: logged.link });
  model.unsaved = true;
  return { checkpoint, note, logged };
}

function checkPosition(
  bound: Bound,
  { size, root }: Checkpoint,
  logged: NonNullable<LogProof["logged"]>,
  auditSeq: number,
): void {
  const { salt, seq, link, index, inclusion } = logged;
  takeSalt(bound, salt);
  const leaf = positionLeaf({ pseudonym: auditPseudonym(bound.userId, salt), seq, link });
  if (!verifyInclusion(leaf, index, size, inclusion, root))
    throw broken("its proof does not hold this account's entry");
  if (seq > auditSeq) throw broken("it holds an entry that no answer names");
  for (const known of knownPositions(bound)) {
    if (known.seq === seq && !equalBytes(known.link, link)) throw broken(`it holds another entry ${seq} than was seen`);
  }
}

function knownPositions({ receipts, verified, witnessed, log }: Bound): readonly AuditHead[] {
  const promises = [log.oldest, log.newest].filter((one) => one !== null);
  return [...receipts, verified, witnessed, ...promises];
}

/** One extra question where an older promise is due: kept, or the server broke its word. @throws Fault integrity */
export async function followUp(model: Model, session: Session, around: Around): Promise<void> {
  if (missing(model, around.now()) !== null) await proveLog(model, session, around);
}
