import { inflateSync } from "node:zlib";
import { concat } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
/** Chunks that make the picture; the others may hold anything, compressed too, and are left out. */
const NEEDED: ReadonlySet<string> = new Set(["IHDR", "PLTE", "tRNS", "IDAT", "IEND"]);

/** Largest PNG that is read, in bytes, and its largest picture, in pixels. */
export const PNG_LIMITS = { fileBytes: 8 * 1_024 * 1_024, pixels: 16_000_000 } as const;

function unreadable(why: string): Fault {
  return new Fault("bad_input", "cannot read a QR code from this picture", {
    why,
    hint: "save the code as a PNG that shows it whole and sharp, or copy the text behind it",
  });
}

/** True for a file that begins as a PNG does. */
export function isPng(file: Uint8Array): boolean {
  return Buffer.compare(file.subarray(0, SIGNATURE.length), SIGNATURE) === 0;
}

interface Chunk {
  readonly kind: string;
  readonly data: Uint8Array;
  /** With length, kind and check sum. */
  readonly whole: Uint8Array;
}

function chunksOf(file: Uint8Array): readonly Chunk[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const chunks: Chunk[] = [];
  for (let at = SIGNATURE.length; at + 12 <= file.length; ) {
    const length = view.getUint32(at);
    const end = at + 12 + length;
    if (end > file.length) break;
    const kind = String.fromCharCode(...file.subarray(at + 4, at + 8));
    if (NEEDED.has(kind)) chunks.push({ kind, data: file.subarray(at + 8, end - 4), whole: file.subarray(at, end) });
    if (kind === "IEND") return chunks;
    at = end;
  }
  throw unreadable("the file is cut short");
}

/** Refuses pictures that would need much memory, before any of it is taken (PNG §11.2.2, §10). */
function checkSize(chunks: readonly Chunk[]): void {
  const [head, ...rest] = chunks;
  if (head?.kind !== "IHDR" || head.data.length !== 13) throw unreadable("its head is damaged");
  const view = new DataView(head.data.buffer, head.data.byteOffset, head.data.byteLength);
  const pixels = view.getUint32(0) * view.getUint32(4);
  if (pixels < 1 || pixels > PNG_LIMITS.pixels) throw unreadable(`a picture has at most ${PNG_LIMITS.pixels} pixels`);
  if (rest.some(({ kind }) => kind === "IHDR")) throw unreadable("it has two heads");
  const packed = concat(...chunks.filter(({ kind }) => kind === "IDAT").map(({ data }) => data));
  try {
    // eight bytes a pixel at most, and a filter byte for each of at most as many rows
    inflateSync(packed, { maxOutputLength: pixels * 9 + 4_096 });
  } catch {
    throw unreadable("its picture is damaged, or larger than it says");
  }
}

/**
 * Reads the one QR code of a PNG.
 *
 * @param file At most 8 MiB. @throws Fault bad_input; its text has nothing of the code
 */
export async function readQrPng(file: Uint8Array): Promise<string> {
  if (!isPng(file)) throw unreadable("it is no PNG");
  if (file.length > PNG_LIMITS.fileBytes) throw unreadable(`a file has at most ${PNG_LIMITS.fileBytes} bytes`);
  const chunks = chunksOf(file);
  checkSize(chunks);
  const { convertIndexedToRgb, decode } = await import("fast-png");
  const { decodeQR } = await import("qr/decode.js");
  try {
    const png = decode(concat(SIGNATURE, ...chunks.map(({ whole }) => whole)));
    const indexed = png.palette !== undefined;
    const samples = indexed ? convertIndexedToRgb(png) : png.data;
    const channels = indexed ? samples.length / (png.width * png.height) : png.channels;
    const data = rgba(samples, channels, indexed ? 8 : png.depth);
    return decodeQR({ width: png.width, height: png.height, data });
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw unreadable("there is no QR code to be found in it");
  }
}

/** Samples of 1 to 4 channels as bytes of red, green, blue, opacity, on white. */
function rgba(samples: ArrayLike<number>, channels: number, depth: number): Uint8Array {
  const scale = 255 / (2 ** (depth < 8 ? depth : depth === 16 ? 16 : 8) - 1);
  const count = Math.floor(samples.length / channels);
  const out = new Uint8Array(count * 4);
  const at = (index: number): number => (samples[index] ?? 0) * scale;
  for (let i = 0; i < count; i++) {
    const from = i * channels;
    const opacity = channels === 2 || channels === 4 ? at(from + channels - 1) / 255 : 1;
    for (let c = 0; c < 3; c++) {
      const colour = at(from + (channels < 3 ? 0 : c));
      out[i * 4 + c] = Math.round(colour * opacity + 255 * (1 - opacity));
    }
    out[i * 4 + 3] = 255;
  }
  return out;
}
