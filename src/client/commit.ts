import { equalBytes, wipe } from "../crypto/bytes.ts";
import type { Signer } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { idBytes, type KeyId, newId, type RequestId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type LeafRecord, leafHash } from "../protocol/leaf.ts";
import { type Settings, type SignedState, settingsHash, signState, stateHash } from "../protocol/state.ts";
import { decodeJson, encodeJson } from "../wire/codec.ts";
import { type CommitName, type InputOf, type OperationName, operations, requestHash } from "../wire/operations.ts";
import { boundOf, type Model, pauseIn, pinnedHash, putServerLeaf, type Surroundings, signersOf } from "./model.ts";
import {
  holdsState,
  keepCopies,
  type Mutation,
  pendingCodec,
  type SettingsName,
  settleChanges,
  wasMade,
} from "./pending.ts";
import { renewModel } from "./renew.ts";
import { type Answer, isSealed, type Session, wasUnsent } from "./session.ts";
import { type Settled, settle } from "./settling.ts";
import { checkHead, synchronise } from "./sync.ts";
import type { HeldVault } from "./vaultbox.ts";

/** One change of a secret: its next leaf, and the sealed value where there is a new one. */
export interface Change {
  readonly leaf: LeafRecord;
  readonly sealed: Uint8Array | null;
  /** Whether the vault keeps a copy of the value. */
  readonly keep: boolean;
  /** Where it is one that waited for the server: it leaves the queue with the write that takes it in. */
  readonly settles?: Settled;
}

/** Names, ids and hashes of one change in JSON. */
const CHANGE_BYTES = 640;

/** Bytes of a change as it is sent, or a little more. */
export function changeBytes({ leaf, sealed }: Pick<Change, "leaf" | "sealed">): number {
  const parts = [sealed, leaf.meta, leaf.publicKey];
  return parts.reduce((sum, part) => sum + Math.ceil(((part?.length ?? 0) * 4) / 3), CHANGE_BYTES);
}

/**
 * The next state of the account, signed by its identity and this device (docs/protocol.md §5.4).
 *
 * @param by The identity of `settings` where a rotation replaces it.
 */
export function nextState(
  model: Model,
  requestId: RequestId,
  hash: Uint8Array,
  root: Uint8Array,
  settings: Settings,
  by?: Signer,
): SignedState {
  return signNext(model, { requestId, requestHash: hash, root, settingsHash: settingsHash(settings) }, by);
}

/** Signs the state that follows the newest one with this content. */
export function signNext(
  model: Model,
  content: Pick<SignedState["state"], "requestId" | "requestHash" | "root" | "settingsHash">,
  by?: Signer,
): SignedState {
  const bound = boundOf(model);
  const { identity, device } = signersOf(model);
  return signState(
    {
      incarnation: bound.incarnation,
      userId: bound.userId,
      deviceId: bound.deviceId,
      revision: bound.head.state.revision + 1,
      previous: pinnedHash(bound),
      ...content,
      auditSeq: bound.verified.seq,
      auditLink: bound.verified.link,
    },
    by ?? identity,
    device,
  );
}

/** Persists and sends one mutation. */
export async function send<N extends Mutation>(
  held: HeldVault,
  session: Session,
  operation: N,
  requestId: RequestId,
  input: InputOf<N>,
  keep: readonly KeyId[],
  accountKey: Uint8Array | null = null,
  settles: readonly Settled[] = [],
): Promise<Answer<unknown>> {
  const body = encodeJson(operations[operation].input as never, input as never);
  // what no server takes must not be kept: it would stand in the way of every later change
  if (Buffer.byteLength(body) > DEFAULTS.bodyBytes) {
    throw new Fault("too_large", `a change has at most ${DEFAULTS.bodyBytes} bytes as it is sent`);
  }
  const pending = { operation, requestId, body, keep, accountKey, settles };
  const plain = new TextEncoder().encode(encodeJson(pendingCodec, pending));
  try {
    await held.keepPending(plain);
  } finally {
    wipe(plain);
  }
  try {
    return await deliver(held, session, operation, requestId, input);
  } catch (error) {
    if (wasUnsent(error)) await held.dropPending();
    throw error;
  }
}

const isFault = (error: unknown, code: Fault["code"]): error is Fault => error instanceof Fault && error.code === code;

/** Mutations of how the account opens: each belongs to the login that it was made with. */
const OPENS: ReadonlySet<Mutation> = new Set<Mutation>(["account.password", "account.rotate", "account.kit"]);

