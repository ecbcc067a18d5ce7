import { equalBytes, wipe } from "../crypto/bytes.ts";
import { generateRsa } from "../crypto/rsa.ts";
import { Fault } from "../errors.ts";
import type { KeyId } from "../ids.ts";
import { type Content, checkFields, type Field, type FileParts } from "../protocol/content.ts";
import { deriveGenerated, generateValue, resolveLength } from "../protocol/keygen.ts";
import { isCustodial } from "../protocol/provenance.ts";
import { isGenerated, type SecretType } from "../protocol/secrettype.ts";
import type { CommitName } from "../wire/operations.ts";
import type { GenerateInput, StoreInput, Written } from "./api.ts";
import {
  checkedPublicKey,
  findSecret,
  infoOf,
  liveNamed,
  metaChange,
  newMeta,
  noSuchSecret,
  secretOf,
  typeOfValue,
  valueChange,
  withFields,
} from "./changes.ts";
import { expiryMs } from "./expiry.ts";
import { shapeGenerated } from "./generated.ts";
import { decryptMeta, type Meta } from "./meta.ts";
import { indexKeys, type Model, type Secret } from "./model.ts";
import { secretName, secretTags } from "./names.ts";
import { isAway, type Open, online } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import { type Done, isKept, placeOf, reserveOrDraw, sendFirst, writeOrQueue } from "./placing.ts";
import { leafOfVersion, leavesOf, readVersion, withheld } from "./reading.ts";
import { synchronise } from "./sync.ts";

async function written(open: Open, keyId: KeyId, { requestId, queued }: Done): Promise<Written> {
  return { info: infoOf(secretOf(viewOf(open.box.model), keyId)), requestId, queued };
}

/** Brings a name in that this device has not seen yet. */
async function seek(open: Open, name: string, removed: boolean): Promise<Secret> {
  try {
    return findSecret(viewOf(open.box.model), name, { removed });
  } catch (error) {
    const { session } = open;
    const unseen = error instanceof Fault && error.code === "not_found" && open.box.model.bound !== null;
    if (!unseen || !session) throw error;
    try {
      await online(open, true, () => synchronise(open.box.model, session, open.around));
    } catch (failure) {
      // the vault does not know it, and nobody else can be asked
      throw isAway(failure) ? error : failure;
    }
    return findSecret(viewOf(open.box.model), name, { removed });
  }
}

async function makeValue(open: Open, keyId: KeyId, serverRandom: Uint8Array, input: GenerateInput) {
  if (input.type === "rsa") return generateRsa((resolveLength("rsa", input.length) ?? 3_072) as 2048 | 3072 | 4096);
  if (!isGenerated(input.type)) throw new Fault("internal", "this type is not generated");
  const mine = open.around.random(32);
  const seed = deriveGenerated(serverRandom, mine, open.box.model.owner, keyId, input.type, input.length);
  try {
    return shapeGenerated(input.type, input.name, generateValue(input.type, seed, input.length));
  } finally {
    wipe(mine, seed);
  }
}

function taken(): Fault {
  return new Fault("exists", "a secret of this name exists", {
    hint: "use --replace for a new version, or another name",
  });
}

/** Refuses the name of a federation's key for a new secret: `key sign` could mean either. @throws Fault exists */
function refuseFederated({ box }: Open, name: string): void {
  const { federatedKeys } = box.model.held;
  if (!federatedKeys.some((key) => key.name === name)) return;
  throw new Fault("exists", `"${name}" is a key of a federation`, { hint: "choose another name; keyhold key list" });
}

