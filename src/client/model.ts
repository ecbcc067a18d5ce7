import { setTimeout } from "node:timers/promises";
import { equalBytes, type RandomSource } from "../crypto/bytes.ts";
import { type Signer, signerFromSeed } from "../crypto/identity.ts";
import { EMPTY_MAP, type MerkleMap } from "../crypto/merkle.ts";
import { Fault } from "../errors.ts";
import { type DeviceId, idBytes, type KeyId, type UserId } from "../ids.ts";
import { type AccountKeys, accountKeys, previousKeys, unwrapIdentity } from "../protocol/account.ts";
import type { AuditHead } from "../protocol/audit.ts";
import { type LeafRecord, leafHash } from "../protocol/leaf.ts";
import { type Settings, type SignedState, stateHash } from "../protocol/state.ts";
import { decodeJson, type Of } from "../wire/codec.ts";
import { lockKey } from "../wire/lockedmemory.ts";
import { bodyCodec, bodyText, type boundCodec, RECEIPTS_MAX } from "./body.ts";
import type { FactorSource } from "./factorapi.ts";
import { type Held, heldOf, NOTHING_HELD } from "./federation/held.ts";
import { mergeLogs, NO_LOG } from "./logpin.ts";
import { decryptMeta, type Meta } from "./meta.ts";
import { type Conflict, openConflicts, type QueueEntry } from "./queue.ts";

/** A vault's tie to an account on a server: pins, heads and the device's key. */
export type Bound = { -readonly [K in keyof Of<typeof boundCodec>]: Of<typeof boundCodec>[K] };

/** A secret that the server holds. */
export interface ServerSecret {
  readonly place: "server";
  readonly leaf: LeafRecord;
  readonly meta: Meta | null;
  /** The vault's copy of the newest value, if it keeps one. */
  readonly sealed: Uint8Array | null;
}

/** A secret that lies in the vault alone, with all its versions. */
export interface LocalSecret {
  readonly place: "local";
  readonly leaf: LeafRecord;
  readonly meta: Meta | null;
  readonly leaves: readonly LeafRecord[];
  readonly values: readonly { readonly version: number; readonly sealed: Uint8Array }[];
}

/** A secret of which changes wait for the server; it stands in a view of the model alone. */
export interface QueuedSecret {
  readonly place: "queued";
  /** As it would be; nothing in it is signed or sealed. */
  readonly leaf: LeafRecord;
  readonly meta: Meta;
  readonly sealed: null;
  /** The server's part of it, or null for a new secret. */
  readonly under: ServerSecret | null;
  /** What waits, oldest first, each with the version that it leads to. */
  readonly waiting: readonly { readonly version: number; readonly entry: QueueEntry }[];
}

export type Secret = ServerSecret | LocalSecret | QueuedSecret;

/** An account as this device knows it: keys, pins, every leaf. Lives in memory while the vault is open. */
export interface Model {
  /** The account id, or a random id for a vault without a server: in the context of every ciphertext. */
  readonly owner: UserId;
  accountKey: Uint8Array;
  keys: AccountKeys;
  /** Keys of earlier account keys, newest first: what is not wrapped anew yet opens with them. */
  older: readonly AccountKeys[];
  bound: Bound | null;
  /** Commitment to all server secrets. */
  map: MerkleMap;
  readonly secrets: Map<KeyId, Secret>;
  /** Changes that wait for a server that is away, in order. */
  queue: readonly QueueEntry[];
  /** Conflicts that were found, solved ones too until the vault is written. */
  conflicts: readonly Conflict[];
  /** Federations with the secret F, federated keys, and requests for them that are not done. */
  held: Held;
  /** True while it knows of log positions that the vault on disk does not. */
  unsaved: boolean;
  /** True once a purge came in: the generation before must not outlive the next one that is written. */
  erased: boolean;
  /** Hashes of the states that it passed through since it was read, by revision. */
  readonly trail: Map<number, Uint8Array>;
}

