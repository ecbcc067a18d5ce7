import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { onTerminal } from "./terminal.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(90_000);
let world: World;
let keeper: Home;
beforeAll(async () => {
  world = await openWorld();
  keeper = await world.home("keeper").register("keeper");
}, SETUP_MS);
afterAll(() => world.close());

const PASSWORD = "a heron in the marmalade";

/** Opens a ceremony for Ann and Ben; the invites by name. */
async function opened(name: string, ...more: string[]): Promise<Record<string, string>> {
  const seats = ["--participant", "ann", "--participant", "ben"];
  const { data } = await keeper.ok(["ceremony", "open", name, "--purpose", "seal our backups", ...seats, ...more]);
  return Object.fromEntries(data.invites.map((one: { name: string; invite: string }) => [one.name, one.invite]));
}

/** A home with nothing in it, not even a vault. */
function emptyHome(name: string): string {
  const dir = join(world.dir, name);
  mkdirSync(dir, { mode: 0o700 });
  return dir;
}

const QUESTIONS = [
  { expect: "Password of the new vault", type: `${PASSWORD}\r` },
  { expect: "Again", type: `${PASSWORD}\r` },
  { expect: "Does the organiser see the same six words?", type: "\r" },
  { expect: "Your function", type: "\r" },
  { expect: "Add something of your own?", type: "\u001b[B\r" },
  { expect: "Type words", type: "the heron ate my umbrella\r" },
  { expect: /about \d+ bits[\s\S]*More of it/, type: "\r" },
  { expect: "Add something more?", type: "\r" },
  { expect: "Commit now?", type: "\r" },
];

/** A second participant, by the same words without questions. */
async function unasked(name: string, invite: string): Promise<Home> {
  const home = world.home(name);
  await home.ok(["init", "--local", "--kdf", "test", ...home.password]);
  await home.ok(["unlock", ...home.password]);
  await home.ok(["ceremony", "join", invite]);
  return home;
}

describe("somebody who has never used keyhold", () => {
  test("takes part from an empty home, and leaves in between", async () => {
    const { ann = "", ben = "" } = await opened("backup-key", "--output", "bytes");
    const { words } = (await keeper.ok(["ceremony", "status", "backup-key"])).data;
    const dir = emptyHome("ann");
    const cut = await onTerminal(
      dir,
      ["ceremony", "join", "--kdf", "test"],
      [
        { expect: "Paste the invite", type: `keyhold ceremony join ${ann}\r` },
        ...QUESTIONS,
        { expect: /ann\s+has committed\s+\(you\)/, type: "\u0003" },
      ],
    );
    expect([cut.code, cut.shown.includes("keyhold ceremony join --ceremony backup-key goes on")]).toEqual([130, true]);
    const said = Bun.stripANSI(cut.shown).replaceAll(/\s*\r?\n[│ ]*/g, " ");
    for (const text of [
      "This computer has no keyhold vault yet",
      "seal our backups",
      "What the server learns",
      words.join(" "),
      "are enough alone",
    ]) {
      expect(said).toContain(text);
    }
    for (const secret of [PASSWORD, "umbrella"]) expect(cut.shown).not.toContain(secret);

    const going = onTerminal(
      dir,
      ["ceremony", "join", "--ceremony", "backup-key"],
      [{ expect: "Password", type: `${PASSWORD}\r` }, { expect: "Done: the key is made" }],
    );
    const other = await unasked("ben", ben);
    const { code, shown } = await going;
    expect([code, shown.includes("You have committed before")]).toEqual([0, true]);
    expect(shown.replaceAll(/\s+/g, " ")).toContain("Yours is one of 2 contributions");
    expect(shown).toContain("keyhold ceremony verify backup-key.ceremony");

    const [file, mine, theirs] = ["t", "a", "b"].map((name) => join(world.dir, name)) as [string, string, string];
    const password = join(world.dir, "ann.typed");
    writeFileSync(password, PASSWORD, { mode: 0o600 });
    const given = ["--password-file", password];
    const person: Home = { ...world.home("ann"), dir };
    await person.ok(["ceremony", "transcript", "backup-key", "--out", file, ...given]);
    await person.ok(["ceremony", "opening", "backup-key", "--out", mine, ...given]);
    await other.ok(["ceremony", "opening", "backup-key", "--out", theirs]);
    const whole = await other.ok(["ceremony", "verify", file, "--opening", mine, "--opening", theirs]);
    expect(whole.data).toMatchObject({ recomputed: true, ownIndex: 2, status: "stored" });
    expect((await other.fails(8, ["ceremony", "verify", mine])).code).toBe("integrity");
    await keeper.ok(["ceremony", "collect", "backup-key"]);
    expect((await keeper.run(["read", "backup-key"])).bytes.length).toBe(32);
  });

  test("leaves before the commitment with nothing done, and makes no vault for a damaged invite", async () => {
    const { ann = "" } = await opened("second", "--output", "bytes");
    const dir = emptyHome("early");
    const damaged = await onTerminal(dir, ["ceremony", "join", `${ann.slice(0, -3)}aaa`], []);
    expect([damaged.code, damaged.shown.includes("this is no whole invite")]).toEqual([2, true]);
    const cancelled = await onTerminal(
      dir,
      ["ceremony", "join", ann, "--kdf", "test"],
      [{ expect: "Password of the new vault", type: "\u0003" }],
    );
    expect([cancelled.code, cancelled.shown.includes("nothing was done")]).toEqual([130, true]);
    expect(existsSync(join(dir, "data", "vaults"))).toBe(false);
    const { seats } = (await keeper.ok(["ceremony", "status", "second"])).data;
    expect(seats.map(({ state }: { state: string }) => state)).toEqual(["waiting", "waiting"]);
  });

  test("is named where somebody does not come back, and so is the run that follows", async () => {
    const home = world.home("cleo");
    await home.ok(["init", "--local", "--kdf", "test", ...home.password]);
    await home.ok(["unlock", ...home.password]);
    let name = "";
    let ben = "";
    let culprits: string[] = [];
    // a machine that takes longer to commit than the stage lasts gets a longer one
    for (let seconds = 2; seconds < 60; seconds *= 4) {
      name = `third-${seconds}`;
      const invites = await opened(name, "--output", "bytes", "--commit-time", `${seconds}s`, "--reveal-time", "1s");
      ben = invites["ben"] ?? "";
      const waiting = await home.run(["ceremony", "join", invites["ann"] ?? "", "--json"]);
      expect([waiting.code, waiting.out]).toEqual([11, ""]);
      culprits = JSON.parse(waiting.err.trimEnd().split("\n").at(-1) ?? "").error.culprits ?? [];
      if (!culprits.includes("ann")) break;
    }
    expect(culprits).toEqual(["ben"]);
    const late = await home.fails(11, ["ceremony", "join", ben]);
    expect(late.message).toContain("too few committed in time");
    const again = (await keeper.ok(["ceremony", "open", name, "--again", name])).data;
    expect(again.info).toMatchObject({ purpose: "seal our backups", output: { kind: "bytes", length: 32 } });
    expect(again.info.seats.map(({ name }: { name: string }) => name)).toEqual(["ann", "ben"]);
  });
});
