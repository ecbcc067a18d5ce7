import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { readPending } from "../../src/client/vaultfile.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import { REQUEST_MAX } from "../../src/wire/http.ts";
import { registerDevice, type TestDevice } from "../support/harness.ts";
import { EVERYTHING, rejected, startVillain, storing, textOf, type Villain } from "../support/hostile.ts";

let villain: Villain;
let ada: TestDevice;
let count = 0;
beforeAll(async () => {
  villain = await startVillain();
});
afterAll(() => villain.close());
afterEach(() => ada.end());

const note = (name: string, value: string, tags: readonly string[] = []) => ({
  name,
  type: "note" as const,
  value: new TextEncoder().encode(value),
  tags,
  createdAt: null,
});
const tagsOf = (item: number) =>
  Array.from({ length: DEFAULTS.tags }, (_, tag) => `t${item}-${tag}-`.padEnd(DEFAULTS.tagBytes, "x"));

async function importing(items: readonly ReturnType<typeof note>[]) {
  ada = await registerDevice(villain.link, `ada ${count++}`, "a password of ada");
  villain.seen.length = 0;
  const done = await ada.client.importItems({ items, prefix: "", dryRun: false, origin: "json", where: null });
  const sizes = villain.seen.filter(({ operation }) => operation === "secret.import").map(({ body }) => body.length);
  return { done, sizes };
}

describe("an import", () => {
  test("of small values with many long tags goes in requests that a server takes", async () => {
    const items = Array.from({ length: 20 }, (_, i) => note(`e/${i}`, "v", tagsOf(i)));
    const { done, sizes } = await importing(items);
    expect(done.imported).toBe(20);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(REQUEST_MAX);
    expect(sizes.length).toBeLessThan(10);
    expect((await ada.client.list(EVERYTHING)).items).toHaveLength(20);
    await ada.client.store(storing("after", "value"));
    expect(await textOf(ada.client, "after")).toBe("value");
  });

  test("of the largest values with the largest metadata, tags that were there counted, fits too", async () => {
    const items = Array.from({ length: 3 }, (_, i) => note(`l/${i}`, "v".repeat(DEFAULTS.secretBytes), tagsOf(i)));
    const { sizes } = await importing(items);
    const bare = items.map((item) => ({ ...item, value: new TextEncoder().encode("w"), tags: [] }));
    await ada.client.importItems({ items: bare, prefix: "", dryRun: false, origin: "json", where: null });
    const all = [...sizes, ...villain.seen.map(({ body }) => body.length)];
    expect(Math.max(...all)).toBeLessThanOrEqual(REQUEST_MAX);
    expect((await ada.client.list(EVERYTHING)).items.map(({ version, tags }) => [version, tags.length])).toEqual(
      Array.from({ length: 3 }, () => [2, DEFAULTS.tags]),
    );
  });

  test("of a name that is the key id of a secret is refused, as is any other way to that name", async () => {
    const { done } = await importing([note("one", "1"), note("two", "2")]);
    expect(done.imported).toBe(2);
    const { items } = await ada.client.list(EVERYTHING);
    const id = items.find(({ name }) => name === "one")?.keyId ?? "";
    const input = { items: [note("three", "3"), note(id, "another")], prefix: "", origin: "json", where: null };
    await rejected(ada.client.importItems({ ...input, dryRun: true }), "bad_input");
    await rejected(ada.client.importItems({ ...input, dryRun: false }), "bad_input");
    await rejected(ada.client.store(storing(id, "another")), "bad_input");
    await rejected(ada.client.rename({ from: "two", to: id }), "bad_input");
    expect((await ada.client.list(EVERYTHING)).items.map(({ name }) => name)).toEqual(["one", "two"]);
    const got = await ada.client.getMany({ refs: [{ name: id, version: null }], fresh: false, purpose: "export" });
    expect(got[0]?.info.name).toBe("one");
  });

  test("whose metadata is too long sealed is refused before the first item is stored", async () => {
    const long = Array.from({ length: DEFAULTS.tags }, (_, tag) => `${tag}`.padEnd(DEFAULTS.tagBytes, '"'));
    const items = [...Array.from({ length: 25 }, (_, i) => note(`m/${i}`, "v")), note("last", "v", long)];
    await rejected(importing(items), "bad_input");
    expect((await ada.client.list(EVERYTHING)).items).toEqual([]);
    expect(readPending(ada.open.box.path)).toBeNull();
  });
});