/** Generates a secret and stores it (docs/protocol.md §5.2). */
export async function generateSecret(open: Open, input: GenerateInput): Promise<Written> {
  const name = secretName(input.name);
  const tags = secretTags(input.tags);
  resolveLength(input.type, input.length);
  const insist = input.where === "server";
  const wish = { insist, away: await sendFirst(open) };
  const seen = liveNamed(viewOf(open.box.model), name);
  if (seen && !input.replace) throw taken();
  if (!seen) refuseFederated(open, name);
  const { reserved, away } = await reserveOrDraw(open, placeOf(open, seen, input.where).place, wish);
  if (!reserved) throw new Fault("internal", "no id was reserved");
  const known = liveNamed(viewOf(open.box.model), name);
  if (known && !input.replace) throw taken();
  const { place, keep } = placeOf(open, known, input.where);
  const keyId = known?.leaf.keyId ?? reserved.keyId;
  const { fields } = await beside(open, known, input);
  const made = await makeValue(open, keyId, reserved.random, input);
  try {
    const done = await writeOrQueue(open, place, "secret.generate", known, { insist, away }, (model) => {
      const before = liveNamed(model, name);
      if (before?.leaf.keyId !== known?.leaf.keyId) throw taken();
      const fresh = newMeta(name, input.type, tags, "generated", made.publicKey, open.around.now());
      const meta = withFields(nextMeta(before, fresh, input.expiresAt), fields);
      return [valueChange(model, keyId, before, meta, { value: made.value, fields }, keep, open.around.random)];
    });
    return await written(open, keyId, done);
  } finally {
    wipe(made.value);
  }
}

/**
 * The metadata of a next version: tags are kept when none are given, the day of creation always, and the day of expiry
 * when nothing is said of it.
 */
export function nextMeta(before: Secret | undefined, meta: Meta, expiresAt?: string | null): Meta {
  const expiresAtMs = expiresAt === undefined ? (before?.meta?.expiresAtMs ?? null) : expiryMs(expiresAt);
  if (!before?.meta) return { ...meta, expiresAtMs };
  const tags = meta.tags.length > 0 ? meta.tags : before.meta.tags;
  return { ...meta, createdAtMs: before.meta.createdAtMs, tags, expiresAtMs };
}

interface Beside {
  readonly value: Uint8Array | null;
  readonly fields: readonly Field[];
  readonly file?: FileParts | undefined;
}

/** What of the version before goes into the next one: whatever was not given. The value is the caller's to wipe. */
async function beside(
  open: Open,
  known: Secret | undefined,
  given: { readonly value?: Uint8Array | null; readonly fields?: readonly Field[] },
): Promise<Beside> {
  if (given.fields !== undefined) checkFields(given.fields);
  const wanted =
    given.value === null || (given.fields === undefined && known?.meta !== null && known?.meta.form !== "raw");
  if (!known || !wanted) return { value: null, fields: given.fields ?? [] };
  const before = await online(open, false, (at) =>
    withheld(open, at, () => readVersion(open, known, known.leaf.version, known.place === "local" ? null : at)),
  );
  const fields = given.fields ?? before.fields;
  if (given.value === null) return { value: before.value, fields, file: before.file };
  wipe(before.value);
  return { value: null, fields };
}

/**
 * Origin of what is stored: of a value that a server has seen it stays, whatever else of the secret changes. Where
 * nobody can tell whether the value is the same, it counts as the same.
 *
 * @throws Fault bad_input for an origin that callers do not give
 */
async function originOf(
  open: Open,
  known: Secret | undefined,
  { value, origin }: Pick<StoreInput, "value" | "origin">,
): Promise<string> {
  if (origin !== undefined) return checkedOrigin(origin);
  const before = known?.meta?.origin ?? "";
  if (!known || !isCustodial(before)) return "stored";
  return value === null || (await holdsValue(open, known, value)) ? before : "stored";
}

/** An origin that a caller gives: of a value that a server has seen, and of no other. @throws Fault bad_input */
export function checkedOrigin(origin: string): string {
  if (isCustodial(origin)) return origin;
  throw new Fault("bad_input", "an origin that is given is that of a ceremony or of a key that was handed over");
}

/** Whether the newest version has this very value; true where it is out of reach. */
async function holdsValue(open: Open, known: Secret, value: Uint8Array): Promise<boolean> {
  let before: Uint8Array | undefined;
  try {
    const read = await online(open, false, (at) =>
      withheld(open, at, () => readVersion(open, known, known.leaf.version, known.place === "local" ? null : at)),
    );
    before = read.value;
    return equalBytes(before, value);
  } catch (error) {
    if (isAway(error)) return true;
    throw error;
  } finally {
    wipe(before);
  }
}

