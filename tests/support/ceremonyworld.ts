import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import {
  beginCeremony,
  type Ceremony,
  type CeremonyOutcome,
  type CeremonyStep,
} from "../../src/protocol/federation/ceremony.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import { groupOf } from "../../src/protocol/federation/groups.ts";
import type { FederatedType, ImportOrigin } from "../../src/protocol/federation/kinds.ts";
import { federationIdOf, type Manifest } from "../../src/protocol/federation/manifest.ts";
import type { Message, Payload, Round, SignedMessage } from "../../src/protocol/federation/message.ts";
import { signMessage } from "../../src/protocol/federation/message.ts";
import type { CeremonyTerms } from "../../src/protocol/federation/plan.ts";
import {
  type AttemptOrder,
  type FederatedRequest,
  type GenerateBody,
  type RequestBody,
  type ReshareBody,
  requestIdOf,
} from "../../src/protocol/federation/request.ts";
import { shareSecret } from "../../src/protocol/federation/sharing.ts";
import { type Seeded, seeded } from "./seeded.ts";

/**
 * A whole federation in one process, for tests of the ceremony alone: no enclave, no policy, no wire. Entropy ceremonies
 * are in entropyworld.ts.
 */
export interface CeremonyWorld {
  readonly manifest: Manifest;
  readonly signers: ReadonlyMap<number, Signer>;
  readonly requester: Signer;
  readonly random: Seeded;
}

const textHash = (text: string) => sha256(new TextEncoder().encode(text));

export function ceremonyWorld(indices: readonly number[], threshold: number, seed = 1): CeremonyWorld {
  const random = seeded(seed);
  const signers = new Map(indices.map((index) => [index, signerFromSeed(random.bytes(32))]));
  const first = {
    name: "test",
    epoch: 1,
    threshold,
    servers: indices.map((index) => ({
      index,
      identity: signers.get(index)?.publicKey ?? new Uint8Array(32),
      sealing: textHash(`sealing ${index}`),
      url: `https://server${index}.example`,
      pin: `sha256:${index}`,
      policy: null,
    })),
    createdAtMs: 1,
    nonce: random.bytes(32),
    previous: new Uint8Array(32),
  };
  const manifest = { ...first, federationId: federationIdOf(first) };
  return { manifest, signers, requester: signerFromSeed(random.bytes(32)), random };
}

export function requestOf(world: CeremonyWorld, body: RequestBody): FederatedRequest {
  const { manifest, requester, random } = world;
  return {
    federationId: manifest.federationId,
    epoch: manifest.epoch,
    requester: requester.publicKey,
    nonce: random.bytes(32),
    createdAtMs: 1,
    expiresAtMs: 2,
    keyring: null,
    body,
  };
}

export const orderOf = (request: FederatedRequest, roster: readonly number[], attempt = 1): AttemptOrder => ({
  requestId: requestIdOf(request),
  attempt,
  roster,
  contributions: [],
  ownerNonces: null,
});

export const generateBody = (type: FederatedType, more: Partial<GenerateBody> = {}): GenerateBody => ({
  kind: "generate",
  type,
  length: 32,
  custody: "delegated",
  control: "unilateral",
  policy: null,
  owner: null,
  ...more,
});

export function generateTerms(world: CeremonyWorld, type: FederatedType, roster: readonly number[]): CeremonyTerms {
  const request = requestOf(world, generateBody(type));
  return { manifest: world.manifest, request, order: orderOf(request, roster), before: null };
}

export function reshareTerms(
  world: CeremonyWorld,
  before: Certificate,
  body: Pick<ReshareBody, "threshold" | "holders"> & { readonly mode?: ReshareBody["mode"] },
  roster: readonly number[],
): CeremonyTerms {
  const { keyId, generation } = before;
  const request = requestOf(world, { kind: "reshare", mode: "reshare", keyId, generation, ...body });
  return { manifest: world.manifest, request, order: orderOf(request, roster), before };
}

/** Terms of an import, and the share that the requester dealt to each. */
export function importTerms(
  world: CeremonyWorld,
  type: FederatedType,
  threshold: number,
  holders: readonly number[],
  secret: Uint8Array,
  origin: ImportOrigin = "imported",
) {
  const { commitments, shares } = shareSecret(groupOf(type), secret, threshold, holders, (n) => world.random.bytes(n));
  const { kind: _, ...purpose } = generateBody(type);
  const sealedValue = type === "bytes" ? world.random.bytes(purpose.length + 41) : null;
  const dealt = { origin, threshold, holders, commitments, sealedValue };
  const request = requestOf(world, { kind: "import", ...purpose, ...dealt });
  const terms: CeremonyTerms = { manifest: world.manifest, request, order: orderOf(request, holders), before: null };
  return { terms, shares };
}

