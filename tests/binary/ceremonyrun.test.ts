import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { faultCode, inTime, laidTable, openingFlags, recomputed, type Table, untilTrue } from "./ceremonyguests.ts";
import { type Home, keyhold, openWorld, SETUP_MS, type World } from "./world.ts";

/** Ceremonies of whole and of dishonest tables at a running server (docs/protocol.md §10.4). */

setDefaultTimeout(60_000);
let world: World;
let keeper: Home;
beforeAll(async () => {
  world = await openWorld();
  keeper = await world.home("keeper").register("keeper");
}, SETUP_MS);
afterAll(() => world.close());

const laid = (name: string, n: number, ...more: string[]) => laidTable(world, keeper, name, n, ...more);
const BYTES = ["--output", "bytes", "--bytes", "40"];
/** With stages that end soon. */
const quick = (name: string, n: number) => (seconds: number) =>
  laid(`${name}-${seconds}`, n, ...BYTES, "--commit-time", `${seconds}s`, "--reveal-time", `${seconds}s`);

/** A home with a vault that no agent holds open. */
async function homeWithVault(name: string): Promise<Home> {
  const home = world.home(name);
  await home.ok(["init", "--local", "--kdf", "test", ...home.password]);
  return home;
}

/** The transcript as the organiser's command writes it. */
async function transcriptFile({ name }: Table): Promise<string> {
  const file = world.file(`${name}.jsonl`);
  await keeper.ok(["ceremony", "transcript", name, "--out", file]);
  return file;
}

/** `ceremony verify` where there is neither vault nor server. */
const verify = (...argv: string[]) => keyhold(world.dir, ["ceremony", "verify", ...argv, "--json"]);

describe("a whole table", () => {
  test.each([2, 20])("of %i makes the key that the openings give, and no other", async (n) => {
    const table = await laid(`whole-${n}`, n, ...BYTES);
    const state = await table.goOn();
    expect([state.status, state.joins.length, state.reveals.size]).toEqual(["stored", n, n]);
    const made = await recomputed(table, state);
    expect(state.result?.keyHash.toHex()).toBe(made.keyHash.toHex());
    const out = world.file(`${table.name}.value`);
    await keeper.ok(["ceremony", "collect", table.name, "--out", out]);
    expect(made.value).toHaveLength(40);
    expect(readFileSync(out).toHex()).toBe(made.value?.toHex() ?? "");

    const file = await transcriptFile(table);
    const ran = await verify(file, ...openingFlags(world, table), "--pin", world.server.pin);
    expect([ran.code, ran.err]).toEqual([0, ""]);
    const { data } = JSON.parse(ran.out);
    expect(data).toMatchObject({ status: "stored", recomputed: true, pinChecked: true, ownChecked: false });
    expect(data.participants.every(({ opened }: { opened: boolean }) => opened)).toBe(true);
    // with one opening less nobody has the key
    const one = await verify(file, ...openingFlags(world, table).slice(2));
    expect([one.code, JSON.parse(one.out).data.recomputed]).toEqual([0, false]);
    // and an opening that is another participant's is not taken for this one's
    const [, first = ""] = openingFlags(world, table);
    const swapped = world.file("swapped", readFileSync(first, "utf8").replace('"index":1', '"index":2'));
    const refused = await verify(file, "--opening", swapped);
    expect([refused.code, refused.out]).toEqual([8, ""]);
  });
});

describe("an aborted run", () => {
  /** What the organiser, and anyone with the transcript, is told of the end. */
  async function told(table: Table) {
    const { data } = await keeper.ok(["ceremony", "status", table.name]);
    const ran = await verify(await transcriptFile(table));
    expect([ran.code, ran.err]).toEqual([0, ""]);
    const verdict = JSON.parse(ran.out).data;
    expect([data.status, data.result, verdict.status, verdict.result]).toEqual(["aborted", null, "aborted", null]);
    expect(verdict.aborted).toEqual(data.aborted);
    expect((await keeper.fails(6, ["ceremony", "collect", table.name])).message).toContain("aborted");
    return data.aborted;
  }

  test("names who never committed", async () => {
    const { table } = await inTime(quick("absent", 3), async ({ join }) => {
      await join(1);
      await join(3);
    });
    await untilTrue(async () => (await table.state()).status === "aborted");
    expect(await told(table)).toEqual({ reason: "absent", culprits: ["participant 2"] });
    expect(await faultCode(table.join(2))).toBe("conflict");
  });

  test("names who never revealed, though all others have", async () => {
    await inTime(quick("whole", 3), async (table) => expect((await table.goOn()).status).toBe("stored"));
    const { table: other } = await inTime(quick("withheld", 3), async ({ join, reveal }) => {
      for (const index of [1, 2, 3]) await join(index);
      for (const index of [1, 3]) await reveal(index);
    });
    await untilTrue(async () => (await other.state()).status === "aborted");
    expect(await told(other)).toEqual({ reason: "withheld", culprits: ["participant 2"] });
    expect(await faultCode(other.reveal(2))).toBe("conflict");
  });

  test("names who revealed something else than was committed to, with what it signed", async () => {
    const table = await laid("lied", 3, ...BYTES);
    for (const index of [1, 2, 3]) await table.join(index);
    await table.reveal(1);
    const { entry } = await table.reveal(2, table.guest(3).opening);
    expect(entry.body).toMatchObject({ kind: "abort", reason: "lied", culprits: [2] });
    expect(await told(table)).toEqual({ reason: "lied", culprits: ["participant 2"] });
    for (const index of [2, 3]) expect(await faultCode(table.reveal(index))).toBe("conflict");
    // the run that follows draws anew, and is held without the liar's first word
    const next = await laid("lied", 3, "--again", table.id);
    expect((await next.goOn()).status).toBe("stored");
    expect((await next.state()).manifest.draft.previous?.ceremonyId).toBe(table.id);
  });
});

