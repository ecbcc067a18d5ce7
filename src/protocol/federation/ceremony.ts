import { shake256 } from "@noble/hashes/sha3.js";
import { concat, equalBytes, type RandomSource, wipe } from "../../crypto/bytes.ts";
import { type HpkeKeyPair, hpkeKeyPair, hpkeOpen, hpkeSeal } from "../../crypto/hpke.ts";
import type { Signer } from "../../crypto/identity.ts";
import { deriveKey } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { isAddressed, payloadOf, shareContext, shareFits } from "./blame.ts";
import {
  type CeremonyEffect,
  type CeremonyEvent,
  type CeremonyState,
  FIRST_STATE,
  heardFrom,
  stepCeremony,
} from "./ceremonystate.ts";
import { type Certificate, type CertificateSignature, certificateHash, signCertificate } from "./certificate.ts";
import type { Dealing, Received } from "./dealing.ts";
import { beginDkg } from "./dkg.ts";
import { memberOf } from "./manifest.ts";
import {
  type Culprit,
  type Message,
  messageSignatureHolds,
  type Payload,
  type SignedMessage,
  sealedInfo,
  signMessage,
} from "./message.ts";
import { type CeremonyPlan, type CeremonyTerms, planCeremony } from "./plan.ts";
import { proveScalar } from "./proof.ts";
import { beginResharing } from "./resharing.ts";
import { beginReceiving } from "./sharing.ts";
import { certificateOf, transcriptHash } from "./transcript.ts";

/** Bytes of the client's contribution to a key's generation. */
export const CONTRIBUTION_BYTES = 32;

/** All that one server needs for its part; the secrets are the caller's, and copied where they are kept. */
export interface CeremonySetup extends CeremonyTerms {
  /** Index of this server. */
  readonly self: number;
  readonly signer: Signer;
  /** Its share of the generation before, 32 bytes, where it is an old holder of a resharing; otherwise null. */
  readonly beforeShare: Uint8Array | null;
  /** What the client sealed to it: 32 random bytes; of an import its share. Null in a resharing without any. */
  readonly contribution: Uint8Array | null;
  /** The platform's generator. */
  readonly random: RandomSource;
}

export type CeremonyOutcome =
  | {
      readonly result: "confirmed";
      readonly certificate: Certificate;
      readonly signature: CertificateSignature;
      /** 32 bytes, the caller's to wipe: given once, and null where this server holds none. */
      readonly share: Uint8Array | null;
    }
  | { readonly result: "failed"; readonly culprits: readonly Culprit[] };

export interface CeremonyStep {
  /** All that this server has said so far. */
  readonly messages: readonly SignedMessage[];
  readonly outcome: CeremonyOutcome | null;
}

/** One server's running part; it lives in memory alone and is never restored from anything. */
export interface Ceremony {
  /** Takes messages in any order; what is foreign, forged or known already changes nothing. */
  receive(messages: readonly SignedMessage[]): Promise<CeremonyStep>;
  /** Wipes its secrets; it says nothing more. */
  abort(): void;
}

/** A stream that is as good as the better of two sources: SHAKE256 of HKDF over fresh and client bytes. */
function streamOf(plan: CeremonyPlan, self: number, setup: CeremonySetup) {
  const fresh = setup.random(64);
  const ikm = concat(fresh, setup.contribution ?? new Uint8Array(0));
  const seed = deriveKey(
    ikm,
    64,
    plan.orderHash,
    "keyhold/v1/federation-randomness",
    plan.requestId,
    plan.attempt,
    self,
  );
  const stream = shake256.create({}).update(seed);
  wipe(fresh, ikm, seed);
  return { draw: (length: number) => new Uint8Array(stream.xof(length)), end: () => stream.destroy() };
}

function beginDealing(plan: CeremonyPlan, setup: CeremonySetup, random: RandomSource): Dealing {
  switch (plan.body.kind) {
    case "generate":
      if (setup.contribution?.length !== CONTRIBUTION_BYTES)
        throw new Fault("bad_input", "the requester gives every server 32 bytes");
      return beginDkg(plan, setup.self, random);
    case "import":
      return beginReceiving(plan, setup.self, setup.contribution);
    case "reshare":
      return beginResharing(plan, setup.self, setup.beforeShare, random);
  }
}

