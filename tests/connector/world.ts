import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Desk } from "../../src/connector/duties.ts";
import type { OwnServer } from "../../src/connector/ends.ts";
import { silentLog } from "../../src/connector/log.ts";
import { type ConnectorLoop, createLoop, type LoopOptions } from "../../src/connector/loop.ts";
import { type Outbox, openOutbox } from "../../src/connector/outbox.ts";
import { policyCourier } from "../../src/connector/policies.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedRequestId } from "../../src/ids.ts";
import type { SignedCertificate } from "../../src/protocol/federation/certificate.ts";
import type { FederatedType } from "../../src/protocol/federation/kinds.ts";
import { requestIdOf } from "../../src/protocol/federation/request.ts";
import { signVote } from "../../src/protocol/federation/votes.ts";
import type { SignedResponse } from "../../src/protocol/keyring/response.ts";
import { type FederationWorld, federationWorld } from "../server/federation/world.ts";
import { distinct, type FakeRegistry, fakeRegistry } from "../support/fakeregistry.ts";
import {
  keyringGenerateBody,
  keyringUseBody,
  keyringVote,
  makeKeyringRequest,
  makeWorkspacePolicy,
  type TestWorkspace,
} from "../support/keyringrequests.ts";
import { HOUR, signerOf } from "../support/policies.ts";

/** One party: its outbox on disk, and the loop that works on it; a crash ends the loop and leaves the disk. */
export interface TestConnector {
  readonly index: number;
  readonly outbox: Outbox;
  readonly desk: Desk;
  /** Calls of the own server. */
  readonly calls: string[];
  /** Runs before each call of the own server; may throw in its place. */
  before: (name: string) => void;
  /** Runs after each, before the connector learns of it. */
  after: (name: string) => void;
  /** Steps at which a crash can come. */
  step: NonNullable<LoopOptions["step"]>;
  /** Runs at the beginning of each pause. */
  pausing: (ms: number, signal: AbortSignal) => void;
  /** Works until nothing is due any more. */
  start(): ConnectorLoop;
  /** Ends it as SIGKILL does; the outbox is opened anew. */
  crash(): void;
}

/** Three servers with enclaves, a registry written apart, three connectors and a workspace of two owners. */
export interface ConnectorWorld {
  readonly federation: FederationWorld;
  readonly registry: FakeRegistry;
  readonly connectors: readonly TestConnector[];
  connector(index: number): TestConnector;
  workspace: TestWorkspace;
  askKey(type?: FederatedType): FederatedRequestId;
  askUse(certificate: SignedCertificate, message?: string): FederatedRequestId;
  /** Lets all connectors (or some) work until each of them has responded. */
  settled(id: FederatedRequestId, indices?: readonly number[]): Promise<readonly SignedResponse[]>;
  close(): Promise<void>;
}

export class Crash extends Error {}

/** Far more than a run takes. */
const PATIENCE_MS = 20_000;

