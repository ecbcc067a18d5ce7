import { open, seal } from "../crypto/aead.ts";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { verifySignature } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { t1Of } from "../protocol/ceremony/combine.ts";
import { abortBody, type CeremonyState, checkDraft, nextEntry } from "../protocol/ceremony/life.ts";
import type {
  CeremonyDraft,
  CeremonyManifest,
  EntryBody,
  SignedCeremonyReveal,
  SignedEntry,
  Transcript,
} from "../protocol/ceremony/model.ts";
import {
  ceremonyManifestBytes,
  draftBytes,
  seedHashOf,
  signEntry,
  verifyCeremonyKey,
  verifyReveal,
} from "../protocol/ceremony/records.ts";
import type { CeremonyKeys, KeyInUse } from "./ceremonykeys.ts";
import { combine } from "./combination.ts";
import type { EnclaveInput, EnclaveOutput } from "./frames.ts";
import { ceremonySeedContext } from "./keys.ts";
import { leftAlready, movedMarks } from "./moves.ts";
import { demandKeyOf, isOpeningOf, openOpening } from "./openings.ts";
import type { EnclaveParts, Handlers } from "./parts.ts";
import { demandSince } from "./restoring.ts";
import { ceremonyMarks, ownState, type Stage } from "./transcripts.ts";

type Append = EnclaveOutput<"ceremony.append">;
type Step = EnclaveInput<"ceremony.append">["step"];
type CeremonyOperation = "ceremony.key" | "ceremony.open" | "ceremony.append";

const SEED_BYTES = 32;

/** What an enclave does in ceremonies (docs/protocol.md §10.4). */
export function createCeremonyHandlers(parts: EnclaveParts, ceremonyKeys: CeremonyKeys): Handlers<CeremonyOperation> {
  const { keys, journal, now, random } = parts;
  const identity = keys.signer.publicKey;
  const marks = ceremonyMarks(journal);

  const seedContext = (seedHash: Uint8Array) => ceremonySeedContext(keys, seedHash);

  function openCeremony(draft: CeremonyDraft, signature: Uint8Array): EnclaveOutput<"ceremony.open"> {
    const { enclave } = verifyCeremonyKey(draft.key);
    if (!equalBytes(enclave, identity)) throw new Fault("bad_input", "this draft names another enclave's key");
    if (!verifySignature(draft.organiser, draftBytes(draft), signature)) {
      throw new Fault("integrity", "the organiser's signature does not hold");
    }
    checkDraft(draft);
    // a key that has left gets no version here
    if (draft.replaces !== null) movedMarks(journal).demandHere(draft.replaces, leftAlready);
    const seed = random(SEED_BYTES);
    try {
      const seedHash = seedHashOf(seed, draft.nonce);
      const manifest: CeremonyManifest = { draft, organiserSignature: signature, seedHash, openedAtMs: now() };
      return {
        manifest: { manifest, signature: keys.signer.sign(ceremonyManifestBytes(manifest)) },
        seed: seal(keys.ceremonyKey, seedContext(seedHash), seed, random),
      };
    } finally {
      wipe(seed);
    }
  }

  /** The next entry, checked against the state and signed. @throws Fault */
  const entryOf = (state: CeremonyState, body: EntryBody, atMs: number): SignedEntry =>
    signEntry(keys.signer, state.ceremonyId, nextEntry(state, body, atMs));

  const alone = (entry: SignedEntry): Append => ({ entry, stored: null, parts: [] });

  function commit(state: CeremonyState, body: EntryBody, atMs: number): Append {
    const entry = entryOf(state, body, atMs);
    marks.demandOpen(state.ceremonyId);
    return alone(entry);
  }

  /** What is signed again is the same, so its time is. */
  const timeOf = (state: CeremonyState, stage: Stage, nowMs: number): number =>
    marks.signedAtMs(state.ceremonyId, stage) ?? Math.max(nowMs, state.head.atMs);

  function freeze(state: CeremonyState, sealed: Uint8Array, nowMs: number): Append {
    const seed = open(keys.ceremonyKey, seedContext(state.manifest.seedHash), sealed);
    const t1 = t1Of(state.ceremonyId, state.joins);
    const entry = entryOf(state, { kind: "freeze", t1, seed }, timeOf(state, "freeze", nowMs));
    // durable before the seed leaves: from now on no other commitments are combined with it
    marks.freeze(state, entry.entry);
    return alone(entry);
  }

  function abort(state: CeremonyState, body: EntryBody, atMs: number): Append {
    const entry = entryOf(state, body, atMs);
    marks.end(state, entry.entry);
    return alone(entry);
  }

  async function reveal(
    state: CeremonyState,
    signed: SignedCeremonyReveal,
    { sealed, key }: { readonly sealed: Uint8Array; readonly key: KeyInUse },
    atMs: number,
  ): Promise<Append> {
    const { index } = signed.reveal;
    const join = state.joins.find((one) => one.join.index === index)?.join;
    if (!join) throw new Fault("denied", "nobody has committed at this seat");
    verifyReveal(signed, join.key);
    demandKeyOf(state, signed.reveal, key);
    const entry = entryOf(state, { kind: "reveal", reveal: signed }, atMs);
    const opened = await ceremonyKeys.open(key);
    const opening = await openOpening(opened, signed.reveal, sealed);
    try {
      // what it signed does not open, or is not what it committed to
      if (opening === null || !isOpeningOf(join, opening)) {
        return abort(state, { kind: "abort", reason: "lied", culprits: [index], reveal: signed }, atMs);
      }
    } finally {
      wipe(opening ?? undefined);
    }
    marks.demandRunning(state.ceremonyId);
    return alone(entry);
  }

  async function append({ transcript, step }: { readonly transcript: Transcript; readonly step: Step }) {
    const nowMs = now();
    const state = ownState(keys, transcript, nowMs);
    demandSince(keys, journal, "ceremony", state.manifest.openedAtMs);
    const atMs = timeOf(state, "end", nowMs);
    switch (step.kind) {
      case "seat":
      case "join":
        return commit(state, step, atMs);
      case "freeze":
        return freeze(state, step.seed, nowMs);
      case "reveal":
        return await reveal(state, step.reveal, step, atMs);
      case "abort":
        return abort(state, abortBody(state, step.reason), atMs);
      case "combine": {
        const {
          body,
          stored,
          parts: sealed,
        } = await combine(parts, ceremonyKeys, { state, transcript, ...step, atMs });
        const entry = entryOf(state, body, atMs);
        marks.end(state, entry.entry);
        return { entry, stored, parts: sealed };
      }
    }
  }

  return {
    "ceremony.key": (input) => ceremonyKeys.make(input),
    "ceremony.open": async ({ draft, signature }) => openCeremony(draft, signature),
    "ceremony.append": append,
  };
}
