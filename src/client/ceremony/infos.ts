import type { CeremonyId } from "../../ids.ts";
import type { CeremonyManifest } from "../../protocol/ceremony/model.ts";
import { ceremonyKeyHash } from "../../protocol/ceremony/records.ts";
import { digestWords } from "../../protocol/federation/words.ts";
import type { CeremonyInfo, SeatInfo } from "../ceremonyapi.ts";
import type { HeldCeremony, HeldOwn, Seen } from "./held.ts";

/** All that an account of a ceremony is made of. */
export interface Facts {
  readonly ceremonyId: CeremonyId;
  readonly url: string;
  readonly pin: string;
  readonly manifest: CeremonyManifest;
  readonly seen: Seen;
  readonly own: HeldOwn | null;
  readonly organiser: boolean;
  /** This vault has taken the value, or its own key of a wallet. */
  readonly collected: boolean;
  /** A seat that waits for this account or for the invite that is looked at; null for none. */
  readonly offered: number | null;
  readonly releases: CeremonyInfo["releases"];
}

/** What the vault itself knows of a ceremony. */
export function factsOf(held: HeldCeremony, releases: CeremonyInfo["releases"] = []): Facts {
  const { ceremonyId, url, pin, manifest, seen, own, organiser, collectedAtMs } = held;
  const rest = { organiser: organiser !== null, collected: collectedAtMs !== null, offered: null, releases };
  return { ceremonyId, url, pin, manifest: manifest.manifest, seen, own, ...rest };
}

const iso = (ms: number): string => new Date(ms).toISOString();

/** A participant's name. */
export const nameOf = ({ draft }: CeremonyManifest, index: number): string =>
  draft.slots[index - 1]?.name ?? `participant ${index}`;

/** A ceremony as the client tells of it. */
export function infoOf(facts: Facts): CeremonyInfo {
  const { ceremonyId, url, pin, manifest, seen, own, organiser, releases } = facts;
  const { name, purpose, output, policy, minimum, slots, previous, key, commitMs, revealMs } = manifest.draft;
  const hash = ceremonyKeyHash(key.key);
  const seats = slots.map(
    (slot, at): SeatInfo => ({
      index: slot.index,
      name: slot.name,
      state: seen.seats[at]?.state ?? "waiting",
      function: seen.seats[at]?.function ?? null,
      account: slot.account,
      own: own?.index === slot.index && (own.joinedSeq !== null || seen.seats[at]?.state === "waiting"),
    }),
  );
  const { aborted, result } = seen;
  return {
    ...{ ceremonyId, name, purpose, output, policy, url, pin },
    keyHex: hash.toHex(),
    words: digestWords(hash),
    status: seen.status,
    until: seen.untilMs === null ? null : iso(seen.untilMs),
    ...{ minimum, commitMs, revealMs },
    seats: seats.toSorted((a, b) => a.index - b.index),
    organiser,
    aborted: aborted && {
      reason: aborted.reason,
      culprits: aborted.culprits.toSorted((a, b) => a - b).map((index) => nameOf(manifest, index)),
    },
    result: result && {
      keyId: result.stored?.keyId ?? null,
      version: result.stored?.version ?? null,
      custody: result.custody,
      keyHashHex: result.keyHash.toHex(),
      publicKeyHex: result.publicKey?.toHex() ?? null,
      descriptor: result.descriptor,
    },
    next: nextOf(facts),
    releases,
    previous: previous?.ceremonyId ?? null,
  };
}

const plural = (count: number, one: string, more: string): string => `${count} ${count === 1 ? one : more}`;

const seatOf = ({ seen }: Facts, index: number): SeatInfo["state"] => seen.seats[index - 1]?.state ?? "waiting";

/** What this vault may do next, short and plain. */
function nextOf(facts: Facts): string {
  const { seen, organiser, offered, manifest } = facts;
  const taken = facts.own !== null && facts.own.joinedSeq === null && seatOf(facts, facts.own.index) !== "waiting";
  if (taken) return "somebody else has your seat: tell the organiser";
  const { own } = facts;
  const count = (state: SeatInfo["state"]) => seen.seats.filter((seat) => seat.state === state).length;
  switch (seen.status) {
    case "open":
    case "commit": {
      if (own && own.joinedSeq === null) return "join again: the server has not acknowledged it";
      if (!own && offered !== null) return "join: your seat is free";
      const left = plural(count("waiting"), "participant has", "participants have");
      const enough = count("committed") >= manifest.draft.minimum;
      if (organiser && enough) return `wait: ${left} not committed; or close the commitments now`;
      return own || organiser ? `wait: ${left} not committed` : "";
    }
    case "freeze":
      return own || organiser ? "wait: the server shows its own part now" : "";
    case "reveal":
      if (own && own.joinedSeq !== null && own.revealedSeq === null) return "reveal what you committed to";
      return own || organiser
        ? `wait: ${plural(count("committed"), "participant has", "participants have")} not revealed`
        : "";
    case "combine":
      return own || organiser ? "wait: the key is being made" : "";
    case "stored":
      return afterwards(facts);
    case "aborted":
      if (organiser) return "open another run with --again; everyone draws anew";
      return own ? "wait for an invite to another run; what you committed to is not used again" : "";
  }
}

function afterwards({ own, organiser, collected, manifest, releases }: Facts): string {
  const { output, policy } = manifest.draft;
  if (releases.some(({ done, approved }) => own && !done && !approved))
    return "agree to a wish for the value, or leave it";
  if (collected) return "";
  if (output.kind === "multisig") return own ? "collect your own key of the wallet" : "";
  const may = (policy.collect === "organiser" && organiser) || (policy.collect === "participants" && own !== null);
  if (!may) return "";
  const after =
    policy.quorum === 0 ? "" : `, once ${plural(policy.quorum, "participant agrees", "participants agree")}`;
  return `collect the value${after}`;
}
