/** A source of uniform random bytes; a parameter wherever randomness is needed. */
export type RandomSource = (length: number) => Uint8Array;

/** Joins byte strings into a new one. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Compares in constant time; lengths are not hidden. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  // as node:crypto has it, whose loading takes milliseconds that every command would pay
  // biome-ignore lint/style/noRestrictedGlobals: neither randomness nor I/O
  return a.length === b.length && crypto.timingSafeEqual(a, b);
}

/** Overwrites secrets with zeros; each buffer must belong to the caller. */
export function wipe(...buffers: readonly (Uint8Array | undefined)[]): void {
  for (const buffer of buffers) buffer?.fill(0);
}

/** Base64url without padding (RFC 4648 §5). */
export function toBase64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

/**
 * Strict inverse of {@link toBase64url}.
 *
 * @throws SyntaxError for padding, other alphabets or non-zero trailing bits.
 */
export function fromBase64url(text: string): Uint8Array {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new SyntaxError("not base64url without padding");
  const bytes = Uint8Array.fromBase64(text, { alphabet: "base64url" });
  if (toBase64url(bytes) !== text) throw new SyntaxError("not canonical base64url");
  return bytes;
}

/** 32 zero bytes: "nothing before" in hash chains. Never written to. */
export const ZERO_HASH_BYTES: Uint8Array = new Uint8Array(32);
