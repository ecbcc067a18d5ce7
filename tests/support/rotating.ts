import { nextState } from "../../src/client/commit.ts";
import { boundOf, identityOf, type Model } from "../../src/client/model.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import {
  accountKeys,
  openDeviceName,
  sealDeviceName,
  wrapAccountKey,
  wrapIdentity,
  wrapPreviousKey,
} from "../../src/protocol/account.ts";
import { handoverBytes, type Settings } from "../../src/protocol/state.ts";
import { type InputOf, requestHash } from "../../src/wire/operations.ts";
import { random } from "./harness.ts";

/** A rotation made by hand, so that a test can make it wrong. */
export interface RawRotation {
  readonly requestId: RequestId;
  readonly input: InputOf<"account.rotate">;
  readonly accountKey: Uint8Array;
  readonly identitySeed: Uint8Array;
}

/**
 * Builds one on a model's newest state.
 *
 * @param edit Changes the settings before they are signed.
 * @param signedBy Seed of the identity that signs the state; the new one unless told otherwise.
 */
export function rotationOf(
  model: Model,
  exportKey: Uint8Array,
  edit: (settings: Settings, before: Settings) => Settings = (settings) => settings,
  signedBy?: Uint8Array,
): RawRotation {
  const bound = boundOf(model);
  const { settings: before, head } = bound;
  const { owner } = model;
  const revision = head.state.revision + 1;
  const [accountKey, identitySeed] = [random(32), random(32)];
  const keys = accountKeys(accountKey, owner);
  const identity = signerFromSeed(identitySeed);
  const settings = edit(
    {
      ...before,
      ...wrapAccountKey(exportKey, owner, revision, accountKey, random),
      identity: identity.publicKey,
      wrappedIdentity: wrapIdentity(keys, owner, identitySeed, random),
      devices: before.devices.map((device) => {
        const name = openDeviceName(model.keys, owner, device.id, device.name);
        return { ...device, name: sealDeviceName(keys, owner, device.id, name, random) };
      }),
      rotations: [
        ...before.rotations,
        {
          revision,
          identity: before.identity,
          wrapped: wrapPreviousKey(keys, owner, revision, model.accountKey, random),
          handover: identityOf(model.keys, owner, before).sign(
            handoverBytes(owner, before.identity, identity.publicKey, revision),
          ),
        },
      ],
    },
    before,
  );
  const requestId = newId<RequestId>(random);
  const hash = requestHash("account.rotate", { record: null, settings, state: head });
  const signer = signedBy ? signerFromSeed(signedBy) : identity;
  const state = nextState(model, requestId, hash, model.map.root(), settings, signer);
  return { requestId, input: { record: null, settings, state }, accountKey, identitySeed };
}
