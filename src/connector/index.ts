import { existsSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { followTo } from "../client/federation/manifests.ts";
import { askServer, sourceAt } from "../client/federation/reaching.ts";
import { connect } from "../client/login.ts";
import type { Surroundings } from "../client/model.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { FederatedRequestId, KeyringId } from "../ids.ts";
import { registryScope } from "../protocol/federation/request.ts";
import { type DirectoryLock, lockDirectory } from "../storage/lock.ts";
import { demandConfig, demandSecret, filesOf, writeConfig } from "./directory.ts";
import type { Desk } from "./duties.ts";
import { type RegistryEnd, sessionEnd } from "./ends.ts";
import { createFigures } from "./figures.ts";
import { type Entering, enterRegistry, enterServer, identityOf, newestManifest, partySigner } from "./init.ts";
import { type Listener, startListener } from "./listener.ts";
import type { ConnectorLog } from "./log.ts";
import { type ConnectorLoop, createLoop, type LoopOptions } from "./loop.ts";
import { type Counts, openOutbox } from "./outbox.ts";
import { policyCourier } from "./policies.ts";

export { type ConnectorFacts, connectorFacts, type InitInput, initConnector, type Place } from "./init.ts";
export { createConnectorLog } from "./log.ts";
export { LOOP } from "./loop.ts";

export interface ConnectorOptions {
  readonly dir: string;
  readonly version: string;
  readonly around: Surroundings;
  readonly log: ConnectorLog;
  readonly concurrency: number;
  /** Serves these keyrings alone; by default every one of the registry that names the party. */
  readonly keyrings?: readonly KeyringId[];
  /** Where figures and health are told; null for nowhere. */
  readonly listen: { readonly host: string; readonly port: number } | null;
  readonly reach?: typeof connect;
  readonly step?: LoopOptions["step"];
  readonly pollMs?: number;
}

/** A connector that works. */
export interface RunningConnector {
  /** Of figures and health; null where they are told nowhere. */
  readonly listening: Listener | null;
  readonly loop: ConnectorLoop;
  /** Takes no more tasks; what has begun is finished and reported. */
  drain(): void;
  /** Resolves when it has drained; rejects when it cannot go on. */
  readonly ended: Promise<void>;
}

const sleeping: LoopOptions["sleep"] = async (ms, signal) => {
  if (ms <= 0 || signal.aborted) return;
  await pause(ms, undefined, { signal }).catch(() => undefined);
};

/**
 * Starts the connector of a directory, which it holds until it has ended (docs/protocol.md §9.6).
 *
 * @throws Fault not_found without `connector init`; conflict while another process holds the directory
 */
export async function startConnector(options: ConnectorOptions): Promise<RunningConnector> {
  const { dir, around, log } = options;
  const reach = options.reach ?? connect;
  let config = demandConfig(dir);
  const secret = demandSecret(dir);
  let lock: DirectoryLock;
  try {
    lock = await lockDirectory(dir);
  } catch (error) {
    wipe(secret);
    throw error;
  }
  const closing: (() => unknown)[] = [() => wipe(secret), () => lock.release()];
  const close = async (): Promise<void> => {
    for (const one of closing.reverse()) await one();
  };
  try {
    const outbox = openOutbox(filesOf(dir).outbox);
    closing.push(() => outbox.close());
    const entering: Entering = {
      secret,
      around,
      reach,
      config: () => config,
      keep(change) {
        config = change(config);
        writeConfig(dir, config);
      },
    };
    const { registry, server } = config;
    const identity = identityOf(config);
    const places = registry.urls.map((url) => ({ url, pin: registry.pin, index: 0 }));
    const registryEnd = sessionEnd(places, (place) => enterRegistry(entering, place, null), around);
    const ownEnd = sessionEnd([server], (place) => enterServer(entering, place, null), around);
    closing.push(
      () => registryEnd.end(),
      () => ownEnd.end(),
    );
    const { federationId } = newestManifest(config).manifest;

    async function learnEpoch(epoch: number): Promise<void> {
      if (config.manifests.some(({ manifest }) => manifest.epoch === epoch)) return;
      if (epoch < newestManifest(config).manifest.epoch) return;
      const asked = await askServer(config.server, reach, around, config.server.held);
      const { federations } = await asked.ask("federation.info", {});
      const newest = federations.find(({ manifest }) => manifest.federationId === federationId);
      if (!newest) throw new Fault("unavailable", "the own server does not show the federation any more");
      const held = { federationId, name: "", manifests: config.manifests, joinedAtMs: 0, servers: [], policies: [] };
      const { manifests } = await followTo(held, newest, [sourceAt(asked)]);
      if (manifests !== config.manifests) entering.keep((now) => ({ ...now, manifests }));
    }

    const own: Desk["own"] = { call: (name, input) => ownEnd.call(name, input as never) as never };
    const registryCalls: RegistryEnd = { call: (name, input) => registryEnd.call(name, input as never) as never };
    const desk: Desk = {
      grounds: {
        registry: identity,
        federationId,
        index: server.index,
        manifestAt(epoch) {
          const found = config.manifests.find(({ manifest }) => manifest.epoch === epoch);
          if (found) return found.manifest;
          throw new Fault("unavailable", `the manifest of epoch ${epoch} is not known here`);
        },
      },
      own,
      registry: registryCalls,
      outbox,
      serves: options.keyrings === undefined ? null : new Set(options.keyrings),
      policies: policyCourier(own, registryCalls, registryScope(identity)),
      party: partySigner(secret, identity),
      now: around.now,
      learnEpoch,
    };
    const figures = createFigures(options.version, {
      counts: () => outbox.counts(),
      running: () => loop.running(),
      ready: () => loop.ready(),
      draining: () => loop.draining(),
      lastContactMs: () => loop.lastContactMs(),
    });
    const loop: ConnectorLoop = createLoop(desk, {
      concurrency: options.concurrency,
      version: options.version,
      now: around.now,
      jitter: () => (around.random(4).reduce((sum, byte) => sum * 256 + byte, 0) % 1_000_000) / 1_000_000,
      sleep: sleeping,
      log,
      figures,
      ...(options.step && { step: options.step }),
      ...(options.pollMs !== undefined && { pollMs: options.pollMs }),
    });
    const listening =
      options.listen &&
      startListener({
        ...options.listen,
        contentType: figures.contentType,
        text: () => figures.text(),
        health: () => ({ ready: loop.ready(), draining: loop.draining() }),
      });
    if (listening) closing.push(() => listening.stop());
    const live = async (): Promise<void> => {
      try {
        await loop.run();
      } finally {
        await close();
      }
    };
    return { listening, loop, drain: () => loop.drain(), ended: live() };
  } catch (error) {
    await close();
    throw error;
  }
}

/** What the outbox says, without network; beside a connector that runs too. */
export interface OutboxState {
  readonly counts: Counts;
  readonly lastContactAtMs: number | null;
  /** What open items wait for. */
  readonly waits: readonly string[];
  readonly deadLetters: readonly {
    readonly itemId: string;
    readonly requestId: string;
    readonly task: string;
    readonly why: string;
    readonly atMs: number;
  }[];
}

const NOTHING: OutboxState = {
  counts: { open: 0, answered: 0, over: 0, dead: 0, unsent: 0 },
  lastContactAtMs: null,
  waits: [],
  deadLetters: [],
};

/** @throws Fault not_found without `connector init`; corrupt, storage */
export function outboxState(dir: string): OutboxState {
  demandConfig(dir);
  const { outbox: path } = filesOf(dir);
  if (!existsSync(path)) return NOTHING;
  const outbox = openOutbox(path, { readonly: true });
  try {
    const contact = outbox.fact("lastContactMs");
    return {
      counts: outbox.counts(),
      lastContactAtMs: contact === null ? null : Number(contact),
      waits: outbox.waits(),
      deadLetters: outbox.dead().map(({ itemId, requestId, task, why, updatedAtMs }) => {
        return { itemId, requestId, task: task.work.do, why, atMs: updatedAtMs };
      }),
    };
  } finally {
    outbox.close();
  }
}

/**
 * Puts dead letters back; a connector that runs takes them at its next look.
 *
 * @param id Its item, or the beginning of it; null for all.
 * @returns how many. @throws Fault not_found, ambiguous
 */
export function replayDeadLetters(dir: string, id: string | null, nowMs: number): number {
  demandConfig(dir);
  const { outbox: path } = filesOf(dir);
  const none = () => new Fault("not_found", "there is no such dead letter", { hint: "keyhold connector dead-letters" });
  if (!existsSync(path)) {
    if (id === null) return 0;
    throw none();
  }
  const outbox = openOutbox(path);
  try {
    if (id === null) return outbox.revive(null, nowMs);
    const found = outbox.dead().filter(({ itemId }) => itemId.startsWith(id.toLowerCase()));
    const [one, another] = found;
    if (!one || id === "") throw none();
    if (another) throw new Fault("ambiguous", "more than one dead letter begins so", { hint: "give more of its id" });
    return outbox.revive(one.itemId as FederatedRequestId, nowMs);
  } finally {
    outbox.close();
  }
}