interface Secrets {
  readonly dealing: Dealing;
  readonly sealing: HpkeKeyPair;
  readonly random: RandomSource;
  /** Shares for this server by dealer. */
  readonly shares: Map<number, Uint8Array>;
  /** Shares for the others by receiver. */
  dealt: ReadonlyMap<number, Uint8Array>;
  wipe(): void;
}

/** Carries the effects of {@link stepCeremony} out. */
function run(
  plan: CeremonyPlan,
  setup: CeremonySetup,
  secrets: Secrets,
): Ceremony & { begin(): Promise<CeremonyStep> } {
  const { self, signer, manifest } = setup;
  const said: SignedMessage[] = [];
  let state: CeremonyState = FIRST_STATE;
  let confirmed: Extract<CeremonyOutcome, { result: "confirmed" }> | null = null;
  let over = false;
  let turn: Promise<unknown> = Promise.resolve();

  const headOf = (to: number) => {
    const { requestId, attempt, orderHash } = plan;
    return { requestId, attempt, orderHash, from: self, to };
  };
  function say(payload: Payload, to = 0): SignedMessage {
    const message: Message = { ...headOf(to), payload };
    const signed = signMessage(signer, message);
    said.push(signed);
    return signed;
  }
  const broadcast = (payload: Payload): CeremonyEvent[] => [{ kind: "heard", message: say(payload) }];

  function received(): Received {
    const commits = plan.dealers.flatMap((from) => {
      const commit = payloadOf(heardFrom(state.heard, "commit", from), "commit");
      return commit && from !== self ? [{ from, commitments: commit.commitments, proof: commit.proof }] : [];
    });
    return { commits, shares: secrets.shares };
  }

  async function deal(): Promise<void> {
    secrets.dealt = secrets.dealing.deal(received().commits);
    for (const [to, share] of secrets.dealt) {
      const receiver = payloadOf(heardFrom(state.heard, "commit", to), "commit");
      if (!receiver) continue;
      const sealed = await hpkeSeal(receiver.sealing, sealedInfo(headOf(to), "share"), share, secrets.random);
      if (over) return;
      say({ round: "share", sealed }, to);
    }
  }

  async function open(signed: SignedMessage): Promise<CeremonyEvent[]> {
    const { from } = signed.message;
    const sealed = payloadOf(signed, "share")?.sealed ?? new Uint8Array(0);
    const commit = payloadOf(heardFrom(state.heard, "commit", from), "commit");
    let share: Uint8Array;
    try {
      share = await hpkeOpen(secrets.sealing, sealedInfo(signed.message, "share"), sealed);
    } catch {
      return [{ kind: "opened", from, fits: false }];
    }
    const fits = !over && commit !== null && shareFits(plan.group, commit.commitments, self, share);
    if (fits) secrets.shares.set(from, share);
    else wipe(share);
    return [{ kind: "opened", from, fits }];
  }

  function finish({ decisive, revealed }: Extract<CeremonyEffect, { kind: "finish" }>): CeremonyEvent[] {
    for (const [dealer, share] of revealed) secrets.shares.set(dealer, share.slice());
    const { share, ...dealt } = secrets.dealing.finish(received());
    try {
      const certificate = certificateOf(plan, dealt, transcriptHash(plan, decisive));
      const signature = signCertificate(signer, self, certificate);
      if (share && !shareFits(plan.group, certificate.commitments, self, share))
        throw new Fault("internal", "the share does not fit the key");
      const proof = share
        ? proveScalar(plan.group, share, shareContext(certificate, self), secrets.random)
        : new Uint8Array(0);
      const hash = certificateHash(certificate);
      const events = broadcast({ round: "confirm", certificateHash: hash, signature: signature.signature, proof });
      confirmed = { result: "confirmed", certificate, signature, share };
      return events;
    } finally {
      if (!confirmed && share) wipe(share);
    }
  }

  async function carryOut(effect: CeremonyEffect): Promise<readonly CeremonyEvent[]> {
    switch (effect.kind) {
      case "say":
        return broadcast(effect.payload);
      case "deal":
        await deal();
        return [];
      case "open":
        return open(effect.message);
      case "reveal": {
        const shares = effect.to.flatMap((to) => {
          const share = secrets.dealt.get(to);
          return share ? [{ to, share: share.slice() }] : [];
        });
        return broadcast({ round: "reveal", shares });
      }
      case "finish":
        return finish(effect);
      case "wipe":
        secrets.wipe();
        return [];
    }
  }

  /** Effects one after another; what comes of each is taken in at once, its own effects after those that wait. */
  async function take(first: CeremonyEvent): Promise<void> {
    const effects: CeremonyEffect[] = [];
    const advance = (event: CeremonyEvent) => {
      const next = stepCeremony(plan, self, state, event);
      state = next.state;
      effects.push(...next.effects);
    };
    advance(first);
    for (let effect = effects.shift(); effect && !over; effect = effects.shift()) {
      try {
        for (const event of await carryOut(effect)) advance(event);
      } catch {
        if (!over) advance({ kind: "broken" });
      }
    }
  }

  function step(): CeremonyStep {
    const messages = [...said];
    if (state.at === "failed") return { messages, outcome: { result: "failed", culprits: state.culprits } };
    if (!confirmed || over) return { messages, outcome: null };
    const outcome = confirmed;
    confirmed = { ...confirmed, share: null };
    return { messages, outcome };
  }

  /** One call at a time: whoever comes meanwhile waits. */
  function inTurn(work: () => Promise<void>): Promise<CeremonyStep> {
    const done = turn.then(async () => {
      if (!over) await work();
      return step();
    });
    turn = done.catch(() => undefined);
    return done;
  }

  return {
    begin: () =>
      inTurn(async () => {
        const { commitments, proof } = secrets.dealing;
        const commit = say({ round: "commit", commitments, proof, sealing: secrets.sealing.publicKey });
        await take({ kind: "heard", message: commit });
      }),
    receive: (messages) =>
      inTurn(async () => {
        for (const message of messages) {
          const { to, from, payload } = message.message;
          if (!isAddressed(plan, message.message) || (payload.round === "share" && to !== self)) continue;
          const known = heardFrom(state.heard, payload.round, from);
          if (known && equalBytes(known.signature, message.signature)) continue;
          if (messageSignatureHolds(manifest, message)) await take({ kind: "heard", message });
        }
      }),
    abort() {
      over = true;
      secrets.wipe();
      wipe(confirmed?.share ?? undefined);
      confirmed = null;
    },
  };
}

