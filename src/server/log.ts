import { createConsola } from "consola";
import { Fault } from "../errors.ts";

/** What a log line may hold; nothing of an account, a request's content or an address. */
export interface LogFields {
  readonly event: string;
  readonly op?: string;
  readonly status?: number;
  readonly ms?: number;
  readonly code?: string;
  /** File, line and column in keyhold's own code. */
  readonly place?: string;
  readonly port?: number;
  readonly pid?: number;
  readonly count?: number;
  readonly version?: string;
}

export type LogLevel = "error" | "warn" | "info" | "debug";

/** The server's log: one JSON line an event. */
export interface ServerLog {
  write(level: LogLevel, fields: LogFields): void;
}

const LEVELS: Readonly<Record<LogLevel, number>> = { error: 0, warn: 1, info: 3, debug: 4 };
const TEXT_FIELDS = ["event", "op", "code", "version"] as const;
const NUMBER_FIELDS = ["status", "ms", "port", "pid", "count"] as const;
const WORD = /^[A-Za-z0-9._:+-]{1,64}$/;
const PLACE = /^[A-Za-z0-9._-]{1,48}:\d{1,8}:\d{1,8}$/;
const FOREIGN = /node_modules|\((?:native|node:|bun:)/;

/** Only listed fields of the listed form come through, whatever was passed. */
function allowed(fields: unknown): Record<string, string | number> {
  const out: Record<string, string | number> = {};
  if (typeof fields !== "object" || fields === null) return out;
  const from = fields as Record<string, unknown>;
  for (const name of TEXT_FIELDS) {
    const value = from[name];
    if (typeof value === "string" && WORD.test(value)) out[name] = value;
  }
  const place = from["place"];
  if (typeof place === "string" && PLACE.test(place)) out["place"] = place;
  for (const name of NUMBER_FIELDS) {
    const value = from[name];
    if (typeof value === "number" && Number.isFinite(value)) out[name] = Math.round(value * 100) / 100;
  }
  return out;
}

/** Where an error arose: the topmost frame outside libraries, without its directory. */
function placeOf({ stack = "", message }: Error): string | undefined {
  // the message comes first and may look like anything
  const after = stack.indexOf(message);
  const frames = after < 0 ? [] : stack.slice(after + message.length).split("\n");
  const own = frames.find((frame) => /^\s+at /.test(frame) && !FOREIGN.test(frame));
  return own === undefined ? undefined : /([^/\\(\s]+:\d+:\d+)\)?$/.exec(own)?.[1];
}

/** The log line of an unexpected failure: its kind and place, never its message. */
export function faultFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { event: "fault", code: "unknown" };
  const code = error instanceof Fault ? error.code : error.name;
  const place = placeOf(error);
  return place === undefined ? { event: "fault", code } : { event: "fault", code, place };
}

/**
 * Makes the server's log.
 *
 * @param write Takes each line with its newline; stderr by default. Its failure never stops the server.
 */
export function createLog(
  level: LogLevel = "info",
  write: (line: string) => void = (line) => process.stderr.write(line),
): ServerLog {
  const consola = createConsola({
    level: LEVELS[level],
    throttle: 0,
    reporters: [
      {
        log: ({ date, type, args }) => {
          try {
            write(`${JSON.stringify({ at: date.toISOString(), level: type, ...allowed(args[0]) })}\n`);
          } catch {
            // a closed or full stderr is no reason to stop
          }
        },
      },
    ],
  });
  return {
    write: (at, fields) => {
      // raw keeps consola from reading the fields as a message of its own
      consola[at].raw(allowed(fields));
    },
  };
}

/** Says nothing; for tests and for commands that open the server's parts. */
export const silentLog: ServerLog = { write: () => undefined };
