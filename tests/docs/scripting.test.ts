import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FILTERS, TEMPLATE_LIMITS } from "../../src/commands/template.ts";
import { binary, environment, openWorld, SETUP_MS, type World } from "../binary/world.ts";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

const page = readFileSync(join(import.meta.dir, "..", "..", "docs", "scripting.md"), "utf8");

/** Commands with what the page says that they print. */
function commands(): { line: string; printed: string }[] {
  const found: { line: string; printed: string }[] = [];
  for (const [, body = ""] of page.matchAll(/^```console\n(.*?)^```$/gms)) {
    for (const line of body.split("\n").slice(0, -1)) {
      const last = found.at(-1);
      if (line.startsWith("$ ")) found.push({ line: line.slice(2), printed: "" });
      else if (last !== undefined) last.printed += `${line}\n`;
    }
  }
  return found;
}

test("what docs/scripting.md shows is what happens", async () => {
  const home = await world.home("scripts").register("scripts");
  const tools = world.file("tools");
  mkdirSync(tools);
  symlinkSync(await binary(), join(tools, "keyhold"));
  const block = (language: string) => new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "ms").exec(page)?.[1] ?? "";
  writeFileSync(join(home.dir, "app.env"), block("dotenv"));
  const all = commands();
  expect(all.length).toBeGreaterThan(15);
  // the page shows the template by printing it
  const template = all.find(({ line }) => line === "cat app.yaml.tpl")?.printed ?? "";
  expect(template).toContain("kh://");
  writeFileSync(join(home.dir, "app.yaml.tpl"), template);
  for (const { line, printed } of all) {
    const child = Bun.spawn(["bash", "-c", line], {
      env: environment(home.dir, { PATH: `${tools}:${process.env["PATH"] ?? ""}` }),
      cwd: home.dir,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    expect([line, code, err]).toEqual([line, 0, ""]);
    // commands that report what they stored have no output on the page
    if (printed !== "") expect([line, out.trimEnd()]).toEqual([line, printed.trimEnd()]);
  }
});

test("docs/scripting.md names every filter and the limits", () => {
  for (const filter of FILTERS) expect(page).toContain(`\`${filter}\``);
  expect(page).toContain(
    `at most ${TEMPLATE_LIMITS.bytes / 1_048_576} MiB and ${TEMPLATE_LIMITS.placeholders.toLocaleString("en")} references`,
  );
});
