import { makeOrder, randomContribution } from "../../src/client/federation/attempt.ts";
import { generateKey, goOnMaking } from "../../src/client/federation/generate.ts";
import type { Fleet, FleetOperation } from "../../src/client/federation/ground.ts";
import type { HeldKey, HeldRequest } from "../../src/client/federation/held.ts";
import { deliverOwed } from "../../src/client/federation/pending.ts";
import { goOnResharing, reshareKey } from "../../src/client/federation/reshare.ts";
import { goOnUsing, releaseKey, signWithKey } from "../../src/client/federation/use.ts";
import { hpkeKeyPair } from "../../src/crypto/hpke.ts";
import { Fault } from "../../src/errors.ts";
import { requestSigner } from "../../src/protocol/federation/credentials.ts";
import { type Message, type SignedMessage, signMessage } from "../../src/protocol/federation/message.ts";
import { requestIdOf, signOrder, signRequest } from "../../src/protocol/federation/request.ts";
import { type ClientWorld, clientWorld, WISH } from "../client/federation/clientworld.ts";
import { type Seeded, seeded } from "../support/seeded.ts";
import type { FederationBug } from "./federationbugs.ts";
import { type FederationJudge, federationJudge } from "./federationjudge.ts";

export interface FederationRun {
  readonly seed: number;
  readonly wrong: readonly string[];
  /** What happened, line by line: the same for the same seed. */
  readonly diary: readonly string[];
  readonly keys: number;
  readonly signatures: number;
  readonly crashes: number;
}

/** The client dies here; what its vault holds stays. */
class Crash extends Error {}

interface Weather {
  readonly loseRequest: number;
  readonly loseReply: number;
  readonly repeat: number;
  readonly alter: number;
  readonly restart: number;
  readonly crash: number;
}

const CALM: Weather = { loseRequest: 0, loseReply: 0, repeat: 0, alter: 0, restart: 0, crash: 0 };
const SHAPES = [
  [2, 2],
  [3, 2],
  [3, 2],
  [4, 3],
  [5, 3],
] as const;
const TYPES = ["ed25519", "schnorr", "secp256k1", "p256", "bytes", "ristretto255"] as const;
const LIES = [
  "equivocate",
  "proof",
  "echo",
  "share",
  "complain",
  "confirm",
  "partial",
  "silent",
  "accuse",
  "none",
] as const;
type Lie = (typeof LIES)[number];

function weatherOf(random: Seeded): Weather {
  const often = (most: number) => (random.chance(0.4) ? 0 : random.next() * most);
  return {
    loseRequest: often(0.03),
    loseReply: often(0.04),
    repeat: often(0.1),
    alter: often(0.03),
    restart: often(0.02),
    crash: often(0.02),
  };
}

/** What a lying server says in place of the truth; signed with its own key. */
function lie(what: Lie, random: Seeded, message: Message): Message {
  const { payload } = message;
  const noise = (bytes: Uint8Array) => bytes.map((byte, at) => (at === bytes.length - 1 ? byte ^ 1 : byte));
  if (what === "proof" && payload.round === "commit") {
    return { ...message, payload: { ...payload, proof: noise(payload.proof) } };
  }
  if (what === "echo" && payload.round === "echo") {
    return { ...message, payload: { ...payload, seen: payload.seen.map((s) => ({ ...s, hash: random.bytes(32) })) } };
  }
  if (what === "share" && payload.round === "share") {
    return { ...message, payload: { ...payload, sealed: noise(payload.sealed) } };
  }
  if (what === "complain" && payload.round === "complaint") {
    const accused = [1, 2].filter((index) => index !== message.from).slice(0, 1);
    return { ...message, payload: { ...payload, accused } };
  }
  if (what === "confirm" && payload.round === "confirm") {
    return { ...message, payload: { ...payload, proof: noise(payload.proof) } };
  }
  if (what === "partial" && payload.round === "partial") {
    return { ...message, payload: { ...payload, sealed: noise(payload.sealed) } };
  }
  return message;
}

/** Everything around one client in one run. */
interface Scene {
  readonly world: ClientWorld;
  readonly judge: FederationJudge;
  /** A stream for each server: which of them answers first is the machine's, and moves no other's. */
  readonly streams: ReadonlyMap<number, Seeded>;
  readonly liar: number | null;
  readonly what: Lie;
  weather: Weather;
  crashes: number;
  dead: boolean;
}

function streamOf({ streams }: Scene, index: number): Seeded {
  const found = streams.get(index);
  if (!found) throw new Error("no such server");
  return found;
}

function alterOne(random: Seeded, messages: readonly SignedMessage[]): readonly SignedMessage[] {
  if (messages.length === 0) return messages;
  const at = random.int(messages.length);
  return messages.map((one, place) => {
    if (place !== at) return one;
    const { payload } = one.message;
    if (payload.round === "commit") {
      return {
        ...one,
        message: { ...one.message, payload: { ...payload, proof: random.bytes(payload.proof.length) } },
      };
    }
    return { ...one, message: { ...one.message, orderHash: random.bytes(32) } };
  });
}

