/** The member of `names` that is nearest to `text`, or null when none is near enough to be meant. */
export function nearest(text: string, names: readonly string[]): string | null {
  const best = within(text, names, Math.max(1, Math.floor(text.length / 2)));
  return best ?? names.find((name) => text.length > 1 && name.startsWith(text)) ?? null;
}

/**
 * The secret's name that somebody may have meant: the same in other letter case, one that ends in `/given`, or one
 * within a typing error or two. Null when none is near.
 */
export function nearestName(given: string, names: Iterable<string>): string | null {
  const wanted = given.toLowerCase();
  const all = [...names];
  return (
    all.find((name) => name.toLowerCase() === wanted) ??
    all.find((name) => name.toLowerCase().endsWith(`/${wanted}`)) ??
    (given.length < 2 ? null : within(given, all, Math.max(1, Math.floor(given.length / 4))))
  );
}

function within(text: string, names: readonly string[], most: number): string | null {
  let best: string | null = null;
  let bestDistance = most + 0.5;
  for (const name of names) {
    if (Math.abs(name.length - text.length) > most) continue;
    const distance = editDistance(text, name);
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let cost = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
      );
      if (a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] ?? 0;
}
