import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { draftBytes } from "../../../src/protocol/ceremony/records.ts";
import { DEFAULTS } from "../../../src/protocol/defaults.ts";
import { CEREMONY, ENTRY, HEAD } from "../../../src/server/ceremony/documents.ts";
import { giveUpCeremonies } from "../../../src/server/ceremony/givingup.ts";
import { createCeremonyControl } from "../../../src/server/ceremony/operator.ts";
import { STORED_KEY } from "../../../src/server/ceremony/storedkeys.ts";
import { readStored } from "../../../src/server/documents.ts";
import { decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import { controls } from "../../../src/wire/control.ts";
import { type CeremonyServer, ceremonyServer, codeOf, finished, join1, opened, type Run, statusOf } from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

/** One whose stage ended before everyone had come. */
async function aborted(n = 2): Promise<Run> {
  const run = await opened(server, n);
  await join1(server, run, run.one(1));
  server.nowMs += 60_001;
  await server.sweep();
  expect(await statusOf(server, run)).toBe("aborted");
  return run;
}

const there = ({ id }: Pick<Run, "id">) =>
  server.store.transaction(async (tx) => ({
    rows: [await readStored(tx, CEREMONY, id), await readStored(tx, HEAD, id)].filter(Boolean).length,
    entries: await tx.documentCount(ENTRY.kind, id, 100),
  }));
const GONE = { rows: 0, entries: 0 };
const later = (ms: number) => {
  server.nowMs += ms;
  return server.sweep();
};

describe("what is forgotten", () => {
  test("are ceremonies that were aborted, after their time, whole; those that made a key stay", async () => {
    const made = await opened(server, 2);
    await finished(server, made);
    const given = await aborted();
    await later(DEFAULTS.ceremonyKeptMs - 60_000);
    expect(await there(given)).toEqual({ rows: 2, entries: 2 });
    await later(60_001);
    expect(await there(given)).toEqual(GONE);
    expect(await codeOf(server.call("ceremony.get", { ceremonyId: given.id, after: 0 }))).toBe("not_found");
    expect((await server.call("ceremony.list", { after: null })).items.map(({ ceremonyId }) => ceremonyId)).toEqual([
      made.id,
    ]);
    await later(10 * DEFAULTS.ceremonyKeptMs);
    expect(await statusOf(server, made)).toBe("stored");
    expect(await server.store.transaction((tx) => tx.documentCount(STORED_KEY.kind, server.account(1).userId, 9))).toBe(
      1,
    );
  });

  test("is not the draft: it opens no other ceremony", async () => {
    const run = await aborted();
    const { draft, organiser } = run;
    const again = () => codeOf(server.call("ceremony.open", { draft, signature: organiser.sign(draftBytes(draft)) }));
    expect(await again()).toBe("ok");
    await later(DEFAULTS.ceremonyKeptMs + 1);
    expect(await there(run)).toEqual(GONE);
    expect(await again()).toBe("not_found");
    expect(await there(run)).toEqual(GONE);
  });

  test("also behind many that stay, some at each sweep", async () => {
    const given = [await aborted(), await aborted()];
    // heads of ceremonies that have made a key, as old
    await server.store.transaction(async (tx) => {
      const row = await readStored(tx, HEAD, given[0]?.id ?? "");
      if (!row) throw new Error("no head");
      for (let n = 0; n < 130; n++) {
        const body = new TextEncoder().encode(encodeJson(HEAD.codec, { ...row.value, status: "stored" }));
        const id = n.toString(16).padStart(64, "0");
        await tx.putDocument({ kind: HEAD.kind, id, owner: "over", place: row.place - 1, body }, 0);
      }
    });
    await later(DEFAULTS.ceremonyKeptMs + 1);
    for (const one of given) expect((await there(one)).rows).toBe(2);
    await later(1);
    await later(1);
    for (const one of given) expect(await there(one)).toEqual(GONE);
    await later(1);
  });
});

test("open ceremonies that are given up are gone, and stand in their organiser's log; others stay", async () => {
  const made = await opened(server, 2);
  await finished(server, made);
  const open = await opened(server, 2);
  await join1(server, open, open.one(1));
  const [key] = (await server.call("ceremony.keys", {})).items;
  if (!key) throw new Error("no key");
  const give = (enclave: Uint8Array | null) =>
    server.store.transaction((tx) => giveUpCeremonies(server.site.ctx, tx, enclave));
  expect(await give(key.key.enclave)).toBe(0);
  expect(await there(open)).toEqual({ rows: 2, entries: 1 });
  expect(await give(new Uint8Array(32))).toBe(1);
  expect(await there(open)).toEqual(GONE);
  expect(await statusOf(server, made)).toBe("stored");
  const any = { after: 0, limit: 100, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null };
  const log = await server.store.transaction((tx) => tx.audit(server.account(1).userId, any));
  expect(log.at(-1)?.entry).toMatchObject({ action: "ceremony.abort", status: "stale", keyId: open.id.slice(0, 32) });
  expect(await give(null)).toBe(0);
});

describe("the operator's list", () => {
  const list = async (
    over: boolean,
    after: Parameters<ReturnType<typeof createCeremonyControl>["ceremony.list"]>[0]["after"] = null,
  ) => {
    const page = await createCeremonyControl(server.site.ctx)["ceremony.list"]({ over, after });
    const { output } = controls["ceremony.list"];
    return decodeJson(output, new TextEncoder().encode(encodeJson(output, page)));
  };

  test("has name, organiser, status, time and seats of those that are open, and apart those that are over", async () => {
    const made = await opened(server, 2);
    await finished(server, made);
    const open = await opened(server, 3);
    await join1(server, open, open.one(2));
    expect(await list(false)).toEqual({
      items: [
        {
          ceremonyId: open.id,
          name: open.draft.name,
          organiser: server.accountName(1),
          status: "commit",
          untilMs: server.nowMs + 60_000,
          openedAtMs: server.nowMs,
          seats: 3,
          taken: 1,
        },
      ],
      next: null,
    });
    const { items } = await list(true);
    expect(items.map(({ ceremonyId, status, taken }) => [ceremonyId, status, taken])).toEqual([[made.id, "stored", 2]]);
  });

  test("has nothing secret: no opening, seed, invite or key", async () => {
    const run = await opened(server, 2);
    for (const p of run.participants) await join1(server, run, p);
    const text = JSON.stringify(await list(false));
    for (const p of run.participants)
      for (const secret of [p.opening, p.invite.publicKey, p.key.publicKey])
        for (const shown of [secret.toHex(), Buffer.from(secret).toString("base64url")])
          expect(text).not.toContain(shown);
    expect(text.length).toBeLessThan(600);
  });
});