/** A relay that shows one server's first message to another in a second version, which that server has signed too. */
function showOtherwise(scene: Scene, to: number, messages: readonly SignedMessage[]): readonly SignedMessage[] {
  const { liar, what, world } = scene;
  if (liar === null || what !== "equivocate" || to % 2 === 0) return messages;
  return messages.map((one) => {
    const { payload, from } = one.message;
    if (payload.round !== "commit" || from !== liar) return one;
    const sealing = world.at(to).signer.publicKey.map((byte, at) => (at === 0 ? 9 : byte));
    return signMessage(world.at(liar).signer, { ...one.message, payload: { ...payload, sealing } });
  });
}

/** The network and everyone on it. */
function meddleWith(scene: Scene): ClientWorld["meddle"] {
  const { world, judge } = scene;
  return async (index, name, input) => {
    if (scene.dead) throw new Crash();
    const { weather } = scene;
    const random = streamOf(scene, index);
    const strike = () => {
      if (!random.chance(weather.crash)) return;
      scene.crashes += 1;
      scene.dead = true;
      throw new Crash();
    };
    strike();
    const server = world.at(index);
    if (random.chance(weather.restart)) server.restart();
    if (random.chance(weather.loseRequest)) throw new Fault("unreachable", "nobody answers");
    if (index === scene.liar && scene.what === "silent" && name === "federation.relay") {
      throw new Fault("timed_out", "nobody answers");
    }
    const brought = bring(scene, index, name, input);
    judge.before(index, name, brought);
    let answer = (await server.call(name, brought as never)) as { messages?: readonly SignedMessage[] };
    if (random.chance(weather.repeat)) answer = (await server.call(name, brought as never)) as typeof answer;
    judge.after(index, name, brought, answer);
    if (scene.dead) throw new Crash();
    strike();
    if (random.chance(weather.loseReply)) throw new Fault("outcome_unknown", "the answer was lost");
    if (!answer.messages) return answer;
    if (index !== scene.liar) return answer;
    if (scene.what === "accuse") {
      const culprits = [{ index: index === 1 ? 2 : 1, reason: "bad_share", evidence: answer.messages.slice(0, 1) }];
      return { ...answer, outcome: { result: "failed", certificate: null, signature: null, culprits } };
    }
    const messages = answer.messages.map((one) =>
      signMessage(server.signer, lie(scene.what, seeded(index), one.message)),
    );
    return { ...answer, messages };
  };
}

function bring(scene: Scene, index: number, name: FleetOperation, input: unknown): unknown {
  if (name !== "federation.relay") return input;
  const relayed = input as { messages: readonly SignedMessage[] };
  let { messages } = relayed;
  const random = streamOf(scene, index);
  if (random.chance(scene.weather.alter)) messages = alterOne(random, messages);
  messages = showOtherwise(scene, index, messages);
  if (random.chance(0.2)) messages = [...messages].reverse();
  return { ...relayed, messages };
}

const CLOCKS = 0x5eed;
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

