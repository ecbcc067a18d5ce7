import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import { type CeremonyState, ceremonyState } from "../../protocol/ceremony/life.ts";
import type {
  SignedCeremonyJoin,
  SignedCeremonyManifest,
  SignedEntry,
  Transcript,
} from "../../protocol/ceremony/model.ts";
import { walletDescriptor } from "../../protocol/ceremony/output.ts";
import { ceremonyIdOf, entryHash, joinBytes } from "../../protocol/ceremony/records.ts";
import { ENTRIES_MAX } from "../../wire/ceremony/records.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { changeCeremony } from "./books.ts";
import { type Asking, type Known, type Looking, lie, pinKey } from "./ground.ts";
import type { HeldCeremony, HeldOwn, Seen } from "./held.ts";

type Page = OutputOf<"ceremony.get">;

/** A ceremony as its server shows it, verified. */
export interface Look {
  readonly asking: Asking;
  readonly ceremonyId: CeremonyId;
  readonly transcript: Transcript;
  readonly state: CeremonyState;
  readonly seen: Seen;
  readonly releases: Page["releases"];
}

/**
 * Fetches what is new of a ceremony and verifies its whole transcript: every signature and every rule, and that it goes
 * on from all that this vault has seen of it.
 *
 * @throws Fault integrity, which names the server; not_found
 */
export async function look(
  ground: Looking,
  { ceremonyId, ...server }: Known & { readonly ceremonyId: CeremonyId },
): Promise<Look> {
  const asking = await ground.at(server);
  const { url } = asking;
  const { transcript, page } = await fetchTranscript(ground, asking, ceremonyId);
  await pinKey(ground, asking, transcript.manifest.manifest.draft.key);
  const state = stateAt(url, transcript, page.atMs);
  const held = ground.held().ceremonies.find((one) => one.ceremonyId === ceremonyId);
  if (held) goesOn(url, held, transcript, state);
  checkWallet(url, state);
  ground.transcripts.set(ceremonyId, transcript);
  const seen = seenOf(state);
  if (held) await keepSeen(ground, held, asking, seen);
  return { asking, ceremonyId, transcript, state, seen, releases: page.releases };
}

/** The state of what a server shows. @throws Fault integrity */
function stateAt(url: string, transcript: Transcript, atMs: number): CeremonyState {
  try {
    return ceremonyState(transcript, atMs);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw lie(url, "a transcript that does not hold", error.message);
  }
}

async function fetchTranscript(ground: Looking, asking: Asking, ceremonyId: CeremonyId) {
  const { url } = asking;
  const known = ground.transcripts.get(ceremonyId);
  const entries: SignedEntry[] = [...(known?.entries ?? [])];
  let manifest: SignedCeremonyManifest | null = null;
  for (;;) {
    const page = await asking.ask("ceremony.get", { ceremonyId, after: entries.length });
    if (ceremonyIdOf(page.manifest.manifest) !== ceremonyId) throw lie(url, "another ceremony than was asked for");
    manifest = page.manifest;
    for (const one of page.entries) {
      if (one.entry.seq !== entries.length + 1) throw lie(url, "a transcript with a gap");
      entries.push(one);
    }
    if (entries.length > ENTRIES_MAX || (page.more && page.entries.length === 0)) {
      throw lie(url, "a transcript without an end");
    }
    if (!page.more) return { transcript: { manifest, entries }, page };
  }
}

/** What was seen before is still there: the same entry at the same place, and this vault's own acts. */
function goesOn(url: string, { seen, own }: HeldCeremony, transcript: Transcript, state: CeremonyState): void {
  const at = (seq: number) => transcript.entries[seq - 1]?.entry;
  const fork = "its operator shows different people different ceremonies, or has put back an older copy";
  if (seen.seq > 0) {
    const entry = at(seen.seq);
    if (!entry) throw lie(url, `a transcript without its record ${seen.seq}, which it has signed`, fork);
    if (!equalBytes(entryHash(state.ceremonyId, entry), seen.hash)) {
      throw lie(url, `another record ${seen.seq} of the ceremony than before`, fork);
    }
  }
  if (!own) return;
  const { index, join, joinedSeq, reveal, revealedSeq } = own;
  const shown = state.taken.get(index);
  if (joinedSeq !== null && (!shown || !sameJoin(shown, join))) {
    throw lie(url, `a ceremony without this vault's commitment at seat ${index}`, fork);
  }
  if (reveal && state.t1 && !equalBytes(state.t1, reveal.reveal.reveal.t1)) {
    throw lie(url, "other commitments than those to which this vault has revealed", fork);
  }
  if (revealedSeq !== null && !state.reveals.has(index)) {
    throw lie(url, `a ceremony without this vault's reveal at seat ${index}`, fork);
  }
}

