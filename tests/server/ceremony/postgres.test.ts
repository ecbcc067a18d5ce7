import { afterAll, beforeAll, describe, expect } from "bun:test";
import { verifyTranscript } from "../../../src/protocol/ceremony/verify.ts";
import { openPostgres } from "../../../src/storage/postgres.ts";
import {
  hasPostgres,
  POSTGRES_MS,
  startPostgres,
  type TestPostgres,
  testWithPostgres,
} from "../../support/postgres.ts";
import { ceremonyServer, codeOf, join1, kindsOf, opened, participant, reveal1, transcriptOf } from "./world.ts";

/** Two processes that hold one server's ceremonies over one PostgreSQL. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

describe("two processes", () => {
  testWithPostgres("never fork a transcript, and let one of two take the last seat", async () => {
    const url = await postgres.create();
    const stores = [await openPostgres(url), await openPostgres(url)] as const;
    // the same seed: the same server, with the same enclave keys
    const one = await ceremonyServer({ store: stores[0] });
    const two = await ceremonyServer({ store: stores[1] });
    try {
      const run = await opened(one, 4);
      const [a, b, c, d] = [run.one(1), run.one(2), run.one(3), run.one(4)];
      const codes = await Promise.all([join1(one, run, a), join1(two, run, b), join1(one, run, c)].map(codeOf));
      expect(codes).toEqual(["ok", "ok", "ok"]);
      const rival = { ...(await participant(one, 4)), invite: d.invite };
      const last = await Promise.all([codeOf(join1(one, run, d)), codeOf(join1(two, run, rival))]);
      expect(last.toSorted()).toEqual(["conflict", "ok"]);
      const winner = last[0] === "ok" ? d : rival;
      const revealed = await Promise.all(
        [a, b, c, winner].map((p, n) => codeOf(reveal1(n % 2 === 0 ? one : two, run, p))),
      );
      expect(revealed).toEqual(["ok", "ok", "ok", "ok"]);
      await Promise.all([one.sweep(), two.sweep()]);
      const kinds = await kindsOf(one, run);
      expect(kinds.at(-1)).toBe("result");
      expect(kinds.length).toBe(10);
      await verifyTranscript(await transcriptOf(two, run));
    } finally {
      await one.close();
      await two.close();
      for (const store of stores) await store.close();
    }
  });
});
