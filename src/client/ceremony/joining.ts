import { secp256k1 } from "@noble/curves/secp256k1.js";
import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { hpkeKeyPair } from "../../crypto/hpke.ts";
import { signerFromSeed } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { commitmentOf, contributionOf } from "../../protocol/ceremony/contribution.ts";
import { decodeInvite } from "../../protocol/ceremony/invite.ts";
import type { CeremonyJoin } from "../../protocol/ceremony/model.ts";
import { entryHolds, signJoin } from "../../protocol/ceremony/records.ts";
import { publicKeyOf } from "../../protocol/keygen.ts";
import type { CeremonyClient, CeremonyInfo } from "../ceremonyapi.ts";
import type { Reaching } from "../federation/members.ts";
import type { Surroundings } from "../model.ts";
import { sendJoin } from "./acts.ts";
import { heldCeremony, withCeremony } from "./books.ts";
import { find, lookedAt, type Place } from "./finding.ts";
import { type Ground, type Looking, lie, passingGround } from "./ground.ts";
import type { HeldCeremony, HeldOwn } from "./held.ts";
import { isCounted, type Look, look } from "./looks.ts";

type JoinInput = Parameters<CeremonyClient["ceremonyJoin"]>[0];

/** Seed and wide scalar of what is drawn for one seat, in bytes. */
const SEED_BYTES = 32;
const WIDE_BYTES = 48;

/** A seat that can be taken. */
interface Seat {
  readonly place: Place;
  readonly index: number;
  /** Seed of the invite's key; null for a seat of the account. */
  readonly inviteSeed: Uint8Array | null;
}

/** Opens an invite: the ceremony, as its server shows it, and the seat. @throws Fault bad_input, integrity */
async function invited(ground: Looking, invite: string): Promise<{ readonly seen: Look; readonly seat: Seat }> {
  const { url, pin, ceremonyId, index, seed } = decodeInvite(invite);
  const place: Place = { url, pin, ceremonyId };
  const seen = await look(ground, place);
  const slot = seen.state.manifest.draft.slots[index - 1];
  const { publicKey } = signerFromSeed(seed);
  if (!slot?.invite || !equalBytes(slot.invite, publicKey)) {
    throw new Fault("bad_input", "this invite is not for a seat of the ceremony that it names", {
      hint: "ask the organiser for your invite again",
    });
  }
  return { seen, seat: { place, index, inviteSeed: seed } };
}

/** The seat that a ceremony keeps for the account. @throws Fault not_found, denied */
async function kept(ground: Ground, wanted: string): Promise<{ readonly seen: Look; readonly seat: Seat }> {
  const place = await find(ground, wanted);
  const { name } = ground.account();
  const seen = await look(ground, place);
  const slot = seen.state.manifest.draft.slots.find(({ account }) => account === name);
  if (!slot) {
    throw new Fault("denied", `"${seen.state.manifest.draft.name}" keeps no seat for the account ${name}`, {
      hint: "with an invite: keyhold ceremony join INVITE",
    });
  }
  return { seen, seat: { place, index: slot.index, inviteSeed: null } };
}

/** Reads an invite without using it. */
export async function lookAtInvite(ground: Looking, invite: string) {
  const { seen, seat } = await invited(ground, invite);
  return { info: lookedAt(ground, seen, seat.index), index: seat.index };
}

/** Reads an invite where there is no vault yet, and keeps nothing. @throws Fault unreachable, pin_mismatch, not_found … */
export const lookWithoutVault = (around: Surroundings, invite: string, reaching: Reaching = {}) =>
  lookAtInvite(passingGround(around, reaching), invite);

/** @throws Fault stale, conflict where the seat cannot be taken any more */
function demandFree({ state }: Look, index: number): void {
  const { name } = state.manifest.draft;
  const hint = "ask the organiser for an invite to another run";
  if (state.taken.has(index)) {
    throw new Fault("conflict", `seat ${index} of "${name}" is already taken`, {
      why: "somebody has used this invite",
      hint: "if it was not you: tell the organiser, who closes the ceremony",
    });
  }
  if (state.status === "aborted") throw new Fault("stale", `"${name}" was aborted`, { hint });
  if (state.status !== "open" && state.status !== "commit") {
    throw new Fault("stale", `the commitments of "${name}" are closed`, { hint });
  }
}

