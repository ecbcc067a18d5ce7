import type { Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type Draft, field } from "./gathering.ts";
import { utf8Text } from "./item.ts";
import { otpField } from "./otpfield.ts";

/** Keys that people write before a colon, and the field that each becomes. */
const KEYS: Readonly<Record<string, "user" | "url" | "otp" | "notes">> = {
  user: "user",
  username: "user",
  login: "user",
  url: "url",
  uri: "url",
  link: "url",
  site: "url",
  website: "url",
  otp: "otp",
  totp: "otp",
  otpauth: "otp",
  note: "notes",
  notes: "notes",
  comment: "notes",
  comments: "notes",
};

/** Keys whose value is hidden, as the password is. */
const HIDDEN = /^(?:pin|puk|cvv|cvc|password|passphrase|secret|token|key|api[ _-]?key|recovery.*)$/i;

/**
 * One decrypted entry as an item: the password in the first line, `key: value` lines and otpauth:// lines as fields,
 * the rest as notes. What is no text is kept as a file.
 *
 * @param plain Taken over: wiped, or the item's value.
 */
export function passDraft(path: readonly string[], plain: Uint8Array): Draft {
  const text = plain.length > DEFAULTS.secretBytes ? null : utf8Text(plain);
  if (text === null || text.includes("\0")) return { path, type: "file", value: plain };
  plain.fill(0);
  const lines = text.split(/\r?\n/);
  if (lines[0] === "GOPASS-SECRET-1.0") return mimeDraft(path, lines.slice(1));
  const [first = "", ...rest] = lines;
  return lineDraft(path, first, rest);
}

function lineDraft(path: readonly string[], first: string, rest: readonly string[]): Draft {
  const title = path.at(-1) ?? "";
  const fields: Field[] = [];
  const notes: string[] = [];
  const headers = new Map<string, string>();
  const seen = new Set<string>();
  for (const line of rest) {
    const [, key = "", value = ""] = /^([\p{L}_][\p{L}\p{N} _.-]{0,63}):[ \t]+(\S.*)$/u.exec(line) ?? [];
    const known = Object.hasOwn(KEYS, key.toLowerCase()) ? KEYS[key.toLowerCase()] : undefined;
    if (/^otpauth:\/\//i.test(line.trim())) fields.push(otpField(line, title));
    else if (key === "") {
      if (line !== "---" || notes.length > 0) notes.push(line);
    } else if (/^content-(?:disposition|transfer-encoding|type)$/i.test(key)) headers.set(key.toLowerCase(), value);
    else if (known === "otp") fields.push(otpField(value, title));
    else if (known === "url") fields.push(field("url", "url", value));
    else if (known === "notes") notes.push(value);
    else if (known === "user" && !seen.has("user")) {
      seen.add("user");
      fields.push(field("user", "text", value));
    } else fields.push(field(key, HIDDEN.test(key) ? "hidden" : "text", value));
  }
  const binary = attachment(headers, notes);
  if (binary) return { path, type: "file", value: binary };
  for (const [key, value] of headers) fields.push(field(key, "text", value));
  const text = notes.join("\n").replace(/^\n+|\s+$/g, "");
  return shaped(path, first, fields, text);
}

function shaped(path: readonly string[], password: string, fields: Field[], notes: string): Draft {
  if (fields.length === 0 && notes === "" && /^otpauth:\/\//i.test(password)) {
    const otp = otpField(password, path.at(-1) ?? "");
    if (otp.kind === "otp")
      return { path, type: otp.value.startsWith("otpauth://hotp/") ? "hotp" : "totp", value: otp.value };
  }
  if (password === "" && fields.length === 0) return { path, type: "note", value: notes };
  const all = [...fields, field("notes", "text", notes)].filter(({ value }) => value !== "");
  return { path, type: all.length > 0 ? "login" : "password", value: password, fields: all };
}

/** A file that gopass keeps in base64 under headers of its own. */
function attachment(headers: ReadonlyMap<string, string>, notes: readonly string[]): Uint8Array | null {
  if (headers.get("content-transfer-encoding")?.toLowerCase() !== "base64") return null;
  try {
    return Uint8Array.fromBase64(notes.join(""));
  } catch {
    return null;
  }
}

/** The form of gopass 1.9 and 1.10: headers, of which one is the password, and a body. */
function mimeDraft(path: readonly string[], lines: readonly string[]): Draft {
  const end = lines.indexOf("");
  const head = end < 0 ? lines : lines.slice(0, end);
  const body = end < 0 ? [] : lines.slice(end + 1);
  const isPassword = (line: string) => /^password:/i.test(line);
  const password = head.find(isPassword)?.replace(/^password:\s*/i, "") ?? "";
  return lineDraft(path, password, [...head.filter((line) => !isPassword(line)), ...body]);
}
