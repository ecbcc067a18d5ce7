/** What a line of the connector's log may hold: nothing secret, and nothing of what a request is about. */
export interface LogFields {
  readonly event: string;
  readonly requestId?: string;
  readonly itemId?: string;
  readonly task?: string;
  readonly report?: string;
  readonly code?: string;
  readonly why?: string;
  readonly count?: number;
  readonly port?: number;
  readonly ms?: number;
}

export type LogLevel = "error" | "warn" | "info" | "debug";

/** One JSON line an event. */
export interface ConnectorLog {
  write(level: LogLevel, fields: LogFields): void;
}

const ORDER: Readonly<Record<LogLevel, number>> = { error: 0, warn: 1, info: 2, debug: 3 };
const UNPRINTABLE = /[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu;
const TEXT_MAX = 300;

/**
 * Makes the log of a connector.
 *
 * @param write Takes each line with its newline; its failure stops nothing.
 */
export function createConnectorLog(level: LogLevel, write: (line: string) => void, now: () => number): ConnectorLog {
  return {
    write(at, fields) {
      if (ORDER[at] > ORDER[level]) return;
      const shown = Object.entries(fields).map(([name, value]) => [
        name,
        typeof value === "string" ? value.replace(UNPRINTABLE, "?").slice(0, TEXT_MAX) : value,
      ]);
      try {
        write(`${JSON.stringify({ at: new Date(now()).toISOString(), level: at, ...Object.fromEntries(shown) })}\n`);
      } catch {
        // a closed or full stream is no reason to stop
      }
    },
  };
}

/** Says nothing. */
export const silentLog: ConnectorLog = { write: () => undefined };
