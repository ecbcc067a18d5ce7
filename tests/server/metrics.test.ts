import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault } from "../../src/errors.ts";
import { type KeyServer, openKeyServer } from "../../src/server/keyserver.ts";
import { silentLog } from "../../src/server/log.ts";
import { createMetrics, type Metrics, type Sources } from "../../src/server/metrics.ts";
import { type RunningScrape, startScrape } from "../../src/server/scrape.ts";
import { type RunningServer, startServer } from "../../src/server.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { type Family, figure, parseExposition } from "../support/exposition.ts";

const BUILD = { version: "1.2.3", commit: "unknown" };
const OPEN: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of OPEN.splice(0).reverse()) await close();
});

const quiet: Sources = {
  engine: "sqlite",
  inFlight: () => 0,
  ready: () => true,
  counts: async () => ({ accounts: 0, disabled: 0, sessions: 0 }),
};

async function read(metrics: Metrics): Promise<ReadonlyMap<string, Family>> {
  return parseExposition(await metrics.text());
}

describe("figures", () => {
  test("count answers by operation and outcome, and each latency in its bucket", async () => {
    const metrics = createMetrics(BUILD);
    for (let n = 0; n < 3; n++) metrics.meter.request("secret.get", "ok", 4);
    metrics.meter.request("secret.get", "not_found", 40);
    metrics.meter.request("unknown", "not_found", 0.1);
    const found = await read(metrics);
    const count = (operation: string, outcome: string) =>
      figure(found, "keyhold_requests_total", { operation, outcome });
    expect([count("secret.get", "ok"), count("secret.get", "not_found"), count("unknown", "not_found")]).toEqual([
      3, 1, 1,
    ]);
    const bucket = (le: string) => figure(found, "keyhold_request_seconds_bucket", { operation: "secret.get", le });
    expect([bucket("0.0025"), bucket("0.005"), bucket("0.025"), bucket("0.05"), bucket("+Inf")]).toEqual([
      0, 3, 3, 4, 4,
    ]);
    expect(figure(found, "keyhold_request_seconds_sum", { operation: "secret.get" })).toBeCloseTo(0.052, 9);
  });

  test("count a login once: at its end, or at its start where that refuses it", async () => {
    const metrics = createMetrics(BUILD);
    const { request } = metrics.meter;
    request("session.login.start", "ok", 1);
    request("session.login", "ok", 1);
    request("session.login.start", "ok", 1);
    request("session.login", "login_failed", 1);
    request("session.login.start", "rate_limited", 1);
    const found = await read(metrics);
    const logins = (outcome: string) => figure(found, "keyhold_logins_total", { outcome });
    expect([logins("ok"), logins("login_failed"), logins("rate_limited")]).toEqual([1, 1, 1]);
    expect(figure(found, "keyhold_rate_limited_total", { operation: "session.login.start" })).toBe(1);
  });

  test("show commits with their transactions, and what waits", async () => {
    const metrics = createMetrics(BUILD);
    metrics.meter.committed(3, 2);
    metrics.meter.committed(300, 2);
    const found = await read(metrics);
    expect(figure(found, "keyhold_store_commit_transactions_bucket", { le: "4" })).toBe(1);
    expect(figure(found, "keyhold_store_commit_transactions_sum")).toBe(303);
    expect(figure(found, "keyhold_store_commit_seconds_count")).toBe(2);
  });

  test("of a pool and a store rise while work waits and fall when it fails", async () => {
    const metrics = createMetrics(BUILD);
    const gate = Promise.withResolvers<never>();
    const pool = metrics.meter.pool({ run: () => gate.promise, close: () => undefined });
    const opened = await openSqlite(":memory:");
    OPEN.push(() => opened.close());
    const store = metrics.meter.store({ ...opened, transaction: () => gate.promise });
    const jobs = [
      pool.run({ kind: "login-finish", state: new Uint8Array(1), account: "a", finish: new Uint8Array(1) }),
      store.transaction(async () => 1),
      store.transaction(async () => 2),
    ];
    const before = await read(metrics);
    expect(figure(before, "keyhold_opaque_waiting")).toBe(1);
    expect(figure(before, "keyhold_store_transactions_waiting")).toBe(2);
    gate.reject(new Error("gone"));
    await Promise.allSettled(jobs);
    const after = await read(metrics);
    expect(figure(after, "keyhold_opaque_waiting")).toBe(0);
    expect(figure(after, "keyhold_store_transactions_waiting")).toBe(0);
    expect(figure(after, "keyhold_opaque_seconds_count", { evaluation: "login-finish" })).toBe(1);
    expect(figure(after, "keyhold_store_transaction_seconds_count")).toBe(2);
  });

  test("are asked for at the scrape; rows are counted at most every ten seconds", async () => {
    let nowMs = 1_000_000;
    let asked = 0;
    const metrics = createMetrics(BUILD, () => nowMs);
    metrics.watch({
      ...quiet,
      inFlight: () => 7,
      ready: () => false,
      counts: async () => {
        asked += 1;
        return { accounts: 5, disabled: 1, sessions: asked };
      },
      log: async () => ({ entries: 42, checkpointAtMs: nowMs - 1_500 }),
    });
    const first = await read(metrics);
    await read(metrics);
    expect(asked).toBe(1);
    nowMs += 10_000;
    const third = await read(metrics);
    expect(asked).toBe(2);
    expect(figure(first, "keyhold_build_info", { ...BUILD, engine: "sqlite" })).toBe(1);
    const shown = [
      "keyhold_requests_in_flight",
      "keyhold_ready",
      "keyhold_accounts",
      "keyhold_accounts_disabled",
      "keyhold_sessions",
      "keyhold_log_entries",
      "keyhold_log_checkpoint_age_seconds",
    ].map((name) => figure(third, name));
    expect(shown).toEqual([7, 0, 5, 1, 2, 42, 1.5]);
  });

  test("tell of the enclave once there has been one, and whether it runs", async () => {
    const metrics = createMetrics(BUILD);
    let figures = { running: false, starts: 0, crashes: 0 };
    metrics.watch({ ...quiet, enclave: () => figures });
    const shown = async () => {
      const found = await read(metrics);
      return ["keyhold_enclave_up", "keyhold_enclave_crashes"].map((name) =>
        found.get(name)?.samples.length === 0 ? null : figure(found, name),
      );
    };
    expect(await shown()).toEqual([null, null]);
    figures = { running: true, starts: 1, crashes: 0 };
    expect(await shown()).toEqual([1, 0]);
    figures = { running: false, starts: 1, crashes: 1 };
    expect(await shown()).toEqual([0, 1]);
  });

  test("of a source that fails are left out, the others stay, and the failure is counted", async () => {
    const metrics = createMetrics(BUILD);
    let broken = false;
    metrics.watch({
      ...quiet,
      inFlight: () => 3,
      counts: () => (broken ? Promise.reject(new Error("disk")) : quiet.counts()),
      log: async () => {
        if (broken) throw new Error("disk");
        return { entries: 1, checkpointAtMs: null };
      },
    });
    expect(figure(await read(metrics), "keyhold_log_entries")).toBe(1);
    broken = true;
    const found = await read(metrics);
    expect(figure(found, "keyhold_log_entries")).toBeUndefined();
    expect(figure(found, "keyhold_requests_in_flight")).toBe(3);
    expect(figure(found, "keyhold_scrape_failures_total")).toBe(1);
  });

  test("of the process are there and plausible", async () => {
    const found = await read(createMetrics(BUILD));
    expect(figure(found, "process_resident_memory_bytes")).toBeGreaterThan(10_000_000);
    expect(figure(found, "process_cpu_seconds_total")).toBeGreaterThan(0);
    const started = figure(found, "process_start_time_seconds") ?? 0;
    expect(Math.abs(started - (Date.now() / 1_000 - process.uptime()))).toBeLessThan(5);
    if (process.platform === "linux") expect(figure(found, "process_open_fds")).toBeGreaterThan(2);
  });
});