/** True for the same commitment, byte for byte. */
export function sameJoin(a: SignedCeremonyJoin, b: SignedCeremonyJoin): boolean {
  return (
    equalBytes(joinBytes(a.join).own, joinBytes(b.join).own) &&
    equalBytes(a.signature, b.signature) &&
    equalBytes(a.invitation, b.invitation)
  );
}

/** A wallet's descriptor is of its keys, and no participant is given another's place. @throws Fault integrity */
function checkWallet(url: string, { manifest, result }: CeremonyState): void {
  const { output } = manifest.draft;
  if (!result || output.kind !== "multisig") return;
  try {
    const keys = result.output.keys.map(({ publicKey }) => publicKey);
    if (walletDescriptor(output.threshold, keys) === result.output.descriptor) return;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
  throw lie(url, "a wallet that is not of its participants' keys");
}

/** How a ceremony stands, short enough to be kept. */
export function seenOf(state: CeremonyState): Seen {
  const { status, untilMs, head, manifest, taken, reveals, abort, result } = state;
  const over = status !== "open" && status !== "commit";
  const seatState = (index: number): Seen["seats"][number]["state"] => {
    const blamed = abort?.culprits.includes(index) ?? false;
    if (!taken.has(index)) return over ? "absent" : "waiting";
    if (blamed && abort?.reason === "lied") return "lied";
    if (reveals.has(index)) return "revealed";
    return blamed && abort?.reason === "withheld" ? "withheld" : "committed";
  };
  return {
    seq: head.seq,
    hash: head.hash,
    status,
    untilMs,
    seats: manifest.draft.slots.map(({ index }) => ({
      index,
      state: seatState(index),
      function: taken.get(index)?.join.function ?? null,
    })),
    aborted: abort && { reason: abort.reason, culprits: abort.culprits },
    result: result && {
      stored: result.stored,
      custody: result.custody,
      keyHash: result.keyHash,
      publicKey: result.output.publicKey,
      descriptor: result.output.descriptor,
    },
  };
}

/** True once the vault's own commitment, and nobody else's, has its seat. */
export function isCounted({ index, join }: HeldOwn, { taken }: CeremonyState): boolean {
  const shown = taken.get(index);
  return shown !== undefined && sameJoin(shown, join);
}

/** Where this vault's own acts stand in a transcript. */
function actsOf({ index, join }: HeldOwn, { entries }: Transcript): Pick<HeldOwn, "joinedSeq" | "revealedSeq"> {
  let joinedSeq: number | null = null;
  let revealedSeq: number | null = null;
  for (const { entry } of entries) {
    const { body, seq } = entry;
    if (body.kind === "join" && body.join.join.index === index && sameJoin(body.join, join)) joinedSeq = seq;
    if (body.kind === "reveal" && body.reveal.reveal.index === index && joinedSeq !== null) revealedSeq = seq;
  }
  return { joinedSeq, revealedSeq };
}

/** Keeps how a ceremony stands, where that changed; never less than another process of this vault has seen. */
async function keepSeen(ground: Looking, held: HeldCeremony, asking: Asking, seen: Seen): Promise<void> {
  if (held.seen.seq === seen.seq && held.seen.status === seen.status) return;
  const transcript = ground.transcripts.get(held.ceremonyId);
  await changeCeremony(ground, held.ceremonyId, (one) => {
    if (one.seen.seq > seen.seq) return one;
    const own = one.own && transcript ? { ...one.own, ...actsOf(one.own, transcript) } : one.own;
    const { caPem, statementNumber } = asking.link === null ? one : asking;
    return { ...one, caPem, statementNumber, seen, own };
  });
}
