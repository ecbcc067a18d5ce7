import type { CeremonyId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { ENTRIES_PAGE } from "../../wire/ceremony/operations.ts";
import type { OutputOf } from "../../wire/operations.ts";
import { credentialIdOf, openAccountName } from "../accounts.ts";
import { eachStored, listStored, readStored } from "../documents.ts";
import { isDue, noSuchCeremony, settle } from "./course.ts";
import {
  CEREMONY,
  type CeremonyBody,
  ENTRY,
  HEAD,
  type HeadBody,
  RELEASE,
  SEAT,
  seatId,
  seatOwner,
} from "./documents.ts";
import { type Desk, readHead } from "./scene.ts";
import type { KeyStoreService } from "./service.ts";

type Row = OutputOf<"ceremony.list">["items"][number];
type Releases = OutputOf<"ceremony.get">["releases"];

/** Ceremonies in one answer, and wishes for a value. */
const PAGE = 64;
const RELEASES_SHOWN = 16;
/** How long an answer waits for a combination under way. */
const COMBINING_MS = 2_000;

/** Those that wait first, then the newest of those that are done. */
async function releasesOf(tx: Tx, id: CeremonyId): Promise<Releases> {
  const rows = await eachStored(tx, RELEASE, id);
  const waiting = rows.filter(({ value }) => value.sealed === null);
  const done = rows.filter(({ value }) => value.sealed !== null).reverse();
  return [...waiting, ...done].slice(0, RELEASES_SHOWN).map(({ place, value: { release, approvals, sealed } }) => ({
    release,
    approvals: [...approvals],
    atMs: place,
    done: sealed !== null,
  }));
}

/** Ceremonies as anyone with their id, and as their accounts, see them (docs/protocol.md §10.4). */
export function createViews(desk: Desk): Pick<KeyStoreService, "ceremony.get" | "ceremony.list"> {
  const { ctx } = desk.site;
  const { store } = ctx;

  /** Does what is due before anything is shown; what fails now is tried again by the sweep. */
  async function lookAfter(id: CeremonyId): Promise<void> {
    if (!(await isDue(desk, id))) return;
    await settle(desk, id).catch(() => undefined);
    const combining = desk.combining.get(id);
    if (combining !== undefined) await Promise.race([combining, Bun.sleep(COMBINING_MS)]);
  }

  const rowOf = (
    { manifest }: CeremonyBody,
    id: CeremonyId,
    { status }: HeadBody,
    own: boolean,
  ): Omit<Row, "seat"> => ({
    ceremonyId: id,
    name: manifest.manifest.draft.name,
    status,
    own,
    openedAtMs: manifest.manifest.openedAtMs,
  });

  return {
    async "ceremony.get"(_, { ceremonyId: id, after }) {
      await lookAfter(id);
      return store.transaction(async (tx) => {
        const at = await readHead(tx, id);
        if (!at) throw noSuchCeremony();
        const { status, untilMs } = at.head.value;
        const from = { place: after, id: `${id}:${after}` };
        const page = await listStored(tx, ENTRY, id, from, ENTRIES_PAGE + 1);
        return {
          manifest: at.ceremony.value.manifest,
          entries: page.slice(0, ENTRIES_PAGE).map(({ value }) => value.entry),
          more: page.length > ENTRIES_PAGE,
          status,
          untilMs,
          releases: status === "stored" ? await releasesOf(tx, id) : [],
          atMs: ctx.now(),
        };
      }, id);
    },

    async "ceremony.list"({ account }, { after }) {
      const credential = credentialIdOf(ctx, openAccountName(ctx, account));
      return store.transaction(async (tx) => {
        const last = after === null ? undefined : await readStored(tx, CEREMONY, after);
        const place = last?.place ?? 0;
        const from = after === null ? null : { place, id: after };
        // ids of seats go on after the ceremony's: `~` comes after all of them
        const fromSeat = after === null ? null : { place, id: `${after}~` };
        const own = await listStored(tx, CEREMONY, account.userId, from, PAGE + 1);
        const seats = await listStored(tx, SEAT, seatOwner(credential), fromSeat, PAGE + 1);
        const found = new Map<string, { readonly place: number; readonly own: boolean }>();
        for (const seat of seats) found.set(seat.id.slice(0, 64), { place: seat.place, own: false });
        for (const ceremony of own) found.set(ceremony.id, { place: ceremony.place, own: true });
        const order = [...found].sort(([a, x], [b, y]) => x.place - y.place || (a < b ? -1 : 1));
        const items: Row[] = [];
        for (const [text, { own: mine }] of order.slice(0, PAGE)) {
          const id = text as CeremonyId;
          const at = await readHead(tx, id);
          if (!at) continue;
          const seat = await readStored(tx, SEAT, seatId(id, credential));
          items.push({ ...rowOf(at.ceremony.value, id, at.head.value, mine), seat: seat?.value.index ?? null });
        }
        return { items, more: order.length > PAGE };
      }, account.userId);
    },
  };
}

/** Heads of open ceremonies at which something is due, the oldest first. @throws Fault corrupt */
export async function dueCeremonies(tx: Tx, nowMs: number, limit: number): Promise<readonly CeremonyId[]> {
  const rows = await listStored(tx, HEAD, "", null, limit);
  return rows.filter(({ place }) => place <= nowMs).map(({ id }) => id as CeremonyId);
}
