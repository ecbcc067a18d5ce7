import { afterAll, beforeAll, expect, setDefaultTimeout } from "bun:test";
import { hasPostgres, startPostgres, type TestPostgres, testWithPostgres } from "../support/postgres.ts";
import { dataAt, type Fleet, localHome, openFleet, placeOf } from "./fleet.ts";
import { SETUP_MS } from "./world.ts";

/** Each operator keeps the own server's data where he likes: two of three here on PostgreSQL. */

setDefaultTimeout(SETUP_MS);

let postgres: TestPostgres | undefined;
let fleet: Fleet | undefined;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
});
afterAll(async () => {
  await fleet?.close();
  await postgres?.close();
});

testWithPostgres("servers on PostgreSQL make, use, refresh and lose nothing of a key", async () => {
  if (!postgres) throw new Error("PostgreSQL did not start");
  const { password } = postgres;
  const urls = [await postgres.create(), await postgres.create()];
  const made = await openFleet(3, (index) => {
    const url = urls[index - 2];
    return url === undefined
      ? { args: [] }
      : {
          args: ["--database", url.replace(/:[^:@/]+@/, "@")],
          env: { PGPASSWORD: password },
        };
  });
  fleet = made;
  const owner = await localHome(made.world, "owner");
  await made.form(owner, "custody", 2);
  await owner.ok(["federation", "join", placeOf(made.server(1))]);
  await owner.ok(["key", "generate", "treasury", "--type", "ed25519", "--custody", "delegated"]);
  const message = ["--message-file", made.world.file("message", "pay 3 coins")];
  // each pair has one of them at least, and one pair both
  for (const stopped of [1, 2, 3]) {
    await made.kill(stopped);
    const { signatureHex } = await dataAt(owner, 0, ["key", "sign", "treasury", ...message]);
    expect(signatureHex).toMatch(/^[0-9a-f]{128}$/);
    await made.start(stopped);
  }
  await owner.ok(["key", "refresh", "treasury"]);
  await owner.ok(["key", "generate", "seed", "--type", "bytes"]);
  expect((await owner.ok(["key", "retrieve", "seed", "--reveal"])).data.value).toMatch(/^[0-9a-f]{64}$/);
  expect((await owner.ok(["federation", "check"])).data.ok).toBe(true);
  expect((await owner.ok(["audit", "verify", "--federation"])).data.ok).toBe(true);
});
