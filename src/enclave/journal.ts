import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { equalBytes } from "../crypto/bytes.ts";
import type { CanonValue } from "../crypto/canon.ts";
import { macCanon } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { AnyHashId, FederatedKeyId, FederatedRequestId } from "../ids.ts";
import type { Amount } from "../protocol/federation/request.ts";
import {
  bytes,
  decodeJson,
  encodeJson,
  hashIdOf,
  nullable,
  oneOf,
  struct,
  tagged,
  text,
  u53,
  uint,
} from "../wire/codec.ts";
import { fileFault, shown } from "../wire/keyfiles.ts";
import { hash32 } from "../wire/records.ts";

/** What an enclave must not forget (docs/protocol.md §8.8). */
export interface Attempted {
  readonly requestId: FederatedRequestId;
  /** The newest attempt that was begun: no earlier one, nor this one again after a restart. */
  readonly attempt: number;
  /** As policies name it. */
  readonly action: string;
  readonly requester: Uint8Array;
  /** Of uses and resharings. */
  readonly keyId: FederatedKeyId | null;
  readonly amount: Amount | null;
  /** When the first attempt began. */
  readonly atMs: number;
}

/**
 * What only goes up: a federation's epoch, a key's generation, a policy's version, a request's accepted attempt; when
 * the entries that freeze and end a ceremony were signed, and the version of a replaced key (docs/protocol.md §10.1);
 * the counter with which a stored key left, and that one came (§10.8); when this journal was put back from a backup
 * (§8.8).
 */
const MARK_SCOPES = [
  "federation",
  "key",
  "policy",
  "request",
  "freeze",
  "end",
  "version",
  "moved",
  "arrived",
  "restore",
] as const;
export type MarkScope = (typeof MARK_SCOPES)[number];

export interface Mark {
  readonly scope: MarkScope;
  readonly id: AnyHashId;
  readonly number: number;
  /** Hash of what has this number, 32 bytes. */
  readonly hash: Uint8Array;
}

/** The enclave's only memory across restarts: appended to, each record authenticated and chained. */
export interface Journal {
  /** Durable on return. @throws Fault storage; afterwards nothing is accepted until a restart */
  attempted(record: Attempted): void;
  /** Durable on return. A lower number is refused, another hash under the same one too. @throws Fault stale, conflict, storage */
  mark(mark: Mark): void;
  /** The newest mark of a scope. */
  marked(scope: MarkScope, id: AnyHashId): Mark | undefined;
  attemptOf(requestId: FederatedRequestId): Attempted | undefined;
  /** Requests begun at `sinceMs` or later, for `rate` conditions. */
  since(sinceMs: number): readonly Attempted[];
  close(): void;
}

const amount = struct({ unit: text({ min: 1, max: 32 }), value: text({ min: 1, max: 40 }) });
const attemptedCodec = struct({
  requestId: hashIdOf<FederatedRequestId>(),
  attempt: uint(1_000, 1),
  action: text({ min: 1, max: 32 }),
  requester: hash32,
  keyId: nullable(hashIdOf<FederatedKeyId>()),
  amount: nullable(amount),
  atMs: u53,
});
const markCodec = struct({
  scope: oneOf(MARK_SCOPES),
  id: hashIdOf<AnyHashId>(),
  number: u53,
  hash: hash32,
});
const lineCodec = struct({
  entry: tagged("kind", { attempted: attemptedCodec, mark: markCodec }),
  mac: bytes({ length: 32 }),
});
type Entry = ({ readonly kind: "attempted" } & Attempted) | ({ readonly kind: "mark" } & Mark);

const NEWLINE = 10;
const START = new Uint8Array(32);

function parts(e: Entry): CanonValue[] {
  if (e.kind === "mark") return [e.kind, e.scope, e.id, e.number, e.hash];
  const amountParts = e.amount && [e.amount.unit, e.amount.value];
  return [e.kind, e.requestId, e.attempt, e.action, e.requester, e.keyId, amountParts, e.atMs];
}

const macOf = (key: Uint8Array, before: Uint8Array, entry: Entry): Uint8Array =>
  macCanon(key, "keyhold/v1/enclave-journal", before, ...parts(entry));

interface Known {
  readonly attempts: Map<FederatedRequestId, Attempted>;
  /** The same ones as they began. */
  readonly begun: Attempted[];
  readonly marks: Map<string, Mark>;
}

