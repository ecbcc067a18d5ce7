import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { pinOf } from "../../crypto/pin.ts";
import { Fault } from "../../errors.ts";
import { ceremonyKeyOf } from "./combine.ts";
import { commitmentOf } from "./contribution.ts";
import { brokenAt, type CeremonyState, ceremonyState, recordOf } from "./life.ts";
import type { AbortReason, CeremonyFunction, EntryBody, OutputSpec, PublicOutput, Transcript } from "./model.ts";
import { makeOutput } from "./output.ts";
import { ceremonyKeyHash } from "./records.ts";

/** What there is to hold a transcript against besides itself. */
export interface Evidence {
  /** Openings by index, 32 bytes each: of all participants, they reproduce the key. */
  readonly openings?: ReadonlyMap<number, Uint8Array>;
  /** Of who verifies: that it was counted. 32 bytes each. */
  readonly own?: { readonly key: Uint8Array; readonly commitment: Uint8Array };
  /** Of the server. */
  readonly pin?: string;
}

/** One participant, as the transcript proves it. */
export interface ParticipantVerdict {
  readonly index: number;
  readonly name: string;
  readonly account: string | null;
  /** Null for a seat that stayed empty. */
  readonly function: CeremonyFunction | null;
  readonly keyHex: string | null;
  readonly commitmentHex: string | null;
  readonly revealed: boolean;
  /** Its opening was given, and is what it committed to. */
  readonly opened: boolean;
  readonly own: boolean;
}

/** What a transcript proves; for people and as JSON. */
export interface Verdict {
  readonly ceremonyId: string;
  readonly name: string;
  readonly purpose: string;
  readonly output: OutputSpec;
  readonly status: "stored" | "aborted";
  readonly serverPin: string;
  readonly enclaveHex: string;
  /** Of the key to which openings were sealed. */
  readonly keyHex: string;
  readonly openedAtMs: number;
  readonly endedAtMs: number;
  /** Of the whole transcript: what a run that repeats this one names. */
  readonly transcriptHashHex: string;
  /** Run that this one repeats. */
  readonly previous: string | null;
  readonly participants: readonly ParticipantVerdict[];
  readonly aborted: { readonly reason: AbortReason; readonly culprits: readonly string[] } | null;
  readonly result: {
    readonly keyHashHex: string;
    readonly custody: "custodial" | "self-custodial";
    readonly keyId: string | null;
    readonly version: number | null;
    readonly publicKeyHex: string | null;
    readonly descriptor: string | null;
    /** All openings were given, and give this very result. */
    readonly reproduced: boolean;
  } | null;
  /** Who verified took part, and was counted. */
  readonly ownIndex: number | null;
  /** Against the pin that was given. */
  readonly pinChecked: boolean;
}

const hexOf = (bytes: Uint8Array | undefined | null): string | null => bytes?.toHex() ?? null;

/** Line of the entry that `found` accepts, and what it is. */
function placeOf({ manifest, entries }: Transcript, found: (body: EntryBody) => boolean): readonly [number, string] {
  const at = entries.findIndex(({ entry }) => found(entry.body));
  const entry = entries[at];
  return entry ? [at + 2, recordOf(manifest.manifest, entry.entry.body)] : [1, "manifest"];
}

function checkOpenings(transcript: Transcript, state: CeremonyState, openings: ReadonlyMap<number, Uint8Array>): void {
  for (const [index, opening] of openings) {
    const join = state.taken.get(index)?.join;
    if (!join) throw new Fault("bad_input", `an opening is given for seat ${index}, where nobody committed`);
    if (opening.length === 32 && equalBytes(commitmentOf(join, opening), join.commitment)) continue;
    const place = placeOf(transcript, (body) => body.kind === "join" && body.join.join.index === index);
    const { code, message } = brokenAt(...place, "the opening that is given is not what was committed to");
    throw new Fault(code, message, {
      hint: `ask participant ${index} for its opening of this ceremony again: that file was changed, or else the transcript`,
    });
  }
}

function ownIndexOf(transcript: Transcript, state: CeremonyState, own: Evidence["own"]): number | null {
  if (!own) return null;
  const mine = state.joins.find(({ join }) => equalBytes(join.key, own.key));
  if (!mine) {
    throw brokenAt(...placeOf(transcript, (body) => body.kind === "freeze"), "your own commitment is not among them");
  }
  const { index, commitment } = mine.join;
  if (equalBytes(commitment, own.commitment)) return index;
  const place = placeOf(transcript, (body) => body.kind === "join" && body.join.join.index === index);
  throw brokenAt(...place, "it is not the commitment that you made");
}

