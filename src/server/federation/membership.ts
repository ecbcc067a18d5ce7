import { equalBytes } from "../../crypto/bytes.ts";
import { verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { FederationId, UserId } from "../../ids.ts";
import { enrolmentHolds } from "../../protocol/federation/enrolment.ts";
import {
  checkManifest,
  checkSuccession,
  type FederationServer,
  isSignedBy,
  type Manifest,
  manifestBytes,
  manifestHash,
  type SignedManifest,
  verifyManifest,
} from "../../protocol/federation/manifest.ts";
import type { Tx } from "../../storage/store.ts";
import { addressBucket, spend } from "../limits.ts";
import {
  CHAIN_MAX,
  eachStored,
  FEDERATION,
  FEDERATIONS_HELD,
  FEDERATIONS_MAX,
  type FederationBody,
  listStored,
  MEMBER,
  MEMBER_KEY,
  memberId,
  memberKeyId,
  OPERATOR,
  OPERATOR_ID,
  PROPOSAL,
  type ProposalBody,
  proposalId,
  putStored,
  readStored,
  removeStored,
  type Stored,
} from "./documents.ts";
import { currentManifest, type FederationService, type FederationSite } from "./service.ts";

/** Drafts that lie before an operator, at most. */
const PROPOSALS_MAX = 16;
/** Of them brought from one address. */
const PROPOSALS_FROM_ONE = 4;
/** A draft waits for its operator so many times as long as a stage of a ceremony: a day. */
const PROPOSAL_STAGES = 24;

type Membership = Pick<
  FederationService,
  "federation.info" | "federation.propose" | "federation.proposal" | "federation.complete" | "federation.enrol"
>;

/** What a manifest must say of this server. */
export type OwnFacts = Pick<FederationServer, "identity" | "sealing" | "pin" | "policy">;

/** This server as a manifest has to name it now. */
export async function ownFacts(site: FederationSite): Promise<OwnFacts> {
  const { identity, sealing } = await site.enclave.call("info", {});
  const operator = await site.ctx.store.transaction((tx) => readStored(tx, OPERATOR, OPERATOR_ID));
  return { identity, sealing, pin: site.pin, policy: operator?.value.policy ?? null };
}

/**
 * Demands that a manifest names this server as it is, or was before and now leaves it out.
 *
 * @param before The epoch before, if there is one.
 * @throws Fault bad_input that says what differs
 */
export function demandNamed(manifest: Manifest, before: Manifest | null, own: OwnFacts): void {
  const entry = manifest.servers.find((one) => equalBytes(one.identity, own.identity));
  const wrong = (what: string) => new Fault("bad_input", `this manifest ${what}`, { hint: "draft it anew" });
  if (!entry && before?.servers.some((one) => equalBytes(one.identity, own.identity))) return;
  if (!entry) throw wrong("does not name this server");
  if (!equalBytes(entry.sealing, own.sealing)) throw wrong("names another sealing key for this server");
  if (entry.pin !== own.pin) throw wrong("names another pin for this server");
  if (entry.policy !== own.policy) throw wrong("does not name the policy that this server's operator has set");
}

/** Signatures that hold, one of each identity that has a say: members of this epoch and of the one before. */
function sound({ manifest, signatures }: SignedManifest, before: Manifest | null): SignedManifest {
  const message = manifestBytes(manifest);
  const identities = [...manifest.servers, ...(before?.servers ?? [])].map(({ identity }) => identity.toHex());
  const kept = [...new Set(identities)].flatMap((identity) => {
    const of = signatures.filter((one) => one.identity.toHex() === identity);
    return of.find((one) => verifySignature(one.identity, message, one.signature)) ?? [];
  });
  return { manifest, signatures: kept };
}

const same = (a: Manifest, b: Manifest): boolean => equalBytes(manifestHash(a), manifestHash(b));

/** What is held of the manifest's federation, once the manifest fits it. */
function fits(held: Stored<FederationBody> | undefined, manifest: Manifest): "new" | "next" | "known" {
  if (!held) return "new";
  const known = held.value.epochs.find((one) => one.manifest.epoch === manifest.epoch);
  if (known) {
    if (same(known.manifest, manifest)) return "known";
    throw new Fault("conflict", "this server holds another manifest of that epoch");
  }
  const newest = held.value.epochs.at(-1);
  if (!newest) return "new";
  checkSuccession(manifest, newest.manifest);
  if (held.value.epochs.length >= CHAIN_MAX) throw new Fault("too_large", "this federation has too many epochs");
  return "next";
}

/** Set-up of federations and enrolment of accounts (docs/protocol.md §8.1, §8.2). */
export function createMembership(site: FederationSite): Membership {
  const { ctx } = site;

  async function propose(address: string, manifest: Manifest, brought: SignedManifest | null): Promise<void> {
    checkManifest(manifest);
    const own = await ownFacts(site);
    const { federationId, epoch } = manifest;
    await ctx.store.transaction(async (tx) => {
      const held = await readStored(tx, FEDERATION, federationId);
      if (fits(held, manifest) === "known") return;
      const before = held?.value.epochs.at(-1) ?? brought;
      if (!held) checkBrought(manifest, brought);
      demandNamed(manifest, before?.manifest ?? null, own);
      const nowMs = ctx.now();
      const id = proposalId(federationId, epoch);
      const drafts = await liveProposals(tx, nowMs);
      const draft = drafts.find((one) => one.id === id);
      if (draft) {
        if (same(draft.value.proposal.manifest, manifest)) return;
        throw new Fault("conflict", "another draft of that federation and epoch lies before the operator");
      }
      const from = addressBucket(address);
      await spend(ctx, tx, `proposal:${from}`, ctx.limits.loginFreeFailures);
      if (
        drafts.length >= PROPOSALS_MAX ||
        drafts.filter((one) => one.value.from === from).length >= PROPOSALS_FROM_ONE
      )
        throw new Fault("conflict", "too many drafts lie before this server's operator", {
          hint: "its operator: keyhold server federation list, accept, leave",
        });
      const value: ProposalBody = {
        proposal: { manifest, signatures: [] },
        before,
        expiresAtMs: nowMs + PROPOSAL_STAGES * ctx.limits.ceremonyStageMs,
        from,
      };
      await put(tx, { id, owner: "", place: nowMs, value });
    });
    site.notify({ event: "federation.proposed", federationId, name: manifest.name, epoch });
  }

  async function put(tx: Tx, row: Omit<Stored<ProposalBody>, "version">): Promise<void> {
    if (!(await putStored(tx, PROPOSAL, row, 0))) throw new Fault("conflict", "this draft was just laid here");
  }

  async function complete(signed: SignedManifest): Promise<void> {
    const { manifest } = signed;
    const { federationId } = manifest;
    const { held, draft } = await ctx.store.transaction(async (tx) => ({
      held: await readStored(tx, FEDERATION, federationId),
      draft: await readStored(tx, PROPOSAL, proposalId(federationId, manifest.epoch)),
    }));
    if (held && held.value.leftAtMs !== null)
      throw new Fault("denied", "this server's operator has left that federation");
    if (fits(held, manifest) === "known") return;
    // a server that joins a federation of some age takes the epoch before from the draft that its operator accepted
    const known = held?.value.epochs ?? [draft?.value.before ?? []].flat();
    const before = known.at(-1)?.manifest ?? null;
    const { identity } = await site.enclave.call("info", {});
    const named = manifest.servers.some((one) => equalBytes(one.identity, identity));
    // the cheap question first: only what the operator has accepted is worth verifying
    if (named ? !isSignedBy(signed, identity) : before === null)
      throw new Fault("denied", "this server's operator has not accepted that manifest", {
        hint: "its operator: keyhold server federation accept ID",
      });
    verifyManifest(signed, before);
    const epochs = [...known, sound(signed, before)];
    await ctx.store.transaction(async (tx) => {
      const all = await listStored(tx, FEDERATION, "", null, FEDERATIONS_HELD);
      const live = all.filter(({ value }) => value.leftAtMs === null);
      if (!held && (live.length >= FEDERATIONS_MAX || all.length >= FEDERATIONS_HELD))
        throw new Fault("too_large", "this server belongs to too many federations");
      const row = { id: federationId, owner: "", place: held?.place ?? ctx.now(), value: { epochs, leftAtMs: null } };
      if (!(await putStored(tx, FEDERATION, row, held?.version ?? 0)))
        throw new Fault("conflict", "this federation has just changed here", { hint: "try again" });
      for (const { id, value } of await eachStored(tx, PROPOSAL, ""))
        if (value.proposal.manifest.federationId === federationId) await removeStored(tx, PROPOSAL, id);
    });
    site.notify({ event: "federation.joined", federationId, name: manifest.name, epoch: manifest.epoch });
  }

  return {
    async "federation.info"() {
      const { identity, sealing, policy } = await ownFacts(site);
      const rows = await ctx.store.transaction((tx) => listStored(tx, FEDERATION, "", null, FEDERATIONS_HELD));
      const federations = rows.flatMap(({ value }) => (value.leftAtMs === null ? value.epochs.slice(-1) : []));
      return { identity, sealing, policy, version: site.version, atMs: ctx.now(), federations };
    },
    async "federation.propose"({ address }, { manifest, before }) {
      await propose(address, manifest, before);
      return { federationId: manifest.federationId };
    },
    async "federation.proposal"(_remote, { federationId, epoch }) {
      const { draft, held } = await ctx.store.transaction(async (tx) => ({
        draft: await readStored(tx, PROPOSAL, proposalId(federationId, epoch)),
        held: await readStored(tx, FEDERATION, federationId),
      }));
      const member = held?.value.leftAtMs === null && held.value.epochs.find((one) => one.manifest.epoch === epoch);
      if (member) return { proposal: member, state: "member" };
      if (!draft || draft.value.expiresAtMs <= ctx.now()) throw new Fault("not_found", "no such draft lies here");
      const { proposal } = draft.value;
      return { proposal, state: proposal.signatures.length > 0 ? "accepted" : "waiting" };
    },
    async "federation.complete"(_remote, { manifest }) {
      await complete(manifest);
      return {};
    },
    async "federation.enrol"(caller, input) {
      const { identity } = await site.enclave.call("info", {});
      await ctx.store.transaction((tx) => enrol(site, tx, caller.account.userId, identity, input));
      return {};
    },
  };
}

/** What a server that holds nothing of a federation needs of it. @throws Fault bad_input, integrity */
function checkBrought(manifest: Manifest, brought: SignedManifest | null): void {
  if ((brought === null) !== (manifest.epoch === 1))
    throw new Fault("bad_input", "a draft comes beside the epoch before it, and the first one alone");
  if (brought === null) return;
  checkManifest(brought.manifest);
  if (!brought.manifest.servers.every((one) => isSignedBy(brought, one.identity)))
    throw new Fault("integrity", "not every server of this federation has signed the manifest before");
  checkSuccession(manifest, brought.manifest);
}

/** Drafts that have not expired; the others go. */
export async function liveProposals(tx: Tx, nowMs: number): Promise<readonly Stored<ProposalBody>[]> {
  const live: Stored<ProposalBody>[] = [];
  for (const draft of await eachStored(tx, PROPOSAL, "")) {
    if (draft.value.expiresAtMs > nowMs) live.push(draft);
    else await removeStored(tx, PROPOSAL, draft.id);
  }
  return live;
}

interface Keys {
  readonly federationId: FederationId;
  readonly requestKey: Uint8Array;
  readonly requestProof: Uint8Array;
  readonly approvalKey: Uint8Array;
  readonly approvalProof: Uint8Array;
}

async function enrol(site: FederationSite, tx: Tx, userId: UserId, identity: Uint8Array, keys: Keys): Promise<void> {
  if (!(await tx.account(userId))) throw new Fault("session_invalid", "the account has just ended");
  const { federationId, requestKey, approvalKey } = keys;
  const { manifest } = await currentManifest(tx, federationId);
  const own = manifest.servers.find((one) => equalBytes(one.identity, identity));
  if (!own) throw new Fault("not_found", "this server is no longer a member of that federation");
  const at = { federationId, server: own.index, userId };
  const proven =
    enrolmentHolds({ ...at, role: "request", key: requestKey }, keys.requestProof) &&
    enrolmentHolds({ ...at, role: "approval", key: approvalKey }, keys.approvalProof);
  if (!proven) throw new Fault("integrity", "an enrolled key has not signed for this account at this server");
  if (equalBytes(requestKey, approvalKey)) throw new Fault("bad_input", "request key and approval key are two");
  const id = memberId(federationId, userId);
  const before = await readStored(tx, MEMBER, id);
  if (before) {
    const { value } = before;
    if (equalBytes(value.requestKey, requestKey) && equalBytes(value.approvalKey, approvalKey)) return;
    throw new Fault("conflict", "this account is enrolled with other keys");
  }
  const nowMs = site.ctx.now();
  const member = { federationId, userId, requestKey, approvalKey, enrolledAtMs: nowMs };
  const roles = [
    { key: requestKey, role: "request" },
    { key: approvalKey, role: "approval" },
  ] as const;
  for (const { key, role } of roles) {
    const row = { id: memberKeyId(key), owner: federationId, place: nowMs, value: { federationId, userId, role } };
    const taken = await readStored(tx, MEMBER_KEY, row.id);
    // the key itself has signed for this account: of one that has ended it is free again
    const free = taken !== undefined && !(await tx.account(taken.value.userId)) ? taken.version : 0;
    if (!(await putStored(tx, MEMBER_KEY, row, free)))
      throw new Fault("conflict", "another account is enrolled with that key");
  }
  if (!(await putStored(tx, MEMBER, { id, owner: federationId, place: nowMs, value: member }, 0)))
    throw new Fault("conflict", "this account was just enrolled");
}
