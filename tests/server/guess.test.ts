import { afterEach, beforeEach, expect, test } from "bun:test";
import { toBase64url } from "../../src/crypto/bytes.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { credentialIdOf } from "../../src/server/accounts.ts";
import {
  call,
  errorOf,
  finishRaw,
  logInRaw,
  output,
  outputOf,
  postInput,
  prepareRaw,
  type RawOwner,
  registerRaw,
  startRaw,
  utf8,
} from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import {
  argon2idKsf,
  finishLogin,
  type Ke2,
  parseKe2,
  randomizedPassword,
  recoverCredentials,
  startLogin,
  startRegistration,
} from "../support/opaque-oracle.ts";

/**
 * Every evaluation of the OPRF is a guess: with one recorded KE2, an evaluation for the same name tests one password
 * offline, whatever the operation that gave it. The attack is shown to work first, so that its refusal means something.
 */

const FREE = 10;
const PASSWORD = "the password";
const ksf = argon2idKsf(KDF.test);
const IDENTIFIERS = (account: string) => ({ client: utf8(account), server: utf8("keyhold/v1") });

let server: TestServer;
let alice: RawOwner;

beforeEach(async () => {
  server = await startTestServer();
  server.freeze();
  alice = await registerRaw(server, "alice", PASSWORD);
});

afterEach(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
});

/** What anyone gets who asks once. */
async function recordKe2(account: string): Promise<Ke2> {
  const { ke1 } = startLogin(utf8("anything"));
  const reply = await postInput(server, "session.login.start", { account, request: ke1, deviceToken: null });
  return parseKe2(outputOf("session.login.start", reply).responses[0] ?? new Uint8Array(0));
}

/** Offline: does an evaluated guess open the envelope in a recorded KE2? */
function opens(ke2: Ke2, guess: string, blind: Uint8Array, evaluated: Uint8Array): boolean {
  const randomized = randomizedPassword(utf8(guess), blind, evaluated, ksf);
  return recoverCredentials(randomized, ke2, IDENTIFIERS("alice")) !== undefined;
}

test("the attack works on whoever can evaluate: an uncounted evaluation would test a password", async () => {
  const ke2 = await recordKe2("alice");
  const { serverRegister } = await import("../../src/crypto/opaque.ts");
  for (const [guess, right] of [
    ["wrong", false],
    [PASSWORD, true],
  ] as const) {
    const { state, request } = startRegistration(utf8(guess));
    const response = serverRegister(server.ctx.keys.opaque.setup, credentialIdOf(server.ctx, "alice"), request);
    expect(opens(ke2, guess, state.blind, response.slice(0, 32))).toBe(right);
  }
});

test("registration start of an existing name is refused before the OPRF is evaluated", async () => {
  const evaluated: string[] = [];
  const { pool } = server.ctx;
  Object.assign(server.ctx, {
    pool: {
      run: (job: Parameters<typeof pool.run>[0]) => {
        evaluated.push(job.kind);
        return pool.run(job);
      },
      close: () => pool.close(),
    },
  });
  for (const name of ["alice"]) {
    const { request } = startRegistration(utf8(PASSWORD));
    const reply = await postInput(server, "account.register.start", { account: name, invite: null, request });
    expect(errorOf(reply).code).toBe("exists");
    // no element of the group comes back, in whatever form
    expect(String(reply.body).length).toBeLessThan(200);
  }
  expect(evaluated).toEqual([]);
});

test("a disabled account's name is refused before evaluation too", async () => {
  await server.store.transaction((tx) => tx.setDisabled(alice.userId, true));
  const { request } = startRegistration(utf8(PASSWORD));
  const reply = await postInput(server, "account.register.start", { account: "alice", invite: null, request });
  expect(errorOf(reply).code).toBe("exists");
});

const registerStart = (account: string, address?: string) => {
  const { request } = startRegistration(utf8("guess"));
  return postInput(server, "account.register.start", { account, invite: null, request }, address);
};
const loginStart = (account: string, address?: string) => {
  const { ke1 } = startLogin(utf8("guess"));
  return postInput(server, "session.login.start", { account, request: ke1, deviceToken: null }, address);
};

test("an unregistered name: registration and login starts spend one bucket", async () => {
  for (let i = 0; i <= FREE; i++) {
    const start = i % 2 === 0 ? registerStart : loginStart;
    expect((await start("erin", `10.0.0.${i}`)).status).toBe(200);
  }
  expect(errorOf(await registerStart("erin", "10.0.1.1")).code).toBe("rate_limited");
  expect(errorOf(await loginStart("erin", "10.0.1.2")).code).toBe("rate_limited");
  expect((await registerStart("frank", "10.0.1.3")).status).toBe(200);
});

