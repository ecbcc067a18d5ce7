import { equalBytes } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederatedRequestId, KeyringRequestId } from "../../ids.ts";
import { type SignedResponse, verifyResponse } from "../../protocol/keyring/response.ts";
import type { Report } from "../../wire/keyring/views.ts";
import type { InputOf } from "../../wire/operations.ts";
import { readStored } from "../documents.ts";
import { messageName } from "./attempt.ts";
import { dismiss, exchangeOf, keepSaid, live, missed, steer } from "./coordinator.ts";
import { keepLateResponse, markReleased } from "./keykeeping.ts";
import { partyHeard } from "./keyrings.ts";
import { partyKeyOf } from "./people.ts";
import { perform } from "./performing.ts";
import { ITEM, TASK, type TaskRow, taskId } from "./requestdocuments.ts";
import { type Desk, type ItemScene, itemOf, partyOf, putTask, removeTask, type Scene } from "./scene.ts";
import type { RegistryService } from "./service.ts";

type Reported = InputOf<"party.report">["reports"][number];

/** Messages of one server that are kept of an attempt: all rounds of the largest federation, and what contradicts them. */
const SAID_MAX = 128;

/** A party's word, whoever it is: its signature holds, and it is the caller's own. @throws Fault integrity, denied */
function demandOwnWord(key: Uint8Array, itemId: FederatedRequestId, signed: SignedResponse): void {
  const response = verifyResponse(signed);
  if (!equalBytes(response.key, key)) throw new Fault("denied", "this response was signed by another party");
  if (response.requestId !== itemId) throw new Fault("bad_input", "this response is about another request");
}

/** Takes a response in, at any time: also one that comes late. */
async function respond(scene: Scene, item: ItemScene, key: Uint8Array, signed: SignedResponse): Promise<void> {
  const party = partyOf(scene, key);
  if (!party) return;
  const { response } = signed;
  if (response.keyringId !== scene.value.life.keyringId) return;
  const before = scene.value.life;
  await live(scene, { type: "response", response: signed }, response.verdict === "rejected" ? response.reason : "");
  if (scene.value.life !== before) {
    await partyHeard(scene.tx, key, { responded: true }, scene.nowMs);
    const { workspaceId, life } = scene.value;
    const detail = `${party.name}: ${response.verdict}`;
    const subject = { workspaceId, keyringId: life.keyringId, requestId: scene.requestId };
    await scene.tell({ event: "request.response", ...subject, detail });
  }
  await keepLateResponse(scene, item);
  const { index } = party;
  const task = (await readStored(scene.tx, TASK, taskId(key, item.id)))?.value;
  const work = task?.work.do;
  if (response.verdict === "rejected") {
    await steer(scene, item, { type: "away", index, final: true });
    // the attempt that it takes part in does not wait for it
    if (work === "prepare" || work === "begin" || work === "relay") await removeTask(scene, item, index);
    if (item.value.course.due.includes(index)) await missed(scene, item, index, "its server refuses", true);
  }
  // what ends the request still is to be told
  const accepted = work === "decide" && item.value.decision?.decision.verdict === "accept";
  if (work === "respond" || accepted) await removeTask(scene, item, index);
  if (work === "respond") await dismiss(scene, item, index);
}

/** Takes in what a server has said in the running attempt. */
async function say(
  scene: Scene,
  item: ItemScene,
  index: number,
  { work }: TaskRow,
  said: Extract<Report, { did: "said" }>,
): Promise<void> {
  const exchange = await exchangeOf(scene, item);
  const brought = work.do === "relay" ? work.messages : [];
  const names = brought.map(messageName);
  await keepSaid(scene, item, index, (before) => {
    const known = new Set(before.messages.map(({ signature }) => signature.toHex()));
    const fresh = said.messages.filter(({ signature }) => !known.has(signature.toHex()));
    return {
      ...before,
      messages: [...before.messages, ...fresh].slice(0, SAID_MAX),
      outcome: said.outcome ?? before.outcome,
      brought: [...new Set([...before.brought, ...names])],
    };
  });
  exchange?.hear(index, said.messages, said.outcome);
  exchange?.brought(index, brought);
  const letOut = said.messages.some(({ message }) => message.payload.round === "partial");
  if (item.value.course.kind === "release" && letOut) await markReleased(scene, item);
  await removeTask(scene, item, index);
  await steer(scene, item, { type: "answered", index });
}

