import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { PolicyId } from "../../ids.ts";
import { OPERATOR_SCOPE, policyHash, type SignedPolicy } from "../../protocol/federation/policy.ts";
import { type VerifiedChain, verifyChain } from "../../protocol/federation/policychain.ts";
import { ask, everyone, urlOf } from "./answers.ts";
import type { Ground } from "./ground.ts";

/** Pages of one chain that are read at most. */
const PAGES_MAX = 512;

/** A policy as servers show it, verified from its first link on. */
export interface KnownPolicy extends VerifiedChain {
  readonly chain: readonly SignedPolicy[];
  /** Servers that have the newest link, and those with an older one or none. */
  readonly current: readonly number[];
  readonly behind: readonly number[];
}

/** One server's chain, verified; null where it has none, or shows one that does not hold. */
async function chainAt(ground: Ground, index: number, policyId: PolicyId) {
  const { fleet } = ground;
  const chain: SignedPolicy[] = [];
  for (let page = 0; page < PAGES_MAX; page++) {
    const { value, fault } = await ask(fleet, index, "federation.policy", { policyId, after: chain.length });
    if (fault !== null) return null;
    chain.push(...value.chain);
    if (!value.more || value.chain.length === 0) break;
  }
  try {
    const scope = chain[0]?.document.federationId === OPERATOR_SCOPE ? OPERATOR_SCOPE : fleet.manifest.federationId;
    const verified = verifyChain(chain, scope);
    if (verified.policyId === policyId) return { index, chain, verified };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  }
  ground.notice(`${urlOf(fleet.manifest, index)} shows a policy that does not verify`);
  return null;
}

/**
 * A policy's newest link among all servers, which this device then holds them to.
 *
 * @throws Fault not_found; integrity where every server shows an older one than this device has seen, or where there
 * are two of one version
 */
export async function loadPolicy(ground: Ground, policyId: PolicyId): Promise<KnownPolicy> {
  const all = everyone(ground.fleet);
  const found = (await Promise.all(all.map((index) => chainAt(ground, index, policyId)))).flatMap((one) => one ?? []);
  const [newest] = [...found].sort((a, b) => b.chain.length - a.chain.length);
  if (!newest) throw new Fault("not_found", "no server that can be reached knows this policy");
  const { head, headHash } = newest.verified;
  for (const { chain, index } of found) {
    const link = newest.chain[chain.length - 1];
    const last = chain.at(-1);
    if (link && last && equalBytes(policyHash(link.document), policyHash(last.document))) continue;
    throw new Fault("integrity", "servers show two different versions of one policy", {
      why: `version ${chain.length} at ${urlOf(ground.fleet.manifest, index)} is another one`,
    });
  }
  const known = ground.keeping.policies().find((one) => one.policyId === policyId);
  const there = known && newest.chain[known.version - 1];
  if (known && (!there || !equalBytes(policyHash(there.document), known.hash))) {
    throw new Fault("integrity", "servers show an older policy than the one that this device has seen", {
      why: `version ${known.version} was seen, and they show ${head.version}`,
    });
  }
  if (known?.version !== head.version) {
    await ground.keeping.changePolicy({ policyId, version: head.version, hash: headHash });
  }
  const current = found.flatMap(({ index, chain }) => (chain.length === newest.chain.length ? [index] : []));
  return { ...newest.verified, chain: newest.chain, current, behind: all.filter((i) => !current.includes(i)) };
}

/** Names that policies give to approval keys, by hex; a policy that cannot be had is left out. */
export async function approverNames(
  ground: Ground,
  policyIds: Iterable<PolicyId>,
): Promise<ReadonlyMap<string, string>> {
  const names = new Map<string, string>();
  for (const policyId of new Set(policyIds)) {
    try {
      for (const { name, key } of (await loadPolicy(ground, policyId)).head.approvers) names.set(key.toHex(), name);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
    }
  }
  return names;
}
