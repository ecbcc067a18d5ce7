import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import type { StoredKeyId } from "../../../src/ids.ts";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import { HEAD } from "../../../src/server/ceremony/documents.ts";
import { STORED_KEY, type StoredKeyBody } from "../../../src/server/ceremony/storedkeys.ts";
import { putStored, readStored } from "../../../src/server/documents.ts";
import {
  type CeremonyServer,
  ceremonyServer,
  finished,
  join1,
  kindsOf,
  opened,
  type Run,
  reveal1,
  revealOf,
  statusOf,
  transcriptOf,
} from "./world.ts";

/** The enclave has signed an entry once and for all, and the server died before it had written it. */

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

/** Nothing is written any more once the enclave was asked for this step; then server and enclave die. */
async function losing(kind: string, work: () => Promise<unknown>): Promise<void> {
  let signed = false;
  server.before = (_, input) => {
    signed ||= (input as { readonly step?: { readonly kind: string } }).step?.kind === kind;
  };
  server.hooked.around = async (work) => {
    if (signed) throw new Fault("storage", "the disk is full");
    return work();
  };
  await work().catch(() => undefined);
  expect(signed).toBe(true);
  server.hooked.around = null;
  server.before = () => undefined;
  server.crash();
}

const close = (run: Run, abort: boolean) => server.call("ceremony.close", { ceremonyId: run.id, abort });
/** What the organiser wants, as it stands in the database. */
const wish = (run: Run, closing: "freeze" | "abort") =>
  server.store.transaction(async (tx) => {
    const head = await readStored(tx, HEAD, run.id);
    if (head) await putStored(tx, HEAD, { ...head, place: 0, value: { ...head.value, closing } }, head.version);
  });
const lastOf = async (run: Run) => (await transcriptOf(server, run)).entries.at(-1)?.entry.body;

describe("what was signed comes first", () => {
  test("of a freeze, though the organiser has ended the ceremony meanwhile: the abort follows it", async () => {
    const run = await opened(server, 2);
    await join1(server, run, run.one(1));
    await losing("freeze", () => join1(server, run, run.one(2)));
    // as by another request that has looked at it just before
    await wish(run, "abort");
    await server.sweep();
    expect(await kindsOf(server, run)).toEqual(["join", "join", "freeze", "abort"]);
    await verifyTranscript(await transcriptOf(server, run));
  });

  test("of an abort for those who are absent: it is none at the organiser's word", async () => {
    const run = await opened(server, 2);
    await join1(server, run, run.one(1));
    server.nowMs += 60_000;
    await losing("abort", () => server.sweep());
    await wish(run, "abort");
    await server.sweep();
    expect(await lastOf(run)).toMatchObject({ kind: "abort", reason: "absent", culprits: [2] });
  });

  test("of an abort at the organiser's word: nobody is named for the time that is over meanwhile", async () => {
    const run = await opened(server, 2);
    for (const p of run.participants) await join1(server, run, p);
    await losing("abort", () => close(run, true));
    server.nowMs += 3_600_000;
    await server.sweep();
    expect(await lastOf(run)).toMatchObject({ kind: "abort", reason: "closed", culprits: [] });
  });

  test("of a lie: its author is named for it, though the time for reveals is over meanwhile", async () => {
    const run = await opened(server, 2);
    for (const p of run.participants) await join1(server, run, p);
    const lie = await revealOf(server, run, run.one(1), new Uint8Array(32));
    await losing("reveal", () => server.call("ceremony.reveal", lie));
    server.nowMs += 3_600_000;
    await server.sweep();
    expect(await lastOf(run)).toMatchObject({ kind: "abort", reason: "lied", culprits: [1] });
    await verifyTranscript(await transcriptOf(server, run));
  });

  test("what was not signed is forgotten: a question that the enclave refuses holds up nothing", async () => {
    const run = await opened(server, 2);
    await join1(server, run, run.one(1));
    server.nowMs += 60_000;
    server.before = (operation) => {
      if (operation === "ceremony.append") throw new Fault("unavailable", "the enclave restarted");
    };
    await server.sweep();
    server.before = () => undefined;
    // the clock was wrong: it is not over at all
    server.nowMs -= 60_000;
    await join1(server, run, run.one(2));
    expect(await kindsOf(server, run)).toEqual(["join", "join", "freeze"]);
  });
});

describe("a ceremony that replaces a key", () => {
  let keyId: StoredKeyId;
  let run: Run;
  beforeEach(async () => {
    const first = await opened(server, 2);
    await finished(server, first);
    const made = await lastOf(first);
    if (made?.kind !== "result" || !made.stored) throw new Error("nothing stored");
    ({ keyId } = made.stored);
    run = await opened(server, 2, { replaces: keyId });
    for (const p of run.participants) await join1(server, run, p);
    await reveal1(server, run, run.one(1));
  });
  const row = () => server.store.transaction((tx) => readStored(tx, STORED_KEY, keyId));
  const become = (status: StoredKeyBody["status"]) =>
    server.store.transaction(async (tx) => {
      const found = await readStored(tx, STORED_KEY, keyId);
      if (found) await putStored(tx, STORED_KEY, { ...found, value: { ...found.value, status } }, found.version);
    });
  const combine = async () => {
    await reveal1(server, run, run.one(2));
    await server.sweep();
  };

  test.each(["revoked", "moved"] as const)(
    "ends with the version that was signed, though the key is %s before it is written: it stays so",
    async (status) => {
      await losing("combine", combine);
      await become(status);
      await server.sweep();
      expect(await lastOf(run)).toMatchObject({ kind: "result", stored: { keyId, version: 2 } });
      expect((await row())?.value).toMatchObject({ status, record: { version: 2, ceremonyId: run.id } });
      await verifyTranscript(await transcriptOf(server, run));
    },
  );

  test("makes nothing for a key that is revoked already, and says so at once", async () => {
    await become("revoked");
    await combine();
    expect(await lastOf(run)).toMatchObject({ kind: "abort", reason: "failed" });
    expect((await row())?.value.record.version).toBe(1);
    expect(await statusOf(server, run)).toBe("aborted");
  });

  test("ends, too, when the combination that was signed fails again and again at first", async () => {
    await losing("combine", combine);
    server.before = (_, input) => {
      const { step } = input as { readonly step?: { readonly kind: string } };
      if (step?.kind === "combine") throw new Fault("internal", "no memory");
    };
    for (let time = 0; time < 3; time++) {
      await server.sweep();
      server.nowMs += 30_000;
    }
    expect(await statusOf(server, run)).toBe("combine");
    server.before = () => undefined;
    server.nowMs += 30_000;
    await server.sweep();
    expect(await lastOf(run)).toMatchObject({ kind: "result", stored: { version: 2 } });
  });
});
