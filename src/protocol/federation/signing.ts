import type { NonceCommitments as FrostCommitments } from "@noble/curves/abstract/frost.js";
import { schnorr } from "@noble/curves/secp256k1.js";
import { equalBytes, type RandomSource, wipe } from "../../crypto/bytes.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import { checkSignable } from "../transaction/index.ts";
import type { Certificate } from "./certificate.ts";
import { ecdsaHolds } from "./ecdsa.ts";
import { frostRandom, identifier } from "./groups.ts";
import { type Culprit, messageHash, type SignedMessage } from "./message.ts";
import type { OwnerNonces } from "./owner.ts";
import type { NonceCommitments, SignBody } from "./request.ts";
import { ownerSecret, type SigningKey, serverSecret, shareFits, signingKey } from "./signingkey.ts";
import { type CheckedUse, checkMessage, checkUse, type OpenedPartial, say, sayPartial, type Use } from "./use.ts";

/** Attempts at one request to sign or release: each is the same use with fresh nonces. */
export const USE_ATTEMPTS_MAX = 8;

/** A use with what is really signed: each server computes it for itself (docs/protocol.md §8.12). */
type SigningUse = CheckedUse<SignBody> & { readonly signed: Uint8Array };

/** One server's part in one attempt to sign. In RAM alone: a crash ends the attempt. */
export interface SigningSession {
  /** What this server says first. */
  readonly nonces: SignedMessage;
  readonly use: SigningUse;
  readonly key: SigningKey;
  readonly self: number;
  readonly signer: Signer;
  /** Nonces and share: gone before they are used, and never there again. */
  secret: { readonly hiding: Uint8Array; readonly binding: Uint8Array; readonly share: Uint8Array } | null;
}

/** What a server makes of the others' nonces. */
export type SigningStep =
  | { readonly result: "said"; readonly message: SignedMessage }
  | { readonly result: "failed"; readonly culprits: readonly Culprit[] };

function checkSigning(use: Use): { use: SigningUse; key: SigningKey } {
  const checked = checkUse(use);
  const { body, order, certificate } = checked;
  if (body.kind !== "sign") throw new Fault("bad_input", "this request asks for no signature");
  const key = signingKey(certificate, order.roster);
  const { bytes: signed } = checkSignable({ ...body, type: certificate.type, publicKey: certificate.publicKey });
  if (key.self !== (order.ownerNonces !== null))
    throw new Fault("bad_input", "owners of self-custodial keys, and no others, sign along with nonces of their own");
  if (order.ownerNonces) {
    key.group.parsePoint(order.ownerNonces.hiding);
    key.group.parsePoint(order.ownerNonces.binding);
  }
  return { use: { ...checked, body, signed }, key };
}

/**
 * Begins a server's part: draws fresh nonces (RFC 9591 §5.1).
 *
 * @param input.share This server's share, 32 bytes: copied, stays the caller's.
 * @throws Fault bad_input, stale, integrity, corrupt
 */
export function beginSigning(
  input: Use & {
    readonly self: number;
    readonly signer: Signer;
    readonly share: Uint8Array;
    readonly random: RandomSource;
  },
): SigningSession {
  const { self, signer, share, random } = input;
  const { use, key } = checkSigning(input);
  if (!use.order.roster.includes(self)) throw new Fault("bad_input", "this server takes no part in the attempt");
  if (!shareFits(key, self, share)) throw new Fault("corrupt", "this server's share does not fit the key");
  const { frost } = key.group;
  const made = frost.commit({ identifier: identifier(key.group, self), signingShare: share }, frostRandom(random));
  const { hiding, binding } = made.commitments;
  const nonces = say(use, self, signer, { round: "nonces", hiding, binding });
  return { nonces, use, key, self, signer, secret: { ...made.nonces, share: share.slice() } };
}

/** Forgets the session's secrets. */
export function endSigning(session: SigningSession): void {
  const { secret } = session;
  session.secret = null;
  wipe(secret?.hiding, secret?.binding, secret?.share);
}

