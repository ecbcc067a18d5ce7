import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import type { FileBegin, KeyholdClient } from "../../src/client/api.ts";
import { createClient } from "../../src/client/client.ts";
import { createFiles } from "../../src/client/fileparts.ts";
import { readWholeFile, storeFileFrom, storeWholeFile } from "../../src/client/files.ts";
import { PART_BYTES } from "../../src/client/fileupload.ts";
import { sweepParts } from "../../src/client/partsweep.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { addTestDevice, random, registerDevice, type TestDevice } from "../support/harness.ts";
import { editing, rejected, startVillain, type Villain } from "../support/hostile.ts";

setDefaultTimeout(60_000);

let villain: Villain;
let ada: TestDevice;
let client: KeyholdClient;
let count = 0;
let account = "";
const PASSWORD = "a password of ada";
const MIB = 1_048_576;

beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
beforeEach(async () => {
  account = `files ${count++}`;
  ada = await registerDevice(villain.link, account, PASSWORD);
  ({ client } = ada);
});
afterEach(() => ada.end());

const bytes = (length: number): Uint8Array =>
  random(Math.min(length, 4_096)).length === length ? random(length) : pattern(length);
/** Content that is another one at every place, quickly made. */
function pattern(length: number): Uint8Array {
  const seed = random(4_099);
  return Uint8Array.from({ length }, (_, i) => (seed[i % 4_099] ?? 0) ^ (i >>> 12));
}
const file = (value: Uint8Array, more: object = {}) => ({
  name: "big",
  value,
  tags: [],
  fields: [],
  expiresAt: null,
  where: null,
  ...more,
});
const read = (of: KeyholdClient = client, version: number | null = null) =>
  readWholeFile(of, { name: "big", version, fresh: false, purpose: "get" });
const parts = (device: TestDevice = ada, status = "live") =>
  [...device.open.box.model.secrets.values()].filter(({ meta, leaf }) =>
    status === "live" ? meta?.type === "part" && leaf.status === "live" : meta === null,
  );

