import { createHash } from "node:crypto";
import { equalBytes, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { verifySignature } from "../crypto/identity.ts";
import { verifyInclusion } from "../crypto/tree.ts";
import { Fault } from "../errors.ts";
import type { DeviceId } from "../ids.ts";
import { type AuditHead, auditLink, auditPseudonym, continueAudit } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { logOrigin, openCheckpoint, positionLeaf, promiseHolds } from "../protocol/log.ts";
import { handoverBytes, type SignedState, stateBytes, stateHash } from "../protocol/state.ts";
import { canonicalJson } from "../wire/canonicaljson.ts";
import type { Codec, Json } from "../wire/codec.ts";
import { pinOf } from "../wire/pin.ts";
import { statementBytes } from "../wire/statement.ts";
import {
  type AuditFileHeader,
  type AuditLine,
  type AuditLineKind,
  auditLine,
  auditLines,
  headerBytes,
} from "./auditfile.ts";
import { matching } from "./auditmatch.ts";

/** What a file proves, and what in it is only the server's word. */
export interface AuditFileReport {
  readonly size: number;
  readonly headHex: string;
  readonly verifiedFrom: 0;
  readonly ok: true;
  readonly account: string;
  /** The account identity that signed the file. */
  readonly identityHex: string;
  /** Pin of the server whose log it is. */
  readonly pin: string;
  readonly exportedAt: string;
  /** Entries that a signed state stands behind, and the states; how many a device listed now has signed too. */
  readonly signed: { readonly entries: number; readonly states: number; readonly byListedDevice: number };
  /** Entries that are the server's testimony alone: time, action and status are so in all. */
  readonly testimony: number;
  /** The checkpoint, and the newest entry that its tree holds; null before the account's first batch. */
  readonly log: {
    readonly size: number;
    readonly rootHex: string;
    readonly index: number;
    readonly seq: number;
  } | null;
  /** Promises that the log had not kept when the file was written. */
  readonly promises: number;
}

/** Reads a file line by line. @throws Fault integrity naming the line */
export interface AuditReader {
  /** One line without its newline. */
  line(text: string): void;
  /** The last line that makes the lines so far a whole file. */
  ending(): string;
  /** @throws Fault integrity for a file that was cut off */
  end(): AuditFileReport;
}

const refused = (line: number, why: string): Fault =>
  new Fault("integrity", `this is not an unchanged export: line ${line}`, { why });

/** The order of the kinds in a file. */
const ORDER: readonly AuditLineKind[] = ["header", "log", "promise", "state", "entry", "end"];

interface Mark {
  readonly link: Uint8Array;
  readonly line: number;
  readonly what: string;
}

interface Seen {
  readonly header: AuditFileHeader;
  readonly states: SignedState[];
  /** Positions that the chain must pass through, by sequence, with the line that says so. */
  readonly marks: Map<number, Mark[]>;
  head: AuditHead;
  signed: number;
  byListedDevice: number;
  promises: number;
  log: AuditFileReport["log"];
}

/** Makes a reader of one file: without a server, a vault or a password (docs/protocol.md §6.4). */
export function createAuditReader(): AuditReader {
  const digest = createHash("sha256");
  let lines = 0;
  let at: AuditLineKind | null = null;
  let seen: Seen | null = null;
  let match: ReturnType<typeof matching> | null = null;

  function take(kind: AuditLineKind, value: unknown): void {
    if (kind === "header") {
      seen = openHeader(value as AuditLine<"header">);
      return;
    }
    if (!seen) throw new Fault("integrity", "the header is missing");
    if (kind === "log") takeLog(seen, value as AuditLine<"log">, lines);
    if (kind === "promise") takePromise(seen, value as AuditLine<"promise">, lines);
    if (kind === "state") takeState(seen, value as AuditLine<"state">, lines);
    if (kind === "entry") {
      match ??= matching(seen.states);
      takeEntry(seen, match, value as AuditLine<"entry">);
    }
    if (kind === "end") takeEnd(value as AuditLine<"end">);
  }

  function takeEnd({ lines: count, sha256 }: AuditLine<"end">): void {
    if (count !== lines) throw new Fault("integrity", `it names ${count} lines, there are ${lines}`);
    if (!equalBytes(sha256, new Uint8Array(digest.copy().digest()))) {
      throw new Fault("integrity", "the lines before are not those that were written");
    }
    if (seen) complete(seen, match?.matched() ?? 0);
  }

  return {
    line(text) {
      lines += 1;
      try {
        const { kind, value } = parse(text);
        const step = ORDER.indexOf(kind) - (at === null ? -1 : ORDER.indexOf(at));
        const again = kind === at && (kind === "promise" || kind === "state" || kind === "entry");
        if (at === "end") throw new Fault("integrity", "there is something after the end");
        if (!again && (step < 1 || (at === null && kind !== "header") || (at === "header" && kind !== "log"))) {
          throw new Fault("integrity", `a line of kind "${kind}" does not belong here`);
        }
        take(kind, value);
        at = kind;
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        throw refused(lines, error.why ?? error.message);
      }
      digest.update(`${text}\n`);
    },
    ending: () =>
      auditLine("end", { kind: "end", lines: lines + 1, sha256: new Uint8Array(digest.copy().digest()) }).trimEnd(),
    end() {
      if (at !== "end" || !seen) {
        throw new Fault("integrity", `this export is cut off after line ${lines}`, { why: "its last line is missing" });
      }
      return reportOf(seen);
    },
  };
}

function parse(text: string): { kind: AuditLineKind; value: unknown } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Fault("integrity", "it is no JSON");
  }
  const kind = typeof json === "object" && json !== null && "kind" in json ? json.kind : null;
  if (typeof kind !== "string" || !Object.hasOwn(auditLines, kind)) throw new Fault("integrity", "its kind is unknown");
  const known = kind as AuditLineKind;
  const value = (auditLines[known] as unknown as Codec<unknown>).decode(json, known);
  if (canonicalJson(json as Json) !== text) throw new Fault("integrity", "it is not in canonical form");
  return { kind: known, value };
}

