import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";

/**
 * Takes one newline from the end and brings the text to NFC. Consumes `raw`.
 *
 * @returns 1 to 1,024 bytes.
 * @throws Fault bad_input for no text, too much, or bytes that are not UTF-8.
 */
export function normalizePassword(raw: Uint8Array): Uint8Array {
  try {
    const body = raw.subarray(0, raw.at(-1) === 0x0a ? -1 : undefined);
    // ASCII is NFC: no string, which could not be wiped, is made of it.
    const password = body.every((byte) => byte < 0x80) ? Uint8Array.from(body) : normalizeText(body);
    if (password.length === 0) throw new Fault("bad_input", "the password is empty");
    if (password.length > DEFAULTS.passwordMaxBytes) {
      wipe(password);
      throw new Fault("bad_input", `a password has at most ${DEFAULTS.passwordMaxBytes} bytes`);
    }
    return password;
  } finally {
    wipe(raw);
  }
}

function normalizeText(bytes: Uint8Array): Uint8Array {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Fault("bad_input", "the password is not UTF-8 text");
  }
  return new TextEncoder().encode(text.normalize("NFC"));
}
