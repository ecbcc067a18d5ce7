import { VISIBLE_TYPES } from "../protocol/secrettype.ts";
import {
  boundedValue,
  FILE_BYTES,
  type Format,
  onlyItem,
  singleName,
  unreadable,
  utf8Bytes,
  utf8Text,
} from "./item.ts";

/**
 * Base64 or base64url (RFC 4648 §4, §5), padded or not, in one line or in equal lines as common tools wrap them,
 * white space at the end allowed; base64 with padding in one line is written.
 */
export const base64: Format = {
  name: "base64",
  kind: "single",
  binary: false,
  types: VISIBLE_TYPES,
  keeps: [],
  sniff: () => false,
  read: (bytes, options) => {
    const name = singleName("base64", options.name);
    if (bytes.length > FILE_BYTES.single) throw unreadable("base64", "it is too long for one secret");
    const value = boundedValue("base64", decodeBase64("base64", unwrap((utf8Text(bytes) ?? "?").trimEnd())));
    return { items: [{ name, type: "bytes", value, tags: [], createdAt: null }], lost: [] };
  },
  write: (items) => utf8Bytes(`${onlyItem(base64, items).value.toBase64()}\n`),
};

/** Lines of equal length, the last one excepted, become one. */
function unwrap(text: string): string {
  const lines = text.split(/\r?\n/);
  const [first] = lines;
  if (first === undefined || lines.length === 1) return text;
  const even = lines.every((line, i) => (i < lines.length - 1 ? line.length === first.length : true));
  const last = lines.at(-1) ?? "";
  if (!even || first.length % 4 !== 0 || last.length === 0 || last.length > first.length) {
    throw unreadable("base64", "its lines differ in length");
  }
  return lines.join("");
}

/**
 * Strict base64 of either alphabet, not mixed; padding is optional but must be right, and unused bits zero.
 *
 * @param format Named in the fault.
 * @throws Fault bad_input
 */
export function decodeBase64(format: string, text: string): Uint8Array {
  const match = /^([A-Za-z0-9+/]*|[A-Za-z0-9_-]*)(={0,2})$/.exec(text);
  if (!match) throw unreadable(format, "it holds characters that are not base64");
  const [, digits = "", padding = ""] = match;
  if (padding !== "" && (digits.length + padding.length) % 4 !== 0) throw unreadable(format, "its padding is wrong");
  const alphabet = /[-_]/.test(digits) ? "base64url" : "base64";
  try {
    const bytes = Uint8Array.fromBase64(digits, { alphabet });
    if (bytes.toBase64({ alphabet, omitPadding: true }) === digits) return bytes;
  } catch {
    // falls through to the one error
  }
  throw unreadable(format, "its end is cut off or not canonical");
}
