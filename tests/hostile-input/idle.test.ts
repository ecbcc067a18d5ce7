import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { openWorld, SETUP_MS, type World } from "../binary/world.ts";
import { type Connection, connect } from "./connection.ts";

setDefaultTimeout(180_000);

/** Connections that are held open; each process needs a descriptor for each. */
const IDLE = 4_000;
const OPENED_AT_ONCE = 40;
const HEALTH = Buffer.from("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
const CAP_MS = 60_000;

let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

function descriptors(): number {
  const limit = Bun.spawnSync(["sh", "-c", "ulimit -n"]).stdout.toString().trim();
  return limit === "unlimited" ? Number.POSITIVE_INFINITY : Number(limit);
}

/** Connections that the server holds, by the system's own table. */
function held(pid: number): number {
  return [...new Bun.Glob("*").scanSync({ cwd: `/proc/${pid}/fd`, onlyFiles: false, followSymlinks: false })].length;
}

test.skipIf(process.platform !== "linux")(
  "thousands of idle connections: whoever comes is served, and the server lets the idle ones go",
  async () => {
    // as many as the system allows: with few descriptors, fewer
    const wanted = Math.min(IDLE, descriptors() - 300);
    const { port, pid } = world.server;
    const home = await world.home("idle").register("idle");
    const idle: Connection[] = [];
    while (idle.length < wanted) {
      const more = Array.from({ length: Math.min(OPENED_AT_ONCE, wanted - idle.length) }, () =>
        connect({ port, tls: true }),
      );
      idle.push(...(await Promise.all(more)));
      // nobody is closed for being slow to open: those that wait ask now and then
      if (idle.length % 500 < OPENED_AT_ONCE) await Promise.all(idle.map((one) => one.exchange(HEALTH, CAP_MS)));
    }
    const last = await Promise.all(idle.map((one) => one.exchange(HEALTH, CAP_MS)));
    expect(last.filter(({ status }) => status === 200)).toHaveLength(wanted);
    expect(held(pid)).toBeGreaterThanOrEqual(wanted);
    const memory = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1_024;
    expect(memory).toBeLessThan(400);

    // the whole way of a client, beside them
    await home.ok(["store", "beside/them"], { stdin: "a value" });
    expect((await home.ok(["list", "--fresh"])).data.items).toHaveLength(1);

    // nobody of this side closes them
    while (idle.some(({ open }) => open)) await Bun.sleep(100);
    expect(held(pid)).toBeLessThan(wanted / 2);
  },
);
