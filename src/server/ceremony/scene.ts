import type { CeremonyId, UserId } from "../../ids.ts";
import { type CeremonyState, ceremonyState } from "../../protocol/ceremony/life.ts";
import type { SignedEntry, Transcript } from "../../protocol/ceremony/model.ts";
import type { Tx } from "../../storage/store.ts";
import { appendEvent } from "../audit.ts";
import { listStored, readStored, type Stored } from "../documents.ts";
import { shortId } from "../federation/named.ts";
import { createTurns, type Turns } from "../federation/turns.ts";
import {
  ARRIVING,
  type ArrivingBody,
  ASKED,
  type AskedBody,
  CEREMONY,
  type CeremonyBody,
  ENTRY,
  HEAD,
  type HeadBody,
  numbered,
} from "./documents.ts";
import { createFairLine, type FairLine } from "./fairline.ts";
import { type CeremonyKeys, createCeremonyKeys } from "./keys.ts";
import type { KeyStoreSite } from "./service.ts";

/** What the parts of the ceremonies share in one process. */
export interface Desk {
  readonly site: KeyStoreSite;
  readonly keys: CeremonyKeys;
  readonly turns: Turns;
  /** Entries of the ceremonies that were looked at last: they never change. */
  readonly known: Map<CeremonyId, readonly SignedEntry[]>;
  /** Combinations under way, by ceremony: they take long, and nothing waits for them. */
  readonly combining: Map<CeremonyId, Promise<void>>;
  /**
   * One combination at a time: many at once would take all of the enclave's time, until it is taken for dead. Those
   * with an Argon2id, which take up to minutes, are in a line of their own.
   */
  readonly combinations: { readonly long: FairLine; readonly short: FairLine };
  /** Set when the process ends: combinations that wait for their turn are left to the next one. */
  ending: boolean;
}

export function createDesk(site: KeyStoreSite): Desk {
  return {
    site,
    keys: createCeremonyKeys(site),
    turns: createTurns(),
    known: new Map(),
    combining: new Map(),
    combinations: { long: createFairLine(), short: createFairLine() },
    ending: false,
  };
}

/** A ceremony as it stands now. */
export interface Scene {
  readonly id: CeremonyId;
  readonly ceremony: Stored<CeremonyBody>;
  readonly head: Stored<HeadBody>;
  /** What a crash has left behind. */
  readonly arriving: ArrivingBody | null;
  readonly asked: AskedBody | null;
  readonly transcript: Transcript;
  readonly state: CeremonyState;
  readonly nowMs: number;
}

/** Head and what never changes, in the caller's transaction. @throws Fault corrupt */
export async function readHead(tx: Tx, id: CeremonyId) {
  const ceremony = await readStored(tx, CEREMONY, id);
  const head = ceremony && (await readStored(tx, HEAD, id));
  return ceremony && head ? { ceremony, head } : undefined;
}

/** Ceremonies whose entries are remembered. */
const KNOWN_MAX = 64;
const PAGE = 64;

/** Entries after the first `after`. @throws Fault corrupt */
async function entriesAfter(tx: Tx, id: CeremonyId, after: number): Promise<readonly SignedEntry[]> {
  const all: SignedEntry[] = [];
  for (;;) {
    const place = after + all.length;
    const page = await listStored(tx, ENTRY, id, { place, id: numbered(id, place) }, PAGE);
    all.push(...page.map(({ value }) => value.entry));
    if (page.length < PAGE) return all;
  }
}

/** All of a ceremony; undefined where there is none. @throws Fault corrupt, integrity */
export async function readScene({ site: { ctx }, known }: Desk, id: CeremonyId): Promise<Scene | undefined> {
  const before = known.get(id) ?? [];
  known.delete(id);
  const found = await ctx.store.transaction(async (tx) => {
    const at = await readHead(tx, id);
    if (!at) return undefined;
    const kept = before.slice(0, at.head.value.seq);
    const entries = [...kept, ...(await entriesAfter(tx, id, kept.length))];
    const arriving = (await readStored(tx, ARRIVING, id))?.value ?? null;
    return { ...at, entries, arriving, asked: (await readStored(tx, ASKED, id))?.value ?? null };
  }, id);
  if (!found) return undefined;
  const { entries, ceremony, head, arriving, asked } = found;
  if (known.size >= KNOWN_MAX) for (const oldest of [...known.keys()].slice(0, 1)) known.delete(oldest);
  known.set(id, entries);
  const transcript = { manifest: ceremony.value.manifest, entries };
  const nowMs = ctx.now();
  return { id, ceremony, head, arriving, asked, transcript, nowMs, state: ceremonyState(transcript, nowMs, "head") };
}

/** What happens to ceremonies, as the organiser's log names it (docs/protocol.md §10.4). */
export type CeremonyAction =
  | "ceremony.join"
  | "ceremony.freeze"
  | "ceremony.reveal"
  | "ceremony.result"
  | "ceremony.abort"
  | "ceremony.release";

/** Appends it in the transaction of what it tells; the id by its first 128 bits. */
export async function note(
  { ctx }: KeyStoreSite,
  tx: Tx,
  organiser: UserId,
  action: CeremonyAction,
  id: CeremonyId,
): Promise<void> {
  await appendEvent(ctx, tx, { userId: organiser, action, status: "ok", keyId: shortId(id) });
}
