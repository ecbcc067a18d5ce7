/** How a test run ended. */
export interface Tally {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

function attribute(tag: string, name: string): number {
  const value = Number(new RegExp(`\\s${name}="(\\d+)"`).exec(tag)?.[1]);
  return Number.isSafeInteger(value) ? value : 0;
}

/**
 * Reads the totals of a JUnit report as `bun test` writes it.
 *
 * @param report The XML text; empty if the run died before it wrote one.
 * @param succeeded False if the run itself failed: then at least one failure is counted, for a file that cannot be
 *   loaded is none of the report's test cases.
 * @param noSkip Counts skipped tests as failed ones.
 */
export function tally(report: string, succeeded: boolean, noSkip: boolean): Tally {
  const tag = /<testsuites\s[^>]*>/.exec(report)?.[0] ?? "";
  const skipped = attribute(tag, "skipped");
  const reported = attribute(tag, "failures") + attribute(tag, "errors");
  const passed = Math.max(0, attribute(tag, "tests") - reported - skipped);
  const ran = succeeded && passed + reported > 0;
  const failed = (ran ? reported : Math.max(1, reported)) + (noSkip ? skipped : 0);
  return { passed, failed, skipped: noSkip ? 0 : skipped };
}

/** The line that closes a test run: `N passed, N failed`, with `, N skipped` if there are any. */
export function closingLine({ passed, failed, skipped }: Tally): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
}

/** Lines of a log that tell why a test failed: so many before the one that names it. */
const CAUSE_LINES = 16;

/** Every failed test of a run's log with what stands before it, for the end of a long report. */
export function failures(log: string): readonly string[] {
  const lines = log.split("\n");
  return lines.flatMap((line, at) => {
    if (!/^\(fail\)|^# Unhandled error/.test(line)) return [];
    const earlier = lines.slice(Math.max(0, at - CAUSE_LINES), at);
    const own = earlier.slice(earlier.findLastIndex((one) => /^\((pass|fail|skip)\)/.test(one)) + 1);
    return [[...own, line].join("\n")];
  });
}
