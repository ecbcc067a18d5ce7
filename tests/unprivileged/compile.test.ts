import { expect } from "bun:test";
import { chmod, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testUnprivileged } from "../support/skip.ts";

testUnprivileged("a build into a directory that may not be written fails with the reason", async () => {
  const folder = await mkdtemp(join(tmpdir(), "keyhold-unwritable-"));
  try {
    const entry = join(folder, "main.ts");
    await Bun.write(entry, 'process.stdout.write("x");\n');
    const outdir = join(folder, "out");
    await Bun.write(join(outdir, "other"), "");
    await chmod(outdir, 0o500);
    const script = join(import.meta.dir, "..", "..", "scripts", "compile.ts");
    const run = Bun.spawn([process.execPath, script, "--entry", entry, "--outdir", outdir], {
      cwd: folder,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    expect(await run.stderr.text()).toMatch(/^compile: .+/);
    expect(await run.exited).toBe(1);
    expect(await readdir(outdir)).toEqual(["other"]);
    await chmod(outdir, 0o700);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
