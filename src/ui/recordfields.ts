import { YEAR_10000_MS } from "../client/expiry.ts";
import { Fault } from "../errors.ts";
import type { Field, FieldKind } from "../protocol/content.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { parseDuration, parseTime } from "./args.ts";

/** Fields that people are asked for, by type, in order. */
const USUAL: { readonly [T in SecretType]?: readonly string[] } = {
  login: ["user", "url", "otp", "notes"],
  card: ["holder", "expiry", "code", "pin", "notes"],
  identity: ["full name", "email", "phone", "address", "birthday", "company", "notes"],
};

/** The fields that a secret of that type usually has. */
export function usualFields(type: SecretType): readonly string[] {
  return USUAL[type] ?? [];
}

/** Types that are mostly fields; a login's value is its password, a card's its number. */
export function isRecordType(type: SecretType | null): type is "login" | "card" | "identity" {
  return type !== null && USUAL[type] !== undefined;
}

const HIDDEN =
  /(^|[^\p{L}])(pass(word|phrase|code|wd)?|pwd|pw|pin|puk|tan|code|cvv2?|cvc2?|secret|token|private|key|seed|answer|otp|totp|hotp|recovery)s?([^\p{L}]|$)/iu;

/** What a field of that name holds unless it is said. */
export function kindOfName(name: string): FieldKind {
  if (name === "url") return "url";
  if (name === "otp") return "otp";
  if (name === "birthday") return "date";
  return HIDDEN.test(name) ? "hidden" : "text";
}

/** One change of fields: a new value, or null to take the field away. */
export interface FieldChange {
  readonly name: string;
  readonly value: string | null;
  /** Where the field is new and its name says nothing. */
  readonly otherwise: "text" | "hidden";
}

/**
 * Fields after some changes. The first `url` of a command takes the place of all that were there.
 *
 * @throws Fault not_found for a field to be taken away that is not there
 */
export function changedFields(before: readonly Field[], changes: readonly FieldChange[]): readonly Field[] {
  const fields = [...before];
  const touched = new Set<string>();
  for (const { name: given, value, otherwise } of changes) {
    const name = given.normalize("NFC");
    const first = fields.findIndex((field) => field.name === name);
    const known = fields[first];
    if (value === null) {
      if (!known) throw new Fault("not_found", `there is no field ${JSON.stringify(name)}`);
      for (let i = fields.length - 1; i >= 0; i--) if (fields[i]?.name === name) fields.splice(i, 1);
      continue;
    }
    const named = kindOfName(name);
    const kind = known?.kind ?? (named === "text" ? otherwise : named);
    const field = { name, kind, value };
    if (known && !(name === "url" && touched.has(name))) {
      fields[first] = field;
      for (let i = fields.length - 1; i > first; i--) if (fields[i]?.name === name) fields.splice(i, 1);
    } else fields.push(field);
    touched.add(name);
  }
  return fields;
}

/**
 * A time of expiry as people write it: `2027-01-31`, `90d` from now, `never`.
 *
 * @returns ISO 8601 in UTC, or null for never.
 * @throws Fault usage
 */
export function expiryOf(text: string, nowMs: number): string | null {
  if (text === "never") return null;
  const span = /^\d+[smhd]$/.test(text) ? parseDuration(text) : null;
  const at = span !== null ? nowMs + span : /^\d{4}-/.test(text) ? parseTime(text, nowMs) : null;
  if (at === null || at < 0 || at >= YEAR_10000_MS) {
    throw new Fault("usage", "--expires takes a day such as 2027-01-31, a time from now such as 90d, or never");
  }
  return new Date(at).toISOString();
}

/** True for a card number whose check digit fits (ISO/IEC 7812, Luhn). */
export function hasCheckDigit(number: string): boolean {
  const digits = number.replace(/[ -]/g, "");
  if (!/^\d{8,19}$/.test(digits)) return false;
  const sum = [...digits].reverse().reduce((total, digit, i) => {
    const value = Number(digit) * (i % 2 === 1 ? 2 : 1);
    return total + (value > 9 ? value - 9 : value);
  }, 0);
  return sum % 10 === 0;
}

/** Why an answer is none for a field of that name, or null. */
export function fieldProblem(name: string, text: string): string | null {
  if (text === "") return null;
  if (name === "expiry" && !/^(0[1-9]|1[0-2])\/(\d\d|\d{4})$/.test(text)) return "write it as MM/YY";
  if (name === "birthday" && !/^\d{4}-\d\d-\d\d$/.test(text)) return "write it as YYYY-MM-DD";
  if (name === "email" && !/^\S+@\S+$/.test(text)) return "this is no address of mail";
  if (name === "code" && !/^\d{3,4}$/.test(text)) return "a card's code has three or four digits";
  return null;
}
