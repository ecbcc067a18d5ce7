import { equalBytes } from "../../crypto/bytes.ts";
import { type Signer, verifySignature } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { FederationId, PolicyId } from "../../ids.ts";
import { recipientForm } from "../transaction/recipient.ts";
import {
  type Approver,
  type PolicyChain,
  type PolicyDocument,
  type PolicyRule,
  type PolicySignature,
  type PolicyTree,
  policyBytes,
  policyHash,
  policyIdOf,
  type RemoteEngine,
  type SignedPolicy,
} from "./policy.ts";

const KEY_BYTES = 32;
const DAY_MINUTES = 1_440;
const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const DIGITS = /^(0|[1-9][0-9]{0,39})$/;
/** Requests of these kinds declare no amount. */
const WITHOUT_AMOUNT = ["generate", "import", "reshare"];
/** Requests of these kinds pay nobody. */
const WITHOUT_RECIPIENTS = [...WITHOUT_AMOUNT, "retrieve", "export"];

const bad = (what: string, hint?: string) =>
  new Fault("bad_input", `this policy cannot be: ${what}`, hint === undefined ? {} : { hint });

const twice = (items: readonly string[]): string | undefined => items.find((item, at) => items.indexOf(item) !== at);

/** Who a tree may name. */
interface Cast {
  readonly approvers: ReadonlySet<string>;
  /** How many members each group has. */
  readonly groups: ReadonlyMap<string, number>;
  readonly remotes: ReadonlySet<string>;
}

function checkTree(tree: PolicyTree, cast: Cast, place: string): void {
  switch (tree.kind) {
    case "requester":
      return;
    case "approver":
      if (!cast.approvers.has(tree.name)) throw bad(`${place} names ${tree.name}, who is no approver`);
      return;
    case "remote":
      if (!cast.remotes.has(tree.name)) throw bad(`${place} names the remote engine ${tree.name}, which is not listed`);
      return;
    case "group": {
      const size = cast.groups.get(tree.name);
      if (size === undefined) throw bad(`${place} names the group ${tree.name}, which is not listed`);
      if (tree.atLeast < 1 || tree.atLeast > size) {
        throw bad(`${place} asks for ${tree.atLeast} of the group ${tree.name}, which has ${size}`);
      }
      return;
    }
    case "all":
    case "any":
    case "threshold": {
      if (tree.of.length === 0) throw bad(`${place} has nobody under ${tree.kind}`);
      // who stood there twice would count twice
      if (twice(tree.of.map((branch) => JSON.stringify(branch))) !== undefined) {
        throw bad(`${place} names the same twice under ${tree.kind}`, "each branch counts once: name another");
      }
      if (tree.kind === "threshold" && (tree.atLeast < 1 || tree.atLeast > tree.of.length)) {
        throw bad(`${place} asks for ${tree.atLeast} of ${tree.of.length}`);
      }
      for (const branch of tree.of) checkTree(branch, cast, place);
    }
  }
}

/** True when a node for which `is` holds stands anywhere in the tree. */
function holds(tree: PolicyTree, is: (node: PolicyTree) => boolean): boolean {
  return is(tree) || ("of" in tree && tree.of.some((branch) => holds(branch, is)));
}

