/**
 * Which counters of a `hotp` and steps of a `totp` may be handed out and accepted (docs/protocol.md §10.8). A step is
 * the counter of its code (RFC 6238 §4.2), so both are numbers that only go up, whatever a clock does.
 */

/** What decides beside the kind: where the counters of one stored key stand. */
export interface OtpPosition {
  /** Lowest counter or step that was never handed out. */
  readonly next: number;
  /** Lowest one that an authenticator's code may have. */
  readonly floor: number;
  /** Steps from `floor` on whose code an authenticator has used up, ascending; none of a `hotp`. */
  readonly used: readonly number[];
  /** Codes may have been accepted that this position does not know of: of a `hotp`, until it is found again. */
  readonly unsure: boolean;
}

/** A stored one-time password, as far as counters go; period in seconds. */
export type OtpKind = { readonly kind: "totp"; readonly period: number } | { readonly kind: "hotp" };

/** Counters that a code of an authenticator may have run ahead (RFC 4226 §7.4, E.4). */
export const LOOK_AHEAD = 10;
/** Counters among which two codes in a row are searched (RFC 4226 §7.4). */
export const RESYNC_SPAN = 1_000;
/** By how much a counter is moved ahead when the server may have forgotten some. */
export const RESTORE_JUMP = 1_000;
/** Steps of a clock's difference that are allowed, both ways (RFC 6238 §5.2, §6). */
export const STEP_DRIFT = 1;
/** Counters are below this, so that a jump and a window above them stay whole numbers. */
export const COUNTER_MAX = Number.MAX_SAFE_INTEGER - 1_000_000;

/** A key of which no code was ever handed out or accepted. */
export const startingAt = (counter: number): OtpPosition => ({
  next: counter,
  floor: counter,
  used: [],
  unsure: false,
});

/** The step of a time. */
export const stepAt = (nowMs: number, period: number): number => Math.floor(nowMs / (period * 1_000));

/** Either a counter that nobody was given before, or the time from which there is one again; null for never. */
export type Allocation =
  | { readonly counter: number; readonly position: OtpPosition }
  | { readonly counter: null; readonly fromMs: number | null };

/** The next counter, or the step of now, or the one after it (RFC 6238 §5.2: one code a step). */
export function allocate(key: OtpKind, at: OtpPosition, nowMs: number): Allocation {
  if (key.kind === "hotp") return at.next > COUNTER_MAX ? { counter: null, fromMs: null } : given(at, at.next);
  const now = stepAt(nowMs, key.period);
  const step = Math.max(at.next, now);
  // the step before it must have begun
  return step > now + 1 ? { counter: null, fromMs: (step - 1) * key.period * 1_000 } : given(at, step);
}

const given = (at: OtpPosition, counter: number): Allocation => ({ counter, position: { ...at, next: counter + 1 } });

/**
 * When the code of the next step begins, where it is all that is left to hand out now: who has that of this step leaves
 * it to the others until then, or one requester that asks at every beginning would have them all. Null where the step
 * of now is free, where nothing is, and of a `hotp`.
 */
export function aheadUntil(key: OtpKind, at: OtpPosition, nowMs: number): number | null {
  if (key.kind === "hotp") return null;
  const now = stepAt(nowMs, key.period);
  return at.next === now + 1 ? at.next * key.period * 1_000 : null;
}

/** When a code that is handed out now ceases to be good: of a step, with one more for the other side's clock. */
export function expiryOf(key: OtpKind, counter: number, nowMs: number, handoutMs: number): number {
  return key.kind === "hotp" ? nowMs + handoutMs : (counter + 1 + STEP_DRIFT) * key.period * 1_000;
}

/** Counters among which a code is searched: `span` of them from `from` on. */
export interface Window {
  readonly from: number;
  readonly span: number;
}

/** Where an authenticator's code may lie now. */
export function windowOf(key: OtpKind, at: OtpPosition, nowMs: number): Window {
  if (key.kind === "hotp") return { from: at.floor, span: at.unsure ? 0 : LOOK_AHEAD };
  const now = stepAt(nowMs, key.period);
  const from = Math.max(at.floor, now - STEP_DRIFT);
  return { from, span: Math.max(0, now + STEP_DRIFT + 1 - from) };
}

/** Where the first of two codes in a row may lie; nowhere for a `totp`, whose steps the clock finds. */
export function resyncWindow(key: OtpKind, at: OtpPosition): Window {
  return { from: at.floor, span: key.kind === "hotp" ? RESYNC_SPAN : 0 };
}

/** The position after an authenticator's code was accepted; null if its counter is used up or outside the window. */
export function accept(key: OtpKind, at: OtpPosition, counter: number, nowMs: number): OtpPosition | null {
  const { from, span } = windowOf(key, at, nowMs);
  if (counter < from || counter >= from + span || at.used.includes(counter)) return null;
  return key.kind === "hotp" ? passed(at, counter) : withUsed(key, at, counter, nowMs);
}

/** The position after two codes in a row, of `counter` and the one after it; null outside the window. */
export function resync(key: OtpKind, at: OtpPosition, counter: number): OtpPosition | null {
  const { from, span } = resyncWindow(key, at);
  return counter < from || counter >= from + span ? null : passed(at, counter + 1);
}

const passed = (at: OtpPosition, counter: number): OtpPosition => ({
  next: Math.max(at.next, counter + 1),
  floor: counter + 1,
  used: [],
  unsure: false,
});

/** Remembers that a step's code was used, and forgets steps that are out of every later window. */
export function withUsed(
  key: OtpKind & { readonly kind: "totp" },
  at: OtpPosition,
  step: number,
  nowMs: number,
): OtpPosition {
  // what is forgotten lies below the floor, so that a clock that goes back accepts none of it again
  const floor = Math.max(at.floor, stepAt(nowMs, key.period) - STEP_DRIFT);
  const used = [...new Set([...at.used, step])].filter((one) => one >= floor).sort((a, b) => a - b);
  return { ...at, floor, used, next: Math.max(at.next, step + 1) };
}

/** The position of a key whose server came back from a backup: nothing that may be used is given or taken again. */
export function afterRestore(key: OtpKind, at: OtpPosition, nowMs: number): OtpPosition {
  if (key.kind === "hotp") return { ...at, next: Math.min(at.next + RESTORE_JUMP, COUNTER_MAX + 1), unsure: true };
  return freshSteps(key, at, nowMs);
}

/** No step is handed out or accepted that another server, or this one before, may have known. */
export function freshSteps(key: OtpKind & { readonly kind: "totp" }, at: OtpPosition, nowMs: number): OtpPosition {
  const step = stepAt(nowMs, key.period) + STEP_DRIFT + 1;
  return { next: Math.max(at.next, step), floor: Math.max(at.floor, step), used: [], unsure: false };
}

/** The position once a requester has the key itself: its authenticator goes on after everything handed out before. */
export function provisioned(at: OtpPosition): OtpPosition {
  return { next: at.next, floor: Math.max(at.floor, at.next), used: [], unsure: false };
}
