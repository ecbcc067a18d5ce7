import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Counts } from "./outbox.ts";

/** Figures of one connector as Prometheus reads them (text exposition format 0.0.4). */
export interface Figures {
  readonly contentType: string;
  /** A task that was done, by what it was and what became of it. */
  task(kind: string, result: string, ms: number): void;
  /** Reports that the registry has taken. */
  reported(kind: string): void;
  /** A call to registry or own server that failed because it is away. */
  away(end: "registry" | "server"): void;
  text(): Promise<string>;
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** Where a scrape asks for the present state. */
export interface FigureSources {
  counts(): Counts;
  running(): number;
  ready(): boolean;
  draining(): boolean;
  /** Milliseconds since 1970; null before the first. */
  lastContactMs(): number | null;
}

/** Makes the figures; labels are kinds and results alone: nothing of a workspace, a request or a key. */
export function createFigures(version: string, sources: FigureSources): Figures {
  const registry = new Registry();
  const registers = [registry];
  const tasks = new Counter({
    name: "keyhold_connector_tasks_total",
    help: "Tasks that were worked on, by kind and result.",
    labelNames: ["task", "result"] as const,
    registers,
  });
  const seconds = new Histogram({
    name: "keyhold_connector_task_seconds",
    help: "Time of a task at this connector and its own server.",
    labelNames: ["task"] as const,
    buckets: SECONDS,
    registers,
  });
  const reports = new Counter({
    name: "keyhold_connector_reports_total",
    help: "Reports that the registry has taken.",
    labelNames: ["report"] as const,
    registers,
  });
  const failures = new Counter({
    name: "keyhold_connector_away_total",
    help: "Calls that found the registry or the own server away.",
    labelNames: ["end"] as const,
    registers,
  });
  const gauge = (name: string, help: string): Gauge => new Gauge({ name, help, registers });
  const info = new Gauge({
    name: "keyhold_connector_build_info",
    help: "What runs; always 1.",
    labelNames: ["version"] as const,
    registers,
  });
  info.set({ version }, 1);
  const items = new Gauge({
    name: "keyhold_connector_items",
    help: "Items in the outbox by state.",
    labelNames: ["state"] as const,
    registers,
  });
  const unsent = gauge("keyhold_connector_responses_unsent", "Signed responses that the registry has not taken yet.");
  const dead = gauge("keyhold_connector_dead_letters", "Tasks that cannot be done until somebody looks at them.");
  const running = gauge("keyhold_connector_tasks_running", "Tasks that are worked on.");
  const ready = gauge("keyhold_connector_ready", "1 while registry and own server answer.");
  const draining = gauge("keyhold_connector_draining", "1 once it takes no more tasks.");
  const contact = gauge("keyhold_connector_last_contact_seconds", "Last answer of the registry since the epoch.");
  const started = gauge("process_start_time_seconds", "Start of the process since the epoch.");
  started.set(Math.round(Date.now() / 1_000 - process.uptime()));
  const memory = gauge("process_resident_memory_bytes", "Resident memory.");
  return {
    contentType: registry.contentType,
    task(kind, result, ms) {
      tasks.inc({ task: kind, result });
      seconds.observe({ task: kind }, ms / 1_000);
    },
    reported: (kind) => reports.inc({ report: kind }),
    away: (end) => failures.inc({ end }),
    text() {
      const counts = sources.counts();
      for (const state of ["open", "answered", "over", "dead"] as const) items.set({ state }, counts[state]);
      unsent.set(counts.unsent);
      dead.set(counts.dead);
      running.set(sources.running());
      ready.set(sources.ready() ? 1 : 0);
      draining.set(sources.draining() ? 1 : 0);
      const at = sources.lastContactMs();
      if (at !== null) contact.set(at / 1_000);
      memory.set(process.memoryUsage.rss());
      return registry.metrics();
    },
  };
}
