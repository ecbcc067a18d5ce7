import { Fault } from "../../errors.ts";
import { asHashId, type CeremonyId, isHashId } from "../../ids.ts";
import { approves, releaseHash, verifyRelease } from "../../protocol/ceremony/records.ts";
import type { OutputOf } from "../../wire/operations.ts";
import type { CeremonyInfo } from "../ceremonyapi.ts";
import { everyPage } from "../keyring/ground.ts";
import { isAway } from "../opened.ts";
import { heldCeremony, isIdPart, isOver, namedCeremony } from "./books.ts";
import { checked, type Ground, type Known } from "./ground.ts";
import type { HeldCeremony } from "./held.ts";
import { factsOf, infoOf, nameOf } from "./infos.ts";
import { type Look, look } from "./looks.ts";

/** A ceremony as the profile's server lists it. */
export type Row = OutputOf<"ceremony.list">["items"][number];

/** A ceremony, and where it is. */
export type Place = Known & { readonly ceremonyId: CeremonyId };

/** Where a ceremony of this vault is. */
export const placeOf = ({ url, pin, caPem, statementNumber, ceremonyId }: HeldCeremony): Place => ({
  ...{ url, pin, caPem, statementNumber, ceremonyId },
});

/** All ceremonies that the account opened at the profile's server, or in which a seat waits for it. */
export function listed(ground: Ground): Promise<readonly Row[]> {
  return everyPage({ url: ground.place?.url ?? "" }, (last: Row | null) =>
    ground.call("ceremony.list", { after: last?.ceremonyId ?? null }),
  );
}

const noSuch = (wanted: string) =>
  new Fault("not_found", `this vault knows no ceremony "${wanted}"`, {
    hint: "keyhold ceremony status shows all; with an invite: keyhold ceremony join INVITE",
  });

/** Of what happens still at the server. */
const runs = ({ status }: Row): boolean => status !== "stored" && status !== "aborted";

const notOne = (wanted: string, ids: readonly string[]) =>
  new Fault("ambiguous", `more than one ceremony is called "${wanted}"`, {
    why: ids.join(", "),
    hint: "give the beginning of its id",
  });

/** The row that an id, the beginning of one, or a name means; a name means the newest. @throws Fault ambiguous */
export function rowNamed(rows: readonly Row[], wanted: string): Row | null {
  const [newest] = rows.filter(({ name }) => name === wanted).toSorted((a, b) => b.openedAtMs - a.openedAtMs);
  if (newest) return newest;
  const [one, another] = rows.filter(({ ceremonyId }) => isIdPart(wanted) && ceremonyId.startsWith(wanted));
  if (one && another) {
    throw new Fault("ambiguous", `more than one ceremony begins with ${wanted}`, { hint: "give more of its id" });
  }
  return one ?? null;
}

/**
 * The ceremony of this vault that is meant; of several of one name, what became of them is asked first.
 *
 * @param beside True where one of this name goes on in which this vault has no part.
 */
async function named(ground: Ground, wanted: string, beside = false): Promise<HeldCeremony | null> {
  const same = ground.held().ceremonies.filter(({ manifest }) => manifest.manifest.draft.name === wanted);
  for (const one of same.length > 1 || beside ? same : []) {
    if (isOver(one)) continue;
    try {
      await look(ground, placeOf(one));
    } catch (error) {
      // a server that is away, or has forgotten it, does not hinder the others
      if (!isAway(error) && !(error instanceof Fault && error.code === "not_found")) throw error;
    }
  }
  return namedCeremony(ground, wanted, beside);
}

/** What the profile's server lists, if it can be asked; without it there is what this vault has. */
async function listedBeside(ground: Ground, wanted: string): Promise<readonly Row[]> {
  const { place, open } = ground;
  if (place === null || open.session === null) return [];
  try {
    return await listed(ground);
  } catch (error) {
    if (!(error instanceof Fault) || error.code === "integrity" || !namedCeremony(ground, wanted)) throw error;
    ground.notice(`${place.url}: ${error.message}; seats that wait there for the account are not known`);
    return [];
  }
}

/**
 * The ceremony that is meant: of this vault, else of the profile's server. A name means the one that goes on: where this
 * vault's is over, a repeated run in which a seat waits.
 *
 * @throws Fault not_found, ambiguous
 */
export async function find(ground: Ground, wanted: string): Promise<Place & { readonly row: Row | null }> {
  const known = isHashId(wanted) ? heldCeremony(ground, asHashId<CeremonyId>(wanted)) : null;
  if (known) return { ...placeOf(known), row: null };
  const rows = await listedBeside(ground, wanted);
  const { place } = ground;
  const going = rows.filter((row) => row.name === wanted && runs(row) && !heldCeremony(ground, row.ceremonyId));
  const held = await named(ground, wanted, going.length > 0);
  const all = [...(held && !isOver(held) ? [held] : []), ...going].map(({ ceremonyId }) => ceremonyId);
  if (going.length > 0 && all.length > 1) throw notOne(wanted, all);
  const row = going[0] ?? (held ? null : rowNamed(rows, wanted));
  if (place !== null && row !== null) return { ...place, ceremonyId: row.ceremonyId, row };
  if (held) return { ...placeOf(held), row: null };
  if (place === null || !isHashId(wanted)) throw noSuch(wanted);
  return { ...place, ceremonyId: asHashId<CeremonyId>(wanted), row: null };
}

