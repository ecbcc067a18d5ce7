import { concat } from "../crypto/bytes.ts";

/** A number of four bytes (RFC 4251 §5). */
export function sshUint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

/** The length of all parts together in four bytes, and the parts (RFC 4251 §5). */
export function sshString(...parts: readonly Uint8Array[]): Uint8Array {
  return concat(sshUint32(parts.reduce((sum, part) => sum + part.length, 0)), ...parts);
}

/** A positive number in its shortest form (RFC 4251 §5). */
export function sshMpint(number: Uint8Array): Uint8Array {
  const first = number.findIndex((byte) => byte !== 0);
  const short = first < 0 ? new Uint8Array(0) : number.subarray(first);
  return (short[0] ?? 0) >= 0x80 ? sshString(Uint8Array.of(0), short) : sshString(short);
}
