import { wipe } from "../../crypto/bytes.ts";
import { hpkeSeal } from "../../crypto/hpke.ts";
import { Fault } from "../../errors.ts";
import type { KeyringRequestId } from "../../ids.ts";
import { memberOf } from "../../protocol/federation/manifest.ts";
import { type Contribution, contributionInfo } from "../../protocol/federation/request.ts";
import { isOpenLife } from "../../protocol/keyring/requestlife.ts";
import type { Tx } from "../../storage/store.ts";
import { completeUse, type Spoilt } from "./attempt.ts";
import { keepSignature, live, order, spoil, wholeUse } from "./coordinator.ts";
import { recorded, type Tell } from "./events.ts";
import {
  closeScene,
  type Desk,
  itemOf,
  manifestOf,
  type NextWork,
  openScene,
  type Scene,
  settleScene,
} from "./scene.ts";

/** Tries of one piece of work that other work comes before, and how much longer each waits, in milliseconds. */
const TRIES = 16;
const PAUSE_MS = 3;

/** Runs work over one request in one transaction, and what follows from it after that. */
async function once<T>(
  desk: Desk,
  open: (tx: Tx, tell: Tell) => Promise<Scene>,
  work: (scene: Scene) => Promise<T>,
): Promise<{ readonly output: T; readonly scene: Scene }> {
  for (let tries = 1; ; tries++) {
    try {
      const done = await recorded(desk.site, async (tx, tell) => {
        const scene = await open(tx, tell);
        const output = await work(scene);
        await closeScene(scene);
        return { output, scene };
      });
      settleScene(done.scene);
      return done;
    } catch (error) {
      const overtaken = error instanceof Fault && error.code === "unavailable";
      if (!overtaken || tries >= TRIES) throw error;
      const [chance = 0] = desk.site.ctx.random(1);
      await Bun.sleep((PAUSE_MS * tries * chance) / 255);
    }
  }
}

/**
 * Works on one request, one piece of work after another: time first, which may have ended it; then the work; then the
 * signatures that are whole now.
 *
 * @throws Fault what the work throws: nothing is changed
 */
export function perform<T>(desk: Desk, requestId: KeyringRequestId, work: (scene: Scene) => Promise<T>): Promise<T> {
  return performOn(desk, requestId, (tx, tell) => openScene(desk, tx, tell, requestId), work);
}

/** {@link perform} on a scene that the work itself opens: of a new request. */
export function performOn<T>(
  desk: Desk,
  requestId: KeyringRequestId,
  open: (tx: Tx, tell: Tell) => Promise<Scene>,
  work: (scene: Scene) => Promise<T>,
): Promise<T> {
  return desk.turns.take(requestId, async () => {
    const { output, scene } = await once(desk, open, async (opened) => {
      if (opened.stored.version > 0) await live(opened, { type: "tick" });
      return work(opened);
    });
    await goOn(desk, scene);
    return output;
  });
}

/** Does what a transaction has left to be done after it. */
async function goOn(desk: Desk, scene: Scene): Promise<void> {
  for (const next of scene.next) {
    if (next.do === "sign") await completeSigning(desk, scene.requestId, next);
    else await sealOrder(desk, scene.requestId, next);
  }
}

type Next<D extends NextWork["do"]> = Extract<NextWork, { readonly do: D }>;

/** Bytes of randomness that every server mixes into its own (docs/protocol.md §8.5). */
const CONTRIBUTION_BYTES = 32;

/** Seals fresh randomness to every server of a new attempt, and orders it if it is still what is wished. */
async function sealOrder(desk: Desk, requestId: KeyringRequestId, next: Next<"order">): Promise<void> {
  const { itemId, attempt, roster } = next;
  const { random } = desk.site.ctx;
  const open = (tx: Tx, tell: Tell) => openScene(desk, tx, tell, requestId);
  const { output: manifest } = await once(desk, open, manifestOf);
  const contributions: Contribution[] = [];
  for (const index of roster) {
    const plain = random(CONTRIBUTION_BYTES);
    try {
      const info = contributionInfo(itemId, attempt, index);
      contributions.push({ index, sealed: await hpkeSeal(memberOf(manifest, index).sealing, info, plain, random) });
    } finally {
      wipe(plain);
    }
  }
  const { scene } = await once(desk, open, async (after) => {
    await live(after, { type: "tick" });
    const item = await itemOf(after, itemId);
    const { stage, attempt: newest, parties } = item.value.course;
    const ready = (index: number) => parties.some((p) => p.index === index && p.stand === "ready");
    if (!isOpenLife(after.value.life) || stage !== "preparing" || newest !== attempt - 1 || !roster.every(ready))
      return;
    await order(after, item, attempt, roster, contributions);
  });
  await goOn(desk, scene);
}

/** Opens the partial signatures of an attempt, outside any transaction, and keeps what they come to. */
async function completeSigning(
  desk: Desk,
  requestId: KeyringRequestId,
  { itemId, attempt }: Next<"sign">,
): Promise<void> {
  const open = (tx: Tx, tell: Tell) => openScene(desk, tx, tell, requestId);
  const running = (scene: Scene, course: { readonly stage: string; readonly attempt: number }) =>
    isOpenLife(scene.value.life) && course.stage === "running" && course.attempt === attempt;
  const { output: whole } = await once(desk, open, async (scene) => {
    const item = await itemOf(scene, itemId);
    return running(scene, item.value.course) ? wholeUse(scene, item) : null;
  });
  if (whole === null) return;
  const done = await completed(whole, desk);
  const { scene: after } = await once(desk, open, async (scene) => {
    await live(scene, { type: "tick" });
    const item = await itemOf(scene, itemId);
    if (!running(scene, item.value.course)) return;
    if (done.at === "signed") await keepSignature(scene, item, done.signature);
    else await spoil(scene, item, done);
  });
  await goOn(desk, after);
}

/** Messages that make no signature and name nobody: everyone who took part is struck. */
async function completed(
  { terms, certificate, said }: NonNullable<Awaited<ReturnType<typeof wholeUse>>>,
  desk: Desk,
): Promise<Spoilt | { readonly at: "signed"; readonly signature: Uint8Array }> {
  try {
    return await completeUse(terms, certificate, said, await desk.pair);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { at: "spoilt", culprits: [], suspects: terms.order.order.roster };
  }
}
