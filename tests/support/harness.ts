import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { createClient } from "../../src/client/client.ts";
import { commitSettings } from "../../src/client/commit.ts";
import { type LoggedIn, logIn } from "../../src/client/login.ts";
import { bind, newModel, type Surroundings } from "../../src/client/model.ts";
import { type Open, online } from "../../src/client/opened.ts";
import { deviceEntry, newDevice, prepareRegistration } from "../../src/client/register.ts";
import type { Link } from "../../src/client/session.ts";
import { synchroniseAll } from "../../src/client/sync.ts";
import { createVaultFile, type VaultBox, withVault } from "../../src/client/vaultbox.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { createServerSetup, opaqueReady, serverPublicKey } from "../../src/crypto/opaque.ts";
import { type IncarnationId, newId } from "../../src/ids.ts";
import { DEFAULTS, KDF } from "../../src/protocol/defaults.ts";
import { logOrigin } from "../../src/protocol/log.ts";
import { createVault } from "../../src/protocol/vault.ts";
import type { KeyStoreService } from "../../src/server/ceremony/service.ts";
import type { Limits, ServerContext } from "../../src/server/context.ts";
import { createDispatcher, type Dispatcher, type Reply } from "../../src/server/dispatch.ts";
import type { FederationService } from "../../src/server/federation/service.ts";
import type { RegistryService } from "../../src/server/keyring/service.ts";
import { type Logbook, openLogbook } from "../../src/server/logbook.ts";
import { startOpaquePool } from "../../src/server/opaque.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { signStatement } from "../../src/wire/statement.ts";

/** Real randomness as the code takes it. */
export const random = (length: number): Uint8Array => new Uint8Array(randomBytes(length));

/** Sees and may replace what goes between client and server. */
export type Middle = (
  operation: string,
  body: Uint8Array,
  forward: (operation: string, body: Uint8Array) => Promise<Reply>,
) => Promise<Reply>;

/** A key server in this process: real handlers, real store, real OPAQUE; only HTTP and TLS are left out. */
export interface TestServer {
  readonly ctx: ServerContext;
  readonly store: Store;
  readonly dispatcher: Dispatcher;
  /** The server-wide log: flushed once at the start, then when a test does. */
  readonly logbook: Logbook;
  /** Milliseconds added to the server's clock. */
  advance(ms: number): void;
  /** From now on only {@link advance} moves the clock: what must happen within a moment does on a slow machine too. */
  freeze(): void;
  link(address?: string, middle?: Middle): Link;
  /** Everything that reached `onFault`: unexpected failures of the server. */
  readonly faults: unknown[];
  close(): Promise<void>;
}

const bytesOf = (body: Uint8Array | string): Uint8Array =>
  typeof body === "string" ? new TextEncoder().encode(body) : body;

/** Public keys of the OPAQUE set-ups in use, as a statement lists them. */
export const opaqueKeysOf = ({ keys }: Pick<ServerContext, "keys">): readonly Uint8Array[] =>
  [keys.opaque, keys.previousOpaque].flatMap((one) => (one ? [serverPublicKey(one.setup)] : []));

/** Starts one over a database of its own. */
export async function startTestServer(
  options: {
    limits?: Partial<Limits>;
    registration?: ServerContext["registration"];
    secondFactor?: "optional" | "required";
    path?: string;
    keys?: ServerContext["keys"];
    /** Another process of this server, which it may have been before: its keys, identity and incarnation. */
    as?: Pick<TestServer, "ctx">;
    wrap?: (store: Store) => Store;
    /** False: the server-wide log is flushed by the test alone; else also before each proof. */
    promptLog?: boolean;
    /** The server's role in federations; none without it. */
    federation?: (ctx: ServerContext) => FederationService;
    /** Its role as a registry; none without it. */
    registry?: (ctx: ServerContext, identity: Signer) => RegistryService;
    /** Its key store; none without it. */
    keyStore?: (ctx: ServerContext, identity: Signer) => KeyStoreService;
  } = {},
): Promise<TestServer> {
  await opaqueReady();
  const identity = options.as?.ctx.log.signers[0] ?? signerFromSeed(random(32));
  const opened = await openSqlite(options.path ?? ":memory:");
  const store = options.wrap ? options.wrap(opened) : opened;
  const pool = startOpaquePool(1);
  const faults: unknown[] = [];
  let offset = 0;
  let frozenAt: number | null = null;
  const keys = options.keys ??
    options.as?.ctx.keys ?? {
      identity: identity.publicKey,
      accountName: random(32),
      sealing: random(32),
      shadow: random(32),
      opaque: { id: "1", setup: createServerSetup() },
      previousSealing: null,
      previousOpaque: null,
    };
  const incarnation = options.as?.ctx.incarnation ?? newId<IncarnationId>(random);
  const ctx: ServerContext = {
    store,
    now: () => (frozenAt ?? Date.now()) + offset,
    random,
    keys,
    pool,
    limits: { ...DEFAULTS, ...options.limits },
    ksf: KDF.opaque,
    registration: options.registration ?? "open",
    secondFactor: options.secondFactor ?? "optional",
    incarnation,
    log: { origin: logOrigin(keys.identity, incarnation), signers: [identity] },
    statement: () =>
      signStatement(identity, {
        number: 1,
        expiresAtMs: Date.now() + DEFAULTS.statementMs,
        opaqueKeys: opaqueKeysOf(ctx),
        logKey: identity.publicKey,
        nextIdentity: null,
        incarnation,
        registration: options.registration ?? "open",
      }),
  };
  const role = options.federation?.(ctx) ?? null;
  const registry = options.registry?.(ctx, identity) ?? null;
  const keyStore = options.keyStore?.(ctx, identity) ?? null;
  const honest = createDispatcher(ctx, (fault) => faults.push(fault), role, registry, keyStore);
  const dispatcher: Dispatcher = {
    async handle(name, ...rest) {
      if (name === "log.proof" && (options.promptLog ?? true)) await logbook.flush();
      return honest.handle(name, ...rest);
    },
  };
  const logbook = await openLogbook(ctx, (fault) => faults.push(fault));
  // over the database of another server it has nothing to go on with
  await logbook.flush().catch((fault) => (options.path === undefined ? faults.push(fault) : undefined));
  return {
    ctx,
    store,
    dispatcher,
    logbook,
    faults,
    freeze() {
      frozenAt ??= Date.now();
    },
    advance(ms) {
      offset += ms;
    },
    link(address = "127.0.0.1", middle) {
      return {
        identity: keys.identity,
        statementNumber: 1,
        statement: ctx.statement(),
        opaqueKeys: opaqueKeysOf(ctx),
        async post(operation, contentType, body, token) {
          const remote = { address, authorization: token === undefined ? null : `Bearer ${token}` };
          const forward = (name: string, bytes: Uint8Array) => dispatcher.handle(name, contentType, bytes, remote);
          const reply = middle
            ? await middle(operation, bytesOf(body), forward)
            : await forward(operation, bytesOf(body));
          return { status: reply.status, contentType: reply.contentType, body: bytesOf(reply.body) };
        },
      };
    },
    async close() {
      pool.close();
      await store.close();
    },
  };
}

