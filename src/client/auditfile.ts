import { canon } from "../crypto/canon.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { DeviceId, UserId } from "../ids.ts";
import { type AuditHead, auditLink, auditPseudonym } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { logOrigin, promiseHolds } from "../protocol/log.ts";
import { canonicalJson } from "../wire/canonicaljson.ts";
import { type Codec, id, type Json, list, nullable, type Of, oneOf, struct, text, u53, uint } from "../wire/codec.ts";
import { loggedProof, operations } from "../wire/operations.ts";
import { hash32, saltedEntry, signature, signedState } from "../wire/records.ts";
import type { AuditFilePage } from "./api.ts";
import { verifyAll } from "./auditing.ts";
import type { LogProof } from "./checkpoint.ts";
import { boundOf, type Model, signersOf } from "./model.ts";
import { type Online, type Open, online } from "./opened.ts";

/*
 * An account's log as a file (docs/protocol.md §6.4): JSON Lines, each line canonical JSON (RFC 8785). A header that
 * the account identity signed, the log's place in the server-wide log, all signed states, all entries, a last line.
 */

const header = struct({
  kind: oneOf(["header"]),
  format: oneOf(["keyhold-audit"]),
  v: uint(1, 1),
  account: id<UserId>(),
  /** Ed25519 account identity of now, 32 bytes; earlier ones handed over to it. */
  identity: hash32,
  rotations: list(struct({ revision: u53, identity: hash32, handover: signature }), { max: DEFAULTS.rotations }),
  devices: list(struct({ id: id<DeviceId>(), publicKey: hash32 }), { max: DEFAULTS.devicesPerAccount }),
  /** The server's identity, its log key and incarnation, signed by that identity. */
  statement: operations["server.statement"].output,
  origin: text({ min: 1, max: 256 }),
  /** Number of states and of entries, and link of the last entry. */
  revision: u53,
  size: u53,
  head: hash32,
  exportedAtMs: u53,
});

/** Lines of a file, by `kind`. */
export const auditLines = {
  header: struct({ kind: oneOf(["header"]), header, signature }),
  log: struct({
    kind: oneOf(["log"]),
    checkpoint: text({ min: 1, max: 4_096 }),
    logged: nullable(loggedProof),
  }),
  promise: struct({ kind: oneOf(["promise"]), salt: hash32, seq: u53, link: hash32, atMs: u53, signature }),
  state: struct({ kind: oneOf(["state"]), signed: signedState }),
  entry: struct({ kind: oneOf(["entry"]), salted: saltedEntry, link: hash32 }),
  end: struct({ kind: oneOf(["end"]), lines: u53, sha256: hash32 }),
} as const;

/** Kinds of lines. */
export type AuditLineKind = keyof typeof auditLines;
/** A line of one kind. */
export type AuditLine<K extends AuditLineKind> = Of<(typeof auditLines)[K]>;
/** What a file's header says. */
export type AuditFileHeader = Of<typeof header>;

/** One line of a file, its newline included. */
export function auditLine<K extends AuditLineKind>(kind: K, value: AuditLine<K>): string {
  return `${canonicalJson((auditLines[kind] as unknown as Codec<unknown>).encode(value))}\n`;
}

/** What the identity signs of a header. */
export function headerBytes(value: AuditFileHeader): Uint8Array {
  const json: Json = header.encode(value);
  return canon("keyhold/v1/audit-export", sha256(new TextEncoder().encode(canonicalJson(json))));
}

type Place = {
  readonly part: "states" | "entries";
  readonly after: number;
  readonly revision: number;
  readonly size: number;
};

const cursorText = ({ part, after, revision, size }: Place): string => `${part}.${after}.${revision}.${size}`;

function placeOf(cursor: string): Place {
  const [, part, ...numbers] = /^(states|entries)\.(\d{1,15})\.(\d{1,15})\.(\d{1,15})$/.exec(cursor) ?? [];
  const [after, revision, size] = numbers.map(Number);
  if ((part !== "states" && part !== "entries") || after === undefined || revision === undefined || size === undefined)
    throw new Fault("bad_input", "this is not a cursor", { hint: "pass the `next` of the page before" });
  return { part, after, revision, size };
}

