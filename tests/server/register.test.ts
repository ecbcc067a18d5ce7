import { afterEach, describe, expect, test } from "bun:test";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { type DeviceId, type IncarnationId, newId, type RequestId, type UserId } from "../../src/ids.ts";
import { type AccountState, type Settings, settingsHash, signState } from "../../src/protocol/state.ts";
import { sweepLogins } from "../../src/server/handlers/login.ts";
import { type InputOf, requestHash } from "../../src/wire/operations.ts";
import {
  errorOf,
  finishRaw,
  logInRaw,
  logOf,
  outputOf,
  postInput,
  prepareRaw,
  type RawOwner,
  registerRaw,
  startRaw,
  utf8,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { startRegistration } from "../support/opaque-oracle.ts";
import { fileStore } from "../support/storeprobe.ts";

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

/** What may change without anything having happened: limits and reservations. */
const COUNTS = ["rate_limit", "login_state"];

const start = (server: TestServer, account: string, invite: string | null = null, address?: string) => {
  const { request } = startRegistration(utf8("password"));
  return postInput(server, "account.register.start", { account, invite, request }, address);
};
const finish = (server: TestServer, input: Registration) => postInput(server, "account.register", input);

describe("registration", () => {
  test("is audited once, under its request id", async () => {
    const server = await serve();
    const { input, owner } = await prepareRaw(server, "alice");
    outputOf("account.register", await finish(server, input));
    const entries = await logOf(server, owner.userId);
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({ action: "account.register", status: "ok", requestId: input.requestId, seq: 1 });
    expect(entries[0]?.stateHash).not.toBeNull();
  });

  test("of one name by two at the same instant: one wins, and only its password logs in", async () => {
    const server = await serve();
    const one = await prepareRaw(server, "alice", "password of one");
    const two = await prepareRaw(server, "alice", "password of two");
    const replies = await Promise.all([finish(server, one.input), finish(server, two.input)]);
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 409]);
    const won = replies[0]?.status === 200 ? one : two;
    const lost = won === one ? two : one;
    expect((await startRaw(server, "alice", won.owner.password)).fitting).toBeDefined();
    expect((await startRaw(server, "alice", lost.owner.password)).fitting).toBeUndefined();
    expect(await server.store.transaction((tx) => tx.account(lost.owner.userId))).toBeUndefined();
    expect(await logOf(server, lost.owner.userId)).toEqual([]);
  });

  test("of one reservation twice at the same instant gives one account and the same answer", async () => {
    const server = await serve();
    const { input, owner } = await prepareRaw(server, "alice");
    const replies = await Promise.all([finish(server, input), finish(server, input)]);
    expect(replies.map(({ status }) => status)).toEqual([200, 200]);
    expect(String(replies[1]?.body)).toBe(String(replies[0]?.body));
    expect(await logOf(server, owner.userId)).toHaveLength(1);
  });

  test("whose reply was lost answers the same again, also after a login", async () => {
    const { server, file } = await serveFile();
    const { input } = await prepareRaw(server, "alice");
    const first = await finish(server, input);
    const stored = file.dump(...COUNTS);
    expect(await finish(server, input)).toEqual(first);
    expect(file.dump(...COUNTS)).toBe(stored);
    await logInRaw(server, "alice", "correct horse");
    expect(await finish(server, input)).toEqual(first);
  });

  test("repeated with another state under the same request answers what was recorded", async () => {
    const server = await serve();
    const { input, owner } = await prepareRaw(server, "alice");
    const first = await finish(server, input);
    const state = signState({ ...input.state.state, userId: newId<UserId>(random) }, owner.identity, owner.device);
    const again = await finish(server, { ...input, state });
    expect(again).toEqual(first);
  });

  test("killed before its last request: the name is free, and a new run completes", async () => {
    const server = await serve();
    await prepareRaw(server, "alice", "the first try");
    const owner = await registerRaw(server, "alice", "the second try");
    await logInRaw(server, "alice", owner.password);
  });

  test("of a taken name exits with exists, changes nothing, and is in the owner's log", async () => {
    const { server, file } = await serveFile();
    const owner = await registerRaw(server, "alice");
    const late = await prepareRaw(server, "bob");
    const before = file.dump(...COUNTS, "audit_entry", "audit_head");
    expect(errorOf(await start(server, "alice")).code).toBe("exists");
    expect(file.dump(...COUNTS, "audit_entry", "audit_head")).toBe(before);
    const last = (await logOf(server, owner.userId)).at(-1);
    expect(last).toMatchObject({ action: "account.register", status: "exists" });
    outputOf("account.register", await finish(server, late.input));
    await logInRaw(server, "alice", owner.password);
  });

  test("with an expired reservation is refused, changes nothing, and the name stays free", async () => {
    const { server, file } = await serveFile();
    const { input } = await prepareRaw(server, "alice");
    server.advance(61_000);
    const before = file.dump(...COUNTS);
    expect(errorOf(await finish(server, input)).code).toBe("timed_out");
    expect(file.dump(...COUNTS)).toBe(before);
    await sweepLogins(server.ctx);
    expect(errorOf(await finish(server, input)).code).toBe("timed_out");
    await registerRaw(server, "alice");
  });

  test("a reservation is no half login, and a half login no reservation", async () => {
    const server = await serve();
    const { input } = await prepareRaw(server, "alice");
    const sessionId = input.state.state.userId as string as never;
    expect((await finishRaw(server, { sessionId, fitting: undefined })).status).toBe(401);
    outputOf("account.register", await finish(server, input));
    const started = await startRaw(server, "alice", "correct horse");
    const other = await prepareRaw(server, "bob");
    const userId = started.sessionId as string as UserId;
    const reply = await finish(server, resigned(other, { state: { userId } }));
    expect(errorOf(reply).code).toBe("timed_out");
    expect((await finishRaw(server, started)).status).toBe(200);
  });
});

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

