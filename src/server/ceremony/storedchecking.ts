import { equalBytes } from "../../crypto/bytes.ts";
import { verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId, UserId } from "../../ids.ts";
import { storedKeyHash, verifyCeremonyKey } from "../../protocol/ceremony/records.ts";
import { parcelBytes } from "../../protocol/otphandout.ts";
import type { Tx } from "../../storage/store.ts";
import type { ServerContext } from "../context.ts";
import { type DocumentKind, eachStored, readStored, type Stored } from "../documents.ts";
import { ARRIVAL, GRANT, OTP_STATE, PARCEL, type ParcelBody, TOKEN } from "../otp/documents.ts";
import { CEREMONY, ENTRY, HEAD, numbered } from "./documents.ts";
import { STORED_KEY, STORED_KEY_BEFORE, type StoredKeyBody } from "./storedkeys.ts";

type Record = StoredKeyBody["record"];

/** True if a ceremony of the account has ended in this very version. */
async function isMade(tx: Tx, { ceremonyId, keyId, version }: Record, issuer: UserId): Promise<boolean> {
  const ceremony = await readStored(tx, CEREMONY, ceremonyId ?? "");
  const head = ceremony && (await readStored(tx, HEAD, ceremony.id));
  if (!head || ceremony.value.organiser !== issuer) return false;
  const last = await readStored(tx, ENTRY, numbered(ceremony.id as CeremonyId, head.value.seq));
  const made = last?.value.entry.entry.body;
  return made?.kind === "result" && made.stored?.keyId === keyId && made.stored.version === version;
}

/** A parcel in which the key has left: of its record, well signed, to the server that its row names. */
function isParcelOf({ value: { record, movedTo } }: Stored<StoredKeyBody>, { parcel }: ParcelBody): boolean {
  try {
    const [from, to] = [verifyCeremonyKey(parcel.from), verifyCeremonyKey(parcel.to)];
    return (
      equalBytes(storedKeyHash(parcel.record), storedKeyHash(record)) &&
      equalBytes(from.enclave, record.enclave) &&
      movedTo !== null &&
      equalBytes(to.server, movedTo) &&
      verifySignature(from.enclave, parcelBytes(record, to, parcel.counter, parcel.sealed), parcel.signature)
    );
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** What hangs on a key for its codes: reads all of it, and holds it to the issuer's account. @throws Fault corrupt */
async function checkCodes(tx: Tx, { id, value }: Stored<StoredKeyBody>): Promise<string[]> {
  const state = await readStored(tx, OTP_STATE, id);
  for (const kind of [GRANT, TOKEN] as DocumentKind<unknown>[]) await eachStored(tx, kind, id);
  const sound = !state || (state.owner === value.issuer && state.value.version <= value.record.version);
  return sound ? [] : ["how far its codes are counted is another key's"];
}

async function checkRow(tx: Tx, row: Stored<StoredKeyBody>): Promise<string[]> {
  const wrong: string[] = [];
  const { record, issuer, status } = row.value;
  const before = await eachStored(tx, STORED_KEY_BEFORE, row.id);
  const complete =
    before.length === record.version - 1 &&
    before.every(({ value }, at) => value.record.keyId === row.id && value.record.version === at + 1);
  if (record.keyId !== row.id || issuer !== row.owner || !complete)
    wrong.push("it is not at its place, or versions are missing");
  // what came from another server was made there
  const arrived = await readStored(tx, ARRIVAL, row.id);
  for (const { value } of [...before, row]) {
    if (value.record.ceremonyId === null || arrived) continue;
    if (!(await isMade(tx, value.record, issuer)))
      wrong.push(`no ceremony here made its version ${value.record.version}`);
  }
  const parcel = await readStored(tx, PARCEL, row.id);
  if (status === "moved" ? !parcel || !isParcelOf(row, parcel.value) : parcel !== undefined)
    wrong.push("that it has left, and the parcel in which it left, do not agree");
  return [...wrong, ...(await checkCodes(tx, row))];
}

/**
 * What a server can verify of an account's stored keys without its enclave: places and versions, that the ceremonies
 * that their records name have made them, parcels in which they left, and what is counted of their codes
 * (docs/operations.md).
 *
 * @returns What is wrong, in words.
 * @throws Fault corrupt for rows that cannot be read
 */
export async function checkStoredKeys({ store }: ServerContext, userId: UserId): Promise<string[]> {
  const rows = await store.transaction((tx) => eachStored(tx, STORED_KEY, userId));
  const wrong: string[] = [];
  for (const row of rows) {
    const found = await store.transaction(async (tx) => {
      const now = await readStored(tx, STORED_KEY, row.id);
      return now ? checkRow(tx, now) : [];
    });
    wrong.push(...found.map((what) => `stored key ${row.id.slice(0, 8)}: ${what}`));
  }
  return wrong;
}
