import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, UserId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { LeafRecord } from "../protocol/leaf.ts";
import { openMeta, sealMeta } from "../protocol/secret.ts";
import { SECRET_TYPES } from "../protocol/secrettype.ts";
import {
  bytes,
  type Codec,
  decodeJson,
  encodeJson,
  list,
  nullable,
  type Of,
  oneOf,
  struct,
  text,
  u53,
} from "../wire/codec.ts";
import { META_MAX } from "../wire/records.ts";

const always = {
  name: text({ min: 1, max: DEFAULTS.nameBytes }),
  type: oneOf(SECRET_TYPES),
  tags: list(text({ min: 1, max: DEFAULTS.tagBytes }), { max: DEFAULTS.tags }),
  createdAtMs: u53,
  updatedAtMs: u53,
  origin: text({ min: 1, max: 64 }),
  publicKey: nullable(bytes({ min: 1, max: 2_048 })),
};

const shortCodec = struct(always);
const longCodec = struct({
  ...always,
  /** Whether the sealed value is the value itself, a record of it and its fields, or a list of a file's parts. */
  form: oneOf(["raw", "record", "parts"]),
  expiresAtMs: nullable(u53),
  user: nullable(text({ min: 1, max: DEFAULTS.nameBytes })),
  urls: list(text({ min: 1, max: DEFAULTS.nameBytes }), { max: DEFAULTS.shownUrls }),
});

/** What the owner knows of a secret and the server does not (docs/protocol.md §5.3). */
export type Meta = Of<typeof longCodec>;

/** What is said of a secret without fields and expiry by leaving it out. */
const PLAIN = { form: "raw", expiresAtMs: null, user: null, urls: [] } as const;

const isPlain = ({ form, expiresAtMs, user, urls }: Meta): boolean =>
  form === "raw" && expiresAtMs === null && user === null && urls.length === 0;

/** Metadata as it is sealed: short where nothing more is said. */
export const metaCodec: Codec<Meta> = {
  decode(value, path) {
    const long = typeof value === "object" && value !== null && Object.hasOwn(value, "form");
    return long ? longCodec.decode(value, path) : { ...shortCodec.decode(value, path), ...PLAIN };
  },
  encode: (meta) => (isPlain(meta) ? shortCodec : longCodec).encode(meta),
};

/** Refuses metadata that could not be read again. @throws Fault bad_input */
function checkMeta(meta: Meta): void {
  decodeJson(metaCodec, new TextEncoder().encode(encodeJson(metaCodec, meta)));
}

/** Seals metadata for one leaf. @throws Fault bad_input for what could not be read again */
export function encryptMeta(
  indexKey: Uint8Array,
  owner: UserId,
  keyId: KeyId,
  serial: number,
  meta: Meta,
  random: RandomSource,
): Uint8Array {
  checkMeta(meta);
  const plain = new TextEncoder().encode(encodeJson(metaCodec, meta));
  const sealed = sealMeta(indexKey, owner, keyId, serial, plain, random);
  if (sealed.length > META_MAX)
    throw new Fault("bad_input", "name, tags, user and addresses of a secret are too long together");
  return sealed;
}

/** Origin of metadata that is the owner's but that this version does not understand: a newer one wrote it. */
export const UNREADABLE = "newer-version";

/** Stands for what a newer version wrote, so that one secret of it does not close the account to an older client. */
function unreadable({ keyId, publicKey }: LeafRecord): Meta {
  const name = `unreadable/${keyId}`;
  return { name, type: "bytes", tags: [], createdAtMs: 0, updatedAtMs: 0, origin: UNREADABLE, publicKey, ...PLAIN };
}

/** Opens a leaf's metadata; null once purged. @throws Fault integrity */
export function decryptMeta(indexKeys: readonly Uint8Array[], owner: UserId, leaf: LeafRecord): Meta | null {
  if (leaf.meta === null) return null;
  const plain = openMeta(indexKeys, owner, leaf.keyId, leaf.serial, leaf.meta);
  try {
    return decodeJson(metaCodec, plain);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return unreadable(leaf);
  }
}
