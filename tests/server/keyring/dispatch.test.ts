import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import type { WorkspaceId } from "../../../src/ids.ts";
import type { RegistryService } from "../../../src/server/keyring/service.ts";
import { call, logInRaw, logOf, type RawSession, registerRaw } from "../../support/attacker.ts";
import { registerDevice, startTestServer, type TestServer } from "../../support/harness.ts";

/** How operations of the registry are admitted and recorded, whatever they do. */

const WORKSPACE = "56".repeat(32) as WorkspaceId;
const POLL = { waitMs: 0, max: 1, health: { version: "1", state: "ok", deadLetters: 0 } };

let server: TestServer;
let session: RawSession;
/** What a poll does. */
let poll: () => Promise<void>;
beforeEach(async () => {
  poll = async () => undefined;
  const service = {
    "party.tasks": async () => {
      await poll();
      return { tasks: [], more: false };
    },
    "workspace.get": () => Promise.reject(new Fault("not_found", "no such workspace")),
    "workspace.list": async () => ({ items: [], more: false }),
    "keyring.info": async () => Promise.reject(new Fault("unavailable", "later")),
  };
  server = await startTestServer({ registry: () => service as unknown as RegistryService });
  await registerRaw(server, "ada");
  session = await logInRaw(server, "ada", "correct horse");
});
afterEach(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
});

const noted = async (action: string) =>
  (await logOf(server, session.userId))
    .filter((entry) => entry.action === action)
    .map(({ status, keyId }) => [status, keyId as string | null]);

describe("a poll for tasks", () => {
  test("leaves no entry, and shows the position of the log as it is", async () => {
    await call(server, session, "workspace.list", { after: null });
    const before = await logOf(server, session.userId);
    for (let i = 0; i < 3; i += 1) {
      const answer = await call(server, session, "party.tasks", POLL);
      expect(answer.code).toBe("ok");
      const newest = await server.store.transaction((tx) => tx.auditPosition(session.userId));
      expect(answer.head).toMatchObject({ auditSeq: newest.seq, auditLink: newest.link });
    }
    expect(await logOf(server, session.userId)).toEqual(before);
  });

  test("that is refused leaves one", async () => {
    poll = () => Promise.reject(new Fault("denied", "no party"));
    expect((await call(server, session, "party.tasks", POLL)).code).toBe("denied");
    expect(await noted("party.tasks")).toEqual([["denied", null]]);
  });

  test("is as good as any answer to a client that follows its log", async () => {
    const device = await registerDevice(server.link(), "carol", "correct horse");
    try {
      const { session: own } = device.open;
      for (let i = 0; i < 3; i += 1) {
        await own?.call("party.tasks", POLL);
        await own?.call("workspace.list", { after: null });
        await own?.call("party.tasks", POLL);
      }
      const report = await device.client.auditVerify();
      expect(report).toMatchObject({ ok: true });
    } finally {
      await device.end();
    }
  });
});

test("everything else is noted, under the first half of what it names", async () => {
  await call(server, session, "workspace.list", { after: null });
  expect((await call(server, session, "workspace.get", { workspaceId: WORKSPACE })).code).toBe("not_found");
  expect(await noted("workspace.list")).toEqual([["ok", null]]);
  expect(await noted("workspace.get")).toEqual([["not_found", WORKSPACE.slice(0, 32)]]);
});

test("a server that is no registry says so, to everybody alike", async () => {
  const plain = await startTestServer();
  try {
    await registerRaw(plain, "bob");
    const his = await logInRaw(plain, "bob", "correct horse");
    const answer = await call(plain, his, "workspace.get", { workspaceId: WORKSPACE });
    expect([answer.code, answer.sealed]).toEqual(["unsupported", true]);
    const clear = await plain.dispatcher.handle("keyring.info", "application/json", new TextEncoder().encode("{}"), {
      address: "127.0.0.1",
    });
    expect(clear.outcome).toBe("unsupported");
    expect(plain.faults).toEqual([]);
  } finally {
    await plain.close();
  }
});
