import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { newId, type RequestId } from "../../src/ids.ts";
import { createDispatcher } from "../../src/server/dispatch.ts";
import {
  call,
  commitOf,
  errorOf,
  exchange,
  frameOf,
  leafOf,
  logInRaw,
  postFrame,
  type RawOwner,
  type RawSession,
  registerRaw,
  reserveRaw,
  utf8,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore, hookedStore } from "../support/storeprobe.ts";

const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;
let session: RawSession;

beforeEach(async () => {
  file = fileStore();
  server = await startTestServer({ promptLog: false, path: file.path, wrap: hooked.wrap });
  alice = await registerRaw(server, "alice");
  session = await logInRaw(server, "alice", alice.password);
});

afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

const EMPTY = utf8("{}");
const otherDispatcher = () => ({ dispatcher: createDispatcher(server.ctx, (fault) => server.faults.push(fault)) });
const check = (at: RawSession = session, over: Pick<TestServer, "dispatcher"> = server) =>
  call(over, at, "session.check", {});

/** Sends bytes as a frame: they must be refused in clear, and nothing may change. */
async function refused(operation: string, bytes: Uint8Array): Promise<string> {
  const before = file.dump();
  const reply = await postFrame(server, operation, bytes);
  expect(typeof reply.body).toBe("string");
  expect(reply.status).toBeGreaterThanOrEqual(400);
  expect(reply.status).toBeLessThan(500);
  expect(file.dump()).toBe(before);
  return errorOf(reply).code;
}

