import { Fault } from "../../errors.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { blameHolds } from "../../protocol/federation/blame.ts";
import type { Certificate, SignedCertificate } from "../../protocol/federation/certificate.ts";
import type { Culprit } from "../../protocol/federation/message.ts";
import type { CeremonyTerms } from "../../protocol/federation/plan.ts";
import type { SignedOrder } from "../../protocol/federation/request.ts";
import { assembleCertificate, confirmCulprits } from "../../protocol/federation/transcript.ts";
import type { FederatedResult } from "../federationapi.ts";
import { everyone } from "./answers.ts";
import type { Contribute } from "./attempt.ts";
import { drive, type Plan } from "./drive.ts";
import type { Ground } from "./ground.ts";
import type { HeldRequest } from "./held.ts";
import { type Agreed, accept, cancel, manifestAt, settle } from "./pending.ts";
import type { Chooser } from "./standing.ts";

/** The public key as others write it: of `schnorr` the x-only one of BIP-340, 32 bytes; otherwise as certified. */
export function shownPublicKey({ type, publicKey }: Pick<Certificate, "type" | "publicKey">): string {
  return (type === "schnorr" ? publicKey.subarray(1) : publicKey).toHex();
}

/** How a ceremony is brought to its certificate. */
export function ceremonyPlan(
  ground: Ground,
  choose: Chooser,
  contribute: Contribute,
  before: Certificate | null,
): Plan<Agreed> {
  const termsOf = (held: HeldRequest, { order }: SignedOrder): CeremonyTerms => {
    const { request } = held.request;
    return { manifest: manifestAt(ground, request.epoch), request, order, before };
  };
  return {
    choose,
    contribute,
    judge: (held, order) => (culprit, certificates) =>
      [null, ...certificates].some((certificate) => blameHolds(termsOf(held, order), culprit, certificate)),
    async conclude(held, order, { confirmed, said, culprits, suspects }) {
      const terms = termsOf(held, order);
      const views = [...confirmed.values()].flatMap(({ certificate }) => (certificate ? [{ certificate }] : []));
      // whoever was proven to cheat holds no share of what is accepted
      const agreed = culprits.length > 0 ? null : assembleCertificate(terms, views, said);
      if (agreed !== null) return { result: agreed };
      const named = new Map(culprits.map((c) => [c.index, c]));
      for (const { certificate } of views) {
        for (const c of confirmCulprits(terms, certificate, said)) if (!named.has(c.index)) named.set(c.index, c);
      }
      const all: readonly Culprit[] = [...named.values()];
      return { culprits: all, suspects: new Map([...suspects].filter(([index]) => !named.has(index))) };
    },
  };
}

/** What a request that waits has come to. */
export function waitingResult(
  requestId: FederatedRequestId,
  absent: readonly number[],
  key: Certificate | null = null,
): FederatedResult {
  return {
    requestId,
    status: "awaiting_approval",
    keyId: key?.keyId ?? null,
    publicKeyHex: key && shownPublicKey(key),
    signatureHex: null,
    scheme: null,
    absent,
  };
}

/** What an accepted certificate amounts to: `degraded` where a server holds no share or has not heard of it. */
export function acceptedResult(
  ground: Ground,
  { certificate }: SignedCertificate,
  told: readonly number[],
): FederatedResult {
  const present = certificate.holders.filter((index) => told.includes(index));
  const absent = everyone(ground.fleet).filter((index) => !present.includes(index));
  const usable = present.length >= certificate.threshold;
  return {
    requestId: certificate.requestId,
    status: !usable ? "pending" : absent.length > 0 ? "degraded" : "fulfilled",
    keyId: certificate.keyId,
    publicKeyHex: shownPublicKey(certificate),
    signatureHex: null,
    scheme: null,
    absent,
  };
}

/** A request that was refused for good is cancelled, so that its name is free and no server keeps anything of it. */
async function refused(ground: Ground, held: HeldRequest, error: unknown): Promise<never> {
  if (error instanceof Fault && error.code === "denied") await cancel(ground, held);
  throw error;
}

/** A ceremony's end: what was accepted, or that it waits. */
export type Made =
  | { readonly at: "waiting"; readonly result: FederatedResult }
  | { readonly at: "made"; readonly signed: SignedCertificate; readonly result: FederatedResult };

/**
 * Brings a ceremony to its certificate and accepts it once; what was decided before is told again.
 *
 * @throws Fault denied, integrity, unavailable, conflict
 */
export async function make(
  ground: Ground,
  held: HeldRequest,
  plan: Plan<Agreed>,
  key: Certificate | null,
): Promise<Made> {
  let settled: { readonly signed: SignedCertificate; readonly told: readonly number[] };
  if (held.decision !== null) settled = await settle(ground, held);
  else {
    const driven = await drive(ground, held, plan).catch((error: unknown) => refused(ground, held, error));
    if (driven.at === "waiting") {
      return { at: "waiting", result: waitingResult(held.requestId, driven.absent, key) };
    }
    settled = await accept(ground, driven.held, driven.result);
  }
  const { signed, told } = settled;
  return { at: "made", signed, result: acceptedResult(ground, signed, told) };
}
