import { afterEach, beforeEach, expect, test } from "bun:test";
import type { RequestId } from "../../src/ids.ts";
import { checkFactor } from "../../src/server/checkfactor.ts";
import { putStored, readStored, removeStored } from "../../src/server/documents.ts";
import { type Factor, putFactor, SECOND_FACTOR, sealFactorKey } from "../../src/server/factor.ts";
import { codeOf } from "../support/registryworld.ts";
import { type CeremonyServer, ceremonyServer } from "./ceremony/world.ts";

/** What `server check` says of second factors (docs/operations.md §5). */

let server: CeremonyServer;
const account = (n: number) => server.account(n);
const userId = () => account(1).userId;
const stepOf = (ms: number) => Math.floor(ms / 30_000);

beforeEach(async () => {
  server = await ceremonyServer();
  const { ctx } = server.site;
  const value: Factor = {
    sealed: sealFactorKey(ctx, userId(), server.random.bytes(20)),
    steps: stepOf(server.nowMs) + 2,
    recovery: [1, 2, 3].map((n) => new Uint8Array(32).fill(n)),
    enabledAtMs: server.nowMs,
    madeBy: "0".repeat(32) as RequestId,
  };
  await server.store.transaction((tx) => putFactor(tx, userId(), undefined, value));
});
afterEach(() => server.close());

const check = (n = 1) => server.store.transaction((tx) => checkFactor(server.site.ctx, tx, account(n)));

async function damage(change: (value: Factor) => Partial<Factor>, place: object = {}): Promise<void> {
  await server.store.transaction(async (tx) => {
    const row = await readStored(tx, SECOND_FACTOR, userId());
    if (!row) throw new Error("no factor");
    await removeStored(tx, SECOND_FACTOR, userId());
    await putStored(tx, SECOND_FACTOR, { ...row, value: { ...row.value, ...change(row.value) }, ...place }, 0);
  });
}

test("finds nothing wrong with one that was used just now, nor with none", async () => {
  expect(await check()).toEqual([]);
  expect(await check(2)).toEqual([]);
});

test("finds a key that does not open, is another account's, or has another length", async () => {
  const { ctx } = server.site;
  const keys = [
    (value: Factor) => value.sealed.map((byte, at) => (at === 30 ? byte ^ 1 : byte)),
    () => sealFactorKey(ctx, account(2).userId, new Uint8Array(20)),
    () => sealFactorKey(ctx, userId(), new Uint8Array(19)),
  ];
  for (const sealed of keys) {
    await damage((value) => ({ sealed: sealed(value) }));
    expect(await check()).toEqual(["the key of the second factor does not open"]);
  }
});

test("finds steps and times to come: the owner would be locked out", async () => {
  const day = 24 * 3_600_000;
  // a clock that was put back for some hours is no damage
  await damage(() => ({ steps: stepOf(server.nowMs + day) }));
  expect(await check()).toEqual([]);
  await damage(() => ({ steps: stepOf(server.nowMs + day) + 3 }));
  expect((await check()).join()).toContain("of a time to come");
  const enabledAtMs = server.nowMs + 2 * day;
  await damage(() => ({ steps: 1, enabledAtMs }), { place: enabledAtMs });
  expect((await check()).join()).toContain("of a time to come");
});

test("finds one that lies with another account, and a recovery code that is there twice", async () => {
  await damage(({ recovery }) => ({ recovery: [...recovery, ...recovery.slice(0, 1)] }));
  expect(await check()).toEqual(["a recovery code of the second factor is there twice"]);
  await damage(() => ({ recovery: [] }), { owner: account(2).userId });
  expect(await check()).toEqual(["the second factor is not at its place"]);
  expect(await check(2)).toEqual(["a second factor of another account is listed with it"]);
});

test("a row that cannot be read is corrupt", async () => {
  await server.store.transaction(async (tx) => {
    await tx.removeDocument(SECOND_FACTOR.kind, userId());
    const body = new TextEncoder().encode('{"sealed":""}');
    await tx.putDocument({ kind: SECOND_FACTOR.kind, id: userId(), owner: userId(), place: 0, body }, 0);
  });
  expect(await codeOf(check())).toBe("corrupt");
});
