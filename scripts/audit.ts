import { dirname } from "node:path";

const PROJECT = dirname(import.meta.dir);
/** Time for the registry's answer. */
const LIMIT_MS = 60_000;

/** Advisories that do not concern keyhold, with the reason; each stands in docs/supply-chain.md too. */
export const EXPLAINED: Readonly<Record<string, string>> = {};

/** What the registry says of the packages in bun.lock. */
export type Verdict =
  | { readonly kind: "unavailable"; readonly why: string }
  | { readonly kind: "known"; readonly open: readonly string[]; readonly explained: readonly string[] };

interface Advisory {
  readonly url: string;
  readonly title: string;
  readonly severity: string;
}

/**
 * Reads what `bun audit --json` printed.
 *
 * @param explained Advisories by their GHSA identifier.
 * @returns `unavailable` when the registry gave no report: not every registry has advisories.
 */
export function judge(out: string, errors: string, explained: Readonly<Record<string, string>>): Verdict {
  if (out.trim() === "") return { kind: "unavailable", why: errors.trim() || "no answer" };
  const report: Readonly<Record<string, readonly Advisory[]>> = JSON.parse(out);
  const open: string[] = [];
  const known: string[] = [];
  for (const [name, advisories] of Object.entries(report)) {
    for (const { url, title, severity } of advisories) {
      const reason = explained[url.split("/").at(-1) ?? ""];
      if (reason === undefined) open.push(`${name}: ${title} (${severity}) ${url}`);
      else known.push(`${name}: ${url}: ${reason}`);
    }
  }
  return { kind: "known", open, explained: known };
}

/** Asks the registry about the packages in bun.lock. */
export async function audit(): Promise<Verdict> {
  const child = Bun.spawn([process.execPath, "audit", "--json"], {
    cwd: PROJECT,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: LIMIT_MS,
  });
  const [out, errors] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return judge(out, errors, EXPLAINED);
}

if (import.meta.main) {
  const verdict = await audit();
  if (verdict.kind === "unavailable") {
    process.stdout.write(`audit: 1 skipped: the registry has no advisories (${verdict.why})\n`);
  } else {
    for (const line of verdict.explained) process.stdout.write(`audit: explained: ${line}\n`);
    for (const line of verdict.open) process.stderr.write(`audit: ${line}\n`);
    const { open, explained } = verdict;
    process.stdout.write(`audit: ${open.length} open, ${explained.length} explained\n`);
    process.exitCode = open.length > 0 ? 1 : 0;
  }
}
