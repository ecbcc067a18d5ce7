import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Licence, licenceOf, type Package, readLock } from "./dependencies.ts";

const PROJECT = dirname(import.meta.dir);
const NOTICE = join(PROJECT, "NOTICE");

/** SPDX identifiers of the licences that dependencies may have (docs/supply-chain.md). */
export const ALLOWED: ReadonlySet<string> = new Set([
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "BlueOak-1.0.0",
  "CC0-1.0",
  "ISC",
  "MIT",
  "Unlicense",
]);

/** True if an SPDX expression (names, AND, OR, brackets) can be met with allowed licences alone. */
export function isAllowed(expression: string): boolean {
  const words = expression.match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const one = (): boolean => {
    const word = words[at++];
    if (word !== "(") return word !== undefined && ALLOWED.has(word);
    const inner = either();
    return words[at++] === ")" && inner;
  };
  const both = (): boolean => {
    let met = one();
    while (words[at] === "AND") {
      at += 1;
      met = one() && met;
    }
    return met;
  };
  const either = (): boolean => {
    let met = both();
    while (words[at] === "OR") {
      at += 1;
      met = both() || met;
    }
    return met;
  };
  return either() && at === words.length;
}

/** What is wrong with the licences: a line for each package that states none, a forbidden one, or gives no text. */
export function complaints(packages: readonly (readonly [Package, Licence])[]): readonly string[] {
  return packages.flatMap(([{ name, version, runtime }, { expression, texts }]) => [
    ...(isAllowed(expression) ? [] : [`${name} ${version}: licence ${JSON.stringify(expression)} is not allowed`]),
    ...(runtime && texts.length === 0 ? [`${name} ${version}: it is in the executable and has no licence text`] : []),
  ]);
}

/** Opens the part of NOTICE that is made from bun.lock and node_modules. */
export const MARKER = "---- Libraries in the executable, with their licences (bun run licences --write) ----";

/** The made part of NOTICE: each licence text once, below the packages that it covers. */
export function noticeOf(packages: readonly (readonly [Package, Licence])[]): string {
  const covered = new Map<string, string[]>();
  for (const [{ name, version }, { expression, texts }] of packages) {
    const text = texts.join("\n\n");
    covered.set(text, [...(covered.get(text) ?? []), `${name} ${version} (${expression})`]);
  }
  const parts = [...covered].map(([text, names]) => `${[...new Set(names)].join("\n")}\n\n${text}\n`);
  return `${MARKER}\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

/** Every package that is installed on all platforms, with its licence. */
export function installed(): readonly (readonly [Package, Licence])[] {
  return readLock().packages.map((one) => [one, licenceOf(one)] as const);
}

/** NOTICE as it should be: its written part as it is, its made part anew. */
export function wholeNotice(current: string): string {
  const at = current.indexOf(MARKER);
  const written = (at < 0 ? current : current.slice(0, at)).trimEnd();
  return `${written}\n\n${noticeOf(installed().filter(([{ runtime }]) => runtime))}`;
}

if (import.meta.main) {
  const wrong = [...complaints(installed())];
  const current = readFileSync(NOTICE, "utf8");
  const whole = wholeNotice(current);
  if (process.argv.includes("--write")) writeFileSync(NOTICE, whole);
  else if (current !== whole) wrong.push("NOTICE is not up to date: bun run licences --write");
  for (const line of wrong) process.stderr.write(`licences: ${line}\n`);
  process.exitCode = wrong.length > 0 ? 1 : 0;
}
