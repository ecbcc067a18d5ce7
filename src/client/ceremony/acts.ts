import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { hpkeKeyPair, hpkeOpen, hpkeSeal } from "../../crypto/hpke.ts";
import { signerFromSeed } from "../../crypto/identity.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { rsaOaepSeal } from "../../crypto/rsaoaep.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import { t1Of } from "../../protocol/ceremony/combine.ts";
import type { CeremonyReveal, EntryBody, SignedCeremonyReveal, SignedEntry } from "../../protocol/ceremony/model.ts";
import { walletKeyOf } from "../../protocol/ceremony/output.ts";
import { entryHash, entryHolds, openingInfo, revealBytes, walletPartInfo } from "../../protocol/ceremony/records.ts";
import { publicKeyOf } from "../../protocol/keygen.ts";
import type { CeremonyInfo } from "../ceremonyapi.ts";
import { changeCeremony, heldCeremony } from "./books.ts";
import { lookedAt, mine, placeOf } from "./finding.ts";
import { type Ground, lie } from "./ground.ts";
import type { HeldCeremony, HeldOwn } from "./held.ts";
import { isCounted, type Look, look, sameJoin } from "./looks.ts";

/** Changes what this vault has as a participant; on disk on return. */
function changeOwn(ground: Ground, ceremonyId: CeremonyId, change: (own: HeldOwn) => HeldOwn): Promise<void> {
  return changeCeremony(ground, ceremonyId, (one) => (one.own ? { ...one, own: change(one.own) } : one));
}

/** What this vault has as a participant, in its newest generation. */
function ownOf(ground: Ground, ceremonyId: CeremonyId): HeldOwn {
  const own = heldCeremony(ground, ceremonyId)?.own;
  if (own) return own;
  throw new Fault("conflict", "this vault has no seat in this ceremony");
}

/** A word of the enclave about this ceremony. @throws Fault integrity */
function signedWord({ asking, ceremonyId, state }: Look, entry: SignedEntry): EntryBody {
  if (entryHolds(state.manifest.draft.key.key.enclave, ceremonyId, entry)) return entry.entry.body;
  throw lie(asking.url, "an acknowledgement that its enclave did not sign");
}

/** Looks again after an acknowledgement, which the transcript must have. @throws Fault integrity */
async function lookAfter(ground: Ground, before: Look, { entry }: SignedEntry): Promise<Look> {
  const { ceremonyId, asking } = before;
  const after = await look(ground, { ...asking, ceremonyId });
  const shown = after.transcript.entries[entry.seq - 1]?.entry;
  if (shown && equalBytes(entryHash(ceremonyId, shown), entryHash(ceremonyId, entry))) return after;
  throw lie(asking.url, "a transcript without what it has acknowledged");
}

/** Sends the commitment as it is in the vault, and holds the server to its acknowledgement. */
export async function sendJoin(ground: Ground, seen: Look): Promise<Look> {
  const { asking, ceremonyId } = seen;
  const { join } = ownOf(ground, ceremonyId);
  const { entry } = await asking.ask("ceremony.join", { join });
  const body = signedWord(seen, entry);
  if (body.kind !== "join" || !sameJoin(body.join, join)) throw lie(asking.url, "another commitment than was sent");
  await changeOwn(ground, ceremonyId, (own) => ({ ...own, joinedSeq: entry.entry.seq }));
  return lookAfter(ground, seen, entry);
}

/**
 * Seals the opening to the server's key, once: what was revealed to is never revealed to something else.
 *
 * @throws Fault integrity for commitments that are frozen otherwise than they are
 */
async function prepareReveal(ground: Ground, { asking, ceremonyId, state }: Look): Promise<void> {
  const own = ownOf(ground, ceremonyId);
  const { index, suite } = own;
  const { t1 } = state;
  if (t1 === null || !equalBytes(t1, t1Of(ceremonyId, state.joins))) {
    throw lie(asking.url, "a sum over other commitments than those that it shows");
  }
  if (!isCounted(own, state)) throw lie(asking.url, "commitments without this vault's own");
  if (own.reveal) return;
  const { key } = state.manifest.draft.key;
  const info = openingInfo(ceremonyId, index, t1);
  const sealed =
    suite === "hpke"
      ? await hpkeSeal(key.sealing, info, own.opening, ground.random)
      : rsaOaepSeal(key.rsa, info, own.opening);
  const reveal: CeremonyReveal = { ceremonyId, index, t1, keyNumber: key.number, suite, sealedHash: sha256(sealed) };
  const signature = signerFromSeed(own.keySeed).sign(revealBytes(reveal));
  await changeOwn(ground, ceremonyId, (now) => ({
    ...now,
    reveal: now.reveal ?? { reveal: { reveal, signature }, sealed },
  }));
}

