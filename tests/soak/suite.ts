import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tally } from "../../scripts/tally.ts";
import type { Figure } from "../support/figure.ts";

const TESTS = join(import.meta.dir, "..");

/** A figure whose full form is a test file of its own. */
export async function suite(name: string, ran: string, files: readonly string[]): Promise<Figure> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-soak-"));
  try {
    const report = join(directory, "junit.xml");
    const paths = files.map((file) => join(TESTS, file));
    const child = Bun.spawn(
      [process.execPath, "test", "--timeout=600000", "--reporter=junit", `--reporter-outfile=${report}`, ...paths],
      { cwd: join(TESTS, ".."), stdin: "ignore", stdout: "ignore", stderr: "ignore" },
    );
    const exited = (await child.exited) === 0;
    const file = Bun.file(report);
    const { passed, failed } = tally((await file.exists()) ? await file.text() : "", exited, true);
    return {
      name,
      ran,
      counts: [`${passed} tests passed`],
      lost: 0,
      corrupt: 0,
      wrong: failed > 0 || passed === 0 ? [`${failed} tests failed: ${files.join(", ")}`] : [],
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
