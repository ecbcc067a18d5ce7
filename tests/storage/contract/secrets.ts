import { expect, test } from "bun:test";
import type { Store, WrapRow } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { filled, keyId, leaf, userId } from "../rows.ts";

const user = userId(1);

export function secretsContract(store: () => Store): void {
  test("the newest leaf and each sealed value come back as they were appended", async () => {
    const second = leaf(1, 2, { publicKey: filled(5, 33), status: "removed", version: 1 });
    const third = leaf(1, 3, { version: 2, meta: null, status: "purged" });
    await store().transaction(async (tx) => {
      expect(await tx.leaf(user, keyId(1))).toBeUndefined();
      await tx.appendLeaf(user, 1, leaf(1), filled(1, 74_000));
      expect(await tx.leaf(user, keyId(1))).toEqual(leaf(1));
      await tx.appendLeaf(user, 2, second, null);
      expect(await tx.leaf(user, keyId(1))).toEqual(second);
      await tx.appendLeaf(user, 3, third, new Uint8Array([2]));
      expect(await tx.leaf(user, keyId(1))).toEqual(third);
      expect(await tx.sealedValue(user, keyId(1), 1)).toEqual(filled(1, 74_000));
      expect(await tx.sealedValue(user, keyId(1), 2)).toEqual(new Uint8Array([2]));
      expect(await tx.sealedValue(user, keyId(1), 3)).toBeUndefined();
      expect(await tx.sealedValue(user, keyId(2), 1)).toBeUndefined();
      expect(await tx.history(user, keyId(1), 0, 10)).toEqual([leaf(1), second, third]);
      expect(await tx.history(user, keyId(1), 1, 1)).toEqual([second]);
      expect(await tx.history(user, keyId(1), 3, 1)).toEqual([]);
    });
  });

  test("a leaf that is not newer, or a value that stands already, is refused without trace", async () => {
    await store().transaction(async (tx) => {
      await tx.appendLeaf(user, 1, leaf(1, 1), filled(1, 50));
      await tx.appendLeaf(user, 2, leaf(1, 2), null);
    });
    for (const [again, sealed] of [
      [leaf(1, 2), null],
      [leaf(1, 1), null],
      [leaf(1, 3, { version: 1 }), filled(9, 50)],
    ] as const) {
      const attempt = store().transaction(async (tx) => tx.appendLeaf(user, 3, again, sealed));
      expect(await rejection(attempt)).toMatchObject({ code: "conflict" });
    }
    await store().transaction(async (tx) => {
      expect(await tx.leaf(user, keyId(1))).toEqual(leaf(1, 2));
      expect(await tx.sealedValue(user, keyId(1), 1)).toEqual(filled(1, 50));
    });
  });

  test("changes since a revision: newest leaves by key id, page by page", async () => {
    await store().transaction(async (tx) => {
      for (const n of [5, 3, 4, 1, 2]) await tx.appendLeaf(user, n, leaf(n), null);
      await tx.appendLeaf(user, 6, leaf(1, 2), null);
      await tx.appendLeaf(userId(2), 9, leaf(7), null);
      const since = async (revision: number, after: number | null, limit = 10) =>
        (await tx.leavesSince(user, revision, after === null ? null : keyId(after), limit)).map((row) => [
          Number.parseInt(row.keyId, 16),
          row.serial,
        ]);
      expect(await since(0, null)).toEqual([1, 2, 3, 4, 5].map((n) => [n, n === 1 ? 2 : 1]));
      expect(await since(0, null, 2)).toEqual([
        [1, 2],
        [2, 1],
      ]);
      expect(await since(0, 2, 2)).toEqual([
        [3, 1],
        [4, 1],
      ]);
      expect(await since(4, null)).toEqual([
        [1, 2],
        [5, 1],
      ]);
      expect(await since(4, 1)).toEqual([[5, 1]]);
      expect(await since(6, null)).toEqual([]);
    });
  });

  test("the same key id in two accounts is two secrets", async () => {
    await store().transaction(async (tx) => {
      await tx.appendLeaf(user, 1, leaf(1), filled(1, 40));
      await tx.appendLeaf(userId(2), 1, leaf(1, 1, { status: "removed" }), filled(2, 40));
      expect(await tx.leaf(user, keyId(1))).toEqual(leaf(1));
      expect((await tx.leaf(userId(2), keyId(1)))?.status).toBe("removed");
      await tx.eraseSecret(user, keyId(1));
      expect(await tx.sealedValue(user, keyId(1), 1)).toBeUndefined();
      expect(await tx.sealedValue(userId(2), keyId(1), 1)).toEqual(filled(2, 40));
      expect((await tx.leaf(userId(2), keyId(1)))?.meta).toEqual(leaf(1).meta);
    });
  });

  test("purging erases every value and all metadata of a key and keeps the chain", async () => {
    await store().transaction(async (tx) => {
      for (const serial of [1, 2]) await tx.appendLeaf(user, serial, leaf(1, serial), filled(serial, 60));
      await tx.appendLeaf(user, 3, leaf(2), filled(3, 60));
      await tx.eraseSecret(user, keyId(1));
      await tx.eraseSecret(user, keyId(9));
      await tx.appendLeaf(user, 4, leaf(1, 3, { status: "purged", meta: null }), null);
    });
    await store().transaction(async (tx) => {
      for (const version of [1, 2]) expect(await tx.sealedValue(user, keyId(1), version)).toBeUndefined();
      expect(await tx.history(user, keyId(1), 0, 10)).toEqual([
        leaf(1, 1, { meta: null }),
        leaf(1, 2, { meta: null }),
        leaf(1, 3, { status: "purged", meta: null }),
      ]);
      expect(await tx.leaf(user, keyId(2))).toEqual(leaf(2));
      expect(await tx.sealedValue(user, keyId(2), 1)).toEqual(filled(3, 60));
    });
  });

  test("wrapped keys of all values and metadata, in order, page by page; what is erased has none", async () => {
    await store().transaction(async (tx) => {
      await tx.appendLeaf(user, 1, leaf(2), filled(20, 90));
      await tx.appendLeaf(user, 2, leaf(1), filled(10, 90));
      await tx.appendLeaf(user, 3, leaf(1, 2, { version: 1, status: "removed" }), null);
      await tx.appendLeaf(user, 4, leaf(1, 3, { version: 2 }), filled(11, 90));
      await tx.appendLeaf(user, 5, leaf(3), filled(30, 90));
      await tx.eraseSecret(user, keyId(3));
      await tx.appendLeaf(userId(2), 1, leaf(1), filled(99, 90));
      const expected = [
        [1, "meta", 1, leaf(1).meta],
        [1, "meta", 2, leaf(1, 2).meta],
        [1, "meta", 3, leaf(1, 3).meta],
        [1, "value", 1, filled(10, 90)],
        [1, "value", 2, filled(11, 90)],
        [2, "meta", 1, leaf(2).meta],
        [2, "value", 1, filled(20, 90)],
      ].map(([key, kind, number, sealed]) => ({
        keyId: keyId(key as number),
        kind: kind as "meta" | "value",
        number: number as number,
        wrapped: (sealed as Uint8Array).subarray(0, 73).slice(),
      }));
      expect(await tx.wraps(user, null, 100)).toEqual(expected);
      expect(await tx.wraps(userId(3), null, 100)).toEqual([]);
      for (let limit = 1; limit <= expected.length; limit++) {
        const pages: WrapRow[] = [];
        for (let page = await tx.wraps(user, null, limit); page.length > 0; ) {
          expect(page.length).toBeLessThanOrEqual(limit);
          pages.push(...page);
          page = await tx.wraps(user, page.at(-1) ?? null, limit);
        }
        expect(pages).toEqual(expected);
      }
    });
  });

  test("a wrapped key is replaced and what follows it stays; of one that is not there nothing changes", async () => {
    const wrapped = filled(77, 73);
    await store().transaction(async (tx) => {
      await tx.appendLeaf(user, 1, leaf(1), filled(10, 200));
      await tx.appendLeaf(user, 2, leaf(2), filled(20, 90));
      await tx.appendLeaf(userId(2), 1, leaf(1), filled(99, 200));
      await tx.eraseSecret(user, keyId(2));
    });
    await store().transaction(async (tx) => {
      expect(await tx.rewrap(user, { keyId: keyId(1), kind: "value", number: 1, wrapped })).toBe(true);
      expect(await tx.rewrap(user, { keyId: keyId(1), kind: "meta", number: 1, wrapped })).toBe(true);
      for (const [key, kind, number] of [
        [1, "value", 2],
        [1, "meta", 2],
        [2, "value", 1],
        [2, "meta", 1],
        [9, "value", 1],
      ] as const) {
        expect(await tx.rewrap(user, { keyId: keyId(key), kind, number, wrapped })).toBe(false);
      }
    });
    const short = store().transaction((tx) =>
      tx.rewrap(user, { keyId: keyId(1), kind: "value", number: 1, wrapped: filled(1, 72) }),
    );
    expect(await rejection(short)).toMatchObject({ code: "internal" });
    await store().transaction(async (tx) => {
      const after = (bytes: Uint8Array | null | undefined) => Buffer.concat([wrapped, (bytes ?? wrapped).subarray(73)]);
      expect(after(filled(10, 200)).equals((await tx.sealedValue(user, keyId(1), 1)) ?? wrapped)).toBe(true);
      expect(after(leaf(1).meta).equals((await tx.leaf(user, keyId(1)))?.meta ?? wrapped)).toBe(true);
      expect(await tx.sealedValue(userId(2), keyId(1), 1)).toEqual(filled(99, 200));
      expect((await tx.leaf(userId(2), keyId(1)))?.meta).toEqual(leaf(1).meta);
      expect(await tx.sealedValue(user, keyId(2), 1)).toBeUndefined();
    });
  });
}
