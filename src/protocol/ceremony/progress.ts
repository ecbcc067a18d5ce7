import type { CeremonyId } from "../../ids.ts";
import type { CeremonyManifest, CeremonyStatus, EntryBody, SignedCeremonyJoin, SignedCeremonyReveal } from "./model.ts";

/** What the entries so far say; the status follows from it and from the time (docs/protocol.md §10.4). */
export interface Progress {
  readonly ceremonyId: CeremonyId;
  readonly manifest: CeremonyManifest;
  /** Invite keys of seats that accounts have taken, by index. */
  readonly seats: ReadonlyMap<number, Uint8Array>;
  /** Commitments by index. */
  readonly taken: ReadonlyMap<number, SignedCeremonyJoin>;
  /** Participants' keys, shares and commitments in hexadecimal: none serves twice. */
  readonly used: ReadonlySet<string>;
  readonly reveals: ReadonlyMap<number, SignedCeremonyReveal>;
  readonly frozen: { readonly t1: Uint8Array; readonly seed: Uint8Array; readonly atMs: number } | null;
  readonly result: Extract<EntryBody, { kind: "result" }> | null;
  readonly abort: Extract<EntryBody, { kind: "abort" }> | null;
  /** Last entry, before the first one the manifest: what the next entry's `previous` is. */
  readonly head: { readonly seq: number; readonly hash: Uint8Array; readonly atMs: number };
}

/** How many entries of which kind a status takes, and where they lead: every transition there is. */
export interface Transition {
  readonly entry: EntryBody["kind"] | "absent" | "withheld" | "lied" | "closed" | "failed";
  readonly from: readonly CeremonyStatus[];
  readonly to: readonly CeremonyStatus[];
}

/** Aborts stand here by their reasons (docs/protocol.md §10.4). Time alone leads from `open` and `commit` to `freeze`. */
export const TRANSITIONS: readonly Transition[] = [
  { entry: "seat", from: ["open", "commit"], to: ["open", "commit"] },
  { entry: "join", from: ["open", "commit"], to: ["commit", "freeze"] },
  { entry: "freeze", from: ["commit", "freeze"], to: ["reveal"] },
  { entry: "reveal", from: ["reveal"], to: ["reveal", "combine"] },
  { entry: "result", from: ["combine"], to: ["stored"] },
  { entry: "absent", from: ["open", "commit"], to: ["aborted"] },
  { entry: "withheld", from: ["reveal"], to: ["aborted"] },
  { entry: "lied", from: ["reveal"], to: ["aborted"] },
  { entry: "closed", from: ["open", "commit", "freeze", "reveal"], to: ["aborted"] },
  { entry: "failed", from: ["open", "commit", "freeze", "reveal", "combine"], to: ["aborted"] },
];

/** The row of a body in {@link TRANSITIONS}. */
export function transitionOf(body: EntryBody): Transition {
  const name = body.kind === "abort" ? body.reason : body.kind;
  const row = TRANSITIONS.find(({ entry }) => entry === name);
  if (!row) throw new RangeError("ceremony: an entry without a transition");
  return row;
}

/** When commitments end. */
export const commitUntil = ({ manifest }: Progress): number => manifest.openedAtMs + manifest.draft.commitMs;

/** Where a ceremony stands at a time by its server's clock. */
export function statusOf(p: Progress, nowMs: number): CeremonyStatus {
  if (p.abort) return "aborted";
  if (p.result) return "stored";
  if (p.frozen) return p.reveals.size === p.taken.size ? "combine" : "reveal";
  const { slots, minimum } = p.manifest.draft;
  if (p.taken.size === slots.length) return "freeze";
  if (nowMs >= commitUntil(p) && p.taken.size >= minimum) return "freeze";
  return p.taken.size === 0 ? "open" : "commit";
}

/** When the status ends; null where time does not end it. */
export function untilOf(p: Progress, status: CeremonyStatus): number | null {
  if (status === "open" || status === "commit") return commitUntil(p);
  if (status === "reveal" && p.frozen) return p.frozen.atMs + p.manifest.draft.revealMs;
  return null;
}

/** Indexes that have not done what everyone is to do: before the freeze committed, then revealed. Ascending. */
export function missingOf(p: Progress): readonly number[] {
  if (p.frozen) return [...p.taken.keys()].filter((index) => !p.reveals.has(index)).sort((a, b) => a - b);
  return p.manifest.draft.slots.map(({ index }) => index).filter((index) => !p.taken.has(index));
}
