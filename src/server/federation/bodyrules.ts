import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { Certificate } from "../../protocol/federation/certificate.ts";
import { keyringRefusal } from "../../protocol/federation/keyringmark.ts";
import type { Manifest } from "../../protocol/federation/manifest.ts";
import { verifyOwnerPart } from "../../protocol/federation/owner.ts";
import { checkReleasedForm } from "../../protocol/federation/release.ts";
import {
  coordinatorOf,
  type FederatedRequest,
  type KeyPurpose,
  policyScopeOf,
  type ReleaseBody,
  type RequestBody,
  registryScope,
} from "../../protocol/federation/request.ts";
import { checkSignable } from "../../protocol/transaction/index.ts";
import type { Limits } from "../context.ts";
import type { Standing } from "./evidence.ts";
import { noSuchKey } from "./life.ts";

const bad = (what: string) => new Fault("bad_input", `this request cannot be: ${what}`);
const SCALAR_BYTES = 32;

/** Times of a request: made about now, and over in a day at most. @throws Fault bad_input */
export function checkTimes(request: FederatedRequest, nowMs: number, limits: Limits): void {
  const { createdAtMs, expiresAtMs } = request;
  if (Math.abs(createdAtMs - nowMs) > limits.requestMs || createdAtMs > nowMs + limits.clockSkewMs)
    throw bad("it is from another time; compare the clocks");
  if (expiresAtMs <= createdAtMs || expiresAtMs - createdAtMs > limits.requestMs)
    throw bad("it lasts longer than a request may");
  if (expiresAtMs <= nowMs) throw bad("it has expired");
}

/** Ascending, each once, each a member; a threshold above half of them. */
function checkHolders(manifest: Manifest, threshold: number, holders: readonly number[]): void {
  const members = new Set(manifest.servers.map(({ index }) => index));
  if (!holders.every((index, i) => members.has(index) && index > (holders[i - 1] ?? 0)))
    throw bad("its holders are members of the federation, ascending, each once");
  if (threshold < 2 || threshold > holders.length || threshold * 2 <= holders.length)
    throw bad("the threshold is more than half of the holders, at least 2, and at most all of them");
}

function checkPurpose(p: KeyPurpose, request: FederatedRequest, standing: Standing): void {
  if (p.type !== "bytes" && p.length !== SCALAR_BYTES) throw bad("keys of this type have 32 bytes");
  if ((p.control === "shared") !== (p.policy !== null))
    throw bad("a policy belongs to shared control, and to nothing else");
  if (standing.keyPolicy && standing.keyPolicy.document.federationId !== policyScopeOf(request))
    throw bad("its policy is another federation's, or another registry's");
  verifyOwnerPart(p, request);
}

function checkRelease(body: ReleaseBody, certificate: Certificate): void {
  const { type } = certificate;
  const signs = body.purpose === "sign";
  if (signs !== (body.message !== null)) throw bad("a message is given to sign, and for nothing else");
  if (signs && type !== "secp256k1" && type !== "p256") throw bad("keys of this type sign without their shares");
  if (body.purpose === "retrieve" && type !== "bytes") throw bad("bytes are retrieved, and nothing else");
  checkReleasedForm(body, certificate);
}

/**
 * The key that a body names, as far as it may be used: the owner's, at its newest generation, not frozen. What a
 * keyring has made serves requests through it, and no other key does.
 */
function checkKey(body: Extract<RequestBody, { keyId: unknown }>, request: FederatedRequest, standing: Standing) {
  const key = standing.key?.value;
  if (!key || !equalBytes(key.certificate.certificate.owner, coordinatorOf(request))) throw noSuchKey();
  const isOfRegistry = standing.key?.owner === registryScope(key.certificate.certificate.owner);
  if (isOfRegistry !== (request.keyring !== null)) throw noSuchKey();
  checkUsable(body.generation, standing);
  return key.certificate.certificate;
}

/**
 * Refuses what a key no longer serves: at every step of a request, not only at its beginning.
 *
 * @throws Fault conflict for a frozen key, stale for shares that were replaced
 */
export function checkUsable(generation: number, { key }: Pick<Standing, "key">): void {
  if (!key) throw noSuchKey();
  if (key.value.frozen)
    throw new Fault("conflict", "this key is frozen: its owner has signed two contradictory decisions");
  const newest = key.value.certificate.certificate.generation;
  if (generation < newest) throw new Fault("stale", "this key has newer shares: ask again");
  if (generation > newest)
    throw new Fault("stale", "this server does not know these shares of the key yet", {
      hint: "keyhold federation check",
    });
}

/** Everything that a body must satisfy before any policy is asked. @throws Fault bad_input, not_found, conflict, stale */
export function checkBody(request: FederatedRequest, standing: Standing): void {
  const { body } = request;
  const { manifest } = standing.manifest;
  const used = "keyId" in body ? checkKey(body, request, standing) : null;
  const refusal = keyringRefusal(request, used);
  if (refusal !== null) throw bad(refusal);
  switch (body.kind) {
    case "generate":
      checkPurpose(body, request, standing);
      return;
    case "import":
      checkPurpose(body, request, standing);
      checkHolders(manifest, body.threshold, body.holders);
      if (body.commitments.length !== body.threshold)
        throw bad("it has one commitment for each share of the threshold");
      return;
    case "sign": {
      const { type, publicKey } = checkKey(body, request, standing);
      if (type !== "ed25519" && type !== "schnorr") throw bad("servers do not sign with keys of this type");
      checkSignable({ ...body, type, publicKey });
      return;
    }
    case "release":
      checkRelease(body, checkKey(body, request, standing));
      return;
    case "reshare": {
      const { threshold, holders } = checkKey(body, request, standing);
      checkHolders(manifest, body.threshold, body.holders);
      if (body.mode !== "reshare" && body.threshold !== threshold) throw bad("only a reshare changes the threshold");
      const same = holders.length === body.holders.length && holders.every((index) => body.holders.includes(index));
      if (body.mode === "refresh" && !same) throw bad("a refresh changes no holder");
      if (body.mode === "repair" && !holders.every((index) => body.holders.includes(index)))
        throw bad("a repair leaves no holder out");
    }
  }
}
