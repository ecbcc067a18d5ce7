import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { createEnclave, type Enclave } from "../../src/enclave/enclave.ts";
import { openJournal } from "../../src/enclave/journal.ts";
import { type EnclaveKeys, enclaveKeys } from "../../src/enclave/keys.ts";
import type { FederationId, PolicyId } from "../../src/ids.ts";
import { signEnrolment } from "../../src/protocol/federation/enrolment.ts";
import {
  type FederationServer,
  federationIdOf,
  type Manifest,
  manifestHash,
  type SignedManifest,
} from "../../src/protocol/federation/manifest.ts";
import type { KeyStoreService } from "../../src/server/ceremony/service.ts";
import type { Limits, ServerContext } from "../../src/server/context.ts";
import { assembleFederation } from "../../src/server/federation/index.ts";
import type { FederationService, FederationSite } from "../../src/server/federation/service.ts";
import type { RegistryService } from "../../src/server/keyring/service.ts";
import type { Store } from "../../src/storage/store.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { logInRaw, outputOf, postInput, type RawSession, registerRaw } from "./attacker.ts";
import { random, startTestServer, type TestServer } from "./harness.ts";

/** Key servers that can be members of federations: real handlers, stores and enclaves, in this process. */

export interface FederatedServer {
  readonly server: TestServer;
  readonly service: FederationService;
  readonly site: FederationSite;
  readonly enclave: Enclave;
  readonly enclaveKeys: EnclaveKeys;
  readonly pin: string;
  /** What the operator's hook would have been told. */
  readonly told: { readonly event: string }[];
  close(): Promise<void>;
}

/** Starts one; its operator has set no policy. */
export async function startFederated(
  options: {
    limits?: Partial<Limits>;
    wrap?: (store: Store) => Store;
    path?: string;
    promptLog?: boolean;
    /** Its role as a registry too; none without it. */
    registry?: (ctx: ServerContext) => RegistryService;
    /** Its key store; none without it. */
    keyStore?: (ctx: ServerContext) => KeyStoreService;
  } = {},
): Promise<FederatedServer> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-federated-"));
  const journalPath = join(directory, "journal");
  writeFileSync(journalPath, "", { mode: 0o600 });
  const keys = await enclaveKeys(random(32));
  const journal = openJournal(journalPath, keys.journalKey);
  let now = Date.now;
  const enclave = createEnclave({ keys, journal, now: () => now(), random });
  const told: { readonly event: string }[] = [];
  let site: FederationSite | undefined;
  let service: FederationService | undefined;
  const server = await startTestServer({
    ...options,
    federation: (ctx: ServerContext) => {
      now = ctx.now;
      site = {
        ctx,
        version: "1.2.3",
        pin: pinOf(ctx.keys.identity),
        operator: signerFromSeed(new Uint8Array(32).fill(9)),
        enclave: { call: (name, input) => enclave.handle(name, input) },
        notify: (event) => told.push(event),
      };
      service = assembleFederation(site, async () => undefined);
      return service;
    },
  });
  if (!site || !service) throw new Error("no role was asked for");
  return {
    server,
    service,
    site,
    enclave,
    enclaveKeys: keys,
    pin: site.pin,
    told,
    async close() {
      await server.close();
      enclave.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The manifest's line of a server. */
export const lineOf = (
  one: FederatedServer,
  index: number,
  policy: PolicyId | null = null,
): FederationServer & { readonly policy: PolicyId | null } => ({
  index,
  identity: one.enclaveKeys.signer.publicKey,
  sealing: one.enclaveKeys.hpke.publicKey,
  url: `https://s${index}.example.org:7443`,
  pin: one.pin,
  policy,
});

type Draft = Omit<Manifest, "federationId">;

/** A first manifest of these servers, indices from 1. */
export function draftOf(servers: readonly FederatedServer[], change: Partial<Draft> = {}): Manifest {
  const first: Draft = {
    name: "test",
    epoch: 1,
    threshold: Math.floor(servers.length / 2) + 1,
    servers: servers.map((one, i) => lineOf(one, i + 1)),
    createdAtMs: 1_800_000_000_000,
    nonce: random(32),
    previous: new Uint8Array(32),
    ...change,
  };
  return { ...first, federationId: federationIdOf(first) };
}

/** The manifest after `before`. */
export const nextOf = ({ manifest }: SignedManifest, change: Partial<Draft>): Manifest => ({
  ...manifest,
  epoch: manifest.epoch + 1,
  previous: manifestHash(manifest),
  ...change,
});

/** Lays a draft before a server. */
export const propose = (
  one: FederatedServer,
  manifest: Manifest,
  before: SignedManifest | null = null,
  from?: string,
) => postInput(one.server, "federation.propose", { manifest, before }, from);

/** What its operator does on the own machine. */
export const accept = (one: FederatedServer, manifest: Manifest) =>
  one.service.control["federation.accept"]({
    federationId: manifest.federationId,
    epoch: manifest.epoch,
    hash: manifestHash(manifest),
  });

/** Lays a manifest before servers, lets their operators accept it, and gathers the signatures. */
export async function signedBy(
  servers: readonly FederatedServer[],
  manifest: Manifest,
  before: SignedManifest | null = null,
): Promise<SignedManifest> {
  const signatures: SignedManifest["signatures"][number][] = [];
  const { federationId, epoch } = manifest;
  for (const one of servers) {
    outputOf("federation.propose", await propose(one, manifest, before));
    await accept(one, manifest);
    const reply = await postInput(one.server, "federation.proposal", { federationId, epoch });
    signatures.push(...outputOf("federation.proposal", reply).proposal.signatures);
  }
  return { manifest, signatures };
}

export const complete = (one: FederatedServer, manifest: SignedManifest) =>
  postInput(one.server, "federation.complete", { manifest });

/** A federation of these servers, whole. */
export async function federate(
  servers: readonly FederatedServer[],
  change: Partial<Draft> = {},
): Promise<SignedManifest> {
  const signed = await signedBy(servers, draftOf(servers, change));
  for (const one of servers) outputOf("federation.complete", await complete(one, signed));
  return signed;
}

/** Input of `federation.enrol` for an account, with keys of its own. */
export function enrolment(
  federationId: FederationId,
  server: number,
  session: Pick<RawSession, "userId">,
  seed = random(1),
) {
  const [request, approval] = [1, 2].map((role) => signerFromSeed(new Uint8Array(32).fill((seed[0] ?? 0) ^ role)));
  if (!request || !approval) throw new Error("no keys");
  const at = { federationId, server, userId: session.userId };
  return {
    request,
    approval,
    input: {
      federationId,
      requestKey: request.publicKey,
      requestProof: signEnrolment(request, { ...at, role: "request" }),
      approvalKey: approval.publicKey,
      approvalProof: signEnrolment(approval, { ...at, role: "approval" }),
    },
  };
}

/** Registers an account and opens a session. */
export async function accountAt({ server }: FederatedServer, account: string): Promise<RawSession> {
  await registerRaw(server, account);
  return logInRaw(server, account, "correct horse");
}
