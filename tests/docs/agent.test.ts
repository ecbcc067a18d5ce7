import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { mkdirSync, symlinkSync } from "node:fs";
import { agentClient, agentSocket } from "../../src/client/agent.ts";
import { AGENT_METHODS, agentMethods, OWN_METHODS } from "../../src/client/agentapi.ts";
import { AGENT_LIMITS } from "../../src/client/agentconnection.ts";
import { callAgent } from "../../src/client/agentsocket.ts";
import { schemeOf } from "../../src/client/signing.ts";
import { spkiOf } from "../../src/crypto/identity.ts";
import { SIGNATURE_SCHEMES } from "../../src/crypto/schemes.ts";
import { isErrorCode } from "../../src/errors.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import { binary, environment, type Home, openWorld, SETUP_MS, type World } from "../binary/world.ts";
import { documentedTable, projectText } from "../support/doctables.ts";
import { testNeeding } from "../support/skip.ts";

const DOC = "docs/agent.md";
const words = (cell = ""): string[] => [...cell.matchAll(/`([^`]+)`/g)].flatMap(([, text = ""]) => text.split(/,\s*/));

describe("docs/agent.md", () => {
  test("lists every method with its params", () => {
    const rows = documentedTable(DOC, ["method", "params", "value of the result"]);
    const told = rows.map(([method, params]) => [words(method)[0], params === "none" ? [] : words(params)]);
    const real = Object.entries(AGENT_METHODS).map(([method, { params }]) => [method, [...params.names]]);
    expect(told).toEqual(real);
    const own = documentedTable(DOC, ["method", "params", "result"]);
    expect(own.map(([method]) => words(method)[0])).toEqual([...OWN_METHODS]);
  });

  test("lists every scheme under the type that signs so, that type's own first", () => {
    const rows = documentedTable(DOC, ["type", "scheme", "signature"]);
    const told = rows.flatMap(([type, scheme]) =>
      words(scheme).map((name) => [words(type)[0] ?? "", name] as [SecretType, (typeof SIGNATURE_SCHEMES)[number]]),
    );
    expect(told.map(([, scheme]) => scheme)).toEqual([...SIGNATURE_SCHEMES]);
    for (const [type, scheme] of told) expect(schemeOf(type, scheme)).toBe(scheme);
    const first = new Map([...told].reverse());
    for (const [type, scheme] of first) expect(schemeOf(type, null)).toBe(scheme);
  });

  test("names error codes and limits that there are", () => {
    const codes = documentedTable(DOC, ["`data.code`", "what to do"]).flatMap(([cell]) => words(cell));
    expect(codes.length).toBeGreaterThan(10);
    expect(codes.filter((code) => !isErrorCode(code))).toEqual([]);
    const limits = documentedTable(DOC, ["limit", "what happens"]).map(([limit]) => limit);
    const { connections, requests, heldBytes, stalledMs } = AGENT_LIMITS;
    expect(limits).toEqual([
      "a message of 8 MiB",
      `${requests} requests under way on a connection`,
      `${connections} connections`,
      `${stalledMs / 1_000} s for a message that is not whole, or is not fetched`,
      `${heldBytes / 1_024 / 1_024} MiB in unfinished messages and unfetched answers`,
      "64 levels of nesting",
    ]);
  });
});

describe("programs in other languages", () => {
  let world: World;
  let home: Home;
  let socket: string;
  let env: Record<string, string>;
  setDefaultTimeout(60_000);

  beforeAll(async () => {
    world = await openWorld({ server: false });
    home = world.home("person");
    await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
    await home.ok(["unlock", ...home.password, "--kdf", "test"]);
    socket = agentSocket(`${home.dir}/run`, "default");
    const tools = world.file("tools");
    mkdirSync(tools);
    symlinkSync(await binary(), `${tools}/keyhold`);
    env = environment(home.dir, { PATH: `${tools}:${process.env["PATH"] ?? ""}` });
  }, SETUP_MS);
  afterAll(async () => {
    await home.run(["lock"]);
    await world.close();
  });

  const example = (language: string): string => {
    const blocks = [...projectText(DOC).matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))];
    return blocks.at(-1)?.[1] ?? "";
  };
  async function ran(command: readonly string[]): Promise<string> {
    const child = Bun.spawn([...command], { env, cwd: home.dir, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
    const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    expect([code, err]).toEqual([0, ""]);
    return out;
  }

  testNeeding("python3", "the documentation's Python generates, lists, reads a field and signs", async () => {
    const [listed, login, signed = "", ...rest] = (await ran(["python3", "-c", example("python")])).split("\n");
    expect([listed, login, rest]).toEqual(["['app/signer', 'app/token']", "hunter2 ['ada']", [""]]);
    const [scheme, signature = "", publicKey = ""] = signed.split(" ");
    expect(scheme).toBe("ed25519");
    const key = createPublicKey({
      key: Buffer.from(spkiOf(Uint8Array.fromHex(publicKey))),
      format: "der",
      type: "spki",
    });
    expect(verify(null, Buffer.from("a message"), key, Buffer.from(signature, "hex"))).toBe(true);
    const { data } = await home.ok(["get", "app/signer"]);
    expect(data.publicKeyHex).toBe(publicKey);
  });

  testNeeding("python3", "the documentation's shell lines list what there is", async () => {
    await home.ok(["generate", "app/shell", "--type", "token"]);
    const answer = JSON.parse(await ran(["sh", "-euc", example("sh")]));
    expect(answer.result.value.items.map(({ name }: { name: string }) => name)).toContain("app/shell");
  });

  test("hello says what there is, and results have the documented fields", async () => {
    const hello = (await callAgent(socket, "agent.hello", null, { timeoutMs: 5_000 })) as Record<string, unknown>;
    expect([hello["api"], hello["methods"]]).toEqual([1, agentMethods()]);
    const client = agentClient(socket, () => undefined);
    const name = "documented";
    const shape = { length: null, tags: [], replace: false, where: null };
    const written = await client.generate({ name, type: "ed25519", ...shape });
    const got = await client.get({ name, version: null, reveal: true, fresh: false, save: false });
    const listed = await client.list({ prefix: name, search: null, tag: null, fresh: false });
    const signed = await client.sign({ name, version: null, message: new Uint8Array(1), scheme: null });
    await client.generate({ name: "documented/otp", type: "totp", ...shape });
    const otp = await client.otp({ name: "documented/otp", fresh: false });
    const opened = await client.fileOpen({ name, version: null, fresh: false, purpose: "get" });
    const results = { Written: written, Got: got, Listed: listed, OtpCode: otp, FileOpened: opened, Signed: signed };
    const objects = { SecretInfo: got.info, ...results };
    const told = documentedTable(DOC, ["object", "fields"]).map(([object, cell]) => [
      object,
      words(cell?.split(";")[0]).sort(),
    ]);
    expect(told).toEqual(Object.entries(objects).map(([object, value]) => [object, Object.keys(value).sort()]));
    const facts = (await callAgent(socket, "agent.status", null, { timeoutMs: 5_000 })) as Record<string, unknown>;
    const row = documentedTable(DOC, ["method", "params", "result"]).find(([method]) => method === "`agent.status`");
    for (const key of Object.keys(facts)) expect(row?.[2]).toContain(key);
    expect(Object.keys(facts).length).toBe(11);
  });
});
