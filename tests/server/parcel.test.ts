import { afterEach, beforeEach, expect, test } from "bun:test";
import { administration } from "../../src/server/administration.ts";
import { call, logInRaw, output, type RawSession, registerRaw } from "../support/attacker.ts";
import { random, startTestServer, type TestServer } from "../support/harness.ts";

let server: TestServer;
let ada: RawSession;
let eve: RawSession;

beforeEach(async () => {
  server = await startTestServer();
  for (const name of ["ada", "eve"]) await registerRaw(server, name);
  ada = await logInRaw(server, "ada", "correct horse");
  eve = await logInRaw(server, "eve", "correct horse");
});
afterEach(async () => {
  expect(server.faults).toEqual([]);
  await server.close();
});

const kept = async (session: RawSession) =>
  output("account.parcel", await call(server, session, "account.parcel", {})).sealed;
const put = (session: RawSession, sealed: Uint8Array) => call(server, session, "account.parcel.put", { sealed });

test("a parcel is kept, replaced, and its owner's alone", async () => {
  expect(await kept(ada)).toBeNull();
  const [one, other] = [random(4_096), random(1)];
  expect((await put(ada, one)).code).toBe("ok");
  expect(await kept(ada)).toEqual(one);
  expect(await kept(eve)).toBeNull();
  expect((await put(eve, random(9))).code).toBe("ok");
  expect((await put(ada, other)).code).toBe("ok");
  expect(await kept(ada)).toEqual(other);
});

test("one that is empty or too long is refused", async () => {
  for (const length of [0, 4_097]) expect((await put(ada, random(length))).code).toBe("bad_input");
  expect(await kept(ada)).toBeNull();
});

test("it ends with the account", async () => {
  await put(ada, random(100));
  const documents = () => server.store.transaction((tx) => tx.documents("parcel", ada.userId, null, 9));
  expect(await documents()).toHaveLength(1);
  const running = {
    version: "1",
    url: () => "",
    pin: "",
    startedAtMs: 0,
    requests: () => 0,
    rotate: async () => never(),
  };
  await administration(server.ctx, running)["user.remove"]({ account: "ada" });
  expect(await documents()).toEqual([]);
});

function never(): never {
  throw new Error("nothing is rotated");
}