describe("a frame", () => {
  test("is good once: a replay changes nothing", async () => {
    const frame = frameOf(session, "session.check", EMPTY);
    expect((await exchange(server, session, frame)).code).toBe("ok");
    expect(await refused("session.check", frame.bytes)).toBe("replayed");
    await check();
    expect(await refused("session.check", frame.bytes)).toBe("replayed");
  });

  test("is good once over two processes on one store", async () => {
    const other = otherDispatcher();
    const frame = frameOf(session, "session.check", EMPTY);
    const answers = await Promise.all([
      postFrame(server, frame.operation, frame.bytes),
      postFrame(other, frame.operation, frame.bytes),
    ]);
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409]);
    const again = frameOf(session, "session.check", utf8("{} "), { sequence: frame.head.sequence });
    expect((await exchange(other, session, again)).code).toBe("replayed");
  });

  test("may overtake another inside the window, each once; below the window it is refused", async () => {
    const early = frameOf(session, "session.check", EMPTY, { sequence: 5 });
    const late = frameOf(session, "session.check", EMPTY, { sequence: 900 });
    expect((await exchange(server, session, late)).code).toBe("ok");
    expect((await exchange(server, session, early)).code).toBe("ok");
    expect(await refused("session.check", early.bytes)).toBe("replayed");
    expect((await check({ ...session, sequence: 5_000 })).code).toBe("ok");
    const below = frameOf(session, "session.check", EMPTY, { sequence: 901 });
    expect(await refused("session.check", below.bytes)).toBe("replayed");
  });

  test("a mutation cannot be replayed, nor done again under a new sequence", async () => {
    const sealed = random(100);
    const keyId = await reserveRaw(server, session);
    const requestId = newId<RequestId>(random);
    const { input } = commitOf(alice, "secret.store", [{ leaf: leafOf(keyId, sealed, null), sealed }], requestId);
    const body = utf8(
      JSON.stringify((await import("../../src/wire/operations.ts")).operations["secret.store"].input.encode(input)),
    );
    const frame = frameOf(session, "secret.store", body, { requestId });
    const first = await exchange(server, session, frame);
    expect(first.code).toBe("ok");
    expect(await refused("secret.store", frame.bytes)).toBe("replayed");
    const states = file.sql("SELECT * FROM account_state").length;
    const second = await exchange(server, session, frameOf(session, "secret.store", body, { requestId }));
    expect(second.text).toBe(first.text);
    expect(file.sql("SELECT * FROM account_state")).toHaveLength(states);
  });

  test("is bound to its operation", async () => {
    const frame = frameOf(session, "session.check", EMPTY);
    for (const operation of ["session.list", "session.close", "account.password.start", "state.sync"]) {
      expect(await refused(operation, frame.bytes)).toBe("bad_input");
    }
    expect((await exchange(server, session, frame)).code).toBe("ok");
  });

  test("is bound to its session, of the same account or another's", async () => {
    const bob = await registerRaw(server, "bob");
    const others = [await logInRaw(server, "alice", alice.password), await logInRaw(server, "bob", bob.password)];
    for (const other of others) {
      const frame = frameOf(session, "session.check", EMPTY);
      const moved = frame.bytes.slice();
      moved.set(Uint8Array.fromHex(other.sessionId));
      expect(await refused("session.check", moved)).toBe("bad_input");
    }
  });

  test("is bound to its sequence and request id", async () => {
    const frame = frameOf(session, "session.check", EMPTY);
    for (const at of [18, 20, 23, 24, 39]) {
      const moved = frame.bytes.slice();
      moved[at] = (moved[at] ?? 0) ^ 4;
      expect(await refused("session.check", moved)).toBe("bad_input");
    }
    expect((await exchange(server, session, frame)).code).toBe("ok");
  });

  test("reflected is refused: a reply is no request", async () => {
    const frame = frameOf(session, "session.check", EMPTY);
    const reply = await postFrame(server, "session.check", frame.bytes);
    if (typeof reply.body === "string") throw new Error(reply.body);
    const head = frameOf(session, "session.check", EMPTY).bytes.subarray(0, 40);
    expect(await refused("session.check", Buffer.concat([head, reply.body]))).toBe("bad_input");
    expect(["bad_input", "session_invalid"]).toContain(await refused("session.check", reply.body));
  });

  test("sealed with the reply's key is refused", async () => {
    const swapped = { ...session, keys: { request: session.keys.reply, reply: session.keys.request } };
    expect(await refused("session.check", frameOf(swapped, "session.check", EMPTY, { sequence: 77 }).bytes)).toBe(
      "bad_input",
    );
  });

  test("with any one bit flipped is refused", async () => {
    const frame = frameOf(session, "session.check", EMPTY);
    const before = file.dump();
    const codes = new Set<string>();
    for (let bit = 0; bit < frame.bytes.length * 8; bit++) {
      const flipped = frame.bytes.slice();
      flipped[bit >>> 3] = (flipped[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
      const reply = await postFrame(server, "session.check", flipped);
      expect(reply.status).toBeGreaterThanOrEqual(400);
      expect(reply.status).toBeLessThan(500);
      codes.add(errorOf(reply).code);
    }
    expect([...codes].sort()).toEqual(["bad_input", "session_invalid"]);
    expect(file.dump()).toBe(before);
    expect((await exchange(server, session, frame)).code).toBe("ok");
  });

  test("truncated anywhere, or with more at its end, is refused", async () => {
    const frame = frameOf(session, "session.check", EMPTY);
    const before = file.dump();
    for (let length = 0; length < frame.bytes.length; length++) {
      expect((await postFrame(server, "session.check", frame.bytes.subarray(0, length))).status).toBe(400);
    }
    expect((await postFrame(server, "session.check", Buffer.concat([frame.bytes, Uint8Array.of(0)]))).status).toBe(400);
    expect(file.dump()).toBe(before);
    expect((await exchange(server, session, frame)).code).toBe("ok");
  });

  test("with sequence zero or beyond 2^53 is refused", async () => {
    for (const sequence of [0n, 2n ** 53n, 2n ** 64n - 1n]) {
      const bytes = frameOf(session, "session.check", EMPTY).bytes.slice();
      new DataView(bytes.buffer).setBigUint64(16, sequence);
      expect(await refused("session.check", bytes)).toBe("bad_input");
    }
    expect(
      (await exchange(server, session, frameOf(session, "session.check", EMPTY, { sequence: Number.MAX_SAFE_INTEGER })))
        .code,
    ).toBe("ok");
  });

  test("of random bytes is refused, for every operation of a session", async () => {
    const { operations } = await import("../../src/wire/operations.ts");
    const names = Object.entries(operations).flatMap(([name, { auth }]) => (auth === "session" ? [name] : []));
    const before = file.dump();
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.uint8Array({ maxLength: 300 }),
        fc.boolean(),
        async (name, bytes, ours) => {
          const start = Uint8Array.fromHex(session.sessionId);
          const frame = ours ? Buffer.concat([start, bytes]) : bytes;
          const reply = await postFrame(server, name, frame);
          expect([400, 401]).toContain(reply.status);
          errorOf(reply);
        },
      ),
      { numRuns: 300 },
    );
    expect(file.dump()).toBe(before);
  });

  test("under the wrong content type, or to an operation without a session, is refused", async () => {
    const { bytes } = frameOf(session, "session.check", EMPTY);
    const remote = { address: "192.0.2.1" };
    expect((await server.dispatcher.handle("session.check", "application/json", bytes, remote)).status).toBe(415);
    expect((await server.dispatcher.handle("session.login", "application/octet-stream", bytes, remote)).status).toBe(
      415,
    );
    expect((await server.dispatcher.handle("server.statement", "application/json", bytes, remote)).status).toBe(400);
    for (const name of ["nothing", "__proto__", "constructor", "toString", ""]) {
      expect((await server.dispatcher.handle(name, "application/octet-stream", bytes, remote)).status).toBe(404);
    }
  });

  test("seals twice into different bytes", () => {
    const one = frameOf(session, "session.check", EMPTY, {
      sequence: 9,
      requestId: newId<RequestId>(() => new Uint8Array(16)),
    });
    const two = frameOf(session, "session.check", EMPTY, {
      sequence: 9,
      requestId: newId<RequestId>(() => new Uint8Array(16)),
    });
    expect(one.bytes).not.toEqual(two.bytes);
    expect(one.bytes.subarray(0, 40)).toEqual(two.bytes.subarray(0, 40));
  });
});
