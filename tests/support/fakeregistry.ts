import type { RegistryEnd } from "../../src/connector/ends.ts";
import { equalBytes } from "../../src/crypto/bytes.ts";
import { hpkeSeal } from "../../src/crypto/hpke.ts";
import type { Signer } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedRequestId, KeyringRequestId } from "../../src/ids.ts";
import { certificateHash, type SignedCertificate } from "../../src/protocol/federation/certificate.ts";
import { memberOf, rosterMin, type SignedManifest } from "../../src/protocol/federation/manifest.ts";
import type { SignedVote } from "../../src/protocol/federation/policy.ts";
import {
  contributionInfo,
  requestIdOf,
  type SignedDecision,
  type SignedOrder,
  type SignedRequest,
  signDecision,
  signOrder,
} from "../../src/protocol/federation/request.ts";
import { assembleCertificate } from "../../src/protocol/federation/transcript.ts";
import type { Party } from "../../src/protocol/keyring/keyring.ts";
import { responseBytes, type SignedResponse, verifyResponse } from "../../src/protocol/keyring/response.ts";
import { decodeJson, encodeJson } from "../../src/wire/codec.ts";
import { type Exchange, startExchange } from "../../src/wire/federation/exchange.ts";
import type { Report, Task } from "../../src/wire/keyring/views.ts";
import { type InputOf, operations } from "../../src/wire/operations.ts";
import { random } from "./harness.ts";
import { KEYRING, type TestWorkspace } from "./keyringrequests.ts";

/** A registry that does what its connectors need and nothing else, written apart from the real one. */
export interface FakeRegistry {
  readonly signer: Signer;
  /** The newest state of the workspace that its tasks speak of. */
  workspace: TestWorkspace;
  /** Puts an approved item before the parties; of a use with the key's certificate. */
  ask(request: SignedRequest, votes: readonly SignedVote[], certificate?: SignedCertificate): FederatedRequestId;
  /** What a party with this key talks to. */
  end(key: Uint8Array): RegistryEnd;
  item(id: FederatedRequestId): FakeItem;
  all(): Iterable<FakeItem>;
  /** Changes what one party is told. */
  tamper: (task: Task, party: Party) => Task;
  /** Runs before each call; throws where the registry is to be away. */
  before: (name: string, party: Party) => void;
  /** Calls by name. */
  readonly calls: string[];
}

export interface FakeItem {
  readonly request: SignedRequest;
  readonly votes: readonly SignedVote[];
  /** Every response that came, duplicates too. */
  readonly responses: SignedResponse[];
  /** Reports by party, as they came. */
  readonly reports: { readonly party: string; readonly report: Report }[];
  certificate: SignedCertificate | null;
  decision: SignedDecision | null;
  order: SignedOrder | null;
  /** What each party is to do now, by its key. */
  readonly due: Map<string, Task>;
}

interface Course extends FakeItem {
  seq: number;
  exchange: Exchange | null;
  readonly ready: Set<number>;
  /** Nobody is ordered into an attempt before. */
  begun: boolean;
  attempt: number;
}

/** Different things that parties said about an item. */
export const distinct = (responses: readonly SignedResponse[]): readonly SignedResponse[] =>
  responses.filter(
    (one, i) =>
      responses.findIndex((other) => equalBytes(responseBytes(other.response), responseBytes(one.response))) === i,
  );

