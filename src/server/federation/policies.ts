import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { asHashId, type FederationId, type PolicyId, type UserId } from "../../ids.ts";
import {
  OPERATOR_SCOPE,
  type PolicyChain,
  type PolicySignature,
  policyBytes,
  policyHash,
  policyIdOf,
  type SignedPolicy,
} from "../../protocol/federation/policy.ts";
import { adminsAgree, checkDocument, signersOf, verifyLink } from "../../protocol/federation/policychain.ts";
import type { Tx } from "../../storage/store.ts";
import { encodeJson } from "../../wire/codec.ts";
import { actsFor } from "./connectors.ts";
import {
  CHAIN_MAX,
  type DocumentKind,
  eachStored,
  FEDERATION,
  MEMBER,
  memberId,
  POLICY,
  POLICY_DRAFT,
  POLICY_LINK,
  type PolicyBody,
  type PolicyDraftBody,
  type PolicyLinkBody,
  putStored,
  readStored,
  removeStored,
} from "./documents.ts";
import { currentManifest, type FederationService, type FederationSite, memberOfAccount } from "./service.ts";

type Policies = Pick<FederationService, "federation.policies" | "federation.policy" | "federation.policy.set">;

/** Links in one answer: as many as the operation's codec takes, and about half of a body. */
const PAGE_LINKS = 8;
const PAGE_BYTES = 64 * 1_024;
/** Ids in one answer: as many as the operation's codec takes. */
const PAGE_IDS = 64;
/** Policies that one account begins in a federation. */
const BEGUN_MAX = 32;
/** Its links that wait for admins, and bytes of a chain. */
const DRAFTS_MAX = 16;
const CHAIN_BYTES = 1_024 * 1_024;

/** Which documents hold chains: those of federations here, those of a registry's workspaces apart from them. */
export interface PolicyShelf {
  readonly policies: DocumentKind<PolicyBody>;
  readonly links: DocumentKind<PolicyLinkBody>;
  readonly drafts: DocumentKind<PolicyDraftBody>;
}

const FEDERATIONS: PolicyShelf = { policies: POLICY, links: POLICY_LINK, drafts: POLICY_DRAFT };

/** What became of a link. */
export interface LinkPlace {
  readonly policyId: PolicyId;
  readonly hash: Uint8Array;
}

const conflict = () =>
  new Fault("conflict", "another version of this policy came first", { hint: "look at it: keyhold policy show" });

async function chainOf(
  tx: Tx,
  policyId: PolicyId,
  shelf = FEDERATIONS,
): Promise<{ chain: PolicyChain; version: number; owner: string }> {
  const found = await readStored(tx, shelf.policies, policyId);
  if (!found) throw new Fault("not_found", "this server does not know that policy");
  return { chain: found.value.chain, version: found.version, owner: found.owner };
}

/** A policy's chain, whole. @throws Fault not_found, corrupt */
export async function policyChain(tx: Tx, policyId: PolicyId, shelf = FEDERATIONS): Promise<PolicyChain> {
  return (await chainOf(tx, policyId, shelf)).chain;
}

/** Signatures of the link's own and the earlier admins and approvers that hold, one of each key. */
function sound(link: SignedPolicy, more: readonly PolicySignature[], before: SignedPolicy | null): SignedPolicy {
  const all = { document: link.document, signatures: [...link.signatures, ...more] };
  const by = before
    ? [...signersOf(before.document, all), ...signersOf(link.document, all)]
    : signersOf(link.document, all);
  const signatures = all.signatures.filter(
    (one, i) =>
      by.some(({ key }) => equalBytes(key, one.key)) &&
      all.signatures.findIndex((other) => equalBytes(other.key, one.key)) === i,
  );
  return { document: link.document, signatures };
}

