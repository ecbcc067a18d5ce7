import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { equalBytes } from "../../src/crypto/bytes.ts";
import type { HpkeKeyPair } from "../../src/crypto/hpke.ts";
import { hpkeKeyPair } from "../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { createEnclave, type Enclave } from "../../src/enclave/enclave.ts";
import type { Evidence } from "../../src/enclave/evidence.ts";
import { openJournal } from "../../src/enclave/journal.ts";
import { type EnclaveKeys, enclaveKeys } from "../../src/enclave/keys.ts";
import { sealPending } from "../../src/enclave/sealedshare.ts";
import type { PolicyId } from "../../src/ids.ts";
import {
  type Certificate,
  certificateHash,
  keyIdOf,
  type SignedCertificate,
  signCertificate,
} from "../../src/protocol/federation/certificate.ts";
import { shareOut } from "../../src/protocol/federation/custody.ts";
import { groupOf } from "../../src/protocol/federation/groups.ts";
import type { FederatedType } from "../../src/protocol/federation/kinds.ts";
import { federationIdOf, type Manifest, type SignedManifest } from "../../src/protocol/federation/manifest.ts";
import {
  type FederatedRequest,
  type RequestBody,
  requestIdOf,
  type SignedOrder,
  type SignedRequest,
  signDecision,
  signOrder,
  signRequest,
} from "../../src/protocol/federation/request.ts";
import { signerOf } from "./policies.ts";
import { type Seeded, seeded } from "./seeded.ts";

/** One server's enclave, in this process, with everything that only it should know. */
export interface WorldServer {
  readonly index: number;
  readonly keys: EnclaveKeys;
  enclave: Enclave;
  readonly journalPath: string;
  /** Ends it as a crash does and starts it again from its files. */
  restart(): void;
}

/** A key whose shares the test knows. */
export interface PlantedKey {
  readonly certificate: Certificate;
  readonly signed: SignedCertificate;
  readonly shares: ReadonlyMap<number, Uint8Array>;
  /** Sealed for use by each server. */
  readonly sealed: ReadonlyMap<number, Uint8Array>;
}

/** Enclaves that have signed one manifest, and an owner. */
export interface EnclaveWorld {
  readonly servers: readonly WorldServer[];
  readonly manifest: Manifest;
  readonly signed: SignedManifest;
  readonly owner: Signer;
  /** Orders and decides what goes through a keyring. */
  readonly registry: Signer;
  readonly recipient: HpkeKeyPair;
  readonly random: Seeded;
  nowMs: number;
  server(index: number): WorldServer;
  request(body: RequestBody, change?: Partial<FederatedRequest>, signer?: Signer): SignedRequest;
  order(
    request: SignedRequest,
    roster: readonly number[],
    attempt?: number,
    change?: Partial<SignedOrder["order"]>,
  ): SignedOrder;
  evidence(request: SignedRequest, key?: PlantedKey | null, change?: Partial<Evidence>): Evidence;
  signBody(key: PlantedKey, message?: string): Extract<RequestBody, { kind: "sign" }>;
  /** Shares a secret out as a ceremony would have, certifies it and confirms it at every server. */
  plant(type: FederatedType, change?: Partial<Certificate>): Promise<PlantedKey>;
  close(): void;
}

const T0 = 1_800_000_000_000;

export interface WorldOptions {
  readonly n?: number;
  readonly threshold?: number;
  readonly seed?: number;
  /** Policy of each server, by index. */
  readonly policies?: (index: number, federation: { readonly name: string }) => PolicyId | null;
}

async function startServer(directory: string, index: number, random: Seeded, now: () => number): Promise<WorldServer> {
  const journalPath = join(directory, `journal-${index}`);
  writeFileSync(journalPath, "", { mode: 0o600 });
  const keys = await enclaveKeys(random.bytes(32));
  const start = (): Enclave =>
    createEnclave({
      keys,
      journal: openJournal(journalPath, keys.journalKey),
      now,
      random: (length) => random.bytes(length),
    });
  const server: WorldServer = {
    index,
    keys,
    enclave: start(),
    journalPath,
    restart() {
      server.enclave.close();
      server.enclave = start();
    },
  };
  return server;
}

