import { existsSync, readdirSync, readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { StoreCounts } from "../storage/store.ts";
import type { EnclaveFigures } from "./enclave.ts";
import type { Meter } from "./meter.ts";

/** Figures of one process as Prometheus reads them (text exposition format 0.0.4, docs/operations.md). */
export interface Metrics {
  /** What the server's parts report to. */
  readonly meter: Meter;
  readonly contentType: string;
  /** Says from where the figures come that are asked for at each scrape. */
  watch(sources: Sources): void;
  /** All figures as text. A source that fails leaves its own figures out and is counted. */
  text(): Promise<string>;
}

/** Where a scrape asks for the present state. */
export interface Sources {
  readonly engine: string;
  /** Requests that run. */
  inFlight(): number;
  ready(): boolean;
  counts(): Promise<StoreCounts>;
  /** The server-wide log: entries, and when its newest checkpoint was signed; null before the first one. */
  log?(): Promise<{ readonly entries: number; readonly checkpointAtMs: number | null }>;
  /** The enclave process of a server that has needed one. */
  enclave?(): EnclaveFigures | undefined;
}

const REQUEST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
const COMMIT_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1];
const COMMIT_JOBS = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/** Counting rows costs a walk over an index: not more often than this. */
const COUNTS_MS = 10_000;
const LOGIN_STEPS: readonly string[] = ["session.login.start", "session.login"];

/** A function that asks `source` at most once in {@link COUNTS_MS}. */
function seldom<T>(source: () => Promise<T>, clock: () => number): () => Promise<T> {
  let asked: { atMs: number; value: Promise<T> } | undefined;
  return () => {
    if (!asked || clock() - asked.atMs >= COUNTS_MS) {
      const value = source();
      const mine = { atMs: clock(), value };
      asked = mine;
      value.catch(() => {
        if (asked === mine) asked = undefined;
      });
    }
    return asked.value;
  };
}

/**
 * Makes the figures of a process. Labels are operations, outcomes and versions alone: nothing of an account, a device,
 * an address or a request.
 *
 * @param build What runs. @param now Milliseconds since the epoch.
 */
export function createMetrics(
  build: { readonly version: string; readonly commit: string },
  now: () => number = Date.now,
): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Counter({
    name: "keyhold_requests_total",
    help: "Answered operations by outcome: ok or an error code.",
    labelNames: ["operation", "outcome"] as const,
    registers,
  });
  const requestSeconds = new Histogram({
    name: "keyhold_request_seconds",
    help: "Time from the request's head to its answer.",
    labelNames: ["operation"] as const,
    buckets: REQUEST_SECONDS,
    registers,
  });
  const logins = new Counter({
    name: "keyhold_logins_total",
    help: "Logins that ended, by outcome; one that was refused at its start counts once.",
    labelNames: ["outcome"] as const,
    registers,
  });
  const rateLimited = new Counter({
    name: "keyhold_rate_limited_total",
    help: "Requests refused by a limit.",
    labelNames: ["operation"] as const,
    registers,
  });
  const waiting = new Gauge({
    name: "keyhold_store_transactions_waiting",
    help: "Transactions that wait for their commit.",
    registers,
  });
  const transactionSeconds = new Histogram({
    name: "keyhold_store_transaction_seconds",
    help: "Time from asking for a transaction until it is durable or undone.",
    buckets: COMMIT_SECONDS,
    registers,
  });
  const commitJobs = new Histogram({
    name: "keyhold_store_commit_transactions",
    help: "Transactions that shared a commit.",
    buckets: COMMIT_JOBS,
    registers,
  });
  const commitSeconds = new Histogram({
    name: "keyhold_store_commit_seconds",
    help: "Time of a commit until it is durable.",
    buckets: COMMIT_SECONDS,
    registers,
  });
  const opaqueWaiting = new Gauge({
    name: "keyhold_opaque_waiting",
    help: "OPAQUE evaluations that run or wait for a Worker.",
    registers,
  });
  const opaqueSeconds = new Histogram({
    name: "keyhold_opaque_seconds",
    help: "Time of an OPAQUE evaluation with its wait.",
    labelNames: ["evaluation"] as const,
    buckets: REQUEST_SECONDS,
    registers,
  });
  const failures = new Counter({
    name: "keyhold_scrape_failures_total",
    help: "Sources that failed at a scrape.",
    registers,
  });
  const { gauges, refresh } = sampled(registers, build, now);
  processFigures(registers);

  return {
    contentType: registry.contentType,
    meter: {
      request(operation, outcome, ms) {
        requests.inc({ operation, outcome });
        requestSeconds.observe({ operation }, ms / 1_000);
        if (outcome === "rate_limited") rateLimited.inc({ operation });
        const ended = operation === LOGIN_STEPS[1] || (operation === LOGIN_STEPS[0] && outcome !== "ok");
        if (ended) logins.inc({ outcome });
      },
      committed(jobs, ms) {
        commitJobs.observe(jobs);
        commitSeconds.observe(ms / 1_000);
      },
      store: (store) => ({
        ...store,
        async transaction(work, near) {
          const startedAt = performance.now();
          waiting.inc();
          try {
            return await store.transaction(work, near);
          } finally {
            waiting.dec();
            transactionSeconds.observe((performance.now() - startedAt) / 1_000);
          }
        },
      }),
      pool: (pool) => ({
        ...pool,
        async run(job) {
          const startedAt = performance.now();
          opaqueWaiting.inc();
          try {
            return await pool.run(job);
          } finally {
            opaqueWaiting.dec();
            opaqueSeconds.observe({ evaluation: job.kind }, (performance.now() - startedAt) / 1_000);
          }
        },
      }),
    },
    watch: gauges,
    async text() {
      const failed = await refresh();
      if (failed > 0) failures.inc(failed);
      return registry.metrics();
    },
  };
}

