import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openPostgres } from "../../../src/storage/postgres.ts";
import { type Operation, violations } from "../../support/linearizable.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../../support/postgres.ts";
import { account, userId } from "../rows.ts";

/** Histories of compare-and-swaps on accounts' states by several processes that are killed, over a database that is too. */

let postgres: TestPostgres;
beforeAll(async () => {
  if (hasPostgres) postgres = await startPostgres();
}, POSTGRES_MS);
afterAll(async () => {
  await postgres?.close();
});

const at = (calledAt: number, returnedAt: number | null) => ({
  calledAt: BigInt(calledAt),
  returnedAt: returnedAt === null ? null : BigInt(returnedAt),
});
const read = (value: string, ...time: [number, number | null]): Operation => ({ kind: "read", value, ...at(...time) });
const swap = (from: string, to: string, swapped: boolean | null, ...time: [number, number | null]): Operation => ({
  kind: "swap",
  from,
  to,
  swapped,
  ...at(...time),
});

describe("the checker of histories", () => {
  test("accepts what can have happened", () => {
    const history = [
      swap("a", "b", true, 1, 4),
      read("a", 2, 3),
      read("b", 2, 3),
      swap("a", "x", false, 2, 6),
      swap("b", "c", null, 5, null),
      read("b", 7, 8),
      read("c", 9, 10),
      swap("c", "d", null, 11, null),
    ];
    expect(violations("a", "c", history)).toEqual([]);
    expect(violations("a", "d", history)).toEqual([]);
    expect(violations("a", "a", [])).toEqual([]);
  });

  test("finds a lost write, two winners, a stale read, a value from nowhere, a read of the future, a false refusal", () => {
    const cases: [string, string, Operation[], RegExp][] = [
      ["a", "a", [swap("a", "b", true, 1, 2)], /acknowledged, and lost/],
      ["a", "b", [swap("a", "b", true, 1, 4), swap("a", "c", true, 1, 4)], /acknowledged, and lost/],
      ["a", "b", [swap("a", "b", true, 1, 2), read("a", 3, 4)], /older than/],
      ["a", "b", [swap("a", "b", null, 1, null), read("b", 2, 3), read("a", 4, 5)], /older than/],
      ["a", "b", [swap("a", "b", true, 1, 2), read("z", 3, 4)], /never there/],
      ["a", "b", [read("b", 1, 2), swap("a", "b", true, 3, 4)], /came later/],
      ["a", "a", [swap("a", "b", false, 1, 2)], /refused/],
      ["a", "z", [swap("a", "b", true, 1, 2)], /no chain/],
    ];
    for (const [first, last, history, why] of cases) expect(violations(first, last, history).join()).toMatch(why);
  });
});

/** What a contender wrote down: the calls, with their returns where there are any. */
function historyOf(lines: readonly string[]): (Operation & { readonly account: number })[] {
  type Line = {
    id?: string;
    account?: number;
    kind?: "read" | "swap";
    from?: string;
    to?: string;
    at?: string;
    result?: string | boolean;
    refused?: true;
    wrong?: string;
  };
  const parsed = lines.map((line) => JSON.parse(line) as Line);
  const ends = new Map(
    parsed.flatMap((line) => (line.id && line.kind === undefined ? [[line.id, line] as const] : [])),
  );
  return parsed.flatMap((call): (Operation & { readonly account: number })[] => {
    if (call.kind === undefined || call.account === undefined) return [];
    const end = ends.get(call.id ?? "");
    if (end?.wrong !== undefined) throw new Error(end.wrong);
    // nothing was done
    if (end?.refused) return [];
    const time = {
      calledAt: BigInt(call.at ?? 0),
      returnedAt: end ? BigInt(end.at ?? 0) : null,
      account: call.account,
    };
    if (call.kind === "read") return end ? [{ ...time, kind: "read" as const, value: String(end.result) }] : [];
    const swapped = end ? end.result === true : null;
    return [{ ...time, kind: "swap" as const, from: call.from ?? "", to: call.to ?? "", swapped }];
  });
}

const ACCOUNTS = 3;
const SECONDS = Number(process.env["KEYHOLD_SOAK_SECONDS"] ?? 4);

describe.skipIf(!hasPostgres)("processes on one PostgreSQL", () => {
  test(
    "states move one after another for all of them, whatever is killed",
    async () => {
      const url = await postgres.create();
      const store = await openPostgres(url);
      await store.transaction(async (tx) => {
        for (let n = 1; n <= ACCOUNTS; n += 1) await tx.insertAccount(account(n));
      });
      const written: Promise<string>[] = [];
      let started = 0;
      const spawn = () => {
        started += 1;
        const script = join(import.meta.dir, "contender.ts");
        const child = Bun.spawn([process.execPath, script, `${started}`, `${ACCOUNTS}`, "3"], {
          env: { ...process.env, CONTENDER_URL: url },
          stdin: "ignore",
          stdout: "pipe",
          stderr: "inherit",
        });
        written.push(child.stdout.text());
        return child;
      };
      const children = [spawn(), spawn(), spawn()];
      const admin = postgres.admin();
      const until = performance.now() + SECONDS * 1_000;
      for (let round = 0; performance.now() < until; round += 1) {
        await Bun.sleep(300 + Math.random() * 300);
        if (round % 2 === 0) {
          const index = Math.floor(Math.random() * children.length);
          children[index]?.kill("SIGKILL");
          await children[index]?.exited;
          children[index] = spawn();
        } else {
          await admin.unsafe(
            `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'keyhold' AND datname = $1 AND random() < 0.4`,
            [new URL(url).pathname.slice(1)],
          );
        }
      }
      for (const child of children) child.kill("SIGKILL");
      const texts = await Promise.all(written);
      // what a killed child wrote last may be half a line
      const history = historyOf(
        texts.flatMap((text) =>
          text
            .slice(0, text.lastIndexOf("\n") + 1)
            .split("\n")
            .filter(Boolean),
        ),
      );
      // a transaction of a killed child that is still open ends before this one goes on
      for (let n = 1; n <= ACCOUNTS; n += 1) {
        const last = await store.transaction(async (tx) => (await tx.account(userId(n)))?.stateHash.toHex());
        const own = history.filter((operation) => operation.account === n);
        expect(violations(account(n).stateHash.toHex(), last ?? "none", own)).toEqual([]);
      }
      const swapped = history.filter((operation) => operation.kind === "swap" && operation.swapped === true);
      const lost = history.filter((operation) => operation.returnedAt === null);
      expect(swapped.length).toBeGreaterThan(30);
      expect(lost.length).toBeGreaterThan(0);
      await store.close();
    },
    60_000 + SECONDS * 1_000,
  );
});
