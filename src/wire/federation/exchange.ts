import { equalBytes } from "../../crypto/bytes.ts";
import { type Certificate, certificateSignatureHolds } from "../../protocol/federation/certificate.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import {
  type Culprit,
  messageBytes,
  messageHash,
  messageSignatureHolds,
  type Payload,
  type Round,
  type SignedMessage,
} from "../../protocol/federation/message.ts";
import { orderHash, type SignedOrder } from "../../protocol/federation/request.ts";
import type { Outcome } from "./operations.ts";

/** A server has so many tries to answer before an attempt goes on without it. */
const TRIES = 2;

const CEREMONY: readonly Round[] = ["commit", "echo", "share", "complaint", "confirm"];
const USE: readonly Round[] = ["nonces", "partial"];

/** Judges a culprit that a server named by its evidence, and by certificates that servers signed (docs/protocol.md §8.5). */
export type Judge = (culprit: Culprit, certificates: readonly Certificate[]) => boolean;

/** Where an attempt stands once nothing more can be brought to anyone. */
export interface Standstill {
  readonly confirmed: ReadonlyMap<number, Outcome>;
  readonly said: readonly SignedMessage[];
  /** Proven. */
  readonly culprits: readonly Culprit[];
  /** Silent, refusing or lying without a proof, each with the reason. */
  readonly suspects: ReadonlyMap<number, string>;
}

/** One attempt as the requester relays it. */
export interface Exchange {
  /** Takes an answer of one server in. */
  hear(index: number, messages: readonly SignedMessage[], outcome: Outcome | null): void;
  /** Notes that a server did not answer (`final`: that it refused). */
  miss(index: number, why: string, final: boolean): void;
  /** True while a server has not begun and may still. */
  mayBegin(index: number): boolean;
  /** Others' messages that this server needs and has not got yet. */
  dueTo(index: number): readonly SignedMessage[];
  /** Notes that a server has got these. */
  brought(index: number, messages: readonly SignedMessage[]): void;
  standstill(): Standstill;
}

const keyOf = ({ message: { from, to, payload } }: SignedMessage): string => `${from}.${to}.${payload.round}`;

/**
 * Begins to relay one attempt; knows nothing of networks and clocks.
 *
 * @param receivers Servers that get a share of every dealer; of a use nobody.
 */
