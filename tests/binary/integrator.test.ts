import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Validator } from "@seriousme/openapi-schema-validator";
import { recorded } from "../../src/server/keyring/events.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import { openApi } from "../../src/wire/openapi.ts";
import { putKey } from "../support/keyringrows.ts";
import { registryWorld } from "../support/registryworld.ts";
import { exitOf, type Home, keyhold, openWorld, SETUP_MS, type Server, serve, type World } from "./world.ts";

/** The example of docs/integrators.md against a real server process, which holds what a registry would have written. */

const PROJECT = join(import.meta.dir, "..", "..");
const HEX = "03ca27ea7b0641497b19a723e3b92590801c7e79b114253fc1e99df1fd9730526b";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
let server: Server;
let directory: string;
let token: string;
let tokenId: string;
let description: string;
let authority: string;

beforeAll(async () => {
  world = await openWorld();
  home = await world.home("person").register("ann");
  directory = mkdtempSync(join(tmpdir(), "keyhold-integrator-"));
  const first = await serve(directory, ["--listen", "127.0.0.1:0", "--registry"]);
  expect(await first.stop()).toBe(0);
  await fill();
  server = await serve(directory, ["--listen", "127.0.0.1:0", "--registry"]);
  const device = ["--profile", "registry", "--kdf", "test", ...home.password];
  const at = ["--server", server.url, "--pin", server.pin, "--account", "ben"];
  await home.ok(["register", ...at, ...device]);
  description = world.file("openapi.json");
  writeFileSync(description, (await home.run(["openapi"])).out);
  authority = world.file("authority.pem");
  const printed = await home.run(["profile", "authority", "registry"]);
  expect([printed.code, printed.err]).toEqual([0, ""]);
  writeFileSync(authority, printed.out);
}, SETUP_MS);

afterAll(async () => {
  await server?.stop();
  rmSync(directory, { recursive: true, force: true });
  await world.close();
});

/** A workspace with a key and its events, by the registry's own parts over the server's database. */
async function fill(): Promise<void> {
  const store = await openSqlite(join(directory, "keyhold.db"));
  const registry = await registryWorld({ wrap: () => store });
  registry.nowMs = Date.now();
  const ann = await registry.person("ann");
  const { workspaceId } = await registry.workspace([ann]);
  const given = { workspaceId, type: "secp256k1", publicKey: Uint8Array.fromHex(HEX) } as const;
  await recorded(registry.site, async (tx, tell) => {
    const keyId = await putKey(tx, { ...given, name: "hot", atMs: registry.nowMs });
    await tell({ event: "request.fulfilled", workspaceId });
    await tell({ event: "key.created", workspaceId, keyId });
  });
  const expiresAtMs = registry.nowMs + 86_400_000;
  ({ token, tokenId } = await registry.call(
    "workspace.token.create",
    { workspaceId, name: "billing", expiresAtMs },
    ann,
  ));
  await registry.close();
}

