import { equalBytes, type RandomSource } from "../../crypto/bytes.ts";
import { type HpkeKeyPair, hpkeOpen, hpkeSeal } from "../../crypto/hpke.ts";
import type { Signer } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { shareFits } from "./blame.ts";
import type { Certificate } from "./certificate.ts";
import { groupOf } from "./groups.ts";
import { type Manifest, memberOf } from "./manifest.ts";
import { type Message, messageSignatureHolds, type SignedMessage, sealedInfo, signMessage } from "./message.ts";
import {
  type AttemptOrder,
  coordinatorOf,
  type FederatedRequest,
  orderHash,
  type ReleaseBody,
  requestIdOf,
  type SignBody,
} from "./request.ts";

/** One attempt at one use of a key; signatures of request, order, manifest and certificate are verified before. */
export interface Use {
  /** Of the request's epoch. */
  readonly manifest: Manifest;
  readonly certificate: Certificate;
  readonly request: FederatedRequest;
  readonly order: AttemptOrder;
}

/** A use whose parts fit together. */
export interface CheckedUse<B extends SignBody | ReleaseBody = SignBody | ReleaseBody> extends Use {
  readonly body: B;
  readonly requestId: FederatedRequestId;
  /** 32 bytes. */
  readonly hash: Uint8Array;
}

const bad = (message: string) => new Fault("bad_input", `this use cannot be: ${message}`);

/**
 * Checks that request, order and certificate speak of one use: key, generation, owner, and a roster of at least
 * `threshold` holders.
 *
 * @throws Fault bad_input, stale
 */
export function checkUse(use: Use): CheckedUse {
  const { manifest, certificate: c, request, order } = use;
  const { body } = request;
  if (body.kind !== "sign" && body.kind !== "release") throw bad("the request asks for something else");
  if (body.keyId !== c.keyId || request.federationId !== c.federationId) throw bad("it is about another key");
  if (body.generation !== c.generation) throw new Fault("stale", "the key has another generation of shares");
  if (!equalBytes(coordinatorOf(request), c.owner)) throw bad("the key has another owner");
  if (manifest.federationId !== request.federationId || manifest.epoch !== request.epoch)
    throw bad("the manifest is of another epoch");
  const requestId = requestIdOf(request);
  if (order.requestId !== requestId) throw bad("the attempt belongs to another request");
  const { roster } = order;
  if (!roster.every((index, i) => index > (roster[i - 1] ?? 0))) throw bad("its roster does not ascend");
  if (!roster.every((index) => c.holders.includes(index))) throw bad("its roster names servers without a share");
  for (const index of roster) memberOf(manifest, index);
  if (roster.length < c.threshold) throw bad("its roster is too small");
  return { ...use, body, requestId, hash: orderHash(order) };
}

/** Checks the server's share against the key. @throws Fault corrupt */
export function checkShare({ certificate: c }: Use, self: number, share: Uint8Array): void {
  if (!shareFits(groupOf(c.type), c.commitments, self, share))
    throw new Fault("corrupt", "this server's share does not fit the key");
}

/** A message of this use to everyone, without its payload. */
const envelope = (use: CheckedUse, from: number) => ({
  requestId: use.requestId,
  attempt: use.order.attempt,
  orderHash: use.hash,
  from,
  to: 0,
});

export function say(use: CheckedUse, self: number, signer: Signer, payload: Message["payload"]): SignedMessage {
  return signMessage(signer, { ...envelope(use, self), payload });
}

/** Seals 32 bytes to the requester. */
export async function sayPartial(
  use: CheckedUse,
  self: number,
  signer: Signer,
  scalar: Uint8Array,
  random: RandomSource,
): Promise<SignedMessage> {
  const info = sealedInfo(envelope(use, self), "partial");
  const sealed = await hpkeSeal(use.body.recipient, info, scalar, random);
  return say(use, self, signer, { round: "partial", sealed });
}

/** Checks who says it and in which attempt. @throws Fault integrity */
export function checkMessage(use: CheckedUse, signed: SignedMessage): void {
  const { message: m } = signed;
  const here =
    m.requestId === use.requestId &&
    m.attempt === use.order.attempt &&
    equalBytes(m.orderHash, use.hash) &&
    m.to === 0 &&
    use.order.roster.includes(m.from);
  if (!here) throw new Fault("integrity", "a message belongs to another attempt");
  if (!messageSignatureHolds(use.manifest, signed))
    throw new Fault("integrity", "a server's signature under its message does not hold");
}

/** What one server let out, as the requester opened it. */
export interface OpenedPartial {
  readonly index: number;
  readonly message: SignedMessage;
  /** 32 bytes, the caller's to wipe; null where it was not sealed as it must be, which proves that server wrong. */
  readonly value: Uint8Array | null;
}

/**
 * Opens a partial signature or a released share.
 *
 * @param pair Of the request's `recipient`.
 * @throws Fault integrity for a message that this server never said in this attempt
 */
export async function openPartial(use: Use, pair: HpkeKeyPair, signed: SignedMessage): Promise<OpenedPartial> {
  const checked = checkUse(use);
  checkMessage(checked, signed);
  const { payload, from } = signed.message;
  if (payload.round !== "partial") throw new Fault("integrity", "this message is no partial");
  if (!equalBytes(pair.publicKey, checked.body.recipient))
    throw new Fault("bad_input", "partials of this request are sealed to another key");
  try {
    const info = sealedInfo(signed.message, "partial");
    return { index: from, message: signed, value: await hpkeOpen(pair, info, payload.sealed) };
  } catch {
    return { index: from, message: signed, value: null };
  }
}