async function miss(
  scene: Scene,
  item: ItemScene,
  index: number,
  { work }: TaskRow,
  { why, final, attempt }: Extract<Report, { did: "missed" }>,
): Promise<void> {
  switch (work.do) {
    case "prepare":
      await removeTask(scene, item, index);
      return steer(scene, item, { type: "away", index, final });
    case "begin":
    case "relay":
      if (attempt !== item.value.course.attempt) return;
      await removeTask(scene, item, index);
      return missed(scene, item, index, why, final);
    case "decide":
    case "respond":
    case "drop":
      return final ? removeTask(scene, item, index) : putTask(scene, item, index, work, "later");
    case "nothing":
      return;
  }
}

/** Takes in what became of a task; what names another one than the party's newest changes nothing. */
async function take(scene: Scene, key: Uint8Array, { itemId, seq, report }: Reported): Promise<void> {
  const party = partyOf(scene, key);
  if (!party) return;
  const { index } = party;
  const item = await itemOf(scene, itemId);
  if (report.did === "response") return respond(scene, item, key, report.response);
  const task = (await readStored(scene.tx, TASK, taskId(key, itemId)))?.value;
  if (task?.seq !== seq) return;
  const { work } = task;
  switch (report.did) {
    case "ready":
      if (work.do !== "prepare") return;
      await removeTask(scene, item, index);
      return steer(scene, item, { type: "ready", index });
    case "said": {
      const { attempt, stage } = item.value.course;
      const running = (work.do === "begin" || work.do === "relay") && stage === "running" && attempt === report.attempt;
      return running ? say(scene, item, index, task, report) : undefined;
    }
    case "missed":
      return miss(scene, item, index, task, report);
    case "decided":
      if (work.do !== "decide") return;
      // of an acceptance the response is still to come
      if (item.value.decision?.decision.verdict === "accept") return putTask(scene, item, index, work, "later");
      return removeTask(scene, item, index);
    case "dropped":
      return work.do === "drop" ? removeTask(scene, item, index) : undefined;
  }
}

/** What connectors report (docs/protocol.md §9.6). */
export function createReports(desk: Desk): Pick<RegistryService, "party.report"> {
  const { store } = desk.site.ctx;

  async function requestOf(itemId: FederatedRequestId): Promise<KeyringRequestId | undefined> {
    return (await store.transaction((tx) => readStored(tx, ITEM, itemId)))?.value.requestId;
  }

  return {
    async "party.report"({ account: { userId } }, { reports }) {
      const key = await store.transaction((tx) => partyKeyOf(tx, userId));
      const of = new Map<KeyringRequestId, Reported[]>();
      const faults: unknown[] = [];
      for (const one of reports) {
        try {
          if (one.report.did === "response") demandOwnWord(key, one.itemId, one.report.response);
          const requestId = await requestOf(one.itemId);
          // what nobody asked for changes nothing, and tells nothing
          if (requestId === undefined) continue;
          of.set(requestId, [...(of.get(requestId) ?? []), one]);
        } catch (error) {
          faults.push(error);
        }
      }
      await Promise.all(
        [...of].map(async ([requestId, all]) => {
          try {
            await perform(desk, requestId, async (scene) => {
              for (const one of all) await take(scene, key, one);
            });
          } catch (error) {
            faults.push(error);
          }
        }),
      );
      // the others have counted all the same
      if (faults.length > 0) throw faults[0];
      return {};
    },
  };
}
