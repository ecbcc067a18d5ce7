import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederationId } from "../../ids.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { type Approver, type PolicyDocument, type PolicyTree, policyHash } from "../../protocol/federation/policy.ts";
import { checkDocument } from "../../protocol/federation/policychain.ts";
import { policyDocumentJson, policyFromJson } from "../../wire/federation/policyfile.ts";
import type { WorkspaceChange } from "../keyringapi.ts";

/** The group of a workspace's policy to which all of its owners belong. */
const OWNERS = "owners";
/** What people write has no date: the same change is the same link on every owner's device (docs/protocol.md §8.7). */
const UNDATED = 0;

/** The first link of a workspace: its owners, how many of them change it, and how many agree to requests. */
export function firstDocument(input: {
  readonly scope: FederationId;
  readonly name: string;
  readonly owners: readonly Approver[];
  readonly admin: number;
  readonly sign: number;
}): PolicyDocument {
  const { scope, name, owners, admin, sign } = input;
  const document: PolicyDocument = {
    federationId: scope,
    name,
    version: 1,
    previous: new Uint8Array(32),
    approvers: owners,
    groups: [{ name: OWNERS, members: owners.map((owner) => owner.name) }],
    remotes: [],
    admins: { kind: "group", name: OWNERS, atLeast: admin },
    rules: [
      {
        name: OWNERS,
        effect: "allow",
        actions: ["generate", "sign", "release"],
        types: [],
        rate: null,
        amount: null,
        recipients: null,
        time: null,
        require: { kind: "group", name: OWNERS, atLeast: sign },
        requesterMayApprove: true,
        voteMs: DEFAULTS.approvalMs,
      },
    ],
    createdAtMs: UNDATED,
  };
  checkDocument(document);
  return document;
}

/** The place of the link that follows another one. */
const placeAfter = (head: PolicyDocument) => ({
  federationId: head.federationId,
  version: head.version + 1,
  previous: policyHash(head),
  createdAtMs: UNDATED,
});

const isOwners = (tree: PolicyTree | null): boolean => tree?.kind === "group" && tree.name === OWNERS;

/** A document of one's own hand is changed by hand. */
const byHand = (what: string) =>
  new Fault("bad_input", `this workspace's policy was written by hand: ${what}`, {
    hint: "give the whole document: keyhold workspace policy WORKSPACE --file FILE",
  });

/**
 * The link that a change makes of the newest one.
 *
 * @throws Fault bad_input, not_found, exists
 */
export function nextDocument(
  head: PolicyDocument,
  change: Exclude<WorkspaceChange, { readonly kind: "approve" }>,
): PolicyDocument {
  const next = { ...head, ...placeAfter(head) };
  const document = changed(head, next, change);
  checkDocument(document);
  return document;
}

function changed(
  head: PolicyDocument,
  next: PolicyDocument,
  change: Exclude<WorkspaceChange, { readonly kind: "approve" }>,
): PolicyDocument {
  switch (change.kind) {
    case "ownerAdded": {
      const { name, keyHex } = change;
      if (head.approvers.some((one) => one.name === name))
        throw new Fault("exists", `the workspace has an owner "${name}" already`);
      if (head.groups.every((group) => group.name !== OWNERS)) throw byHand(`it has no group "${OWNERS}"`);
      return {
        ...next,
        approvers: [...head.approvers, { name, key: keyOf(keyHex) }],
        groups: head.groups.map((one) => (one.name === OWNERS ? { ...one, members: [...one.members, name] } : one)),
      };
    }
    case "ownerRemoved": {
      const { name } = change;
      if (head.approvers.every((one) => one.name !== name))
        throw new Fault("not_found", `the workspace has no owner "${name}"`, {
          hint: "keyhold workspace show WORKSPACE",
        });
      checkRoom(head, name);
      return {
        ...next,
        approvers: head.approvers.filter((one) => one.name !== name),
        groups: head.groups.map((one) => ({ ...one, members: one.members.filter((member) => member !== name) })),
      };
    }
    case "quorums": {
      const { admin, sign } = change;
      if (admin !== null && !isOwners(head.admins)) throw byHand("its admins are not simply its owners");
      const asked = head.rules.filter(({ require }) => isOwners(require));
      if (sign !== null && asked.length === 0) throw byHand("no rule of it asks simply its owners");
      return {
        ...next,
        ...(admin !== null && { admins: { kind: "group", name: OWNERS, atLeast: admin } }),
        rules: head.rules.map((rule) =>
          sign !== null && isOwners(rule.require)
            ? { ...rule, require: { kind: "group", name: OWNERS, atLeast: sign } }
            : rule,
        ),
      };
    }
    case "document":
      return policyFromJson(change.document, placeAfter(head));
  }
}

/** A quorum is never lowered silently: who removes an owner lowers it first. */
function checkRoom(head: PolicyDocument, name: string): void {
  const counts = [head.admins, ...head.rules.map(({ require }) => require)].flatMap((tree) =>
    tree?.kind === "group" && tree.name === OWNERS ? [tree.atLeast] : [],
  );
  const left = head.groups.find((one) => one.name === OWNERS)?.members.filter((one) => one !== name).length ?? 0;
  if (counts.every((count) => count <= left)) return;
  throw new Fault("bad_input", `without "${name}" too few owners are left for the workspace's quorums`, {
    why: `${Math.max(...counts)} must agree, and ${left} would be left`,
    hint: "lower the quorums first: keyhold workspace policy WORKSPACE --admin N --sign N",
  });
}

