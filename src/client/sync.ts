import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type IncarnationId, idBytes, type KeyId } from "../ids.ts";
import { openDeviceName } from "../protocol/account.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type LeafRecord, leafHash, leafMetaFits } from "../protocol/leaf.ts";
import { type Settings, type SignedState, settingsHash, stateHash, stateSignaturesHold } from "../protocol/state.ts";
import { decryptMeta } from "./meta.ts";
import { boundOf, indexKeys, type Model, pinnedHash, putServerLeaf, type Surroundings, witness } from "./model.ts";
import type { Answer, HeadSummary, Session } from "./session.ts";

const tampered = (why: string, hint?: string) =>
  new Fault("integrity", "the server's account does not continue what this device has seen", {
    why,
    hint: hint ?? "trust another device's copy; ask the operator whether a backup was put back",
  });

/**
 * Holds an answer's position against the pins: an older one is a rollback, an equal one must be the same. The log's
 * position beside a newer one is believed only once the states that lead there were seen.
 *
 * @returns true when the account has moved on and must be synchronised.
 * @throws Fault integrity
 */
export function checkHead(model: Model, head: HeadSummary): boolean {
  const bound = boundOf(model);
  const { revision } = bound.head.state;
  if (head.revision < revision) throw tampered(`it went back from revision ${revision} to ${head.revision}`);
  if (head.revision === revision && !equalBytes(head.stateHash, pinnedHash(bound))) {
    throw tampered(`revision ${revision} is another one here: the account was forked`);
  }
  const { witnessed } = bound;
  if (head.auditSeq < witnessed.seq) throw tampered(`its log was cut from entry ${witnessed.seq} to ${head.auditSeq}`);
  if (head.auditSeq === witnessed.seq && !equalBytes(head.auditLink, witnessed.link)) {
    throw tampered(`entry ${witnessed.seq} of its log was replaced`);
  }
  if (head.revision > revision) return true;
  witness(model, { seq: head.auditSeq, link: head.auditLink });
  return false;
}

/** Answers of a synchronisation. */
export interface Collected {
  readonly leaves: readonly LeafRecord[];
  readonly states: readonly SignedState[];
  readonly settings: Settings;
  readonly last: Answer<unknown>;
}

/** Far above what a vault holds; ends a synchronisation with a server that invents revisions. */
const LEAVES_MAX = 1_000_000;

/** Leaves that changed since a revision, with what proves them: nothing of it is checked yet. @throws Fault integrity */
export async function collect(
  session: Session,
  operation: "state.sync" | "secret.list",
  since: number,
): Promise<Collected> {
  const leaves: LeafRecord[] = [];
  let after: KeyId | null = null;
  for (;;) {
    const answer: Answer<{
      leaves: readonly LeafRecord[];
      more: boolean;
      states: readonly SignedState[];
      settings: Settings | null;
    }> = await session.call(operation, { since, after, what: "leaves" });
    for (const leaf of answer.output.leaves) {
      if (after !== null && leaf.keyId <= after) throw tampered("its pages are out of order");
      after = leaf.keyId;
      leaves.push(leaf);
    }
    // each change of the account touches a bounded number of secrets
    const possible = (answer.head.revision - since) * DEFAULTS.changesPerRequest;
    if (leaves.length > Math.min(possible, LEAVES_MAX)) throw tampered("it sends pages without end");
    const { states, settings } = answer.output;
    if (!answer.output.more) {
      if (!settings) throw tampered("it withholds the account's settings");
      return { leaves, states: await statesUpTo(session, states, answer.head.revision), settings, last: answer };
    }
    if (answer.output.leaves.length === 0) throw tampered("it sends pages without end");
  }
}

/** The rest of the states, page by page, up to the revision that the leaves belong to. @throws Fault integrity */
export async function statesUpTo(
  session: Session,
  first: readonly SignedState[],
  revision: number,
): Promise<readonly SignedState[]> {
  const states = [...first];
  for (let last = states.at(-1); last && last.state.revision < revision; last = states.at(-1)) {
    const { output } = await session.call("state.sync", { since: last.state.revision, after: null, what: "states" });
    const next = output.states.filter(({ state }) => state.revision <= revision);
    if (next.length === 0) throw tampered("it withholds signed states");
    states.push(...next);
    if (states.length > revision) throw tampered("it sends states without end");
  }
  return states;
}

/** Checks that states lead from the pin to the newest one, and that the owner signed that one with a listed device. */
function checkStates(model: Model, got: Collected): SignedState {
  const bound = boundOf(model);
  const newest = got.states.at(-1) ?? bound.head;
  let before = bound.head.state;
  for (const { state } of got.states) {
    if (state.revision !== before.revision + 1 || !equalBytes(state.previous, stateHash(before))) {
      throw tampered("its states are not linked to the pinned one");
    }
    before = state;
  }
  checkSigned(newest, got.settings, model);
  return newest;
}

