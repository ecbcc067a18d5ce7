import { equalBytes } from "../crypto/bytes.ts";
import type { Signer } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import type { KeyringId } from "../ids.ts";
import { type Certificate, certificateHash, type SignedCertificate } from "../protocol/federation/certificate.ts";
import type { SignedMessage } from "../protocol/federation/message.ts";
import type { SignedDecision, SignedOrder } from "../protocol/federation/request.ts";
import { signResponse } from "../protocol/keyring/response.ts";
import type { KeyView, Outcome, RequestView } from "../wire/federation/operations.ts";
import { portions } from "../wire/federation/portions.ts";
import type { Report, Task } from "../wire/keyring/views.ts";
import { isAway, type OwnServer, type RegistryEnd } from "./ends.ts";
import {
  demandPossession,
  examineAccepted,
  examineDecision,
  examineMessages,
  examineOrder,
  examineRequest,
  examineUsed,
  type Grounds,
  markOf,
  soundVotes,
} from "./examine.ts";
import type { Outbox } from "./outbox.ts";
import type { PolicyCourier } from "./policies.ts";

/** Everything that the duties of a connector need. */
export interface Desk {
  readonly grounds: Grounds;
  readonly own: OwnServer;
  readonly registry: RegistryEnd;
  readonly outbox: Outbox;
  readonly policies: PolicyCourier;
  /** Signs responses: the key of the party. */
  readonly party: Signer;
  /** Keyrings that the operator serves; null: every one of the registry that names this party. */
  readonly serves: ReadonlySet<KeyringId> | null;
  readonly now: () => number;
  /** Learns manifests up to an epoch from the own server. @throws Fault integrity, unavailable */
  learnEpoch(epoch: number): Promise<void>;
}

/** What became of a task. */
export type Done =
  | { readonly at: "report"; readonly report: Report; readonly over: boolean }
  /** Nothing can be said yet; `patient` where whoever is to be asked is away: that is no reason to give up. */
  /** `away`: the own server, or the registry, cannot be asked now. */
  | { readonly at: "wait"; readonly why: string; readonly patient: boolean; readonly away?: boolean }
  /** It cannot be done, however often it is tried. */
  | { readonly at: "dead"; readonly why: string };

const REASON_MAX = 300;
const cut = (text: string): string => (text.length <= REASON_MAX ? text : `${text.slice(0, REASON_MAX - 3)}...`);

/** A failure in words, without anything secret. */
export function reasonOf(fault: Fault): string {
  return cut(fault.why === undefined ? fault.message : `${fault.message}: ${fault.why}`);
}

const say = (report: Report, over = false): Done => ({ at: "report", report, over });
const missed = (attempt: number, why: string, final: boolean): Done =>
  say({ did: "missed", attempt, why: cut(why), final });

/** Refused for good by what the task itself is. */
const PERMANENT: ReadonlySet<string> = new Set(["integrity", "bad_input", "unsupported", "too_large"]);
/** Votes that count for nothing at the own server: it has newer ones, or its policy names no such key. */
const VOTE_ASIDE: ReadonlySet<string> = new Set(["denied", "stale", "conflict", "bad_input", "integrity"]);

/** The keyring exists, and this party stands in it beside the own server. @throws Fault */
async function demandParty(desk: Desk, keyringId: KeyringId): Promise<void> {
  const { outbox, registry, grounds, party } = desk;
  const noted = `keyring:${keyringId}`;
  if (outbox.fact(noted) !== null) return;
  const { manifest, parties } = await registry.call("keyring.get", { keyringId });
  const own = parties.find(({ party: one }) => equalBytes(one.key, party.publicKey));
  if (manifest.manifest.federationId !== grounds.federationId)
    throw new Fault("integrity", "the task's keyring stands on another federation");
  if (own?.party.index !== grounds.index)
    throw new Fault("denied", "the task's keyring does not name this party beside its own server", {
      hint: "its admins add it: keyhold keyring party add",
    });
  outbox.setFact(noted, String(desk.now()));
}

/** Signs the one response to an item, or gives the one that was signed before: never a second, different one. */
function answer(desk: Desk, task: Task, what: Parameters<typeof signResponse>[1]): Done {
  const { outbox, party, now } = desk;
  // looked for before anything is signed, and kept before it can leave
  const before = outbox.response(task.itemId);
  const response = before ?? outbox.keepResponse(signResponse(party, what), now());
  return say({ did: "response", response });
}

function reject(desk: Desk, task: Task, policyHash: Uint8Array, reason: string): Done {
  return answer(desk, task, {
    keyringId: task.keyringId,
    requestId: task.itemId,
    verdict: "rejected",
    attempt: 0,
    keyId: null,
    publicKey: null,
    certificateHash: null,
    policyHash,
    reason: reason === "" ? "the policy of this party's server denies it" : cut(reason),
  });
}