export async function connectorWorld(): Promise<ConnectorWorld> {
  const federation = await federationWorld();
  const directory = mkdtempSync(join(tmpdir(), "keyhold-connectors-"));
  const { enclaves } = federation;
  const signer = enclaves.registry;
  const workspace = makeWorkspacePolicy({ registry: signer.publicKey });
  const partyOf = (index: number) => signerOf(`party ${index}`);
  const parties = enclaves.servers.map(({ index }) => ({
    name: `p${index}`,
    index,
    key: partyOf(index).publicKey,
  }));
  const registry = fakeRegistry(signer, enclaves.signed, parties, workspace);
  const connectors = parties.map(({ index }): TestConnector => {
    const path = join(directory, `outbox-${index}.db`);
    let outbox = openOutbox(path);
    let alive = { now: true };
    const calls: string[] = [];
    const ofLife = (life: { now: boolean }): Desk => {
      const dead = () => {
        if (!life.now) throw new Crash("this process is gone");
      };
      const own: OwnServer = {
        async call(name, input) {
          dead();
          calls.push(name);
          connector.before(name);
          const served = name as Exclude<typeof name, "federation.enrol">;
          const output = await federation.party(index).call(served, input as never, federation.connector);
          dead();
          connector.after(name);
          return output as never;
        },
      };
      const end = registry.end(partyOf(index).publicKey);
      const registryEnd: typeof end = {
        async call(name, input) {
          dead();
          const output = await end.call(name, input);
          dead();
          return output;
        },
      };
      return {
        grounds: {
          registry: signer.publicKey,
          federationId: enclaves.manifest.federationId,
          index,
          manifestAt(epoch) {
            if (epoch === enclaves.manifest.epoch) return enclaves.manifest;
            throw new Fault("unavailable", "no such epoch");
          },
        },
        own,
        registry: registryEnd,
        outbox,
        serves: null,
        policies: policyCourier(own, registryEnd, connectorScope()),
        party: partyOf(index),
        now: () => enclaves.nowMs,
        learnEpoch: async () => undefined,
      };
    };
    const connectorScope = () => workspace.scope;
    let desk = ofLife(alive);
    const connector: TestConnector = {
      index,
      get outbox() {
        return outbox;
      },
      get desk() {
        return desk;
      },
      calls,
      before: () => undefined,
      after: () => undefined,
      step: () => undefined,
      pausing: () => undefined,
      start() {
        return createLoop(desk, {
          concurrency: 4,
          version: "test",
          now: () => enclaves.nowMs,
          jitter: () => 0,
          sleep: async (ms, signal) => {
            connector.pausing(ms, signal);
            // in this world pauses alone let time pass
            if (!signal.aborted) await Bun.sleep(1);
            enclaves.nowMs += Math.min(ms, 500);
          },
          log: silentLog,
          figures: null,
          step: (name) => connector.step(name),
          pollMs: 1,
        });
      },
      crash() {
        alive.now = false;
        outbox.close();
        outbox = openOutbox(path);
        alive = { now: true };
        desk = ofLife(alive);
      },
    };
    return connector;
  });
  const world: ConnectorWorld = {
    federation,
    registry,
    connectors,
    connector(index) {
      const found = connectors.find((one) => one.index === index);
      if (!found) throw new Error(`no connector ${index}`);
      return found;
    },
    get workspace() {
      return registry.workspace;
    },
    set workspace(now) {
      registry.workspace = now;
    },
    askKey(type = "ed25519") {
      return asked(keyringGenerateBody(workspace.workspaceId, type), undefined);
    },
    askUse(certificate, message = "message") {
      return asked(keyringUseBody(certificate.certificate, enclaves.recipient.publicKey, message), certificate);
    },
    async settled(id, indices = connectors.map(({ index }) => index)) {
      const { responses } = registry.item(id);
      const keys = new Set(indices.map((index) => partyOf(index).publicKey.toHex()));
      const done = () => [...keys].every((key) => responses.some((one) => one.response.key.toHex() === key));
      await work(world, done);
      return distinct(responses);
    },
    async close() {
      for (const { outbox } of connectors) outbox.close();
      await federation.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  function asked(body: Parameters<typeof makeKeyringRequest>[0]["body"], certificate: SignedCertificate | undefined) {
    const { federationId } = enclaves.manifest;
    const nonce = enclaves.random.bytes(32);
    const { nowMs } = enclaves;
    // pauses make time pass quickly here: nothing is to expire before it is done
    const expiresAtMs = nowMs + 20 * HOUR;
    const change = { expiresAtMs };
    const workspace = registry.workspace;
    const request = makeKeyringRequest({ federationId, workspace, body, nonce, nowMs, change });
    const { vote } = keyringVote(request, workspace, nowMs);
    registry.ask(request, [signVote(signerOf("ann"), { ...vote, expiresAtMs })], certificate);
    return requestIdOf(request.request);
  }
  return world;
}

/** Where everything stands, for a test that fails. */
const stateOf = ({ connectors, federation, registry }: ConnectorWorld): string =>
  JSON.stringify({
    nowMs: federation.enclaves.nowMs,
    outboxes: connectors.map(({ outbox }) => outbox.counts()),
    due: [...registry.all()].map(({ due, reports }) => [
      [...due.values()].map(({ seq, work: { do: what } }) => `${seq} ${what}`),
      reports.slice(-6).map(({ party, report }) => `${party} ${report.did} ${"why" in report ? report.why : ""}`),
    ]),
  });

/** Lets connectors work until something holds; whoever crashes is started again. */
export async function work(
  world: ConnectorWorld,
  done: () => boolean,
  who: readonly TestConnector[] = world.connectors,
): Promise<void> {
  const until = performance.now() + PATIENCE_MS;
  const loops = new Map<TestConnector, ConnectorLoop>();
  const runs = who.map(async (connector) => {
    for (;;) {
      const loop = connector.start();
      loops.set(connector, loop);
      try {
        await loop.run();
        return;
      } catch (error) {
        if (!(error instanceof Crash)) throw error;
        connector.crash();
      }
      if (done()) return;
    }
  });
  const failed = Promise.withResolvers<never>();
  for (const run of runs) run.catch(failed.reject);
  failed.promise.catch(() => undefined);
  try {
    while (!done()) {
      if (performance.now() > until) throw new Error(`nothing came of it: ${stateOf(world)}`);
      await Promise.race([Bun.sleep(2), failed.promise]);
    }
  } finally {
    for (const loop of loops.values()) loop.drain();
  }
  await Promise.all(runs);
}
