import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { ceremonyIdOf, draftBytes, verifyCeremonyKey } from "../../../src/protocol/ceremony/records.ts";
import { STORED_KEY, STORED_KEY_BEFORE } from "../../../src/server/ceremony/storedkeys.ts";
import { eachStored, putStored, readStored } from "../../../src/server/documents.ts";
import {
  type CeremonyServer,
  ceremonyServer,
  codeOf,
  drafted,
  finished,
  join1,
  opened,
  type Run,
  reveal1,
  statusOf,
  transcriptOf,
} from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

const HOUR = 3_600_000;

async function storedOf(run: Run) {
  const body = (await transcriptOf(server, run)).entries.at(-1)?.entry.body;
  if (body?.kind !== "result" || !body.stored) throw new Error("nothing stored");
  return body.stored;
}

describe("a draft", () => {
  test("becomes one ceremony, however often it is sent", async () => {
    const { draft, signature } = await drafted(server, 2);
    const all = await Promise.all([1, 2, 3].map(() => server.call("ceremony.open", { draft, signature })));
    expect(new Set(all.map(({ manifest }) => ceremonyIdOf(manifest.manifest))).size).toBe(1);
    server.crash();
    expect(await server.call("ceremony.open", { draft, signature })).toEqual(all[0] as never);
    expect((await server.call("ceremony.list", { after: null })).items.length).toBe(1);
  });

  test("is good for the account that came with it first: whoever has it from the manifest opens nothing by it", async () => {
    const { draft, signature } = await drafted(server, 2);
    await server.call("ceremony.open", { draft, signature }, 1);
    expect(await codeOf(server.call("ceremony.open", { draft, signature }, 2))).toBe("conflict");
    server.crash();
    expect(await codeOf(server.call("ceremony.open", { draft, signature }, 2))).toBe("conflict");
    expect((await server.call("ceremony.list", { after: null }, 2)).items).toEqual([]);
  });

  test("with the nonce of another one is refused, and so is one that its organiser did not sign", async () => {
    const { draft, signature, organiser } = await drafted(server, 2);
    await server.call("ceremony.open", { draft, signature });
    const other = { ...draft, purpose: "something else" };
    expect(
      await codeOf(server.call("ceremony.open", { draft: other, signature: organiser.sign(draftBytes(other)) })),
    ).toBe("conflict");
    const fresh = { ...draft, nonce: server.random.bytes(32) };
    const stranger = signerFromSeed(server.random.bytes(32));
    expect(
      await codeOf(server.call("ceremony.open", { draft: fresh, signature: stranger.sign(draftBytes(fresh)) })),
    ).toBe("integrity");
  });

  test("gets the same answer for a seat whether that account exists or not", async () => {
    const forms: string[] = [];
    for (const name of ["person-2", "nobody-at-all"]) {
      const { draft } = await drafted(server, 2);
      const slots = draft.slots.map((slot) => (slot.index === 1 ? { ...slot, invite: null, account: name } : slot));
      const run = await opened(server, 2, { slots });
      forms.push(Object.keys(run.manifest.manifest).join());
    }
    expect(forms[0]).toBe(forms[1] as string);
  });

  test("is refused beyond the limits of an account and of the server; what ended makes room", async () => {
    await server.close();
    server = await ceremonyServer({ limits: { openCeremonies: 2, serverCeremonies: 3 } });
    const first = await opened(server, 2);
    await opened(server, 2);
    expect(await codeOf(opened(server, 2))).toBe("rate_limited");
    await opened(server, 2, {}, 2);
    expect(await codeOf(opened(server, 2, {}, 3))).toBe("rate_limited");
    await server.call("ceremony.close", { ceremonyId: first.id, abort: true });
    expect(await codeOf(opened(server, 2, {}, 3))).toBe("ok");
  });

  test("is listed to its organiser page by page, newest first", async () => {
    await server.close();
    server = await ceremonyServer({ limits: { openCeremonies: 100 } });
    const ids: string[] = [];
    for (let n = 0; n < 70; n++) {
      server.nowMs += 1;
      ids.unshift((await opened(server, 2)).id);
    }
    const first = await server.call("ceremony.list", { after: null });
    expect(first.more).toBe(true);
    const after = first.items.at(-1)?.ceremonyId ?? null;
    const second = await server.call("ceremony.list", { after });
    expect(second.more).toBe(false);
    expect([...first.items, ...second.items].map(({ ceremonyId }) => ceremonyId as string)).toEqual(ids);
    expect((await server.call("ceremony.list", { after: null }, 2)).items).toEqual([]);
  });
});

