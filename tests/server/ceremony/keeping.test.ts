import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { checkCeremonies, checkCeremonyKeys } from "../../../src/server/ceremony/checking.ts";
import { CEREMONY, CEREMONY_KEY, ENTRY, numbered, OPENING } from "../../../src/server/ceremony/documents.ts";
import { eraseCeremonies } from "../../../src/server/ceremony/erasing.ts";
import { checkSealed, sealedAsk, sealedKeys, sealedOf } from "../../../src/server/ceremony/sealed.ts";
import { checkStoredKeys } from "../../../src/server/ceremony/storedchecking.ts";
import { STORED_KEY } from "../../../src/server/ceremony/storedkeys.ts";
import { type DocumentKind, putStored, readStored, removeStored } from "../../../src/server/documents.ts";
import { type CeremonyServer, ceremonyServer, codeOf, finished, join1, opened, type Run, reveal1 } from "./world.ts";

let server: CeremonyServer;
let done: Run;
let open: Run;
const owner = () => server.account(1).userId;

/** One that has ended, and one in which a reveal waits. */
beforeEach(async () => {
  server = await ceremonyServer();
  Object.assign(server.site.ctx.keys, { identity: server.site.identity.publicKey });
  done = await opened(server, 2);
  await finished(server, done);
  open = await opened(server, 2);
  for (const p of open.participants) await join1(server, open, p);
  await reveal1(server, open, open.one(1));
});
afterEach(() => server.close());

const check = () => checkCeremonies(server.site.ctx, owner());

async function damage<T>(kind: DocumentKind<T>, id: string, change: (value: T) => T): Promise<void> {
  await server.store.transaction(async (tx) => {
    const row = await readStored(tx, kind, id);
    if (!row) throw new Error(`no ${id}`);
    await putStored(tx, kind, { ...row, value: change(row.value) }, row.version);
  });
}

const keyId = () =>
  server.store.transaction(async (tx) => (await tx.documents(STORED_KEY.kind, owner(), null, 1))[0]?.id ?? "");

function flipped(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[0] = (copy[0] ?? 0) ^ 1;
  return copy;
}

describe("server check", () => {
  test("finds nothing wrong with what nobody touched", async () => {
    expect(await check()).toEqual([]);
    expect(await checkCeremonyKeys(server.site.ctx)).toEqual([]);
  });

  test("finds an entry that was changed, and says where", async () => {
    await damage(ENTRY, numbered(done.id, 2), ({ entry }) => ({
      entry: { ...entry, entry: { ...entry.entry, atMs: entry.entry.atMs + 1 } },
    }));
    expect(await check()).toEqual([
      expect.stringMatching(/^ceremony [0-9a-f]{8}: line 3, commitment of participant 2/),
    ]);
  });

  test("finds entries that are missing at the end", async () => {
    await server.store.transaction((tx) => removeStored(tx, ENTRY, numbered(done.id, 6)));
    expect((await check()).join()).toContain("entries are missing");
  });

  test("finds an opening that was exchanged", async () => {
    await damage(OPENING, numbered(open.id, 1), (value) => ({ ...value, sealed: flipped(value.sealed) }));
    expect((await check()).join()).toContain("the opening of participant 1");
  });

  test("finds a record of a stored key that is not what the ceremony says, and one that is gone", async () => {
    const id = await keyId();
    await damage(STORED_KEY, id, (value) => ({
      ...value,
      record: { ...value.record, policy: { collect: "participants" as const, quorum: 0 } },
    }));
    expect((await check()).join()).toContain("the record of the key that it made");
    await server.store.transaction((tx) => removeStored(tx, STORED_KEY, id));
    expect((await check()).join()).toContain("is not in the store");
  });

  test("finds a stored key whose ceremony is gone, has not ended in it, or is another account's", async () => {
    const no = ["no ceremony here made its version 1"];
    const wrong = async () => (await checkStoredKeys(server.site.ctx, owner())).map((line) => line.slice(21));
    expect(await wrong()).toEqual([]);
    await damage(CEREMONY, done.id, (value) => ({ ...value, organiser: server.account(2).userId }));
    expect(await wrong()).toEqual(no);
    await damage(CEREMONY, done.id, (value) => ({ ...value, organiser: owner() }));
    await damage(STORED_KEY, await keyId(), (value) => ({
      ...value,
      record: { ...value.record, ceremonyId: open.id },
    }));
    expect(await wrong()).toEqual(no);
    await damage(STORED_KEY, await keyId(), (value) => ({
      ...value,
      record: { ...value.record, ceremonyId: done.id },
    }));
    await server.store.transaction((tx) => removeStored(tx, CEREMONY, done.id));
    expect(await wrong()).toEqual(no);
  });

  test("finds a key that is said to have left without a parcel", async () => {
    await damage(STORED_KEY, await keyId(), (value) => ({
      ...value,
      status: "moved" as const,
      movedTo: new Uint8Array(32),
    }));
    expect((await check()).join()).toContain("that it has left, and the parcel in which it left, do not agree");
  });

  test("finds a key statement that was changed", async () => {
    await damage(CEREMONY_KEY, "1", (value) => {
      const { statement } = value;
      return {
        ...value,
        statement: { ...statement, key: { ...statement.key, sealing: flipped(statement.key.sealing) } },
      };
    });
    expect((await checkCeremonyKeys(server.site.ctx))?.length).toBe(1);
  });
});

