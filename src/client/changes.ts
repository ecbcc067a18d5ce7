import { type RandomSource, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { isId, type KeyId } from "../ids.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import { type LeafRecord, type LeafStatus, leafHash } from "../protocol/leaf.ts";
import { openValue, sealedHash, sealValue } from "../protocol/secret.ts";
import { isTextType, type SecretType } from "../protocol/secrettype.ts";
import type { SecretInfo, Where } from "./api.ts";
import type { Change } from "./commit.ts";
import { encryptMeta, type Meta, UNREADABLE } from "./meta.ts";
import { type Model, recordKeys, type Secret } from "./model.ts";

const ZEROS = ZERO_HASH_BYTES;

/** Where a secret's newest value lies. */
export function whereIs(secret: Secret): Where {
  if (secret.place === "local") return "local";
  return secret.sealed === null ? "server" : "both";
}

/** What callers see of a secret. @throws Fault not_found once purged */
export function infoOf(secret: Secret): SecretInfo {
  const { meta, leaf } = secret;
  if (meta === null) throw new Fault("not_found", "no such secret");
  return {
    name: meta.name,
    keyId: leaf.keyId,
    type: meta.type,
    version: leaf.version,
    tags: meta.tags,
    createdAt: new Date(meta.createdAtMs).toISOString(),
    updatedAt: new Date(meta.updatedAtMs).toISOString(),
    where: whereIs(secret),
    origin: meta.origin,
    publicKey: meta.publicKey,
  };
}

/** Live secrets, and with `removed` also those that can be restored. */
function named(model: Model, name: string, removed: boolean): Secret[] {
  return [...model.secrets.values()].filter(
    ({ leaf, meta }) => meta?.name === name && (leaf.status === "live" || (removed && leaf.status === "removed")),
  );
}

/** No secret has this name or id: the same answer whatever the reason. */
export function noSuchSecret(): Fault {
  return new Fault("not_found", "no such secret", { hint: "keyhold list" });
}

/**
 * Finds a secret by exact name, else by a unique prefix of its key id.
 *
 * @throws Fault not_found, ambiguous
 */
export function findSecret(model: Model, given: string, options: { removed?: boolean } = {}): Secret {
  const removed = options.removed ?? false;
  const name = given.normalize("NFC");
  const exact = named(model, name, false);
  if (exact.length === 1 && exact[0]) return exact[0];
  if (exact.length > 1) throw ambiguous(exact);
  const gone = removed ? named(model, name, true).sort((a, b) => timeOf(b) - timeOf(a)) : [];
  if (gone[0]) return gone[0];
  const prefix = given.toLowerCase();
  if (!/^[0-9a-f]{4,32}$/.test(prefix)) throw noSuchSecret();
  const byId = [...model.secrets.values()].filter(
    ({ leaf }) => leaf.keyId.startsWith(prefix) && (leaf.status === "live" || (removed && leaf.status === "removed")),
  );
  if (byId.length > 1) throw ambiguous(byId);
  if (!byId[0]) throw noSuchSecret();
  return byId[0];
}

/**
 * The secret of a whole key id, whatever other secrets are called.
 *
 * @throws Fault not_found
 */
export function secretOf(model: Model, keyId: KeyId, options: { removed?: boolean } = {}): Secret {
  const found = model.secrets.get(keyId);
  const { status } = found?.leaf ?? {};
  if (found && (status === "live" || (options.removed && status === "removed"))) return found;
  throw noSuchSecret();
}

const timeOf = (secret: Secret): number => secret.meta?.updatedAtMs ?? 0;

function ambiguous(found: readonly Secret[]): Fault {
  return new Fault("ambiguous", "more than one secret fits", {
    why: `key ids ${found.map(({ leaf }) => leaf.keyId).join(", ")}`,
    hint: "give a longer prefix of the key id",
  });
}

/** The live secret of a name, or undefined. @throws Fault ambiguous */
export function liveNamed(model: Model, name: string): Secret | undefined {
  const found = named(model, name, false);
  if (found.length > 1) throw ambiguous(found);
  return found[0];
}

/** True for a whole key id that this device does not know: the server is asked, so that its log has it. */
export function isForeignId(model: Model, given: string): boolean {
  return isId(given) && !model.secrets.has(given as KeyId);
}

/** A new secret's metadata. */
export function newMeta(
  name: string,
  type: SecretType,
  tags: readonly string[],
  origin: string,
  publicKey: Uint8Array | null,
  nowMs: number,
): Meta {
  return { name, type, tags, createdAtMs: nowMs, updatedAtMs: nowMs, origin, publicKey };
}

/** The type of a value that came without one: text or bytes. */
export function typeOfValue(value: Uint8Array): SecretType {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(value);
    return "note";
  } catch {
    return "bytes";
  }
}

