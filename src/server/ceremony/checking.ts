import { equalBytes } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId, UserId } from "../../ids.ts";
import { type CeremonyState, ceremonyState } from "../../protocol/ceremony/life.ts";
import type { SignedEntry, StoredKeyRecord } from "../../protocol/ceremony/model.ts";
import { ceremonyIdOf, storedKeyHash, verifyCeremonyKey } from "../../protocol/ceremony/records.ts";
import type { Tx } from "../../storage/store.ts";
import type { ServerContext } from "../context.ts";
import { eachStored, readStored, type Stored } from "../documents.ts";
import {
  CEREMONY,
  CEREMONY_KEY,
  type CeremonyBody,
  ENTRY,
  HEAD,
  type HeadBody,
  OPENING,
  type OpeningBody,
} from "./documents.ts";
import { checkStoredKeys } from "./storedchecking.ts";
import { olderId, STORED_KEY, STORED_KEY_BEFORE } from "./storedkeys.ts";

/** All that lies here of one ceremony. */
interface Rows {
  readonly ceremony: Stored<CeremonyBody>;
  readonly head: Stored<HeadBody> | undefined;
  readonly entries: readonly SignedEntry[];
  readonly openings: readonly Stored<OpeningBody>[];
}

async function rowsOf(tx: Tx, ceremony: Stored<CeremonyBody>): Promise<Rows> {
  const { id } = ceremony;
  return {
    ceremony,
    head: await readStored(tx, HEAD, id),
    entries: (await eachStored(tx, ENTRY, id)).map(({ value }) => value.entry),
    openings: await eachStored(tx, OPENING, id),
  };
}

function checkRows(ctx: ServerContext, { ceremony, head, entries, openings }: Rows, state: CeremonyState): string[] {
  const wrong: string[] = [];
  const { manifest } = ceremony.value.manifest;
  if (ceremonyIdOf(manifest) !== ceremony.id) wrong.push("it lies under another ceremony's id");
  if (!equalBytes(manifest.draft.key.key.server, ctx.keys.identity)) wrong.push("it is another server's");
  if (head?.value.seq !== entries.length) wrong.push("entries are missing, or there are too many");
  const over = state.status === "stored" || state.status === "aborted";
  if (over && openings.length > 0) wrong.push("openings are left although it is over");
  for (const { reveal } of over ? [] : state.reveals.values()) {
    const opening = openings.find(({ value }) => value.index === reveal.index);
    if (!opening || !equalBytes(sha256(opening.value.sealed), reveal.sealedHash))
      wrong.push(`the opening of participant ${reveal.index} is not the one that was signed`);
  }
  return wrong;
}

/** Compares the stored value's record with the ceremony that made it. */
async function checkMade(tx: Tx, { manifest, result, ceremonyId }: CeremonyState, issuer: UserId): Promise<string[]> {
  if (!result?.stored) return [];
  const { keyId, version } = result.stored;
  const newest = await readStored(tx, STORED_KEY, keyId);
  const row =
    newest?.value.record.version === version
      ? newest
      : await readStored(tx, STORED_KEY_BEFORE, olderId(keyId, version));
  if (!row) return ["the key that it made is not in the store"];
  const { record } = row.value;
  const { name, output, policy } = manifest.draft;
  const said: StoredKeyRecord = { ...record, keyId, version, ceremonyId, name, output, policy };
  const same = equalBytes(storedKeyHash(record), storedKeyHash(said)) && row.value.issuer === issuer;
  return same ? [] : ["the record of the key that it made is not what it says"];
}

/** The state by everything that is signed; or what does not hold. */
function verified(rows: Rows, nowMs: number): CeremonyState | string {
  const { ceremony, entries } = rows;
  try {
    return ceremonyState({ manifest: ceremony.value.manifest, entries }, nowMs);
  } catch (error) {
    if (error instanceof Fault) return error.message;
    throw error;
  }
}

/**
 * What a server can verify of an account's ceremonies and stored keys without its enclave: every signature and the
 * chain of each transcript, openings that wait, and the records of the keys that were made (docs/operations.md).
 *
 * @returns What is wrong, in words.
 * @throws Fault corrupt for rows that cannot be read
 */
export async function checkCeremonies(ctx: ServerContext, userId: UserId): Promise<string[]> {
  const { store } = ctx;
  const ceremonies = await store.transaction(async (tx) =>
    (await eachStored(tx, CEREMONY, userId)).map(({ id }) => id as CeremonyId),
  );
  const wrong: string[] = [];
  for (const id of ceremonies) {
    const rows = await store.transaction(async (tx) => {
      const ceremony = await readStored(tx, CEREMONY, id);
      return ceremony && rowsOf(tx, ceremony);
    });
    if (!rows) continue;
    const state = verified(rows, ctx.now());
    const found =
      typeof state === "string"
        ? [state]
        : [...checkRows(ctx, rows, state), ...(await store.transaction((tx) => checkMade(tx, state, userId)))];
    wrong.push(...found.map((what) => `ceremony ${id.slice(0, 8)}: ${what}`));
  }
  return [...wrong, ...(await checkStoredKeys(ctx, userId))];
}

/** What is wrong with the key pairs for ceremonies; undefined of a server that has none. @throws Fault corrupt */
export async function checkCeremonyKeys({ store, keys }: ServerContext): Promise<readonly string[] | undefined> {
  const kept = await store.transaction((tx) => eachStored(tx, CEREMONY_KEY, ""));
  if (kept.length === 0) return undefined;
  return kept.flatMap(({ id, value: { statement } }) => {
    try {
      const { number, server } = verifyCeremonyKey(statement);
      const sound = String(number) === id && equalBytes(server, keys.identity);
      return sound ? [] : [`key ${id} is another number's or server's`];
    } catch (error) {
      if (error instanceof Fault) return [`key ${id}: ${error.message}`];
      throw error;
    }
  });
}
