import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { newId, type RequestId } from "../../src/ids.ts";
import { recoveryHash } from "../../src/protocol/factorcode.ts";
import { factorOf } from "../../src/server/factor.ts";
import { call, output, type RawOwner, registerRaw } from "../support/attacker.ts";
import { blind, draft, factors, letters, STEP } from "../support/factors.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";
import { type FileStore, fileStore, hookedStore } from "../support/storeprobe.ts";

const MINUTE = 60_000;
const hooked = hookedStore();
let file: FileStore;
let server: TestServer;
let alice: RawOwner;

async function serve(options: Parameters<typeof startTestServer>[0] = {}): Promise<void> {
  file = fileStore();
  server = await startTestServer({ path: file.path, wrap: hooked.wrap, ...options });
  // what is valid now stays so however slow the machine is
  server.freeze();
  alice = await registerRaw(server, "alice");
}

beforeEach(() => serve());

afterEach(async () => {
  hooked.hook = null;
  expect(server.faults).toEqual([]);
  await server.close();
  file.end();
});

const { codeNow, bring, enrolment, wrongCode, enrol, restricted, check } = factors(() => ({ server, alice }));

describe("setting it", () => {
  test("needs a login of the last five minutes, and a code of the key", async () => {
    const session = await restricted();
    const { key, codes } = draft();
    const input = { ...enrolment(alice, key, codes), code: wrongCode(key) };
    expect((await call(server, session, "account.factor.enable", input)).code).toBe("factor_failed");
    const twice = enrolment(alice, key, [...codes.slice(0, 9), codes[0] ?? ""]);
    expect((await call(server, session, "account.factor.enable", twice)).code).toBe("bad_input");
    server.advance(6 * MINUTE);
    const late = await call(server, session, "account.factor.enable", enrolment(alice, key, codes));
    expect(late.code).toBe("denied");
    expect(await server.store.transaction((tx) => factorOf(tx, alice.userId))).toBeUndefined();
  });

  test("ends every other session", async () => {
    const [other, own] = [await restricted(), await restricted()];
    const { key, codes } = draft();
    const answer = await call(server, own, "account.factor.enable", enrolment(alice, key, codes));
    expect(answer.code).toBe("ok");
    expect([await check(other), await check(own)]).toEqual(["session_invalid", "ok"]);
  });

  test("a repeated request finds it done; another one needs a code of the factor that is there", async () => {
    const session = await restricted();
    const { key, codes } = draft();
    const input = enrolment(alice, key, codes);
    const requestId = newId<RequestId>(random);
    for (let i = 0; i < 2; i++) {
      expect((await call(server, session, "account.factor.enable", input, { requestId })).code).toBe("ok");
    }
    server.advance(6 * MINUTE);
    const later = await restricted();
    await bring(later, codeNow(key));
    server.advance(6 * MINUTE);
    for (const operation of ["account.factor.codes", "account.factor.disable"] as const) {
      const asked = { recovery: input.recovery, proof: null, blind: blind() };
      const sent = operation === "account.factor.codes" ? asked : { proof: null, blind: blind() };
      expect((await call(server, later, operation, sent as never)).code).toBe("factor_required");
    }
  });

  test("is replaced by a code of the one before, which opens nothing any more", async () => {
    const first = await enrol(alice);
    const session = await restricted();
    await bring(session, codeNow(first.key));
    const second = draft();
    // the session brought a code a moment ago
    const swapped = await call(server, session, "account.factor.enable", enrolment(alice, second.key, second.codes));
    expect(swapped.code).toBe("ok");
    server.advance(2 * STEP);
    expect((await bring(await restricted(), codeNow(first.key))).code).toBe("factor_failed");
    expect((await bring(await restricted(), letters(first.codes[0] ?? ""))).code).toBe("factor_failed");
    expect((await bring(await restricted(), codeNow(second.key))).code).toBe("ok");
  });

  test("codes are replaced and the factor is disabled by a code, wrong ones are counted", async () => {
    const { key, codes } = await enrol(alice);
    const session = await restricted();
    await bring(session, codeNow(key));
    server.advance(6 * MINUTE);
    const next = draft().codes;
    const recovery = next.map((text) => recoveryHash(alice.userId, letters(text)));
    const wrong = { recovery, proof: wrongCode(key), blind: blind() };
    expect((await call(server, session, "account.factor.codes", wrong)).code).toBe("factor_failed");
    const right = { recovery, proof: letters(codes[0] ?? ""), blind: blind() };
    expect((await call(server, session, "account.factor.codes", right)).code).toBe("ok");
    expect((await bring(await restricted(), letters(codes[1] ?? ""))).code).toBe("factor_failed");
    const off = { proof: letters(next[0] ?? ""), blind: blind() };
    expect(output("account.factor.disable", await call(server, session, "account.factor.disable", off))).toEqual({
      disabled: true,
    });
    // sent again it finds none
    const again = await call(server, session, "account.factor.disable", off);
    expect(output("account.factor.disable", again)).toEqual({ disabled: false });
    expect(await check(await restricted())).toBe("ok");
  });

  test("a stolen whole session cannot guess its way: five wrong codes end it", async () => {
    const { key } = await enrol(alice);
    const session = await restricted();
    await bring(session, codeNow(key));
    server.advance(6 * MINUTE);
    for (let i = 0; i < 5; i++) {
      const answer = await call(server, session, "account.factor.disable", { proof: wrongCode(key), blind: blind() });
      expect(answer.code).toBe("factor_failed");
    }
    expect(await check(session)).toBe("session_invalid");
  });
});

describe("a server that requires one", () => {
  beforeEach(async () => {
    await server.close();
    file.end();
    await serve({ secondFactor: "required" });
  });

  test("lets an account without one do nothing but enrol, after which the session is whole", async () => {
    const session = await restricted();
    const refused = await call(server, session, "session.check", {});
    expect(refused).toMatchObject({ code: "factor_required", sealed: true });
    expect((await bring(session, "000000")).code).toBe("factor_required");
    const { key, codes } = draft();
    // longer than a fresh login lasts: a person scans a code meanwhile
    server.advance(6 * MINUTE);
    const answer = await call(server, session, "account.factor.enable", enrolment(alice, key, codes));
    expect(output("account.factor.enable", answer).settings).toEqual(alice.settings);
    expect(await check(session)).toBe("ok");
    const off = await call(server, session, "account.factor.disable", { proof: null, blind: blind() });
    expect(off.code).toBe("denied");
  });

  test("a session that waits to enrol replaces no factor that was set meanwhile", async () => {
    const [one, two] = [await restricted(), await restricted()];
    const { key, codes } = draft();
    expect((await call(server, one, "account.factor.enable", enrolment(alice, key, codes))).code).toBe("ok");
    const other = draft();
    const late = await call(server, two, "account.factor.enable", enrolment(alice, other.key, other.codes));
    expect(["session_invalid", "exists"]).toContain(late.code);
    server.advance(2 * STEP);
    expect((await bring(await restricted(), codeNow(key))).code).toBe("ok");
  });
});
