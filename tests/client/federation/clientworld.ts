import type { Fleet, FleetInput, FleetOperation, Ground, Keeping } from "../../../src/client/federation/ground.ts";
import type { HeldKey, HeldPolicy, HeldRequest } from "../../../src/client/federation/held.ts";
import { openLabel, sealLabel } from "../../../src/client/federation/labels.ts";
import { Fault } from "../../../src/errors.ts";
import { type WorldServer, worldManifest, worldServer } from "../../support/federationworld.ts";
import { seeded } from "../../support/seeded.ts";

/** What a test does to one call: throws, or alters its answer. */
export type Meddle = (
  index: number,
  name: FleetOperation,
  input: unknown,
  pass: () => Promise<unknown>,
) => Promise<unknown>;

/** What lies in the vault: it survives a restart of the client. */
export interface Disk {
  requests: readonly HeldRequest[];
  keys: readonly HeldKey[];
  policies: readonly HeldPolicy[];
}

export interface ClientWorld {
  readonly ground: Ground;
  readonly servers: readonly WorldServer[];
  readonly disk: Disk;
  readonly notices: string[];
  /** Every call that left the client, in order. */
  readonly calls: { readonly index: number; readonly name: FleetOperation; readonly input: unknown }[];
  readonly down: Set<number>;
  meddle: Meddle;
  /** Runs before each write to the vault; throwing is a crash. */
  onSave: (what: string) => void;
  at(index: number): WorldServer;
  now: number;
  /** How far servers' clocks are off, in milliseconds, by index. */
  readonly skews: Map<number, number>;
}

/** A client and n servers in one process. */
export async function clientWorld(n: number, threshold: number, seed = 1): Promise<ClientWorld> {
  const stream = seeded(seed);
  const random = (length: number) => stream.bytes(length);
  const skews = new Map<number, number>();
  const { manifest, keys } = await worldManifest(n, threshold, random);
  const servers = manifest.servers.map(({ index }) => {
    const own = keys.get(index);
    if (!own) throw new Error("no keys");
    const mine = stream.fork();
    return worldServer(
      manifest,
      index,
      own,
      (length) => mine.bytes(length),
      () => world.now + (skews.get(index) ?? 0),
    );
  });
  const disk: Disk = { requests: [], keys: [], policies: [] };
  const keeping: Keeping = {
    requests: () => disk.requests,
    keys: () => disk.keys,
    policies: () => disk.policies,
    async changeRequest(requestId, change) {
      const before = disk.requests.find((held) => held.requestId === requestId) ?? null;
      const next = change(before);
      world.onSave(next === null ? "drop" : next.decision && !before?.decision ? "decision" : "request");
      const others = disk.requests.filter((held) => held.requestId !== requestId);
      disk.requests = next === null ? others : [...others, next];
      return next;
    },
    async changeKey(keyId, change) {
      world.onSave("key");
      const next = change(disk.keys.find((held) => held.keyId === keyId) ?? null);
      disk.keys = [...disk.keys.filter((held) => held.keyId !== keyId), next];
      return next;
    },
    async changePolicy(policy) {
      disk.policies = [...disk.policies.filter(({ policyId }) => policyId !== policy.policyId), policy];
    },
  };
  const fleet: Fleet = {
    manifest,
    async call<N extends FleetOperation>(index: number, name: N, input: FleetInput<N>) {
      world.calls.push({ index, name, input });
      if (world.down.has(index)) throw new Fault("unreachable", "nobody answers");
      const pass = () => world.at(index).call(name, input);
      return (await world.meddle(index, name, input, pass)) as Awaited<ReturnType<typeof pass>>;
    },
  };
  const secret = random(32);
  const { federationId } = manifest;
  const notices: string[] = [];
  const world: ClientWorld = {
    ground: {
      fleet,
      keeping,
      manifests: [manifest],
      secret,
      name: "test",
      now: () => world.now,
      random,
      notice: (text) => notices.push(text),
      sealLabel: (requestId, label) => sealLabel(secret, { federationId, requestId }, label, random),
      openLabel: (requestId, sealed) => openLabel(secret, { federationId, requestId }, sealed),
    },
    servers,
    skews,
    disk,
    notices,
    calls: [],
    down: new Set(),
    meddle: (_index, _name, _input, pass) => pass(),
    onSave: () => undefined,
    at(index) {
      const server = servers.find((one) => one.index === index);
      if (!server) throw new Error(`no server ${index}`);
      return server;
    },
    now: 1_700_000_000_000,
  };
  return world;
}

/** What a generation with usual wishes asks for. */
export const WISH = {
  name: "key",
  type: "ed25519",
  custody: "delegated",
  control: "unilateral",
  policy: null,
  bytes: 32,
} as const;

/** The certificates of one key on all servers that know it, by hash: honest ones agree on one. */
export function certificatesOf({ servers }: ClientWorld, keyId: string): ReadonlyMap<string, readonly number[]> {
  const found = new Map<string, number[]>();
  for (const { index, keys } of servers) {
    for (const [id, { certificate }] of keys) {
      if (id !== keyId) continue;
      const text = JSON.stringify([certificate.certificate.transcript.toHex(), certificate.certificate.generation]);
      found.set(text, [...(found.get(text) ?? []), index]);
    }
  }
  return found;
}