/** Draws everything for one seat; nothing of it has served before. */
async function draw(ground: Ground, { state }: Look, seat: Seat, input: JoinInput): Promise<HeldOwn> {
  const { index } = seat;
  const { ceremonyId, manifest } = state;
  const keySeed = ground.random(SEED_BYTES);
  const sealingSeed = ground.random(SEED_BYTES);
  const inviteSeed = seat.inviteSeed ?? ground.random(SEED_BYTES);
  const os = ground.random(SEED_BYTES);
  const wide = ground.random(WIDE_BYTES);
  try {
    const opening = contributionOf(
      os,
      input.mixed.map(({ bytes }) => bytes),
    );
    const wallet = manifest.draft.output.kind === "multisig";
    const scalar = wallet ? secp256k1.utils.randomSecretKey(wide) : null;
    const participant = signerFromSeed(keySeed);
    const named = { ceremonyId, index, key: participant.publicKey, function: input.function };
    const join: CeremonyJoin = {
      ...named,
      sealing: (await hpkeKeyPair(sealingSeed)).publicKey,
      share: scalar && publicKeyOf("secp256k1", scalar),
      commitment: commitmentOf(named, opening),
    };
    return {
      ...{ index, keySeed, sealingSeed, inviteSeed, opening, scalar, suite: input.suite },
      join: signJoin(participant, signerFromSeed(inviteSeed), join),
      ...{ part: null, joinedSeq: null, reveal: null, revealedSeq: null },
    };
  } finally {
    wipe(os, wide);
  }
}

/** Takes the account's seat for the invite key that this vault has drawn. @throws Fault integrity */
async function takeSeat(ground: Ground, { asking, ceremonyId, state }: Look, own: HeldOwn): Promise<void> {
  const { index } = own;
  const key = signerFromSeed(own.inviteSeed).publicKey;
  const { entry } = await ground.call("ceremony.seat", { ceremonyId, index, key });
  const { body } = entry.entry;
  const holds = entryHolds(state.manifest.draft.key.key.enclave, ceremonyId, entry);
  if (!holds || body.kind !== "seat" || body.index !== index || !equalBytes(body.invite, key)) {
    throw lie(asking.url, "a seat that is not the one that was taken");
  }
}

/** What is held of a ceremony from now on. */
function heldWith(ground: Ground, seen: Look, own: HeldOwn): HeldCeremony {
  const { asking, ceremonyId, transcript } = seen;
  const known = heldCeremony(ground, ceremonyId);
  if (known) return { ...known, own };
  const { url, pin, caPem, statementNumber } = asking;
  return {
    ...{ url, pin, caPem, statementNumber, ceremonyId, own },
    manifest: transcript.manifest,
    addedAtMs: ground.now(),
    seen: seen.seen,
    organiser: null,
    asked: null,
    collectedAtMs: null,
  };
}

/** Commits; the same again sends the same bytes. */
export async function joinCeremony(ground: Ground, input: JoinInput): Promise<CeremonyInfo> {
  const { invite, ceremony } = input;
  if ((invite === null) === (ceremony === null)) {
    throw new Fault("bad_input", "give an invite, or the ceremony that keeps a seat for your account");
  }
  const { seen, seat } = invite === null ? await kept(ground, ceremony ?? "") : await invited(ground, invite);
  const { ceremonyId } = seen;
  const before = heldCeremony(ground, ceremonyId)?.own;
  const counted = before ? isCounted(before, seen.state) : false;
  if (before && before.index !== seat.index && counted) {
    throw new Fault("conflict", `this vault has seat ${before.index} of this ceremony already`, {
      why: "everyone brings chance of their own: two seats of one vault are worth one",
    });
  }
  if (before?.index === seat.index && counted) return lookedAt(ground, seen);
  demandFree(seen, seat.index);
  const again = before?.index === seat.index;
  const own = again ? before : await draw(ground, seen, seat, input);
  // from here on a kill loses nothing: the same seat, with the same bytes
  if (!again) await ground.change((held) => withCeremony(held, heldWith(ground, seen, own)));
  if (seat.inviteSeed === null && !seen.state.seats.has(seat.index)) await takeSeat(ground, seen, own);
  try {
    return lookedAt(ground, await sendJoin(ground, seen));
  } catch (error) {
    if (error instanceof Fault && (error.code === "conflict" || error.code === "stale")) {
      // somebody else was quicker, or the time is over by now
      demandFree(await look(ground, seat.place), seat.index);
    }
    throw error;
  }
}
