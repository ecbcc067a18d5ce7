import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { type HpkeKeyPair, hpkeKeyPair, hpkeSeal } from "../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import { rsaOaepSeal } from "../../src/crypto/rsaoaep.ts";
import type { KeyInUse } from "../../src/enclave/ceremonykeys.ts";
import { createEnclave, type Enclave } from "../../src/enclave/enclave.ts";
import type { EnclaveInput, EnclaveOutput } from "../../src/enclave/frames.ts";
import { openJournal } from "../../src/enclave/journal.ts";
import { type EnclaveKeys, enclaveKeys } from "../../src/enclave/keys.ts";
import type { Stored } from "../../src/enclave/storedvalue.ts";
import type { CeremonyId } from "../../src/ids.ts";
import { commitmentOf, contributionOf } from "../../src/protocol/ceremony/contribution.ts";
import { type CeremonyState, ceremonyState } from "../../src/protocol/ceremony/life.ts";
import {
  CEREMONY_FUNCTIONS,
  type CeremonyDraft,
  type CeremonyFunction,
  type CeremonyJoin,
  type OutputSpec,
  type SignedCeremonyJoin,
  type SignedCeremonyKey,
  type SignedCeremonyReveal,
  type SignedEntry,
  type Transcript,
} from "../../src/protocol/ceremony/model.ts";
import {
  ceremonyIdOf,
  ceremonyKeyBytes,
  draftBytes,
  openingInfo,
  revealBytes,
  signJoin,
} from "../../src/protocol/ceremony/records.ts";
import { type Seeded, seeded } from "./seeded.ts";

/*
 * Entropy ceremonies without clients (docs/protocol.md §10); those of federations are in ceremonyworld.ts.
 *
 * - For every test, with or without an enclave: `person` draws a participant, `draftOf` makes a draft for people,
 *   `signDraft`, `joinOf` and `revealOf` sign and seal as clients do, `OUTPUTS` has one output of each kind.
 * - `entropyWorld` starts an enclave in this process with a server's identity and a key for ceremonies: `world.key` is
 *   what a server keeps of it, `world.key.statement` what clients see. `world.restart()` ends and starts it again.
 * - `world.open(...)` opens a ceremony at the enclave and gives a `Run`, whose `join`, `freeze`, `reveal`, `combine` and
 *   `abort` append to `run.transcript`; `run.finish()` does all that is left. `run.ask(step)` asks without appending.
 */

export const T0 = 1_800_000_000_000;
const HOUR = 3_600_000;

/** A participant with everything that only it should know. */
export interface Person {
  readonly index: number;
  readonly name: string;
  /** Of its seat. */
  readonly invite: Signer;
  readonly signer: Signer;
  readonly sealing: HpkeKeyPair;
  readonly function: CeremonyFunction;
  /** r_i, 32 bytes. */
  readonly opening: Uint8Array;
  /** Its own part of a multisig wallet, 32 bytes. */
  readonly scalar: Uint8Array;
}

/** Draws a participant; each one's function is the next in the list. */
export async function person(random: Seeded, index: number, change: Partial<Person> = {}): Promise<Person> {
  return {
    index,
    name: `person ${index}`,
    invite: signerFromSeed(random.bytes(32)),
    signer: signerFromSeed(random.bytes(32)),
    sealing: await hpkeKeyPair(random.bytes(32)),
    function: CEREMONY_FUNCTIONS[(index - 1) % CEREMONY_FUNCTIONS.length] ?? "hkdf-sha256",
    opening: contributionOf(random.bytes(32), []),
    scalar: secp256k1.utils.randomSecretKey(random.bytes(48)),
    ...change,
  };
}

export function people(random: Seeded, n: number): Promise<Person[]> {
  return Promise.all(Array.from({ length: n }, (_, at) => person(random, at + 1)));
}

/** A draft with a seat for each, made out by invite; all must take part. */
export function draftOf(
  key: SignedCeremonyKey,
  organiser: Signer,
  seats: readonly Pick<Person, "index" | "name" | "invite">[],
  random: Seeded,
  change: Partial<CeremonyDraft> = {},
): CeremonyDraft {
  return {
    key,
    organiser: organiser.publicKey,
    name: "test",
    purpose: "a key for tests",
    output: OUTPUTS.totp,
    policy: { collect: "nobody", quorum: 0 },
    slots: seats.map(({ index, name, invite }) => ({ index, name, invite: invite.publicKey, account: null })),
    minimum: seats.length,
    commitMs: HOUR,
    revealMs: HOUR,
    previous: null,
    replaces: null,
    nonce: random.bytes(32),
    ...change,
  };
}