function fulfil(desk: Desk, task: Task, certificate: Certificate, attempt: number, policyHash: Uint8Array): Done {
  const { keyId, publicKey } = certificate;
  return answer(desk, task, {
    keyringId: task.keyringId,
    requestId: task.itemId,
    verdict: "fulfilled",
    attempt,
    keyId,
    publicKey,
    certificateHash: certificateHash(certificate),
    policyHash,
    reason: "",
  });
}

interface Prepared {
  readonly view: RequestView;
  /** Newest link at the own server. */
  readonly policyHash: Uint8Array;
}

/** Brings policy, request and votes to the own server; what is there already changes nothing. */
async function bring(desk: Desk, task: Task): Promise<Prepared> {
  const { own, policies } = desk;
  const { workspaceId } = markOf(task.request.request);
  const policyHash = await policies.bring(workspaceId, task.policyHash);
  let view: RequestView;
  try {
    view = await own.call("federation.submit", { request: task.request, label: null });
  } catch (error) {
    // perhaps it was put back to a state before the policy came
    if (error instanceof Fault && !isAway(error)) policies.forget(workspaceId);
    throw error;
  }
  const known = (key: Uint8Array, castAtMs: number): boolean =>
    view.votes.some(({ vote }) => equalBytes(vote.key, key) && vote.castAtMs >= castAtMs);
  for (const vote of soundVotes(task)) {
    if (view.status !== "awaiting_approval" && view.status !== "pending") break;
    if (known(vote.vote.key, vote.vote.castAtMs)) continue;
    try {
      view = await own.call("federation.vote", { vote });
    } catch (error) {
      if (!(error instanceof Fault) || !VOTE_ASIDE.has(error.code)) throw error;
    }
  }
  return { view, policyHash };
}

async function prepare(desk: Desk, task: Task): Promise<Done> {
  const { view, policyHash } = await bring(desk, task);
  switch (view.status) {
    case "rejected":
      return reject(desk, task, policyHash, view.why);
    case "awaiting_approval":
      return { at: "wait", why: cut(view.why || "the own server waits for approval"), patient: true };
    case "expired":
    case "cancelled":
      return missed(0, `the own server says: ${view.status}`, true);
    default:
      return say({ did: "ready" });
  }
}

const said = (attempt: number, reply: { messages: readonly SignedMessage[]; outcome: Outcome | null }): Done =>
  say({ did: "said", attempt, messages: reply.messages, outcome: reply.outcome });

/** A refusal of the own server in an attempt: its policy's is the party's word, everything else costs the attempt. */
async function refused(desk: Desk, task: Task, attempt: number, error: unknown): Promise<Done> {
  if (!(error instanceof Fault)) throw error;
  if (isAway(error)) return missed(attempt, reasonOf(error), false);
  if (error.code === "pending") return { at: "wait", why: reasonOf(error), patient: true };
  if (error.code === "denied") {
    // whether it was a policy is read, not guessed: a rejection is for good
    const view = await desk.own.call("federation.request", { requestId: task.itemId }).catch(() => null);
    if (view?.status === "rejected") return reject(desk, task, task.policyHash, view.why);
  }
  return missed(attempt, reasonOf(error), true);
}

async function begin(desk: Desk, task: Task, order: SignedOrder): Promise<Done> {
  const { grounds, outbox, own } = desk;
  const { attempt } = order.order;
  examineOrder(grounds, task, order);
  if (!outbox.keepOrder(task.itemId, order))
    return { at: "dead", why: `the registry has signed two orders for attempt ${attempt}` };
  try {
    const { view, policyHash } = await bring(desk, task);
    if (view.status === "rejected") return reject(desk, task, policyHash, view.why);
    return said(attempt, await own.call("federation.begin", { order }));
  } catch (error) {
    return refused(desk, task, attempt, error);
  }
}

async function relay(desk: Desk, task: Task, attempt: number, messages: readonly SignedMessage[]): Promise<Done> {
  const { grounds, own } = desk;
  examineMessages(grounds, task, attempt, messages);
  try {
    const parts = messages.length === 0 ? [[]] : portions(messages);
    let reply: { messages: readonly SignedMessage[]; outcome: Outcome | null } | null = null;
    for (const part of parts) {
      reply = await own.call("federation.relay", { requestId: task.itemId, attempt, messages: part });
    }
    return reply === null ? { at: "dead", why: "nothing was to be relayed" } : said(attempt, reply);
  } catch (error) {
    return refused(desk, task, attempt, error);
  }
}

/** The decision at the own server, which knows the request then even if it took no part. */
async function decided(desk: Desk, task: Task, decision: SignedDecision, certificate: SignedCertificate | null) {
  const { own } = desk;
  const tell = () => own.call("federation.decide", { decision, certificate });
  try {
    return await tell();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const cancels = decision.decision.verdict === "cancel";
    const { kind } = task.request.request.body;
    // its part of a use that the own server has let go is not taken back: there is nothing left to drop
    if (cancels && error.code === "conflict" && (kind === "sign" || kind === "release")) return null;
    if (error.code !== "not_found") throw error;
    if (cancels) return null;
    await bring(desk, task);
    return tell();
  }
}

