import { Fault } from "../errors.ts";
import type { FederatedRequestId } from "../ids.ts";
import { encodeJson, type Of } from "../wire/codec.ts";
import type { keyringOperations } from "../wire/keyring/operations.ts";
import { type Report, report as reportCodec, type Task } from "../wire/keyring/views.ts";
import { type Desk, type Done, perform, reasonOf } from "./duties.ts";
import { isAway, type RegistryEnd } from "./ends.ts";
import type { Figures } from "./figures.ts";
import type { ConnectorLog } from "./log.ts";
import { isSameResponse } from "./outbox.ts";

/** How the loop behaves; all times in milliseconds. */
export const LOOP = {
  /** Tasks at once. */
  concurrency: 8,
  /** How long the registry holds an empty answer back. */
  pollMs: 10_000,
  backoffFirstMs: 500,
  backoffMaxMs: 60_000,
  /** The longest pause that somebody else may ask for. */
  retryAfterMaxMs: 900_000,
  /** Tries of a task that keeps failing for a reason that nobody foresaw. */
  triesMax: 20,
  /** How long a round waits for its last tasks before it asks for more. */
  lingerMs: 250,
} as const;

/** How old the last contact on disk may be, in milliseconds. */
const CONTACT_MS = 1_000;
/** Tasks of one answer at most. */
const TASKS_MAX = 16;
/** Characters of a reason in a report. */
const WHY_MAX = 300;
/** So long the own server counts as away since a task found it so, in milliseconds: each is tried again before. */
const OWN_AWAY_MS = 2 * LOOP.backoffMaxMs;
/** The registry bounds bytes, and shows them to others: a byte a character. */
const asciiOf = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, "?");

/** Characters of a connector's state, as the registry takes it. */
const STATE_MAX = 200;
const REPORTS_MAX = 16;
const REPORT_BYTES = 96 * 1_024;

export interface LoopOptions {
  readonly concurrency: number;
  readonly version: string;
  readonly now: () => number;
  /** A number from 0 (inclusive) to 1 (exclusive), for jitter. */
  readonly jitter: () => number;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly log: ConnectorLog;
  readonly figures: Figures | null;
  /** Runs before each step that a crash can come before; tests throw in it. */
  readonly step?: (name: "poll" | "taken" | "done" | "kept" | "report" | "reported") => void;
  readonly pollMs?: number;
}

/** Grows twofold from the first to the longest pause, each between half of it and all of it. */
export function backoffMs(tries: number, jitter: number, retryAfterMs = 0): number {
  const whole = Math.min(LOOP.backoffMaxMs, LOOP.backoffFirstMs * 2 ** Math.min(tries, 20));
  // whoever is asked says when, and not that it is to be never
  return Math.max(Math.min(retryAfterMs, LOOP.retryAfterMaxMs), whole / 2 + (whole / 2) * jitter);
}

/** Attempt that a task belongs to; 0 where there is none. */
function attemptOf({ work }: Task): number {
  if (work.do === "begin") return work.order.order.attempt;
  return work.do === "relay" || work.do === "respond" ? work.attempt : 0;
}

type ReportLine = Of<(typeof keyringOperations)["party.report"]["input"]>["reports"][number];

/** The loop of a connector: asks for tasks, does them, reports. */
export interface ConnectorLoop {
  /** Runs until {@link drain}; then what is being done is finished and reported. @throws what is no Fault */
  run(): Promise<void>;
  /** Takes no more tasks. */
  drain(): void;
  running(): number;
  /** True while the registry answers. */
  ready(): boolean;
  draining(): boolean;
  lastContactMs(): number | null;
}

