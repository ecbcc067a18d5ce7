import { expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { createQueue, type Engine } from "../../../src/storage/sqlite/queue.ts";
import { rejection } from "../rejection.ts";

type Call = "begin" | "commit" | "rollback" | "savepoint" | "release" | "rollbackTo";

/** A database in words: notes become durable by a commit, and a call can be made to fail. */
function fakeEngine(fails: (call: Call, nth: number) => "before" | "after" | "gives up" | undefined = () => undefined) {
  const durable: string[] = [];
  const commits: number[] = [];
  const calls = new Map<Call, number>();
  let pending: string[] | undefined;
  let mark = 0;

  function call(name: Call, work: () => void): void {
    const nth = (calls.get(name) ?? 0) + 1;
    calls.set(name, nth);
    const how = fails(name, nth);
    if (how === "gives up") pending = undefined;
    if (how === "before" || how === "gives up") throw new Fault("storage", "disk full");
    work();
    if (how === "after") throw new Fault("storage", "I/O error");
  }

  const engine: Engine<{ write(note: string): void; giveUp(): void }> = {
    begin: () =>
      call("begin", () => {
        pending = [];
      }),
    commit: () =>
      call("commit", () => {
        commits.push(pending?.length ?? 0);
        durable.push(...(pending ?? []));
        pending = undefined;
      }),
    rollback: () =>
      call("rollback", () => {
        pending = undefined;
      }),
    savepoint: () =>
      call("savepoint", () => {
        mark = pending?.length ?? 0;
      }),
    release: () => call("release", () => undefined),
    rollbackTo: () => call("rollbackTo", () => pending?.splice(mark)),
    inTransaction: () => pending !== undefined,
    handle: () => ({
      context: {
        write: (note) => pending?.push(note),
        giveUp: () => {
          pending = undefined;
        },
      },
      end: () => undefined,
    }),
    fault: (error) => (error instanceof Fault ? error : new Fault("internal", "?")),
  };
  return { engine, durable, commits };
}

const settle = async (promises: readonly Promise<unknown>[]): Promise<string[]> =>
  (await Promise.allSettled(promises)).map((r) => (r.status === "fulfilled" ? "ok" : (r.reason as Fault).code));

test("many jobs share one commit, in order, at most a batch at a time", async () => {
  const { engine, durable, commits } = fakeEngine();
  const queue = createQueue(engine, { batch: 4, waiting: 100 });
  const names = Array.from({ length: 10 }, (_, i) => `job ${i}`);
  await Promise.all(names.map((name) => queue.push(async (db) => db.write(name))));
  expect(durable).toEqual(names);
  expect(commits).toEqual([4, 4, 2]);
});

test("a commit that fails before it persists rejects the whole batch; the next one goes through", async () => {
  const { engine, durable } = fakeEngine((call, nth) => (call === "commit" && nth === 1 ? "before" : undefined));
  const queue = createQueue(engine);
  const jobs = ["a", "b", "c"].map((name) => queue.push(async (db) => db.write(name)));
  expect(await settle(jobs)).toEqual(["storage", "storage", "storage"]);
  expect(durable).toEqual([]);
  await queue.push(async (db) => db.write("d"));
  expect(durable).toEqual(["d"]);
});

test("a commit that fails after it persisted is not acknowledged either", async () => {
  const { engine, durable } = fakeEngine((call, nth) => (call === "commit" && nth === 1 ? "after" : undefined));
  const queue = createQueue(engine);
  expect(await settle([queue.push(async (db) => db.write("a"))])).toEqual(["storage"]);
  expect(durable).toEqual(["a"]);
  expect(await settle([queue.push(async (db) => db.write("b"))])).toEqual(["ok"]);
});

test("a begin that fails rejects the batch and does not wedge the queue", async () => {
  const { engine, durable } = fakeEngine((call, nth) => (call === "begin" && nth === 1 ? "before" : undefined));
  const queue = createQueue(engine);
  expect(await settle([1, 2].map(() => queue.push(async (db) => db.write("a"))))).toEqual(["storage", "storage"]);
  expect(await settle([queue.push(async (db) => db.write("b"))])).toEqual(["ok"]);
  expect(durable).toEqual(["b"]);
});

test("when the database gives the transaction up, all jobs before in the batch fail, those after do not", async () => {
  const { engine, durable } = fakeEngine();
  const queue = createQueue(engine);
  const jobs = [
    queue.push(async (db) => db.write("a")),
    queue.push(async (db) => {
      db.write("b");
      db.giveUp();
    }),
    queue.push(async (db) => db.write("c")),
  ];
  expect(await settle(jobs)).toEqual(["storage", "storage", "ok"]);
  expect(durable).toEqual(["c"]);
});

test("a savepoint that cannot be taken, kept or undone fails all before it", async () => {
  for (const failing of ["savepoint", "release", "rollbackTo"] as const) {
    for (const how of ["before", "after", "gives up"] as const) {
      // Each call is made for the first time by the first job, by the second job, or by the job that throws.
      const nth = failing === "rollbackTo" ? 1 : 2;
      const { engine, durable } = fakeEngine((call, n) => (call === failing && n === nth ? how : undefined));
      const queue = createQueue(engine);
      const jobs = [
        queue.push(async (db) => db.write("a")),
        queue.push(async (db) => {
          db.write("b");
          if (failing === "rollbackTo") throw new Fault("denied", "no");
        }),
        queue.push(async (db) => db.write("c")),
      ];
      expect(await settle(jobs)).toEqual(["storage", "storage", "ok"]);
      expect(durable).toEqual(["c"]);
    }
  }
});

test("a full queue refuses with the time after which to try again, and accepts again later", async () => {
  const { engine, durable } = fakeEngine();
  const queue = createQueue(engine, { batch: 2, waiting: 3 });
  const jobs = ["a", "b", "c"].map((name) => queue.push(async (db) => db.write(name)));
  const refused = await rejection(queue.push(async (db) => db.write("d")));
  expect(refused).toMatchObject({ code: "unavailable", retryAfterMs: expect.any(Number) });
  await Promise.all(jobs);
  await queue.push(async (db) => db.write("e"));
  expect(durable).toEqual(["a", "b", "c", "e"]);
});

test("a job that never settles is ended and its neighbours are kept", async () => {
  const { engine, durable } = fakeEngine();
  const queue = createQueue(engine);
  const jobs = [
    queue.push(async (db) => db.write("a")),
    queue.push(async (db) => {
      db.write("b");
      await new Promise(() => undefined);
    }),
    queue.push(async (db) => {
      await Promise.resolve();
      db.write("c");
    }),
  ];
  expect(await settle(jobs)).toEqual(["ok", "internal", "ok"]);
  expect(durable).toEqual(["a", "c"]);
});

test("idle waits for what is queued", async () => {
  const { engine, durable } = fakeEngine();
  const queue = createQueue(engine, { batch: 1, waiting: 10 });
  await queue.idle();
  const jobs = ["a", "b", "c"].map((name) => queue.push(async (db) => db.write(name)));
  await queue.idle();
  expect(durable).toEqual(["a", "b", "c"]);
  await Promise.all(jobs);
});
