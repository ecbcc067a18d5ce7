import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederationId } from "../../ids.ts";
import { type Manifest, manifestHash } from "../../protocol/federation/manifest.ts";
import { OPERATOR_SCOPE } from "../../protocol/federation/policy.ts";
import { signPolicy, verifyLink } from "../../protocol/federation/policychain.ts";
import type { Tx } from "../../storage/store.ts";
import type { ControlInput, ControlOutput } from "../../wire/control.ts";
import { createConnectors } from "./connectors.ts";
import {
  FEDERATION,
  FEDERATIONS_HELD,
  listStored,
  OPERATOR,
  OPERATOR_ID,
  type OperatorBody,
  PROPOSAL,
  type ProposalBody,
  proposalId,
  putStored,
  readStored,
  removeStored,
  type Stored,
} from "./documents.ts";
import { demandNamed, liveProposals, ownFacts } from "./membership.ts";
import { addLink, policyChain } from "./policies.ts";
import type { FederationControl, FederationService, FederationSite } from "./service.ts";

const noDraft = () => new Fault("not_found", "no such draft lies here", { hint: "keyhold server federation list" });
const changed = () => new Fault("conflict", "this has just changed", { hint: "try again" });

const hashIs = (manifest: Manifest, hash: Uint8Array): boolean => equalBytes(manifestHash(manifest), hash);

/** What the operator of a server decides on the own machine (docs/operations.md). */
export function createOperator(site: FederationSite): FederationService["control"] {
  const { ctx } = site;

  async function list(): Promise<ControlOutput<"federation.list">> {
    const { identity } = await site.enclave.call("info", {});
    const { drafts, held } = await ctx.store.transaction(async (tx) => ({
      drafts: await liveProposals(tx, ctx.now()),
      held: await listStored(tx, FEDERATION, "", null, FEDERATIONS_HELD),
    }));
    const indexIn = ({ servers }: Manifest) => servers.find((one) => equalBytes(one.identity, identity))?.index ?? null;
    type Item = ControlOutput<"federation.list">["items"][number];
    const waiting = drafts.map(({ value: { proposal, expiresAtMs } }): Item => {
      const { manifest, signatures } = proposal;
      const state = signatures.length > 0 ? "accepted" : "waiting";
      return { manifest, state, expiresAtMs, index: indexIn(manifest) };
    });
    const known = held.flatMap(({ value }): Item[] => {
      const manifest = value.epochs.at(-1)?.manifest;
      const state = value.leftAtMs === null ? "member" : "left";
      return manifest ? [{ manifest, state, expiresAtMs: null, index: indexIn(manifest) }] : [];
    });
    return { items: [...waiting, ...known] };
  }

  /** A federation that was left is joined again with what it was left with. */
  async function comeBack(tx: Tx, id: FederationId, epoch: number, hash: Uint8Array): Promise<boolean> {
    const held = await readStored(tx, FEDERATION, id);
    const known = held?.value.epochs.at(-1)?.manifest;
    if (!held || !known || known.epoch !== epoch || !hashIs(known, hash)) return false;
    if (held.value.leftAtMs === null) return true;
    const value = { ...held.value, leftAtMs: null };
    if (!(await putStored(tx, FEDERATION, { ...held, value }, held.version))) throw changed();
    return true;
  }

  async function accept(input: ControlInput<"federation.accept">): Promise<ControlOutput<"federation.accept">> {
    const { federationId, epoch, hash } = input;
    const found = await ctx.store.transaction(async (tx): Promise<Stored<ProposalBody> | "member"> => {
      if (await comeBack(tx, federationId, epoch, hash)) return "member";
      const draft = await readStored(tx, PROPOSAL, proposalId(federationId, epoch));
      if (!draft || draft.value.expiresAtMs <= ctx.now()) throw noDraft();
      if (!hashIs(draft.value.proposal.manifest, hash))
        throw new Fault("conflict", "another draft lies there now", { hint: "keyhold server federation list" });
      return draft;
    });
    if (found === "member") return { state: "member" };
    const { before, proposal } = found.value;
    const { manifest, signatures } = proposal;
    if (signatures.length > 0) return { state: "accepted" };
    demandNamed(manifest, before?.manifest ?? null, await ownFacts(site));
    const signature = await site.enclave.call("manifest.sign", { manifest, before });
    const value = { ...found.value, proposal: { manifest, signatures: [signature] } };
    const kept = await ctx.store.transaction((tx) => putStored(tx, PROPOSAL, { ...found, value }, found.version));
    if (!kept) throw changed();
    return { state: "accepted" };
  }

  async function leave(tx: Tx, id: FederationId): Promise<ControlOutput<"federation.leave">> {
    const drafts = (await liveProposals(tx, ctx.now())).filter(
      (one) => one.value.proposal.manifest.federationId === id,
    );
    for (const draft of drafts) await removeStored(tx, PROPOSAL, draft.id);
    const held = await readStored(tx, FEDERATION, id);
    const member = held !== undefined && held.value.leftAtMs === null;
    if (!member && drafts.length === 0) throw new Fault("not_found", "this server knows no such federation");
    if (
      member &&
      !(await putStored(tx, FEDERATION, { ...held, value: { ...held.value, leftAtMs: ctx.now() } }, held.version))
    )
      throw changed();
    return { drafts: drafts.length, left: member };
  }

  async function show(tx: Tx): Promise<ControlOutput<"policy.show">> {
    const operator = (await readStored(tx, OPERATOR, OPERATOR_ID))?.value;
    const policyId = operator?.policy ?? null;
    const policy = policyId === null ? null : ((await policyChain(tx, policyId)).at(-1) ?? null);
    return { policyId, policy, remotes: [...(operator?.remotes ?? [])], operator: site.operator.publicKey };
  }

  async function set(
    tx: Tx,
    { document, drop, remotes: given }: ControlInput<"policy.set">,
  ): Promise<ControlOutput<"policy.set">> {
    const held = await readStored(tx, OPERATOR, OPERATOR_ID);
    let policy: OperatorBody["policy"] = drop ? null : (held?.value.policy ?? null);
    const remotes = given ?? [...(held?.value.remotes ?? [])];
    if (document) {
      if (document.federationId !== OPERATOR_SCOPE)
        throw new Fault("bad_input", "an operator's own policy belongs to no federation");
      const id = policy;
      const before = id === null ? null : ((await policyChain(tx, id)).at(-1)?.document ?? null);
      const link = { document, signatures: [signPolicy(site.operator, document)] };
      verifyLink(before, link);
      policy = (await addLink(tx, link, OPERATOR_SCOPE, ctx.now())).policyId;
    }
    const row = { id: OPERATOR_ID, owner: "", place: ctx.now(), value: { policy, remotes } };
    if (!(await putStored(tx, OPERATOR, row, held?.version ?? 0))) throw changed();
    const version = policy === null ? 0 : (await policyChain(tx, policy)).length;
    return { policyId: policy, version };
  }

  const control: { readonly [N in FederationControl]: FederationService["control"][N] } = {
    "federation.list": list,
    "federation.accept": accept,
    "federation.leave": ({ federationId }) => ctx.store.transaction((tx) => leave(tx, federationId)),
    ...createConnectors(ctx),
    "policy.show": () => ctx.store.transaction(show),
    "policy.set": (input) => ctx.store.transaction((tx) => set(tx, input)),
  };
  return control;
}
