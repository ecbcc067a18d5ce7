import { afterEach, beforeEach, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { asHashId, type KeyringRequestId, type WorkspaceId } from "../../../src/ids.ts";
import { appendEvent, eventsAfter, recorded } from "../../../src/server/keyring/events.ts";
import { codeOf, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";

let world: RegistryWorld;
let ada: RegistryPerson;
let bob: RegistryPerson;
let first: WorkspaceId;
let second: WorkspaceId;
beforeEach(async () => {
  world = await registryWorld();
  ada = await world.person("ada");
  bob = await world.person("bob");
  first = (await world.workspace([ada])).workspaceId;
  second = (await world.workspace([bob])).workspaceId;
});
afterEach(() => world.close());

const REQUEST = asHashId<KeyringRequestId>("cd".repeat(32));
const tell = (workspaceId: WorkspaceId, event: string) =>
  recorded(world.site, (_tx, say) => say({ event, workspaceId, requestId: REQUEST, detail: "words" }));
const page = (workspaceId: WorkspaceId, after: number, who: RegistryPerson) =>
  world.call("workspace.events", { workspaceId, after }, who);
const all = (after: number) => world.control["registry.events"]({ after });

test("each workspace counts its own, the registry counts all, both without gaps", async () => {
  await Promise.all([
    tell(first, "a"),
    tell(second, "b"),
    tell(first, "c"),
    recorded(world.site, (_tx, say) => say({ event: "keyring.created" })),
    tell(second, "d"),
  ]);
  const numbers = (items: readonly { seq: number }[]) => items.map(({ seq }) => seq);
  expect(numbers((await page(first, 0, ada)).items)).toEqual([1, 2, 3]);
  expect(numbers((await page(second, 0, bob)).items)).toEqual([1, 2, 3]);
  const whole = (await all(0)).items;
  expect(numbers(whole)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(whole.filter(({ workspaceId }) => workspaceId === null).map(({ event }) => event)).toEqual([
    "keyring.created",
  ]);
  expect((await page(first, 1, ada)).items).toMatchObject([
    { seq: 2, event: "a", workspaceId: first, keyringId: null, requestId: REQUEST, keyId: null, detail: "words" },
    { seq: 3, event: "c" },
  ]);
});

test("nobody but owners polls a workspace's", async () => {
  expect(await codeOf(page(first, 0, bob))).toBe("not_found");
});

test("pages go on where the last one ended, also when nothing is new", async () => {
  await world.store.transaction(async (tx) => {
    for (let i = 0; i < 130; i += 1) await appendEvent(tx, { event: `e${i}`, workspaceId: first }, world.nowMs);
  });
  const seen: number[] = [];
  for (let after = 0, more = true; more; ) {
    const { items, more: on } = await page(first, after, ada);
    expect(items.length).toBeLessThanOrEqual(64);
    seen.push(...items.map(({ seq }) => seq));
    after = seen.at(-1) ?? 0;
    more = on;
  }
  expect(seen).toEqual(Array.from({ length: 131 }, (_, i) => i + 1));
  expect(await page(first, 131, ada)).toEqual({ items: [], more: false });
  expect(await page(first, Number.MAX_SAFE_INTEGER, ada)).toEqual({ items: [], more: false });
});

test("an event of what is undone is none, takes no number, and reaches no hook", async () => {
  const before = world.notices.length;
  const work = recorded(world.site, async (_tx, say) => {
    await say({ event: "never", workspaceId: first });
    throw new Fault("conflict", "no");
  });
  expect(await codeOf(work)).toBe("conflict");
  expect(world.notices).toHaveLength(before);
  await tell(first, "next");
  expect((await page(first, 0, ada)).items.map(({ seq, event }) => [seq, event])).toEqual([
    [1, "workspace.created"],
    [2, "next"],
  ]);
  expect(world.notices).toHaveLength(before + 1);
});

test("the hook hears of an event once, after it is durable, when a transaction runs twice", async () => {
  let runs = 0;
  const { transaction } = world.store;
  const site = {
    ...world.site,
    ctx: {
      ...world.site.ctx,
      store: {
        ...world.store,
        // an engine that must begin anew
        transaction: async <T>(work: Parameters<typeof transaction<T>>[0]): Promise<T> => {
          await codeOf(
            transaction(async (tx) => {
              await work(tx);
              throw new Fault("unavailable", "again");
            }),
          );
          return transaction(work);
        },
      },
    },
  };
  const before = world.notices.length;
  await recorded(site, async (tx, say) => {
    runs += 1;
    await say({ event: "twice", workspaceId: first });
    expect(world.notices).toHaveLength(before);
    expect((await eventsAfter(tx, first, 0)).items).toHaveLength(2);
  });
  expect(runs).toBe(2);
  expect(world.notices.slice(before).map(({ event }) => event)).toEqual(["twice"]);
});
