import { Fault } from "../../errors.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { FEDERATED_TYPES } from "../../protocol/federation/kinds.ts";
import type { PolicyDocument, PolicyRule, PolicyTree, TimeCondition } from "../../protocol/federation/policy.ts";
import { POLICY_ACTIONS } from "../../protocol/federation/policyaction.ts";
import { checkDocument } from "../../protocol/federation/policychain.ts";

import { bool, type Codec, type Json, list, oneOf, recursive, text, uint } from "../codec.ts";
import { POLICY_MAX, policyDocument } from "./records.ts";

/** What people write for `policy set`, and what is printed back (docs/policies.md). */

/** What a file does not say: where the link stands in its chain. */
export type PolicyPlace = Pick<PolicyDocument, "federationId" | "version" | "previous" | "createdAtMs">;

/** Bytes of a policy's file at most. */
export const POLICY_FILE_MAX = 256 * 1_024;
const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;
const EVERY_DAY = DAYS.map((_, day) => day);
const HOUR_MINUTES = 60;
const DAY_MINUTES = 1_440;
const ENGINE_MS = 5_000;

function bad(path: string, what: string): never {
  throw new Fault("bad_input", `${path || "the policy"} must be ${what}`);
}

/** A duration such as `24h`. */
const duration: Codec<number> = {
  decode(value, path) {
    const [, digits = "", unit = ""] =
      (typeof value === "string" && /^([1-9][0-9]{0,12})(ms|s|m|h|d)$/.exec(value)) || [];
    const ms = unit in UNITS ? Number(digits) * UNITS[unit as keyof typeof UNITS] : 0;
    return ms > 0 && Number.isSafeInteger(ms) ? ms : bad(path, "a duration like 90s, 15m, 24h or 7d");
  },
  encode(ms) {
    const units = Object.entries(UNITS).toReversed();
    // one day is said in hours
    const [unit, size] = units.find(([, one]) => ms % one === 0 && !(one === UNITS.d && ms === one)) ?? ["ms", 1];
    return `${ms / size}${unit}`;
  },
};

/** 32 bytes as 64 hexadecimal digits. */
const key: Codec<Uint8Array> = {
  decode: (value, path) =>
    typeof value === "string" && /^[0-9a-f]{64}$/.test(value)
      ? Uint8Array.fromHex(value)
      : bad(path, "a key of 64 hexadecimal digits (keyhold federation show prints an approver's)"),
  encode: (value) => value.toHex(),
};

/** A span of the UTC day such as `09:00-17:00`. */
const hours: Codec<Pick<TimeCondition, "fromMinute" | "toMinute">> = {
  decode(value, path) {
    const what = "hours of the day in UTC like 09:00-17:00";
    const found = typeof value === "string" && /^(\d\d):([0-5]\d)-(\d\d):([0-5]\d)$/.exec(value);
    if (!found) return bad(path, what);
    const [fromHour = 0, fromMinutes = 0, toHour = 0, toMinutes = 0] = found.slice(1).map(Number);
    const [fromMinute, toMinute] = [fromHour * HOUR_MINUTES + fromMinutes, toHour * HOUR_MINUTES + toMinutes];
    return fromMinute < DAY_MINUTES && toMinute <= DAY_MINUTES && toMinute > 0 && fromMinute !== toMinute
      ? { fromMinute, toMinute }
      : bad(path, what);
  },
  encode({ fromMinute, toMinute }) {
    const shown = (minute: number) =>
      [Math.floor(minute / HOUR_MINUTES), minute % HOUR_MINUTES].map((n) => String(n).padStart(2, "0")).join(":");
    return `${shown(fromMinute)}-${shown(toMinute)}`;
  },
};

const day: Codec<number> = {
  decode: (value, path) => DAYS.indexOf(oneOf(DAYS).decode(value, path)),
  encode: (value) => DAYS[value] ?? "",
};

interface Field<T> {
  readonly codec: Codec<T>;
  /** What holds where the field is left out; without it the field is needed. */
  readonly otherwise?: T;
}

type Fields = { readonly [name: string]: Field<unknown> };
type Read<F extends Fields> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

const needed = <T>(codec: Codec<T>): Field<T> => ({ codec });
const optional = <T>(codec: Codec<T>, otherwise: T): Field<T> => ({ codec, otherwise });

