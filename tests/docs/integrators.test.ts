import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../src/commands/index.ts";
import { errorTable } from "../../src/errors.ts";
import { flagName, isFlag } from "../../src/ui/args.ts";
import { allCommands } from "../../src/ui/help.ts";
import { resolve } from "../../src/ui/parse.ts";
import type { Codec } from "../../src/wire/codec.ts";
import { isOperation, operations } from "../../src/wire/operations.ts";

const DOCS = join(import.meta.dir, "../../docs");
const page = readFileSync(join(DOCS, "integrators.md"), "utf8");
const blocks = (language: string) =>
  [...page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].flatMap(([, body = ""]) =>
    body.split("\n").filter((line) => line !== ""),
  );

test("every command line of docs/integrators.md names a command with those flags", async () => {
  const commands = await allCommands(root);
  const lines = blocks("console").map((line) => line.replace(/^\$ keyhold /, ""));
  expect(lines.length).toBeGreaterThan(3);
  for (const line of lines) {
    const words = line.replace(/ > .*/, "").split(" ");
    const found = commands.find(({ path }) => path.every((word, i) => words[i] === word));
    expect([line, resolve(root, [...(found?.path ?? words), "--help"]).kind]).toEqual([line, "help"]);
    const flags = words.filter((word) => word.startsWith("--")).map((word) => word.slice(2));
    const known = Object.entries(found?.command.args ?? {}).flatMap(([name, arg]) =>
      isFlag(arg) ? [flagName(name)] : [],
    );
    expect([line, flags.filter((flag) => !known.includes(flag))]).toEqual([line, []]);
  }
});

test("every request that it shows is one that the operation takes", () => {
  const asked = blocks("sh").flatMap((line) => {
    const [, body, name] = /--json '(.*)' https:\/\/localhost:7443\/v1\/op\/(\S+)$/.exec(line) ?? [];
    return body === undefined || name === undefined ? [] : [{ body, name }];
  });
  expect(asked.length).toBe(6);
  for (const { body, name } of asked) {
    if (!isOperation(name)) throw new Error(`there is no operation ${name}`);
    expect(operations[name].auth as string).toBe("token");
    expect(() => (operations[name].input as Codec<unknown>).decode(JSON.parse(body), "")).not.toThrow();
  }
});

test("statuses and files that it names exist", () => {
  const rows = [...page.matchAll(/^\| (\d{3}) `([a-z_]+)`/gm)].map(([, status, code]) => [Number(status), code]);
  expect(rows.length).toBe(7);
  for (const [status, code] of rows) {
    expect([code, errorTable().find((row) => row.code === code)?.http as unknown]).toEqual([code, status]);
  }
  const links = [...page.matchAll(/\]\(([^)#]+)\)/g)].map(([, path = ""]) => path);
  expect(links).toContain("examples/integrator.ts");
  for (const path of links) expect([path, existsSync(join(DOCS, path))]).toEqual([path, true]);
});
