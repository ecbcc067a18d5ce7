import { equalBytes } from "../../crypto/bytes.ts";
import { signerFromSeed } from "../../crypto/identity.ts";
import { Fault } from "../../errors.ts";
import type { StoredKeyId } from "../../ids.ts";
import { encodeInvite } from "../../protocol/ceremony/invite.ts";
import { ceremonyState, checkDraft } from "../../protocol/ceremony/life.ts";
import type {
  CeremonyDraft,
  OutputSpec,
  SignedCeremonyKey,
  SignedCeremonyManifest,
  Slot,
} from "../../protocol/ceremony/model.ts";
import { ceremonyIdOf, draftBytes, verifyCeremonyManifest } from "../../protocol/ceremony/records.ts";
import { ceremonyDraft } from "../../wire/ceremony/records.ts";
import { encodeJson } from "../../wire/codec.ts";
import type { CeremonyClient, CeremonyInfo, CeremonyInviteInfo } from "../ceremonyapi.ts";
import { allEntries } from "../otpdistribution/entries.ts";
import { heldCeremony, isOver, withCeremony } from "./books.ts";
import { find, listed, lookedAt, mine, placeOf } from "./finding.ts";
import { type Asking, checked, type Ground, lie, newestKey } from "./ground.ts";
import { CEREMONY_MAX, type HeldCeremony, type OpeningDraft } from "./held.ts";
import { look, seenOf } from "./looks.ts";
import { checkWording } from "./wording.ts";

type OpenInput = Parameters<CeremonyClient["ceremonyOpen"]>[0];

const SEED_BYTES = 32;

/** Faults after which the server may have done what was asked: it is asked again as it was. */
const UNSETTLED: ReadonlySet<string> = new Set([
  "unreachable",
  "timed_out",
  "unavailable",
  "outcome_unknown",
  "session_invalid",
  "replayed",
  "integrity",
  "storage",
  "internal",
  "interrupted",
]);

/** True for a refusal after which nothing of what was asked will come to be. */
export const isRefusal = (error: unknown): error is Fault => error instanceof Fault && !UNSETTLED.has(error.code);

/** The run that is repeated: aborted, and verified anew. @throws Fault conflict */
async function previousOf(ground: Ground, wanted: string): Promise<CeremonyDraft["previous"]> {
  const aborted = ground
    .held()
    .ceremonies.filter(({ manifest, seen }) => manifest.manifest.draft.name === wanted && seen.status === "aborted")
    .at(-1);
  const seen = await look(ground, aborted ? placeOf(aborted) : await find(ground, wanted));
  const { status, head } = seen.state;
  if (status === "aborted") return { ceremonyId: seen.ceremonyId, transcriptHash: head.hash };
  throw new Fault("conflict", `"${seen.state.manifest.draft.name}" was not aborted: there is nothing to repeat`, {
    hint: status === "stored" ? "for the next version of its key: --replace" : "it is still running",
  });
}

/** A key of the account in the store. */
interface StoredKey {
  readonly keyId: StoredKeyId;
  readonly kind: OutputSpec["kind"];
  /** False for one that was revoked or has moved. */
  readonly active: boolean;
}

/** The keys of a name: those that ceremonies made, and one-time passwords. */
async function keysNamed(ground: Ground, asking: Asking, name: string): Promise<readonly StoredKey[]> {
  const found = new Map<StoredKeyId, StoredKey>();
  const rows = (await listed(ground)).filter((row) => row.own && row.name === name && row.status === "stored");
  for (const { ceremonyId } of rows) {
    const held = heldCeremony(ground, ceremonyId);
    const known = held?.seen.result?.stored;
    const seen = known ? null : await look(ground, { ...asking, ceremonyId });
    const stored = known ?? seen?.state.result?.stored;
    const kind = (seen?.state.manifest ?? held?.manifest.manifest)?.draft.output.kind;
    if (stored && kind) found.set(stored.keyId, { keyId: stored.keyId, kind, active: true });
  }
  for (const { own, record, status } of await allEntries(ground)) {
    if (!own || (record.name !== name && !found.has(record.keyId))) continue;
    found.set(record.keyId, { keyId: record.keyId, kind: record.output.kind, active: status === "active" });
  }
  return [...found.values()];
}

