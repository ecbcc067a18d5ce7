import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import type { RequestId, SessionId, UserId } from "../../src/ids.ts";
import type { KeyStoreService } from "../../src/server/ceremony/service.ts";
import type { ServerContext, StagedCaller } from "../../src/server/context.ts";
import { createRoleWork } from "../../src/server/rolework.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { AccountRow, AuditPosition, Store, Tx } from "../../src/storage/store.ts";
import { account as accountRow } from "../storage/rows.ts";

/* Work that joins the dispatcher's transactions: its first one admits, its last one records. */

const account = accountRow(1) as AccountRow;
const { userId } = account;
const head = { sessionId: "1".repeat(32) as SessionId, requestId: "2".repeat(32) as RequestId, sequence: 1 };
const keyId = "ab".repeat(32);
const HANDED = {
  askId: "cd".repeat(32),
  sealed: new Uint8Array(80),
  record: {
    enclave: new Uint8Array(32),
    keyId,
    version: 1,
    ceremonyId: null,
    name: "door",
    output: { kind: "hotp", algorithm: "SHA1", digits: 6, issuer: "i", label: "l" },
    policy: { collect: "nobody", quorum: 0 },
    createdAtMs: 1,
  },
  atMs: 1,
  expiresAtMs: 2,
};

let store: Store;
/** Each entry that was written, of transactions that stand. */
let entered: number;
let refuses: Fault | null;
let breaks: boolean;

beforeEach(async () => {
  store = await openSqlite(":memory:");
  await store.transaction((tx) => tx.insertAccount(account));
  [entered, refuses, breaks] = [0, null, false];
});
afterEach(() => store.close());

const setting = (name: string) => store.transaction((tx) => tx.setting(name));
const note = async (tx: Tx, name: string, more: string) =>
  tx.putSetting(name, `${(await tx.setting(name)) ?? ""}${more} `);

function run(work: (caller: StagedCaller) => Promise<unknown>) {
  const house = {
    async enter(tx: Tx, _head: unknown, _user: UserId, name: string) {
      entered += 1;
      if (refuses) throw refuses;
      await note(tx, "entered", name);
      return account;
    },
    async record(tx: Tx, _caller: unknown, name: string, status: string, keyIds: readonly string[]) {
      await note(tx, "log", `${name}:${status}:${keyIds.join()}`);
      if (breaks) throw new Fault("storage", "the disk is full");
      return { seq: 1, link: new Uint8Array(32), logSalt: null } as AuditPosition;
    },
    onFault: () => undefined,
  };
  const keyStore = { "otp.request": work } as unknown as KeyStoreService;
  const perform = createRoleWork({ store } as ServerContext, house, { federation: null, registry: null, keyStore });
  const input = { ask: { keyId } };
  return perform("otp.request", head, userId, input, new Uint8Array(32), "192.0.2.1").catch((error: unknown) => error);
}

const write = (name: string) => async (tx: Tx) => {
  await tx.putSetting(name, "written");
  return name;
};
const about = keyId.slice(0, 32);

describe("staged work", () => {
  test("is admitted with its first transaction and recorded, once, with its last", async () => {
    const done = await run(async ({ first, last }) => {
      await first(write("begun"));
      expect([await setting("entered"), await setting("begun")]).toEqual(["otp.request ", "written"]);
      // not yet what came of it
      await last(write("between"), () => null, "x");
      expect(await setting("log")).toBeUndefined();
      await last(write("kept"), () => HANDED, "x");
      expect(await setting("log")).toBe(`otp.request:ok:${about} `);
      return HANDED;
    });
    expect(done).toMatchObject({ ok: true, position: { revision: account.state.state.revision } });
    expect(await setting("log")).toBe(`otp.request:ok:${about} `);
  });

  test("says where the account stands at its end, though it has moved on since it was admitted", async () => {
    const { state } = account.state;
    const next = { ...account.state, state: { ...state, revision: state.revision + 1 } };
    const moved = { state: next, stateHash: new Uint8Array(32).fill(7) };
    const done = await run(async ({ first, last }) => {
      await first(write("begun"));
      expect(await store.transaction((tx) => tx.swapState(userId, account.stateHash, moved))).toBe(true);
      await last(write("kept"), () => HANDED, "x");
    });
    expect(done).toMatchObject({ ok: true, position: { revision: state.revision + 1, stateHash: moved.stateHash } });
  });

  test("an account that is gone by its end is answered nothing", async () => {
    const done = await run(async ({ first, last }) => {
      await first(write("begun"));
      await store.transaction((tx) => tx.removeAccount(userId));
      return last(write("kept"), () => HANDED, "x");
    });
    expect(done).toMatchObject({ code: "session_invalid" });
    expect(await setting("kept")).toBeUndefined();
  });

  test("without a last transaction of its own is recorded in one of its own", async () => {
    expect(await run(async ({ first }) => first(async () => HANDED))).toMatchObject({ ok: true });
    expect([await setting("entered"), await setting("log")]).toEqual(["otp.request ", `otp.request:ok:${about} `]);
  });

  test("a failure of the first transaction undoes it, and uses the session and is recorded all the same", async () => {
    const done = await run(({ first }) =>
      first(async (tx) => {
        await write("begun")(tx);
        throw new Fault("denied", "no");
      }),
    );
    expect(done).toMatchObject({ ok: false, fault: { code: "denied" } });
    expect(await setting("begun")).toBeUndefined();
    expect([await setting("entered"), await setting("log")]).toEqual(["otp.request ", `otp.request:denied:${about} `]);
  });

  test("a failure of the last transaction undoes it alone, and is recorded once", async () => {
    const done = await run(async ({ first, last }) => {
      await first(write("begun"));
      return last(
        async (tx) => {
          await write("kept")(tx);
          throw new Fault("denied", "revoked meanwhile");
        },
        () => HANDED,
        "x",
      );
    });
    expect(done).toMatchObject({ ok: false, fault: { code: "denied" } });
    expect([await setting("begun"), await setting("kept")]).toEqual(["written", undefined]);
    expect([await setting("entered"), await setting("log")]).toEqual(["otp.request ", `otp.request:denied:${about} `]);
  });

  test("nothing of the last transaction stands, and nothing is answered, where it cannot be recorded", async () => {
    breaks = true;
    const done = await run(async ({ first, last }) => {
      await first(write("begun"));
      await last(write("kept"), () => HANDED, "x");
      return HANDED;
    });
    expect(done).toMatchObject({ code: "storage" });
    expect([await setting("begun"), await setting("kept"), await setting("log")]).toEqual([
      "written",
      undefined,
      undefined,
    ]);
  });

  test("a session that may not ask does and learns nothing, also of work that fails before it asks", async () => {
    refuses = new Fault("factor_required", "the second factor is missing");
    for (const work of [
      ({ first }: StagedCaller) => first(write("begun")),
      () => Promise.reject(new Fault("bad_input", "no")),
    ])
      expect(await run(work)).toMatchObject({ code: "factor_required" });
    expect(entered).toBeGreaterThan(1);
    expect([await setting("begun"), await setting("entered"), await setting("log")]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  test("a session that is over, or a frame that was used, leaves no entry", async () => {
    for (const code of ["session_invalid", "replayed"] as const) {
      refuses = new Fault(code, "no");
      expect(await run(({ first }) => first(write("begun")))).toMatchObject({ code });
    }
    expect([await setting("begun"), await setting("log")]).toEqual([undefined, undefined]);
  });
});
