import { utf8Text } from "./item.ts";

/** Files below this are parsed without counting first. */
const FREE_BYTES = 1_024 * 1_024;
/** Members and elements of the largest file that is parsed; each may cost a parser some 64 bytes. */
const MAX_PARTS = 4_000_000;

const [QUOTE, BACKSLASH, COMMA, COLON, BRACE, BRACKET] = [0x22, 0x5c, 0x2c, 0x3a, 0x7b, 0x5b];

/**
 * True where parsing JSON of this many bytes costs memory in proportion to its text: counts what would become objects
 * and members outside of texts.
 */
export function isParsable(file: Uint8Array): boolean {
  if (file.length <= FREE_BYTES) return true;
  let parts = 0;
  for (let at = 0; at < file.length; at++) {
    const byte = file[at];
    if (byte === QUOTE) {
      at = endOfText(file, at);
      continue;
    }
    if (byte !== COMMA && byte !== COLON && byte !== BRACE && byte !== BRACKET) continue;
    if (++parts > MAX_PARTS) return false;
  }
  return true;
}

/** Index of the quotation mark that ends a text; the file's length where none does. */
function endOfText(file: Uint8Array, start: number): number {
  for (let at = start + 1; ; ) {
    const end = file.indexOf(QUOTE, at);
    if (end < 0) return file.length;
    let escapes = 0;
    while (file[end - 1 - escapes] === BACKSLASH) escapes++;
    if (escapes % 2 === 0) return end;
    at = end + 1;
  }
}

/** The JSON object in a file of at most `max` bytes, or null. */
export function parseObject(file: Uint8Array, max: number): Record<string, unknown> | null {
  if (file.length > max || file.length < 2 || !isParsable(file)) return null;
  try {
    const value: unknown = JSON.parse(utf8Text(file) ?? "");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : null;
  } catch {
    return null;
  }
}
