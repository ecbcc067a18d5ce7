import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { type CeremonyId, hashId } from "../../ids.ts";
import { checkDraft } from "./draft.ts";
import type {
  AbortReason,
  CeremonyManifest,
  CeremonyStatus,
  EntryBody,
  SignedCeremonyJoin,
  SignedCeremonyManifest,
  SignedCeremonyReveal,
  SignedEntry,
  Transcript,
  TranscriptEntry,
} from "./model.ts";
import { missingOf, type Progress, statusOf, untilOf } from "./progress.ts";
import { ceremonyIdOf, entryBytes, entryHash, entryHolds, verifyCeremonyManifest } from "./records.ts";
import { check, culpritsOf, usedBy } from "./rules.ts";

export { checkDraft };

/** What nobody needs to ask for: time or the last participant has brought it about. */
export type Due =
  | { readonly kind: "freeze" }
  | { readonly kind: "result" }
  | { readonly kind: "abort"; readonly reason: "absent" | "withheld"; readonly culprits: readonly number[] };

/** A ceremony at a time: what its transcript says (docs/protocol.md §10.4). */
export interface CeremonyState extends Progress {
  readonly status: CeremonyStatus;
  /** Ascending by index. */
  readonly joins: readonly SignedCeremonyJoin[];
  readonly t1: Uint8Array | null;
  /** The server's s0, once it is shown. */
  readonly seed: Uint8Array | null;
  /** When the status ends; null where time does not end it. */
  readonly untilMs: number | null;
  /** Before the freeze: empty seats; then those who have committed and not revealed. */
  readonly missing: readonly number[];
  readonly due: Due | null;
}

/** What an entry is, for people: "commitment of participant 3 (carol)". */
export function recordOf({ draft }: CeremonyManifest, body: EntryBody): string {
  const of = (index: number) => {
    const name = draft.slots[index - 1]?.name;
    return `participant ${index}${name === undefined ? "" : ` (${name})`}`;
  };
  switch (body.kind) {
    case "seat":
      return `seat of ${of(body.index)}`;
    case "join":
      return `commitment of ${of(body.join.join.index)}`;
    case "reveal":
      return `reveal of ${of(body.reveal.reveal.index)}`;
    default:
      return body.kind;
  }
}

/** Names a place in a transcript by the line that it has in a file: the manifest is on line 1. */
export function brokenAt(line: number, record: string, what: string): Fault {
  return new Fault("integrity", `line ${line}, ${record}: ${what}`, {
    hint: "the transcript was changed, or whoever wrote it is not to be trusted",
  });
}

/** Runs a check; what it throws names the place. */
function located(line: number, record: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault) throw brokenAt(line, record, error.message);
    throw error;
  }
}

/** The mutable side of {@link Progress}, for replaying in linear time. */
interface Replay {
  readonly progress: Progress;
  take(signed: SignedEntry): void;
}

function begin({ manifest }: SignedCeremonyManifest): Replay {
  const ceremonyId = ceremonyIdOf(manifest);
  const seats = new Map<number, Uint8Array>();
  const taken = new Map<number, SignedCeremonyJoin>();
  const used = new Set<string>();
  const reveals = new Map<number, SignedCeremonyReveal>();
  const progress: { -readonly [K in keyof Progress]: Progress[K] } = {
    ceremonyId,
    manifest,
    seats,
    taken,
    used,
    reveals,
    frozen: null,
    result: null,
    abort: null,
    head: { seq: 0, hash: Uint8Array.fromHex(ceremonyId), atMs: manifest.openedAtMs },
  };
  const take = ({ entry }: SignedEntry): void => {
    const { body, atMs } = entry;
    switch (body.kind) {
      case "seat":
        seats.set(body.index, body.invite);
        break;
      case "join":
        taken.set(body.join.join.index, body.join);
        for (const hex of usedBy(body.join)) used.add(hex);
        break;
      case "freeze":
        progress.frozen = { t1: body.t1, seed: body.seed, atMs };
        break;
      case "reveal":
        reveals.set(body.reveal.reveal.index, body.reveal);
        break;
      case "result":
        progress.result = body;
        break;
      case "abort":
        progress.abort = body;
        break;
    }
    progress.head = { seq: entry.seq, hash: entryHash(ceremonyId, entry), atMs };
  };
  return { progress, take };
}

