import type { EnclaveInput, EnclaveOutput } from "../../enclave/frames.ts";
import { type ErrorCode, Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import { ceremonyState } from "../../protocol/ceremony/life.ts";
import type { CeremonyStatus, SignedEntry } from "../../protocol/ceremony/model.ts";
import type { Tx } from "../../storage/store.ts";
import { type DocumentKind, putStored, readStored, removeStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import {
  ARRIVING,
  type ArrivingBody,
  ASKED,
  type AskedBody,
  ENTRY,
  HEAD,
  type HeadBody,
  numbered,
  OPENING,
  OVER,
} from "./documents.ts";
import { finish, isReplacedGone, keepResult, stepToCombine } from "./ending.ts";
import { type CeremonyAction, type Desk, note, readHead, readScene, type Scene } from "./scene.ts";

export type Step = EnclaveInput<"ceremony.append">["step"];
type Appended = EnclaveOutput<"ceremony.append">;

/** Attempts against other processes that change the same ceremony. */
const ATTEMPTS = 8;
/** After so many typed failures there is no key to be had. */
const FAILURES_MAX = 3;
/** From one failure to the next try. */
const PATIENCE_MS = 30_000;

/** The same answer for an id that never was and for one whose ceremony is gone. */
export const noSuchCeremony = () => new Fault("not_found", "no such ceremony");

/** Failures that say nothing of the ceremony: the next try may do. */
const PASSING: ReadonlySet<string> = new Set<ErrorCode>([
  "unavailable",
  "rate_limited",
  "timed_out",
  "storage",
  "outcome_unknown",
]);

const isFinal = (error: unknown): boolean => error instanceof Fault && !PASSING.has(error.code);

const ACTIONS: { readonly [K in SignedEntry["entry"]["body"]["kind"]]: CeremonyAction | null } = {
  // a session's operation, which has its own entry
  seat: null,
  join: "ceremony.join",
  freeze: "ceremony.freeze",
  reveal: "ceremony.reveal",
  result: "ceremony.result",
  abort: "ceremony.abort",
};

/** When a ceremony has to be looked at again: at once where the next step is the server's. */
const dueMs = ({ status, untilMs, closing }: HeadBody): number =>
  status === "freeze" || status === "combine" || closing !== null || untilMs === null ? 0 : untilMs;

/** Replaces the head that a scene was read with; false when another one is there. */
export async function putHead(tx: Tx, { head }: Scene, value: HeadBody, place = dueMs(value)): Promise<boolean> {
  return putStored(tx, HEAD, { id: head.id, owner: head.owner, place, value }, head.version);
}

/** An organiser's wish stays until it has come true. */
const nextClosing = ({ head: { value } }: Scene, kind: SignedEntry["entry"]["body"]["kind"]): HeadBody["closing"] =>
  kind === "abort" || kind === value.closing ? null : value.closing;

/** Writes what the enclave has signed, with everything that goes with it; undefined, and nothing written, when late. */
async function keep(desk: Desk, scene: Scene, step: Step, answer: Appended): Promise<SignedEntry | undefined> {
  const { site } = desk;
  const { id, head, ceremony } = scene;
  const { entry } = answer.entry;
  if (entry.seq !== head.value.seq + 1) throw new Fault("integrity", "the enclave has signed another place");
  const transcript = { ...scene.transcript, entries: [...scene.transcript.entries, answer.entry] };
  const { status, untilMs } = ceremonyState(transcript, entry.atMs, "head");
  const over = status === "stored" || status === "aborted";
  const value: HeadBody = {
    ...head.value,
    seq: entry.seq,
    status,
    untilMs: over ? null : untilMs,
    closing: nextClosing(scene, entry.body.kind),
    failures: 0,
  };
  const written = await site.ctx.store.transaction(async (tx) => {
    const at = over ? { owner: OVER, place: entry.atMs } : { owner: "", place: dueMs(value) };
    if ((await readHead(tx, id))?.head.version !== head.version) return false;
    if (!(await putStored(tx, HEAD, { id, ...at, value }, head.version))) return false;
    const row = { id: numbered(id, entry.seq), owner: id, place: entry.seq, value: { entry: answer.entry } };
    if (!(await putStored(tx, ENTRY, row, 0))) throw changedMeanwhile();
    for (const kind of [ARRIVING, ASKED]) await removeStored(tx, kind, id);
    if (entry.body.kind === "reveal" && step.kind === "reveal") {
      const { index, keyNumber } = step.reveal.reveal;
      const opening = { index, keyNumber, sealed: step.sealed };
      const place = { id: numbered(id, index), owner: id, place: index };
      if (!(await putStored(tx, OPENING, { ...place, value: opening }, 0))) throw changedMeanwhile();
    }
    if (entry.body.kind === "result") await keepResult(tx, scene, answer, ceremony.value.organiser);
    if (over) await finish(site, tx, scene);
    const action = ACTIONS[entry.body.kind];
    if (action) await note(site, tx, ceremony.value.organiser, action, id);
    return true;
  }, id);
  if (!written) return undefined;
  if (over) site.notify({ event: `ceremony.${status}`, ceremonyId: id, name: scene.state.manifest.draft.name });
  return answer.entry;
}

/** Lets the enclave sign the next entry and writes it; undefined when another one came first. @throws Fault */
async function append(desk: Desk, scene: Scene, step: Step): Promise<SignedEntry | undefined> {
  const { enclave, ctx } = desk.site;
  const { id, transcript } = scene;
  await remember(desk, scene, step);
  try {
    const answer = await enclave.call("ceremony.append", { transcript, step });
    return await keep(desk, scene, step, answer);
  } catch (error) {
    // what it refuses will not come again by itself
    if (isFinal(error))
      await ctx.store.transaction(async (tx) => {
        for (const kind of [ARRIVING, ASKED]) await removeStored(tx, kind, id);
      }, id);
    throw error;
  }
}

/** Remembers before the enclave is asked what it signs once: were the answer lost, another question would be refused. */
async function remember({ site: { ctx } }: Desk, { id }: Scene, step: Step): Promise<void> {
  const put = async <T>(tx: Tx, kind: DocumentKind<T>, value: T): Promise<void> => {
    const before = await readStored(tx, kind, id);
    if (!(await putStored(tx, kind, { id, owner: id, place: 0, value }, before?.version ?? 0)))
      throw changedMeanwhile();
  };
  if (step.kind === "reveal") {
    const value = { reveal: step.reveal, sealed: step.sealed };
    await ctx.store.transaction((tx) => put(tx, ARRIVING, value), id);
  }
  if (step.kind === "freeze" || step.kind === "abort") {
    const value: AskedBody = { entry: step.kind === "freeze" ? "freeze" : step.reason };
    await ctx.store.transaction((tx) => put(tx, ASKED, value), id);
  }
}

/** Where the organiser may still end a ceremony. */
export const CLOSABLE: ReadonlySet<string> = new Set<CeremonyStatus>(["open", "commit", "freeze", "reveal"]);

/** What a crash has left: the enclave may have signed it. Null for nothing. */
async function leftStep(desk: Desk, { state, ceremony, arriving, asked }: Scene): Promise<Step | null> {
  if (asked?.entry === "freeze") return { kind: "freeze", seed: ceremony.value.seed };
  if (asked) return { kind: "abort", reason: asked.entry };
  return state.status === "reveal" && arriving ? stepToReveal(desk, state, arriving) : null;
}

/** What the server is to do of itself, but for the combination; null for nothing. */
function dueStep({ state, head, ceremony }: Scene): Step | null {
  const { closing } = head.value;
  const { seed } = ceremony.value;
  const { due, status } = state;
  const waits = status === "open" || status === "commit";
  if (closing === "abort" && CLOSABLE.has(status)) return { kind: "abort", reason: "closed" };
  if (due?.kind === "abort") return { kind: "abort", reason: due.reason };
  if (due?.kind === "freeze" || (closing === "freeze" && waits)) return { kind: "freeze", seed };
  return null;
}

/** The opening with the key that it is to be sealed to. @throws Fault bad_input */
export async function stepToReveal(
  { site, keys }: Desk,
  { manifest }: Scene["state"],
  { reveal, sealed }: ArrivingBody,
): Promise<Step> {
  const key = await site.ctx.store.transaction((tx) => keys.find(tx, manifest.draft.key.key.number));
  if (!key) throw new Fault("corrupt", "the key to which the ceremony's openings are sealed is missing");
  return { kind: "reveal", reveal, sealed, key };
}

/** The ceremony after everything that is due; inside its turn. @throws Fault not_found; what the enclave throws */
async function settled(desk: Desk, id: CeremonyId): Promise<Scene> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const scene = await readScene(desk, id);
    if (!scene) throw noSuchCeremony();
    const left = await leftStep(desk, scene);
    const step = left ?? dueStep(scene);
    if (!step) return scene;
    try {
      await append(desk, scene, step);
    } catch (error) {
      // what was left over and is refused was not signed: it is forgotten, and nobody's answer
      if (!left || !isFinal(error)) throw error;
    }
  }
  throw changedMeanwhile();
}

