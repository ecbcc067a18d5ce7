import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { ed25519 } from "@noble/curves/ed25519.js";
import { crack, type OpenedShare, openShares, steal } from "./federationloot.ts";
import { dataAt, type Fleet, localHome, openFleet, placeOf } from "./fleet.ts";
import { type Home, SETUP_MS } from "./world.ts";

/** Servers that lose what they hold, that come and go: the key stays (docs/protocol.md §8.9). */

setDefaultTimeout(SETUP_MS);

type Data = ReturnType<typeof JSON.parse>;

const MESSAGE = new TextEncoder().encode("pay 3 coins to the harbour master");

let fleet: Fleet;
let owner: Home;

beforeAll(async () => {
  fleet = await openFleet(3);
  owner = await localHome(fleet.world, "owner");
  await fleet.form(owner, "custody", 2);
  await owner.ok(["federation", "join", placeOf(fleet.server(1))]);
  fleet.world.file("message", MESSAGE);
}, SETUP_MS);
afterAll(() => fleet.close());

const down = new Set<number>();
async function kill(index: number): Promise<void> {
  await fleet.kill(index);
  down.add(index);
}
/** Starts a server that does not run. */
async function start(index: number): Promise<void> {
  if (down.delete(index)) await fleet.start(index);
}

const verifies = (publicKeyHex: string, signatureHex: unknown): boolean =>
  ed25519.verify(Uint8Array.fromHex(String(signatureHex)), MESSAGE, Uint8Array.fromHex(publicKeyHex));
const shown = async (name: string): Promise<Data> => (await owner.ok(["key", "show", name])).data;
const check = async (): Promise<Data> => (await owner.ok(["federation", "check"])).data;
const rowOf = ({ keys }: Data, name: string): Data => keys.find((one: Data) => one.name === name);

/** Signs with a key of the command line's owner, and verifies it. */
async function signs(name: string): Promise<boolean> {
  const signing = ["key", "sign", name, "--message-file", fleet.world.file("message")];
  const { signatureHex } = await dataAt(owner, 0, signing);
  return verifies((await shown(name)).publicKeyHex, signatureHex);
}

/** Works on the database of a server that does not run. */
async function whileDown(index: number, work: (db: Database) => void): Promise<void> {
  await kill(index);
  const db = new Database(join(fleet.dirs[index] ?? "", "keyhold.db"));
  try {
    work(db);
  } finally {
    db.close();
  }
  await start(index);
}

/** Generations of which a server has a share of a key. */
function generationsAt(index: number, keyId: string): number[] {
  const db = new Database(join(fleet.dirs[index] ?? "", "keyhold.db"), { readonly: true });
  try {
    const rows = db.query("SELECT id FROM document WHERE kind IN ('share', 'pendingShare') AND owner = ?").all(keyId);
    return (rows as { id: string }[]).map(({ id }) => Number(id.split(":")[1]));
  } finally {
    db.close();
  }
}

describe("a server that lost its shares", () => {
  for (const [what, kinds] of [
    ["its shares", ["share"]],
    ["every record of keys and requests", ["share", "key", "request", "openRequest", "deadline", "pendingShare"]],
  ] as const) {
    test(`${what}: check proposes a repair, which fills it again, and then it is one of two who sign`, async () => {
      const name = `lost-${kinds.length}`;
      const made = (await owner.ok(["key", "generate", name, "--type", "ed25519"])).data;
      expect(rowOf(await check(), name)).toMatchObject({ live: [1, 2, 3], generation: 0, proposal: null });
      await whileDown(2, (db) => {
        for (const kind of kinds) db.run("DELETE FROM document WHERE kind = ?", [kind]);
      });
      const found = await check();
      expect(found.ok).toBe(false);
      expect(rowOf(found, name)).toMatchObject({ live: [1, 3], proposal: `keyhold key repair ${name}` });
      // nothing is lost meanwhile
      expect(await signs(name)).toBe(true);
      for (const { name: broken, proposal } of found.keys) {
        if (proposal !== null) expect((await owner.ok(["key", "repair", broken])).data.status).toBe("fulfilled");
      }
      expect(rowOf(await check(), name)).toMatchObject({ live: [1, 2, 3], generation: 1, proposal: null });
      expect(await shown(name)).toMatchObject({ publicKeyHex: made.publicKeyHex, generation: 1, holders: [1, 2, 3] });
      await owner.fails(6, ["key", "repair", name]);
      await kill(1);
      expect(await signs(name)).toBe(true);
      await start(1);
      expect((await check()).ok).toBe(true);
    });
  }
});

