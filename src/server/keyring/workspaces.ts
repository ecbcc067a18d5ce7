import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { UserId, WorkspaceId } from "../../ids.ts";
import {
  type Approver,
  type PolicyChain,
  type PolicyDocument,
  policyBytes,
  policyHash,
  policyIdOf,
  type SignedPolicy,
} from "../../protocol/federation/policy.ts";
import { checkDocument, signersOf } from "../../protocol/federation/policychain.ts";
import { registryScope } from "../../protocol/federation/request.ts";
import type { Tx } from "../../storage/store.ts";
import type { WorkspaceView } from "../../wire/keyring/views.ts";
import { listStored, putStored, readStored, removeStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { addLink, gather, pageOf, policyChain } from "../federation/policies.ts";
import { entriesAfter, workspaceCredits } from "./balances.ts";
import { draftId, keyText, OWNERSHIP, ownershipId, WORKSPACE, WORKSPACES } from "./documents.ts";
import { eventsAfter, recorded, type Tell } from "./events.ts";
import { keyOf, ownerKeyOf, userOfKey } from "./people.ts";
import type { RegistryService, RegistrySite } from "./service.ts";
import { checkWorkspace } from "./workspacerules.ts";

type Workspaces = Pick<
  RegistryService,
  | "workspace.create"
  | "workspace.list"
  | "workspace.get"
  | "workspace.policy"
  | "workspace.policy.set"
  | "workspace.ledger"
  | "workspace.events"
>;

/** Workspaces in one answer, drafts in one view: as many as the codecs take; and about half of a body. */
const PAGE = 16;
const DRAFTS = 8;
const PAGE_BYTES = 64 * 1_024;
/** Drafts that one account lays here, at most; as of federations' policies. */
const DRAFTS_OF_ONE = 16;

/** The same answer for a workspace that never was and for one of others (P8). */
export const noSuchWorkspace = () => new Fault("not_found", "no such workspace");

/** The policy of a workspace as it is now. */
export interface WorkspaceHead {
  readonly chain: PolicyChain;
  /** The newest link. */
  readonly link: SignedPolicy;
  readonly document: PolicyDocument;
  /** Hash of the newest link, 32 bytes: what votes name. */
  readonly hash: Uint8Array;
  /** Number of links. */
  readonly version: number;
}

/** The newest head of a workspace. @throws Fault not_found, corrupt */
export async function headOf(tx: Tx, workspaceId: WorkspaceId): Promise<WorkspaceHead> {
  if (!(await readStored(tx, WORKSPACE, workspaceId))) throw noSuchWorkspace();
  const chain = await policyChain(tx, workspaceId, WORKSPACES);
  const link = chain.at(-1);
  if (!link) throw noSuchWorkspace();
  return { chain, link, document: link.document, hash: policyHash(link.document), version: chain.length };
}

/** The owner that a head names by a key. */
export function ownerOf({ document }: Pick<WorkspaceHead, "document">, key: Uint8Array): Approver | undefined {
  return document.approvers.find((one) => equalBytes(one.key, key));
}

/**
 * Whoever is an owner by the newest head; nobody else learns that there is such a workspace (P8).
 *
 * @throws Fault not_found, corrupt
 */
export async function demandOwner(
  tx: Tx,
  workspaceId: WorkspaceId,
  userId: UserId,
): Promise<Approver & { readonly head: WorkspaceHead }> {
  const key = await keyOf(tx, "owner", userId);
  const head = await headOf(tx, workspaceId);
  const owner = key && ownerOf(head, key);
  if (!owner) throw noSuchWorkspace();
  return { ...owner, head };
}

const draftOwner = (workspaceId: WorkspaceId, userId: UserId): string => `${workspaceId}:${userId}`;

/** Links after the head that wait for admins' signatures: of every owner who brought some, in turns. */
async function draftsOf(tx: Tx, workspaceId: WorkspaceId, head: WorkspaceHead, nowMs: number): Promise<SignedPolicy[]> {
  const of: SignedPolicy[][] = [];
  for (const { key } of head.document.approvers) {
    const userId = await userOfKey(tx, "owner", key);
    if (!userId) continue;
    const owner = draftOwner(workspaceId, userId);
    const rows = await listStored(tx, WORKSPACES.drafts, owner, { place: nowMs, id: "" }, DRAFTS_OF_ONE);
    of.push(rows.map(({ value }) => value.link).filter((link) => equalBytes(link.document.previous, head.hash)));
  }
  const turns = Math.max(0, ...of.map((links) => links.length));
  const drafts = Array.from({ length: turns }, (_, i) => of.flatMap((links) => links[i] ?? [])).flat();
  const shown: SignedPolicy[] = [];
  let bytes = sizeOf(head.link);
  for (const draft of drafts.slice(0, DRAFTS)) {
    bytes += sizeOf(draft);
    if (bytes > PAGE_BYTES) break;
    shown.push(draft);
  }
  return shown;
}

/** About how many bytes a link takes in an answer. */
const sizeOf = ({ document }: SignedPolicy): number => policyBytes(document).length * 2;

async function viewOf(tx: Tx, workspaceId: WorkspaceId, head: WorkspaceHead, nowMs: number): Promise<WorkspaceView> {
  const row = await readStored(tx, WORKSPACE, workspaceId);
  if (!row) throw noSuchWorkspace();
  return {
    workspaceId,
    name: row.value.name,
    policy: head.link,
    version: head.version,
    ...(await workspaceCredits(tx, workspaceId)),
    createdAtMs: row.value.createdAtMs,
    drafts: await draftsOf(tx, workspaceId, head, nowMs),
  };
}

/** Brings the lists of owners' workspaces to what a new head says. */
async function listOwners(
  tx: Tx,
  workspaceId: WorkspaceId,
  place: number,
  before: readonly Approver[],
  after: readonly Approver[],
): Promise<void> {
  const isIn = (all: readonly Approver[], key: Uint8Array) => all.some((one) => equalBytes(one.key, key));
  for (const { key } of before) if (!isIn(after, key)) await removeStored(tx, OWNERSHIP, ownershipId(key, workspaceId));
  for (const { key } of after) {
    if (isIn(before, key)) continue;
    const row = { id: ownershipId(key, workspaceId), owner: keyText(key), place, value: { workspaceId } };
    if (!(await putStored(tx, OWNERSHIP, row, 0))) throw changedMeanwhile();
  }
}

async function create(
  site: RegistrySite,
  tx: Tx,
  tell: Tell,
  userId: UserId,
  { name, policy }: { readonly name: string; readonly policy: SignedPolicy },
): Promise<WorkspaceView> {
  const { document } = policy;
  const nowMs = site.ctx.now();
  const scope = registryScope(site.identity.publicKey);
  const key = await ownerKeyOf(tx, userId);
  const workspaceId = policyIdOf(document);
  if (await readStored(tx, WORKSPACE, workspaceId)) {
    const { head } = await demandOwner(tx, workspaceId, userId);
    return viewOf(tx, workspaceId, head, nowMs);
  }
  checkWorkspace(document, scope);
  if (document.version !== 1 || document.name !== name)
    throw new Fault("bad_input", "a workspace begins with the first version of a policy of its name");
  if (!ownerOf({ document }, key)) throw new Fault("denied", "who makes a workspace is one of its owners");
  await addLink(tx, policy, `${scope}:${userId}`, nowMs, WORKSPACES);
  const row = { id: workspaceId, owner: "", place: nowMs, value: { name, createdAtMs: nowMs } };
  if (!(await putStored(tx, WORKSPACE, row, 0))) throw changedMeanwhile();
  await listOwners(tx, workspaceId, nowMs, [], document.approvers);
  await tell({ event: "workspace.created", workspaceId, detail: name });
  return viewOf(tx, workspaceId, await headOf(tx, workspaceId), nowMs);
}

async function setPolicy(
  site: RegistrySite,
  tx: Tx,
  tell: Tell,
  userId: UserId,
  policy: SignedPolicy,
): Promise<WorkspaceView> {
  const { document } = policy;
  const nowMs = site.ctx.now();
  const place = await readStored(tx, WORKSPACES.links, document.previous.toHex());
  if (!place) throw noSuchWorkspace();
  const workspaceId: WorkspaceId = place.value.policyId;
  const { head } = await demandOwner(tx, workspaceId, userId);
  checkWorkspace(document, registryScope(site.identity.publicKey));
  checkDocument(document);
  const before = head.chain[document.version - 2]?.document;
  const laid = await readStored(tx, WORKSPACES.drafts, draftId(document));
  // somebody new signs along, but begins nothing
  if (before && !laid && signersOf(before, policy).length === 0)
    throw new Fault("integrity", "no owner of this workspace has signed this version of its policy");
  const starter = draftOwner(workspaceId, userId);
  const { link, complete } = await gather(tx, site, policy, starter, WORKSPACES);
  if (!complete) {
    if (!laid) await tell({ event: "workspace.policy.proposed", workspaceId, detail: `version ${document.version}` });
    return viewOf(tx, workspaceId, head, nowMs);
  }
  await addLink(tx, link, starter, nowMs, WORKSPACES);
  const next = await headOf(tx, workspaceId);
  if (next.version > head.version) {
    const row = await readStored(tx, WORKSPACE, workspaceId);
    await listOwners(tx, workspaceId, row?.place ?? nowMs, head.document.approvers, next.document.approvers);
    await tell({ event: "workspace.policy", workspaceId, detail: `version ${next.version}` });
  }
  return viewOf(tx, workspaceId, next, nowMs);
}

/** What workspaces ask of requests. */
export interface WorkspaceQuestions {
  /** Whether a party's key is in the snapshot of an open request of a workspace. */
  hasOpenRequest(tx: Tx, workspaceId: WorkspaceId, partyKey: Uint8Array): Promise<boolean>;
  /** Asks the newest link about requests that are open. */
  policyChanged(workspaceId: WorkspaceId): Promise<void>;
}

/** Workspaces: chains of policies whose approvers own them (docs/protocol.md §9.1). */
export function createWorkspaces(site: RegistrySite, questions: WorkspaceQuestions): Workspaces {
  const { ctx } = site;

  async function list(tx: Tx, userId: UserId, after: WorkspaceId | null) {
    const key = await keyOf(tx, "owner", userId);
    if (!key) return { items: [], more: false };
    const from = after === null ? undefined : await readStored(tx, OWNERSHIP, ownershipId(key, after));
    if (after !== null && !from) throw noSuchWorkspace();
    const rows = await listStored(tx, OWNERSHIP, keyText(key), from ?? null, PAGE + 1);
    const items: WorkspaceView[] = [];
    let bytes = 0;
    for (const { value } of rows.slice(0, PAGE)) {
      const view = await viewOf(tx, value.workspaceId, await headOf(tx, value.workspaceId), ctx.now());
      bytes += [view.policy, ...view.drafts].reduce((sum, link) => sum + sizeOf(link), 0);
      if (items.length > 0 && bytes > PAGE_BYTES) break;
      items.push(view);
    }
    return { items, more: rows.length > items.length };
  }

  return {
    "workspace.create": ({ account: { userId } }, input) =>
      recorded(site, (tx, tell) => create(site, tx, tell, userId, input), userId),
    "workspace.list": ({ account: { userId } }, { after }) => ctx.store.transaction((tx) => list(tx, userId, after)),
    "workspace.get": ({ account: { userId } }, { workspaceId }) =>
      ctx.store.transaction(async (tx) => {
        const { head } = await demandOwner(tx, workspaceId, userId);
        return viewOf(tx, workspaceId, head, ctx.now());
      }),
    "workspace.policy": ({ account: { userId } }, { workspaceId, after }) =>
      ctx.store.transaction(async (tx) => {
        const head = await headOf(tx, workspaceId);
        const owner = await keyOf(tx, "owner", userId);
        const party = await keyOf(tx, "party", userId);
        const may =
          (owner && ownerOf(head, owner)) || (party && (await questions.hasOpenRequest(tx, workspaceId, party)));
        if (!may) throw noSuchWorkspace();
        return pageOf(head.chain, after);
      }),
    async "workspace.policy.set"(caller, { policy }) {
      const { userId } = caller.account;
      const view = await recorded(site, (tx, tell) => setPolicy(site, tx, tell, userId, policy));
      caller.concerns(view.workspaceId);
      // a link that is complete is the newest one now
      if (equalBytes(policyHash(view.policy.document), policyHash(policy.document)))
        await questions.policyChanged(view.workspaceId);
      return view;
    },
    "workspace.ledger": ({ account: { userId } }, { workspaceId, after }) =>
      ctx.store.transaction(async (tx) => {
        await demandOwner(tx, workspaceId, userId);
        return entriesAfter(tx, workspaceId, after);
      }),
    "workspace.events": ({ account: { userId } }, { workspaceId, after }) =>
      ctx.store.transaction(async (tx) => {
        await demandOwner(tx, workspaceId, userId);
        return eventsAfter(tx, workspaceId, after);
      }),
  };
}
