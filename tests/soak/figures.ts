import { availableParallelism } from "node:os";
import { join } from "node:path";
import { type PowerLossResult, powerLossFigure, storeLoss, vaultLoss } from "../durability/powerloss.ts";
import { postgresCrashes, serverKills } from "../durability/serverkills.ts";
import { vaultKills } from "../durability/vaultkills.ts";
import { malformedRequests } from "../hostile-input/engine.ts";
import { type FederationStretch, federationFigure } from "../simulation/federationsimulate.ts";
import { simulationFigure } from "../simulation/simulate.ts";
import type { Stretch } from "../simulation/stretch.ts";
import type { Figure } from "../support/figure.ts";
import { hasPostgres } from "../support/postgres.ts";
import { enumeration, loginTiming } from "./enumeration.ts";
import { mutationScore } from "./mutation.ts";
import { suite } from "./suite.ts";

/** Says how far a long run is. */
export type Progress = (text: string) => void;

/** Runs one figure in the full form, or in the short one. */
export type Run = (short: boolean, progress: Progress) => Promise<Figure>;

const TESTS = join(import.meta.dir, "..");

const missing = (name: string, why: string): Figure => ({
  name,
  ran: "",
  counts: [],
  lost: 0,
  corrupt: 0,
  wrong: [],
  notRun: why,
});

const every = (step: number, progress: Progress, what: string) => (done: number, acknowledged?: number) => {
  if (done % step !== 0) return;
  progress(`${what}: ${done}${acknowledged === undefined ? "" : `, ${acknowledged} acknowledged`}`);
};

const killServer: Run = (short, progress) =>
  serverKills("server-kills", {
    kills: short ? 12 : 1_000,
    accounts: short ? 4 : 8,
    seed: 1,
    writeMs: short ? [20, 400] : [20, 2_000],
    least: short ? 100 : 100_000,
    progress: every(50, progress, "kills"),
  });

const crashPostgres: Run = async (short, progress) => {
  if (!hasPostgres) return missing("postgres-crashes", "PostgreSQL is not installed");
  return postgresCrashes("postgres-crashes", {
    kills: short ? 5 : 50,
    accounts: short ? 3 : 6,
    seed: 2,
    writeMs: short ? [100, 500] : [200, 3_000],
    least: short ? 40 : 2_000,
    progress: every(10, progress, "crashes"),
  });
};

const hasStrace = () => Bun.which("strace") !== null;

const losePower: Run = async (short, progress) => {
  if (!hasStrace()) return missing("power-loss", "strace is not installed");
  const runs: PowerLossResult[] = [];
  const done = (run: PowerLossResult) => {
    runs.push(run);
    progress(`images: ${runs.reduce((sum, { images }) => sum + images, 0)}`);
  };
  if (short) done(await storeLoss({ transactions: 130, writers: 3, images: 250, seed: 1 }));
  else {
    for (let seed = 0; seed < 10; seed++) {
      done(await storeLoss({ transactions: 150, writers: 1 + (seed % 4), images: 750, seed: 100 + seed }));
    }
    // long enough for the log of SQLite to be carried into its database in the middle
    for (const seed of [1, 2]) done(await storeLoss({ transactions: 700, writers: 4, images: 250, seed: 200 + seed }));
  }
  const rounds = short ? 1 : 4;
  for (let seed = 0; seed < rounds; seed++) {
    done(await vaultLoss({ rounds: short ? 20 : 60, images: short ? 250 : 500, seed: 300 + seed }));
  }
  return powerLossFigure("power-loss", "recovered images of store and vault", runs);
};

