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
  const chunks: Uint8Array[] = [];
  write([label, ...parts], chunks);
  let length = 0;
  for (const chunk of chunks) length += chunk.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

function head(tag: number, length: number): Uint8Array {
  const out = new Uint8Array(5);
  out[0] = tag;
  new DataView(out.buffer).setUint32(1, length);
  return out;
}

function write(value: CanonValue, out: Uint8Array[]): void {
  if (value === null) out.push(Uint8Array.of(TAG.null));
  else if (typeof value === "boolean") out.push(Uint8Array.of(value ? TAG.true : TAG.false));
  else if (typeof value === "number" || typeof value === "bigint") out.push(u64(value));
  else if (typeof value === "string") {
    if (!value.isWellFormed()) throw new RangeError("canon: ill-formed text");
    const bytes = encoder.encode(value);
    out.push(head(TAG.text, bytes.length), bytes);
  } else if (value instanceof Uint8Array) out.push(head(TAG.bytes, value.length), value);
  else {
    out.push(head(TAG.list, value.length));
    for (const item of value) write(item, out);
  }
}

function u64(value: number | bigint): Uint8Array {
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new RangeError("canon: not a safe integer");
  }
  const big = BigInt(value);
  if (big < 0n || big > 0xffff_ffff_ffff_ffffn) throw new RangeError("canon: not an unsigned 64-bit integer");
  const out = new Uint8Array(9);
  out[0] = TAG.u64;
  new DataView(out.buffer).setBigUint64(1, big);
  return out;
}