/** Sends a persisted mutation; only an authentic answer takes it off the list. */
async function deliver<N extends Mutation>(
  held: HeldVault,
  session: Session,
  operation: N,
  requestId: RequestId,
  input: InputOf<N>,
): Promise<Answer<unknown>> {
  try {
    return await session.call(operation, input, requestId);
  } catch (error) {
    if (isSealed(error)) await held.dropPending();
    else if (wasUnsent(error)) throw error;
    else if (isFault(error, "session_invalid") && OPENS.has(operation)) {
      // sent again later it would undo what ended the session, such as another password; if it was made after all,
      // the vault follows at the next login
      await held.dropPending();
      throw new Fault("session_invalid", error.message, {
        why: "another change of the account ended this session first; nothing of this one is kept",
        hint: "keyhold login with the password that holds now, then run the command again",
        requestId,
      });
    } else if (error instanceof Fault) throw unknownOutcome(error, requestId);
    throw error;
  }
}

/** Holds an acknowledgement to the state that was sent: by its own words, and by the position beside them. */
export function checkReceipt({ state }: SignedState, { output, head }: Answer<unknown>): void {
  const hash = stateHash(state);
  const named = equalBytes((output as { stateHash: Uint8Array }).stateHash, hash);
  const shown =
    head.revision > state.revision || (head.revision === state.revision && equalBytes(head.stateHash, hash));
  if (!named || !shown) {
    throw new Fault("integrity", "the server acknowledged another change than the one that was sent");
  }
}

function unknownOutcome(fault: Fault, requestId: RequestId): Fault {
  return new Fault(fault.code === "unreachable" ? "outcome_unknown" : fault.code, fault.message, {
    why:
      fault.why ?? "the change may or may not have reached the server; it is kept and sent again by the next command",
    ...(fault.retryAfterMs === undefined ? {} : { retryAfterMs: fault.retryAfterMs }),
    requestId,
  });
}

/**
 * True for a refusal in clear that sending the very same request again cannot change. Were it a lie, the change would
 * stand in the account's signed chain and come in with the next synchronisation.
 */
function refusedForGood(error: unknown): boolean {
  return error instanceof Fault && ["bad_input", "too_large", "unsupported", "method_not_allowed"].includes(error.code);
}

/** Finishes what an earlier process sent without learning the outcome, then catches up. */
export async function settlePending(
  model: Model,
  held: HeldVault,
  session: Session,
  around: Surroundings,
): Promise<void> {
  const plain = held.pending();
  if (plain === null) return;
  const { operation, requestId, body, keep, accountKey, settles } = decodeJson(pendingCodec, plain);
  wipe(plain);
  const input = operations[operation].input.decode(JSON.parse(body), "");
  const { state } = input;
  let receipt: Answer<unknown> | null = null;
  try {
    receipt = await deliver(held, session, operation, requestId, input as never);
    checkReceipt(state, receipt);
    if (accountKey !== null && "settings" in input) takeRotation(model, accountKey, input.settings, state, around);
    around.notice(`an earlier change was completed (${operation})`);
  } catch (error) {
    if (!isSealed(error) && !refusedForGood(error)) throw error;
    around.notice(`an earlier change was not made (${operation}): ${error instanceof Fault ? error.code : "failed"}`);
  }
  const { states } = await synchronise(model, session, around);
  if (receipt !== null && !holdsState(model, states, state)) {
    throw new Fault("integrity", "the server acknowledged a change that it does not show");
  }
  if ("changes" in input) {
    keepCopies(model, input.changes, keep);
    if (receipt !== null || wasMade(model, states, state, input.changes)) settleChanges(model, input.changes, settles);
  }
  if (accountKey === null) await held.save();
  else await held.renew(null);
  await held.dropPending();
}

/** Takes in a rotation of this device that a later one did not bring in already. */
function takeRotation(
  model: Model,
  accountKey: Uint8Array,
  settings: Settings,
  { state }: SignedState,
  around: Surroundings,
): void {
  const known = boundOf(model).settings.rotations.some(({ revision }) => revision === state.revision);
  if (!known) renewModel(model, accountKey, settings, state.revision, around.random);
}

/** Catches up after `stale`: the account must have moved on, and not by the very change that was refused. */
export async function rebase(
  model: Model,
  session: Session,
  around: Surroundings,
  refused: SignedState,
): Promise<void> {
  const { states } = await synchronise(model, session, around);
  const hash = stateHash(refused.state);
  if (states.length === 0 || states.some(({ state }) => equalBytes(stateHash(state), hash))) {
    throw new Fault("integrity", "the server called a change stale that was not");
  }
}

/** Turns that a change may lose to other devices: few always, more while there is time. */
const REBASES = { least: 5, most: 200, pauseMs: 200 } as const;

