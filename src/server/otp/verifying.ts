import { Fault } from "../../errors.ts";
import type { StoredKeyId, UserId } from "../../ids.ts";
import { accept, type OtpPosition, resync, resyncWindow, windowOf, withUsed } from "../../protocol/otpwindow.ts";
import type { Tx } from "../../storage/store.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { appendEvent } from "../audit.ts";
import type { KeyStoreSite } from "../ceremony/service.ts";
import { putStored, readStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { shortId } from "../federation/named.ts";
import { refund, refusedBy, spend } from "../limits.ts";
import { GRANT, HANDOUT, type HandoutBody, TAG, tagId } from "./documents.ts";
import type { DistributionPart } from "./index.ts";
import { type OtpEntry, ownEntry, positionOf, readState, type State, saveState, settle, stateNow } from "./keys.ts";
import { movedAway } from "./moves.ts";
import { noteRefused } from "./refusals.ts";
import { grantDocument, requesterName, shownRequester } from "./requesters.ts";

type Verifying = Pick<DistributionPart, "otp.check" | "otp.verify">;
type Checked = OutputOf<"otp.check">;

/** Places at which the first of two codes in a row may be found by chance before the right one. */
const RESYNC_TRIES = 8;
/** Stands for a hand-out where a code has none, so that the same is read. */
const NONE = "none";

/** What the enclave found of a code: its tag, and the counter of an authenticator's code. */
interface Found {
  readonly tag: Uint8Array;
  readonly counter: number | null;
  /** Two codes in a row were found, this one and the next. */
  readonly pair: boolean;
}

interface Question {
  readonly keyId: StoredKeyId;
  /** The issuer: of the session, or who made the token. */
  readonly userId: UserId;
  readonly code: string;
  readonly next: string | null;
  /** Counts failures of this token, too. */
  readonly tokenId: string | null;
}

/** Verifies codes, each accepted once (RFC 4226 §7.2, §7.4; RFC 6238 §5.2; docs/protocol.md §10.8). */
export function createVerifying(site: KeyStoreSite): Verifying {
  const { ctx } = site;
  const free = ctx.limits.otpFreeFailures;

  const bucketsOf = ({ keyId, tokenId }: Question): readonly string[] =>
    tokenId === null ? [`otp-code:${keyId}`] : [`otp-code:${keyId}`, `otp-token:${tokenId}`];

  /** @throws Fault rate_limited; then nothing is looked at */
  async function demandTries(tx: Tx, question: Question): Promise<void> {
    for (const bucket of bucketsOf(question)) {
      const refused = await refusedBy(ctx, tx, bucket);
      if (refused) throw refused;
    }
  }

  /** One question to the enclave, whatever the code is; a pair of codes takes more. */
  async function search(entry: OtpEntry, state: State, { code, next }: Question): Promise<Found> {
    const { record, sealed } = entry.value;
    const stored = { record, sealed };
    const own = state.value.provisionedTo !== null;
    const at = positionOf(state.value);
    const { from, span } = next === null ? windowOf(entry.kind, at, ctx.now()) : resyncWindow(entry.kind, at);
    const ask = (text: string, first: number, count: number) =>
      site.enclave.call("stored.match", { stored, code: text, from: first, span: own ? count : 0 });
    let found = await ask(code, from, span);
    const { tag } = found;
    if (next === null) return { tag, counter: found.counter, pair: false };
    for (let tries = 0; found.counter !== null && tries < RESYNC_TRIES; tries++) {
      const { counter } = found;
      if ((await ask(next, counter + 1, 1)).counter !== null) return { tag, counter, pair: true };
      found = await ask(code, counter + 1, from + span - counter - 1);
    }
    return { tag, counter: null, pair: false };
  }

  /** The position after an authenticator's code; null if it has been used, or is none. */
  function passed({ kind }: OtpEntry, at: OtpPosition, { counter, pair }: Found): OtpPosition | null {
    if (counter === null) return null;
    return pair ? resync(kind, at, counter) : accept(kind, at, counter, ctx.now());
  }

  async function useHandout(tx: Tx, entry: OtpEntry, state: State, row: Stored<HandoutBody>): Promise<void> {
    const { version, ...kept } = row;
    const value = { ...row.value, state: "used" as const, usedAtMs: ctx.now() };
    // compare-and-set: of two at once one finds it used
    if (!(await putStored(tx, HANDOUT, { ...kept, value }, version))) throw changedMeanwhile();
    if (entry.kind.kind === "hotp" || state.value.provisionedTo === null) return;
    // the authenticator shows the same digits: they are used up there, too
    const position = withUsed(entry.kind, positionOf(state.value), row.value.counter, ctx.now());
    await saveState(tx, state, { ...state.value, ...position });
  }

  /** Decides, in one transaction with what it changes. */
  async function decide(tx: Tx, question: Question, found: Found): Promise<Checked> {
    const entry = await ownEntry(tx, question.keyId, question.userId);
    const state = await readState(ctx, tx, entry);
    await demandTries(tx, question);
    const index = await readStored(tx, TAG, tagId(entry.id, found.tag));
    const row = await readStored(tx, HANDOUT, index?.value.askId ?? NONE);
    const name = row ? requesterName(row.value.to) : NONE;
    const grant = await readStored(tx, GRANT, grantDocument(entry.id, name));
    const was = row ? stateNow(ctx, entry, row.value, grant?.value.grantId) : "unknown";
    const handedTo = row ? shownRequester(ctx, row.value.to) : null;
    const owner = state.value.provisionedTo;
    // an authenticator is worth what its requester's grant is worth: revoking that one ends it
    const authenticator = await readStored(tx, GRANT, grantDocument(entry.id, owner ?? NONE));
    const active = entry.value.status === "active";
    if (row && was === "open" && !found.pair) {
      await useHandout(tx, entry, state, row);
      return { verdict: "accepted", handedTo };
    }
    const position = active && authenticator ? passed(entry, positionOf(state.value), found) : null;
    if (position) {
      await saveState(tx, state, { ...state.value, ...position });
      return { verdict: "accepted", handedTo: null };
    }
    if (was === "used" || was === "expired" || was === "revoked") return { verdict: was, handedTo };
    // the authenticator's: inside its window, and nevertheless not taken
    if (active && found.counter !== null) return { verdict: authenticator ? "used" : "revoked", handedTo: null };
    return { verdict: active ? "unknown" : "revoked", handedTo: null };
  }

  /** Counts failures after the answer is known and before it is given, and takes one back for a code that was right. */
  async function count(tx: Tx, question: Question, accepted: boolean): Promise<void> {
    for (const bucket of bucketsOf(question)) {
      if (accepted) await refund(tx, bucket, free);
      else await spend(ctx, tx, bucket, free);
    }
  }

  /** @param tell Writes what belongs into the issuer's log. */
  async function verify(question: Question, tell: (tx: Tx, accepted: boolean) => Promise<void>): Promise<Checked> {
    const { keyId, userId } = question;
    const { entry, state } = await ctx.store.transaction(async (tx) => {
      const own = await ownEntry(tx, keyId, userId);
      if (own.value.status === "moved") throw movedAway(own);
      const known = await readState(ctx, tx, own);
      await demandTries(tx, question);
      await settle(tx, known);
      return { entry: own, state: known };
    }, keyId);
    const found = await search(entry, state, question);
    return ctx.store.transaction(async (tx) => {
      const checked = await decide(tx, question, found);
      const accepted = checked.verdict === "accepted";
      await count(tx, question, accepted);
      await tell(tx, accepted);
      return checked;
    }, userId);
  }

  return {
    "otp.check": ({ account: { userId } }, { keyId, code, next }) =>
      // its own entry is the session's
      verify({ keyId, userId, code, next, tokenId: null }, async () => undefined),

    async "otp.verify"({ keyId, userId, tokenId }, { code }) {
      try {
        const { verdict } = await verify({ keyId, userId, code, next: null, tokenId }, async (tx, accepted) => {
          const event = { userId, action: "otp.verify", status: "ok", keyId: shortId(keyId) };
          if (accepted) await appendEvent(ctx, tx, event);
          else await noteRefused(ctx, tx, keyId, userId);
        });
        return { accepted: verdict === "accepted" };
      } catch (error) {
        // where a key has gone is its issuer's to know
        if (error instanceof Fault && (error.code === "conflict" || error.code === "not_found"))
          return { accepted: false };
        throw error;
      }
    },
  };
}