/** What the network makes of one message on its way to one server. */
export type Tamper = (
  message: SignedMessage,
  to: number,
) => readonly SignedMessage[] | Promise<readonly SignedMessage[]>;

export interface RunOptions {
  readonly tamper?: Tamper;
  /** Opened client bytes or dealt shares; of a generation fresh random ones unless given. */
  readonly contributions?: ReadonlyMap<number, Uint8Array>;
  readonly oldShares?: ReadonlyMap<number, Uint8Array>;
  /** Servers that never start. */
  readonly silent?: readonly number[];
  /** Mixes the order in which messages arrive. */
  readonly shuffle?: Seeded;
  readonly randomFor?: (index: number) => (length: number) => Uint8Array;
}

export interface Run {
  readonly outcomes: ReadonlyMap<number, CeremonyOutcome>;
  readonly said: readonly SignedMessage[];
  readonly ceremonies: ReadonlyMap<number, Ceremony>;
}

type Confirmed = Extract<CeremonyOutcome, { result: "confirmed" }>;

export const confirmedOf = (run: Run): ReadonlyMap<number, Confirmed> =>
  new Map([...run.outcomes].flatMap(([i, o]) => (o.result === "confirmed" ? [[i, o] as const] : [])));

export const culpritsOf = (run: Run): readonly number[] => [
  ...new Set([...run.outcomes.values()].flatMap((o) => (o.result === "failed" ? o.culprits.map((c) => c.index) : []))),
];

export const sharesOf = (run: Run): ReadonlyMap<number, Uint8Array> =>
  new Map([...confirmedOf(run)].flatMap(([i, o]) => (o.share ? [[i, o.share] as const] : [])));

/** Fisher–Yates. */
function shuffled<T>(list: readonly T[], random: Seeded): T[] {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.int(i + 1);
    [out[i], out[j]] = [out[j] as T, out[i] as T];
  }
  return out;
}

/** Runs a ceremony at all servers of its roster until nothing new is said. */
export async function runCeremony(world: CeremonyWorld, terms: CeremonyTerms, options: RunOptions = {}): Promise<Run> {
  const { tamper = (m) => [m], silent = [], shuffle } = options;
  const active = terms.order.roster.filter((index) => !silent.includes(index));
  const ceremonies = new Map<number, Ceremony>();
  const steps = new Map<number, CeremonyStep>();
  const outcomes = new Map<number, CeremonyOutcome>();
  const take = (index: number, step: CeremonyStep) => {
    steps.set(index, step);
    const known = outcomes.get(index);
    if (step.outcome && known?.result !== "confirmed") outcomes.set(index, step.outcome);
  };
  const deals = terms.request.body.kind === "generate";
  for (const index of active) {
    const signer = world.signers.get(index);
    if (!signer) throw new Error("no such server");
    const { ceremony, step } = await beginCeremony({
      ...terms,
      self: index,
      signer,
      beforeShare: options.oldShares?.get(index) ?? null,
      contribution: options.contributions?.get(index) ?? (deals ? world.random.bytes(32) : null),
      random: options.randomFor?.(index) ?? ((n) => world.random.bytes(n)),
    });
    ceremonies.set(index, ceremony);
    take(index, step);
  }
  const delivered = new Map(active.map((index) => [index, new Set<SignedMessage>()]));
  for (let again = true; again; ) {
    again = false;
    const all = [...steps.values()].flatMap((step) => step.messages);
    for (const [index, ceremony] of ceremonies) {
      const seen = delivered.get(index) ?? new Set();
      const fresh = all.filter((m) => m.message.from !== index && !seen.has(m));
      if (fresh.length === 0) continue;
      again = true;
      for (const m of fresh) seen.add(m);
      const arriving: SignedMessage[] = [];
      for (const m of shuffle ? shuffled(fresh, shuffle) : fresh) arriving.push(...(await tamper(m, index)));
      take(index, await ceremony.receive(arriving));
    }
  }
  return { outcomes, said: [...steps.values()].flatMap((step) => step.messages), ceremonies };
}

/** A message with another payload, signed by whom it is from: what a lying server can do. */
export function lie(world: CeremonyWorld, { message }: SignedMessage, payload: Payload, more: Partial<Message> = {}) {
  const forged = { ...message, payload, ...more };
  const signer = world.signers.get(forged.from);
  if (!signer) throw new Error("no such server");
  return signMessage(signer, forged);
}

export const roundOf = ({ message }: SignedMessage): Round => message.payload.round;
