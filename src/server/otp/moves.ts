import { equalBytes } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import type { SignedCeremonyKey } from "../../protocol/ceremony/model.ts";
import { ceremonyKeyHash, movedKeyIdOf, verifyCeremonyKey } from "../../protocol/ceremony/records.ts";
import { COUNTER_MAX, freshSteps, startingAt } from "../../protocol/otpwindow.ts";
import type { Tx } from "../../storage/store.ts";
import { encodeJson, type Of } from "../../wire/codec.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { parcel as parcelCodec } from "../../wire/otp/operations.ts";
import { pinOf } from "../../wire/pin.ts";
import { createCeremonyKeys } from "../ceremony/keys.ts";
import type { KeyStoreSite } from "../ceremony/service.ts";
import { STORED_KEY } from "../ceremony/storedkeys.ts";
import { eachStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { ARRIVAL, PARCEL, type ParcelBody, TOKEN } from "./documents.ts";
import { keyInUse } from "./enclavekeys.ts";
import { demandActive, demandRoom } from "./entries.ts";
import type { DistributionPart } from "./index.ts";
import { kindOfOutput, type OtpEntry, ownEntry, ownView, readEntry, readState, type State, saveState } from "./keys.ts";

type Moves = Pick<DistributionPart, "otp.send" | "otp.receive">;
type Parcel = Of<typeof parcelCodec>;

/** By how much a counter is ahead in a parcel, so that codes that are handed out meanwhile do not hold it up. */
const AHEAD = 64;
const ATTEMPTS = 4;

/** For the issuer of a key that is somewhere else. */
export function movedAway({ value: { movedTo } }: OtpEntry): Fault {
  const where = movedTo ? ` with pin ${pinOf(movedTo)}` : "";
  return new Fault("conflict", `this key is at another server${where}: ask that one`);
}

/** For a requester who may ask for it: where the key is, and under which id. */
export async function movedFor(tx: Tx, entry: OtpEntry): Promise<Fault> {
  const row = await readStored(tx, PARCEL, entry.id);
  if (!row || !entry.value.movedTo) return movedAway(entry);
  const [pin, id] = [pinOf(entry.value.movedTo), idHere(row.value.parcel)];
  return new Fault("conflict", `this key is at another server with pin ${pin} under the id ${id}: ask that one`);
}

/** Keys that go to another server's store, for good (docs/protocol.md §10.8). */
export function createMoves(site: KeyStoreSite): Moves {
  const { ctx } = site;
  const keys = createCeremonyKeys(site);

  /** The counter with which the other server begins. @throws Fault conflict */
  function counterOf({ kind }: OtpEntry, { value: { provisionedTo, next } }: State): number {
    if (provisionedTo !== null)
      throw new Fault("conflict", "this key is in an authenticator: it stays where its codes are counted");
    return kind.kind === "hotp" ? Math.min(next + AHEAD, COUNTER_MAX) : 0;
  }

  /** The parcel in which a key has left; another one for another key of the same server. @throws Fault conflict */
  async function parcelBefore(tx: Tx, entry: OtpEntry, to: SignedCeremonyKey): Promise<Stored<ParcelBody> | undefined> {
    const { status, movedTo } = entry.value;
    if (status !== "moved") {
      demandActive(entry);
      return undefined;
    }
    const row = await readStored(tx, PARCEL, entry.id);
    if (!row || !movedTo || !equalBytes(movedTo, to.key.server)) throw movedAway(entry);
    return row;
  }

  const isFor = ({ parcel }: ParcelBody, to: SignedCeremonyKey): boolean =>
    equalBytes(ceremonyKeyHash(parcel.to.key), ceremonyKeyHash(to.key));

  async function look(tx: Tx, userId: UserId, keyId: OtpEntry["id"], to: SignedCeremonyKey) {
    const entry = await ownEntry(tx, keyId, userId);
    const before = await parcelBefore(tx, entry, to);
    if (before && isFor(before.value, to)) return { parcel: before.value.parcel };
    // the counter of a key that has left stands still
    const counter = before ? before.value.parcel.counter : counterOf(entry, await readState(ctx, tx, entry));
    return { entry, counter };
  }

  /** Value and counter leave together: the parcel and the mark that it has gone are one transaction. */
  async function letGo(tx: Tx, userId: UserId, made: Parcel): Promise<Parcel | null> {
    const entry = await ownEntry(tx, made.record.keyId, userId);
    const before = await parcelBefore(tx, entry, made.to);
    if (before && isFor(before.value, made.to)) return before.value.parcel;
    if (!before) {
      const state = await readState(ctx, tx, entry);
      counterOf(entry, state);
      if (entry.kind.kind === "hotp" && state.value.next > made.counter) return null;
      const { version, kind: _, ...row } = entry;
      const value = { ...row.value, status: "moved" as const, movedTo: made.to.key.server };
      if (row.value.record.version !== made.record.version) return null;
      if (!(await putStored(tx, STORED_KEY, { ...row, value }, version))) throw changedMeanwhile();
      for (const { id } of await eachStored(tx, TOKEN, entry.id)) await removeStored(tx, TOKEN, id);
    }
    const row = { id: entry.id, owner: userId, place: ctx.now(), value: { parcel: made } };
    if (!(await putStored(tx, PARCEL, row, before?.version ?? 0))) throw changedMeanwhile();
    return made;
  }

  /** A key that came in this very parcel. @throws Fault conflict */
  async function arrivedBefore(tx: Tx, userId: UserId, parcel: Parcel): Promise<OtpEntry | undefined> {
    const keyId = idHere(parcel);
    const there = await readStored(tx, STORED_KEY, keyId);
    const arrival = await readStored(tx, ARRIVAL, keyId);
    if (!there) return undefined;
    const entry = await readEntry(tx, keyId);
    if (entry?.value.issuer === userId && arrival && equalBytes(arrival.value.parcelHash, hashOf(parcel))) return entry;
    throw new Fault("conflict", "this key is here already, or was");
  }

  return {
    async "otp.send"({ account: { userId } }, { keyId, to }) {
      verifyCeremonyKey(to);
      if (equalBytes(to.key.server, ctx.keys.identity)) throw new Fault("bad_input", "the key is at this server");
      const { statement: from } = await keys.newest();
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const begun = await ctx.store.transaction((tx) => look(tx, userId, keyId, to), keyId);
        if (begun.parcel) return begun.parcel;
        const { entry, counter } = begun;
        const { record, sealed: value } = entry.value;
        const stored = { record, sealed: value };
        const left = await site.enclave.call("stored.send", { stored, to, counter });
        const made: Parcel = { record, from, to, ...left };
        const sent = await ctx.store.transaction((tx) => letGo(tx, userId, made), keyId);
        if (sent) return sent;
      }
      throw new Fault("unavailable", "codes of this key are handed out too fast for it to leave: try again");
    },

    async "otp.receive"({ account: { userId }, concerns }, { parcel }): Promise<OutputOf<"otp.receive">> {
      const { record, to } = parcel;
      const kind = kindOfOutput(record);
      if (!kind || !equalBytes(to.key.server, ctx.keys.identity))
        throw new Fault("bad_input", "this parcel is not for this server");
      const keyId = idHere(parcel);
      concerns(keyId);
      const begun = await ctx.store.transaction(async (tx) => {
        const before = await arrivedBefore(tx, userId, parcel);
        if (before) return { view: await ownView(ctx, tx, before) };
        await demandRoom(site, tx, userId, record.name);
        return { key: await keyInUse(keys, tx, to.key.number) };
      }, userId);
      if (begun.view) return begun.view;
      const { stored } = await site.enclave.call("stored.receive", {
        parcel,
        key: begun.key,
        receiver: receiverOf(userId),
      });
      return ctx.store.transaction(async (tx) => {
        const before = await arrivedBefore(tx, userId, parcel);
        if (before) return ownView(ctx, tx, before);
        await demandRoom(site, tx, userId, record.name);
        const nowMs = ctx.now();
        const body = { ...stored, issuer: userId, status: "active" as const, movedTo: null };
        const row = { id: keyId, owner: userId, place: nowMs, value: body };
        if (stored.record.keyId !== keyId) throw new Fault("internal", "the server failed");
        if (!(await putStored(tx, STORED_KEY, row, 0))) throw changedMeanwhile();
        const arrival = { id: keyId, owner: userId, place: nowMs, value: { parcelHash: hashOf(parcel) } };
        if (!(await putStored(tx, ARRIVAL, arrival, 0))) throw changedMeanwhile();
        const entry: OtpEntry = { ...row, kind, version: 1 };
        const state = await readState(ctx, tx, entry);
        // steps of now and the next may have been handed out where it was
        const position = kind.kind === "hotp" ? startingAt(parcel.counter) : freshSteps(kind, startingAt(0), nowMs);
        await saveState(tx, state, { ...state.value, ...position });
        return ownView(ctx, tx, entry);
      }, userId);
    },
  };
}

/** The id that a parcel's key has here: of what its sender signed, so that nobody else can take it. */
const idHere = ({ record, to }: Parcel) => movedKeyIdOf(to.key.enclave, record);

/** How the enclave knows the account that a key came to. */
const receiverOf = (userId: UserId): Uint8Array => sha256(new TextEncoder().encode(userId));

const hashOf = (parcel: Parcel): Uint8Array => sha256(new TextEncoder().encode(encodeJson(parcelCodec, parcel)));