async function example(from: number, options: { token?: string; ca?: string | null } = {}) {
  const ca = options.ca === undefined ? authority : options.ca;
  const child = Bun.spawn(
    [process.execPath, join(PROJECT, "docs/examples/integrator.ts"), description, server.url, String(from), "once"],
    {
      cwd: tmpdir(),
      env: { PATH: process.env["PATH"] ?? "", ...(ca === null ? {} : { NODE_EXTRA_CA_CERTS: ca }) },
      stdin: new TextEncoder().encode(`${options.token ?? token}\n`),
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const lines = out.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
  return { code: exitOf(child), lines, err };
}

const post = (body: string, headers: Record<string, string> = {}, name = "integrator.workspace") =>
  fetch(`${server.url}/v1/op/${name}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
    tls: { ca: Bun.file(authority) },
  });

describe("the example program", () => {
  test("prints events from a number on, with keys and their addresses, knowing the description alone", async () => {
    const { code, lines, err } = await example(0);
    expect([code, err]).toEqual([0, ""]);
    expect(lines[0]).toEqual({ workspace: "treasury", balance: 0 });
    const events = lines.filter((line) => "seq" in line);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1));
    expect(events.map(({ event }) => event).slice(-3)).toEqual(["request.fulfilled", "key.created", "token.created"]);
    expect(lines.find((line) => "addresses" in line)).toMatchObject({
      type: "secp256k1",
      publicKey: HEX,
      addresses: {
        evm: "0xdEa33aE3DA8f2EbA6efBB3EF5d143415438a6541",
        cosmos: "cosmos1tun7x3s2ywksa32nl38d3fuuv8nk5angln7laj",
      },
    });
    const again = await example(events.length);
    expect([again.code, again.lines]).toEqual([0, [{ workspace: "treasury", balance: 0 }]]);
  });

  test("ends with the error of a token that opens nothing", async () => {
    const refused = await example(0, { token: `kht_${"A".repeat(43)}` });
    expect([refused.code === 0, refused.lines]).toEqual([false, []]);
    expect(refused.err).toContain("session_invalid: this token opens no workspace");
  });

  test("speaks to no server whose authority it was not given", async () => {
    const stranger = await example(0, { ca: null });
    expect([stranger.code === 0, stranger.lines]).toEqual([false, []]);
    expect(stranger.err).toMatch(/certificate/i);
    expect(stranger.err).not.toContain(token);
  });
});

describe("over HTTP", () => {
  test("a token is asked for with the challenge of bearer tokens, and no other answer has it", async () => {
    const bare = await post("{}");
    expect([bare.status, bare.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    expect(await bare.json()).toEqual({
      code: "session_invalid",
      message: "this token opens no workspace",
      retryAfterMs: null,
    });
    const right = await post("{}", { authorization: `Bearer ${token}` });
    expect([right.status, right.headers.get("www-authenticate"), right.headers.get("cache-control")]).toEqual([
      200,
      null,
      "no-store",
    ]);
    const wrong = await post("[]", { authorization: `Bearer ${token}` });
    expect([wrong.status, wrong.headers.get("www-authenticate")]).toEqual([400, null]);
    const other = await post("{}", { authorization: `Bearer ${token}` }, "server.statement");
    expect([other.status, other.headers.get("www-authenticate")]).toEqual([200, null]);
  });

  test("the log has neither tokens nor their hashes", async () => {
    const unknown = `kht_${"B".repeat(43)}`;
    await post("{}", { authorization: `Bearer ${token}` });
    await post("{}", { authorization: `Bearer ${unknown}` });
    const log = server.log();
    expect(log).toContain("integrator.workspace");
    for (const word of [token.slice(4), unknown.slice(4), tokenId]) expect(log).not.toContain(word);
  });

  test("a server that is no registry says so", async () => {
    const plain = await world.home("plain").register("eve");
    const pem = (await plain.run(["profile", "authority"])).out;
    const reply = await fetch(`${world.server.url}/v1/op/integrator.workspace`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: "{}",
      tls: { ca: pem },
    });
    expect(reply.status).toBe(415);
  });
});

describe("keyhold openapi", () => {
  test("prints a valid OpenAPI 3.1 document without a home or a server", async () => {
    const empty = world.home("nobody").dir;
    const { code, out, err } = await keyhold(empty, ["openapi"]);
    expect([code, err]).toEqual([0, ""]);
    expect(JSON.parse(out)).toEqual(openApi());
    expect(await new Validator().validate(JSON.parse(out))).toEqual({ valid: true });
    expect((await world.home("nobody").ok(["openapi"])).data).toEqual(openApi());
  });
});

describe("keyhold profile authority", () => {
  test("is the one behind the pin, and says where there is none", async () => {
    const { data } = await home.ok(["profile", "authority", "registry"]);
    expect(data).toMatchObject({ name: "registry", server: server.url, pin: server.pin });
    expect(data.authority).toMatch(/^-----BEGIN CERTIFICATE-----\n[\s\S]*\n-----END CERTIFICATE-----\n$/);
    expect((await home.fails(3, ["profile", "authority", "nothing"])).code).toBe("not_found");
    const local = world.home("local");
    await local.ok(["init", "--local", "--kdf", "test", ...local.password]);
    expect((await local.fails(3, ["profile", "authority"])).message).toContain("has no server");
  });
});