/** Another version is there than the caller has seen. */
export function changedMeanwhile(): Fault {
  return new Fault("conflict", "the secret was changed meanwhile", {
    why: "another device or program stored a version that this command has not seen",
    hint: "keyhold history NAME, then run the command again",
  });
}

/** Refuses content without anything in it, and a type without its value. @throws Fault bad_input */
function checkContent(type: SecretType, { value, fields, file }: Content): void {
  if (file) {
    if (type === "file") return;
    throw new Fault("bad_input", "a file of this size stays a file", { hint: "leave --type out" });
  }
  if (value.length > 0 || (fields.length > 0 && ["login", "card", "identity"].includes(type))) return;
  throw new Fault("bad_input", "a secret needs a value", { hint: "give one, or use a type whose fields are enough" });
}

/** Stores content under a name; a name that exists gets a new version. */
export async function storeSecret(open: Open, input: StoreInput): Promise<Written> {
  const name = secretName(input.name);
  const tags = secretTags(input.tags);
  const insist = input.where === "server";
  const wish = { insist, away: await sendFirst(open) };
  const seen = liveNamed(viewOf(open.box.model), name);
  if (!seen && input.value === null) throw noSuchSecret();
  if (!seen) refuseFederated(open, name);
  const aim = placeOf(open, seen, input.where).place;
  const { reserved, away } = seen ? { ...wish, reserved: undefined } : await reserveOrDraw(open, aim, wish);
  const known = liveNamed(viewOf(open.box.model), name);
  const { place, keep } = placeOf(open, known, input.where);
  const seenVersion = known?.leaf.version ?? 0;
  if (input.ifVersion !== undefined && input.ifVersion !== seenVersion) throw changedMeanwhile();
  const kept = await beside(open, known, input);
  const origin = await originOf(open, known, input);
  const value = input.value ?? kept.value ?? new Uint8Array(0);
  try {
    const content = { value, fields: kept.fields, ...(kept.file && { file: kept.file }) };
    const type = input.type ?? known?.meta?.type ?? typeOfValue(value);
    checkContent(type, content);
    const publicKey = checkedPublicKey(type, value);
    const keyId = known?.leaf.keyId ?? reserved?.keyId;
    if (!keyId) throw new Fault("internal", "no id was reserved");
    // what was taken over from a version must not go on top of another one
    const bound =
      input.ifVersion !== undefined || input.value === null || (input.fields === undefined && kept.fields.length > 0);
    const done = await writeOrQueue(open, place, "secret.store", known, { insist, away }, (model) => {
      const before = liveNamed(model, name);
      if (before?.leaf.keyId !== known?.leaf.keyId) {
        throw new Fault("conflict", "another device made a secret of this name meanwhile", {
          hint: "run the command again",
        });
      }
      if (bound && (before?.leaf.version ?? 0) !== seenVersion) throw changedMeanwhile();
      const fresh = newMeta(name, type, tags, origin, publicKey, open.around.now());
      const meta = withFields(nextMeta(before, fresh, input.expiresAt), content.fields, content.file);
      return [valueChange(model, keyId, before, meta, content, keep, open.around.random)];
    });
    return await written(open, keyId, done);
  } finally {
    wipe(kept.value ?? undefined);
  }
}

/** Changes metadata or status of one secret. */
async function change(
  open: Open,
  name: string,
  operation: CommitName,
  status: "live" | "removed" | "purged",
  edit: (model: Model, secret: Secret, meta: Meta) => Meta,
): Promise<{ secret: Secret; done: Done }> {
  const away = await sendFirst(open);
  const known = await seek(open, name, status === "purged");
  const place = known.place === "local" ? "local" : "server";
  const done = await writeOrQueue(open, place, operation, known, { insist: false, away }, (model) => {
    const secret = secretOf(model, known.leaf.keyId, { removed: status === "purged" });
    if (secret.meta === null) throw noSuchSecret();
    return [metaChange(model, secret, edit(model, secret, secret.meta), status, open.around.random)];
  });
  return { secret: known, done };
}

