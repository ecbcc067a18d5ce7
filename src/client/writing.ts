import { wipe } from "../crypto/bytes.ts";
import { generateRsa } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import { type KeyId, newId, type RequestId } from "../ids.ts";
import { deriveGenerated, generateValue, resolveLength } from "../protocol/keygen.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import type { CommitName } from "../wire/operations.ts";
import type { GenerateInput, StoreInput, Where, Written } from "./api.ts";
import {
  checkedPublicKey,
  findSecret,
  infoOf,
  liveNamed,
  metaChange,
  newMeta,
  noSuchSecret,
  reservedTwice,
  secretOf,
  typeOfValue,
  valueChange,
} from "./changes.ts";
import { type Change, commitChanges } from "./commit.ts";
import { decryptMeta, type Meta } from "./meta.ts";
import { indexKeys, type Model, putLocalLeaf, type Secret } from "./model.ts";
import { secretName, secretTags } from "./names.ts";
import { type Open, online } from "./opened.ts";
import { leafOfVersion, leavesOf, readVersion, withheld } from "./reading.ts";
import type { Session } from "./session.ts";
import { synchronise } from "./sync.ts";
import { type HeldVault, withVault } from "./vaultbox.ts";

/** Where one write goes. */
export type Place = "server" | "local";

/** Where a write goes, and whether the vault keeps a copy. @throws Fault bad_input, conflict */
export function placeOf(open: Open, before: Secret | undefined, where: Where | null): { place: Place; keep: boolean } {
  const hasServer = open.box.model.bound !== null;
  if (!hasServer && (where === "server" || where === "both")) {
    throw new Fault("bad_input", "this profile has no server to store on", {
      hint: "use --store local, or register with a server",
    });
  }
  if (before) {
    const asked = where === null ? before.place : where === "local" ? "local" : "server";
    if (asked !== before.place) {
      throw new Fault(
        "conflict",
        `the secret lies ${before.place === "local" ? "in the local vault" : "on the server"}`,
        {
          hint: "remove it there first, or use another name",
        },
      );
    }
    const kept = before.place === "server" && before.sealed !== null;
    return { place: before.place, keep: where === null ? kept : where === "both" };
  }
  const chosen = where ?? (hasServer ? "both" : "local");
  return { place: chosen === "local" ? "local" : "server", keep: chosen === "both" };
}

function needSession(open: Open): Session {
  if (open.session) return open.session;
  throw new Fault("unreachable", "the server is away, and this write must reach it", {
    hint: "use --store local, or try again later",
  });
}

type Build = (model: Model) => Promise<readonly Change[]> | readonly Change[];

/** Commits on the server or in the vault, under the vault's lock. */
export async function write(open: Open, place: Place, operation: CommitName, build: Build): Promise<RequestId | null> {
  if (place === "local") {
    return withVault(open.box, open.around, (held) => writeLocal(open, held, build));
  }
  const session = needSession(open);
  return online(open, true, () =>
    withVault(open.box, open.around, (held) =>
      commitChanges(open.box.model, held, session, open.around, operation, () => build(open.box.model)),
    ),
  );
}

async function writeLocal(open: Open, held: HeldVault, build: Build): Promise<null> {
  const { model } = open.box;
  for (const { leaf, sealed } of await build(model)) putLocalLeaf(model, leaf, sealed);
  await held.save();
  return null;
}

async function written(open: Open, keyId: KeyId, requestId: RequestId | null): Promise<Written> {
  return { info: infoOf(secretOf(open.box.model, keyId)), requestId };
}

/**
 * Ids for new secrets with the server's random bytes; drawn here where there is no server. Its answer also shows
 * whether another device wrote meanwhile, so that a free name is free on the newest state.
 */
async function reserve(open: Open, place: Place, count: number): Promise<readonly Reserved[]> {
  const { random } = open.around;
  if (place === "local") {
    return Array.from({ length: count }, () => ({ keyId: newId<KeyId>(random), random: random(32) }));
  }
  const session = needSession(open);
  return online(open, true, async (at) => {
    const { output } = await session.call("secret.reserve", { count });
    if (output.items.length !== count) throw new Fault("integrity", "the server reserved another number of ids");
    if (at?.moved()) await synchronise(open.box.model, session, open.around);
    const ids = new Set(output.items.map(({ keyId }) => keyId));
    if (ids.size !== count || [...ids].some((keyId) => open.box.model.secrets.has(keyId))) throw reservedTwice();
    return output.items;
  });
}

