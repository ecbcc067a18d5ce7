import { describe, expect, test } from "bun:test";
import { copyFile, mkdir, mkdtemp, realpath, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, isAbsolute, join, relative } from "node:path";

const PROJECT = join(import.meta.dir, "..", "..");

/** One file of each layer, the lowest first; where a layer has more than one kind of place, each of them. */
const PLACES = {
  root: ["src/errors.ts", "src/ids.ts"],
  crypto: ["src/crypto/sample.ts"],
  protocol: ["src/protocol/sample.ts"],
  wire: ["src/wire/sample.ts"],
  formats: ["src/formats/sample.ts"],
  enclave: ["src/enclave/sample.ts"],
  storage: ["src/storage/sample.ts", "src/storage/sqlite/sample.ts"],
  client: ["src/client/sample.ts", "src/client/agent/sample.ts"],
  connector: ["src/connector/sample.ts"],
  server: ["src/server/sample.ts", "src/server/handlers/sample.ts", "src/server.ts"],
  ui: ["src/ui/sample.ts"],
  commands: ["src/commands/sample.ts", "src/commands/audit/sample.ts"],
  serving: ["src/commands/serve.ts", "src/commands/server/sample.ts"],
  main: ["src/main.ts"],
} as const;

type Layer = keyof typeof PLACES;

const BASE: readonly Layer[] = ["root", "crypto", "protocol", "wire", "formats"];

/** Whom each layer may import, itself included. */
const MAY: Readonly<Record<Layer, readonly Layer[]>> = {
  root: ["root"],
  crypto: ["root", "crypto"],
  protocol: ["root", "crypto", "protocol"],
  wire: ["root", "crypto", "protocol", "wire"],
  formats: BASE,
  enclave: ["root", "crypto", "protocol", "wire", "enclave"],
  storage: [...BASE, "storage"],
  client: [...BASE, "client"],
  connector: [...BASE, "storage", "client", "connector"],
  server: [...BASE, "enclave", "storage", "server"],
  ui: [...BASE, "client", "ui"],
  commands: [...BASE, "enclave", "client", "connector", "ui", "commands", "serving"],
  serving: [...BASE, "enclave", "storage", "client", "connector", "server", "ui", "commands", "serving"],
  main: [...BASE, "client", "ui", "commands", "serving", "main"],
};

/** Who may import which library. */
const LIBRARIES: Readonly<Record<string, (file: string) => boolean>> = {
  "@clack/prompts": (file) => file === "src/ui/terminal.ts",
  consola: (file) => file === "src/ui/output.ts" || file === "src/server/log.ts",
  citty: (file) => /^src\/(ui|commands)\/|^src\/main\.ts$/.test(file),
};

/** The ways to import; `n` keeps the names apart. */
const FORMS: readonly ((from: string, n: number) => string)[] = [
  (from, n) => `import { x as x${n} } from "${from}";`,
  (from, n) => `import type { T as T${n} } from "${from}";`,
  (from, n) => `export { x as y${n} } from "${from}";`,
  (from, n) => `export const z${n} = () => import("${from}");`,
];

interface Case {
  readonly from: string;
  readonly to: string;
  readonly allowed: boolean;
  readonly form: number;
}

const layers = Object.keys(PLACES) as Layer[];

function cases(): Case[] {
  const pairs: Omit<Case, "form">[] = [];
  for (const layer of layers) {
    for (const from of PLACES[layer]) {
      for (const other of layers) {
        const allowed = MAY[layer].includes(other);
        for (const to of PLACES[other]) if (from !== to) pairs.push({ from, to, allowed });
      }
    }
  }
  const files = [...Object.values(PLACES).flat(), "src/ui/terminal.ts", "src/ui/output.ts", "src/server/log.ts"];
  for (const from of files) {
    for (const [to, may] of Object.entries(LIBRARIES)) pairs.push({ from, to, allowed: may(from) });
  }
  return pairs.flatMap((pair) => FORMS.map((_, form) => ({ ...pair, form })));
}

function line({ from, to, form }: Case, n: number): string {
  const path = to.startsWith("src/") ? relative(dirname(from), to) : to;
  return FORMS[form]?.(path === to || path.startsWith(".") ? path : `./${path}`, n) ?? "";
}

