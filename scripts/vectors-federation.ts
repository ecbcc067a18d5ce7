import type { RandomSource } from "../src/crypto/bytes.ts";
import { signerFromSeed } from "../src/crypto/identity.ts";
import {
  beginCeremony,
  type Ceremony,
  type CeremonyOutcome,
  type CeremonyStep,
} from "../src/protocol/federation/ceremony.ts";
import { type Certificate, certificateBytes, certificateHash } from "../src/protocol/federation/certificate.ts";
import type { FederatedType } from "../src/protocol/federation/kinds.ts";
import { federationIdOf, type Manifest, manifestBytes } from "../src/protocol/federation/manifest.ts";
import {
  type Culprit,
  messageBytes,
  type Round,
  type SignedMessage,
  signMessage,
} from "../src/protocol/federation/message.ts";
import type { CeremonyTerms } from "../src/protocol/federation/plan.ts";
import { orderBytes, type RequestBody, requestBytes, requestIdOf } from "../src/protocol/federation/request.ts";
import { seededRandom } from "./vectors-vault.ts";

/** Writes tests/vectors/federation-transcript.json (docs/protocol.md §8.5): `bun scripts/vectors-federation.ts`. */

export interface CeremonyVector {
  readonly name: string;
  readonly manifestHex: string;
  readonly requestHex: string;
  readonly orderHex: string;
  /** Every message in the order of rounds, senders and receivers: what is signed, and the signature. */
  readonly messages: readonly {
    readonly round: Round;
    readonly from: number;
    readonly to: number;
    readonly bytesHex: string;
    readonly signatureHex: string;
  }[];
  readonly expect:
    | {
        readonly transcriptHex: string;
        readonly keyId: string;
        readonly publicKeyHex: string;
        readonly certificateHex: string;
        readonly certificateHashHex: string;
        /** Secret in every other ceremony: the servers' shares by index. */
        readonly sharesHex: Readonly<Record<string, string>>;
      }
    | { readonly culprits: readonly { readonly index: number; readonly reason: Culprit["reason"] }[] };
}

const INDICES = [1, 2, 5] as const;
const ROUNDS: readonly Round[] = ["commit", "echo", "share", "complaint", "reveal", "confirm"];
type Tamper = (message: SignedMessage) => SignedMessage;
interface World {
  readonly manifest: Manifest;
  readonly random: RandomSource;
  readonly signerOf: (index: number) => ReturnType<typeof signerFromSeed>;
}

function worldOf(seed: string): World {
  const random = seededRandom(`keyhold federation vectors: ${seed}`);
  const signers = new Map<number, ReturnType<typeof signerFromSeed>>(
    INDICES.map((index) => [index, signerFromSeed(random(32))]),
  );
  const signerOf = (index: number) => {
    const signer = signers.get(index);
    if (!signer) throw new Error(`no server ${index}`);
    return signer;
  };
  const first = {
    name: "vectors",
    epoch: 1,
    threshold: 2,
    servers: INDICES.map((index) => ({
      index,
      identity: signerOf(index).publicKey,
      sealing: random(32),
      url: `https://server${index}.example`,
      pin: `sha256:${random(32).toBase64({ alphabet: "base64url", omitPadding: true })}`,
      policy: null,
    })),
    createdAtMs: 1_700_000_000_000,
    nonce: random(32),
    previous: new Uint8Array(32),
  };
  return { manifest: { ...first, federationId: federationIdOf(first) }, random, signerOf };
}

function termsOf({ manifest, random }: World, body: RequestBody, before: Certificate | null): CeremonyTerms {
  const requester = signerFromSeed(random(32)).publicKey;
  const { federationId, epoch, createdAtMs } = manifest;
  const nonce = random(32);
  const request = {
    federationId,
    epoch,
    requester,
    nonce,
    createdAtMs,
    expiresAtMs: createdAtMs + 1,
    keyring: null,
    body,
  };
  const order = {
    requestId: requestIdOf(request),
    attempt: 1,
    roster: INDICES,
    contributions: [],
    ownerNonces: null,
  };
  return { manifest, request, order, before };
}

