import { randomBytes } from "node:crypto";
import { Fault } from "../../errors.ts";
import type { CommitObserver, Tx } from "../store.ts";
import { type Mark, mayRunTogether, runBatch, type Verdict, type Work } from "./batch.ts";
import type { Connection } from "./connection.ts";
import { failureOf, RETRY_AFTER_MS } from "./faults.ts";
import { accountOf } from "./together.ts";
import type { Outcome } from "./transaction.ts";

/** How much of the database server a process takes, and how much it lets wait. */
export interface LaneLimits {
  /** Connections, each with one batch at a time. */
  readonly lanes: number;
  /** Works in one commit: above 64 savepoints PostgreSQL's snapshots grow slow. */
  readonly batch: number;
  /** Works that may wait; more are refused. */
  readonly waiting: number;
  /** Milliseconds for which a work is tried again after conflicts with others. */
  readonly patienceMs: number;
}

export const LANE_LIMITS: LaneLimits = { lanes: 4, batch: 60, waiting: 4_096, patienceMs: 10_000 };

const FIRST_PAUSE_MS = 4;
const LONGEST_PAUSE_MS = 250;
/** From here on a batch that is refused for its rows goes one work after another. */
const ALONE_AFTER = 2;
/** Connections that may break under one work. */
const LOSSES = 3;

interface Job extends Work {
  /** True once a duplicate row sent it back for a second look. */
  again: boolean;
  readonly near: string | undefined;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

interface Lane {
  /** Names this lane's commits, 16 bytes. */
  readonly id: Uint8Array;
  batch: number;
  connection: Connection | undefined;
  busy: boolean;
}

/** Works that share commits on several connections (docs/architecture.md, storage). */
export interface Lanes {
  /** Runs `work`; settles when its commit is durable or it left no trace. Works `near` the same thing take turns. */
  push<T>(work: (tx: Tx) => Promise<T>, near?: string): Promise<T>;
  /** Resolves when nothing runs or waits. */
  idle(): Promise<void>;
  /** Ends the connections; nothing may run. */
  close(): Promise<void>;
}

const FENCE = "UPDATE commit_mark SET touched_at = now() WHERE lane = $1 RETURNING batch";
const OPEN_LANE =
  "INSERT INTO commit_mark (lane, batch, touched_at) VALUES ($1, $2, now()) ON CONFLICT (lane) DO NOTHING";
const CLOSE_LANE = "DELETE FROM commit_mark WHERE lane = $1";

const unavailable = (why: string) =>
  new Fault("unavailable", `the server is busy: ${why}`, { retryAfterMs: RETRY_AFTER_MS });

const outcomeUnknown = () =>
  new Fault("outcome_unknown", "the connection to the database was lost during a commit", {
    why: "whether it took place is not known.",
    retryAfterMs: RETRY_AFTER_MS,
  });

/** Tells the outcomes; gives the works that need a second look, since a row came up that their snapshot did not show. */
function settle(jobs: readonly Job[], outcomes: readonly Outcome[]): Job[] {
  const again: Job[] = [];
  for (const [index, job] of jobs.entries()) {
    const outcome = outcomes[index];
    if (outcome?.ok) job.resolve(outcome.value);
    else if (outcome?.duplicate && !job.again) {
      job.again = true;
      again.push(job);
    } else job.reject(outcome?.error ?? new Fault("internal", "a transaction has no outcome"));
  }
  return again;
}

const pause = (tries: number): Promise<void> =>
  Bun.sleep(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(tries, 10)) * (0.5 + Math.random()));

/**
 * Spreads works over connections. `connect` makes a further one.
 *
 * @param first The connection that opened the database.
 */
