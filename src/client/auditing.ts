import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { RequestId } from "../ids.ts";
import { type AuditHead, auditLink, continueAudit, type SaltedEntry } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type SignedState, stateHash } from "../protocol/state.ts";
import type { AuditItem, AuditQuery, Verified } from "./api.ts";
import { findSecret } from "./changes.ts";
import { boundOf, type Model, pinnedHash } from "./model.ts";
import { type Open, online, save } from "./opened.ts";
import type { Session } from "./session.ts";
import { synchronise } from "./sync.ts";

function itemOf(model: Model, salted: SaltedEntry): AuditItem {
  const { entry } = salted;
  const name = entry.keyId === null ? null : (model.secrets.get(entry.keyId)?.meta?.name ?? null);
  return {
    seq: entry.seq,
    at: new Date(entry.atMs).toISOString(),
    action: entry.action,
    status: entry.status,
    keyId: entry.keyId,
    name,
    requestId: entry.requestId,
    session: entry.session,
    count: entry.count,
    signed: entry.stateHash !== null,
    linkHex: auditLink(salted).toHex(),
  };
}

function cursorOf(text: string | null): number {
  if (text === null) return 0;
  if (!/^\d{1,15}$/.test(text))
    throw new Fault("bad_input", "this is not a cursor", { hint: "pass the `next` of the page before" });
  return Number(text);
}

/** Events of the account's log, oldest first. */
export function listAudit(
  open: Open,
  query: AuditQuery,
): Promise<{ items: readonly AuditItem[]; next: string | null; requestId: RequestId | null }> {
  return online(open, true, async (at) => {
    if (!at) throw new Fault("unreachable", "the log lies on the server");
    const operation = query.purpose === "export" ? "audit.export" : "audit.list";
    const keyId = query.name === null ? null : findSecret(open.box.model, query.name, { removed: true }).leaf.keyId;
    const items: AuditItem[] = [];
    let requestId: RequestId | null = null;
    let after = cursorOf(query.cursor);
    for (;;) {
      const limit = Math.min(
        DEFAULTS.auditPage,
        query.limit === null ? DEFAULTS.auditPage : query.limit - items.length,
      );
      const { output, requestId: made } = await at.session.call(operation, {
        after,
        limit,
        keyId,
        action: query.action,
        fromMs: query.fromMs,
        untilMs: query.untilMs,
        requestId: query.requestId,
      });
      requestId ??= made;
      items.push(...output.entries.map((entry) => itemOf(open.box.model, entry)));
      after = output.entries.at(-1)?.entry.seq ?? after;
      if (!output.more || output.entries.length === 0) return { items, next: null, requestId };
      if (query.limit !== null && items.length >= query.limit) return { items, next: String(after), requestId };
    }
  });
}

const broken = (why: string) =>
  new Fault("integrity", "the account's log was tampered with", {
    why,
    hint: "keep an export of it; trust this server no more",
  });

/** All states after a revision, linked to the one before and ending at the pinned one. */
async function statesAfter(session: Session, model: Model, revision: number, link: Uint8Array): Promise<SignedState[]> {
  const states: SignedState[] = [];
  let before = link;
  for (let more = true; more; ) {
    const { output } = await session.call("state.sync", {
      since: revision + states.length,
      after: null,
      what: "states",
    });
    for (const signed of output.states) {
      const next = signed.state.revision === revision + states.length + 1 && equalBytes(signed.state.previous, before);
      if (!next) throw broken(`the signed states break at revision ${revision + states.length + 1}`);
      before = stateHash(signed.state);
      states.push(signed);
    }
    more = output.more && output.states.length > 0;
  }
  const bound = boundOf(model);
  const pinned = states.find(({ state }) => state.revision === bound.head.state.revision);
  if (pinned && !equalBytes(stateHash(pinned.state), pinnedHash(bound))) throw broken("the signed states are forked");
  return states;
}

/**
 * Verifies the log from what was verified before: the chain has no gap, edit or fork, passes through every position
 * that answers showed, and holds exactly the changes that the owner signed (docs/protocol.md §6.2).
 */
export function verifyAudit(open: Open): Promise<Verified> {
  return online(open, true, async (at) => {
    if (!at) throw new Fault("unreachable", "the log lies on the server");
    const { model } = open.box;
    const { session } = at;
    await synchronise(model, session, open.around);
    const bound = boundOf(model);
    const { verified, witnessed } = bound;
    const marks: AuditHead[] = [{ ...witnessed }];
    const revisionHash = verified.revision === 0 ? new Uint8Array(32) : await pinAt(session, verified.revision);
    const states = await statesAfter(session, model, verified.revision, revisionHash);
    let head: AuditHead = { seq: verified.seq, link: verified.link };
    let signed = 0;
    let requestId: RequestId | null = null;
    for (let more = true; more; ) {
      const answer = await session.call("audit.verify", {
        after: head.seq,
        limit: DEFAULTS.auditPage,
        keyId: null,
        action: null,
        fromMs: null,
        untilMs: null,
        requestId: null,
      });
      requestId ??= answer.requestId;
      const { entries } = answer.output;
      const result = continueAudit(head, bound.userId, entries);
      if (!result.ok) throw broken(`entry ${result.broken.seq}: ${result.broken.reason}`);
      for (const item of entries) {
        for (const mark of marks) {
          if (mark.seq === item.entry.seq && !equalBytes(mark.link, auditLink(item))) {
            throw broken(`entry ${mark.seq} is not the one that an answer named`);
          }
        }
        if (item.entry.stateHash === null) continue;
        const expected = states[signed];
        // a batch writes an entry for each secret under the same state
        const before = states[signed - 1];
        if (before && equalBytes(item.entry.stateHash, stateHash(before.state))) continue;
        if (!expected || !equalBytes(item.entry.stateHash, stateHash(expected.state))) {
          throw broken(`entry ${item.entry.seq} names a change that the owner did not sign`);
        }
        signed += 1;
      }
      head = result.head;
      more = answer.output.more && entries.length > 0;
    }
    if (head.seq < witnessed.seq)
      throw broken(`it ends at entry ${head.seq}, but entry ${witnessed.seq} was receipted`);
    if (verified.revision + signed < bound.head.state.revision) throw broken("a signed change has no entry");
    const verifiedFrom = verified.seq;
    bound.verified = { seq: head.seq, link: head.link, revision: verified.revision + signed };
    const { verified: now } = bound;
    await save(open, (newest) => {
      if (newest.bound && newest.bound.verified.seq < now.seq) newest.bound.verified = now;
    });
    return { size: head.seq, headHex: head.link.toHex(), verifiedFrom, ok: true, requestId };
  });
}

/** Hash of the state at a revision, which later states must link to. */
async function pinAt(session: Session, revision: number): Promise<Uint8Array> {
  const { output } = await session.call("state.sync", { since: revision - 1, after: null, what: "states" });
  const first = output.states[0];
  if (!first || first.state.revision !== revision) throw broken(`the state of revision ${revision} is withheld`);
  return stateHash(first.state);
}
