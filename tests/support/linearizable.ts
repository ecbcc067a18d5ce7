/**
 * Whether a history of compare-and-swaps and reads of one register can have happened one after another, each between
 * its call and its return. Every swap writes a value of its own, so that the swaps that took place are one chain, and a
 * value says where in it an operation stands.
 */

interface Timed {
  /** On one clock for all processes. */
  readonly calledAt: bigint;
  /** Null where nothing came back: it may have happened at any time after the call, or never. */
  readonly returnedAt: bigint | null;
}

export type Operation =
  | (Timed & { readonly kind: "read"; readonly value: string })
  /** `swapped` null: not known. */
  | (Timed & { readonly kind: "swap"; readonly from: string; readonly to: string; readonly swapped: boolean | null });

type Swap = Extract<Operation, { kind: "swap" }>;

const described = (operation: Operation): string =>
  operation.kind === "read" ? `read ${operation.value}` : `swap ${operation.from} -> ${operation.to}`;

/** The chain of values from the first to the last, through swaps that took place or may have. */
function chainOf(first: string, last: string, swaps: readonly Swap[]): readonly string[] | undefined {
  const into = new Map(swaps.filter(({ swapped }) => swapped !== false).map((swap) => [swap.to, swap.from]));
  const chain = [last];
  for (let at = last; at !== first; ) {
    const before = into.get(at);
    if (before === undefined || chain.length > into.size) return undefined;
    chain.unshift(before);
    at = before;
  }
  return chain;
}

/**
 * What is wrong with a history, in words; empty for one that is linearizable.
 *
 * @param first The value before it.
 * @param last The value that was found after all of it.
 */
export function violations(first: string, last: string, history: readonly Operation[]): readonly string[] {
  const swaps = history.filter((operation): operation is Swap => operation.kind === "swap");
  const chain = chainOf(first, last, swaps);
  if (!chain) return [`no chain of swaps leads from ${first} to ${last}`];
  const place = new Map(chain.map((value, index) => [value, index]));
  const by = new Map(swaps.map((swap) => [swap.to, swap]));
  const wrong: string[] = [];

  /** Index of the chain at which an operation that took effect stands. */
  const stands = new Map<Operation, number>();
  for (const operation of history) {
    if (operation.kind === "read") {
      const at = place.get(operation.value);
      if (at === undefined) wrong.push(`${described(operation)}: the value was never there`);
      else stands.set(operation, at);
    } else if (operation.swapped === true) {
      const at = place.get(operation.to);
      if (at === undefined || chain[at - 1] !== operation.from)
        wrong.push(`${described(operation)}: acknowledged, and lost`);
      else stands.set(operation, at);
    }
  }
  for (const [operation, at] of stands) {
    // nothing that ended before this began may stand after it
    for (const [other, otherAt] of stands) {
      if (other.returnedAt !== null && other.returnedAt < operation.calledAt && otherAt > at) {
        wrong.push(`${described(operation)}: older than ${described(other)}, which came before`);
      }
    }
    // nor may it show a value whose swap had not begun
    const source = by.get(chain[at] ?? "");
    if (source && operation.returnedAt !== null && source.calledAt > operation.returnedAt) {
      wrong.push(`${described(operation)}: of a swap that came later`);
    }
  }
  for (const swap of swaps) {
    if (swap.swapped !== false || swap.returnedAt === null) continue;
    const at = place.get(swap.from);
    if (at === undefined) continue;
    const next = by.get(chain[at + 1] ?? "");
    const heldBefore = at === 0 || (by.get(chain[at] ?? "")?.returnedAt ?? swap.calledAt) < swap.calledAt;
    const heldAfter = next === undefined || next.calledAt > swap.returnedAt;
    if (heldBefore && heldAfter) wrong.push(`${described(swap)}: refused, though the value was there all the time`);
  }
  return wrong;
}