describe("an invite", () => {
  test("comes too late once the organiser has closed the commitments", async () => {
    const table = await laid("late", 3, ...BYTES, "--minimum", "2");
    await table.join(1);
    await table.join(2);
    const late = await homeWithVault("late");
    await keeper.ok(["ceremony", "close", "late", "--yes"]);
    const [, , invite = ""] = table.invites;
    const refused = await late.fails(6, ["ceremony", "join", invite, ...late.password]);
    expect(refused.message).toContain("too late");
    // nor is a vault made for it
    const empty = world.home("late-empty");
    await empty.fails(6, ["ceremony", "join", invite, "--kdf", "test", ...empty.password]);
    for (const part of ["config", "data", "vaults"]) expect(existsSync(join(empty.dir, part))).toBe(false);
    expect(await faultCode(table.join(3))).toBe("stale");
    const state = await table.goOn([3]);
    expect([state.status, state.joins.map(({ join }) => join.index)]).toEqual(["stored", [1, 2]]);
    expect(state.result?.keyHash.toHex()).toBe((await recomputed(table, state)).keyHash.toHex());
  });

  test("that two homes use at once seats one of them, and the other one is told", async () => {
    const table = await laid("twice", 2, ...BYTES);
    const homes = await Promise.all(["first", "second"].map(homeWithVault));
    const [invite = ""] = table.invites;
    const join = (home: Home) => home.run(["ceremony", "join", invite, "--no-wait", "--json", ...home.password]);
    const ends = await Promise.all(homes.map(join));
    expect(ends.map(({ code }) => code).toSorted()).toEqual([6, 9]);
    const winner = ends.findIndex(({ code }) => code === 9);
    const [won, lost] = [homes[winner], homes[1 - winner]] as [Home, Home];
    const { error } = JSON.parse(ends[1 - winner]?.err.trimEnd().split("\n").at(-1) ?? "");
    expect(error).toMatchObject({ code: "conflict" });
    expect(error.hint).toContain("tell the organiser");
    expect((await lost.fails(6, ["ceremony", "join", invite, ...lost.password])).code).toBe("conflict");
    await table.join(2);
    await table.reveal(2);
    await won.ok(["ceremony", "join", "--ceremony", "twice", ...won.password]);
    const file = await transcriptFile(table);
    expect((await won.ok(["ceremony", "verify", file, ...won.password])).data).toMatchObject({ ownIndex: 1 });
    // a vault that had drawn something for the seat sees that this is not in it
    const other = await lost.run(["ceremony", "verify", file, "--json", ...lost.password]);
    expect(other.code === 8 || JSON.parse(other.out).data.ownChecked === false).toBe(true);
  });
});

describe("a transcript", () => {
  test("that was changed, cut or put together anew is refused, with the line", async () => {
    const table = await laid("tampered", 2, ...BYTES);
    await table.goOn();
    const lines = readFileSync(await transcriptFile(table), "utf8")
      .split("\n")
      .slice(0, -1);
    // manifest, two commitments, freeze, two reveals, result, end
    expect(lines).toHaveLength(8);
    /** Another digit or letter at the first place after a mark. */
    const changed = (line: string, mark: string) => {
      const at = line.indexOf(mark) + mark.length;
      expect(at).toBeGreaterThan(mark.length);
      return line.slice(0, at) + (line[at] === "A" ? "B" : line[at] === "1" ? "2" : "A") + line.slice(at + 1);
    };
    const MARKS = ['"seedHash":"', '"commitment":"', '"invitation":"', '"seed":"', '"sealedHash":"', '"t1":"'];
    const tampered: [number, string[]][] = [
      ...MARKS.map((mark, at): [number, string[]] => [
        at + 1,
        lines.map((line, i) => (i === at ? changed(line, mark) : line)),
      ]),
      [7, lines.map((line, i) => (i === 6 ? changed(line, '"keyHash":"') : line))],
      [8, lines.map((line, i) => (i === 7 ? changed(line, '"sha256":"') : line))],
      // without a commitment; with a reveal twice; two commitments exchanged; cut after the reveals
      [2, lines.filter((_, i) => i !== 1)],
      [6, [...lines.slice(0, 5), lines[4] ?? "", ...lines.slice(5)]],
      [2, [lines[0] ?? "", lines[2] ?? "", lines[1] ?? "", ...lines.slice(3)]],
      [7, lines.slice(0, 6)],
    ];
    for (const [at, [number, text]] of tampered.entries()) {
      const ran = await verify(world.file(`tampered-${at}.jsonl`, `${text.join("\n")}\n`));
      expect({ at, code: ran.code, out: ran.out }).toEqual({ at, code: 8, out: "" });
      const { error } = JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "");
      expect({ at, code: error.code, line: /line (\d+)/.exec(error.message)?.[1] }).toEqual({
        at,
        code: "integrity",
        line: String(number),
      });
    }
  });
});