/** The own server shows this very certificate, and a share where it is a holder. @throws Fault */
async function demandShown(desk: Desk, certificate: Certificate): Promise<KeyView> {
  const view = await desk.own.call("federation.key", { keyId: certificate.keyId });
  const { frozen, held } = view;
  if (frozen) throw new Fault("integrity", "the own server has frozen this key: two decisions were signed");
  if (!equalBytes(certificateHash(view.certificate.certificate), certificateHash(certificate)))
    throw new Fault("integrity", "the own server shows another certificate of this key");
  if (certificate.holders.includes(desk.grounds.index) && !held)
    throw new Fault("unavailable", "the own server does not show its share of this key yet");
  return view;
}

async function decide(desk: Desk, task: Task, work: Extract<Task["work"], { do: "decide" }>): Promise<Done> {
  const { grounds, outbox, policies } = desk;
  const { decision, certificate: signed, confirmations } = work;
  examineDecision(grounds, task, decision);
  const first = outbox.keepDecision(task.itemId, decision);
  if (decision.decision.verdict === "cancel") {
    await decided(desk, task, decision, null);
    // a second, contradicting word is brought too, so that the own server freezes the key: but it is not answered
    return first ? say({ did: "decided" }, true) : { at: "dead", why: "the registry has signed two decisions" };
  }
  if (signed === null) throw new Fault("bad_input", "the registry's acceptance brings no certificate");
  const certificate = examineAccepted(grounds, task, decision, signed);
  const manifest = grounds.manifestAt(certificate.epoch);
  demandPossession(manifest, certificate, confirmations, outbox.order(task.itemId, certificate.attempt));
  await decided(desk, task, decision, signed);
  if (!first) return { at: "dead", why: "the registry has signed two decisions" };
  const kept = outbox.response(task.itemId);
  if (kept) return say({ did: "response", response: kept });
  await demandShown(desk, certificate);
  const { workspaceId } = markOf(task.request.request);
  const policyHash = await policies.bring(workspaceId, task.policyHash);
  return fulfil(desk, task, certificate, certificate.attempt, policyHash);
}

async function respond(desk: Desk, task: Task, work: Extract<Task["work"], { do: "respond" }>): Promise<Done> {
  const { grounds, own, outbox, policies } = desk;
  const certificate = examineUsed(grounds, task, work.certificate);
  const order = outbox.order(task.itemId, work.attempt);
  await demandShown(desk, certificate);
  if (order !== null) {
    // it took part: then it must have let its part of the result go in this attempt
    const view = await own.call("federation.request", { requestId: task.itemId });
    if (view.status !== "fulfilled" || view.attempt !== work.attempt)
      return { at: "wait", why: "the own server has not finished this attempt", patient: false };
  }
  const { workspaceId } = markOf(task.request.request);
  const policyHash = await policies.bring(workspaceId, task.policyHash);
  return fulfil(desk, task, certificate, work.attempt, policyHash);
}

async function work(desk: Desk, task: Task): Promise<Done> {
  const { work: it } = task;
  switch (it.do) {
    case "prepare":
      return prepare(desk, task);
    case "begin":
      return begin(desk, task, it.order);
    case "relay":
      return relay(desk, task, it.attempt, it.messages);
    case "decide":
      return decide(desk, task, it);
    case "respond":
      return respond(desk, task, it);
    case "drop":
      return say({ did: "dropped" }, true);
  }
}

/** Epochs that a task speaks of. */
function epochsOf({ request, work: it }: Task): readonly number[] {
  const certificate = it.do === "respond" || it.do === "decide" ? it.certificate : null;
  return [request.request.epoch, ...(certificate ? [certificate.certificate.epoch] : [])];
}

/**
 * Does one task: verified first, then brought to the own server; whatever it was done before gives the same again. It
 * continues what an owner has signed, and can begin nothing (docs/protocol.md §9.6).
 *
 * @returns what is to be reported; never throws for what the registry or the own server say.
 */
export async function perform(desk: Desk, task: Task): Promise<Done> {
  try {
    // the word that was given stands, whatever is asked now
    const kept = desk.outbox.response(task.itemId);
    if (kept && task.work.do !== "drop" && task.work.do !== "decide") return say({ did: "response", response: kept });
    examineRequest(desk.grounds, task);
    if (desk.serves?.has(task.keyringId) === false && task.work.do !== "drop")
      return reject(desk, task, task.policyHash, "this party does not serve that keyring");
    for (const epoch of epochsOf(task)) await desk.learnEpoch(epoch);
    await demandParty(desk, task.keyringId);
    return await work(desk, task);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    if (PERMANENT.has(error.code)) return { at: "dead", why: reasonOf(error) };
    return { at: "wait", why: reasonOf(error), patient: isAway(error), away: isAway(error) };
  }
}
