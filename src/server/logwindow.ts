import type { LogFields, LogLevel, ServerLog } from "./log.ts";

/** Milliseconds of a window. */
const WINDOW_MS = 10_000;
/** Lines of one kind that a window shows whole. */
const LINES = 1_000;

interface Kind {
  readonly level: LogLevel;
  readonly fields: LogFields;
  lines: number;
  hidden: number;
}

/** A log whose lines are bounded by time, whatever is asked of the server. */
export interface WindowedLog extends ServerLog {
  /** Writes the counts of the running window. */
  flush(): void;
}

/**
 * Bounds a log: of each kind of line (event, operation, status, code) a window shows the first {@link LINES}; the rest
 * become one line with their `count` when it ends.
 *
 * @param now Milliseconds of a clock that only runs forward.
 */
export function windowedLog(
  log: ServerLog,
  now: () => number,
  limits = { windowMs: WINDOW_MS, lines: LINES },
): WindowedLog {
  let kinds = new Map<string, Kind>();
  let startedAt = now();
  let timer: ReturnType<typeof setTimeout> | undefined;

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    const over = kinds;
    kinds = new Map();
    startedAt = now();
    for (const { level, fields, hidden } of over.values()) {
      if (hidden > 0) log.write(level, { ...fields, count: hidden });
    }
  }

  return {
    flush,
    write(level, fields) {
      if (now() - startedAt >= limits.windowMs) flush();
      const { event, op, status, code } = fields;
      const name = JSON.stringify([level, event, op, status, code]);
      const kind = kinds.get(name);
      if (!kind) {
        const same = { event, ...(op !== undefined && { op }), ...(status !== undefined && { status }) };
        kinds.set(name, { level, fields: { ...same, ...(code !== undefined && { code }) }, lines: 1, hidden: 0 });
      } else if (kind.lines < limits.lines) {
        kind.lines += 1;
      } else {
        kind.hidden += 1;
        // the count must not wait for the next line
        timer ??= setTimeout(flush, limits.windowMs).unref();
        return;
      }
      log.write(level, fields);
    },
  };
}
