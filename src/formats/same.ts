import { equalBytes } from "../crypto/bytes.ts";
import type { Field } from "../protocol/content.ts";
import type { PlainItem } from "./item.ts";

/** True where two URIs stand for the same one-time password, however they are written. */
export function sameOtp(a: string, b: string): boolean {
  return a === b || otpFacts(a) === otpFacts(b);
}

function otpFacts(uri: string): string {
  const [, kind = "", query = ""] = /^otpauth:\/\/([th]otp)\/[^?]*\?(.*)$/i.exec(uri.trim()) ?? [];
  const given = new URLSearchParams(query);
  const value = (name: string, usual: string) => (given.get(name) || usual).toUpperCase();
  const secret = value("secret", "").replace(/=+$/, "");
  const algorithm = value("algorithm", "SHA1").replace("-", "");
  const moving = kind.toLowerCase() === "hotp" ? value("counter", "0") : value("period", "30");
  return [kind.toLowerCase(), secret, algorithm, value("digits", "6"), moving].join(" ");
}

/** The URI of an item's one-time password: its value, or its field of kind `otp`. */
export function otpOf({ type, value, fields = [] }: PlainItem): string | null {
  if (type === "totp" || type === "hotp") return new TextDecoder().decode(value);
  return fields.find(({ kind }) => kind === "otp")?.value ?? null;
}

/** True where two items differ in the order of fields and tags at most, and in fields that hold nothing. */
export function sameContent(a: PlainItem, b: PlainItem): boolean {
  return (
    a.name === b.name &&
    a.type === b.type &&
    equalBytes(a.value, b.value) &&
    sameTime(a.createdAt, b.createdAt) &&
    sameTime(a.expiresAt ?? null, b.expiresAt ?? null) &&
    JSON.stringify([...a.tags].sort()) === JSON.stringify([...b.tags].sort()) &&
    sameFields(a.fields ?? [], b.fields ?? [], (field) => [field.name, field.kind, field.value])
  );
}

/** True where two times are the same, to the millisecond. */
export function sameTime(a: string | null, b: string | null): boolean {
  return a === b || (a !== null && b !== null && Date.parse(a) === Date.parse(b));
}

/** Compares fields by what `facts` takes of each, in any order. */
export function sameFields(
  a: readonly Field[],
  b: readonly Field[],
  facts: (field: Field) => readonly string[],
): boolean {
  const all = (fields: readonly Field[]) =>
    JSON.stringify(
      fields
        .filter(({ value }) => value !== "")
        .map((field) => JSON.stringify(facts(field)))
        .sort(),
    );
  return all(a) === all(b);
}
