import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { PolicyId } from "../../ids.ts";
import { approvalSigner } from "../../protocol/federation/credentials.ts";
import { type PolicyDocument, policyHash, policyIdOf, type SignedPolicy } from "../../protocol/federation/policy.ts";
import { signPolicy } from "../../protocol/federation/policychain.ts";
import { type Codec, type Of, struct, u53, uint } from "../../wire/codec.ts";
import { policyDocumentJson, policyFromJson } from "../../wire/federation/policyfile.ts";
import type { PolicyInfo } from "../federationapi.ts";
import { ask, complaints, everyone } from "./answers.ts";
import { type KnownPolicy, loadPolicy } from "./chains.ts";
import type { Ground } from "./ground.ts";

/** Policies that this device has heard of: seen before, named by the manifest, or by keys and requests of its own. */
function knownIds({ fleet, keeping }: Ground): ReadonlySet<PolicyId> {
  const ids = new Set<PolicyId>(keeping.policies().map(({ policyId }) => policyId));
  for (const { policy } of fleet.manifest.servers) if (policy) ids.add(policy);
  for (const { certificate } of keeping.keys())
    if (certificate.certificate.policy) ids.add(certificate.certificate.policy);
  for (const { request } of keeping.requests()) {
    const { body } = request.request;
    if ("policy" in body && body.policy) ids.add(body.policy);
  }
  return ids;
}

/** Pages of ids that are asked for at most. */
const PAGES_MAX = 8;

/** What one server says which policies name this account; nothing where it does not answer. */
async function idsAt({ fleet }: Ground, index: number): Promise<readonly PolicyId[]> {
  const { federationId } = fleet.manifest;
  const ids: PolicyId[] = [];
  for (let page = 0; page < PAGES_MAX; page++) {
    const { value } = await ask(fleet, index, "federation.policies", { federationId, after: ids.at(-1) ?? null });
    ids.push(...(value?.items ?? []));
    if (!value?.more || value.items.length === 0) break;
  }
  return ids;
}

/** The same, and those that servers name: each shows its chain, so that none of them is believed. */
async function allIds(ground: Ground): Promise<ReadonlySet<PolicyId>> {
  const told = await Promise.all(everyone(ground.fleet).map((index) => idsAt(ground, index)));
  return new Set([...knownIds(ground), ...told.flat()]);
}

const infoOf = (
  document: PolicyDocument,
  policyId: PolicyId,
  place: Pick<KnownPolicy, "current" | "behind">,
): PolicyInfo => ({
  policyId,
  name: document.name,
  version: document.version,
  hashHex: policyHash(document).toHex(),
  document: policyDocumentJson(document),
  current: place.current,
  behind: place.behind,
});