async function begin(
  tx: Tx,
  link: SignedPolicy,
  starter: string,
  nowMs: number,
  shelf: PolicyShelf,
  most: number,
): Promise<LinkPlace> {
  const { document } = link;
  const policyId = policyIdOf(document);
  const hash = policyHash(document);
  if (await readStored(tx, shelf.policies, policyId)) return { policyId, hash };
  verifyLink(null, link);
  if ((await tx.documentCount(shelf.links.kind, starter, most)) >= most)
    throw new Fault("too_large", "this account has begun too many policies");
  const at = { owner: document.federationId, place: nowMs };
  const made =
    (await putStored(tx, shelf.policies, { ...at, id: policyId, value: { chain: [link] } }, 0)) &&
    (await putStored(tx, shelf.links, { ...at, id: hash.toHex(), owner: starter, value: { policyId, version: 1 } }, 0));
  if (!made) throw conflict();
  return { policyId, hash };
}

/** The chain that a later link names; `known` when it holds that link already. @throws Fault not_found, conflict */
async function continued(tx: Tx, { document }: SignedPolicy, shelf: PolicyShelf) {
  const place = await readStored(tx, shelf.links, document.previous.toHex());
  if (!place) throw new Fault("not_found", "this server does not know the version before this one");
  const { policyId } = place.value;
  const held = await chainOf(tx, policyId, shelf);
  const there = held.chain[document.version - 1];
  const hash = policyHash(document);
  const known = there !== undefined && equalBytes(policyHash(there.document), hash);
  if (!known && (there !== undefined || held.chain.length !== document.version - 1)) throw conflict();
  return { ...held, policyId, hash, known };
}

async function append(tx: Tx, link: SignedPolicy, nowMs: number, shelf: PolicyShelf): Promise<LinkPlace> {
  const held = await continued(tx, link, shelf);
  const { policyId, hash, chain } = held;
  if (held.known) return { policyId, hash };
  const newest = chain.at(-1);
  if (!newest) throw conflict();
  verifyLink(newest.document, link);
  const next = { chain: [...chain, link] };
  if (next.chain.length > CHAIN_MAX || encodeJson(POLICY.codec, next).length > CHAIN_BYTES)
    throw new Fault("too_large", "this policy has had too many versions", { hint: "begin another one" });
  const entry = { policyId, version: link.document.version };
  const done =
    (await putStored(
      tx,
      shelf.policies,
      { id: policyId, owner: held.owner, place: nowMs, value: next },
      held.version,
    )) && (await putStored(tx, shelf.links, { id: hash.toHex(), owner: policyId, place: nowMs, value: entry }, 0));
  if (!done) throw conflict();
  return { policyId, hash };
}

/**
 * Adds a link to its chain, or begins one; the same link again changes nothing.
 *
 * @param starter Who begins a chain, for a limit on how many (`most`).
 * @throws Fault bad_input, integrity, conflict, not_found, too_large
 */
export function addLink(
  tx: Tx,
  link: SignedPolicy,
  starter: string,
  nowMs: number,
  shelf = FEDERATIONS,
  most = BEGUN_MAX,
): Promise<LinkPlace> {
  return link.document.version === 1 ? begin(tx, link, starter, nowMs, shelf, most) : append(tx, link, nowMs, shelf);
}

/**
 * Joins a link with what other admins have signed of it; keeps it while there are too few.
 *
 * @param starter Who brings it, for a limit on how many: nobody keeps other admins' links out.
 * @throws Fault bad_input, integrity, conflict, not_found, too_large
 */
export async function gather(
  tx: Tx,
  { ctx }: Pick<FederationSite, "ctx">,
  given: SignedPolicy,
  starter: string,
  shelf = FEDERATIONS,
): Promise<{ readonly link: SignedPolicy; readonly complete: boolean }> {
  const { document } = given;
  checkDocument(document);
  const held = document.version === 1 ? null : await continued(tx, given, shelf);
  const before = held?.chain[document.version - 2] ?? null;
  const id = policyHash(document).toHex();
  const draft = await readStored(tx, shelf.drafts, id);
  const link = sound(given, draft?.value.link.signatures ?? [], before);
  if (held?.known || adminsAgree(before?.document ?? document, link)) {
    if (draft) await removeStored(tx, shelf.drafts, id);
    return { link, complete: true };
  }
  if (link.signatures.length === 0) throw new Fault("integrity", "no approver of this policy has signed this version");
  const nowMs = ctx.now();
  const drafts = await eachStored(tx, shelf.drafts, starter);
  for (const old of drafts) if (old.place <= nowMs && old.id !== id) await removeStored(tx, shelf.drafts, old.id);
  if (!draft && drafts.filter((one) => one.place > nowMs).length >= DRAFTS_MAX)
    throw new Fault("too_large", "too many versions of policies that this account has laid here wait for their admins");
  const place = nowMs + ctx.limits.approvalMs;
  const row = { id, owner: draft?.owner ?? starter, place, value: { link } };
  if (!(await putStored(tx, shelf.drafts, row, draft?.version ?? 0))) throw conflict();
  return { link, complete: false };
}