/** Page by page the file of the whole log as it was when the first page was asked for, without its last line. */
export function exportAudit(open: Open, cursor: string | null): Promise<AuditFilePage> {
  return online(open, true, async (at) => {
    if (!at) throw new Fault("unreachable", "the log lies on the server");
    if (cursor === null) return firstPage(open, at);
    const place = placeOf(cursor);
    return place.part === "states" ? statesPage(at, place) : entriesPage(at, place);
  });
}

async function firstPage(open: Open, at: Online): Promise<AuditFilePage> {
  const { model } = open.box;
  const { log, verified } = await verifyAll(open, at);
  const { verified: now } = boundOf(model);
  const value = headerOf(model, at, now, open.around.now());
  const signed = {
    kind: "header" as const,
    header: value,
    signature: signersOf(model).identity.sign(headerBytes(value)),
  };
  const lines = [auditLine("header", signed), logLine(log), ...promiseLines(model, now, value)];
  const next = cursorText({ part: "states", after: 0, revision: now.revision, size: now.seq });
  return { text: lines.join(""), next, requestId: verified.requestId };
}

function headerOf(
  model: Model,
  at: Online,
  { seq, link, revision }: AuditHead & { readonly revision: number },
  nowMs: number,
): AuditFileHeader {
  const { settings, userId, serverIdentity, incarnation } = boundOf(model);
  return {
    kind: "header",
    format: "keyhold-audit",
    v: 1,
    account: userId,
    identity: settings.identity,
    rotations: settings.rotations.map(({ revision: made, identity, handover }) => ({
      revision: made,
      identity,
      handover,
    })),
    devices: settings.devices.map(({ id: device, publicKey }) => ({ id: device, publicKey })),
    statement: at.session.statement,
    origin: logOrigin(serverIdentity, incarnation),
    revision,
    size: seq,
    head: link,
    exportedAtMs: nowMs,
  };
}

const logLine = ({ note, logged }: LogProof): string => auditLine("log", { kind: "log", checkpoint: note, logged });

/**
 * Promises that the log had not kept yet, as far as the file reaches. One of a log key that was rotated since proves
 * nothing to who reads the file.
 */
function promiseLines(model: Model, { seq: size }: AuditHead, { origin, statement }: AuditFileHeader): string[] {
  const { userId, log } = boundOf(model);
  const { salt, oldest, newest } = log;
  if (salt === null) return [];
  const pseudonym = auditPseudonym(userId, salt);
  return [oldest, newest]
    .filter((one) => one !== null)
    .filter((one) => one.seq <= size && promiseHolds(statement.logKey, { ...one, origin, pseudonym }, one.signature))
    .map(({ seq, link, atMs, signature: signed }) =>
      auditLine("promise", { kind: "promise", salt, seq, link, atMs, signature: signed }),
    );
}

const withheld = (what: string): Fault =>
  new Fault("integrity", "the account's log was tampered with", { why: `${what} is withheld` });

async function statesPage({ session }: Online, place: Place): Promise<AuditFilePage> {
  const { after, revision } = place;
  const { output, requestId } = await session.call("state.sync", { since: after, after: null, what: "states" });
  const states = output.states.filter(({ state }) => state.revision <= revision);
  const last = states.at(-1)?.state.revision ?? after;
  if (last <= after && after < revision) throw withheld(`the state of revision ${after + 1}`);
  const text = states.map((signed) => auditLine("state", { kind: "state", signed })).join("");
  const done = last >= revision;
  return {
    text,
    next: cursorText(done ? { ...place, part: "entries", after: 0 } : { ...place, after: last }),
    requestId,
  };
}

const WHOLE = { keyId: null, action: null, fromMs: null, untilMs: null, requestId: null } as const;

async function entriesPage({ session }: Online, place: Place): Promise<AuditFilePage> {
  const { after, size } = place;
  if (after >= size) return { text: "", next: null, requestId: null };
  const limit = Math.min(DEFAULTS.auditPage, size - after);
  const { output, requestId } = await session.call("audit.export", { ...WHOLE, after, limit });
  const last = output.entries.at(-1)?.entry.seq ?? after;
  if (last <= after || last > size) throw withheld(`entry ${after + 1}`);
  const text = output.entries
    .map((salted) => auditLine("entry", { kind: "entry", salted, link: auditLink(salted) }))
    .join("");
  return { text, next: last >= size ? null : cursorText({ ...place, after: last }), requestId };
}
