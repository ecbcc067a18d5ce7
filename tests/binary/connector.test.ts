import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { lstatSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type KeyringFleet, openKeyringFleet, runConnector } from "./connectorfleet.ts";
import { SETUP_MS } from "./world.ts";

setDefaultTimeout(180_000);

let all: KeyringFleet;
beforeAll(async () => {
  all = await openKeyringFleet();
}, SETUP_MS * 3);
afterAll(() => all.close());

const requestKey = (type: string) =>
  all.owner.run(["request", "key", "--workspace", "desk", "--keyring", "vaults", "--type", type, "--yes", "--json"]);

/** Asks for a key and waits for its end. */
async function fulfilled(type: string): Promise<{ requestId: string; status: string }> {
  const asked = await requestKey(type);
  if (asked.code !== 0 && asked.code !== 9) throw new Error(`exit ${asked.code}: ${asked.err}`);
  const { requestId } = JSON.parse(asked.out).data as { requestId: string };
  const { data } = await all.owner.ok(["request", "watch", requestId.slice(0, 16)]);
  return data;
}

describe("three connectors as processes", () => {
  test("fulfil key requests of every type", async () => {
    for (const type of ["ed25519", "schnorr", "secp256k1"]) {
      expect(await fulfilled(type)).toMatchObject({ status: "fulfilled" });
    }
  });

  test("one is killed in the middle: the key is made once, and each answers once", async () => {
    const pending = fulfilled("ed25519");
    await Bun.sleep(50);
    await all.connector(3).stop("SIGKILL");
    await all.start(3);
    expect(await pending).toMatchObject({ status: "fulfilled" });
    const { data } = await all.owner.ok(["workspace", "keys", "desk", "--type", "ed25519"]);
    expect(data.items).toHaveLength(2);
  });

  test("its directory is the user's alone, and init tells the same again", async () => {
    const dir = all.dirs[1] ?? "";
    expect(lstatSync(dir).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(dir)) expect([name, lstatSync(join(dir, name)).mode & 0o777]).toEqual([name, 0o600]);
    const { data } = await all.home(1).ok(["connector", "status", "--dir", dir]);
    expect(data).toMatchObject({ running: true, deadLetters: 0 });
    expect(Date.now() - Date.parse(String(data.lastContactAt))).toBeLessThan(600_000);
    await all.home(1).fails(6, all.initWords(1));
    await all.connector(1).stop("SIGTERM");
    const again = await all.home(1).ok(all.initWords(1));
    expect(again.data.keyHex).toBe(data.keyHex);
    expect(again.data.account).toBe(data.account);
    expect((await all.home(1).ok(["connector", "status", "--dir", dir])).data.running).toBe(false);
    await all.start(1);
  });

  test("a second one on the directory refuses; SIGTERM drains and exits 0", async () => {
    const dir = all.dirs[2] ?? "";
    const second = await runConnector(all.home(2), dir).then(
      () => "started",
      (error: Error) => error.message,
    );
    expect(second).toContain('"code":"conflict"');
    expect(await all.connector(2).stop("SIGTERM")).toBe(0);
    await all.start(2);
    expect(await fulfilled("schnorr")).toMatchObject({ status: "fulfilled" });
  });

  test("figures and health are told; no secret is in log, figures or config", async () => {
    const { listen } = all.connector(1);
    const health = await fetch(`${listen}/health`);
    expect([health.status, await health.json()]).toEqual([200, { ready: true, draining: false }]);
    const text = await (await fetch(`${listen}/metrics`)).text();
    expect(text).toContain("keyhold_connector_tasks_total{");
    const secret = readFileSync(join(all.dirs[1] ?? "", "connector.key"));
    const shown = [
      text,
      all.connector(1).log(),
      readFileSync(join(all.dirs[1] ?? "", "connector.json"), "utf8"),
    ].join();
    expect(shown).not.toContain(secret.toString("hex"));
    expect(shown).not.toContain(secret.toString("base64url"));
    for (const line of all.connector(1).log().trim().split("\n")) JSON.parse(line);
  });

  test("one shares the process of its server, and is drained with it", async () => {
    await all.connector(1).stop("SIGTERM");
    await all.fleet.server(1).stop("SIGTERM");
    all.serverWords.set(1, ["--connector", all.dirs[1] ?? ""]);
    await all.fleet.start(1);
    expect(await fulfilled("schnorr")).toMatchObject({ status: "fulfilled" });
    expect((await all.home(1).ok(["connector", "status", "--dir", all.dirs[1] ?? ""])).data.running).toBe(true);
    const before = (await all.home(1).ok(["connector", "status", "--dir", all.dirs[1] ?? ""])).data.counts.answered;
    expect(before).toBeGreaterThan(0);
    expect(await all.fleet.server(1).stop("SIGTERM")).toBe(0);
    expect((await all.home(1).ok(["connector", "status", "--dir", all.dirs[1] ?? ""])).data.running).toBe(false);
  });
});
