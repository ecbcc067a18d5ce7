import { hpkeKeyPair } from "../../src/crypto/hpke.ts";
import type { Signer } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId, KeyringId, WorkspaceId } from "../../src/ids.ts";
import { beginCeremony, type Ceremony } from "../../src/protocol/federation/ceremony.ts";
import {
  certificateHash,
  type SignedCertificate,
  verifyCertificate,
} from "../../src/protocol/federation/certificate.ts";
import type { FederatedType } from "../../src/protocol/federation/kinds.ts";
import type { Manifest, SignedManifest } from "../../src/protocol/federation/manifest.ts";
import type { SignedMessage } from "../../src/protocol/federation/message.ts";
import type { PolicyDocument } from "../../src/protocol/federation/policy.ts";
import { releaseShare } from "../../src/protocol/federation/release.ts";
import {
  orderHash,
  type RequestBody,
  requestIdOf,
  type SignedRequest,
  signRequest,
  verifyDecision,
  verifyOrder,
} from "../../src/protocol/federation/request.ts";
import { beginSigning, type SigningSession, signPartial } from "../../src/protocol/federation/signing.ts";
import { signVote } from "../../src/protocol/federation/votes.ts";
import { type PartyResponse, signResponse } from "../../src/protocol/keyring/response.ts";
import type { RegistryRest } from "../../src/server/keyring/index.ts";
import { createRest } from "../../src/server/keyring/rest.ts";
import { type Desk, PATIENCE } from "../../src/server/keyring/scene.ts";
import type { Outcome } from "../../src/wire/federation/operations.ts";
import type { KeyringRequestView, Report, Task } from "../../src/wire/keyring/views.ts";
import { keyringUseBody } from "./keyringrequests.ts";
import { HOUR, seedOf } from "./policies.ts";
import {
  manifestOf,
  partyOf,
  type RegistryPerson,
  type RegistryWorld,
  registryWorld,
  serverKey,
} from "./registryworld.ts";
import { seeded } from "./seeded.ts";

/** A registry with keyring, workspace and parties whose servers are the real protocol's parts over memory. */

interface Attempt {
  readonly attempt: number;
  readonly hash: string;
  readonly ceremony: Ceremony | null;
  readonly session: SigningSession | null;
  readonly heard: Map<number, SignedMessage>;
  messages: readonly SignedMessage[];
  outcome: Outcome | null;
}

/** One party: its account at the registry, and the server beside it. */
export interface RunParty {
  readonly who: RegistryPerson;
  readonly index: number;
  readonly shares: Map<FederatedKeyId, Uint8Array>;
  /** Decisions that it was told, one of each request. */
  readonly decisions: Map<FederatedRequestId, string>;
  /** False: its connector does not run. */
  up: boolean;
  /** Changes what it reports; null: it says nothing of that task. */
  twist: (task: Task, report: Report) => Report | null;
  /** Loses what is under way. */
  restart(): void;
  /** One poll, its tasks, and the report of them; says how many tasks there were. */
  poll(): Promise<number>;
  /** What it answers to one task. */
  answer(task: Task): Promise<Report>;
  tasks(max?: number): Promise<readonly Task[]>;
  report(task: Pick<Task, "itemId" | "seq">, report: Report): Promise<object>;
  /** A response in its name. */
  response(of: Partial<PartyResponse>): Report & { did: "response" };
}

export interface KeyringRun {
  readonly world: RegistryWorld;
  readonly manifest: Manifest;
  readonly owners: readonly RegistryPerson[];
  readonly ann: RegistryPerson;
  readonly ben: RegistryPerson;
  /** Of the keyring. */
  readonly admin: RegistryPerson;
  readonly parties: readonly RunParty[];
  readonly workspaceId: WorkspaceId;
  readonly keyringId: KeyringId;
  /** X25519 key that partial signatures are sealed to. */
  readonly sealing: Uint8Array;
  party(index: number): RunParty;
  sign(body: RequestBody, who?: RegistryPerson, change?: Partial<SignedRequest["request"]>): SignedRequest;
  generate(type?: FederatedType, who?: RegistryPerson): SignedRequest;
  submit(items: readonly SignedRequest[], who?: RegistryPerson): Promise<KeyringRequestView>;
  view(of: Pick<KeyringRequestView, "requestId">, who?: RegistryPerson): Promise<KeyringRequestView>;
  vote(
    of: KeyringRequestView,
    who: RegistryPerson,
    verdict?: "approve" | "reject",
    items?: readonly FederatedRequestId[],
  ): Promise<KeyringRequestView>;
  /** Lets all parties that are up work until nobody has anything to do. */
  work(rounds?: number): Promise<void>;
  /** A key of a fulfilled request. */
  key(type?: FederatedType): Promise<{ readonly view: KeyringRequestView; readonly certificate: SignedCertificate }>;
  use(certificate: SignedCertificate, message?: string, recipient?: Uint8Array): SignedRequest;
  balance(): Promise<{ readonly balance: number; readonly escrowed: number }>;
  /** Another process over the same store. */
  restart(): void;
  /** Each call goes to the next of two processes. */
  alternate(): void;
  close(): Promise<void>;
}

