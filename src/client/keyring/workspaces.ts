import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import { asHashId, isHashId, type WorkspaceId } from "../../ids.ts";
import { type PolicyDocument, policyHash, policyIdOf, type SignedPolicy } from "../../protocol/federation/policy.ts";
import { adminsAgree, signersOf, signPolicy, verifyLink } from "../../protocol/federation/policychain.ts";
import { policyDocumentJson } from "../../wire/federation/policyfile.ts";
import type { WorkspaceView } from "../../wire/keyring/views.ts";
import type { KeyringClient, WorkspaceChange, WorkspaceInfo } from "../keyringapi.ts";
import { type KnownChain, loadChain } from "./chains.ts";
import { changesBetween, firstDocument, keyOf, nextDocument, signersWords, treeWords } from "./documents.ts";
import { everyPage, type Ground, lie, oneOf } from "./ground.ts";
import { knownId, ofKnown } from "./names.ts";
import { ownerSigner, ownKey } from "./owner.ts";

/** A workspace as the registry shows it, with its policy as it was verified here. */
export interface KnownWorkspace {
  readonly view: WorkspaceView;
  readonly known: KnownChain;
}

/** Holds a workspace that the registry shows to its verified policy. @throws Fault integrity */
async function verified(ground: Ground, view: WorkspaceView): Promise<KnownWorkspace> {
  const known = await loadChain(ground, view.workspaceId);
  if (view.name !== known.head.name)
    throw lie(ground, "a workspace under another name than its owners have signed", `they call it ${known.head.name}`);
  const link = known.chain[view.version - 1];
  if (link && !equalBytes(policyHash(link.document), policyHash(view.policy.document)))
    throw lie(ground, `two different versions ${view.version} of the policy of one workspace`);
  return { view, known };
}

/** Everything that the registry lists for this account, as it shows it. */
function listed(ground: Ground): Promise<readonly WorkspaceView[]> {
  return everyPage<WorkspaceView>(ground, (last) =>
    ground.call("workspace.list", { after: last?.workspaceId ?? null }),
  );
}

/** All workspaces of this account, each verified. */
export async function allWorkspaces(ground: Ground): Promise<readonly KnownWorkspace[]> {
  const found: KnownWorkspace[] = [];
  for (const view of await listed(ground)) found.push(await verified(ground, view));
  return found;
}

/** One by its id. @throws Fault not_found, integrity */
export async function workspaceById(ground: Ground, workspaceId: WorkspaceId): Promise<KnownWorkspace> {
  const view = await ground.call("workspace.get", { workspaceId });
  if (view.workspaceId !== workspaceId) throw lie(ground, "another workspace than the one that was asked for");
  return verified(ground, view);
}

/**
 * A workspace by its name, its id or the beginning of it.
 *
 * @throws Fault not_found, ambiguous, integrity
 */
export async function findWorkspace(ground: Ground, wanted: string): Promise<KnownWorkspace> {
  if (isHashId(wanted)) return workspaceById(ground, asHashId(wanted));
  const known = knownId(ground, "workspace", wanted);
  if (known !== null)
    return ofKnown("workspace", wanted, known, () => workspaceById(ground, asHashId<WorkspaceId>(known)));
  const view = oneOf(await listed(ground), wanted, {
    what: "workspace",
    name: (one) => one.name,
    id: (one) => one.workspaceId,
    hint: "keyhold workspace list; an owner makes one: keyhold workspace create",
  });
  return verified(ground, view);
}

/** Links that wait for admins and would follow the newest one, with who has signed; what cannot be is left out. */
function draftsOf({ view, known }: KnownWorkspace): readonly { link: SignedPolicy; signedBy: readonly string[] }[] {
  return view.drafts.flatMap((link) => {
    const signedBy = signersOf(known.head, link).map(({ name }) => name);
    return follows(known.head, link) && signedBy.length > 0 ? [{ link, signedBy }] : [];
  });
}

/** True for a link that only lacks signatures. */
function follows(head: PolicyDocument, link: SignedPolicy): boolean {
  try {
    verifyLink({ ...head }, link);
    return true;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const { document } = link;
    return (
      error.code === "integrity" &&
      document.version === head.version + 1 &&
      document.federationId === head.federationId &&
      document.name === head.name &&
      equalBytes(document.previous, policyHash(head))
    );
  }
}

/** A workspace as the client tells of it. */
export function workspaceInfo(ground: Ground, workspace: KnownWorkspace): WorkspaceInfo {
  const { view, known } = workspace;
  const { head } = known;
  const own = ownKey(ground);
  return {
    workspaceId: known.policyId,
    name: head.name,
    version: head.version,
    balance: view.balance,
    escrowed: view.escrowed,
    owners: head.approvers.map(({ name, key }) => ({
      name,
      keyHex: key.toHex(),
      own: own !== null && equalBytes(key, own),
    })),
    admins: treeWords(head.admins, head),
    signers: signersWords(head),
    document: policyDocumentJson(head),
    drafts: draftsOf(workspace).map(({ link: { document }, signedBy }) => ({
      version: document.version,
      hashHex: policyHash(document).toHex(),
      signedBy,
      changes: changesBetween(head, document),
    })),
  };
}