describe("from 2 of 3 to 3 of 5", () => {
  test("a second epoch, a resharing: the same key; the shares of before are gone, and fit none of now", async () => {
    await owner.ok(["key", "generate", "treasury", "--type", "ed25519", "--custody", "delegated"]);
    const before = await shown("treasury");
    const opened = async (index: number, phase: string): Promise<OpenedShare> => {
      const to = join(fleet.world.dir, `stolen-${phase}-${index}`);
      mkdirSync(to, { mode: 0o700 });
      const all = await openShares(steal(fleet.dirs[index] ?? "", to));
      const found = all.find(({ certificate }) => certificate.keyId === before.keyId);
      if (!found) throw new Error(`server ${index} has no share`);
      return found;
    };
    const old = await opened(1, "old");
    await fleet.grow(2);
    await fleet.form(owner, "custody", 3);
    const joined = (await owner.ok(["federation", "show"])).data;
    expect([joined.epoch, joined.threshold, joined.servers.length]).toEqual([2, 3, 5]);
    // keys of 2 of 3 have as much to spare as before
    const grown = await check();
    expect(grown.ok).toBe(true);
    expect(rowOf(grown, "treasury")).toMatchObject({ live: [1, 2, 3], threshold: 2, proposal: null });
    expect(await signs("treasury")).toBe(true);
    // and are repaired as such: five holders would need three
    await whileDown(2, (db) => {
      db.run("DELETE FROM document WHERE kind = 'share' AND owner <> ?", [before.keyId]);
    });
    const broken = (await check()).keys.filter(({ proposal }: Data) => proposal !== null);
    expect(broken.map(({ name }: Data) => name).sort()).toEqual(["lost-1", "lost-6"]);
    for (const { name } of broken) {
      await owner.ok(["key", "repair", name]);
      expect(await shown(name)).toMatchObject({ threshold: 2, holders: [1, 2, 3] });
    }
    expect((await check()).ok).toBe(true);

    expect((await owner.ok(["key", "reshare", "treasury", "--threshold", "3"])).data.status).toBe("fulfilled");
    expect(await shown("treasury")).toMatchObject({
      publicKeyHex: before.publicKeyHex,
      keyId: before.keyId,
      generation: before.generation + 1,
      threshold: 3,
      holders: [1, 2, 3, 4, 5],
    });
    for (const index of [1, 2, 3, 4, 5]) expect(generationsAt(index, before.keyId)).toEqual([before.generation + 1]);
    const now = await Promise.all([2, 3, 4].map((index) => opened(index, "new")));
    const [two, three, four] = now;
    if (!two || !three || !four) throw new Error("too few shares");
    expect(crack(two.certificate, [old, two, three], [])).toBeNull();
    expect(crack(two.certificate, [two, three], [old.share])).toBeNull();
    expect(crack(two.certificate, [two, three, four], [])).not.toBeNull();

    // three of five sign, whichever they are; two do not
    await Promise.all([1, 2].map((index) => kill(index)));
    expect(await signs("treasury")).toBe(true);
    await kill(3);
    await owner.fails(7, ["key", "sign", "treasury", "--message-file", fleet.world.file("message")]);
    for (const index of [1, 2, 3]) await start(index);
    expect(await signs("treasury")).toBe(true);
  });

  test("a server that was away is named, with what brings it in", async () => {
    await kill(3);
    const { absent } = await dataAt(owner, 10, ["key", "generate", "late", "--type", "ed25519"]);
    expect(absent).toEqual([3]);
    const down = await check();
    expect(down.servers.map(({ state }: Data) => state === "ok")).toEqual([true, true, false, true, true]);
    expect(rowOf(down, "late")).toMatchObject({ live: [1, 2, 4, 5] });
    await start(3);
    // four shares are one to spare: there is nothing to mend, and still something to gain
    expect(rowOf(await check(), "late")).toMatchObject({ live: [1, 2, 4, 5], proposal: null });
    const { keyId } = await shown("late");
    await whileDown(4, (db) => {
      db.run("DELETE FROM document WHERE kind = 'share' AND owner = ?", [keyId]);
    });
    expect(rowOf(await check(), "late")).toMatchObject({ live: [1, 2, 5], proposal: "keyhold key repair late" });
    expect((await owner.ok(["key", "repair", "late"])).data.status).toBe("fulfilled");
    expect(rowOf(await check(), "late")).toMatchObject({ live: [1, 2, 3, 4, 5], generation: 1, proposal: null });
    for (const index of [1, 2]) await kill(index);
    expect(await signs("late")).toBe(true);
    for (const index of [1, 2]) await start(index);
    expect((await check()).ok).toBe(true);
  });

  test("an old share that is put back serves nothing", async () => {
    const { keyId, generation } = await shown("treasury");
    const row = "SELECT id, owner, place, body, version FROM document WHERE kind = 'share' AND owner = ?";
    const loot = new Database(join(fleet.world.dir, "stolen-old-1", "keyhold.db"), { readonly: true });
    const stolen = loot.query(row).get(keyId) as Record<string, string | number | Uint8Array>;
    loot.close();
    for (const id of [`${keyId}:${generation - 1}`, `${keyId}:${generation}`]) {
      await whileDown(1, (db) => {
        db.run(
          "INSERT OR REPLACE INTO document (kind, id, owner, place, body, version) VALUES ('share', ?, ?, ?, ?, 99)",
          [id, keyId, Number(id.split(":")[1]), stolen["body"] ?? ""],
        );
      });
    }
    // without it there are four: with it they do not become another key, nor does it sign
    await Promise.all([4, 5].map((index) => kill(index)));
    const failed = await owner.run([
      "key",
      "sign",
      "treasury",
      "--message-file",
      fleet.world.file("message"),
      "--json",
    ]);
    expect(failed.code).not.toBe(0);
    expect(failed.out).toBe("");
    for (const index of [4, 5]) await start(index);
    expect(await signs("treasury")).toBe(true);
  });
});