function openHeader({ header, signature }: AuditLine<"header">): Seen {
  const { identity, statement, origin, account, rotations } = header;
  if (!verifySignature(identity, headerBytes(header), signature)) {
    throw new Fault("integrity", "the account identity did not sign this header");
  }
  rotations.forEach((rotation, i) => {
    const next = rotations[i + 1]?.identity ?? identity;
    const handed = handoverBytes(account, rotation.identity, next, rotation.revision);
    if (!verifySignature(rotation.identity, handed, rotation.handover)) {
      throw new Fault("integrity", `identity ${i + 1} did not hand over to the next one`);
    }
  });
  if (!verifySignature(statement.identity, statementBytes(statement), statement.signature)) {
    throw new Fault("integrity", "the server's statement does not carry its identity's signature");
  }
  if (origin !== logOrigin(statement.identity, statement.incarnation)) {
    throw new Fault("integrity", "the log's origin is not that of this server and incarnation");
  }
  const head = { seq: 0, link: ZERO_HASH_BYTES };
  return { header, states: [], marks: new Map(), head, signed: 0, byListedDevice: 0, promises: 0, log: null };
}

function addMark(seen: Seen, seq: number, mark: Mark): void {
  const known = seen.marks.get(seq) ?? [];
  if (!known.some(({ link }) => equalBytes(link, mark.link))) seen.marks.set(seq, [...known, mark]);
}

const otherMark = ({ line, what }: Mark): Fault => new Fault("integrity", `line ${line}: ${what} is another one here`);

function takeLog(seen: Seen, { checkpoint: note, logged }: AuditLine<"log">, line: number): void {
  const { origin, statement, account } = seen.header;
  const checkpoint = openCheckpoint(note, origin, statement.logKey);
  if (!checkpoint) throw new Fault("integrity", "the checkpoint is not signed by the server's log key");
  if (!logged) return;
  const { salt, seq, link, index, inclusion } = logged;
  const { size, root } = checkpoint;
  const leaf = positionLeaf({ pseudonym: auditPseudonym(account, salt), seq, link });
  if (!verifyInclusion(leaf, index, size, inclusion, root)) {
    throw new Fault("integrity", "the proof does not hold this account's entry");
  }
  seen.log = { size, rootHex: root.toHex(), index, seq };
  addMark(seen, seq, { link, line, what: "the entry in the server-wide log" });
}

function takePromise(seen: Seen, { salt, seq, link, atMs, signature }: AuditLine<"promise">, line: number): void {
  const { origin, statement, account } = seen.header;
  const promised = { origin, pseudonym: auditPseudonym(account, salt), seq, link, atMs };
  if (!promiseHolds(statement.logKey, promised, signature)) {
    throw new Fault("integrity", "the promise is not signed by the server's log key");
  }
  seen.promises += 1;
  addMark(seen, seq, { link, line, what: "the promised entry" });
}

