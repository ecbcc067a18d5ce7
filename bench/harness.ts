import { availableParallelism, cpus } from "node:os";
import { dirname, join } from "node:path";

/** What the figures share: rounds, medians, percentiles, pinning, one line a figure. */

const PROJECT = dirname(import.meta.dir);

/** One number of a figure, with the goal that docs/performance.md names. */
export interface Measured {
  readonly what: string;
  readonly unit: "/s" | "ms" | "MB" | "%" | "×" | "µs" | "";
  readonly value: number;
  readonly goal?: { readonly atLeast: number } | { readonly atMost: number };
  /** The same of the peer, from the same run. */
  readonly peer?: { readonly name: string; readonly value: number };
}

/** The middle value; of an even count the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** The smallest value that `percent` of all do not exceed (nearest rank). */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.ceil((percent / 100) * sorted.length);
  return sorted[Math.max(0, rank - 1)] ?? Number.NaN;
}

/** Half the distance between the quartiles in percent of the median: how much a run was disturbed. */
export function spread(values: readonly number[]): number {
  return (50 * (percentile(values, 75) - percentile(values, 25))) / median(values);
}

/** Runs ours and the peer's work in turn, so that both meet the same disturbances. */
export async function inTurn<T, U>(
  rounds: number,
  ours: (round: number) => Promise<T>,
  peer: ((round: number) => Promise<U>) | null,
): Promise<{ ours: T[]; peer: U[] }> {
  const out: { ours: T[]; peer: U[] } = { ours: [], peer: [] };
  for (let round = 0; round < rounds; round++) {
    out.ours.push(await ours(round));
    if (peer) out.peer.push(await peer(round));
  }
  return out;
}

/** Milliseconds that one piece of work takes. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** Median duration in ms of `rounds` runs after one that does not count. */
export async function medianOf(rounds: number, work: () => Promise<unknown>): Promise<number> {
  await work();
  const all: number[] = [];
  for (let round = 0; round < rounds; round++) all.push(await timed(work));
  return median(all);
}

/** The core for what is measured and the one for the load; null on a machine with one core or without `taskset`. */
export const CORES: { readonly server: string; readonly load: string } | null =
  availableParallelism() > 1 && Bun.which("taskset") ? { server: "0", load: "1" } : null;

/** The command line held to the measured core. */
export function onServerCore(command: readonly string[]): string[] {
  return CORES ? ["taskset", "-c", CORES.server, ...command] : [...command];
}

/** Moves this process, which makes the load, off the measured core. */
export function leaveServerCore(): void {
  if (CORES) Bun.spawnSync(["taskset", "-a", "-c", "-p", CORES.load, String(process.pid)], { stdout: "ignore" });
}

/** The executable that is measured: `KEYHOLD_BIN`, else dist/keyhold. */
export async function keyhold(): Promise<string> {
  const path = process.env["KEYHOLD_BIN"] ?? join(PROJECT, "dist", "keyhold");
  if (await Bun.file(path).exists()) return path;
  throw new Error("compile first: bun scripts/compile.ts");
}

/** Numbers as people read them: three digits that count. */
export function shown(value: number): string {
  if (!Number.isFinite(value)) return "?";
  if (value >= 1_000) return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, ",");
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function reached({ value, goal }: Measured): boolean | null {
  if (!goal) return null;
  return "atLeast" in goal ? value >= goal.atLeast : value <= goal.atMost;
}

function phrase(one: Measured): string {
  const unit = one.unit === "" || one.unit === "/s" || one.unit === "%" || one.unit === "×" ? one.unit : ` ${one.unit}`;
  const goal = one.goal ? ` (goal ${"atLeast" in one.goal ? `≥ ${one.goal.atLeast}` : `≤ ${one.goal.atMost}`})` : "";
  const mark = reached(one) === false ? " MISSED" : "";
  const ratio = one.peer && one.peer.value > 0 ? ` = ${shown(one.value / one.peer.value)} × ${one.peer.name}` : "";
  return `${one.what} ${shown(one.value)}${unit}${goal}${mark}${ratio}`;
}

/**
 * Prints a figure: one line for people, `F1 …`, and with `--json` a second one for programs.
 *
 * @param notes What was measured how, and which peer was left out for what reason.
 */
export function report(figure: string, title: string, measured: readonly Measured[], notes: readonly string[]): void {
  const text = `${figure} ${title}: ${measured.map(phrase).join("; ")}`;
  process.stdout.write(`${text}${notes.length > 0 ? ` [${notes.join("; ")}]` : ""}\n`);
  if (!process.argv.includes("--json")) return;
  const machine = { cores: availableParallelism(), model: cpus()[0]?.model ?? "unknown", pinned: CORES !== null };
  const items = measured.map((one) => ({ ...one, reached: reached(one) }));
  process.stdout.write(`${JSON.stringify({ v: 1, figure, title, machine, measured: items, notes })}\n`);
}