interface Reserved {
  readonly keyId: KeyId;
  readonly random: Uint8Array;
}

/** Brings a name in that this device has not seen yet. */
async function seek(open: Open, name: string, removed: boolean): Promise<Secret> {
  try {
    return findSecret(open.box.model, name, { removed });
  } catch (error) {
    const { session } = open;
    const unseen = error instanceof Fault && error.code === "not_found" && open.box.model.bound !== null;
    if (!unseen || !session) throw error;
    await online(open, true, () => synchronise(open.box.model, session, open.around));
    return findSecret(open.box.model, name, { removed });
  }
}

async function makeValue(open: Open, keyId: KeyId, serverRandom: Uint8Array, input: GenerateInput) {
  if (input.type === "rsa") return generateRsa((resolveLength("rsa", input.length) ?? 3_072) as 2048 | 3072 | 4096);
  if (input.type === "note") throw new Fault("bad_input", "a note is written by people", { hint: "keyhold store" });
  const mine = open.around.random(32);
  const seed = deriveGenerated(serverRandom, mine, open.box.model.owner, keyId, input.type, input.length);
  try {
    return generateValue(input.type, seed, input.length);
  } finally {
    wipe(mine, seed);
  }
}

function taken(): Fault {
  return new Fault("exists", "a secret of this name exists", {
    hint: "use --replace for a new version, or another name",
  });
}

/** Generates a secret and stores it (docs/protocol.md §5.2). */
export async function generateSecret(open: Open, input: GenerateInput): Promise<Written> {
  const name = secretName(input.name);
  const tags = secretTags(input.tags);
  resolveLength(input.type, input.length);
  if (liveNamed(open.box.model, name) && !input.replace) throw taken();
  const [reserved] = await reserve(open, placeOf(open, liveNamed(open.box.model, name), input.where).place, 1);
  if (!reserved) throw new Fault("internal", "no id was reserved");
  const known = liveNamed(open.box.model, name);
  if (known && !input.replace) throw taken();
  const { place, keep } = placeOf(open, known, input.where);
  const keyId = known?.leaf.keyId ?? reserved.keyId;
  const made = await makeValue(open, keyId, reserved.random, input);
  try {
    const requestId = await write(open, place, "secret.generate", (model) => {
      const before = liveNamed(model, name);
      if (before?.leaf.keyId !== known?.leaf.keyId) throw taken();
      const meta = nextMeta(before, newMeta(name, input.type, tags, "generated", made.publicKey, open.around.now()));
      return [valueChange(model, keyId, before, meta, made.value, keep, open.around.random)];
    });
    return await written(open, keyId, requestId);
  } finally {
    wipe(made.value);
  }
}

/** The metadata of a next version: tags are kept when none are given, and the day of creation always. */
export function nextMeta(before: Secret | undefined, meta: Meta): Meta {
  if (!before?.meta) return meta;
  return { ...meta, createdAtMs: before.meta.createdAtMs, tags: meta.tags.length > 0 ? meta.tags : before.meta.tags };
}

/** Stores a value under a name; a name that exists gets a new version. */
export async function storeSecret(open: Open, input: StoreInput): Promise<Written> {
  const name = secretName(input.name);
  const tags = secretTags(input.tags);
  const seen = liveNamed(open.box.model, name);
  const reserved = seen ? undefined : (await reserve(open, placeOf(open, seen, input.where).place, 1))[0];
  const known = liveNamed(open.box.model, name);
  const { place, keep } = placeOf(open, known, input.where);
  const type = input.type ?? known?.meta?.type ?? typeOfValue(input.value);
  const publicKey = checkedPublicKey(type, input.value);
  const keyId = known?.leaf.keyId ?? reserved?.keyId;
  if (!keyId) throw new Fault("internal", "no id was reserved");
  const requestId = await write(open, place, "secret.store", (model) => {
    const before = liveNamed(model, name);
    if (before?.leaf.keyId !== known?.leaf.keyId) {
      throw new Fault("conflict", "another device made a secret of this name meanwhile", {
        hint: "run the command again",
      });
    }
    const meta = nextMeta(before, newMeta(name, type, tags, "stored", publicKey, open.around.now()));
    return [valueChange(model, keyId, before, meta, input.value, keep, open.around.random)];
  });
  return written(open, keyId, requestId);
}

