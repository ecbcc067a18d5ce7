import { expect, test } from "bun:test";
import type { Store } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { account, filled, login, session, sessionId, userId } from "../rows.ts";

export function sessionsContract(store: () => Store): void {
  test("a login state is taken exactly once, even by many at the same time", async () => {
    await store().transaction(async (tx) => tx.putLoginState(login(1)));
    const taken = await Promise.all(
      Array.from({ length: 20 }, () => store().transaction(async (tx) => tx.takeLoginState(sessionId(1)))),
    );
    expect(taken.filter((row) => row !== undefined)).toEqual([login(1)]);
  });

  test("a login state that was taken in a failed transaction is there again", async () => {
    await store().transaction(async (tx) => tx.putLoginState(login(1)));
    const failed = store().transaction(async (tx) => {
      await tx.takeLoginState(sessionId(1));
      throw new RangeError("no");
    });
    expect(await rejection(failed)).toMatchObject({ message: "no" });
    expect(await store().transaction(async (tx) => tx.takeLoginState(sessionId(1)))).toEqual(login(1));
  });

  test("a login state does not replace another", async () => {
    await store().transaction(async (tx) => tx.putLoginState(login(1)));
    const second = store().transaction(async (tx) => tx.putLoginState(login(1, { userId: userId(2) })));
    expect(await rejection(second)).toMatchObject({ code: "conflict" });
  });

  test("expired login states are taken up to a limit, the others stay", async () => {
    await store().transaction(async (tx) => {
      for (const n of [10, 20, 30, 40]) await tx.putLoginState(login(n));
      expect((await tx.takeExpiredLoginStates(10, 9)).length).toBe(0);
      const first = await tx.takeExpiredLoginStates(40, 2);
      expect(first.map((row) => row.expiresAtMs).toSorted((a, b) => a - b)).toEqual([10, 20]);
      expect(await tx.takeExpiredLoginStates(40, 2)).toEqual([login(30)]);
      expect(await tx.takeLoginState(sessionId(40))).toEqual(login(40));
    });
  });

  test("all login states are dropped and counted", async () => {
    await store().transaction(async (tx) => {
      for (const n of [1, 2, 3]) await tx.putLoginState(login(n));
      expect(await tx.dropLoginStates()).toBe(3);
      expect(await tx.dropLoginStates()).toBe(0);
      expect(await tx.takeLoginState(sessionId(1))).toBeUndefined();
    });
  });

  test("a session is kept, touched and closed", async () => {
    const use = { lastUsedMs: 50, high: Number.MAX_SAFE_INTEGER, window: filled(3, 128) };
    await store().transaction(async (tx) => {
      await tx.putSession(session(1));
      await tx.putSession(session(2));
      expect(await tx.session(sessionId(1))).toEqual(session(1));
      await tx.touchSession(sessionId(1), use);
      expect(await tx.session(sessionId(1))).toEqual(session(1, use));
      expect(await tx.session(sessionId(2))).toEqual(session(2));
      expect(await tx.closeSession(sessionId(1))).toBe(true);
      expect(await tx.closeSession(sessionId(1))).toBe(false);
      expect(await tx.session(sessionId(1))).toBeUndefined();
      await tx.touchSession(sessionId(1), use);
      expect(await tx.session(sessionId(1))).toBeUndefined();
    });
  });

  test("a session is noted as one that waits for its second factor, and as one that had it", async () => {
    await store().transaction(async (tx) => {
      await tx.putSession(session(1, { factor: "needed" }));
      await tx.putSession(session(2));
      expect((await tx.session(sessionId(1)))?.factor).toBe("needed");
      await tx.putSessionFactor(sessionId(1), "proven", 2_000);
      expect(await tx.session(sessionId(1))).toEqual(session(1, { factor: "proven", expiresAtMs: 2_000 }));
      expect(await tx.sessionsOf(userId(1))).toEqual([
        session(1, { factor: "proven", expiresAtMs: 2_000 }),
        session(2),
      ]);
      await tx.putSessionFactor(sessionId(3), "proven", 2_000);
      expect(await tx.session(sessionId(3))).toBeUndefined();
    });
    const wrong = store().transaction(async (tx) => tx.putSession(session(4, { factor: "other" as "none" })));
    expect(await rejection(wrong)).toMatchObject({ code: "internal" });
  });

  test("a session does not replace another", async () => {
    await store().transaction(async (tx) => tx.putSession(session(1)));
    const second = store().transaction(async (tx) => tx.putSession(session(1, { userId: userId(2) })));
    expect(await rejection(second)).toMatchObject({ code: "conflict" });
    expect((await store().transaction(async (tx) => tx.session(sessionId(1))))?.userId).toBe(userId(1));
  });

  test("a window of another size is refused", async () => {
    const wrong = store().transaction(async (tx) => tx.putSession(session(1, { window: new Uint8Array(127) })));
    expect(await rejection(wrong)).toMatchObject({ code: "internal" });
  });

  test("sessions of an account are listed and closed but one", async () => {
    await store().transaction(async (tx) => {
      for (const n of [3, 1, 2]) await tx.putSession(session(n));
      await tx.putSession(session(4, { userId: userId(2) }));
      expect(await tx.sessionsOf(userId(1))).toEqual([session(1), session(2), session(3)]);
      expect(await tx.closeSessionsOf(userId(1), sessionId(2))).toBe(2);
      expect(await tx.sessionsOf(userId(1))).toEqual([session(2)]);
      expect(await tx.closeSessionsOf(userId(1), sessionId(4))).toBe(1);
      expect(await tx.closeSessionsOf(userId(1), null)).toBe(0);
      expect((await tx.sessionsOf(userId(2))).length).toBe(1);
      expect(await tx.closeSessionsOf(userId(2), null)).toBe(1);
    });
  });

  test("sessions that are over or idle are swept, the others stay", async () => {
    await store().transaction(async (tx) => {
      await tx.putSession(session(1, { expiresAtMs: 100, lastUsedMs: 90 }));
      await tx.putSession(session(2, { expiresAtMs: 101, lastUsedMs: 49 }));
      await tx.putSession(session(3, { expiresAtMs: 101, lastUsedMs: 50 }));
      expect(await tx.sweepSessions(100, 50)).toBe(2);
      expect((await tx.sessionsOf(userId(1))).map((row) => row.sessionId)).toEqual([sessionId(3)]);
    });
  });

  test("counts accounts, disabled ones, and the sessions that may still be used", async () => {
    const none = await store().transaction((tx) => tx.counts(100, 50));
    expect(none).toEqual({ accounts: 0, disabled: 0, sessions: 0 });
    await store().transaction(async (tx) => {
      for (const n of [1, 2, 3]) await tx.insertAccount(account(n));
      await tx.setDisabled(userId(2), true);
      await tx.putSession(session(1, { expiresAtMs: 100, lastUsedMs: 90 }));
      await tx.putSession(session(2, { expiresAtMs: 101, lastUsedMs: 50 }));
      await tx.putSession(session(3, { expiresAtMs: 101, lastUsedMs: 51 }));
      expect(await tx.counts(100, 50)).toEqual({ accounts: 3, disabled: 1, sessions: 1 });
    });
  });
}
