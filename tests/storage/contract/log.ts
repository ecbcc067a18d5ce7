import { expect, test } from "bun:test";
import { auditLink, auditPseudonym } from "../../../src/protocol/audit.ts";
import type { LogLeaf, Store, Tx, UnloggedHead } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { account, EVERY, filled, record, userId, ZEROS } from "../rows.ts";

const EMPTY = { size: 0, root: filled(0) };
const BEGUN = { origin: "keyhold/log/test", ...EMPTY, restart: null };

const leaf = (n: number): LogLeaf => ({ hash: filled(n), pseudonym: filled(n % 2), seq: n, link: filled(n + 100) });
const heads = (tx: Tx): Promise<readonly UnloggedHead[]> => tx.unloggedHeads(null, 100);
const add = (leaves: readonly LogLeaf[], given: readonly UnloggedHead[] = []) => ({ leaves, nodes: [], heads: given });

/** An account with a log of `entries` entries. */
async function withLog(tx: Tx, n: number, entries: number): Promise<void> {
  await tx.insertAccount(account(n));
  for (let i = 0; i < entries; i++) await record(tx, n);
}

export function logContract(store: () => Store): void {
  test("the salt of the first entry stays the log's; of an erased account the pseudonym", async () => {
    await store().transaction(async (tx) => {
      const user = userId(1);
      expect(await tx.auditPosition(user)).toEqual({ ...ZEROS, logSalt: null });
      await tx.insertAccount(account(1));
      expect(await tx.auditPosition(user)).toEqual({ ...ZEROS, logSalt: null });
      const first = await record(tx, 1);
      const second = await record(tx, 1);
      expect(first.salt).not.toEqual(second.salt);
      const at = { seq: 2, link: auditLink(second) };
      expect(await tx.auditPosition(user)).toEqual({ ...at, logSalt: first.salt });
      await tx.startLog(BEGUN, []);
      const pseudonym = auditPseudonym(user, first.salt);
      expect(await heads(tx)).toEqual([{ userId: user, ...at, pseudonym }]);
      const row = { userId: user, ...at, loggedSeq: 0, expiresAtMs: null };
      expect(await tx.auditHeads(null, 9)).toEqual([{ ...row, logSalt: first.salt, pseudonym: null }]);
      await tx.removeAccount(user);
      expect(await tx.auditHeads(null, 9)).toEqual([{ ...row, logSalt: null, pseudonym }]);
      expect(await heads(tx)).toEqual([{ userId: user, ...at, pseudonym }]);
      await tx.appendLog(EMPTY, { size: 1, root: filled(1) }, add([leaf(0)], await heads(tx)));
      expect(await heads(tx)).toEqual([]);
      expect((await tx.auditHeads(null, 9))[0]?.loggedSeq).toBe(2);
      expect((await tx.auditLinks(user, 0, 9)).map(({ seq }) => seq)).toEqual([1, 2]);
      expect(await tx.audit(user, EVERY)).toEqual([]);
    });
  });

  test("unlogged heads come in pages, shadows among them, and are done at the sequence that was logged", async () => {
    await store().transaction(async (tx) => {
      await withLog(tx, 3, 1);
      await record(tx, 1, {}, 500);
      await withLog(tx, 2, 2);
      await tx.startLog(BEGUN, []);
      const ids = async (after: number | null, limit: number) =>
        (await tx.unloggedHeads(after === null ? null : userId(after), limit)).map((head) => head.userId);
      expect(await ids(null, 9)).toEqual([userId(1), userId(2), userId(3)]);
      expect(await ids(null, 2)).toEqual([userId(1), userId(2)]);
      expect(await ids(2, 9)).toEqual([userId(3)]);
      const taken = await heads(tx);
      await record(tx, 2);
      await tx.appendLog(EMPTY, { size: 3, root: filled(1) }, add([leaf(0), leaf(1), leaf(2)], taken));
      expect(await heads(tx)).toMatchObject([{ userId: userId(2), seq: 3 }]);
      const logged = (await tx.auditHeads(null, 9)).map(({ loggedSeq, expiresAtMs }) => [loggedSeq, expiresAtMs]);
      expect(logged).toEqual([
        [1, 500],
        [2, null],
        [1, null],
      ]);
      // an older batch does not take it back
      const next = { size: 4, root: filled(2) };
      await tx.appendLog({ size: 3, root: filled(1) }, next, add([leaf(3)], await heads(tx)));
      await tx.appendLog(next, { size: 5, root: filled(3) }, add([leaf(4)], taken));
      expect(await heads(tx)).toEqual([]);
    });
  });

  test("appending needs the size and root that are there, and otherwise writes nothing", async () => {
    await store().transaction(async (tx) => {
      await withLog(tx, 1, 1);
      expect(await tx.logHead()).toBeUndefined();
      expect(await tx.appendLog(EMPTY, { size: 1, root: filled(1) }, add([leaf(0)]))).toBe(false);
      await tx.startLog(BEGUN, []);
      expect(await tx.logHead()).toEqual(BEGUN);
      const dirty = await heads(tx);
      const next = { size: 1, root: filled(1) };
      for (const expected of [
        { size: 1, root: EMPTY.root },
        { size: 0, root: filled(9) },
      ]) {
        expect(await tx.appendLog(expected, next, add([leaf(0)], dirty))).toBe(false);
      }
      expect(await heads(tx)).toEqual(dirty);
      expect(await tx.logCounts()).toEqual({ leaves: 0, nodes: 0 });
      expect(await tx.appendLog(EMPTY, next, add([leaf(0)], dirty))).toBe(true);
      expect(await tx.appendLog(EMPTY, next, add([leaf(0)], dirty))).toBe(false);
      expect(await tx.logHead()).toEqual({ ...BEGUN, ...next });
    });
  });

  test("two writers race for the same place: one wins, nothing of the other is there", async () => {
    await store().transaction((tx) => tx.startLog(BEGUN, []));
    const races = [1, 2, 3, 4].map((n) =>
      store().transaction((tx) => tx.appendLog(EMPTY, { size: 1, root: filled(n) }, add([leaf(n)]))),
    );
    const won = (await Promise.all(races)).flatMap((done, i) => (done ? [i + 1] : []));
    expect(won).toHaveLength(1);
    await store().transaction(async (tx) => {
      const n = won[0] ?? 0;
      expect((await tx.logHead())?.root).toEqual(filled(n));
      expect(await tx.logLeaves(0, 9)).toEqual([{ index: 0, ...leaf(n) }]);
    });
  });

  test("leaves and subtrees are read as they were written", async () => {
    await store().transaction(async (tx) => {
      await tx.startLog(BEGUN, []);
      const leaves = [0, 1, 2, 3, 4].map(leaf);
      const nodes = [
        { level: 1, index: 0, hash: filled(50) },
        { level: 1, index: 1, hash: filled(51) },
        { level: 2, index: 0, hash: filled(52) },
      ];
      await tx.appendLog(EMPTY, { size: 5, root: filled(1) }, { leaves, nodes, heads: [] });
      expect(await tx.logCounts()).toEqual({ leaves: 5, nodes: 3 });
      expect(await tx.logLeaves(3, 9)).toEqual([3, 4].map((n) => ({ index: n, ...leaf(n) })));
      expect(await tx.logLeaves(0, 2)).toEqual([0, 1].map((n) => ({ index: n, ...leaf(n) })));
      const wanted = [...nodes, { level: 0, index: 4 }].reverse();
      expect(await tx.logNodes(wanted)).toEqual([leaf(4).hash, filled(52), filled(51), filled(50)]);
      expect(await tx.logNodes([])).toEqual([]);
      const { hash, ...position } = leaf(3);
      expect(hash).toEqual(filled(3));
      expect(await tx.loggedPosition(filled(1), 5)).toEqual({ index: 3, ...position });
      expect(await tx.loggedPosition(filled(1), 3)).toMatchObject({ index: 1 });
      expect(await tx.loggedPosition(filled(1), 1)).toBeUndefined();
      expect(await tx.loggedPosition(filled(7), 5)).toBeUndefined();
    });
    const missing = store().transaction((tx) => tx.logNodes([{ level: 3, index: 0 }]));
    expect(await rejection(missing)).toMatchObject({ code: "corrupt" });
  });

  test("the newest checkpoint stays; an older one does not replace it", async () => {
    await store().transaction(async (tx) => {
      expect(await tx.checkpoint()).toBeUndefined();
      expect(await tx.putCheckpoint({ size: 3, note: "three\n" })).toBe(true);
      expect(await tx.putCheckpoint({ size: 2, note: "two\n" })).toBe(false);
      expect(await tx.checkpoint()).toEqual({ size: 3, note: "three\n" });
      expect(await tx.putCheckpoint({ size: 3, note: "again\n" })).toBe(true);
      expect(await tx.putCheckpoint({ size: 4, note: "four\n" })).toBe(true);
      expect(await tx.checkpoint()).toEqual({ size: 4, note: "four\n" });
    });
  });

  test("a new log takes the place of the old one and every head must be logged again", async () => {
    await store().transaction(async (tx) => {
      await withLog(tx, 1, 2);
      await tx.startLog(BEGUN, []);
      const nodes = [{ level: 1, index: 0, hash: filled(5) }];
      const next = { size: 2, root: filled(1) };
      await tx.appendLog(EMPTY, next, { leaves: [leaf(0), leaf(1)], nodes, heads: await heads(tx) });
      await tx.putCheckpoint({ size: 2, note: "two\n" });
      const restart = { origin: BEGUN.origin, ...next };
      const begun = { origin: "keyhold/log/again", size: 1, root: filled(8), restart };
      await tx.startLog(begun, [leaf(8)]);
      expect(await tx.logHead()).toEqual(begun);
      expect(await tx.checkpoint()).toBeUndefined();
      expect(await tx.logCounts()).toEqual({ leaves: 1, nodes: 0 });
      expect((await tx.logLeaves(0, 9))[0]).toEqual({ index: 0, ...leaf(8) });
      expect(await heads(tx)).toMatchObject([{ userId: userId(1), seq: 2 }]);
    });
    const wrong = store().transaction((tx) => tx.startLog({ ...BEGUN, size: 2 }, [leaf(0)]));
    expect(await rejection(wrong)).toMatchObject({ code: "internal" });
  });
}
