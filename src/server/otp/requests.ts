import { equalBytes } from "../../crypto/bytes.ts";
import { canSealTo } from "../../crypto/hpke.ts";
import { Fault } from "../../errors.ts";
import type { OtpAskId, StoredKeyId } from "../../ids.ts";
import { handedToHash, type OtpAsk, otpAskIdOf, verifyOtpAsk } from "../../protocol/otphandout.ts";
import { aheadUntil, allocate, expiryOf, provisioned } from "../../protocol/otpwindow.ts";
import { countIn } from "../../protocol/ratewindow.ts";
import type { Tx } from "../../storage/store.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { appendEvent } from "../audit.ts";
import type { KeyStoreSite } from "../ceremony/service.ts";
import type { StagedCaller } from "../context.ts";
import { listStored, putStored, readStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { shortId } from "../federation/named.ts";
import { addressBucket, refusedBy, spend } from "../limits.ts";
import {
  DUE,
  dueId,
  GRANT,
  type GrantBody,
  HANDOUT,
  type HandoutBody,
  MINUTE,
  minuteOf,
  newestFirst,
  TAG,
  tagId,
} from "./documents.ts";
import type { DistributionPart } from "./index.ts";
import {
  holds,
  type OtpEntry,
  positionOf,
  readEntry,
  readState,
  type State,
  saveGrant,
  saveState,
  settle,
  stateNow,
} from "./keys.ts";
import { movedFor } from "./moves.ts";
import { type Asker, accountAsker, deviceAsker, grantDocument, requesterName, shownRequester } from "./requesters.ts";

type Requests = Pick<DistributionPart, "otp.request" | "otp.request.device">;
type Handed = OutputOf<"otp.request">;
type Handout = Stored<HandoutBody>;

const HOUR = 3_600_000;
/** Codes in a row that are equal to open ones by chance: nobody meets so many. */
const COLLISIONS_MAX = 16;
/** Hand-outs of a key that are read at once. */
const PAGE = 64;

/** One answer for a key that never was, one without a grant, a grant that has ended, a revoked key (P8). */
const notEntitled = () => new Fault("denied", "the server hands nothing of this key to you");

function tooMany(what: string, waitMs: number): Fault {
  return new Fault("rate_limited", `${what}: wait ${Math.ceil(waitMs / 1_000)} s`, { retryAfterMs: waitMs });
}

interface Admitted {
  readonly entry: OtpEntry;
  readonly grant: Stored<GrantBody>;
}

type TagRow = Stored<{ readonly askId: OtpAskId }> | undefined;

interface Begun extends Admitted {
  readonly row: Handout;
}

/** The first and the last transaction of a hand-out, which may be others' too. */
interface Stages extends Pick<StagedCaller, "last"> {
  first<T>(work: (tx: Tx, asker: Asker) => Promise<T>): Promise<T>;
}

/** Hand-outs of codes and of keys (docs/protocol.md §10.8). */
export function createRequests(site: KeyStoreSite): Requests {
  const { ctx } = site;

  /** The same statements for every reason to refuse. @throws Fault denied */
  async function admit(tx: Tx, asker: Asker, { keyId, want, server }: OtpAsk): Promise<Admitted> {
    const entry = await readEntry(tx, keyId);
    const grant = await readStored(tx, GRANT, grantDocument(keyId, asker.name));
    if (!entry || !grant || entry.value.status === "revoked") throw notEntitled();
    if (!holds(ctx, grant.value, asker.userId) || !grant.value.wants.includes(want)) throw notEntitled();
    if (entry.value.status === "moved") throw await movedFor(tx, entry);
    if (!equalBytes(server, ctx.keys.identity)) throw new Fault("denied", "this was asked of another server");
    return { entry, grant };
  }

  /** Takes the counter, durably, before anything is made of it; null where it must be begun once more. */
  async function begin(tx: Tx, asker: Asker, ask: OtpAsk, askId: OtpAskId): Promise<Begun | null> {
    const admitted = await admit(tx, asker, ask);
    const { entry, grant } = admitted;
    const before = await readStored(tx, HANDOUT, askId);
    if (before) return { ...admitted, row: before };
    const nowMs = ctx.now();
    if (Math.abs(ask.atMs - nowMs) > ctx.limits.clockSkewMs)
      throw new Fault("stale", "the request is of another time: compare the clocks", { hint: "run the command again" });
    if (!canSealTo(ask.recipient)) throw new Fault("bad_input", "nothing can be sealed to the request's key");
    const state = await readState(ctx, tx, entry);
    if (await settle(tx, state)) return null;
    const next = await spendRates(tx, asker, grant, state, nowMs);
    if (ask.want === "code") await leaveToOthers(tx, asker, entry, state);
    const taken = ask.want === "code" ? takeCode(asker, entry, next) : await takeKey(tx, asker, entry, next);
    await saveState(tx, state, taken.state.value);
    const value: HandoutBody = {
      want: ask.want,
      to: grant.value.to,
      grantId: grant.value.grantId,
      state: "allocated",
      counter: taken.counter,
      version: entry.value.record.version,
      incarnation: ctx.incarnation,
      sealed: null,
      tag: null,
      atMs: nowMs,
      expiresAtMs:
        ask.want === "code"
          ? expiryOf(entry.kind, taken.counter, nowMs, ctx.limits.otpHandoutMs)
          : nowMs + ctx.limits.otpHandoutMs,
      usedAtMs: null,
    };
    const row = { id: askId, owner: entry.id, place: newestFirst(nowMs), value };
    if (!(await putStored(tx, HANDOUT, row, 0))) throw changedMeanwhile();
    await noteDue(tx, state, next, value);
    return { ...admitted, row: { ...row, version: 1 } };
  }

  /** The first hand-out of a minute is enough: with it the others of this minute are found. */
  async function noteDue(tx: Tx, before: State, after: State, { atMs, expiresAtMs }: HandoutBody): Promise<void> {
    const minute = minuteOf(atMs);
    const [last, now] = [before.value.recent.at(-1), after.value.recent.at(-1)];
    // one that was counted in the same part of this minute has noted it, in the transaction that counted it
    if (last && last.atMs === now?.atMs && minuteOf(last.atMs) === minute) return;
    const keyId = before.id as StoredKeyId;
    const place = expiresAtMs + ctx.limits.otpHandoutKeptMs;
    await putStored(tx, DUE, { id: dueId(keyId, minute), owner: "", place, value: { keyId, minute } }, 0);
  }

  /** Counts the hand-out for its requester and its key. @throws Fault rate_limited */
  async function spendRates(
    tx: Tx,
    asker: Asker,
    grant: Stored<GrantBody>,
    state: State,
    nowMs: number,
  ): Promise<State> {
    const ofRequester = countIn(grant.value.recent, nowMs, HOUR, grant.value.perHour ?? ctx.limits.otpPerHour);
    if ("waitMs" in ofRequester) throw tooMany("you have been handed as much as you may be", ofRequester.waitMs);
    const ofKey = countIn(state.value.recent, nowMs, MINUTE, ctx.limits.otpKeyPerMinute);
    if ("waitMs" in ofKey) throw tooMany("this key hands out no more now", ofKey.waitMs);
    const { version, ...row } = grant;
    // the first account of the name that comes keeps the grant
    const userId = grant.value.userId ?? asker.userId;
    await saveGrant(tx, { ...row, value: { ...row.value, userId, recent: ofRequester.slots } }, version);
    return { ...state, value: { ...state.value, recent: ofKey.slots } };
  }

  /** @throws Fault conflict, rate_limited */
  function takeCode(asker: Asker, entry: OtpEntry, state: State): { state: State; counter: number } {
    const { provisionedTo } = state.value;
    if (provisionedTo !== null && (entry.kind.kind === "hotp" || provisionedTo !== asker.name))
      throw new Fault("conflict", "this key is in an authenticator: its codes come from there");
    const taken = allocate(entry.kind, positionOf(state.value), ctx.now());
    if (taken.counter === null) {
      if (taken.fromMs === null) throw new Fault("conflict", "this key has no codes left");
      throw tooMany("the codes of this time are handed out", Math.max(1, taken.fromMs - ctx.now()));
    }
    const lastTo = entry.kind.kind === "totp" ? asker.name : null;
    return { state: { ...state, value: { ...state.value, ...taken.position, lastTo } }, counter: taken.counter };
  }

  /** Who has the code of this step gets the next one early only where it is nobody else's. @throws Fault rate_limited */
  async function leaveToOthers(tx: Tx, asker: Asker, { id, kind }: OtpEntry, { value }: State): Promise<void> {
    if (value.lastTo !== asker.name || value.provisionedTo !== null) return;
    const untilMs = aheadUntil(kind, positionOf(value), ctx.now());
    if (untilMs === null || (await tx.documentCount(GRANT.kind, id, 2)) < 2) return;
    throw tooMany("the next code is for whoever has none", Math.max(1, untilMs - ctx.now()));
  }

  /** The key itself, for one requester for good, once no code of it is open with anyone. */
  async function takeKey(
    tx: Tx,
    asker: Asker,
    entry: OtpEntry,
    state: State,
  ): Promise<{ state: State; counter: number }> {
    const { provisionedTo } = state.value;
    if (provisionedTo === asker.name) return { state, counter: state.value.floor };
    if (provisionedTo !== null) throw new Fault("conflict", "this key is in another requester's authenticator");
    const untilMs = await openWithOthers(tx, asker, entry);
    if (untilMs > ctx.now()) throw tooMany("codes of this key are open with others", untilMs - ctx.now());
    const value = { ...state.value, ...provisioned(positionOf(state.value)), provisionedTo: asker.name };
    return { state: { ...state, value }, counter: value.floor };
  }

  /** When the last code that somebody else has been handed ends, however many came after it; 0 for none. */
  async function openWithOthers(tx: Tx, asker: Asker, { id, kind }: OtpEntry): Promise<number> {
    const stepsMs = kind.kind === "totp" ? 4 * kind.period * 1_000 : 0;
    // one that met equal digits may have been prolonged once
    const oldest = newestFirst(ctx.now() - 2 * Math.max(ctx.limits.otpHandoutMs, stepsMs));
    let untilMs = 0;
    for (let from: Handout | null = null; ; ) {
      const page: readonly Handout[] = await listStored(tx, HANDOUT, id, from, PAGE);
      for (const { value } of page) {
        if (value.state !== "used" && requesterName(value.to) !== asker.name)
          untilMs = Math.max(untilMs, value.expiresAtMs);
      }
      from = page.at(-1) ?? null;
      if (!from || page.length < PAGE || from.place > oldest) return untilMs;
    }
  }

  /** What a hand-out that was begun still has to do: null once it is done. @throws Fault denied, stale */
  function unfinished({ entry, grant, row }: Begun): HandoutBody | null {
    if (row.owner !== entry.id) throw notEntitled();
    const now = stateNow(ctx, entry, row.value, grant.value.grantId);
    if (now === "revoked") throw notEntitled();
    if (row.value.sealed !== null) return null;
    if (now !== "allocated" || row.value.expiresAtMs <= ctx.now())
      throw new Fault("stale", "this request came to nothing in its time", { hint: "ask anew" });
    return row.value;
  }

  function handed({ entry, row }: { readonly entry: OtpEntry; readonly row: Handout }): Handed {
    const { sealed, atMs, expiresAtMs } = row.value;
    if (!sealed) throw new Fault("internal", "the server failed");
    return { askId: row.id as OtpAskId, sealed, record: entry.value.record, atMs, expiresAtMs };
  }

  /** Has the enclave make what was allocated: outside of any transaction. */
  async function make(entry: OtpEntry, { want, counter }: HandoutBody, askId: OtpAskId, recipient: Uint8Array) {
    const { record, sealed } = entry.value;
    const input = { stored: { record, sealed }, counter, ask: { askId, recipient } };
    if (want === "code") return site.enclave.call("stored.code", input);
    return { ...(await site.enclave.call("stored.provision", input)), tag: null };
  }

  /** True while another hand-out's code with the same digits may still be accepted. */
  async function isTaken(tx: Tx, entry: OtpEntry, index: TagRow, askId: OtpAskId): Promise<boolean> {
    if (!index || index.value.askId === askId) return false;
    const other = await readStored(tx, HANDOUT, index.value.askId);
    // one whose grant is gone counts as open for as long as it would have been
    return other?.value.state === "open" && stateNow(ctx, entry, other.value, other.value.grantId) === "open";
  }

  /** Has a code found by its tag; false, and nothing written, while it is open elsewhere. */
  async function pointTo(tx: Tx, entry: OtpEntry, tag: Uint8Array, askId: OtpAskId): Promise<boolean> {
    const row = { id: tagId(entry.id, tag), owner: "", place: ctx.now(), value: { askId } };
    // most often no code of the key had these digits before
    if (await putStored(tx, TAG, row, 0)) return true;
    const index = await readStored(tx, TAG, row.id);
    if (await isTaken(tx, entry, index, askId)) return false;
    if (!(await putStored(tx, TAG, row, index?.version ?? 0))) throw changedMeanwhile();
    return true;
  }

  /**
   * Keeps what was made, once: what somebody else's attempt at the same ask kept stays. A code that is open elsewhere is
   * passed over for the next one.
   */
  async function keep(
    tx: Tx,
    asker: Asker,
    ask: OtpAsk,
    { id: askId, value: made }: Handout,
    { sealed, tag }: { readonly sealed: Uint8Array; readonly tag: Uint8Array | null },
    action: string,
  ): Promise<Begun> {
    const admitted = await admit(tx, asker, ask);
    const { entry } = admitted;
    const row = await readStored(tx, HANDOUT, askId);
    if (!row) throw notEntitled();
    const value = unfinished({ ...admitted, row });
    if (!value || value.counter !== made.counter) return { ...admitted, row };
    const { version, ...place } = row;
    let next: HandoutBody;
    if (tag && !(await pointTo(tx, entry, tag, askId as OtpAskId))) {
      const state = await readState(ctx, tx, entry);
      const further = takeCode(asker, entry, state);
      await saveState(tx, state, further.state.value);
      const expiresAtMs = expiryOf(entry.kind, further.counter, ctx.now(), ctx.limits.otpHandoutMs);
      next = { ...value, counter: further.counter, expiresAtMs };
    } else {
      next = { ...value, state: tag ? "open" : "provisioned", sealed, tag };
      if (entry.value.issuer !== asker.userId) await tellIssuer(tx, entry, action, value.to);
    }
    if (!(await putStored(tx, HANDOUT, { ...place, value: next }, version))) throw changedMeanwhile();
    return { ...admitted, row: { ...place, value: next, version: version + 1 } };
  }

  async function tellIssuer(tx: Tx, entry: OtpEntry, action: string, to: HandoutBody["to"]): Promise<void> {
    const { id, value } = entry;
    const shown = shownRequester(ctx, to);
    const bodyHash = handedToHash(id, shown.kind, shown.kind === "account" ? shown.account : shown.key.toHex());
    await appendEvent(ctx, tx, { userId: value.issuer, action, status: "ok", keyId: shortId(id), bodyHash });
  }

  async function handOut(stages: Stages, ask: OtpAsk, action: string): Promise<Handed> {
    const start = async (tx: Tx, asker: Asker) => {
      const askId = otpAskIdOf(ask, asker.bound);
      return { asker, askId, begun: await begin(tx, asker, ask, askId) };
    };
    const { asker, askId, begun } = await stages.first(start);
    const again = begun ?? (await ctx.store.transaction((tx) => start(tx, asker), ask.keyId)).begun;
    if (!again) throw changedMeanwhile();
    let at: Begun = again;
    for (let attempt = 0; attempt < COLLISIONS_MAX; attempt++) {
      const todo = unfinished(at);
      if (!todo) return handed(at);
      const made = await make(at.entry, todo, askId, ask.recipient);
      const { row, entry } = at;
      const kept = (tx: Tx) => keep(tx, asker, ask, row, made, action);
      at = await stages.last(kept, (next) => (next.row.value.sealed ? handed(next) : null), entry.value.issuer);
    }
    if (at.row.value.sealed) return handed(at);
    throw new Fault("unavailable", "no code could be found that nobody has: try again");
  }

  return {
    "otp.request": ({ first, last }, { ask }) =>
      handOut({ first: (work) => first((tx, account) => work(tx, accountAsker(account))), last }, ask, "otp.request"),

    async "otp.request.device"({ address }, signed) {
      const bucket = `otp-device:${addressBucket(address)}`;
      const free = ctx.limits.loginFreeFailuresPerAddress;
      const refused = await ctx.store.transaction((tx) => refusedBy(ctx, tx, bucket));
      if (refused) throw refused;
      try {
        const ask = verifyOtpAsk(signed);
        const device = deviceAsker(signed.device);
        const stages: Stages = {
          first: (work) => ctx.store.transaction((tx) => work(tx, device), ask.keyId),
          last: (work, _, near) => ctx.store.transaction(work, near),
        };
        return await handOut(stages, ask, "otp.request.device");
      } catch (error) {
        if (error instanceof Fault && error.code === "denied")
          await ctx.store.transaction((tx) => spend(ctx, tx, bucket, free));
        throw error;
      }
    },
  };
}
