import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { equalBytes } from "../../../src/crypto/bytes.ts";
import { hpkeSeal } from "../../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import type { AnyHashId, FederatedRequestId, RequestId, SessionId, UserId } from "../../../src/ids.ts";
import { DEFAULTS } from "../../../src/protocol/defaults.ts";
import {
  type Certificate,
  type CertificateSignature,
  certificateHash,
  type SignedCertificate,
} from "../../../src/protocol/federation/certificate.ts";
import type { SignedMessage } from "../../../src/protocol/federation/message.ts";
import {
  contributionInfo,
  type Decision,
  type RequestBody,
  registryScope,
  requestIdOf,
  type SignedOrder,
  type SignedRequest,
  signDecision,
} from "../../../src/protocol/federation/request.ts";
import type { FederatedCaller, FederatedOperation, Limits, ServerContext } from "../../../src/server/context.ts";
import { createAttempts } from "../../../src/server/federation/attempts.ts";
import { CONNECTOR } from "../../../src/server/federation/connectors.ts";
import { createDecisions } from "../../../src/server/federation/decisions.ts";
import {
  FEDERATION,
  MEMBER,
  MEMBER_KEY,
  memberId,
  memberKeyId,
  putStored,
} from "../../../src/server/federation/documents.ts";
import { createKeys } from "../../../src/server/federation/keys.ts";
import { createPolicies } from "../../../src/server/federation/policies.ts";
import { createRequests } from "../../../src/server/federation/requests.ts";
import type { AskEngines, Desk } from "../../../src/server/federation/ruling.ts";
import type { FederationSite } from "../../../src/server/federation/service.ts";
import { sweepFederation } from "../../../src/server/federation/sweeping.ts";
import { createTurns } from "../../../src/server/federation/turns.ts";
import { createVoting } from "../../../src/server/federation/voting.ts";
import { openSqlite } from "../../../src/storage/sqlite.ts";
import type { Store, Tx } from "../../../src/storage/store.ts";
import { decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import type { KeyView, Outcome, RequestView } from "../../../src/wire/federation/operations.ts";
import { type InputOf, type OutputOf, operations } from "../../../src/wire/operations.ts";
import { account, userId } from "../../storage/rows.ts";
import { type EnclaveWorld, enclaveWorld, purposeOf, type WorldOptions } from "../../support/enclaveworld.ts";

/** An account at every server, with its two federation keys. */
export interface Person {
  readonly userId: UserId;
  readonly request: Signer;
  readonly approval: Signer;
}

/** One server: own database, own enclave; operations go through their codecs. */
export interface Party {
  readonly index: number;
  readonly store: Store;
  readonly desk: Desk;
  /** Events that reached the hook. */
  readonly notices: { readonly event: string }[];
  /** Runs before each question to the enclave; may throw in its place. */
  before: (operation: string) => void;
  /** Of enclave and database, as one crash. */
  crash(): void;
  call<N extends Served>(name: N, input: InputOf<N>, who?: Person): Promise<OutputOf<N>>;
  sweep(): Promise<number>;
}

type Served = Exclude<FederatedOperation, "federation.enrol">;

/** Several servers; an owner, three approvers and a neighbour, all of them members; and a registry's connector. */
export interface FederationWorld {
  readonly enclaves: EnclaveWorld;
  readonly parties: readonly Party[];
  readonly owner: Person;
  readonly approvers: readonly Person[];
  readonly neighbour: Person;
  /** An account that joined no federation and acts for the registry of {@link EnclaveWorld}. */
  readonly connector: Person;
  /** What every remote engine answers. */
  engines: AskEngines;
  party(index: number): Party;
  request(body: RequestBody, change?: Partial<SignedRequest["request"]>): SignedRequest;
  close(): Promise<void>;
}

const encoder = new TextEncoder();

/** Every write of documents goes through here. */
export async function put(
  tx: Tx,
  ...[kind, row, expected]: Parameters<typeof putStored> extends [Tx, ...infer R] ? R : never
) {
  if (!(await putStored(tx, kind as never, row as never, expected))) throw new Error("not put");
}

async function enrol(tx: Tx, world: EnclaveWorld, person: Person): Promise<void> {
  const { federationId } = world.manifest;
  const { userId: user, request, approval } = person;
  const value = {
    federationId,
    userId: user,
    requestKey: request.publicKey,
    approvalKey: approval.publicKey,
    enrolledAtMs: 1,
  };
  await put(tx, MEMBER, { id: memberId(federationId, user), owner: federationId, place: 1, value }, 0);
  for (const [key, role] of [
    [request.publicKey, "request"],
    [approval.publicKey, "approval"],
  ] as const) {
    const row = { id: memberKeyId(key), owner: federationId, place: 1, value: { federationId, userId: user, role } };
    await put(tx, MEMBER_KEY, row, 0);
  }
}

/** Lets an account act for a registry. */
export async function allow(tx: Tx, { userId: user }: Person, registry: Uint8Array): Promise<void> {
  const id = `${user}:${registryScope(registry)}`;
  await put(tx, CONNECTOR, { id, owner: "", place: 1, value: { userId: user, registry, addedAtMs: 1 } }, 0);
}

/** Starts it. Policies are put in by the test ({@link WorldOptions}). */
export async function federationWorld(
  options: WorldOptions & { readonly limits?: Partial<Limits> } = {},
): Promise<FederationWorld> {
  const enclaves = await enclaveWorld(options);
  const directory = mkdtempSync(join(tmpdir(), "keyhold-federation-"));
  const person = (n: number, request = signerFromSeed(enclaves.random.bytes(32))): Person => ({
    userId: userId(n),
    request,
    approval: signerFromSeed(enclaves.random.bytes(32)),
  });
  const owner = person(1, enclaves.owner);
  const approvers = [person(2), person(3), person(4)];
  const neighbour = person(5);
  const connector = person(6);
  const parties: Party[] = [];
  for (const { index } of enclaves.servers) {
    const store = await openSqlite(join(directory, `${index}.sqlite`));
    await store.transaction(async (tx) => {
      const { federationId } = enclaves.manifest;
      for (const [i, one] of [owner, ...approvers, neighbour].entries()) {
        await tx.insertAccount(account(i + 1));
        await enrol(tx, enclaves, one);
      }
      await tx.insertAccount(account(6));
      await allow(tx, connector, enclaves.registry.publicKey);
      const value = { epochs: [enclaves.signed], leftAtMs: null };
      await put(tx, FEDERATION, { id: federationId, owner: "", place: 1, value }, 0);
    });
    const limits: Limits = { ...DEFAULTS, ...options.limits };
    const random = enclaves.random.fork();
    const ctx = { store, now: () => enclaves.nowMs, random: (n: number) => random.bytes(n), limits };
    const notices: Party["notices"] = [];
    const site = {
      ctx: ctx as unknown as ServerContext,
      version: "test",
      pin: "",
      enclave: {
        async call(operation, input) {
          party.before(operation);
          return enclaves.server(index).enclave.handle(operation, input);
        },
      },
      notify: (event) => void notices.push(event),
    } as FederationSite;
    const start = (): Desk => ({ site, turns: createTurns(), ask: (...question) => world.engines(...question) });
    let desk = start();
    const party: Party = {
      index,
      store,
      get desk() {
        return desk;
      },
      notices,
      before: () => undefined,
      crash() {
        enclaves.server(index).restart();
        desk = start();
      },
      async call(name, input, who = owner) {
        const { desk } = party;
        const all = {
          ...createRequests(desk),
          ...createVoting(desk),
          ...createAttempts(desk),
          ...createDecisions(desk),
          ...createKeys(desk),
          ...createPolicies(desk.site),
        };
        const shape = operations[name];
        const given = decodeJson(
          shape.input as never,
          encoder.encode(encodeJson(shape.input as never, input as never)),
        );
        const caller: FederatedCaller = {
          account: account(Number.parseInt(who.userId, 16)),
          sessionId: "0".repeat(32) as SessionId,
          requestId: "0".repeat(32) as RequestId,
          address: "127.0.0.1",
          bodyHash: new Uint8Array(32),
          concerns: (_: AnyHashId) => undefined,
        };
        const work = all[name] as (caller: FederatedCaller, input: unknown) => Promise<unknown>;
        const output = await work(caller, given);
        return decodeJson(shape.output as never, encoder.encode(encodeJson(shape.output as never, output as never)));
      },
      sweep: () => sweepFederation(desk),
    };
    parties.push(party);
  }
  const world: FederationWorld = {
    enclaves,
    parties,
    owner,
    approvers,
    neighbour,
    connector,
    engines: async () => [],
    party(index) {
      const found = parties.find((one) => one.index === index);
      if (!found) throw new Error(`no server ${index}`);
      return found;
    },
    request: (body, change = {}) => enclaves.request(body, change),
    async close() {
      for (const { store } of parties) await store.close();
      enclaves.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}

/** The body of the plainest request for a key. */
export const generateBody = (type: Parameters<typeof purposeOf>[0] = "ed25519") =>
  ({ kind: "generate", ...purposeOf(type) }) as const;

/** Code of what a piece of work throws; `ok` otherwise. */
export const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? error.code : `no fault: ${String(error)}`),
  );

/** Who brings a request to the servers: the owner, or of what goes through a keyring the connector. */
const bringerOf = (world: FederationWorld, { request }: SignedRequest): Person =>
  request.keyring ? world.connector : world.owner;

/** Hands a request in at each of some servers. */
export async function submit(
  world: FederationWorld,
  request: SignedRequest,
  at = world.parties,
): Promise<RequestView[]> {
  return Promise.all(at.map((p) => p.call("federation.submit", { request, label: null }, bringerOf(world, request))));
}

/** An order with 32 random bytes sealed to each server, as generation takes them. */
export async function orderFor(
  world: FederationWorld,
  request: SignedRequest,
  roster: readonly number[],
  attempt = 1,
): Promise<SignedOrder> {
  const id = requestIdOf(request.request);
  const wanted = request.request.body.kind === "generate" ? roster : [];
  const contributions = await Promise.all(
    wanted.map(async (index) => {
      const { keys } = world.enclaves.server(index);
      const random = (length: number) => world.enclaves.random.bytes(length);
      const sealed = await hpkeSeal(keys.hpke.publicKey, contributionInfo(id, attempt, index), random(32), random);
      return { index, sealed };
    }),
  );
  return world.enclaves.order(request, roster, attempt, { contributions });
}

export interface Driven {
  readonly order: SignedOrder;
  readonly messages: readonly SignedMessage[];
  readonly outcomes: ReadonlyMap<number, Outcome>;
}

/** The client as a relay: begins an attempt and carries every message to everyone until nothing new is said. */
export async function drive(
  world: FederationWorld,
  request: SignedRequest,
  roster: readonly number[],
  attempt = 1,
  given?: SignedOrder,
): Promise<Driven> {
  const order = given ?? (await orderFor(world, request, roster, attempt));
  const requestId = requestIdOf(request.request);
  const who = bringerOf(world, request);
  const heard = new Map<string, SignedMessage>();
  const outcomes = new Map<number, Outcome>();
  const take = (index: number, reply: OutputOf<"federation.relay">): void => {
    for (const one of reply.messages) heard.set(one.signature.toHex(), one);
    if (reply.outcome) outcomes.set(index, reply.outcome);
  };
  for (const index of roster) take(index, await world.party(index).call("federation.begin", { order }, who));
  for (let before = -1; before !== heard.size; ) {
    before = heard.size;
    for (const index of roster) {
      const messages = [...heard.values()].filter(
        ({ message }) => message.from !== index && (message.to === 0 || message.to === index),
      );
      take(index, await world.party(index).call("federation.relay", { requestId, attempt, messages }, who));
    }
  }
  return { order, messages: [...heard.values()], outcomes };
}

/** The certificate that all outcomes agree on, with the owner's acceptance. */
export function acceptance(world: FederationWorld, driven: Driven): SignedCertificate {
  const all = [...driven.outcomes.values()];
  const certificate = all[0]?.certificate as Certificate;
  const signatures = all.map(({ signature }) => signature as CertificateSignature);
  const { requestId, attempt, owner } = certificate;
  const { registry } = world.enclaves;
  const signer = equalBytes(owner, registry.publicKey) ? registry : world.owner.request;
  const decision: Decision = { requestId, verdict: "accept", attempt, certificateHash: certificateHash(certificate) };
  return { certificate, signatures, acceptance: signDecision(signer, decision) };
}

/** Brings an acceptance to some servers. */
export function accept(world: FederationWorld, certificate: SignedCertificate, at = world.parties) {
  const throughKeyring = equalBytes(certificate.certificate.owner, world.enclaves.registry.publicKey);
  const who = throughKeyring ? world.connector : world.owner;
  return Promise.all(
    at.map((p) => p.call("federation.decide", { decision: certificate.acceptance, certificate }, who)),
  );
}

/** The owner's cancellation. */
export const cancellation = (world: FederationWorld, requestId: FederatedRequestId) =>
  signDecision(world.owner.request, { requestId, verdict: "cancel", attempt: 0, certificateHash: null });

/** A key made by some servers and accepted at all. */
export async function makeKey(
  world: FederationWorld,
  body: RequestBody = generateBody(),
  roster: readonly number[] = world.parties.map(({ index }) => index),
): Promise<{ readonly request: SignedRequest; readonly certificate: SignedCertificate }> {
  const request = world.request(body);
  await submit(world, request);
  const certificate = acceptance(world, await drive(world, request, roster));
  await accept(world, certificate);
  return { request, certificate };
}

export const keyAt = (party: Party, { certificate }: SignedCertificate): Promise<KeyView> =>
  party.call("federation.key", { keyId: certificate.keyId });
