import { expect, test } from "bun:test";
import { join } from "node:path";
import { figureHolds, figureLine } from "../support/figure.ts";
import { enumeration, welch } from "./enumeration.ts";
import { scoreOf } from "./mutation.ts";

test("failing logins of known, disabled and unknown names run the same statements and Worker jobs", async () => {
  const { wrong, counts } = await enumeration(2);
  expect({ wrong, counts }).toEqual({ wrong: [], counts: ["10 logins"] });
}, 60_000);

test("Welch's t tells a shifted sample from an equal one", () => {
  const noise = (seed: number) => Array.from({ length: 2_000 }, (_, n) => Math.sin(n * 12.9898 + seed) * 10);
  expect(Math.abs(welch(noise(1), noise(2)))).toBeLessThan(4.5);
  const shifted = noise(2).map((value) => value + 2);
  expect(Math.abs(welch(noise(1), shifted))).toBeGreaterThan(4.5);
  // by hand: means 2 and 5, variances 1 and 4
  expect(welch([1, 2, 3], [3, 5, 7])).toBeCloseTo(-3 / Math.sqrt(5 / 3), 10);
});

test("a figure is one line, and fails for a loss, a damage or anything else wrong", () => {
  const good = { name: "kills", ran: "kill -9", counts: ["3 kills"], lost: 0, corrupt: 0, wrong: [] };
  expect(figureLine(good)).toBe("kills: kill -9, 3 kills, 0 lost, 0 corrupt, ok");
  for (const bad of [{ lost: 1 }, { corrupt: 1 }, { wrong: ["why"] }]) {
    expect(figureHolds({ ...good, ...bad })).toBe(false);
    expect(figureLine({ ...good, ...bad })).toContain("FAILED");
  }
});

const soak = (...args: string[]) => {
  const child = Bun.spawnSync([process.execPath, join(import.meta.dir, "..", "..", "scripts", "soak.ts"), ...args]);
  return { code: child.exitCode, out: child.stdout.toString(), err: child.stderr.toString() };
};

test("a figure that is not run says so in its line and fails nothing; an unknown one is refused", () => {
  expect(soak("--short", "--only", "mutation")).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^mutation: not run \(.+\)\n$/),
  });
  for (const args of [["--only", "nothing"], ["--only"], ["--long"]]) {
    expect(soak(...args)).toMatchObject({ code: 2, out: "", err: expect.stringContaining("server-kills") });
  }
});

test("the mutation score counts what tests noticed among all that ran", () => {
  const mutants = ["Killed", "Killed", "Timeout", "Survived", "NoCoverage", "CompileError", "Ignored"];
  const report = { files: { "a.ts": { mutants: mutants.map((status) => ({ status })) } } };
  expect(scoreOf(report)).toEqual({ percent: 60, mutants: 5 });
});
