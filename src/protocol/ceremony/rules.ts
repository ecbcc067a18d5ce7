import { secp256k1 } from "@noble/curves/secp256k1.js";
import { equalBytes } from "../../crypto/bytes.ts";
import { canSealTo } from "../../crypto/hpke.ts";
import { verifySignature } from "../../crypto/identity.ts";
import { type ErrorCode, Fault } from "../../errors.ts";
import { t1Of } from "./combine.ts";
import type { AbortReason, EntryBody, PublicOutput, SignedCeremonyJoin, SignedCeremonyReveal } from "./model.ts";
import { missingOf, type Progress, statusOf, transitionOf, untilOf } from "./progress.ts";
import { joinBytes, revealBytes, seedHashOf, storedKeyIdOf } from "./records.ts";

/** What each kind of entry must hold to (docs/protocol.md §10.4). */

const refuse = (code: ErrorCode, what: string, hint?: string) =>
  new Fault(code, what, hint === undefined ? {} : { hint });

function checkSeat(p: Progress, index: number, invite: Uint8Array): void {
  const slot = p.manifest.draft.slots[index - 1];
  if (!slot) throw refuse("bad_input", `there is no seat ${index}`);
  if (slot.account === null) throw refuse("denied", `seat ${index} is not an account's`);
  if (p.seats.has(index)) throw refuse("conflict", `seat ${index} is already taken`);
  const others = [...p.seats.values(), ...p.manifest.draft.slots.flatMap((one) => one.invite ?? [])];
  if (others.some((key) => equalBytes(key, invite))) throw refuse("conflict", "this key is another seat's");
}

/** What must not serve twice of a join. */
export const usedBy = ({ join }: SignedCeremonyJoin): readonly string[] =>
  [join.key, join.commitment, ...(join.share ? [join.share] : [])].map((bytes) => bytes.toHex());

function checkJoinSignatures({ join, invitation, signature }: SignedCeremonyJoin, invite: Uint8Array): void {
  const bytes = joinBytes(join);
  if (!verifySignature(invite, bytes.invitation, invitation)) {
    throw refuse("denied", `this is not the invite of seat ${join.index}`);
  }
  if (!verifySignature(join.key, bytes.own, signature)) {
    throw refuse("denied", "the participant's signature under its commitment does not hold");
  }
  if (!canSealTo(join.sealing)) throw refuse("bad_input", "nothing can be sealed to the participant's key");
  if (join.share && !secp256k1.utils.isValidPublicKey(join.share, true)) {
    throw refuse("bad_input", "the participant's share is no point of secp256k1");
  }
}

function checkJoin(p: Progress, signed: SignedCeremonyJoin, signatures: boolean): void {
  const { join } = signed;
  const { slots, output } = p.manifest.draft;
  if (join.ceremonyId !== p.ceremonyId) throw refuse("bad_input", "the commitment is for another ceremony");
  const slot = slots[join.index - 1];
  if (!slot) throw refuse("bad_input", `there is no seat ${join.index}`);
  if (p.taken.has(join.index)) throw refuse("conflict", `seat ${join.index} is already taken`);
  const invite = slot.invite ?? p.seats.get(join.index);
  if (!invite) throw refuse("denied", `no account has taken seat ${join.index} yet`);
  if ((join.share === null) === (output.kind === "multisig")) {
    throw refuse("bad_input", "a share belongs to a multisig wallet, and to nothing else");
  }
  if (usedBy(signed).some((hex) => p.used.has(hex))) {
    throw refuse("conflict", "another participant has this key, share or commitment");
  }
  if (signatures) checkJoinSignatures(signed, invite);
}

function checkFreeze(p: Progress, { t1, seed }: Extract<EntryBody, { kind: "freeze" }>): void {
  const { draft, seedHash } = p.manifest;
  if (p.taken.size < draft.minimum) {
    throw refuse("conflict", `${p.taken.size} have committed, ${draft.minimum} must`);
  }
  if (!equalBytes(t1, t1Of(p.ceremonyId, [...p.taken.values()]))) {
    throw refuse("bad_input", "T1 is not over the commitments that are there");
  }
  if (!equalBytes(seedHash, seedHashOf(seed, draft.nonce))) {
    throw refuse("bad_input", "the server's seed is not the one that it committed to");
  }
}

function checkReveal(p: Progress, { reveal, signature }: SignedCeremonyReveal, signatures: boolean): void {
  const { index } = reveal;
  const joined = p.taken.get(index);
  if (reveal.ceremonyId !== p.ceremonyId) throw refuse("bad_input", "the opening is for another ceremony");
  if (!joined) throw refuse("denied", `seat ${index} has not committed to anything`);
  if (p.reveals.has(index)) throw refuse("conflict", `participant ${index} has already revealed`);
  if (!p.frozen || !equalBytes(reveal.t1, p.frozen.t1)) {
    throw refuse("bad_input", "the opening names other commitments than those that are frozen");
  }
  if (reveal.keyNumber !== p.manifest.draft.key.key.number) {
    throw refuse("bad_input", "the opening is sealed to another key than the manifest's");
  }
  if (signatures && !verifySignature(joined.join.key, revealBytes(reveal), signature)) {
    throw refuse("denied", "the participant's signature under its opening does not hold");
  }
}

