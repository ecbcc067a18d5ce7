import { afterEach, describe, expect, test } from "bun:test";
import { type AccountState, type Settings, settingsHash, signState } from "../../src/protocol/state.ts";
import { inviteHash } from "../../src/server/handlers/register.ts";
import { type InputOf, requestHash } from "../../src/wire/operations.ts";
import {
  errorOf,
  logOf,
  outputOf,
  post,
  postInput,
  prepareRaw,
  type RawOwner,
  registerRaw,
  utf8,
} from "../support/attacker.ts";
import { startTestServer, type TestServer } from "../support/harness.ts";
import { startRegistration } from "../support/opaque-oracle.ts";
import { fileStore, hookedStore } from "../support/storeprobe.ts";

type Registration = InputOf<"account.register">;

const servers: TestServer[] = [];
const files: ReturnType<typeof fileStore>[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) {
    expect(server.faults).toEqual([]);
    await server.close();
  }
  for (const file of files.splice(0)) file.end();
});

async function serve(options: Parameters<typeof startTestServer>[0] = {}): Promise<TestServer> {
  const server = await startTestServer(options);
  servers.push(server);
  return server;
}

/** A server whose database can be looked at from outside. */
async function serveFile(options: Parameters<typeof startTestServer>[0] = {}) {
  const file = fileStore();
  files.push(file);
  return { file, server: await serve({ ...options, path: file.path }) };
}

const start = (server: TestServer, account: string, invite: string | null = null, address?: string) => {
  const { request } = startRegistration(utf8("password"));
  return postInput(server, "account.register.start", { account, invite, request }, address);
};
const finish = (server: TestServer, input: Registration) => postInput(server, "account.register", input);

interface Twist {
  readonly body?: Partial<Registration>;
  readonly settings?: Partial<Settings>;
  readonly state?: Partial<AccountState>;
}

/** A registration changed and then soundly signed again. */
function resigned({ input, owner }: { input: Registration; owner: RawOwner }, twist: Twist): Registration {
  const settings = { ...input.settings, ...twist.settings };
  const body = { ...input, ...twist.body, settings };
  const state = {
    ...input.state.state,
    requestHash: requestHash("account.register", body),
    settingsHash: settingsHash(settings),
    ...twist.state,
  };
  return { ...body, state: signState(state, owner.identity, owner.device) };
}

