import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { draftFactor, factorUri } from "../../src/client/factor.ts";
import type { FactorSource } from "../../src/client/factorapi.ts";
import { logIn } from "../../src/client/login.ts";
import { Fault } from "../../src/errors.ts";
import { factorCode } from "../../src/protocol/factorcode.ts";
import { parseOtpUri } from "../../src/protocol/otp.ts";
import {
  type Middle,
  passwordOf,
  random,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
  testSurroundings,
} from "../support/harness.ts";
import { rejected } from "../support/hostile.ts";

const PASSWORD = "a password of ada";
let server: TestServer;
let ada: TestDevice;

beforeEach(async () => {
  server = await startTestServer();
  server.freeze();
  ada = await registerDevice(server.link(), "ada", PASSWORD);
});
afterEach(async () => {
  await ada.end();
  await server.close();
  expect(server.faults).toEqual([]);
});

const CHEAP = { url: "https://127.0.0.1:1", kdf: "test", deviceToken: null } as const;
const codeAt = (key: Uint8Array, steps = 0) => factorCode(key, Math.floor(server.ctx.now() / 30_000) + steps);
const wrong = (key: Uint8Array): string =>
  ["000000", "111111", "222222", "333333"].find((code) => ![-1, 0, 1].some((steps) => codeAt(key, steps) === code)) ??
  "";

async function enabled() {
  const made = draftFactor(random);
  await ada.client.enableFactor({ ...made, code: codeAt(made.key), proof: null });
  server.advance(60_000);
  return made;
}

/** Logs in with codes in turn; what was said of each that was refused goes to `refusals`. */
function enter(codes: readonly string[], refusals: string[] = [], middle?: Middle) {
  const left = [...codes];
  const factor: FactorSource = {
    code: async (refused) => {
      if (refused) refusals.push(refused.code);
      return left.shift() ?? null;
    },
  };
  const around = { ...testSurroundings(), factor };
  return logIn(server.link("127.0.0.1", middle), CHEAP, "ada", passwordOf(PASSWORD), around);
}

describe("a login", () => {
  test("fails where nobody answers for the second factor, and says what to do", async () => {
    await enabled();
    const plain = logIn(server.link(), CHEAP, "ada", passwordOf(PASSWORD), testSurroundings());
    await rejected(plain, "factor_required");
    const fault = await enter([]).catch((error: unknown) => error);
    expect((fault as Fault).hint).toContain("keyhold login");
  });

  test("asks again after a wrong code, and gives what a login without a factor gives", async () => {
    const { key } = await enabled();
    const refusals: string[] = [];
    const done = await enter([wrong(key), "no code at all", codeAt(key)], refusals);
    expect(refusals).toEqual(["factor_failed", "factor_failed"]);
    expect(done.userId).toBe(ada.login.userId);
    expect(done.accountKey).toEqual(ada.login.accountKey);
    const { head } = await done.session.call("session.check", {});
    // the check is the one entry after it
    expect(done.reply.auditSeq + 1).toBe(head.auditSeq);
  });

  test("ends after five wrong codes with what was wrong", async () => {
    const { key } = await enabled();
    const refusals: string[] = [];
    await rejected(
      enter(
        Array.from({ length: 9 }, () => wrong(key)),
        refusals,
      ),
      "factor_failed",
    );
    expect(refusals).toHaveLength(5);
  });

  test("whose answer to the code is lost asks again under the same id, and is whole", async () => {
    const { key } = await enabled();
    let lost = 0;
    const losing: Middle = async (operation, body, forward) => {
      const reply = await forward(operation, body);
      if (operation !== "session.factor" || lost++ > 0) return reply;
      throw new Fault("unreachable", "the connection broke");
    };
    const done = await enter([codeAt(key)], [], losing);
    expect(lost).toBe(2);
    expect(done.userId).toBe(ada.login.userId);
  });

  test("of which a code was seen on the way is no help: the frame opens for this session alone", async () => {
    const { key } = await enabled();
    const seen: Uint8Array[] = [];
    const code = codeAt(key);
    await enter([code], [], async (operation, body, forward) => {
      if (operation === "session.factor") seen.push(body.slice());
      return forward(operation, body);
    });
    expect(seen).toHaveLength(1);
    expect(Buffer.from(seen[0] ?? []).includes(code)).toBe(false);
    const again = await server.dispatcher.handle("session.factor", "application/octet-stream", seen[0] ?? random(1), {
      address: "192.0.2.9",
    });
    expect(again.outcome).toBe("replayed");
  });
});

describe("the calls of the client API", () => {
  test("tell how the account stands, renew the recovery codes, and take the factor off", async () => {
    const empty = { enabled: false, enabledAt: null, recoveryCodes: 0, required: false, proven: false };
    expect(await ada.client.factor()).toMatchObject(empty);
    const { key, recovery } = await enabled();
    expect(await ada.client.factor()).toMatchObject({ enabled: true, recoveryCodes: 10, proven: true });
    server.advance(600_000);
    expect(await ada.client.factor()).toMatchObject({ proven: false });
    await rejected(ada.client.renewFactorCodes({ proof: null }), "factor_required");
    await rejected(ada.client.renewFactorCodes({ proof: wrong(key) }), "factor_failed");
    const renewed = await ada.client.renewFactorCodes({ proof: recovery[0] ?? "" });
    expect(new Set([...renewed.recovery, ...recovery]).size).toBe(20);
    await rejected(ada.client.disableFactor({ proof: recovery[1] ?? "" }), "factor_failed");
    expect((await ada.client.disableFactor({ proof: renewed.recovery[0] ?? "" })).disabled).toBe(true);
    expect(await ada.client.factor()).toMatchObject(empty);
  });

  test("give a URI from which an authenticator makes the same codes", () => {
    const { key } = draftFactor(random);
    const read = parseOtpUri(factorUri(key, "ada", "keys.example.org:7443"));
    expect(read).toMatchObject({ kind: "totp", algorithm: "SHA1", digits: 6, period: 30, issuer: "keyhold" });
    expect(read.label).toBe("ada@keys.example.org:7443");
    expect(read.secret).toEqual(key);
  });
});

test("a server that requires one lets its client enrol at the login", async () => {
  await ada.end();
  await server.close();
  server = await startTestServer({ secondFactor: "required" });
  server.freeze();
  const made = draftFactor(random);
  const codes: string[] = [wrong(made.key), codeAt(made.key)];
  const factor: FactorSource = {
    code: async () => null,
    enrol: async () => ({ ...made, code: codes.shift() ?? "" }),
  };
  // the harness logs in without a source
  await registerDevice(server.link(), "ada", PASSWORD).catch((error: unknown) => {
    expect(error).toMatchObject({ code: "factor_required", hint: "keyhold account factor enable" });
  });
  const around = { ...testSurroundings(), factor };
  const done = await logIn(server.link(), CHEAP, "ada", passwordOf(PASSWORD), around);
  expect((await done.session.call("account.factor", {})).output).toMatchObject({ codes: 10, required: true });
  expect(codes).toEqual([]);
});
