import type { FleetInput, FleetOperation, FleetOutput } from "../../src/client/federation/ground.ts";
import { type HpkeKeyPair, hpkeKeyPair, hpkeOpen } from "../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId, FederationId } from "../../src/ids.ts";
import { beginCeremony, type Ceremony } from "../../src/protocol/federation/ceremony.ts";
import {
  type Certificate,
  certificateHash,
  type SignedCertificate,
  verifyCertificate,
} from "../../src/protocol/federation/certificate.ts";
import { signErasure } from "../../src/protocol/federation/erasure.ts";
import { federationIdOf, type Manifest } from "../../src/protocol/federation/manifest.ts";
import type { SignedMessage } from "../../src/protocol/federation/message.ts";
import { releaseShare } from "../../src/protocol/federation/release.ts";
import {
  type AttemptOrder,
  contributionInfo,
  orderHash,
  type SignedRequest,
  verifyDecision,
  verifyOrder,
  verifyRequest,
} from "../../src/protocol/federation/request.ts";
import {
  advance,
  draftLife,
  type RequestEvent,
  type RequestLife,
  type Ruling,
} from "../../src/protocol/federation/requestlife.ts";
import { beginSigning, type SigningSession, signPartial } from "../../src/protocol/federation/signing.ts";
import type { Erasure, KeyView, Outcome, RequestView } from "../../src/wire/federation/operations.ts";

/** What a faulty server does instead. */
export interface ServerFaults {
  /** Begins an attempt anew that it has begun before a restart. */
  readonly beginsAgain?: boolean;
  /** Signs every attempt of a use with the same nonces. */
  readonly reusesNonces?: boolean;
  /** Takes a key as made before its owner has accepted it. */
  readonly keepsEarly?: boolean;
  /** Uses the shares of generations that were left. */
  readonly servesOld?: boolean;
  /** Begins without asking its policy. */
  readonly asksNoPolicy?: boolean;
  /** Takes what others say without looking at who signed it. */
  readonly rewrite?: (messages: readonly SignedMessage[], to: number) => readonly SignedMessage[];
}

interface Running {
  readonly order: AttemptOrder;
  readonly ceremony: Ceremony | null;
  readonly session: SigningSession | null;
  readonly heard: Map<number, SignedMessage>;
  messages: readonly SignedMessage[];
  outcome: Outcome | null;
}

interface RequestRow {
  readonly requestId: FederatedRequestId;
  readonly signed: SignedRequest;
  readonly label: Uint8Array | null;
  life: RequestLife;
  running: Running | null;
  readonly pending: Map<number, { readonly certificate: Certificate; readonly share: Uint8Array | null }>;
  certificate: SignedCertificate | null;
}

interface KeyRow {
  certificate: SignedCertificate;
  share: Uint8Array | null;
  readonly older: Map<number, { readonly certificate: SignedCertificate; readonly share: Uint8Array }>;
  released: boolean;
  frozen: boolean;
  erasures: readonly Erasure[];
}

/** One key server with the real protocol's parts over memory: its rows survive a restart, its attempts do not. */
export interface WorldServer {
  readonly index: number;
  readonly signer: Signer;
  readonly requests: Map<FederatedRequestId, RequestRow>;
  readonly keys: Map<FederatedKeyId, KeyRow>;
  /** What its policy says; may be changed. */
  ruling: Ruling;
  faults: ServerFaults;
  call<N extends FleetOperation>(name: N, input: FleetInput<N>): Promise<FleetOutput<N>>;
  restart(): void;
  /** Loses everything but its identity. */
  lose(): void;
}

export interface WorldKeys {
  readonly signer: Signer;
  readonly hpke: HpkeKeyPair;
}

