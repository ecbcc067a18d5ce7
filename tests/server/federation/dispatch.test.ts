import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import type { FederatedKeyId, FederatedRequestId, FederationId } from "../../../src/ids.ts";
import type { FederatedCaller } from "../../../src/server/context.ts";
import type { FederationService } from "../../../src/server/federation/service.ts";
import { encodeJson } from "../../../src/wire/codec.ts";
import { operations } from "../../../src/wire/operations.ts";
import {
  call,
  errorOf,
  exchange,
  frameOf,
  logInRaw,
  logOf,
  postInput,
  type RawSession,
  registerRaw,
  utf8,
} from "../../support/attacker.ts";
import { startTestServer, type TestServer } from "../../support/harness.ts";

/** How operations that run outside a transaction are admitted and recorded, whatever they do. */

const REQUEST = "12".repeat(32) as FederatedRequestId;
const KEY = "34".repeat(32) as FederatedKeyId;
const FEDERATION = "56".repeat(32) as FederationId;

let server: TestServer;
let session: RawSession;
/** What the one operation does. */
let work: (caller: FederatedCaller) => Promise<void>;
let runs: number;

beforeEach(async () => {
  runs = 0;
  work = async () => undefined;
  server = await startTestServer({
    federation: () =>
      ({
        "federation.requests": async (caller: FederatedCaller) => {
          runs += 1;
          await work(caller);
          return { items: [], more: false };
        },
      }) as unknown as FederationService,
  });
  await registerRaw(server, "ada");
  session = await logInRaw(server, "ada", "correct horse");
});
afterEach(async () => {
  await server.close();
});

const INPUT = { federationId: FEDERATION, role: "requester", after: null } as const;
const ask = () => call(server, session, "federation.requests", INPUT);
const noted = async (requestId?: string) =>
  (await logOf(server, session.userId))
    .filter((entry) => entry.action === "federation.requests" && (requestId ?? entry.requestId) === entry.requestId)
    .map(({ status, keyId }) => [status, keyId as string | null]);

describe("work outside a transaction", () => {
  test("may take its time, while others go on", async () => {
    let end: () => void = () => undefined;
    work = () => new Promise((resolve) => (end = resolve));
    const slow = ask();
    while (runs === 0) await Bun.sleep(1);
    const other = await logInRaw(server, "ada", "correct horse");
    expect((await call(server, other, "session.check", {})).code).toBe("ok");
    expect(await noted()).toEqual([]);
    end();
    const answer = await slow;
    expect(answer.code).toBe("ok");
    expect(await noted(answer.requestId)).toEqual([["ok", FEDERATION.slice(0, 32)]]);
    expect(answer.head?.auditSeq).toBe((await logOf(server, session.userId)).at(-1)?.seq ?? 0);
    expect(server.faults).toEqual([]);
  });

  test("is noted under what it says that it was about, its last word", async () => {
    work = async (caller) => {
      caller.concerns(REQUEST);
      caller.concerns(KEY);
    };
    expect(await noted((await ask()).requestId)).toEqual([["ok", KEY.slice(0, 32)]]);
    work = async (caller) => {
      caller.concerns(REQUEST);
      throw new Fault("denied", "no");
    };
    const refused = await ask();
    expect([refused.code, refused.sealed]).toEqual(["denied", true]);
    expect(await noted(refused.requestId)).toEqual([["denied", REQUEST.slice(0, 32)]]);
  });

  test("that fails unforeseen tells its caller nothing, and the server its fault", async () => {
    work = async () => {
      throw new Error("a share: 1234");
    };
    const answer = await ask();
    expect([answer.code, answer.sealed]).toEqual(["internal", true]);
    expect(answer.text).not.toContain("1234");
    expect(await noted(answer.requestId)).toEqual([["internal", FEDERATION.slice(0, 32)]]);
    expect(server.faults.map(String)).toEqual(["Error: a share: 1234"]);
  });

  test("that cannot be done now is not noted, and its frame is used up all the same", async () => {
    work = async () => {
      throw new Fault("unavailable", "the enclave restarts");
    };
    const body = utf8(encodeJson(operations["federation.requests"].input, INPUT));
    const frame = frameOf(session, "federation.requests", body);
    const first = await exchange(server, session, frame);
    expect([first.code, first.sealed]).toEqual(["unavailable", false]);
    expect((await exchange(server, session, frame)).code).toBe("replayed");
    expect(runs).toBe(1);
    expect(await noted()).toEqual([]);
  });

  test("runs once for one frame, however often it comes", async () => {
    const body = utf8(encodeJson(operations["federation.requests"].input, INPUT));
    const frame = frameOf(session, "federation.requests", body);
    const codes = (await Promise.all([1, 2, 3, 4].map(() => exchange(server, session, frame)))).map(({ code }) => code);
    expect(codes.toSorted()).toEqual(["ok", "replayed", "replayed", "replayed"]);
    expect(runs).toBe(1);
    expect(await noted()).toHaveLength(1);
  });

  test("is not begun for a session that is over or an account that is disabled", async () => {
    await server.store.transaction((tx) => tx.setDisabled(session.userId, true));
    expect((await ask()).code).toBe("session_invalid");
    await server.store.transaction((tx) => tx.setDisabled(session.userId, false));
    await server.store.transaction((tx) => tx.closeSession(session.sessionId));
    expect((await ask()).code).toBe("session_invalid");
    expect(runs).toBe(0);
  });

  test("of an account that ends meanwhile leaves nothing in its log", async () => {
    work = async () => {
      await server.store.transaction((tx) => tx.removeAccount(session.userId));
    };
    expect((await ask()).code).toBe("session_invalid");
    expect(await noted()).toEqual([]);
    const head = await server.store.transaction((tx) => tx.auditHead(session.userId));
    const links = await server.store.transaction((tx) => tx.auditLinks(session.userId, 0, 100));
    expect(links.length).toBe(head.seq);
  });

  test("is not begun for a body that is none", async () => {
    const answer = await exchange(server, session, frameOf(session, "federation.requests", utf8("{}")));
    expect([answer.code, answer.sealed, runs]).toEqual(["bad_input", true, 0]);
    expect(await noted(answer.requestId)).toEqual([["bad_input", null]]);
  });
});

test("a server without the role refuses all of it", async () => {
  const bare = await startTestServer();
  try {
    await registerRaw(bare, "eve");
    const eve = await logInRaw(bare, "eve", "correct horse");
    const answer = await call(bare, eve, "federation.requests", INPUT);
    expect([answer.code, answer.sealed]).toEqual(["unsupported", true]);
    expect(errorOf(await postInput(bare, "federation.info", {})).code).toBe("unsupported");
    expect(bare.faults).toEqual([]);
  } finally {
    await bare.close();
  }
});