function checkRule(rule: PolicyRule, cast: Cast): void {
  const place = `the rule ${rule.name}`;
  const repeated = twice(rule.actions) ?? twice(rule.types);
  if (repeated !== undefined) throw bad(`${place} names ${repeated} twice`);
  if (rule.time) {
    const { fromMinute, toMinute, days } = rule.time;
    if (
      fromMinute < 0 ||
      fromMinute >= DAY_MINUTES ||
      toMinute < 1 ||
      toMinute > DAY_MINUTES ||
      fromMinute === toMinute
    )
      throw bad(`${place} has no such time of day`);
    if (days.length === 0 || new Set(days).size !== days.length || !days.every((day) => day >= 0 && day <= 6))
      throw bad(`${place} names no day, or one twice`);
  }
  if (rule.effect === "deny") {
    if (rule.require !== null || rule.requesterMayApprove) throw bad(`${place} denies: nobody can agree to it`);
    if (rule.rate !== null || rule.amount !== null || rule.recipients !== null) {
      throw bad(
        `${place} denies and has a limit`,
        "put the limit into the rules that allow: what none allows is denied",
      );
    }
    return;
  }
  if (rule.require === null) throw bad(`${place} does not say who must agree`, 'the owner alone: {"requester":true}');
  if (!Number.isSafeInteger(rule.voteMs) || rule.voteMs < 1) throw bad(`${place} lets no vote count`);
  if (rule.rate && (rule.rate.count < 1 || rule.rate.windowMs < 1)) {
    throw bad(`${place} has a rate of nothing`, "leave the rule out: what no rule allows is denied");
  }
  if (rule.amount) {
    if (!DIGITS.test(rule.amount.max)) throw bad(`${place} has an amount that is no whole number`);
    const never = rule.actions.find((action) => WITHOUT_AMOUNT.includes(action));
    if (never !== undefined) throw bad(`${place} has an amount, which a request to ${never} never declares`);
  }
  if (rule.recipients) checkRecipients(rule.recipients, rule, place);
  checkTree(rule.require, cast, place);
}

/** Addresses that can be read, each once: one with a slip in it would never match. */
function checkRecipients(recipients: readonly string[], rule: PolicyRule, place: string): void {
  if (recipients.length === 0) throw bad(`${place} lists no recipient`, "leave the list out: then anybody may be paid");
  const never = rule.actions.find((action) => WITHOUT_RECIPIENTS.includes(action));
  if (never !== undefined) throw bad(`${place} lists recipients, whom a request to ${never} never has`);
  const forms = recipients.map((one) => {
    const form = recipientForm(one);
    if (form !== null) return form;
    throw bad(`${place} lists the recipient ${one}, which is no address`, "EVM and Bitcoin addresses, or script:HEX");
  });
  const at = forms.findIndex((form, i) => forms.indexOf(form) !== i);
  if (at >= 0) throw bad(`${place} lists the recipient ${recipients[at]} twice`);
}

function checkRemote({ name, url, timeoutMs }: RemoteEngine): void {
  const parsed = URL.parse(url);
  if (parsed?.protocol !== "https:" || parsed.username || parsed.password || parsed.hash) {
    throw bad(`the remote engine ${name} needs an https address without a password and without #`);
  }
  if (timeoutMs < 100 || timeoutMs > 30_000) throw bad(`the remote engine ${name} has 100 ms to 30 s to answer`);
}

/**
 * Checks everything that one link says by itself: names, keys, references, thresholds, rules.
 *
 * @throws Fault bad_input with what to mend.
 */
export function checkDocument(document: PolicyDocument): void {
  const { approvers, groups, remotes, rules, version, previous } = document;
  const named = [
    ["approvers", approvers],
    ["groups", groups],
    ["remote engines", remotes],
    ["rules", rules],
  ] as const;
  for (const [what, items] of named) {
    const names = items.map(({ name }) => name);
    const repeated = twice(names);
    if (repeated !== undefined) throw bad(`two of its ${what} are called ${repeated}`);
    const strange = names.find((name) => !NAME.test(name));
    if (strange !== undefined)
      throw bad(`names are small letters, digits and . _ -, and one of its ${what} has another`);
  }
  if (!NAME.test(document.name)) throw bad("its name is small letters, digits and . _ -");
  const parties = [...approvers, ...remotes];
  if (!parties.every(({ key }) => key.length === KEY_BYTES)) throw bad(`keys have ${KEY_BYTES} bytes`);
  const shared = twice(parties.map(({ key }) => key.toHex()));
  if (shared !== undefined) {
    const both = parties.filter(({ key }) => key.toHex() === shared).map(({ name }) => name);
    throw bad(`${both.join(" and ")} have the same key`, "one key is one vote");
  }
  for (const { name, members } of groups) {
    const repeated = twice(members);
    if (repeated !== undefined) throw bad(`the group ${name} names ${repeated} twice`);
    const stranger = members.find((member) => !approvers.some((a) => a.name === member));
    if (stranger !== undefined) throw bad(`the group ${name} names ${stranger}, who is no approver`);
    if (members.length === 0) throw bad(`the group ${name} has no members`);
  }
  remotes.forEach(checkRemote);
  const cast: Cast = {
    approvers: new Set(approvers.map(({ name }) => name)),
    groups: new Map(groups.map(({ name, members }) => [name, members.length])),
    remotes: new Set(remotes.map(({ name }) => name)),
  };
  if (holds(document.admins, ({ kind }) => kind === "remote" || kind === "requester")) {
    throw bad("its admins are approvers and groups of them", "no remote engine and no requester changes a policy");
  }
  checkTree(document.admins, cast, "admins");
  for (const rule of rules) checkRule(rule, cast);
  const first = version === 1;
  if (!Number.isSafeInteger(version) || version < 1) throw bad("versions count from 1");
  if (previous.length !== KEY_BYTES || (first && previous.some((byte) => byte !== 0))) {
    throw bad("version 1 follows nothing");
  }
}

