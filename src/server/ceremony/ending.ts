import type { EnclaveInput, EnclaveOutput } from "../../enclave/frames.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId, StoredKeyId, UserId } from "../../ids.ts";
import type { CeremonyDraft } from "../../protocol/ceremony/model.ts";
import type { Tx } from "../../storage/store.ts";
import { credentialIdOf } from "../accounts.ts";
import type { ServerContext } from "../context.ts";
import { eachStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import {
  ARRIVING,
  ASKED,
  KEY_USE,
  keyOwner,
  newestFirst,
  numbered,
  OPEN,
  OPENING,
  PART,
  REPLACING,
  SEAT,
  seatId,
  seatOwner,
} from "./documents.ts";
import type { Desk, Scene } from "./scene.ts";
import type { KeyStoreSite } from "./service.ts";
import { olderId, STORED_KEY, STORED_KEY_BEFORE, type StoredKeyBody } from "./storedkeys.ts";

type Combine = Extract<EnclaveInput<"ceremony.append">["step"], { kind: "combine" }>;

/**
 * The newest version of the key that a ceremony replaces; undefined where it replaces none.
 *
 * @throws Fault not_found for a key that is not the account's; denied for one that is revoked or has moved
 */
export async function replacedBy(
  tx: Tx,
  keyId: StoredKeyId | null,
  organiser: UserId,
): Promise<Stored<StoredKeyBody> | undefined> {
  if (keyId === null) return undefined;
  const row = await readStored(tx, STORED_KEY, keyId);
  if (row?.value.issuer !== organiser) throw new Fault("not_found", "no such key in the store");
  if (row.value.status !== "active")
    throw new Fault("denied", "this key was revoked, or has moved: it gets no version");
  return row;
}

/** True once the key that a ceremony replaces was revoked or has moved: it should get no version. */
export async function isReplacedGone({ site: { ctx } }: Desk, { id, state }: Scene): Promise<boolean> {
  const { replaces } = state.manifest.draft;
  if (replaces === null) return false;
  const row = await ctx.store.transaction((tx) => readStored(tx, STORED_KEY, replaces), id);
  return row?.value.status !== "active";
}

/** What the enclave needs to combine: every opening, as it came, with its key, and the version before. */
export async function stepToCombine({ site, keys }: Desk, { id, state }: Scene): Promise<Combine> {
  const { replaces } = state.manifest.draft;
  const revealed = [...state.reveals.values()];
  return site.ctx.store.transaction(async (tx) => {
    const openings: Combine["openings"][number][] = [];
    for (const { reveal } of revealed) {
      const row = await readStored(tx, OPENING, numbered(id, reveal.index));
      const key = row && (await keys.find(tx, row.value.keyNumber));
      if (!row || !key) throw new Fault("corrupt", "an opening of the ceremony, or the key to it, is missing");
      openings.push({ sealed: row.value.sealed, key });
    }
    const row = replaces === null ? undefined : await readStored(tx, STORED_KEY, replaces);
    return { kind: "combine", openings, before: row ? { record: row.value.record, sealed: row.value.sealed } : null };
  });
}

/** Puts the value into the store beside its entry, and each participant's part of a wallet. @throws Fault */
export async function keepResult(
  tx: Tx,
  { id, state }: Scene,
  { stored, parts }: EnclaveOutput<"ceremony.append">,
  issuer: UserId,
): Promise<void> {
  for (const { index, sealed } of parts) {
    const row = { id: numbered(id, index), owner: id, place: index, value: { sealed } };
    if (!(await putStored(tx, PART, row, 0))) throw changedMeanwhile();
  }
  if (!stored) return;
  const { record, sealed } = stored;
  const { replaces } = state.manifest.draft;
  const before = replaces === null ? undefined : await readStored(tx, STORED_KEY, replaces);
  const follows = before
    ? record.keyId === before.id && record.version === before.value.record.version + 1
    : record.version === 1;
  if (!follows) throw changedMeanwhile();
  if (before) {
    const { version } = before.value.record;
    const older = { id: olderId(record.keyId, version), owner: record.keyId, place: version, value: before.value };
    if (!(await putStored(tx, STORED_KEY_BEFORE, older, 0))) throw changedMeanwhile();
  }
  // the enclave has signed it: a key that was revoked meanwhile stays so
  const { status, movedTo } = before?.value ?? { status: "active", movedTo: null };
  const value: StoredKeyBody = { record, sealed, issuer, status, movedTo };
  const row = { id: record.keyId, owner: issuer, place: record.createdAtMs, value };
  if (!(await putStored(tx, STORED_KEY, row, before?.version ?? 0))) throw changedMeanwhile();
}

/** Takes a ceremony that is over, or goes, off the lists of open ones. */
export async function unlist(ctx: ServerContext, tx: Tx, id: CeremonyId, draft: CeremonyDraft): Promise<void> {
  for (const kind of [ARRIVING, ASKED, OPEN, KEY_USE]) await removeStored(tx, kind, id);
  const { replaces, slots } = draft;
  if (replaces !== null && (await readStored(tx, REPLACING, replaces))?.owner === id)
    await removeStored(tx, REPLACING, replaces);
  for (const { account } of slots)
    if (account !== null) await removeStored(tx, SEAT, seatId(id, credentialIdOf(ctx, account)));
}

/** Removes what only an open ceremony needs: above all the sealed openings. */
export async function finish({ ctx }: KeyStoreSite, tx: Tx, { id, state }: Scene): Promise<void> {
  for (const opening of await eachStored(tx, OPENING, id)) await removeStored(tx, OPENING, opening.id);
  await unlist(ctx, tx, id, state.manifest.draft);
}

/** Lists a new ceremony where an open one is found. @throws Fault conflict while another one replaces the same key */
export async function index(site: KeyStoreSite, tx: Tx, scene: Pick<Scene, "id" | "ceremony">): Promise<void> {
  const { id, ceremony } = scene;
  const { draft, openedAtMs } = ceremony.value.manifest.manifest;
  const place = newestFirst(openedAtMs);
  const put = async (...row: Parameters<typeof putStored> extends [Tx, ...infer R] ? R : never) => {
    if (!(await putStored(tx, ...row))) throw changedMeanwhile();
  };
  await put(OPEN, { id, owner: ceremony.value.organiser, place, value: {} }, 0);
  await put(KEY_USE, { id, owner: keyOwner(draft.key.key.number), place, value: {} }, 0);
  if (
    draft.replaces !== null &&
    !(await putStored(tx, REPLACING, { id: draft.replaces, owner: id, place, value: {} }, 0))
  )
    throw new Fault("conflict", "another open ceremony replaces this key");
  for (const { account, index: seat } of draft.slots) {
    if (account === null) continue;
    const credential = credentialIdOf(site.ctx, account);
    // one account with two seats finds the first one
    await putStored(
      tx,
      SEAT,
      { id: seatId(id, credential), owner: seatOwner(credential), place, value: { index: seat } },
      0,
    );
  }
}
