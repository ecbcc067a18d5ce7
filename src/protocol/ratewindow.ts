/** How many things happened in one part of a window of time. */
export interface RateSlot {
  /** Beginning of the part, milliseconds. */
  readonly atMs: number;
  readonly count: number;
}

/** Parts into which a window is divided. */
const RATE_PARTS = 12;
/** Slots that a window keeps at most: all its parts, and the one that has not left yet. */
export const RATE_SLOTS_MAX = RATE_PARTS + 1;

/**
 * Counts one more event if fewer than `max` happened in the window that ends now: in any stretch of `windowMs` there
 * are at most `max`. Events are forgotten by parts, up to a twelfth of the window late.
 *
 * @returns The slots with it, or how long to wait until there is room.
 */
export function countIn(
  slots: readonly RateSlot[],
  nowMs: number,
  windowMs: number,
  max: number,
): { readonly slots: readonly RateSlot[] } | { readonly waitMs: number } {
  const part = Math.max(1, Math.ceil(windowMs / RATE_PARTS));
  const newest = slots.at(-1)?.atMs ?? 0;
  // a clock that goes back adds to the newest part
  const atMs = Math.max(newest, nowMs - (nowMs % part));
  const kept = slots.filter((slot) => slot.atMs + part + windowMs > nowMs).slice(-RATE_SLOTS_MAX);
  const total = kept.reduce((sum, { count }) => sum + count, 0);
  if (total >= max) {
    let left = total;
    for (const slot of kept) {
      left -= slot.count;
      if (left < max) return { waitMs: Math.max(1, slot.atMs + part + windowMs - nowMs) };
    }
    return { waitMs: windowMs };
  }
  const last = kept.at(-1);
  if (last?.atMs === atMs) return { slots: [...kept.slice(0, -1), { atMs, count: last.count + 1 }] };
  return { slots: [...kept, { atMs, count: 1 }].slice(-RATE_SLOTS_MAX) };
}