function checkSigned(newest: SignedState, settings: Settings, model: Model, next: IncarnationId | null = null): void {
  const bound = boundOf(model);
  const { state } = newest;
  const here = state.incarnation === bound.incarnation || state.incarnation === next;
  if (state.userId !== bound.userId || !here) throw tampered("it is another account");
  if (!equalBytes(settings.identity, bound.settings.identity)) throw tampered("its identity key was replaced");
  if (!equalBytes(state.settingsHash, settingsHash(settings)) || !stateSignaturesHold(newest, settings)) {
    throw tampered("its newest state is not signed by the owner");
  }
}

function applyLeaves(model: Model, leaves: readonly LeafRecord[], root: Uint8Array): boolean {
  let map = model.map;
  for (const leaf of leaves) {
    const known = model.secrets.get(leaf.keyId);
    if (!leafMetaFits(leaf)) throw tampered("metadata was exchanged");
    if (known && leaf.serial < known.leaf.serial) throw tampered("one secret went back to an older change");
    map = map.with(idBytes(leaf.keyId), leafHash(leaf));
  }
  if (!equalBytes(map.root(), root)) return false;
  // all of it is opened before any of it is taken in
  for (const leaf of leaves) decryptMeta(indexKeys(model), model.owner, leaf);
  for (const leaf of leaves) putServerLeaf(model, leaf, null);
  return true;
}

/**
 * Brings a model up to the server's newest state. The leaves must give the signed root, so a list is complete.
 *
 * @returns how many secrets changed, with the request that told so.
 * @throws Fault integrity for whatever does not fit; the model is then as before.
 */
export async function synchronise(
  model: Model,
  session: Session,
  around: Surroundings,
  operation: "state.sync" | "secret.list" = "state.sync",
): Promise<{ changed: number; answer: Answer<unknown>; states: readonly SignedState[] }> {
  for (let attempt = 0; ; attempt++) {
    const bound = boundOf(model);
    const got = await collect(session, operation, bound.head.state.revision);
    const newest = checkStates(model, got);
    const devices = newDevices(model, got.settings);
    if (applyLeaves(model, got.leaves, newest.state.root)) {
      for (const text of devices) around.notice(text);
      for (const { state } of got.states) model.trail.set(state.revision - 1, state.previous);
      bound.head = newest;
      bound.settings = got.settings;
      bound.syncedAtMs = around.now();
      if (checkHead(model, got.last.head)) throw tampered("it withholds changes that its own answer names");
      return { changed: got.leaves.length, answer: got.last, states: got.states };
    }
    // pages read while another device wrote do not fit together: once more, from the start
    if (attempt === 3) throw tampered("its secrets do not give the root that the owner signed");
  }
}

/** A position of an account that this device was told by its owner: on a kit, or by a device link. */
export interface Anchor {
  readonly revision: number;
  /** Hash of the state at that revision, 32 bytes. */
  readonly stateHash: Uint8Array;
}

/** Checks that the account's states lead from an anchor to the newest one. @throws Fault integrity */
async function checkAnchor(session: Session, anchor: Anchor, newest: SignedState): Promise<void> {
  const stray = () => tampered("it does not lead from the position that the owner knows", "ask a device that knows it");
  const { revision } = newest.state;
  if (anchor.revision > revision) throw stray();
  const { output } = await session.call("state.sync", { since: anchor.revision, after: null, what: "states" });
  const states = anchor.revision === revision ? [] : await statesUpTo(session, output.states, revision);
  let link = anchor.stateHash;
  let at = anchor.revision;
  for (const { state } of states) {
    if (state.revision > revision) break;
    at += 1;
    if (state.revision !== at || !equalBytes(state.previous, link)) throw stray();
    link = stateHash(state);
  }
  if (at !== revision || !equalBytes(link, stateHash(newest.state))) throw stray();
}

/**
 * First synchronisation of a new device: everything there is, held against the head that login showed, and against
 * the owner's anchor where there is one.
 *
 * @param next Incarnation that another device may have taken the account into meanwhile.
 */
export async function synchroniseAll(
  model: Model,
  session: Session,
  around: Surroundings,
  anchor: Anchor | null = null,
  next: IncarnationId | null = null,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const bound = boundOf(model);
    const got = await collect(session, "state.sync", 0);
    const newest = got.states.at(-1);
    if (!newest || newest.state.revision < bound.head.state.revision) throw tampered("it went back during login");
    checkSigned(newest, got.settings, model, next);
    const same = newest.state.revision === bound.head.state.revision;
    if (same && !equalBytes(stateHash(newest.state), pinnedHash(bound))) throw tampered("login showed another account");
    if (anchor) await checkAnchor(session, anchor, newest);
    if (applyLeaves(model, got.leaves, newest.state.root)) {
      bound.head = newest;
      bound.settings = got.settings;
      bound.syncedAtMs = around.now();
      return;
    }
    if (attempt === 3) throw tampered("its secrets do not give the root that the owner signed");
  }
}

/** Notices about devices that this one has not seen before. */
function newDevices(model: Model, settings: Settings): readonly string[] {
  const known = new Set(boundOf(model).settings.devices.map((device) => device.id));
  return settings.devices
    .filter((device) => !known.has(device.id))
    .map((device) => {
      const name = openDeviceName(model.keys, model.owner, device.id, device.name);
      return `a new device was added to your account: ${name} (${device.id})`;
    });
}