describe("the server's keys", () => {
  test("are made once, and state both who seals and who signs", async () => {
    const asked = await Promise.all([1, 2].map(() => server.call("ceremony.keys", {})));
    expect(asked[0]?.items).toEqual(asked[1]?.items as never);
    expect(server.asked.filter((operation) => operation === "ceremony.key").length).toBe(1);
    const [key] = asked[0]?.items ?? [];
    if (!key) throw new Error("no key");
    expect(verifyCeremonyKey(key)).toMatchObject({ number: 1, server: server.site.identity.publicKey });
  });

  test("overlap: the one before serves drafts for an hour, and ceremonies until they end; then it is deleted", async () => {
    const early = await drafted(server, 2);
    const late = await drafted(server, 2);
    const run = await opened(server, 2, { commitMs: 2 * HOUR, revealMs: 2 * HOUR });
    expect(await server.rotate()).toMatchObject({ kept: 1 });
    const numbers = async () => (await server.call("ceremony.keys", {})).items.map(({ key }) => key.number);
    expect(await numbers()).toEqual([2, 1]);
    server.nowMs += HOUR - 1;
    const { manifest } = await server.call("ceremony.open", early);
    await server.call("ceremony.close", { ceremonyId: ceremonyIdOf(manifest.manifest), abort: true });
    server.nowMs += 1;
    expect(await codeOf(server.call("ceremony.open", late))).toBe("stale");
    await server.sweep();
    expect(await numbers()).toEqual([2, 1]);
    for (const p of run.participants) await join1(server, run, p);
    await server.sweep();
    for (const p of run.participants) await reveal1(server, run, p);
    await server.sweep();
    expect(await statusOf(server, run)).toBe("stored");
    await server.sweep();
    expect(await numbers()).toEqual([2]);
    const left = server.site.ctx.store.transaction((tx) => tx.document("ceremonyKey", "1"));
    expect(await left).toBeUndefined();
  });

  test("are no more than eight at once", async () => {
    for (let n = 1; n <= 8; n++) {
      await opened(server, 2);
      if (n < 8) await server.rotate();
    }
    expect(await codeOf(server.rotate())).toBe("conflict");
    expect((await server.call("ceremony.keys", {})).items.length).toBe(8);
  }, 60_000);

  test("of a draft must be the server's own, as it states it", async () => {
    const { draft, organiser } = await drafted(server, 2);
    const key = { ...draft.key, key: { ...draft.key.key, createdAtMs: 1 } };
    const forged = { ...draft, key };
    expect(
      await codeOf(server.call("ceremony.open", { draft: forged, signature: organiser.sign(draftBytes(forged)) })),
    ).toBe("stale");
  });
});

describe("the name of a key in the store", () => {
  test("is not given to a second one of the account; others have it, and it is free once the key is over", async () => {
    const first = await opened(server, 2);
    await finished(server, first);
    const { keyId } = await storedOf(first);
    const again = await drafted(server, 2, { name: "door" });
    expect(await codeOf(server.call("ceremony.open", again))).toBe("exists");
    // nothing of it is kept, and another name or account may have it
    expect((await server.call("ceremony.list", { after: null })).items.length).toBe(1);
    expect(await codeOf(opened(server, 2, { name: "gate" }))).toBe("ok");
    expect(await codeOf(opened(server, 2, { name: "door" }, 2))).toBe("ok");
    expect(await codeOf(opened(server, 2, { name: "door", replaces: keyId }))).toBe("ok");
    await server.store.transaction(async (tx) => {
      const row = await readStored(tx, STORED_KEY, keyId);
      if (row) await putStored(tx, STORED_KEY, { ...row, value: { ...row.value, status: "revoked" } }, row.version);
    });
    expect(await codeOf(server.call("ceremony.open", again))).toBe("ok");
  });
});

describe("a ceremony that replaces a key", () => {
  test("makes its next version, and keeps the one before", async () => {
    const first = await opened(server, 2);
    await finished(server, first);
    const { keyId } = await storedOf(first);
    const second = await opened(server, 2, { replaces: keyId });
    await finished(server, second);
    expect(await storedOf(second)).toEqual({ keyId, version: 2 });
    const kept = await server.store.transaction(async (tx) => ({
      newest: await readStored(tx, STORED_KEY, keyId),
      before: await eachStored(tx, STORED_KEY_BEFORE, keyId),
    }));
    expect(kept.newest?.value.record).toMatchObject({ version: 2, ceremonyId: second.id });
    expect(kept.before.map(({ value }) => value.record.version)).toEqual([1]);
  });

  test("makes the same kind of it: what was issued of a key fits its next version", async () => {
    const first = await opened(server, 2, { output: { kind: "bytes", length: 32 } });
    await finished(server, first);
    const { keyId } = await storedOf(first);
    for (const output of [{ kind: "hedge" }, { kind: "ed25519" }] as const)
      expect(await codeOf(opened(server, 2, { output, replaces: keyId }))).toBe("conflict");
    const second = await opened(server, 2, { output: { kind: "bytes", length: 16 }, replaces: keyId });
    await finished(server, second);
    expect(await storedOf(second)).toEqual({ keyId, version: 2 });
  });

  test("is the same organiser's, of a key that is in use, and one at a time", async () => {
    const first = await opened(server, 2);
    await finished(server, first);
    const { keyId } = await storedOf(first);
    expect(await codeOf(opened(server, 2, { replaces: keyId }, 2))).toBe("not_found");
    expect(await codeOf(opened(server, 2, { replaces: "0".repeat(64) as typeof keyId }))).toBe("not_found");
    const second = await opened(server, 2, { replaces: keyId });
    expect(await codeOf(opened(server, 2, { replaces: keyId }))).toBe("conflict");
    await server.call("ceremony.close", { ceremonyId: second.id, abort: true });
    await server.store.transaction(async (tx) => {
      const row = await readStored(tx, STORED_KEY, keyId);
      if (row) await putStored(tx, STORED_KEY, { ...row, value: { ...row.value, status: "revoked" } }, row.version);
    });
    expect(await codeOf(opened(server, 2, { replaces: keyId }))).toBe("denied");
  });
});
