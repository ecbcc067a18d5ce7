import { HOTP, Secret, TOTP, URI } from "otpauth";
import { wipe } from "../crypto/bytes.ts";
import { hmac } from "../crypto/hmac.ts";
import { Fault } from "../errors.ts";
import { OTP_ALGORITHMS, type OtpAlgorithm } from "./otpalgorithm.ts";

/** A one-time password's key with everything that its URI says. */
export interface OtpKey {
  readonly kind: "totp" | "hotp";
  readonly issuer: string;
  readonly label: string;
  /** 1 to 1,024 bytes, the holder's to wipe. */
  readonly secret: Uint8Array;
  readonly algorithm: OtpAlgorithm;
  /** 6 to 10. */
  readonly digits: number;
  /** Seconds that a code of a `totp` is good for, 1 to 86,400. */
  readonly period: number;
  /** Of the next code of a `hotp`, below 2^53. */
  readonly counter: number;
}

const URI_MAX_BYTES = 8_192;
const SECRET_MAX_BYTES = 1_024;
const PERIOD_MAX_S = 86_400;

function bad(why: string): Fault {
  return new Fault("bad_input", "cannot use this as a one-time password", {
    why,
    hint: "give the otpauth:// URI, or the key in base32, as the service shows it",
  });
}

/**
 * Reads an otpauth:// URI (the key URI format of authenticator programs).
 *
 * @throws Fault bad_input; its text has nothing of the URI
 */
export function parseOtpUri(uri: string): OtpKey {
  if (Buffer.byteLength(uri) > URI_MAX_BYTES) throw bad("the URI is too long");
  let parsed: HOTP | TOTP;
  try {
    parsed = URI.parse(uri.trim());
  } catch {
    throw bad("it is no otpauth:// URI of type totp or hotp, or a part of it is missing or damaged");
  }
  return checkOtpKey({
    kind: parsed instanceof TOTP ? "totp" : "hotp",
    issuer: parsed.issuer,
    label: parsed.label,
    secret: new Uint8Array(parsed.secret.buffer).slice(),
    algorithm: algorithmOf(parsed.algorithm),
    digits: parsed.digits,
    period: parsed instanceof TOTP ? parsed.period : 30,
    counter: parsed instanceof HOTP ? parsed.counter : 0,
  });
}

function algorithmOf(name: string): OtpAlgorithm {
  const wanted = name.toUpperCase().replace("-", "");
  const found = OTP_ALGORITHMS.find((one) => one === wanted);
  if (!found) throw bad(`its hash is none of ${OTP_ALGORITHMS.join(", ")}`);
  return found;
}

/** Refuses a key that no authenticator could use; gives it back. @throws Fault bad_input */
export function checkOtpKey(key: OtpKey): OtpKey {
  const { secret, digits, period, counter, issuer, label } = key;
  if (secret.length < 1 || secret.length > SECRET_MAX_BYTES) throw bad(`a key has 1 to ${SECRET_MAX_BYTES} bytes`);
  if (!Number.isInteger(digits) || digits < 6 || digits > 10) throw bad("a code has 6 to 10 digits");
  if (!Number.isInteger(period) || period < 1 || period > PERIOD_MAX_S) {
    throw bad(`a period has 1 to ${PERIOD_MAX_S} seconds`);
  }
  if (!Number.isSafeInteger(counter) || counter < 0) throw bad("a counter is a whole number from 0");
  if (!issuer.isWellFormed() || !label.isWellFormed()) throw bad("its label is not Unicode text");
  return key;
}

/** The key of RFC 4648 §6 base32, in either case, with spaces, hyphens and padding as people copy it. @throws Fault bad_input */
export function base32Key(text: string): Uint8Array {
  const bare = text.replace(/[\s-]/g, "").replace(/=+$/, "").toUpperCase();
  if (!/^[A-Z2-7]{2,1640}$/.test(bare)) throw bad("its key is not base32");
  const bytes = new Uint8Array(Secret.fromBase32(bare).buffer).slice();
  if (bytes.length < 1 || bytes.length > SECRET_MAX_BYTES) throw bad(`a key has 1 to ${SECRET_MAX_BYTES} bytes`);
  return bytes;
}

const configOf = ({ secret, algorithm, digits, issuer, label }: OtpKey) => ({
  secret: new Secret({ buffer: secret.slice().buffer }),
  algorithm,
  digits,
  issuer,
  label,
});

/** The URI of a key, with everything in it. */
export function otpUri(key: OtpKey): string {
  const config = configOf(key);
  if (key.kind === "hotp") return new HOTP({ ...config, counter: key.counter }).toString();
  return new TOTP({ ...config, period: key.period }).toString();
}

/**
 * One code: of a `hotp` for its counter (RFC 4226 §5.3), of a `totp` for a time (RFC 6238 §4.2).
 *
 * @param nowMs Milliseconds since 1970.
 * @returns `untilMs` is when a `totp`'s next code begins; null for a `hotp`.
 */
export function otpCode(key: OtpKey, nowMs: number): { code: string; untilMs: number | null } {
  if (key.kind === "hotp") return { code: hotp(key, key.counter), untilMs: null };
  const periodMs = key.period * 1_000;
  const counter = Math.floor(nowMs / periodMs);
  return { code: hotp(key, counter), untilMs: (counter + 1) * periodMs };
}

const HASHES = { SHA1: "sha1", SHA256: "sha256", SHA512: "sha512" } as const;

/** RFC 4226 §5.3, by the platform's HMAC: the library's own is in JavaScript and keeps copies of the key. */
function hotp({ secret, algorithm, digits }: OtpKey, counter: number): string {
  const moving = new Uint8Array(8);
  new DataView(moving.buffer).setBigUint64(0, BigInt(counter));
  const mac = hmac(HASHES[algorithm], secret, moving);
  const at = (mac.at(-1) ?? 0) & 0x0f;
  const truncated = new DataView(mac.buffer, mac.byteOffset).getUint32(at) & 0x7fff_ffff;
  wipe(mac);
  return String(truncated % 10 ** digits).padStart(digits, "0");
}