/** What a change comes to: the entry that is there already, or the step to the next one. */
export type Decision = { readonly entry: SignedEntry } | { readonly step: Step };

/**
 * Changes a ceremony by one entry, in its turn, and then does what follows from it.
 *
 * @param decide Sees the ceremony after everything that was due; may throw.
 * @throws Fault not_found; unavailable; what `decide` and the enclave throw
 */
export async function change(
  desk: Desk,
  id: CeremonyId,
  decide: (scene: Scene) => Decision | Promise<Decision>,
): Promise<SignedEntry> {
  const entry = await desk.turns.take(id, async () => {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const scene = await settled(desk, id);
      const decision = await decide(scene);
      const made = "entry" in decision ? decision.entry : await append(desk, scene, decision.step);
      if (made) return made;
    }
    throw changedMeanwhile();
  });
  // what the caller came for is done: the rest can wait for the next look
  if (await isDue(desk, id)) await settle(desk, id).catch(() => undefined);
  return entry;
}

/** True where something is to be done now. @throws Fault not_found */
export async function isDue({ site: { ctx } }: Desk, id: CeremonyId): Promise<boolean> {
  const at = await ctx.store.transaction((tx) => readHead(tx, id), id);
  if (!at) throw noSuchCeremony();
  return at.head.owner !== OVER && at.head.place <= ctx.now();
}

