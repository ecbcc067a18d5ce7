import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type Home, keyhold, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
}, SETUP_MS);
afterAll(() => world.close());

describe("the log", () => {
  /** What stands under a request id. */
  const under = async (requestId: string) => {
    const { data } = await home.ok(["audit", "list", "--request", requestId]);
    return data.items.map((item: Record<string, unknown>) => [item["action"], item["status"]]);
  };

  test("has exactly one entry of each operation under the id that the command returned", async () => {
    await home.ok(["store", "log/a"], { stdin: "1" });
    const path = world.file(
      "log.json",
      JSON.stringify({
        keyhold: "export",
        v: 1,
        items: [{ name: "log/imported", type: "note", value: "v", tags: [], createdAt: null }],
      }),
    );
    const operations: [string[], string][] = [
      [["generate", "log/b"], "secret.generate"],
      [["store", "log/c", "--in-file", path], "secret.store"],
      [["get", "log/a", "--fresh"], "secret.get"],
      [["get", "log/a", "--reveal", "--fresh"], "secret.get"],
      [["rename", "log/b", "log/d"], "secret.update"],
      [["tag", "log/d", "--add", "t"], "secret.update"],
      [["remove", "log/d", "--yes"], "secret.remove"],
      [["restore", "log/d", "--version", "1"], "secret.restore"],
      [["remove", "log/d", "--purge", "--yes"], "secret.purge"],
      [["import", path], "secret.import"],
      [["export", "log/a", "--to", "raw", "--out", world.file("log.raw")], "secret.export"],
      [["list", "--fresh"], "secret.list"],
      [["sync"], "state.sync"],
      [["account", "sessions"], "session.list"],
      [["audit", "list"], "audit.list"],
    ];
    const found: unknown[] = [];
    for (const [argv] of operations) {
      const { requestId } = await home.ok(argv);
      expect([argv, requestId]).toEqual([argv, expect.stringMatching(/^[0-9a-f]{32}$/)]);
      found.push([argv, await under(requestId)]);
    }
    expect(found).toEqual(operations.map(([argv, action]) => [argv, [[action, "ok"]]]));
  });

  test("has a failed entry for an id that is nobody's and for another's, which answer alike", async () => {
    const other = await world.home("neighbour").register("neighbour");
    const { data: theirs } = await other.ok(["generate", "theirs"]);
    const foreign = await home.fails(3, ["get", theirs.keyId, "--fresh"]);
    const fake = await home.fails(3, ["get", "f".repeat(32), "--fresh"]);
    expect(foreign.requestId).toMatch(/^[0-9a-f]{32}$/);
    expect({ ...foreign, requestId: "" }).toEqual({ ...fake, requestId: "" });
    for (const { requestId } of [foreign, fake]) {
      expect(await under(requestId ?? "")).toEqual([["secret.get", "not_found"]]);
    }
    for (const argv of [
      ["remove", theirs.keyId, "--yes"],
      ["history", theirs.keyId],
      ["rename", theirs.keyId, "mine"],
    ]) {
      const one = await home.fails(3, argv);
      const two = await home.fails(3, [argv[0] ?? "", "f".repeat(32), ...argv.slice(2)]);
      expect({ ...one, requestId: "" }).toEqual({ ...two, requestId: "" });
    }
    expect((await other.ok(["get", "theirs", "--fresh"])).data.version).toBe(1);
  });

  test("pages in order, filters, verifies and is exported as JSON Lines and CSV", async () => {
    const { data: all } = await home.ok(["audit", "list"]);
    const seqs = all.items.map(({ seq }: { seq: number }) => seq);
    expect(seqs).toEqual(seqs.map((_: number, i: number) => i + 1));
    const paged: number[] = [];
    let cursor: string | null = null;
    do {
      const more: string[] = cursor === null ? [] : ["--cursor", cursor];
      const { data } = await home.ok(["audit", "list", "--limit", "37", ...more]);
      paged.push(...data.items.map(({ seq }: { seq: number }) => seq));
      cursor = data.next;
    } while (cursor !== null);
    expect(paged.slice(0, seqs.length)).toEqual(seqs);
    const { data: named } = await home.ok(["audit", "list", "log/a", "--action", "secret.store"]);
    expect(named.items).toHaveLength(1);
    expect(named.items[0]).toMatchObject({ name: "log/a", action: "secret.store", status: "ok", signed: true });
    const middle = all.items[10].at;
    const { data: before } = await home.ok(["audit", "list", "--before", middle]);
    const { data: after } = await home.ok(["audit", "list", "--after", middle]);
    const times = ({ items }: { items: { at: string }[] }) => items.map(({ at }) => at);
    expect(times(before)).toEqual(times(all).filter((at) => at < middle));
    expect(times(after).slice(0, 20)).toEqual(
      times(all)
        .filter((at) => at >= middle)
        .slice(0, 20),
    );
    while ((await home.ok(["audit", "verify"])).data.log === null) await Bun.sleep(100);
    const { data: verified } = await home.ok(["audit", "verify"]);
    expect(verified).toEqual({
      size: expect.any(Number),
      headHex: expect.stringMatching(/^[0-9a-f]{64}$/),
      verifiedFrom: expect.any(Number),
      ok: true,
      log: { size: expect.any(Number), rootHex: expect.stringMatching(/^[0-9a-f]{64}$/), index: expect.any(Number) },
    });
    const lines = (await home.run(["audit", "export"])).out.trimEnd().split("\n");
    expect(lines.length).toBeGreaterThanOrEqual(all.items.length);
    const kinds = lines.map((line) => JSON.parse(line).kind);
    expect([kinds[0], kinds[1], kinds.at(-1)]).toEqual(["header", "log", "end"]);
    const csv = (await home.run(["audit", "export", "--to", "csv"])).out;
    expect(csv.split("\r\n")[0]).toStartWith("seq,at,action,status");
  });

  test("an export verifies without server, vault and password, and a changed or cut one does not", async () => {
    const path = world.file("audit.jsonl");
    // the log takes positions in once a second
    while ((await home.ok(["audit", "verify"])).data.log === null) await Bun.sleep(100);
    const { data: made } = await home.ok(["audit", "export", "--out", path]);
    const nowhere = world.file("nowhere");
    mkdirSync(nowhere);
    const verify = (file: string) => keyhold(nowhere, ["audit", "verify", "--file", file, "--json"]);
    const good = await verify(path);
    expect([good.code, good.err]).toEqual([0, ""]);
    const { data } = JSON.parse(good.out);
    expect(data).toMatchObject({ size: made.count, verifiedFrom: 0, ok: true, pin: world.server.pin });
    expect(data.testimony + data.signed.entries).toBe(made.count);
    expect(data.log.size).toBeGreaterThan(0);
    const words = await keyhold(nowhere, ["audit", "verify", "--file", path]);
    expect(words.out).toContain("the export is whole and unchanged");
    const text = readFileSync(path, "utf8");
    const lines = text.split("\n");
    const at = lines.findIndex((line) => line.includes('"action":"secret.store"'));
    const edited = world.file("edited.jsonl", text.replace('"action":"secret.store"', '"action":"secret.purge"'));
    const bad = await verify(edited);
    expect([bad.code, JSON.parse(bad.err.trim()).error.message]).toEqual([
      8,
      `this is not an unchanged export: line ${at + 1}`,
    ]);
    const cut = await verify(world.file("cut.jsonl", `${lines.slice(0, -2).join("\n")}\n`));
    expect([cut.code, JSON.parse(cut.err.trim()).error.message]).toEqual([
      8,
      `this export is cut off after line ${lines.length - 2}`,
    ]);
    // of a file there is no server to blame
    expect(JSON.parse(cut.err.trim()).error.hint).not.toContain("server");
    expect((await verify(world.file("none.jsonl"))).code).toBe(3);
    for (const none of [nowhere, "/dev/zero"]) expect((await verify(none)).code).toBe(2);
    expect((await home.run(["audit", "export", "--action", "secret.get"])).code).toBe(2);
    expect((await home.run(["audit", "export", "--action", "secret.get", "--to", "csv"])).code).toBe(0);
  });

  test("server check finds a row that was altered behind the server's back", async () => {
    await home.ok(["logout"]);
    const dir = world.file("server");
    await world.server.stop();
    const { Database } = await import("bun:sqlite");
    const db = new Database(`${dir}/keyhold.db`);
    const before = readFileSync(`${dir}/keyhold.db`);
    db.exec("UPDATE audit_entry SET status = 'denied' WHERE seq = 5");
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    db.close();
    const checked = await keyhold(home.dir, ["server", "check", "--dir", dir, "--json"]);
    expect([checked.code, checked.err]).toEqual([
      8,
      expect.stringMatching(/the log (breaks at entry [56]|does not end at its head)/),
    ]);
    writeFileSync(`${dir}/keyhold.db`, before);
    const mended = await keyhold(home.dir, ["server", "check", "--dir", dir, "--json"]);
    expect(mended.code).toBe(0);
  });
});