/** Public key of a value of that type, which also checks the value. @throws Fault bad_input */
export function checkedPublicKey(type: SecretType, value: Uint8Array): Uint8Array | null {
  if (isTextType(type) && typeOfValue(value) !== "note") {
    throw new Fault("bad_input", `a value of type "${type}" is UTF-8 text`, { hint: "use --type bytes" });
  }
  return publicKeyOf(type, value);
}

/** The server offers the id of a secret that exists as a new one: the old one would be overwritten. */
export function reservedTwice(): Fault {
  return new Fault("integrity", "the server reserved the id of another secret");
}

function newerVersion(): Fault {
  return new Fault("unsupported", "a newer version of keyhold wrote this secret", { hint: "update keyhold" });
}

/** A change that gives a secret its first or next value. */
export function valueChange(
  model: Model,
  keyId: KeyId,
  before: Secret | undefined,
  meta: Meta,
  value: Uint8Array,
  keep: boolean,
  random: RandomSource,
): Change {
  if (!before && model.secrets.has(keyId)) throw reservedTwice();
  const version = (before?.leaf.version ?? 0) + 1;
  const sealed = sealValue(model.keys.record, { userId: model.owner, keyId, version, type: meta.type }, value, random);
  return { leaf: nextLeaf(model, keyId, before, meta, version, sealedHash(sealed), "live", random), sealed, keep };
}

/** A change of metadata or status alone. */
export function metaChange(model: Model, before: Secret, meta: Meta, status: LeafStatus, random: RandomSource): Change {
  const { leaf } = before;
  const next = nextLeaf(model, leaf.keyId, before, meta, leaf.version, leaf.sealedHash, status, random);
  return { leaf: next, sealed: null, keep: false };
}

function nextLeaf(
  model: Model,
  keyId: KeyId,
  before: Secret | undefined,
  meta: Meta,
  version: number,
  hash: Uint8Array,
  status: LeafStatus,
  random: RandomSource,
): LeafRecord {
  if (before?.meta?.origin === UNREADABLE) throw newerVersion();
  const serial = (before?.leaf.serial ?? 0) + 1;
  const previous = before ? leafHash(before.leaf) : ZEROS;
  const base = { keyId, serial, version, sealedHash: hash, status, previous };
  if (status === "purged") return { ...base, meta: null, metaHash: ZEROS, publicKey: null };
  const sealedMeta = encryptMeta(model.keys.index, model.owner, keyId, serial, meta, random);
  return { ...base, meta: sealedMeta, metaHash: sealedHash(sealedMeta), publicKey: meta.publicKey };
}

/**
 * Opens a sealed value after checking that it is the one that the leaf commits to.
 *
 * @throws Fault integrity
 */
export function openChecked(model: Model, leaf: LeafRecord, type: SecretType, sealed: Uint8Array): Uint8Array {
  if (Buffer.compare(sealedHash(sealed), leaf.sealedHash) !== 0) {
    throw new Fault("integrity", "the server sent another value than the one that was stored");
  }
  if (model.secrets.get(leaf.keyId)?.meta?.origin === UNREADABLE) throw newerVersion();
  const context = { userId: model.owner, keyId: leaf.keyId, version: leaf.version, type };
  return openValue(recordKeys(model), context, sealed);
}
