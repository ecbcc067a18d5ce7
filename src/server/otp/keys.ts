import { Fault } from "../../errors.ts";
import type { OtpAskId, StoredKeyId, UserId } from "../../ids.ts";
import type { StoredKeyRecord } from "../../protocol/ceremony/model.ts";
import { afterRestore, type OtpKind, type OtpPosition, startingAt } from "../../protocol/otpwindow.ts";
import type { Tx } from "../../storage/store.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { STORED_KEY, type StoredKeyBody } from "../ceremony/storedkeys.ts";
import type { ServerContext } from "../context.ts";
import { eachStored, listStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { EARLIER } from "../incarnations.ts";
import {
  ARRIVAL,
  DUE,
  dueId,
  GRANT,
  GRANTED,
  type GrantBody,
  grantedOwner,
  HANDOUT,
  type HandoutBody,
  KNOWN_KEY,
  minuteOf,
  OTP_STATE,
  PARCEL,
  type StateBody,
  TAG,
  TOKEN,
  tagId,
} from "./documents.ts";
import { shownRequester } from "./requesters.ts";

/** A stored key of which codes are made. */
export interface OtpEntry extends Stored<StoredKeyBody> {
  readonly id: StoredKeyId;
  readonly kind: OtpKind;
}

/** The state of a key as it counts now; `version` 0 where none is stored yet. */
export interface State extends Stored<StateBody> {
  /** It jumped ahead just now, from the time of now: {@link settle} before anything is decided by it. */
  readonly came: boolean;
}

/** The same answer for an id that never was and for a key of somebody else. */
export const noSuchKey = () => new Fault("not_found", "no such key");

/** What codes of a record count; null for a value that makes none. */
export function kindOfOutput({ output }: StoredKeyRecord): OtpKind | null {
  if (output.kind === "totp") return { kind: "totp", period: output.period };
  return output.kind === "hotp" ? { kind: "hotp" } : null;
}

function entryOf(row: Stored<StoredKeyBody> | undefined): OtpEntry | undefined {
  const kind = row && kindOfOutput(row.value.record);
  return row && kind ? { ...row, id: row.id as StoredKeyId, kind } : undefined;
}

/** A one-time password of the store. @throws Fault corrupt */
export async function readEntry(tx: Tx, keyId: StoredKeyId): Promise<OtpEntry | undefined> {
  return entryOf(await readStored(tx, STORED_KEY, keyId));
}

/** One that the caller issues. @throws Fault not_found, corrupt */
export async function ownEntry(tx: Tx, keyId: StoredKeyId, userId: UserId): Promise<OtpEntry> {
  const found = await readEntry(tx, keyId);
  if (!found || found.value.issuer !== userId) throw noSuchKey();
  return found;
}

/** All that an account issues. @throws Fault corrupt */
export async function issuedBy(tx: Tx, userId: UserId): Promise<readonly OtpEntry[]> {
  const rows = await eachStored(tx, STORED_KEY, userId);
  return rows.flatMap((row) => entryOf(row) ?? []);
}

/** Fields of a position alone. */
export const positionOf = ({ next, floor, used, unsure }: StateBody): OtpPosition => ({ next, floor, used, unsure });

/**
 * Where a key stands: begins anew with each version, and jumps ahead where the server came back from a backup since
 * (docs/protocol.md §10.8).
 */
export async function readState(ctx: ServerContext, tx: Tx, entry: OtpEntry): Promise<State> {
  const { record, issuer } = entry.value;
  const row = await readStored(tx, OTP_STATE, entry.id);
  const base = { id: entry.id, owner: issuer, place: record.createdAtMs, version: row?.version ?? 0 };
  if (row && row.value.version === record.version && row.value.incarnation === ctx.incarnation)
    return { ...row, came: false };
  const kept = row?.value.version === record.version ? row.value : undefined;
  const before = kept ? positionOf(kept) : startingAt(0);
  const came = row ? row.value.incarnation !== ctx.incarnation : Boolean(await tx.setting(EARLIER));
  const position = came ? afterRestore(entry.kind, before, ctx.now()) : before;
  const value = {
    ...position,
    version: record.version,
    incarnation: ctx.incarnation,
    provisionedTo: kept?.provisionedTo ?? null,
    lastTo: null,
    recent: row?.value.recent ?? [],
  };
  return { ...base, value, came };
}

/** @throws Fault unavailable when it was changed meanwhile */
export async function saveState(tx: Tx, { version, came: _, ...row }: State, value: StateBody): Promise<void> {
  if (version === 0) await know(tx, row.id as StoredKeyId);
  if (!(await putStored(tx, OTP_STATE, { ...row, value }, version))) throw changedMeanwhile();
}

/**
 * Keeps a jump for good: without it the next look would jump from a later time.
 *
 * @returns true if there was one; the transaction then ends here, for what follows may have to be undone.
 */
export async function settle(tx: Tx, state: State): Promise<boolean> {
  if (state.came) await saveState(tx, state, state.value);
  return state.came;
}

/** Remembers that something is stored about a key. */
export async function know(tx: Tx, keyId: StoredKeyId): Promise<void> {
  if (await readStored(tx, KNOWN_KEY, keyId)) return;
  await putStored(tx, KNOWN_KEY, { id: keyId, owner: "", place: 0, value: {} }, 0);
}

/** A grant as its issuer and its requester see it. */
type GrantView = OutputOf<"otp.grant">["grants"][number];

function grantView(ctx: ServerContext, { place, value }: Stored<GrantBody>): GrantView {
  const { grantId, to, wants, perHour, untilMs } = value;
  return { grantId, to: shownRequester(ctx, to), wants, perHour, untilMs, createdAtMs: place };
}

/** A key as its issuer sees it. @throws Fault corrupt, integrity */
export async function ownView(ctx: ServerContext, tx: Tx, entry: OtpEntry): Promise<OutputOf<"otp.grant">> {
  const state = await readState(ctx, tx, entry);
  const grants = await eachStored(tx, GRANT, entry.id);
  const { record, status, movedTo } = entry.value;
  return {
    record,
    own: true,
    status,
    movedTo,
    counter: entry.kind.kind === "hotp" ? state.value.next : null,
    provisioned: state.value.provisionedTo !== null,
    grants: grants.map((row) => grantView(ctx, row)),
  };
}

/** The same as a requester sees it, who has this grant. */
export async function grantedView(
  ctx: ServerContext,
  tx: Tx,
  entry: OtpEntry,
  grant: Stored<GrantBody>,
): Promise<OutputOf<"otp.grant">> {
  const state = await readState(ctx, tx, entry);
  const { record, status, movedTo } = entry.value;
  const provisioned = state.value.provisionedTo !== null;
  return { record, own: false, status, movedTo, counter: null, provisioned, grants: [grantView(ctx, grant)] };
}

/** True while a grant lets its requester ask. */
export function holds(ctx: ServerContext, grant: GrantBody, userId: UserId | null): boolean {
  if (grant.untilMs !== null && grant.untilMs <= ctx.now()) return false;
  return grant.userId === null || grant.userId === userId;
}

/** What a hand-out is as of now, of the grants that its key has. */
export function stateNow(
  ctx: ServerContext,
  entry: OtpEntry,
  handout: HandoutBody,
  grantId: string | undefined,
): "allocated" | "open" | "used" | "expired" | "revoked" | "provisioned" {
  const { state } = handout;
  if (state === "used" || state === "revoked") return state;
  const { status, record } = entry.value;
  if (status !== "active" || grantId !== handout.grantId || record.version !== handout.version) return "revoked";
  if (state === "provisioned") return state;
  // after a restore: it may have been used in what the backup does not know
  if (handout.incarnation !== ctx.incarnation || handout.expiresAtMs <= ctx.now()) return "expired";
  return state;
}

/** Forgets one hand-out with what finds it by its code. */
export async function forgetHandout(tx: Tx, keyId: StoredKeyId, { id, value }: Stored<HandoutBody>): Promise<void> {
  await removeStored(tx, HANDOUT, id);
  if (!value.tag) return;
  const index = await readStored(tx, TAG, tagId(keyId, value.tag));
  if (index?.value.askId === (id as OtpAskId)) await removeStored(tx, TAG, index.id);
}

/** Takes a grant away with the entry that finds it. */
export async function removeGrant(tx: Tx, { id, value: { to } }: Stored<GrantBody>): Promise<void> {
  await removeStored(tx, GRANT, id);
  if (to.kind === "account") await removeStored(tx, GRANTED, id);
}

/** Makes a grant or changes it. @throws Fault unavailable when it was changed meanwhile */
export async function saveGrant(tx: Tx, row: Omit<Stored<GrantBody>, "version">, expected: number): Promise<void> {
  if (!(await putStored(tx, GRANT, row, expected))) throw changedMeanwhile();
  const { to } = row.value;
  if (expected > 0 || to.kind === "device") return;
  const value = { keyId: row.owner as StoredKeyId };
  if (!(await putStored(tx, GRANTED, { ...row, owner: grantedOwner(to.credentialId), value }, 0)))
    throw changedMeanwhile();
}

/** Rows of one owner that one transaction forgets. */
const BATCH = 64;

/** Forgets what is left of a key that is gone with its issuer's account; true once nothing is left. */
export async function forgetKey(tx: Tx, keyId: StoredKeyId): Promise<boolean> {
  const grants = await listStored(tx, GRANT, keyId, null, BATCH);
  for (const grant of grants) await removeGrant(tx, grant);
  const handouts = await listStored(tx, HANDOUT, keyId, null, BATCH);
  for (const handout of handouts) {
    await forgetHandout(tx, keyId, handout);
    await removeStored(tx, DUE, dueId(keyId, minuteOf(handout.value.atMs)));
  }
  const tokens = await listStored(tx, TOKEN, keyId, null, BATCH);
  for (const { id } of tokens) await removeStored(tx, TOKEN, id);
  if (Math.max(grants.length, handouts.length, tokens.length) === BATCH) return false;
  for (const kind of [OTP_STATE, PARCEL, ARRIVAL, KNOWN_KEY]) await removeStored(tx, kind, keyId);
  return true;
}
