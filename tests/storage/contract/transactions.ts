import { expect, test } from "bun:test";
import { setTimeout as delay } from "node:timers/promises";
import { Fault } from "../../../src/errors.ts";
import type { Store, Tx } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { account, keyId, leaf, session, sessionId, userId } from "../rows.ts";

const readCount = async (tx: Tx): Promise<number> => Number((await tx.setting("count")) ?? "0");

export function transactionsContract(store: () => Store): void {
  test("a transaction gives the result of its work", async () => {
    expect(await store().transaction(async () => 42)).toBe(42);
  });

  test("a throw rolls everything back and is passed on as it is", async () => {
    const error = new RangeError("mine");
    const failed = store().transaction(async (tx) => {
      await tx.putSetting("a", "1");
      await tx.insertAccount(account(1));
      throw error;
    });
    expect(await rejection(failed)).toBe(error);
    await store().transaction(async (tx) => {
      expect(await tx.setting("a")).toBeUndefined();
      expect(await tx.account(userId(1))).toBeUndefined();
    });
  });

  test("a work that throws without a promise is rolled back too", async () => {
    const failed = store().transaction(() => {
      throw new Fault("denied", "no");
    });
    expect(await rejection(failed)).toMatchObject({ code: "denied" });
  });

  test("100 parallel transactions that count up lose nothing", async () => {
    const seen = await Promise.all(
      Array.from({ length: 100 }, () =>
        store().transaction(async (tx) => {
          const next = (await readCount(tx)) + 1;
          await tx.putSetting("count", String(next));
          return next;
        }),
      ),
    );
    expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
    expect(await store().transaction(readCount)).toBe(100);
  });

  test("a job that throws does not hurt its neighbours in the same commit", async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) =>
        store().transaction(async (tx) => {
          await tx.putSetting("count", String((await readCount(tx)) + 1));
          if (i % 3 === 0) throw new Fault("denied", "no");
        }),
      ),
    );
    expect(results.filter((r) => r.status === "rejected").length).toBe(10);
    expect(await store().transaction(readCount)).toBe(20);
  });

  test("a transaction that waits for something else fails and leaves no trace, and the next ones go on", async () => {
    const slow = store().transaction(async (tx) => {
      await tx.putSetting("slow", "1");
      await delay(20);
      await tx.putSetting("slow", "2");
    });
    const after = store().transaction(async (tx) => tx.putSetting("after", "1"));
    expect(await rejection(slow)).toMatchObject({ code: "internal" });
    await after;
    await delay(40);
    await store().transaction(async (tx) => {
      expect(await tx.setting("slow")).toBeUndefined();
      expect(await tx.setting("after")).toBe("1");
    });
  });

  test("a transaction inside a transaction fails instead of waiting for ever", async () => {
    const outer = store().transaction(async () => store().transaction(async (tx) => tx.putSetting("inner", "1")));
    expect(await rejection(outer)).toMatchObject({ code: "internal" });
  });

  test("a transaction cannot be used after its end", async () => {
    const kept = await store().transaction(async (tx) => ({ tx }));
    expect(await rejection(kept.tx.putSetting("late", "1"))).toMatchObject({ code: "internal" });
    expect(await store().transaction(async (tx) => tx.setting("late"))).toBeUndefined();
  });

  test("one that ended cannot write into another's that runs", async () => {
    const kept = await store().transaction(async (tx) => ({ tx }));
    const late = await store().transaction(async (tx) => {
      await tx.putSetting("own", "1");
      return rejection(kept.tx.putSetting("late", "1"));
    });
    expect(late).toMatchObject({ code: "internal" });
    await store().transaction(async (tx) => {
      expect([await tx.setting("own"), await tx.setting("late")]).toEqual(["1", undefined]);
    });
  });

  test("settings are kept and replaced", async () => {
    await store().transaction(async (tx) => {
      expect(await tx.setting("x")).toBeUndefined();
      await tx.putSetting("x", "");
      expect(await tx.setting("x")).toBe("");
      await tx.putSetting("x", "käse ☃");
    });
    expect(await store().transaction(async (tx) => tx.setting("x"))).toBe("käse ☃");
  });

  test("blobs are plain arrays that the caller owns", async () => {
    const sealed = new Uint8Array([1, 2, 3]);
    await store().transaction(async (tx) => {
      await tx.insertAccount(account(1));
      await tx.putSession(session(1));
      await tx.appendLeaf(userId(1), 1, leaf(1), sealed);
      sealed.fill(9);
      const got = await tx.sealedValue(userId(1), keyId(1), 1);
      expect(got).toEqual(new Uint8Array([1, 2, 3]));
      got?.fill(7);
      expect(await tx.sealedValue(userId(1), keyId(1), 1)).toEqual(new Uint8Array([1, 2, 3]));
      const row = await tx.account(userId(1));
      const used = await tx.session(sessionId(1));
      const head = await tx.auditHead(userId(77));
      head.link.fill(1);
      expect((await tx.auditHead(userId(77))).link).toEqual(new Uint8Array(32));
      for (const blob of [got, row?.record, row?.stateHash, row?.state.identitySignature, used?.window, head.link]) {
        expect(Object.getPrototypeOf(blob)).toBe(Uint8Array.prototype);
      }
    });
  });

  test("a sound store has nothing to report", async () => {
    await store().transaction(async (tx) => tx.insertAccount(account(1)));
    expect(await store().check()).toEqual([]);
  });

  test("closing finishes what is queued, twice does nothing, and later use is a fault", async () => {
    const results = Array.from({ length: 5 }, (_, i) => store().transaction(async () => i));
    await store().close();
    expect(await Promise.all(results)).toEqual([0, 1, 2, 3, 4]);
    await store().close();
    expect(await rejection(store().transaction(async () => 1))).toBeInstanceOf(Fault);
    expect(await rejection(store().check())).toBeInstanceOf(Fault);
  });
}