/** Changes metadata or status of one secret. */
async function change(
  open: Open,
  name: string,
  operation: CommitName,
  status: "live" | "removed" | "purged",
  edit: (model: Model, secret: Secret, meta: Meta) => Meta,
): Promise<{ secret: Secret; requestId: RequestId | null }> {
  const known = await seek(open, name, status === "purged");
  const requestId = await write(open, known.place, operation, (model) => {
    const secret = secretOf(model, known.leaf.keyId, { removed: status === "purged" });
    if (secret.meta === null) throw noSuchSecret();
    return [metaChange(model, secret, edit(model, secret, secret.meta), status, open.around.random)];
  });
  return { secret: known, requestId };
}

/** Gives a secret another name. */
export async function renameSecret(open: Open, input: { from: string; to: string }): Promise<Written> {
  const to = secretName(input.to);
  const done = await change(open, input.from, "secret.update", "live", (model, secret, meta) => {
    const other = liveNamed(model, to);
    if (other && other.leaf.keyId !== secret.leaf.keyId) {
      throw new Fault("exists", "a secret of the new name exists", { hint: "choose another name" });
    }
    return { ...meta, name: to, updatedAtMs: open.around.now() };
  });
  return written(open, done.secret.leaf.keyId, done.requestId);
}

/** Adds and removes tags. */
export async function tagSecret(
  open: Open,
  input: { name: string; add: readonly string[]; remove: readonly string[] },
): Promise<Written> {
  const gone = new Set(secretTags(input.remove));
  const done = await change(open, input.name, "secret.update", "live", (_model, _secret, meta) => ({
    ...meta,
    tags: secretTags([...meta.tags.filter((tag) => !gone.has(tag)), ...input.add]),
    updatedAtMs: open.around.now(),
  }));
  return written(open, done.secret.leaf.keyId, done.requestId);
}

/** Removes a secret: a tombstone stays, and with `purge` nothing else does. */
export async function removeSecret(open: Open, input: { name: string; purge: boolean }): Promise<Written> {
  const [operation, status] = input.purge
    ? (["secret.purge", "purged"] as const)
    : (["secret.remove", "removed"] as const);
  const done = await change(open, input.name, operation, status, (_model, _secret, meta) => ({
    ...meta,
    updatedAtMs: open.around.now(),
  }));
  return { info: infoOf(done.secret), requestId: done.requestId };
}

/** Makes an older version, or a removed secret's, the newest one again. */
export async function restoreSecret(open: Open, input: { name: string; version: number }): Promise<Written> {
  const known = await seek(open, input.name, true);
  const value = await online(open, known.place === "server", (at) =>
    withheld(open, at, () => {
      const secret = secretOf(open.box.model, known.leaf.keyId, { removed: true });
      return readVersion(open, secret, input.version, secret.place === "local" ? null : at);
    }),
  );
  try {
    const type = await typeOfVersion(open, known, input.version);
    const publicKey = checkedPublicKey(type, value.value);
    const requestId = await write(open, known.place, "secret.restore", (model) => {
      const secret = secretOf(model, known.leaf.keyId, { removed: true });
      if (secret.meta === null) throw noSuchSecret();
      const other = liveNamed(model, secret.meta.name);
      if (other && other.leaf.keyId !== secret.leaf.keyId) throw taken();
      const meta = { ...secret.meta, type, publicKey, updatedAtMs: open.around.now() };
      const keep = secret.place === "server" && secret.sealed !== null;
      return [valueChange(model, secret.leaf.keyId, secret, meta, value.value, keep, open.around.random)];
    });
    return await written(open, known.leaf.keyId, requestId);
  } finally {
    wipe(value.value);
  }
}

async function typeOfVersion(open: Open, secret: Secret, version: number): Promise<SecretType> {
  const { leaves } = await leavesOf(open, secret, open.session);
  const meta = decryptMeta(indexKeys(open.box.model), open.box.model.owner, leafOfVersion(leaves, version));
  if (!meta) throw noSuchSecret();
  return meta.type;
}
