import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { errorOf, type Home, openWorld, SETUP_MS, type Server, serve, type World } from "./world.ts";

setDefaultTimeout(SETUP_MS);

/** The operators' side of a federation, with a server process each. */

let world: World;
let operator: Home;
const servers: Server[] = [];
const dirs: string[] = [];

beforeAll(async () => {
  world = await openWorld({ server: false });
  operator = world.home("operator");
  for (const name of ["north", "south"]) {
    const dir = join(world.dir, name);
    mkdirSync(dir, { mode: 0o700 });
    dirs.push(dir);
    servers.push(await serve(dir));
  }
}, SETUP_MS);
afterAll(async () => {
  for (const server of servers) await server.stop();
  await world.close();
});

const at = (i: number) => ["--dir", dirs[i] ?? ""];
const run = async (...argv: string[]): Promise<Record<string, unknown>> => (await operator.ok(argv)).data;
const items = async (i: number) =>
  (await run("server", "federation", "list", ...at(i)))["items"] as Record<string, unknown>[];

test("each operator sets a policy, sees the draft in words, accepts it, and can leave", async () => {
  const rules = { name: "house", rules: [{ name: "all", effect: "allow", require: { requester: true } }] };
  const file = world.file("rules.json", JSON.stringify(rules));
  const { policyId, version } = await run("server", "policy", "set", file, ...at(1));
  expect([String(policyId).length, version]).toEqual([64, 1]);
  expect(await run("server", "policy", "set", file, ...at(1))).toMatchObject({ policyId, version: 2 });
  expect(await run("server", "policy", "show", ...at(0))).toMatchObject({ policyId: null, version: 0 });

  const owner = world.home("owner");
  world.server = servers[0] as Server;
  await owner.register("owner");
  const parties = servers.flatMap(({ url, pin }) => ["--server", `${url}#${pin}`]);
  const create = ["federation", "create", "--name", "pair", "--threshold", "2", ...parties];
  const drafted = await owner.run([...create, "--json"]);
  expect(drafted.code).toBe(9);
  const [draft] = await items(1);
  expect(draft).toMatchObject({ name: "pair", epoch: 1, state: "waiting", threshold: 2, index: 2 });
  const lines = draft?.["servers"] as {
    readonly words: string;
    readonly policy: string | null;
    readonly own: boolean;
  }[];
  expect(lines.map(({ policy, own }) => [policy, own] as unknown[])).toEqual([
    [null, false],
    [policyId, true],
  ]);

  const asked = await operator.run(["server", "federation", "accept", "pair", ...at(1)]);
  // nobody can be asked, and nothing is accepted without a word
  expect(asked.code).toBe(2);
  for (const { words } of lines) expect(asked.err).toContain(words);
  expect((await items(1))[0]).toMatchObject({ state: "waiting" });
  for (const i of [0, 1]) {
    expect(
      await run("server", "federation", "accept", String(draft?.["federationId"]).slice(0, 8), ...at(i), "--yes"),
    ).toMatchObject({
      state: "accepted",
    });
  }
  expect((await owner.run([...create, "--json"])).code).toBe(0);
  for (const i of [0, 1]) expect(await items(i)).toMatchObject([{ name: "pair", state: "member", index: i + 1 }]);

  expect(await run("server", "federation", "leave", "pair", ...at(0), "--yes")).toMatchObject({ left: true });
  expect(await items(0)).toMatchObject([{ state: "left" }]);
  expect((await operator.run(["server", "federation", "leave", "pair", ...at(0), "--yes"])).code).toBe(3);
  expect(await run("server", "federation", "accept", "pair", ...at(0), "--yes")).toMatchObject({ state: "member" });
});

test("without a server that runs nothing is decided, and the error says what to do", async () => {
  const dir = join(world.dir, "idle");
  expect((await operator.run(["server", "init", "--dir", dir])).code).toBe(0);
  for (const words of [
    ["federation", "list"],
    ["federation", "accept", "x"],
    ["policy", "show"],
  ]) {
    const ran = await operator.run(["server", ...words, "--dir", dir, "--json"]);
    expect(ran.code).toBe(7);
    expect(errorOf(ran).hint).toContain("keyhold serve");
  }
});

test("events reach the command that DIR/notify names", async () => {
  const out = join(world.dir, "told");
  writeFileSync(join(dirs[0] ?? "", "notify"), JSON.stringify(["/bin/sh", "-c", `cat >> ${out}`]), { mode: 0o600 });
  await servers[0]?.stop();
  servers[0] = await serve(dirs[0] ?? "");
  const owner = world.home("another");
  world.server = servers[0];
  await owner.register("another");
  const parties = servers.flatMap(({ url, pin }) => ["--server", `${url}#${pin}`]);
  await owner.run(["federation", "create", "--name", "told", "--threshold", "2", ...parties, "--json"]);
  for (;;) {
    const text = await Bun.file(out)
      .text()
      .catch(() => "");
    if (text.endsWith("\n")) {
      expect(JSON.parse(text.split("\n")[0] ?? "")).toMatchObject({
        event: "federation.proposed",
        name: "told",
        epoch: 1,
      });
      break;
    }
    await Bun.sleep(20);
  }
});