/** Plays one seed: a key is made, used and shared anew while everything around fails; then judges. */
export async function playFederation(seed: number, bug: FederationBug | null): Promise<FederationRun> {
  const random = seeded(seed);
  const [n, t] = random.pick(SHAPES);
  const world = await clientWorld(n, t, random.int(2 ** 31));
  const lying = random.chance(0.4) ? random.pick(LIES) : "none";
  const liar = lying === "none" ? null : 1 + random.int(n);
  const judge = federationJudge(world, liar);
  const scene: Scene = {
    world,
    judge,
    streams: new Map(world.servers.map(({ index }) => [index, random.fork()])),
    liar,
    what: lying,
    weather: CALM,
    crashes: 0,
    dead: false,
  };
  const diary: string[] = [`${t} of ${n}, liar ${liar ?? "none"}: ${lying}`];
  // a stream of its own: what a seed gives otherwise does not depend on clocks
  const clocks = seeded(seed ^ CLOCKS);
  for (const { index } of world.servers) {
    const off = clocks.chance(0.1) ? DAY_MS * 2 : clocks.chance(0.5) ? MINUTE_MS : 0;
    world.skews.set(index, Math.round((clocks.next() - 0.5) * 2 * off));
  }
  if (bug?.faults) {
    const faults = bug.faults(world.servers);
    for (const server of world.servers) if (server.index !== liar) server.faults = faults;
  }
  const ground = bug?.keeping ? { ...world.ground, keeping: bug.keeping(world.ground.keeping) } : world.ground;
  world.meddle = meddleWith(scene);
  let signatures = 0;

  /** One piece of work; a crash ends it, and the next one finds what the vault holds. */
  async function attempt(what: string, work: () => Promise<unknown>): Promise<boolean> {
    world.now += random.int(60_000);
    try {
      const done = await work();
      diary.push(`${what}: ${(done as { status?: string } | undefined)?.status ?? "ok"}`);
      return true;
    } catch (error) {
      if (error instanceof Crash) diary.push(`${what}: crash`);
      else if (error instanceof Fault) diary.push(`${what}: ${error.code}`);
      else throw error;
      return false;
    } finally {
      scene.dead = false;
    }
  }

  async function goOn(): Promise<void> {
    for (const held of world.disk.requests) {
      await attempt(`go on ${held.request.request.body.kind}`, () => continued(held));
    }
  }
  const continued = (held: HeldRequest): Promise<unknown> => {
    const { kind } = held.request.request.body;
    if (kind === "generate" || kind === "import") return goOnMaking(ground, held);
    return kind === "reshare" ? goOnResharing(ground, held) : goOnUsing(ground, held);
  };
  const sign = (key: HeldKey) =>
    attempt("use", async () => {
      const { type } = key.certificate.certificate;
      if (type === "bytes") return judge.value(await releaseKey(ground, key, "retrieve"));
      if (type === "ristretto255") return judge.value(await releaseKey(ground, key, "export"));
      const message = random.bytes(20);
      const used = await signWithKey(ground, key, message, null);
      judge.signature(key, message, used);
      signatures += 1;
      return used;
    });

  const type = random.pick(TYPES);
  const custody = random.chance(0.4) ? "self" : "delegated";
  try {
    scene.weather = weatherOf(random);
    if (random.chance(0.3)) for (const server of world.servers) if (random.chance(0.5)) server.ruling = "wait";
    await attempt("generate", () => generateKey(ground, { ...WISH, type, custody }));
    if (random.chance(0.5)) await attempt("hasten", () => hasten(world));
    if (random.chance(0.2)) world.down.add(1 + random.int(n));
    for (const server of world.servers) server.ruling = "allow";
    for (let turn = 0; turn < 2 && world.disk.keys.length === 0; turn++) await goOn();
    world.down.clear();
    const [key] = world.disk.keys;
    if (key) {
      await sign(key);
      const mode = random.pick(["repair", "refresh", "reshare"] as const);
      await attempt(mode, () => reshareKey(ground, key, { mode, threshold: null, holders: null }));
    }
    scene.weather = CALM;
    await goOn();
    await attempt("deliver", () => deliverOwed(ground));
    for (const now of world.disk.keys) await sign(now);
    if (key) await attempt("old shares", () => useOld(world, key));
    judge.end();
  } catch (error) {
    judge.wrong.push(`the run failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  }
  return { seed, wrong: judge.wrong, diary, keys: world.disk.keys.length, signatures, crashes: scene.crashes };
}

/** Orders an attempt among servers that still wait for approval, past the client's own checks. */
async function hasten(world: ClientWorld): Promise<void> {
  const { ground, servers } = world;
  const waiting = servers.flatMap(({ index, ruling }) => (ruling === "wait" ? [index] : []));
  const [held] = world.disk.requests;
  if (!held || held.decision || waiting.length === 0) return;
  const everyone = servers.map(({ index }) => index);
  const attempt = (held.orders.at(-1)?.order.attempt ?? 0) + 1;
  const order = await makeOrder(ground, held, attempt, everyone, randomContribution(ground), null);
  for (const index of waiting) {
    try {
      await ground.fleet.call(index, "federation.begin", { order });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
    }
  }
}

/** Asks for the use of a generation as it was once known, past the client's own checks. */
async function useOld(world: ClientWorld, { certificate: { certificate } }: HeldKey): Promise<void> {
  const { ground, servers } = world;
  const fleet: Fleet = ground.fleet;
  const { federationId, epoch } = fleet.manifest;
  const { keyId, generation, type, holders, threshold } = certificate;
  const signer = requestSigner(ground.secret, federationId);
  const recipient = (await hpkeKeyPair(ground.random(32))).publicKey;
  const common = { keyId, generation, message: new Uint8Array(8), amount: null, recipient };
  const signs = type === "ed25519" || type === "schnorr";
  const release = type === "bytes" ? "retrieve" : type === "ristretto255" ? "export" : "sign";
  const message = release === "sign" ? common.message : null;
  const body = signs
    ? { kind: "sign" as const, form: "message" as const, input: 0, ...common }
    : {
        kind: "release" as const,
        form: "message" as const,
        input: 0,
        ...common,
        purpose: release as "retrieve" | "export" | "sign",
        message,
      };
  const request = {
    federationId,
    epoch,
    requester: signer.publicKey,
    nonce: ground.random(32),
    createdAtMs: world.now,
    expiresAtMs: world.now + 60_000,
    keyring: null,
    body,
  };
  const requestId = requestIdOf(request);
  const roster = holders.slice(0, threshold);
  const order = signOrder(signer, { requestId, attempt: 1, roster, contributions: [], ownerNonces: null });
  for (const { index } of servers) {
    if (!roster.includes(index)) continue;
    try {
      await fleet.call(index, "federation.submit", { request: signRequest(signer, request), label: null });
      await fleet.call(index, "federation.begin", { order });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
    }
  }
}
