import { wipe } from "../crypto/bytes.ts";
import { hpkeSeal } from "../crypto/hpke.ts";
import { Fault } from "../errors.ts";
import type { StoredKeyId } from "../ids.ts";
import { ceremonyKeyOf } from "../protocol/ceremony/combine.ts";
import type { CeremonyState } from "../protocol/ceremony/life.ts";
import type { CeremonyFunction, EntryBody, StoredKeyRecord, Transcript } from "../protocol/ceremony/model.ts";
import { makeOutput } from "../protocol/ceremony/output.ts";
import { storedKeyIdOf, walletPartInfo } from "../protocol/ceremony/records.ts";
import type { CeremonyKeys, KeyInUse } from "./ceremonykeys.ts";
import { demandKeyOf, isOpeningOf, openOpening } from "./openings.ts";
import type { EnclaveParts } from "./parts.ts";
import { openStored, type Stored, sealStored } from "./storedvalue.ts";

/** All openings of a ceremony as the parent kept them, in the order of the transcript's reveals. */
interface Combination {
  readonly state: CeremonyState;
  readonly transcript: Transcript;
  readonly openings: readonly { readonly sealed: Uint8Array; readonly key: KeyInUse }[];
  /** Newest version of the key that this ceremony replaces; otherwise null. */
  readonly before: Stored | null;
  readonly atMs: number;
}

interface Combined {
  readonly body: Extract<EntryBody, { kind: "result" }>;
  readonly stored: Stored | null;
  readonly parts: readonly { readonly index: number; readonly sealed: Uint8Array }[];
}

interface Participant {
  readonly index: number;
  readonly function: CeremonyFunction;
  readonly opening: Uint8Array;
}

/**
 * Opens what all participants have revealed, derives the ceremony's key K and makes of it what the manifest says
 * (docs/protocol.md §10.3, §10.6). Nothing is marked here; nothing secret is left in clear.
 *
 * @throws Fault conflict before everything is revealed; integrity for openings that are not the revealed ones,
 * and for a version before that this enclave has not sealed; bad_input for another key's
 */
export async function combine(parts: EnclaveParts, keys: CeremonyKeys, given: Combination): Promise<Combined> {
  const { state, before, atMs } = given;
  const { ceremonyId, seed, t1, joins, manifest } = state;
  if (state.status !== "combine" || seed === null || t1 === null) {
    throw new Fault("conflict", "this ceremony is not about to combine");
  }
  const version = versionAfter(parts, manifest.draft.replaces, before);
  const { output, purpose } = manifest.draft;
  const secrets: Uint8Array[] = [];
  try {
    const participants = await openAll(keys, given, secrets);
    const made = await ceremonyKeyOf({ ceremonyId, purpose, seed, t1, participants });
    secrets.push(made.key);
    const result = await makeOutput(output, made.key, { ceremonyId, joins });
    if (result.value) secrets.push(result.value);
    for (const { secret } of result.parts) secrets.push(secret);
    const record = recordOf(parts, state, version, atMs);
    const stored = result.value && sealStored(parts.keys, record, result.value, parts.random);
    return {
      body: {
        kind: "result",
        t2: made.t2,
        keyHash: made.keyHash,
        output: result.public,
        stored: stored && { keyId: record.keyId, version },
        custody: stored ? "custodial" : "self-custodial",
      },
      stored,
      parts: await Promise.all(result.parts.map((part) => sealPart(parts, state, part))),
    };
  } finally {
    wipe(...secrets);
  }
}

/** The version that a ceremony makes: that the one before is what it says, only its seal shows. @throws Fault */
function versionAfter({ keys }: EnclaveParts, replaces: StoredKeyId | null, before: Stored | null): number {
  if ((before?.record.keyId ?? null) !== replaces)
    throw new Fault("bad_input", "a key's next version is made beside the one before it, a new key beside none");
  if (before === null) return 1;
  wipe(openStored(keys, before));
  return before.record.version + 1;
}

async function openAll(keys: CeremonyKeys, given: Combination, secrets: Uint8Array[]): Promise<Participant[]> {
  const { state, transcript, openings } = given;
  const reveals = transcript.entries.flatMap(({ entry: { body } }) =>
    body.kind === "reveal" ? [body.reveal.reveal] : [],
  );
  if (reveals.length !== openings.length) throw new Fault("bad_input", "not all openings are there");
  const participants: Participant[] = [];
  for (const [at, { sealed, key }] of openings.entries()) {
    const reveal = reveals[at];
    const join = state.joins.find((one) => one.join.index === reveal?.index)?.join;
    if (!reveal || !join) throw new Fault("integrity", "an opening is nobody's");
    demandKeyOf(state, reveal, key);
    const opening = await openOpening(await keys.open(key), reveal, sealed);
    if (opening) secrets.push(opening);
    if (!opening || !isOpeningOf(join, opening)) throw new Fault("integrity", "an opening is not the revealed one");
    participants.push({ index: join.index, function: join.function, opening });
  }
  return participants.sort((a, b) => a.index - b.index);
}

function recordOf(
  { keys }: EnclaveParts,
  { ceremonyId, manifest: { draft } }: CeremonyState,
  version: number,
  createdAtMs: number,
): StoredKeyRecord {
  const enclave = keys.signer.publicKey;
  const { name, output, policy } = draft;
  const keyId = draft.replaces ?? storedKeyIdOf(enclave, Uint8Array.fromHex(ceremonyId));
  return { enclave, keyId, version, ceremonyId, name, output, policy, createdAtMs };
}

async function sealPart(
  { random }: EnclaveParts,
  { ceremonyId, joins }: CeremonyState,
  { index, secret }: { readonly index: number; readonly secret: Uint8Array },
): Promise<{ index: number; sealed: Uint8Array }> {
  const recipient = joins.find(({ join }) => join.index === index)?.join.sealing;
  if (!recipient) throw new Fault("internal", "a part of the wallet is nobody's");
  return { index, sealed: await hpkeSeal(recipient, walletPartInfo(ceremonyId, index, recipient), secret, random) };
}
