import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import { readWholeFile, storeWholeFile } from "../../src/client/files.ts";
import { Fault } from "../../src/errors.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { addTestDevice, type Middle, registerDevice } from "../support/harness.ts";
import { impatient, startVillain, type Villain } from "../support/hostile.ts";

setDefaultTimeout(60_000);

const PASSWORD = "a password of ada";
let villain: Villain;
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());

const refused: Middle = async () => {
  throw undelivered(new Fault("unreachable", "nothing listens there"));
};
const LIST = { prefix: null, search: null, tag: null, fresh: true };
const read = (client: KeyholdClient) =>
  readWholeFile(client, { name: "big", version: null, fresh: true, purpose: "get" });
const big = (fill: number) => new Uint8Array(150_000).fill(fill);
const file = (value: Uint8Array) => ({ name: "big", value, tags: [], fields: [], expiresAt: null, where: null });

/** Two devices: one has changed the fields of a large file while it was offline, the other one did `work`. */
async function afterOffline(account: string, work: (other: KeyholdClient) => Promise<unknown>) {
  const mine = await registerDevice(villain.link, account, PASSWORD);
  impatient(mine);
  await storeWholeFile(mine.client, file(big(1)));
  const theirs = await addTestDevice(villain.link, account, PASSWORD);
  const fields = [{ name: "notes", kind: "text" as const, value: "offline" }];
  const edit = { name: "big", type: null, value: null, tags: [], fields, where: null };
  const { queued } = await villain.during(refused, () => mine.client.store(edit));
  expect(queued).toBe(true);
  await work(theirs.client);
  const { items } = await mine.client.list(LIST);
  expect((await mine.client.status()).sync?.queued).toBe(0);
  return {
    mine,
    theirs,
    names: items.map(({ name }) => name),
    end: async () => {
      await mine.end();
      await theirs.end();
    },
  };
}

describe("fields of a large file that were changed offline", () => {
  test("go onto a version that another device made meanwhile, with their own parts", async () => {
    const met = await afterOffline("queued parts 1", (other) => storeWholeFile(other, file(big(2))));
    for (const { client } of [met.mine, met.theirs]) {
      const { value, fields } = await read(client);
      expect([value[0], fields[0]?.value]).toEqual([1, "offline"]);
    }
    await met.end();
  });

  test("bring it back where it was removed", async () => {
    const met = await afterOffline("queued parts 2", (other) => other.remove({ name: "big", purge: false }));
    for (const { client } of [met.mine, met.theirs]) expect((await read(client)).fields[0]?.value).toBe("offline");
    await met.end();
  });

  test.each([false, true])("leave another file of that name alone (purged: %p)", async (purge) => {
    const met = await afterOffline(`queued parts 3 ${purge}`, async (other) => {
      await other.remove({ name: "big", purge });
      await storeWholeFile(other, file(big(3)));
    });
    expect(met.names).toEqual(["big"]);
    for (const { client } of [met.mine, met.theirs]) {
      const { value, fields } = await read(client);
      expect([value[0], fields]).toEqual([3, []]);
    }
    expect(met.mine.notices.join()).toContain('"big" was removed on another device: its fields were not changed');
    await met.end();
  });

  test("make no file out of one that was purged", async () => {
    const met = await afterOffline("queued parts 4", (other) => other.remove({ name: "big", purge: true }));
    expect(met.names).toEqual([]);
    await met.end();
  });
});