/** The key of the account in the store that gets its next version. @throws Fault not_found, ambiguous, conflict */
async function keyNamed(ground: Ground, asking: Asking, name: string, kind: StoredKey["kind"]): Promise<StoredKeyId> {
  const all = await keysNamed(ground, asking, name);
  const active = all.filter((one) => one.active);
  const [key = all[0], another] = active;
  if (key === undefined)
    throw new Fault("not_found", `there is no key "${name}" of yours in the store`, { hint: "leave out --replace" });
  if (another !== undefined) {
    throw new Fault("ambiguous", `more than one key of yours is called "${name}"`, {
      why: active.map(({ keyId }) => keyId).join(", "),
      hint: "leave out --replace, and choose another name",
    });
  }
  if (key.active && key.kind !== kind) {
    throw new Fault("conflict", `"${name}" is of the kind ${key.kind}: its next version cannot be ${kind}`, {
      why: "what was issued of the key would be lost",
      hint: `--output ${key.kind}; or leave out --replace, and choose another name`,
    });
  }
  return key.keyId;
}

/** Signs a draft with everything that is drawn for it. */
function prepare(
  ground: Ground,
  { url, pin }: Asking,
  rest: Omit<CeremonyDraft, "organiser" | "slots" | "nonce">,
  seats: OpenInput["seats"],
): OpeningDraft {
  const seed = ground.random(SEED_BYTES);
  const invites = seats.flatMap(({ account }, at) =>
    account === null ? [{ index: at + 1, seed: ground.random(SEED_BYTES) }] : [],
  );
  const slots = seats.map(({ name, account }, at): Slot => {
    const invite = invites.find(({ index }) => index === at + 1);
    return { index: at + 1, name, account, invite: invite ? signerFromSeed(invite.seed).publicKey : null };
  });
  const organiser = signerFromSeed(seed);
  const draft: CeremonyDraft = { ...rest, organiser: organiser.publicKey, slots, nonce: ground.random(SEED_BYTES) };
  checkDraft(draft);
  return { url, pin, draft, signature: organiser.sign(draftBytes(draft)), seed, invites };
}

/** What is wished, without what is drawn for it: who wishes the same again means the draft that has no answer yet. */
function wishText({ key, organiser: _, nonce: __, slots, ...rest }: CeremonyDraft): string {
  const seats = slots.map(({ index, name, account }) => ({ index, name, account, invite: null }));
  const blank = new Uint8Array(SEED_BYTES);
  return encodeJson(ceremonyDraft, { ...rest, key, slots: seats, organiser: blank, nonce: blank });
}

const sameDraft = (a: CeremonyDraft, b: CeremonyDraft): boolean => equalBytes(draftBytes(a), draftBytes(b));

/** Holds the manifest to what was asked for. @throws Fault integrity */
function checkOpened(url: string, manifest: SignedCeremonyManifest, { draft }: OpeningDraft): void {
  checked(url, "a manifest that does not hold", () => verifyCeremonyManifest(manifest));
  if (!sameDraft(manifest.manifest.draft, draft)) throw lie(url, "another ceremony than was asked for");
}

/** What is held of a ceremony that was opened. */
function openedAs(ground: Ground, asking: Asking, manifest: SignedCeremonyManifest, made: OpeningDraft): HeldCeremony {
  const { url, pin, caPem, statementNumber } = asking;
  const state = ceremonyState({ manifest, entries: [] }, manifest.manifest.openedAtMs);
  return {
    ...{ url, pin, caPem, statementNumber, manifest },
    ceremonyId: ceremonyIdOf(manifest.manifest),
    addedAtMs: ground.now(),
    seen: seenOf(state),
    ...{ own: null, asked: null, collectedAtMs: null },
    organiser: { seed: made.seed, invites: made.invites },
  };
}

