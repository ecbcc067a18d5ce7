import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { FederationId, PolicyId, WorkspaceId } from "../ids.ts";
import { type PolicyDocument, policyHash, policyIdOf, type SignedPolicy } from "../protocol/federation/policy.ts";
import { verifyLink } from "../protocol/federation/policychain.ts";
import type { OwnServer, RegistryEnd } from "./ends.ts";

/** Links that one run brings at most: a chain has no more. */
const LINKS_MAX = 1_024;

/** Knows how far the own server is in each workspace's chain. */
export interface PolicyCourier {
  /**
   * Brings the links that the own server lacks, each verified by the one before it.
   *
   * @param wanted Hash of the newest link as the registry's task names it, 32 bytes.
   * @returns the hash of the newest link at the own server.
   * @throws Fault stale while the registry does not show that link; integrity for a chain that does not fit
   */
  bring(workspaceId: WorkspaceId, wanted: Uint8Array): Promise<Uint8Array>;
  /** Forgets what the own server was known to have. */
  forget(workspaceId: WorkspaceId): void;
}

const other = () => new Fault("integrity", "the registry shows another policy chain than the own server has");

/** @param scope What stands in place of a federation in policies of this registry. */
export function policyCourier(own: OwnServer, registry: RegistryEnd, scope: FederationId): PolicyCourier {
  const heads = new Map<WorkspaceId, { readonly document: PolicyDocument; readonly hashes: ReadonlySet<string> }>();

  const hashOf = (document: PolicyDocument): string => policyHash(document).toHex();

  /** What the own server has; it is its operator's, and taken as it is. */
  async function known(policyId: PolicyId): Promise<readonly SignedPolicy[]> {
    const chain: SignedPolicy[] = [];
    try {
      for (;;) {
        const page = await own.call("federation.policy", { policyId, after: chain.length });
        chain.push(...page.chain);
        if (!page.more || page.chain.length === 0 || chain.length > LINKS_MAX) return chain;
      }
    } catch (error) {
      if (error instanceof Fault && error.code === "not_found") return chain;
      throw error;
    }
  }

  async function bringFrom(workspaceId: WorkspaceId): Promise<void> {
    const policyId = String(workspaceId) as PolicyId;
    const chain = await known(policyId);
    const hashes = new Set(chain.map(({ document }) => hashOf(document)));
    let head = chain.at(-1)?.document ?? null;
    for (let at = chain.length; at < LINKS_MAX; ) {
      const page = await registry.call("workspace.policy", { workspaceId, after: at });
      for (const link of page.chain) {
        const document = verifyLink(head, link);
        if (document.federationId !== scope || (head === null && policyIdOf(document) !== policyId)) throw other();
        await own.call("federation.policy.set", { policy: link });
        head = document;
        hashes.add(hashOf(document));
        at += 1;
      }
      if (!page.more || page.chain.length === 0) break;
    }
    if (head !== null) heads.set(workspaceId, { document: head, hashes });
  }

  return {
    async bring(workspaceId, wanted) {
      const hex = wanted.toHex();
      if (!heads.get(workspaceId)?.hashes.has(hex)) await bringFrom(workspaceId);
      const now = heads.get(workspaceId);
      if (!now?.hashes.has(hex)) {
        throw new Fault("stale", "the registry does not show the policy that its task names");
      }
      const newest = policyHash(now.document);
      return equalBytes(newest, wanted) ? wanted : newest;
    },
    forget: (workspaceId) => void heads.delete(workspaceId),
  };
}
