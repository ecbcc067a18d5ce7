import { expect, test } from "bun:test";
import type { Store } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { invite, keyId, request, requestId, reservation, userId } from "../rows.ts";

export function requestsContract(store: () => Store): void {
  test("limits are put, replaced, dropped and swept", async () => {
    const row = { bucket: "a", count: 1, blockedUntilMs: 5, updatedAtMs: 10 };
    await store().transaction(async (tx) => {
      expect(await tx.limit("a")).toBeUndefined();
      await tx.putLimit(row);
      await tx.putLimit({ ...row, count: 2, updatedAtMs: 11 });
      await tx.putLimit({ ...row, bucket: "b" });
      await tx.putLimit({ ...row, bucket: "c" });
      expect(await tx.limit("a")).toEqual({ ...row, count: 2, updatedAtMs: 11 });
      await tx.dropLimit("c");
      await tx.dropLimit("never");
      expect(await tx.limit("c")).toBeUndefined();
      expect(await tx.sweepLimits(10)).toBe(0);
      expect(await tx.sweepLimits(11)).toBe(1);
      expect(await tx.limit("b")).toBeUndefined();
      expect((await tx.limit("a"))?.count).toBe(2);
    });
  });

  test("limits of one prefix are taken once they are old, the others stay", async () => {
    await store().transaction(async (tx) => {
      const put = (bucket: string, updatedAtMs: number) =>
        tx.putLimit({ bucket, count: 1, blockedUntilMs: 0, updatedAtMs });
      for (const [i, bucket] of ["a:", "a:1", "a:\u{10ffff}", "a:2"].entries()) await put(bucket, i);
      for (const bucket of ["a", "a;", "b:1", "A:1"]) await put(bucket, 0);
      expect(await tx.takeLimits("a:", 0, 9)).toEqual([]);
      expect((await tx.takeLimits("a:", 3, 2)).map((row) => row.bucket).toSorted()).toEqual(["a:", "a:1"]);
      expect(await tx.takeLimits("a:", 3, 9)).toEqual([
        { bucket: "a:\u{10ffff}", count: 1, blockedUntilMs: 0, updatedAtMs: 2 },
      ]);
      expect(await tx.takeLimits("a:", 3, 9)).toEqual([]);
      expect((await tx.limit("a:2"))?.updatedAtMs).toBe(3);
      expect(await tx.sweepLimits(1)).toBe(4);
    });
  });

  test("invites are put once, updated, listed and removed", async () => {
    const used = invite(1, { usedAtMs: 7, conflicts: 2 });
    await store().transaction(async (tx) => {
      await tx.putInvite(invite(2));
      await tx.putInvite(invite(1));
      expect(await tx.invite(invite(1).codeHash)).toEqual(invite(1));
      expect(await tx.invite("none")).toBeUndefined();
      await tx.updateInvite(used);
      expect(await tx.invites()).toEqual([used, invite(2)]);
      expect(await tx.removeInvite(used.codeHash)).toBe(true);
      expect(await tx.removeInvite(used.codeHash)).toBe(false);
      expect(await tx.invites()).toEqual([invite(2)]);
    });
    const twice = store().transaction(async (tx) => tx.putInvite(invite(2)));
    expect(await rejection(twice)).toMatchObject({ code: "conflict" });
    const missing = store().transaction(async (tx) => tx.updateInvite(used));
    expect(await rejection(missing)).toMatchObject({ code: "not_found" });
  });

  test("an answer is recorded once for each account and request", async () => {
    await store().transaction(async (tx) => {
      expect(await tx.request(userId(1), requestId(1))).toBeUndefined();
      expect(await tx.putRequest(request(1))).toBe(true);
      expect(await tx.putRequest(request(1, { status: "conflict" }))).toBe(false);
      expect(await tx.putRequest(request(1, { userId: userId(2), reply: "other" }))).toBe(true);
      expect(await tx.request(userId(1), requestId(1))).toEqual(request(1));
      expect((await tx.request(userId(2), requestId(1)))?.reply).toBe("other");
      expect(await tx.request(userId(3), requestId(1))).toBeUndefined();
    });
  });

  test("a key id is reserved once for each account and found again by its request", async () => {
    await store().transaction(async (tx) => {
      for (const n of [2, 1]) await tx.putReservation(reservation(n));
      await tx.putReservation(reservation(3, { requestId: requestId(2) }));
      await tx.putReservation(reservation(1, { userId: userId(2) }));
      expect(await tx.reservation(userId(1), keyId(1))).toEqual(reservation(1));
      expect(await tx.reservation(userId(2), keyId(2))).toBeUndefined();
      expect(await tx.reservationsOf(userId(1), requestId(1))).toEqual([reservation(1), reservation(2)]);
      expect(await tx.reservationsOf(userId(2), requestId(2))).toEqual([]);
    });
    const twice = store().transaction(async (tx) => tx.putReservation(reservation(1)));
    expect(await rejection(twice)).toMatchObject({ code: "conflict" });
    await store().transaction(async (tx) => {
      expect(await tx.sweepReservations(1)).toBe(0);
      expect(await tx.sweepReservations(3)).toBe(3);
      expect(await tx.reservation(userId(1), keyId(3))).toBeDefined();
    });
  });
}
