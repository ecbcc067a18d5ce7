import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { clientLoginFinish, clientLoginStart, createServerSetup, opaqueReady } from "../../src/crypto/opaque.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import type { OpaqueJob } from "../../src/server/opaque.ts";
import {
  errorOf,
  finishRaw,
  outputOf,
  postInput,
  type RawOwner,
  registerRaw,
  startRaw,
  WRONG_KE3,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { parseKe2 } from "../support/opaque-oracle.ts";
import { hookedStore, recorder } from "../support/storeprobe.ts";

/** A rotation of the OPAQUE set-up: two answers to every login, for whatever name (docs/protocol.md §3.5). */

const hooked = hookedStore();
let server: TestServer;
let alice: RawOwner;

beforeEach(async () => {
  await opaqueReady();
  server = await startTestServer({ wrap: hooked.wrap, limits: { loginFreeFailuresPerAddress: 1_000 } });
  alice = await registerRaw(server, "alice");
});
afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
});

const use = (keys: Partial<typeof server.ctx.keys>) =>
  Object.assign(server.ctx, { keys: { ...server.ctx.keys, ...keys } });
/** The window opens: a new set-up, the one of now beside it. */
const rotate = () => {
  const { opaque } = server.ctx.keys;
  use({ opaque: { id: random(8).toHex(), setup: createServerSetup() }, previousOpaque: opaque });
};
const rowOf = () => server.store.transaction((tx) => tx.account(alice.userId));

/** A whole login that tries each answer, and sends what fitted (or nothing) under `setup`. */
async function logIn(account: string, password: string, setup?: number) {
  const { request, state } = clientLoginStart(password);
  const input = { account, request, deviceToken: null };
  const started = await postInput(server, "session.login.start", input);
  const { sessionId, responses } = outputOf("session.login.start", started);
  const tried = responses.map((response) => clientLoginFinish(password, account, state, response, KDF.test));
  const fitting = tried.findIndex(Boolean);
  const finish = tried[fitting]?.finish ?? WRONG_KE3;
  const requestId = newId<RequestId>(random);
  const ended = await postInput(server, "session.login", {
    ...{ requestId, sessionId, finish },
    setup: setup ?? Math.max(fitting, 0),
  });
  return { started, responses, fitting, ended };
}

describe("while the window is open", () => {
  test("a record opens under the set-up before, and a new one under the newest", async () => {
    rotate();
    const old = await logIn("alice", alice.password);
    expect([old.responses.length, old.fitting, old.ended.status]).toEqual([2, 1, 200]);
    expect((await rowOf())?.setupId).toBe("1");
    const carol = await registerRaw(server, "carol");
    const fresh = await logIn("carol", carol.password);
    expect([fresh.responses.length, fresh.fitting, fresh.ended.status]).toEqual([2, 0, 200]);
  });

  test("a proof under one set-up does not pass for one under the other", async () => {
    rotate();
    expect(errorOf((await logIn("alice", alice.password, 0)).ended).code).toBe("login_failed");
  });

  test("an unknown, a disabled and a known name get answers of one shape, by the same statements and jobs", async () => {
    rotate();
    const david = await registerRaw(server, "david");
    await server.store.transaction((tx) => tx.setDisabled(david.userId, true));
    const names = ["alice", "nobdy", "david"];
    for (const name of names) await logIn(name, "wrong horse");
    const seen: Record<"lines" | "jobs" | "body" | "answers" | "ended", unknown>[] = [];
    const { pool } = server.ctx;
    for (const name of names) {
      const record = recorder();
      const jobs: string[] = [];
      hooked.hook = record.hook;
      Object.assign(server.ctx, {
        pool: {
          close: () => pool.close(),
          run: (job: OpaqueJob) => {
            jobs.push(job.kind);
            return pool.run(job as never);
          },
        },
      });
      const { started, responses, ended } = await logIn(name, "wrong horse");
      hooked.hook = null;
      Object.assign(server.ctx, { pool });
      seen.push({
        lines: record.lines,
        jobs,
        body: String(started.body).length,
        answers: responses.map((one) => Object.entries(parseKe2(one)).map(([field, bytes]) => [field, bytes.length])),
        ended: [ended.status, String(ended.body)],
      });
    }
    expect(seen[0]?.jobs).toEqual(["login-start", "login-start", "login-finish"]);
    expect(seen[0]?.answers).toHaveLength(2);
    expect(seen[0]?.lines).toContainEqual(expect.stringMatching(/^putLoginState/));
    for (const other of seen.slice(1)) expect(other).toEqual(seen[0] as (typeof seen)[number]);
  });

  test("the OPRF answers of a name are its own under each set-up, known or not", async () => {
    rotate();
    const { request } = clientLoginStart("anything");
    const evaluations = async (account: string) => {
      const reply = await postInput(server, "session.login.start", { account, request, deviceToken: null });
      return outputOf("session.login.start", reply).responses.map((one) => parseKe2(one).evaluated.toHex());
    };
    for (const name of ["alice", "nobody"]) {
      const first = await evaluations(name);
      expect(new Set(first).size).toBe(2);
      expect(await evaluations(name)).toEqual(first);
    }
  });

  test("a record whose making the rotation overtook opens, and is noted under its own set-up again", async () => {
    rotate();
    const newest = server.ctx.keys.opaque.id;
    // evaluated before, committed after: the row names the newest set-up, the record is of the one before
    await server.store.transaction(async (tx) => {
      const row = await tx.account(alice.userId);
      if (row) await tx.replaceRecord(alice.userId, row.record, newest);
    });
    const done = await logIn("alice", alice.password);
    expect([done.fitting, done.ended.status]).toEqual([1, 200]);
    expect((await rowOf())?.setupId).toBe("1");
  });

  test("a half login that began before a rotation ends after it", async () => {
    const started = await startRaw(server, "alice", alice.password);
    rotate();
    expect((await finishRaw(server, started)).status).toBe(200);
    expect((await rowOf())?.setupId).toBe("1");
  });
});

test("once it is closed a record of the set-up before opens no more, and is refused like any wrong password", async () => {
  rotate();
  use({ previousOpaque: null });
  const gone = await logIn("alice", alice.password);
  const nobody = await logIn("nobdy", alice.password);
  expect([gone.responses.length, gone.fitting]).toEqual([1, -1]);
  expect(gone.ended).toEqual(nobody.ended);
  expect(errorOf(gone.ended).code).toBe("login_failed");
  expect(String(gone.started.body).length).toBe(String(nobody.started.body).length);
});
