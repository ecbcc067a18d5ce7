import { Fault } from "../../errors.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import type { RequestView } from "../../wire/federation/operations.ts";
import { type Answer, complaints, isAbsent, urlOf } from "./answers.ts";

/** Statuses in which a server begins an attempt if it is told to. */
const WILLING: ReadonlySet<string> = new Set(["pending", "committing", "sharing", "confirming", "failed", "fulfilled"]);

/** Where a request stands at all servers together. */
export interface Standing {
  readonly willing: readonly number[];
  readonly awaiting: readonly number[];
  /** Policies, expiry or a cancellation: with the reason. */
  readonly refusing: ReadonlyMap<number, string>;
  readonly absent: readonly number[];
}

/** Sorts servers by what they say of a request; an answer that is a refusal counts as one. */
export function standingOf(answers: readonly Answer<RequestView>[]): Standing {
  const [willing, awaiting, absent]: [number[], number[], number[]] = [[], [], []];
  const refusing = new Map<number, string>();
  for (const { index, value, fault } of answers) {
    if (fault !== null) {
      if (isAbsent(fault)) absent.push(index);
      else refusing.set(index, fault.why ? `${fault.message}: ${fault.why}` : fault.message);
    } else if (WILLING.has(value.status)) willing.push(index);
    else if (value.status === "awaiting_approval") awaiting.push(index);
    else refusing.set(index, value.why ? `${value.status}: ${value.why}` : value.status);
  }
  return { willing, awaiting, refusing, absent };
}

/** What is to be done next. */
export type NextStep =
  | { readonly step: "order"; readonly roster: readonly number[] }
  | { readonly step: "wait" }
  | { readonly step: "refused"; readonly fault: Fault };

/** Chooses who takes part, or null where too few are there; `strikes` count failures of this request. */
export type Chooser = (candidates: readonly number[], strikes: ReadonlyMap<number, number>) => readonly number[] | null;

/**
 * Decides the next step of a request from where it stands: a pure function.
 *
 * @param choose Picks the roster among those who are willing.
 * @param culprits Servers that were proven to cheat: never asked again.
 */
export function nextStep(
  manifest: Manifest,
  answers: readonly Answer<RequestView>[],
  choose: Chooser,
  strikes: ReadonlyMap<number, number>,
  culprits: readonly number[],
): NextStep {
  const { willing, awaiting, refusing, absent } = standingOf(answers);
  const honest = (all: readonly number[]) => all.filter((index) => !culprits.includes(index));
  const roster = choose(honest(willing), strikes);
  if (roster !== null) return { step: "order", roster };
  if (choose(honest([...willing, ...awaiting]), strikes) !== null) return { step: "wait" };
  const reasons = [...new Set(refusing.values())];
  const saying = (reason: string) => [...refusing].filter(([, one]) => one === reason).map(([index]) => index);
  const why = reasons
    .map(
      (reason) =>
        `${saying(reason)
          .map((index) => urlOf(manifest, index))
          .join(", ")}: ${reason}`,
    )
    .join("; ");
  if (choose(honest([...willing, ...awaiting, ...absent]), strikes) === null && refusing.size > 0) {
    return { step: "refused", fault: new Fault("denied", "too many servers refuse this request", { why }) };
  }
  const names = culprits.map((index) => urlOf(manifest, index));
  if (names.length > 0) {
    return {
      step: "refused",
      fault: new Fault("integrity", "too few honest servers are left for this request", {
        why: `proven to cheat: ${names.join(", ")}`,
        hint: "keyhold federation check; then tell the operators",
        culprits: names,
      }),
    };
  }
  const away = complaints(manifest, answers);
  return {
    step: "refused",
    fault: new Fault("unavailable", "too few servers can be reached for this request", {
      ...(away === "" ? {} : { why: away }),
      hint: "keyhold federation check",
    }),
  };
}

/** Orders candidates so that those who failed least come first. */
export function leastStruck(candidates: readonly number[], strikes: ReadonlyMap<number, number>): readonly number[] {
  const of = (index: number) => strikes.get(index) ?? 0;
  return [...candidates].sort((a, b) => of(a) - of(b) || a - b);
}

/** Everyone who has not failed, and of the others only as many as it takes to be `least`. */
export function widest(least: number): Chooser {
  return (candidates, strikes) => {
    if (candidates.length < least) return null;
    const sound = candidates.filter((index) => !strikes.has(index));
    const chosen = sound.length >= least ? sound : leastStruck(candidates, strikes).slice(0, least);
    return [...chosen].sort((a, b) => a - b);
  };
}

/** Exactly `count` of `among`, those who failed least. */
export function fewest(count: number, among: readonly number[]): Chooser {
  return (candidates, strikes) => {
    const able = candidates.filter((index) => among.includes(index));
    if (able.length < count) return null;
    return [...leastStruck(able, strikes).slice(0, count)].sort((a, b) => a - b);
  };
}

/** All of `needed`, and of `helping` those who have not failed, at least `least`. */
export function withAll(needed: readonly number[], helping: readonly number[], least: number): Chooser {
  return (candidates, strikes) => {
    if (!needed.every((index) => candidates.includes(index))) return null;
    const able = candidates.filter((index) => helping.includes(index));
    const helpers = widest(least)(able, new Map([...strikes].filter(([index]) => !needed.includes(index))));
    return helpers && [...new Set([...needed, ...helpers])].sort((a, b) => a - b);
  };
}
