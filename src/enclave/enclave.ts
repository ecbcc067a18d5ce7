import { equalBytes, wipe } from "../crypto/bytes.ts";
import { hpkeOpen } from "../crypto/hpke.ts";
import { Fault } from "../errors.ts";
import type { FederatedRequestId } from "../ids.ts";
import { type Certificate, certificateHash, verifyCertificate } from "../protocol/federation/certificate.ts";
import { signErasure } from "../protocol/federation/erasure.ts";
import {
  checkManifest,
  checkSuccession,
  isSignedBy,
  type Manifest,
  type ManifestSignature,
  manifestHash,
  type SignedManifest,
  signManifest,
} from "../protocol/federation/manifest.ts";
import { actionOf } from "../protocol/federation/policyaction.ts";
import { type AttemptOrder, contributionInfo, orderHash } from "../protocol/federation/request.ts";
import type { EnclaveOperation } from "./api.ts";
import { createAttempts, type Step } from "./attempts.ts";
import { createCeremonyHandlers } from "./ceremonies.ts";
import { createCeremonyKeys } from "./ceremonykeys.ts";
import {
  demandCurrent,
  demandUnexpired,
  ownManifest,
  type Verified,
  verifyEvidence,
  verifyRoster,
} from "./evidence.ts";
import type { EnclaveInput, EnclaveOutput } from "./frames.ts";
import { beginMachine } from "./machines.ts";
import type { EnclaveParts, Handlers } from "./parts.ts";
import { demandApproval, evaluatePolicies } from "./policies.ts";
import { demandSince } from "./restoring.ts";
import { createSealedChecks } from "./sealedchecks.ts";
import { openLive, openPending, sealLive } from "./sealedshare.ts";
import { createStoredHandlers } from "./storedkeys.ts";
import { turns } from "./turns.ts";

/** The only holder of a server's sealing key and of opened shares (docs/protocol.md §8.8). */
export interface Enclave {
  /** Does one operation of the message set; all of one request in turn. @throws Fault */
  handle<O extends EnclaveOperation>(operation: O, input: EnclaveInput<O>): Promise<EnclaveOutput<O>>;
  /** Forgets all secrets of attempts and closes the journal. */
  close(): void;
}

const restarted = () =>
  new Fault("unavailable", "the enclave restarted: order a new attempt", { hint: "give the same command again" });