/**
 * Signs once, with exactly the roster's nonces, and seals the partial signature to the requester (RFC 9591 §5.2).
 *
 * @param messages One message of nonces of each server of the roster, this one's own too.
 * @throws Fault integrity for messages of another attempt, bad_input for another roster: the nonces are kept.
 * @throws Fault replayed when this session has signed before
 */
export async function signPartial(
  session: SigningSession,
  messages: readonly SignedMessage[],
  random: RandomSource,
): Promise<SigningStep> {
  const { use, key, self, signer } = session;
  const { list, culprits } = nonceList(use, key, messages);
  const own = messages.find((m) => m.message.from === self);
  if (!own || !equalBytes(messageHash(own.message), messageHash(session.nonces.message)))
    throw new Fault("integrity", "these are not the nonces that this server has drawn");
  if (culprits.length > 0) {
    endSigning(session);
    return { result: "failed", culprits };
  }
  const { secret } = session;
  session.secret = null;
  if (!secret) throw new Fault("replayed", "this server has signed in this attempt before");
  const scalar = partialScalar(use, key, self, secret, list);
  try {
    return { result: "said", message: await sayPartial(use, self, signer, scalar, random) };
  } finally {
    wipe(scalar);
  }
}

/** Consumes the secret. */
function partialScalar(
  use: SigningUse,
  key: SigningKey,
  self: number,
  secret: NonNullable<SigningSession["secret"]>,
  list: FrostCommitments[],
): Uint8Array {
  const signingShare = serverSecret(key, self, secret.share);
  try {
    const name = identifier(key.group, self);
    return key.group.frost.signShare({ identifier: name, signingShare }, key.pub, secret, list, use.signed);
  } finally {
    wipe(signingShare, secret.hiding, secret.binding, secret.share);
  }
}

/** Everyone's nonces, the owner's last; who said two things or no points is named. */
function nonceList(use: SigningUse, key: SigningKey, messages: readonly SignedMessage[]) {
  const { roster, ownerNonces } = use.order;
  const list: FrostCommitments[] = [];
  const culprits: Culprit[] = [];
  for (const signed of messages) checkMessage(use, signed);
  for (const index of roster) {
    const said = messages.filter((m) => m.message.from === index);
    const [first, second] = said;
    if (!first) throw new Fault("bad_input", "the nonces of a server are missing");
    if (second) {
      if (equalBytes(messageHash(first.message), messageHash(second.message)))
        throw new Fault("bad_input", "the nonces of a server are there twice");
      culprits.push({ index, reason: "equivocation", evidence: [first, second] });
      continue;
    }
    const { payload } = first.message;
    if (payload.round !== "nonces") throw new Fault("bad_input", "these messages are no nonces");
    if (arePoints(key, payload)) list.push(named(identifier(key.group, index), payload));
    else culprits.push({ index, reason: "bad_commitments", evidence: [first] });
  }
  if (ownerNonces) list.push(named(key.owner, ownerNonces));
  return { list, culprits };
}

const named = (name: string, { hiding, binding }: NonceCommitments): FrostCommitments => ({
  identifier: name,
  hiding: new Uint8Array(hiding),
  binding: new Uint8Array(binding),
});

function arePoints({ group }: SigningKey, { hiding, binding }: NonceCommitments): boolean {
  try {
    group.parsePoint(hiding);
    group.parsePoint(binding);
    return true;
  } catch {
    return false;
  }
}

/** What the owner of a self-custodial key signs with: c, 32 bytes, and the nonces that the order names. */
export type OwnerSide = { readonly scalar: Uint8Array; readonly nonces: OwnerNonces } | null;

/** What the requester makes of the servers' partial signatures. */
export type SignatureResult =
  /** 64 bytes: Ed25519 (RFC 8032) or BIP-340. */
  | { readonly result: "signed"; readonly signature: Uint8Array }
  | { readonly result: "failed"; readonly culprits: readonly Culprit[] };

/**
 * Completes a signature: adds the owner's partial to the servers', verifies the whole, and only where it fails looks for
 * the partial that is wrong (RFC 9591 §5.3, §5.4).
 *
 * The evidence of a wrong partial is all nonces and the sealed partial; what completes the proof is the opened scalar.
 *
 * @param input.nonces What the servers have signed over. @param input.partials One of each server of the roster.
 * @param input.owner Of self-custodial keys; its nonces are consumed.
 * @throws Fault bad_input, integrity, replayed for an owner's nonces that were used before
 */
