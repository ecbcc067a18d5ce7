import { type AadContext, open, seal } from "../crypto/aead.ts";
import { equalBytes, type RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { OutputSpec, StoredKeyRecord } from "../protocol/ceremony/model.ts";
import { storedKeyHash } from "../protocol/ceremony/records.ts";
import type { OtpKey } from "../protocol/otp.ts";
import type { EnclaveKeys } from "./keys.ts";

/** A value of the key store as the parent keeps it. */
export interface Stored {
  readonly record: StoredKeyRecord;
  readonly sealed: Uint8Array;
}

/** Of a value under one version of its record: opens beside no other record, version or enclave. */
const context = ({ signer }: EnclaveKeys, record: StoredKeyRecord): AadContext => ({
  kind: "stored-key",
  server: signer.publicKey,
  keyId: record.keyId,
  version: record.version,
  recordHash: storedKeyHash(record),
});

/** Seals a value for the key store. It stays the caller's to wipe. */
export function sealStored(
  keys: EnclaveKeys,
  record: StoredKeyRecord,
  value: Uint8Array,
  random: RandomSource,
): Stored {
  return { record, sealed: seal(keys.storeKey, context(keys, record), value, random) };
}

/** Opens a value of the key store; the caller wipes it. @throws Fault integrity */
export function openStored(keys: EnclaveKeys, { record, sealed }: Stored): Uint8Array {
  if (!equalBytes(record.enclave, keys.signer.publicKey)) {
    throw new Fault("integrity", "another enclave sealed this value");
  }
  return open(keys.storeKey, context(keys, record), sealed);
}

/** Outputs that codes are made of. */
export type OtpOutput = Extract<OutputSpec, { kind: "totp" | "hotp" }>;

/** @throws Fault denied for a value that is no one-time password: it leaves the store by `stored.release` alone */
export function otpOutputOf({ output }: StoredKeyRecord): OtpOutput {
  if (output.kind === "totp" || output.kind === "hotp") return output;
  throw new Fault("denied", "this key is no one-time password");
}

/** A stored one-time password; counters and steps are the caller's. */
export function otpKeyOf(output: OtpOutput, secret: Uint8Array, counter: number): OtpKey {
  const { kind, algorithm, digits, issuer, label } = output;
  const period = output.kind === "totp" ? output.period : 30;
  return { kind, algorithm, digits, issuer, label, secret, period, counter };
}
