import { expect, test } from "bun:test";
import type { DocumentRow, Store } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { account, filled, userId } from "../rows.ts";

type NewDocument = Omit<DocumentRow, "version">;

const row = (id: string, changes: Partial<NewDocument> = {}): NewDocument => ({
  kind: "request",
  id,
  owner: "ada",
  place: 1,
  body: filled(1, 40),
  ...changes,
});

export function documentsContract(store: () => Store): void {
  test("a document is made once and replaced by whoever names its version", async () => {
    await store().transaction(async (tx) => {
      expect(await tx.document("request", "a")).toBeUndefined();
      expect(await tx.putDocument(row("a"), 1)).toBe(false);
      expect(await tx.document("request", "a")).toBeUndefined();
      expect(await tx.putDocument(row("a"), 0)).toBe(true);
      expect(await tx.document("request", "a")).toEqual({ ...row("a"), version: 1 });
      expect(await tx.putDocument(row("a", { body: filled(2) }), 0)).toBe(false);
      expect(await tx.putDocument(row("a", { body: filled(2) }), 2)).toBe(false);
      expect(await tx.document("request", "a")).toEqual({ ...row("a"), version: 1 });
      const next = row("a", { body: new Uint8Array(0), owner: "eve", place: Number.MAX_SAFE_INTEGER });
      expect(await tx.putDocument(next, 1)).toBe(true);
      expect(await tx.document("request", "a")).toEqual({ ...next, version: 2 });
      expect(await tx.putDocument(next, 1)).toBe(false);
    });
    // what was read is the caller's own copy
    const read = await store().transaction(async (tx) => tx.document("request", "a"));
    expect(read?.body.constructor).toBe(Uint8Array);
  });

  test("documents of two kinds have nothing to do with each other", async () => {
    await store().transaction(async (tx) => {
      await tx.putDocument(row("a"), 0);
      expect(await tx.putDocument(row("a", { kind: "key", body: filled(2) }), 0)).toBe(true);
      expect(await tx.removeDocument("key", "a")).toBe(true);
      expect(await tx.removeDocument("key", "a")).toBe(false);
      expect(await tx.removeDocument("key", "none")).toBe(false);
      expect(await tx.document("key", "a")).toBeUndefined();
      expect(await tx.document("request", "a")).toEqual({ ...row("a"), version: 1 });
      // a new one of the same id begins anew
      expect(await tx.putDocument(row("a", { kind: "key" }), 0)).toBe(true);
      expect((await tx.document("key", "a"))?.version).toBe(1);
    });
  });

  test("lists are of one kind and owner, by place, then by the bytes of the id, in pages", async () => {
    const placed = [
      row("b", { place: 2 }),
      row("é", { place: 1 }),
      row("a", { place: 2 }),
      row("Z", { place: 1 }),
      row("z", { place: 1 }),
      row("0", { place: 0 }),
    ];
    const others = [row("x", { owner: "eve" }), row("y", { owner: "" }), row("k", { kind: "key" })];
    await store().transaction(async (tx) => {
      for (const one of [...placed, ...others]) expect(await tx.putDocument(one, 0)).toBe(true);
      const all = await tx.documents("request", "ada", null, 100);
      expect(all.map(({ id }) => id)).toEqual(["0", "Z", "z", "é", "a", "b"]);
      expect(all[0]).toEqual({ ...row("0", { place: 0 }), version: 1 });
      const paged: string[] = [];
      for (let after: DocumentRow | null = null; ; ) {
        const page: readonly DocumentRow[] = await tx.documents("request", "ada", after, 2);
        paged.push(...page.map(({ id }) => id));
        expect(page.length).toBeLessThanOrEqual(2);
        after = page.at(-1) ?? null;
        if (after === null) break;
      }
      expect(paged).toEqual(all.map(({ id }) => id));
      expect(await tx.documents("request", "ada", { place: 1, id: "z" }, 1)).toMatchObject([{ id: "é" }]);
      expect(await tx.documents("request", "ada", { place: 1, id: "" }, 1)).toMatchObject([{ id: "Z" }]);
      expect((await tx.documents("request", "", null, 9)).map(({ id }) => id)).toEqual(["y"]);
      expect(await tx.documents("vote", "ada", null, 9)).toEqual([]);
      const counts = [
        await tx.documentCount("request", "ada", 100),
        await tx.documentCount("request", "ada", 6),
        await tx.documentCount("request", "ada", 4),
        await tx.documentCount("request", "", 9),
        await tx.documentCount("vote", "ada", 9),
      ];
      expect(counts).toEqual([6, 6, 4, 1, 0]);
    });
  });

  test("a change moves a document in the lists", async () => {
    await store().transaction(async (tx) => {
      for (const id of ["a", "b"]) await tx.putDocument(row(id), 0);
      await tx.putDocument(row("a", { place: 5 }), 1);
      expect((await tx.documents("request", "ada", null, 9)).map(({ id }) => id)).toEqual(["b", "a"]);
      await tx.putDocument(row("a", { owner: "eve" }), 2);
      expect((await tx.documents("request", "ada", null, 9)).map(({ id }) => id)).toEqual(["b"]);
    });
  });

  test("of transactions that change one version at the same time, one wins", async () => {
    for (let version = 0; version < 4; version++) {
      const won = await Promise.all(
        Array.from({ length: 8 }, (_, i) =>
          store().transaction(async (tx) => {
            const before = await tx.document("request", "a");
            if ((before?.version ?? 0) !== version) return false;
            return tx.putDocument(row("a", { body: filled(i) }), version);
          }),
        ),
      );
      expect(won.filter(Boolean).length).toBe(1);
      const blind = await Promise.all(
        Array.from({ length: 4 }, () => store().transaction(async (tx) => tx.putDocument(row("a"), version))),
      );
      expect(blind).toEqual([false, false, false, false]);
      const body = (await store().transaction(async (tx) => tx.document("request", "a")))?.body;
      expect(body).toEqual(filled(won.indexOf(true)));
    }
  });

  test("a transaction that fails leaves no document and removes none", async () => {
    await store().transaction(async (tx) => tx.putDocument(row("a"), 0));
    const failing = store().transaction(async (tx) => {
      await tx.putDocument(row("b"), 0);
      await tx.putDocument(row("a", { body: filled(9) }), 1);
      await tx.removeDocument("request", "a");
      throw new Error("on purpose");
    });
    expect(await rejection(failing)).toMatchObject({ message: "on purpose" });
    await store().transaction(async (tx) => {
      expect(await tx.documents("request", "ada", null, 9)).toEqual([{ ...row("a"), version: 1 }]);
    });
  });

  test("what an account owns is erased with it, and nothing else", async () => {
    await store().transaction(async (tx) => {
      for (const n of [1, 2]) {
        await tx.insertAccount(account(n));
        await tx.putDocument(row(`mine ${n}`, { owner: userId(n) }), 0);
        await tx.putDocument(row(userId(n), { kind: "parcel", owner: userId(n) }), 0);
      }
      expect(await tx.removeAccount(userId(1))).toBe(true);
      expect(await tx.document("request", "mine 1")).toBeUndefined();
      expect(await tx.document("parcel", userId(1))).toBeUndefined();
      expect(await tx.documents("request", userId(2), null, 9)).toMatchObject([{ id: "mine 2" }]);
      expect(await tx.document("parcel", userId(2))).toMatchObject({ version: 1 });
    });
  });
}
