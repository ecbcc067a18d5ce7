import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { KeyholdClient, Where } from "../../src/client/api.ts";
import { createClient } from "../../src/client/client.ts";
import { reportOn } from "../../src/client/report.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import { registerDevice, startTestServer, type TestDevice, type TestServer } from "../support/harness.ts";

setDefaultTimeout(60_000);

let server: TestServer;
let ada: TestDevice;
let client: KeyholdClient;
let count = 0;

beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());
beforeEach(async () => {
  ada = await registerDevice(server.link(), `report ${count++}`, "a password of ada");
  ({ client } = ada);
});
afterEach(() => ada.end());

const store = (name: string, type: SecretType, text: string, more: { where?: Where; expiresAt?: string } = {}) =>
  client.store({ name, type, value: new TextEncoder().encode(text), tags: [], where: null, ...more });
const issues = async (of: KeyholdClient = client, oldDays: number | null = null) =>
  (await of.report({ oldDays, fresh: false })).items.map(({ name, issue }) => `${name}: ${issue}`);

describe("the report", () => {
  test("judges what people chose, and neither keys nor tokens nor what was generated", async () => {
    await store("chosen", "password", "letmein");
    await store("web/qvxtrobnzk", "login", "qvxtrobnzk1");
    await store("web/other", "login", "qvxtrobnzl1");
    await store("random", "password", "u8#Lw0q!Zs5Pd2");
    await store("api", "token", "abc");
    await store("text", "note", "letmein2");
    await client.generate({ name: "pin", type: "pin", length: 4, tags: [], replace: false, where: null });
    await client.generate({ name: "short", type: "password", length: 8, tags: [], replace: false, where: null });
    const found = (await issues()).filter((one) => !one.startsWith("pin"));
    expect(found).toEqual(["chosen: weak", "web/qvxtrobnzk: weak"]);
  });

  test("a PIN is weak as a row or a year, and no other", async () => {
    for (const pin of ["1234", "4321", "0000", "1987", "2913", "73910"]) await store(`pin ${pin}`, "pin", pin);
    expect(await issues()).toEqual(["pin 0000: weak", "pin 1234: weak", "pin 1987: weak", "pin 4321: weak"]);
  });

  test("finds equal values of all types that are compared, by name and never by value", async () => {
    await store("a", "password", "u8#Lw0q!Zs5Pd2");
    await store("b", "login", "u8#Lw0q!Zs5Pd2");
    await store("c", "token", "u8#Lw0q!Zs5Pd2");
    await store("d", "note", "u8#Lw0q!Zs5Pd2");
    const { items, checked } = await client.report({ oldDays: null, fresh: true });
    expect(checked).toBe(4);
    expect(items.map(({ name, detail }) => [name, detail])).toEqual([
      ["a", 'also in "b", "c"'],
      ["b", 'also in "a", "c"'],
      ["c", 'also in "a", "b"'],
    ]);
    expect(JSON.stringify(items)).not.toContain("u8#");
  });

  test("days of expiry and age follow the clock", async () => {
    await store("ends", "password", "u8#Lw0q!Zs5Pd2", {
      expiresAt: new Date(Date.now() + 40 * 86_400_000).toISOString(),
    });
    await store("note", "note", "x");
    const on = async (days: number) => {
      const now = () => Date.now() + days * 86_400_000;
      const { items } = await reportOn(
        { ...ada.open, around: { ...ada.open.around, now } },
        { oldDays: 365, fresh: false },
      );
      return items.map(({ name, issue }) => `${name}: ${issue}`);
    };
    expect(await on(0)).toEqual([]);
    expect(await on(20)).toEqual(["ends: expires-soon"]);
    expect(await on(50)).toEqual(["ends: expired"]);
    expect(await on(400)).toEqual(["ends: expired", "ends: old"]);
  });

  test("without the server it looks through what the vault keeps, and says how many it could not read", async () => {
    await store("here", "password", "letmein");
    await store("there", "password", "letmein", { where: "server" });
    const away = createClient({ ...ada.open, session: null }, { profile: "test", server: null }, async () => undefined);
    expect(await issues(away)).toEqual(["here: weak"]);
    expect(ada.notices.join("\n")).toContain("1 secret without a copy here not read");
    expect(await issues()).toEqual(["here: reused", "there: reused", "here: weak", "there: weak"]);
  });

  test("the log shows what it read", async () => {
    await store("a", "password", "letmein");
    await store("n", "note", "x");
    await client.report({ oldDays: null, fresh: true });
    const all = { fromMs: null, untilMs: null, requestId: null, limit: null, cursor: null, purpose: "list" } as const;
    const { items } = await client.auditList({ ...all, name: null, action: "secret.get" });
    expect(items.map(({ name }) => name)).toEqual(["a"]);
  });
});