/** Signs one link of a chain with an approval key. */
export function signPolicy(signer: Signer, document: PolicyDocument): PolicySignature {
  return { key: signer.publicKey, signature: signer.sign(policyBytes(document)) };
}

/** True when the approvers in `agreed` (by name) satisfy a tree of approvers and groups. */
function agrees(tree: PolicyTree, agreed: ReadonlySet<string>, document: PolicyDocument): boolean {
  switch (tree.kind) {
    case "approver":
      return agreed.has(tree.name);
    case "group": {
      const members = document.groups.find(({ name }) => name === tree.name)?.members ?? [];
      return new Set(members.filter((name) => agreed.has(name))).size >= tree.atLeast;
    }
    case "all":
      return tree.of.every((branch) => agrees(branch, agreed, document));
    case "any":
      return tree.of.some((branch) => agrees(branch, agreed, document));
    case "threshold":
      return tree.of.filter((branch) => agrees(branch, agreed, document)).length >= tree.atLeast;
    case "remote":
    case "requester":
      return false;
  }
}

/** The approvers of `by` whose valid signatures stand under a link. */
export function signersOf(by: PolicyDocument, { document, signatures }: SignedPolicy): readonly Approver[] {
  const bytes = policyBytes(document);
  return by.approvers.filter(({ key }) =>
    signatures.some((s) => equalBytes(s.key, key) && verifySignature(key, bytes, s.signature)),
  );
}

/**
 * True when enough admins have signed a link.
 *
 * @param by The link before it; of version 1 the link itself.
 */
export function adminsAgree(by: PolicyDocument, link: SignedPolicy): boolean {
  return agrees(by.admins, new Set(signersOf(by, link).map(({ name }) => name)), by);
}

/**
 * Verifies one link against the verified one before it.
 *
 * @param before Null for version 1.
 * @throws Fault bad_input for a document that cannot be; integrity when it does not follow or too few admins signed.
 */
export function verifyLink(before: PolicyDocument | null, link: SignedPolicy): PolicyDocument {
  const { document } = link;
  checkDocument(document);
  const follows =
    before === null
      ? document.version === 1
      : document.version === before.version + 1 &&
        document.federationId === before.federationId &&
        document.name === before.name &&
        equalBytes(document.previous, policyHash(before));
  if (!follows) throw new Fault("integrity", "this version of the policy does not follow the one before it");
  if (!adminsAgree(before ?? document, link)) {
    throw new Fault("integrity", "too few admins have signed this version of the policy");
  }
  return document;
}

/** A chain that was verified from its first link to its newest. */
export interface VerifiedChain {
  readonly policyId: PolicyId;
  /** The newest link. */
  readonly head: PolicyDocument;
  /** {@link policyHash} of the newest link: what votes name. */
  readonly headHash: Uint8Array;
}

/**
 * Verifies a chain: every link follows the one before it and is signed by that one's admins, the first by its own.
 * That it is the newest cannot be seen from it.
 *
 * @throws Fault bad_input, integrity
 */
export function verifyChain(chain: PolicyChain, federationId: FederationId): VerifiedChain {
  const [first] = chain;
  if (first === undefined) throw new Fault("bad_input", "a policy has at least one version");
  let head: PolicyDocument | null = null;
  for (const link of chain) head = verifyLink(head, link);
  if (head === null || head.federationId !== federationId) {
    throw new Fault("integrity", "this policy belongs to another federation");
  }
  return { policyId: policyIdOf(first.document), head, headHash: policyHash(head) };
}