/** The subkeys of an account key, where they are kept out of swap. */
function heldKeys(accountKey: Uint8Array, owner: UserId): AccountKeys {
  const { record, index, identity, previous } = accountKeys(accountKey, owner);
  return { record: lockKey(record), index: lockKey(index), identity: lockKey(identity), previous: lockKey(previous) };
}

/** A model without secrets. */
export function newModel(owner: UserId, accountKey: Uint8Array, bound: Bound | null): Model {
  return {
    owner,
    accountKey,
    keys: heldKeys(accountKey, owner),
    older: bound ? previousKeys(accountKey, owner, bound.settings).map((key) => heldKeys(key, owner)) : [],
    bound,
    map: EMPTY_MAP,
    secrets: new Map(),
    queue: [],
    conflicts: [],
    held: NOTHING_HELD,
    unsaved: false,
    erased: false,
    trail: new Map(),
  };
}

/** Keys that may open the metadata of this account, the current one first. */
export const indexKeys = ({ keys, older }: Model): readonly Uint8Array[] => [keys, ...older].map(({ index }) => index);

/** Keys that may open the values of this account, the current one first. */
export const recordKeys = ({ keys, older }: Model): readonly Uint8Array[] =>
  [keys, ...older].map(({ record }) => record);

/** The bound account. @throws Fault bad_input for a vault without a server */
export function boundOf(model: Model): Bound {
  if (!model.bound) {
    throw new Fault("bad_input", "this profile has no server", { hint: "keyhold register --server URL --pin PIN" });
  }
  return model.bound;
}

/** Signers of the account identity and of this device. */
export function signersOf(model: Model): { identity: Signer; device: Signer } {
  const bound = boundOf(model);
  const identity = identityOf(model.keys, model.owner, bound.settings);
  return { identity, device: signerFromSeed(bound.deviceSeed) };
}

/**
 * The account identity: only the owner's account key opens its seed, so no server can put another in its place.
 *
 * @throws Fault integrity when the settings name another public key than the wrapped seed has.
 */
export function identityOf(keys: AccountKeys, owner: UserId, settings: Settings): Signer {
  const seed = unwrapIdentity(keys, owner, settings.wrappedIdentity);
  try {
    const signer = signerFromSeed(seed);
    if (equalBytes(signer.publicKey, settings.identity)) return signer;
    throw new Fault("integrity", "the server shows another account identity than the owner's");
  } finally {
    seed.fill(0);
  }
}

/** Takes one server leaf in: metadata opened, map advanced; a kept copy of another version is dropped. */
export function putServerLeaf(model: Model, leaf: LeafRecord, sealed: Uint8Array | null): void {
  const known = model.secrets.get(leaf.keyId);
  const kept = known?.place === "server" && known.leaf.version === leaf.version ? known.sealed : null;
  const value = leaf.status === "purged" ? null : (sealed ?? kept);
  model.erased ||= purges(known, leaf);
  const meta = decryptMeta(indexKeys(model), model.owner, leaf);
  model.secrets.set(leaf.keyId, { place: "server", leaf, meta, sealed: value });
  model.map = model.map.with(idBytes(leaf.keyId), leafHash(leaf));
}

function purges(known: Secret | undefined, leaf: LeafRecord): boolean {
  return leaf.status === "purged" && known !== undefined && known.leaf.status !== "purged";
}

/**
 * Takes over what another model of the same account knows of a newer state on the server.
 *
 * @returns false, and nothing changed, when it knows nothing newer.
 * @throws Fault integrity when the newer state does not continue this one: the account was forked.
 */