/** Keys and manifest of a federation of `n` servers. */
export async function worldManifest(
  n: number,
  threshold: number,
  random: (length: number) => Uint8Array,
  createdAtMs = 1_000,
): Promise<{ readonly manifest: Manifest; readonly keys: ReadonlyMap<number, WorldKeys> }> {
  const keys = new Map<number, WorldKeys>();
  for (let index = 1; index <= n; index++) {
    keys.set(index, { signer: signerFromSeed(random(32)), hpke: await hpkeKeyPair(random(32)) });
  }
  const first = {
    name: "test",
    epoch: 1,
    threshold,
    servers: [...keys].map(([index, { signer, hpke }]) => ({
      index,
      identity: signer.publicKey,
      sealing: hpke.publicKey,
      url: `https://s${index}.test`,
      pin: `sha256:${String(index).padStart(43, "A")}`,
      policy: null,
    })),
    createdAtMs,
    nonce: random(32),
    previous: new Uint8Array(32),
  };
  return { manifest: { ...first, federationId: federationIdOf(first) }, keys };
}

const empty = (result: "done" | "failed", culprits: Outcome["culprits"] = []): Outcome => ({
  result,
  certificate: null,
  signature: null,
  culprits,
});

/** Starts one server. */
export function worldServer(
  manifest: Manifest,
  index: number,
  { signer, hpke }: WorldKeys,
  random: (length: number) => Uint8Array,
  now: () => number,
): WorldServer {
  const requests = new Map<FederatedRequestId, RequestRow>();
  const keys = new Map<FederatedKeyId, KeyRow>();

  const rowOf = (requestId: FederatedRequestId): RequestRow => {
    const row = requests.get(requestId);
    if (row) return row;
    throw new Fault("not_found", "no such request");
  };
  const keyOf = (keyId: FederatedKeyId): KeyRow => {
    const row = keys.get(keyId);
    if (row) return row;
    throw new Fault("not_found", "no such key");
  };

  function step(row: RequestRow, event: RequestEvent): readonly string[] {
    const { life, effects } = advance(row.life, event);
    row.life = life;
    if (effects.includes("forget")) row.running?.ceremony?.abort();
    return effects;
  }

  const viewOf = (row: RequestRow): RequestView => ({
    requestId: row.requestId,
    request: row.signed,
    status: row.life.status === "draft" ? "pending" : row.life.status,
    why: row.life.status === "rejected" ? "its policy denies it" : "",
    explanations: [],
    votes: [],
    policyHash: null,
    attempt: row.life.attempt,
    certificate: row.certificate,
    culprits: row.running?.outcome?.culprits ?? [],
    label: row.label,
    updatedAtMs: now(),
  });

  const keyView = (row: KeyRow): KeyView => ({
    certificate: row.certificate,
    label: null,
    held: row.share !== null,
    released: row.released,
    frozen: row.frozen,
    erasures: row.erasures,
    refreshedAtMs: now(),
  });

  /** Takes an accepted certificate in; the share of its attempt, if this server has one, becomes the live one. */
  function keep(signed: SignedCertificate, share: Uint8Array | null): void {
    const { keyId, generation } = signed.certificate;
    const row = keys.get(keyId);
    if (!row) {
      keys.set(keyId, { certificate: signed, share, older: new Map(), released: false, frozen: false, erasures: [] });
      return;
    }
    const before = row.certificate.certificate.generation;
    if (generation <= before) return;
    if (row.share) row.older.set(before, { certificate: row.certificate, share: row.share });
    row.certificate = signed;
    row.share = share;
    const erasure = signErasure(signer, manifest, { index, keyId, generation: generation - 1 });
    row.erasures = [...row.erasures, erasure];
  }

  async function begin(row: RequestRow, order: AttemptOrder): Promise<Running> {
    const { request } = row.signed;
    const { body } = request;
    const heard = new Map<number, SignedMessage>();
    const base = { manifest, request, order };
    if (body.kind === "sign" || body.kind === "release") {
      const key = keyOf(body.keyId);
      const old = server.faults.servesOld ? key.older.get(body.generation) : undefined;
      const share = old?.share ?? key.share;
      const { certificate } = old?.certificate ?? key.certificate;
      if (!share || key.frozen) throw new Fault("not_found", "no share here");
      const use = { ...base, certificate, self: index, signer, share, random };
      if (body.kind === "release") {
        const message = await releaseShare(use);
        key.released = true;
        return { order, ceremony: null, session: null, heard, messages: [message], outcome: empty("done") };
      }
      const kept = server.faults.reusesNonces ? nonceSource : random;
      const session = beginSigning({ ...use, random: kept });
      heard.set(index, session.nonces);
      return { order, ceremony: null, session, heard, messages: [session.nonces], outcome: null };
    }
    const key = body.kind === "reshare" ? keyOf(body.keyId) : null;
    const sealed = order.contributions.find((c) => c.index === index)?.sealed;
    const info = contributionInfo(order.requestId, order.attempt, index);
    const contribution = sealed ? await hpkeOpen(hpke, info, sealed) : null;
    const before = key?.certificate.certificate ?? null;
    const setup = { ...base, before, self: index, signer, beforeShare: key?.share ?? null, contribution, random };
    const { ceremony, step: first } = await beginCeremony(setup);
    const running: Running = { order, ceremony, session: null, heard, messages: [], outcome: null };
    return takeStep(row, running, first);
  }

  /** The same bytes whenever it is asked: how nonces come to be used twice. */
  const constant = random(64);
  const nonceSource = (length: number) => constant.slice(0, length);

  function takeStep(row: RequestRow, running: Running, said: Awaited<ReturnType<Ceremony["receive"]>>): Running {
    running.messages = said.messages;
    if (running.outcome !== null || said.outcome === null) return running;
    const { outcome } = said;
    const { attempt } = running.order;
    if (outcome.result === "failed") {
      running.outcome = empty("failed", outcome.culprits);
      return running;
    }
    const { certificate, signature, share } = outcome;
    running.outcome = { result: "confirmed", certificate, signature, culprits: [] };
    row.pending.set(attempt, { certificate, share });
    if (server.faults.keepsEarly) {
      const decision = { requestId: row.requestId, verdict: "accept", attempt, certificateHash: null } as const;
      const acceptance = { decision, signature: new Uint8Array(64) };
      keep({ certificate, signatures: [], acceptance }, share);
    }
    step(row, { type: "signed", attempt, certificateHash: certificateHash(certificate) });
    return running;
  }

  function after(row: RequestRow, { order: { attempt }, messages, outcome }: Running) {
    const last = messages.at(-1)?.message.payload.round;
    if (last) step(row, { type: "spoken", attempt, round: last });
    if (outcome && outcome.result !== "confirmed") step(row, { type: "finished", attempt, result: outcome.result });
    return { messages, outcome };
  }

  const handlers: { readonly [N in FleetOperation]?: (input: never) => unknown } = {
    "federation.submit": ({ request, label }: FleetInput<"federation.submit">) => {
      const requestId = verifyRequest(request);
      const known = requests.get(requestId);
      if (known) {
        step(known, { type: "ruled", ruling: server.ruling });
        step(known, { type: "tick", nowMs: now() });
        return viewOf(known);
      }
      const life = draftLife(request.request.body.kind, request.request.expiresAtMs);
      const row: RequestRow = {
        requestId,
        signed: request,
        label,
        life,
        running: null,
        pending: new Map(),
        certificate: null,
      };
      requests.set(requestId, row);
      step(row, { type: "submitted", ruling: server.ruling });
      return viewOf(row);
    },
    "federation.request": ({ requestId }: FleetInput<"federation.request">) => {
      const row = rowOf(requestId);
      step(row, { type: "ruled", ruling: server.ruling });
      step(row, { type: "tick", nowMs: now() });
      return viewOf(row);
    },
    "federation.requests": ({ role }: FleetInput<"federation.requests">) => ({
      items: [...requests.values()]
        .filter(({ life }) => role === "requester" || life.status === "awaiting_approval")
        .map(viewOf),
      more: false,
    }),
    "federation.begin": async ({ order: signed }: FleetInput<"federation.begin">) => {
      const { order } = signed;
      const row = rowOf(order.requestId);
      verifyOrder(row.signed.request.requester, signed);
      if (server.faults.asksNoPolicy && row.life.status === "awaiting_approval")
        row.life = { ...row.life, status: "pending" };
      const event = { type: "begun" as const, attempt: order.attempt, orderHash: orderHash(order), nowMs: now() };
      const again = step(row, event).includes("repeat");
      if (again && !row.running && !server.faults.beginsAgain) throw new Fault("stale", "this attempt was lost");
      if (!again || !row.running) {
        row.running = null;
        try {
          row.running = await begin(row, order);
        } catch (error) {
          step(row, { type: "lost", attempt: order.attempt });
          throw error;
        }
      }
      return after(row, row.running);
    },
    "federation.relay": async ({ requestId, attempt, messages: brought }: FleetInput<"federation.relay">) => {
      const row = rowOf(requestId);
      const { running } = row;
      if (!running || running.order.attempt !== attempt) throw new Fault("stale", "this attempt is not running");
      const messages = server.faults.rewrite ? server.faults.rewrite(brought, index) : brought;
      if (running.ceremony) takeStep(row, running, await running.ceremony.receive(messages));
      else if (running.session && running.outcome === null) {
        for (const one of messages)
          if (one.message.payload.round === "nonces") running.heard.set(one.message.from, one);
        if (running.order.roster.every((i) => running.heard.has(i))) {
          const said = await signPartial(running.session, [...running.heard.values()], random);
          running.outcome = said.result === "failed" ? empty("failed", said.culprits) : empty("done");
          if (said.result !== "failed") running.messages = [...running.messages, said.message];
        }
      }
      return after(row, running);
    },
    "federation.decide": ({ decision, certificate }: FleetInput<"federation.decide">) => {
      const row = rowOf(decision.decision.requestId);
      verifyDecision(row.signed.request.requester, decision);
      if (certificate) verifyCertificate(certificate, manifest);
      const effects = step(row, { type: "decided", decision: decision.decision });
      if (effects.includes("freeze")) for (const key of keys.values()) key.frozen = true;
      if (effects.includes("keep") && certificate) {
        row.certificate = certificate;
        const pending = row.pending.get(certificate.certificate.attempt);
        keep(certificate, pending?.share ?? null);
      }
      return viewOf(row);
    },
    "federation.keys": () => ({ items: [...keys.values()].map(keyView), more: false }),
    "federation.key": ({ keyId }: FleetInput<"federation.key">) => keyView(keyOf(keyId)),
    "federation.inform": ({ certificate, erasures }: FleetInput<"federation.inform">) => {
      verifyCertificate(certificate, manifest);
      keep(certificate, null);
      const row = keyOf(certificate.certificate.keyId);
      const own = new Set(row.erasures.map((e) => `${e.index} ${e.generation}`));
      row.erasures = [...row.erasures, ...erasures.filter((e) => !own.has(`${e.index} ${e.generation}`))];
      return keyView(row);
    },
  };

  const server: WorldServer = {
    index,
    signer,
    requests,
    keys,
    ruling: "allow",
    faults: {},
    async call(name, input) {
      const handler = handlers[name];
      if (!handler) throw new Fault("unsupported", `no ${name} here`);
      return (await handler(input as never)) as never;
    },
    restart() {
      for (const row of requests.values()) {
        row.running?.ceremony?.abort();
        row.running = null;
        step(row, { type: "lost", attempt: row.life.attempt });
      }
    },
    lose() {
      requests.clear();
      keys.clear();
    },
  };
  return server;
}

export type { FederationId };
