import { describe, expect, test } from "bun:test";
import { keptKindOf, putStored, readStored } from "../../src/server/documents.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { decodeJson, struct, uint } from "../../src/wire/codec.ts";

const counting = () => {
  const inner = struct({ n: uint() });
  let decoded = 0;
  const kind = keptKindOf("kept", {
    decode: (value, path) => {
      decoded += 1;
      return inner.decode(value, path);
    },
    encode: inner.encode,
  });
  return { kind, decoded: () => decoded };
};

async function inStore(work: (store: Store) => Promise<void>): Promise<void> {
  const store = await openSqlite(":memory:");
  try {
    await work(store);
  } finally {
    await store.close();
  }
}

describe("a kind whose values are kept", () => {
  test("decodes no body that it has read or written last, in the transaction that changed it, too", () =>
    inStore(async (store) => {
      const { kind, decoded } = counting();
      const row = { id: "a", owner: "o", place: 1 };
      const read = () => store.transaction((tx) => readStored(tx, kind, "a"));
      await store.transaction((tx) => putStored(tx, kind, { ...row, value: { n: 1 } }, 0));
      expect([await read(), await read()]).toMatchObject([
        { value: { n: 1 }, version: 1 },
        { value: { n: 1 }, version: 1 },
      ]);
      expect(decoded()).toBe(0);
      kind.kept?.clear();
      expect([await read(), await read()]).toMatchObject([{ value: { n: 1 } }, { value: { n: 1 } }]);
      expect(decoded()).toBe(1);
      const within = await store.transaction(async (tx) => {
        await putStored(tx, kind, { ...row, value: { n: 2 } }, 1);
        return readStored(tx, kind, "a");
      });
      expect([within, await read()]).toMatchObject([
        { value: { n: 2 }, version: 2 },
        { value: { n: 2 }, version: 2 },
      ]);
      // the same body in a later version: the value is the same, the version is the row's
      await store.transaction((tx) => putStored(tx, kind, { ...row, place: 9, value: { n: 2 } }, 2));
      expect(await read()).toMatchObject({ value: { n: 2 }, version: 3, place: 9 });
      expect(decoded()).toBe(1);
    }));

  test("keeps nothing of a transaction that was undone, of a row that is gone, or for another id", () =>
    inStore(async (store) => {
      const { kind } = counting();
      const read = (id: string) => store.transaction((tx) => readStored(tx, kind, id));
      for (const id of ["a", "b"])
        await store.transaction((tx) =>
          putStored(tx, kind, { id, owner: "", place: 0, value: { n: id.charCodeAt(0) } }, 0),
        );
      const undone = await store
        .transaction(async (tx) => {
          await putStored(tx, kind, { id: "a", owner: "", place: 0, value: { n: 5 } }, 1);
          await readStored(tx, kind, "a");
          throw new Error("undone");
        })
        .catch((error: Error) => error.message);
      expect(undone).toBe("undone");
      expect([await read("a"), await read("b")]).toMatchObject([{ value: { n: 97 } }, { value: { n: 98 } }]);
      await store.transaction((tx) => tx.removeDocument("kept", "a"));
      expect(await read("a")).toBeUndefined();
    }));

  test("refuses a damaged body after a sound one", () =>
    inStore(async (store) => {
      const { kind } = counting();
      const row = { kind: "kept", id: "a", owner: "", place: 0 };
      const read = () => store.transaction((tx) => readStored(tx, kind, "a")).catch((error: Error) => error.message);
      const bodies = ['{"n":1}', '{"n":x}', '{"n":1}'].map((text) => new TextEncoder().encode(text));
      const said: unknown[] = [];
      for (const [version, body] of bodies.entries()) {
        await store.transaction((tx) => tx.putDocument({ ...row, body }, version));
        said.push(await read());
      }
      expect(said).toMatchObject([
        { value: { n: 1 } },
        expect.stringContaining("documented form"),
        { value: { n: 1 } },
      ]);
      expect(decodeJson(kind.codec, bodies[0] ?? new Uint8Array())).toEqual({ n: 1 });
    }));
});
