/** A value that has one canonical encoding (docs/protocol.md §1.1). */
export type CanonValue = null | boolean | number | bigint | string | Uint8Array | readonly CanonValue[];

const TAG = { null: 0, false: 1, true: 2, u64: 3, text: 4, bytes: 5, list: 6 } as const;
const encoder = new TextEncoder();

/**
 * The only road to bytes that are hashed, signed or authenticated: an injective, typed,
 * length-prefixed encoding (docs/protocol.md §1.1).
 *
 * @param label Names the purpose; each label stands in docs/protocol.md §1.2.
 * @param parts Numbers are unsigned and at most 2^64-1; text is UTF-8 as given.
 * @throws RangeError for a negative, fractional or too large number, or ill-formed text: a caller's bug.
 */
export function canon(label: string, ...parts: readonly CanonValue[]): Uint8Array {
  const all = [label, ...parts];
  const out = new Uint8Array(sizeOf(all));
  write(all, out, new DataView(out.buffer), 0);
  return out;
}

const U64_MAX = 0xffff_ffff_ffff_ffffn;
const U32 = 0x1_0000_0000;

function sizeOf(value: CanonValue): number {
  if (value === null || typeof value === "boolean") return 1;
  if (typeof value === "number" || typeof value === "bigint") return 9;
  if (typeof value === "string") return 5 + Buffer.byteLength(value);
  if (value instanceof Uint8Array) return 5 + value.length;
  let size = 5;
  for (const item of value) size += sizeOf(item);
  return size;
}

/** Writes a tag and a length (4 bytes, big-endian); gives the place after them. */
function head(out: Uint8Array, view: DataView, at: number, tag: number, length: number): number {
  out[at] = tag;
  view.setUint32(at + 1, length);
  return at + 5;
}

/** Writes one value into the room that {@link sizeOf} counted; gives the place after it. */
function write(value: CanonValue, out: Uint8Array, view: DataView, at: number): number {
  if (value === null) {
    out[at] = TAG.null;
    return at + 1;
  }
  if (typeof value === "boolean") {
    out[at] = value ? TAG.true : TAG.false;
    return at + 1;
  }
  if (typeof value === "number" || typeof value === "bigint") {
    writeU64(value, view, at + 1);
    out[at] = TAG.u64;
    return at + 9;
  }
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new RangeError("canon: ill-formed text");
    const { written } = encoder.encodeInto(value, out.subarray(at + 5));
    return head(out, view, at, TAG.text, written) + written;
  }
  if (value instanceof Uint8Array) {
    const start = head(out, view, at, TAG.bytes, value.length);
    out.set(value, start);
    return start + value.length;
  }
  let next = head(out, view, at, TAG.list, value.length);
  for (const item of value) next = write(item, out, view, next);
  return next;
}

function writeU64(value: number | bigint, view: DataView, at: number): void {
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) throw new RangeError("canon: not a safe integer");
    if (value < 0) throw new RangeError("canon: not an unsigned 64-bit integer");
    view.setUint32(at, Math.floor(value / U32));
    view.setUint32(at + 4, value % U32);
    return;
  }
  if (value < 0n || value > U64_MAX) throw new RangeError("canon: not an unsigned 64-bit integer");
  view.setBigUint64(at, value);
}