/**
 * Begins one server's part in a generation, import or resharing (docs/protocol.md §8.5, §8.9). The caller has verified
 * manifest, request, order and certificate, and begins an attempt only once: after a crash there is a new one.
 *
 * @throws Fault bad_input where the terms or what the requester sealed do not fit; corrupt where the old share does not
 */
export async function beginCeremony(setup: CeremonySetup): Promise<{ ceremony: Ceremony; step: CeremonyStep }> {
  const plan = planCeremony(setup);
  const { self, signer, manifest } = setup;
  if (!plan.roster.includes(self) || !equalBytes(memberOf(manifest, self).identity, signer.publicKey))
    throw new Fault("bad_input", "this server does not take part");
  const stream = streamOf(plan, self, setup);
  const seed = stream.draw(32);
  try {
    const sealing = await hpkeKeyPair(seed);
    const dealing = beginDealing(plan, setup, stream.draw);
    const shares = new Map<number, Uint8Array>();
    let gone = false;
    const secrets: Secrets = {
      dealing,
      sealing,
      random: stream.draw,
      shares,
      dealt: new Map(),
      wipe() {
        if (gone) return;
        gone = true;
        wipe(...shares.values());
        shares.clear();
        dealing.wipe();
        stream.end();
      },
    };
    const { begin, ...ceremony } = run(plan, setup, secrets);
    return { ceremony, step: await begin() };
  } catch (error) {
    stream.end();
    throw error;
  } finally {
    wipe(seed);
  }
}
