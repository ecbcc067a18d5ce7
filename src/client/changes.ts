import { type RandomSource, wipe, ZERO_HASH_BYTES } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { sshPublicKey } from "../formats/openssh.ts";
import { isId, type KeyId } from "../ids.ts";
import { type Content, type Field, type FileParts, shownFields } from "../protocol/content.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import { type LeafRecord, type LeafStatus, leafHash } from "../protocol/leaf.ts";
import { nearestName } from "../protocol/nearest.ts";
import { isCustodial } from "../protocol/provenance.ts";
import { openValue, sealedHash, sealValue } from "../protocol/secret.ts";
import { isTextType, type SecretType } from "../protocol/secrettype.ts";
import { decodeFile, decodeRecord, encodeFile, encodeRecord } from "../wire/content.ts";
import type { SecretInfo, Where } from "./api.ts";
import type { Change } from "./commit.ts";
import { encryptMeta, type Meta, UNREADABLE } from "./meta.ts";
import { type Model, recordKeys, type Secret } from "./model.ts";

const ZEROS = ZERO_HASH_BYTES;

/** Where a secret's newest value lies. */
export function whereIs(secret: Secret): Where {
  // what waits for the server lies in the vault
  if (secret.place !== "server") return "local";
  return secret.sealed === null ? "server" : "both";
}

/** What an origin says of who has seen the value (P12). */
export function custodyOf(origin: string | undefined): Pick<SecretInfo, "custody"> {
  return origin !== undefined && isCustodial(origin) ? { custody: "custodial" } : {};
}

/**
 * What callers see of a secret.
 *
 * @param origin Of another version than the newest.
 * @throws Fault not_found once purged
 */
export function infoOf(secret: Secret, origin: string | null = null): SecretInfo {
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
    origin: origin ?? meta.origin,
    ...custodyOf(origin ?? meta.origin),
    ...(secret.place === "queued" ? { queued: true } : {}),
    publicKey: meta.publicKey,
    expiresAt: meta.expiresAtMs === null ? null : new Date(meta.expiresAtMs).toISOString(),
    user: meta.user,
    urls: meta.urls,
  };
}

/** Live secrets, and with `removed` also those that can be restored. */
function named(model: Model, name: string, removed: boolean): Secret[] {
  return [...model.secrets.values()].filter(
    ({ leaf, meta }) =>
      meta?.name === name && meta.type !== "part" && (leaf.status === "live" || (removed && leaf.status === "removed")),
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
  if (!/^[0-9a-f]{4,32}$/.test(prefix)) throw notFound(model, name);
  const byId = [...model.secrets.values()].filter(
    ({ leaf, meta }) =>
      meta?.type !== "part" &&
      leaf.keyId.startsWith(prefix) &&
      (leaf.status === "live" || (removed && leaf.status === "removed")),
  );
  if (byId.length > 1) throw ambiguous(byId);
  if (!byId[0]) throw notFound(model, name);
  return byId[0];
}

/** That there is no such secret, with the name that may have been meant: whoever asks has the names already. */
function notFound(model: Model, given: string): Fault {
  const names = [...model.secrets.values()].flatMap(({ leaf, meta }) =>
    leaf.status === "live" && meta !== null && meta.type !== "part" ? [meta.name] : [],
  );
  const near = nearestName(given, names);
  if (near === null) return noSuchSecret();
  return new Fault("not_found", "no such secret", { hint: `there is ${JSON.stringify(near)}   (keyhold list)` });
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
  const dates = { createdAtMs: nowMs, updatedAtMs: nowMs, expiresAtMs: null };
  return { name, type, tags, ...dates, origin, publicKey, form: "raw", user: null, urls: [] };
}

/** Metadata of content: its form, and what of its fields is shown. */
export function withFields(meta: Meta, fields: readonly Field[], file?: FileParts): Meta {
  const form = file ? "parts" : fields.length > 0 ? "record" : "raw";
  return { ...meta, form, ...shownFields(fields) };
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
  if (isTextType(type) && value.length > 0 && typeOfValue(value) !== "note") {
    throw new Fault("bad_input", `a value of type "${type}" is UTF-8 text`, { hint: "use --type bytes" });
  }
  return type === "ssh" ? sshPublicKey(value) : publicKeyOf(type, value);
}

/** The server offers the id of a secret that exists as a new one: the old one would be overwritten. */
export function reservedTwice(): Fault {
  return new Fault("integrity", "the server reserved the id of another secret");
}

function newerVersion(): Fault {
  return new Fault("unsupported", "a newer version of keyhold wrote this secret", { hint: "update keyhold" });
}

/** Refuses the key id of a secret as a name: who asks for it by its id would get the other one. @throws Fault bad_input */
export function refuseIdAsName(model: Pick<Model, "secrets">, name: string): void {
  if (!model.secrets.has(name as KeyId)) return;
  throw new Fault("bad_input", "this is not a name for a secret", {
    why: "it is the key id of a secret that is there",
    hint: "use a path like db/prod",
  });
}

/** A change that gives a secret its first or next content, in the form that the metadata says. */
export function valueChange(
  model: Model,
  keyId: KeyId,
  before: Secret | undefined,
  meta: Meta,
  content: Content,
  keep: boolean,
  random: RandomSource,
): Change {
  const plain = plainOf(meta, content);
  try {
    return plainChange(model, keyId, before, meta, plain, keep, random);
  } finally {
    if (plain !== content.value) wipe(plain);
  }
}

/** The same of what is sealed in place of the value. */
export function plainChange(
  model: Model,
  keyId: KeyId,
  before: Secret | undefined,
  meta: Meta,
  plain: Uint8Array,
  keep: boolean,
  random: RandomSource,
): Change {
  if (!before && model.secrets.has(keyId)) throw reservedTwice();
  const version = (before?.leaf.version ?? 0) + 1;
  const context = { userId: model.owner, keyId, version, type: meta.type };
  const sealed = sealValue(model.keys.record, context, plain, random);
  return { leaf: nextLeaf(model, keyId, before, meta, version, sealedHash(sealed), "live", random), sealed, keep };
}

function plainOf({ form }: Meta, content: Content): Uint8Array {
  if (form === "raw") return content.value;
  if (form === "record") return encodeRecord(content);
  if (!content.file) throw new Fault("internal", "a file without its parts");
  return encodeFile(content.file, content.fields);
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
  if (meta.type !== "part" && meta.name !== before?.meta?.name) refuseIdAsName(model, meta.name);
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
 * @param meta Type and form of that version.
 * @throws Fault integrity
 */
export function openChecked(
  model: Model,
  leaf: LeafRecord,
  { type, form }: Pick<Meta, "type" | "form">,
  sealed: Uint8Array,
): Content {
  if (Buffer.compare(sealedHash(sealed), leaf.sealedHash) !== 0) {
    throw new Fault("integrity", "the server sent another value than the one that was stored");
  }
  if (model.secrets.get(leaf.keyId)?.meta?.origin === UNREADABLE) throw newerVersion();
  const context = { userId: model.owner, keyId: leaf.keyId, version: leaf.version, type };
  return contentOf(form, openValue(recordKeys(model), context, sealed));
}

/** What was sealed in place of a value, read by its form. Takes `plain` over. @throws Fault integrity */
export function contentOf(form: Meta["form"], plain: Uint8Array): Content {
  if (form === "raw") return { value: plain, fields: [] };
  try {
    return form === "parts" ? decodeFile(plain) : decodeRecord(plain);
  } finally {
    wipe(plain);
  }
}
