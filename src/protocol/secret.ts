import { type AadContext, open, SEAL_OVERHEAD, seal } from "../crypto/aead.ts";
import { concat, type RandomSource, wipe } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { EntryId, KeyId, UserId } from "../ids.ts";
import { DEFAULTS } from "./defaults.ts";

/** Which value a ciphertext holds; every field is bound (docs/protocol.md §5.3). */
export interface ValueContext {
  readonly userId: UserId;
  readonly keyId: KeyId;
  readonly version: number;
  /** Bound by the value's own seal, not by that of its key. */
  readonly type: string;
}

const DATA_KEY_BYTES = 32;
/** Size of the wrapped key in front of each sealed value and of sealed metadata, in bytes. */
export const WRAPPED_BYTES = DATA_KEY_BYTES + SEAL_OVERHEAD;
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
 * Hash of a sealed value or sealed metadata as a leaf commits to it, 32 bytes: of all that follows the wrapped key. So
 * a new account key can wrap that key anew without touching what the owner signed; the wrap is held by its context.
 */
export function sealedHash(sealed: Uint8Array): Uint8Array {
  return sha256(sealed.subarray(WRAPPED_BYTES));
}

type Wrap = Extract<AadContext, { kind: "data-key" | "meta-key" }>;
type Content = Extract<AadContext, { kind: "secret" | "meta" }>;

function sealWrapped(
  key: Uint8Array,
  wrap: Wrap,
  content: Content,
  plain: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const inner = random(DATA_KEY_BYTES);
  const padded = pad(plain);
  try {
    return concat(seal(key, wrap, inner, random), seal(inner, content, padded, random));
  } finally {
    wipe(inner, padded);
  }
}

/** Opens a wrapped key with the first of `keys` that fits. @throws Fault integrity */
function unwrap(keys: readonly Uint8Array[], wrap: Wrap, sealed: Uint8Array): Uint8Array {
  const wrapped = sealed.subarray(0, WRAPPED_BYTES);
  for (const [i, key] of keys.entries()) {
    try {
      return open(key, wrap, wrapped);
    } catch (error) {
      if (i === keys.length - 1) throw error;
    }
  }
  throw new Fault("integrity", "there is no key to open this with");
}

function openWrapped(keys: readonly Uint8Array[], wrap: Wrap, content: Content, sealed: Uint8Array): Uint8Array {
  const inner = unwrap(keys, wrap, sealed);
  try {
    const padded = open(inner, content, sealed.subarray(WRAPPED_BYTES));
    try {
      return unpad(padded);
    } finally {
      wipe(padded);
    }
  } finally {
    wipe(inner);
  }
}

/**
 * Wraps the key in front of a sealed value or sealed metadata under the first of `keys`; the rest stays as it is.
 *
 * @param keys The new key, then those that may have wrapped it before.
 * @param wrapped Wrapped key (73 bytes).
 * @returns The new wrapped key (73 bytes), or null when the first key opens it already.
 * @throws Fault integrity when none opens it
 */
export function rewrap(
  keys: readonly Uint8Array[],
  wrap: Wrap,
  wrapped: Uint8Array,
  random: RandomSource,
): Uint8Array | null {
  const [current, ...older] = keys;
  if (!current) throw new Fault("internal", "there is no key to wrap with");
  try {
    wipe(unwrap([current], wrap, wrapped));
    return null;
  } catch {
    const inner = unwrap(older, wrap, wrapped);
    try {
      return seal(current, wrap, inner, random);
    } finally {
      wipe(inner);
    }
  }
}

/**
 * Seals one value under a fresh data key, itself sealed under the record key.
 *
 * @param value 1 to 65,536 bytes, not retained.
 * @returns wrapped data key (73) ‖ sealed padded value.
 */
export function sealValue(
  recordKey: Uint8Array,
  { type, ...at }: ValueContext,
  value: Uint8Array,
  random: RandomSource,
): Uint8Array {
  checkLength(value);
  return sealWrapped(recordKey, { kind: "data-key", ...at }, { kind: "secret", ...at, type }, value, random);
}

/**
 * Opens what {@link sealValue} made, under the context that the caller asked for.
 *
 * @param recordKeys The account's record key, then those of earlier account keys.
 * @throws Fault integrity
 */
export function openValue(
  recordKeys: readonly Uint8Array[],
  { type, ...at }: ValueContext,
  sealed: Uint8Array,
): Uint8Array {
  return openWrapped(recordKeys, { kind: "data-key", ...at }, { kind: "secret", ...at, type }, sealed);
}

/** Seals a secret's metadata text, padded, under a fresh key, itself sealed under the index key. */
export function sealMeta(
  indexKey: Uint8Array,
  userId: UserId,
  keyId: KeyId,
  serial: number,
  meta: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const at = { userId, keyId, serial };
  return sealWrapped(indexKey, { kind: "meta-key", ...at }, { kind: "meta", ...at }, meta, random);
}

/** Opens sealed metadata with the index key, or those of earlier account keys. @throws Fault integrity */
export function openMeta(
  indexKeys: readonly Uint8Array[],
  userId: UserId,
  keyId: KeyId,
  serial: number,
  sealed: Uint8Array,
): Uint8Array {
  const at = { userId, keyId, serial };
  return openWrapped(indexKeys, { kind: "meta-key", ...at }, { kind: "meta", ...at }, sealed);
}

/** Which waiting value a ciphertext holds; every field is bound (docs/protocol.md §7.4). */
export interface QueuedContext {
  readonly userId: UserId;
  readonly entryId: EntryId;
  readonly type: string;
}

/**
 * Seals a value that waits in the vault for a server that is away, padded, under the record key itself.
 *
 * @param plain What is sealed in place of the value: 1 to 65,536 bytes, not retained.
 */
export function sealQueued(
  recordKey: Uint8Array,
  at: QueuedContext,
  plain: Uint8Array,
  random: RandomSource,
): Uint8Array {
  checkLength(plain);
  const padded = pad(plain);
  try {
    return seal(recordKey, { kind: "queued", ...at }, padded, random);
  } finally {
    wipe(padded);
  }
}

/**
 * Opens what {@link sealQueued} made; the caller wipes the result.
 *
 * @param recordKeys The account's record key, then those of earlier account keys.
 * @throws Fault integrity
 */
export function openQueued(recordKeys: readonly Uint8Array[], at: QueuedContext, sealed: Uint8Array): Uint8Array {
  for (const [i, key] of recordKeys.entries()) {
    try {
      const padded = open(key, { kind: "queued", ...at }, sealed);
      try {
        return unpad(padded);
      } finally {
        wipe(padded);
      }
    } catch (error) {
      if (i === recordKeys.length - 1) throw error;
    }
  }
  throw new Fault("integrity", "there is no key to open this with");
}