describe("with invites", () => {
  async function invited(changes: { expiresAtMs?: number } = {}) {
    const made = await serveFile({ registration: "invite" });
    const code = "ABCD-EFGH-2345";
    const { now } = made.server.ctx;
    await made.server.store.transaction((tx) =>
      tx.putInvite({
        codeHash: inviteHash(code),
        createdAtMs: now(),
        expiresAtMs: now() + 1_000_000,
        usedAtMs: null,
        conflicts: 0,
        hint: "ABCD",
        ...changes,
      }),
    );
    return { ...made, code };
  }
  const row = (server: TestServer, code: string) => server.store.transaction((tx) => tx.invite(inviteHash(code)));

  test("no code, an unknown, a used and an expired one are refused alike, for known and unknown names", async () => {
    const { server, code } = await invited();
    await registerRaw(server, "alice", "correct horse", code);
    const expired = "ZZZZ-ZZZZ";
    await server.store.transaction((tx) =>
      tx.putInvite({
        codeHash: inviteHash(expired),
        createdAtMs: 0,
        expiresAtMs: server.ctx.now(),
        usedAtMs: null,
        conflicts: 0,
        hint: "ZZZZ",
      }),
    );
    const bodies = new Set<string>();
    for (const name of ["alice", "nobody"]) {
      for (const given of [null, "WRNG-CODE", code, expired]) {
        const reply = await start(server, name, given);
        expect(reply.status).toBe(403);
        bodies.add(String(reply.body));
      }
    }
    expect(bodies.size).toBe(1);
    expect((await logOf(server, (await startRow(server, "alice")).userId)).map(({ status }) => status)).toEqual(["ok"]);
  });

  const startRow = async (server: TestServer, name: string) => {
    const { credentialIdOf } = await import("../../src/server/accounts.ts");
    const found = await server.store.transaction((tx) => tx.accountByCredential(credentialIdOf(server.ctx, name)));
    if (!found) throw new Error("no such account");
    return found;
  };

  test("a code works once, even for two at the same instant", async () => {
    const { server, code } = await invited();
    const one = await prepareRaw(server, "alice", "p", code);
    const two = await prepareRaw(server, "bobby", "p", code);
    const replies = await Promise.all([finish(server, one.input), finish(server, two.input)]);
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 403]);
    expect((await row(server, code))?.usedAtMs).not.toBeNull();
    expect(await server.store.transaction((tx) => tx.accounts(null, 10))).toHaveLength(1);
  });

  test("account and used code appear together, or neither", async () => {
    const hooked = hookedStore();
    const { server, file } = await serveFile({ registration: "invite", wrap: hooked.wrap });
    const code = "ABCD";
    await server.store.transaction((tx) =>
      tx.putInvite({
        codeHash: inviteHash(code),
        createdAtMs: 0,
        expiresAtMs: server.ctx.now() + 1_000_000,
        usedAtMs: null,
        conflicts: 0,
        hint: "",
      }),
    );
    const { input } = await prepareRaw(server, "alice", "p", code);
    const before = file.dump();
    for (const method of ["insertAccount", "updateInvite", "appendState", "putRequest", "appendAudit"]) {
      for (const when of ["before", "after"]) {
        hooked.hook = async (name, args, run) => {
          if (name !== method) return run(...args);
          if (when === "after") await run(...args);
          throw new Error("power cut");
        };
        expect((await finish(server, input)).status).toBe(500);
        hooked.hook = null;
        expect(file.dump()).toBe(before);
      }
    }
    expect(server.faults.splice(0)).toHaveLength(10);
    outputOf("account.register", await finish(server, input));
    expect((await row(server, code))?.usedAtMs).not.toBeNull();
  });

  test("five taken names void a code", async () => {
    const { server, code } = await invited();
    await server.store.transaction((tx) =>
      tx.putInvite({
        codeHash: inviteHash("FRST"),
        createdAtMs: 0,
        expiresAtMs: server.ctx.now() + 1_000_000,
        usedAtMs: null,
        conflicts: 0,
        hint: "",
      }),
    );
    await registerRaw(server, "alice", "correct horse", "FRST");
    for (let i = 0; i < 5; i++) expect(errorOf(await start(server, "alice", code)).code).toBe("exists");
    const refused = await start(server, "alice", code);
    expect(refused.status).toBe(403);
    expect(String(refused.body)).toBe(String((await start(server, "nobody", null)).body));
    expect((await start(server, "somebody", code)).status).toBe(403);
  });

  test("the last request tells no name from another without its own reservation, so a code cannot probe names", async () => {
    const { server, code } = await invited();
    await server.store.transaction((tx) =>
      tx.putInvite({
        codeHash: inviteHash("FRST"),
        createdAtMs: 0,
        expiresAtMs: server.ctx.now() + 1_000_000,
        usedAtMs: null,
        conflicts: 0,
        hint: "",
      }),
    );
    await registerRaw(server, "alice", "correct horse", "FRST");
    const made = await prepareRaw(server, "mallory", "p", code);
    const probe = (account: string) => finish(server, resigned(made, { body: { account } }));
    const known = await probe("alice");
    const unknown = await probe("nobody");
    expect(String(known.body)).toBe(String(unknown.body));
    expect(known.status).toBe(unknown.status);
  });

  test("codes cannot be guessed: each wrong one spends the address", async () => {
    const server = await serve({ registration: "invite", limits: { loginFreeFailuresPerAddress: 4 } });
    const statuses: number[] = [];
    for (let i = 0; i < 8; i++) statuses.push((await start(server, `name${i}`, `WRNG-${i}`)).status);
    expect(statuses).toEqual([403, 403, 403, 403, 403, 429, 429, 429]);
    expect((await start(server, "name", "WRNG", "192.0.2.99")).status).toBe(403);
  });

  test("a code is checked at the last request too", async () => {
    const { server, code } = await invited();
    const made = await prepareRaw(server, "alice", "p", code);
    for (const invite of [null, "WRNG"]) {
      expect((await finish(server, resigned(made, { body: { invite } }))).status).toBe(403);
    }
    server.advance(1_000_001);
    expect((await finish(server, made.input)).status).toBe(403);
  });

  test("hyphens in a code do not matter, other characters do", async () => {
    const { server, code } = await invited();
    expect((await start(server, "alice", code.replaceAll("-", ""))).status).toBe(200);
    const lower = { account: "alice", invite: code.toLowerCase(), request: "A".repeat(43) };
    expect((await post(server, "account.register.start", lower)).status).toBe(400);
  });
});

test("a closed server takes nobody, with or without a code, and says the same for every name", async () => {
  const server = await serve({ registration: "closed" });
  const bodies = new Set<string>();
  for (const name of ["alice", "bob"]) {
    for (const code of [null, "ABCD"]) {
      const reply = await start(server, name, code);
      expect(reply.status).toBe(403);
      bodies.add(String(reply.body));
    }
  }
  expect(bodies.size).toBe(1);
});