/** A refusal to open one, with what helps. */
function sayWhatHelps(error: unknown): never {
  if (!(error instanceof Fault)) throw error;
  const { code, message, requestId } = error;
  // of open ceremonies there are so many at once for an account: waiting alone ends none
  const full = code === "rate_limited" && error.retryAfterMs === undefined;
  if (!full && code !== "exists") throw error;
  const hint = full
    ? "end one that is not needed: keyhold ceremony close NAME --abort"
    : "--replace makes its next version; otherwise choose another name";
  throw new Fault(code, message, { hint, ...(requestId !== undefined && { requestId }) });
}

/** Opens a ceremony; a draft whose answer was lost is sent again as it was. */
export async function openCeremony(ground: Ground, input: OpenInput) {
  ground.account();
  checkWording(input);
  const asking = await ground.home();
  const key: SignedCeremonyKey = await newestKey(ground, asking);
  const { name, purpose, output, policy, seats, commitMs, revealMs } = input;
  const rest = {
    ...{ key, name, purpose, output, policy, commitMs, revealMs },
    minimum: input.minimum ?? seats.length,
    previous: input.again === null ? null : await previousOf(ground, input.again),
    replaces: input.replace ? await keyNamed(ground, asking, name, output.kind) : null,
  };
  const fresh = prepare(ground, asking, rest, seats);
  const wish = wishText(fresh.draft);
  const waiting = ground.held().ceremonyDrafts.find((one) => one.pin === asking.pin && wishText(one.draft) === wish);
  const made = waiting ?? fresh;
  if (!waiting) {
    await ground.change((held) => ({
      ...held,
      ceremonyDrafts: [...held.ceremonyDrafts, made].slice(-CEREMONY_MAX.drafts),
    }));
  }
  const others = (drafts: readonly OpeningDraft[]) => drafts.filter(({ draft }) => !sameDraft(draft, made.draft));
  let manifest: SignedCeremonyManifest;
  try {
    ({ manifest } = await ground.call("ceremony.open", { draft: made.draft, signature: made.signature }));
  } catch (error) {
    if (isRefusal(error)) {
      await ground.change((held) => ({ ...held, ceremonyDrafts: others(held.ceremonyDrafts) }));
    }
    return sayWhatHelps(error);
  }
  checkOpened(asking.url, manifest, made);
  const opened = openedAs(ground, asking, manifest, made);
  await ground.change((held) => {
    const known = held.ceremonies.some(({ ceremonyId }) => ceremonyId === opened.ceremonyId);
    const after = known ? held : withCeremony(held, opened);
    return { ...after, ceremonyDrafts: others(after.ceremonyDrafts) };
  });
  const seen = await look(ground, placeOf(opened));
  return { info: lookedAt(ground, seen), invites: invitesOf(heldCeremony(ground, opened.ceremonyId) ?? opened) };
}

/** Invites of seats that nobody has taken so far. */
function invitesOf({ url, pin, ceremonyId, manifest, organiser, seen }: HeldCeremony): readonly CeremonyInviteInfo[] {
  const invites = organiser?.invites ?? [];
  return manifest.manifest.draft.slots.flatMap(({ index, name, account }) => {
    if (seen.seats[index - 1]?.state !== "waiting") return [];
    const seed = invites.find((one) => one.index === index)?.seed;
    const invite = seed ? encodeInvite({ url, pin, ceremonyId, index, seed }) : null;
    return [{ index, name, invite, account }];
  });
}

/** The invites once more. @throws Fault denied for who has not opened it */
export async function invitesAgain(ground: Ground, wanted: string): Promise<readonly CeremonyInviteInfo[]> {
  const held = await mine(ground, wanted);
  if (!held.organiser)
    throw new Fault("denied", "this vault has not opened the ceremony: it does not have the invites");
  if (!isOver(held)) await look(ground, placeOf(held));
  return invitesOf(heldCeremony(ground, held.ceremonyId) ?? held);
}

/** Ends the commitments early, or the ceremony. */
export async function closeCeremony(ground: Ground, wanted: string, abort: boolean): Promise<CeremonyInfo> {
  const place = await find(ground, wanted);
  await ground.call("ceremony.close", { ceremonyId: place.ceremonyId, abort });
  return lookedAt(ground, await look(ground, place));
}
