import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { environment } from "./world.ts";

/** All bytes of all files below a directory, by path. */
export function filesBelow(dir: string): { path: string; mode: number; bytes: Buffer }[] {
  return [...new Bun.Glob("**/*").scanSync({ cwd: dir, dot: true, absolute: true })].map((path) => ({
    path,
    mode: statSync(path).mode & 0o777,
    bytes: readFileSync(path),
  }));
}

/** The forms in which text could lie in a file: as it is, in base64 (at each offset) and in hex. */
export function traces(text: string): Buffer[] {
  const raw = Buffer.from(text);
  const encoded = [0, 1, 2].flatMap((offset) => {
    const padded = Buffer.concat([Buffer.alloc(offset), raw]);
    // without the characters that depend on the neighbours
    const inner = (base: "base64" | "base64url") =>
      padded
        .toString(base)
        .replace(/=+$/, "")
        .slice(offset === 0 ? 0 : offset + 1, -1);
    return [inner("base64"), inner("base64url")];
  });
  const utf16 = Buffer.from(text, "utf16le");
  return [
    raw,
    utf16,
    ...[...encoded, raw.toString("hex"), raw.toString("hex").toUpperCase()].map((form) => Buffer.from(form)),
  ];
}

const PROJECT = join(import.meta.dir, "..", "..");

/**
 * Runs a command from the sources and gives the modules that it loaded, relative to the project, with its exit code:
 * the executable is made of the same ones.
 */
export async function modulesOf(
  home: string,
  argv: readonly string[],
): Promise<{ readonly code: number; readonly modules: readonly string[] }> {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-modules-"));
  const [preload, list] = [join(dir, "preload.ts"), join(dir, "modules.json")];
  try {
    writeFileSync(
      preload,
      `import { writeFileSync } from "node:fs";
process.on("exit", () => writeFileSync(${JSON.stringify(list)}, JSON.stringify(Object.keys(require.cache))));`,
    );
    const child = Bun.spawn([process.execPath, "--preload", preload, join(PROJECT, "src", "main.ts"), ...argv], {
      env: environment(home),
      cwd: home,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore",
    });
    const code = await child.exited;
    const all = JSON.parse(readFileSync(list, "utf8")) as string[];
    return { code, modules: all.filter((path) => path !== preload).map((path) => relative(PROJECT, path)) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}
