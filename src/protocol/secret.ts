import { open, SEAL_OVERHEAD, seal } from "../crypto/aead.ts";
import { concat, type RandomSource, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, UserId } from "../ids.ts";
import { DEFAULTS } from "./defaults.ts";

/** Which value a ciphertext holds; every field is bound (docs/protocol.md §5.3). */
export interface ValueContext {
  readonly userId: UserId;
  readonly keyId: KeyId;
  readonly version: number;
  readonly type: string;
}

const DATA_KEY_BYTES = 32;
const WRAPPED_BYTES = DATA_KEY_BYTES + SEAL_OVERHEAD;
const SMALLEST = 64;

/**
 * Padded length of `length` bytes: at least 64, then PADMÉ (Nikitin et al., PETS 2019): leaks O(log log n) bits,
 * costs at most 12%.
 */
export function paddedLength(length: number): number {
  if (length <= SMALLEST) return SMALLEST;
  const exponent = Math.floor(Math.log2(length));
  const keep = Math.floor(Math.log2(exponent)) + 1;
  const mask = 2 ** (exponent - keep) - 1;
  return (length + mask) & ~mask;
}

/** Length (4, big-endian) ‖ content ‖ zeros, up to the padded length. */
export function pad(content: Uint8Array): Uint8Array {
  const out = new Uint8Array(paddedLength(content.length + 4));
  new DataView(out.buffer).setUint32(0, content.length);
  out.set(content, 4);
  return out;
}

/** Inverse of {@link pad}. @throws Fault integrity for any other shape. */
export function unpad(padded: Uint8Array): Uint8Array {
  if (padded.length >= SMALLEST) {
    const length = new DataView(padded.buffer, padded.byteOffset).getUint32(0);
    if (length + 4 <= padded.length && paddedLength(length + 4) === padded.length) {
      if (padded.subarray(4 + length).every((byte) => byte === 0)) return padded.slice(4, 4 + length);
    }
  }
  throw new Fault("integrity", "a decrypted value is not padded as it must be");
}

/** Refuses a value that is not 1 to 65,536 bytes long. @throws Fault bad_input */
export function checkLength(value: Uint8Array): void {
  if (value.length >= 1 && value.length <= DEFAULTS.secretBytes) return;
  throw new Fault("bad_input", `a secret has 1 to ${DEFAULTS.secretBytes} bytes`);
}

/**
 * Seals one value under a fresh data key, itself sealed under the record key.
 *
 * @param value 1 to 65,536 bytes, not retained.
 * @returns wrapped data key (73) ‖ sealed padded value.
 */
export function sealValue(
  recordKey: Uint8Array,
  context: ValueContext,
  value: Uint8Array,
  random: RandomSource,
): Uint8Array {
  checkLength(value);
  const dataKey = random(DATA_KEY_BYTES);
  const padded = pad(value);
  try {
    return concat(
      seal(recordKey, { kind: "data-key", ...context }, dataKey, random),
      seal(dataKey, { kind: "secret", ...context }, padded, random),
    );
  } finally {
    wipe(dataKey, padded);
  }
}

/** Opens what {@link sealValue} made, under the context that the caller asked for. @throws Fault integrity */
export function openValue(recordKey: Uint8Array, context: ValueContext, sealed: Uint8Array): Uint8Array {
  const dataKey = open(recordKey, { kind: "data-key", ...context }, sealed.subarray(0, WRAPPED_BYTES));
  try {
    const padded = open(dataKey, { kind: "secret", ...context }, sealed.subarray(WRAPPED_BYTES));
    try {
      return unpad(padded);
    } finally {
      wipe(padded);
    }
  } finally {
    wipe(dataKey);
  }
}

/** Seals a secret's metadata text under the index key, padded. */
export function sealMeta(
  indexKey: Uint8Array,
  userId: UserId,
  keyId: KeyId,
  serial: number,
  meta: Uint8Array,
  random: RandomSource,
): Uint8Array {
  return seal(indexKey, { kind: "meta", userId, keyId, serial }, pad(meta), random);
}

/** Opens sealed metadata. @throws Fault integrity */
export function openMeta(
  indexKey: Uint8Array,
  userId: UserId,
  keyId: KeyId,
  serial: number,
  sealed: Uint8Array,
): Uint8Array {
  return unpad(open(indexKey, { kind: "meta", userId, keyId, serial }, sealed));
}
