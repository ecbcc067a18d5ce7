import type { StoredKeyId, UserId } from "../../ids.ts";
import type { StoredKeyRecord } from "../../protocol/ceremony/model.ts";
import { storedKeyRecord } from "../../wire/ceremony/records.ts";
import { bytes, id, nullable, oneOf, struct } from "../../wire/codec.ts";
import { hash32 } from "../../wire/records.ts";
import { type DocumentKind, keptKindOf, kindOf } from "../documents.ts";

/** The newest version of a key in the store: id = key id, owner = account that opened its ceremony, place = created. */
export interface StoredKeyBody {
  readonly record: StoredKeyRecord;
  /** Opens in this server's enclave alone. */
  readonly sealed: Uint8Array;
  readonly issuer: UserId;
  readonly status: "active" | "revoked" | "moved";
  /** Identity of the server that has it now, 32 bytes. */
  readonly movedTo: Uint8Array | null;
}
export const STORED_KEY: DocumentKind<StoredKeyBody> = keptKindOf(
  "storedKey",
  struct({
    record: storedKeyRecord,
    sealed: bytes({ min: 42, max: 8_192 }),
    issuer: id<UserId>(),
    status: oneOf(["active", "revoked", "moved"]),
    movedTo: nullable(hash32),
  }),
);

/** Versions before the newest: id = {@link olderId}, owner = key id, place = version. */
export const STORED_KEY_BEFORE: DocumentKind<StoredKeyBody> = kindOf("storedKeyBefore", STORED_KEY.codec);
export const olderId = (keyId: StoredKeyId, version: number): string => `${keyId}-${version}`;