/** Starts `n` enclaves (3) with threshold 2 and has them sign a manifest. */
export async function enclaveWorld(options: WorldOptions = {}): Promise<EnclaveWorld> {
  const { n = 3, threshold = 2, seed = 1, policies = () => null } = options;
  const random = seeded(seed);
  const directory = mkdtempSync(join(tmpdir(), "keyhold-enclaves-"));
  const clock = { nowMs: T0 };
  const servers: WorldServer[] = [];
  for (let index = 1; index <= n; index++) {
    servers.push(await startServer(directory, index, random.fork(), () => clock.nowMs));
  }
  const first: Omit<Manifest, "federationId"> = {
    name: "test",
    epoch: 1,
    threshold,
    servers: servers.map(({ index, keys }) => ({
      index,
      identity: keys.signer.publicKey,
      sealing: keys.hpke.publicKey,
      url: `https://s${index}.example.org`,
      pin: `sha256:${String.fromCharCode(64 + index).repeat(43)}`,
      policy: policies(index, { name: "test" }),
    })),
    createdAtMs: T0,
    nonce: random.bytes(32),
    previous: new Uint8Array(32),
  };
  const manifest: Manifest = { ...first, federationId: federationIdOf(first) };
  const signatures = await Promise.all(
    servers.map(({ enclave }) => enclave.handle("manifest.sign", { manifest, before: null })),
  );
  const owner = signerFromSeed(random.bytes(32));
  const recipient = await hpkeKeyPair(random.bytes(32));
  const world: EnclaveWorld = {
    servers,
    manifest,
    signed: { manifest, signatures },
    owner,
    registry: signerOf("registry"),
    recipient,
    random,
    get nowMs() {
      return clock.nowMs;
    },
    set nowMs(value) {
      clock.nowMs = value;
    },
    server(index) {
      const found = servers.find((s) => s.index === index);
      if (!found) throw new Error(`no server ${index}`);
      return found;
    },
    request: (body, change = {}, signer = owner) =>
      signRequest(signer, {
        federationId: manifest.federationId,
        epoch: manifest.epoch,
        requester: signer.publicKey,
        nonce: random.bytes(32),
        createdAtMs: clock.nowMs,
        expiresAtMs: clock.nowMs + 600_000,
        keyring: null,
        body,
        ...change,
      }),
    order: ({ request }, roster, attempt = 1, change = {}) =>
      signOrder(request.keyring ? world.registry : owner, {
        requestId: requestIdOf(request),
        attempt,
        roster,
        contributions: [],
        ownerNonces: null,
        ...change,
      }),
    evidence: (request, key = null, change = {}) => ({
      manifest: world.signed,
      request,
      certificate: key?.signed ?? null,
      certificateManifest: key ? world.signed : null,
      serverPolicy: null,
      keyPolicy: null,
      votes: [],
      requesterApproval: null,
      ...change,
    }),
    signBody: (key, message = "message") => ({
      kind: "sign",
      form: "message" as const,
      input: 0,
      keyId: key.certificate.keyId,
      generation: key.certificate.generation,
      message: new TextEncoder().encode(message),
      amount: null,
      recipient: recipient.publicKey,
    }),
    plant: (type, change = {}) => plant(world, type, change),
    close() {
      for (const { enclave } of servers) enclave.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}

/** Signs a certificate by all its holders and accepts it as the owner that it names. */
export function certify(
  world: EnclaveWorld,
  certificate: Certificate,
  signers = certificate.holders,
): SignedCertificate {
  return {
    certificate,
    signatures: signers.map((index) => signCertificate(world.server(index).keys.signer, index, certificate)),
    acceptance: signDecision(equalBytes(certificate.owner, world.registry.publicKey) ? world.registry : world.owner, {
      requestId: certificate.requestId,
      verdict: "accept",
      attempt: certificate.attempt,
      certificateHash: certificateHash(certificate),
    }),
  };
}

async function plant(world: EnclaveWorld, type: FederatedType, change: Partial<Certificate>): Promise<PlantedKey> {
  const { random, manifest, owner, servers } = world;
  const holders = servers.map(({ index }) => index);
  const group = groupOf(type);
  const scalar = group.encodeScalar(group.reduceScalar(random.bytes(64)));
  const shared = shareOut({
    type,
    threshold: manifest.threshold,
    holders,
    scalar,
    ownerScalar: null,
    random: (length) => random.bytes(length),
  });
  const requestId = requestIdOf(world.request({ ...purposeOf(type), kind: "generate" }).request);
  const transcript = random.bytes(32);
  const certificate: Certificate = {
    keyId: keyIdOf(manifest.federationId, requestId, 1, transcript, shared.publicKey),
    federationId: manifest.federationId,
    epoch: manifest.epoch,
    requestId,
    attempt: 1,
    ...purposeOf(type),
    owner: owner.publicKey,
    origin: "generated",
    publicKey: shared.publicKey,
    commitments: shared.commitments,
    untweaked: null,
    ownerPoint: null,
    value: null,
    threshold: manifest.threshold,
    holders,
    generation: 0,
    transcript,
    predecessor: null,
    ...change,
  };
  const signed = certify(world, certificate);
  const sealed = new Map<number, Uint8Array>();
  const shares = new Map(shared.shares.map(({ index, share }) => [index, share]));
  for (const { index, keys, enclave } of servers) {
    const pending = sealPending(keys, certificate, shares.get(index) ?? new Uint8Array(0), (length) =>
      random.bytes(length),
    );
    const input = { manifest: world.signed, certificate: signed, sealed: pending };
    sealed.set(index, (await enclave.handle("confirm", input)).sealed);
  }
  return { certificate, signed, shares, sealed };
}

/** What is asked for where a test does not care. */
export function purposeOf(type: FederatedType) {
  return { type, length: 32, custody: "delegated", control: "unilateral", policy: null, owner: null } as const;
}
