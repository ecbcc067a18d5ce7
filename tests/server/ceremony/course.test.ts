import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeOpen } from "../../../src/crypto/hpke.ts";
import type { AbortReason, EntryBody, SignedEntry } from "../../../src/protocol/ceremony/model.ts";
import { entryHash, walletPartInfo } from "../../../src/protocol/ceremony/records.ts";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import { HEAD, KEY_USE, keyOwner, OPEN, OPENING } from "../../../src/server/ceremony/documents.ts";
import { STORED_KEY } from "../../../src/server/ceremony/storedkeys.ts";
import { eachStored, readStored } from "../../../src/server/documents.ts";
import {
  type CeremonyServer,
  ceremonyServer,
  codeOf,
  drafted,
  finished,
  join1,
  joinOf,
  kindsOf,
  opened,
  participant,
  type Run,
  reveal1,
  revealOf,
  statusOf,
  transcriptOf,
} from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

const bodies = async (run: Run): Promise<EntryBody[]> =>
  (await transcriptOf(server, run)).entries.map(({ entry }) => entry.body);

async function abortOf(run: Run): Promise<{ reason: AbortReason; culprits: readonly number[] } | null> {
  const last = (await bodies(run)).at(-1);
  return last?.kind === "abort" ? { reason: last.reason, culprits: last.culprits } : null;
}

/** What an ended ceremony must not leave behind. */
async function leftovers(run: Run): Promise<number> {
  return server.store.transaction(async (tx) => {
    const rows = [
      ...(await eachStored(tx, OPENING, run.id)),
      ...(await eachStored(tx, OPEN, server.account(1).userId)),
      ...(await eachStored(tx, KEY_USE, keyOwner(1))),
      ...(await eachStored(tx, HEAD, "")),
    ];
    return rows.length;
  });
}

describe("a ceremony in which everyone does their part", () => {
  test.each([2, 3, 20])("ends in a stored key, with %i participants", async (n) => {
    const run = await opened(server, n);
    await finished(server, run);
    const kinds = await kindsOf(server, run);
    expect(kinds).toEqual([...Array(n).fill("join"), "freeze", ...Array(n).fill("reveal"), "result"]);
    const transcript = await transcriptOf(server, run);
    const openings = new Map(run.participants.map(({ index, opening }) => [index, opening]));
    await verifyTranscript(transcript, { openings });
    const result = (await bodies(run)).at(-1);
    const keyId = result?.kind === "result" ? result.stored?.keyId : undefined;
    const kept = await server.store.transaction((tx) => readStored(tx, STORED_KEY, keyId ?? ""));
    expect(kept?.owner).toBe(server.account(1).userId);
    expect(kept?.value).toMatchObject({ status: "active", record: { name: "door", version: 1, ceremonyId: run.id } });
    expect(await leftovers(run)).toBe(0);
    expect(server.notices).toEqual([expect.objectContaining({ event: "ceremony.stored", ceremonyId: run.id })]);
  });

  test("may use RSA in place of HPKE, and answers what it was sent twice the same", async () => {
    const run = await opened(server, 2);
    const joins: SignedEntry[] = [];
    for (const p of run.participants) joins.push(await join1(server, run, p));
    expect(await Promise.all(run.participants.map((p) => join1(server, run, p)))).toEqual(joins);
    const inputs = [
      await revealOf(server, run, run.one(1)),
      await revealOf(server, run, run.one(2), undefined, "rsa-oaep"),
    ];
    const reveals: { readonly entry: SignedEntry }[] = [];
    for (const input of inputs) reveals.push(await server.call("ceremony.reveal", input));
    await server.sweep();
    expect(await Promise.all(inputs.map((input) => server.call("ceremony.reveal", input)))).toEqual(reveals);
    expect(await kindsOf(server, run)).toEqual(["join", "join", "freeze", "reveal", "reveal", "result"]);
  });

  test("gives each participant of a wallet its own part, and stores nothing", async () => {
    const share = Uint8Array.fromHex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798");
    const other = Uint8Array.fromHex("02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5");
    const output = { kind: "multisig", threshold: 2, network: "regtest" } as const;
    const run = await opened(server, 2, { output, policy: { collect: "nobody", quorum: 0 } });
    for (const p of run.participants)
      await server.call("ceremony.join", { join: joinOf(run, p, { share: p.index === 1 ? share : other }) });
    expect(await codeOf(server.call("ceremony.part", { ceremonyId: run.id, index: 1 }))).toBe("not_found");
    for (const p of run.participants) await reveal1(server, run, p);
    await server.sweep();
    expect((await bodies(run)).at(-1)).toMatchObject({ kind: "result", stored: null, custody: "self-custodial" });
    for (const { index, sealing } of run.participants) {
      const { sealed } = await server.call("ceremony.part", { ceremonyId: run.id, index });
      const part = await hpkeOpen(sealing, walletPartInfo(run.id, index, sealing.publicKey), sealed);
      expect(part.length).toBe(32);
    }
    expect(await codeOf(server.call("ceremony.part", { ceremonyId: run.id, index: 3 }))).toBe("not_found");
  });
});

