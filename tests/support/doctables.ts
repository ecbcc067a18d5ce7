import { readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

/** Text of a file of the project. */
export function projectText(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}

const cells = (line: string) =>
  line
    .split("|")
    .slice(1, -1)
    .map((cell) => cell.trim());

/** The rows of the one Markdown table with these headings. @throws Error when there is none, or more than one. */
export function documentedTable(path: string, headings: readonly string[]): readonly (readonly string[])[] {
  const lines = projectText(path).split("\n");
  const wanted = headings.join(" | ");
  const heads = lines.flatMap((line, at) => (cells(line).join(" | ") === wanted ? [at] : []));
  const [head] = heads;
  if (head === undefined || heads.length !== 1) throw new Error(`${path}: ${heads.length} tables with "${wanted}"`);
  const end = lines.findIndex((line, at) => at > head && !line.startsWith("|"));
  return lines.slice(head + 2, end < 0 ? undefined : end).map(cells);
}

/** Numbers of all headings: `## 3. Login` gives 3, `### 3.1 Server identity` gives 3.1. */
export function documentedSections(path: string): ReadonlySet<string> {
  const found = projectText(path).matchAll(/^#{2,4} (\d+(?:\.\d+)*)\.? /gm);
  return new Set([...found].map((match) => match[1] ?? ""));
}