/** Makes an enclave of its parts. It belongs to no process: tests run several side by side. */
export function createEnclave(parts: EnclaveParts): Enclave {
  const { keys, journal, now, random } = parts;
  const identity = keys.signer.publicKey;
  const attempts = createAttempts();
  const inTurn = turns();
  const ceremonyKeys = createCeremonyKeys(parts);

  async function begin({ evidence, order: signed, share }: EnclaveInput<"begin">): Promise<Step> {
    const verified = verifyEvidence(evidence, identity, journal, now());
    const order = verifyRoster(verified, signed);
    const { requestId, request } = verified;
    const hash = orderHash(order);
    const held = attempts.get(requestId);
    if (held?.attempt === order.attempt) {
      if (equalBytes(held.orderHash, hash)) return held.machine.step();
      throw new Fault("conflict", "this attempt was ordered otherwise before");
    }
    demandUnexpired(request, now());
    demandSince(keys, journal, "request", request.createdAtMs);
    demandFresh(requestId, order);
    demandApproval(evidence, verified, journal, now());
    const opened = openShare(verified, share);
    let contribution: Uint8Array | null = null;
    try {
      contribution = await openContribution(order, verified);
      attempts.makeRoom(request, requestId, now());
      const machine = await beginMachine({ verified, order, share: opened, contribution, keys, random });
      try {
        demandNewest(verified.manifest);
        remember(verified, order);
      } catch (error) {
        machine.wipe();
        throw error;
      }
      // takes the place of the attempt before it
      attempts.put({ verified, evidence, attempt: order.attempt, orderHash: hash, machine });
      return machine.step();
    } finally {
      wipe(opened ?? undefined, contribution ?? undefined);
    }
  }

  /** All members have signed it: none before it counts any more. @throws Fault stale, conflict */
  function demandNewest(manifest: Manifest): void {
    const { federationId: id, epoch: number } = manifest;
    journal.mark({ scope: "federation", id, number, hash: manifestHash(manifest) });
  }

  /** No attempt twice, none before another, none after the owner has accepted one. */
  function demandFresh(requestId: FederatedRequestId, { attempt }: AttemptOrder): void {
    if (journal.marked("request", requestId))
      throw new Fault("conflict", "the owner has accepted what this request made");
    const before = journal.attemptOf(requestId)?.attempt ?? 0;
    if (attempt < before) throw new Fault("stale", "a newer attempt of this request was begun");
    // its nonces and coefficients went with the process: said again they would differ
    if (attempt === before) throw restarted();
  }

  /** Durable before the first message of the attempt leaves: from now on the request is spent. */
  function remember({ requestId, request: { body, requester } }: Verified, { attempt }: AttemptOrder): void {
    journal.attempted({
      requestId,
      attempt,
      action: actionOf(body),
      requester,
      keyId: "keyId" in body ? body.keyId : null,
      amount: "amount" in body ? body.amount : null,
      atMs: now(),
    });
  }

  function openShare({ key, own, request }: Verified, sealed: Uint8Array | null): Uint8Array | null {
    if (sealed === null) {
      if (request.body.kind === "sign" || request.body.kind === "release") {
        throw new Fault("not_found", "this server has no share of that key", { hint: "keyhold key repair" });
      }
      return null;
    }
    if (key === null) throw new Fault("bad_input", "this request takes no share");
    if (!key.certificate.holders.includes(own.index)) {
      throw new Fault("integrity", "this server is no holder of that key");
    }
    return openLive(keys, key.certificate, sealed);
  }

  async function openContribution(order: AttemptOrder, { own }: Verified): Promise<Uint8Array | null> {
    const mine = order.contributions.find(({ index }) => index === own.index);
    if (!mine) return null;
    return hpkeOpen(keys.hpke, contributionInfo(order.requestId, order.attempt, own.index), mine.sealed);
  }

  async function relay({ requestId, attempt, messages }: EnclaveInput<"relay">): Promise<Step> {
    const held = attempts.get(requestId);
    if (held?.attempt !== attempt) {
      const newest = held?.attempt ?? journal.attemptOf(requestId)?.attempt ?? 0;
      if (attempt < newest) throw new Fault("stale", "a newer attempt of this request was begun");
      throw restarted();
    }
    const said = held.machine.step();
    if (said.outcome?.result === "done" || said.outcome?.result === "confirmed") return said;
    const confirming = said.messages.some(({ message }) => message.payload.round === "confirm");
    // one that has failed takes proofs, and says nothing more
    if (!confirming && said.outcome === null) {
      demandCurrent(held.verified, journal, now());
      demandApproval(held.evidence, held.verified, journal, now());
    }
    return held.machine.receive(messages);
  }

  /** What the owner has accepted, and what none else may replace. */
  function accepted(certificate: Certificate): void {
    const { requestId, attempt, keyId, generation } = certificate;
    const hash = certificateHash(certificate);
    const before = journal.marked("request", requestId);
    if (before && (before.number !== attempt || !equalBytes(before.hash, hash))) {
      throw new Fault("conflict", "the owner has accepted another certificate of this request");
    }
    journal.mark({ scope: "key", id: keyId, number: generation, hash });
    journal.mark({ scope: "request", id: requestId, number: attempt, hash });
  }

  function certified(input: {
    readonly manifest: SignedManifest;
    readonly certificate: Parameters<typeof verifyCertificate>[0];
  }) {
    const { manifest, own } = ownManifest(input.manifest, identity);
    return { manifest, own, certificate: verifyCertificate(input.certificate, manifest) };
  }

  const handlers: Handlers = {
    info: async () => ({ identity, sealing: keys.hpke.publicKey }),
    "manifest.sign": async ({ manifest, before }) => signOwn(manifest, before),
    evaluate: async ({ evidence }) => {
      const verified = verifyEvidence(evidence, identity, journal, now());
      const { explanations, waiting } = evaluatePolicies(evidence, verified, journal, now());
      return {
        explanations,
        waiting: waiting.map(({ policyId, missing, remotes }) => ({
          policyId,
          approvers: missing.map(({ key }) => key),
          engines: remotes.map(({ name }) => name),
        })),
      };
    },
    // one after another: a rate is counted from the journal, where each stands before the next is asked about
    begin: (input) => inTurn("begin", () => begin(input)),
    relay,
    confirm: async (input) => {
      const { own, certificate } = certified(input);
      if (!certificate.holders.includes(own.index))
        throw new Fault("bad_input", "this server is no holder of that key");
      const share = reopen(certificate, input.sealed);
      try {
        accepted(certificate);
        attempts.forget(certificate.requestId);
        return { sealed: sealLive(keys, certificate, share, random) };
      } finally {
        wipe(share);
      }
    },
    erase: async (input) => {
      const { manifest, own, certificate } = certified(input);
      const { keyId, generation } = certificate;
      accepted(certificate);
      if (generation === 0) return { erasures: [] };
      return {
        erasures: [signErasure(keys.signer, manifest, { index: own.index, keyId, generation: generation - 1 })],
      };
    },
    forget: async ({ requestId }) => {
      attempts.forget(requestId);
      return {};
    },
    ...createCeremonyHandlers(parts, ceremonyKeys),
    ...createStoredHandlers(parts, ceremonyKeys),
    ...createSealedChecks(parts, ceremonyKeys),
  };

  /** A pending share; or, where the answer to an earlier confirmation was lost, the live one. */
  function reopen(certificate: Certificate, sealed: Uint8Array): Uint8Array {
    try {
      return openPending(keys, certificate, sealed);
    } catch {
      return openLive(keys, certificate, sealed);
    }
  }

  function signOwn(manifest: Manifest, before: SignedManifest | null): ManifestSignature {
    checkManifest(manifest);
    const isOwn = (s: { readonly identity: Uint8Array }) => equalBytes(s.identity, identity);
    const own = manifest.servers.find(isOwn);
    if (own && !equalBytes(own.sealing, keys.hpke.publicKey)) {
      throw new Fault("integrity", "this manifest names another sealing key for this enclave");
    }
    if (manifest.epoch === 1 ? before !== null : before === null) {
      throw new Fault("bad_input", "a manifest is signed beside the one before it");
    }
    if (before === null) {
      if (!own) throw new Fault("bad_input", "this manifest does not name this enclave");
      return signManifest(keys.signer, manifest);
    }
    checkManifest(before.manifest);
    const was = before.manifest.servers.some(isOwn);
    if (!own && !was) throw new Fault("bad_input", "this manifest does not name this enclave");
    if (!before.manifest.servers.every((s) => isSignedBy(before, s.identity))) {
      throw new Fault("integrity", "not every server of this federation has signed the manifest before");
    }
    checkSuccession(manifest, before.manifest);
    return signManifest(keys.signer, manifest);
  }

  return {
    handle: <O extends EnclaveOperation>(operation: O, input: EnclaveInput<O>) => {
      const work = () => handlers[operation](input);
      const requestId = requestOf(operation, input);
      return requestId === null ? work() : inTurn(requestId, work);
    },
    close() {
      attempts.clear();
      ceremonyKeys.clear();
      journal.close();
    },
  };
}

/** Which request an operation is about: what concerns one is done one after the other. */
function requestOf(operation: EnclaveOperation, input: EnclaveInput<EnclaveOperation>): FederatedRequestId | null {
  if (operation === "begin" && "order" in input) return input.order.order.requestId;
  if (operation === "confirm" && "sealed" in input) return input.certificate.certificate.requestId;
  return "requestId" in input ? input.requestId : null;
}
