import { Fault } from "../../errors.ts";
import type { CeremonyId } from "../../ids.ts";
import type { Release, ReleaseApproval, SignedRelease } from "../../protocol/ceremony/model.ts";
import { approves, releaseHash, verifyRelease } from "../../protocol/ceremony/records.ts";
import type { Tx } from "../../storage/store.ts";
import { eachStored, putStored, readStored, removeStored, type Stored } from "../documents.ts";
import { changedMeanwhile } from "../federation/life.ts";
import { noSuchCeremony } from "./course.ts";
import { RELEASE, type ReleaseBody } from "./documents.ts";
import { counted } from "./limits.ts";
import { type Desk, note, readScene, type Scene } from "./scene.ts";
import type { KeyStoreService } from "./service.ts";
import { olderId, STORED_KEY, STORED_KEY_BEFORE, type StoredKeyBody } from "./storedkeys.ts";

/** Values that one participant has had, beside the wish that waits: the oldest are forgotten. */
const DONE_MAX = 3;

const releaseId = (id: CeremonyId, hash: Uint8Array): string => `${id}:${hash.toHex()}`;

/** The version of the key that a ceremony made, wherever it lies by now. @throws Fault denied for one that is gone */
async function madeBy(tx: Tx, { keyId, version }: Release): Promise<StoredKeyBody> {
  const newest = await readStored(tx, STORED_KEY, keyId);
  if (newest?.value.status !== "active")
    throw new Fault("denied", "the value has left this server's store for good, or was revoked");
  if (newest.value.record.version === version) return newest.value;
  const older = await readStored(tx, STORED_KEY_BEFORE, olderId(keyId, version));
  if (!older) throw new Fault("not_found", "this version of the key is not in the store");
  return older.value;
}

/** Who may ask by the manifest, with the key that signs. @throws Fault denied, integrity */
function demandAsker({ state }: Scene, signed: SignedRelease): void {
  const { draft } = state.manifest;
  const { index } = signed.release;
  const { collect } = draft.policy;
  const participant = state.joins.find(({ join }) => join.index === index)?.join.key;
  const key = collect === "organiser" && index === 0 ? draft.organiser : collect === "participants" && participant;
  if (!key) throw new Fault("denied", "by the ceremony's manifest this value is not for who asks");
  verifyRelease(signed, key);
}

/** Values on their way out of the store (docs/protocol.md §10.7). */
export function createReleasing(desk: Desk): Pick<KeyStoreService, "ceremony.collect" | "ceremony.approve"> {
  const { site } = desk;
  const { ctx, enclave } = site;

  /** The ceremony, which has made a value. @throws Fault not_found, conflict */
  async function stored(id: CeremonyId): Promise<Scene> {
    const scene = await readScene(desk, id);
    if (!scene) throw noSuchCeremony();
    if (scene.state.result === null) throw new Fault("conflict", "the ceremony has made no key so far");
    if (scene.state.result.stored === null)
      throw new Fault("not_found", "nothing of a multisig wallet lies in the store", {
        hint: "each participant fetches its own part",
      });
    return scene;
  }

  /** The wish as it lies here, or as it comes now: of each participant the newest one alone waits. */
  async function lay(tx: Tx, id: CeremonyId, release: SignedRelease): Promise<Stored<ReleaseBody>> {
    const own = releaseId(id, releaseHash(release.release));
    const known = await readStored(tx, RELEASE, own);
    if (known) return known;
    const { index } = release.release;
    const others = (await eachStored(tx, RELEASE, id)).filter((row) => row.value.release.release.index === index);
    const done = others.filter(({ value }) => value.sealed !== null);
    const waiting = others.filter(({ value }) => value.sealed === null);
    for (const row of [...waiting, ...done.slice(0, Math.max(0, done.length - DONE_MAX + 1))])
      await removeStored(tx, RELEASE, row.id);
    const row = { id: own, owner: id, place: ctx.now(), value: { release, approvals: [], sealed: null } };
    if (!(await putStored(tx, RELEASE, row, 0))) throw changedMeanwhile();
    return { ...row, version: 1 };
  }

  /** Seals the value to who asks; of two at once the first one's bytes are everyone's. */
  async function release(scene: Scene, row: Stored<ReleaseBody>, value: StoredKeyBody): Promise<Uint8Array> {
    const { sealed } = await enclave.call("stored.release", {
      stored: { record: value.record, sealed: value.sealed },
      transcript: scene.transcript,
      release: row.value.release,
      approvals: [...row.value.approvals],
    });
    return ctx.store.transaction(async (tx) => {
      const now = await readStored(tx, RELEASE, row.id);
      if (!now) throw changedMeanwhile();
      if (now.value.sealed) return now.value.sealed;
      await madeBy(tx, row.value.release.release);
      if (!(await putStored(tx, RELEASE, { ...now, value: { ...now.value, sealed } }, now.version)))
        throw changedMeanwhile();
      await note(site, tx, scene.ceremony.value.organiser, "ceremony.release", scene.id);
      return sealed;
    }, scene.id);
  }

  async function collect(signed: SignedRelease) {
    const { ceremonyId: id, keyId, version } = signed.release;
    const scene = await stored(id);
    const made = scene.state.result?.stored;
    if (made?.keyId !== keyId || made.version !== version)
      throw new Fault("denied", "this ceremony did not make this value");
    demandAsker(scene, signed);
    const needed = scene.state.manifest.draft.policy.quorum;
    return desk.turns.take(id, async () => {
      const { row, value } = await ctx.store.transaction(async (tx) => {
        const value = await madeBy(tx, signed.release);
        return { value, row: await lay(tx, id, signed) };
      }, id);
      const approvals = row.value.approvals.length;
      if (row.value.sealed) return { sealed: row.value.sealed, approvals, needed };
      if (approvals < needed) return { sealed: null, approvals, needed };
      return { sealed: await release(scene, row, value), approvals, needed };
    });
  }

  async function approve(id: CeremonyId, approval: ReleaseApproval): Promise<void> {
    const scene = await stored(id);
    const key = scene.state.joins.find(({ join }) => join.index === approval.index)?.join.key;
    if (!key || !approves(approval, approval.releaseHash, key))
      throw new Fault("denied", "this is not the signature of a participant");
    await ctx.store.transaction(async (tx) => {
      const row = await readStored(tx, RELEASE, releaseId(id, approval.releaseHash));
      if (!row) throw new Fault("not_found", "nobody asks for the value like this (any more)");
      const { approvals } = row.value;
      if (approvals.some(({ index }) => index === approval.index)) return;
      const value = { ...row.value, approvals: [...approvals, approval] };
      if (!(await putStored(tx, RELEASE, { ...row, value }, row.version))) throw changedMeanwhile();
    }, id);
  }

  return {
    "ceremony.collect": (remote, { release: signed }) => counted(ctx, remote, () => collect(signed)),
    "ceremony.approve": (remote, { ceremonyId, approval }) =>
      counted(ctx, remote, async () => {
        await desk.turns.take(ceremonyId, () => approve(ceremonyId, approval));
        return {};
      }),
  };
}
