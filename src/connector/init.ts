import { join } from "node:path";
import type { HeldServer } from "../client/federation/held.ts";
import { chainTo } from "../client/federation/manifests.ts";
import { type MemberPlace, type Membership, openMembership } from "../client/federation/membership.ts";
import { askServer, sourceAt } from "../client/federation/reaching.ts";
import { connect } from "../client/login.ts";
import { NO_LOG } from "../client/logpin.ts";
import type { Surroundings } from "../client/model.ts";
import { equalBytes, wipe, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import type { Signer } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { approvalSigner, memberName } from "../protocol/federation/credentials.ts";
import type { SignedManifest } from "../protocol/federation/manifest.ts";
import { registryScope } from "../protocol/federation/request.ts";
import { digestWords } from "../protocol/federation/words.ts";
import { keyringEnrolmentBytes } from "../protocol/keyring/keyring.ts";
import { lockDirectory } from "../storage/lock.ts";
import { tryFileLock } from "../wire/filelock.ts";
import {
  type ConnectorConfig,
  demandConfig,
  demandSecret,
  makeDirectory,
  readConfig,
  writeConfig,
} from "./directory.ts";

/** A server as a person names it. */
export interface Place {
  readonly url: string;
  readonly pin: string;
}

export interface InitInput {
  readonly dir: string;
  /** Places of one registry: the same pin. */
  readonly registry: readonly Place[];
  readonly server: Place;
  /** Proposed name of the party; null for `server-INDEX`. */
  readonly name: string | null;
  /** Name or id of the federation where the own server belongs to several; otherwise null. */
  readonly federation: string | null;
  readonly inviteRegistry: string | null;
  readonly inviteServer: string | null;
  readonly around: Surroundings;
  readonly reach?: typeof connect;
}

/** What a connector is, as its operator tells others; nothing of it is secret. */
export interface ConnectorFacts {
  readonly dir: string;
  readonly name: string;
  /** At the own server: whom its operator allows. */
  readonly account: string;
  /** Ed25519 key of the party, hex, and its six words. */
  readonly keyHex: string;
  readonly words: readonly string[];
  readonly registry: { readonly urls: readonly string[]; readonly pin: string; readonly keyHex: string };
  readonly server: { readonly url: string; readonly pin: string; readonly index: number };
  readonly federation: { readonly federationId: string; readonly name: string };
  /** What the operator of the own server gives once. */
  readonly allow: string;
}

const newServer = (index: number): HeldServer => ({
  index,
  userId: null,
  enrolled: false,
  caPem: null,
  statementNumber: 0,
  verified: { seq: 0, link: ZERO_HASH_BYTES, revision: 0 },
  log: NO_LOG,
});

/** The identity of the registry. @throws Fault not_found before first contact */
export function identityOf({ registry }: ConnectorConfig): Uint8Array {
  if (registry.identity !== null) return registry.identity;
  throw new Fault("not_found", "this connector has not reached its registry yet", { hint: "keyhold connector init" });
}

/** Signs the party's responses. */
export const partySigner = (secret: Uint8Array, registry: Uint8Array): Signer =>
  approvalSigner(secret, registryScope(registry));

/** The newest manifest that is pinned. */
export function newestManifest({ manifests }: ConnectorConfig): SignedManifest {
  const newest = manifests.at(-1);
  if (newest) return newest;
  throw new Fault("corrupt", "this connector has no manifest");
}

/** What enters the accounts of a connector; `keep` puts what is to be remembered on disk. */
export interface Entering {
  readonly secret: Uint8Array;
  readonly around: Surroundings;
  readonly reach: typeof connect;
  config(): ConnectorConfig;
  keep(change: (config: ConnectorConfig) => ConnectorConfig): void;
}

/** Opens a session with one of the two accounts, and keeps what it taught. @throws Fault as openMembership */
async function entered(
  { secret, around, reach, config, keep }: Entering,
  end: "registry" | "server",
  input: Pick<Parameters<typeof openMembership<MemberPlace>>[0], "federationId" | "server" | "invite" | "enrol">,
): Promise<Membership<MemberPlace>> {
  const { held } = config()[end];
  const membership = await openMembership({ ...input, secret, held, reach, around });
  const now = membership.held;
  if (JSON.stringify(now) !== JSON.stringify(held))
    keep((before) => ({ ...before, [end]: { ...before[end], held: now } }));
  return membership;
}

/** Opens a session at the registry, whose account the party key is tied to. @throws Fault as openMembership */
export function enterRegistry(
  entering: Entering,
  server: MemberPlace,
  invite: string | null,
): Promise<Membership<MemberPlace>> {
  const identity = identityOf(entering.config());
  const party = partySigner(entering.secret, identity);
  return entered(entering, "registry", {
    federationId: registryScope(identity),
    server,
    invite,
    enrol: async (session, userId) => {
      const proof = party.sign(
        keyringEnrolmentBytes({ registry: identity, userId, role: "party", key: party.publicKey }),
      );
      await session.call("keyring.enrol", { role: "party", key: party.publicKey, proof });
    },
  });
}

/** Opens a session at the own server. @throws Fault as openMembership */
export function enterServer(
  entering: Entering,
  server: MemberPlace,
  invite: string | null,
): Promise<Membership<MemberPlace>> {
  const { federationId } = newestManifest(entering.config()).manifest;
  // it joins no federation: its operator allows the account
  return entered(entering, "server", { federationId, server, invite, enrol: async () => undefined });
}

/** The federation that the own server is to serve keyrings of. @throws Fault not_found, ambiguous */
function chosen(federations: readonly SignedManifest[], wanted: string | null, pin: string): SignedManifest {
  const members = federations.filter(({ manifest }) => manifest.servers.some((server) => server.pin === pin));
  const named = members.filter(
    ({ manifest }) => wanted === null || manifest.name === wanted || manifest.federationId.startsWith(wanted),
  );
  const [one, another] = named;
  if (!one) {
    throw new Fault(
      "not_found",
      wanted === null ? "the own server belongs to no federation" : `no federation "${wanted}"`,
      {
        hint: "keyhold federation create comes first",
      },
    );
  }
  if (another)
    throw new Fault("ambiguous", "the own server belongs to several federations", { hint: "--federation NAME" });
  return one;
}

async function begun(input: InitInput, reach: typeof connect): Promise<ConnectorConfig> {
  const { registry, server, around, federation } = input;
  const [first] = registry;
  if (!first) throw new Fault("usage", "a connector has a registry", { hint: "--registry URL#PIN" });
  if (registry.some(({ pin }) => pin !== first.pin)) {
    throw new Fault("usage", "these are places of different registries", {
      hint: "every --registry of one connector has the same pin",
    });
  }
  const asked = await askServer(server, reach, around);
  const { federations } = await asked.ask("federation.info", {});
  const newest = chosen(federations, federation, server.pin);
  const manifests = await chainTo(newest, [sourceAt(asked)]);
  const index = newest.manifest.servers.find(({ pin }) => pin === server.pin)?.index;
  if (index === undefined) throw new Fault("integrity", "the own server is not in its federation's manifest");
  const held = { ...newServer(index), caPem: asked.caPem, statementNumber: asked.statementNumber };
  return {
    version: 1,
    name: input.name ?? `server-${index}`,
    registry: {
      urls: registry.map(({ url }) => url),
      pin: first.pin,
      identity: null,
      held: newServer(0),
    },
    server: { ...server, index, held },
    manifests,
  };
}

/** Finds the registry, at the first place that answers, and its identity. @throws Fault unsupported where it is none; what reaching it throws */
async function metRegistry(
  config: ConnectorConfig,
  around: Surroundings,
  reach: typeof connect,
): Promise<{ readonly config: ConnectorConfig; readonly url: string }> {
  const { urls, pin, held } = config.registry;
  let lastFault: Fault | null = null;
  for (const url of urls) {
    try {
      const asked = await askServer({ url, pin }, reach, around, held);
      const { registry, enabled } = await asked.ask("keyring.info", {});
      if (!enabled) throw new Fault("unsupported", "that server is no registry", { hint: "keyhold serve --registry" });
      // the pin names this identity
      if (!equalBytes(registry, asked.link.identity))
        throw new Fault("integrity", "the registry names another identity than its pin");
      const now = { ...held, caPem: asked.caPem, statementNumber: asked.statementNumber };
      return { config: { ...config, registry: { ...config.registry, identity: registry, held: now } }, url };
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "unreachable") throw error;
      lastFault = error;
    }
  }
  throw lastFault ?? new Fault("unreachable", "the registry cannot be reached");
}

