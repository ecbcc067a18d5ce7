import { expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { sha256Of } from "../../scripts/compile.ts";
import { readLock } from "../../scripts/dependencies.ts";

const PROJECT = join(import.meta.dir, "..", "..");

/** The sources and what the executable is made of, without links to this folder, in `place`. */
function copyTo(place: string): void {
  mkdirSync(place, { recursive: true });
  for (const path of ["src", "scripts", "package.json", "tsconfig.json", "bun.lock", "bunfig.toml"]) {
    cpSync(join(PROJECT, path), join(place, path), { recursive: true });
  }
  const packages = readLock().packages.filter((one) => one.runtime && one.path === one.name);
  for (const { path } of packages) {
    const folder = join("node_modules", path);
    mkdirSync(dirname(join(place, folder)), { recursive: true });
    cpSync(join(PROJECT, folder), join(place, folder), { recursive: true, dereference: true });
  }
}

/** A release checks all platforms so; the other executables of Bun are fetched from the registry. */
const ALL = process.env["KEYHOLD_TEST_ALL_TARGETS"] === "1";

async function compileIn(place: string, env: Record<string, string>): Promise<string> {
  const child = Bun.spawn([process.execPath, "scripts/compile.ts", ...(ALL ? ["--all"] : [])], {
    cwd: place,
    env: { PATH: process.env["PATH"] ?? "", ...env },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
  const errors = await child.stderr.text();
  if ((await child.exited) !== 0) throw new Error(errors);
  return sha256Of(join(place, "dist", ALL ? "SHA256SUMS" : "keyhold"));
}

test("sources in two folders, of two ages and for two users, give the same executable", async () => {
  const folder = mkdtempSync(join(tmpdir(), "keyhold-reproducible-"));
  try {
    const [near, far] = [join(folder, "a"), join(folder, "another place", "with a longer name")];
    copyTo(near);
    copyTo(far);
    utimesSync(join(far, "src", "main.ts"), 1, 1);
    const first = await compileIn(near, { HOME: near, TZ: "UTC", LANG: "C", USER: "one" });
    const second = await compileIn(far, { HOME: far, TZ: "Asia/Tokyo", LANG: "de_DE.UTF-8", USER: "two" });
    expect(first).toMatch(/^[0-9a-f]{64}$/);
    expect(second).toBe(first);
    if (ALL) return;
    // and it is the sources that decide
    await Bun.write(
      join(near, "src", "version.ts"),
      `${await Bun.file(join(near, "src", "version.ts")).text()}
export const CHANGED = process.argv.includes("changed");\n`,
    );
    await Bun.write(
      join(near, "src", "main.ts"),
      `import { CHANGED } from "./version.ts";
if (CHANGED) process.exitCode = 9;\n${await Bun.file(join(near, "src", "main.ts")).text()}`,
    );
    expect(await compileIn(near, { HOME: near })).not.toBe(first);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 1_200_000);
