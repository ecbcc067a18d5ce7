import { afterAll, beforeAll, expect } from "bun:test";
import { checkLedger } from "../../../src/server/keyring/balances.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import type { KeyringRequestView } from "../../../src/wire/keyring/views.ts";
import { keyringRun } from "../../support/keyringrun.ts";
import {
  hasPostgres,
  POSTGRES_MS,
  startPostgres,
  type TestPostgres,
  testWithPostgres,
} from "../../support/postgres.ts";

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

testWithPostgres(
  "two registries over one PostgreSQL, all parties at once: one decision, one key, one payment each",
  async () => {
    const r = await keyringRun({ world: { store: await openPostgres(await postgres.create()) } });
    try {
      r.alternate();
      const views: KeyringRequestView[] = [];
      for (const _ of [1, 2, 3]) {
        const first = await r.submit([r.generate()]);
        views.push(await r.vote(first, r.ann));
      }
      for (let i = 0; i < 60; i++) await Promise.all(r.parties.map((one) => one.poll()));
      for (const view of views) expect(await r.view(view)).toMatchObject({ status: "fulfilled", why: "" });
      // the same word to every party
      for (const { decisions } of r.parties) expect(decisions).toEqual(r.party(1).decisions);
      expect(r.parties.map(({ shares }) => shares.size)).toEqual([3, 3, 3]);
      expect(await r.balance()).toEqual({ balance: 910, escrowed: 0 });
      expect((await r.world.store.transaction(checkLedger)).problems).toEqual([]);
    } finally {
      await r.close();
    }
  },
);
