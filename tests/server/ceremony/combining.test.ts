import { afterEach, beforeEach, expect, test } from "bun:test";
import type { SignedCeremonyManifest, Transcript } from "../../../src/protocol/ceremony/model.ts";
import { ceremonyIdOf } from "../../../src/protocol/ceremony/records.ts";
import { HEAD } from "../../../src/server/ceremony/documents.ts";
import { createCeremonies } from "../../../src/server/ceremony/index.ts";
import { readStored } from "../../../src/server/documents.ts";
import { answerLimit, type EnclaveTimes } from "../../../src/server/enclave.ts";
import { createKeyStore } from "../../../src/server/keystore.ts";
import { type CeremonyServer, ceremonyServer, join1, opened, type Run, reveal1, revealOf, statusOf } from "./world.ts";

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
  expect(limit({ kind: "combine", openings, before: null })).toBe(3_560);
  expect(limit({ kind: "abort", reason: "closed" })).toBe(1_000);
  expect(answerLimit(times, "info", {})).toBe(1_000);
});

test("an account with many ceremonies holds up its own: another account's small one is combined after the first", async () => {
  const held = holdCombinations();
  const greedy = [await opened(server, 2), await opened(server, 2), await opened(server, 2)];
  const small = await opened(server, 2, {}, 2);
  const order: string[] = [];
  for (const run of [...greedy, small]) for (const one of run.participants) await join1(server, run, one);
  server.before = (_, input) => {
    const { step, transcript } = input as {
      readonly step?: { readonly kind: string };
      readonly transcript: { readonly manifest: SignedCeremonyManifest };
    };
    if (step?.kind === "combine") order.push(ceremonyIdOf(transcript.manifest.manifest));
  };
  for (const run of [...greedy, small]) for (const one of run.participants) await reveal1(server, run, one);
  await held.begun;
  held.release();
  await server.sweep();
  const [first, second, third] = greedy;
  expect(order).toEqual([first?.id, small.id, second?.id, third?.id].map((id) => id ?? ("" as never)));
});

test("one with an Argon2id, which takes long, does not hold up those without", async () => {
  const { enclave } = server.site;
  const gate = Promise.withResolvers<void>();
  const [long, short] = [await opened(server, 2), await opened(server, 2, {}, 2)];
  Object.assign(server.site, {
    enclave: {
      async call(
        operation: never,
        input: { readonly step?: { readonly kind: string }; readonly transcript: Transcript },
      ) {
        const combines = input.step?.kind === "combine";
        if (combines && ceremonyIdOf(input.transcript.manifest.manifest) === long.id) await gate.promise;
        return enclave.call(operation, input as never);
      },
    },
  });
  const slow = { ...long.one(1), function: "argon2id" } as const;
  for (const one of [slow, long.one(2)]) await join1(server, long, one);
  for (const one of short.participants) await join1(server, short, one);
  for (const run of [long, short]) for (const one of run.participants) await reveal1(server, run, one);
  const sweep = server.sweep();
  // as it stands in the database: who asks for it waits a while for a combination under way
  const statusNow = ({ id }: Run) =>
    server.store.transaction(async (tx) => (await readStored(tx, HEAD, id))?.value.status);
  while ((await statusNow(short)) !== "stored") await Bun.sleep(1);
  expect(await statusNow(long)).toBe("combine");
  gate.resolve();
  await sweep;
  expect(await statusOf(server, long)).toBe("stored");
});

test("combinations in line do not hold up what else a sweep does", async () => {
  const held = holdCombinations();
  const run = await opened(server, 2);
  for (const one of run.participants) await join1(server, run, one);
  for (const one of run.participants) await reveal1(server, run, one);
  await held.begun;
  const swept = Promise.withResolvers<void>();
  server.hooked.hook = (method, args, work) => {
    if (method === "documents" && String(args[0]).startsWith("otp")) swept.resolve();
    return work(...args);
  };
  const store = createKeyStore(server.site);
  const sweep = store.sweep();
  await swept.promise;
  held.release();
  await sweep;
  await store.close();
});