export const signDraft = (organiser: Signer, draft: CeremonyDraft): Uint8Array => organiser.sign(draftBytes(draft));

/** A participant's commitment, signed by it and by the invite of its seat. */
export function joinOf(
  ceremonyId: CeremonyId,
  who: Person,
  output: OutputSpec["kind"],
  change: Partial<CeremonyJoin> = {},
): SignedCeremonyJoin {
  const place = { ceremonyId, index: who.index, key: who.signer.publicKey, function: who.function };
  return signJoin(who.signer, who.invite, {
    ...place,
    sealing: who.sealing.publicKey,
    share: output === "multisig" ? secp256k1.getPublicKey(who.scalar, true) : null,
    commitment: commitmentOf(place, who.opening),
    ...change,
  });
}

/** A signed reveal and the sealed opening; `change.opening` seals another one than was committed to. */
export async function revealOf(
  ceremonyId: CeremonyId,
  who: Person,
  t1: Uint8Array,
  { key }: SignedCeremonyKey,
  random: Seeded,
  change: { readonly suite?: "hpke" | "rsa-oaep"; readonly opening?: Uint8Array; readonly sealed?: Uint8Array } = {},
): Promise<{ reveal: SignedCeremonyReveal; sealed: Uint8Array }> {
  const { suite = "hpke", opening = who.opening } = change;
  const info = openingInfo(ceremonyId, who.index, t1);
  const seal = () =>
    suite === "hpke"
      ? hpkeSeal(key.sealing, info, opening, (length) => random.bytes(length))
      : rsaOaepSeal(key.rsa, info, opening);
  const sealed = change.sealed ?? (await seal());
  const reveal = { ceremonyId, index: who.index, t1, keyNumber: key.number, suite, sealedHash: sha256(sealed) };
  return { reveal: { reveal, signature: who.signer.sign(revealBytes(reveal)) }, sealed };
}

const otp = { algorithm: "SHA1", digits: 6, issuer: "Example", label: "everyone" } as const;
/** One output of each kind. */
export const OUTPUTS = {
  totp: { kind: "totp", ...otp, period: 30 },
  hotp: { kind: "hotp", ...otp },
  bytes: { kind: "bytes", length: 40 },
  hedge: { kind: "hedge" },
  secp256k1: { kind: "secp256k1" },
  p256: { kind: "p256" },
  ed25519: { kind: "ed25519" },
  rsa: { kind: "rsa", bits: 2_048 },
  bip39: { kind: "bip39", words: 24 },
  multisig: { kind: "multisig", threshold: 2, network: "testnet" },
} as const satisfies { readonly [K in OutputSpec["kind"]]: OutputSpec & { kind: K } };

export type Step = EnclaveInput<"ceremony.append">["step"];
export type Appended = EnclaveOutput<"ceremony.append">;

/** One ceremony as a server runs it. */
export interface Run {
  readonly ceremonyId: CeremonyId;
  readonly draft: CeremonyDraft;
  readonly organiser: Signer;
  readonly people: readonly Person[];
  /** s0 as the enclave sealed it. */
  readonly seed: Uint8Array;
  readonly transcript: Transcript;
  /** What a server keeps until the end, in the order of the reveals. */
  readonly openings: readonly { readonly sealed: Uint8Array; readonly key: KeyInUse }[];
  readonly state: CeremonyState;
  person(index: number): Person;
  /** Asks the enclave for the next entry, of this transcript or another one; appends nothing. */
  ask(step: Step, transcript?: Transcript): Promise<Appended>;
  /** Asks and appends. */
  append(step: Step): Promise<Appended>;
  join(index: number): Promise<SignedEntry>;
  freeze(): Promise<SignedEntry>;
  reveal(index: number, change?: Parameters<typeof revealOf>[5]): Promise<SignedEntry>;
  combine(before?: Stored | null): Promise<Appended>;
  abort(reason: "absent" | "withheld" | "closed" | "failed"): Promise<SignedEntry>;
  /** Joins, freeze and reveals that are not there yet. */
  toCombine(): Promise<void>;
  /** The same, and the result. */
  finish(): Promise<Appended>;
}

export interface EntropyWorld {
  /** The server's identity, which states its key for ceremonies. */
  readonly server: Signer;
  readonly keys: EnclaveKeys;
  enclave: Enclave;
  /** What a server keeps of its key for ceremonies. */
  readonly key: KeyInUse;
  readonly journalPath: string;
  readonly random: Seeded;
  nowMs: number;
  /** Ends the enclave as a crash does, and starts it again from its files. */
  restart(): void;
  /** Another key pair of this enclave; slow. */
  makeKey(number: number): Promise<KeyInUse>;
  open(options?: {
    readonly n?: number;
    readonly people?: readonly Person[];
    readonly organiser?: Signer;
    readonly change?: Partial<CeremonyDraft>;
  }): Promise<Run>;
  close(): void;
}