/** Links of a chain after the first `after`, as many as one answer takes. */
export function pageOf(chain: PolicyChain, after: number): { readonly chain: SignedPolicy[]; readonly more: boolean } {
  const links: SignedPolicy[] = [];
  let bytes = 0;
  for (const link of chain.slice(after, after + PAGE_LINKS)) {
    bytes += policyBytes(link.document).length * 2;
    if (links.length > 0 && bytes > PAGE_BYTES) break;
    links.push(link);
  }
  return { chain: links, more: after + links.length < chain.length };
}

/** True for an account that has joined a federation of this server. */
async function isMember(tx: Tx, userId: UserId): Promise<boolean> {
  for (const federation of await eachStored(tx, FEDERATION, "")) {
    const id = federation.value.epochs[0]?.manifest.federationId;
    if (id && federation.value.leftAtMs === null && (await readStored(tx, MEMBER, memberId(id, userId)))) return true;
  }
  return false;
}

/** Policies of federations: reading and changing them (docs/protocol.md §8.7). */
export function createPolicies(site: FederationSite): Policies {
  const { ctx } = site;
  return {
    "federation.policies": ({ account }, { federationId, after }) =>
      ctx.store.transaction(async (tx) => {
        const { approvalKey } = await memberOfAccount(tx, federationId, account.userId);
        const named = (chain: PolicyChain) =>
          chain.at(-1)?.document.approvers.some(({ key }) => equalBytes(key, approvalKey)) ?? false;
        const ids = (await eachStored(tx, POLICY, federationId))
          .filter(({ id, value }) => (after === null || id > after) && named(value.chain))
          .map(({ id }) => asHashId<PolicyId>(id))
          .sort();
        return { items: ids.slice(0, PAGE_IDS), more: ids.length > PAGE_IDS };
      }),
    "federation.policy": ({ account }, { policyId, after }) =>
      ctx.store.transaction(async (tx) => {
        const { chain, owner } = await chainOf(tx, policyId);
        // whoever may not see it learns what an unknown one would tell
        const { userId } = account;
        const scope = owner as FederationId;
        const may =
          owner === OPERATOR_SCOPE
            ? await isMember(tx, userId)
            : (await readStored(tx, MEMBER, memberId(scope, userId))) !== undefined ||
              (await actsFor(tx, userId, scope));
        if (!may) throw new Fault("not_found", "this server does not know that policy");
        return pageOf(chain, after);
      }),
    async "federation.policy.set"({ account: { userId } }, { policy }) {
      const { federationId } = policy.document;
      const { place, hash, missing, brought } = await ctx.store.transaction(async (tx) => {
        if (await actsFor(tx, userId, federationId)) {
          // what its admins sign they gather at the registry
          const most = ctx.limits.registryWorkspaces;
          const place = await addLink(tx, policy, federationId, ctx.now(), FEDERATIONS, most);
          return { hash: place.hash, missing: false, place, brought: true };
        }
        await currentManifest(tx, federationId);
        await memberOfAccount(tx, federationId, userId);
        const starter = `${federationId}:${userId}`;
        const { link, complete } = await gather(tx, site, policy, starter);
        const hash = policyHash(link.document);
        if (!complete) return { hash, missing: true, brought: false };
        const place = await addLink(tx, link, starter, ctx.now());
        return { hash, missing: false, place, brought: false };
      });
      // thrown here: what was gathered stays
      if (missing || !place) {
        throw new Fault("pending", "other admins of this policy must sign this version too", {
          hint: "they run: keyhold policy set, with the same document",
        });
      }
      if (!brought)
        site.notify({ event: "federation.policy", federationId, policyId: place.policyId, hash: hash.toHex() });
      return place;
    },
  };
}