/** Turns a control round: it fails unless something is lost. */
const losePowerControl: Run = async (short) => {
  if (!hasStrace()) return missing("power-loss-control", "strace is not installed");
  const images = short ? 60 : 300;
  const store = await storeLoss({ transactions: 130, writers: 3, images, seed: 1, control: "relaxed" });
  const vault = await vaultLoss({ rounds: 20, images, seed: 1, control: "lying" });
  const wrong = [
    ...(store.losing === 0 ? ["nothing was lost with synchronous=NORMAL"] : []),
    ...(vault.losing === 0 ? ["nothing was lost without the vault's syncs"] : []),
  ];
  const lossy = (run: PowerLossResult) => `${run.losing} of ${run.images} images lose what was acknowledged`;
  return {
    name: "power-loss-control",
    ran: "the same with synchronous=NORMAL, and a vault without syncs: both must lose",
    counts: [`store: ${lossy(store)}`, `vault: ${lossy(vault)}`],
    lost: 0,
    corrupt: 0,
    wrong,
  };
};

const killVault: Run = (short, progress) =>
  vaultKills({ kills: short ? 50 : 1_000, seed: 4, withinMs: 25, progress: every(100, progress, "kills") });

/** Seeds shared out among processes: what each of them prints, as JSON. */
async function stretches<T>(file: string, short: boolean, seeds: number, bugSeeds: number): Promise<readonly T[]> {
  const processes = short ? 1 : availableParallelism();
  const share = Math.ceil(seeds / processes);
  return Promise.all(
    Array.from({ length: processes }, async (_, number) => {
      const to = Math.min(seeds, (number + 1) * share);
      // the planted bugs are looked for once
      const args = [number * share, to, number === 0 ? bugSeeds : 0].map(String);
      const child = Bun.spawn([process.execPath, join(TESTS, "simulation", file), ...args], {
        stdin: "ignore",
        stdout: "pipe",
        stderr: short ? "ignore" : "inherit",
      });
      const text = await child.stdout.text();
      if ((await child.exited) !== 0) throw new Error("a simulating process failed");
      return JSON.parse(text) as T;
    }),
  );
}

const simulated: Run = async (short) => {
  const [seeds, bugSeeds] = short ? [20, 60] : [10_000, 200];
  const parts = await stretches<Stretch>("stretch.ts", short, seeds, bugSeeds);
  return simulationFigure(parts.map((stretch) => ({ ...stretch, bugs: new Map(stretch.bugs) })));
};

const federated: Run = async (short) => {
  const [seeds, bugSeeds] = short ? [40, 100] : [10_000, 1_000];
  return federationFigure(await stretches<FederationStretch>("federationstretch.ts", short, seeds, bugSeeds));
};

const malformed: Run = async (short, progress) => {
  const count = short ? 10_000 : 100_000;
  const run = await malformedRequests({ count, seed: 20_260_101, progress: every(10_000, progress, "requests") });
  const { sent, fiveHundreds, restarts, memoryGrowthPercent, faults } = run;
  const growth = memoryGrowthPercent.toFixed(1);
  return {
    name: "malformed",
    ran: "malformed requests at TLS, HTTP, JSON and frame level",
    counts: [`${sent} requests`, `${fiveHundreds} answers of 5xx`, `${restarts} restarts`, `memory +${growth}%`],
    lost: 0,
    corrupt: 0,
    wrong: [
      ...(fiveHundreds + restarts + faults.length > 0 ? ["answered by 5xx, a fault or a restart"] : []),
      ...(memoryGrowthPercent >= 10 ? ["memory grows"] : []),
      ...(sent < count ? ["not all were sent"] : []),
    ],
  };
};

const timing: Run = (short, progress) =>
  loginTiming(short ? 500 : 100_000, (done) => every(10_000, progress, "pairs")(done));

/** Every figure of durability and hostile input, in the order in which they run. */
export const FIGURES: Readonly<Record<string, Run>> = {
  "server-kills": killServer,
  "postgres-crashes": crashPostgres,
  "power-loss": losePower,
  "power-loss-control": losePowerControl,
  "vault-kills": killVault,
  simulation: simulated,
  federation: federated,
  malformed,
  enumeration: (short) => enumeration(short ? 2 : 20),
  timing,
  "log-mutations": () => suite("log-mutations", "mutations of stored log data", ["server/checklog.test.ts"]),
  wycheproof: () => suite("wycheproof", "Wycheproof sets", ["crypto/wycheproof.test.ts"]),
  mutation: mutationScore,
};
