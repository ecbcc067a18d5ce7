import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { base32Key, otpUri, parseOtpUri } from "../protocol/otp.ts";

/**
 * A field for a one-time password as other programs keep it: an otpauth:// URI, or a bare key in base32 for codes of
 * six digits every 30 seconds. What is neither is kept as it is in a hidden field `otp-secret`.
 */
export function otpField(given: string, label: string): Field {
  const text = given.trim();
  try {
    if (/^otpauth:\/\//i.test(text)) {
      const uri = text.replace(/^otpauth:\/\/([th]otp)\//i, (_, kind: string) => `otpauth://${kind.toLowerCase()}/`);
      parseOtpUri(uri).secret.fill(0);
      return { name: "otp", kind: "otp", value: uri };
    }
    return { name: "otp", kind: "otp", value: totpUri({ key: base32Key(text), label }) };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { name: "otp-secret", kind: "hidden", value: given };
  }
}

/** The URI of a time-based key; `key` is wiped. @throws Fault bad_input */
export function totpUri(given: {
  key: Uint8Array;
  label: string;
  issuer?: string;
  period?: number;
  digits?: number;
  algorithm?: "SHA1" | "SHA256" | "SHA512";
}): string {
  try {
    return otpUri({
      kind: "totp",
      issuer: given.issuer ?? "",
      label: given.label.toWellFormed(),
      secret: given.key,
      algorithm: given.algorithm ?? "SHA1",
      digits: given.digits ?? 6,
      period: given.period ?? 30,
      counter: 0,
    });
  } finally {
    given.key.fill(0);
  }
}
