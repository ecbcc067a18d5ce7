import { Fault } from "../errors.ts";
import { isId } from "../ids.ts";

/** Reads one value of a call to the agent, which has left its JSON form (src/client/agentmessage.ts). @throws Fault bad_input naming `path` */
export interface Reader<T> {
  decode(value: unknown, path: string): T;
}

/** One field of a call; without `absent` it must be there. */
interface Param<T> extends Reader<T> {
  /** What stands for a field that is not there; undefined leaves it out. */
  readonly absent?: () => T | undefined;
}

/** What a call takes. */
export interface Params<T> extends Reader<T> {
  /** Names of the fields; one that may be left out ends in `?`. */
  readonly names: readonly string[];
  /** Without the fields that say what stands for them anyway: an older agent need not know those. */
  slim(value: T): Partial<T>;
}

/** A field that has this value where it is left out. */
export const or = <T>(reader: Reader<T>, value: T): Param<T> => ({ decode: reader.decode, absent: () => value });
/** A field whose absence says something itself. */
export const maybe = <T>(reader: Reader<T>): Param<T> => ({ decode: reader.decode, absent: () => undefined });

const isEmpty = (value: unknown): boolean => Array.isArray(value) && value.length === 0;

/** An object of these fields; unknown ones are refused. */
export function params<T extends object>(
  fields: { readonly [K in keyof T]-?: Param<Exclude<T[K], undefined>> },
): Params<T> {
  const entries = Object.entries(fields) as [string, Param<unknown>][];
  return {
    names: entries.map(([name, { absent }]) => (absent ? `${name}?` : name)),
    decode(value, path) {
      const given = value ?? {};
      if (typeof given !== "object" || Array.isArray(given) || given instanceof Uint8Array) {
        throw new Fault("bad_input", `${path} must be an object`);
      }
      for (const key of Object.keys(given)) {
        if (!Object.hasOwn(fields, key)) throw new Fault("bad_input", `${path} has an unknown field`);
      }
      const out: Record<string, unknown> = {};
      for (const [name, param] of entries) {
        const at = `${path}.${name}`;
        if (Object.hasOwn(given, name)) out[name] = param.decode((given as Record<string, unknown>)[name], at);
        else if (!param.absent) throw new Fault("bad_input", `${at} is missing`);
        else {
          const otherwise = param.absent();
          if (otherwise !== undefined) out[name] = otherwise;
        }
      }
      return out as T;
    },
    slim(value) {
      const out: Record<string, unknown> = {};
      for (const [name, field] of Object.entries(value)) {
        const param = Object.hasOwn(fields, name) ? fields[name as keyof T] : undefined;
        const otherwise = (param as Param<unknown> | undefined)?.absent?.();
        if (otherwise !== undefined && (field === otherwise || (isEmpty(field) && isEmpty(otherwise)))) continue;
        out[name] = field;
      }
      return out as Partial<T>;
    },
  };
}

/** Bytes, which have left their JSON form already; bounded by the message. */
export const data: Reader<Uint8Array> = {
  decode(value, path) {
    if (value instanceof Uint8Array) return value;
    throw new Fault("bad_input", `${path} must be bytes as {"$b64": base64url}`);
  },
};

/** An id that is compared and never followed. */
export function idOf<T extends string>(): Reader<T> {
  return {
    decode(value, path) {
      if (typeof value === "string" && isId(value)) return value as T;
      throw new Fault("bad_input", `${path} must be an id of 32 hexadecimal digits`);
    },
  };
}

/** What `inner` reads, or null. */
export function orNull<T>(inner: Reader<T>): Reader<T | null> {
  return { decode: (value, path) => (value === null ? null : inner.decode(value, path)) };
}

/** A list of at most `max` items. */
export function many<T>(inner: Reader<T>, max: number): Reader<readonly T[]> {
  return {
    decode(value, path) {
      if (!Array.isArray(value) || value.length > max) {
        throw new Fault("bad_input", `${path} must be a list of at most ${max} items`);
      }
      return value.map((item, i) => inner.decode(item, `${path}[${i}]`));
    },
  };
}

/** Fields beside `kind` of one kind. */
type FieldsOf<T extends { readonly kind: string }, K> = T extends unknown
  ? K extends T["kind"]
    ? Omit<T, "kind">
    : never
  : never;

/** An object whose `kind` says which other fields it has. */
export function byKind<T extends { readonly kind: string }>(
  cases: {
    readonly [K in T["kind"]]: Reader<FieldsOf<T, K>>;
  },
): Reader<T> {
  return {
    decode(value, path) {
      if (typeof value !== "object" || value === null || Array.isArray(value) || value instanceof Uint8Array) {
        throw new Fault("bad_input", `${path} must be an object`);
      }
      const { kind, ...rest } = value as Readonly<Record<string, unknown>>;
      if (typeof kind !== "string" || !Object.hasOwn(cases, kind)) {
        throw new Fault("bad_input", `${path}.kind must be one of ${Object.keys(cases).join(", ")}`);
      }
      const fields: Reader<object> = cases[kind as T["kind"]];
      return { ...fields.decode(rest, path), kind } as T;
    },
  };
}