test("registration starts of many names spend the address", async () => {
  const small = await startTestServer({ limits: { loginFreeFailuresPerAddress: 5 } });
  small.freeze();
  try {
    const start = (i: number) => {
      const { request } = startRegistration(utf8("guess"));
      return postInput(small, "account.register.start", { account: `name${i}`, invite: null, request });
    };
    for (let i = 0; i <= 5; i++) expect((await start(i)).status).toBe(200);
    expect((await start(6)).status).toBe(429);
  } finally {
    await small.close();
  }
});

test("evaluations gathered before the name was registered are bounded by the same bucket", async () => {
  const blinds: { guess: string; blind: Uint8Array; evaluated: Uint8Array }[] = [];
  for (let i = 0; i < 40; i++) {
    const guess = `guess ${i}`;
    const { state, request } = startRegistration(utf8(guess));
    const reply = await postInput(
      server,
      "account.register.start",
      { account: "gina", invite: null, request },
      `10.4.0.${i}`,
    );
    if (reply.status !== 200) continue;
    const { response } = outputOf("account.register.start", reply);
    blinds.push({ guess, blind: state.blind, evaluated: response.slice(0, 32) });
  }
  expect(blinds.length).toBe(FREE + 1);
});

test("the start of a password change is counted in the session's bucket, and refused above it", async () => {
  const session = await logInRaw(server, "alice", PASSWORD);
  const ke2 = await recordKe2("alice");
  const codes: string[] = [];
  let found = false;
  for (let i = 0; i < 15; i++) {
    const guess = i === 14 ? PASSWORD : `guess ${i}`;
    const { state, request } = startRegistration(utf8(guess));
    const answer = await call(server, session, "account.password.start", { request });
    codes.push(answer.code);
    if (answer.code !== "ok") continue;
    const { response } = output("account.password.start", answer);
    found ||= opens(ke2, guess, state.blind, response.slice(0, 32));
  }
  expect(codes.slice(0, FREE + 1)).toEqual(new Array(FREE + 1).fill("ok"));
  expect(codes.slice(FREE + 1)).toEqual(new Array(4).fill("rate_limited"));
  expect(found).toBe(false);
  // the account's own bucket has the recorded login alone
  for (let i = 0; i < FREE; i++) expect((await loginStart("alice", `10.5.0.${i}`)).status).toBe(200);
  expect((await loginStart("alice", "10.5.1.1")).status).toBe(429);
});

test("a session older than five minutes cannot start a password change at all", async () => {
  const session = await logInRaw(server, "alice", PASSWORD);
  server.advance(5 * 60_000 + 1_000);
  const { request } = startRegistration(utf8(PASSWORD));
  expect((await call(server, session, "account.password.start", { request })).code).toBe("denied");
});

test("a login by the oracle opens the account, so the oracle speaks the server's OPAQUE", async () => {
  const { state, ke1 } = startLogin(utf8(PASSWORD));
  const reply = await postInput(server, "session.login.start", { account: "alice", request: ke1, deviceToken: null });
  const { sessionId, responses } = outputOf("session.login.start", reply);
  const done = finishLogin(state, responses[0] ?? new Uint8Array(0), { ksf, identifiers: IDENTIFIERS("alice") });
  if (!done) throw new Error("the oracle could not log in");
  const fitting = { finish: done.ke3, sessionKey: done.sessionKey };
  expect((await finishRaw(server, { sessionId, fitting })).status).toBe(200);
});

test("a KE2 recorded for one name opens nothing under another name's evaluations", async () => {
  const ke2 = await recordKe2("alice");
  const { state, request } = startRegistration(utf8(PASSWORD));
  const reply = await postInput(server, "account.register.start", { account: "alice2", invite: null, request });
  const { response } = outputOf("account.register.start", reply);
  expect(opens(ke2, PASSWORD, state.blind, response.slice(0, 32))).toBe(false);
});

test("the last request of a registration evaluates nothing and tells no name from another", async () => {
  // a signed registration of a free name, turned to other names: each needs its own reservation
  const { input } = await prepareRaw(server, "henry");
  for (const account of ["alice", "nobody"]) {
    const body = { ...input, account, requestId: newId<RequestId>(random) };
    expect((await postInput(server, "account.register", body)).status).toBe(400);
  }
  expect(toBase64url(input.record).length).toBeGreaterThan(0);
  expect((await postInput(server, "account.register", input)).status).toBe(200);
  expect((await startRaw(server, "henry", "correct horse")).fitting).toBeDefined();
});