describe("server check, with the enclave", () => {
  const rows = () =>
    server.store.transaction(async (tx) => [...(await sealedKeys(tx)), ...(await sealedOf(tx, owner()))]);
  const asked = async () =>
    checkSealed(await sealedAsk((operation, input) => server.site.enclave.call(operation, input)), await rows());

  test("opens keys for ceremonies, seeds that are needed and stored keys, and signs and marks nothing", async () => {
    expect((await rows()).map(({ name }) => name.replace(/[0-9a-f]{8}/, "ID"))).toEqual([
      "key 1",
      "ceremony ID: its seed",
      "stored key ID: its version 1",
    ]);
    server.asked.length = 0;
    expect(await asked()).toEqual({ wrong: [], foreign: 0 });
    expect(server.asked).toEqual(["info", "sealed.check"]);
  });

  test("finds each flipped byte, which nothing else shows", async () => {
    await damage(CEREMONY_KEY, "1", (value) => ({ ...value, sealed: flipped(value.sealed) }));
    await damage(CEREMONY, open.id, (value) => ({ ...value, seed: flipped(value.seed) }));
    await damage(STORED_KEY, await keyId(), (value) => ({ ...value, sealed: flipped(value.sealed) }));
    expect([await check(), await checkCeremonyKeys(server.site.ctx)]).toEqual([[], []]);
    const { wrong, foreign } = await asked();
    expect([wrong.length, foreign]).toEqual([3, 0]);
    expect(wrong.every((line) => line.endsWith("does not open"))).toBe(true);
  });

  test("finds a key pair that is another one's, although it opens nothing wrong by itself", async () => {
    await server.rotate();
    const sealed = async (id: string) =>
      (await server.store.transaction((tx) => readStored(tx, CEREMONY_KEY, id)))?.value.sealed;
    const other = await sealed("2");
    if (!other) throw new Error("no key");
    await damage(CEREMONY_KEY, "1", (value) => ({ ...value, sealed: other }));
    expect((await asked()).wrong).toEqual(["key 1 does not open"]);
  });

  test("tells what another enclave has sealed, which nobody has altered", async () => {
    const ask = { identity: new Uint8Array(32), holds: async () => [] };
    expect(await checkSealed(ask, await rows())).toEqual({ wrong: [], foreign: 3 });
  });
});

test("an account that goes leaves nothing of its ceremonies", async () => {
  await server.store.transaction(async (tx) => {
    await eraseCeremonies(server.site.ctx, tx, owner());
    await tx.removeAccount(owner());
  });
  for (const { id } of [done, open]) {
    expect(await codeOf(server.call("ceremony.get", { ceremonyId: id, after: 0 }))).toBe("not_found");
  }
  const left = await server.store.transaction(async (tx) => {
    const counts: number[] = [];
    for (const kind of ["ceremonyEntry", "ceremonyOpening", "ceremonyRelease", "ceremonyPart"])
      for (const { id } of [done, open]) counts.push(await tx.documentCount(kind, id, 10));
    for (const [kind, of] of [
      ["ceremonyHead", ""],
      ["ceremonyHead", "over"],
      ["ceremonyKeyUse", "ceremonyKey:1"],
      ["storedKey", owner()],
    ] as const)
      counts.push(await tx.documentCount(kind, of, 10));
    return counts;
  });
  expect(left.every((count) => count === 0)).toBe(true);
  await server.sweep();
});

test("what happens without a session stands in the organiser's log, once each", async () => {
  const any = { after: 0, limit: 100, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null };
  const entries = await server.store.transaction((tx) => tx.audit(owner(), any));
  const of = ({ id }: Run) =>
    entries.filter(({ entry }) => entry.keyId === id.slice(0, 32)).map(({ entry }) => entry.action.slice(9));
  expect(of(done)).toEqual(["join", "join", "freeze", "reveal", "reveal", "result"]);
  expect(of(open)).toEqual(["join", "join", "freeze", "reveal"]);
});