export function createLanes(
  connect: () => Promise<Connection>,
  first: Connection,
  limits: LaneLimits = LANE_LIMITS,
  committed?: CommitObserver,
): Lanes {
  const lanes: Lane[] = Array.from({ length: limits.lanes }, (_, index) => ({
    id: new Uint8Array(randomBytes(16)),
    batch: 0,
    connection: index === 0 ? first : undefined,
    busy: false,
  }));
  const opened = new WeakSet<Connection>();
  const waiting: Job[] = [];
  const near = new Set<string>();
  let scheduled = false;
  let idlers: (() => void)[] = [];

  /** The lane's connection, made anew if it was lost, its mark in place. @throws Fault unavailable, denied, … */
  async function connectionOf(lane: Lane): Promise<Connection> {
    if (lane.connection?.lost()) lane.connection = undefined;
    const connection = lane.connection ?? (await connect());
    lane.connection = connection;
    if (!opened.has(connection)) {
      try {
        await connection.query(OPEN_LANE, [lane.id, lane.batch]);
      } catch (error) {
        drop(lane);
        throw failureOf(error, "cannot use the database").fault;
      }
      opened.add(connection);
    }
    return connection;
  }

  function drop(lane: Lane): void {
    lane.connection?.close();
    lane.connection = undefined;
  }

  /**
   * Whether a lane's commit took place. Changing the row waits for a transaction that still holds it, and makes one that
   * comes later fail: its snapshot is older.
   */
  async function tookPlace(lane: Lane, { lane: id, batch }: Mark): Promise<boolean | undefined> {
    const until = performance.now() + limits.patienceMs;
    for (let tries = 1; performance.now() < until; tries += 1) {
      try {
        const [row] = await (await connectionOf(lane)).query(FENCE, [id]);
        return row ? Number(row["batch"]) === batch : undefined;
      } catch (error) {
        const { kind } = failureOf(error, "cannot use the database");
        if (kind === "lost") drop(lane);
        await pause(tries);
      }
    }
    return undefined;
  }

  async function decided(lane: Lane, verdict: Verdict, mark: Mark): Promise<Verdict> {
    if (verdict.kind !== "unknown") return verdict;
    drop(lane);
    const done = await tookPlace(lane, mark);
    if (done === undefined) return verdict;
    return done ? { kind: "done", outcomes: verdict.outcomes } : { kind: "again", fault: verdict.fault, lost: true };
  }

  async function run(lane: Lane, jobs: readonly Job[]): Promise<void> {
    const until = performance.now() + limits.patienceMs;
    const refuse = (fault: unknown) => {
      for (const job of jobs) job.reject(fault);
    };
    let losses = 0;
    let together = mayRunTogether(jobs);
    for (let tries = 1; ; tries += 1) {
      let connection: Connection;
      try {
        connection = await connectionOf(lane);
      } catch (fault) {
        return refuse(fault);
      }
      lane.batch += 1;
      const mark = { lane: lane.id, batch: lane.batch };
      const verdict = await decided(lane, await runBatch(connection, jobs, mark, { together, committed }), mark);
      if (verdict.kind === "apart") {
        together = false;
        continue;
      }
      if (verdict.kind !== "again") {
        const unknown = verdict.kind === "unknown";
        const again = settle(
          jobs,
          verdict.outcomes.map((outcome) => (outcome.ok && unknown ? { ok: false, error: outcomeUnknown() } : outcome)),
        );
        return again.length === 0 ? undefined : run(lane, again);
      }
      if (verdict.lost) {
        drop(lane);
        losses += 1;
      }
      if (losses >= LOSSES || performance.now() > until || verdict.fault.code !== "unavailable") {
        return refuse(verdict.fault);
      }
      if (jobs.length > 1 && tries >= ALONE_AFTER) {
        for (const job of jobs) await run(lane, [job]);
        return undefined;
      }
      await pause(tries);
    }
  }

  /**
   * The next works of a lane: its share of those that wait, none near a work that runs on another lane. Works of
   * accounts are taken apart from others, one of each, so that they can run together.
   */
  function take(): Job[] {
    const free = lanes.filter(({ busy }) => !busy).length;
    const share = Math.min(limits.batch, Math.ceil(waiting.length / Math.max(1, free)));
    const taken: Job[] = [];
    const left: Job[] = [];
    const accounts = new Set<string>();
    for (const job of waiting) {
      const running = job.near !== undefined && near.has(job.near);
      const first = taken[0];
      const alike = first === undefined || (first.account === undefined) === (job.account === undefined);
      const twice = job.account !== undefined && accounts.has(job.account);
      if (taken.length < share && !running && alike && !twice) {
        taken.push(job);
        if (job.account !== undefined) accounts.add(job.account);
      } else left.push(job);
    }
    if (taken.length > 0) waiting.splice(0, waiting.length, ...left);
    return taken;
  }

  function start(lane: Lane): void {
    const jobs = take();
    if (jobs.length === 0) return;
    lane.busy = true;
    const keys = jobs.flatMap(({ near: key }) => (key === undefined ? [] : [key]));
    for (const key of keys) near.add(key);
    void run(lane, jobs)
      // unreachable, but a lane must not die
      .catch((error: unknown) => {
        for (const job of jobs) job.reject(error);
      })
      .then(() => {
        lane.busy = false;
        for (const key of keys) near.delete(key);
        schedule();
      });
  }

  function schedule(): void {
    if (scheduled) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      for (const lane of lanes) if (!lane.busy && waiting.length > 0) start(lane);
      if (waiting.length > 0 || lanes.some(({ busy }) => busy)) return;
      const called = idlers;
      idlers = [];
      for (const call of called) call();
    });
  }

  return {
    push: <T>(work: (tx: Tx) => Promise<T>, key?: string) =>
      new Promise<T>((resolve, reject) => {
        if (waiting.length >= limits.waiting) {
          reject(unavailable("too many transactions wait"));
          return;
        }
        waiting.push({
          run: work,
          account: accountOf(key),
          again: false,
          near: key,
          resolve: (value) => resolve(value as T),
          reject,
        });
        schedule();
      }),
    idle: () =>
      new Promise((resolve) => {
        idlers.push(resolve);
        schedule();
      }),
    async close() {
      const parting = lanes.flatMap(({ id, connection }) => (connection ? [{ id, connection }] : []));
      await Promise.all(parting.map(({ id, connection }) => connection.query(CLOSE_LANE, [id]).catch(() => undefined)));
      for (const lane of lanes) drop(lane);
    },
  };
}
