import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { hpkeKeyPair, hpkeOpen } from "../../crypto/hpke.ts";
import { signerFromSeed } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { OutputSpec, Release, SignedRelease } from "../../protocol/ceremony/model.ts";
import { secretOf, walletKeyOf } from "../../protocol/ceremony/output.ts";
import { approvalBytes, releaseBytes, releaseHash, releaseInfo } from "../../protocol/ceremony/records.ts";
import { verifyTranscript } from "../../protocol/ceremony/verify.ts";
import { publicKeyOf } from "../../protocol/keygen.ts";
import { encodeOpening, encodeTranscript } from "../../wire/ceremony/transcript.ts";
import type { CeremonyClient, CeremonyInfo, Collected } from "../ceremonyapi.ts";
import { advance } from "./acts.ts";
import { changeCeremony, heldCeremony, isOver } from "./books.ts";
import { find, lookedAt, mine, placeOf, releasesOf } from "./finding.ts";
import { type Ground, lie } from "./ground.ts";
import type { HeldCeremony, HeldOwn } from "./held.ts";
import { isCounted, type Look, look } from "./looks.ts";

const SEED_BYTES = 32;

/** The participant of this vault, whose commitment counts. @throws Fault denied */
function participant({ own }: HeldCeremony, { state }: Look): HeldOwn {
  if (own && isCounted(own, state)) return own;
  throw new Fault("denied", `this vault takes no part in "${state.manifest.draft.name}"`);
}

/** @throws Fault pending, conflict for what has not come to its good end */
function demandStored({ state }: Look): NonNullable<Look["state"]["result"]> {
  const { name } = state.manifest.draft;
  if (state.result) return state.result;
  if (state.status === "aborted") {
    throw new Fault("conflict", `"${name}" was aborted: there is no value`, { hint: "it takes another run" });
  }
  throw new Fault("pending", `"${name}" is not over yet`, { hint: "keyhold ceremony status shows for whom it waits" });
}

/** Who asks by the manifest's policy: a participant's index, or 0 for the organiser. @throws Fault denied */
function askerOf(held: HeldCeremony, seen: Look): { readonly index: number; readonly seed: Uint8Array } {
  const { collect } = seen.state.manifest.draft.policy;
  if (collect === "organiser" && held.organiser) return { index: 0, seed: held.organiser.seed };
  if (collect === "participants") {
    const { index, keySeed } = participant(held, seen);
    return { index, seed: keySeed };
  }
  throw new Fault("denied", "by the ceremony's manifest this value is not for this vault", {
    why: collect === "nobody" ? "nobody may take it out of the store" : `it is for the ${collect} alone`,
  });
}

/** The wish as it was made before, or a new one; in the vault before it is sent. */
async function askedFor(ground: Ground, held: HeldCeremony, seen: Look): Promise<NonNullable<HeldCeremony["asked"]>> {
  const { stored } = demandStored(seen);
  if (!stored) throw new Fault("internal", "the ceremony has a value and no place for it");
  if (held.asked) return held.asked;
  const { index, seed } = askerOf(held, seen);
  const recipientSeed = ground.random(SEED_BYTES);
  const { publicKey: recipient } = await hpkeKeyPair(recipientSeed);
  const { ceremonyId } = held;
  const release: Release = { ...stored, ceremonyId, index, recipient, nonce: ground.random(SEED_BYTES) };
  const signed: SignedRelease = { release, signature: signerFromSeed(seed).sign(releaseBytes(release)) };
  const asked = { release: signed, recipientSeed };
  await changeCeremony(ground, ceremonyId, (one) => ({ ...one, asked: one.asked ?? asked }));
  return heldCeremony(ground, ceremonyId)?.asked ?? asked;
}

/** Signs that a wish may be granted. */
async function sendApproval({ asking, ceremonyId }: Look, own: HeldOwn, hash: Uint8Array) {
  const signature = signerFromSeed(own.keySeed).sign(approvalBytes(hash, own.index));
  const approval = { releaseHash: hash, index: own.index, signature };
  await asking.ask("ceremony.approve", { ceremonyId, approval });
}

/** Public half that a value has, as everyone was shown it; null for values without one. */
function publicOf(output: OutputSpec, value: Uint8Array): Uint8Array | null {
  const { kind } = output;
  const hasPublic = kind === "secp256k1" || kind === "p256" || kind === "ed25519" || kind === "rsa";
  return hasPublic ? publicKeyOf(kind, value) : null;
}

/** Opens what the store let out, and holds it to what everyone was shown. @throws Fault integrity */
async function opened(seen: Look, asked: NonNullable<HeldCeremony["asked"]>, sealed: Uint8Array): Promise<Collected> {
  const { asking, state } = seen;
  const { draft } = state.manifest;
  const { name, output, policy } = draft;
  const { release } = asked.release;
  const record = {
    ...{ enclave: draft.key.key.enclave, keyId: release.keyId, version: release.version },
    ...{ ceremonyId: release.ceremonyId, name, output, policy, createdAtMs: state.head.atMs },
  };
  const pair = await hpkeKeyPair(asked.recipientSeed);
  let raw: Uint8Array | undefined;
  try {
    raw = await hpkeOpen(pair, releaseInfo(record, releaseHash(asked.release.release)), sealed);
    const shown = state.result?.output.publicKey ?? null;
    const made = publicOf(output, raw);
    if ((made === null) !== (shown === null) || (made && shown && !equalBytes(made, shown))) {
      throw new Fault("integrity", "its public key is another one");
    }
    const { type, value } = secretOf(output, raw);
    return { name, kind: output.kind, value, type };
  } catch (error) {
    if (!(error instanceof Fault) || (error.code !== "integrity" && error.code !== "bad_input")) throw error;
    throw lie(asking.url, "a value that is not the ceremony's", error.message);
  } finally {
    wipe(raw);
  }
}