describe("a ceremony in which someone does not", () => {
  test("is aborted and names who never came, where fewer than the minimum committed", async () => {
    const run = await opened(server, 3);
    await join1(server, run, run.one(2));
    server.nowMs += 60_000;
    await server.sweep();
    expect(await abortOf(run)).toEqual({ reason: "absent", culprits: [1, 3] });
    expect(await leftovers(run)).toBe(0);
    expect(server.notices).toEqual([expect.objectContaining({ event: "ceremony.aborted" })]);
    expect(await codeOf(join1(server, run, run.one(1)))).toBe("conflict");
  });

  test("goes on without late ones, where the minimum committed in time", async () => {
    const run = await opened(server, 3, { minimum: 2 });
    await join1(server, run, run.one(1));
    await join1(server, run, run.one(3));
    server.nowMs += 60_000;
    expect(await codeOf(join1(server, run, run.one(2)))).toBe("stale");
    expect(await kindsOf(server, run)).toEqual(["join", "join", "freeze"]);
    await reveal1(server, run, run.one(3));
    await reveal1(server, run, run.one(1));
    await server.sweep();
    expect(await statusOf(server, run)).toBe("stored");
  });

  test("is never finished with a subset: who does not reveal is named", async () => {
    const run = await opened(server, 3);
    for (const p of run.participants) await join1(server, run, p);
    await reveal1(server, run, run.one(1));
    await reveal1(server, run, run.one(2));
    server.nowMs += 59_999;
    await server.sweep();
    expect(await statusOf(server, run)).toBe("reveal");
    const late = await revealOf(server, run, run.one(3));
    server.nowMs += 1;
    expect(await codeOf(server.call("ceremony.reveal", late))).toBe("conflict");
    expect(await abortOf(run)).toEqual({ reason: "withheld", culprits: [3] });
    expect(await leftovers(run)).toBe(0);
  });

  test("is aborted by an opening that is not what was committed to, and names the liar", async () => {
    const run = await opened(server, 3);
    for (const p of run.participants) await join1(server, run, p);
    await reveal1(server, run, run.one(1));
    const lie = await revealOf(server, run, run.one(2), server.random.bytes(32));
    const { entry } = await server.call("ceremony.reveal", lie);
    expect(entry.entry.body).toMatchObject({ kind: "abort", reason: "lied", culprits: [2] });
    expect(await abortOf(run)).toEqual({ reason: "lied", culprits: [2] });
    expect(await codeOf(reveal1(server, run, run.one(3)))).toBe("conflict");
    await verifyTranscript(await transcriptOf(server, run));
    expect(await leftovers(run)).toBe(0);
  });

  test("takes no lie for which nobody signed, and goes on", async () => {
    const run = await opened(server, 2);
    for (const p of run.participants) await join1(server, run, p);
    const sound = await revealOf(server, run, run.one(1));
    const forged = await revealOf(server, run, { ...run.one(1), key: run.one(2).key }, server.random.bytes(32));
    expect(await codeOf(server.call("ceremony.reveal", forged))).toBe("denied");
    expect(await codeOf(server.call("ceremony.reveal", { ...sound, sealed: forged.sealed }))).toBe("integrity");
    await server.call("ceremony.reveal", sound);
    await reveal1(server, run, run.one(2));
    await server.sweep();
    expect(await statusOf(server, run)).toBe("stored");
  });

  test("is repeated by another one that links it", async () => {
    const first = await opened(server, 2);
    server.nowMs += 60_000;
    const again = async (before: Run, flip = 0) => {
      const last = (await transcriptOf(server, before)).entries.at(-1)?.entry;
      const transcriptHash = last ? entryHash(before.id, last) : new Uint8Array(32);
      transcriptHash[0] = (transcriptHash[0] ?? 0) ^ flip;
      return opened(server, 2, { previous: { ceremonyId: before.id, transcriptHash } });
    };
    await server.sweep();
    expect(await codeOf(again(first, 1))).toBe("bad_input");
    const second = await again(first);
    expect(second.id).not.toBe(first.id);
    expect(await codeOf(again(second))).toBe("conflict");
    await finished(server, second);
    expect(await codeOf(again(second))).toBe("conflict");
  });
});

