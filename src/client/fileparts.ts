import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId } from "../ids.ts";
import type { KeyholdClient } from "./api.ts";
import { keepParts, openFile, type Reading, readPiece } from "./fileread.ts";
import { appendUpload, beginUpload, checkSize, finishUpload, type Upload } from "./fileupload.ts";
import type { Open } from "./opened.ts";
import { purgeParts } from "./partsweep.ts";

const HANDLES_MAX = 16;
const IDLE_MS = 600_000;
/** Where no more may be under way, one that was left alone for this long makes room: its program may have been killed. */
const LEFT_MS = 30_000;

type FileCalls = Pick<KeyholdClient, "fileBegin" | "fileAppend" | "fileFinish" | "fileAbort" | "fileOpen" | "fileRead">;

/** The calls for files over an open vault, one after another (docs/protocol.md §5.11). */
export function createFiles(open: Open): FileCalls & {
  /** Keeps copies of a file's parts in the vault. */
  keep(keyId: KeyId): Promise<void>;
  /** Wipes what of unfinished ones lies in memory. */
  end(): void;
} {
  const handles = new Map<string, Upload | Reading>();
  const { now, random } = open.around;

  async function forget(handle: string): Promise<void> {
    const found = handles.get(handle);
    handles.delete(handle);
    if (found?.kind === "reading") wipe(found.value ?? undefined);
    if (found?.kind !== "upload") return;
    wipe(found.buffer);
    if (found.place === "local" || found.parts.length === 0) return;
    try {
      await purgeParts(open, found.parts);
    } catch (error) {
      // a later sweep does it
      if (!(error instanceof Fault)) throw error;
    }
  }

  async function newHandle<T extends Upload | Reading>(of: T): Promise<string> {
    for (const [handle, { touchedMs }] of handles) if (now() - touchedMs > IDLE_MS) await forget(handle);
    const [oldest] = [...handles].sort(([, a], [, b]) => a.touchedMs - b.touchedMs);
    if (handles.size >= HANDLES_MAX && oldest && now() - oldest[1].touchedMs > LEFT_MS) await forget(oldest[0]);
    if (handles.size >= HANDLES_MAX) throw new Fault("conflict", "too many files are under way", { hint: "wait" });
    const handle = random(16).toHex();
    handles.set(handle, of);
    return handle;
  }

  function held<K extends "upload" | "reading">(handle: string, kind: K): Extract<Upload | Reading, { kind: K }> {
    const found = handles.get(handle);
    if (found?.kind !== kind)
      throw new Fault("not_found", "this file is not under way any more", { hint: "begin anew" });
    found.touchedMs = now();
    return found as Extract<Upload | Reading, { kind: K }>;
  }

  /** What fails half-way leaves nothing. */
  async function orForget<T>(handle: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      await forget(handle);
      throw error;
    }
  }

  return {
    async fileBegin(input) {
      if (input.size !== null) checkSize(input.size);
      return { handle: await newHandle(await beginUpload(open, input)) };
    },
    async fileAppend({ handle, value }) {
      const upload = held(handle, "upload");
      return orForget(handle, async () => {
        await appendUpload(open, upload, value);
        return { size: upload.size };
      });
    },
    async fileFinish({ handle }) {
      const upload = held(handle, "upload");
      const written = await orForget(handle, () => finishUpload(open, upload));
      handles.delete(handle);
      wipe(upload.buffer);
      return written;
    },
    fileAbort: ({ handle }) => forget(handle),
    async fileOpen(input) {
      const { reading, opened } = await openFile(open, input);
      return { handle: await newHandle(reading), ...opened };
    },
    async fileRead({ handle }) {
      const reading = held(handle, "reading");
      const piece = await orForget(handle, () => readPiece(open, reading));
      if (piece.done) handles.delete(handle);
      return piece;
    },
    keep: (keyId) => keepParts(open, keyId),
    end() {
      for (const one of handles.values()) wipe(one.kind === "upload" ? one.buffer : (one.value ?? undefined));
      handles.clear();
    },
  };
}