/** An object in which fields may be left out; unknown ones are refused by name. */
function record<F extends Fields>(fields: F): Codec<Read<F>> {
  const known = Object.keys(fields).join(", ");
  return {
    decode(value, path) {
      if (typeof value !== "object" || value === null || Array.isArray(value))
        return bad(path, `an object of ${known}`);
      const from = value as Readonly<Record<string, unknown>>;
      const strange = Object.keys(from).find((name) => !Object.hasOwn(fields, name));
      if (strange !== undefined) {
        const shown = /^[\w.-]{1,40}$/.test(strange) ? strange : "another name";
        throw new Fault("bad_input", `${path || "the policy"} has the unknown field ${shown}`, {
          hint: `known: ${known}`,
        });
      }
      const read = Object.entries(fields).map(([name, { codec, otherwise }]) => {
        const at = path ? `${path}.${name}` : name;
        if (Object.hasOwn(from, name)) return [name, codec.decode(from[name], at)];
        if (otherwise === undefined) throw new Fault("bad_input", `${at} is missing`);
        return [name, otherwise];
      });
      return Object.fromEntries(read) as Read<F>;
    },
    encode(value) {
      const shown = Object.entries(fields).flatMap(([name, { codec, otherwise }]): [string, Json][] => {
        const json = codec.encode(value[name]);
        const preset = otherwise === undefined || otherwise === null ? otherwise : codec.encode(otherwise);
        return preset !== undefined && JSON.stringify(json) === JSON.stringify(preset) ? [] : [[name, json]];
      });
      return Object.fromEntries(shown);
    },
  };
}

/** A field that may be left out, which then is null. */
function absent<T>(inner: Codec<T>): Field<T | null> {
  const codec: Codec<T | null> = {
    decode: (value, path) => inner.decode(value, path),
    encode: (value) => (value === null ? null : inner.encode(value)),
  };
  return { codec, otherwise: null };
}

const name = text({ min: 1, max: 64, pattern: /^[a-z0-9][a-z0-9._-]*$/ });
const count = uint(0xffff_ffff, 1);

/** `"alice"`, or an object that its one telling field names. */
const tree: Codec<PolicyTree> = recursive<PolicyTree>(POLICY_MAX.depth, (self) => {
  const of = list(self, { min: 1, max: POLICY_MAX.branches });
  const group = record({ group: needed(name), atLeast: needed(uint(POLICY_MAX.approvers, 1)) });
  const threshold = record({ threshold: needed(uint(POLICY_MAX.branches, 1)), of: needed(of) });
  const forms = { all: record({ all: needed(of) }), any: record({ any: needed(of) }) };
  const remote = record({ remote: needed(name) });
  const requester = record({ requester: needed(bool) });
  return {
    decode(value, path) {
      if (typeof value === "string") return { kind: "approver", name: name.decode(value, path) };
      const has = (field: string) => typeof value === "object" && value !== null && Object.hasOwn(value, field);
      if (has("all")) return { kind: "all", of: forms.all.decode(value, path).all };
      if (has("any")) return { kind: "any", of: forms.any.decode(value, path).any };
      if (has("threshold")) {
        const found = threshold.decode(value, path);
        return { kind: "threshold", atLeast: found.threshold, of: found.of };
      }
      if (has("group")) {
        const found = group.decode(value, path);
        return { kind: "group", name: found.group, atLeast: found.atLeast };
      }
      if (has("remote")) return { kind: "remote", name: remote.decode(value, path).remote };
      if (has("requester") && requester.decode(value, path).requester) return { kind: "requester" };
      return bad(
        path,
        'an approver\'s name, or an object with all, any, threshold, group, remote or "requester": true',
      );
    },
    encode(node) {
      switch (node.kind) {
        case "approver":
          return node.name;
        case "group":
          return { group: node.name, atLeast: node.atLeast };
        case "remote":
          return { remote: node.name };
        case "requester":
          return { requester: true };
        case "all":
          return { all: of.encode(node.of) };
        case "any":
          return { any: of.encode(node.of) };
        case "threshold":
          return { threshold: node.atLeast, of: of.encode(node.of) };
      }
    },
  };
});

