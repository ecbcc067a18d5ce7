import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Figure } from "../support/figure.ts";

const PROJECT = join(import.meta.dir, "..", "..");
const GOAL_PERCENT = 85;
const SCRATCH = join(PROJECT, ".stryker-tmp");
const REPORT = join(SCRATCH, "mutation.json");
/** Detected, as Stryker counts: what a test noticed, or what no longer ended. */
const DETECTED = new Set(["Killed", "Timeout"]);
const UNDETECTED = new Set(["Survived", "NoCoverage"]);

interface Report {
  readonly files: Readonly<Record<string, { readonly mutants: readonly { readonly status: string }[] }>>;
}

/** Share of changed programs that a test notices, in percent, and of how many. */
export function scoreOf({ files }: Report): { percent: number; mutants: number } {
  const all = Object.values(files).flatMap(({ mutants }) => mutants.map(({ status }) => status));
  const detected = all.filter((status) => DETECTED.has(status)).length;
  const undetected = all.filter((status) => UNDETECTED.has(status)).length;
  const mutants = detected + undetected;
  return { percent: mutants === 0 ? 0 : (100 * detected) / mutants, mutants };
}

function figure(rest: Partial<Figure>): Figure {
  const base = { name: "mutation", ran: "mutants of src/crypto and src/protocol", counts: [], wrong: [] };
  return { ...base, lost: 0, corrupt: 0, ...rest };
}

/** Mutation score of crypto/ and protocol/ by Stryker, whose mutants are judged by those layers' own tests. */
export async function mutationScore(short: boolean, progress: (text: string) => void): Promise<Figure> {
  if (short) return figure({ notRun: "it takes hours; without --short it runs" });
  const stryker = Bun.which("stryker", {
    PATH: `${join(PROJECT, "node_modules", ".bin")}:${process.env["PATH"] ?? ""}`,
  });
  if (stryker === null)
    return figure({ notRun: "Stryker is not installed: npm install --global @stryker-mutator/core" });
  const config = join(PROJECT, ".stryker-soak.json");
  const settings = {
    mutate: ["src/crypto/**/*.ts", "src/protocol/**/*.ts"],
    testRunner: "command",
    commandRunner: { command: `${process.execPath} test --bail tests/crypto tests/protocol` },
    // the compiler's own settings are none that Stryker reads
    tsconfigFile: "no-tsconfig.json",
    reporters: ["json"],
    jsonReporter: { fileName: REPORT },
    tempDirName: SCRATCH,
    checkers: [],
    timeoutMS: 60_000,
    disableTypeChecks: false,
    ignorePatterns: ["dist", "bench", "docs"],
  };
  writeFileSync(config, JSON.stringify(settings));
  try {
    progress("mutation: this takes hours");
    const child = Bun.spawn([stryker, "run", config], {
      cwd: PROJECT,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "inherit",
    });
    await child.exited;
    if (!existsSync(REPORT)) return figure({ wrong: ["Stryker made no report"] });
    const { percent, mutants } = scoreOf(JSON.parse(readFileSync(REPORT, "utf8")));
    return figure({
      counts: [`${mutants} mutants`, `score ${percent.toFixed(1)}%`],
      wrong: percent >= GOAL_PERCENT ? [] : [`the score is below ${GOAL_PERCENT}%`],
    });
  } finally {
    rmSync(config, { force: true });
    rmSync(SCRATCH, { recursive: true, force: true });
  }
}
