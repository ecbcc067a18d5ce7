import { expect, setDefaultTimeout, test } from "bun:test";
import { connect, postBytes } from "./connection.ts";
import { malformedRequests } from "./engine.ts";
import { mutateBytes, mutateJson } from "./mutators.ts";
import { prng } from "./prng.ts";

setDefaultTimeout(180_000);

test("10,000 malformed requests: no 5xx, no fault, no restart, memory flat", async () => {
  const run = await malformedRequests({ count: 10_000, seed: 20_260_101 });
  expect({ sent: run.sent, failed: run.failed, restarts: run.restarts, faults: run.faults }).toEqual({
    sent: 10_000,
    failed: [],
    restarts: 0,
    faults: [],
  });
  // what the collector leaves lying differs by some 10 MiB of 110 from run to run: 80,000 requests end no higher than
  // 10,000 (`bun run soak` holds the long form to 10%), while one that kept its body would show here
  expect(run.memoryGrowthPercent).toBeLessThan(25);
  // they reached every layer: listener, paths and methods, sizes and types, frames, sessions, handlers
  for (const status of [200, 400, 401, 404, 405, 413, 415, 431])
    expect([status, run.statuses[status]]).not.toEqual([status, undefined]);
  for (const level of ["frame", "json", "http", "tls"] as const) expect(run.perLevel[level]).toBeGreaterThan(500);
  expect(run.shaken).toBeGreaterThan(20);
  // the main job was recorded as one that works, operation by operation
  expect(run.recorded.bad).toEqual([]);
});

test("the same seed makes the same requests, another one others", () => {
  const json = JSON.stringify({ account: "alice", list: [1, 2, { deep: "text" }], flag: null });
  const made = (seed: number) =>
    Array.from({ length: 200 }, (_, index) => Buffer.from(mutateJson(prng(seed, index), json)).toString("base64"));
  expect(made(7)).toEqual(made(7));
  expect(made(7)).not.toEqual(made(8));
  expect(new Set(made(7)).size).toBeGreaterThan(120);
});

test("mutations change what they are given, and leave the original as it was", () => {
  const good = new TextEncoder().encode('{"account":"alice"}');
  const kept = Uint8Array.from(good);
  const changed = Array.from({ length: 500 }, (_, index) => mutateBytes(prng(1, index), good, kept));
  expect(good).toEqual(kept);
  expect(changed.filter((bytes) => Buffer.compare(bytes, good) !== 0).length).toBeGreaterThan(400);
});

test("an answer of 500 would be seen, also behind an interim one", async () => {
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data: (socket) => {
        socket.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad");
      },
    },
  });
  try {
    const connection = await connect({ port: server.port, tls: false });
    const outcome = await connection.exchange(
      postBytes("session.check", "application/json", new Uint8Array(2)),
      10_000,
    );
    expect([outcome.status, new TextDecoder().decode(outcome.body)]).toEqual([500, "bad"]);
    connection.end();
  } finally {
    server.stop(true);
  }
});