const sameOutput = (a: PublicOutput, b: PublicOutput): boolean =>
  hexOf(a.publicKey) === hexOf(b.publicKey) &&
  a.descriptor === b.descriptor &&
  a.keys.length === b.keys.length &&
  a.keys.every((one, at) => one.index === b.keys[at]?.index && hexOf(one.publicKey) === hexOf(b.keys[at]?.publicKey));

/** Makes key and output anew. False where an opening is missing. @throws Fault integrity where they differ */
async function reproduce(
  transcript: Transcript,
  state: CeremonyState,
  openings: ReadonlyMap<number, Uint8Array>,
): Promise<boolean> {
  const { result, frozen, ceremonyId, joins, manifest } = state;
  if (!result || !frozen) return false;
  const participants = joins.flatMap(({ join }) => {
    const opening = openings.get(join.index);
    return opening ? [{ index: join.index, function: join.function, opening }] : [];
  });
  if (participants.length !== joins.length) return false;
  const { purpose, output } = manifest.draft;
  const { t2, key, keyHash } = await ceremonyKeyOf({ ...frozen, ceremonyId, purpose, participants });
  const differs = (what: string) =>
    brokenAt(...placeOf(transcript, (body) => body.kind === "result"), `the openings give another ${what}`);
  try {
    if (!equalBytes(t2, result.t2)) throw differs("T2");
    if (!equalBytes(keyHash, result.keyHash)) throw differs("key");
    const made = await makeOutput(output, key, { ceremonyId, joins });
    wipe(made.value ?? undefined, ...made.parts.map(({ secret }) => secret));
    if (!sameOutput(made.public, result.output)) throw differs("public key");
    return true;
  } finally {
    wipe(key);
  }
}

/**
 * Verifies a whole transcript without any server: order, chain, every signature, T1, s0, who took part and how it ended;
 * with openings what they were committed to, and with all of them the result (docs/protocol.md §10.5).
 *
 * @throws Fault integrity that names line and record, also for a ceremony that has not ended; pin_mismatch; bad_input for
 * an opening of nobody
 */
export async function verifyTranscript(transcript: Transcript, evidence: Evidence = {}): Promise<Verdict> {
  const { openings = new Map<number, Uint8Array>(), own, pin } = evidence;
  const state = ceremonyState(transcript, 0);
  const { draft, openedAtMs } = state.manifest;
  const serverPin = pinOf(draft.key.key.server);
  if (pin !== undefined && pin !== serverPin) {
    throw new Fault("pin_mismatch", "this transcript is another server's", {
      why: "its pin is not the one that was given",
    });
  }
  if (state.status !== "stored" && state.status !== "aborted") {
    const line = transcript.entries.length + 2;
    throw brokenAt(line, "result", "the transcript ends early: neither a result nor an abort follows");
  }
  checkOpenings(transcript, state, openings);
  const ownIndex = ownIndexOf(transcript, state, own);
  const reproduced = await reproduce(transcript, state, openings);
  const { result, abort, head } = state;
  const nameOf = (index: number) => draft.slots[index - 1]?.name ?? String(index);
  return {
    ceremonyId: state.ceremonyId,
    name: draft.name,
    purpose: draft.purpose,
    output: draft.output,
    status: state.status,
    serverPin,
    enclaveHex: draft.key.key.enclave.toHex(),
    keyHex: ceremonyKeyHash(draft.key.key).toHex(),
    openedAtMs,
    endedAtMs: head.atMs,
    transcriptHashHex: head.hash.toHex(),
    previous: draft.previous?.ceremonyId ?? null,
    participants: draft.slots.map(({ index, name, account }) => {
      const join = state.taken.get(index)?.join;
      return {
        index,
        name,
        account,
        function: join?.function ?? null,
        keyHex: hexOf(join?.key),
        commitmentHex: hexOf(join?.commitment),
        revealed: state.reveals.has(index),
        opened: openings.has(index),
        own: index === ownIndex,
      };
    }),
    aborted: abort && { reason: abort.reason, culprits: abort.culprits.map(nameOf) },
    result: result && {
      keyHashHex: result.keyHash.toHex(),
      custody: result.custody,
      keyId: result.stored?.keyId ?? null,
      version: result.stored?.version ?? null,
      publicKeyHex: hexOf(result.output.publicKey),
      descriptor: result.output.descriptor,
      reproduced,
    },
    ownIndex,
    pinChecked: pin !== undefined,
  };
}
