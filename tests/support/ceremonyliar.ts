import { expect } from "bun:test";
import { hpkeSeal } from "../../src/crypto/hpke.ts";
import { blameHolds, payloadOf } from "../../src/protocol/federation/blame.ts";
import { certificateHash } from "../../src/protocol/federation/certificate.ts";
import {
  type Culprit,
  type Payload,
  type Round,
  type SignedMessage,
  sealedInfo,
} from "../../src/protocol/federation/message.ts";
import type { CeremonyTerms } from "../../src/protocol/federation/plan.ts";
import { assembleCertificate } from "../../src/protocol/federation/transcript.ts";
import {
  type CeremonyWorld,
  ceremonyWorld,
  confirmedOf,
  generateTerms,
  lie,
  type Run,
  type RunOptions,
  roundOf,
  runCeremony,
  type Tamper,
} from "./ceremonyworld.ts";

/** Three servers of which one lies, and what must hold after anything. */

export const ROSTER = [1, 2, 3];
export const LIAR = 2;

export function start(seed = 1, roster: readonly number[] = ROSTER) {
  const world = ceremonyWorld(roster, 2, seed);
  return { world, terms: generateTerms(world, "p256", roster) };
}

/** What must hold after anything: one certificate or none, and nobody is named who is not the liar, with proof. */
export function holds(terms: CeremonyTerms, run: Run, liars: readonly number[] = [LIAR]): void {
  const honest = [...confirmedOf(run)].filter(([index]) => !liars.includes(index));
  const made = assembleCertificate(terms, [...confirmedOf(run).values()], run.said);
  if (made) {
    const hash = certificateHash(made.certificate).toHex();
    const others = honest.filter(([, o]) => certificateHash(o.certificate).toHex() !== hash);
    expect(others).toEqual([]);
  }
  for (const outcome of run.outcomes.values()) {
    if (outcome.result !== "failed") continue;
    for (const culprit of outcome.culprits) {
      expect(liars).toContain(culprit.index);
      expect(blameHolds(terms, culprit)).toBe(true);
    }
  }
}

export const without = (run: Run, index: number) => [...run.outcomes].filter(([i]) => i !== index).map(([, o]) => o);

/** All honest servers name the liar for that reason and keep nothing. */
export function allName(run: Run, reason: Culprit["reason"]): void {
  const outcomes = without(run, LIAR);
  expect(outcomes.length).toBe(2);
  for (const outcome of outcomes)
    expect(outcome).toMatchObject({ result: "failed", culprits: [{ index: LIAR, reason }] });
}

/** Replaces what the liar says in a round. */
export const lying =
  <R extends Round>(
    world: CeremonyWorld,
    round: R,
    change: (payload: Extract<Payload, { round: R }>, m: SignedMessage, to: number) => Payload,
    from = LIAR,
  ): Tamper =>
  (m, to) => {
    const payload = payloadOf(m, round);
    return payload && m.message.from === from ? [lie(world, m, change(payload, m, to))] : [m];
  };

export const both =
  (...all: readonly Tamper[]): Tamper =>
  async (m, to) => {
    let messages: readonly SignedMessage[] = [m];
    for (const tamper of all) {
      const next: SignedMessage[] = [];
      for (const one of messages) next.push(...(await tamper(one, to)));
      messages = next;
    }
    return messages;
  };

/** Seals another share to the receiver than the one that was dealt. */
export function lyingShare(world: CeremonyWorld, share: Uint8Array, victim = 1, from = LIAR): Tamper {
  const sealing = new Map<number, Uint8Array>();
  return async (m, to) => {
    const commit = payloadOf(m, "commit");
    if (commit) sealing.set(m.message.from, commit.sealing);
    if (roundOf(m) !== "share" || m.message.from !== from || m.message.to !== victim || to !== victim) return [m];
    const key = sealing.get(victim) ?? new Uint8Array(32);
    const sealed = await hpkeSeal(key, sealedInfo(m.message, "share"), share, (n) => world.random.bytes(n));
    return [lie(world, m, { round: "share", sealed })];
  };
}

export async function play(tamperOf: (world: CeremonyWorld) => Tamper, options: RunOptions = {}, seed = 1) {
  const { world, terms } = start(seed);
  const run = await runCeremony(world, terms, { ...options, tamper: tamperOf(world) });
  holds(terms, run);
  return { world, terms, run };
}

export const flip = (bytes: Uint8Array, at = 0) => {
  const out = bytes.slice();
  out[at] = (out[at] ?? 0) ^ 1;
  return out;
};
