/** A reproducible source of choices: the same seed gives the same sequence. */
export interface Prng {
  /** Whole number from 0 to `below` - 1. */
  below(below: number): number;
  /** One of a list that has at least one item. */
  pick<T>(items: readonly T[]): T;
  bytes(length: number): Uint8Array;
}

/** Makes one from whole numbers (mulberry32 over a mixed seed). */
export function prng(...seeds: readonly number[]): Prng {
  let state = 0x9e3779b9;
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  for (const seed of seeds) {
    state ^= seed;
    next();
  }
  const below = (limit: number): number => next() % limit;
  return {
    below,
    pick<T>(items: readonly T[]): T {
      if (items.length === 0) throw new RangeError("nothing to pick from");
      return items[below(items.length)] as T;
    },
    bytes: (length) => Uint8Array.from({ length }, () => below(256)),
  };
}