/** Does what is due. @throws Fault not_found; what the enclave throws */
export async function settle(desk: Desk, id: CeremonyId): Promise<Scene> {
  const scene = await desk.turns.take(id, () => settled(desk, id));
  if (scene.state.status === "combine" && scene.head.place <= scene.nowMs) combine(desk, scene);
  return scene;
}

/** Begins the combination, unless it is under way, or puts it into its organiser's line. Never throws. */
function combine(desk: Desk, { id, ceremony, state }: Scene): void {
  if (desk.combining.has(id)) return;
  const isLong = state.joins.some(({ join }) => join.function === "argon2id");
  const work = desk.combinations[isLong ? "long" : "short"]
    .take(ceremony.value.organiser, () => tryToCombine(desk, id))
    .catch(() => undefined)
    .finally(() => desk.combining.delete(id));
  desk.combining.set(id, work);
}

async function tryToCombine(desk: Desk, id: CeremonyId): Promise<void> {
  for (let attempt = 0; attempt < ATTEMPTS && !desk.ending; attempt++) {
    const scene = await readScene(desk, id);
    if (scene?.state.status !== "combine") return;
    try {
      if (await appendEnd(desk, scene)) return;
    } catch (error) {
      await fail(desk, scene, error);
      if (scene.head.value.failures + 1 < FAILURES_MAX) return;
    }
  }
}

const FAILED: Step = { kind: "abort", reason: "failed" };

/** The result; or an abort where there is no hope of one, or the key that it replaces is gone. */
async function appendEnd(desk: Desk, scene: Scene): Promise<SignedEntry | undefined> {
  const hopeless = scene.head.value.failures >= FAILURES_MAX || (await isReplacedGone(desk, scene));
  if (!hopeless) return append(desk, scene, await stepToCombine(desk, scene));
  try {
    return await append(desk, scene, FAILED);
  } catch (error) {
    if (!(error instanceof Fault && error.code === "conflict")) throw error;
    // a result was signed, and its answer lost: that is the end, whatever became of the key meanwhile
    return append(desk, scene, await stepToCombine(desk, scene));
  }
}

/** Counts a failure that is the ceremony's own, and puts the next try off. */
async function fail({ site: { ctx } }: Desk, scene: Scene, error: unknown): Promise<void> {
  const { value } = scene.head;
  const failures = isFinal(error) ? Math.min(value.failures + 1, FAILURES_MAX) : value.failures;
  await ctx.store.transaction((tx) => putHead(tx, scene, { ...value, failures }, ctx.now() + PATIENCE_MS), scene.id);
}