/** Key pairs by the world's seed: RSA keys take long to find, and the same enclave opens them again. */
const known = new Map<number, Promise<KeyInUse>>();

/** Starts an enclave with a key for ceremonies. */
export async function entropyWorld(seed = 1): Promise<EntropyWorld> {
  const random = seeded(seed);
  const directory = mkdtempSync(joinPath(tmpdir(), "keyhold-entropy-"));
  const journalPath = joinPath(directory, "journal");
  writeFileSync(journalPath, "", { mode: 0o600 });
  const keys = await enclaveKeys(random.bytes(32));
  const server = signerFromSeed(random.bytes(32));
  const clock = { nowMs: T0 };
  const start = (): Enclave =>
    createEnclave({
      keys,
      journal: openJournal(journalPath, keys.journalKey),
      now: () => clock.nowMs,
      random: (length) => random.bytes(length),
    });
  let enclave = start();
  const makeKey = async (number: number): Promise<KeyInUse> => {
    const { key, enclaveSignature, sealed } = await enclave.handle("ceremony.key", {
      server: server.publicKey,
      number,
    });
    return { statement: { key, signature: server.sign(ceremonyKeyBytes(key)), enclaveSignature }, sealed };
  };
  const made = known.get(seed) ?? makeKey(1);
  known.set(seed, made);
  const world: EntropyWorld = {
    server,
    keys,
    get enclave() {
      return enclave;
    },
    set enclave(value) {
      enclave = value;
    },
    key: await made,
    journalPath,
    random,
    get nowMs() {
      return clock.nowMs;
    },
    set nowMs(value) {
      clock.nowMs = value;
    },
    restart() {
      enclave.close();
      enclave = start();
    },
    makeKey,
    open: async ({ n = 3, people: given, organiser = signerFromSeed(random.bytes(32)), change = {} } = {}) =>
      openRun(world, given ?? (await people(random, n)), organiser, change),
    close() {
      enclave.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
  return world;
}

async function openRun(
  world: EntropyWorld,
  who: readonly Person[],
  organiser: Signer,
  change: Partial<CeremonyDraft>,
): Promise<Run> {
  const { random } = world;
  const draft = draftOf(world.key.statement, organiser, who, random, change);
  const signature = signDraft(organiser, draft);
  const opened = await world.enclave.handle("ceremony.open", { draft, signature });
  const ceremonyId = ceremonyIdOf(opened.manifest.manifest);
  let transcript: Transcript = { manifest: opened.manifest, entries: [] };
  const openings: { sealed: Uint8Array; key: KeyInUse }[] = [];
  const run: Run = {
    ceremonyId,
    draft,
    organiser,
    people: who,
    seed: opened.seed,
    get transcript() {
      return transcript;
    },
    openings,
    get state() {
      return ceremonyState(transcript, world.nowMs, "head");
    },
    person(index) {
      const found = who.find((one) => one.index === index);
      if (!found) throw new Error(`no person ${index}`);
      return found;
    },
    ask: (step, other = transcript) => world.enclave.handle("ceremony.append", { transcript: other, step } as never),
    async append(step) {
      const answer = await run.ask(step);
      transcript = { ...transcript, entries: [...transcript.entries, answer.entry] };
      if (step.kind === "reveal" && answer.entry.entry.body.kind === "reveal") {
        openings.push({ sealed: step.sealed, key: step.key });
      }
      return answer;
    },
    async join(index) {
      return (await run.append({ kind: "join", join: joinOf(ceremonyId, run.person(index), draft.output.kind) })).entry;
    },
    freeze: async () => (await run.append({ kind: "freeze", seed: opened.seed })).entry,
    async reveal(index, how = {}) {
      const { t1 } = run.state;
      if (!t1) throw new Error("not frozen");
      const made = await revealOf(ceremonyId, run.person(index), t1, draft.key, random, how);
      return (await run.append({ kind: "reveal", ...made, key: world.key })).entry;
    },
    combine: (before = null) => run.append({ kind: "combine", openings, before }),
    abort: async (reason) => (await run.append({ kind: "abort", reason })).entry,
    async toCombine() {
      if (!run.state.t1) {
        for (const index of run.state.missing) await run.join(index);
        await run.freeze();
      }
      for (const index of run.state.missing) await run.reveal(index);
    },
    async finish() {
      await run.toCombine();
      return run.combine();
    },
  };
  return run;
}
