import { equalBytes } from "../../crypto/bytes.ts";
import { certificateHash, type SignedCertificate, verifyCertificate } from "../../protocol/federation/certificate.ts";
import type { SignedMessage } from "../../protocol/federation/message.ts";
import { type Contribution, signDecision, signOrder } from "../../protocol/federation/request.ts";
import { fulfilledValue } from "../../protocol/keyring/fulfilment.ts";
import { advance, isOpenLife, type KeyringEffect, type KeyringLifeEvent } from "../../protocol/keyring/requestlife.ts";
import type { Exchange } from "../../wire/federation/exchange.ts";
import { eachStored, putStored, readStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import {
  type AttemptTerms,
  concludeMaking,
  concludeUse,
  type Made,
  nextStep,
  resumeExchange,
  type Spoilt,
} from "./attempt.ts";
import { pay, refund } from "./balances.ts";
import { type CourseEffect, pursue } from "./course.ts";
import { keepKeys, markReleased } from "./keykeeping.ts";
import { quarantine } from "./keyrings.ts";
import { SAID, type SaidRow, saidId, TASK, taskId } from "./requestdocuments.ts";
import { noteUse, ruleItem, ruleRequest } from "./ruling.ts";
import { askedOf, type ItemScene, itemsOf, manifestOf, partyOf, putTask, removeTask, type Scene } from "./scene.ts";

/** The coordination of requests through keyrings, within one transaction (docs/protocol.md §9.6). */

const WHY_MAX = 1_000;
const cut = (why: string): string => why.slice(0, WHY_MAX);

// ---- the life of the request ----

/**
 * Brings an event to a request's life and does what follows from it, in the same transaction.
 *
 * @param why Of what ends the request, in words.
 * @throws Fault as {@link advance}
 */
export async function live(scene: Scene, event: KeyringLifeEvent, why = ""): Promise<void> {
  const before = scene.value.life;
  const { life, effects } = advance(before, event, scene.nowMs);
  if (life === before && effects.length === 0) return;
  scene.value = { ...scene.value, life };
  const ended = isOpenLife(before) && !isOpenLife(life);
  if (ended) scene.value = { ...scene.value, why: cut(life.status === "fulfilled" ? "" : why || endOf(life.status)) };
  for (const effect of effects) await follow(scene, effect);
  if (life.status !== before.status) await say(scene, `request.${life.status}`, scene.value.why);
  if (life.status === "fulfilled" && before.status !== "fulfilled") await keepKeys(scene);
}

const endOf = (status: string): string => (status === "expired" ? "nobody ended it in time" : "");

function say(scene: Scene, event: string, detail = ""): Promise<void> {
  const { workspaceId, life } = scene.value;
  return scene.tell({ event, workspaceId, keyringId: life.keyringId, requestId: scene.requestId, detail: cut(detail) });
}

async function follow(scene: Scene, effect: KeyringEffect): Promise<void> {
  const { tx, nowMs, requestId } = scene;
  const { workspaceId, life } = scene.value;
  const { keyringId } = life;
  switch (effect.do) {
    case "call":
      await say(scene, "request.approved");
      for (const item of await itemsOf(scene)) await steer(scene, item, { type: "called" });
      return;
    case "recall":
      await say(scene, "request.recalled");
      for (const item of await itemsOf(scene)) await steer(scene, item, { type: "recalled" });
      return;
    case "record":
      return;
    case "quarantine": {
      const { party: key, first, second } = effect;
      const evidence = [...scene.value.evidence, { first, second, atMs: nowMs }];
      scene.value = { ...scene.value, evidence };
      const party = partyOf(scene, key);
      const fresh = await quarantine(tx, keyringId, key, first, second, nowMs);
      if (fresh) await scene.tell({ event: "party.quarantined", keyringId, detail: party?.name ?? "" });
      if (!party) return;
      for (const item of await itemsOf(scene)) {
        await steer(scene, item, { type: "away", index: party.index, final: true });
      }
      return;
    }
    case "pay": {
      const parties = scene.value.parties.filter(({ key }) => effect.parties.some((one) => equalBytes(one, key)));
      await pay(tx, { workspaceId, requestId, keyringId, parties }, nowMs);
      return;
    }
    case "refund":
      await refund(tx, { workspaceId, requestId }, nowMs);
      return;
    case "forget":
      for (const item of await itemsOf(scene)) await abandon(scene, item);
  }
}

/** Parties that were ever asked for an item, also before an approval that is gone: their servers may keep something. */
async function askedParties({ tx, value }: Scene, { id, value: { course } }: ItemScene): Promise<readonly number[]> {
  const asked: number[] = [];
  for (const { index, key } of value.parties) {
    const able = course.parties.some((one) => one.index === index);
    if (able && (await readStored(tx, TASK, taskId(key, id)))) asked.push(index);
  }
  return asked;
}

/** Ends an item without a result: the registry's one word on it, if it has not said another, is to cancel. */
async function abandon(scene: Scene, item: ItemScene): Promise<void> {
  const { course, decision } = item.value;
  const done = course.stage === "settling";
  await steer(scene, item, { type: "ended" });
  if (decision !== null || done) return;
  const touched = await askedParties(scene, item);
  if (touched.length === 0) return;
  takeBack(scene, item);
  for (const index of touched) await putTask(scene, item, index, { do: "decide" });
  await clearSaid(scene, item);
}

function takeBack(scene: Scene, item: ItemScene): void {
  const { identity } = scene.desk.site;
  const word = { requestId: item.id, verdict: "cancel", attempt: 0, certificateHash: null } as const;
  item.value = { ...item.value, decision: item.value.decision ?? signDecision(identity, word) };
}

/** Tells a server that a use has not taken that it is over: there it would be open until its time is. */
export async function dismiss(scene: Scene, item: ItemScene, index: number): Promise<void> {
  const { kind, stage, roster } = item.value.course;
  if (kind === "make" || stage !== "settling" || roster.includes(index)) return;
  takeBack(scene, item);
  await putTask(scene, item, index, { do: "decide" });
}

/**
 * Asks the newest head of the policy about the whole request again, and goes on from what it says.
 *
 * @throws Fault not_found, corrupt
 */
export async function reconsider(scene: Scene): Promise<void> {
  if (!isOpenLife(scene.value.life)) return;
  const { ruling, why } = await ruleRequest(scene);
  // part of a batch is done already, and what is left of it is denied
  const over = ruling === "deny" && scene.value.life.accepted;
  await live(scene, over ? { type: "failed" } : { type: "ruled", ruling }, why);
  if (!isOpenLife(scene.value.life)) return;
  const shown = ruling === "wait" ? why : "";
  if (scene.value.why !== shown) scene.value = { ...scene.value, why: shown };
}

// ---- the course of one item ----

type CourseEvent = Parameters<typeof pursue>[1];

/** Brings an event to the course of an item and does what follows from it. */
export async function steer(scene: Scene, item: ItemScene, event: CourseEvent): Promise<void> {
  const { course, effects } = pursue(item.value.course, event, scene.nowMs, scene.desk.patience);
  if (course !== item.value.course) item.value = { ...item.value, course };
  for (const effect of effects) await carry(scene, item, effect);
}

async function carry(scene: Scene, item: ItemScene, effect: CourseEffect): Promise<void> {
  switch (effect.do) {
    case "ask":
      return putTask(scene, item, effect.index, { do: "prepare" });
    case "askLater":
      return putTask(scene, item, effect.index, { do: "prepare" }, "later");
    case "quiet":
      for (const { index } of item.value.course.parties) await removeTask(scene, item, index);
      return;
    case "order": {
      const { attempt, roster } = effect;
      // the servers of a new key get randomness of the registry's, which is sealed outside the transaction
      if (item.value.course.kind !== "make") return order(scene, item, attempt, roster, []);
      scene.next.push({ do: "order", itemId: item.id, attempt, roster });
      return;
    }
    case "move":
      return move(scene, item);
    case "silent":
      for (const index of effect.indices) {
        await removeTask(scene, item, index);
        await missed(scene, item, index, "it did not answer in time", true);
      }
      return;
    case "fail":
      if (isOpenLife(scene.value.life)) await live(scene, { type: "failed" }, effect.why);
  }
}

/** Signs the order of an attempt, if the newest head of the policy still allows it, and stores it before it is shown. */
export async function order(
  scene: Scene,
  item: ItemScene,
  attempt: number,
  roster: readonly number[],
  contributions: readonly Contribution[],
): Promise<void> {
  const asked = await askedOf(scene.tx, item.id);
  const ruled = await ruleItem(scene, item, asked, item.value.certificate?.certificate ?? null);
  if (ruled.decision !== "allow") {
    return reconsider(scene);
  }
  await noteUse(scene, item, asked);
  const word = { requestId: item.id, attempt, roster, contributions, ownerNonces: null };
  item.value = { ...item.value, order: signOrder(scene.desk.site.identity, word) };
  item.exchange = null;
  await steer(scene, item, { type: "ordered", attempt, roster });
  await move(scene, item);
}

async function termsOf(scene: Scene, item: ItemScene): Promise<AttemptTerms | null> {
  const { order: signed, course, certificate } = item.value;
  if (signed === null) return null;
  return {
    manifest: await manifestOf(scene),
    asked: await askedOf(scene.tx, item.id),
    order: signed,
    certificate: course.kind === "make" ? null : (certificate?.certificate ?? null),
  };
}

/** What servers have said in the running attempt. @throws Fault corrupt */
async function saidIn(scene: Scene, item: ItemScene) {
  const rows = await eachStored(scene.tx, SAID, item.id);
  return rows.map(({ place, value }) => ({ index: place, said: value }));
}

/** The running attempt: as this process remembers it if nothing has changed, otherwise as it is stored. */
export async function exchangeOf(scene: Scene, item: ItemScene): Promise<Exchange | null> {
  if (item.exchange) return item.exchange;
  const { remembered } = scene.desk;
  const known = remembered.get(item.id);
  // whoever takes it changes it: a transaction that fails leaves none behind
  remembered.delete(item.id);
  const { attempt } = item.value.course;
  if (known?.attempt === attempt && known.version === item.stored.version) {
    item.exchange = known.exchange;
    return known.exchange;
  }
  const terms = await termsOf(scene, item);
  if (terms === null) return null;
  item.exchange = resumeExchange(terms, await saidIn(scene, item));
  return item.exchange;
}

const NOTHING_SAID = { messages: [], outcome: null, brought: [], misses: [] };

/** Keeps what a server has said or missed in the running attempt. */
export async function keepSaid(
  scene: Scene,
  item: ItemScene,
  index: number,
  change: (before: SaidRow) => SaidRow,
): Promise<void> {
  const { attempt } = item.value.course;
  const id = saidId(item.id, index);
  const stored = await readStored(scene.tx, SAID, id);
  const before = stored?.value.attempt === attempt ? stored.value : { attempt, ...NOTHING_SAID };
  const row = { id, owner: item.id, place: index, value: change(before) };
  if (!(await putStored(scene.tx, SAID, row, stored?.version ?? 0))) throw changedMeanwhile();
}

/** What was said is needed no more. */
async function clearSaid(scene: Scene, item: ItemScene): Promise<void> {
  for (const { id, owner, place, version } of await eachStored(scene.tx, SAID, item.id))
    await putStored(scene.tx, SAID, { id, owner, place, value: { attempt: 0, ...NOTHING_SAID } }, version);
}

const MISSES_MAX = 64;

/** A server has not done its step of the running attempt. */
export async function missed(scene: Scene, item: ItemScene, index: number, why: string, final: boolean): Promise<void> {
  const exchange = await exchangeOf(scene, item);
  const miss = { why: why.slice(0, 300), final };
  await keepSaid(scene, item, index, (before) => ({
    ...before,
    misses: [...before.misses, miss].slice(-MISSES_MAX),
  }));
  exchange?.miss(index, why, final);
  await steer(scene, item, { type: "answered", index });
}

/** Gives the next step of the running attempt out, or concludes it. */
async function move(scene: Scene, item: ItemScene): Promise<void> {
  if (item.value.course.stage !== "running") return;
  const exchange = await exchangeOf(scene, item);
  const signed = item.value.order;
  if (!exchange || !signed) return;
  const steps = nextStep(exchange, signed);
  if (steps.length > 0) {
    for (const { index, work } of steps) await putTask(scene, item, index, work);
    await steer(scene, item, { type: "step", due: steps.map(({ index }) => index) });
    return;
  }
  await conclude(scene, item, exchange);
}

async function conclude(scene: Scene, item: ItemScene, exchange: Exchange): Promise<void> {
  const terms = await termsOf(scene, item);
  if (terms === null) return;
  const end = exchange.standstill();
  const { kind, attempt } = item.value.course;
  if (kind === "make") {
    const made = concludeMaking(terms, end);
    return made.at === "agreed" ? accept(scene, item, made) : spoil(scene, item, made);
  }
  const used = concludeUse(terms, end);
  if (used.at === "spoilt") return spoil(scene, item, used);
  if (kind === "release") return release(scene, item, used.partials);
  scene.next.push({ do: "sign", itemId: item.id, attempt });
}

/** An attempt that came to nothing: whoever missed a step must be ready anew, and everything is drawn afresh. */
export async function spoil(scene: Scene, item: ItemScene, { culprits, suspects }: Spoilt): Promise<void> {
  const said = await saidIn(scene, item);
  const { attempt } = item.value.course;
  const absent = said.flatMap(({ index, said: { attempt: of, misses } }) =>
    of === attempt && misses.length > 0 ? [index] : [],
  );
  item.exchange = null;
  await steer(scene, item, { type: "spoilt", culprits, suspects, absent });
}

/** The registry's single acceptance: signed, stored, and told from then on (docs/protocol.md §8.3). */
async function accept(scene: Scene, item: ItemScene, made: Extract<Made, { at: "agreed" }>): Promise<void> {
  if (item.value.decision !== null) return;
  const { certificate, signatures, confirmations } = made;
  const { attempt } = certificate;
  const acceptance = signDecision(scene.desk.site.identity, {
    requestId: item.id,
    verdict: "accept",
    attempt,
    certificateHash: certificateHash(certificate),
  });
  const signed: SignedCertificate = { certificate, signatures, acceptance };
  verifyCertificate(signed, await manifestOf(scene));
  item.value = { ...item.value, decision: acceptance, certificate: signed, confirmations };
  await settle(scene, item, "decide");
  await result(scene, item);
}

/** Lets the parties answer for what has come of an item. */
async function settle(scene: Scene, item: ItemScene, work: "decide" | "respond"): Promise<void> {
  await steer(scene, item, { type: "settled" });
  const { course } = item.value;
  // a new key concerns every server; the use of one those that took part in it, or might have
  const able = course.parties.filter(({ stand }) => stand !== "out");
  for (const { index } of course.kind === "make" ? scene.value.parties : able)
    await putTask(scene, item, index, { do: work });
  await clearSaid(scene, item);
}

/** What responses must say to agree is fixed from now on. */
export async function result(scene: Scene, item: ItemScene): Promise<void> {
  const { certificate } = item.value.certificate ?? {};
  if (!certificate) return;
  const { attempt } = item.value.course;
  const value = fulfilledValue(scene.value.life.keyringId, item.id, attempt, certificate);
  await live(scene, { type: "result", itemId: item.id, value });
}

/** Shares go to the owner's client: the key is marked for good. */
async function release(scene: Scene, item: ItemScene, partials: readonly SignedMessage[]): Promise<void> {
  await live(scene, { type: "accepted" });
  item.value = { ...item.value, partials };
  await markReleased(scene, item);
  await settle(scene, item, "respond");
}

/** The signature of a use is whole and verified. */
export async function keepSignature(scene: Scene, item: ItemScene, signature: Uint8Array): Promise<void> {
  item.value = { ...item.value, result: signature };
  await settle(scene, item, "respond");
  await result(scene, item);
}

/** Terms and messages of an attempt whose partial signatures are all there. @throws Fault corrupt */
export async function wholeUse(scene: Scene, item: ItemScene) {
  const terms = await termsOf(scene, item);
  const certificate = terms?.certificate;
  const said = (await exchangeOf(scene, item))?.standstill().said ?? [];
  return terms && certificate ? { terms, certificate, said } : null;
}
