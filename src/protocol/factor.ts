import { Fault } from "../errors.ts";

/** The second factor's form (docs/protocol.md §10.9): TOTP of RFC 6238 with SHA-1, as every authenticator can do. */
export const FACTOR = { keyBytes: 20, digits: 6, periodS: 30, skewSteps: 1, recoveryCodes: 10 } as const;

/** Crockford's base 32: no I, L, O, U. */
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LETTERS = 20;

/** A recovery code of 100 bits, in groups as people copy it: `4F7K-…`. @param random 20 bytes. */
export function recoveryCode(random: Uint8Array): string {
  if (random.length !== LETTERS) throw new Fault("internal", "a recovery code is made of 20 bytes");
  const letters = [...random].map((byte) => ALPHABET[byte & 31] ?? "0").join("");
  return letters.replace(/(.{4})(?=.)/g, "$1-");
}

/** What was typed for a code. */
export type TypedCode = { readonly kind: "totp" | "recovery"; readonly code: string };

/**
 * Reads a code as people type it, with spaces, hyphens and small letters.
 *
 * @returns null for what is neither 6 digits nor a recovery code.
 */
export function typedCode(text: string): TypedCode | null {
  const bare = text.replace(/[\s-]/g, "").toUpperCase();
  if (/^[0-9]{6}$/.test(bare)) return { kind: "totp", code: bare };
  const letters = bare.replace(/[IL]/g, "1").replace(/O/g, "0");
  return /^[0-9A-HJKMNP-TV-Z]{20}$/.test(letters) ? { kind: "recovery", code: letters } : null;
}
