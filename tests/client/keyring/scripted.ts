import { type Held, NOTHING_HELD } from "../../../src/client/federation/held.ts";
import type { Ground, RegistryCall } from "../../../src/client/keyring/ground.ts";
import { keyringCalls } from "../../../src/client/keyring/index.ts";
import type { KeyringClient } from "../../../src/client/keyringapi.ts";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import type { Signer } from "../../../src/crypto/identity.ts";
import { verifySignature } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import {
  asHashId,
  type FederatedKeyId,
  type KeyringRequestId,
  type UserId,
  type WorkspaceId,
} from "../../../src/ids.ts";
import {
  type Certificate,
  certificateHash,
  keyIdOf,
  type SignedCertificate,
  signCertificate,
} from "../../../src/protocol/federation/certificate.ts";
import { approvalSigner } from "../../../src/protocol/federation/credentials.ts";
import type { FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { federationIdOf, type SignedManifest, signManifest } from "../../../src/protocol/federation/manifest.ts";
import { policyHash, policyIdOf, type SignedPolicy } from "../../../src/protocol/federation/policy.ts";
import { adminsAgree, verifyChain } from "../../../src/protocol/federation/policychain.ts";
import { evaluate } from "../../../src/protocol/federation/policyrules.ts";
import { releaseShare } from "../../../src/protocol/federation/release.ts";
import { registryScope, requestIdOf, signDecision, signOrder } from "../../../src/protocol/federation/request.ts";
import {
  keyringEnrolmentBytes,
  keyringIdOf,
  keyringRequestIdOf,
  type Party,
} from "../../../src/protocol/keyring/keyring.ts";
import { type SignedResponse, signResponse } from "../../../src/protocol/keyring/response.ts";
import { decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import type {
  KeyringItemView,
  KeyringKeyView,
  KeyringRequestView,
  KeyringView,
  WorkspaceView,
} from "../../../src/wire/keyring/views.ts";
import { type InputOf, type OutputOf, operations } from "../../../src/wire/operations.ts";
import { type KeyWorld, keyWorld, serverOf, signWith } from "../../protocol/federation/keyworld.ts";
import { seedOf, signerOf } from "../../support/policies.ts";
import { seeded } from "../../support/seeded.ts";

/*
 * A registry that answers as a test tells it: honest over memory, and whatever it says may be altered on its way. Keys
 * come from finished ceremonies of a federation of three, so that every signature in it is genuine.
 */

export type Operation = RegistryCall | "keyring.info";

/** One account with a device: what lies in its vault is its own. */
export interface Person {
  readonly name: string;
  readonly userId: UserId;
  readonly secret: Uint8Array;
  readonly owner: Signer;
  readonly client: KeyringClient;
  readonly ground: Ground;
  held: Held;
  readonly notices: string[];
}

export interface Scripted {
  readonly registry: Signer;
  readonly manifest: SignedManifest;
  readonly parties: readonly Party[];
  readonly chains: Map<WorkspaceId, SignedPolicy[]>;
  readonly drafts: Map<string, SignedPolicy>;
  readonly requests: Map<KeyringRequestId, KeyringRequestView>;
  readonly keys: Map<FederatedKeyId, KeyringKeyView>;
  readonly keyring: { view: KeyringView };
  readonly calls: { readonly who: string; readonly name: Operation; readonly input: unknown }[];
  nowMs: number;
  /** Alters an answer; by default none. */
  meddle: (name: Operation, output: unknown, input: unknown, who: string) => unknown;
  /** What a call meets before it arrives. */
  before: (name: Operation) => void;
  person(name: string): Person;
  /** Another device of an account: the same secret, an empty vault. */
  device(of: Person): Person;
  /** The parties bring a request for a key to its end; `confirm`: who of them answers. */
  makeKey(requestId: string, confirm?: readonly number[]): Promise<SignedCertificate>;
  /** The servers sign, by FROST, what a request asks for. */
  signItems(requestId: string): Promise<void>;
  /** The servers let shares out to the client that asked. */
  letOut(requestId: string): Promise<void>;
  view(requestId: string): KeyringRequestView;
  put(view: KeyringRequestView): void;
}

const world = (type: FederatedType): Promise<KeyWorld> => keyWorld({ type, seed: 7 });
export const REGISTRY_URL = "https://registry.test";
const encoder = new TextEncoder();
const zeros = new Uint8Array(32);

const through = <T>(codec: never, value: unknown): T =>
  decodeJson(codec, encoder.encode(encodeJson(codec, value as never))) as T;

async function federation(): Promise<SignedManifest> {
  const { signers } = await world("ed25519");
  const first = {
    name: "custody",
    epoch: 1,
    threshold: 2,
    servers: [...signers].map(([index, { publicKey }]) => ({
      index,
      identity: publicKey,
      sealing: seedOf(`sealing ${index}`),
      url: `https://s${index}.test`,
      pin: `sha256:${String(index).padStart(43, "A")}`,
      policy: null,
    })),
    createdAtMs: 1,
    nonce: seedOf("nonce"),
    previous: zeros,
  };
  const manifest = { ...first, federationId: federationIdOf(first) };
  return { manifest, signatures: [...signers.values()].map((signer) => signManifest(signer, manifest)) };
}

/** Signed by one party of the keyring. */
export function respond(
  view: KeyringRequestView,
  item: KeyringItemView,
  party: Party,
  certificate: Certificate,
  attempt: number,
): SignedResponse {
  return signResponse(signerOf(party.name), {
    keyringId: view.keyringId,
    requestId: item.itemId,
    verdict: "fulfilled",
    attempt,
    keyId: certificate.keyId,
    publicKey: certificate.publicKey,
    certificateHash: certificateHash(certificate),
    policyHash: view.policyHash,
    reason: "",
  });
}

export async function scripted(): Promise<Scripted> {
  const registry = signerOf("registry");
  const scope = registryScope(registry.publicKey);
  const manifest = await federation();
  const sealing = (await hpkeKeyPair(seedOf("registry sealing"))).publicKey;
  const parties = [1, 2, 3].map((index): Party => {
    const name = `p${index}`;
    return { name, index, key: signerOf(name).publicKey };
  });
  const partyView = (party: Party) => ({
    party,
    quarantined: false,
    enrolled: true,
    lastSeenAtMs: 1_800_000_000_000,
    lastResponseAtMs: null,
    backlog: 0,
    version: "test",
    state: "ok",
    deadLetters: 0,
  });
  const keyringId = keyringIdOf(registry.publicKey, "vault", zeros);
  const keyring: { view: KeyringView } = {
    view: {
      keyringId,
      name: "vault",
      manifest,
      threshold: 2,
      fees: { key: 5, signature: 1 },
      active: true,
      admins: ["cc".repeat(16) as UserId],
      parties: parties.map(partyView),
      evidence: [],
      own: false,
      createdAtMs: 1,
    },
  };
  const enrolled = new Map<UserId, Uint8Array>();

  const chainOf = (workspaceId: WorkspaceId): SignedPolicy[] => {
    const chain = self.chains.get(workspaceId);
    if (!chain) throw new Fault("not_found", "no such workspace");
    return chain;
  };
  function workspaceView(workspaceId: WorkspaceId): WorkspaceView {
    const chain = chainOf(workspaceId);
    const policy = chain.at(-1);
    if (!policy) throw new Error("an empty chain");
    const { name } = policy.document;
    const drafts = [...self.drafts.values()].filter(({ document }) => document.name === name);
    return { workspaceId, name, policy, version: chain.length, balance: 90, escrowed: 10, createdAtMs: 1, drafts };
  }
  const requestOf = (requestId: KeyringRequestId): KeyringRequestView => {
    const view = self.requests.get(requestId);
    if (!view) throw new Fault("not_found", "no such request");
    return view;
  };
  /** Asks the workspace's policy again. */
  function ruled(view: KeyringRequestView): KeyringRequestView {
    const policy = verifyChain(chainOf(view.workspaceId), scope);
    const decisions = view.items.map(({ request: { request }, itemId, votes, certificate }) => {
      const used = "keyId" in request.body ? self.keys.get(request.body.keyId) : null;
      const about = certificate?.certificate ?? used?.certificate.certificate ?? null;
      return evaluate({
        request,
        requestId: itemId,
        certificate: request.body.kind === "generate" ? null : about,
        requesterApproval: request.requester,
        policy,
        votes,
        uses: () => 0,
        nowMs: self.nowMs,
      });
    });
    const approved = decisions.every(({ decision }) => decision === "allow");
    const denied = decisions.some(({ decision }) => decision === "deny");
    const why = decisions
      .map((one) => one.why)
      .join("; ")
      .slice(0, 1_000);
    return { ...view, approved, why, status: denied ? "rejected" : view.status, policyHash: policy.headHash };
  }

  const handlers: { readonly [N in Operation]?: (input: InputOf<N>, who: UserId) => OutputOf<N> } = {
    "keyring.info": () => ({ registry: registry.publicKey, sealing, enabled: true, version: "test", atMs: self.nowMs }),
    "keyring.enrol": ({ role, key, proof }, userId) => {
      const bytes = keyringEnrolmentBytes({ registry: registry.publicKey, userId, role, key });
      if (!verifySignature(key, bytes, proof)) throw new Fault("integrity", "no proof of this key");
      enrolled.set(userId, key);
      return {};
    },
    "workspace.create": ({ policy }) => {
      const workspaceId = policyIdOf(policy.document);
      verifyChain([policy], scope);
      if (!self.chains.has(workspaceId)) self.chains.set(workspaceId, [policy]);
      return workspaceView(workspaceId);
    },
    "workspace.list": (_input, who) => {
      const key = enrolled.get(who)?.toHex();
      const mine = [...self.chains].filter(([, chain]) =>
        chain.at(-1)?.document.approvers.some((one) => one.key.toHex() === key),
      );
      return { items: mine.map(([workspaceId]) => workspaceView(workspaceId)), more: false };
    },
    "workspace.get": ({ workspaceId }) => workspaceView(workspaceId),
    "workspace.policy": ({ workspaceId, after }) => {
      const chain = chainOf(workspaceId);
      return { chain: chain.slice(after, after + 2), more: chain.length > after + 2 };
    },
    "workspace.policy.set": ({ policy }) => {
      const found = [...self.chains].find(([, chain]) => {
        const head = chain.at(-1);
        return head && policyHash(head.document).toHex() === policy.document.previous.toHex();
      });
      const head = found?.[1].at(-1);
      if (!found || !head) throw new Fault("conflict", "it follows no newest link");
      const hash = policyHash(policy.document).toHex();
      const known = self.drafts.get(hash)?.signatures ?? [];
      const others = known.filter(({ key }) => policy.signatures.every((one) => one.key.toHex() !== key.toHex()));
      const link = { document: policy.document, signatures: [...others, ...policy.signatures] };
      if (!adminsAgree(head.document, link)) {
        self.drafts.set(hash, link);
        throw new Fault("pending", "other admins must sign");
      }
      self.drafts.delete(hash);
      found[1].push(link);
      return workspaceView(found[0]);
    },
    "workspace.inbox": () => ({
      items: [...self.requests.values()].filter(
        ({ approved, status }) => !approved && (status === "pending" || status === "partial"),
      ),
      more: false,
    }),
    "keyring.list": () => ({ items: [keyring.view], more: false }),
    "keyring.get": () => keyring.view,
    "keyring.request": ({ workspaceId, keyringId: wanted, items }) => {
      const ids = items.map(({ request }) => requestIdOf(request));
      const requestId = keyringRequestIdOf(wanted, workspaceId, ids);
      const known = self.requests.get(requestId);
      if (known) return known;
      const [first] = items;
      const view: KeyringRequestView = {
        requestId,
        workspaceId,
        keyringId: wanted,
        kind: first?.request.body.kind === "generate" ? "key" : "signature",
        status: "pending",
        approved: false,
        why: "",
        fee: 5,
        threshold: keyring.view.threshold,
        parties: keyring.view.parties.map(({ party }) => party),
        policyHash: zeros,
        items: items.map((request) => ({
          itemId: requestIdOf(request.request),
          request,
          votes: [],
          explanation: { policy: null, decision: "wait", rule: null, why: "" } as never,
          attempt: 0,
          certificate: null,
          responses: [],
          order: null,
          partials: [],
          result: null,
        })),
        evidence: [],
        createdAtMs: self.nowMs,
        expiresAtMs: self.nowMs + 86_400_000,
        updatedAtMs: self.nowMs,
      };
      self.requests.set(requestId, ruled(view));
      return requestOf(requestId);
    },
    "keyring.request.get": ({ requestId }) => requestOf(requestId),
    "keyring.requests": ({ workspaceId, status }) => ({
      items: [...self.requests.values()].filter(
        (one) => one.workspaceId === workspaceId && (status === null || one.status === status),
      ),
      more: false,
    }),
    "keyring.vote": ({ requestId, votes }) => {
      const view = requestOf(requestId);
      const items = view.items.map((item) => ({
        ...item,
        votes: [...item.votes, ...votes.filter(({ vote }) => vote.requestId === item.itemId)],
      }));
      self.requests.set(requestId, ruled({ ...view, items }));
      return requestOf(requestId);
    },
    "keyring.cancel": ({ requestId }) => {
      self.put({ ...requestOf(requestId), status: "cancelled" });
      return requestOf(requestId);
    },
    "keyring.finish": ({ requestId, results }) => {
      const view = requestOf(requestId);
      const items = view.items.map((item) => ({
        ...item,
        result: results.find(({ itemId }) => itemId === item.itemId)?.signature ?? item.result,
      }));
      const whole = items.every(({ result }) => result !== null);
      self.put({ ...view, items, status: whole ? "fulfilled" : "partial" });
      return requestOf(requestId);
    },
    "keyring.keys": ({ workspaceId, type }) => ({
      items: [...self.keys.values()].filter(
        (one) => one.workspaceId === workspaceId && (type === null || one.certificate.certificate.type === type),
      ),
      more: false,
    }),
    "keyring.key": ({ keyId }) => {
      const view = self.keys.get(keyId);
      if (!view) throw new Fault("not_found", "no such key");
      return view;
    },
    "workspace.ledger": () => ({ items: [], more: false }),
    "workspace.events": () => ({ items: [], more: false }),
  };

  async function answer(who: Person, name: Operation, input: unknown): Promise<unknown> {
    self.before(name);
    self.calls.push({ who: who.name, name, input });
    const shape = operations[name];
    const handler = handlers[name] as ((input: unknown, who: UserId) => unknown) | undefined;
    if (!handler) throw new Fault("unsupported", `the scripted registry has no ${name}`);
    const honest = handler(through(shape.input as never, input), who.userId);
    return through(shape.output as never, self.meddle(name, honest, input, who.name));
  }

  let drawn = 0;
  function personOf(name: string, secret: Uint8Array, userId: UserId): Person {
    const stream = seeded(100 + drawn++);
    const notices: string[] = [];
    const ground: Ground = {
      identity: registry.publicKey,
      scope,
      url: REGISTRY_URL,
      userId,
      call: async (operation, input) => (await answer(person, operation, input)) as never,
      ask: async (operation, input) => (await answer(person, operation, input)) as never,
      secret: () => secret,
      held: () => person.held,
      change: async (change) => {
        person.held = change(person.held);
      },
      manifestsFrom: () => [],
      now: () => self.nowMs,
      random: (length) => stream.bytes(length),
      notice: (text) => notices.push(text),
    };
    const person: Person = {
      name,
      userId,
      secret,
      owner: approvalSigner(secret, scope),
      ground,
      client: keyringCalls(
        (work) => work(ground),
        async () => async () => undefined,
      ),
      held: { ...NOTHING_HELD, federationSecret: secret },
      notices,
    };
    return person;
  }

  const useWorld = async (item: KeyringItemView) => {
    const { body } = item.request.request;
    if (body.kind !== "sign" && body.kind !== "release") throw new Error("no use");
    const key = self.keys.get(body.keyId);
    if (!key || body.message === null) throw new Error("no key");
    const { certificate } = key.certificate;
    return { body, message: body.message, certificate, key, made: await world(certificate.type) };
  };

  const self: Scripted = {
    registry,
    manifest,
    parties,
    keyring,
    chains: new Map(),
    drafts: new Map(),
    requests: new Map(),
    keys: new Map(),
    calls: [],
    nowMs: 1_800_000_000_000,
    meddle: (_name, output) => output,
    before: () => undefined,
    person: (name) =>
      personOf(name, seedOf(`secret of ${name}`), seedOf(`user ${name}`).toHex().slice(0, 32) as UserId),
    device: (of) => personOf(of.name, of.secret, of.userId),
    view: (requestId) => requestOf(asHashId(requestId)),
    put: (view) => void self.requests.set(view.requestId, view),
    async makeKey(requestId, confirm = [1, 2, 3]) {
      const view = self.view(requestId);
      const [item] = view.items;
      const body = item?.request.request.body;
      if (!item || body?.kind !== "generate") throw new Error("no request for a key");
      const made = await world(body.type);
      const transcript = seedOf(`transcript of ${requestId}`);
      const { federationId } = manifest.manifest;
      const certificate: Certificate = {
        ...made.certificate,
        federationId,
        keyId: keyIdOf(federationId, item.itemId, 1, transcript, made.certificate.publicKey),
        requestId: item.itemId,
        owner: registry.publicKey,
        control: "shared",
        policy: view.workspaceId,
        transcript,
      };
      const decision = signDecision(registry, {
        requestId: item.itemId,
        verdict: "accept",
        attempt: 1,
        certificateHash: certificateHash(certificate),
      });
      const signatures = [...made.signers].map(([index, signer]) => signCertificate(signer, index, certificate));
      const signed: SignedCertificate = { certificate, signatures, acceptance: decision };
      const responses = parties
        .filter(({ index }) => confirm.includes(index))
        .map((party) => respond(view, item, party, certificate, 1));
      self.put({
        ...view,
        status: "fulfilled",
        items: [{ ...item, attempt: 1, certificate: signed, responses }],
      });
      self.keys.set(certificate.keyId, {
        keyId: certificate.keyId,
        workspaceId: view.workspaceId,
        keyringId,
        requestId: view.requestId,
        certificate: signed,
        responses,
        released: false,
        createdAtMs: self.nowMs,
      });
      return signed;
    },
    async signItems(requestId) {
      const view = self.view(requestId);
      const items: KeyringItemView[] = [];
      for (const item of view.items) {
        const { certificate, message, made, key } = await useWorld(item);
        const responses = parties.map((party) => respond(view, item, party, certificate, 1));
        const result = await signWith(made, [1, 2], message);
        items.push({ ...item, attempt: 1, certificate: key.certificate, responses, result });
      }
      self.put({ ...view, status: "fulfilled", items });
    },
    async letOut(requestId) {
      const view = self.view(requestId);
      const items: KeyringItemView[] = [];
      for (const item of view.items) {
        const { certificate, made, key } = await useWorld(item);
        const roster = [1, 2];
        const attempt = { requestId: item.itemId, attempt: 1, roster, contributions: [], ownerNonces: null };
        const use = { manifest: manifest.manifest, certificate, request: item.request.request, order: attempt };
        const partials = await Promise.all(roster.map((index) => releaseShare({ ...use, ...serverOf(made, index) })));
        const responses = parties.map((party) => respond(view, item, party, certificate, 1));
        const order = signOrder(registry, attempt);
        items.push({ ...item, attempt: 1, certificate: key.certificate, responses, order, partials });
      }
      self.put({ ...view, status: "partial", items });
    },
  };
  return self;
}
