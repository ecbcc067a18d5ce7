import { Fault } from "../../errors.ts";
import type { FederationId } from "../../ids.ts";
import type { PolicyDocument, PolicyRule, PolicyTree } from "../../protocol/federation/policy.ts";

const bad = (what: string, hint?: string) =>
  new Fault("bad_input", `this workspace cannot be: ${what}`, hint === undefined ? {} : { hint });

/** True when these owners, all of them, satisfy a tree; the requester has signed its request anyway. */
function satisfied(tree: PolicyTree, owners: ReadonlySet<string>, document: PolicyDocument): boolean {
  switch (tree.kind) {
    case "approver":
      return owners.has(tree.name);
    case "group": {
      const members = document.groups.find(({ name }) => name === tree.name)?.members ?? [];
      return members.filter((name) => owners.has(name)).length >= tree.atLeast;
    }
    case "requester":
      return true;
    case "remote":
      return false;
    case "all":
      return tree.of.every((branch) => satisfied(branch, owners, document));
    case "any":
      return tree.of.some((branch) => satisfied(branch, owners, document));
    case "threshold":
      return tree.of.filter((branch) => satisfied(branch, owners, document)).length >= tree.atLeast;
  }
}

/** True when some owner can make a request that the rule lets through, if all others agree. */
function canBeMet(rule: PolicyRule, document: PolicyDocument): boolean {
  const { require } = rule;
  if (require === null) return true;
  const names = document.approvers.map(({ name }) => name);
  return names.some((requester) => {
    const voices = names.filter((name) => rule.requesterMayApprove || name !== requester);
    return satisfied(require, new Set(voices), document);
  });
}

/**
 * Checks what a workspace demands of its policy beside the form of one: an owner, and rules and an admin policy that
 * its owners can satisfy. Engines of others decide at the servers whose operators name them, not here.
 *
 * @param scope `registryScope` of the registry.
 * @throws Fault bad_input with what to mend.
 */
export function checkWorkspace(document: PolicyDocument, scope: FederationId): void {
  if (document.federationId !== scope) throw bad("its policy is made for another registry or a federation");
  if (document.approvers.length === 0) throw bad("it would have no owner any more", "name another owner first");
  if (document.remotes.length > 0)
    throw bad("its policy names a remote engine", "operators of servers name engines: keyhold server policy set");
  const all = new Set(document.approvers.map(({ name }) => name));
  if (!satisfied(document.admins, all, document)) throw bad("nobody could ever change it");
  const dead = document.rules.find((rule) => rule.effect === "allow" && !canBeMet(rule, document));
  if (dead) {
    throw bad(`nobody could ever satisfy the rule ${dead.name}`, "its requester's own approval does not count there");
  }
}