/** A ceremony in which this vault has a part. @throws Fault not_found, ambiguous */
export async function mine(ground: Ground, wanted: string): Promise<HeldCeremony> {
  const held = await named(ground, wanted);
  if (held) return held;
  throw noSuch(wanted);
}

/** Wishes for the value, with who has agreed; of no concern to who has no part in it. @throws Fault integrity */
export function releasesOf({ asking, state, releases }: Look, held: HeldCeremony | null): CeremonyInfo["releases"] {
  const { quorum } = state.manifest.draft.policy;
  if (quorum === 0 || held === null) return [];
  const { manifest } = state;
  return releases.map(({ release: signed, approvals, done }) => {
    const { index } = signed.release;
    const key = index === 0 ? manifest.draft.organiser : state.taken.get(index)?.join.key;
    checked(asking.url, "a wish for the value that nobody has signed", () => {
      if (!key) throw new Fault("integrity", "nobody sits there");
      return verifyRelease(signed, key);
    });
    const hash = releaseHash(signed.release);
    const agreed = new Set(
      approvals
        .filter((one) => {
          const participant = state.taken.get(one.index)?.join.key;
          return participant !== undefined && approves(one, hash, participant);
        })
        .map((one) => one.index),
    );
    return {
      releaseHex: hash.toHex(),
      by: index === 0 ? "the organiser" : nameOf(manifest, index),
      approvals: agreed.size,
      needed: quorum,
      done,
      approved: held.own !== null && agreed.has(held.own.index),
    };
  });
}

/** A ceremony that was looked at, as the client tells of it. */
export function lookedAt(ground: Pick<Ground, "held">, seen: Look, offered: number | null = null): CeremonyInfo {
  const held = heldCeremony(ground, seen.ceremonyId);
  if (held) return infoOf({ ...factsOf({ ...held, seen: seen.seen }, releasesOf(seen, held)), offered });
  const { asking, ceremonyId, state } = seen;
  return infoOf({
    ...{ ceremonyId, url: asking.url, pin: asking.pin, manifest: state.manifest, seen: seen.seen, offered },
    ...{ own: null, organiser: false, collected: false, releases: [] },
  });
}

/** One ceremony as it stands; what was seen last where its server is away, unless `fresh`. */
export async function ceremonyNow(ground: Ground, wanted: string, fresh = false): Promise<CeremonyInfo> {
  const place = await find(ground, wanted);
  try {
    return lookedAt(ground, await look(ground, place), place.row?.seat ?? null);
  } catch (error) {
    const held = heldCeremony(ground, place.ceremonyId);
    if (fresh || !isAway(error) || !held) throw error;
    ground.notice(`${place.url} is away: as it stood when it was seen last`);
    return infoOf(factsOf(held));
  }
}

/** Finished ceremonies that are asked for wishes at most, the newest. */
const ASKED_FOR_WISHES = 16;

/** True for one whose value leaves only when participants agree, of whom this vault is one. */
const asksThisVault = ({ own, seen, manifest }: HeldCeremony): boolean =>
  own !== null && seen.status === "stored" && manifest.manifest.draft.policy.quorum > 0;

/** One of several: what is wrong with one server does not hide the others. */
async function listedNow(ground: Ground, held: HeldCeremony, away: Set<string>): Promise<CeremonyInfo> {
  try {
    if (!away.has(held.url)) return lookedAt(ground, await look(ground, placeOf(held)));
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const { message } = error;
    const gone = isAway(error);
    if (gone) away.add(held.url);
    const what = gone ? `${held.url} is away` : message;
    ground.notice(`ceremony ${held.manifest.manifest.draft.name}: ${what}; as it stood when it was seen last`);
  }
  return infoOf(factsOf(held));
}

/** All that this vault has a part in, newest first; and seats at the profile's server that wait for the account. */
export async function allCeremonies(ground: Ground): Promise<readonly CeremonyInfo[]> {
  const found: CeremonyInfo[] = [];
  const away = new Set<string>();
  const all = ground.held().ceremonies.toReversed();
  const wished = new Set(all.filter(asksThisVault).slice(0, ASKED_FOR_WISHES));
  for (const held of all) {
    const goesOn = !isOver(held) || wished.has(held);
    found.push(goesOn ? await listedNow(ground, held, away) : infoOf(factsOf(held)));
  }
  if (ground.place === null || ground.open.session === null || away.has(ground.place.url)) return found;
  try {
    for (const row of await listed(ground)) {
      const { ceremonyId, status, own, seat } = row;
      const waits = seat !== null && (status === "open" || status === "commit");
      if (heldCeremony(ground, ceremonyId) || !(waits || (own && runs(row)))) continue;
      found.push(lookedAt(ground, await look(ground, { ...ground.place, ceremonyId }), waits ? seat : null));
    }
  } catch (error) {
    if (!isAway(error)) throw error;
    ground.notice(`${ground.place.url} is away: seats that wait there for the account are not shown`);
  }
  return found;
}
