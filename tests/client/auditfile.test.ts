import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import { createAuditReader, verifyAuditFile } from "../../src/client/auditreader.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { Fault } from "../../src/errors.ts";
import { canonicalJson } from "../../src/wire/canonicaljson.ts";
import type { Json } from "../../src/wire/codec.ts";
import { openAccountWorld, PASSWORD } from "../support/accountworld.ts";
import {
  addTestDevice,
  passwordOf,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
  testSurroundings,
} from "../support/harness.ts";
import { seeded } from "../support/seeded.ts";

setDefaultTimeout(60_000);
let server: TestServer;
let device: TestDevice;
let other: TestDevice;
let file: string;

/** The file as `audit export` writes it. */
async function exported(from: { readonly client: KeyholdClient }): Promise<string> {
  const reader = createAuditReader();
  let text = "";
  for (let cursor: string | null = null; ; ) {
    const page = await from.client.auditExport({ cursor });
    for (const line of page.text.split("\n").slice(0, -1)) reader.line(line);
    text += page.text;
    if (page.next === null) break;
    cursor = page.next;
  }
  return `${text}${reader.ending()}\n`;
}

const store = (from: TestDevice, name: string) =>
  from.client.store({ name, type: "note", value: new TextEncoder().encode(name), tags: [], where: null });

beforeAll(async () => {
  server = await startTestServer({ promptLog: false });
  device = await registerDevice(server.link(), "owner", "a long password");
  await store(device, "a");
  await device.client.auditVerify();
  await server.logbook.flush();
  other = await addTestDevice(server.link(), "owner", "a long password");
  await other.client.auditVerify();
  await store(other, "b");
  await device.client.get({ name: "b", version: null, reveal: true, fresh: true, save: false });
  await store(device, "c");
  file = await exported(device);
});

afterAll(async () => {
  await device.end();
  await other.end();
  await server.close();
});

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const lines = (): string[] => file.split("\n").slice(0, -1);