/** Gives a secret another name. */
export async function renameSecret(open: Open, input: { from: string; to: string }): Promise<Written> {
  const to = secretName(input.to);
  refuseFederated(open, to);
  const { secret, done } = await change(open, input.from, "secret.update", "live", (model, before, meta) => {
    const other = liveNamed(model, to);
    if (other && other.leaf.keyId !== before.leaf.keyId) {
      throw new Fault("exists", "a secret of the new name exists", { hint: "choose another name" });
    }
    return { ...meta, name: to, updatedAtMs: open.around.now() };
  });
  return written(open, secret.leaf.keyId, done);
}

/** Adds and removes tags. */
export async function tagSecret(
  open: Open,
  input: { name: string; add: readonly string[]; remove: readonly string[] },
): Promise<Written> {
  const gone = new Set(secretTags(input.remove));
  const { secret, done } = await change(open, input.name, "secret.update", "live", (_model, _secret, meta) => ({
    ...meta,
    tags: secretTags([...meta.tags.filter((tag) => !gone.has(tag)), ...input.add]),
    updatedAtMs: open.around.now(),
  }));
  return written(open, secret.leaf.keyId, done);
}

/** Removes a secret: a tombstone stays, and with `purge` nothing else does. */
export async function removeSecret(open: Open, input: { name: string; purge: boolean }): Promise<Written> {
  const [operation, status] = input.purge
    ? (["secret.purge", "purged"] as const)
    : (["secret.remove", "removed"] as const);
  const { secret, done } = await change(open, input.name, operation, status, (_model, _secret, meta) => ({
    ...meta,
    updatedAtMs: open.around.now(),
  }));
  return { info: infoOf(secret), ...done };
}

/** Makes an older version, or a removed secret's, the newest one again. */
export async function restoreSecret(open: Open, input: { name: string; version: number }): Promise<Written> {
  const away = await sendFirst(open);
  const known = await seek(open, input.name, true);
  const content = await online(open, false, (at) =>
    withheld(open, at, () => {
      const secret = secretOf(viewOf(open.box.model), known.leaf.keyId, { removed: true });
      return readVersion(open, secret, input.version, secret.place === "local" ? null : at);
    }),
  );
  try {
    const { type, expiresAtMs, origin } = await metaOfVersion(open, known, input.version);
    const publicKey = checkedPublicKey(type, content.value);
    const place = known.place === "local" ? "local" : "server";
    const done = await writeOrQueue(open, place, "secret.restore", known, { insist: false, away }, (model) => {
      const secret = secretOf(model, known.leaf.keyId, { removed: true });
      if (secret.meta === null) throw noSuchSecret();
      const other = liveNamed(model, secret.meta.name);
      if (other && other.leaf.keyId !== secret.leaf.keyId) throw taken();
      const dated = { ...secret.meta, type, publicKey, expiresAtMs, origin, updatedAtMs: open.around.now() };
      const meta = withFields(dated, content.fields, content.file);
      const keep = isKept(secret);
      return [valueChange(model, secret.leaf.keyId, secret, meta, content, keep, open.around.random)];
    });
    return await written(open, known.leaf.keyId, done);
  } finally {
    wipe(content.value);
  }
}

async function metaOfVersion(open: Open, secret: Secret, version: number): Promise<Meta> {
  if (secret.meta && version === secret.leaf.version) return secret.meta;
  const waiting = secret.place === "queued" ? secret.waiting.find((one) => one.version === version) : undefined;
  if (waiting?.entry.sealed) return waiting.entry.meta;
  if (secret.place === "queued") {
    if (secret.under === null) throw noSuchSecret();
    return metaOfVersion(open, secret.under, version);
  }
  const { leaves } = await leavesOf(open, secret, open.session);
  const meta = decryptMeta(indexKeys(open.box.model), open.box.model.owner, leafOfVersion(leaves, version));
  if (!meta) throw noSuchSecret();
  return meta;
}