const time = record({
  hours: optional(hours, { fromMinute: 0, toMinute: DAY_MINUTES }),
  days: optional(list(day, { min: 1, max: 7 }), EVERY_DAY),
});

const rule = record({
  name: needed(name),
  effect: needed(oneOf(["allow", "deny"])),
  actions: optional(list(oneOf(POLICY_ACTIONS), { max: POLICY_ACTIONS.length }), []),
  types: optional(list(oneOf(FEDERATED_TYPES), { max: FEDERATED_TYPES.length }), []),
  amount: absent(
    record({
      unit: needed(text({ min: 1, max: 64, pattern: /^[A-Za-z0-9._-]+$/ })),
      max: needed(text({ min: 1, max: 40, pattern: /^(0|[1-9][0-9]*)$/ })),
    }),
  ),
  recipients: absent(list(text({ min: 1, max: 128 }), { min: 1, max: 64 })),
  rate: absent(record({ count: needed(count), per: needed(duration) })),
  time: absent(time),
  require: absent(tree),
  requesterMayApprove: optional(bool, false),
  votesLast: optional(duration, DEFAULTS.approvalMs),
});

const file = record({
  name: needed(name),
  approvers: needed(list(record({ name: needed(name), key: needed(key) }), { max: POLICY_MAX.approvers })),
  groups: optional(
    list(record({ name: needed(name), members: needed(list(name, { min: 1, max: POLICY_MAX.approvers })) }), {
      max: POLICY_MAX.groups,
    }),
    [],
  ),
  remotes: optional(
    list(
      record({
        name: needed(name),
        url: needed(text({ min: 9, max: 512, pattern: /^https:\/\/[^\s]+$/ })),
        key: needed(key),
        timeout: optional(duration, ENGINE_MS),
      }),
      { max: POLICY_MAX.remotes },
    ),
    [],
  ),
  admins: needed(tree),
  rules: needed(list(rule, { max: POLICY_MAX.rules })),
});

/**
 * Takes a policy as people write it, already parsed as JSON.
 *
 * @param place Where the link stands in its chain.
 * @throws Fault bad_input naming the place in the file, or what cannot be.
 */
export function policyFromJson(value: unknown, place: PolicyPlace): PolicyDocument {
  const read = file.decode(value, "");
  const document: PolicyDocument = {
    federationId: place.federationId,
    name: read.name,
    version: place.version,
    previous: place.previous,
    approvers: read.approvers,
    groups: read.groups,
    remotes: read.remotes.map(({ timeout, ...one }) => ({ ...one, timeoutMs: timeout })),
    admins: read.admins,
    rules: read.rules.map(
      ({ votesLast, rate, time: span, ...one }): PolicyRule => ({
        ...one,
        rate: rate && { count: rate.count, windowMs: rate.per },
        time: span && { ...span.hours, days: span.days },
        voteMs: votesLast,
      }),
    ),
    createdAtMs: place.createdAtMs,
  };
  checkDocument(document);
  // once more by the wire's own limits: what is accepted here is accepted there
  return policyDocument.decode(policyDocument.encode(document), "");
}

/** Takes the text of a policy file. @throws Fault bad_input, too_large */
export function parsePolicyFile(content: Uint8Array, place: PolicyPlace): PolicyDocument {
  if (content.length > POLICY_FILE_MAX)
    throw new Fault("too_large", `a policy file has at most ${POLICY_FILE_MAX} bytes`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch {
    throw new Fault("bad_input", "a policy file is JSON in UTF-8", { hint: "docs/policies.md has examples" });
  }
  return policyFromJson(value, place);
}

/** A document as people write it; {@link policyFromJson} gives the same document again. */
export function policyDocumentJson(document: PolicyDocument): Json {
  return file.encode({
    name: document.name,
    approvers: document.approvers,
    groups: document.groups,
    remotes: document.remotes.map(({ timeoutMs, ...one }) => ({ ...one, timeout: timeoutMs })),
    admins: document.admins,
    rules: document.rules.map(({ rate, time: span, voteMs, ...one }) => ({
      ...one,
      rate: rate && { count: rate.count, per: rate.windowMs },
      time: span && { hours: span, days: span.days },
      votesLast: voteMs,
    })),
  });
}
