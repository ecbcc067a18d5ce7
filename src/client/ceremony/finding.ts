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

/** The ceremony of this vault that is meant; of several of one name, what became of them is asked first. */
async function named(ground: Ground, wanted: string): Promise<HeldCeremony | null> {
  const same = ground.held().ceremonies.filter(({ manifest }) => manifest.manifest.draft.name === wanted);
  for (const one of same.length > 1 ? same : []) {
    if (isOver(one)) continue;
    try {
      await look(ground, placeOf(one));
    } catch (error) {
      // a server that is away, or has forgotten it, does not hinder the others
      if (!isAway(error) && !(error instanceof Fault && error.code === "not_found")) throw error;
    }
  }
  return namedCeremony(ground, wanted);
}

/** The ceremony that is meant: of this vault, else of the profile's server. @throws Fault not_found, ambiguous */
export async function find(ground: Ground, wanted: string): Promise<Place & { readonly row: Row | null }> {
  const held = await named(ground, wanted);
  if (held) return { ...placeOf(held), row: null };
  const { place } = ground;
  if (place === null) throw noSuch(wanted);
  if (ground.open.session !== null) {
    const row = rowNamed(await listed(ground), wanted);
    if (row) return { ...place, ceremonyId: row.ceremonyId, row };
  }
  if (!isHashId(wanted)) throw noSuch(wanted);
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
export function lookedAt(ground: Ground, seen: Look, offered: number | null = null): CeremonyInfo {
  const held = heldCeremony(ground, seen.ceremonyId);
  if (held) return infoOf({ ...factsOf({ ...held, seen: seen.seen }, releasesOf(seen, held)), offered });
  const { asking, ceremonyId, state } = seen;
  return infoOf({
    ...{ ceremonyId, url: asking.url, pin: asking.pin, manifest: state.manifest, seen: seen.seen, offered },
    ...{ own: null, organiser: false, releases: [] },
  });
}

/** One ceremony as it stands; what was seen last where its server is away. */
export async function ceremonyNow(ground: Ground, wanted: string): Promise<CeremonyInfo> {
  const place = await find(ground, wanted);
  try {
    return lookedAt(ground, await look(ground, place), place.row?.seat ?? null);
  } catch (error) {
    const held = heldCeremony(ground, place.ceremonyId);
    if (!isAway(error) || !held) throw error;
    ground.notice(`${place.url} is away: as it stood when it was seen last`);
    return infoOf(factsOf(held));
  }
}

/** One of several: what is wrong with one server does not hide the others. */
async function listedNow(ground: Ground, held: HeldCeremony): Promise<CeremonyInfo> {
  try {
    return await ceremonyNow(ground, held.ceremonyId);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    ground.notice(`${held.manifest.manifest.draft.name}: ${error.message}; as it stood when it was seen last`);
    return infoOf(factsOf(held));
  }
}

/** All that this vault has a part in, newest first; and seats at the profile's server that wait for the account. */
export async function allCeremonies(ground: Ground): Promise<readonly CeremonyInfo[]> {
  const found: CeremonyInfo[] = [];
  for (const held of ground.held().ceremonies.toReversed()) {
    found.push(isOver(held) ? infoOf(factsOf(held)) : await listedNow(ground, held));
  }
  if (ground.place === null || ground.open.session === null) return found;
  try {
    for (const row of await listed(ground)) {
      const { ceremonyId, status, own, seat } = row;
      const running = status !== "stored" && status !== "aborted";
      const waits = seat !== null && (status === "open" || status === "commit");
      if (heldCeremony(ground, ceremonyId) || !(waits || (own && running))) continue;
      found.push(lookedAt(ground, await look(ground, { ...ground.place, ceremonyId }), waits ? seat : null));
    }
  } catch (error) {
    if (!isAway(error)) throw error;
    ground.notice(`${ground.place.url} is away: seats that wait there for the account are not shown`);
  }
  return found;
}
