import { equalBytes } from "../../crypto/bytes.ts";
import type { FederatedRequestId } from "../../ids.ts";
import { isTransactionUnit } from "../transaction/facts.ts";
import { recipientForm } from "../transaction/recipient.ts";
import type { Certificate } from "./certificate.ts";
import type {
  AmountCondition,
  Approver,
  PolicyDocument,
  PolicyRule,
  PolicyTree,
  RemoteEngine,
  SignedVote,
  TimeCondition,
  Vote,
} from "./policy.ts";
import { type CountUses, covers, factsOf, POLICY_ACTIONS, RELEASING, type RequestFacts } from "./policyaction.ts";
import type { VerifiedChain } from "./policychain.ts";
import type { FederatedRequest } from "./request.ts";
import { liveVotes } from "./votes.ts";

const MINUTE_MS = 60_000;
const DAY_MINUTES = 1_440;
const DAYS = 7;
/** Weekday of 1 January 1970: a Thursday. */
const EPOCH_DAY = 4;
/** UTF-8 bytes of an explanation at most. */
const WHY_MAX = 1_024;
/** Characters of a recipient in an explanation at most. */
const SHOWN_MAX = 128;

export type PolicyDecision = "allow" | "deny" | "wait";

/** What one policy says of a request. */
export interface Evaluation {
  readonly decision: PolicyDecision;
  /** The rule that decided, or that waits. */
  readonly rule: string | null;
  /** For people. */
  readonly why: string;
  /** Of a request that waits: whose approval would still count. */
  readonly missing: readonly Approver[];
  /** Of a request that waits: engines whose verdict would still count. */
  readonly remotes: readonly RemoteEngine[];
}

export interface EvaluateInput {
  readonly request: FederatedRequest;
  readonly requestId: FederatedRequestId;
  /** Of the key that the request is about; null for one that makes a key. */
  readonly certificate: Certificate | null;
  /** The approval key enrolled beside the request key; null where it isn't known: then no approver can be told from it. */
  readonly requesterApproval: Uint8Array | null;
  readonly policy: Pick<VerifiedChain, "head" | "headHash">;
  /** As they came: signatures and subject are checked here. */
  readonly votes: readonly SignedVote[];
  readonly uses: CountUses;
  readonly nowMs: number;
}

/**
 * What a policy's newest version says of a request (docs/protocol.md §8.7). A denying rule that matches wins; else the
 * first allowing rule that matches decides: allowed once its tree holds, denied once rejections make that impossible,
 * otherwise waiting. Where no rule matches, the request is denied.
 *
 * @throws Fault bad_input when the certificate is missing or another key's, or a transaction cannot be read.
 */
export function evaluate(input: EvaluateInput): Evaluation {
  const { federationId, epoch } = input.request;
  const subject = { federationId, epoch, requestId: input.requestId, policyHash: input.policy.headHash };
  return decide({ ...input, document: input.policy.head, votes: liveVotes(input.votes, subject, input.nowMs) });
}

export type DecideInput = Omit<EvaluateInput, "policy" | "votes"> & {
  /** Supposed ones to try a policy out; otherwise those of the request. */
  readonly facts?: RequestFacts;
  readonly document: PolicyDocument;
  /** Verified and live: from {@link liveVotes}, or supposed ones to try a policy out. */
  readonly votes: readonly Vote[];
};

/** {@link evaluate} for votes that were verified already. */
export function decide(input: DecideInput): Evaluation {
  const { document } = input;
  const facts = input.facts ?? factsOf(input.request, input.certificate);
  const denying = document.rules.find((r) => r.effect === "deny" && mismatch(r, facts, input) === null);
  if (denying) return ruling("deny", denying.name, `the rule ${denying.name} denies it`);
  const why: string[] = [];
  for (const rule of document.rules) {
    if (rule.effect !== "allow" || rule.require === null) continue;
    const not = mismatch(rule, facts, input);
    if (not === null) return consent(rule, rule.require, input);
    why.push(`${rule.name}: ${not}`);
  }
  const reasons = why.length === 0 ? "none allows anything" : why.join("; ");
  return ruling("deny", null, `no rule allows ${facts.action} of ${facts.type} here: ${reasons}`);
}

function ruling(decision: PolicyDecision, rule: string | null, why: string): Evaluation {
  return { decision, rule, why: shortened(why), missing: [], remotes: [] };
}

/** Printable, and within the wire's limit. */
function shortened(why: string): string {
  const shown = why.toWellFormed().replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu, "?");
  const bytes = new TextEncoder().encode(shown);
  if (bytes.length <= WHY_MAX) return shown;
  // what a cut leaves of its last character is dropped
  const cut = new TextDecoder().decode(bytes.subarray(0, WHY_MAX - 3)).replace(/\ufffd+$/, "");
  return `${cut}…`;
}

