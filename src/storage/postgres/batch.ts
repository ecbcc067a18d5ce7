import { Fault } from "../../errors.ts";
import type { UserId } from "../../ids.ts";
import type { CommitObserver, Tx } from "../store.ts";
import type { Connection } from "./connection.ts";
import { type Failure, failureOf } from "./faults.ts";
import { ofAccount } from "./together.ts";
import { attempt, type Outcome } from "./transaction.ts";
import { postgresTx } from "./tx.ts";

/** Work that runs in a transaction, perhaps with others, perhaps more than once. */
export interface Work {
  readonly run: (tx: Tx) => Promise<unknown>;
  /** The account that it is about, if it is about one. */
  readonly account: UserId | undefined;
}

/** Names a commit, so that it can be found out whether it happened. */
export interface Mark {
  /** 16 bytes, of one lane of one process. */
  readonly lane: Uint8Array;
  /** Counts the lane's batches. */
  readonly batch: number;
}

/** What came of a batch. */
export type Verdict =
  | { readonly kind: "done"; readonly outcomes: readonly Outcome[] }
  /** Nothing of it was committed: it may run again. */
  | { readonly kind: "again"; readonly fault: Fault; readonly lost: boolean }
  /** Nothing of it was committed, and its works cannot run in turns: one after another they can. */
  | { readonly kind: "apart" }
  /** The commit was sent and nothing came back. */
  | { readonly kind: "unknown"; readonly fault: Fault; readonly outcomes: readonly Outcome[] };

const WHAT = "cannot write the database";
const BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ";
const MARK = "UPDATE commit_mark SET batch = $2, touched_at = now() WHERE lane = $1";

/** Statements between the works, sent without waiting; remembers the first failure. */
function inPassing(connection: Connection) {
  const sent: Promise<unknown>[] = [];
  let failure: Failure | undefined;
  return {
    send(work: Promise<unknown>): void {
      sent.push(
        work.catch((error: unknown) => {
          failure ??= failureOf(error, WHAT);
        }),
      );
    },
    exec(sql: string): void {
      this.send(connection.exec(sql));
    },
    async failure(): Promise<Failure | undefined> {
      await Promise.all(sent.splice(0));
      return failure;
    },
  };
}

async function abandon(connection: Connection, failure: Failure): Promise<Verdict> {
  if (failure.kind === "lost") return { kind: "again", fault: failure.fault, lost: true };
  try {
    await connection.exec("ROLLBACK");
    return { kind: "again", fault: failure.fault, lost: false };
  } catch {
    return { kind: "again", fault: failure.fault, lost: true };
  }
}

/** What came of works before their commit: outcomes, or a failure of all, or neither where they disturb each other. */
interface Ran {
  readonly failure?: Failure;
  readonly outcomes?: readonly Outcome[];
  readonly wrote?: boolean;
}

/** Runs the works one after another, each in a savepoint of its own, without the commit. */
async function runWorks(connection: Connection, works: readonly Work[]): Promise<Ran> {
  const passing = inPassing(connection);
  const outcomes: Outcome[] = [];
  let wrote = false;
  for (const work of works) {
    if (works.length > 1) passing.exec("SAVEPOINT work");
    const one = attempt(connection);
    const outcome = await one.run(() => work.run(postgresTx(one.query)));
    const failure = one.failure();
    if (failure?.kind === "retry" || failure?.kind === "lost") return { failure };
    outcomes.push(outcome);
    if (outcome.ok) wrote ||= one.wrote();
    if (works.length > 1) {
      if (!outcome.ok) passing.exec("ROLLBACK TO SAVEPOINT work");
      passing.exec("RELEASE SAVEPOINT work");
    }
  }
  const failure = await passing.failure();
  return failure ? { failure } : { outcomes, wrote };
}

/**
 * Runs works of different accounts in turns: while one waits for an answer, the others' statements are on their way.
 * Without savepoints: one that fails after it has written, or leaves its account, sends all of them apart.
 */
async function runTogether(connection: Connection, works: readonly Work[]): Promise<Ran> {
  let left = false;
  const done = await Promise.all(
    works.map(async ({ run, account }) => {
      const one = attempt(connection);
      const tx = postgresTx(one.query);
      const leave = () => {
        left = true;
      };
      const outcome = await one.run(() => run(account === undefined ? tx : ofAccount(tx, account, leave)));
      return { one, outcome };
    }),
  );
  const failures = done.flatMap(({ one }) => one.failure() ?? []);
  // the first failure makes those of the others, which say nothing
  const failure = failures.find(({ kind }) => kind === "lost") ?? failures.find(({ kind }) => kind === "retry");
  if (failure) return { failure };
  const undone = done.some(({ one, outcome }) => !outcome.ok && one.wrote());
  if (left || undone || failures.length > 0) return {};
  return { outcomes: done.map(({ outcome }) => outcome), wrote: done.some(({ one }) => one.wrote()) };
}

/** Whether works may run in turns: each of an account of its own. */
export function mayRunTogether(works: readonly Work[]): boolean {
  const accounts = new Set(works.map(({ account }) => account));
  return works.length > 1 && !accounts.has(undefined) && accounts.size === works.length;
}

/**
 * Runs works in one transaction over one snapshot and commits it. What a work returned or threw counts only after the
 * commit: it may have come from rows that another transaction was about to change.
 */
export async function runBatch(
  connection: Connection,
  works: readonly Work[],
  mark: Mark,
  options: { readonly together: boolean; readonly committed?: CommitObserver | undefined },
): Promise<Verdict> {
  try {
    await connection.exec(BEGIN);
  } catch (error) {
    return abandon(connection, failureOf(error, WHAT));
  }
  const ran = await (options.together ? runTogether(connection, works) : runWorks(connection, works));
  if (ran.failure) return abandon(connection, ran.failure);
  const { outcomes, wrote } = ran;
  if (!outcomes) {
    try {
      await connection.exec("ROLLBACK");
      return { kind: "apart" };
    } catch (error) {
      return { kind: "again", fault: failureOf(error, WHAT).fault, lost: true };
    }
  }
  if (works.length === 1 && !outcomes[0]?.ok) {
    // what came out is valid whether or not this arrives
    await connection.exec("ROLLBACK").catch(() => connection.close());
    return { kind: "done", outcomes };
  }
  const startedAt = performance.now();
  const verdict = await commit(connection, outcomes, wrote ? mark : undefined);
  if (verdict.kind === "done" && wrote) options.committed?.(outcomes.length, performance.now() - startedAt);
  return verdict;
}

async function commit(connection: Connection, outcomes: readonly Outcome[], mark: Mark | undefined): Promise<Verdict> {
  const passing = inPassing(connection);
  if (mark) {
    passing.send(
      connection.query(MARK, [mark.lane, mark.batch]).then((rows) => {
        if (rows.count !== 1) throw new Fault("internal", "this connection's mark has vanished");
      }),
    );
    const failure = await passing.failure();
    // the commit was not sent
    if (failure?.kind === "refused") {
      connection.close();
      return { kind: "again", fault: failure.fault, lost: true };
    }
    if (failure) return abandon(connection, failure);
  }
  try {
    if ((await connection.exec("COMMIT")) === "COMMIT") return { kind: "done", outcomes };
    return { kind: "again", fault: new Fault("internal", `${WHAT}: it undid the transaction`), lost: false };
  } catch (error) {
    const { kind, fault } = failureOf(error, WHAT);
    if (kind === "retry") return { kind: "again", fault, lost: false };
    if (kind === "lost" && !mark) return { kind: "again", fault, lost: true };
    return { kind: "unknown", fault, outcomes };
  }
}
