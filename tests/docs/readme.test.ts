import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/commands/index.ts";
import { resolve } from "../../src/ui/parse.ts";
import { onTerminal } from "../binary/terminal.ts";
import { binary, openWorld, SETUP_MS, type World } from "../binary/world.ts";

const PROJECT = join(import.meta.dir, "..", "..");
const PASSWORD = "a password for the readme";

setDefaultTimeout(60_000);
let world: World;
beforeAll(async () => {
  world = await openWorld();
}, SETUP_MS);
afterAll(() => world.close());

/** The command lines of each block of `$ keyhold …` lines. */
function blocks(markdown: string): string[][] {
  return [...markdown.matchAll(/^```console\n(.*?)^```$/gms)].map(([, body = ""]) =>
    body.split("\n").flatMap((line) => (line.startsWith("$ keyhold ") ? [line.slice(2)] : [])),
  );
}

const readme = readFileSync(join(PROJECT, "README.md"), "utf8");

test("what README shows is run from top to bottom by somebody at a terminal", async () => {
  const lines = blocks(readme).flat();
  expect(lines.length).toBeGreaterThan(8);
  const person = world.home("person", PASSWORD).dir;
  const tools = world.file("tools");
  mkdirSync(tools);
  symlinkSync(await binary(), join(tools, "keyhold"));
  // files that the lines name
  writeFileSync(join(person, "FILE"), "a value from a file");
  const env = { PATH: `${tools}:${process.env["PATH"] ?? ""}` };
  const typed = `${PASSWORD}\r`;
  const prompts: Readonly<Record<string, number>> = { register: 2, login: 1 };
  const shell = async (line: string) => {
    const [, command = ""] = line.split(" ");
    const asked = Array.from({ length: prompts[command] ?? 0 }, (_, i) => ({
      expect: i === 0 ? "Password" : "Again",
      type: typed,
    }));
    const { code, shown } = await onTerminal(person, ["-c", line], asked, { env, program: "bash" });
    expect([line, code, shown]).toEqual([line, 0, shown]);
  };
  let closed = false;
  for (const line of lines) {
    // the world's server is the one that the first block starts
    if (line === "keyhold serve") continue;
    const complete = line
      .replace(/\bURL\b/, world.server.url)
      .replace(/\bPIN\b/, world.server.pin)
      .replace(/--account NAME\b/, "--account ada");
    if (closed && !line.startsWith("keyhold login")) await shell("keyhold login");
    await shell(complete);
    closed = line === "keyhold logout";
  }
});

test("the line that serve prints is the one that registers", async () => {
  const shown = /^ {2}(keyhold register --server \S+ --pin \S+ --account NAME)$/m.exec(readme)?.[1] ?? "";
  const child = Bun.spawn([await binary(), "serve", "--listen", "127.0.0.1:0"], {
    env: { KEYHOLD_HOME: world.home("printed").dir, PATH: process.env["PATH"] ?? "" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
  });
  try {
    let text = "";
    for await (const part of child.stdout) {
      text += new TextDecoder().decode(part);
      if (text.includes("Ctrl-C")) break;
    }
    const line = /^ {2}(keyhold register .+)$/m.exec(text)?.[1] ?? "";
    const pattern = (command: string) => command.replace(/https:\S+/, "URL").replace(/sha256:\S+/, "PIN");
    expect(pattern(line)).toBe(pattern(shown));
    const home = world.home("printed-client");
    const argv = line.replace("NAME", "somebody").split(" ").slice(1);
    await home.ok([...argv, ...home.password, "--kdf", "test"]);
  } finally {
    child.kill("SIGTERM");
  }
  expect(await child.exited).toBe(0);
});

describe("every command that the documents show exists:", () => {
  const files = ["README.md", ...readdirSync(join(PROJECT, "docs")).map((name) => `docs/${name}`)].filter((name) =>
    name.endsWith(".md"),
  );
  for (const file of files) {
    const text = readFileSync(join(PROJECT, file), "utf8");
    const lines = [...text.matchAll(/(?:`|^\$ |^ {2})(keyhold [a-z][^`\n|]*)/gm)].map(([, line = ""]) => line);
    if (lines.length === 0) continue;
    test(file, () => {
      for (const line of lines) {
        // "keyhold audit list · verify" and "keyhold vault …" stand for several
        const words =
          line
            .split(/\s+(?:[·…#]|--\s|&&|$)/)[0]
            ?.split(/\s+/)
            .slice(1) ?? [];
        const path = words.slice(0, words.findIndex((word) => !/^[a-z-]+$/.test(word) || word.startsWith("-")) >>> 0);
        const found = resolve(root, [...path, "--help"]);
        expect([line, found.kind]).toEqual([line, "help"]);
      }
    });
  }
});

test("docs/examples run against a real server, twice", async () => {
  const folder = join(PROJECT, "docs", "examples");
  // tests/binary/integrator.test.ts runs the one for registries
  const programs = readdirSync(folder).filter((name) => name.endsWith(".ts") && name !== "integrator.ts");
  expect(programs).toContain("client.ts");
  for (const name of programs) {
    const { url, pin } = world.server;
    for (let time = 0; time < 2; time++) {
      const child = Bun.spawn(
        [process.execPath, join(folder, name), url, pin, world.file(`example-${name}`), `example-${name}`],
        {
          cwd: PROJECT,
          env: { PATH: process.env["PATH"] ?? "" },
          stdin: new TextEncoder().encode(`${PASSWORD}\n`),
          stdout: "pipe",
          stderr: "pipe",
        },
      );
      const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
      expect([name, time, code, err]).toEqual([name, time, 0, ""]);
      expect(JSON.parse(out)).toMatchObject({ equal: true, ok: true });
    }
  }
});
