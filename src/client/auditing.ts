import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { RequestId } from "../ids.ts";
import { type AuditHead, auditLink, continueAudit, type SaltedEntry } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type SignedState, stateHash } from "../protocol/state.ts";
import type { Verified } from "./api.ts";
import { broken, matching, records } from "./auditmatch.ts";
import { type LogProof, proveLog } from "./checkpoint.ts";
import { mergeLogs } from "./logpin.ts";
import { type Bound, boundOf, type Model, pinnedHash, type Surroundings } from "./model.ts";
import { type Online, type Open, online, save } from "./opened.ts";
import type { Session } from "./session.ts";
import { synchronise } from "./sync.ts";

/**
 * Holds each entry that claims the owner's signature to the signed states, so that none is shown as signed wrongly.
 *
 * @throws Fault integrity
 */
export async function checkSigned(session: Session, model: Model, entries: readonly SaltedEntry[]): Promise<void> {
  if (entries.every(({ entry }) => entry.stateHash === null)) return;
  const states = new Map<string, SignedState>();
  for (const signed of await statesAfter(session, model, 0, new Uint8Array(32))) {
    states.set(stateHash(signed.state).toHex(), signed);
  }
  for (const item of entries) {
    const { stateHash: named, seq } = item.entry;
    const signed = named === null ? undefined : states.get(named.toHex());
    if (named !== null && (!signed || !records(item, signed))) {
      throw broken(`entry ${seq} names a change that the owner did not sign`);
    }
  }
}

/** All states after a revision up to the pinned one, each linked to the next: so the owner signed them all. */
async function statesAfter(session: Session, model: Model, revision: number, link: Uint8Array): Promise<SignedState[]> {
  const states: SignedState[] = [];
  const { head } = boundOf(model);
  let before = link;
  while (revision + states.length < head.state.revision) {
    const since = revision + states.length;
    const { output } = await session.call("state.sync", { since, after: null, what: "states" });
    if (output.states.length === 0) throw broken(`the signed state of revision ${since + 1} is withheld`);
    for (const signed of output.states) {
      const at = revision + states.length + 1;
      if (at > head.state.revision) break;
      if (signed.state.revision !== at || !equalBytes(signed.state.previous, before)) {
        throw broken(`the signed states break at revision ${at}`);
      }
      before = stateHash(signed.state);
      states.push(signed);
    }
  }
  if (states.length > 0 && !equalBytes(before, stateHash(head.state))) throw broken("the signed states are forked");
  return states;
}

/** Places through which the chain must pass: what answers showed, and what devices signed that they verified. */
function marksOf(bound: Bound, states: readonly SignedState[]): Map<number, Uint8Array> {
  const marks = new Map<number, Uint8Array>();
  const add = ({ seq, link }: AuditHead) => {
    const known = marks.get(seq);
    if (known && !equalBytes(known, link)) throw broken(`devices were shown different logs: entry ${seq}`);
    marks.set(seq, link);
  };
  add(bound.witnessed);
  for (const receipt of bound.receipts) add(receipt);
  add(bound.verified);
  // this device's own too: after a restore it begins anew, and they alone tell what it had verified
  for (const { state } of states) add({ seq: state.auditSeq, link: state.auditLink });
  // position 0 is the beginning of every log
  marks.delete(0);
  return marks;
}

const WHOLE = { keyId: null, action: null, fromMs: null, untilMs: null, requestId: null } as const;

/**
 * Verifies the log from what was verified before: the chain has no gap, edit or fork, passes through every position
 * that answers showed or other devices signed, and holds exactly the changes that the owner signed
 * (docs/protocol.md §6.2).
 */
export function verifyAudit(open: Open): Promise<Verified> {
  return online(open, true, async (at) => (await verifyAll(open, at)).verified);
}

/** The same with what the server-wide log proved. */
export async function verifyAll(open: Open, at: Online | null): Promise<{ verified: Verified; log: LogProof }> {
  if (!at) throw new Fault("unreachable", "the log lies on the server");
  return verifyLog(open.box.model, at.session, open.around, async (bound, now) => {
    await save(open, ({ bound: newest }) => {
      // another process went on with a restored server meanwhile
      if (newest?.incarnation !== bound.incarnation) return;
      if (newest.verified.seq < now.seq) newest.verified = now;
      if (newest !== bound) newest.log = mergeLogs(newest.log, bound.log);
      newest.receipts = newest.receipts.filter(({ seq }) => seq > now.seq);
    });
  });
}

/** Where the log of an account was verified up to. */
type Reached = Bound["verified"];

/**
 * The same for an account that lies in no vault of its own.
 *
 * @param keep Takes what is to be remembered; the model has it already.
 * @param see Sees each entry once it is verified, oldest first.
 */