async function scrapeOf(options: Partial<Parameters<typeof startScrape>[0]> = {}): Promise<RunningScrape> {
  const running = startScrape({
    listen: { host: "127.0.0.1", port: 0 },
    open: false,
    contentType: "text/plain; version=0.0.4; charset=utf-8",
    text: async () => "# nothing\n",
    log: silentLog,
    ...options,
  });
  OPEN.push(() => running.stop());
  return running;
}

describe("the listener of the figures", () => {
  test("answers GET /metrics and nothing else", async () => {
    const { url } = await scrapeOf();
    const reply = await fetch(url);
    expect([reply.status, reply.headers.get("content-type"), await reply.text()]).toEqual([
      200,
      "text/plain; version=0.0.4; charset=utf-8",
      "# nothing\n",
    ]);
    const base = url.replace(/\/metrics$/, "");
    for (const [path, method, status] of [
      ["/", "GET", 404],
      ["/metrics/", "GET", 404],
      ["/v1/op/server.statement", "POST", 404],
      ["/healthz", "GET", 404],
      ["/metrics", "POST", 405],
    ] as const) {
      const other = await fetch(`${base}${path}`, { method });
      expect([path, method, other.status]).toEqual([path, method, status]);
    }
  });

  test("refuses the name of a page that points here", async () => {
    const { url } = await scrapeOf();
    for (const [host, status] of [
      ["evil.example", 421],
      ["evil.example:80", 421],
      ["localhost", 200],
      ["127.0.0.1:9", 200],
      ["[::1]:9", 200],
    ] as const) {
      const reply = await fetch(url, { headers: { host } });
      expect([host, reply.status]).toEqual([host, status]);
    }
  });

  test("is refused beyond loopback unless that is asked for", async () => {
    for (const host of ["0.0.0.0", "[::]", "192.0.2.1", "keys.example.org"]) {
      await expect(scrapeOf({ listen: { host, port: 0 } })).rejects.toMatchObject({ code: "bad_input" });
    }
    const { port } = await scrapeOf({ listen: { host: "0.0.0.0", port: 0 }, open: true });
    expect((await fetch(`http://127.0.0.1:${port}/metrics`)).status).toBe(200);
  });

  test("names a port in use, and ends with its server", async () => {
    const { port, url, stop } = await scrapeOf();
    await expect(scrapeOf({ listen: { host: "127.0.0.1", port } })).rejects.toMatchObject({ code: "conflict" });
    await stop();
    await expect(fetch(url)).rejects.toThrow();
  });

  test("says nothing of why the figures failed", async () => {
    const { url } = await scrapeOf({ text: () => Promise.reject(new Error("canary")) });
    const reply = await fetch(url);
    expect([reply.status, (await reply.text()).includes("canary")]).toEqual([500, false]);
  });
});

