import { MASK_MIN_BYTES, maskedForms } from "./maskforms.ts";

/** A value that must not be shown, and the text that stands in for it. */
export interface MaskedValue {
  readonly value: Uint8Array;
  readonly label: string;
}

/** Replaces values in a stream of bytes, wherever the stream is cut. */
export interface Masker {
  /** Takes a piece of the stream; gives what can be shown now. */
  push(chunk: Uint8Array): Uint8Array;
  /** True while the end of what was pushed is held back, since a value may begin with it. */
  readonly holding: boolean;
  /** What may be shown while nothing more comes: all but the long beginning of a value. */
  pause(): Uint8Array;
  /** The rest, at the end of the stream. */
  end(): Uint8Array;
}

interface Pattern {
  readonly bytes: Uint8Array;
  readonly label: Uint8Array;
}

const EMPTY = new Uint8Array(0);

/**
 * Makes a masker for the forms of {@link maskedForms} of all values of at least 4 bytes. Overlapping values are
 * replaced as one.
 */
export function createMasker(values: readonly MaskedValue[]): Masker {
  const index = indexOf(patternsOf(values));
  if (index === null) return { push: (chunk) => chunk, holding: false, pause: () => EMPTY, end: () => EMPTY };
  let buffer: Uint8Array = EMPTY;
  // bytes at the start of the buffer that were shown: a value may have begun in them
  let shown = 0;
  const scan = (how: "more" | "pause" | "end"): Uint8Array => {
    const done = scanBuffer(index, buffer, shown, how);
    const rest = buffer.slice(done.keepFrom);
    buffer.fill(0);
    buffer = rest;
    shown = done.shown - done.keepFrom;
    return done.out;
  };
  return {
    push(chunk) {
      const joined = new Uint8Array(buffer.length + chunk.length);
      joined.set(buffer);
      joined.set(chunk, buffer.length);
      buffer.fill(0);
      buffer = joined;
      return scan("more");
    },
    get holding() {
      return buffer.length > shown;
    },
    pause: () => scan("pause"),
    end: () => scan("end"),
  };
}

interface Scanned {
  readonly out: Uint8Array;
  /** Where the bytes that are still needed begin. */
  readonly keepFrom: number;
  /** Up to where the buffer is shown or replaced. */
  readonly shown: number;
}

function scanBuffer(index: Index, buffer: Uint8Array, from: number, how: "more" | "pause" | "end"): Scanned {
  const out: Uint8Array[] = [];
  const length = buffer.length;
  let shown = from;
  let keepFrom = length;
  let cover: { start: number; end: number; label: Uint8Array } | null = null;
  const showTo = (to: number) => {
    if (to > shown) {
      out.push(buffer.slice(shown, to));
      shown = to;
    }
  };
  const closeCover = () => {
    if (cover !== null && cover.end > shown) {
      out.push(cover.label);
      shown = cover.end;
    }
    cover = null;
  };
  for (let at = 0; at < length; at++) {
    if (cover !== null && at >= cover.end) closeCover();
    const found = matchAt(index, buffer, at);
    if (found !== null) {
      const end = at + found.bytes.length;
      if (cover === null) {
        showTo(at);
        cover = { start: at, end, label: found.label };
      } else if (end > cover.end) cover.end = end;
    }
    const begun = how === "end" ? "no" : beginsAt(index, buffer, at);
    if (begun !== "no") keepFrom = Math.min(keepFrom, at);
    if (begun === "much" || (begun === "little" && how === "more")) {
      if (how === "pause") closeCover();
      if (cover === null) showTo(Math.max(at, shown));
      else keepFrom = Math.min(keepFrom, cover.start);
      return { out: joined(out), keepFrom: Math.min(keepFrom, shown), shown };
    }
  }
  closeCover();
  showTo(length);
  return { out: joined(out), keepFrom, shown };
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const [only, second] = parts;
  if (only === undefined) return EMPTY;
  return second === undefined ? only : Buffer.concat(parts);
}

