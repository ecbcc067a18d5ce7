import { Fault } from "../../errors.ts";
import type { CommitObserver } from "../store.ts";

/** Jobs in one commit. */
const BATCH_JOBS = 256;
/** Jobs that may wait; more are refused. */
const WAITING_JOBS = 4_096;
/** What a refused caller is told to wait. */
const RETRY_AFTER_MS = 1_000;

/** The database as the queue sees it: every call is synchronous and throws on failure. */
export interface Engine<C> {
  begin(): void;
  commit(): void;
  rollback(): void;
  savepoint(): void;
  release(): void;
  rollbackTo(): void;
  /** False once the database gave up the transaction by itself (disk full, I/O error). */
  inTransaction(): boolean;
  /** The handle of one job. `end` makes it unusable and names the fault that forbids to keep its writes, if any. */
  handle(): { readonly context: C; end(): Fault | undefined };
  /** The fault for anything that the calls above threw. */
  fault(error: unknown): Fault;
}

/** Jobs that share commits (docs/architecture.md, storage). */
export interface Queue<C> {
  /** Runs `work` after all pushed before; settles when its commit is durable or it left no trace. */
  push<T>(work: (context: C) => Promise<T>): Promise<T>;
  /** Resolves when nothing runs or waits. */
  idle(): Promise<void>;
}

interface Job<C> {
  readonly work: (context: C) => Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

type Outcome = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: unknown };

/**
 * Ends a job that waits for something else than its transaction: while a batch runs, only microtasks run, so that a
 * macrotask means that the job at work cannot go on by itself.
 */
function watchStalls(): { race(work: () => Promise<unknown>): Promise<Outcome>; stop(): void } {
  let stalled: (() => void) | undefined;
  let timer = setImmediate(fire);
  function fire(): void {
    timer = setImmediate(fire);
    stalled?.();
  }
  return {
    race: (work) =>
      new Promise((resolve) => {
        stalled = () => {
          const fault = new Fault("internal", "a transaction waited for something outside it");
          resolve({ ok: false, error: fault });
        };
        try {
          work().then(
            (value) => resolve({ ok: true, value }),
            (error: unknown) => resolve({ ok: false, error }),
          );
        } catch (error) {
          resolve({ ok: false, error });
        }
      }),
    stop: () => clearImmediate(timer),
  };
}

/** Runs jobs strictly one after another, many to a commit, each in a savepoint of its own; `committed` learns of each. */
export function createQueue<C>(
  engine: Engine<C>,
  limits = { batch: BATCH_JOBS, waiting: WAITING_JOBS },
  committed?: CommitObserver,
): Queue<C> {
  const waiting: Job<C>[] = [];
  let busy = false;
  let idlers: (() => void)[] = [];

  /** Leaves the transaction, whatever state it is in, and fails all that relied on it. */
  function abandon(error: unknown, jobs: readonly Job<C>[]): void {
    const fault = engine.fault(error);
    try {
      if (engine.inTransaction()) engine.rollback();
    } catch {
      // The next BEGIN fails and says why.
    }
    for (const job of jobs) job.reject(fault);
  }

  /** True when the job's writes stand in the transaction. @throws what the savepoint's statements threw */
  async function runJob(job: Job<C>, race: (work: () => Promise<unknown>) => Promise<Outcome>): Promise<Outcome> {
    engine.savepoint();
    const handle = engine.handle();
    const outcome = await race(() => job.work(handle.context));
    const fault = handle.end();
    if (!engine.inTransaction()) throw fault ?? new Fault("storage", "cannot write the database: it gave up");
    if (outcome.ok && !fault) {
      engine.release();
      return outcome;
    }
    engine.rollbackTo();
    engine.release();
    return fault ? { ok: false, error: fault } : outcome;
  }

  async function runBatch(batch: readonly Job<C>[], race: (work: () => Promise<unknown>) => Promise<Outcome>) {
    let kept: { job: Job<C>; value: unknown }[] = [];
    for (const [index, job] of batch.entries()) {
      try {
        if (!engine.inTransaction()) engine.begin();
      } catch (error) {
        abandon(error, batch.slice(index));
        return;
      }
      try {
        const outcome = await runJob(job, race);
        if (outcome.ok) kept.push({ job, value: outcome.value });
        else job.reject(outcome.error);
      } catch (error) {
        abandon(error, [...kept.map((k) => k.job), job]);
        kept = [];
      }
    }
    try {
      if (engine.inTransaction()) {
        const startedAt = performance.now();
        engine.commit();
        committed?.(kept.length, performance.now() - startedAt);
      }
    } catch (error) {
      abandon(
        error,
        kept.map((k) => k.job),
      );
      return;
    }
    for (const { job, value } of kept) job.resolve(value);
  }

  async function drain(): Promise<void> {
    const stalls = watchStalls();
    await runBatch(waiting.splice(0, limits.batch), stalls.race);
    stalls.stop();
    busy = false;
    schedule();
    if (busy) return;
    const called = idlers;
    idlers = [];
    for (const call of called) call();
  }

  function schedule(): void {
    if (busy || waiting.length === 0) return;
    busy = true;
    setImmediate(() => void drain());
  }

  return {
    push: <T>(work: (context: C) => Promise<T>) =>
      new Promise<T>((resolve, reject) => {
        if (waiting.length >= limits.waiting) {
          reject(
            new Fault("unavailable", "the server is busy: too many writes wait", { retryAfterMs: RETRY_AFTER_MS }),
          );
          return;
        }
        waiting.push({ work, resolve: (value) => resolve(value as T), reject });
        schedule();
      }),
    idle: () =>
      new Promise((resolve) => {
        if (busy) idlers.push(resolve);
        else resolve();
      }),
  };
}
