import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { openWorld, SETUP_MS, type World } from "../binary/world.ts";
import { connect } from "./connection.ts";

setDefaultTimeout(90_000);

let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

test("a flood of requests does not flood the server's own log, and is counted there whole", async () => {
  const { port, pid } = world.server;
  const lanes = 8;
  const each = 400;
  const flood = lanes * each;
  const request = Buffer.from("POST /v1/op/none HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      const connection = await connect({ port, tls: true });
      for (let i = 0; i < each; i++) expect((await connection.exchange(request, 30_000)).status).toBe(404);
      connection.end();
    }),
  );
  await world.server.stop("SIGTERM");
  const lines = world.server
    .log()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines[0]).toMatchObject({ event: "listening", pid });
  const refused = lines.filter(({ code }) => code === "not_found");
  expect(refused.reduce((sum, { count = 1 }) => sum + count, 0)).toBe(flood);
  const counted = refused.filter(({ count }) => count !== undefined);
  expect(counted.length).toBeGreaterThan(0);
  // what is alike shows a thousand times in a window
  expect(refused.length).toBeLessThanOrEqual((1_000 + 1) * counted.length);
  expect(counted[0]).toMatchObject({ level: "info", event: "request", op: "unknown", status: 404 });
});