const KEY_PAIRS: readonly string[] = ["secp256k1", "p256", "ed25519", "rsa"];

function shapeHolds(p: Progress, { publicKey, descriptor, keys }: PublicOutput): boolean {
  const { kind } = p.manifest.draft.output;
  const wallet = kind === "multisig";
  const expected = wallet ? [...p.taken.keys()].sort((a, b) => a - b) : [];
  return (
    (publicKey !== null) === KEY_PAIRS.includes(kind) &&
    (descriptor !== null) === wallet &&
    keys.length === expected.length &&
    keys.every(({ index }, at) => index === expected[at])
  );
}

function checkResult(p: Progress, { output, stored, custody }: Extract<EntryBody, { kind: "result" }>): void {
  const { draft } = p.manifest;
  const wallet = draft.output.kind === "multisig";
  if (!shapeHolds(p, output)) throw refuse("bad_input", "the result is not what the manifest asks for");
  if ((custody === "self-custodial") !== wallet || (stored === null) !== wallet) {
    throw refuse("bad_input", "the result's custody is not that of its output");
  }
  if (!stored) return;
  const { enclave } = draft.key.key;
  const first = draft.replaces === null;
  const keyId = draft.replaces ?? storedKeyIdOf(enclave, Uint8Array.fromHex(p.ceremonyId));
  if (stored.keyId !== keyId || (stored.version === 1) !== first) {
    throw refuse("bad_input", "the result lies under another key of the store than the manifest says");
  }
}

/** Who is to blame for the end that time brings. */
export function culpritsOf(p: Progress, reason: Exclude<AbortReason, "lied">): readonly number[] {
  return reason === "absent" || reason === "withheld" ? missingOf(p) : [];
}

function checkAbort(
  p: Progress,
  { reason, culprits, reveal }: Extract<EntryBody, { kind: "abort" }>,
  atMs: number,
  signatures: boolean,
): void {
  const lie = reason === "lied";
  if ((reveal !== null) !== lie) throw refuse("bad_input", "an opening belongs to a lie, and to nothing else");
  if (reveal) checkReveal(p, reveal, signatures);
  const expected = reason === "lied" ? (reveal ? [reveal.reveal.index] : []) : culpritsOf(p, reason);
  if (culprits.length !== expected.length || culprits.some((index, at) => index !== expected[at])) {
    throw refuse("bad_input", "the abort names others than those to blame");
  }
  const until = untilOf(p, statusOf(p, atMs));
  if ((reason === "absent" || reason === "withheld") && (until === null || atMs < until)) {
    throw refuse("conflict", "the stage is not over yet");
  }
}

const LATE = "ask the organiser for another run";

/** Time and status first, then what the entry says. @throws Fault */
export function check(p: Progress, body: EntryBody, atMs: number, signatures: boolean): void {
  const status = statusOf(p, atMs);
  if (status === "stored" || status === "aborted") throw refuse("conflict", "the ceremony has ended");
  if (body.kind === "join" && p.taken.has(body.join.join.index)) {
    throw refuse("conflict", `seat ${body.join.join.index} is already taken`);
  }
  if (body.kind === "reveal" && p.reveals.has(body.reveal.reveal.index)) {
    throw refuse("conflict", `participant ${body.reveal.reveal.index} has already revealed`);
  }
  if (!transitionOf(body).from.includes(status)) throw outOfPlace(body, status);
  const until = untilOf(p, status);
  const late = until !== null && atMs >= until;
  if (late && (body.kind === "seat" || body.kind === "join")) {
    throw refuse("stale", "the time for commitments is over", LATE);
  }
  const lie = body.kind === "abort" && body.reason === "lied";
  if (late && (body.kind === "reveal" || lie)) throw refuse("stale", "the time for reveals is over", LATE);
  checkBody(p, body, atMs, signatures);
}

function checkBody(p: Progress, body: EntryBody, atMs: number, signatures: boolean): void {
  switch (body.kind) {
    case "seat":
      checkSeat(p, body.index, body.invite);
      break;
    case "join":
      checkJoin(p, body.join, signatures);
      break;
    case "freeze":
      checkFreeze(p, body);
      break;
    case "reveal":
      checkReveal(p, body.reveal, signatures);
      break;
    case "result":
      checkResult(p, body);
      break;
    case "abort":
      checkAbort(p, body, atMs, signatures);
      break;
  }
}

function outOfPlace(body: EntryBody, status: string): Fault {
  switch (body.kind) {
    case "seat":
    case "join":
      if (status === "freeze") return refuse("stale", "the time for commitments is over", LATE);
      return refuse("stale", "the commitments are already frozen", LATE);
    case "freeze":
      return refuse("conflict", status === "open" ? "nobody has committed yet" : "the commitments are already frozen");
    case "reveal":
      return refuse("conflict", "the commitments are not frozen yet");
    case "result":
      return refuse("conflict", "not everyone has revealed");
    case "abort":
      return refuse("conflict", `a ceremony in status ${status} does not end as ${body.reason}`);
  }
}
