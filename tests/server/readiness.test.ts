import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openKeyServer } from "../../src/server/keyserver.ts";
import { silentLog } from "../../src/server/log.ts";
import { PROBE_STALE_MS, readiness } from "../../src/server/readiness.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Store } from "../../src/storage/store.ts";
import { hookedStore } from "../support/storeprobe.ts";

const hooked = hookedStore();
let store: Store;
let nowMs = 0;
const clock = () => nowMs;

beforeEach(async () => {
  nowMs = 1_000_000;
  store = hooked.wrap(await openSqlite(":memory:"));
});

afterEach(async () => {
  hooked.hook = null;
  hooked.around = null;
  await store.close();
});

test("ready once the store has answered, and not before", async () => {
  const { probe, ready } = readiness(store, clock);
  expect(ready()).toBe(false);
  await probe();
  expect(ready()).toBe(true);
});

test("not ready as soon as the store fails, ready when it answers again", async () => {
  const { probe, ready } = readiness(store, clock);
  await probe();
  hooked.hook = () => Promise.reject(new Error("disk"));
  await expect(probe()).rejects.toThrow("disk");
  expect(ready()).toBe(false);
  hooked.hook = null;
  await probe();
  expect(ready()).toBe(true);
});

test("not ready while the store does not answer at all", async () => {
  const { probe, ready } = readiness(store, clock);
  await probe();
  let answer: () => void = () => undefined;
  const hanging = new Promise<void>((done) => {
    answer = done;
  });
  hooked.around = async (run) => {
    await hanging;
    return run();
  };
  const probing = probe();
  nowMs += PROBE_STALE_MS;
  expect(ready()).toBe(true);
  nowMs += 1;
  expect(ready()).toBe(false);
  answer();
  await probing;
  expect(ready()).toBe(true);
});

test("an open key server is ready, a closed one is not", async () => {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-ready-"));
  try {
    const server = await openKeyServer({
      dir: join(dir, "server"),
      database: null,
      registration: "open",
      version: "0",
      log: silentLog,
      opaqueWorkers: 1,
    });
    expect(server.ready()).toBe(true);
    await server.close();
    expect(server.ready()).toBe(false);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