/** Every policy that this device has heard of, with its newest link. */
export async function listPolicies(ground: Ground): Promise<readonly PolicyInfo[]> {
  const found: PolicyInfo[] = [];
  for (const policyId of await allIds(ground)) {
    try {
      const known = await loadPolicy(ground, policyId);
      found.push(infoOf(known.head, policyId, known));
    } catch (error) {
      if (!(error instanceof Fault) || error.code === "integrity") throw error;
      ground.notice(`policy ${policyId.slice(0, 16)}: ${error.message}`);
    }
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

const hash: Codec<Uint8Array> = {
  decode(value, path) {
    if (typeof value === "string" && /^[0-9a-f]{64}$/.test(value)) return Uint8Array.fromHex(value);
    throw new Fault("bad_input", `${path} must be 64 hexadecimal digits`);
  },
  encode: (value) => value.toHex(),
};

/** A version that waits for other admins: with it each of them signs the very same link. */
const waiting = struct({ version: uint(0xffff_ffff, 1), previous: hash, createdAtMs: u53 });
type Waiting = Of<typeof waiting>;

interface Proposal {
  readonly place: Waiting | null;
  readonly policy: unknown;
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A policy as people write it, or as {@link putPolicy} gives it back for the other admins. */
function proposalOf(input: unknown): Proposal {
  if (!isObject(input) || !isObject(input["policy"])) return { place: null, policy: input };
  const { policy, ...place } = input;
  return { place: waiting.decode(place, ""), policy };
}

/** The policy that a file continues: the one that it names by hash, otherwise the one of its name. */
async function beforeOf(ground: Ground, name: string, place: Waiting | null): Promise<KnownPolicy | null> {
  const found: KnownPolicy[] = [];
  for (const policyId of await allIds(ground)) {
    try {
      const known = await loadPolicy(ground, policyId);
      const own = known.head.name === name && known.head.federationId === ground.fleet.manifest.federationId;
      const link =
        place === null ? own : known.chain.some(({ document }) => equalBytes(policyHash(document), place.previous));
      if (own && link) found.push(known);
    } catch (error) {
      if (!(error instanceof Fault) || error.code === "integrity") throw error;
    }
  }
  const [one, another] = found;
  if (another) throw new Fault("ambiguous", `more than one policy is called "${name}"`);
  if (place !== null && !one) {
    throw new Fault("not_found", "no policy that this device knows has the version before this one", {
      hint: "keyhold policy show",
    });
  }
  return one ?? null;
}

/** A first link that counts already, once its admins have signed it. */
async function begunAs(ground: Ground, first: PolicyDocument): Promise<KnownPolicy | null> {
  try {
    return await loadPolicy(ground, policyIdOf(first));
  } catch (error) {
    if (error instanceof Fault && error.code === "not_found") return null;
    throw error;
  }
}

/** What people write has no date: the same file is the same link on every admin's device (docs/protocol.md §8.7). */
const UNDATED = 0;

/** The link that an input stands for: a new one, or one that counts already where nothing in it differs. */
async function linkOf(ground: Ground, input: unknown) {
  const { federationId } = ground.fleet.manifest;
  const { place, policy } = proposalOf(input);
  const zeros = new Uint8Array(32);
  const written = (document: PolicyDocument) => JSON.stringify(policyDocumentJson(document));
  const draft = policyFromJson(policy, {
    federationId,
    ...(place ?? { version: 1, previous: zeros, createdAtMs: UNDATED }),
  });
  const first = place?.version === 1;
  const before = first ? await begunAs(ground, draft) : await beforeOf(ground, draft.name, place);
  const newest = before?.chain.at(-1);
  const there =
    place === null
      ? newest && written(newest.document) === written(draft) && newest
      : before?.chain.find(({ document }) => equalBytes(policyHash(document), policyHash(draft)));
  if (there) return { before, document: there.document, by: there.document, signed: there.signatures, there: true };
  if (newest && place && place.version <= newest.document.version) {
    throw new Fault("conflict", `version ${place.version} of this policy is another one already`);
  }
  const document =
    place || !newest
      ? draft
      : policyFromJson(policy, {
          federationId,
          version: newest.document.version + 1,
          previous: policyHash(newest.document),
          createdAtMs: UNDATED,
        });
  return { before, document, by: newest?.document ?? document, signed: [], there: false };
}

/** Brings a link to one server, after those before it that the server lacks. */
async function bring(ground: Ground, index: number, chain: readonly SignedPolicy[], link: SignedPolicy) {
  const first = await ask(ground.fleet, index, "federation.policy.set", { policy: link });
  if (first.fault?.code !== "not_found" || chain.length === 0) return first;
  for (const policy of chain) await ask(ground.fleet, index, "federation.policy.set", { policy });
  return ask(ground.fleet, index, "federation.policy.set", { policy: link });
}

/** Brings a policy's chain to the servers that lack it: one that has lost everything could not ask it. */
export async function spreadPolicy(ground: Ground, policyId: PolicyId): Promise<void> {
  const { chain, behind } = await loadPolicy(ground, policyId);
  for (const index of behind)
    for (const policy of chain) await ask(ground.fleet, index, "federation.policy.set", { policy });
}

/** True once servers show the link in a chain that verifies: none of them is believed that it is complete. */
async function stands(ground: Ground, policyId: PolicyId, document: PolicyDocument): Promise<boolean> {
  try {
    const link = (await loadPolicy(ground, policyId)).chain[document.version - 1];
    return link !== undefined && equalBytes(policyHash(link.document), policyHash(document));
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/**
 * Signs a link with this account's approval key and brings it to every server. Servers gather the admins' signatures:
 * while there are too few it is not complete, and the document that is given back is what the other admins put in turn.
 *
 * @throws Fault bad_input, denied, conflict, unavailable
 */
export async function putPolicy(ground: Ground, input: unknown): Promise<PolicyInfo & { readonly complete: boolean }> {
  const { fleet } = ground;
  const { before, document, by, signed, there } = await linkOf(ground, input);
  const signer = approvalSigner(ground.secret, fleet.manifest.federationId);
  const isApprover = [...by.approvers, ...document.approvers].some(({ key }) => equalBytes(key, signer.publicKey));
  if (!isApprover && !there) {
    throw new Fault("denied", "this account's approval key is none of this policy's approvers", {
      why: `its key is ${signer.publicKey.toHex()}`,
      hint: "an approver sets it; for your keys take its id, which keyhold policy show prints to them",
    });
  }
  const link: SignedPolicy = { document, signatures: there ? signed : [signPolicy(signer, document)] };
  const policyId = before?.policyId ?? policyIdOf(document);
  const wanted = policyHash(document);
  const earlier = before?.chain.slice(0, document.version - 1) ?? [];
  const told = await Promise.all(everyone(fleet).map((index) => bring(ground, index, earlier, link)));
  const current = told.flatMap(({ index, value }) => (value && equalBytes(value.hash, wanted) ? [index] : []));
  const gathering = told.some(({ fault }) => fault?.code === "pending");
  if (current.length === 0 && !gathering) {
    const fault = told.find((one) => one.fault !== null)?.fault;
    throw new Fault(fault?.code ?? "unavailable", "no server has taken this version of the policy", {
      why: complaints(fleet.manifest, told),
    });
  }
  const complete = current.length > 0 && (await stands(ground, policyId, document));
  const behind = everyone(fleet).filter((index) => !current.includes(index));
  const info = infoOf(document, policyId, { current, behind });
  if (complete) return { ...info, complete };
  // a first version: otherwise this device would not know of it once the others have signed
  if (!before) await ground.keeping.changePolicy({ policyId, version: 1, hash: wanted });
  const { version, previous, createdAtMs } = document;
  const place = waiting.encode({ version, previous, createdAtMs });
  return { ...info, complete, document: { ...(isObject(place) ? place : {}), policy: info.document } };
}
