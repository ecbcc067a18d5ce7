import { test } from "bun:test";

type Body = () => void | Promise<unknown>;

/**
 * Registers a test that cannot run everywhere: skipped with `reason` in its name, or failing when
 * `KEYHOLD_TEST_NO_SKIP=1`, for there everything a test needs must be present.
 *
 * @param reason Why it cannot run here; `undefined` if it can.
 */
export function testUnless(reason: string | undefined, name: string, body: Body, timeoutMs?: number): void {
  if (reason === undefined) {
    test(name, body, timeoutMs);
  } else if (process.env["KEYHOLD_TEST_NO_SKIP"] === "1") {
    test(name, () => {
      throw new Error(`this test may not be skipped: ${reason}`);
    });
  } else {
    test.skip(`${name} (skipped: ${reason})`, body, timeoutMs);
  }
}

/** Registers a test that starts the programs `tools` (names as for a shell): see {@link testUnless}. */
export function testNeeding(tools: string | readonly string[], name: string, body: Body, timeoutMs?: number): void {
  const missing = [tools].flat().filter((tool) => Bun.which(tool) === null);
  testUnless(missing.length > 0 ? `needs ${missing.join(", ")}` : undefined, name, body, timeoutMs);
}

/** Registers a test that means nothing to root, who may read and write everything; for tests/unprivileged. */
export function testUnprivileged(name: string, body: Body, timeoutMs?: number): void {
  testUnless(process.getuid?.() === 0 ? "needs a user other than root" : undefined, name, body, timeoutMs);
}