export interface RunOptions {
  readonly n?: number;
  readonly threshold?: number;
  readonly keyringThreshold?: number;
  readonly owners?: number;
  readonly credits?: number;
  readonly policy?: Partial<PolicyDocument>;
  readonly patience?: Partial<Desk["patience"]>;
  readonly world?: Parameters<typeof registryWorld>[0];
}

const OPERATIONS = [
  "workspace.inbox",
  "keyring.request",
  "keyring.request.get",
  "keyring.requests",
  "keyring.vote",
  "keyring.cancel",
  "keyring.finish",
  "keyring.keys",
  "keyring.key",
  "party.tasks",
  "party.report",
] as const;

export async function keyringRun(options: RunOptions = {}): Promise<KeyringRun> {
  const { n = 3, threshold = 2, keyringThreshold = threshold, credits = 1_000 } = options;
  const patience = { ...PATIENCE, graceMs: 2_000, ...options.patience };
  const random = seeded(n * 100 + threshold);
  const draw = (length: number) => random.bytes(length);
  let rest: RegistryRest | undefined;
  let other: RegistryRest | undefined;
  const running = (): RegistryRest => {
    if (other) [rest, other] = [other, rest];
    if (!rest) throw new Error("the registry does not run");
    return rest;
  };
  const late = Object.fromEntries(
    OPERATIONS.map((name) => [name, (caller: never, input: never) => running()[name](caller, input)]),
  ) as unknown as Partial<RegistryRest>;
  const world = await registryWorld({
    ...options.world,
    rest: {
      ...late,
      hasOpenRequest: (...asked) => running().hasOpenRequest(...asked),
      policyChanged: (...asked) => running().policyChanged(...asked),
      backlogOf: (...asked) => running().backlogOf(...asked),
      sweep: () => running().sweep(),
      close: () => running().close(),
    },
  });
  rest = createRest(world.site, patience);

  const names = ["ann", "ben", "cid"].slice(0, options.owners ?? 2);
  const owners: RegistryPerson[] = [];
  for (const name of names) owners.push(await world.person(name));
  const [ann, ben = ann] = owners;
  if (!ann || !ben) throw new Error("a workspace has an owner");
  const anyOne = { kind: "group", name: "owners", atLeast: 1 } as const;
  const { workspaceId } = await world.workspace(owners, {
    rules: [
      {
        name: "use",
        effect: "allow",
        actions: ["generate", "sign", "release"],
        types: [],
        rate: null,
        amount: null,
        recipients: null,
        time: null,
        require: anyOne,
        requesterMayApprove: true,
        voteMs: 24 * HOUR,
      },
    ],
    ...options.policy,
  });
  if (credits > 0) {
    await world.control["registry.credit"]({ workspaceId, amount: credits, note: "" } as never);
  }
  const indices = Array.from({ length: n }, (_, i) => i + 1);
  const signed: SignedManifest = manifestOf(indices, threshold);
  const { manifest } = signed;
  const admin = await world.person("admin");
  const people: RegistryPerson[] = [];
  for (const index of indices) people.push(await world.connector(`p${index}`));
  const { keyringId } = await world.keyring(admin, people, {
    manifest: signed,
    threshold: keyringThreshold,
    parties: people.map((who, i) => partyOf(who, i + 1)),
  });
  const { publicKey: sealing } = await hpkeKeyPair(world.site.sealingSeed);

  const parties: RunParty[] = [];
  for (const [i, who] of people.entries()) {
    parties.push(runParty({ world, manifest, keyringId, who, index: i + 1, signer: serverKey(i + 1), draw }));
  }

  const run: KeyringRun = {
    ...{ world, manifest, owners, ann, ben, admin, parties, workspaceId, keyringId, sealing },
    party(index) {
      const found = parties.find((one) => one.index === index);
      if (!found) throw new Error(`no party ${index}`);
      return found;
    },
    sign(body, who = ann, change = {}) {
      return signRequest(who.owner, {
        federationId: manifest.federationId,
        epoch: manifest.epoch,
        requester: who.owner.publicKey,
        nonce: draw(32),
        createdAtMs: world.nowMs,
        expiresAtMs: world.nowMs + HOUR,
        keyring: { registry: world.registry.publicKey, keyringId, workspaceId },
        body,
        ...change,
      });
    },
    generate: (type = "ed25519", who = ann) =>
      run.sign(
        {
          kind: "generate",
          type,
          length: 32,
          custody: "delegated",
          control: "shared",
          policy: workspaceId,
          owner: null,
        },
        who,
      ),
    submit: (items, who = ann) =>
      world.call("keyring.request", { workspaceId, keyringId, items: [...items], feeMax: null }, who),
    view: ({ requestId }, who = ann) => world.call("keyring.request.get", { requestId }, who),
    vote(of, who, verdict = "approve", items = of.items.map(({ itemId }) => itemId)) {
      const votes = items.map((requestId) =>
        signVote(who.owner, {
          federationId: manifest.federationId,
          epoch: manifest.epoch,
          requestId,
          verdict,
          policyHash: of.policyHash,
          castAtMs: world.nowMs,
          expiresAtMs: world.nowMs + HOUR,
          reason: verdict === "reject" ? "not today" : "",
        }),
      );
      return world.call("keyring.vote", { requestId: of.requestId, votes }, who);
    },
    async work(rounds = 200) {
      for (let round = 0; round < rounds; round++) {
        let done = 0;
        for (const one of parties) if (one.up) done += await one.poll();
        if (done === 0) return;
      }
    },
    async key(type = "ed25519") {
      const first = await run.submit([run.generate(type)]);
      if (!first.approved) await run.vote(first, ann);
      await run.work();
      const view = await run.view(first);
      const certificate = view.items[0]?.certificate;
      if (view.status !== "fulfilled" || !certificate)
        throw new Error(`the key's request is ${view.status}: ${view.why}`);
      return { view, certificate };
    },
    use: ({ certificate }, message = "message", recipient) => {
      const released = certificate.type === "secp256k1" || certificate.type === "p256";
      if (released && !recipient) throw new Error("shares are sealed to a client");
      return run.sign(keyringUseBody(certificate, recipient ?? sealing, message));
    },
    async balance() {
      const { balance, escrowed } = await world.call("workspace.get", { workspaceId }, ann);
      return { balance, escrowed };
    },
    restart() {
      rest = createRest(world.site, patience);
    },
    alternate() {
      other = createRest(world.site, patience);
    },
    close: () => world.close(),
  };
  return run;
}

