import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, UserId } from "../ids.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { LeafRecord } from "../protocol/leaf.ts";
import { openMeta, sealMeta } from "../protocol/secret.ts";
import { SECRET_TYPES } from "../protocol/secrettype.ts";
import { bytes, decodeJson, encodeJson, list, nullable, type Of, oneOf, struct, text, u53 } from "../wire/codec.ts";
import { META_MAX } from "../wire/records.ts";

const metaCodec = struct({
  name: text({ min: 1, max: DEFAULTS.nameBytes }),
  type: oneOf(SECRET_TYPES),
  tags: list(text({ min: 1, max: DEFAULTS.tagBytes }), { max: DEFAULTS.tags }),
  createdAtMs: u53,
  updatedAtMs: u53,
  origin: text({ min: 1, max: 64 }),
  publicKey: nullable(bytes({ min: 1, max: 2_048 })),
});

/** What the owner knows of a secret and the server does not (docs/protocol.md §5.3). */
export type Meta = Of<typeof metaCodec>;

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
  if (sealed.length > META_MAX) throw new Fault("bad_input", "name and tags of a secret are too long together");
  return sealed;
}

/** Origin of metadata that is the owner's but that this version does not understand: a newer one wrote it. */
export const UNREADABLE = "newer-version";

/** Stands for what a newer version wrote, so that one secret of it does not close the account to an older client. */
function unreadable({ keyId, publicKey }: LeafRecord): Meta {
  const name = `unreadable/${keyId}`;
  return { name, type: "bytes", tags: [], createdAtMs: 0, updatedAtMs: 0, origin: UNREADABLE, publicKey };
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
