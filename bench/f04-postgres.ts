import { type KeyId, newId, type RequestId, type UserId } from "../src/ids.ts";
import { openPostgres } from "../src/storage/postgres.ts";
import type { Store, Tx } from "../src/storage/store.ts";
import * as rows from "../tests/storage/rows.ts";
import { hasPostgres, startPostgres, type TestPostgres } from "../tests/support/postgres.ts";
import { inTurn, type Measured, median, percentile, report, spread } from "./harness.ts";
import { run } from "./processes.ts";

/**
 * F4: the statements of a `secret.store` on PostgreSQL, grouped by the store, against `pgbench -N` on the same server.
 * Neither TLS nor signatures: the figure is the database's part. One after another for each account, as devices do it.
 */

const ACCOUNTS = 256;
const STORES = 40;
const ROUNDS = 5;
const PGBENCH_SECONDS = 4;
const PGBENCH_CLIENTS = 32;
const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

const PGBENCH = [...new Bun.Glob("/usr/lib/postgresql/*/bin/pgbench").scanSync()].at(-1) ?? Bun.which("pgbench");

/** What the server's handlers do in the transaction of one `secret.store`, without their checks. */
async function storeOne(tx: Tx, userId: UserId, at: number, sealed: Uint8Array): Promise<void> {
  const session = await tx.session(rows.sessionId(at));
  const account = await tx.account(userId);
  if (!session || !account) throw new Error("an account is missing");
  await tx.touchSession(session.sessionId, { lastUsedMs: 5, high: session.high + 1, window: session.window });
  const requestId = newId<RequestId>(random);
  if (await tx.request(userId, requestId)) throw new Error("a request id came twice");
  const keyId = newId<KeyId>(random);
  await tx.leaf(userId, keyId);
  await tx.reservation(userId, keyId);
  const revision = account.state.state.revision + 1;
  const state = { ...account.state, state: { ...account.state.state, revision } };
  const stateHash = random(32);
  if (!(await tx.swapState(userId, account.stateHash, { state, stateHash }))) throw new Error("a state was overtaken");
  await tx.appendState(userId, state);
  await tx.appendLeaf(userId, revision, { ...rows.leaf(1), keyId }, sealed);
  await tx.putRequest({ ...rows.request(1), userId, requestId });
  const item = rows.entry(1, await tx.auditPosition(userId), { userId, action: "secret.store", keyId, requestId });
  await tx.appendAudit(item, rows.headAfter(item), null);
}

async function fill(store: Store): Promise<UserId[]> {
  const users = Array.from({ length: ACCOUNTS }, (_, at) => rows.userId(at));
  for (const [at, userId] of users.entries()) {
    await store.transaction(async (tx) => {
      await tx.insertAccount(rows.account(at));
      await tx.putSession(rows.session(at, { userId }));
    });
  }
  return users;
}

async function pgbench(postgres: TestPostgres, program: string): Promise<() => Promise<number>> {
  const url = await postgres.create();
  const { pathname } = new URL(url);
  const env = { PGPASSWORD: postgres.password };
  const at = ["-h", "127.0.0.1", "-p", `${postgres.port}`, "-U", "keyhold"];
  await run([program, ...at, "-i", "-q", "-s", `${PGBENCH_CLIENTS}`, pathname.slice(1)], { env });
  return async () => {
    const args = ["-N", "-c", `${PGBENCH_CLIENTS}`, "-j", "2", "-T", `${PGBENCH_SECONDS}`, "-M", "prepared"];
    const { stdout } = await run([program, ...at, ...args, pathname.slice(1)], { env });
    return Number(/^tps = ([\d.]+)/m.exec(stdout)?.[1]);
  };
}

if (!hasPostgres) {
  report("F4", "PostgreSQL", [], ["left out: PostgreSQL is not installed (Debian: postgresql)"]);
} else {
  const postgres = await startPostgres();
  try {
    const store = await openPostgres(await postgres.create());
    const users = await fill(store);
    const sealed = random(300);
    const ours = async () => {
      const latencies: number[] = [];
      const startedAt = performance.now();
      await Promise.all(
        users.map(async (userId, at) => {
          for (let n = 0; n < STORES; n++) {
            const askedAt = performance.now();
            await store.transaction((tx) => storeOne(tx, userId, at, sealed), userId);
            latencies.push(performance.now() - askedAt);
          }
        }),
      );
      return { rate: (1_000 * latencies.length) / (performance.now() - startedAt), latencies };
    };
    const peer = PGBENCH ? await pgbench(postgres, PGBENCH) : null;
    await ours();
    const done = await inTurn(ROUNDS, ours, peer);
    const rates = done.ours.map(({ rate }) => rate);
    const [value, tps] = [median(rates), median(done.peer)];
    const measured: Measured[] = [
      {
        what: "stores",
        unit: "/s",
        value,
        goal: { atLeast: 15_000 },
        ...(peer ? { peer: { name: "pgbench -N", value: tps } } : {}),
      },
      ...(peer ? [{ what: "ratio", unit: "×", value: value / tps, goal: { atLeast: 5 } } as const] : []),
      {
        what: "p99",
        unit: "ms",
        value: median(done.ours.map(({ latencies }) => percentile(latencies, 99))),
      },
    ];
    await store.close();
    report("F4", "PostgreSQL", measured, [
      `${ACCOUNTS} accounts at once, ${ROUNDS} × ${ACCOUNTS * STORES} stores; store and PostgreSQL share all cores`,
      `spread ±${spread(rates).toFixed(0)}%`,
      peer
        ? `pgbench -N with ${PGBENCH_CLIENTS} clients, prepared: ${tps.toFixed(0)} transactions/s`
        : "peer left out: pgbench is not installed (Debian: postgresql)",
    ]);
  } finally {
    await postgres.close();
  }
}