/** The identity that signed the state of a revision: each one signed until the next rotation. */
function identityAt({ rotations, identity }: AuditFileHeader, revision: number): Uint8Array {
  return rotations.find((rotation) => rotation.revision > revision)?.identity ?? identity;
}

function takeState(seen: Seen, { signed }: AuditLine<"state">, line: number): void {
  const { header, states } = seen;
  const { state } = signed;
  const previous = states.at(-1);
  const link = previous ? stateHash(previous.state) : ZERO_HASH_BYTES;
  if (state.userId !== header.account) throw new Fault("integrity", "the state is another account's");
  if (state.revision !== states.length + 1 || !equalBytes(state.previous, link)) {
    throw new Fault("integrity", `the states break at revision ${states.length + 1}`);
  }
  const message = stateBytes(state);
  // the oldest of very many rotations are left out: such states are proven by those that link to them
  const [oldest] = header.rotations;
  const known = header.rotations.length < DEFAULTS.rotations || state.revision >= (oldest?.revision ?? 0);
  if (known && !verifySignature(identityAt(header, state.revision), message, signed.identitySignature)) {
    throw new Fault("integrity", `the account identity did not sign the state of revision ${state.revision}`);
  }
  const device = header.devices.find(({ id }: { id: DeviceId }) => id === state.deviceId);
  if (device && !verifySignature(device.publicKey, message, signed.deviceSignature)) {
    throw new Fault("integrity", `the device did not sign the state of revision ${state.revision}`);
  }
  if (device) seen.byListedDevice += 1;
  if (state.auditSeq > 0) {
    addMark(seen, state.auditSeq, { link: state.auditLink, line, what: "the entry that a device had verified" });
  }
  states.push(signed);
}

function takeEntry(seen: Seen, match: ReturnType<typeof matching>, { salted, link }: AuditLine<"entry">): void {
  const { entry } = salted;
  if (!equalBytes(link, auditLink(salted)))
    throw new Fault("integrity", `entry ${entry.seq} is not what its link names`);
  const next = continueAudit(seen.head, seen.header.account, [salted]);
  if (!next.ok) throw new Fault("integrity", `the log breaks at entry ${next.broken.seq} (${next.broken.reason})`);
  if (match.take(salted) === "unknown") {
    throw new Fault("integrity", `entry ${entry.seq} names a change that the owner did not sign`);
  }
  if (entry.stateHash !== null) seen.signed += 1;
  seen.head = next.head;
  for (const mark of seen.marks.get(entry.seq) ?? []) {
    if (!equalBytes(mark.link, link)) throw otherMark(mark);
  }
  seen.marks.delete(entry.seq);
}

/** What only the whole file can show. */
function complete(seen: Seen, matched: number): void {
  const { header, head, states, marks } = seen;
  if (states.length !== header.revision) throw new Fault("integrity", "signed states are missing");
  if (head.seq !== header.size || !equalBytes(head.link, header.head))
    throw new Fault("integrity", "entries are missing");
  if (matched < states.length) throw new Fault("integrity", "a signed change has no entry");
  for (const [mark] of marks.values()) if (mark) throw otherMark(mark);
}

function reportOf({ header, head, states, signed, byListedDevice, promises, log }: Seen): AuditFileReport {
  return {
    size: head.seq,
    headHex: head.link.toHex(),
    verifiedFrom: 0,
    ok: true,
    account: header.account,
    identityHex: header.identity.toHex(),
    pin: pinOf(header.statement.identity),
    exportedAt: new Date(header.exportedAtMs).toISOString(),
    signed: { entries: signed, states: states.length, byListedDevice },
    testimony: head.seq - signed,
    log,
    promises,
  };
}

/** Verifies a whole file. @throws Fault integrity naming the line, or saying that the file was cut off */
export function verifyAuditFile(bytes: Uint8Array): AuditFileReport {
  const reader = createAuditReader();
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let from = 0;
  for (let line = 1; from < bytes.length; line++) {
    const cut = bytes.indexOf(10, from);
    if (cut === -1) {
      throw new Fault("integrity", `this export is cut off in line ${line}`, { why: "the line has no end" });
    }
    let text: string;
    try {
      text = decoder.decode(bytes.subarray(from, cut));
    } catch {
      throw refused(line, "it is no UTF-8");
    }
    reader.line(text);
    from = cut + 1;
  }
  return reader.end();
}
