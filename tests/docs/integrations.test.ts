import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SIGN_MAX_BYTES } from "../../src/client/signing.ts";
import { root } from "../../src/commands/index.ts";
import { allCommands } from "../../src/ui/help.ts";
import { parse, resolve } from "../../src/ui/parse.ts";
import { binary, environment, type Home, openWorld, SETUP_MS, type World } from "../binary/world.ts";
import { projectText } from "../support/doctables.ts";
import { testNeeding } from "../support/skip.ts";

setDefaultTimeout(60_000);
const page = projectText("docs/integrations.md");
const blocks = (language: string): string[] =>
  [...page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].map(([, body = ""]) => body);

let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld({ server: false });
  home = world.home("person");
  await home.ok(["init", "--local", ...home.password, "--kdf", "test"]);
  await home.ok(["unlock", ...home.password, "--kdf", "test"]);
}, SETUP_MS);
afterAll(async () => {
  await home.run(["lock"]);
  await world.close();
});

/** Commands with what the page says that they print. */
function shown(): { line: string; printed: string }[] {
  const found: { line: string; printed: string }[] = [];
  for (const line of blocks("console").flatMap((body) => body.split("\n").slice(0, -1))) {
    const last = found.at(-1);
    if (line.startsWith("$ ")) found.push({ line: line.slice(2), printed: "" });
    else if (last !== undefined) last.printed += `${line}\n`;
  }
  return found;
}

testNeeding(
  ["age", "git", "openssl", "ssh-add", "ssh-keygen"],
  "what docs/integrations.md shows is what happens",
  async () => {
    const tools = world.file("tools");
    mkdirSync(tools);
    symlinkSync(await binary(), join(tools, "keyhold"));
    writeFileSync(join(home.dir, "password"), "a password");
    writeFileSync(join(home.dir, "app.tar"), crypto.getRandomValues(new Uint8Array(50_000)));
    const commands = shown();
    expect(commands.length).toBeGreaterThan(15);
    for (const { line, printed } of commands) {
      const child = Bun.spawn(["bash", "-o", "pipefail", "-c", line], {
        env: environment(home.dir, { PATH: `${tools}:${process.env["PATH"] ?? ""}` }),
        cwd: home.dir,
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
      expect([line, code, err]).toEqual([line, 0, ""]);
      // commands that report what they stored have no output on the page
      if (printed !== "") expect([line, out]).toEqual([line, printed]);
    }
  },
);

test("every other line of keyhold on the page has words and flags that it takes", async () => {
  const commands = await allCommands(root);
  const lines = [...page.matchAll(/keyhold ((?:ssh-agent|key|unlock|import|generate)\b[^`\n"|]*)/g)].map(
    ([, words = ""]) => words.replace(/\)$/, ""),
  );
  expect(lines.length).toBeGreaterThan(20);
  for (const line of lines) {
    const found = resolve(root, line.split(/ (?:\||<|>) /)[0]?.match(/'[^']*'|\S+/g) ?? []);
    expect([line, found.kind]).toEqual([line, "run"]);
    const known =
      found.kind === "run" ? commands.find(({ path }) => path.join(" ") === found.path.join(" ")) : undefined;
    if (found.kind === "run" && known) await parse(known.command, found, 0);
  }
});

test("the page names the service's command, the socket and the limit that there are", () => {
  expect(blocks("ini")[0]).toContain("ExecStart=/usr/local/bin/keyhold ssh-agent\n");
  expect(page).toContain("$XDG_RUNTIME_DIR/keyhold/ssh-agent-default.sock");
  expect(page).toContain(`Ed25519 signs at most ${SIGN_MAX_BYTES / 1_048_576} MiB`);
});