export function adoptServerSecrets(into: Model, from: Model): boolean {
  const [to, source] = [into.bound, from.bound];
  if (!to || !source || source.incarnation !== to.incarnation) return false;
  const { revision } = to.head.state;
  if (source.head.state.revision < revision) return false;
  const passed = source.head.state.revision === revision ? pinnedHash(source) : from.trail.get(revision);
  if (passed && !equalBytes(passed, pinnedHash(to))) {
    throw new Fault("integrity", "the server's account does not continue what this device has seen", {
      why: `revision ${revision} is another one in another process of this device: the account was forked`,
      hint: "trust another device's copy; ask the operator whether a backup was put back",
    });
  }
  if (source.head.state.revision === revision) return false;
  for (const secret of from.secrets.values()) {
    if (secret.place === "server") putServerLeaf(into, secret.leaf, secret.sealed);
  }
  to.head = source.head;
  to.settings = source.settings;
  to.syncedAtMs = source.syncedAtMs;
  adoptReceipts(to, source);
  return true;
}

/** Notes a log position that an authentic answer showed. */
export function witness(model: Model, head: AuditHead): void {
  const bound = boundOf(model);
  if (head.seq === bound.witnessed.seq) return;
  bound.witnessed = head;
  bound.receipts = [...bound.receipts, head].slice(-RECEIPTS_MAX);
  model.unsaved = true;
}

/**
 * Notes a log position that the server-wide log holds.
 *
 * @throws Fault integrity when another entry was seen there.
 */
export function noteReceipt(model: Model, head: AuditHead): void {
  const bound = boundOf(model);
  const known = bound.receipts.find(({ seq }) => seq === head.seq);
  if (known || head.seq === bound.verified.seq) {
    if (equalBytes((known ?? bound.verified).link, head.link)) return;
    throw new Fault("integrity", "the account's log was tampered with", { why: `there are two entries ${head.seq}` });
  }
  bound.receipts = [...bound.receipts, head].sort((a, b) => a.seq - b.seq).slice(-RECEIPTS_MAX);
  model.unsaved = true;
}

/**
 * Takes over the log positions that another process's copy of the vault has not seen. What was before a restore says
 * nothing of what comes after it.
 *
 * @throws Fault integrity when the two were shown different entries at one place; nothing is taken over then.
 */
export function adoptReceipts(to: Bound, from: Bound): void {
  if (from.incarnation !== to.incarnation) return;
  const all = new Map([to.verified, to.witnessed, ...to.receipts].map(({ seq, link }) => [seq, link]));
  for (const { seq, link } of [from.verified, from.witnessed, ...from.receipts]) {
    if (equalBytes(all.get(seq) ?? link, link)) continue;
    throw new Fault("integrity", "the account's log was tampered with", { why: `there are two entries ${seq}` });
  }
  const log = mergeLogs(to.log, from.log);
  const both = new Map([...to.receipts, ...from.receipts].map((head) => [head.seq, head]));
  const kept = [...both.values()].filter(({ seq }) => seq > to.verified.seq).sort((a, b) => a.seq - b.seq);
  to.receipts = kept.slice(-RECEIPTS_MAX);
  if (from.witnessed.seq > to.witnessed.seq) to.witnessed = from.witnessed;
  to.log = log;
}

/** Takes a local secret's new leaf in, with its value where it is a new version. */
export function putLocalLeaf(model: Model, leaf: LeafRecord, sealed: Uint8Array | null): void {
  const known = model.secrets.get(leaf.keyId);
  const before = known?.place === "local" ? known : undefined;
  const gone = leaf.status === "purged";
  model.erased ||= purges(known, leaf);
  const leaves = [...(before?.leaves ?? []).map((old) => (gone ? { ...old, meta: null } : old)), leaf];
  const added = sealed === null ? [] : [{ version: leaf.version, sealed }];
  const values = gone ? [] : [...(before?.values ?? []), ...added];
  const meta = decryptMeta(indexKeys(model), model.owner, leaf);
  model.secrets.set(leaf.keyId, { place: "local", leaf, meta, leaves, values });
}