describe("files", () => {
  test("are not there when another device, whose clock is wrong, swept their parts meanwhile", async () => {
    const value = bytes(PART_BYTES * 5);
    const { handle } = await client.fileBegin({ name: "big", tags: [], size: value.length, where: null });
    await client.fileAppend({ handle, value: value.slice() });
    const other = await addTestDevice(villain.link, account, PASSWORD);
    await other.client.list({ prefix: null, search: null, tag: null, fresh: true });
    const ahead = () => other.open.around.now() + 90_000_000;
    expect(parts(other).length).toBeGreaterThan(0);
    await sweepParts({ ...other.open, around: { ...other.open.around, now: ahead } });
    expect(parts(other)).toEqual([]);
    await rejected(client.fileFinish({ handle }), "conflict");
    expect((await client.list({ prefix: null, search: null, tag: null, fresh: true })).items).toEqual([]);
    await other.end();
  });

  test("of any size take fields of up to 16 KiB, and no more", async () => {
    const fields = [{ name: "notes", kind: "text" as const, value: "x".repeat(16_300) }];
    for (const size of [35_999, 36_000, 36_001, 40_000, 61_441]) {
      await storeWholeFile(client, file(bytes(size), { fields }));
      const got = await read();
      expect([size, got.size, got.fields]).toEqual([size, size, fields]);
    }
    const more = [...fields, { name: "more", kind: "text" as const, value: "x".repeat(60) }];
    for (const size of [10, 61_441]) {
      await rejected(storeWholeFile(client, file(bytes(size), { fields: more })), "too_large");
    }
  });

  test("come back as they were stored, whatever their size", async () => {
    const sizes = [
      1,
      61_440,
      61_441,
      PART_BYTES * 2,
      PART_BYTES * 3,
      PART_BYTES * 3 + 1,
      PART_BYTES * 4,
      PART_BYTES * 5 + 7,
    ];
    for (const size of sizes) {
      const value = bytes(size);
      const { info } = await storeWholeFile(client, file(value.slice()));
      expect([size, info.type, info.where]).toEqual([size, "file", "both"]);
      const got = await read();
      expect([size, got.size, Buffer.compare(got.value, value)]).toEqual([size, size, 0]);
    }
    expect((await read(client, 3)).size).toBe(61_441);
    expect((await client.list({ prefix: null, search: null, tag: null, fresh: true })).items).toHaveLength(1);
    expect((await client.status()).vault.secrets).toBe(1);
    const log = { fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null, purpose: "list" } as const;
    const { items } = await client.auditList({ ...log, name: null, action: "secret.import" });
    expect([...new Set(items.map(({ name }) => name))]).toEqual(["big"]);
  });

  test("in pieces of any size", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 300_000 }),
        fc.array(fc.integer({ min: 1, max: 200_000 }), { minLength: 1, maxLength: 6 }),
        async (size, pieces) => {
          const value = bytes(size);
          let at = 0;
          let turn = 0;
          const begin: FileBegin = { name: "big", tags: [], fields: [], expiresAt: null, size: null, where: null };
          await storeFileFrom(client, begin, () => {
            const piece = value.slice(at, at + (pieces[turn++ % pieces.length] ?? 1));
            at += piece.length;
            return piece;
          });
          expect(Buffer.compare((await read()).value, value)).toBe(0);
        },
      ),
      { numRuns: 8 },
    );
  });

  test("refuses what is empty or too large, before or after it is known; nothing stays", async () => {
    await rejected(storeWholeFile(client, file(new Uint8Array(0))), "bad_input");
    villain.seen.length = 0;
    await rejected(client.fileBegin({ ...file(new Uint8Array(0)), size: 16 * MIB + 1 }), "too_large");
    expect(villain.seen).toEqual([]);
    let left = 3;
    const begin: FileBegin = { name: "big", tags: [], fields: [], expiresAt: null, size: 2 * MIB, where: null };
    await rejected(
      storeFileFrom(client, begin, () => new Uint8Array(left-- > 0 ? MIB : 0)),
      "conflict",
    );
    expect(parts()).toEqual([]);
    await rejected(client.get({ name: "big", version: null, reveal: true, fresh: false, save: false }), "not_found");
  });

  test("of 16 MiB", async () => {
    const value = pattern(DEFAULTS.fileBytes);
    const { info } = await storeWholeFile(client, file(value));
    expect(info.where).toBe("server");
    const got = await read();
    expect(Buffer.compare(got.value, value)).toBe(0);
  }, 60_000);

  test("other devices read them; a copy is kept of small ones, and of others where it is asked for", async () => {
    const value = bytes(200_000);
    await storeWholeFile(client, file(value));
    const other = await addTestDevice(villain.link, account, PASSWORD);
    expect(Buffer.compare((await read(other.client)).value, value)).toBe(0);
    /** The same vault without a server in reach. */
    const away = (device: TestDevice) =>
      createClient({ ...device.open, session: null }, { profile: "test", server: null }, async () => undefined);
    expect(Buffer.compare((await read(away(ada))).value, value)).toBe(0);
    await rejected(read(away(other)), "unreachable");
    await other.client.get({ name: "big", version: null, reveal: false, fresh: false, save: true });
    expect(Buffer.compare((await read(away(other))).value, value)).toBe(0);
    await other.end();
  });

  test("no value is handed over whole", async () => {
    await storeWholeFile(client, file(bytes(100_000)));
    await rejected(client.get({ name: "big", version: null, reveal: true, fresh: false, save: false }), "too_large");
    await rejected(
      client.getMany({ refs: [{ name: "big", version: null }], fresh: false, purpose: "get" }),
      "too_large",
    );
    const plain = await client.get({ name: "big", version: null, reveal: false, fresh: false, save: false });
    expect([plain.size, plain.value]).toEqual([100_000, null]);
  });

  test("keep their content through new fields, a new name, removal and an older version", async () => {
    const [first, second] = [bytes(150_000), bytes(100_000)];
    const fields = [{ name: "notes", kind: "text" as const, value: "of the tax office" }];
    await storeWholeFile(client, file(first));
    await client.store({ name: "big", type: null, value: null, tags: [], fields, where: null });
    expect(await read()).toMatchObject({ size: 150_000, fields });
    await rejected(client.store({ name: "big", type: "note", value: null, tags: [], where: null }), "bad_input");
    await storeFileFrom(client, { name: "big", tags: [], size: null, where: null }, sourceOf(second));
    expect(await read()).toMatchObject({ size: 100_000, fields });
    await client.restore({ name: "big", version: 1 });
    expect(Buffer.compare((await read()).value, first)).toBe(0);
    await client.rename({ from: "big", to: "large" });
    await client.remove({ name: "large", purge: false });
    await client.restore({ name: "large", version: 3 });
    const got = await readWholeFile(client, { name: "large", version: null, fresh: true, purpose: "export" });
    expect(Buffer.compare(got.value, second)).toBe(0);
  });

  test("a purge erases every part of every version", async () => {
    await storeWholeFile(client, file(bytes(150_000)));
    await storeWholeFile(client, file(bytes(250_000)));
    const ids = parts().map(({ leaf }) => leaf.keyId);
    expect(ids.length).toBe(4 + 6);
    await client.remove({ name: "big", purge: true });
    expect(parts()).toEqual([]);
    const values = await villain.server.store.transaction(async (tx) =>
      Promise.all(ids.map((id) => tx.sealedValue(ada.login.userId, id, 1))),
    );
    expect(values.every((value) => value === undefined)).toBe(true);
  });

  test("what an upload leaves behind is swept after a day, and never what belongs to a file", async () => {
    await storeWholeFile(client, file(bytes(150_000)));
    const { handle } = await client.fileBegin({ ...file(new Uint8Array(0)), name: "cut", size: null });
    await client.fileAppend({ handle, value: bytes(300_000) });
    const before = parts().length;
    expect(before).toBeGreaterThan(4);
    await client.sync();
    expect(parts().length).toBe(before);
    const now = Date.now;
    const later = { ...ada.open, around: { ...ada.open.around, now: () => now() + 86_400_001 } };
    await sweepParts(later);
    expect(parts().length).toBe(4);
    expect((await read()).size).toBe(150_000);
  });

  test("what killed programs left open does not keep others from reading and writing", async () => {
    let atMs = Date.now();
    const files = createFiles({ ...ada.open, around: { ...ada.open.around, now: () => atMs } });
    const begin = (i: number) => files.fileBegin({ ...file(new Uint8Array(0)), name: `left/${i}`, size: null });
    const first = await begin(0);
    for (let i = 1; i < 16; i++) await begin(i);
    await rejected(begin(16), "conflict");
    atMs += 31_000;
    await files.fileAppend({ handle: first.handle, value: bytes(10) });
    expect((await begin(17)).handle).toHaveLength(32);
    // the one that was worked on is not the one that went
    expect((await files.fileAppend({ handle: first.handle, value: bytes(10) })).size).toBe(20);
    files.end();
  });

  test("parts of a purge that was cut short are swept at once", async () => {
    await storeWholeFile(client, file(bytes(150_000)));
    const { removeSecret } = await import("../../src/client/writing.ts");
    await removeSecret(ada.open, { name: "big", purge: true });
    expect(parts().length).toBe(4);
    await client.sync();
    expect(parts()).toEqual([]);
  });

  test("a version that somebody else stored meanwhile is a conflict where one was seen; nothing stays of the upload", async () => {
    await storeWholeFile(client, file(bytes(10)));
    const { handle } = await client.fileBegin({ ...file(new Uint8Array(0)), size: null, ifVersion: 1 });
    await client.fileAppend({ handle, value: bytes(200_000) });
    await client.store({ name: "big", type: "file", value: bytes(5), tags: [], where: null });
    await rejected(client.fileFinish({ handle }), "conflict");
    expect(parts()).toEqual([]);
    await rejected(client.fileAppend({ handle, value: bytes(5) }), "not_found");
  });

  test("a server that swaps, withholds or replays parts is found out", async () => {
    await storeWholeFile(client, file(bytes(150_000), { where: "server" }));
    const swapped = editing(villain, {
      "secret.get": (output) => {
        const [a, b, ...rest] = output.items;
        if (!a || !b) return output;
        return { items: [{ ...a, sealed: b.sealed }, { ...b, sealed: a.sealed }, ...rest] };
      },
    });
    await rejected(
      villain.during(swapped, () => read()),
      "integrity",
    );
    const shorter = editing(villain, { "secret.get": (output) => ({ items: output.items.slice(0, -1) }) });
    await rejected(
      villain.during(shorter, () => read()),
      "integrity",
    );
    const others = await addTestDevice(villain.link, account, PASSWORD);
    const hidden = editing(villain, {
      "state.sync": (output) => ({ ...output, leaves: output.leaves.slice(1) }),
      "secret.list": (output) => ({ ...output, leaves: output.leaves.slice(1) }),
    });
    await storeWholeFile(client, file(bytes(150_000), { where: "server" }));
    await rejected(
      villain.during(hidden, () => others.client.sync()),
      "integrity",
    );
    await others.end();
  });

  test("the parts of one file are no other file's", async () => {
    await storeWholeFile(client, file(bytes(150_000), { where: "server" }));
    await storeWholeFile(client, file(bytes(150_000), { name: "other", where: "server" }));
    const { model } = ada.open.box;
    const of = (name: string) => [...model.secrets.values()].find(({ meta }) => meta?.name === name)?.leaf.keyId;
    const mine = parts().filter(({ meta }) => meta?.name === of("big"));
    const [first] = mine;
    if (!first?.meta) throw new Error("no part");
    model.secrets.set(first.leaf.keyId, { ...first, meta: { ...first.meta, name: of("other") ?? "" } } as never);
    await rejected(read(), "integrity");
  });
});

function sourceOf(value: Uint8Array): (limit: number) => Uint8Array {
  let at = 0;
  return (limit) => {
    const piece = value.slice(at, at + limit);
    at += piece.length;
    return piece;
  };
}
