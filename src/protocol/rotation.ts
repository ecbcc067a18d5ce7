import { equalBytes } from "../crypto/bytes.ts";
import type { UserId } from "../ids.ts";
import { DEFAULTS } from "./defaults.ts";
import { handoversHold, type Rotation, type Settings } from "./state.ts";

function sameRotation(a: Rotation, b: Rotation): boolean {
  return (
    a.revision === b.revision &&
    equalBytes(a.identity, b.identity) &&
    equalBytes(a.wrapped, b.wrapped) &&
    equalBytes(a.handover, b.handover)
  );
}

/** True when revisions go up and no identity comes back. */
function ordered({ identity, rotations }: Settings): boolean {
  const seen = new Set([identity.toHex()]);
  return rotations.every((rotation, i) => {
    const before = rotations[i - 1];
    const name = rotation.identity.toHex();
    if (seen.has(name) || (before && before.revision >= rotation.revision)) return false;
    seen.add(name);
    return true;
  });
}

/**
 * The rotations that lead from the identity of earlier settings to that of later ones (docs/protocol.md §5.7): each
 * identity handed over to the next, and what both settings may know of earlier ones is the same. The later settings may
 * have dropped the oldest.
 *
 * @returns none where the identity is the same one; null when the later settings do not continue the earlier ones.
 */
export function rotationsSince(userId: UserId, before: Settings, after: Settings): readonly Rotation[] | null {
  const { rotations } = after;
  const left = rotations.findIndex(({ identity }) => equalBytes(identity, before.identity));
  if (left === -1 && !equalBytes(before.identity, after.identity)) return null;
  const shared = left === -1 ? rotations.length : left;
  const known = before.rotations.slice(before.rotations.length - shared);
  const same =
    known.length === shared &&
    known.every((rotation, i) => {
      const other = rotations[i];
      return other !== undefined && sameRotation(rotation, other);
    });
  return same && ordered(after) && handoversHold(userId, after) ? rotations.slice(shared) : null;
}

/** The rotations that stay when one more comes: the oldest goes when there is no room. */
export function keptRotations({ rotations }: Settings): readonly Rotation[] {
  return rotations.slice(Math.max(0, rotations.length + 1 - DEFAULTS.rotations));
}
