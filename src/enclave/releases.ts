import { equalBytes, wipe } from "../crypto/bytes.ts";
import { hpkeSeal } from "../crypto/hpke.ts";
import { Fault } from "../errors.ts";
import type { CeremonyState } from "../protocol/ceremony/life.ts";
import type { Release, ReleaseApproval, StoredKeyRecord } from "../protocol/ceremony/model.ts";
import { approves, releaseHash, releaseInfo, storedKeyHash, verifyRelease } from "../protocol/ceremony/records.ts";
import type { EnclaveInput, EnclaveOutput } from "./frames.ts";
import { movedMarks } from "./moves.ts";
import type { EnclaveParts } from "./parts.ts";
import { openStored } from "./storedvalue.ts";
import { ownState } from "./transcripts.ts";

/**
 * Seals a value to who asks for it, where the manifest that everyone committed to allows it: the ceremony ended in this
 * very value, who asks may have it, and as many participants as it takes have signed this one wish
 * (docs/protocol.md §10.7).
 *
 * @throws Fault denied, integrity
 */
export async function releaseStored(
  { keys, journal, now, random }: EnclaveParts,
  { stored, transcript, release: signed, approvals }: EnclaveInput<"stored.release">,
): Promise<EnclaveOutput<"stored.release">> {
  const { record } = stored;
  const { release } = signed;
  movedMarks(journal).demandHere(record.keyId);
  const state = ownState(keys, transcript, now());
  demandMade(state, record, release);
  verifyRelease(signed, askerOf(state, release.index));
  const hash = releaseHash(release);
  const { quorum } = state.manifest.draft.policy;
  if (agreed(state, approvals, hash) < quorum) {
    throw new Fault("denied", "not enough participants have agreed that this value leaves the store");
  }
  const value = openStored(keys, stored);
  try {
    return { sealed: await hpkeSeal(release.recipient, releaseInfo(record, hash), value, random) };
  } finally {
    wipe(value);
  }
}

/** The value is what this ceremony ended in, under the name, kind and policy of its manifest. */
function demandMade({ ceremonyId, result, manifest }: CeremonyState, record: StoredKeyRecord, release: Release): void {
  const other = () => new Fault("denied", "this ceremony did not make this value");
  if (!result?.stored) throw other();
  const { keyId, version } = result.stored;
  for (const named of [record, release]) {
    if (named.ceremonyId !== ceremonyId || named.keyId !== keyId || named.version !== version) throw other();
  }
  const { name, output, policy } = manifest.draft;
  if (!equalBytes(storedKeyHash(record), storedKeyHash({ ...record, name, output, policy }))) throw other();
}

/** Key of who asks. @throws Fault denied for anyone whom the policy does not name */
function askerOf({ manifest: { draft }, joins }: CeremonyState, index: number): Uint8Array {
  const { collect } = draft.policy;
  if (collect === "organiser" && index === 0) return draft.organiser;
  const participant = joins.find(({ join }) => join.index === index)?.join.key;
  if (collect === "participants" && participant) return participant;
  throw new Fault("denied", "by the ceremony's manifest this value is not for who asks");
}

/** How many different participants have signed this wish; what does not hold does not count. */
function agreed({ joins }: CeremonyState, approvals: readonly ReleaseApproval[], hash: Uint8Array): number {
  const by = new Set<number>();
  for (const approval of approvals) {
    const join = joins.find((one) => one.join.index === approval.index)?.join;
    if (join && !by.has(join.index) && approves(approval, hash, join.key)) by.add(join.index);
  }
  return by.size;
}
