import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { join } from "node:path";
import { newAgeIdentity } from "../src/formats/age.ts";
import type { KeyId } from "../src/ids.ts";
import { newId } from "../src/ids.ts";
import { openSqlite } from "../src/storage/sqlite.ts";
import * as rows from "../tests/storage/rows.ts";
import { findServer } from "./account.ts";
import { keyhold, type Measured, percentile, report, timed } from "./harness.ts";
import { http1, openWire } from "./load.ts";
import { inWorld, run, startServe } from "./processes.ts";

/** F9: `server backup` of a database of 100 MB while it serves: how long, and the longest wait of a store meanwhile. */

const asked = process.argv.indexOf("--megabytes");
const MEGABYTES = asked < 0 ? 100 : Number(process.argv[asked + 1]);
const VALUE_BYTES = 32_768;
const PER_TRANSACTION = 64;
const STORES = 2_000;
const QUIET = 300;
const random = (length: number) => new Uint8Array(randomBytes(length));

/** Adds values of an account that nobody asks for until the file has the size. */
async function fill(path: string): Promise<void> {
  const store = await openSqlite(path);
  const userId = rows.userId(1);
  await store.transaction((tx) => tx.insertAccount(rows.account(1)));
  for (let made = 0; made < MEGABYTES * 1e6; made += PER_TRANSACTION * VALUE_BYTES) {
    await store.transaction(async (tx) => {
      for (let at = 0; at < PER_TRANSACTION; at++) {
        await tx.appendLeaf(userId, 1, { ...rows.leaf(1), keyId: newId<KeyId>(random) }, random(VALUE_BYTES));
      }
    });
  }
  await store.close();
}

await inWorld(async (world) => {
  const bin = await keyhold();
  const dir = join(world.dir, "server");
  const env = { KEYHOLD_HOME: join(world.dir, "operator") };
  await run([bin, "server", "init", "--dir", dir], { env });
  await fill(join(dir, "keyhold.db"));
  const served = await startServe(world);
  const { target, newAccount } = await findServer(served.url, served.pin);
  const account = await newAccount("bench");
  const wire = await openWire(target, http1);
  // a password instead would add a second of scrypt, which is its purpose
  const { recipient } = await newAgeIdentity();
  const data = join(world.dir, "data.db");
  const batch = await account.stores(STORES);
  const waits: number[] = [];
  let at = 0;
  let until = Number.POSITIVE_INFINITY;
  const store = async () => {
    for (; at < Math.min(STORES, until); at++) {
      const request = batch.requests[at];
      if (!request) break;
      const askedAt = performance.now();
      batch.answer(at, await wire.ask(request));
      waits.push(performance.now() - askedAt);
    }
  };
  until = QUIET;
  await store();
  const quiet = waits.splice(0);
  until = STORES;
  const storing = store();
  const backup = ["server", "backup", "--dir", dir, "--data", data, "--keys", join(world.dir, "keys.age")];
  const took = await timed(() => run([bin, ...backup, "--recipient", recipient], { env }));
  until = at + 1;
  await storing;
  const measured: Measured[] = [
    { what: "whole command", unit: "ms", value: took, goal: { atMost: 1_000 } },
    { what: "longest wait of a store", unit: "ms", value: Math.max(...waits), goal: { atMost: 50 } },
    { what: "p99 of a store", unit: "ms", value: percentile(waits, 99) },
    { what: "p99 without a backup", unit: "ms", value: percentile(quiet, 99) },
    { what: "copy", unit: "MB", value: statSync(data).size / 1e6 },
  ];
  report("F9", "backup while serving", measured, [`${waits.length} stores meanwhile, one after another`]);
  wire.close();
});
