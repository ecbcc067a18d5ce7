import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { AnyHashId, FederationId, RequestId, SessionId, UserId } from "../../src/ids.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import {
  federationIdOf,
  type Manifest,
  manifestHash,
  type SignedManifest,
  signManifest,
} from "../../src/protocol/federation/manifest.ts";
import { type PolicyDocument, policyHash, type SignedPolicy } from "../../src/protocol/federation/policy.ts";
import { signPolicy } from "../../src/protocol/federation/policychain.ts";
import { registryScope } from "../../src/protocol/federation/request.ts";
import { keyringEnrolmentBytes, type Party } from "../../src/protocol/keyring/keyring.ts";
import type { FederatedCaller, Limits, RegistryOperation, ServerContext } from "../../src/server/context.ts";
import { assembleRegistry, type RegistryRest } from "../../src/server/keyring/index.ts";
import { createRegistryControl, type RegistryControl } from "../../src/server/keyring/operator.ts";
import { createRest } from "../../src/server/keyring/rest.ts";
import type { RegistryService, RegistrySite } from "../../src/server/keyring/service.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { decodeJson, encodeJson } from "../../src/wire/codec.ts";
import type { KeyringView, WorkspaceView } from "../../src/wire/keyring/views.ts";
import { type InputOf, type OutputOf, operations } from "../../src/wire/operations.ts";
import { account, userId } from "../storage/rows.ts";
import { rule, seedOf, signerOf } from "./policies.ts";

/** An account at the registry with its two keys. */
export interface RegistryPerson {
  readonly name: string;
  readonly number: number;
  readonly userId: UserId;
  readonly owner: Signer;
  readonly party: Signer;
}

/** One registry in this process: real store, real parts; operations go through their codecs. */
export interface RegistryWorld {
  readonly store: Store;
  readonly site: RegistrySite;
  /** The registry's identity. */
  readonly registry: Signer;
  readonly scope: FederationId;
  readonly service: RegistryService;
  readonly control: RegistryControl;
  /** Events that reached the hook. */
  readonly notices: { readonly event: string; readonly [fact: string]: unknown }[];
  nowMs: number;
  /** An account that is not enrolled. */
  stranger(name: string): Promise<RegistryPerson>;
  /** An account with an owner key. */
  person(name: string): Promise<RegistryPerson>;
  /** An account with a party key. */
  connector(name: string): Promise<RegistryPerson>;
  enrol(who: RegistryPerson, role: "owner" | "party", change?: Partial<InputOf<"keyring.enrol">>): Promise<object>;
  call<N extends RegistryOperation>(name: N, input: InputOf<N>, who: RegistryPerson): Promise<OutputOf<N>>;
  /** First link of a workspace's policy; its owners sign it. */
  policy(owners: readonly RegistryPerson[], change?: Partial<PolicyDocument>): SignedPolicy;
  /** Made by the first of them. */
  workspace(owners: readonly RegistryPerson[], change?: Partial<PolicyDocument>): Promise<WorkspaceView>;
  keyring(
    admin: RegistryPerson,
    parties: readonly RegistryPerson[],
    change?: Partial<KeyringInput>,
  ): Promise<KeyringView>;
  close(): Promise<void>;
}

type KeyringInput = InputOf<"keyring.create">;

const encoder = new TextEncoder();

/** Keys of the servers of a federation that signs but does nothing. */
export const serverKey = (index: number): Signer => signerOf(`server ${index}`);

const sealed = (manifest: Manifest, by: readonly number[]): SignedManifest => ({
  manifest,
  signatures: by.map((index) => signManifest(serverKey(index), manifest)),
});

/** The first manifest of a federation with these servers, signed by all. */
export function manifestOf(indices: readonly number[] = [1, 2, 3], threshold = 2): SignedManifest {
  const first: Omit<Manifest, "federationId"> = {
    name: "test",
    epoch: 1,
    threshold,
    servers: indices.map((index) => ({
      index,
      identity: serverKey(index).publicKey,
      sealing: seedOf(`sealing ${index}`),
      url: `https://s${index}.example.org`,
      pin: `sha256:${String.fromCharCode(64 + index).repeat(43)}`,
      policy: null,
    })),
    createdAtMs: 1,
    nonce: seedOf("nonce"),
    previous: new Uint8Array(32),
  };
  return sealed({ ...first, federationId: federationIdOf(first) }, indices);
}

/** The next epoch, signed by all old and new servers. */
export function nextManifest(before: Manifest, change: Partial<Manifest>): SignedManifest {
  const next: Manifest = { ...before, epoch: before.epoch + 1, previous: manifestHash(before), ...change };
  const all = new Set([...before.servers, ...next.servers].map(({ index }) => index));
  return sealed(next, [...all]);
}

/** The next link of a workspace's policy, signed by these owners. */
export function nextLink(
  { policy: { document } }: Pick<WorkspaceView, "policy">,
  change: Partial<PolicyDocument>,
  signers: readonly RegistryPerson[],
): SignedPolicy {
  const next = { ...document, version: document.version + 1, previous: policyHash(document), ...change };
  return { document: next, signatures: signers.map(({ owner }) => signPolicy(owner, next)) };
}

