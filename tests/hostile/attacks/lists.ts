import { type KeyId, newId } from "../../../src/ids.ts";
import type { LeafRecord } from "../../../src/protocol/leaf.ts";
import type { OutputOf } from "../../../src/wire/operations.ts";
import { type Middle, random } from "../../support/harness.ts";
import { editing } from "../../support/hostile.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";

/** What a device that was away is told of the account's secrets. */

/** Changes by the phone that the desk has not seen: a note, a note again, a key pair, a removal. */
export async function behind(stage: Stage): Promise<void> {
  const { phone, desk, known } = stage;
  const gone = stage.fresh("gone");
  const twice = stage.fresh("twice");
  await stage.store(phone, gone, "soon removed");
  await stage.store(phone, twice, "first");
  await desk.ok(["sync"]);
  await stage.store(phone, stage.fresh("new"), "new to the desk");
  await stage.store(phone, twice, "second");
  const pair = stage.fresh("pair");
  await phone.ok(["generate", pair, "--type", "ed25519"]);
  known.set(pair, null);
  await phone.ok(["remove", gone, "--yes"]);
  known.delete(gone);
}

type Leaves = readonly LeafRecord[];
type Sync = OutputOf<"state.sync">;

/** Edits what a synchronisation brings, whichever operation brings it. */
export const syncing = (stage: Stage, edit: (output: Sync) => Sync): Middle =>
  editing(stage.world, { "state.sync": edit, "secret.list": edit });

const leaves =
  (edit: (all: Leaves) => Leaves, command: readonly string[] = ["sync"]) =>
  async (stage: Stage): Promise<Attempt> => {
    await behind(stage);
    const lie = syncing(stage, (output) => ({ ...output, leaves: edit(output.leaves) }));
    return { lie, command, ends: "integrity" };
  };

const LIST = ["list", "--fresh"];
const byId = (a: LeafRecord, b: LeafRecord) => (a.keyId < b.keyId ? -1 : 1);
const next = (all: Leaves, i: number): LeafRecord => {
  const found = all[(i + 1) % all.length];
  if (!found) throw new Error("there are no leaves");
  return found;
};
const status = (from: LeafRecord["status"], to: LeafRecord["status"]) => (all: Leaves) =>
  all.map((leaf) => (leaf.status === from ? { ...leaf, status: to, meta: to === "purged" ? null : leaf.meta } : leaf));

/** All but the settings and states of a synchronisation that goes on and on. */
const endless =
  (made: (after: bigint) => Leaves) =>
  async (stage: Stage): Promise<Attempt> => {
    await behind(stage);
    const page = (_output: Sync, { request }: { request: { after: KeyId | null } }): Sync => ({
      leaves: made(request.after === null ? 0n : BigInt(`0x${request.after}`)),
      more: true,
      states: [],
      settings: null,
    });
    const lie = editing(stage.world, { "state.sync": page, "secret.list": page });
    return { lie, command: ["sync"], ends: "integrity" };
  };

const invented = (from: bigint): Leaves =>
  Array.from({ length: 200 }, (_, i) => ({
    keyId: (from + BigInt(i) + 1n).toString(16).padStart(32, "0") as KeyId,
    serial: 1,
    version: 1,
    sealedHash: random(32),
    metaHash: random(32),
    meta: random(150),
    publicKey: null,
    status: "live",
    previous: new Uint8Array(32),
  }));

export const LISTS: readonly Attack[] = [
  ...attacks("hide a secret", ["5.4", "5.6"], {
    "a list without one new secret": leaves((all) => all.slice(1), LIST),
    "a list without any change": leaves(() => [], LIST),
    "a synchronisation without one changed secret": leaves((all) => all.toSpliced(1, 1)),
    "a removal that is not told": leaves(status("removed", "live")),
    "live secrets shown as removed": leaves(status("live", "removed"), LIST),
    "live secrets shown as purged": leaves(status("live", "purged")),
    "newer states that its own answer names are withheld": async (stage) => {
      await behind(stage);
      const lie = syncing(stage, (output) => ({ ...output, leaves: [], states: [] }));
      return { lie, command: LIST, ends: "integrity" };
    },
    "the account's settings are withheld": async (stage) => {
      await behind(stage);
      const lie = syncing(stage, (output) => ({ ...output, settings: null }));
      return { lie, command: ["sync"], ends: "integrity" };
    },
  }),
  ...attacks("change type, version or id", ["2.2", "5.4", "5.5"], {
    "a note described as a key pair: metadata in exchange": leaves((all) =>
      all.map((leaf, i) => ({ ...leaf, meta: next(all, i).meta })),
    ),
    "metadata in exchange together with their hashes": leaves((all) =>
      all.map((leaf, i) => ({ ...leaf, meta: next(all, i).meta, metaHash: next(all, i).metaHash })),
    ),
    "a higher version": leaves((all) => all.map((leaf) => ({ ...leaf, version: leaf.version + 1 }))),
    "a higher serial": leaves((all) => all.map((leaf) => ({ ...leaf, serial: leaf.serial + 1 }))),
    "two secrets with their ids in exchange": leaves((all) =>
      all.map((leaf, i) => ({ ...leaf, keyId: next(all, i).keyId })).sort(byId),
    ),
    "a secret that nobody made": leaves((all) => [...all, { ...next(all, 0), keyId: newId<KeyId>(random) }].sort(byId)),
    "a secret told twice": leaves((all) => all.flatMap((leaf) => [leaf, leaf])),
    "the hash of another value": leaves(
      (all) => all.map((leaf, i) => ({ ...leaf, sealedHash: next(all, i).sealedHash })),
      LIST,
    ),
  }),
  ...attacks("replay an old version", ["5.4", "5.6"], {
    "an old change in place of the newest": async (stage) => {
      await behind(stage);
      const { store } = stage.world.server;
      const older = async (leaf: LeafRecord): Promise<LeafRecord> => {
        const all = await store.transaction((tx) => tx.history(stage.userId, leaf.keyId, 0, 10));
        return all[0] ?? leaf;
      };
      const edit = async (output: Sync) => ({ ...output, leaves: await Promise.all(output.leaves.map(older)) });
      return {
        lie: editing(stage.world, { "state.sync": edit, "secret.list": edit }),
        command: LIST,
        ends: "integrity",
      };
    },
  }),
  ...attacks("swap public keys", ["5.4"], {
    "another public key for a key pair": leaves(
      (all) => all.map((leaf) => (leaf.publicKey ? { ...leaf, publicKey: random(leaf.publicKey.length) } : leaf)),
      LIST,
    ),
  }),
  ...attacks("answer with a huge, deep or endless body", ["1.4", "5.6"], {
    "pages without end, full of new secrets": endless(invented),
    "pages without end, empty": endless(() => []),
  }),
];
