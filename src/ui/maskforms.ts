import { toBase64url } from "../crypto/bytes.ts";

/** Shorter values are not masked: they would blot out what merely looks like them. */
export const MASK_MIN_BYTES = 4;

/**
 * The forms in which a value may be printed: as it is (without line ends at its end), as base64 and base64url (also
 * inside a longer text, and wrapped at 64 and 76 columns), hex, percent-encoded, as JSON and quoted for a shell; each
 * also with the line ends of a terminal; and its lines of at least 8 bytes, where it has several. Empty for values of
 * fewer than 4 bytes.
 */
export function maskedForms(whole: Uint8Array): Uint8Array[] {
  let end = whole.length;
  while (end > 0 && (whole[end - 1] === 0x0a || whole[end - 1] === 0x0d)) end--;
  const value = whole.subarray(0, end);
  if (value.length < MASK_MIN_BYTES) return [];
  const encoder = new TextEncoder();
  const texts = new Set<string>([value.toHex(), value.toHex().toUpperCase(), ...base64Forms(value)]);
  const percent = [
    percentEncoded(value, ""),
    percentEncoded(value, "!*'()"),
    percentEncoded(value, ";,/?:@&=+$#!*'()"),
  ];
  for (const text of percent) {
    for (const cased of [text, text.replace(/%[0-9A-F]{2}/g, (hex) => hex.toLowerCase())]) {
      texts.add(cased).add(cased.replaceAll("%20", "+"));
    }
  }
  const forms = [value.slice()];
  const text = textOf(value);
  if (text !== null) {
    for (const form of [...jsonForms(text), ...shellForms(text), ...linesOf(text)]) texts.add(form);
  }
  for (const form of texts) forms.push(encoder.encode(form));
  return forms.flatMap((form) => [form, ...terminalForm(form)]);
}

function textOf(value: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
  } catch {
    return null;
  }
}

/** Shorter lines of a value stand in too many other texts. */
const LINE_MIN_BYTES = 8;

/** The lines of a value of several: an indented copy shows it as well. Not those that mark where a key begins and ends. */
function linesOf(text: string): string[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  return lines.length < 2
    ? []
    : lines.filter((line) => Buffer.byteLength(line) >= LINE_MIN_BYTES && !/^-----.*-----$/.test(line));
}

/** Line ends as a terminal writes them. */
function terminalForm(form: Uint8Array): Uint8Array[] {
  if (!form.includes(0x0a)) return [];
  const text = Buffer.from(form).toString("latin1");
  const ends = [text.replace(/\r?\n/g, "\r\n"), text.replace(/\n/g, "\r\n"), text.replace(/\r\n/g, "\n")];
  return ends.filter((end) => end !== text).map((end) => new Uint8Array(Buffer.from(end, "latin1")));
}

/** Shorter cores of base64 stand in too many other texts. */
const BASE64_CORE_MIN = 8;
const COLUMNS = [64, 76] as const;

function base64Forms(value: Uint8Array): string[] {
  const forms: string[] = [value.toBase64(), toBase64url(value)];
  for (const offset of [0, 1, 2]) {
    const shifted = new Uint8Array(offset + value.length);
    shifted.set(value, offset);
    const skip = Math.ceil((offset * 8) / 6);
    for (const encoded of [shifted.toBase64(), toBase64url(shifted)]) {
      // the last character may depend on what follows
      const core = encoded.slice(skip, Math.floor((shifted.length * 8) / 6));
      if (core.length >= BASE64_CORE_MIN) forms.push(core);
      if (offset > 0 && core.length >= BASE64_CORE_MIN) forms.push(encoded.slice(skip));
      for (const columns of offset === 0 ? COLUMNS : []) {
        const wrapped = encoded.slice(0, Math.floor((value.length * 8) / 6)).match(new RegExp(`.{1,${columns}}`, "g"));
        if (wrapped !== null && wrapped.length > 1) forms.push(wrapped.join("\n"));
      }
    }
    shifted.fill(0);
  }
  return forms;
}

/** RFC 3986: letters, digits and `-._~` stay, and what `also` holds. */
function percentEncoded(value: Uint8Array, also: string): string {
  let text = "";
  for (const byte of value) {
    const character = String.fromCharCode(byte);
    const stays = /[A-Za-z0-9\-._~]/.test(character) || also.includes(character);
    text += stays ? character : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
  }
  return text;
}

function jsonForms(text: string): string[] {
  const inner = JSON.stringify(text).slice(1, -1);
  const escaped = (pattern: RegExp, from: string) =>
    from.replace(pattern, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const ascii = escaped(/[\u007f-\uffff]/g, inner);
  const html = escaped(/[<>&\u2028\u2029]/g, inner);
  return [inner, ascii, html, inner.replaceAll("/", "\\/"), ascii.replaceAll("/", "\\/")];
}

/** A value inside single quotes, as shells and their like write a quote in it; and after backslashes (printf %q). */
function shellForms(text: string): string[] {
  return [
    text.replaceAll("'", "'\\''"),
    text.replaceAll("'", "'\"'\"'"),
    text.replace(/[^A-Za-z0-9_\-+=./:@%^,\u0080-\uffff\n]/g, (character) => `\\${character}`),
  ];
}