function faultOf(text: string): Fault {
  try {
    verifyAuditFile(bytesOf(text));
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("the file was accepted");
}

test("an export verifies offline and says what it proves and what is the server's word", () => {
  const report = verifyAuditFile(bytesOf(file));
  const kinds = lines().map((line) => (JSON.parse(line) as { kind: string }).kind);
  const count = (kind: string) => kinds.filter((one) => one === kind).length;
  expect(report).toMatchObject({
    size: count("entry"),
    verifiedFrom: 0,
    ok: true,
    account: device.login.userId,
    signed: { states: 5, byListedDevice: 5, entries: 5 },
    testimony: count("entry") - 5,
    promises: 1,
  });
  expect(report.log?.seq).toBeGreaterThan(0);
  expect(report.log?.seq).toBeLessThan(report.size);
  expect(kinds.slice(0, 4)).toEqual(["header", "log", "promise", "state"]);
  expect(kinds.at(-1)).toBe("end");
});

test("a file of an account that no batch took yet has no place in the log", async () => {
  const fresh = await startTestServer({ promptLog: false });
  const alone = await registerDevice(fresh.link(), "alone", "a long password");
  await store(alone, "a");
  expect(verifyAuditFile(bytesOf(await exported(alone)))).toMatchObject({ log: null, promises: 1 });
  await alone.end();
  await fresh.close();
});

test("an account whose identity was rotated: each identity signed the states of its time", async () => {
  const world = await openAccountWorld();
  const ada = await world.register("ada");
  const again = async (): Promise<void> => {
    await renewAccount(
      ada.home,
      ada.profile(),
      passwordOf(PASSWORD),
      { next: null, revoke: null },
      testSurroundings(ada.notices),
    );
  };
  for (const name of ["a", "b", "c"]) {
    const client = await ada.login();
    await client.store({ name, type: "note", value: new TextEncoder().encode(name), tags: [], where: null });
    await client.close();
    await again();
  }
  const client = await ada.login();
  const text = await exported({ client });
  const report = verifyAuditFile(bytesOf(text));
  expect(report).toMatchObject({ ok: true, signed: { states: 7, byListedDevice: 7 } });
  const [first = ""] = text.split("\n");
  expect((JSON.parse(first) as { header: { rotations: unknown[] } }).header.rotations).toHaveLength(3);
  await client.close();
  await world.close();
});

test("every line is canonical JSON, and no other text of the same value is accepted", () => {
  for (const line of lines()) expect(canonicalJson(JSON.parse(line) as Json)).toBe(line);
  const [first = "", ...rest] = lines();
  const other = JSON.stringify(JSON.parse(first), null, 1).replaceAll("\n", "");
  expect(faultOf([other, ...rest, ""].join("\n")).message).toContain("line 1");
});

describe("a file that was cut off is told from a changed one", () => {
  test("after a line", () => {
    for (const keep of [1, 2, 8, lines().length - 1]) {
      const fault = faultOf(`${lines().slice(0, keep).join("\n")}\n`);
      expect([fault.code, fault.message]).toEqual(["integrity", `this export is cut off after line ${keep}`]);
    }
  });

  test("within a line, and to nothing", () => {
    expect(faultOf(file.slice(0, -1)).message).toBe(`this export is cut off in line ${lines().length}`);
    expect(faultOf(file.slice(0, 300)).message).toBe("this export is cut off in line 1");
    expect(faultOf("").message).toBe("this export is cut off after line 0");
  });
});

describe("an edit is named by its line", () => {
  /** The file with one line changed, its last line made new to fit. */
  function edited(change: (all: string[]) => string[]): string {
    const all = change(lines().slice(0, -1));
    return `${all.join("\n")}\n${ending(all)}\n`;
  }
  /** What somebody who rewrites the file would put at its end. */
  function ending(all: readonly string[]): string {
    const digest = new Bun.CryptoHasher("sha256").update(`${all.join("\n")}\n`).digest();
    return canonicalJson({ kind: "end", lines: all.length + 1, sha256: digest.toString("base64url") });
  }
  type Value = Record<string, never>;
  /** The line of a kind, counted from 0, with another value at a path. */
  const set =
    (kind: string, nth: number, path: string, value: Json) =>
    (all: string[]): string[] => {
      let seen = 0;
      return all.map((line) => {
        const json = JSON.parse(line) as Value;
        if (json["kind"] !== kind || seen++ !== nth) return line;
        const keys = path.split(".");
        const last = keys.pop() ?? "";
        let place: Record<string, unknown> = json;
        for (const key of keys) place = place[key] as Record<string, unknown>;
        if (!(last in place)) throw new Error(`no ${path}`);
        place[last] = value;
        return canonicalJson(json as unknown as Json);
      });
    };
  const drop = (kind: string, nth: number) => (all: string[]) => {
    const places = all.flatMap((line, i) => ((JSON.parse(line) as Value)["kind"] === kind ? [i] : []));
    return all.filter((_, i) => i !== places[nth]);
  };
  const hash = "A".repeat(43);
  const numbered = (kind: string, nth: number): number =>
    lines().flatMap((line, i) => ((JSON.parse(line) as Value)["kind"] === kind ? [i + 1] : []))[nth] ?? 0;

  const EDITS: [string, (all: string[]) => string[], [string, number]][] = [
    ["when it was written", set("header", 0, "header.exportedAtMs", 1), ["header", 0]],
    ["how many entries there are", set("header", 0, "header.size", 1), ["header", 0]],
    ["whose log it is", set("header", 0, "header.account", "0".repeat(32)), ["header", 0]],
    ["the server's log key", set("header", 0, "header.statement.logKey", hash), ["header", 0]],
    ["the checkpoint", set("log", 0, "checkpoint", "keyhold\n1\n\n"), ["log", 0]],
    ["the proof", set("log", 0, "logged.index", 9), ["log", 0]],
    ["a promise", set("promise", 0, "atMs", 1), ["promise", 0]],
    ["a state", set("state", 1, "signed.state.requestHash", hash), ["state", 1]],
    ["who signed a state", set("state", 1, "signed.identitySignature", "A".repeat(86)), ["state", 1]],
    ["which device signed a state", set("state", 1, "signed.deviceSignature", "A".repeat(86)), ["state", 1]],
    ["the status of an entry", set("entry", 3, "salted.entry.status", "denied"), ["entry", 3]],
    ["the time of an entry", set("entry", 3, "salted.entry.atMs", 1), ["entry", 3]],
    ["the salt of an entry", set("entry", 3, "salted.salt", hash), ["entry", 3]],
    ["a link", set("entry", 3, "link", hash), ["entry", 3]],
    ["an entry that is gone", drop("entry", 3), ["entry", 3]],
    ["a state that is gone", drop("state", 2), ["state", 2]],
    ["a field more", (all) => all.map((line, i) => (i === 6 ? line.replace('{"', '{"a":1,"') : line)), ["entry", -1]],
  ];

  test.each(EDITS)("%s", (_what, change, [kind, nth]) => {
    const fault = faultOf(edited(change));
    expect(fault.code).toBe("integrity");
    expect(fault.message).toBe(`this is not an unchanged export: line ${nth === -1 ? 7 : numbered(kind, nth)}`);
  });

  test("the last entry gone, the log's line gone, two lines exchanged, something after the end", () => {
    const count = lines().filter((line) => line.includes('"kind":"entry"')).length;
    expect(faultOf(edited(drop("entry", count - 1))).why).toContain("entries are missing");
    expect(faultOf(edited(drop("log", 0))).why).toContain("does not belong here");
    const swapped = edited((all) => [...all.slice(0, 4), all[5] ?? "", all[4] ?? "", ...all.slice(6)]);
    expect(faultOf(swapped).message).toContain("line 5");
    expect(faultOf(`${file}${lines().at(-1)}\n`).why).toContain("after the end");
  });

  test("the last line alone", () => {
    const all = lines();
    const end = JSON.parse(all.at(-1) ?? "") as { lines: number };
    const other = [...all.slice(0, -1), canonicalJson({ ...end, lines: end.lines + 1 } as Json), ""].join("\n");
    expect(faultOf(other).message).toContain(`line ${all.length}`);
  });
});

test("3,000 random changes of the file's bytes: each is found", () => {
  const { int, pick } = seeded(8785);
  const good = bytesOf(file);
  const missed: string[] = [];
  const changes = [
    (at: number) => Buffer.concat([good.subarray(0, at), good.subarray(at + 1 + int(40))]),
    (at: number) => Buffer.concat([good.subarray(0, at), good.subarray(int(good.length), good.length)]),
    (at: number) => Buffer.concat([good.subarray(0, at), Buffer.of(int(256)), good.subarray(at)]),
    (at: number) => good.with(at, (good[at] ?? 0) ^ (1 << int(8))),
    (at: number) => good.with(at, 32 + int(95)),
    (at: number) => Buffer.concat([good.subarray(0, at), good.subarray(at - int(at)), good.subarray(at)]),
  ];
  for (let done = 0; done < 3_000; ) {
    const at = int(good.length);
    const bytes = new Uint8Array(pick(changes)(at));
    if (Buffer.compare(bytes, good) === 0) continue;
    done += 1;
    try {
      verifyAuditFile(bytes);
      missed.push(`at ${at}`);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "integrity") missed.push(`at ${at}: ${String(error)}`);
    }
  }
  expect(missed).toEqual([]);
}, 300_000);