export function createLoop(desk: Desk, options: LoopOptions): ConnectorLoop {
  const { outbox, registry } = desk;
  const { now, jitter, sleep, log, figures, concurrency } = options;
  const step = options.step ?? (() => undefined);
  const stop = new AbortController();
  const running = new Map<FederatedRequestId, Promise<void>>();
  /** What was told of each item last, and the newest poll that may still show it as due; null until it has arrived. */
  const told = new Map<FederatedRequestId, { readonly seq: number; poll: number | null }>();
  let polls = 0;
  /** The own server, as it was found to be away last. */
  let ownAway: { readonly why: string; readonly atMs: number } | null = null;
  const queue: ReportLine[] = [];
  let sending: Promise<void> | null = null;
  let answering = false;
  let awayTold = false;
  let contactMs: number | null = null;
  let keptContactMs = Number.NEGATIVE_INFINITY;
  let broken: unknown = null;

  function contact(): void {
    if (awayTold) log.write("info", { event: "back" });
    awayTold = false;
    answering = true;
    const nowMs = now();
    // for people who look at it: not each time
    if (nowMs - keptContactMs >= CONTACT_MS) {
      keptContactMs = nowMs;
      outbox.setFact("lastContactMs", String(nowMs));
    }
    contactMs = nowMs;
  }

  /** Reports go out as many as fit, in their order; while the registry is away they wait. */
  async function send(): Promise<void> {
    for (let tries = 0; queue.length > 0; ) {
      const batch: ReportLine[] = [];
      let bytes = 0;
      for (const one of queue) {
        bytes += encodeJson(reportCodec, one.report).length;
        if (batch.length >= REPORTS_MAX || (batch.length > 0 && bytes > REPORT_BYTES)) break;
        batch.push(one);
      }
      try {
        step("report");
        await registry.call("party.report", { reports: batch });
        step("reported");
        contact();
        tries = 0;
        queue.splice(0, batch.length);
        outbox.together(() => batch.forEach(acknowledged));
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        if (isAway(error)) {
          answering = false;
          figures?.away("registry");
          // what is not told now is asked for again; a response is kept until it is taken
          if (stop.signal.aborted && tries >= 2) return void queue.splice(0);
          const draining = stop.signal.aborted;
          const pauseMs = backoffMs(tries, jitter(), draining ? 0 : error.retryAfterMs);
          await sleep(pauseMs, draining ? new AbortController().signal : stop.signal);
          tries += 1;
        } else if (batch.length > 1) {
          // one of them is not to its taste: alone each of the others gets through
          const first = queue.splice(0, batch.length);
          for (const one of first) await sendAlone(one);
        } else {
          queue.shift();
          turnedDown(batch[0], error);
        }
      }
    }
  }

  async function sendAlone(one: ReportLine): Promise<void> {
    try {
      await registry.call("party.report", { reports: [one] });
      acknowledged(one);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      if (isAway(error)) queue.push(one);
      else turnedDown(one, error);
    }
  }

  function acknowledged({ itemId, seq, report }: ReportLine): void {
    figures?.reported(report.did);
    const last = told.get(itemId);
    if (last?.seq === seq) last.poll = polls;
    if (report.did === "response") {
      outbox.sent(itemId, now());
      log.write("info", { event: "response", itemId, report: report.response.response.verdict });
    }
  }

  function turnedDown(one: ReportLine | undefined, error: Fault): void {
    if (!one) return;
    told.delete(one.itemId);
    log.write("warn", { event: "report-refused", itemId: one.itemId, report: one.report.did, code: error.code });
    outbox.wait(one.itemId, `the registry refuses the report: ${reasonOf(error)}`, now() + backoffMs(6, jitter()));
  }

  function tell(itemId: FederatedRequestId, seq: number, report: Report): void {
    told.set(itemId, { seq, poll: null });
    queue.push({ itemId, seq, report });
    sending ??= send()
      .catch((error: unknown) => {
        broken ??= error;
        stop.abort();
      })
      .finally(() => {
        sending = null;
      });
  }

  function bury(task: Task, why: string): void {
    const { itemId, seq, work } = task;
    outbox.bury(task, why, now());
    log.write("error", { event: "dead-letter", itemId, task: work.do, why });
    tell(itemId, seq, { did: "missed", attempt: attemptOf(task), why: why.slice(0, WHY_MAX), final: true });
  }

  /** The registry is told, so that it asks later and lets others pass. */
  function putOff(task: Task, why: string): void {
    const { itemId, seq } = task;
    tell(itemId, seq, { did: "missed", attempt: attemptOf(task), why: why.slice(0, WHY_MAX), final: false });
  }

  function conclude(task: Task, done: Done): void {
    const { itemId, seq } = task;
    switch (done.at) {
      case "report": {
        const answered = done.report.did === "response";
        if (ownAway !== null) log.write("info", { event: "back" });
        ownAway = null;
        outbox.settle(itemId, done.over ? "over" : answered ? "answered" : "open", now());
        step("kept");
        tell(itemId, seq, done.report);
        return;
      }
      case "wait": {
        const tries = outbox.item(itemId)?.tries ?? 0;
        if (tries + 1 >= LOOP.triesMax && !done.patient) {
          bury(task, `tried ${tries + 1} times: ${done.why}`);
          return;
        }
        outbox.wait(itemId, done.why, now() + backoffMs(tries, jitter()));
        putOff(task, done.why);
        log.write("debug", { event: "waits", itemId, task: task.work.do, why: done.why });
        if (done.away) {
          if (ownAway === null) log.write("warn", { event: "away", why: done.why });
          ownAway = { why: done.why, atMs: now() };
        }
        return;
      }
      case "dead":
        bury(task, done.why);
    }
  }

  async function work(task: Task): Promise<void> {
    const beganMs = now();
    const kind = task.work.do;
    const done = await perform(desk, task);
    step("done");
    conclude(task, done);
    figures?.task(kind, done.at === "report" ? done.report.did : done.at, now() - beganMs);
    log.write("debug", { event: "task", itemId: task.itemId, task: kind, report: done.at, ms: now() - beganMs });
  }

  function start(task: Task): void {
    const doing = work(task)
      .catch((error: unknown) => {
        broken ??= error;
        stop.abort();
      })
      .finally(() => running.delete(task.itemId));
    running.set(task.itemId, doing);
  }

  /** True for a task that was done while the registry was asked: what was told of it had not arrived there yet. */
  function isTold({ itemId, seq }: Task): boolean {
    const last = told.get(itemId);
    return last !== undefined && seq <= last.seq && (last.poll === null || last.poll >= polls);
  }

  /** Those of the tasks that can be begun now; the others wait for their time, or lie with the dead letters. */
  function admit(tasks: readonly Task[], free: number): readonly Task[] {
    const fit: Task[] = [];
    for (const task of tasks) {
      if (fit.length >= free || running.has(task.itemId) || isTold(task)) continue;
      const row = outbox.take(task, now());
      step("taken");
      if (row.state === "dead") {
        const why = row.why.slice(0, WHY_MAX);
        tell(task.itemId, task.seq, { did: "missed", attempt: attemptOf(task), why, final: true });
      } else if (row.nextAtMs <= now()) fit.push(task);
      else putOff(task, row.why);
    }
    for (const [itemId, { poll }] of told) if (poll !== null && poll <= polls) told.delete(itemId);
    return fit;
  }

  const health = () => {
    const { dead, unsent } = outbox.troubles();
    const away = ownAway !== null && now() - ownAway.atMs < OWN_AWAY_MS ? ownAway.why : null;
    const state = away ?? (unsent === 0 ? "ok" : `${unsent} responses unsent`);
    return { version: options.version, state: asciiOf(state).slice(0, STATE_MAX), deadLetters: dead };
  };

  /** Responses that were signed before a crash and never acknowledged: sent again, and nothing else is. */
  function resend(): void {
    for (const { seq, response } of outbox.unsent()) {
      const { requestId } = response.response;
      const kept = outbox.response(requestId);
      if (kept && isSameResponse(kept, response)) tell(requestId, seq, { did: "response", response: kept });
    }
  }

  async function poll(tries: number): Promise<number> {
    const free = concurrency - running.size;
    if (free <= 0) {
      await Promise.race(running.values());
      return tries;
    }
    step("poll");
    for (const task of outbox.revived().slice(0, free)) if (!running.has(task.itemId)) start(task);
    // those that are worked on may come again: beside them no more than there are hands
    const max = Math.min(TASKS_MAX, concurrency);
    // the first answer comes at once: it says that all is well
    const waitMs = contactMs === null ? 0 : (options.pollMs ?? LOOP.pollMs);
    polls += 1;
    const asked = ask(registry, { waitMs, max, health: health() });
    const ended = Promise.withResolvers<null>();
    const end = () => ended.resolve(null);
    stop.signal.addEventListener("abort", end);
    const got = await Promise.race([asked, ended.promise]);
    stop.signal.removeEventListener("abort", end);
    if (got === null) return tries;
    if (got instanceof Fault) {
      if (!isAway(got)) log.write("error", { event: "poll", code: got.code, why: reasonOf(got) });
      else {
        if (!awayTold) log.write("warn", { event: "away", code: got.code, why: reasonOf(got) });
        awayTold = true;
        figures?.away("registry");
      }
      answering = false;
      await sleep(backoffMs(tries, jitter(), got.retryAfterMs), stop.signal);
      return tries + 1;
    }
    contact();
    const again = got.tasks.some((task) => !isTold(task));
    const fresh = outbox.together(() => admit(got.tasks, concurrency - running.size));
    for (const task of fresh) start(task);
    const lingering = sleep(fresh.length > 0 ? LOOP.lingerMs : again ? LOOP.backoffFirstMs : 0, stop.signal);
    // as soon as one that came again is done there may be more to do
    await Promise.race([lingering, ...(fresh.length > 0 ? [Promise.all(running.values())] : running.values())]);
    await sending;
    return 0;
  }

  return {
    async run() {
      resend();
      for (let tries = 0; !stop.signal.aborted; ) tries = await poll(tries);
      // what has begun is brought to its end, and told
      while (running.size > 0) await Promise.all(running.values());
      await sending;
      if (broken !== null) throw broken;
    },
    drain: () => stop.abort(),
    running: () => running.size,
    ready: () => answering,
    draining: () => stop.signal.aborted,
    lastContactMs: () => contactMs,
  };
}

/** Never rejects, so that a poll which nobody waits for any more is no failure. */
async function ask(registry: RegistryEnd, input: Parameters<RegistryEnd["call"]>[1] & object) {
  try {
    return await registry.call("party.tasks", input as Of<(typeof keyringOperations)["party.tasks"]["input"]>);
  } catch (error) {
    if (error instanceof Fault) return error;
    return new Fault("internal", "the registry could not be asked");
  }
}