const markKey = (scope: MarkScope, id: AnyHashId): string => `${scope}:${id}`;

function apply(known: Known, entry: Entry): void {
  if (entry.kind === "mark") {
    const { kind: _, ...mark } = entry;
    known.marks.set(markKey(mark.scope, mark.id), mark);
    return;
  }
  const { kind: _, ...record } = entry;
  const first = known.attempts.get(record.requestId);
  known.attempts.set(record.requestId, first ? { ...record, atMs: first.atMs } : record);
  if (first === undefined) known.begun.push(record);
}

const damaged = (path: string, why: string) =>
  new Fault("corrupt", `cannot use the journal ${shown(path)}`, {
    why,
    hint: "somebody changed the enclave's memory of what it has done: see docs/operations.md",
  });

/** Reads and checks every record; gives where the last whole one ends. */
function replay(path: string, key: Uint8Array, content: Uint8Array, known: Known): { end: number; last: Uint8Array } {
  let last: Uint8Array = START;
  let at = 0;
  for (let line = 1; ; line++) {
    const end = content.indexOf(NEWLINE, at);
    // what a crash cut off was never acted on: the record is durable before anything leaves
    if (end < 0) return { end: at, last };
    let read: { entry: Entry; mac: Uint8Array };
    try {
      read = decodeJson(lineCodec, content.subarray(at, end));
    } catch {
      throw damaged(path, `line ${line} is malformed`);
    }
    if (!equalBytes(read.mac, macOf(key, last, read.entry))) throw damaged(path, `line ${line} is not its own`);
    apply(known, read.entry);
    last = read.mac;
    at = end + 1;
  }
}

function readAll(fd: number): Uint8Array {
  const out = new Uint8Array(fstatSync(fd).size);
  for (let at = 0; at < out.length; ) {
    const got = readSync(fd, out, at, out.length - at, at);
    if (got === 0) return out.subarray(0, at);
    at += got;
  }
  return out;
}

/**
 * Opens the journal of an enclave and checks it from its first record to the last; a torn tail is cut off. That its
 * end is missing cannot be seen: freshness against whoever rolls the files back is not claimed.
 *
 * @param key The enclave's journal key, 32 bytes; stays the caller's.
 * @throws Fault corrupt when a record was changed, put in, taken out or moved; not_found, denied, storage
 */
export function openJournal(path: string, key: Uint8Array): Journal {
  const known: Known = { attempts: new Map(), begun: [], marks: new Map() };
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW);
  } catch (error) {
    throw fileFault(error, "open the journal", path);
  }
  let last: Uint8Array;
  try {
    const content = readAll(fd);
    const found = replay(path, key, content, known);
    last = found.last;
    if (found.end < content.length) {
      ftruncateSync(fd, found.end);
      fsyncSync(fd);
    }
  } catch (error) {
    closeSync(fd);
    throw fileFault(error, "read the journal", path);
  }
  let broken = false;
  let closed = false;

  function append(entry: Entry): void {
    if (broken) throw new Fault("storage", "the enclave's journal cannot be written");
    const mac = macOf(key, last, entry);
    const line = new TextEncoder().encode(`${encodeJson(lineCodec, { entry, mac })}\n`);
    try {
      for (let at = 0; at < line.length; ) at += writeSync(fd, line, at);
      fsyncSync(fd);
    } catch (error) {
      // it may be there in part or whole: only a start that reads it again knows
      broken = true;
      throw fileFault(error, "write the journal", path);
    }
    last = mac;
    apply(known, entry);
  }

  return {
    attempted: (record) => append({ kind: "attempted", ...record }),
    mark(mark) {
      const newest = known.marks.get(markKey(mark.scope, mark.id));
      if (newest !== undefined) {
        if (mark.number < newest.number) throw new Fault("stale", `this ${mark.scope} has moved on`);
        if (mark.number === newest.number) {
          if (equalBytes(mark.hash, newest.hash)) return;
          throw new Fault("conflict", `two versions of one ${mark.scope}`);
        }
      }
      append({ kind: "mark", ...mark });
    },
    marked: (scope, id) => known.marks.get(markKey(scope, id)),
    attemptOf: (requestId) => known.attempts.get(requestId),
    // all of them: where the clock was put back, later ones stand before earlier ones
    since: (sinceMs) => known.begun.filter(({ atMs }) => atMs >= sinceMs),
    close() {
      if (closed) return;
      closed = true;
      broken = true;
      closeSync(fd);
    },
  };
}