export function completeSignature(
  input: Use & {
    readonly nonces: readonly SignedMessage[];
    readonly partials: readonly OpenedPartial[];
    readonly owner: OwnerSide;
  },
): SignatureResult {
  const { use, key } = checkSigning(input);
  const { signed } = use;
  const { list, culprits } = nonceList(use, key, input.nonces);
  if (culprits.length > 0) return { result: "failed", culprits };
  const opened = use.order.roster.map((index) => onlyPartial(input.partials, index));
  const signature = aggregated(use, key, list, opened, input.owner);
  if (signature && signatureHolds(use.certificate, signed, signature)) return { result: "signed", signature };
  for (const { index, value, message: said } of opened) {
    if (value && partialHolds(key, list, signed, identifier(key.group, index), value)) continue;
    culprits.push({ index, reason: "bad_partial", evidence: [...input.nonces, said] });
  }
  if (culprits.length === 0) throw new Fault("integrity", "the signature does not hold, and no server is at fault");
  return { result: "failed", culprits };
}

function onlyPartial(partials: readonly OpenedPartial[], index: number): OpenedPartial {
  const [partial, ...more] = partials.filter((p) => p.index === index);
  if (!partial || more.length > 0) throw new Fault("bad_input", "it takes one partial signature of each server");
  return partial;
}

/** The whole signature, or null where a partial is wrong: the library checks the whole before it looks at parts. */
function aggregated(
  use: SigningUse,
  key: SigningKey,
  list: FrostCommitments[],
  opened: readonly OpenedPartial[],
  owner: OwnerSide,
): Uint8Array | null {
  const shares: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (const { index, value } of opened) if (value) shares[identifier(key.group, index)] = new Uint8Array(value);
  if (key.self) shares[key.owner] = new Uint8Array(ownerPartial(use, key, owner, list));
  try {
    return key.group.frost.aggregate(key.pub, list, use.signed, shares);
  } catch {
    return null;
  }
}

function partialHolds(key: SigningKey, list: FrostCommitments[], message: Uint8Array, name: string, share: Uint8Array) {
  try {
    return key.group.frost.verifyShare(key.pub, list, message, name, share);
  } catch {
    return false;
  }
}

function ownerPartial(use: SigningUse, key: SigningKey, owner: OwnerSide, list: FrostCommitments[]): Uint8Array {
  const named = use.order.ownerNonces;
  const same = (a: Uint8Array, b: Uint8Array | undefined) => b !== undefined && equalBytes(a, b);
  if (
    !owner ||
    !same(owner.nonces.commitments.hiding, named?.hiding) ||
    !same(owner.nonces.commitments.binding, named?.binding)
  )
    throw new Fault("bad_input", "it takes the owner's part and the nonces that the attempt names");
  const { secret } = owner.nonces;
  owner.nonces.secret = null;
  if (!secret) throw new Fault("replayed", "the owner's nonces were used before");
  const signingShare = ownerSecret(key, use.order.roster, owner.scalar);
  try {
    const { frost } = key.group;
    return frost.signShare({ identifier: key.owner, signingShare }, key.pub, secret, list, use.signed);
  } finally {
    wipe(signingShare, secret.hiding, secret.binding);
  }
}

/**
 * True for a signature that others accept too: Ed25519 by the platform, BIP-340 under the x-only key, ECDSA with s in
 * the lower half.
 *
 * @param message What `signableOf` gives. @param prehashed Whether ECDSA takes it as it is.
 */
export function signatureHolds(
  { type, publicKey }: Pick<Certificate, "type" | "publicKey">,
  message: Uint8Array,
  signature: Uint8Array,
  prehashed = false,
): boolean {
  if (type === "ed25519") return verifySignature(publicKey, message, signature);
  if (type === "secp256k1" || type === "p256") return ecdsaHolds(type, publicKey, { message, prehashed }, signature);
  return type === "schnorr" && schnorr.verify(signature, message, publicKey.subarray(1));
}
