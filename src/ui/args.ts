import { Fault } from "../errors.ts";
import { nearest } from "../protocol/nearest.ts";

interface Described {
  readonly description: string;
  /** Works, but stands in no help text or completion. */
  readonly hidden?: boolean;
  /** What the shells complete beside fixed choices and paths; names come from a running agent alone. */
  readonly complete?: "secret" | "reference" | "profile" | "ceremony";
}

interface Flag extends Described {
  /** One letter for `-x`. */
  readonly short?: string;
}

/** What the frame asks at a terminal if the value is missing, which makes a flag required; default: the description. */
interface Asked {
  readonly ask?: string;
  /** Why an answer cannot be, after which it is asked again; null where it can. */
  readonly check?: (answer: string) => string | null;
}

export interface BooleanArg extends Flag {
  readonly type: "boolean";
}
export interface StringArg extends Flag, Asked {
  readonly type: "string";
  /** Placeholder in help: `FILE`, `NAME`, … `FILE` and `DIR` complete paths. */
  readonly hint: string;
  readonly required?: boolean;
  readonly default?: string;
}
export interface IntegerArg extends Flag {
  readonly type: "integer";
  readonly hint?: string;
  readonly min?: number;
  readonly max?: number;
  readonly default?: number;
}
/** `500ms`, `30s`, `15m`, `12h`, `7d`; a bare number is seconds. The value is milliseconds. */
export interface DurationArg extends Flag {
  readonly type: "duration";
  readonly default?: number;
}
/** RFC 3339 date or time, or a duration meaning "that long ago". The value is milliseconds since 1970. */
export interface TimeArg extends Flag {
  readonly type: "time";
}
export interface EnumArg extends Flag {
  readonly type: "enum";
  readonly options: readonly string[];
  /** Placeholder in help where the options are too many for a line. */
  readonly hint?: string;
  readonly required?: boolean;
  readonly default?: string;
}
/** Repeats collect. */
export interface ListArg extends Flag {
  readonly type: "list";
  readonly hint: string;
}
/** One word; required unless `required: false`. */
export interface PositionalArg extends Described, Asked {
  readonly type: "positional";
  readonly required?: boolean;
  readonly hint?: string;
}
/** All remaining words; must stand last. */
export interface PositionalsArg extends Described {
  readonly type: "positionals";
  readonly required?: boolean;
  readonly hint?: string;
}

export type FlagArg = BooleanArg | StringArg | IntegerArg | DurationArg | TimeArg | EnumArg | ListArg;
export type Arg = FlagArg | PositionalArg | PositionalsArg;
export type Args = Readonly<Record<string, Arg>>;

type Certain<A, V> = A extends { readonly required: false }
  ? V | null
  : A extends { readonly required: true } | { readonly ask: string } | { readonly default: string | number }
    ? V
    : V | null;

/** What a command receives for one declared argument: absent single values are null, absent flags false, lists []. */
export type ValueOf<A extends Arg> = A extends BooleanArg
  ? boolean
  : A extends ListArg | PositionalsArg
    ? readonly string[]
    : A extends PositionalArg
      ? A extends { readonly required: false }
        ? string | null
        : string
      : A extends EnumArg
        ? Certain<A, A["options"][number]>
        : A extends IntegerArg | DurationArg | TimeArg
          ? Certain<A, number>
          : Certain<A, string>;

export type Values<T extends Args> = { readonly [K in keyof T]: ValueOf<T[K]> };

/** The flag for a declared name: `clearAfter` → `clear-after`. */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** The placeholder of a positional in help texts: `keyId` → `KEY-ID`. */
export function placeholder(key: string, arg: Arg): string {
  if ("hint" in arg && arg.hint !== undefined) return arg.hint;
  if (arg.type === "integer") return "N";
  if (arg.type === "duration") return "TIME";
  if (arg.type === "time") return "WHEN";
  if (arg.type === "enum") return arg.options.join("|");
  return flagName(key).toUpperCase();
}

/** True for arguments given as `--name`. */
export function isFlag(arg: Arg): arg is FlagArg {
  return arg.type !== "positional" && arg.type !== "positionals";
}

/** True for single values that must be there: asked for, or the command exits 2. */
export function isRequired(arg: Arg): boolean {
  if (arg.type === "positional") return arg.required !== false;
  if (arg.type === "string") return arg.required ?? arg.ask !== undefined;
  return "required" in arg && arg.required === true;
}

/** True for flags that are followed by a value. */
export function takesValue(arg: Arg): boolean {
  return isFlag(arg) && arg.type !== "boolean";
}

const UNITS_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Milliseconds of `500ms`, `30s`, `15m`, `12h`, `7d` or bare seconds; null for anything else. */
export function parseDuration(text: string): number | null {
  const match = /^(\d{1,9})(ms|s|m|h|d)?$/.exec(text);
  if (match === null) return null;
  const unit = (match[2] ?? "s") as keyof typeof UNITS_MS;
  return Number(match[1]) * UNITS_MS[unit];
}

const RFC3339 = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2}))?$/;

/** Milliseconds since 1970 of an RFC 3339 date or time, or of a duration before `nowMs`; null for anything else. */
export function parseTime(text: string, nowMs: number): number | null {
  const ago = parseDuration(text);
  if (ago !== null) return nowMs - ago;
  if (!RFC3339.test(text)) return null;
  const at = Date.parse(text);
  // Date.parse accepts 31 February; the day must survive a round trip in its own offset.
  const day = Date.parse(`${text.slice(0, 10)}T00:00:00Z`);
  if (Number.isNaN(at) || Number.isNaN(day) || new Date(day).toISOString().slice(0, 10) !== text.slice(0, 10))
    return null;
  return at;
}

/**
 * Converts the text of one flag to its value.
 *
 * @throws Fault usage
 */
export function convert(label: string, arg: FlagArg, text: string, nowMs: number): string | number {
  switch (arg.type) {
    case "integer": {
      const value = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
      const { min = 0, max = Number.MAX_SAFE_INTEGER } = arg;
      if (Number.isNaN(value) || value < min || value > max) {
        const range = arg.max === undefined ? `from ${min}` : `from ${min} to ${max}`;
        throw new Fault("usage", `${label} takes a whole number ${range}, not "${text}"`);
      }
      return value;
    }
    case "duration": {
      const value = parseDuration(text);
      if (value === null) throw new Fault("usage", `${label} takes a duration like 30s, 15m or 12h, not "${text}"`);
      return value;
    }
    case "time": {
      const value = parseTime(text, nowMs);
      if (value === null) {
        throw new Fault(
          "usage",
          `${label} takes a time like 2026-01-31, 2026-01-31T12:00:00Z or 2h (ago), not "${text}"`,
        );
      }
      return value;
    }
    case "enum":
      if (!arg.options.includes(text)) {
        const near = nearest(text, arg.options);
        const guess = near === null ? "" : `; did you mean "${near}"?`;
        throw new Fault("usage", `${label} takes one of ${arg.options.join(", ")}, not "${text}"${guess}`);
      }
      return text;
    default:
      return text;
  }
}