/** An owner's key as people hand it over: 64 hexadecimal digits. @throws Fault bad_input */
export function keyOf(hex: string): Uint8Array {
  if (/^[0-9a-f]{64}$/.test(hex)) return Uint8Array.fromHex(hex);
  throw new Fault("bad_input", "a key has 64 hexadecimal digits", {
    hint: "its owner sees it by: keyhold workspace me",
  });
}

/** Who must agree, in words. */
export function treeWords(tree: PolicyTree, document: PolicyDocument): string {
  switch (tree.kind) {
    case "approver":
      return tree.name;
    case "group": {
      const members = document.groups.find(({ name }) => name === tree.name)?.members ?? [];
      return `${tree.atLeast} of ${members.join(", ")}`;
    }
    case "remote":
      return `the engine ${tree.name}`;
    case "requester":
      return "whoever asks";
    case "all":
    case "any":
    case "threshold": {
      const count = tree.kind === "all" ? "all" : tree.kind === "any" ? "one" : String(tree.atLeast);
      return `${count} of (${tree.of.map((branch) => treeWords(branch, document)).join("; ")})`;
    }
  }
}

/** What a workspace's rules say of requests, in words. */
export function signersWords(document: PolicyDocument): string {
  const words = document.rules.map((rule) => {
    const what = [rule.actions.join(", ") || "everything", ...(rule.types.length > 0 ? [rule.types.join(", ")] : [])];
    const limits = [
      ...(rule.amount ? [`up to ${rule.amount.max} ${rule.amount.unit}`] : []),
      ...(rule.recipients ? [`to ${rule.recipients.length} recipients`] : []),
      ...(rule.rate ? [`${rule.rate.count} uses at a time`] : []),
      ...(rule.time ? ["at certain times"] : []),
    ];
    const about = [...what, ...limits].join("; ");
    return rule.require === null ? `nobody for ${about}` : `${treeWords(rule.require, document)} for ${about}`;
  });
  return words.join(" | ") || "nobody: no rule allows anything";
}

const json = (value: unknown): string => JSON.stringify(value);

/** Fields of a rule that differ, with what they were. */
function fieldsBetween(before: object, after: object): readonly string[] {
  const [was, is] = [new Map(Object.entries(before)), new Map(Object.entries(after))];
  return [...new Set([...is.keys(), ...was.keys()])]
    .filter((field) => json(was.get(field)) !== json(is.get(field)))
    .map((field) => `${field} ${json(is.get(field) ?? null)} (was ${json(was.get(field) ?? null)})`);
}

/** What one link changes of the one before it, in words; what differs otherwise is named too. */
export function changesBetween(before: PolicyDocument, after: PolicyDocument): readonly string[] {
  const said: string[] = [];
  for (const { name, key } of after.approvers) {
    const known = before.approvers.find((one) => one.name === name);
    if (!known) said.push(`adds the owner ${name} (${key.toHex()})`);
    else if (!equalBytes(known.key, key)) said.push(`gives the owner ${name} another key (${key.toHex()})`);
  }
  for (const { name } of before.approvers) {
    if (after.approvers.every((one) => one.name !== name)) said.push(`removes the owner ${name}`);
  }
  const admins = [before, after].map((document) => treeWords(document.admins, document));
  if (admins[0] !== admins[1]) said.push(`changes of the workspace: ${admins[1]} (was: ${admins[0]})`);
  const [was, is] = [before, after].map((one) => policyDocumentJson(one) as unknown as Rules);
  for (const rule of is?.rules ?? []) {
    const known = was?.rules.find(({ name }) => name === rule.name);
    if (!known) said.push(`adds the rule ${rule.name}: ${json(rule)}`);
    else if (json(known) !== json(rule))
      said.push(`changes the rule ${rule.name}: ${fieldsBetween(known, rule).join(", ")}`);
  }
  for (const { name } of was?.rules ?? []) {
    if (is?.rules.every((one) => one.name !== name)) said.push(`removes the rule ${name}`);
  }
  if (said.length === 0 || json(before.rules.map(({ name }) => name)) !== json(after.rules.map(({ name }) => name))) {
    said.push(`rules in this order: ${after.rules.map(({ name }) => name).join(", ")}`);
  }
  const groups = (document: PolicyDocument) =>
    document.groups.map(({ name, members }) => `${name} (${members.join(", ")})`).join("; ") || "none";
  if (groups(before) !== groups(after)) said.push(`groups: ${groups(after)} (was: ${groups(before)})`);
  const engines = (document: PolicyDocument) =>
    document.remotes.map(({ name, url, key }) => `${name} (${url}, ${key.toHex()})`).join("; ") || "none";
  if (engines(before) !== engines(after)) said.push(`engines: ${engines(after)} (was: ${engines(before)})`);
  return said;
}

interface Rules {
  readonly rules: readonly { readonly name: string }[];
}
