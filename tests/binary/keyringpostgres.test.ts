import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { hasPostgres, startPostgres, type TestPostgres, testWithPostgres } from "../support/postgres.ts";
import {
  approve,
  asked,
  balances,
  FEES,
  forKey,
  INDICES,
  type Keyrings,
  openKeyrings,
  type RegistryWords,
  START_CREDITS,
  short,
  shown,
  sumOf,
  treasury,
  watched,
} from "./keyringfleet.ts";
import { SETUP_MS, type Server, serve } from "./world.ts";

/** One registry as two processes that share a port and a PostgreSQL: each request goes through both of them. */

setDefaultTimeout(SETUP_MS);

let postgres: TestPostgres | undefined;
let all: Keyrings | undefined;
let second: Server | undefined;
let words: RegistryWords = { args: [] };
beforeAll(async () => {
  if (!hasPostgres) return;
  postgres = await startPostgres();
  const address = (await postgres.create()).replace(/:[^:@/]+@/, "@");
  words = {
    args: ["--database", address, "--reuse-port"],
    env: { PGPASSWORD: postgres.password, KEYHOLD_DATABASE: address },
  };
  all = await openKeyrings(words);
  second = await another(all);
}, SETUP_MS);
afterAll(async () => {
  await second?.stop("SIGKILL");
  await all?.close();
  await postgres?.close();
});

/** Starts one more process of the registry on its port. */
function another({ registry }: Keyrings): Promise<Server> {
  const { port } = registry.server();
  const argv = ["--listen", `127.0.0.1:${port}`, "--registry", ...words.args];
  return serve(registry.dir, argv, words.env ? { env: words.env } : {});
}

/** Begins so many requests, of keys and of signatures, with both owners' word. */
async function begun(world: Keyrings, argvs: readonly (readonly string[])[]): Promise<readonly string[]> {
  const ids: string[] = [];
  for (const argv of argvs) ids.push(await asked(world.ann, argv));
  for (const id of ids) await approve(world.ben, id);
  return ids;
}

testWithPostgres(
  "requests are fulfilled by both, also while one of them is killed, and the ledger sums to zero",
  async () => {
    if (!all || !second) throw new Error("PostgreSQL did not start");
    expect(second.pid).not.toBe(all.registry.server().pid);
    const types = ["ed25519", "schnorr", "secp256k1", "p256"];
    const keys = await begun(
      all,
      types.map((type) => forKey(type)),
    );
    for (const id of keys) expect(await watched(all.ann, id)).toMatchObject({ status: "fulfilled" });
    const listed = (await all.ann.ok(["workspace", "keys", "treasury"])).data.items as {
      keyId: string;
      type: string;
    }[];
    expect(listed.map(({ type }) => type).toSorted()).toEqual(types.toSorted());

    const file = all.fleet.world.file("message", "through two processes");
    const argvs = listed.map(({ keyId }) => ["signature", "--key", keyId, "--message-file", file]);
    const uses = await begun(all, argvs);
    // the first process dies in the middle, and comes back beside the other
    await all.registry.kill();
    for (const id of uses) expect(await watched(all.ann, id)).toMatchObject({ status: "fulfilled" });
    await all.registry.start();
    await second.stop("SIGKILL");
    const rejected = await asked(all.ann, forKey("schnorr"));
    second = await another(all);
    await all.ben.ok(["approval", "reject", short(rejected), "--reason", "enough"]);
    expect(await shown(all.ann, rejected)).toMatchObject({ status: "rejected" });

    const spent = types.length * (FEES.key + FEES.signature);
    expect(await treasury(all)).toEqual({ balance: START_CREDITS - spent, escrowed: 0 });
    const now = await balances(all, words.env);
    const parties = ["north", "east", "south"].map((name) => now.get(`party:${all?.keyringId}:${name}`) ?? 0);
    expect(sumOf(parties)).toBe(spent);
    expect(sumOf(now.values())).toBe(0);
    // each is named once in each request's answers
    for (const id of [...keys, ...uses]) expect((await shown(all.ann, id)).parties).toHaveLength(INDICES.length);
  },
  SETUP_MS,
);
