import { equalBytes } from "../../crypto/bytes.ts";
import { accusedBy, isCleared, isEchoSound, isEquivocation, judgeCommit, payloadOf } from "./blame.ts";
import { type Culprit, messageHash, type Payload, type Round, type SignedMessage } from "./message.ts";
import type { CeremonyPlan } from "./plan.ts";

/** Messages that this server has taken in, its own included, at most one of each sender and round. */
export type Heard = ReadonlyMap<string, SignedMessage>;

/** Where a ceremony stands at one server: only what is public, and whether the shares for it fitted. */
export type CeremonyState =
  | {
      readonly at: "committing" | "echoing" | "sharing" | "complaining" | "revealing";
      readonly heard: Heard;
      /** By dealer: whether the share for this server fitted its commitments. */
      readonly fitted: ReadonlyMap<number, boolean>;
    }
  | { readonly at: "finished"; readonly heard: Heard }
  | { readonly at: "failed"; readonly heard: Heard; readonly culprits: readonly Culprit[] };

type Running = Exclude<CeremonyState, { readonly at: "finished" | "failed" }>;

export type CeremonyEvent =
  /** A message whose address and signature hold. */
  | { readonly kind: "heard"; readonly message: SignedMessage }
  | { readonly kind: "opened"; readonly from: number; readonly fits: boolean }
  /** An effect could not be carried out: nobody's provable fault. */
  | { readonly kind: "broken" };

export type CeremonyEffect =
  | { readonly kind: "say"; readonly payload: Payload }
  /** Seal and send the shares for the others. */
  | { readonly kind: "deal" }
  | { readonly kind: "open"; readonly message: SignedMessage }
  /** Lay open the shares for these receivers. */
  | { readonly kind: "reveal"; readonly to: readonly number[] }
  /** Compute share and certificate, and confirm. `decisive`: the broadcasts that count. */
  | {
      readonly kind: "finish";
      readonly decisive: readonly SignedMessage[];
      /** Shares that were laid open for this server, by dealer. */
      readonly revealed: ReadonlyMap<number, Uint8Array>;
    }
  | { readonly kind: "wipe" };

export interface Transition {
  readonly state: CeremonyState;
  readonly effects: readonly CeremonyEffect[];
}

export const FIRST_STATE: CeremonyState = { at: "committing", heard: new Map(), fitted: new Map() };

const keyOf = (round: Round, from: number) => `${round} ${from}`;

/** What a sender has said in a round. Shares are kept only where they are for this server. */
export const heardFrom = (heard: Heard, round: Round, from: number) => heard.get(keyOf(round, from));

/** All of the roster's messages of a round, ascending by sender; null while one is missing. */
function allOf(heard: Heard, round: Round, from: readonly number[]): readonly SignedMessage[] | null {
  const messages = from.map((index) => heardFrom(heard, round, index));
  return messages.every((m) => m !== undefined) ? messages : null;
}

const stay = (state: CeremonyState): Transition => ({ state, effects: [] });

/** Ends in failure, or adds to one; a culprit is named once. */
function fail(state: CeremonyState, culprits: readonly Culprit[]): Transition {
  const named = state.at === "failed" ? state.culprits : [];
  const fresh = culprits.filter((c, i) => ![...named, ...culprits.slice(0, i)].some((one) => one.index === c.index));
  return {
    state: { at: "failed", heard: state.heard, culprits: [...named, ...fresh] },
    effects: state.at === "failed" ? [] : [{ kind: "wipe" }],
  };
}

function echoing(plan: CeremonyPlan, self: number, state: Running, commits: readonly SignedMessage[]): Transition {
  const echoes = allOf(state.heard, "echo", plan.roster);
  if (!echoes) return stay(state);
  const hashes = commits.map(({ message }) => messageHash(message));
  const culprits: Culprit[] = [];
  let agreed = true;
  for (const [i, message] of echoes.entries()) {
    const echo = payloadOf(message, "echo");
    const commit = commits[i];
    const own = hashes[i];
    const { from } = message.message;
    if (!echo || !commit || !own) continue;
    if (!isEchoSound(plan, echo, from, own))
      culprits.push({ index: from, reason: "bad_echo", evidence: [commit, message] });
    agreed &&= echo.seen.length === hashes.length && echo.seen.every((s, at) => equalBytes(s.hash, hashes[at] ?? own));
  }
  // an honest echo may differ from ours only where somebody said two things, and then nobody is sure who it was
  if (culprits.length > 0 || !agreed) return fail(state, culprits);
  if (plan.dealers.length === 0) return finish(plan, self, state, new Map());
  const { heard } = state;
  const early = plan.dealers.flatMap((dealer) => heardFrom(heard, "share", dealer) ?? []);
  return {
    state: { ...state, at: "sharing" },
    effects: [
      ...(plan.dealers.includes(self) ? [{ kind: "deal" } as const] : []),
      ...early.map((message) => ({ kind: "open", message }) as const),
    ],
  };
}

function sharing(plan: CeremonyPlan, self: number, state: Running): Transition {
  const awaited = plan.receivers.includes(self) ? plan.dealers.filter((dealer) => dealer !== self) : [];
  if (!awaited.every((dealer) => state.fitted.has(dealer))) return stay(state);
  const accused = awaited.filter((dealer) => state.fitted.get(dealer) === false);
  return {
    state: { ...state, at: "complaining" },
    effects: [{ kind: "say", payload: { round: "complaint", accused } }],
  };
}