/** Adds this account's signature to a link, and brings it to the registry, which gathers what others have signed. */
async function put(ground: Ground, document: PolicyDocument, others: SignedPolicy["signatures"]): Promise<void> {
  const mine = signPolicy(ownerSigner(ground), document);
  const signatures = [...others.filter(({ key }) => !equalBytes(key, mine.key)), mine];
  try {
    await ground.call("workspace.policy.set", { policy: { document, signatures } });
  } catch (error) {
    // too few admins have signed: the registry keeps it as a draft
    if (!(error instanceof Fault) || error.code !== "pending") throw error;
  }
}

/**
 * Makes a workspace, as an account that is enrolled. Where its owners are to change it together, its maker founds it alone, and its second link says so:
 * no signature of theirs is needed for what they did not make.
 *
 * @throws Fault bad_input, exists, conflict
 */
export async function createWorkspace(
  ground: Ground,
  input: Parameters<KeyringClient["createWorkspace"]>[0],
): Promise<WorkspaceInfo> {
  const { name, admin, sign } = input;
  const signer = ownerSigner(ground);
  const self = { name: input.self, key: signer.publicKey };
  const owners = [self, ...input.owners.map((owner) => ({ name: owner.name, key: keyOf(owner.keyHex) }))];
  const { scope } = ground;
  const wanted = firstDocument({ scope, name, owners, admin, sign });
  const alone = admin > 1 ? firstDocument({ scope, name, owners: [self], admin: 1, sign: 1 }) : wanted;
  const link: SignedPolicy = { document: alone, signatures: [signPolicy(signer, alone)] };
  if (!adminsAgree(alone, link)) throw new Fault("internal", "the maker of a workspace cannot found it");
  const workspaceId = policyIdOf(alone);
  await ground.call("workspace.create", { name, policy: link });
  const founded = await workspaceById(ground, workspaceId);
  const another = () =>
    new Fault("exists", `this account has made another workspace "${name}"`, { hint: "take another name" });
  if (alone === wanted) {
    if (founded.known.chain.length > 1) throw another();
    return workspaceInfo(ground, founded);
  }
  const next: PolicyDocument = { ...wanted, version: 2, previous: policyHash(alone) };
  const second = founded.known.chain[1];
  if (second) {
    // the same call again, after it was cut short
    if (equalBytes(policyHash(second.document), policyHash(next))) return workspaceInfo(ground, founded);
    throw another();
  }
  await put(ground, next, []);
  return workspaceInfo(ground, await workspaceById(ground, workspaceId));
}

/** A draft by its hash or the beginning of it. */
function draftNamed(workspace: KnownWorkspace, hashHex: string): SignedPolicy {
  return oneOf(draftsOf(workspace), hashHex, {
    what: "change of this workspace that waits",
    name: () => "",
    id: ({ link }) => policyHash(link.document).toHex(),
    hint: `keyhold workspace show ${workspace.view.name}`,
  }).link;
}

/** True for links that say the same, whatever their place in the chain. */
const isSameBut = (head: PolicyDocument, next: PolicyDocument): boolean =>
  JSON.stringify(policyDocumentJson(head)) === JSON.stringify(policyDocumentJson(next));

/**
 * Makes the next link of a workspace's policy, or signs one that another owner began. It counts once enough admins have
 * signed it, which is believed only of a chain that verifies.
 *
 * @throws Fault bad_input, not_found, denied, conflict, integrity
 */
export async function changeWorkspace(
  ground: Ground,
  wanted: string,
  change: WorkspaceChange,
): Promise<WorkspaceInfo & { readonly complete: boolean }> {
  const workspace = await findWorkspace(ground, wanted);
  const { head, policyId } = workspace.known;
  const own = ownerSigner(ground).publicKey;
  if (head.approvers.every(({ key }) => !equalBytes(key, own))) {
    throw new Fault("denied", "this account is no owner of the workspace", { why: `its key is ${own.toHex()}` });
  }
  const draft = change.kind === "approve" ? draftNamed(workspace, change.hashHex) : null;
  const document = draft?.document ?? (change.kind === "approve" ? head : nextDocument(head, change));
  if (document.name !== head.name)
    throw new Fault("bad_input", "a workspace keeps its name", { why: `it is called ${head.name}` });
  // nothing to agree to
  if (draft === null && isSameBut(head, document)) return { ...workspaceInfo(ground, workspace), complete: true };
  await put(ground, document, draft?.signatures ?? []);
  const after = await workspaceById(ground, policyId);
  const link = after.known.chain[document.version - 1];
  const complete = link !== undefined && equalBytes(policyHash(link.document), policyHash(document));
  if (link && !complete)
    throw new Fault("conflict", `version ${document.version} of this workspace is another one already`, {
      hint: `keyhold workspace show ${head.name}`,
    });
  return { ...workspaceInfo(ground, after), complete };
}