async function play(world: World, terms: CeremonyTerms, old: ReadonlyMap<number, Uint8Array>, tamper: Tamper) {
  const ceremonies = new Map<number, Ceremony>();
  const steps = new Map<number, CeremonyStep>();
  const outcomes = new Map<number, CeremonyOutcome>();
  const take = (index: number, step: CeremonyStep) => {
    steps.set(index, step);
    if (step.outcome && !outcomes.has(index)) outcomes.set(index, step.outcome);
  };
  for (const self of INDICES) {
    const { ceremony, step } = await beginCeremony({
      ...terms,
      self,
      signer: world.signerOf(self),
      beforeShare: old.get(self) ?? null,
      contribution: world.random(32),
      random: world.random,
    });
    ceremonies.set(self, ceremony);
    take(self, step);
  }
  const heard = () => [...steps.values()].flatMap((step) => step.messages).map(tamper);
  for (const _ of ROUNDS) {
    const messages = heard();
    for (const [index, ceremony] of ceremonies) take(index, await ceremony.receive(messages));
  }
  const place = ({ message: m }: SignedMessage) => ROUNDS.indexOf(m.payload.round) * 65_536 + m.from * 256 + m.to;
  return { messages: heard().toSorted((a, b) => place(a) - place(b)), outcomes };
}

async function vectorOf(
  name: string,
  world: World,
  terms: CeremonyTerms,
  old: ReadonlyMap<number, Uint8Array> = new Map(),
  tamper: Tamper = (m) => m,
) {
  const { messages, outcomes } = await play(world, terms, old, tamper);
  const confirmed = [...outcomes].flatMap(([index, o]) => (o.result === "confirmed" ? [{ index, ...o }] : []));
  const certificate = confirmed[0]?.certificate ?? null;
  const shares = new Map(confirmed.flatMap(({ index, share }) => (share ? [[index, share] as const] : [])));
  const failed = outcomes.get(INDICES[0]);
  const culprits = failed?.result === "failed" ? failed.culprits : [];
  const vector: CeremonyVector = {
    name,
    manifestHex: manifestBytes(terms.manifest).toHex(),
    requestHex: requestBytes(terms.request).toHex(),
    orderHex: orderBytes(terms.order).toHex(),
    messages: messages.map((m) => ({
      round: m.message.payload.round,
      from: m.message.from,
      to: m.message.to,
      bytesHex: messageBytes(m.message).toHex(),
      signatureHex: m.signature.toHex(),
    })),
    expect: certificate
      ? {
          transcriptHex: certificate.transcript.toHex(),
          keyId: certificate.keyId,
          publicKeyHex: certificate.publicKey.toHex(),
          certificateHex: certificateBytes(certificate).toHex(),
          certificateHashHex: certificateHash(certificate).toHex(),
          sharesHex: Object.fromEntries([...shares].map(([index, share]) => [`${index}`, share.toHex()])),
        }
      : { culprits: culprits.map(({ index, reason }) => ({ index, reason })) },
  };
  return { vector, certificate, shares };
}

const generate = (type: FederatedType): RequestBody => ({
  kind: "generate",
  type,
  length: 32,
  custody: "delegated",
  control: "unilateral",
  policy: null,
  owner: null,
});

/** All vectors, computed. */
export async function federationVectors(): Promise<readonly CeremonyVector[]> {
  const vectors: CeremonyVector[] = [];
  for (const type of ["ed25519", "schnorr"] as const) {
    const world = worldOf(type);
    const first = await vectorOf(`generate ${type}`, world, termsOf(world, generate(type), null));
    vectors.push(first.vector);
    if (!first.certificate) throw new Error("the ceremony made no key");
    const { keyId, generation } = first.certificate;
    const body = { kind: "reshare", keyId, generation, mode: "refresh", threshold: 2, holders: INDICES } as const;
    const next = termsOf(world, body, first.certificate);
    vectors.push((await vectorOf(`refresh ${type}`, world, next, first.shares)).vector);
  }
  const world = worldOf("liar");
  const wrongProof: Tamper = (m) => {
    const { payload, from } = m.message;
    if (payload.round !== "commit" || from !== 2) return m;
    const proof = payload.proof.toReversed();
    return signMessage(world.signerOf(2), { ...m.message, payload: { ...payload, proof } });
  };
  const liar = await vectorOf("a wrong proof", world, termsOf(world, generate("p256"), null), new Map(), wrongProof);
  vectors.push(liar.vector);
  return vectors;
}

if (import.meta.main) {
  const path = new URL("../tests/vectors/federation-transcript.json", import.meta.url);
  await Bun.write(path, `${JSON.stringify(await federationVectors(), null, 2)}\n`);
}