/** Figures that are asked for at each scrape. */
function sampled(
  registers: Registry[],
  build: { readonly version: string; readonly commit: string },
  now: () => number,
): { gauges(sources: Sources): void; refresh(): Promise<number> } {
  let readers: (() => Promise<void>)[] = [];
  const gauge = (name: string, help: string) => new Gauge({ name, help, registers });
  const info = new Gauge({
    name: "keyhold_build_info",
    help: "What runs; always 1.",
    labelNames: ["version", "commit", "engine"] as const,
    registers,
  });
  const inFlight = gauge("keyhold_requests_in_flight", "Requests that run.");
  const ready = gauge("keyhold_ready", "1 while requests can be served.");
  const accounts = gauge("keyhold_accounts", "Accounts.");
  const disabled = gauge("keyhold_accounts_disabled", "Accounts that an administrator disabled.");
  const sessions = gauge("keyhold_sessions", "Sessions that may be used.");
  const logEntries = gauge("keyhold_log_entries", "Entries of the server-wide log.");
  const checkpointAge = gauge("keyhold_log_checkpoint_age_seconds", "Age of its newest signed checkpoint.");
  const enclaveUp = gauge("keyhold_enclave_up", "1 while the enclave process runs.");
  const enclaveCrashes = gauge("keyhold_enclave_crashes", "Times that the enclave process ended unasked.");
  return {
    gauges(sources) {
      info.set({ ...build, engine: sources.engine }, 1);
      const counts = seldom(() => sources.counts(), now);
      readers = [
        async () => inFlight.set(sources.inFlight()),
        async () => ready.set(sources.ready() ? 1 : 0),
        async () => {
          for (const each of [accounts, disabled, sessions]) each.remove();
          const found = await counts();
          accounts.set(found.accounts);
          disabled.set(found.disabled);
          sessions.set(found.sessions);
        },
        async () => {
          logEntries.remove();
          checkpointAge.remove();
          const log = await sources.log?.();
          if (!log) return;
          logEntries.set(log.entries);
          if (log.checkpointAtMs !== null) checkpointAge.set(Math.max(0, now() - log.checkpointAtMs) / 1_000);
        },
        async () => {
          enclaveUp.remove();
          enclaveCrashes.remove();
          const enclave = sources.enclave?.();
          if (!enclave || enclave.starts + enclave.crashes === 0) return;
          enclaveUp.set(enclave.running ? 1 : 0);
          enclaveCrashes.set(enclave.crashes);
        },
      ];
    },
    async refresh() {
      const done = await Promise.allSettled(readers.map((read) => read()));
      return done.filter(({ status }) => status === "rejected").length;
    },
  };
}

/** What every process shows under the names that Prometheus' own libraries use. */
function processFigures(registers: Registry[]): void {
  const started = new Gauge({
    name: "process_start_time_seconds",
    help: "Start of the process since the epoch.",
    registers,
  });
  started.set(Math.round(Date.now() / 1_000 - process.uptime()));
  new Gauge({
    name: "process_resident_memory_bytes",
    help: "Resident memory.",
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  let counted = 0;
  new Counter({
    name: "process_cpu_seconds_total",
    help: "Processor time of all threads, user and system.",
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      const seconds = (user + system) / 1e6;
      this.inc(Math.max(0, seconds - counted));
      counted = Math.max(counted, seconds);
    },
  });
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  new Gauge({
    name: "keyhold_event_loop_delay_max_seconds",
    help: "Longest time since the last scrape for which the main thread answered nothing.",
    registers,
    collect() {
      this.set(delay.max / 1e9);
      delay.reset();
    },
  });
  if (!existsSync("/proc/self/fd")) return;
  new Gauge({
    name: "process_open_fds",
    help: "Open file descriptors.",
    registers,
    collect() {
      this.set(readdirSync("/proc/self/fd").length);
    },
  });
  const limit = Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1]);
  if (!Number.isNaN(limit)) {
    new Gauge({ name: "process_max_fds", help: "Most file descriptors that may be open.", registers }).set(limit);
  }
}
