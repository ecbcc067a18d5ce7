import { Fault } from "../../errors.ts";
import type { StoredKeyId, UserId } from "../../ids.ts";
import type { StoredKeyRecord } from "../../protocol/ceremony/model.ts";
import { createdKeyIdOf } from "../../protocol/ceremony/records.ts";
import { COUNTER_MAX, startingAt } from "../../protocol/otpwindow.ts";
import type { Tx } from "../../storage/store.ts";
import type { InputOf, OutputOf } from "../../wire/operations.ts";
import { createCeremonyKeys } from "../ceremony/keys.ts";
import type { KeyStoreSite } from "../ceremony/service.ts";
import { STORED_KEY } from "../ceremony/storedkeys.ts";
import { eachStored, listStored, putStored, readStored, removeStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { GRANT, GRANTED, grantedOwner, HANDOUT, TOKEN } from "./documents.ts";
import { enclaveIdentity, keyInUse } from "./enclavekeys.ts";
import type { DistributionPart } from "./index.ts";
import {
  grantedView,
  holds,
  issuedBy,
  kindOfOutput,
  type OtpEntry,
  ownEntry,
  ownView,
  readEntry,
  readState,
  removeGrant,
  saveGrant,
  saveState,
  stateNow,
} from "./keys.ts";
import { grantDocument, requesterName, shownRequester, storedRequester } from "./requesters.ts";

type Entries = Pick<DistributionPart, "otp.create" | "otp.entries" | "otp.grant" | "otp.revoke" | "otp.handouts">;

type View = OutputOf<"otp.grant">;

/** Entries in one answer: as many as the operation's codec takes. */
const ENTRIES = 16;
const HANDOUTS = 64;
const GRANT_BYTES = 16;

/** Refuses a name that another of the account's one-time passwords has. @throws Fault exists, rate_limited */
export async function demandRoom(site: KeyStoreSite, tx: Tx, userId: UserId, name: string): Promise<void> {
  const others = await issuedBy(tx, userId);
  if (others.some(({ value: { record, status } }) => record.name === name && status === "active"))
    throw new Fault("exists", `the account issues a key named ${name} already`);
  if (others.length >= site.ctx.limits.otpKeys)
    throw new Fault("rate_limited", "the account has as many keys as it may have");
}

const byName = (a: View, b: View): number =>
  a.record.name < b.record.name || (a.record.name === b.record.name && a.record.keyId < b.record.keyId) ? -1 : 1;

/** What issuers do with their keys (docs/protocol.md §10.8). */
export function createEntries(site: KeyStoreSite): Entries {
  const { ctx } = site;
  const identity = enclaveIdentity(site);
  const keys = createCeremonyKeys(site);

  async function recordOf(input: InputOf<"otp.create">): Promise<StoredKeyRecord> {
    const enclave = await identity();
    return {
      enclave,
      keyId: createdKeyIdOf(enclave, input.nonce),
      version: 1,
      ceremonyId: null,
      name: input.name,
      output: input.output,
      policy: { collect: "nobody", quorum: 0 },
      createdAtMs: ctx.now(),
    };
  }

  /** The key that the same call made before. @throws Fault conflict */
  async function madeBefore(tx: Tx, record: StoredKeyRecord, userId: UserId): Promise<OtpEntry | undefined> {
    const found = await readStored(tx, STORED_KEY, record.keyId);
    if (!found) return undefined;
    const entry = await readEntry(tx, record.keyId);
    if (entry?.value.issuer === userId && entry.value.record.name === record.name) return entry;
    throw new Fault("conflict", "this nonce made another key");
  }

  /** Newest name of whom a grant is for. @returns the account of that name, as of now. */
  async function holderOf(tx: Tx, to: ReturnType<typeof storedRequester>): Promise<UserId | null> {
    if (to.kind === "device") return null;
    return (await tx.credential(to.credentialId))?.userId ?? null;
  }

  return {
    async "otp.create"(caller, input) {
      const { userId } = caller.account;
      const record = await recordOf(input);
      const kind = kindOfOutput(record);
      if (!kind) throw new Fault("bad_input", "only one-time passwords are made without a ceremony");
      const counter = input.value?.counter ?? 0;
      if (counter > (kind.kind === "hotp" ? COUNTER_MAX : 0))
        throw new Fault("bad_input", "a hotp has a counter below 2^53 - 10^6, and a totp none");
      caller.concerns(record.keyId);
      const begun = await ctx.store.transaction(async (tx) => {
        const before = await madeBefore(tx, record, userId);
        if (before) return { view: await ownView(ctx, tx, before) };
        await demandRoom(site, tx, userId, record.name);
        return { key: input.value && (await keyInUse(keys, tx, input.value.keyNumber)) };
      }, userId);
      if (begun.view) return begun.view;
      const value =
        input.value && begun.key ? { sealed: input.value.sealed, key: begun.key, nonce: input.nonce } : null;
      const { stored } = await site.enclave.call("stored.create", { record, value });
      return ctx.store.transaction(async (tx) => {
        const before = await madeBefore(tx, record, userId);
        if (before) return ownView(ctx, tx, before);
        await demandRoom(site, tx, userId, record.name);
        const body = { ...stored, issuer: userId, status: "active" as const, movedTo: null };
        const row = { id: record.keyId, owner: userId, place: record.createdAtMs, value: body };
        if (!(await putStored(tx, STORED_KEY, row, 0))) throw changedMeanwhile();
        const entry: OtpEntry = { ...row, kind, version: 1 };
        const state = await readState(ctx, tx, entry);
        await saveState(tx, state, { ...state.value, ...startingAt(counter) });
        return ownView(ctx, tx, entry);
      }, userId);
    },

    async "otp.entries"({ account: { userId, credentialId } }, { after }) {
      return ctx.store.transaction(async (tx) => {
        const views: View[] = [];
        for (const entry of await issuedBy(tx, userId)) views.push(await ownView(ctx, tx, entry));
        for (const { id, value } of await eachStored(tx, GRANTED, grantedOwner(credentialId))) {
          const [entry, grant] = [await readEntry(tx, value.keyId), await readStored(tx, GRANT, id)];
          if (!entry || !grant || entry.value.issuer === userId) continue;
          if (entry.value.status !== "revoked" && holds(ctx, grant.value, userId))
            views.push(await grantedView(ctx, tx, entry, grant));
        }
        const all = views.toSorted(byName);
        // who goes on after a key that is gone meanwhile begins again
        const from = after === null ? 0 : all.findIndex(({ record }) => record.keyId === after) + 1;
        return { items: all.slice(from, from + ENTRIES), more: all.length > from + ENTRIES };
      }, userId);
    },

    async "otp.grant"({ account: { userId } }, { keyId, to, wants, perHour, untilMs }) {
      const requester = storedRequester(ctx, to);
      const name = requesterName(requester);
      return ctx.store.transaction(async (tx) => {
        const entry = await ownEntry(tx, keyId, userId);
        demandActive(entry);
        if (untilMs !== null && untilMs <= ctx.now()) throw new Fault("bad_input", "a grant ends later than now");
        const id = grantDocument(keyId, name);
        const before = await readStored(tx, GRANT, id);
        // the same statements whether the name has an account or not
        const holder = await holderOf(tx, requester);
        const terms = { wants: [...new Set(wants)].toSorted(), perHour, untilMs };
        if (before) {
          await saveGrant(tx, { ...before, value: { ...before.value, ...terms } }, before.version);
          return ownView(ctx, tx, entry);
        }
        const { otpGrants } = ctx.limits;
        if ((await tx.documentCount(GRANT.kind, keyId, otpGrants)) >= otpGrants)
          throw new Fault("rate_limited", "the key has too many grants", { hint: "revoke some" });
        const grantId = ctx.random(GRANT_BYTES).toHex();
        const value = { grantId, to: requester, userId: holder, ...terms, recent: [] };
        await saveGrant(tx, { id, owner: keyId, place: ctx.now(), value }, 0);
        // so that the grant goes with the issuer's account
        const state = await readState(ctx, tx, entry);
        if (state.version === 0) await saveState(tx, state, state.value);
        return ownView(ctx, tx, entry);
      }, keyId);
    },

    async "otp.revoke"({ account: { userId } }, { keyId, grantId, askId }) {
      return ctx.store.transaction(async (tx) => {
        const entry = await ownEntry(tx, keyId, userId);
        if (grantId !== null) await revokeGrant(tx, keyId, grantId);
        if (askId !== null) await revokeHandout(tx, keyId, askId);
        if (grantId !== null || askId !== null) return ownView(ctx, tx, entry);
        const { version, kind, ...row } = entry;
        if (entry.value.status === "revoked") return ownView(ctx, tx, entry);
        demandActive(entry);
        const value = { ...entry.value, status: "revoked" as const };
        if (!(await putStored(tx, STORED_KEY, { ...row, value }, version))) throw changedMeanwhile();
        for (const { id } of await eachStored(tx, TOKEN, keyId)) await removeStored(tx, TOKEN, id);
        return ownView(ctx, tx, { ...row, kind, value, version: version + 1 });
      }, keyId);
    },

    async "otp.handouts"({ account: { userId } }, { keyId, after }) {
      return ctx.store.transaction(async (tx) => {
        const entry = await ownEntry(tx, keyId, userId);
        const from = after === null ? null : await readStored(tx, HANDOUT, after);
        // what comes after one that is forgotten is forgotten, too
        if (from === undefined || (from && from.owner !== keyId)) return { items: [], more: false };
        const rows = await listStored(tx, HANDOUT, keyId, from, HANDOUTS + 1);
        const grants = new Map(
          (await eachStored(tx, GRANT, keyId)).map(({ id, value }) => [id, value.grantId] as const),
        );
        const items = rows.slice(0, HANDOUTS).map(({ id, value }) => {
          const state = stateNow(ctx, entry, value, grants.get(grantDocument(keyId, requesterName(value.to))));
          return {
            askId: id as NonNullable<typeof after>,
            to: shownRequester(ctx, value.to),
            want: value.want,
            state: state === "allocated" ? ("open" as const) : state,
            atMs: value.atMs,
            expiresAtMs: value.expiresAtMs,
            usedAtMs: value.usedAtMs,
          };
        });
        return { items, more: rows.length > HANDOUTS };
      }, keyId);
    },
  };
}

/** @throws Fault conflict */
export function demandActive({ value: { status } }: OtpEntry): void {
  if (status !== "active")
    throw new Fault("conflict", `this key is ${status === "moved" ? "at another server" : status}`);
}

async function revokeGrant(tx: Tx, keyId: StoredKeyId, grantId: string): Promise<void> {
  const found = (await eachStored(tx, GRANT, keyId)).find(({ value }) => value.grantId === grantId);
  if (!found) throw new Fault("not_found", "the key has no such grant");
  await removeGrant(tx, found);
}

async function revokeHandout(tx: Tx, keyId: StoredKeyId, askId: string): Promise<void> {
  const found = await readStored(tx, HANDOUT, askId);
  if (found?.owner !== keyId || found.value.want !== "code")
    throw new Fault("not_found", "no such code was handed out");
  if (found.value.state === "used" || found.value.state === "revoked") return;
  const { version, ...row } = found;
  if (!(await putStored(tx, HANDOUT, { ...row, value: { ...row.value, state: "revoked" } }, version)))
    throw changedMeanwhile();
}
