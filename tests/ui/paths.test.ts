import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { answeredPath } from "../../src/ui/paths.ts";
import type { Steps } from "../../src/ui/terminal.ts";
import { askMixing } from "../../src/ui/wizard/mixing.ts";
import { withDirectory } from "../cli/support.ts";

test("a path that is answered begins at home where it begins with ~, as in a shell", () => {
  expect(answeredPath("~", "/home/ann")).toBe("/home/ann");
  expect(answeredPath(" ~/noise.jpg ", "/home/ann")).toBe("/home/ann/noise.jpg");
  for (const path of ["noise.jpg", "./~", "~ben/noise.jpg", "a/~/b", "~noise", "/~/x"]) {
    expect(answeredPath(path, "/home/ann")).toBe(path);
  }
});

test("a wizard's question for a file knows ~", async () => {
  await withDirectory(async (home) => {
    writeFileSync(join(home, "noise"), "of the sea");
    const asked: string[] = [];
    const steps: Partial<Steps> = {
      say: async () => undefined,
      text: async (message) => {
        asked.push(message);
        return asked.length === 1 ? "~/noise" : "";
      },
    };
    const before = process.env["HOME"];
    process.env["HOME"] = home;
    try {
      const mixed: Parameters<typeof askMixing>[2] = [];
      await askMixing(steps as Steps, ["file"], mixed);
      expect(mixed).toEqual([{ kind: "file", bytes: new TextEncoder().encode("of the sea") }]);
    } finally {
      if (before === undefined) delete process.env["HOME"];
      else process.env["HOME"] = before;
    }
  });
});