/** Everything of a model as the vault's body. Wipe the result. */
export function encodeModel(model: Model): Uint8Array {
  if (model.bound && !equalBytes(model.map.root(), model.bound.head.state.root)) {
    throw new Fault("internal", "the vault would not fit its own pin", {
      hint: "nothing was written; run the command again",
    });
  }
  const all = [...model.secrets.values()];
  const text = bodyText({
    owner: model.owner,
    accountKey: model.accountKey,
    bound: model.bound,
    secrets: all.filter((s) => s.place === "server"),
    local: all.flatMap((s) => (s.place === "local" ? [{ leaves: s.leaves, values: s.values }] : [])),
    queue: model.queue,
    conflicts: openConflicts(model),
    ...model.held,
  });
  return new TextEncoder().encode(text);
}

/** Reads a vault's body and checks it against its own pin. @throws Fault corrupt */
export function decodeModel(body: Uint8Array): Model {
  try {
    const stored = decodeJson(bodyCodec, body);
    const model = newModel(stored.owner, lockKey(stored.accountKey), stored.bound);
    for (const { leaf, sealed } of stored.secrets) putServerLeaf(model, leaf, sealed);
    for (const { leaves, values } of stored.local) restoreLocal(model, leaves, values);
    model.queue = stored.queue;
    model.conflicts = stored.conflicts;
    model.held = { ...heldOf(stored), federationSecret: stored.federationSecret && lockKey(stored.federationSecret) };
    if (model.bound && Buffer.compare(model.map.root(), model.bound.head.state.root) !== 0) throw new Error("root");
    return model;
  } catch (error) {
    throw new Fault("corrupt", "the vault's content does not fit itself", {
      why: error instanceof Fault ? error.message : "its secrets are not the ones that it pinned",
      hint: "restore the vault from its previous generation or a backup",
    });
  }
}

function restoreLocal(model: Model, leaves: readonly LeafRecord[], values: LocalSecret["values"]): void {
  const leaf = leaves.at(-1);
  if (!leaf) throw new Error("empty");
  const meta = decryptMeta(indexKeys(model), model.owner, leaf);
  model.secrets.set(leaf.keyId, { place: "local", leaf, meta, leaves, values });
}

/** Facts of a fresh login or registration that tie a model to an account. */
export interface Binding {
  readonly account: string;
  readonly userId: UserId;
  readonly deviceId: DeviceId;
  readonly deviceSeed: Uint8Array;
  readonly serverIdentity: Uint8Array;
  readonly statementNumber: number;
  readonly head: SignedState;
  readonly settings: Settings;
  readonly audit: AuditHead;
}

/** A bound record that has verified nothing of the log yet. */
export function bind(binding: Binding, nowMs: number): Bound {
  return {
    account: binding.account,
    userId: binding.userId,
    incarnation: binding.head.state.incarnation,
    deviceId: binding.deviceId,
    deviceSeed: binding.deviceSeed,
    serverIdentity: binding.serverIdentity,
    statementNumber: binding.statementNumber,
    head: binding.head,
    settings: binding.settings,
    verified: { seq: 0, link: new Uint8Array(32), revision: 0 },
    witnessed: binding.audit,
    receipts: binding.audit.seq === 0 ? [] : [binding.audit],
    log: NO_LOG,
    syncedAtMs: nowMs,
    keyedRevision: binding.settings.credentialRevision,
    // whoever made the last rotation may have been cut short: each new device makes sure
    rewrapping: binding.settings.rotations.at(-1)?.revision ?? null,
  };
}

/** What a model needs from outside. */
export interface Surroundings {
  readonly now: () => number;
  readonly random: RandomSource;
  /** Something the owner should read, which is no failure. */
  readonly notice: (text: string) => void;
  /** Waits for so many milliseconds of `now`; the system's timer unless a simulation brings its own. */
  readonly pause?: (ms: number) => Promise<void>;
  /** Without one a login that needs a second factor fails. */
  readonly factor?: FactorSource;
}

/** Waits as the surroundings wait. */
export function pauseIn(around: Pick<Surroundings, "pause">, ms: number): Promise<void> {
  return around.pause ? around.pause(ms) : setTimeout(ms);
}

/** Hash of the state that this device has pinned. */
export function pinnedHash(bound: Bound): Uint8Array {
  return stateHash(bound.head.state);
}
