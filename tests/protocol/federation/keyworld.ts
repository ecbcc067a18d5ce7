import type { DKG_Round2 } from "@noble/curves/abstract/frost.js";
import { type HpkeKeyPair, hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { hashId } from "../../../src/ids.ts";
import type { Certificate } from "../../../src/protocol/federation/certificate.ts";
import { shareOut } from "../../../src/protocol/federation/custody.ts";
import { type Group, groupOf, identifier } from "../../../src/protocol/federation/groups.ts";
import type { Custody, FederatedType } from "../../../src/protocol/federation/kinds.ts";
import type { Manifest } from "../../../src/protocol/federation/manifest.ts";
import type { SignedMessage } from "../../../src/protocol/federation/message.ts";
import {
  drawOwnerNonces,
  type OwnerNonces,
  ownerScalar as ownerScalarOf,
  pointOf,
} from "../../../src/protocol/federation/owner.ts";
import { releaseShare } from "../../../src/protocol/federation/release.ts";
import {
  type FederatedRequest,
  type ReleaseBody,
  requestIdOf,
  type SignBody,
} from "../../../src/protocol/federation/request.ts";
import {
  beginSigning,
  completeSignature,
  type SigningSession,
  signPartial,
} from "../../../src/protocol/federation/signing.ts";
import { type OpenedPartial, openPartial, type Use } from "../../../src/protocol/federation/use.ts";
import { seeded } from "../../support/seeded.ts";

/** A key that servers share, as a finished ceremony leaves it behind. */
export interface KeyWorld {
  readonly group: Group;
  readonly manifest: Manifest;
  readonly certificate: Certificate;
  readonly signers: ReadonlyMap<number, Signer>;
  readonly shares: ReadonlyMap<number, Uint8Array>;
  readonly ownerScalar: Uint8Array | null;
  readonly recipient: HpkeKeyPair;
  readonly requester: Signer;
  readonly random: (length: number) => Uint8Array;
}

export interface WorldInput {
  readonly type: FederatedType;
  readonly custody?: Custody;
  readonly threshold?: number;
  /** Indices of the servers; not always 1 to n. */
  readonly indices?: readonly number[];
  /** Of an import: the scalar that is shared out. */
  readonly imported?: Uint8Array;
  readonly seed?: number;
  readonly length?: number;
}

const zeros = new Uint8Array(32);

/** All servers' rounds of the library's own key generation, in one place. */
function generate(group: Group, threshold: number, indices: readonly number[], random: (n: number) => Uint8Array) {
  const { DKG } = group.frost;
  const signers = { min: threshold, max: indices.length };
  const rng = (n = 32) => new Uint8Array(random(n));
  const first = indices.map((index) => DKG.round1(identifier(group, index), signers, undefined, rng));
  const others = (i: number) => first.filter((_, j) => j !== i).map((one) => one.public);
  const second = first.map((one, i) => DKG.round2(one.secret, others(i)));
  const keys = first.map((one, i) => {
    const mine = identifier(group, indices[i] ?? 0);
    const received = second.filter((_, j) => j !== i).map((sent) => sent[mine] as DKG_Round2);
    return DKG.round3(one.secret, others(i), received);
  });
  return {
    commitments: (keys[0]?.public.commitments ?? []) as readonly Uint8Array[],
    shares: indices.map((index, i) => ({ index, share: keys[i]?.secret.signingShare as Uint8Array })),
  };
}

const made = new Map<string, Promise<KeyWorld>>();

/** A world of these parts; the same parts give the same world. */
export function keyWorld(input: WorldInput): Promise<KeyWorld> {
  const name = JSON.stringify({ ...input, imported: input.imported?.toHex() });
  const known = made.get(name) ?? makeWorld(input);
  made.set(name, known);
  return known;
}

async function makeWorld(input: WorldInput): Promise<KeyWorld> {
  const { type, custody = "delegated", threshold = 2, indices = [1, 2, 3], seed = 1 } = input;
  const random = seeded(seed).bytes;
  const group = groupOf(type);
  const signers = new Map(indices.map((index) => [index, signerFromSeed(random(32))]));
  const requester = signerFromSeed(random(32));
  const federationId = hashId(random(32)) as Manifest["federationId"];
  const manifest: Manifest = {
    federationId,
    name: "ours",
    epoch: 1,
    threshold,
    servers: indices.map((index) => ({
      index,
      identity: signers.get(index)?.publicKey ?? zeros,
      sealing: random(32),
      url: `https://${index}.example`,
      pin: `sha256:${index}`,
      policy: null,
    })),
    createdAtMs: 0,
    nonce: random(32),
    previous: zeros,
  };
  const ownerScalar = custody === "self" ? ownerScalarOf(type, random(32)) : null;
  const dealt = input.imported
    ? shareOut({ type, threshold, holders: indices, scalar: input.imported, ownerScalar, random })
    : generate(group, threshold, indices, random);
  const ownerPoint = ownerScalar && pointOf(type, ownerScalar);
  const first = dealt.commitments[0] ?? zeros;
  const publicKey = ownerPoint ? group.encodePoint(group.parsePoint(first).add(group.parsePoint(ownerPoint))) : first;
  const certificate: Certificate = {
    keyId: hashId(random(32)) as Certificate["keyId"],
    federationId,
    epoch: 1,
    requestId: hashId(random(32)) as Certificate["requestId"],
    attempt: 1,
    owner: requester.publicKey,
    type,
    length: input.length ?? 32,
    custody,
    control: "unilateral",
    origin: input.imported ? "imported" : "generated",
    policy: null,
    publicKey,
    commitments: dealt.commitments,
    untweaked: null,
    ownerPoint,
    value: null,
    threshold,
    holders: indices,
    generation: 0,
    transcript: zeros,
    predecessor: null,
  };
  const shares = new Map(dealt.shares.map((s) => [s.index, s.share]));
  const recipient = await hpkeKeyPair(random(32));
  return { group, manifest, certificate, signers, shares, ownerScalar, recipient, requester, random };
}

function requestOf(w: KeyWorld, body: SignBody | ReleaseBody): FederatedRequest {
  const { federationId } = w.manifest;
  const requester = w.requester.publicKey;
  return {
    federationId,
    epoch: 1,
    requester,
    nonce: w.random(32),
    createdAtMs: 0,
    expiresAtMs: 1,
    keyring: null,
    body,
  };
}

const useOf = (
  w: KeyWorld,
  body: SignBody | ReleaseBody,
  roster: readonly number[],
  nonces: OwnerNonces | null,
): Use => {
  const request = requestOf(w, body);
  const ownerNonces = nonces?.commitments ?? null;
  const order = { requestId: requestIdOf(request), attempt: 1, roster, contributions: [], ownerNonces };
  return { manifest: w.manifest, certificate: w.certificate, request, order };
};

/** An attempt to sign of which every server has said its nonces. */
export interface Signing {
  readonly use: Use;
  readonly owner: { readonly scalar: Uint8Array; readonly nonces: OwnerNonces } | null;
  readonly sessions: ReadonlyMap<number, SigningSession>;
  readonly nonces: readonly SignedMessage[];
}

export function signUse(w: KeyWorld, roster: readonly number[], message: Uint8Array) {
  const { keyId, generation, type } = w.certificate;
  const recipient = w.recipient.publicKey;
  const owner = w.ownerScalar && { scalar: w.ownerScalar, nonces: drawOwnerNonces(type, w.ownerScalar, w.random) };
  const body: SignBody = {
    kind: "sign",
    form: "message" as const,
    input: 0,
    keyId,
    generation,
    message,
    amount: null,
    recipient,
  };
  return { use: useOf(w, body, roster, owner?.nonces ?? null), owner };
}

export const serverOf = (w: KeyWorld, self: number) => ({
  self,
  signer: w.signers.get(self) ?? w.requester,
  share: w.shares.get(self) ?? zeros,
  random: w.random,
});

export function begin(w: KeyWorld, roster: readonly number[], message: Uint8Array): Signing {
  const { use, owner } = signUse(w, roster, message);
  const sessions = new Map(roster.map((self) => [self, beginSigning({ ...use, ...serverOf(w, self) })]));
  return { use, owner, sessions, nonces: [...sessions.values()].map((s) => s.nonces) };
}

/** The partial of one server, as it leaves it. */
export async function partialOf(w: KeyWorld, s: Signing, index: number): Promise<SignedMessage> {
  const session = s.sessions.get(index);
  if (!session) throw new Error("no session");
  const step = await signPartial(session, s.nonces, w.random);
  if (step.result === "failed") throw new Error("the server failed");
  return step.message;
}

export async function partials(w: KeyWorld, s: Signing): Promise<OpenedPartial[]> {
  const said = await Promise.all([...s.sessions.keys()].map((index) => partialOf(w, s, index)));
  return Promise.all(said.map((message) => openPartial(s.use, w.recipient, message)));
}

export const complete = (s: Signing, opened: readonly OpenedPartial[]) =>
  completeSignature({ ...s.use, nonces: s.nonces, partials: opened, owner: s.owner });

/** Signs with a roster, all honest. */
export async function signWith(w: KeyWorld, roster: readonly number[], message: Uint8Array): Promise<Uint8Array> {
  const signing = begin(w, roster, message);
  const done = complete(signing, await partials(w, signing));
  if (done.result === "failed") throw new Error("an honest server was named");
  return done.signature;
}

export function releaseUse(w: KeyWorld, roster: readonly number[], body: Partial<ReleaseBody> = {}): Use {
  const { keyId, generation, type } = w.certificate;
  const recipient = w.recipient.publicKey;
  const purpose = type === "bytes" ? "retrieve" : "export";
  const whole: ReleaseBody = {
    kind: "release",
    form: "message" as const,
    input: 0,
    keyId,
    generation,
    purpose,
    message: null,
    amount: null,
    recipient,
    ...body,
  };
  return useOf(w, whole, roster, null);
}

/** Every server of the roster lets its share out. */
export async function release(w: KeyWorld, use: Use): Promise<OpenedPartial[]> {
  const said = await Promise.all(use.order.roster.map((self) => releaseShare({ ...use, ...serverOf(w, self) })));
  return Promise.all(said.map((message) => openPartial(use, w.recipient, message)));
}
