import type { WorkspaceId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import type { KeyringEvent } from "../../wire/keyring/views.ts";
import { listStored, putStored, readStored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { EVENT, EVENT_COUNT, type EventSubject } from "./documents.ts";
import type { RegistrySite } from "./service.ts";

/** What happened, before it has its numbers. */
export interface NewEvent extends EventSubject {
  /** `request.created`, `workspace.policy`, ... */
  readonly event: string;
  /** In words, at most 1,024 bytes; default none. */
  readonly detail?: string;
}

/** Events in one answer: as many as the operation's codec takes. */
const PAGE = 64;
/** Stands for a workspace in the registry's own sequence. */
const ALL = "all";

async function nextNumber(tx: Tx, scope: string, nowMs: number): Promise<number> {
  const before = await readStored(tx, EVENT_COUNT, scope);
  const seq = (before?.value.seq ?? 0) + 1;
  const row = { id: scope, owner: "", place: before?.place ?? nowMs, value: { seq } };
  if (!(await putStored(tx, EVENT_COUNT, row, before?.version ?? 0))) throw changedMeanwhile();
  return seq;
}

/** Appends to one sequence: numbers from 1 without gaps, for the number is taken in the event's own transaction. */
async function append(tx: Tx, scope: string, event: Omit<KeyringEvent, "seq">): Promise<KeyringEvent> {
  const seq = await nextNumber(tx, scope, event.atMs);
  const value = { ...event, seq };
  const row = { id: `${scope}:${seq}`, owner: scope, place: seq, value };
  if (!(await putStored(tx, EVENT, row, 0))) throw changedMeanwhile();
  return value;
}

/**
 * Records an event in the transaction of what it tells: in its workspace's sequence, if it has one, and in the
 * registry's.
 *
 * @returns It with its number in the registry's sequence.
 * @throws Fault corrupt, unavailable
 */
export async function appendEvent(tx: Tx, happened: NewEvent, nowMs: number): Promise<KeyringEvent> {
  const event = {
    atMs: nowMs,
    event: happened.event,
    workspaceId: happened.workspaceId ?? null,
    keyringId: happened.keyringId ?? null,
    requestId: happened.requestId ?? null,
    keyId: happened.keyId ?? null,
    detail: happened.detail ?? "",
  };
  if (event.workspaceId !== null) await append(tx, event.workspaceId, event);
  return append(tx, ALL, event);
}

/** Records an event of the running transaction. */
export type Tell = (happened: NewEvent) => Promise<void>;

/** Runs a transaction and tells the operator's hook of its events, once they are durable. */
export async function recorded<T>(
  site: RegistrySite,
  work: (tx: Tx, tell: Tell) => Promise<T>,
  near?: string,
): Promise<T> {
  let told: KeyringEvent[] = [];
  const done = await site.ctx.store.transaction(async (tx) => {
    // it may run twice
    told = [];
    return work(tx, async (happened) => {
      told.push(await appendEvent(tx, happened, site.ctx.now()));
    });
  }, near);
  for (const event of told) site.notify({ ...event });
  return done;
}

/** Events of a workspace, or null for all of the registry, after number `after`. @throws Fault corrupt */
export async function eventsAfter(
  tx: Tx,
  workspaceId: WorkspaceId | null,
  after: number,
): Promise<{ readonly items: KeyringEvent[]; readonly more: boolean }> {
  const scope = workspaceId ?? ALL;
  const rows = await listStored(tx, EVENT, scope, { place: after, id: `${scope}:${after}` }, PAGE + 1);
  return { items: rows.slice(0, PAGE).map(({ value }) => value), more: rows.length > PAGE };
}
