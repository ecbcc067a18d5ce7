import { type Pointer, toArrayBuffer } from "bun:ffi";
import { wipe } from "../crypto/bytes.ts";
import { libc } from "./libc.ts";

/** Small enough for every usual RLIMIT_MEMLOCK (64 KiB and more), a multiple of every page size up to 16 KiB. */
const REGION_BYTES = 32_768;
/** Room for one key. */
const SLOT_BYTES = 64;

interface Region {
  readonly at: Pointer;
  /** Offsets that nobody uses. */
  readonly free: number[];
  /** Gives a slot back once nobody can reach its buffer any more. */
  readonly released: FinalizationRegistry<number>;
}

let region: Region | null | undefined;

function open(): Region | null {
  const at = libc()?.lockedPages(REGION_BYTES);
  if (at === undefined) return null;
  const free = Array.from({ length: REGION_BYTES / SLOT_BYTES }, (_, i) => REGION_BYTES - (i + 1) * SLOT_BYTES);
  const released = new FinalizationRegistry((offset: number) => {
    new Uint8Array(toArrayBuffer(at, offset, SLOT_BYTES)).fill(0);
    free.push(offset);
  });
  return { at, free, released };
}

/**
 * Moves a long-lived key into memory that is neither swapped nor dumped, as far as the system allows it: a limit on
 * locked memory, more than 512 keys or one over 64 bytes leave it where it is.
 *
 * The whole process is not locked on purpose: the engine could then no longer give memory back (madvise(2) refuses
 * MADV_DONTNEED for locked pages), and would keep what one unlocking of a vault needs.
 *
 * @param key Wiped if it was moved. @returns The same bytes, the caller's to wipe.
 */
export function lockKey(key: Uint8Array): Uint8Array {
  region = region === undefined ? open() : region;
  const offset = key.length > 0 && key.length <= SLOT_BYTES ? region?.free.pop() : undefined;
  if (!region || offset === undefined) return key;
  const buffer = toArrayBuffer(region.at, offset, key.length);
  region.released.register(buffer, offset);
  const locked = new Uint8Array(buffer);
  locked.set(key);
  wipe(key);
  return locked;
}
