import { secp256k1 } from "@noble/curves/secp256k1.js";
import { hpkeKeyPair, hpkeSeal } from "../../src/crypto/hpke.ts";
import { type Signer, signerFromSeed } from "../../src/crypto/identity.ts";
import { sha256 } from "../../src/crypto/kdf.ts";
import type { CeremonyId } from "../../src/ids.ts";
import { ceremonyKeyOf, t1Of } from "../../src/protocol/ceremony/combine.ts";
import { commitmentOf, contributionOf } from "../../src/protocol/ceremony/contribution.ts";
import { abortBody, type CeremonyState, ceremonyState, nextEntry } from "../../src/protocol/ceremony/life.ts";
import {
  type AbortReason,
  CEREMONY_FUNCTIONS,
  type CeremonyDraft,
  type CeremonyFunction,
  type CeremonyJoin,
  type EntryBody,
  type SignedCeremonyKey,
  type SignedCeremonyManifest,
  type SignedEntry,
  type Transcript,
  type TranscriptEntry,
} from "../../src/protocol/ceremony/model.ts";
import { makeOutput } from "../../src/protocol/ceremony/output.ts";
import {
  ceremonyIdOf,
  ceremonyKeyBytes,
  ceremonyManifestBytes,
  draftBytes,
  openingInfo,
  revealBytes,
  seedHashOf,
  signEntry,
  signJoin,
  storedKeyIdOf,
} from "../../src/protocol/ceremony/records.ts";

/** A ceremony without server and enclave process: whoever tests it holds all keys. */

export interface PureParticipant {
  readonly index: number;
  readonly name: string;
  readonly function: CeremonyFunction;
  readonly invite: Signer;
  readonly signer: Signer;
  readonly sealing: Uint8Array;
  /** Own scalar of a wallet. */
  readonly scalar: Uint8Array;
  readonly os: Uint8Array;
  readonly mixed: readonly Uint8Array[];
  readonly opening: Uint8Array;
}

export interface PureOptions {
  readonly random: (length: number) => Uint8Array;
  readonly participants: number;
  /** Of the seats; by default all of them in turn without the slow one. */
  readonly functions?: readonly CeremonyFunction[];
  readonly mixed?: readonly (readonly Uint8Array[])[];
  /** Indexes of seats that accounts take. */
  readonly accounts?: readonly number[];
  readonly rsa?: Uint8Array;
  readonly draft?: Partial<CeremonyDraft>;
}

const NAMES = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];
export const OPENED_AT = 1_800_000_000_000;
export const STAGE = 3_600_000;
const FAST = CEREMONY_FUNCTIONS.filter((fn) => fn !== "argon2id");

export type PureCeremony = Awaited<ReturnType<typeof pureCeremony>>;

