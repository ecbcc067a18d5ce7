import { equalBytes } from "../../crypto/bytes.ts";
import type { FederatedRequestId, KeyringId, WorkspaceId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { encodeJson } from "../../wire/codec.ts";
import { POLICY_MAX } from "../../wire/federation/records.ts";
import { type Task, task as taskCodec } from "../../wire/keyring/views.ts";
import { eachStored, listStored, putStored, readStored, type Stored } from "../documents.ts";
import { partyHeard } from "./keyrings.ts";
import { partyKeyOf } from "./people.ts";
import { dueOwner, ITEM, type ItemRow, laterOwner, TASK, type TaskRow, VOTE } from "./requestdocuments.ts";
import { askedOf, type Desk } from "./scene.ts";
import type { RegistryService } from "./service.ts";
import { runAlarms } from "./sweeping.ts";
import { headOf } from "./workspaces.ts";

/** Tasks of one answer, in bytes of JSON about: the answer fits a frame. */
const PAGE_BYTES = 96 * 1_024;
/** How often a waiting party looks for what other processes have done, in milliseconds. */
const LOOK_MS = 500;
/** Tasks that are counted as a party's backlog. */
const BACKLOG_MAX = 10_000;

/** How many tasks wait for a party, whichever its keyrings: more than 10,000 are not counted. */
export async function backlogOf(tx: Tx, _: KeyringId, partyKey: Uint8Array): Promise<number> {
  const due = await tx.documentCount(TASK.kind, dueOwner(partyKey), BACKLOG_MAX);
  return due + (await tx.documentCount(TASK.kind, laterOwner(partyKey), BACKLOG_MAX));
}

/** Heads of workspaces, as far as one answer has looked. */
type Heads = Map<WorkspaceId, Uint8Array>;

async function headHash(tx: Tx, heads: Heads, workspaceId: WorkspaceId): Promise<Uint8Array> {
  const hash = heads.get(workspaceId) ?? (await headOf(tx, workspaceId)).hash;
  heads.set(workspaceId, hash);
  return hash;
}

async function votesOf(tx: Tx, itemId: FederatedRequestId, policyHash: Uint8Array) {
  const all = (await eachStored(tx, VOTE, itemId)).map(({ value }) => value.vote);
  return all.filter(({ vote }) => equalBytes(vote.policyHash, policyHash)).slice(0, POLICY_MAX.approvers);
}

/** What a task carries now; null where it has nothing to carry any more. */
async function workOf(tx: Tx, row: TaskRow, item: ItemRow, policyHash: Uint8Array): Promise<Task["work"] | null> {
  const { work, itemId } = row;
  const { order, decision, certificate, confirmations, course } = item;
  switch (work.do) {
    case "prepare":
      return { do: "prepare", votes: await votesOf(tx, itemId, policyHash) };
    case "begin":
      return order && { do: "begin", order, votes: await votesOf(tx, itemId, policyHash) };
    case "relay":
      return { ...work, messages: [...work.messages] };
    case "decide": {
      if (decision === null) return null;
      const accepts = decision.decision.verdict === "accept";
      const parts = accepts
        ? { certificate, confirmations: [...confirmations] }
        : { certificate: null, confirmations: [] };
      return { do: "decide", decision, ...parts };
    }
    case "respond":
      return certificate && { do: "respond", attempt: course.attempt, certificate };
    case "drop":
      return { do: "drop" };
    case "nothing":
      return null;
  }
}

async function taskOf(tx: Tx, heads: Heads, row: TaskRow): Promise<Task | null> {
  const item = await readStored(tx, ITEM, row.itemId);
  if (!item) return null;
  const request = await askedOf(tx, row.itemId);
  const policyHash = await headHash(tx, heads, row.workspaceId);
  const work = await workOf(tx, row, item.value, policyHash);
  const { keyringId, requestId, itemId, seq } = row;
  return work && { keyringId, requestId, itemId, seq, policyHash, request, work };
}

/** Brings tasks whose time has come among those that are due; at most `limit` of them. */
async function promote(tx: Tx, party: Uint8Array, nowMs: number, limit: number): Promise<void> {
  const rows = await listStored(tx, TASK, laterOwner(party), null, limit);
  for (const row of rows.filter(({ place }) => place <= nowMs)) {
    const next = { ...row, owner: dueOwner(party), place: row.value.rank };
    await putStored(tx, TASK, next, row.version);
  }
}

/**
 * The oldest tasks of a party. Reads as many documents however many wait.
 *
 * @throws Fault corrupt
 */
export async function duePage(tx: Tx, party: Uint8Array, max: number, nowMs: number) {
  await promote(tx, party, nowMs, max);
  const rows: readonly Stored<TaskRow>[] = await listStored(tx, TASK, dueOwner(party), null, max + 1);
  const heads: Heads = new Map();
  const tasks: Task[] = [];
  let bytes = 0;
  for (const { value } of rows.slice(0, max)) {
    const task = await taskOf(tx, heads, value);
    if (task === null) continue;
    bytes += encodeJson(taskCodec, task).length;
    if (tasks.length > 0 && bytes > PAGE_BYTES) return { tasks, more: true };
    tasks.push(task);
  }
  return { tasks, more: rows.length > max };
}

/** Handing out of tasks (docs/protocol.md §9.6). */
export function createTasks(desk: Desk): Pick<RegistryService, "party.tasks"> {
  const { ctx } = desk.site;
  return {
    async "party.tasks"({ account: { userId } }, { waitMs, max, health }) {
      const key = await ctx.store.transaction(async (tx) => {
        const own = await partyKeyOf(tx, userId);
        await partyHeard(tx, own, { health }, ctx.now());
        return own;
      }, userId);
      const party = key.toHex();
      const untilMs = performance.now() + waitMs;
      for (;;) {
        await runAlarms(desk);
        const page = await ctx.store.transaction((tx) => duePage(tx, key, max, ctx.now()));
        const leftMs = untilMs - performance.now();
        if (page.tasks.length > 0 || leftMs <= 0 || desk.waiting.closed) return page;
        await desk.waiting.wait(party, Math.min(LOOK_MS, leftMs));
      }
    },
  };
}