/** Lints files in a scratch project under the real configuration; gives `FILE:LINE` of each error of `rules`. */
async function refused(files: ReadonlyMap<string, string>, rules: readonly string[]): Promise<Set<string>> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "keyhold-layers-")));
  try {
    await copyFile(join(PROJECT, "biome.json"), join(folder, "biome.json"));
    await copyFile(join(PROJECT, "package.json"), join(folder, "package.json"));
    await symlink(join(PROJECT, "node_modules"), join(folder, "node_modules"));
    for (const [name, text] of files) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await Bun.write(join(folder, name), text);
    }
    const linter = [
      process.execPath,
      "run",
      "--silent",
      "biome",
      "lint",
      "--reporter=github",
      "--max-diagnostics=none",
    ];
    const run = Bun.spawn([...linter, ...rules.map((rule) => `--only=${rule}`)], {
      cwd: folder,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [output, errors, code] = await Promise.all([run.stdout.text(), run.stderr.text(), run.exited]);
    const found = new Set<string>();
    for (const [, file = "", at = ""] of output.matchAll(/^::error .*?file=([^,]+),line=(\d+),/gm)) {
      found.add(`${isAbsolute(file) ? relative(folder, file) : file}:${at}`);
    }
    expect([errors, code === 0]).toEqual([errors, found.size === 0]);
    return found;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

test("imports point down only, in each form of import", async () => {
  const all = cases();
  const files = Map.groupBy(all, ({ from }) => from);
  const texts = [...files].map(([from, here]) => [from, `${here.map(line).join("\n")}\n`] as const);
  const found = await refused(new Map(texts), ["style/noRestrictedImports"]);
  const wrong = [...files].flatMap(([from, here]) =>
    here.filter(({ allowed }, index) => allowed === found.has(`${from}:${index + 1}`)),
  );
  expect(wrong.map((one) => `${one.from} -> ${one.to} (form ${one.form}) should be ${one.allowed}`)).toEqual([]);
  expect(all.some(({ allowed }) => allowed) && all.some(({ allowed }) => !allowed)).toBe(true);
}, 60_000);

describe("crypto and protocol are pure", () => {
  const impure = {
    clock: "export const at = () => Date.now();\n",
    environment: 'export const home = () => process.env["HOME"];\n',
    "global randomness": "export const r = () => crypto.getRandomValues(new Uint8Array(4));\n",
    "imported randomness": 'import { randomBytes } from "node:crypto";\nexport const r = randomBytes;\n',
    files: 'import { readFileSync } from "node:fs";\nexport const r = readFileSync;\n',
    promises: 'import { readFile } from "node:fs/promises";\nexport const r = readFile;\n',
    database: 'import { Database } from "bun:sqlite";\nexport const d = Database;\n',
    network: 'export const f = () => fetch("https://example.test");\n',
    runtime: "export const v = () => Bun.version;\n",
  };
  const rules = ["style/noRestrictedImports", "style/noRestrictedGlobals"];

  test("clock, randomness, environment, files and network are refused there, and only there", async () => {
    const names = Object.keys(impure).map((name) => name.replaceAll(" ", "-"));
    const texts = Object.values(impure);
    const at = (folder: string) => names.map((name) => `${folder}/${name}.ts`);
    const all = [...at("src/crypto"), ...at("src/protocol"), ...at("src/client")];
    const found = await refused(new Map(all.map((name, index) => [name, texts[index % texts.length] ?? ""])), rules);
    const lineOf = (name: string) => `${name}:1`;
    expect([...found].sort()).toEqual([...at("src/crypto"), ...at("src/protocol")].map(lineOf).sort());
  }, 60_000);

  test("hashing and signing of node:crypto are accepted there", async () => {
    const text = 'import { createHash, sign } from "node:crypto";\nexport const used = [createHash, sign];\n';
    expect(await refused(new Map([["src/crypto/sample.ts", text]]), rules)).toEqual(new Set());
  }, 60_000);
});

test("any, non-null assertions, console and default exports are refused; commands may export by default", async () => {
  const rules = [
    "suspicious/noExplicitAny",
    "style/noNonNullAssertion",
    "suspicious/noConsole",
    "style/noDefaultExport",
  ];
  const files = {
    "src/client/any.ts": "export const f = (x: any): unknown => x;\n",
    "src/client/bang.ts": "export const f = (x: readonly string[]): string => x[0]!;\n",
    "src/client/console.ts": 'export const f = (): void => console.error("x");\n',
    "src/client/default.ts": "export default 1;\n",
  };
  const fine = { "src/commands/get.ts": "export default 1;\n", "src/commands/audit/list.ts": "export default 1;\n" };
  const found = await refused(new Map(Object.entries({ ...files, ...fine })), rules);
  expect([...found].sort()).toEqual(Object.keys(files).map((name) => `${name}:1`));
}, 60_000);