/**
 * After a refusal: true when the change is to be built again on what another device has done. A device that works
 * through a queue takes every turn of one that waits, so waiting ends by time and not by count.
 */
export async function lostTurn(
  error: unknown,
  attempt: number,
  beganMs: number,
  around: Surroundings,
): Promise<boolean> {
  if (!(error instanceof Fault && error.code === "stale" && isSealed(error))) return false;
  if (attempt < REBASES.least) return true;
  if (attempt >= REBASES.most || around.now() - beganMs >= DEFAULTS.retryForMs) return false;
  // uneven, so that two devices do not march in step
  await pauseIn(around, ((around.random(1)[0] ?? 0) / 255) * REBASES.pauseMs);
  return true;
}

/**
 * Commits changes of secrets: builds them on the newest state, signs, persists, sends; on a conflict with another
 * device rebases under a new request id (docs/protocol.md §5.6). On return server and vault have it.
 *
 * @param build Makes the changes from the model; runs again after a rebase; throws to give up.
 */
export async function commitChanges(
  model: Model,
  held: HeldVault,
  session: Session,
  around: Surroundings,
  operation: CommitName,
  build: () => Promise<readonly Change[]> | readonly Change[],
): Promise<RequestId> {
  await settlePending(model, held, session, around);
  const beganMs = around.now();
  for (let attempt = 0; ; attempt++) {
    const changes = await build();
    const requestId = newId<RequestId>(around.random);
    let map = model.map;
    for (const { leaf } of changes) map = map.with(idBytes(leaf.keyId), leafHash(leaf));
    const body = { changes: changes.map(({ leaf, sealed }) => ({ leaf, sealed })) };
    const hash = requestHash(operation, { ...body, state: boundOf(model).head });
    const state = nextState(model, requestId, hash, map.root(), boundOf(model).settings);
    let receipt: Answer<unknown>;
    const settles = changes.flatMap((change) => change.settles ?? []);
    try {
      const keep = changes.filter((change) => change.keep).map(({ leaf }) => leaf.keyId);
      receipt = await send(held, session, operation, requestId, { ...body, state }, keep, null, settles);
      checkReceipt(state, receipt);
    } catch (error) {
      if (!(await lostTurn(error, attempt, beganMs, around))) throw error;
      await rebase(model, session, around, state).catch(async (fault: unknown) => {
        // a server that calls a change stale which it has made must not have it made once more
        if (settles.length > 0 && wasMade(model, [], state, changes)) {
          settleChanges(model, changes, settles);
          await held.save();
        }
        throw fault;
      });
      continue;
    }
    for (const { leaf, sealed, keep, settles } of changes) {
      putServerLeaf(model, leaf, keep ? sealed : null);
      if (settles) settle(model, settles, leaf);
    }
    await accept(model, held, state, boundOf(model).settings, receipt, around);
    return requestId;
  }
}

async function accept(
  model: Model,
  held: HeldVault,
  state: SignedState,
  settings: Settings,
  receipt: Answer<unknown>,
  around: Surroundings,
): Promise<void> {
  const bound = boundOf(model);
  bound.head = state;
  bound.settings = settings;
  bound.syncedAtMs = around.now();
  checkHead(model, receipt.head);
  await held.save();
  await held.dropPending();
}

/** Commits a change of the settings (a device, a password, a kit) in the same way. */
export async function commitSettings<N extends SettingsName>(
  model: Model,
  held: HeldVault,
  session: Session,
  around: Surroundings,
  operation: N,
  build: (before: Settings, revision: number) => Omit<InputOf<N>, "state">,
): Promise<RequestId> {
  await settlePending(model, held, session, around);
  const beganMs = around.now();
  for (let attempt = 0; ; attempt++) {
    const bound = boundOf(model);
    const requestId = newId<RequestId>(around.random);
    const body = build(bound.settings, bound.head.state.revision + 1);
    // an adopted account keeps its settings
    const settings = "settings" in body ? (body.settings as Settings) : bound.settings;
    const hash = requestHash(operation as OperationName, { ...body, state: bound.head } as never);
    const state = nextState(model, requestId, hash, model.map.root(), settings);
    let receipt: Answer<unknown>;
    try {
      receipt = await send(held, session, operation, requestId, { ...body, state } as unknown as InputOf<N>, []);
      checkReceipt(state, receipt);
    } catch (error) {
      if (!(await lostTurn(error, attempt, beganMs, around))) throw error;
      await rebase(model, session, around, state);
      continue;
    }
    await accept(model, held, state, settings, receipt, around);
    return requestId;
  }
}