describe("seats", () => {
  test("take one participant each, with its own invite", async () => {
    const run = await opened(server, 3);
    await join1(server, run, run.one(1));
    const stranger = await participant(server, 1);
    expect(await codeOf(server.call("ceremony.join", { join: joinOf(run, stranger, {}, run.one(1).invite) }))).toBe(
      "conflict",
    );
    const two = { ...stranger, index: 2 };
    expect(await codeOf(server.call("ceremony.join", { join: joinOf(run, two) }))).toBe("denied");
    expect(await codeOf(server.call("ceremony.join", { join: joinOf(run, two, {}, run.one(3).invite) }))).toBe(
      "denied",
    );
    const copied = { commitment: joinOf(run, run.one(1)).join.commitment };
    expect(await codeOf(server.call("ceremony.join", { join: joinOf(run, run.one(2), copied) }))).toBe("conflict");
    expect(await kindsOf(server, run)).toEqual(["join"]);
  });

  test("of accounts are taken in a session, by that account alone", async () => {
    const { draft } = await drafted(server, 2);
    const slots = draft.slots.map((slot) => (slot.index === 1 ? { ...slot, invite: null, account: "person-2" } : slot));
    const run = await opened(server, 2, { slots });
    const p = { ...(await participant(server, 1)), index: 1 };
    const seat = { ceremonyId: run.id, index: 1, key: p.invite.publicKey };
    expect(await server.call("ceremony.list", { after: null }, 2)).toMatchObject({
      items: [{ ceremonyId: run.id, own: false, seat: 1 }],
      more: false,
    });
    expect(await codeOf(server.call("ceremony.seat", seat, 3))).toBe("denied");
    expect(await codeOf(server.call("ceremony.seat", { ...seat, index: 2 }, 2))).toBe("denied");
    expect(await codeOf(server.call("ceremony.join", { join: joinOf(run, p) }))).toBe("denied");
    const taken = await server.call("ceremony.seat", seat, 2);
    expect(await server.call("ceremony.seat", seat, 2)).toEqual(taken);
    expect(await codeOf(server.call("ceremony.seat", { ...seat, key: run.organiser.publicKey }, 2))).toBe("conflict");
    await server.call("ceremony.join", { join: joinOf(run, p) });
    expect(await kindsOf(server, run)).toEqual(["seat", "join"]);
    server.nowMs += 60_000;
    await server.sweep();
    expect((await server.call("ceremony.list", { after: null }, 2)).items).toEqual([]);
  });

  test("the last one goes to one of two who come at once", async () => {
    const run = await opened(server, 2);
    await join1(server, run, run.one(1));
    const rival = { ...(await participant(server, 2)), invite: run.one(2).invite };
    const codes = await Promise.all([run.one(2), rival].map((p) => codeOf(join1(server, run, p))));
    expect(codes.sort()).toEqual(["conflict", "ok"]);
    expect(await kindsOf(server, run)).toEqual(["join", "join", "freeze"]);
  });
});

describe("the organiser", () => {
  test("ends the commitments early where enough have come, and twice at once is once", async () => {
    const run = await opened(server, 3, { minimum: 2 });
    const close = { ceremonyId: run.id, abort: false };
    await join1(server, run, run.one(1));
    expect(await codeOf(server.call("ceremony.close", close))).toBe("conflict");
    await join1(server, run, run.one(2));
    expect(await codeOf(server.call("ceremony.close", close, 2))).toBe("denied");
    const codes = await Promise.all([1, 2].map(() => codeOf(server.call("ceremony.close", close))));
    expect(codes).toEqual(["ok", "ok"]);
    expect(await kindsOf(server, run)).toEqual(["join", "join", "freeze"]);
    expect(await codeOf(join1(server, run, run.one(3)))).toBe("stale");
  });

  test.each(["open", "commit", "reveal"])("ends the whole ceremony in status %s", async (status) => {
    const run = await opened(server, 2);
    if (status !== "open") await join1(server, run, run.one(1));
    if (status === "reveal") await join1(server, run, run.one(2));
    expect(await statusOf(server, run)).toBe(status as never);
    await server.call("ceremony.close", { ceremonyId: run.id, abort: true });
    expect(await abortOf(run)).toEqual({ reason: "closed", culprits: [] });
    expect(await codeOf(server.call("ceremony.close", { ceremonyId: run.id, abort: true }))).toBe("conflict");
    expect(await leftovers(run)).toBe(0);
  });

  test("finds a ceremony that nobody knows like one that is another's", async () => {
    const nowhere = "0".repeat(64) as Run["id"];
    expect(await codeOf(server.call("ceremony.get", { ceremonyId: nowhere, after: 0 }))).toBe("not_found");
    expect(await codeOf(server.call("ceremony.close", { ceremonyId: nowhere, abort: true }))).toBe("not_found");
  });
});