describe("a server with figures", () => {
  async function started(): Promise<{ metrics: Metrics; server: KeyServer; running: RunningServer }> {
    const dir = mkdtempSync(join(tmpdir(), "keyhold-metrics-"));
    OPEN.push(() => rmSync(dir, { recursive: true, force: true }));
    const metrics = createMetrics(BUILD);
    const { meter } = metrics;
    const server = await openKeyServer({
      dir: join(dir, "server"),
      database: null,
      registration: "open",
      version: "1.2.3",
      log: silentLog,
      opaqueWorkers: 1,
      meter,
    });
    OPEN.push(() => server.close());
    const running = await startServer({
      listen: { host: "127.0.0.1", port: 0 },
      tls: "plaintext",
      pin: server.pin,
      handle: (op, type, body, remote) => server.dispatcher.handle(op, type, body, remote),
      log: silentLog,
      meter,
    });
    OPEN.push(() => running.stop(0));
    metrics.watch({
      engine: server.ctx.store.engine,
      inFlight: running.running,
      ready: () => server.ready(),
      counts: () => server.counts(),
    });
    return { metrics, server, running };
  }

  test("counts each answer once, refused ones too", async () => {
    const { metrics, running } = await started();
    const post = (op: string, body: string, type = "application/json") =>
      fetch(`${running.url}/v1/op/${op}`, { method: "POST", body, headers: { "content-type": type } });
    const statuses: number[] = [];
    for (let n = 0; n < 4; n++) statuses.push((await post("server.statement", "{}")).status);
    statuses.push((await post("server.statement", "{")).status);
    statuses.push((await post("server.statement", "{}", "text/plain")).status);
    statuses.push((await post("no.such", "{}")).status);
    statuses.push((await fetch(`${running.url}/v1/op/server.statement`)).status);
    await fetch(`${running.url}/healthz`);
    expect(statuses).toEqual([200, 200, 200, 200, 400, 415, 404, 405]);
    const found = await read(metrics);
    const samples = found.get("keyhold_requests_total")?.samples ?? [];
    const counted = Object.fromEntries(
      samples.map(({ labels, value }) => [`${labels["operation"]} ${labels["outcome"]}`, value]),
    );
    expect(counted).toEqual({
      "server.statement ok": 4,
      "server.statement bad_input": 1,
      "server.statement unsupported": 1,
      "server.statement method_not_allowed": 1,
      "unknown not_found": 1,
    });
    expect(figure(found, "keyhold_requests_in_flight")).toBe(0);
    expect(figure(found, "keyhold_ready")).toBe(1);
    expect(figure(found, "keyhold_accounts")).toBe(0);
  });

  test("shows its commits: transactions asked for equal those committed", async () => {
    const { metrics, server } = await started();
    const failing = new Fault("conflict", "no");
    await Promise.all([
      ...Array.from({ length: 20 }, (_, n) => server.ctx.store.transaction((tx) => tx.putSetting(`s${n}`, "x"))),
      server.ctx.store.transaction(() => Promise.reject(failing)).catch((error) => expect(error).toBe(failing)),
    ]);
    const found = await read(metrics);
    const asked = figure(found, "keyhold_store_transaction_seconds_count") ?? 0;
    expect(asked).toBeGreaterThan(21);
    // the one that failed is asked for and not committed
    expect(figure(found, "keyhold_store_commit_transactions_sum")).toBe(asked - 1);
    expect(figure(found, "keyhold_store_commit_transactions_count")).toBeLessThan(asked - 10);
  });
});