/** This participant's own key of a wallet: half of it never left this vault, the other half the ceremony made. */
async function walletKey(ground: Ground, wanted: string): Promise<Collected> {
  await advance(ground, wanted);
  const held = await mine(ground, wanted);
  const { scalar, part } = held.own ?? { scalar: null, part: null };
  if (!scalar || !part) throw new Fault("denied", "this vault has no key in this wallet");
  const { name } = held.manifest.manifest.draft;
  return { name, kind: "multisig", type: "secp256k1", value: walletKeyOf(scalar, part) };
}

/** Takes the value out of the store, where the manifest's policy and enough participants allow it, and notes that. */
export async function collect(ground: Ground, wanted: string): Promise<Collected> {
  const held = await mine(ground, wanted);
  const got = await taken(ground, held);
  try {
    const collectedAtMs = held.collectedAtMs ?? ground.now();
    if (held.collectedAtMs === null)
      await changeCeremony(ground, held.ceremonyId, (one) => ({ ...one, collectedAtMs }));
    return got;
  } catch (error) {
    wipe(got.value);
    throw error;
  }
}

async function taken(ground: Ground, held: HeldCeremony): Promise<Collected> {
  const seen = await look(ground, placeOf(held));
  demandStored(seen);
  const { name, output } = seen.state.manifest.draft;
  if (output.kind === "multisig") return walletKey(ground, held.ceremonyId);
  const asked = await askedFor(ground, heldCeremony(ground, held.ceremonyId) ?? held, seen);
  const ask = () => seen.asking.ask("ceremony.collect", { release: asked.release });
  let answer = await ask();
  const { own } = heldCeremony(ground, held.ceremonyId) ?? held;
  if (answer.sealed === null && own && isCounted(own, seen.state)) {
    // who wishes for it agrees to it
    await sendApproval(seen, own, releaseHash(asked.release.release));
    answer = await ask();
  }
  if (answer.sealed !== null) return opened(seen, asked, answer.sealed);
  throw new Fault(
    "pending",
    `${answer.approvals} of ${answer.needed} participants have agreed that "${name}" may leave`,
    {
      hint: `they agree with: keyhold ceremony approve ${name}; then run this again`,
    },
  );
}

/** Agrees to a wish for the value, which was verified. */
export async function approve(ground: Ground, wanted: string, releaseHex: string): Promise<CeremonyInfo> {
  const held = await mine(ground, wanted);
  const seen = await look(ground, placeOf(held));
  demandStored(seen);
  const own = participant(heldCeremony(ground, held.ceremonyId) ?? held, seen);
  const releases = releasesOf(seen, held).filter((one) => one.releaseHex.startsWith(releaseHex.toLowerCase()));
  const [release, another] = releases;
  if (!release || another || releaseHex === "") {
    throw new Fault(another ? "ambiguous" : "not_found", "there is no such wish for the value", {
      hint: "keyhold ceremony status shows all",
    });
  }
  if (release.approved) return lookedAt(ground, seen);
  await sendApproval(seen, own, Uint8Array.fromHex(release.releaseHex));
  return lookedAt(ground, await look(ground, placeOf(held)));
}

/** The whole transcript as a file, verified first. */
export async function transcriptFile(ground: Ground, wanted: string): Promise<Uint8Array> {
  const { ceremonyId, ...place } = await find(ground, wanted);
  const { transcript, state } = await look(ground, { ...place, ceremonyId });
  const own = heldCeremony(ground, ceremonyId)?.own;
  if (state.status === "stored") {
    const { key, commitment } = own?.join.join ?? {};
    const evidence = { pin: place.pin, ...(own?.joinedSeq && key && commitment && { own: { key, commitment } }) };
    await verifyTranscript(transcript, evidence);
  }
  return encodeTranscript(transcript);
}

/** This vault's own opening as a file, once it can do no harm any more. The caller's to wipe. */
export async function openingFile(ground: Ground, wanted: string): Promise<Uint8Array> {
  const held = await mine(ground, wanted);
  if (!held.own) throw new Fault("not_found", "this vault takes no part in this ceremony: it has no opening");
  if (!isOver(held)) await look(ground, placeOf(held));
  const { own, ceremonyId, ...rest } = heldCeremony(ground, held.ceremonyId) ?? held;
  if (!own || !isOver(rest)) {
    throw new Fault("pending", "the ceremony is not over: whoever has the opening now could spoil it", {
      hint: "run this again after its end",
    });
  }
  return encodeOpening({ ceremonyId, index: own.index, opening: own.opening });
}

/** What this vault has in a transcript. */
export function ownIn(ground: Ground, ceremonyId: string): Awaited<ReturnType<CeremonyClient["ceremonyOwn"]>> {
  const own = ground.held().ceremonies.find((one) => one.ceremonyId === ceremonyId)?.own;
  if (!own) return null;
  const { index, key, commitment } = own.join.join;
  return { index, publicKeyHex: key.toHex(), commitmentHex: commitment.toHex() };
}
