import { equalBytes } from "../../crypto/bytes.ts";
import type { Settings } from "../../protocol/state.ts";

const same = (a: Uint8Array | null, b: Uint8Array | null): boolean =>
  a === null || b === null ? a === b : equalBytes(a, b);

/** True when what opens with the password is the same. */
export function keepsPassword(a: Settings, b: Settings): boolean {
  return (
    same(a.wrappedAccountKey, b.wrappedAccountKey) &&
    same(a.masterCommitment, b.masterCommitment) &&
    same(a.credentialTag, b.credentialTag) &&
    a.credentialRevision === b.credentialRevision
  );
}

/** True when the earlier identities and keys are the same. */
export function keepsRotations(a: Settings, b: Settings): boolean {
  return (
    a.rotations.length === b.rotations.length &&
    a.rotations.every((rotation, i) => {
      const other = b.rotations[i];
      return (
        other !== undefined &&
        rotation.revision === other.revision &&
        same(rotation.identity, other.identity) &&
        same(rotation.wrapped, other.wrapped) &&
        same(rotation.handover, other.handover)
      );
    })
  );
}

/** True when identity, recovery kit and earlier keys are the same. */
export function keepsKeys(a: Settings, b: Settings): boolean {
  return (
    same(a.identity, b.identity) &&
    same(a.wrappedIdentity, b.wrappedIdentity) &&
    same(a.kit, b.kit) &&
    same(a.kitWrapped, b.kitWrapped) &&
    keepsRotations(a, b)
  );
}

/** True when everything but the recovery kit is the same. */
export function keepsAllButKit(a: Settings, b: Settings): boolean {
  return (
    keepsPassword(a, b) &&
    keepsDevices(a, b, 0) &&
    keepsRotations(a, b) &&
    same(a.identity, b.identity) &&
    same(a.wrappedIdentity, b.wrappedIdentity)
  );
}

/** True when `b` lists the devices of `a` unchanged in the same order, and `added` more after them. */
export function keepsDevices(a: Settings, b: Settings, added: number): boolean {
  return (
    b.devices.length === a.devices.length + added &&
    a.devices.every((device, i) => {
      const other = b.devices[i];
      return (
        other !== undefined &&
        device.id === other.id &&
        same(device.publicKey, other.publicKey) &&
        same(device.name, other.name) &&
        same(device.tokenHash, other.tokenHash) &&
        device.addedAtMs === other.addedAtMs
      );
    })
  );
}
