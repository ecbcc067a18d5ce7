import { equalBytes } from "../../crypto/bytes.ts";
import { type EnclaveOperation, SEALED_ITEMS_MAX } from "../../enclave/api.ts";
import type { EnclaveInput, EnclaveOutput } from "../../enclave/frames.ts";
import type { UserId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import type { ServerContext } from "../context.ts";
import { eachStored, readStored } from "../documents.ts";
import { CEREMONY, CEREMONY_KEY, HEAD, OVER } from "./documents.ts";
import { STORED_KEY, STORED_KEY_BEFORE } from "./storedkeys.ts";

type Item = EnclaveInput<"sealed.check">["items"][number];

/** Something that an enclave has sealed for this server. */
export interface SealedRow {
  readonly name: string;
  /** Identity of the enclave, 32 bytes. */
  readonly enclave: Uint8Array;
  readonly item: Item;
}

/** An enclave that is asked whether it can open what is here. */
export interface SealedAsk {
  readonly identity: Uint8Array;
  holds(items: readonly Item[]): Promise<readonly boolean[]>;
}

/** Over an enclave that answers. */
export async function sealedAsk(
  call: <O extends EnclaveOperation>(operation: O, input: EnclaveInput<O>) => Promise<EnclaveOutput<O>>,
): Promise<SealedAsk> {
  const { identity } = await call("info", {});
  return { identity, holds: async (items) => (await call("sealed.check", { items: [...items] })).holds };
}

/** Private halves of the keys for ceremonies. @throws Fault corrupt */
export async function sealedKeys(tx: Tx): Promise<readonly SealedRow[]> {
  return (await eachStored(tx, CEREMONY_KEY, "")).map(({ id, value: { statement, sealed } }) => ({
    name: `key ${id}`,
    enclave: statement.key.enclave,
    item: { kind: "key", key: { statement, sealed } },
  }));
}

/** Seeds of an account's ceremonies that are not over, and the values of its stored keys. @throws Fault corrupt */
export async function sealedOf(tx: Tx, userId: UserId): Promise<readonly SealedRow[]> {
  const rows: SealedRow[] = [];
  for (const { id, value } of await eachStored(tx, CEREMONY, userId)) {
    if ((await readStored(tx, HEAD, id))?.owner === OVER) continue;
    const { draft, seedHash } = value.manifest.manifest;
    const item: Item = { kind: "seed", nonce: draft.nonce, seedHash, sealed: value.seed };
    rows.push({ name: `ceremony ${id.slice(0, 8)}: its seed`, enclave: draft.key.key.enclave, item });
  }
  for (const key of await eachStored(tx, STORED_KEY, userId)) {
    for (const { value } of [...(await eachStored(tx, STORED_KEY_BEFORE, key.id)), key]) {
      const { record, sealed } = value;
      const name = `stored key ${key.id.slice(0, 8)}: its version ${record.version}`;
      rows.push({ name, enclave: record.enclave, item: { kind: "stored", record, sealed } });
    }
  }
  return rows;
}

/** What came of asking. */
export interface SealedFound {
  /** Rows that are this enclave's and do not open. */
  readonly wrong: readonly string[];
  /** How many are another enclave's: they are lost to this server, and nobody has altered them. */
  readonly foreign: number;
}

/** Asks of each row whether it opens. @throws what the enclave throws */
export async function checkSealed(ask: SealedAsk, rows: readonly SealedRow[]): Promise<SealedFound> {
  const own = rows.filter(({ enclave }) => equalBytes(enclave, ask.identity));
  const wrong: string[] = [];
  for (let at = 0; at < own.length; at += SEALED_ITEMS_MAX) {
    const page = own.slice(at, at + SEALED_ITEMS_MAX);
    const holds = await ask.holds(page.map(({ item }) => item));
    wrong.push(...page.flatMap(({ name }, i) => (holds[i] === true ? [] : [`${name} does not open`])));
  }
  return { wrong, foreign: rows.length - own.length };
}

/** What a server would lose with its enclave. */
export interface SealedCounts {
  readonly openCeremonies: number;
  readonly storedKeys: number;
}

const COUNTED = 100_000;
const PAGE = 500;

/** Counts what an enclave has sealed for a server; null where none has made it a key for ceremonies. */
export async function countSealed({ store }: Pick<ServerContext, "store">): Promise<SealedCounts | null> {
  return store.transaction(async (tx) => {
    if ((await tx.documentCount(CEREMONY_KEY.kind, "", 1)) === 0) return null;
    let storedKeys = 0;
    for (let after: UserId | null = null; ; ) {
      // every account has one, also where its own row cannot be read
      const page: readonly { readonly userId: UserId }[] = await tx.auditHeads(after, PAGE);
      for (const { userId } of page) storedKeys += await tx.documentCount(STORED_KEY.kind, userId, COUNTED);
      const last = page.at(-1);
      if (!last || page.length < PAGE) break;
      after = last.userId;
    }
    return { openCeremonies: await tx.documentCount(HEAD.kind, "", COUNTED), storedKeys };
  });
}
