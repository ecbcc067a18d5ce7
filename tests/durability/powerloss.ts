import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { emptyDisk } from "../support/diskimage.ts";
import type { Figure } from "../support/figure.ts";
import { type Seeded, seeded } from "../support/seeded.ts";
import { type DiskStep, traceDisk } from "../support/strace.ts";
import { type Recovered, recoverStore } from "./storecheck.ts";
import { recoverVault } from "./vaultcheck.ts";

export interface PowerLossResult {
  readonly images: number;
  /** Images in which something acknowledged was gone. */
  readonly losing: number;
  readonly lost: number;
  readonly corrupt: readonly string[];
  readonly syncs: number;
  readonly acknowledged: number;
}

/** Recovers one image: `said` are the lines that the process had written before the power went. */
export type Recover = (directory: string, said: readonly string[]) => Promise<Recovered>;

/**
 * Builds disks as a power loss at random points of a trace may leave them, and recovers each.
 *
 * @param directory The directory that was traced.
 */
export async function recoverImages(
  steps: readonly DiskStep[],
  directory: string,
  images: number,
  random: Seeded,
  recover: Recover,
): Promise<PowerLossResult> {
  const scratch = mkdtempSync(join(tmpdir(), "keyhold-image-"));
  const points = cutPoints(steps, images, random);
  const disk = emptyDisk();
  const corrupt: string[] = [];
  let [lost, losing, made] = [0, 0, 0];
  try {
    for (const [at, step] of [...steps, null].entries()) {
      for (; points[made] === at; made++) {
        const target = join(scratch, String(made));
        mkdirSync(target, { mode: 0o700 });
        for (const [path, bytes] of disk.image(random)) {
          writeFileSync(join(target, relative(directory, path)), bytes, { mode: 0o600 });
        }
        const found = await recover(target, disk.said);
        if (found.lost.length > 0) losing += 1;
        lost += found.lost.length;
        corrupt.push(...found.corrupt.slice(0, 1).map((text) => `image ${made} at step ${at}: ${text}`));
        rmSync(target, { recursive: true, force: true });
      }
      if (step) disk.apply(step);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  const syncs = steps.filter(({ kind }) => kind === "sync" || kind === "sync-directory").length;
  return { images: made, losing, lost, corrupt, syncs, acknowledged: disk.said.length };
}

/** Where the power goes: anywhere, and more often right after something was acknowledged or before a sync ends. */
function cutPoints(steps: readonly DiskStep[], images: number, random: Seeded): readonly number[] {
  const said = steps.flatMap((step, at) => (step.kind === "say" ? [at + 1] : []));
  const syncs = steps.flatMap((step, at) => (step.kind.startsWith("sync") ? [at] : []));
  const points = Array.from({ length: images }, () => {
    const kind = random.int(3);
    if (kind === 0 && said.length > 0) return random.pick(said);
    if (kind === 1 && syncs.length > 0) return random.pick(syncs);
    return random.int(steps.length + 1);
  });
  return points.sort((a, b) => a - b);
}

export interface StoreLossOptions {
  readonly transactions: number;
  readonly writers: number;
  readonly images: number;
  readonly seed: number;
  /** `relaxed` leaves the commits unsynced; `lying` is a disk whose syncs do nothing. Both must lose. */
  readonly control?: "relaxed" | "lying";
}

const CHILD = (name: string) => join(import.meta.dir, name);

/** Runs `work` in a fresh directory whose path holds no symbolic link. */
async function inScratch<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "keyhold-powerloss-")));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Power loss under the embedded store: a traced process commits, disks are made from the trace and recovered. */
export function storeLoss(options: StoreLossOptions): Promise<PowerLossResult> {
  const { transactions, writers, images, seed, control } = options;
  return inScratch(async (scratch) => {
    const directory = join(scratch, "data");
    mkdirSync(directory);
    const args = [join(directory, "keyhold.db"), String(transactions), String(writers), control ?? ""];
    const steps = await traceDisk({
      command: [process.execPath, CHILD("storewriter.ts"), ...args],
      log: join(scratch, "strace"),
      directory,
      withoutSyncs: control === "lying",
    });
    return recoverImages(steps, directory, images, seeded(seed), (image, said) =>
      recoverStore(join(image, "keyhold.db"), said.map(Number), transactions),
    );
  });
}

export interface VaultLossOptions {
  readonly rounds: number;
  readonly images: number;
  readonly seed: number;
  /** A disk whose syncs do nothing, or the same run as if directories were never synced: both must lose. */
  readonly control?: "lying" | "names";
}

/** Power loss under the vault file: temporary file, sync, rename, sync of the directory. */
export function vaultLoss(options: VaultLossOptions): Promise<PowerLossResult> {
  const { rounds, images, seed, control } = options;
  return inScratch(async (scratch) => {
    const directory = join(scratch, "data");
    mkdirSync(directory, { mode: 0o700 });
    const keyFile = join(scratch, "key");
    const steps = await traceDisk({
      command: [process.execPath, CHILD("vaultwriter.ts"), join(directory, "vault"), keyFile, String(rounds)],
      log: join(scratch, "strace"),
      directory,
      withoutSyncs: control === "lying",
    });
    const key = Uint8Array.fromHex(readFileSync(keyFile, "utf8"));
    const seen = control === "names" ? steps.filter(({ kind }) => kind !== "sync-directory") : steps;
    return recoverImages(seen, directory, images, seeded(seed), (image, said) =>
      recoverVault(join(image, "vault"), key, said),
    );
  });
}

/** Adds runs of one kind up to a figure. */
export function powerLossFigure(name: string, ran: string, runs: readonly PowerLossResult[]): Figure {
  const sum = (of: (run: PowerLossResult) => number) => runs.reduce((total, run) => total + of(run), 0);
  const corrupt = runs.flatMap((run) => run.corrupt);
  const [images, acknowledged, syncs] = [sum((r) => r.images), sum((r) => r.acknowledged), sum((r) => r.syncs)];
  return {
    name,
    ran,
    counts: [`${images} images`, `${acknowledged} acknowledged`, `${syncs} syncs`],
    lost: sum((run) => run.lost),
    corrupt: corrupt.length,
    wrong: corrupt,
  };
}