export async function verifyLog(
  model: Model,
  session: Session,
  around: Surroundings,
  keep: (bound: Bound, now: Reached) => Promise<void>,
  see: (salted: SaltedEntry) => void = () => undefined,
): Promise<{ verified: Verified; log: LogProof }> {
  for (let attempt = 0; ; attempt++) {
    await synchronise(model, session, around);
    const log = await proveLog(model, session, around);
    const verified = await verifyOnce(model, session, around, log, keep, see);
    if (verified) return { verified, log };
    if (attempt === 3) throw new Fault("unavailable", "other devices change the account faster than it is verified");
  }
}

/** One run against the pinned state; null when the account moved on meanwhile. */
async function verifyOnce(
  model: Model,
  session: Session,
  around: Surroundings,
  log: LogProof,
  keep: (bound: Bound, now: Reached) => Promise<void>,
  see: (salted: SaltedEntry) => void,
): Promise<Verified | null> {
  const bound = boundOf(model);
  const { verified } = bound;
  const { revision } = bound.head.state;
  const first = verified.revision === 0 ? new Uint8Array(32) : await pinAt(session, model, verified.revision);
  const states = await statesAfter(session, model, verified.revision, first);
  const marks = marksOf(bound, states);
  const farthest = Math.max(0, ...marks.keys());
  const match = matching(states);
  let head = startOf(verified, marks);
  let requestId: RequestId | null = null;
  let until = Number.MAX_SAFE_INTEGER;
  for (let more = true; more && head.seq < until; ) {
    const answer = await session.call("audit.verify", { ...WHOLE, after: head.seq, limit: DEFAULTS.auditPage });
    if (requestId === null) {
      ({ requestId } = answer);
      until = answer.head.auditSeq;
    }
    const { entries } = answer.output;
    const result = continueAudit(head, bound.userId, entries);
    if (!result.ok) throw broken(`entry ${result.broken.seq}: ${result.broken.reason}`);
    if (result.head.seq > answer.head.auditSeq) throw broken("it holds entries that no answer names");
    for (const item of entries) {
      const { seq } = item.entry;
      if (seq === 1) checkPseudonym(bound, item);
      const mark = marks.get(seq);
      if (mark && !equalBytes(mark, auditLink(item))) throw broken(`entry ${seq} is not the one that was seen before`);
      if (seq <= verified.seq || match.take(item) === "ok") {
        see(item);
        continue;
      }
      await synchronise(model, session, around);
      if (boundOf(model).head.state.revision > revision) return null;
      throw broken(`entry ${seq} names a change that the owner did not sign`);
    }
    ({ head } = result);
    more = answer.output.more && entries.length > 0;
  }
  if (head.seq < farthest) throw broken(`it ends at entry ${head.seq}, but entry ${farthest} was seen`);
  if (match.matched() < states.length) throw broken("a signed change has no entry");
  const now = { seq: head.seq, link: head.link, revision };
  bound.verified = now;
  bound.receipts = bound.receipts.filter(({ seq }) => seq > now.seq);
  await keep(bound, now);
  return {
    size: head.seq,
    headHex: head.link.toHex(),
    verifiedFrom: verified.seq,
    ok: true,
    log: placeOf(log),
    requestId,
  };
}

/** The log's first entry fixes the pseudonym: so all devices know the account under the same one. */
function checkPseudonym(bound: Bound, { salt }: SaltedEntry): void {
  if (bound.log.salt !== null && !equalBytes(bound.log.salt, salt)) {
    throw broken("the server-wide log knows the account under another pseudonym than its first entry gives");
  }
  bound.log = { ...bound.log, salt };
}

function placeOf({ checkpoint, logged }: LogProof): Verified["log"] {
  return logged ? { size: checkpoint.size, rootHex: checkpoint.root.toHex(), index: logged.index } : null;
}

/** The lowest place from which all marks lie ahead: what was verified, or what another device signed before it. */
function startOf(verified: AuditHead, marks: ReadonlyMap<number, Uint8Array>): AuditHead {
  let start: AuditHead = { seq: verified.seq, link: verified.link };
  for (const [seq, link] of marks) if (seq < start.seq) start = { seq, link };
  return start;
}

/** Hash of the state at a revision, which later states must link to. */
async function pinAt(session: Session, model: Model, revision: number): Promise<Uint8Array> {
  const bound = boundOf(model);
  if (revision === bound.head.state.revision) return pinnedHash(bound);
  const { output } = await session.call("state.sync", { since: revision - 1, after: null, what: "states" });
  const first = output.states[0];
  if (!first || first.state.revision !== revision) throw broken(`the state of revision ${revision} is withheld`);
  return stateHash(first.state);
}
