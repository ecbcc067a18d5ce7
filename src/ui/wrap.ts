/**
 * Breaks text at its spaces so that no line is wider than `width` columns (at least 20); its own line ends and the
 * indent of each line stay. A word that is wider stays whole: it is a command or a path to be copied.
 */
export function wrapped(text: string, width: number): readonly string[] {
  const limit = Math.max(20, width);
  return text.split("\n").flatMap((line) => {
    if (Bun.stringWidth(line) <= limit) return [line];
    const indent = /^ */.exec(line)?.[0] ?? "";
    const lines: string[] = [];
    let now = indent;
    for (const word of line.trim().split(/ +/)) {
      if (now === indent) now += word;
      else if (Bun.stringWidth(now) + 1 + Bun.stringWidth(word) <= limit) now += ` ${word}`;
      else {
        lines.push(now);
        now = indent + word;
      }
    }
    return [...lines, now];
  });
}

/** Columns for running text: at most 100 of the terminal's; without a terminal lines are not broken. */
export function textWidth(width: number | null): number {
  return width === null || width <= 0 ? Number.POSITIVE_INFINITY : Math.min(width, 100);
}
