import { type RandomSource, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { beginCeremony, type CeremonyStep } from "../protocol/federation/ceremony.ts";
import { type Culprit, messageHash, type SignedMessage } from "../protocol/federation/message.ts";
import { releaseShare } from "../protocol/federation/release.ts";
import type { AttemptOrder } from "../protocol/federation/request.ts";
import { beginSigning, endSigning, signPartial } from "../protocol/federation/signing.ts";
import { checkMessage } from "../protocol/federation/use.ts";
import type { Machine, Step } from "./attempts.ts";
import type { Verified } from "./evidence.ts";
import type { EnclaveKeys } from "./keys.ts";
import { sealPending } from "./sealedshare.ts";

/** What an attempt begins with. */
export interface MachineInput {
  readonly verified: Verified;
  readonly order: AttemptOrder;
  /** This server's share of the key, or null; stays the caller's, who wipes it after the call. */
  readonly share: Uint8Array | null;
  /** What the requester sealed to this server, or null; stays the caller's. */
  readonly contribution: Uint8Array | null;
  readonly keys: EnclaveKeys;
  readonly random: RandomSource;
}

/** Begins this server's part of an attempt. @throws Fault bad_input, integrity, corrupt, not_found, stale */
export async function beginMachine(input: MachineInput): Promise<Machine> {
  const { kind } = input.verified.request.body;
  if (kind === "sign") return signingMachine(input);
  if (kind === "release") return releaseMachine(input);
  return ceremonyMachine(input);
}

/** A use as protocol/federation takes it. @throws Fault not_found where this server has no share */
function useOf({ verified, order, share, keys, random }: MachineInput) {
  const { key, own, manifest, request } = verified;
  if (key === null || share === null) {
    throw new Fault("not_found", "this server has no share of that key", { hint: "keyhold key repair" });
  }
  const { certificate } = key;
  return { manifest, certificate, request, order, self: own.index, signer: keys.signer, share, random };
}

const ended = (result: "done" | "failed", culprits: readonly Culprit[] = []): NonNullable<Step["outcome"]> => ({
  result,
  certificate: null,
  signature: null,
  culprits,
});

/** One message, and it is over. */
async function releaseMachine(input: MachineInput): Promise<Machine> {
  const step: Step = { messages: [await releaseShare(useOf(input))], outcome: ended("done"), sealed: null };
  return { step: () => step, receive: async () => step, wipe: () => undefined };
}

/** Nonces; once those of the whole roster are here, a partial signature. */
function signingMachine(input: MachineInput): Machine {
  const session = beginSigning(useOf(input));
  const heard = new Map<string, SignedMessage>();
  const hear = (signed: SignedMessage) => heard.set(messageHash(signed.message).toHex(), signed);
  hear(session.nonces);
  let step: Step = { messages: [session.nonces], outcome: null, sealed: null };
  return {
    step: () => step,
    async receive(messages) {
      if (step.outcome !== null) return step;
      const nonces = messages.filter(({ message }) => message.payload.round === "nonces");
      for (const signed of nonces) checkMessage(session.use, signed);
      nonces.forEach(hear);
      const all = [...heard.values()];
      if (!input.order.roster.every((index) => all.some(({ message }) => message.from === index))) return step;
      const signed = await signPartial(session, all, input.random);
      step =
        signed.result === "failed"
          ? { ...step, outcome: ended("failed", signed.culprits) }
          : { ...step, messages: [session.nonces, signed.message], outcome: ended("done") };
      return step;
    },
    wipe: () => endSigning(session),
  };
}

/** A ceremony; the share that it makes is sealed at once and leaves no other way. */
async function ceremonyMachine({ verified, order, share, contribution, keys, random }: MachineInput): Promise<Machine> {
  const { manifest, request, own, key } = verified;
  const { ceremony, step: first } = await beginCeremony({
    manifest,
    request,
    order,
    before: key?.certificate ?? null,
    self: own.index,
    signer: keys.signer,
    beforeShare: share,
    contribution,
    random,
  });
  let sealed: Uint8Array | null = null;
  function stepOf({ messages, outcome }: CeremonyStep): Step {
    if (outcome === null) return { messages, outcome: null, sealed: null };
    if (outcome.result === "failed") return { messages, outcome: ended("failed", outcome.culprits), sealed: null };
    const { certificate, signature, share: made } = outcome;
    try {
      if (made !== null) sealed = sealPending(keys, certificate, made, random);
    } finally {
      wipe(made ?? undefined);
    }
    return { messages, outcome: { result: "confirmed", certificate, signature, culprits: [] }, sealed };
  }
  let step = stepOf(first);
  return {
    step: () => step,
    async receive(messages) {
      // a failed one goes on taking proofs
      if (step.outcome?.result !== "confirmed") step = stepOf(await ceremony.receive(messages));
      return step;
    },
    wipe: () => ceremony.abort(),
  };
}
