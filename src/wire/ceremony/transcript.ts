import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import { brokenAt, ceremonyState, recordOf } from "../../protocol/ceremony/life.ts";
import type { CeremonyManifest, SignedEntry, Transcript } from "../../protocol/ceremony/model.ts";
import { PARTICIPANTS } from "../../protocol/ceremony/model.ts";
import { canonicalJson } from "../canonicaljson.ts";
import { bytes, type Codec, decodeJson, type Json, oneOf, struct, uint } from "../codec.ts";
import { hash32 } from "../records.ts";
import { ceremonyId, ENTRIES_MAX, signedCeremonyManifest, signedEntry } from "./records.ts";

/** A ceremony as a file: JSON Lines, each in its one canonical form (docs/protocol.md §10.5). */

/** Bytes of a transcript's file at most. */
export const TRANSCRIPT_MAX_BYTES = 16 * 1_024 * 1_024;
const NEWLINE = 0x0a;

const firstLine = struct({ format: oneOf(["keyhold-ceremony-transcript/1"]), ceremony: signedCeremonyManifest });
/** How many entries, and SHA-256 of all bytes before this line: shows cuts, proves nothing that signatures do not. */
const lastLine = struct({ entries: uint(ENTRIES_MAX), sha256: hash32 });

const lineOf = <T>(codec: Codec<T>, value: T): string => `${canonicalJson(codec.encode(value) as Json)}\n`;

/** The file of a transcript. */
export function encodeTranscript({ manifest, entries }: Transcript): Uint8Array {
  const lines = [
    lineOf(firstLine, { format: "keyhold-ceremony-transcript/1", ceremony: manifest }),
    ...entries.map((entry) => lineOf(signedEntry, entry)),
  ];
  const body = Buffer.from(lines.join(""));
  const end = Buffer.from(lineOf(lastLine, { entries: entries.length, sha256: sha256(body) }));
  return new Uint8Array(Buffer.concat([body, end]));
}

/** Reads one line and writes it again: only the bytes that are meant will do. @throws Fault integrity */
function readLine<T>(codec: Codec<T>, line: Uint8Array, number: number, record: string): T {
  let value: T;
  try {
    value = decodeJson(codec, line);
  } catch (error) {
    if (error instanceof Fault) throw brokenAt(number, record, `it cannot be read: ${error.message}`);
    throw error;
  }
  if (lineOf(codec, value) === `${Buffer.from(line).toString()}\n`) return value;
  throw brokenAt(number, record, "it is not written in the one form that a transcript has");
}

/** Without the newlines; what follows the last newline is a cut line. @throws Fault integrity, too_large */
function linesOf(file: Uint8Array): readonly Uint8Array[] {
  if (file.length > TRANSCRIPT_MAX_BYTES) {
    throw new Fault("too_large", "a transcript has at most 16 MiB", { hint: "is this the right file?" });
  }
  const lines: Uint8Array[] = [];
  for (let at = 0; at < file.length; ) {
    const end = file.indexOf(NEWLINE, at);
    if (end < 0) throw brokenAt(lines.length + 1, "end of the file", "it ends in the middle of a line");
    lines.push(file.subarray(at, end));
    at = end + 1;
    if (lines.length > ENTRIES_MAX + 2) throw brokenAt(lines.length, "end", "no ceremony has so many records");
  }
  return lines;
}

/** True for the last line of a whole file, in whatever state: it has no signature. */
const isLast = (line: Uint8Array): boolean => !Buffer.from(line).includes('"signature"');

/** A file that ends, and goes on after its end. @throws Fault integrity naming the first line too many */
function demandEnd(file: Uint8Array, lines: readonly Uint8Array[]): void {
  const at = lines.findIndex((line, index) => index > 0 && isLast(line));
  const line = lines[at];
  if (line === undefined || at === lines.length - 1) return;
  const before = lines.slice(0, at).reduce((sum, { length }) => sum + length + 1, 0);
  const end = lineOf(lastLine, { entries: at - 1, sha256: sha256(file.subarray(0, before)) });
  if (`${Buffer.from(line).toString()}\n` !== end) return;
  throw brokenAt(at + 2, "after the end", "nothing follows the last line");
}

/**
 * Reads a transcript's file. It is whole and each line is in its one form; what it says is `verifyTranscript`'s to judge.
 *
 * @throws Fault integrity that names line and record; too_large
 */
export function decodeTranscript(file: Uint8Array): Transcript {
  const lines = linesOf(file);
  const [first] = lines;
  demandEnd(file, lines);
  if (!first) throw brokenAt(1, "manifest", "the file is empty");
  const { ceremony: manifest } = readLine(firstLine, first, 1, "manifest");
  const last = lines.at(-1);
  const whole = last !== undefined && lines.length > 1 && isLast(last);
  const entries = lines
    .slice(1, whole ? -1 : undefined)
    .map((line, at) => readLine(signedEntry, line, at + 2, "entry"));
  const transcript: Transcript = { manifest, entries };
  if (!whole || last === undefined) throw located(transcript) ?? cutAfter(lines.length, manifest.manifest, entries);
  const end = readLine(lastLine, last, lines.length, "last line");
  const before = file.subarray(0, file.length - last.length - 1);
  if (end.entries === entries.length && Buffer.compare(end.sha256, sha256(before)) === 0) return transcript;
  throw located(transcript) ?? brokenAt(lines.length, "last line", "it does not count and hash the lines before it");
}

/** The first record that does not hold by itself: closer to the change than the last line. */
function located(transcript: Transcript): Fault | null {
  try {
    ceremonyState(transcript, 0);
    return null;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
}

function cutAfter(line: number, manifest: CeremonyManifest, entries: readonly SignedEntry[]): Fault {
  const last = entries.at(-1);
  const record = last ? recordOf(manifest, last.entry.body) : "manifest";
  return brokenAt(line + 1, "last line", `the file ends early, after the ${record}`);
}

/** What a participant keeps of a ceremony until it may be seen: 32 bytes, secret before the end. */
export interface OpeningFile {
  readonly ceremonyId: CeremonyId;
  readonly index: number;
  readonly opening: Uint8Array;
}

const openingLine = struct({
  format: oneOf(["keyhold-ceremony-opening/1"]),
  ceremonyId,
  index: uint(PARTICIPANTS.max, 1),
  opening: bytes({ length: 32 }),
});

/** An opening as a file: one line. The caller's to wipe. */
export function encodeOpening(opening: OpeningFile): Uint8Array {
  return new TextEncoder().encode(lineOf(openingLine, { format: "keyhold-ceremony-opening/1", ...opening }));
}

/** @returns `opening` is the caller's to wipe. @throws Fault bad_input */
export function decodeOpening(file: Uint8Array): OpeningFile {
  try {
    const { format: _, ...opening } = decodeJson(openingLine, file);
    return opening;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("bad_input", "this is not the file of an opening", {
      hint: "give the file that the participant's own keyhold wrote",
    });
  }
}
