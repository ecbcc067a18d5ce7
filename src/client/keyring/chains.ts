import { equalBytes } from "../../crypto/bytes.ts";
import type { WorkspaceId } from "../../ids.ts";
import { type PolicyDocument, policyHash, type SignedPolicy } from "../../protocol/federation/policy.ts";
import { type VerifiedChain, verifyChain } from "../../protocol/federation/policychain.ts";
import { checked, everyPage, type Ground, lie } from "./ground.ts";

/** A workspace's policy, verified from its first link to the newest that the registry shows. */
export interface KnownChain extends VerifiedChain {
  readonly chain: readonly SignedPolicy[];
}

/**
 * Fetches and verifies the policy of a workspace, holds it to what this vault has seen of it, and keeps its newest link.
 *
 * @throws Fault not_found, denied; integrity where it does not verify, is older than what was seen, or forked
 */
export async function loadChain(ground: Ground, workspaceId: WorkspaceId): Promise<KnownChain> {
  const chain = await everyPage<SignedPolicy>(ground, async (_last, after) => {
    const page = await ground.call("workspace.policy", { workspaceId, after });
    return { items: page.chain, more: page.more };
  });
  const verified = checked(ground, "a policy of the workspace that does not verify", () =>
    verifyChain(chain, ground.scope),
  );
  if (verified.policyId !== workspaceId) throw lie(ground, "the policy of another workspace");
  await holdToPin(ground, workspaceId, { ...verified, chain });
  return { ...verified, chain };
}

async function holdToPin(ground: Ground, workspaceId: WorkspaceId, known: KnownChain): Promise<void> {
  const isPin = (pin: { registry: Uint8Array; workspaceId: WorkspaceId }) =>
    pin.workspaceId === workspaceId && equalBytes(pin.registry, ground.identity);
  const pin = ground.held().workspacePins.find(isPin);
  const there = pin && known.chain[pin.version - 1];
  if (pin && !there) {
    throw lie(
      ground,
      "an older policy of the workspace than this device has seen",
      `version ${pin.version} was seen, and it shows ${known.head.version}`,
    );
  }
  if (pin && there && !equalBytes(policyHash(there.document), pin.hash)) {
    throw lie(ground, `another version ${pin.version} of the workspace's policy than this device has seen`);
  }
  if (pin?.version === known.head.version) return;
  const { name, version } = known.head;
  const next = { registry: ground.identity, workspaceId, name, version, hash: known.headHash };
  await ground.change((held) => {
    const now = held.workspacePins.find(isPin);
    // another process has seen a newer one
    if (now && now.version >= next.version) return held;
    return { ...held, workspacePins: [...held.workspacePins.filter((one) => !isPin(one)), next] };
  });
}

/** What a key is called in the newest link that names it; null for a key that never was an owner's. */
export function ownerName({ chain }: KnownChain, key: Uint8Array): string | null {
  for (const { document } of chain.toReversed()) {
    const found = document.approvers.find((one) => equalBytes(one.key, key));
    if (found) return found.name;
  }
  return null;
}

/** True where the newest link names the key. */
export const isOwner = ({ approvers }: PolicyDocument, key: Uint8Array): boolean =>
  approvers.some((one) => equalBytes(one.key, key));