/** Why a rule is not about this request now; null when it is. */
function mismatch(rule: PolicyRule, facts: RequestFacts, input: DecideInput): string | null {
  if (!covers(rule, facts.action)) {
    return RELEASING.includes(facts.action) ? `does not name ${facts.action}` : `not for ${facts.action}`;
  }
  if (facts.lowers && rule.effect === "allow" && !rule.actions.includes("reshare"))
    return "does not name reshare, and this one lowers the threshold";
  if (rule.types.length > 0 && !rule.types.includes(facts.type)) return `not for ${facts.type}`;
  if (rule.time && !isWithin(rule.time, input.nowMs)) return "not at this time";
  const beyond =
    (rule.amount && aboveLimit(rule.amount, facts)) ?? (rule.recipients && stranger(rule.recipients, facts));
  if (beyond !== null) return beyond;
  if (rule.rate && used(rule, facts, input) >= rule.rate.count) return `used ${rule.rate.count} times already`;
  return null;
}

/** Why a request's amount is not within a limit; null when it is. */
function aboveLimit({ unit, max }: AmountCondition, { form, amount, recipients }: RequestFacts): string | null {
  if (form === "digest") return "a digest does not say what it moves";
  if (recipients === null && isTransactionUnit(unit)) {
    return `amounts in ${unit} are read from transactions, and this is none`;
  }
  if (amount === null) {
    return recipients === null ? "the request declares no amount" : "what the transaction moves cannot be read";
  }
  if (amount.unit !== unit) return `not for amounts in ${amount.unit}`;
  return BigInt(amount.value) > BigInt(max) ? `more than ${max} ${unit}` : null;
}

/** Which recipient of a transaction a rule does not list; null when all are. */
function stranger(listed: readonly string[], { recipients }: RequestFacts): string | null {
  if (recipients === null) return "who is paid is read from transactions alone, and this is none";
  if (recipients.length === 0) return "the transaction pays nobody who can be read";
  const known = new Set(listed.map(recipientForm));
  const other = recipients.find((one) => !known.has(recipientForm(one) ?? ""));
  return other === undefined ? null : `${other.slice(0, SHOWN_MAX)} is not among its recipients`;
}

function used(rule: PolicyRule, { keyId }: RequestFacts, { request, requestId, uses, nowMs }: DecideInput): number {
  const actions = POLICY_ACTIONS.filter((action) => covers(rule, action));
  const sinceMs = Math.max(0, nowMs - (rule.rate?.windowMs ?? 0) + 1);
  return uses(sinceMs, { except: requestId, actions, keyId, requester: request.requester });
}

/** Where the time begins later than it ends, it goes on past midnight and belongs to the day on which it began. */
function isWithin({ fromMinute, toMinute, days }: TimeCondition, nowMs: number): boolean {
  const minutes = Math.floor(nowMs / MINUTE_MS);
  const minute = minutes % DAY_MINUTES;
  const day = (Math.floor(minutes / DAY_MINUTES) + EPOCH_DAY) % DAYS;
  if (fromMinute < toMinute) return minute >= fromMinute && minute < toMinute && days.includes(day);
  return minute >= fromMinute ? days.includes(day) : minute < toMinute && days.includes((day + DAYS - 1) % DAYS);
}

/** `maybe`: nobody knows yet. */
type Answer = "yes" | "no" | "maybe";

/** What a branch says, and who could still change that. */
interface Tally {
  readonly answer: Answer;
  readonly missing: readonly string[];
  readonly remotes: readonly string[];
}

/** Parties that a tree names, itself or by a group. */
function named(tree: PolicyTree, document: PolicyDocument): readonly string[] {
  if ("of" in tree) return tree.of.flatMap((branch) => named(branch, document));
  if (tree.kind === "requester") return [];
  if (tree.kind !== "group") return [`${tree.kind} ${tree.name}`];
  const members = document.groups.find(({ name }) => name === tree.name)?.members ?? [];
  return members.map((name) => `approver ${name}`);
}