export function fakeRegistry(
  signer: Signer,
  manifest: SignedManifest,
  parties: readonly Party[],
  first: TestWorkspace,
): FakeRegistry {
  const items = new Map<FederatedRequestId, Course>();
  const { manifest: members } = manifest;
  const everyone = parties.length;

  function give(id: FederatedRequestId, item: Course, party: Party, work: Task["work"]): void {
    item.seq += 1;
    const { chain, headHash } = registry.workspace;
    if (chain.length === 0) throw new Error("no policy");
    item.due.set(party.key.toHex(), {
      keyringId: KEYRING,
      requestId: String(id) as KeyringRequestId,
      itemId: id,
      seq: item.seq,
      policyHash: headHash,
      request: item.request,
      work,
    });
  }

  const least = (item: Course): number => {
    const { body } = item.request.request;
    if (body.kind === "generate") return rosterMin(members.servers.length, members.threshold);
    return item.certificate?.certificate.threshold ?? members.threshold;
  };

  async function begin(id: FederatedRequestId, item: Course): Promise<void> {
    item.begun = true;
    item.attempt += 1;
    const { attempt } = item;
    const makes = item.request.request.body.kind === "generate";
    const all = [...item.ready].sort((a, b) => a - b);
    const roster = makes ? all : all.slice(0, least(item));
    const contributions = await Promise.all(
      (makes ? roster : []).map(async (index) => {
        const { sealing } = memberOf(members, index);
        return { index, sealed: await hpkeSeal(sealing, contributionInfo(id, attempt, index), random(32), random) };
      }),
    );
    item.order = signOrder(signer, { requestId: id, attempt, roster, contributions, ownerNonces: null });
    item.exchange = startExchange(members, item.order, makes ? roster : [], () => false);
    item.due.clear();
    for (const party of parties) {
      if (roster.includes(party.index)) give(id, item, party, { do: "begin", order: item.order, votes: item.votes });
    }
  }

  function move(id: FederatedRequestId, item: Course): void {
    const { exchange, order } = item;
    if (!exchange || !order || item.decision || item.due.size > 0) return;
    for (const party of parties) {
      if (!order.order.roster.includes(party.index)) continue;
      const messages = exchange.dueTo(party.index);
      if (messages.length > 0) give(id, item, party, { do: "relay", attempt: item.attempt, messages });
    }
    if (item.due.size > 0) return;
    const end = exchange.standstill();
    if (item.request.request.body.kind !== "generate") {
      const partials = end.said.filter(({ message }) => message.payload.round === "partial");
      if (partials.length < order.order.roster.length || !item.certificate) {
        again(id, item);
        return;
      }
      for (const party of parties)
        give(id, item, party, { do: "respond", attempt: item.attempt, certificate: item.certificate });
      item.exchange = null;
      return;
    }
    const terms = { manifest: members, request: item.request.request, order: order.order, before: null };
    const views = [...end.confirmed.values()].flatMap(({ certificate }) => (certificate ? [{ certificate }] : []));
    const agreed = assembleCertificate(terms, views, end.said);
    if (!agreed) {
      again(id, item);
      return;
    }
    const hash = certificateHash(agreed.certificate);
    item.decision = signDecision(signer, {
      requestId: id,
      verdict: "accept",
      attempt: item.attempt,
      certificateHash: hash,
    });
    item.certificate = { ...agreed, acceptance: item.decision };
    const confirmations = end.said.filter(({ message }) => message.payload.round === "confirm");
    for (const party of parties)
      give(id, item, party, { do: "decide", decision: item.decision, certificate: item.certificate, confirmations });
  }

  /** The attempt came to nothing: everybody is asked anew. */
  function again(id: FederatedRequestId, item: Course): void {
    item.exchange = null;
    item.begun = false;
    item.ready.clear();
    item.due.clear();
    for (const party of parties) give(id, item, party, { do: "prepare", votes: item.votes });
  }

  async function heard(party: Party, itemId: FederatedRequestId, seq: number, report: Report): Promise<void> {
    const item = items.get(itemId);
    if (!item) throw new Fault("not_found", "no such item");
    item.reports.push({ party: party.name, report });
    const key = party.key.toHex();
    const current = item.due.get(key)?.seq === seq;
    if (report.did === "response") {
      verifyResponse(report.response);
      if (!equalBytes(report.response.response.key, party.key)) throw new Fault("denied", "of another party");
      item.responses.push(report.response);
      item.due.delete(key);
      return;
    }
    if (!current) return;
    const task = item.due.get(key);
    switch (report.did) {
      case "ready":
        item.due.delete(key);
        item.ready.add(party.index);
        if (!item.begun && item.ready.size >= (item.request.request.body.kind === "generate" ? everyone : least(item)))
          await begin(itemId, item);
        return;
      case "said":
        item.due.delete(key);
        if (task?.work.do === "relay") item.exchange?.brought(party.index, task.work.messages);
        item.exchange?.hear(party.index, report.messages, report.outcome);
        move(itemId, item);
        return;
      case "missed":
        if (report.attempt === 0 && !report.final) return;
        item.due.delete(key);
        item.exchange?.miss(party.index, report.why, report.final);
        move(itemId, item);
        return;
      case "decided":
      case "dropped":
        item.due.delete(key);
    }
  }

  /** Everything passes the codecs, as on the wire. */
  const coded = <T>(codec: unknown, value: T): T =>
    decodeJson(codec as never, new TextEncoder().encode(encodeJson(codec as never, value as never))) as T;

  const registry: FakeRegistry = {
    signer,
    workspace: first,
    tamper: (task) => task,
    before: () => undefined,
    calls: [],
    ask(request, votes, certificate) {
      const id = requestIdOf(request.request);
      const item: Course = {
        request,
        votes,
        responses: [],
        reports: [],
        certificate: certificate ?? null,
        decision: null,
        order: null,
        due: new Map(),
        seq: 0,
        exchange: null,
        ready: new Set(),
        begun: false,
        attempt: 0,
      };
      items.set(id, item);
      for (const party of parties) give(id, item, party, { do: "prepare", votes });
      return id;
    },
    all: () => items.values(),
    item(id) {
      const found = items.get(id);
      if (!found) throw new Error("no such item");
      return found;
    },
    end(key) {
      const party = parties.find((one) => equalBytes(one.key, key));
      if (!party) throw new Error("no such party");
      const answer = async (name: string, input: unknown): Promise<unknown> => {
        switch (name) {
          case "party.tasks": {
            const { max, waitMs } = input as InputOf<"party.tasks">;
            const all = [...items.values()].flatMap(({ due }) => due.get(key.toHex()) ?? []);
            if (all.length === 0) await Bun.sleep(Math.min(waitMs, 5));
            const tasks = all.slice(0, max).map((task) => registry.tamper(task, party));
            return { tasks, more: all.length > max };
          }
          case "party.report":
            for (const { itemId, seq, report } of (input as InputOf<"party.report">).reports)
              await heard(party, itemId, seq, report);
            return {};
          case "keyring.get": {
            const view = (one: Party) => ({
              party: one,
              quarantined: false,
              enrolled: true,
              lastSeenAtMs: null,
              lastResponseAtMs: null,
              backlog: 0,
              version: "",
              state: "",
              deadLetters: 0,
            });
            return {
              keyringId: KEYRING,
              name: "vaults",
              manifest,
              threshold: members.threshold,
              fees: { key: 1, signature: 1 },
              active: true,
              admins: [],
              parties: parties.map(view),
              evidence: [],
              own: false,
              createdAtMs: 1,
            };
          }
          case "workspace.policy": {
            const { after } = input as InputOf<"workspace.policy">;
            const { chain } = registry.workspace;
            return { chain: chain.slice(after, after + 8), more: chain.length > after + 8 };
          }
          default:
            throw new Error(`the fake registry has no ${name}`);
        }
      };
      return {
        async call(name, input) {
          registry.calls.push(name);
          registry.before(name, party);
          const given = coded(operations[name].input, input);
          return coded(operations[name].output, await answer(name, given)) as never;
        },
      };
    },
  };
  return registry;
}
