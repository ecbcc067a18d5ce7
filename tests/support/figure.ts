/** One line of `bun run soak`: what was run, how often, and what went wrong. */
export interface Figure {
  readonly name: string;
  /** What was run, in words. */
  readonly ran: string;
  /** What was counted, with its number: `1000 kills`. */
  readonly counts: readonly string[];
  readonly lost: number;
  readonly corrupt: number;
  /** What makes it fail beside losses, in words; empty if nothing does. */
  readonly wrong: readonly string[];
  /** Why it was not run at all, if so. */
  readonly notRun?: string;
}

/** True when nothing was lost, damaged or otherwise wrong. */
export function figureHolds(figure: Figure): boolean {
  return figure.lost === 0 && figure.corrupt === 0 && figure.wrong.length === 0;
}

/** The figure as one plain line. */
export function figureLine(figure: Figure): string {
  if (figure.notRun !== undefined) return `${figure.name}: not run (${figure.notRun})`;
  const parts = [`${figure.name}: ${figure.ran}`, ...figure.counts, `${figure.lost} lost`, `${figure.corrupt} corrupt`];
  const verdict = figureHolds(figure) ? "ok" : "FAILED";
  return `${[...parts, verdict].join(", ")}${figure.wrong.length === 0 ? "" : ` (${figure.wrong.slice(0, 3).join("; ")})`}`;
}
