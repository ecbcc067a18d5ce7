import { concat, type RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId } from "../ids.ts";
import { accountKeys, previousKeys } from "../protocol/account.ts";
import type { LeafRecord } from "../protocol/leaf.ts";
import { rewrap, WRAPPED_BYTES } from "../protocol/secret.ts";
import type { Settings } from "../protocol/state.ts";
import { boundOf, indexKeys, type Model, recordKeys, type Secret } from "./model.ts";
import { resealQueue } from "./queue.ts";

/** Sealed bytes whose wrapped key was replaced; as they are where it is the newest, or where no key opens it. */
function wrappedAnew(sealed: Uint8Array, replace: (wrapped: Uint8Array) => Uint8Array | null): Uint8Array {
  try {
    const wrapped = replace(sealed.subarray(0, WRAPPED_BYTES));
    return wrapped === null ? sealed : concat(wrapped, sealed.subarray(WRAPPED_BYTES));
  } catch (error) {
    // reading it says so
    if (error instanceof Fault && error.code === "integrity") return sealed;
    throw error;
  }
}

/** Wraps everything that the vault itself keeps under the account key of now. */
export function rewrapKept(model: Model, random: RandomSource): void {
  const { owner: userId } = model;
  const [index, record] = [indexKeys(model), recordKeys(model)];
  const leafAnew = (leaf: LeafRecord): LeafRecord => {
    if (leaf.meta === null) return leaf;
    const context = { kind: "meta-key", userId, keyId: leaf.keyId, serial: leaf.serial } as const;
    return { ...leaf, meta: wrappedAnew(leaf.meta, (wrapped) => rewrap(index, context, wrapped, random)) };
  };
  const valueAnew = (keyId: KeyId, version: number, sealed: Uint8Array): Uint8Array => {
    const context = { kind: "data-key", userId, keyId, version } as const;
    return wrappedAnew(sealed, (wrapped) => rewrap(record, context, wrapped, random));
  };
  const anew = (keyId: KeyId, secret: Secret): Secret => {
    const leaf = leafAnew(secret.leaf);
    if (secret.place === "queued") return secret;
    if (secret.place === "server") {
      return { ...secret, leaf, sealed: secret.sealed && valueAnew(keyId, leaf.version, secret.sealed) };
    }
    const values = secret.values.map((one) => ({ ...one, sealed: valueAnew(keyId, one.version, one.sealed) }));
    return { ...secret, leaf, leaves: secret.leaves.map(leafAnew), values };
  };
  for (const [keyId, secret] of model.secrets) model.secrets.set(keyId, anew(keyId, secret));
  model.queue = resealQueue(model.queue, record, userId, random);
}

/**
 * Puts the account key and identity of a rotation in the place of those before, and wraps anew what the vault keeps.
 * The caller has checked where they come from, and takes in the state that they belong to.
 *
 * @param accountKey 32 bytes, retained.
 * @param revision Revision of the rotation: until the server's copies are wrapped anew, too, the model notes it.
 */
export function renewModel(
  model: Model,
  accountKey: Uint8Array,
  settings: Settings,
  revision: number,
  random: RandomSource,
): void {
  const bound = boundOf(model);
  const { identity, wrappedIdentity, rotations } = settings;
  bound.settings = { ...bound.settings, identity, wrappedIdentity, rotations };
  bound.rewrapping = revision;
  model.older = previousKeys(accountKey, model.owner, settings).map((key) => accountKeys(key, model.owner));
  model.accountKey = accountKey;
  model.keys = accountKeys(accountKey, model.owner);
  rewrapKept(model, random);
}
