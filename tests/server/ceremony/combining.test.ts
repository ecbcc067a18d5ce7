import { afterEach, beforeEach, expect, test } from "bun:test";
import { createCeremonies } from "../../../src/server/ceremony/index.ts";
import { answerLimit, type EnclaveTimes } from "../../../src/server/enclave.ts";
import { type CeremonyServer, ceremonyServer, join1, opened, reveal1, revealOf, statusOf } from "./world.ts";

let server: CeremonyServer;
beforeEach(async () => {
  server = await ceremonyServer();
});
afterEach(() => server.close());

/** Lets no combination through to the enclave until it is told to; counts them. */
function holdCombinations() {
  const { enclave } = server.site;
  const gate = Promise.withResolvers<void>();
  const first = Promise.withResolvers<void>();
  let [under, most, count] = [0, 0, 0];
  Object.assign(server.site, {
    enclave: {
      async call(operation: never, input: { readonly step?: { readonly kind: string } }) {
        if (input.step?.kind !== "combine") return enclave.call(operation, input as never);
        count += 1;
        under += 1;
        most = Math.max(most, under);
        first.resolve();
        await gate.promise;
        return await enclave.call(operation, input as never).finally(() => {
          under -= 1;
        });
      },
    },
  });
  return { begun: first.promise, release: () => gate.resolve(), most: () => most, count: () => count };
}

test("combinations run one after another, whoever has revealed meanwhile", async () => {
  const held = holdCombinations();
  const runs = [await opened(server, 2), await opened(server, 2), await opened(server, 2)];
  for (const run of runs) for (const one of run.participants) await join1(server, run, one);
  for (const run of runs) for (const one of run.participants) await reveal1(server, run, one);
  await held.begun;
  // whatever would begin beside the first one has begun
  for (let looks = 0; looks < 20; looks++) await server.call("ceremony.keys", {});
  held.release();
  await server.sweep();
  expect(await Promise.all(runs.map((run) => statusOf(server, run)))).toEqual(["stored", "stored", "stored"]);
  expect(held.most()).toBe(1);
});

test("a server that stops ends the combination under way, and leaves those in line to the next start", async () => {
  const runs = [await opened(server, 2), await opened(server, 2)];
  for (const run of runs) for (const one of run.participants) await join1(server, run, one);
  for (const run of runs) await reveal1(server, run, run.one(1));
  const held = holdCombinations();
  const service = createCeremonies(server.site);
  for (const run of runs) await service["ceremony.reveal"]({ address: "a" }, await revealOf(server, run, run.one(2)));
  await held.begun;
  const closed = service.close();
  held.release();
  await closed;
  expect(held.count()).toBe(1);
  await server.sweep();
  expect(await Promise.all(runs.map((run) => statusOf(server, run)))).toEqual(["stored", "stored"]);
});

test("a combination has time for as many Argon2id as there are participants; nothing else has more", () => {
  const times: EnclaveTimes = { answerMs: 1_000, openingMs: 10, backoffFirstMs: 1, backoffMaxMs: 1, soundMs: 1 };
  const openings = Array.from({ length: 256 }, () => ({}));
  const limit = (step: object) => answerLimit(times, "ceremony.append", { step } as never);
  expect(limit({ kind: "combine", openings, version: 1 })).toBe(3_560);
  expect(limit({ kind: "abort", reason: "closed" })).toBe(1_000);
  expect(answerLimit(times, "info", {})).toBe(1_000);
});
