import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const PROJECT = dirname(import.meta.dir);

/** One package of bun.lock. */
export interface Package {
  /** Its key in the lock file: its name, behind those of the packages that have it to themselves. */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  /** SHA-512 of the published archive, 128 lower-case hexadecimal digits. */
  readonly sha512: string;
  /** Paths of what it depends on, sorted. */
  readonly dependsOn: readonly string[];
  /** Reached from `dependencies`: its code may be in the executable. */
  readonly runtime: boolean;
}

/** What bun.lock says. */
export interface Lock {
  /** Paths of the runtime dependencies that package.json names, sorted. */
  readonly direct: readonly string[];
  /** Sorted by path; without packages for one platform only, so that it is the same on all. */
  readonly packages: readonly Package[];
}

interface Entry {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly os?: unknown;
  readonly cpu?: unknown;
}

type Entries = Readonly<Record<string, readonly [string, string, Entry, string]>>;

/** Splits a path of the lock file into package names: `a/@b/c` is `a` and `@b/c`. */
function namesIn(path: string): readonly string[] {
  return path.match(/@[^/]+\/[^/]+|[^/]+/g) ?? [];
}

/** Finds what `name` means to the package at `path`: the nearest one, as Node looks it up. */
function resolve(entries: Entries, path: string, name: string): string | undefined {
  const around = [...namesIn(path)];
  for (;;) {
    const candidate = [...around, name].join("/");
    if (Object.hasOwn(entries, candidate)) return candidate;
    if (around.pop() === undefined) return undefined;
  }
}

function reached(entries: Entries, from: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  const open = [...from];
  for (let path = open.pop(); path !== undefined; path = open.pop()) {
    const entry = entries[path]?.[2];
    if (found.has(path) || entry === undefined) continue;
    const dependsOn: string[] = [];
    for (const name of Object.keys({ ...entry.dependencies, ...entry.optionalDependencies })) {
      const target = resolve(entries, path, name);
      if (target === undefined) {
        if (entry.optionalDependencies !== undefined && Object.hasOwn(entry.optionalDependencies, name)) continue;
        throw new Error(`bun.lock: ${path} depends on ${name}, which is not there`);
      }
      const { os, cpu } = entries[target]?.[2] ?? {};
      if (os === undefined && cpu === undefined) dependsOn.push(target);
    }
    found.set(path, dependsOn.sort());
    open.push(...dependsOn);
  }
  return found;
}

function packageAt(entries: Entries, path: string, dependsOn: readonly string[], runtime: boolean): Package {
  const [id, , , integrity] = entries[path] ?? [];
  const at = id?.lastIndexOf("@") ?? -1;
  if (id === undefined || at < 1) throw new Error(`bun.lock: cannot read ${path}`);
  if (!integrity?.startsWith("sha512-")) throw new Error(`bun.lock: ${path} has no SHA-512`);
  const sha512 = Buffer.from(integrity.slice(7), "base64").toString("hex");
  return { path, name: id.slice(0, at), version: id.slice(at + 1), sha512, dependsOn, runtime };
}

/**
 * Reads bun.lock.
 *
 * @throws Error when a dependency or a checksum is missing.
 */
export function readLock(text = readFileSync(join(PROJECT, "bun.lock"), "utf8")): Lock {
  const lock = Bun.JSONC.parse(text) as {
    workspaces: { "": { dependencies?: Record<string, string>; devDependencies?: Record<string, string> } };
    packages: Entries;
  };
  const { dependencies = {}, devDependencies = {} } = lock.workspaces[""];
  const direct = Object.keys(dependencies).sort();
  const runtime = reached(lock.packages, direct);
  const all = reached(lock.packages, [...direct, ...Object.keys(devDependencies)]);
  const packages = [...all].map(([path, dependsOn]) => packageAt(lock.packages, path, dependsOn, runtime.has(path)));
  return { direct, packages: packages.sort((a, b) => (a.path < b.path ? -1 : 1)) };
}

/** What an installed package says of its licence. */
export interface Licence {
  /** Its SPDX expression; empty if it states none. */
  readonly expression: string;
  /** Its licence, notice and copyright files, by name, with line ends as on Unix and without blanks around. */
  readonly texts: readonly string[];
}

const LICENCE_FILE = /^(?:licen[cs]e|copying|notice|copyrightnotice)(?:[.-].*)?$/i;

/** Reads the licence of a package under node_modules. @throws Error when another version or none lies there. */
export function licenceOf(wanted: Package): Licence {
  const folder = join(PROJECT, ...namesIn(wanted.path).flatMap((name) => ["node_modules", name]));
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  if (manifest.version !== wanted.version) throw new Error(`${wanted.path} ${wanted.version} is not installed`);
  const shipped = readdirSync(folder).filter((name) => LICENCE_FILE.test(name));
  const paths = shipped.sort().map((name) => join(folder, name));
  // a package that ships no text states its licence in its sources: the text is kept beside this program
  const kept = join(PROJECT, "scripts", "licences", `${wanted.name.replace("/", "+")}.txt`);
  if (paths.length === 0 && existsSync(kept)) paths.push(kept);
  return {
    expression: typeof manifest.license === "string" ? manifest.license : "",
    texts: paths.map((path) => readFileSync(path, "utf8").replaceAll("\r\n", "\n").trim()),
  };
}
