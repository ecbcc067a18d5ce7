import { createHash, type Hash } from "node:crypto";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type KeyId, newId, type RequestId } from "../ids.ts";
import { checkFileFields, type Field, type FileParts } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { isCustodial } from "../protocol/provenance.ts";
import { encodeFile } from "../wire/content.ts";
import type { FileBegin, Written } from "./api.ts";
import { infoOf, liveNamed, newMeta, secretOf, valueChange, withFields } from "./changes.ts";
import type { Change } from "./commit.ts";
import { expiryMs, timeMs } from "./expiry.ts";
import { keepSealed } from "./fileread.ts";
import type { Model, Secret } from "./model.ts";
import { secretName, secretTags } from "./names.ts";
import { type Open, online } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import { endTag, sweepParts } from "./partsweep.ts";
import { type Place, placeOf, reserve, sendFirst, write } from "./placing.ts";
import { readVersion, withheld } from "./reading.ts";
import { changedMeanwhile, nextMeta, storeSecret } from "./writing.ts";

/** Bytes of a part: padded and sealed, two of them fit one request. */
export const PART_BYTES = 45_052;
/** Parts of one request. */
const BATCH = 2;
/** A file of no more bytes is one secret without parts: with fields, and without. */
const WHOLE = { fields: 36_000, bare: 61_440 } as const;
/** The vault keeps a copy of a file up to this size; of a larger one where it is asked for. */
const KEPT_BYTES = 1_048_576;
/** Largest piece that is handed over at once, in bytes. */
export const PIECE_BYTES = 1_048_576;

/** A file that comes in. */
export interface Upload {
  readonly kind: "upload";
  readonly input: FileBegin;
  readonly known: KeyId | undefined;
  readonly seenVersion: number;
  /** True where the version that was seen must still be the newest one. */
  readonly bound: boolean;
  readonly fields: readonly Field[];
  readonly keyId: KeyId;
  readonly lastPart: KeyId;
  readonly place: Place;
  /** Marks the parts of one upload. */
  readonly id: string;
  readonly buffer: Uint8Array;
  buffered: number;
  size: number;
  readonly hash: Hash;
  readonly parts: KeyId[];
  /** Sealed parts for the vault: all there are, while it may keep a copy. */
  sealed: Change[] | null;
  touchedMs: number;
}

/** Refuses an empty file and one that is too large. @throws Fault bad_input, too_large */
export function checkSize(size: number): void {
  if (size === 0) throw new Fault("bad_input", "the file is empty", { hint: "a secret needs a value" });
  if (size > DEFAULTS.fileBytes) {
    throw new Fault("too_large", `a file has at most ${DEFAULTS.fileBytes / 1_048_576} MiB`, { hint: "split it" });
  }
}

/** Begins a file. @throws Fault conflict, too_large, bad_input */
export async function beginUpload(open: Open, given: FileBegin): Promise<Upload> {
  const name = secretName(given.name);
  const input = { ...given, name, tags: secretTags(given.tags) };
  if (given.expiresAt !== undefined) expiryMs(given.expiresAt);
  timeMs(given.createdAt ?? "1970-01-01");
  const away = await sendFirst(open);
  const seen = liveNamed(viewOf(open.box.model), name);
  if (away && placeOf(open, seen, input.where).place === "server") {
    throw new Fault("unreachable", "the server is away, and a file of this size must reach it", {
      hint: "use --store local, or try again later",
    });
  }
  const reserved = await reserve(open, placeOf(open, seen, input.where).place, 2);
  const known = liveNamed(viewOf(open.box.model), name);
  const seenVersion = known?.leaf.version ?? 0;
  if (input.ifVersion !== undefined && input.ifVersion !== seenVersion) throw changedMeanwhile();
  const fields = input.fields ?? (await fieldsOf(open, known));
  checkFileFields(fields);
  const [first, second] = reserved;
  if (!first || !second) throw new Fault("internal", "no id was reserved");
  return {
    kind: "upload",
    input,
    known: known?.leaf.keyId,
    seenVersion,
    bound: input.ifVersion !== undefined || (input.fields === undefined && fields.length > 0),
    fields,
    keyId: known?.leaf.keyId ?? first.keyId,
    lastPart: second.keyId,
    place: placeOf(open, known, input.where).place,
    id: open.around.random(16).toHex(),
    buffer: new Uint8Array((BATCH + 1) * PART_BYTES),
    buffered: 0,
    size: 0,
    hash: createHash("sha256"),
    parts: [],
    sealed: [],
    touchedMs: open.around.now(),
  };
}

async function fieldsOf(open: Open, known: Secret | undefined): Promise<readonly Field[]> {
  if (!known?.meta || known.meta.form === "raw") return [];
  const read = await online(open, false, (at) =>
    withheld(open, at, () => readVersion(open, known, known.leaf.version, known.place === "local" ? null : at)),
  );
  wipe(read.value);
  return read.fields;
}

/** Takes the next piece in. @throws Fault too_large, conflict */
export async function appendUpload(open: Open, upload: Upload, value: Uint8Array): Promise<void> {
  if (value.length > PIECE_BYTES) throw new Fault("too_large", `a piece has at most ${PIECE_BYTES} bytes`);
  checkSize(upload.size + value.length || 1);
  if (upload.input.size !== null && upload.size + value.length > upload.input.size) throw otherSize();
  for (let at = 0; at < value.length; ) {
    if (upload.buffered === upload.buffer.length) {
      if (upload.parts.length === 0) await sweepParts(open);
      await sendParts(open, upload, BATCH);
    }
    const piece = value.subarray(at, at + upload.buffer.length - upload.buffered);
    upload.buffer.set(piece, upload.buffered);
    upload.buffered += piece.length;
    at += piece.length;
  }
  upload.size += value.length;
  upload.hash.update(value);
}

