import { type Signer, signerFromSeed } from "../../../src/crypto/identity.ts";
import { hashCanon } from "../../../src/crypto/kdf.ts";
import { type ErrorCode, Fault } from "../../../src/errors.ts";
import { type FederatedKeyId, type FederatedRequestId, hashId, type KeyringId } from "../../../src/ids.ts";
import {
  advance,
  type KeyringEffect,
  type KeyringLife,
  type KeyringLifeEvent,
  openLife,
} from "../../../src/protocol/keyring/requestlife.ts";
import {
  type PartyResponse,
  responseValue,
  type SignedResponse,
  signResponse,
} from "../../../src/protocol/keyring/response.ts";
import { type Model, type ModelEvent, valueIn, WORDS, type Word } from "./lifemodel.ts";

/** The model's parties, items and words as real keys, ids and signed responses. */

export const EXPIRES_MS = 1_000;
const hash = (...parts: readonly (string | number)[]) => hashCanon("test", ...parts);
export const KEYRING = hashId<KeyringId>(hash("keyring"));
const signers = new Map<number, Signer>();

/** The signer of a party; -1 is nobody's. */
export function signerOf(party: number): Signer {
  const made = signers.get(party) ?? signerFromSeed(hash("party", party + 1));
  signers.set(party, made);
  return made;
}

export const itemIdOf = (item: number): FederatedRequestId => hashId<FederatedRequestId>(hash("item", item + 1));

const spoken = new Map<string, SignedResponse>();
const words = new Map<PartyResponse, Word>();
const values = new Map<string, string>();

/** What a party says on an item with this word; the same again is the same bytes. */
export function responseOf(party: number, item: number, word: Word): SignedResponse {
  const name = `${party}/${item}/${word}`;
  const known = spoken.get(name);
  if (known) return known;
  const value = valueIn(word);
  const rejects = value === "R";
  const made = signResponse(signerOf(party), {
    keyringId: KEYRING,
    requestId: itemIdOf(item),
    verdict: rejects ? "rejected" : "fulfilled",
    attempt: rejects ? 0 : 1,
    keyId: rejects ? null : hashId<FederatedKeyId>(hash("key", value)),
    publicKey: rejects ? null : hash("public", value),
    certificateHash: rejects ? null : hash("certificate", value),
    policyHash: hash("policy", word.length),
    reason: rejects ? word : "",
  });
  spoken.set(name, made);
  words.set(made.response, word);
  values.set(responseValue(made.response).toHex(), value);
  return made;
}

export const resultOf = (item: number, word: "1" | "2"): Uint8Array =>
  responseValue(responseOf(0, item, word).response);

export function newLife(parties: number, threshold: number, items: number): KeyringLife {
  const range = (n: number) => Array.from({ length: n }, (_, i) => i);
  return openLife({
    kind: items === 1 ? "key" : "signature",
    keyringId: KEYRING,
    expiresAtMs: EXPIRES_MS,
    threshold,
    parties: range(parties).map((p) => signerOf(p).publicKey),
    items: range(items).map(itemIdOf),
  });
}

function eventOf(e: ModelEvent): KeyringLifeEvent {
  switch (e.type) {
    case "ruled":
      return { type: "ruled", ruling: e.ruling };
    case "response":
      return { type: "response", response: responseOf(e.party, e.item, e.word) };
    case "result":
      return { type: "result", itemId: itemIdOf(e.item), value: resultOf(Math.max(e.item, 0), e.word) };
    case "accepted":
    case "cancel":
    case "failed":
    case "tick":
      return { type: e.type };
  }
}

const partyOf = (life: KeyringLife, key: Uint8Array) => life.parties.findIndex((p) => p.key.toHex() === key.toHex());

/** An effect as the model writes it. */
function told(life: KeyringLife, effect: KeyringEffect): string {
  switch (effect.do) {
    case "quarantine":
      return `quarantine:${partyOf(life, effect.party)}`;
    case "pay":
      return `pay:${effect.parties.map((key) => partyOf(life, key)).join()}`;
    default:
      return effect.do;
  }
}

export interface RealStep {
  readonly life: KeyringLife;
  readonly raw: readonly KeyringEffect[];
  readonly effects: readonly string[];
  readonly refused: ErrorCode | null;
}

/** The same event for the real machine. */
export function realStep(life: KeyringLife, e: ModelEvent): RealStep {
  try {
    const step = advance(life, eventOf(e), e.late ? EXPIRES_MS : EXPIRES_MS - 1);
    return { life: step.life, raw: step.effects, effects: step.effects.map((one) => told(life, one)), refused: null };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { life, raw: [], effects: [], refused: error.code };
  }
}

/** A life in the words of the model. */
export function seenAs(life: KeyringLife): Model {
  const said = life.items.flatMap(({ responses }, item) =>
    responses.map(({ response }) => {
      const word = words.get(response);
      if (word === undefined) throw new Error("a response that nobody made");
      return [`${partyOf(life, response.key)}/${item}`, word] as const;
    }),
  );
  const results = life.items.flatMap(({ value }, item) =>
    value === null ? [] : [[item, values.get(value.toHex()) ?? "?"] as const],
  );
  return {
    parties: life.parties.length,
    threshold: life.threshold,
    items: life.items.length,
    status: life.status,
    approved: life.approved,
    accepted: life.accepted,
    said: Object.fromEntries(said),
    excluded: life.parties.flatMap((p, i) => (p.excluded ? [i] : [])),
    results: Object.fromEntries(results),
  };
}

/** One text for what is equal whatever the order of its making. */
export const stateKey = (m: Model): string =>
  JSON.stringify([
    m.status,
    m.approved,
    m.accepted,
    Object.entries(m.said).toSorted(([a], [b]) => (a < b ? -1 : 1)),
    m.excluded,
    m.results,
  ]);

/** Every event that a request of that form can meet in time, and of each kind some that come too late. */
export function alphabet(parties: number, items: number, spokenWords: readonly Word[] = WORDS): ModelEvent[] {
  const places = Array.from({ length: items }, (_, i) => i);
  const people = Array.from({ length: parties }, (_, i) => i);
  const plain = (late: boolean): ModelEvent[] => [
    { type: "ruled", ruling: "allow", late },
    { type: "accepted", late },
    { type: "cancel", late },
    { type: "failed", late },
    { type: "tick", late },
    { type: "result", item: 0, word: "1", late },
    { type: "response", party: 0, item: 0, word: "1", late },
    { type: "response", party: 0, item: 0, word: "2", late },
  ];
  const late = false;
  const said = people.flatMap((party) =>
    places.flatMap((item) => spokenWords.map((word): ModelEvent => ({ type: "response", party, item, word, late }))),
  );
  const results = [-1, ...places].flatMap((item) =>
    (["1", "2"] as const).map((word): ModelEvent => ({ type: "result", item, word, late })),
  );
  return [
    ...plain(true),
    ...plain(false).filter((e) => e.type !== "response" && e.type !== "result"),
    { type: "ruled", ruling: "wait", late },
    { type: "ruled", ruling: "deny", late },
    { type: "response", party: -1, item: 0, word: "1", late },
    { type: "response", party: 0, item: -1, word: "1", late },
    ...results,
    ...said,
  ];
}
