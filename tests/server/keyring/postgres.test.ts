import { afterAll, beforeAll, describe, expect } from "bun:test";
import { asHashId, type KeyringRequestId } from "../../../src/ids.ts";
import { checkLedger, escrow, pay, refund, workspaceCredits } from "../../../src/server/keyring/balances.ts";
import { recorded } from "../../../src/server/keyring/events.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import {
  hasPostgres,
  POSTGRES_MS,
  startPostgres,
  type TestPostgres,
  testWithPostgres,
} from "../../support/postgres.ts";
import { codeOf, nextLink, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";

/** Two processes that serve one registry over one PostgreSQL. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

async function two(): Promise<readonly [RegistryWorld, RegistryWorld]> {
  const url = await postgres.create();
  const first = await registryWorld({ store: await openPostgres(url) });
  return [first, await registryWorld({ store: await openPostgres(url) })];
}

const id = (n: number): KeyringRequestId => asHashId(n.toString(16).padStart(64, "0"));

describe("two processes of one registry", () => {
  testWithPostgres("give events numbers without gaps, and move every fee once", async () => {
    const worlds = await two();
    const [first] = worlds;
    try {
      const ada = await first.person("ada");
      const admin = await first.stranger("admin");
      const parties = [await first.connector("a"), await first.connector("b"), await first.connector("c")];
      const { workspaceId } = await first.workspace([ada]);
      const { keyringId } = await first.keyring(admin, parties);
      await first.control["registry.credit"]({ workspaceId, amount: 100, note: "" });
      const named = [{ name: "a", index: 1 }];
      // each request in both processes at once: held, and ended twice
      const work = Array.from({ length: 8 }, (_, n) => n).flatMap((n) =>
        worlds.map(async ({ site }) => {
          const held = { workspaceId, requestId: id(n) };
          const run = (w: Parameters<typeof recorded>[1]) => codeOf(recorded(site, w));
          const begun = await run(async (tx, tell) => {
            await escrow(tx, { ...held, fee: 10 }, 1);
            await tell({ event: "held", workspaceId });
          });
          const ended = await run(async (tx, tell) => {
            if (n % 2 === 0) await pay(tx, { ...held, keyringId, parties: named }, 1);
            else await refund(tx, held, 1);
            await tell({ event: "over", workspaceId });
          });
          return [begun, ended];
        }),
      );
      const codes = (await Promise.all(work)).flat();
      expect(new Set(codes)).toEqual(new Set(["ok"]));
      const { items } = await first.call("workspace.events", { workspaceId, after: 0 }, ada);
      const told = items.filter(({ event }) => event === "held" || event === "over");
      expect(told).toHaveLength(32);
      expect(items.map(({ seq }) => seq)).toEqual(items.map((_, i) => i + 1));
      const all = (await first.control["registry.events"]({ after: 0 })).items;
      expect(all.map(({ seq }) => seq)).toEqual(all.map((_, i) => i + 1));
      for (const { store } of worlds) {
        expect(await store.transaction(checkLedger)).toEqual({ entries: 17, problems: [] });
        expect(await store.transaction((tx) => workspaceCredits(tx, workspaceId))).toEqual({
          balance: 60,
          escrowed: 0,
        });
      }
    } finally {
      for (const world of worlds) await world.close();
    }
  });

  testWithPostgres("let one of two links that exclude each other win", async () => {
    const worlds = await two();
    const [first, second] = worlds;
    try {
      const ada = await first.person("ada");
      const view = await first.workspace([ada]);
      const set = (world: RegistryWorld, rules: number) =>
        codeOf(
          world.call("workspace.policy.set", { policy: nextLink(view, { rules: [], createdAtMs: rules }, [ada]) }, ada),
        );
      const codes = await Promise.all([set(first, 1), set(second, 2)]);
      expect(codes.toSorted()).toEqual(["conflict", "ok"]);
      expect((await second.call("workspace.get", { workspaceId: view.workspaceId }, ada)).version).toBe(2);
    } finally {
      for (const world of worlds) await world.close();
    }
  });
});
