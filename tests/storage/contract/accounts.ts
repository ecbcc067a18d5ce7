import { expect, test } from "bun:test";
import { stateHash } from "../../../src/protocol/state.ts";
import type { Store } from "../../../src/storage/store.ts";
import { rejection } from "../rejection.ts";
import {
  account,
  EVERY,
  entry,
  filled,
  headAfter,
  keyId,
  leaf,
  login,
  record,
  request,
  requestId,
  reservation,
  session,
  sessionId,
  settings,
  state,
  userId,
  ZEROS,
} from "../rows.ts";

export function accountsContract(store: () => Store): void {
  test("an account comes back as it was inserted, by both of its ids", async () => {
    const row = account(1);
    expect(await store().transaction(async (tx) => tx.insertAccount(row))).toBe(true);
    await store().transaction(async (tx) => {
      expect(await tx.account(row.userId)).toEqual(row);
      expect(await tx.accountByCredential(row.credentialId)).toEqual(row);
      expect(await tx.account(userId(2))).toBeUndefined();
      expect(await tx.accountByCredential(filled(2))).toBeUndefined();
    });
  });

  test("a login's part of an account comes by its credential id, and follows record and lock", async () => {
    const { userId: user, credentialId, record: first } = account(1);
    await store().transaction(async (tx) => {
      await tx.insertAccount(account(1));
      await tx.insertAccount(account(2));
      expect(await tx.credential(credentialId)).toEqual({
        userId: user,
        record: first,
        recordVersion: 1,
        setupId: account(1).setupId,
        disabled: false,
      });
      expect(await tx.credential(filled(3))).toBeUndefined();
      expect(await tx.stateHashOf(user)).toEqual(account(1).stateHash);
      expect(await tx.stateHashOf(account(7).userId)).toBeUndefined();
      await tx.replaceRecord(user, filled(8, 192), "setup-2");
      await tx.setDisabled(user, true);
      expect(await tx.credential(credentialId)).toEqual({
        userId: user,
        record: filled(8, 192),
        recordVersion: 2,
        setupId: "setup-2",
        disabled: true,
      });
    });
  });

  test("failures of a token are kept for each account as long as its settings list the device", async () => {
    const [device] = settings(1).devices;
    const [other] = settings(7).devices;
    if (!device || !other) throw new Error("no devices");
    const shared = { ...account(2), settings: settings(1) };
    let at = account(1);
    await store().transaction(async (tx) => {
      await tx.insertAccount(at);
      await tx.insertAccount(shared);
      const failures = (n: number, row: typeof device) => tx.tokenFailures(userId(n), row.tokenHash);
      const change = async (devices: (typeof device)[]) => {
        const next = { state: state(1, at.state.state.revision + 1), settings: { ...settings(1), devices } };
        const hash = stateHash(next.state.state);
        expect(await tx.swapState(userId(1), at.stateHash, { ...next, stateHash: hash })).toBe(true);
        at = { ...at, ...next, stateHash: hash };
      };
      expect(await failures(1, device)).toBe(0);
      expect(await failures(1, other)).toBeUndefined();
      expect(await failures(3, device)).toBeUndefined();
      await tx.putTokenFailures(userId(1), device.tokenHash, 4);
      await tx.putTokenFailures(userId(1), other.tokenHash, 4);
      expect(await failures(1, device)).toBe(4);
      const hashes = (rows: readonly Uint8Array[]) => rows.map((row) => row.toHex());
      expect(hashes(await tx.tokens(userId(1)))).toEqual(at.settings.devices.map((d) => d.tokenHash.toHex()).sort());
      expect(await tx.tokens(userId(3))).toEqual([]);
      expect(await failures(1, other)).toBeUndefined();
      expect(await failures(2, device)).toBe(0);
      await change([device, other, other]);
      expect(await failures(1, device)).toBe(4);
      expect(await failures(1, other)).toBe(0);
      expect(await tx.swapState(userId(1), filled(99), { ...at, settings: settings(7) })).toBe(false);
      expect(await failures(1, device)).toBe(4);
      await change([other]);
      expect(await failures(1, device)).toBeUndefined();
      await change([other, device]);
      expect(await failures(1, device)).toBe(0);
      await tx.removeAccount(userId(1));
      expect(await failures(1, device)).toBeUndefined();
      expect(await failures(2, device)).toBe(0);
    });
  });

  test("a second account with either id is not inserted and changes nothing", async () => {
    await store().transaction(async (tx) => {
      await tx.insertAccount(account(1));
      expect(await tx.insertAccount({ ...account(2), userId: userId(1) })).toBe(false);
      expect(await tx.insertAccount({ ...account(2), credentialId: filled(1) })).toBe(false);
      expect(await tx.account(userId(1))).toEqual(account(1));
      expect(await tx.account(userId(2))).toBeUndefined();
      expect(await tx.auditHead(userId(2))).toEqual(ZEROS);
    });
  });

  test("an account that does not fit its log is refused", async () => {
    const attempt = store().transaction(async (tx) => {
      await record(tx, 1);
      await tx.insertAccount(account(1));
    });
    expect(await rejection(attempt)).toMatchObject({ code: "conflict" });
  });

  test("the state is swapped only from the one expected", async () => {
    const first = account(1);
    const next = state(1, 2);
    const nextHash = stateHash(next.state);
    await store().transaction(async (tx) => {
      await tx.insertAccount(first);
      await tx.insertAccount(account(2));
      expect(await tx.swapState(first.userId, filled(99), { state: next, stateHash: nextHash })).toBe(false);
      expect(await tx.account(first.userId)).toEqual(first);
      expect(await tx.swapState(first.userId, first.stateHash, { state: next, stateHash: nextHash })).toBe(true);
      expect(await tx.account(first.userId)).toEqual({ ...first, state: next, stateHash: nextHash });
      expect(await tx.swapState(first.userId, first.stateHash, { state: next, stateHash: nextHash })).toBe(false);
      const third = { state: state(1, 3), stateHash: filled(3), settings: settings(40) };
      expect(await tx.swapState(first.userId, nextHash, third)).toBe(true);
      expect((await tx.account(first.userId))?.settings).toEqual(settings(40));
      expect(await tx.swapState(userId(3), filled(3), third)).toBe(false);
      expect(await tx.account(userId(2))).toEqual(account(2));
    });
  });

  test("of two that swap the same state at once, one wins", async () => {
    const first = account(1);
    await store().transaction(async (tx) => tx.insertAccount(first));
    const won = await Promise.all(
      [2, 3].map((n) =>
        store().transaction(async (tx) =>
          tx.swapState(first.userId, first.stateHash, { state: state(1, n), stateHash: filled(n) }),
        ),
      ),
    );
    expect(won.filter(Boolean).length).toBe(1);
  });

  test("a new record raises the version by one", async () => {
    await store().transaction(async (tx) => {
      await tx.insertAccount(account(1));
      await tx.replaceRecord(userId(1), filled(8, 192), "setup-2");
      expect(await tx.account(userId(1))).toEqual({
        ...account(1),
        record: filled(8, 192),
        setupId: "setup-2",
        recordVersion: 2,
      });
    });
    const missing = store().transaction(async (tx) => tx.replaceRecord(userId(2), filled(8), "setup-2"));
    expect(await rejection(missing)).toMatchObject({ code: "not_found" });
  });

  test("an account is disabled and enabled", async () => {
    await store().transaction(async (tx) => {
      await tx.insertAccount(account(1));
      expect(await tx.setDisabled(userId(1), true)).toBe(true);
      expect((await tx.account(userId(1)))?.disabled).toBe(true);
      expect(await tx.setDisabled(userId(1), false)).toBe(true);
      expect((await tx.account(userId(1)))?.disabled).toBe(false);
      expect(await tx.setDisabled(userId(2), true)).toBe(false);
    });
  });

  test("accounts are listed by user id, page by page", async () => {
    await store().transaction(async (tx) => {
      for (const n of [3, 1, 2]) await tx.insertAccount(account(n));
      const ids = async (after: number | null, limit: number) =>
        (await tx.accounts(after === null ? null : userId(after), limit)).map((row) => row.userId);
      expect(await ids(null, 10)).toEqual([1, 2, 3].map(userId));
      expect(await ids(null, 2)).toEqual([1, 2].map(userId));
      expect(await ids(2, 2)).toEqual([userId(3)]);
      expect(await ids(3, 2)).toEqual([]);
    });
  });

  test("states are appended once a revision and read in order", async () => {
    await store().transaction(async (tx) => {
      for (const n of [1, 2, 3]) await tx.appendState(userId(1), state(1, n));
      await tx.appendState(userId(2), state(2, 1));
      expect(await tx.statesSince(userId(1), 0, 10)).toEqual([state(1, 1), state(1, 2), state(1, 3)]);
      expect(await tx.statesSince(userId(1), 1, 1)).toEqual([state(1, 2)]);
      expect(await tx.statesSince(userId(1), 3, 10)).toEqual([]);
      expect(await tx.statesSince(userId(2), 0, 10)).toEqual([state(2, 1)]);
    });
    const twice = store().transaction(async (tx) => tx.appendState(userId(1), state(1, 2)));
    expect(await rejection(twice)).toMatchObject({ code: "conflict" });
  });

  test("removing an account erases all of it and nothing of another", async () => {
    await store().transaction(async (tx) => {
      for (const n of [1, 2]) {
        const user = userId(n);
        await tx.insertAccount(account(n));
        await tx.appendState(user, state(n, 1));
        await tx.putLoginState(login(n));
        await tx.putSession(session(n, { userId: user }));
        await tx.putRequest(request(n, { userId: user }));
        await tx.putReservation(reservation(n, { userId: user }));
        await tx.appendLeaf(user, 1, leaf(n), filled(n, 500));
        await record(tx, n);
        await record(tx, n, { action: "account.delete" });
      }
    });
    const [head, other] = await store().transaction(async (tx) =>
      Promise.all([tx.auditHead(userId(1)), tx.account(userId(2))]),
    );
    await store().transaction(async (tx) => {
      expect(await tx.removeAccount(userId(1))).toBe(true);
      expect(await tx.removeAccount(userId(1))).toBe(false);
      expect(await tx.removeAccount(userId(3))).toBe(false);
    });
    await store().transaction(async (tx) => {
      const user = userId(1);
      expect(await tx.account(user)).toBeUndefined();
      expect(await tx.accountByCredential(filled(1))).toBeUndefined();
      expect(await tx.statesSince(user, 0, 10)).toEqual([]);
      expect(await tx.takeLoginState(sessionId(1))).toBeUndefined();
      expect(await tx.session(sessionId(1))).toBeUndefined();
      expect(await tx.request(user, requestId(1))).toBeUndefined();
      expect(await tx.reservation(user, keyId(1))).toBeUndefined();
      expect(await tx.leaf(user, keyId(1))).toBeUndefined();
      expect(await tx.sealedValue(user, keyId(1), 1)).toBeUndefined();
      expect(await tx.audit(user, EVERY)).toEqual([]);
      expect(await tx.auditHead(user)).toEqual(head);

      expect(await tx.account(userId(2))).toEqual(other);
      expect(await tx.statesSince(userId(2), 0, 10)).toEqual([state(2, 1)]);
      expect(await tx.sealedValue(userId(2), keyId(2), 1)).toEqual(filled(2, 500));
      expect((await tx.audit(userId(2), EVERY)).length).toBe(2);
      expect(await tx.takeLoginState(sessionId(2))).toEqual(login(2));
    });
    const reborn = store().transaction(async (tx) => {
      const item = entry(1, ZEROS);
      await tx.appendAudit(item, headAfter(item), null);
    });
    expect(await rejection(reborn)).toMatchObject({ code: "conflict" });
    expect(await store().check()).toEqual([]);
  });

  test("the last state of a closed account is there for each of its tokens, and for nothing else", async () => {
    const row = { state: state(1, 7), closedAtMs: 123 };
    await store().transaction(async (tx) => {
      await tx.insertAccount(account(1));
      await tx.removeAccount(userId(1));
      await tx.putClosed(userId(1), [filled(3), filled(4)], row);
    });
    await store().transaction(async (tx) => {
      expect(await tx.closed(userId(1), filled(3))).toEqual(row);
      expect(await tx.closed(userId(1), filled(4))).toEqual(row);
      expect(await tx.closed(userId(1), filled(5))).toBeUndefined();
      expect(await tx.closed(userId(2), filled(3))).toBeUndefined();
      // the name is free again
      expect(await tx.insertAccount({ ...account(2), credentialId: filled(1) })).toBe(true);
    });
    expect(await store().check()).toEqual([]);
  });
}
