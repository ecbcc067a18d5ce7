import { equalBytes, wipe } from "../crypto/bytes.ts";
import { hashCanon } from "../crypto/kdf.ts";
import type { UserId } from "../ids.ts";
import { FACTOR } from "./factor.ts";
import { type OtpKey, otpCode } from "./otp.ts";

/** The factor's key as authenticator programs take it; `secret` is the caller's, 20 bytes. */
export function factorKey(secret: Uint8Array, names: { readonly issuer: string; readonly label: string }): OtpKey {
  const { digits, periodS: period } = FACTOR;
  return { kind: "totp", ...names, secret, algorithm: "SHA1", digits, period, counter: 0 };
}

/** Step of a time (RFC 6238 §4.2). */
const stepAt = (nowMs: number): number => Math.floor(nowMs / (FACTOR.periodS * 1_000));

/** The code of one step: 6 digits. */
export function factorCode(secret: Uint8Array, step: number): string {
  return otpCode(factorKey(secret, { issuer: "", label: "" }), step * FACTOR.periodS * 1_000).code;
}

/**
 * The step whose code this is: of now, the one before or the one after, and later than `lastStep`.
 *
 * @param lastStep The newest step that was accepted, or -1.
 * @returns undefined for a code of no such step; as much work for each.
 */
export function factorStep(secret: Uint8Array, code: string, nowMs: number, lastStep: number): number | undefined {
  const given = new TextEncoder().encode(code);
  let found: number | undefined;
  const now = stepAt(nowMs);
  for (let step = now - FACTOR.skewSteps; step <= now + FACTOR.skewSteps; step++) {
    const expected = new TextEncoder().encode(factorCode(secret, Math.max(0, step)));
    if (equalBytes(expected, given) && step > lastStep) found ??= step;
    wipe(expected);
  }
  return found;
}

/** What the server keeps of a recovery code: 32 bytes. @param code The 20 letters of `typedCode`. */
export function recoveryHash(userId: UserId, code: string): Uint8Array {
  return hashCanon("keyhold/v1/factor-recovery", userId, code);
}
