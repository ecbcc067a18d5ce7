import { Fault } from "../errors.ts";
import type { DocumentRow, Tx } from "../storage/store.ts";
import { type Codec, decodeJson, encodeJson } from "../wire/codec.ts";

/** A kind of document with the form of its bodies. */
export interface DocumentKind<T> {
  readonly kind: string;
  readonly codec: Codec<T>;
  /** Of {@link keptKindOf}: what was read or written last, by id. */
  readonly kept?: Map<string, Decoded<T>>;
}

/** The value of one body, byte by byte. */
interface Decoded<T> {
  readonly body: Uint8Array;
  readonly value: T;
}

/** Names a kind of document. */
export const kindOf = <T>(kind: string, codec: Codec<T>): DocumentKind<T> => ({ kind, codec });

/** Decoded bodies that a kind keeps at most. */
const KEPT_MAX = 1_024;

/**
 * The same for what is read often. The row is read each time, as with any other kind; a body that is in every byte the
 * one that was read or written last is not decoded again, so that a value may be shared: nobody writes to it.
 */
export const keptKindOf = <T>(kind: string, codec: Codec<T>): DocumentKind<T> => ({ kind, codec, kept: new Map() });

function keep<T>({ kept }: DocumentKind<T>, id: string, decoded: Decoded<T>): void {
  if (!kept) return;
  if (kept.size >= KEPT_MAX) kept.clear();
  kept.set(id, decoded);
}

function decoded<T>(kind: DocumentKind<T>, { id, body }: DocumentRow): T {
  const known = kind.kept?.get(id);
  if (known && Buffer.compare(known.body, body) === 0) return known.value;
  const value = decodeJson(kind.codec, body);
  keep(kind, id, { body, value });
  return value;
}

const encoder = new TextEncoder();

/** A document with its decoded body. */
export interface Stored<T> {
  readonly id: string;
  readonly owner: string;
  readonly place: number;
  readonly value: T;
  /** What {@link putStored} replaces. */
  readonly version: number;
}

function stored<T>(kind: DocumentKind<T>, row: DocumentRow): Stored<T> {
  try {
    return { id: row.id, owner: row.owner, place: row.place, value: decoded(kind, row), version: row.version };
  } catch {
    throw new Fault(
      "corrupt",
      `cannot read the database: a record of kind ${kind.kind} is not in the documented form`,
      {
        hint: "keyhold server check, or restore a backup",
      },
    );
  }
}

/** @throws Fault corrupt */
export async function readStored<T>(tx: Tx, kind: DocumentKind<T>, id: string): Promise<Stored<T> | undefined> {
  const row = await tx.document(kind.kind, id);
  return row && stored(kind, row);
}

/** Of one owner, ordered by place then id, above `after`. @throws Fault corrupt */
export async function listStored<T>(
  tx: Tx,
  kind: DocumentKind<T>,
  owner: string,
  after: Pick<DocumentRow, "place" | "id"> | null,
  limit: number,
): Promise<readonly Stored<T>[]> {
  return (await tx.documents(kind.kind, owner, after, limit)).map((row) => stored(kind, row));
}

/** Pages of {@link eachStored}. */
const PAGE = 64;

/** All of one owner, in the order of {@link listStored}. @throws Fault corrupt */
export async function eachStored<T>(tx: Tx, kind: DocumentKind<T>, owner: string): Promise<readonly Stored<T>[]> {
  const all: Stored<T>[] = [];
  for (;;) {
    const page = await listStored(tx, kind, owner, all.at(-1) ?? null, PAGE);
    all.push(...page);
    if (page.length < PAGE) return all;
  }
}

/**
 * Makes a document (`expected` 0) or replaces that version of it.
 *
 * @returns false, and nothing written, when another one is there.
 */
export async function putStored<T>(
  tx: Tx,
  kind: DocumentKind<T>,
  row: Omit<Stored<T>, "version">,
  expected: number,
): Promise<boolean> {
  const { id, owner, place, value } = row;
  const body = encoder.encode(encodeJson(kind.codec, value));
  // it may be undone: then no row has this body
  keep(kind, id, { body, value });
  return tx.putDocument({ kind: kind.kind, id, owner, place, body }, expected);
}

/** Removes a document; true if it was there. */
export function removeStored(tx: Tx, kind: DocumentKind<unknown>, id: string): Promise<boolean> {
  return tx.removeDocument(kind.kind, id);
}
