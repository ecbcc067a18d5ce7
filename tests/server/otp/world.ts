import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HpkeKeyPair, hpkeKeyPair, hpkeOpen, hpkeSeal } from "../../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { createEnclave, type Enclave } from "../../../src/enclave/enclave.ts";
import { openJournal } from "../../../src/enclave/journal.ts";
import { type EnclaveKeys, enclaveKeys } from "../../../src/enclave/keys.ts";
import type {
  AnyHashId,
  IncarnationId,
  OtpAskId,
  RequestId,
  SessionId,
  StoredKeyId,
  UserId,
} from "../../../src/ids.ts";
import type { OutputSpec, StoredKeyRecord } from "../../../src/protocol/ceremony/model.ts";
import { broughtInfo } from "../../../src/protocol/ceremony/records.ts";
import { DEFAULTS } from "../../../src/protocol/defaults.ts";
import { handoutInfo, type OtpAsk, signOtpAsk } from "../../../src/protocol/otphandout.ts";
import { credentialIdOf } from "../../../src/server/accounts.ts";
import { createCeremonies } from "../../../src/server/ceremony/index.ts";
import type { KeyStoreSite } from "../../../src/server/ceremony/service.ts";
import type {
  FederatedCaller,
  KeyStoreOperation,
  Limits,
  ServerContext,
  StagedCaller,
} from "../../../src/server/context.ts";
import { createDistribution, type DistributionPart } from "../../../src/server/otp/index.ts";
import { openSqlite } from "../../../src/storage/sqlite.ts";
import type { AccountRow, Store } from "../../../src/storage/store.ts";
import { decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import { type InputOf, type OutputOf, operations } from "../../../src/wire/operations.ts";
import { handoutText } from "../../../src/wire/otp/operations.ts";
import { account as accountRow } from "../../storage/rows.ts";
import { random } from "../../support/harness.ts";
import { seedOf } from "../../support/policies.ts";

const encoder = new TextEncoder();

/** An account at the server. */
export interface OtpPerson {
  readonly name: string;
  readonly userId: UserId;
  readonly row: AccountRow;
}

type OtpOperation = Extract<KeyStoreOperation, `otp.${string}`>;
export type EntryView = OutputOf<"otp.create">;
export type Handed = OutputOf<"otp.request">;

/** An ask with the key that opens its answer. */
export interface Asked {
  readonly ask: OtpAsk;
  readonly pair: HpkeKeyPair;
}

/** One distribution server in this process: real store, real enclave; operations go through their codecs. */
export interface OtpWorld {
  readonly store: Store;
  /** The database's file. */
  readonly path: string;
  readonly ctx: ServerContext;
  readonly site: KeyStoreSite;
  readonly identity: Signer;
  readonly enclave: Enclave;
  service: DistributionPart;
  nowMs: number;
  incarnation: IncarnationId;
  /** Forgets what the service knows, as a restart does. */
  rebuild(): void;
  person(name: string): Promise<OtpPerson>;
  call<N extends OtpOperation>(name: N, input: InputOf<N>, who: OtpPerson): Promise<OutputOf<N>>;
  /** Imports an ASCII secret, or has one drawn. */
  key(
    issuer: OtpPerson,
    name: string,
    output?: OutputSpec,
    secret?: string | null,
    counter?: number,
  ): Promise<EntryView>;
  grant(
    issuer: OtpPerson,
    keyId: StoredKeyId,
    to: OtpPerson | Signer,
    change?: Partial<InputOf<"otp.grant">>,
  ): Promise<EntryView>;
  ask(keyId: StoredKeyId, change?: Partial<OtpAsk>): Promise<Asked>;
  request(asked: Asked, who: OtpPerson | Signer, address?: string): Promise<Handed>;
  open(asked: Asked, handed: Handed): Promise<{ value: string; fromMs: number | null; untilMs: number | null }>;
  /** A fresh ask, and what was handed out. */
  code(keyId: StoredKeyId, who: OtpPerson | Signer): Promise<string>;
  check(issuer: OtpPerson, keyId: StoredKeyId, code: string, next?: string): Promise<OutputOf<"otp.check">["verdict"]>;
  close(): Promise<void>;
}

export const HOTP = {
  kind: "hotp",
  algorithm: "SHA1",
  digits: 6,
  issuer: "keyhold",
  label: "test",
} as const satisfies OutputSpec;
export const TOTP = { ...HOTP, kind: "totp", period: 30 } as const satisfies OutputSpec;
/** The secret of RFC 4226 appendix D. */
export const RFC_SECRET = "12345678901234567890";

export const isPerson = (who: OtpPerson | Signer): who is OtpPerson => "row" in who;

/** How operations name a requester. */
export const requester = (who: OtpPerson | Signer) =>
  isPerson(who) ? { kind: "account" as const, account: who.name } : { kind: "device" as const, key: who.publicKey };

export const device = (name: string): Signer => signerFromSeed(seedOf(`device ${name}`));

/** Ascii names of people are numbered as they come. */
export async function otpWorld(
  options: {
    readonly limits?: Partial<Limits>;
    readonly wrap?: (store: Store) => Store;
    readonly store?: Store;
    readonly name?: string;
    readonly incarnation?: IncarnationId;
    /** In place of the enclave's answers. */
    readonly call?: (enclave: Enclave) => KeyStoreSite["enclave"]["call"];
    /** Another process of this server, over the same store and with the same enclave's keys. */
    readonly beside?: OtpWorld;
  } = {},
): Promise<OtpWorld> {
  const { name = "server", beside } = options;
  const directory = mkdtempSync(join(tmpdir(), "keyhold-otp-"));
  const path = join(directory, "server.sqlite");
  const opened = beside?.store ?? options.store ?? (await openSqlite(path));
  const store = options.wrap?.(opened) ?? opened;
  const keys: EnclaveKeys = await enclaveKeys(seedOf(`sealing ${name}`));
  const journalPath = join(directory, "journal");
  writeFileSync(journalPath, "");
  const journal = openJournal(journalPath, keys.journalKey);
  const identity = signerFromSeed(seedOf(`identity ${name}`));
  const enclave = createEnclave({ keys, journal, now: () => world.nowMs, random });
  const ctx = {
    store,
    now: () => world.nowMs,
    random,
    limits: { ...DEFAULTS, ...options.limits } satisfies Limits,
    keys: { identity: identity.publicKey, accountName: seedOf(`names ${name}`) },
    get incarnation() {
      return world.incarnation;
    },
  } as unknown as ServerContext;
  const site: KeyStoreSite = {
    ctx,
    identity,
    enclave: { call: options.call?.(enclave) ?? ((operation, input) => enclave.handle(operation, input)) },
    notify: () => undefined,
  };
  const ceremonies = createCeremonies(site);
  const people = new Map<string, OtpPerson>();
  const world: OtpWorld = {
    ...{ store, path, ctx, site, identity, enclave },
    service: createDistribution(site),
    nowMs: beside?.nowMs ?? 1_800_000_000_000,
    incarnation: options.incarnation ?? ("1".repeat(32) as IncarnationId),
    rebuild() {
      world.service = createDistribution(site);
    },
    async person(who) {
      const known = people.get(who);
      if (known) return known;
      const number = people.size + 1;
      const row = { ...accountRow(number), credentialId: credentialIdOf(ctx, who) };
      await store.transaction((tx) => tx.insertAccount(row));
      const person = { name: who, userId: row.userId, row };
      people.set(who, person);
      return person;
    },
    async call(operation, input, who) {
      const shape = operations[operation];
      const given = decodeJson(shape.input as never, encoder.encode(encodeJson(shape.input as never, input as never)));
      const caller: FederatedCaller & StagedCaller = {
        first: (work) => store.transaction((tx) => work(tx, who.row)),
        last: (work) => store.transaction(work),
        account: who.row,
        sessionId: "0".repeat(32) as SessionId,
        requestId: "0".repeat(32) as RequestId,
        address: "127.0.0.1",
        bodyHash: new Uint8Array(32),
        concerns: (_: AnyHashId) => undefined,
      };
      const work = world.service[operation] as (
        caller: FederatedCaller & StagedCaller,
        input: unknown,
      ) => Promise<unknown>;
      const output = await work(caller, given);
      return decodeJson(shape.output as never, encoder.encode(encodeJson(shape.output as never, output as never)));
    },
    async key(issuer, keyName, output = HOTP, secret = null, counter = 0) {
      const nonce = random(32);
      if (secret === null) return world.call("otp.create", { name: keyName, output, nonce, value: null }, issuer);
      const { items } = await ceremonies["ceremony.keys"]({ address: "127.0.0.1" }, {});
      const statement = items[0]?.key;
      if (!statement || (output.kind !== "hotp" && output.kind !== "totp")) throw new Error("no key");
      const info = broughtInfo(statement, keyName, output, nonce);
      const sealed = await hpkeSeal(statement.sealing, info, encoder.encode(secret), random);
      const value = { keyNumber: statement.number, sealed, counter };
      return world.call("otp.create", { name: keyName, output, nonce, value }, issuer);
    },
    grant(issuer, keyId, to, change = {}) {
      const input = { keyId, to: requester(to), wants: ["code" as const], perHour: null, untilMs: null, ...change };
      return world.call("otp.grant", input, issuer);
    },
    async ask(keyId, change = {}) {
      const pair = await hpkeKeyPair(random(32));
      const ask: OtpAsk = {
        server: identity.publicKey,
        keyId,
        want: "code",
        recipient: pair.publicKey,
        nonce: random(32),
        atMs: world.nowMs,
        ...change,
      };
      return { ask, pair };
    },
    async request({ ask }, who, address = "192.0.2.1") {
      if (isPerson(who)) return world.call("otp.request", { ask }, who);
      return world.service["otp.request.device"]({ address }, signOtpAsk(who, ask));
    },
    async open({ ask, pair }, { askId, sealed, record }) {
      const info = handoutInfo(askId as OtpAskId, ask.want, record as StoredKeyRecord);
      return decodeJson(handoutText, await hpkeOpen(pair, info, sealed));
    },
    async code(keyId, who) {
      const asked = await world.ask(keyId);
      return (await world.open(asked, await world.request(asked, who))).value;
    },
    async check(issuer, keyId, code, next) {
      return (await world.call("otp.check", { keyId, code, next: next ?? null }, issuer)).verdict;
    },
    async close() {
      await ceremonies.close();
      await world.service.close();
      enclave.close();
      if (!beside) await store.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}