/** Patterns by their beginnings. */
interface Index {
  readonly all: readonly Pattern[];
  readonly longest: number;
  /** By the first byte, and by the first two. */
  readonly one: Uint8Array;
  readonly two: Uint8Array;
  /** By the first four bytes, longest first. */
  readonly four: ReadonlyMap<number, readonly Pattern[]>;
}

function indexOf(patterns: readonly Pattern[]): Index | null {
  if (patterns.length === 0) return null;
  const one = new Uint8Array(256);
  const two = new Uint8Array(65_536);
  const four = new Map<number, Pattern[]>();
  const all = patterns.toSorted((a, b) => b.bytes.length - a.bytes.length);
  for (const pattern of all) {
    const { bytes } = pattern;
    one[bytes[0] ?? 0] = 1;
    two[twoAt(bytes, 0)] = 1;
    const key = fourAt(bytes, 0);
    const known = four.get(key);
    if (known) known.push(pattern);
    else four.set(key, [pattern]);
  }
  return { all, longest: all[0]?.bytes.length ?? 0, one, two, four };
}

function twoAt(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function fourAt(bytes: Uint8Array, at: number): number {
  return (twoAt(bytes, at) * 65_536 + twoAt(bytes, at + 2)) >>> 0;
}

/** The longest pattern that stands at a place. */
function matchAt(index: Index, buffer: Uint8Array, at: number): Pattern | null {
  if (index.two[twoAt(buffer, at)] !== 1 || at + MASK_MIN_BYTES > buffer.length) return null;
  for (const pattern of index.four.get(fourAt(buffer, at)) ?? []) {
    const { length } = pattern.bytes;
    if (at + length <= buffer.length && same(pattern.bytes, buffer, at, length)) return pattern;
  }
  return null;
}

/** Whether the buffer ends in the beginning of a pattern, and whether it is so much that it may not be shown. */
function beginsAt(index: Index, buffer: Uint8Array, at: number): "no" | "little" | "much" {
  const rest = buffer.length - at;
  if (rest >= index.longest || index.one[buffer[at] ?? 0] !== 1) return "no";
  if (rest >= 2 && index.two[twoAt(buffer, at)] !== 1) return "no";
  const candidates = rest >= MASK_MIN_BYTES ? (index.four.get(fourAt(buffer, at)) ?? []) : index.all;
  let begun: "no" | "little" = "no";
  for (const { bytes } of candidates) {
    if (bytes.length <= rest || !same(bytes, buffer, at, rest)) continue;
    if (rest > allowance(bytes.length)) return "much";
    begun = "little";
  }
  return begun;
}

function same(pattern: Uint8Array, buffer: Uint8Array, at: number, length: number): boolean {
  return Buffer.compare(pattern.subarray(0, length), buffer.subarray(at, at + length)) === 0;
}

/** How much of a value's beginning may be shown in a pause: a prompt may end in the same letters. */
function allowance(length: number): number {
  return Math.min(16, Math.floor(length / 4));
}

function patternsOf(values: readonly MaskedValue[]): Pattern[] {
  const forms = new Map<string, { bytes: Uint8Array; label: string }>();
  for (const { value, label } of values) {
    for (const bytes of maskedForms(value)) {
      const key = Buffer.from(bytes).toString("latin1");
      if (!forms.has(key)) forms.set(key, { bytes, label });
    }
  }
  const all = [...forms.values()];
  const encoder = new TextEncoder();
  // a name may be the value itself
  const harmless = (text: string) => !all.some(({ bytes }) => Buffer.from(text).includes(bytes));
  const labels = new Map<string, Uint8Array>();
  return all.map(({ bytes, label }) => {
    const shown = labels.get(label) ?? encoder.encode([label, "<hidden>", "###"].find(harmless) ?? "");
    labels.set(label, shown);
    return { bytes, label: shown };
  });
}