export async function pureCeremony(options: PureOptions) {
  const { random, accounts = [] } = options;
  const server = signerFromSeed(random(32));
  const enclave = signerFromSeed(random(32));
  const organiser = signerFromSeed(random(32));
  const sealing = await hpkeKeyPair(random(32));
  const seed = random(32);
  const participants: PureParticipant[] = [];
  for (let at = 0; at < options.participants; at++) {
    const os = random(32);
    const mixed = options.mixed?.[at] ?? [];
    participants.push({
      index: at + 1,
      name: NAMES[at] ?? `participant-${at + 1}`,
      function: options.functions?.[at] ?? FAST[at % FAST.length] ?? "hkdf-sha256",
      invite: signerFromSeed(random(32)),
      signer: signerFromSeed(random(32)),
      sealing: (await hpkeKeyPair(random(32))).publicKey,
      scalar: secp256k1.utils.randomSecretKey(random(48)),
      os,
      mixed,
      opening: contributionOf(os, mixed),
    });
  }
  const key = {
    server: server.publicKey,
    enclave: enclave.publicKey,
    number: 1,
    sealing: sealing.publicKey,
    rsa: options.rsa ?? random(422),
    createdAtMs: OPENED_AT - 1_000,
  };
  const bytes = ceremonyKeyBytes(key);
  const signedKey: SignedCeremonyKey = { key, signature: server.sign(bytes), enclaveSignature: enclave.sign(bytes) };
  const draft: CeremonyDraft = {
    key: signedKey,
    organiser: organiser.publicKey,
    name: "office-totp",
    purpose: "second factor of the office's bank account",
    output: { kind: "bytes", length: 32 },
    policy: { collect: "participants", quorum: 2 },
    slots: participants.map(({ index, name, invite }) => ({
      index,
      name,
      invite: accounts.includes(index) ? null : invite.publicKey,
      account: accounts.includes(index) ? `${name}@example.org` : null,
    })),
    minimum: options.participants,
    commitMs: STAGE,
    revealMs: STAGE,
    previous: null,
    replaces: null,
    nonce: random(32),
    ...options.draft,
  };
  const manifest = signedManifest(draft, { enclave, organiser, seed });
  const ceremonyId = ceremonyIdOf(manifest.manifest);
  const entries: SignedEntry[] = [];
  const transcript = (): Transcript => ({ manifest, entries: [...entries] });
  const stateAt = (nowMs: number): CeremonyState => ceremonyState(transcript(), nowMs, "head");
  const participant = (index: number): PureParticipant => {
    const found = participants[index - 1];
    if (!found) throw new Error(`no participant ${index}`);
    return found;
  };

  /** Signs whatever is asked for, right or wrong. */
  const force = (entry: TranscriptEntry): SignedEntry => {
    const signed = signEntry(enclave, ceremonyId, entry);
    entries.push(signed);
    return signed;
  };
  const append = (body: EntryBody, atMs: number): SignedEntry => force(nextEntry(stateAt(atMs), body, atMs));

  function join(index: number, change: Partial<CeremonyJoin> = {}): Extract<EntryBody, { kind: "join" }> {
    const { invite, signer, ...own } = participant(index);
    const plain = { ceremonyId, index, key: signer.publicKey, function: own.function };
    const made: CeremonyJoin = {
      ...plain,
      sealing: own.sealing,
      share: draft.output.kind === "multisig" ? secp256k1.getPublicKey(own.scalar, true) : null,
      commitment: commitmentOf(plain, own.opening),
      ...change,
    };
    return { kind: "join", join: signJoin(signer, invite, made) };
  }
  const seat = (index: number): Extract<EntryBody, { kind: "seat" }> => ({
    kind: "seat",
    index,
    invite: participant(index).invite.publicKey,
  });
  const freeze = (): Extract<EntryBody, { kind: "freeze" }> => {
    const { joins } = stateAt(0);
    return { kind: "freeze", t1: t1Of(ceremonyId, joins), seed };
  };
  async function reveal(
    index: number,
    t1 = stateAt(0).t1 ?? new Uint8Array(32),
  ): Promise<Extract<EntryBody, { kind: "reveal" }>> {
    const { opening, signer } = participant(index);
    const sealed = await hpkeSeal(sealing.publicKey, openingInfo(ceremonyId, index, t1), opening, random);
    const word = { ceremonyId, index, t1, keyNumber: 1, suite: "hpke" as const, sealedHash: sha256(sealed) };
    return { kind: "reveal", reveal: { reveal: word, signature: signer.sign(revealBytes(word)) } };
  }
  async function combined() {
    const { joins, t1 } = stateAt(0);
    return await ceremonyKeyOf({
      ceremonyId,
      purpose: draft.purpose,
      seed,
      t1: t1 ?? new Uint8Array(32),
      participants: joins.map(({ join: { index } }) => participant(index)),
    });
  }
  async function result(): Promise<Extract<EntryBody, { kind: "result" }>> {
    const { t2, keyHash, key: made } = await combined();
    const { joins } = stateAt(0);
    const wallet = draft.output.kind === "multisig";
    const keyId = draft.replaces ?? storedKeyIdOf(enclave.publicKey, Uint8Array.fromHex(ceremonyId));
    return {
      kind: "result",
      t2,
      keyHash,
      output: (await makeOutput(draft.output, made, { ceremonyId, joins })).public,
      stored: wallet ? null : { keyId, version: draft.replaces ? 2 : 1 },
      custody: wallet ? "self-custodial" : "custodial",
    };
  }

  /** Goes as far as `until`, a second an entry; participants commit and reveal in the order of `order`. */
  async function go(until: "commit" | "freeze" | "reveal" | "stored", order = participants.map(({ index }) => index)) {
    let now = OPENED_AT;
    const tick = () => {
      now += 1_000;
      return now;
    };
    for (const index of order) {
      if (accounts.includes(index)) append(seat(index), tick());
      append(join(index), tick());
    }
    if (until === "commit") return transcript();
    append(freeze(), tick());
    if (until === "freeze") return transcript();
    for (const index of order.toReversed()) append(await reveal(index), tick());
    if (until === "reveal") return transcript();
    append(await result(), tick());
    return transcript();
  }

  const end = (reason: Exclude<AbortReason, "lied">, atMs: number) => append(abortBody(stateAt(atMs), reason), atMs);

  return {
    server,
    enclave,
    organiser,
    sealing,
    seed,
    participants,
    draft,
    manifest,
    ceremonyId: ceremonyId as CeremonyId,
    entries,
    transcript,
    stateAt,
    participant,
    force,
    append,
    join,
    seat,
    freeze,
    reveal,
    combined,
    result,
    go,
    end,
  };
}

/** Signs a draft as organiser and enclave. */
export function signedManifest(
  draft: CeremonyDraft,
  by: { readonly enclave: Signer; readonly organiser: Signer; readonly seed: Uint8Array },
): SignedCeremonyManifest {
  const manifest = {
    draft,
    organiserSignature: by.organiser.sign(draftBytes(draft)),
    seedHash: seedHashOf(by.seed, draft.nonce),
    openedAtMs: OPENED_AT,
  };
  return { manifest, signature: by.enclave.sign(ceremonyManifestBytes(manifest)) };
}

export const openingsOf = (world: PureCeremony) =>
  new Map(world.participants.map(({ index, opening }) => [index, opening]));