const otherSize = () => new Fault("conflict", "the file changed while it was read", { hint: "run the command again" });

/** One part's change; the last part says so, and so stands for the whole. */
function partChange(open: Open, upload: Upload, model: Model, keyId: KeyId, index: number, value: Uint8Array): Change {
  const last = keyId === upload.lastPart;
  const tags = [upload.id, String(index), ...(last ? [endTag] : [])];
  const meta = newMeta(upload.keyId, "part", tags, "stored", null, open.around.now());
  return valueChange(model, keyId, undefined, meta, { value, fields: [] }, false, open.around.random);
}

/** Sends the first parts of the buffer, or keeps them sealed where they go to the vault alone. */
async function sendParts(open: Open, upload: Upload, count: number): Promise<void> {
  const ids = Array.from({ length: count }, () => newId<KeyId>(open.around.random));
  const first = upload.parts.length;
  const build = (model: Model) =>
    ids.map((keyId, i) => {
      const value = upload.buffer.subarray(i * PART_BYTES, (i + 1) * PART_BYTES);
      return partChange(open, upload, model, keyId, first + i, value);
    });
  let made: readonly Change[] = [];
  if (upload.place === "local") made = build(open.box.model);
  else {
    upload.parts.push(...ids);
    await write(open, "server", "secret.import", (model) => {
      made = build(model);
      return made;
    });
  }
  if (upload.place === "local") upload.parts.push(...ids);
  upload.sealed?.push(...made);
  if (upload.place === "server" && upload.size > KEPT_BYTES && upload.input.where !== "both") upload.sealed = null;
  const rest = upload.buffered - count * PART_BYTES;
  upload.buffer.copyWithin(0, count * PART_BYTES, upload.buffered);
  upload.buffer.fill(0, rest, upload.buffered);
  upload.buffered = rest;
}

/** Stores what came in. @throws Fault bad_input, conflict */
export async function finishUpload(open: Open, upload: Upload): Promise<Written> {
  const { input, fields, size } = upload;
  checkSize(size);
  if (input.size !== null && input.size !== size) throw otherSize();
  const most = fields.length > 0 ? WHOLE.fields : WHOLE.bare;
  const at = { ifVersion: upload.seenVersion };
  if (upload.parts.length === 0 && size <= most) {
    const value = upload.buffer.slice(0, size);
    try {
      const { origin, ...about } = input;
      const seen = origin !== undefined && isCustodial(origin) ? { origin } : {};
      return await storeSecret(open, { ...about, ...seen, ...(upload.bound && at), type: "file", value, fields });
    } finally {
      wipe(value);
    }
  }
  while (upload.buffered > PART_BYTES) {
    await sendParts(open, upload, Math.min(BATCH, Math.ceil(upload.buffered / PART_BYTES) - 1));
  }
  upload.parts.push(upload.lastPart);
  const file: FileParts = { size, sha256: new Uint8Array(upload.hash.digest()), parts: upload.parts };
  wipe(encodeFile(file, fields));
  const { requestId, last } = await commit(open, upload, file);
  if (upload.place === "server" && keeps(upload)) await keepSealed(open, [...(upload.sealed ?? []), last]);
  return { info: infoOf(secretOf(viewOf(open.box.model), upload.keyId)), requestId, queued: false };
}

/** Whether the vault gets a copy. */
function keeps({ input, size }: Upload): boolean {
  return input.where === "both" || (input.where === null && size <= KEPT_BYTES);
}

/** The last part and the file itself, in one request: from then on it is there. */
async function commit(
  open: Open,
  upload: Upload,
  file: FileParts,
): Promise<{ requestId: RequestId | null; last: Change }> {
  const { input, fields, place, keyId } = upload;
  const value = upload.buffer.subarray(0, upload.buffered);
  let last: Change | undefined;
  const requestId = await write(open, place, "secret.store", (model) => {
    const before = liveNamed(model, input.name);
    if (before?.leaf.keyId !== upload.known) {
      throw new Fault("conflict", "another device made a secret of this name meanwhile", {
        hint: "run the command again",
      });
    }
    const gone = upload.parts.some((id) => id !== upload.lastPart && model.secrets.get(id)?.leaf.status !== "live");
    if (place === "server" && gone) {
      throw new Fault("conflict", "another device took the parts of this file for left over", {
        hint: "set the clocks of your devices, then run the command again",
      });
    }
    if (upload.bound && (before?.leaf.version ?? 0) !== upload.seenVersion) throw changedMeanwhile();
    const nowMs = open.around.now();
    const { origin: from = null } = input;
    const origin = from === null ? "stored" : isCustodial(from) ? from : `imported:${from}`;
    const made = newMeta(input.name, "file", input.tags, origin, null, nowMs);
    const fresh = { ...made, createdAtMs: input.createdAt ? timeMs(input.createdAt) : nowMs };
    const meta = withFields(nextMeta(before, fresh, input.expiresAt), fields, file);
    last = partChange(open, upload, model, upload.lastPart, upload.parts.length - 1, value);
    const content = { value: new Uint8Array(0), fields, file };
    const whole = valueChange(model, keyId, before, meta, content, keeps(upload), open.around.random);
    return [...(place === "local" ? (upload.sealed ?? []) : []), last, whole];
  });
  if (!last) throw new Fault("internal", "nothing was committed");
  return { requestId, last };
}