/** How documents name people. */
export const approver = ({ name, owner }: RegistryPerson) => ({ name, key: owner.publicKey });

/** A party beside the server of an index. */
export const partyOf = ({ name, party }: RegistryPerson, index: number): Party => ({
  name,
  index,
  key: party.publicKey,
});

/** Code of what a piece of work throws; `ok` otherwise. */
export const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? error.code : `no fault: ${String(error)}`),
  );

/** Starts one over a database of its own, or another process over the same. */
export async function registryWorld(
  options: {
    readonly limits?: Partial<Limits>;
    readonly rest?: Partial<RegistryRest>;
    /** The registry's identity; default that of the name "registry". */
    readonly registry?: Signer;
    readonly wrap?: (store: Store) => Store;
    /** A store that the world closes with itself; default a database of its own. */
    readonly store?: Store;
  } = {},
): Promise<RegistryWorld> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-registry-"));
  const opened = options.store ?? (await openSqlite(join(directory, "registry.sqlite")));
  const store = options.wrap?.(opened) ?? opened;
  const registry = options.registry ?? signerOf("registry");
  const scope = registryScope(registry.publicKey);
  const notices: RegistryWorld["notices"] = [];
  let drawn = 0;
  const ctx = {
    store,
    now: () => world.nowMs,
    random: (length: number) => seedOf(`random ${drawn++}`).slice(0, length),
    limits: { ...DEFAULTS, ...options.limits } satisfies Limits,
  };
  const site: RegistrySite = {
    ctx: ctx as unknown as ServerContext,
    version: "test",
    identity: registry,
    sealingSeed: seedOf("registry sealing"),
    notify: (event) => void notices.push(event),
  };
  const service = assembleRegistry(site, { ...createRest(site), ...options.rest });
  let people = 0;
  const world: RegistryWorld = {
    ...{ store, site, registry, scope, service, notices },
    control: createRegistryControl(site),
    nowMs: 1_800_000_000_000,
    async stranger(name) {
      people += 1;
      const number = people;
      await store.transaction((tx) => tx.insertAccount(account(number)));
      const owner = signerFromSeed(seedOf(`owner ${name}`));
      const party = signerFromSeed(seedOf(`party ${name}`));
      return { name, number, userId: userId(number), owner, party };
    },
    async person(name) {
      const who = await world.stranger(name);
      await world.enrol(who, "owner");
      return who;
    },
    async connector(name) {
      const who = await world.stranger(name);
      await world.enrol(who, "party");
      return who;
    },
    enrol(who, role, change = {}) {
      const signer = role === "owner" ? who.owner : who.party;
      const key = signer.publicKey;
      const bytes = keyringEnrolmentBytes({ registry: registry.publicKey, userId: who.userId, role, key });
      return world.call("keyring.enrol", { role, key, proof: signer.sign(bytes), ...change }, who);
    },
    async call(name, input, who) {
      const shape = operations[name];
      const given = decodeJson(shape.input as never, encoder.encode(encodeJson(shape.input as never, input as never)));
      const caller: FederatedCaller = {
        account: account(who.number),
        sessionId: "0".repeat(32) as SessionId,
        requestId: "0".repeat(32) as RequestId,
        address: "127.0.0.1",
        bodyHash: new Uint8Array(32),
        concerns: (_: AnyHashId) => undefined,
      };
      const work = service[name] as (caller: FederatedCaller, input: unknown) => Promise<unknown>;
      const output = await work(caller, given);
      return decodeJson(shape.output as never, encoder.encode(encodeJson(shape.output as never, output as never)));
    },
    policy(owners, change = {}) {
      const document: PolicyDocument = {
        federationId: scope,
        name: "treasury",
        version: 1,
        previous: new Uint8Array(32),
        approvers: owners.map(approver),
        groups: [{ name: "owners", members: owners.map(({ name }) => name) }],
        remotes: [],
        admins: { kind: "group", name: "owners", atLeast: owners.length },
        rules: [
          rule({ require: { kind: "group", name: "owners", atLeast: owners.length }, requesterMayApprove: true }),
        ],
        createdAtMs: world.nowMs,
        ...change,
      };
      return { document, signatures: owners.map(({ owner }) => signPolicy(owner, document)) };
    },
    workspace(owners, change = {}) {
      const [maker] = owners;
      if (!maker) throw new Error("a workspace has an owner");
      const policy = world.policy(owners, change);
      return world.call("workspace.create", { name: policy.document.name, policy }, maker);
    },
    keyring(admin, parties, change = {}) {
      const input: KeyringInput = {
        name: "vaults",
        nonce: seedOf("keyring"),
        manifest: manifestOf(),
        threshold: 2,
        fees: { key: 30, signature: 3 },
        parties: parties.map((one, i) => partyOf(one, i + 1)),
        ...change,
      };
      return world.call("keyring.create", input, admin);
    },
    async close() {
      await service.close();
      await store.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}