function checkLink({ head }: Progress, { seq, previous, atMs }: TranscriptEntry): void {
  if (seq !== head.seq + 1) throw new Fault("integrity", `it is numbered ${seq} and stands at ${head.seq + 1}`);
  if (!equalBytes(previous, head.hash)) throw new Fault("integrity", "it does not follow the record before it");
  if (atMs < head.atMs) throw new Fault("integrity", "it is older than the record before it");
}

/**
 * The state of a ceremony: replays its transcript and holds every entry to the rules at the entry's own time.
 *
 * @param nowMs By the server's clock; a time before the last entry counts as that entry's.
 * @param trust `nothing`: verifies every signature. `head`: of the entries only the enclave's signature under the last
 * one, which names all before it; for the enclave itself, which verified the rest before it signed.
 * @throws Fault integrity that names line and record
 */
export function ceremonyState(
  transcript: Transcript,
  nowMs: number,
  trust: "nothing" | "head" = "nothing",
): CeremonyState {
  const { manifest } = transcript.manifest;
  located(1, "manifest", () => {
    verifyCeremonyManifest(transcript.manifest);
    checkDraft(manifest.draft);
  });
  const { progress, take } = begin(transcript.manifest);
  const { enclave } = manifest.draft.key.key;
  const all = trust === "nothing";
  for (const [at, signed] of transcript.entries.entries()) {
    const { entry } = signed;
    located(at + 2, recordOf(manifest, entry.body), () => {
      checkLink(progress, entry);
      const last = at === transcript.entries.length - 1;
      if ((all || last) && !entryHolds(enclave, progress.ceremonyId, signed)) {
        throw new Fault("integrity", "the signature of the server's enclave under it does not hold");
      }
      check(progress, entry.body, entry.atMs, all);
    });
    take(signed);
  }
  return viewOf(progress, nowMs);
}

function viewOf(progress: Progress, nowMs: number): CeremonyState {
  const atMs = Math.max(nowMs, progress.head.atMs);
  const status = statusOf(progress, atMs);
  const untilMs = untilOf(progress, status);
  return {
    ...progress,
    status,
    joins: [...progress.taken.values()].sort((a, b) => a.join.index - b.join.index),
    t1: progress.frozen?.t1 ?? null,
    seed: progress.frozen?.seed ?? null,
    untilMs,
    missing: missingOf(progress),
    due: dueOf(progress, status, untilMs !== null && atMs >= untilMs),
  };
}

function dueOf(progress: Progress, status: CeremonyStatus, over: boolean): Due | null {
  if (status === "freeze") return { kind: "freeze" };
  if (status === "combine") return { kind: "result" };
  if (!over) return null;
  const reason = status === "reveal" ? "withheld" : "absent";
  return { kind: "abort", reason, culprits: culpritsOf(progress, reason) };
}

/**
 * Holds what is to happen next to every rule, signatures of participants included (docs/protocol.md §10.4). What is
 * there already, byte for byte, is refused like a second one: {@link findEntry} has it.
 *
 * @throws Fault denied, conflict, stale, bad_input
 */
export function admit(state: CeremonyState, body: EntryBody, nowMs: number): void {
  check(state, body, Math.max(nowMs, state.head.atMs), true);
}

/** The entry that says what may happen next; its time is never before the last one's. @throws Fault as {@link admit} */
export function nextEntry(state: CeremonyState, body: EntryBody, nowMs: number): TranscriptEntry {
  admit(state, body, nowMs);
  const { seq, hash, atMs } = state.head;
  return { seq: seq + 1, previous: hash, atMs: Math.max(nowMs, atMs), body };
}

/** Stands for the ceremony where bodies are compared. */
const ANY = hashId<CeremonyId>(new Uint8Array(32));

/** The entry that says exactly this already: the answer to who sends it again; null for none. */
export function findEntry({ entries }: Transcript, body: EntryBody): SignedEntry | null {
  const same = ({ entry }: SignedEntry) =>
    entry.body.kind === body.kind && equalBytes(entryBytes(ANY, entry), entryBytes(ANY, { ...entry, body }));
  return entries.find(same) ?? null;
}

/** The body of an abort that is not for a lie, with those to blame. */
export function abortBody(state: CeremonyState, reason: Exclude<AbortReason, "lied">): EntryBody {
  return { kind: "abort", reason, culprits: culpritsOf(state, reason), reveal: null };
}