function consent(rule: PolicyRule, require: PolicyTree, input: DecideInput): Evaluation {
  const { document } = input;
  const asked = new Set(named(require, document));
  const approvers = document.approvers.filter(({ name }) => asked.has(`approver ${name}`));
  const engines = document.remotes.filter(({ name }) => asked.has(`remote ${name}`));
  const spoken: string[] = [];
  const answers = new Map(approvers.map((one): [string, Answer] => [one.name, answerOf(one, rule, input, spoken)]));
  const verdicts = new Map(engines.map((one): [string, Answer] => [one.name, voted(one, rule, input, spoken)]));
  const { answer, missing, remotes } = tally(require, { document, answers, verdicts });
  const said = spoken.length === 0 ? "" : `; ${spoken.join("; ")}`;
  if (answer === "yes") return ruling("allow", rule.name, `the rule ${rule.name} allows it${said}`);
  if (answer === "no") return ruling("deny", rule.name, `the rule ${rule.name} cannot be met${said}`);
  const whom = [...new Set([...missing, ...remotes])].join(", ");
  const why = `the rule ${rule.name} waits for ${describe(require)}; not heard from: ${whom}${said}`;
  return {
    ...ruling("wait", rule.name, why),
    missing: approvers.filter(({ name }) => missing.includes(name)),
    remotes: engines.filter(({ name }) => remotes.includes(name)),
  };
}

/** A tree in words. */
function describe(tree: PolicyTree): string {
  switch (tree.kind) {
    case "requester":
      return "the requester";
    case "approver":
      return tree.name;
    case "remote":
      return `the engine ${tree.name}`;
    case "group":
      return `${tree.atLeast} of the group ${tree.name}`;
    case "all":
    case "any":
    case "threshold": {
      const [first] = tree.of;
      if (first !== undefined && tree.of.length === 1) return describe(first);
      const count = tree.kind === "all" ? "all" : tree.kind === "any" ? "one" : String(tree.atLeast);
      return `${count} of (${tree.of.map(describe).join(", ")})`;
    }
  }
}

const UNKNOWN = "it is not known which approver asks";

function answerOf(approver: Approver, rule: PolicyRule, input: DecideInput, spoken: string[]): Answer {
  if (rule.requesterMayApprove) return voted(approver, rule, input, spoken);
  const { requesterApproval, request } = input;
  if (requesterApproval === null) {
    if (!spoken.includes(UNKNOWN)) spoken.push(UNKNOWN);
    return "no";
  }
  if (equalBytes(approver.key, requesterApproval) || equalBytes(approver.key, request.requester)) {
    spoken.push(`${approver.name} asks and may not approve`);
    return "no";
  }
  return voted(approver, rule, input, spoken);
}

function voted(party: Approver, { voteMs }: PolicyRule, { votes, nowMs }: DecideInput, spoken: string[]): Answer {
  const vote = votes.find(({ key }) => equalBytes(key, party.key));
  if (vote === undefined || nowMs >= vote.expiresAtMs || nowMs >= vote.castAtMs + voteMs) return "maybe";
  if (vote.verdict === "approve") {
    spoken.push(`${party.name} approved`);
    return "yes";
  }
  spoken.push(`${party.name} rejected${vote.reason === "" ? "" : `: ${vote.reason}`}`);
  return "no";
}

interface Voices {
  readonly document: PolicyDocument;
  readonly answers: ReadonlyMap<string, Answer>;
  readonly verdicts: ReadonlyMap<string, Answer>;
}

function tally(tree: PolicyTree, voices: Voices): Tally {
  switch (tree.kind) {
    // the request itself carries the requester's signature
    case "requester":
      return { answer: "yes", missing: [], remotes: [] };
    case "approver": {
      const answer = voices.answers.get(tree.name) ?? "no";
      return { answer, missing: answer === "maybe" ? [tree.name] : [], remotes: [] };
    }
    case "remote": {
      const answer = voices.verdicts.get(tree.name) ?? "no";
      return { answer, missing: [], remotes: answer === "maybe" ? [tree.name] : [] };
    }
    case "group": {
      const members = new Set(voices.document.groups.find(({ name }) => name === tree.name)?.members ?? []);
      const branches = [...members].map((name) => tally({ kind: "approver", name }, voices));
      return gathered(branches, tree.atLeast);
    }
    case "all":
    case "any":
    case "threshold": {
      const atLeast = tree.kind === "all" ? tree.of.length : tree.kind === "any" ? 1 : tree.atLeast;
      return gathered(
        tree.of.map((branch) => tally(branch, voices)),
        atLeast,
      );
    }
  }
}

function gathered(branches: readonly Tally[], atLeast: number): Tally {
  const count = (answer: Answer) => branches.filter((branch) => branch.answer === answer).length;
  // a node that asks for nobody is not a consent
  if (atLeast < 1) return { answer: "no", missing: [], remotes: [] };
  if (count("yes") >= atLeast) return { answer: "yes", missing: [], remotes: [] };
  if (count("yes") + count("maybe") < atLeast) return { answer: "no", missing: [], remotes: [] };
  const open = branches.filter((branch) => branch.answer === "maybe");
  return {
    answer: "maybe",
    missing: open.flatMap((branch) => branch.missing),
    remotes: open.flatMap((branch) => branch.remotes),
  };
}