describe("a registration that does not fit itself is refused, and nothing changed", () => {
  type Make = (made: { input: Registration; owner: RawOwner }) => Registration;
  const flip = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === 3 ? byte ^ 1 : byte));
  const stranger = signerFromSeed(new Uint8Array(32).fill(9));
  const CASES: [string, Make][] = [
    ["the record swapped after signing", ({ input }) => ({ ...input, record: flip(input.record) })],
    ["the account name swapped after signing", ({ input }) => ({ ...input, account: "mallory" })],
    [
      "the wrapped key swapped after signing",
      ({ input }) => ({ ...input, settings: { ...input.settings, wrappedAccountKey: random(73) } }),
    ],
    [
      "the identity's signature altered",
      ({ input }) => ({ ...input, state: { ...input.state, identitySignature: flip(input.state.identitySignature) } }),
    ],
    [
      "the device's signature altered",
      ({ input }) => ({ ...input, state: { ...input.state, deviceSignature: flip(input.state.deviceSignature) } }),
    ],
    [
      "signed by another identity",
      ({ input, owner }) => ({ ...input, state: signState(input.state.state, stranger, owner.device) }),
    ],
    [
      "signed by another device",
      ({ input, owner }) => ({ ...input, state: signState(input.state.state, owner.identity, stranger) }),
    ],
    [
      "the identity swapped",
      ({ input }) => ({ ...input, settings: { ...input.settings, identity: stranger.publicKey } }),
    ],
    ["revision 2", (made) => resigned(made, { state: { revision: 2 } })],
    ["a previous state", (made) => resigned(made, { state: { previous: random(32) } })],
    ["a root of secrets that are not there", (made) => resigned(made, { state: { root: random(32) } })],
    ["another incarnation", (made) => resigned(made, { state: { incarnation: newId<IncarnationId>(random) } })],
    ["another request id", (made) => resigned(made, { state: { requestId: newId<RequestId>(random) } })],
    ["another request hash", (made) => resigned(made, { state: { requestHash: random(32) } })],
    ["another settings hash", (made) => resigned(made, { state: { settingsHash: random(32) } })],
    ["a device that is not listed", (made) => resigned(made, { state: { deviceId: newId<DeviceId>(random) } })],
    ["an audit position", (made) => resigned(made, { state: { auditSeq: 1 } })],
    ["an account id that was not reserved", (made) => resigned(made, { state: { userId: newId<UserId>(random) } })],
    [
      "a second device",
      (made) => {
        const [first] = made.input.settings.devices;
        if (!first) throw new Error("no device");
        return resigned(made, { settings: { devices: [first, { ...first, id: newId<DeviceId>(random) }] } });
      },
    ],
  ];
  test.each(CASES)("%s", async (_what, make) => {
    const { server, file } = await serveFile();
    const made = await prepareRaw(server, "alice");
    const before = file.dump();
    const reply = await finish(server, make(made));
    expect(["bad_input", "timed_out"]).toContain(errorOf(reply).code);
    expect(file.dump()).toBe(before);
    // and the true one still works
    outputOf("account.register", await finish(server, made.input));
  });

  test("resigned without a change it is accepted, so the cases above fail for their reason", async () => {
    const server = await serve();
    const made = await prepareRaw(server, "alice");
    outputOf("account.register", await finish(server, resigned(made, {})));
  });
});