export function startExchange(
  manifest: Manifest,
  { order }: SignedOrder,
  receivers: readonly number[],
  judge: Judge,
): Exchange {
  const hash = orderHash(order);
  const said = new Map<string, SignedMessage>();
  const got = new Map(order.roster.map((index) => [index, new Set<string>()]));
  const begun = new Set<number>();
  const tries = new Map<number, number>();
  const outcomes = new Map<number, Outcome>();
  const culprits = new Map<number, Culprit>();
  const suspects = new Map<number, string>();

  const belongs = ({ message }: SignedMessage, index: number): boolean =>
    message.from === index &&
    message.to !== index &&
    (message.to === 0 || order.roster.includes(message.to)) &&
    (message.to !== 0) === (message.payload.round === "share") &&
    message.requestId === order.requestId &&
    message.attempt === order.attempt &&
    equalBytes(message.orderHash, hash);

  /** Servers repeat all that they have said: what was verified before is not verified again. */
  function isKnown(index: number, one: SignedMessage): boolean {
    const before = said.get(keyOf(one));
    return (
      before?.message.from === index &&
      equalBytes(before.signature, one.signature) &&
      equalBytes(messageBytes(before.message), messageBytes(one.message))
    );
  }

  function take(index: number, one: SignedMessage): void {
    if (isKnown(index, one)) return;
    if (!belongs(one, index) || !messageSignatureHolds(manifest, one)) {
      suspects.set(index, "it sent a message that is not its own or not of this attempt");
      return;
    }
    const before = said.get(keyOf(one));
    if (before === undefined) said.set(keyOf(one), one);
    else if (!equalBytes(messageBytes(before.message), messageBytes(one.message))) {
      culprits.set(index, { index, reason: "equivocation", evidence: [before, one] });
    }
  }

  function end(index: number, outcome: Outcome): void {
    if (outcome.result === "confirmed") {
      const { certificate, signature } = outcome;
      const signed =
        certificate !== null &&
        signature !== null &&
        signature.index === index &&
        certificateSignatureHolds(manifest, certificate, signature);
      if (!signed) {
        suspects.set(index, "its signature under the certificate does not hold");
        return;
      }
    }
    outcomes.set(index, outcome);
  }

  const payloads = (index: number): readonly Payload[] =>
    [...said.values()].flatMap(({ message }) => (message.from === index ? [message.payload] : []));

  /** How far one server has come: rounds that it has finished. */
  function progress(index: number): number {
    const due = receivers.filter((to) => to !== index).length;
    const mine = payloads(index);
    const rounds = mine.some(({ round }) => USE.includes(round)) ? USE : CEREMONY;
    let done = 0;
    for (const round of rounds) {
      const count = mine.filter((p) => p.round === round).length;
      const deals = mine.some((p) => p.round === "commit" && p.commitments.length > 0);
      if (round === "share" ? deals && count < due : count === 0) break;
      done += 1;
    }
    return done;
  }

  /** Those who hold the others up: accused ones that reveal nothing, otherwise the ones that are furthest behind. */
  function laggards(): readonly number[] {
    const accused = new Set(
      [...said.values()].flatMap(({ message: { payload } }) => (payload.round === "complaint" ? payload.accused : [])),
    );
    const mute = order.roster.filter((i) => accused.has(i) && !payloads(i).some(({ round }) => round === "reveal"));
    if (mute.length > 0) return mute;
    const at = order.roster.map((i) => [i, outcomes.has(i) ? Number.POSITIVE_INFINITY : progress(i)] as const);
    const least = Math.min(...at.map(([, done]) => done));
    return least === Number.POSITIVE_INFINITY ? [] : at.flatMap(([i, done]) => (done === least ? [i] : []));
  }

  /** Those who say that they saw another first message than the one that was brought to everybody. */
  function falseEchoes(): readonly number[] {
    return [...said.values()].flatMap(({ message: { from, payload } }) => {
      if (payload.round !== "echo") return [];
      const lies = payload.seen.some(({ index, hash: seen }) => {
        const commit = said.get(`${index}.0.commit`);
        return commit !== undefined && !culprits.has(index) && !equalBytes(messageHash(commit.message), seen);
      });
      return lies ? [from] : [];
    });
  }

  return {
    hear(index, messages, outcome) {
      begun.add(index);
      for (const one of messages) take(index, one);
      if (outcome !== null) end(index, outcome);
    },
    miss(index, why, final) {
      const count = (tries.get(index) ?? 0) + (final ? TRIES : 1);
      tries.set(index, count);
      if (count >= TRIES) suspects.set(index, why);
    },
    mayBegin: (index) => !begun.has(index) && (tries.get(index) ?? 0) < TRIES,
    dueTo(index) {
      if (!begun.has(index) || (tries.get(index) ?? 0) >= TRIES || outcomes.has(index)) return [];
      const has = got.get(index);
      return [...said.values()].filter((one) => {
        const { from, to, payload } = one.message;
        // partial results are the requester's alone
        return from !== index && (to === 0 || to === index) && payload.round !== "partial" && !has?.has(keyOf(one));
      });
    },
    brought(index, messages) {
      for (const one of messages) got.get(index)?.add(keyOf(one));
    },
    standstill() {
      const confirmed = new Map([...outcomes].filter(([, { result }]) => result === "confirmed"));
      const certificates = [...confirmed.values()].flatMap(({ certificate }) => certificate ?? []);
      for (const [index, outcome] of outcomes) {
        for (const culprit of outcome.culprits) {
          if (order.roster.includes(culprit.index) && judge(culprit, certificates)) {
            culprits.set(culprit.index, culprit);
          } else suspects.set(index, "it accused another server without a proof");
        }
      }
      for (const index of falseEchoes()) suspects.set(index, "its echo is not what was said");
      const blamed = new Map([...suspects].filter(([index]) => !culprits.has(index)));
      if (blamed.size === 0 && culprits.size === 0) {
        for (const index of laggards()) blamed.set(index, "it stopped in the middle");
        for (const [index, { result }] of outcomes) {
          if (result === "failed" && !blamed.has(index)) blamed.set(index, "it gave up");
        }
      }
      return { confirmed, said: [...said.values()], culprits: [...culprits.values()], suspects: blamed };
    },
  };
}
