import { expect, test } from "bun:test";
import { continueAudit } from "../../../src/protocol/audit.ts";
import type { Store } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import { EVERY, entry, filled, headAfter, keyId, record, requestId, sessionId, userId, ZEROS } from "../rows.ts";

const user = userId(1);

export function auditContract(store: () => Store): void {
  test("a log begins at zeros, grows entry by entry and verifies", async () => {
    await store().transaction(async (tx) => {
      expect(await tx.auditHead(user)).toEqual(ZEROS);
      expect(await tx.audit(user, EVERY)).toEqual([]);
      const items = [
        await record(tx, 1),
        await record(tx, 1, { keyId: keyId(1), requestId: requestId(2), session: sessionId(3), stateHash: filled(4) }),
        await record(tx, 1, { count: Number.MAX_SAFE_INTEGER, status: "denied" }),
      ];
      await record(tx, 2);
      const read = await tx.audit(user, EVERY);
      expect(read).toEqual(items);
      const verified = continueAudit(ZEROS, user, read);
      expect(verified).toEqual({ ok: true, head: await tx.auditHead(user) });
      expect((await tx.auditHead(userId(2))).seq).toBe(1);
    });
  });

  test("an entry that does not continue the log is refused and nothing is written", async () => {
    const head = await store().transaction(async (tx) => headAfter(await record(tx, 1)));
    const wrong = [
      { seq: head.seq, link: head.link },
      { seq: head.seq + 1, link: head.link },
      { seq: head.seq, link: filled(9) },
      ZEROS,
    ].map((from, i) => (i === 0 ? entry(1, ZEROS, { previous: head.link }) : entry(1, from)));
    for (const item of wrong) {
      const attempt = store().transaction(async (tx) => tx.appendAudit(item, headAfter(item), null));
      expect(await rejection(attempt)).toMatchObject({ code: "conflict" });
    }
    for (const item of [entry(2, { seq: 1, link: ZEROS.link }), entry(2, { seq: 0, link: filled(1) })]) {
      const attempt = store().transaction(async (tx) => tx.appendAudit(item, headAfter(item), null));
      expect(await rejection(attempt)).toMatchObject({ code: "conflict" });
    }
    const crossed = entry(1, head);
    const attempt = store().transaction(async (tx) => tx.appendAudit(crossed, head, null));
    expect(await rejection(attempt)).toMatchObject({ code: "internal" });
    await store().transaction(async (tx) => {
      expect(await tx.auditHead(user)).toEqual(head);
      expect((await tx.audit(user, EVERY)).length).toBe(1);
      expect(await tx.auditHead(userId(2))).toEqual(ZEROS);
    });
  });

  test("entries are filtered by each field and paged", async () => {
    await store().transaction(async (tx) => {
      await record(tx, 1, { action: "session.open", atMs: 10 });
      await record(tx, 1, { action: "secret.get", atMs: 20, keyId: keyId(1), requestId: requestId(7) });
      await record(tx, 1, { action: "secret.get", atMs: 30, keyId: keyId(2), requestId: requestId(8) });
      await record(tx, 1, { action: "secret.store", atMs: 40, keyId: keyId(1) });
      const seqs = async (filter: Partial<typeof EVERY>) =>
        (await tx.audit(user, { ...EVERY, ...filter })).map((item) => item.entry.seq);
      expect(await seqs({})).toEqual([1, 2, 3, 4]);
      expect(await seqs({ after: 2 })).toEqual([3, 4]);
      expect(await seqs({ after: 1, limit: 2 })).toEqual([2, 3]);
      expect(await seqs({ keyId: keyId(1) })).toEqual([2, 4]);
      expect(await seqs({ action: "secret.get" })).toEqual([2, 3]);
      expect(await seqs({ fromMs: 20, untilMs: 30 })).toEqual([2, 3]);
      expect(await seqs({ requestId: requestId(8) })).toEqual([3]);
      expect(await seqs({ keyId: keyId(1), action: "secret.get" })).toEqual([2]);
      expect(await seqs({ keyId: keyId(3) })).toEqual([]);
    });
  });

  test("expired shadow logs are swept; an account's log never", async () => {
    await store().transaction(async (tx) => {
      await record(tx, 1);
      await record(tx, 2, {}, 100);
      await record(tx, 3, {}, 100);
      await record(tx, 3, {}, 200);
      expect((await tx.audit(userId(2), EVERY)).length).toBe(1);
      expect(await tx.sweepShadowAudit(99)).toBe(0);
      expect(await tx.sweepShadowAudit(100)).toBe(2);
      expect(await tx.auditHead(userId(2))).toEqual(ZEROS);
      expect((await tx.audit(userId(3), EVERY)).map((item) => item.entry.seq)).toEqual([2]);
      expect((await tx.auditHead(userId(3))).seq).toBe(2);
      expect(await tx.sweepShadowAudit(Number.MAX_SAFE_INTEGER)).toBe(1);
      expect((await tx.audit(user, EVERY)).length).toBe(1);
      await record(tx, 2, {}, 300);
      expect((await tx.auditHead(userId(2))).seq).toBe(1);
    });
    expect(await store().check()).toEqual([]);
  });
}
