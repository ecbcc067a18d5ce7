import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HpkeKeyPair, hpkeKeyPair, hpkeSeal } from "../../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { sha256 } from "../../../src/crypto/kdf.ts";
import { rsaOaepSeal } from "../../../src/crypto/rsaoaep.ts";
import { enclaveOperations } from "../../../src/enclave/api.ts";
import { createEnclave, type Enclave } from "../../../src/enclave/enclave.ts";
import { openJournal } from "../../../src/enclave/journal.ts";
import { enclaveKeys } from "../../../src/enclave/keys.ts";
import { Fault } from "../../../src/errors.ts";
import type { AnyHashId, CeremonyId, RequestId, SessionId } from "../../../src/ids.ts";
import { commitmentOf } from "../../../src/protocol/ceremony/contribution.ts";
import type {
  CeremonyDraft,
  CeremonyFunction,
  CeremonyJoin,
  Release,
  SignedCeremonyJoin,
  SignedCeremonyManifest,
  SignedEntry,
  Transcript,
} from "../../../src/protocol/ceremony/model.ts";
import {
  approvalBytes,
  ceremonyIdOf,
  draftBytes,
  openingInfo,
  releaseBytes,
  releaseHash,
  revealBytes,
  signJoin,
} from "../../../src/protocol/ceremony/records.ts";
import { DEFAULTS } from "../../../src/protocol/defaults.ts";
import { credentialIdOf, sealAccountName } from "../../../src/server/accounts.ts";
import { createCeremonies } from "../../../src/server/ceremony/index.ts";
import type { KeyStoreSite } from "../../../src/server/ceremony/service.ts";
import type { FederatedCaller, Limits, ServerContext } from "../../../src/server/context.ts";
import { openSqlite } from "../../../src/storage/sqlite.ts";
import type { AccountRow, Store } from "../../../src/storage/store.ts";
import { type Codec, decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import { type InputOf, type OutputOf, operations } from "../../../src/wire/operations.ts";
import { account } from "../../storage/rows.ts";
import { type Seeded, seeded } from "../../support/seeded.ts";
import { type HookedStore, hookedStore } from "../../support/storeprobe.ts";

/** A participant with everything that its vault would hold. */
export interface Participant {
  readonly index: number;
  readonly invite: Signer;
  readonly key: Signer;
  readonly sealing: HpkeKeyPair;
  readonly opening: Uint8Array;
  readonly function: CeremonyFunction;
}

type CeremonyName = Extract<keyof typeof operations, `ceremony.${string}`>;

/** One server's ceremonies: own database and own enclave in this process; operations go through their codecs. */
export interface CeremonyServer {
  readonly store: Store;
  /** Watches the store, or breaks it. */
  readonly hooked: HookedStore;
  readonly site: KeyStoreSite;
  readonly random: Seeded;
  readonly notices: { readonly event: string }[];
  /** Questions to the enclave so far, by operation. */
  readonly asked: string[];
  nowMs: number;
  /** Runs before each question to the enclave; may throw in its place. */
  before: (operation: string, input: unknown) => void;
  account(n: number): AccountRow;
  accountName(n: number): string;
  call<N extends CeremonyName>(name: N, input: InputOf<N>, who?: number): Promise<OutputOf<N>>;
  sweep(): Promise<void>;
  rotate(): Promise<{ readonly kept: number }>;
  /** Of process and enclave, as one crash: what is left is the database and the journal. */
  crash(): void;
  close(): Promise<void>;
}

/** An opened ceremony with all its participants. */
export interface Run {
  readonly id: CeremonyId;
  readonly manifest: SignedCeremonyManifest;
  readonly draft: CeremonyDraft;
  readonly organiser: Signer;
  readonly participants: readonly Participant[];
  one(index: number): Participant;
}

const KEY_PAIRS = new Map<string, Promise<unknown>>();
const T0 = 1_800_000_000_000;
const encoder = new TextEncoder();
const through = <T>(codec: unknown, value: T): T =>
  decodeJson(codec as Codec<T>, encoder.encode(encodeJson(codec as Codec<T>, value)));

export interface ServerOptions {
  readonly limits?: Partial<Limits>;
  readonly seed?: number;
  /** In place of a file of its own; closed by its owner. */
  readonly store?: Store;
}

/** Starts one. Accounts 1 to 5 are there, and no key so far. */
export async function ceremonyServer({ limits, seed = 1, store }: ServerOptions = {}): Promise<CeremonyServer> {
  const random = seeded(seed);
  const directory = mkdtempSync(join(tmpdir(), "keyhold-ceremony-"));
  const journal = join(directory, "journal");
  writeFileSync(journal, "", { mode: 0o600 });
  const keys = await enclaveKeys(random.bytes(32));
  const hooked = hookedStore();
  const raw = store ?? (await openSqlite(join(directory, "keyhold.db")));
  const identity = signerFromSeed(random.bytes(32));
  const start = (): Enclave =>
    createEnclave({
      keys,
      journal: openJournal(journal, keys.journalKey),
      now: () => server.nowMs,
      random: (length) => random.bytes(length),
    });
  const accountKeys = { accountName: random.bytes(32), sealing: random.bytes(32), previousSealing: null };
  const ctx = {
    store: hooked.wrap(raw),
    now: () => server.nowMs,
    random: (n: number) => random.bytes(n),
    limits: { ...DEFAULTS, ...limits },
    keys: accountKeys,
  } as unknown as ServerContext;
  const notices: CeremonyServer["notices"] = [];
  const asked: string[] = [];
  const site: KeyStoreSite = {
    ctx,
    identity,
    enclave: {
      async call(operation, input) {
        asked.push(operation);
        server.before(operation, input);
        const shape = enclaveOperations[operation];
        if (operation === "ceremony.key") return (await keyPair(input)) as never;
        return through(shape.output, await enclave.handle(operation, through(shape.input, input) as never)) as never;
      },
    },
    notify: (event) => void notices.push(event),
  };
  /** An RSA key takes long to make: the same enclave's of a number is made once for all tests. */
  const keyPair = (input: unknown): Promise<unknown> => {
    const name = `${seed}:${(input as { readonly number: number }).number}`;
    const made = KEY_PAIRS.get(name) ?? enclave.handle("ceremony.key", input as never);
    KEY_PAIRS.set(name, made);
    return made;
  };
  const nameOf = (n: number) => `person-${n}`;
  const rowOf = (n: number): AccountRow => {
    const credentialId = credentialIdOf(ctx, nameOf(n));
    return { ...account(n), credentialId, sealedName: sealAccountName(ctx, credentialId, nameOf(n)) };
  };
  const server: CeremonyServer = {
    store: raw,
    hooked,
    site,
    random,
    notices,
    asked,
    nowMs: T0,
    before: () => undefined,
    account: rowOf,
    accountName: nameOf,
    async call(name, input, who = 1) {
      const shape = operations[name];
      const given = through(shape.input, input) as never;
      const caller: FederatedCaller = {
        account: rowOf(who),
        sessionId: "0".repeat(32) as SessionId,
        requestId: "0".repeat(32) as RequestId,
        address: "127.0.0.1",
        bodyHash: new Uint8Array(32),
        concerns: (_: AnyHashId) => undefined,
      };
      const from = shape.auth === "session" ? caller : { address: "192.0.2.1" };
      const work = service[name] as (from: unknown, input: unknown) => Promise<OutputOf<typeof name>>;
      return through(shape.output, await work(from, given));
    },
    sweep: () => service.sweep(),
    rotate: () => service.rotate(),
    crash() {
      enclave.close();
      enclave = start();
      service = createCeremonies(site);
    },
    async close() {
      await service.close();
      enclave.close();
      if (!store) await raw.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  let enclave = start();
  let service = createCeremonies(site);
  await raw.transaction(async (tx) => {
    for (const n of [1, 2, 3, 4, 5]) if (!(await tx.account(rowOf(n).userId))) await tx.insertAccount(rowOf(n));
  });
  return server;
}

const FUNCTIONS = ["hkdf-sha256", "hkdf-sha512", "hmac-drbg"] as const;

export async function participant(server: CeremonyServer, index: number): Promise<Participant> {
  const draw = () => server.random.bytes(32);
  return {
    index,
    invite: signerFromSeed(draw()),
    key: signerFromSeed(draw()),
    sealing: await hpkeKeyPair(draw()),
    opening: draw(),
    function: FUNCTIONS[index % FUNCTIONS.length] ?? "hkdf-sha256",
  };
}

const NAMED = new WeakMap<CeremonyServer, number>();
/** `door`, `door-2`, …: an account has one key of a name. */
function nextName(server: CeremonyServer): string {
  const n = (NAMED.get(server) ?? 0) + 1;
  NAMED.set(server, n);
  return n === 1 ? "door" : `door-${n}`;
}

/** A signed draft of `n` seats by invite, and who takes them. */
export async function drafted(server: CeremonyServer, n: number, change: Partial<CeremonyDraft> = {}) {
  const participants = await Promise.all(Array.from({ length: n }, (_, i) => participant(server, i + 1)));
  const organiser = signerFromSeed(server.random.bytes(32));
  const [key] = (await server.call("ceremony.keys", {})).items;
  if (!key) throw new Error("no key");
  const draft: CeremonyDraft = {
    key,
    organiser: organiser.publicKey,
    name: nextName(server),
    purpose: "the key to the door",
    output: { kind: "bytes", length: 32 },
    policy: { collect: "organiser", quorum: 0 },
    slots: participants.map(({ index, invite }) => ({
      index,
      name: `p${index}`,
      invite: invite.publicKey,
      account: null,
    })),
    minimum: n,
    commitMs: 60_000,
    revealMs: 60_000,
    previous: null,
    replaces: null,
    nonce: server.random.bytes(32),
    ...change,
  };
  return { draft, signature: organiser.sign(draftBytes(draft)), organiser, participants };
}

/** Opens one for account 1. */
export async function opened(
  server: CeremonyServer,
  n: number,
  change: Partial<CeremonyDraft> = {},
  who = 1,
): Promise<Run> {
  const { draft, signature, organiser, participants } = await drafted(server, n, change);
  const { manifest } = await server.call("ceremony.open", { draft, signature }, who);
  return {
    id: ceremonyIdOf(manifest.manifest),
    manifest,
    draft,
    organiser,
    participants,
    one(index) {
      const found = participants[index - 1];
      if (!found) throw new Error(`no participant ${index}`);
      return found;
    },
  };
}

export function joinOf(
  run: Run,
  p: Participant,
  change: Partial<CeremonyJoin> = {},
  invite: Signer = p.invite,
): SignedCeremonyJoin {
  const at = { ceremonyId: run.id, index: p.index, key: p.key.publicKey, function: p.function };
  const join = {
    ...at,
    sealing: p.sealing.publicKey,
    share: null,
    commitment: commitmentOf(at, p.opening),
    ...change,
  };
  return signJoin(p.key, invite, join);
}

export const join1 = async (server: CeremonyServer, run: Run, p: Participant): Promise<SignedEntry> =>
  (await server.call("ceremony.join", { join: joinOf(run, p) })).entry;

/** T1 as the transcript says it. */
export async function t1Of(server: CeremonyServer, run: Run): Promise<Uint8Array> {
  for (const { entry } of (await transcriptOf(server, run)).entries) {
    if (entry.body.kind === "freeze") return entry.body.t1;
  }
  throw new Error("not frozen");
}

/** A sealed and signed opening; of a liar another one than it committed to. */
export async function revealOf(
  server: CeremonyServer,
  run: Run,
  p: Participant,
  opening = p.opening,
  suite: "hpke" | "rsa-oaep" = "hpke",
): Promise<InputOf<"ceremony.reveal">> {
  const t1 = await t1Of(server, run);
  const { key } = run.draft.key;
  const info = openingInfo(run.id, p.index, t1);
  const sealed =
    suite === "hpke"
      ? await hpkeSeal(key.sealing, info, opening, (n) => server.random.bytes(n))
      : rsaOaepSeal(key.rsa, info, opening);
  const reveal = { ceremonyId: run.id, index: p.index, t1, keyNumber: key.number, suite, sealedHash: sha256(sealed) };
  return { reveal: { reveal, signature: p.key.sign(revealBytes(reveal)) }, sealed };
}

export const reveal1 = async (server: CeremonyServer, run: Run, p: Participant): Promise<SignedEntry> =>
  (await server.call("ceremony.reveal", await revealOf(server, run, p))).entry;

/** The whole transcript, page by page. */
export async function transcriptOf(server: CeremonyServer, { id }: Pick<Run, "id">): Promise<Transcript> {
  const entries: SignedEntry[] = [];
  for (;;) {
    const page = await server.call("ceremony.get", { ceremonyId: id, after: entries.length });
    entries.push(...page.entries);
    if (!page.more) return { manifest: page.manifest, entries };
  }
}

export const statusOf = async (server: CeremonyServer, { id }: Pick<Run, "id">) =>
  (await server.call("ceremony.get", { ceremonyId: id, after: 0 })).status;

/** Kinds of the entries in order. */
export const kindsOf = async (server: CeremonyServer, run: Run): Promise<string[]> =>
  (await transcriptOf(server, run)).entries.map(({ entry }) => entry.body.kind);

/** Everyone commits and reveals; the combination is done on return. */
export async function finished(server: CeremonyServer, run: Run): Promise<void> {
  for (const p of run.participants) await join1(server, run, p);
  for (const p of run.participants) await reveal1(server, run, p);
  await server.sweep();
}

/** A wish for the value, by the organiser (0) or a participant. */
export async function releaseOf(
  server: CeremonyServer,
  run: Run,
  index: number,
  recipient: HpkeKeyPair,
  change: Partial<Release> = {},
): Promise<{ readonly signed: InputOf<"ceremony.collect">["release"]; readonly hash: Uint8Array }> {
  const result = (await transcriptOf(server, run)).entries.at(-1)?.entry.body;
  if (result?.kind !== "result" || !result.stored) throw new Error("nothing stored");
  const release: Release = {
    ...result.stored,
    ceremonyId: run.id,
    index,
    recipient: recipient.publicKey,
    nonce: server.random.bytes(32),
    ...change,
  };
  const signer = index === 0 ? run.organiser : run.one(index).key;
  return { signed: { release, signature: signer.sign(releaseBytes(release)) }, hash: releaseHash(release) };
}

export const approvalOf = (p: Participant, hash: Uint8Array) => ({
  releaseHash: hash,
  index: p.index,
  signature: p.key.sign(approvalBytes(hash, p.index)),
});

/** Code of what a piece of work throws; `ok` otherwise. */
export const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? error.code : `no fault: ${String(error)}`),
  );
