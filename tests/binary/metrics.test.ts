import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { type Family, figure, parseExposition } from "../support/exposition.ts";
import { errorOf, openWorld, SETUP_MS, serve, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld({ server: ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"] });
}, SETUP_MS);
afterAll(() => world.close());

/** Where the figures are, by the ready line. */
const addressOf = (server: object): string => ("metrics" in server ? String(server.metrics) : "");

async function scrape(): Promise<{ text: string; found: ReadonlyMap<string, Family> }> {
  const reply = await fetch(addressOf(world.server));
  expect([reply.status, reply.headers.get("content-type")]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"]);
  const text = await reply.text();
  return { text, found: parseExposition(text) };
}

test("the figures are those of the log, line by line, and hold no name, id, address or secret", async () => {
  const home = await world.home("canary-home", "canary-password").register("canary-account");
  await home.ok(["store", "canary-name", "--in-file", world.file("value", "canary-value"), ...home.password]);
  await home.ok(["get", "canary-name", ...home.password]);
  await home.fails(3, ["get", "canary-missing", ...home.password]);
  const wrong = world.file("wrong", "canary-wrong");
  await home.fails(4, ["login", "--password-file", wrong]);
  const { text, found } = await scrape();

  const counted = new Map<string, number>();
  const logins = new Map<string, number>();
  for (const line of world.server.log().trimEnd().split("\n")) {
    const { event, op, code } = JSON.parse(line);
    if (event !== "request") continue;
    counted.set(`${op} ${code}`, (counted.get(`${op} ${code}`) ?? 0) + 1);
    if (op === "session.login") logins.set(code, (logins.get(code) ?? 0) + 1);
  }
  const shown = (name: string, ...labels: string[]) =>
    (found.get(name)?.samples ?? [])
      .map((one): [string, number] => [labels.map((label) => one.labels[label]).join(" "), one.value])
      .sort();
  expect(counted.get("secret.store ok")).toBe(1);
  expect(logins.get("ok")).toBeGreaterThan(0);
  expect(shown("keyhold_requests_total", "operation", "outcome")).toEqual([...counted].sort());
  expect(shown("keyhold_logins_total", "outcome")).toEqual(expect.arrayContaining([...logins]));
  expect(figure(found, "keyhold_accounts")).toBe(1);
  expect(figure(found, "keyhold_opaque_seconds_count", { evaluation: "register" })).toBe(1);

  const { data } = await home.ok(["status", ...home.password]);
  const values = JSON.stringify(data).match(/[0-9a-f]{32}/g) ?? [];
  for (const hidden of [...values, "canary", "127.0.0.1"])
    expect([hidden, text.includes(hidden)]).toEqual([hidden, false]);
});

test("they are not on the server's own port, and off unless asked for", async () => {
  const tls = { rejectUnauthorized: false };
  expect((await fetch(`${world.server.url}/metrics`, { tls })).status).toBe(404);
  const other = await serve(world.home("without").dir);
  expect(addressOf(other)).toBe("");
  await other.stop();
});

test("another machine's reach and a bad address are refused before anything is made", async () => {
  const operator = world.home("refused");
  const cases: [string[], number, RegExp][] = [
    [["--metrics", "0.0.0.0:0"], 2, /beyond this machine/],
    [["--metrics", "nonsense"], 2, /--metrics takes HOST:PORT/],
    [["--metrics", new URL(addressOf(world.server)).host], 6, /in use/],
  ];
  for (const [argv, code, why] of cases) {
    const ran = await operator.run(["serve", "--listen", "127.0.0.1:0", ...argv, "--json"]);
    expect([argv, ran.code, ran.out]).toEqual([argv, code, ""]);
    expect([argv, JSON.stringify(errorOf(ran))]).toEqual([argv, expect.stringMatching(why)]);
  }
});

test("`server status` tells what the figures tell", async () => {
  const operator = world.home("operator");
  const dir = `${world.dir}/server`;
  const { data } = await operator.ok(["server", "status", "--dir", dir]);
  const { found } = await scrape();
  expect([data.accounts, data.sessions]).toEqual([
    figure(found, "keyhold_accounts"),
    figure(found, "keyhold_sessions"),
  ]);
  expect(readFileSync(`${dir}/lock`, "utf8")).toContain(String(data.pid));
});
