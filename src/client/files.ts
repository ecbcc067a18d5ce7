import { createHash } from "node:crypto";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { PlainItem } from "../formats/item.ts";
import { sameFields, sameTime } from "../formats/same.ts";
import type { Field } from "../protocol/content.ts";
import type { FileBegin, FileOpen, FileOpened, KeyholdClient, Where, Written } from "./api.ts";

/** What of a client these need: one in this process, or the agent's. */
export type FileClient = Pick<
  KeyholdClient,
  "fileBegin" | "fileAppend" | "fileFinish" | "fileAbort" | "fileOpen" | "fileRead"
>;

/** Bytes that are handed over at once. */
const PIECE_BYTES = 524_288;

/** The next bytes of a source, at most `limit`; none at its end. The caller wipes them. */
export type Source = (limit: number) => Uint8Array | Promise<Uint8Array>;

/**
 * Stores a file of 1 byte to 16 MiB from a source, never whole in memory. It is there, or nothing of it is.
 *
 * @param progress Told of each piece with its bytes.
 * @throws Fault too_large, bad_input (empty), conflict, unreachable
 */
export async function storeFileFrom(
  client: FileClient,
  input: FileBegin,
  source: Source,
  progress: (bytes: number) => void = () => undefined,
): Promise<Written> {
  const { handle } = await client.fileBegin(input);
  try {
    for (;;) {
      const value = await source(PIECE_BYTES);
      if (value.length === 0) break;
      const { length } = value;
      try {
        await client.fileAppend({ handle, value });
      } finally {
        wipe(value);
      }
      progress(length);
    }
    return await client.fileFinish({ handle });
  } catch (error) {
    await abandon(client, handle);
    throw error;
  }
}

/** The failure that led here is the one to tell. */
async function abandon(client: FileClient, handle: string): Promise<void> {
  try {
    await client.fileAbort({ handle });
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
}

/**
 * Reads a value of any size piece by piece into `sink`, never whole in memory. What it wrote counts only once this
 * returns: the last piece shows whether the whole is the file that was stored.
 *
 * @param sink Takes a piece and does not retain it; told first what is coming.
 * @throws Fault integrity, not_found, unreachable
 */
export async function readFileTo(
  client: FileClient,
  input: FileOpen,
  sink: { begin?(opened: FileOpened): void; write(piece: Uint8Array): void | Promise<void> },
): Promise<FileOpened> {
  const opened = await client.fileOpen(input);
  const { handle } = opened;
  try {
    sink.begin?.(opened);
    for (let done = false; !done; ) {
      const piece = await client.fileRead({ handle });
      try {
        await sink.write(piece.value);
      } finally {
        wipe(piece.value);
      }
      done = piece.done;
    }
    return opened;
  } catch (error) {
    await abandon(client, handle);
    throw error;
  }
}

/**
 * A value of any size whole in memory, for formats that need it so. The caller wipes it.
 *
 * @throws As {@link readFileTo}
 */
export async function readWholeFile(
  client: FileClient,
  input: FileOpen,
): Promise<Omit<FileOpened, "handle"> & { value: Uint8Array }> {
  let value = new Uint8Array(0);
  let at = 0;
  try {
    const { handle: _, ...opened } = await readFileTo(client, input, {
      begin: ({ size }) => {
        value = new Uint8Array(size);
      },
      write: (piece) => {
        value.set(piece, at);
        at += piece.length;
      },
    });
    return { ...opened, value };
  } catch (error) {
    wipe(value);
    throw error;
  }
}

/** A file in memory, as it comes out of an import. */
export interface WholeFile {
  readonly name: string;
  /** 1 byte to 16 MiB; not retained. */
  readonly value: Uint8Array;
  readonly tags: readonly string[];
  readonly fields: readonly Field[];
  readonly expiresAt: string | null;
  readonly where: Where | null;
  readonly origin?: string;
  readonly createdAt?: string | null;
}

/** Stores a file from memory. @throws As {@link storeFileFrom} */
export function storeWholeFile(client: FileClient, file: WholeFile): Promise<Written> {
  const { value, ...rest } = file;
  let at = 0;
  return storeFileFrom(client, { ...rest, size: value.length }, (limit) => {
    const piece = value.slice(at, at + limit);
    at += piece.length;
    return piece;
  });
}

/** True where a secret holds this content already, so that an import can leave it as it is. */
export async function holdsFile(
  client: FileClient,
  name: string,
  file: Pick<PlainItem, "value" | "fields" | "expiresAt">,
): Promise<boolean> {
  const { value, fields = [], expiresAt = null } = file;
  const hash = createHash("sha256");
  let size = 0;
  try {
    await readFileTo(
      client,
      { name, version: null, fresh: false, purpose: "get" },
      {
        begin: (opened) => {
          const same =
            opened.size === value.length &&
            opened.info.type === "file" &&
            sameTime(opened.info.expiresAt, expiresAt) &&
            sameFields(opened.fields, fields, (field) => [field.name, field.kind, field.value]);
          if (!same) throw new Fault("conflict", "another content");
        },
        write: (piece) => {
          hash.update(piece);
          size += piece.length;
        },
      },
    );
  } catch (error) {
    if (error instanceof Fault && (error.code === "conflict" || error.code === "not_found")) return false;
    throw error;
  }
  const own = createHash("sha256").update(value).digest();
  return size === value.length && equalBytes(hash.digest(), own);
}