/** A device of an account: vault on disk, session open. */
export interface TestDevice {
  readonly client: KeyholdClient;
  readonly open: Open;
  readonly login: LoggedIn;
  readonly notices: string[];
  /** Removes the vault's directory. */
  end(): Promise<void>;
}

/** Passwords as the client takes them. */
export const passwordOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Surroundings with real randomness; notices are kept. */
export function testSurroundings(notices: string[] = []): Surroundings {
  return { now: Date.now, random, notice: (text) => notices.push(text) };
}

const CHEAP = { url: "https://127.0.0.1:1", kdf: "test", deviceToken: null } as const;

async function device(login: LoggedIn, open: Open, notices: string[], directory: string): Promise<TestDevice> {
  const client = createClient(open, { profile: "test", server: { url: CHEAP.url, pin: "" } }, async () => undefined);
  return {
    client,
    open,
    login,
    notices,
    async end() {
      await client.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function boxFor(model: VaultBox["model"], around: Surroundings): Promise<{ box: VaultBox; directory: string }> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-test-"));
  const vault = await createVault(passwordOf("local"), { cost: KDF.test, allowTestKdf: true }, around.random);
  const box = { path: join(directory, "test.vault"), vault, model };
  await createVaultFile(box, around);
  return { box, directory };
}

/** Registers an account over a link and logs its first device in. */
export async function registerDevice(
  link: Link,
  account: string,
  password: string,
  invite: string | null = null,
): Promise<TestDevice> {
  const notices: string[] = [];
  const around = testSurroundings(notices);
  const entry = newDevice(`${account}'s first device`, around);
  const prepared = await prepareRegistration(
    link,
    CHEAP,
    { account, invite, device: entry },
    passwordOf(password),
    around,
  );
  await prepared.finish();
  const { box, directory } = await boxFor(prepared.model, around);
  const login = await logIn(link, CHEAP, account, passwordOf(password), around);
  return device(login, { box, session: login.session, around }, notices, directory);
}

/** Logs a further device in and adds it to the account. */
export async function addTestDevice(link: Link, account: string, password: string): Promise<TestDevice> {
  const notices: string[] = [];
  const around = testSurroundings(notices);
  const login = await logIn(link, CHEAP, account, passwordOf(password), around);
  const entry = newDevice(`${account}'s further device`, around);
  const { reply, userId, accountKey, session } = login;
  const bound = bind(
    {
      account,
      userId,
      deviceId: entry.id,
      deviceSeed: entry.seed,
      serverIdentity: link.identity,
      statementNumber: 1,
      head: reply.head,
      settings: reply.settings,
      audit: { seq: reply.auditSeq, link: reply.auditLink },
    },
    around.now(),
  );
  const model = newModel(userId, accountKey, bound);
  await synchroniseAll(model, session, around);
  const { box, directory } = await boxFor(model, around);
  const open: Open = { box, session, around };
  await online(open, true, () =>
    withVault(box, around, (held) =>
      commitSettings(box.model, held, session, around, "account.device.add", (before) => ({
        settings: { ...before, devices: [...before.devices, deviceEntry(box.model, entry, around)] },
      })),
    ),
  );
  return device(login, open, notices, directory);
}
