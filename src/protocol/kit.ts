import { entropyToMnemonic, mnemonicToEntropy } from "@scure/bip39";
import { wordlist } from "@scure/bip39/wordlists/english.js";
import { concat, equalBytes, type RandomSource, wipe } from "../crypto/bytes.ts";
import { canon } from "../crypto/canon.ts";
import { type HpkeKeyPair, hpkeKeyPair, hpkeOpen, hpkeSeal } from "../crypto/hpke.ts";
import { type Signer, signerFromSeed, verifySignature } from "../crypto/identity.ts";
import { deriveKey } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { SessionId, UserId } from "../ids.ts";
import { handoversHold, type Settings } from "./state.ts";

/** Bytes of entropy behind a recovery kit's words. */
export const KIT_BYTES = 32;

/** Number of words of a recovery kit. */
export const KIT_WORDS = 24;

const X25519_BYTES = 32;

/** The two key pairs of a recovery kit (docs/protocol.md §5.8). */
export interface KitKeys {
  /** What stands in the signed settings: X25519 ‖ Ed25519, 64 bytes. */
  readonly publicKeys: Uint8Array;
  readonly hpke: HpkeKeyPair;
  readonly signer: Signer;
}

/** The 24 words of 32 bytes (BIP-39, English list; the last one holds a checksum). */
export function kitWords(entropy: Uint8Array): readonly string[] {
  return entropyToMnemonic(entropy, wordlist).split(" ");
}

/**
 * The bytes behind words as a person typed them: any case, numbers and punctuation between them are ignored.
 *
 * @throws Fault bad_input naming the first word that is none, or telling that they do not fit each other.
 */
export function kitEntropy(typed: string): Uint8Array {
  const words =
    typed
      .normalize("NFKD")
      .toLowerCase()
      .match(/[a-z]+/g) ?? [];
  const stranger = words.findIndex((word) => !wordlist.includes(word));
  if (stranger >= 0) {
    // neither the word nor those near it: they tell of the kit
    throw new Fault("bad_input", `word ${stranger + 1} is not a word of a recovery kit`, {
      hint: "compare it with the kit",
    });
  }
  if (words.length !== KIT_WORDS) {
    throw new Fault("bad_input", `a recovery kit has ${KIT_WORDS} words, these are ${words.length}`);
  }
  try {
    return mnemonicToEntropy(words.join(" "), wordlist);
  } catch {
    throw new Fault("bad_input", "these are no words of one recovery kit", {
      why: "each is a word of the list, but their checksum is wrong: one is another word, or two changed places",
      hint: "compare them with the kit, in order",
    });
  }
}

/** The keys of a kit's 32 bytes, which stay the caller's. */
export async function kitKeys(entropy: Uint8Array): Promise<KitKeys> {
  const derive = (purpose: string) => deriveKey(entropy, 32, new Uint8Array(0), "keyhold/v1/recovery-kit", purpose);
  const [seal, sign] = [derive("seal"), derive("sign")];
  try {
    const hpke = await hpkeKeyPair(seal);
    const signer = signerFromSeed(sign);
    return { publicKeys: concat(hpke.publicKey, signer.publicKey), hpke, signer };
  } finally {
    wipe(seal, sign);
  }
}

/** X25519 half of a kit's public keys. */
export const kitSealing = (publicKeys: Uint8Array): Uint8Array => publicKeys.subarray(0, X25519_BYTES);

/** Ed25519 half of a kit's public keys. */
export const kitVerifier = (publicKeys: Uint8Array): Uint8Array => publicKeys.subarray(X25519_BYTES);

const kitInfo = (userId: UserId, publicKeys: Uint8Array): Uint8Array =>
  canon("keyhold/v1/kit-seal", userId, publicKeys);

const kitBinding = (userId: UserId, identity: Uint8Array): Uint8Array =>
  canon("keyhold/v1/kit-binding", userId, identity);

/** Account identity at the kit's making (32) and the kit's signature over it (64), before what is sealed. */
const BINDING_BYTES = 96;

/**
 * What the settings hold for a new kit: the account identity, vouched for by the kit, then the account key sealed to
 * it. Anyone can seal to a public key; through the kit's own signature recovery knows whose account it opens.
 *
 * @returns identity (32) ‖ signature (64) ‖ sealed account key (80).
 */
export async function wrapForKit(
  kit: KitKeys,
  userId: UserId,
  identity: Uint8Array,
  accountKey: Uint8Array,
  random: RandomSource,
): Promise<Uint8Array> {
  const sealed = await hpkeSeal(kit.hpke.publicKey, kitInfo(userId, kit.publicKeys), accountKey, random);
  return concat(identity, kit.signer.sign(kitBinding(userId, identity)), sealed);
}

/** The account identity (32 bytes) that a kit was made for, which what the settings hold of it begins with. */
export const kitIdentity = (kitWrapped: Uint8Array): Uint8Array => kitWrapped.subarray(0, 32);

/** Seals the next account key (32 bytes) to the kit of these settings, if there is one: for a rotation. */
export async function resealToKit(
  { kit, kitWrapped }: Pick<Settings, "kit" | "kitWrapped">,
  userId: UserId,
  accountKey: Uint8Array,
  random: RandomSource,
): Promise<Uint8Array | null> {
  if (kit === null || kitWrapped === null) return null;
  const sealed = await hpkeSeal(kitSealing(kit), kitInfo(userId, kit), accountKey, random);
  return concat(kitWrapped.subarray(0, BINDING_BYTES), sealed);
}

/**
 * Opens the account key with the kit, after checking that the settings are those of the account that the kit was made
 * for: its identity then, and each that this one handed over to since.
 *
 * @throws Fault integrity
 */
export async function openWithKit(kit: KitKeys, userId: UserId, settings: Settings): Promise<Uint8Array> {
  const wrapped = settings.kitWrapped;
  const strange = () => new Fault("integrity", "the server shows an account that this recovery kit was not made for");
  if (wrapped === null || settings.kit === null || !equalBytes(settings.kit, kit.publicKeys)) throw strange();
  const identity = kitIdentity(wrapped);
  const vouched = verifySignature(
    kit.signer.publicKey,
    kitBinding(userId, identity),
    wrapped.subarray(32, BINDING_BYTES),
  );
  const lineage = [...settings.rotations.map((rotation) => rotation.identity), settings.identity];
  if (!vouched || !handoversHold(userId, settings) || !lineage.some((one) => equalBytes(one, identity)))
    throw strange();
  const key = await hpkeOpen(kit.hpke, kitInfo(userId, kit.publicKeys), wrapped.subarray(BINDING_BYTES));
  if (key.length === 32) return key;
  throw strange();
}

/** What a kit signs to recover an account: the server, the exchange and the name that it is for. */
export function recoveryChallenge(
  serverIdentity: Uint8Array,
  sessionId: SessionId,
  account: string,
  challenge: Uint8Array,
): Uint8Array {
  return canon("keyhold/v1/recovery-challenge", serverIdentity, sessionId, account, challenge);
}

/** HPKE info of the answer to a proof: the same facts, under its own label. */
export function recoveryReplyInfo(serverIdentity: Uint8Array, sessionId: SessionId, account: string): Uint8Array {
  return canon("keyhold/v1/recovery-reply", serverIdentity, sessionId, account);
}