const sameReveal = (a: SignedCeremonyReveal, b: SignedCeremonyReveal): boolean =>
  equalBytes(revealBytes(a.reveal), revealBytes(b.reveal)) && equalBytes(a.signature, b.signature);

/** What the server calls a lie of this vault's was true. @throws Fault integrity */
function accuse(url: string, own: HeldOwn, body: EntryBody | null): void {
  if (body?.kind !== "abort" || body.reason !== "lied" || !body.reveal || !own.reveal) return;
  if (!body.culprits.includes(own.index) || !sameReveal(body.reveal, own.reveal.reveal)) return;
  throw new Fault("integrity", "the server says that this vault revealed something else than it committed to", {
    why: "what this vault has sent is what it committed to: the server ended the ceremony with a false word",
    hint: "keep the transcript and your opening (keyhold ceremony transcript, ceremony opening): they prove it",
    culprits: [url],
  });
}

/** Reveals what this vault committed to, and holds the server to its acknowledgement. */
async function sendReveal(ground: Ground, seen: Look): Promise<Look> {
  const { asking, ceremonyId } = seen;
  await prepareReveal(ground, seen);
  const own = ownOf(ground, ceremonyId);
  if (!own.reveal) throw new Fault("internal", "the opening was not sealed");
  let entry: SignedEntry;
  try {
    ({ entry } = await asking.ask("ceremony.reveal", own.reveal));
  } catch (error) {
    if (!(error instanceof Fault) || (error.code !== "stale" && error.code !== "conflict")) throw error;
    // too late, or somebody else has ended it: the transcript says so
    const after = await look(ground, { ...asking, ceremonyId });
    if (after.state.status === "reveal" && after.state.due === null && !after.state.reveals.has(own.index)) throw error;
    return after;
  }
  const body = signedWord(seen, entry);
  accuse(asking.url, own, body);
  if (body.kind !== "reveal" || !sameReveal(body.reveal, own.reveal.reveal)) {
    throw lie(asking.url, "an acknowledgement of something else than was revealed");
  }
  await changeOwn(ground, ceremonyId, (now) => ({ ...now, revealedSeq: entry.entry.seq }));
  return lookAfter(ground, seen, entry);
}

/** Public key of a wallet's participant. */
const walletKey = ({ state }: Look, index: number) =>
  state.result?.output.keys.find((one) => one.index === index)?.publicKey;

/** Fetches what the ceremony adds to this participant's own key of a wallet. @throws Fault integrity */
async function fetchPart(ground: Ground, seen: Look): Promise<void> {
  const { asking, ceremonyId } = seen;
  const { index, scalar, sealingSeed, part: known } = ownOf(ground, ceremonyId);
  if (scalar === null || known !== null) return;
  const { sealed } = await asking.ask("ceremony.part", { ceremonyId, index });
  const pair = await hpkeKeyPair(sealingSeed);
  let part: Uint8Array | undefined;
  let key: Uint8Array | undefined;
  try {
    part = await hpkeOpen(pair, walletPartInfo(ceremonyId, index, pair.publicKey), sealed);
    key = walletKeyOf(scalar, part);
    const point = publicKeyOf("secp256k1", key);
    const shown = walletKey(seen, index);
    if (!shown || !point || !equalBytes(point, shown)) throw new Fault("integrity", "they differ");
    const kept = part.slice();
    await changeOwn(ground, ceremonyId, (own) => ({ ...own, part: kept }));
  } catch (error) {
    if (!(error instanceof Fault) || (error.code !== "integrity" && error.code !== "bad_input")) throw error;
    throw lie(asking.url, "a wallet in which this vault's key is not what its part makes");
  } finally {
    wipe(part, key);
  }
}

/** What this vault has to do as things stand. */
async function act(ground: Ground, held: HeldCeremony): Promise<Look> {
  let seen = await look(ground, placeOf(held));
  if (held.own === null) return seen;
  const { own } = held;
  const { index } = own;
  const open = ({ state }: Look) => state.status === "open" || state.status === "commit";
  if (open(seen) && !seen.state.taken.has(index)) seen = await sendJoin(ground, seen);
  // somebody else may have used the invite first
  if (!isCounted(own, seen.state)) return seen;
  const { status, reveals } = seen.state;
  if (status === "reveal" && !reveals.has(index)) seen = await sendReveal(ground, seen);
  accuse(seen.asking.url, ownOf(ground, seen.ceremonyId), seen.state.abort);
  if (seen.state.result) await fetchPart(ground, seen);
  return seen;
}

/** Verifies the transcript anew and does what is this vault's to do, once. */
export async function advance(ground: Ground, wanted: string): Promise<CeremonyInfo> {
  return lookedAt(ground, await act(ground, await mine(ground, wanted)));
}