/**
 * Makes a connector, or goes on where an earlier run was cut short: secret, accounts at both servers, party key. The same
 * words again change nothing and tell the same.
 *
 * @throws Fault usage, conflict for another registry or server than before, and what reaching the servers throws
 */
export async function initConnector(input: InitInput): Promise<ConnectorFacts> {
  const { dir, around } = input;
  const reach = input.reach ?? connect;
  const secret = makeDirectory(dir, around.random);
  const lock = await lockDirectory(dir).catch((error: unknown) => {
    wipe(secret);
    throw error;
  });
  try {
    const before = readConfig(dir);
    let config = before ?? (await begun(input, reach));
    const [first] = input.registry;
    if (first && (config.registry.pin !== first.pin || config.server.pin !== input.server.pin)) {
      throw new Fault("conflict", "this connector stands between another registry and server", {
        hint: "name another --dir; one that has never worked may be removed",
      });
    }
    const keep: Entering["keep"] = (change) => {
      config = change(config);
      writeConfig(dir, config);
    };
    const wanted: ConnectorConfig = {
      ...config,
      registry: { ...config.registry, urls: input.registry.map(({ url }) => url) },
      server: { ...config.server, url: input.server.url },
    };
    const met = await metRegistry(wanted, around, reach);
    // both ends have shown that they are what their pins say
    keep(() => met.config);
    const entering: Entering = { secret, around, reach, config: () => config, keep };
    const at = { url: met.url, pin: config.registry.pin, index: 0 };
    const joined = [
      await enterRegistry(entering, at, input.inviteRegistry),
      await enterServer(entering, config.server, input.inviteServer),
    ];
    for (const { session } of joined) {
      await session.call("session.close", { sessionId: null, all: false }).catch(() => undefined);
      session.forget();
    }
    return factsOf(dir, config, secret);
  } finally {
    await lock.release();
    wipe(secret);
  }
}

/** @throws Fault not_found before first contact */
function factsOf(dir: string, config: ConnectorConfig, secret: Uint8Array): ConnectorFacts {
  const identity = identityOf(config);
  const { publicKey } = partySigner(secret, identity);
  const { federationId, name } = newestManifest(config).manifest;
  const account = memberName(secret, federationId);
  const { registry, server } = config;
  return {
    dir,
    name: config.name,
    account,
    keyHex: publicKey.toHex(),
    words: digestWords(publicKey),
    registry: { urls: registry.urls, pin: registry.pin, keyHex: identity.toHex() },
    server: { url: server.url, pin: server.pin, index: server.index },
    federation: { federationId, name },
    allow: `keyhold server connector allow ${account} --registry ${identityOf(config).toHex()}`,
  };
}

/** What a connector is, from its files alone. @throws Fault not_found, corrupt, denied */
export function connectorFacts(dir: string): ConnectorFacts & { readonly running: boolean } {
  const config = demandConfig(dir);
  const secret = demandSecret(dir);
  try {
    const lock = tryFileLock(join(dir, "lock"));
    lock?.release();
    return { ...factsOf(dir, config, secret), running: lock === null };
  } finally {
    wipe(secret);
  }
}