interface PartyInput {
  readonly world: RegistryWorld;
  readonly manifest: Manifest;
  readonly keyringId: KeyringId;
  readonly who: RegistryPerson;
  readonly index: number;
  readonly signer: Signer;
  readonly draw: (length: number) => Uint8Array;
}

const outcomeOf = (result: "done" | "failed", culprits: Outcome["culprits"] = []): Outcome => ({
  result,
  certificate: null,
  signature: null,
  culprits,
});

function runParty({ world, manifest, keyringId, who, index, signer, draw }: PartyInput): RunParty {
  const running = new Map<FederatedRequestId, Attempt>();
  const pending = new Map<string, Uint8Array | null>();
  const shares: RunParty["shares"] = new Map();
  const certificates = new Map<FederatedKeyId, SignedCertificate>();
  const decisions: RunParty["decisions"] = new Map();

  async function begin(task: Task & { work: { do: "begin" } }): Promise<Report> {
    const { order: signed } = task.work;
    const { order } = signed;
    const { request } = task.request;
    const { body } = request;
    verifyOrder(world.registry.publicKey, signed);
    const hash = orderHash(order).toHex();
    const before = running.get(task.itemId);
    if (before?.hash === hash) return said(before);
    const base = { manifest, request, order };
    const fresh = { attempt: order.attempt, hash, heard: new Map<number, SignedMessage>() };
    let made: Attempt;
    if (body.kind === "sign" || body.kind === "release") {
      const certificate = certificates.get(body.keyId)?.certificate;
      const share = shares.get(body.keyId);
      if (!certificate || !share)
        return { did: "missed", attempt: order.attempt, why: "no share of this key is here", final: true };
      const use = { ...base, certificate, self: index, signer, share, random: draw };
      if (body.kind === "release") {
        const message = await releaseShare(use);
        made = { ...fresh, ceremony: null, session: null, messages: [message], outcome: outcomeOf("done") };
      } else {
        const session = beginSigning(use);
        fresh.heard.set(index, session.nonces);
        made = { ...fresh, ceremony: null, session, messages: [session.nonces], outcome: null };
      }
    } else {
      if (!order.roster.every((i) => order.contributions.some((one) => one.index === i && one.sealed.length === 80)))
        throw new Error("a server gets no randomness");
      const own = { self: index, signer, beforeShare: null, contribution: draw(32) };
      const setup = { ...base, ...own, before: null, random: draw };
      const { ceremony, step } = await beginCeremony(setup);
      made = { ...fresh, ceremony, session: null, messages: [], outcome: null };
      takeStep(task.itemId, made, step);
    }
    running.set(task.itemId, made);
    return said(made);
  }

  function takeStep(itemId: FederatedRequestId, own: Attempt, step: Awaited<ReturnType<Ceremony["receive"]>>): void {
    own.messages = step.messages;
    if (own.outcome !== null || step.outcome === null) return;
    const { outcome } = step;
    if (outcome.result === "failed") {
      own.outcome = outcomeOf("failed", outcome.culprits);
      return;
    }
    const { certificate, signature, share } = outcome;
    own.outcome = { result: "confirmed", certificate, signature, culprits: [] };
    pending.set(`${itemId}:${certificateHash(certificate).toHex()}`, share);
  }

  const said = ({ attempt, messages, outcome }: Attempt): Report => ({
    did: "said",
    attempt,
    messages: [...messages],
    outcome,
  });

  async function relay(task: Task & { work: { do: "relay" } }): Promise<Report> {
    const { attempt, messages } = task.work;
    const own = running.get(task.itemId);
    if (own?.attempt !== attempt) return { did: "missed", attempt, why: "this attempt was lost", final: false };
    if (own.ceremony) takeStep(task.itemId, own, await own.ceremony.receive(messages));
    else if (own.session && own.outcome === null) {
      for (const one of messages) if (one.message.payload.round === "nonces") own.heard.set(one.message.from, one);
      if (own.session.use.order.roster.every((i) => own.heard.has(i))) {
        const step = await signPartial(own.session, [...own.heard.values()], draw);
        own.outcome = step.result === "failed" ? outcomeOf("failed", step.culprits) : outcomeOf("done");
        if (step.result !== "failed") own.messages = [...own.messages, step.message];
      }
    }
    return said(own);
  }

  function decide(task: Task & { work: { do: "decide" } }): Report {
    const { decision, certificate } = task.work;
    verifyDecision(world.registry.publicKey, decision);
    const { verdict } = decision.decision;
    const word = `${verdict} ${decision.decision.certificateHash?.toHex() ?? ""}`;
    const before = decisions.get(task.itemId);
    if (before !== undefined && before !== word) throw new Error("two decisions on one request");
    decisions.set(task.itemId, word);
    if (verdict === "cancel" || !certificate) return { did: "decided" };
    verifyCertificate(certificate, manifest);
    const { keyId } = certificate.certificate;
    const share = pending.get(`${task.itemId}:${certificateHash(certificate.certificate).toHex()}`);
    if (share) shares.set(keyId, share);
    certificates.set(keyId, certificate);
    return fulfilled(task, certificate.certificate.attempt, certificate);
  }

  function fulfilled(task: Task, attempt: number, { certificate }: SignedCertificate): Report {
    return party.response({
      requestId: task.itemId,
      attempt,
      keyId: certificate.keyId,
      publicKey: certificate.publicKey,
      certificateHash: certificateHash(certificate),
      policyHash: task.policyHash,
    });
  }

  const party: RunParty = {
    ...{ who, index, shares, decisions },
    up: true,
    twist: (_, report) => report,
    restart() {
      for (const { ceremony } of running.values()) ceremony?.abort();
      running.clear();
    },
    async tasks(max = 16) {
      const health = { version: "test", state: "ok", deadLetters: 0 };
      return (await world.call("party.tasks", { waitMs: 0, max, health }, who)).tasks;
    },
    async poll() {
      const tasks = await party.tasks();
      const reports: { itemId: FederatedRequestId; seq: number; report: Report }[] = [];
      for (const task of tasks) {
        const report = party.twist(task, await party.answer(task));
        if (report) reports.push({ itemId: task.itemId, seq: task.seq, report });
      }
      if (reports.length > 0) await world.call("party.report", { reports }, who);
      return reports.length;
    },
    async answer(task) {
      if (requestIdOf(task.request.request) !== task.itemId) throw new Error("another request");
      const { work } = task;
      switch (work.do) {
        case "prepare":
          return { did: "ready" };
        case "begin":
          return begin({ ...task, work });
        case "relay":
          return relay({ ...task, work });
        case "decide":
          return decide({ ...task, work });
        case "respond":
          return fulfilled(task, work.attempt, work.certificate);
        case "drop":
          return { did: "dropped" };
      }
    },
    report: ({ itemId, seq }, report) => world.call("party.report", { reports: [{ itemId, seq, report }] }, who),
    response(of) {
      const whole: Omit<PartyResponse, "key"> = {
        keyringId,
        requestId: "0".repeat(64) as FederatedRequestId,
        verdict: "fulfilled",
        attempt: 0,
        keyId: null,
        publicKey: null,
        certificateHash: null,
        policyHash: seedOf("policy"),
        reason: "",
        ...of,
      };
      return { did: "response", response: signResponse(who.party, whole) };
    },
  };
  return party;
}

/** Code of what a piece of work throws, with its message; `ok` otherwise. */
export const faultOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? `${error.code}: ${error.message}` : `no fault: ${String(error)}`),
  );
