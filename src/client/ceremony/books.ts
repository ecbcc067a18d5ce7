import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import type { Held } from "../federation/held.ts";
import type { Ground } from "./ground.ts";
import { CEREMONY_MAX, type HeldCeremony } from "./held.ts";

/** True for a ceremony in which nothing happens any more. */
export const isOver = ({ seen }: Pick<HeldCeremony, "seen">): boolean =>
  seen.status === "stored" || seen.status === "aborted";

/** A vault with one ceremony more or changed; of too many the oldest finished one goes. @throws Fault conflict */
export function withCeremony(held: Held, one: HeldCeremony): Held {
  const known = held.ceremonies.some(({ ceremonyId }) => ceremonyId === one.ceremonyId);
  if (known) {
    const ceremonies = held.ceremonies.map((old) => (old.ceremonyId === one.ceremonyId ? one : old));
    return { ...held, ceremonies };
  }
  const { ceremonies } = held;
  if (ceremonies.length < CEREMONY_MAX.ceremonies) return { ...held, ceremonies: [...ceremonies, one] };
  const oldest = ceremonies.findIndex(isOver);
  if (oldest < 0) {
    throw new Fault("conflict", `this vault takes part in ${CEREMONY_MAX.ceremonies} ceremonies that are not over`, {
      hint: "wait until one of them has ended",
    });
  }
  return { ...held, ceremonies: [...ceremonies.toSpliced(oldest, 1), one] };
}

/** Changes what the vault holds of one ceremony; on disk on return. */
export function changeCeremony(
  ground: Pick<Ground, "change">,
  ceremonyId: CeremonyId,
  change: (one: HeldCeremony) => HeldCeremony,
): Promise<void> {
  return ground.change((held) => {
    const ceremonies = held.ceremonies.map((one) => (one.ceremonyId === ceremonyId ? change(one) : one));
    return { ...held, ceremonies };
  });
}

/** A ceremony in which this vault has a part. */
export function heldCeremony(ground: Pick<Ground, "held">, ceremonyId: CeremonyId): HeldCeremony | null {
  return ground.held().ceremonies.find((one) => one.ceremonyId === ceremonyId) ?? null;
}

/** Of those that are over the newest, unless they have made several keys. */
function over(ones: readonly HeldCeremony[]): readonly HeldCeremony[] {
  const newestFirst = ones.toSorted((a, b) => b.manifest.manifest.openedAtMs - a.manifest.manifest.openedAtMs);
  // of the versions of one key the newest; a wallet is in no store
  const made = newestFirst.filter(({ seen }) => seen.status === "stored");
  const keys = Map.groupBy(made, ({ seen, ceremonyId }) => seen.result?.stored?.keyId ?? ceremonyId);
  return keys.size > 1 ? [...keys.values()].flatMap((versions) => versions.slice(0, 1)) : newestFirst.slice(0, 1);
}

/**
 * The ceremony of this vault that an id, the beginning of one, or a name means; a name means the one that is not over,
 * else the newest.
 *
 * @param beside True where one of this name goes on in which this vault has no part: which one that is over is no matter.
 * @throws Fault ambiguous where several go on, or where several that are over have made different keys
 */
export function namedCeremony(ground: Pick<Ground, "held">, wanted: string, beside = false): HeldCeremony | null {
  const { ceremonies } = ground.held();
  const byName = ceremonies.filter(({ manifest }) => manifest.manifest.draft.name === wanted);
  const running = byName.filter((one) => !isOver(one));
  const found =
    byName.length === 0
      ? ceremonies.filter(({ ceremonyId }) => isIdPart(wanted) && ceremonyId.startsWith(wanted))
      : running.length > 0
        ? running
        : over(byName);
  const [one, another] = found;
  if (one === undefined || another === undefined || (beside && isOver(one))) return one ?? null;
  throw new Fault("ambiguous", `more than one ceremony is called "${wanted}"`, {
    why: found.map(({ ceremonyId }) => ceremonyId).join(", "),
    hint: "give the beginning of its id",
  });
}

/** True for what may be an id or its beginning. */
export const isIdPart = (text: string): boolean => /^[0-9a-f]{4,64}$/.test(text);