/** Who complained about each dealer, of what everybody has heard. */
function chargesOf(
  plan: CeremonyPlan,
  complaints: readonly SignedMessage[],
): ReadonlyMap<number, readonly SignedMessage[]> {
  const charges = new Map<number, SignedMessage[]>();
  for (const message of complaints) {
    const complaint = payloadOf(message, "complaint");
    for (const dealer of complaint ? accusedBy(plan, complaint, message.message.from) : [])
      charges.set(dealer, [...(charges.get(dealer) ?? []), message]);
  }
  return charges;
}

function complaining(plan: CeremonyPlan, self: number, state: Running): Transition {
  const complaints = allOf(state.heard, "complaint", plan.roster);
  if (!complaints) return stay(state);
  const charges = chargesOf(plan, complaints);
  const mine = charges.get(self)?.map(({ message }) => message.from);
  if (charges.size === 0) return finish(plan, self, state, charges);
  return { state: { ...state, at: "revealing" }, effects: mine ? [{ kind: "reveal", to: mine }] : [] };
}

function revealing(plan: CeremonyPlan, self: number, state: Running): Transition {
  const complaints = allOf(state.heard, "complaint", plan.roster) ?? [];
  const charges = chargesOf(plan, complaints);
  if (!allOf(state.heard, "reveal", [...charges.keys()])) return stay(state);
  const culprits: Culprit[] = [];
  for (const [index, against] of charges) {
    const commit = heardFrom(state.heard, "commit", index);
    const reveal = heardFrom(state.heard, "reveal", index);
    const committed = payloadOf(commit, "commit");
    const revealed = payloadOf(reveal, "reveal");
    if (!commit || !reveal || !committed || !revealed) continue;
    const proof = against.find(({ message }) => !isCleared(plan, committed, revealed, message.from));
    if (proof) culprits.push({ index, reason: "bad_share", evidence: [commit, proof, reveal] });
  }
  return culprits.length > 0 ? fail(state, culprits) : finish(plan, self, state, charges);
}

function finish(
  plan: CeremonyPlan,
  self: number,
  { heard }: Running,
  charges: ReadonlyMap<number, readonly SignedMessage[]>,
): Transition {
  // a reveal that nobody asked for decides nothing, and not everybody may have it
  const accused = plan.dealers.filter((dealer) => charges.has(dealer));
  const decisive = [
    ...(["commit", "echo", "complaint"] as const).flatMap((round) => allOf(heard, round, plan.roster) ?? []),
    ...(allOf(heard, "reveal", accused) ?? []),
  ];
  const revealed = new Map<number, Uint8Array>();
  for (const [dealer, against] of charges) {
    if (!against.some(({ message }) => message.from === self)) continue;
    const share = payloadOf(heardFrom(heard, "reveal", dealer), "reveal")?.shares.find((s) => s.to === self)?.share;
    if (share) revealed.set(dealer, share);
  }
  return { state: { at: "finished", heard }, effects: [{ kind: "finish", decisive, revealed }, { kind: "wipe" }] };
}

/** Goes on as far as what is there allows: one stage at a time. */
function advance(plan: CeremonyPlan, self: number, state: CeremonyState): Transition {
  switch (state.at) {
    case "committing": {
      const commits = allOf(state.heard, "commit", plan.roster);
      if (!commits) return stay(state);
      const seen = commits.map(({ message }) => ({ index: message.from, hash: messageHash(message) }));
      return {
        state: { ...state, at: "echoing" },
        effects: [{ kind: "say", payload: { round: "echo", seen } }],
      };
    }
    case "echoing":
      return echoing(plan, self, state, allOf(state.heard, "commit", plan.roster) ?? []);
    case "sharing":
      return sharing(plan, self, state);
    case "complaining":
      return complaining(plan, self, state);
    case "revealing":
      return revealing(plan, self, state);
    case "finished":
    case "failed":
      return stay(state);
  }
}

/** Takes one message in; a second one of the same sender and round is nothing new, or a proof. */
function hear(plan: CeremonyPlan, self: number, state: CeremonyState, message: SignedMessage): Transition {
  const { from, payload } = message.message;
  const key = keyOf(payload.round, from);
  const known = state.heard.get(key);
  if (known) {
    if (state.at === "finished" || !isEquivocation(known.message, message.message)) return stay(state);
    return fail(state, [{ index: from, reason: "equivocation", evidence: [known, message] }]);
  }
  const heard = new Map(state.heard).set(key, message);
  const next: CeremonyState = { ...state, heard };
  if (next.at === "finished") return stay(next);
  const commit = payloadOf(message, "commit");
  const reason = commit && from !== self ? judgeCommit(plan, from, commit) : null;
  if (reason) return fail(next, [{ index: from, reason, evidence: [message] }]);
  if (payload.round === "share" && next.at === "sharing") return { state: next, effects: [{ kind: "open", message }] };
  return stay(next);
}

/**
 * Advances one server's part of a ceremony (docs/protocol.md §8.5): pure, and never throws for what others say. Effects
 * are to be carried out in their order, and what comes of them given back as events.
 */
export function stepCeremony(plan: CeremonyPlan, self: number, state: CeremonyState, event: CeremonyEvent): Transition {
  let now: Transition;
  switch (event.kind) {
    case "heard":
      now = hear(plan, self, state, event.message);
      break;
    case "opened":
      if (state.at !== "sharing") return stay(state);
      now = stay({ ...state, fitted: new Map(state.fitted).set(event.from, event.fits) });
      break;
    case "broken":
      return fail(state, []);
  }
  const effects = [...now.effects];
  for (;;) {
    const next = advance(plan, self, now.state);
    effects.push(...next.effects);
    if (next.state === now.state) return { state: now.state, effects };
    now = next;
  }
}
