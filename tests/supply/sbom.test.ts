import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Validator } from "@cfworker/json-schema";
import manifest from "../../package.json" with { type: "json" };
import { readLock } from "../../scripts/dependencies.ts";
import { type Bom, billOfMaterials } from "../../scripts/sbom.ts";

const PROJECT = join(import.meta.dir, "..", "..");
const SCHEMAS = join(PROJECT, "tests", "vectors", "cyclonedx");

const schema = (name: string) => JSON.parse(readFileSync(join(SCHEMAS, `${name}.SNAPSHOT.schema.json`), "utf8"));

function validator(): Validator {
  const made = new Validator(schema("bom-1.6"), "7", false);
  // the schema refers to these two by the names of their files
  for (const name of ["spdx", "jsf-0.82"]) {
    made.addSchema(schema(name), `http://cyclonedx.org/schema/${name}.SNAPSHOT.schema.json`);
  }
  return made;
}

function changed(change: (bom: ReturnType<typeof JSON.parse>) => void): unknown {
  const bom = JSON.parse(JSON.stringify(billOfMaterials(undefined)));
  change(bom);
  return bom;
}

const find = (bom: Bom, name: string) => bom.components.find((one) => one.name === name && one.group === undefined);

describe("the bill of materials", () => {
  test("fits the schema of CycloneDX 1.6, which refuses damaged ones", () => {
    const { valid, errors } = validator().validate(billOfMaterials("1700000000"));
    expect(errors).toEqual([]);
    expect(valid).toBe(true);
    const damages: ((bom: ReturnType<typeof JSON.parse>) => void)[] = [
      (bom) => delete bom.specVersion,
      (bom) => delete bom.components[0].name,
      (bom) => bom.components.push(bom.components[0]),
      (bom) => Object.assign(bom.components[0], { licenses: [{ license: { id: "No-Such-Licence" } }] }),
      (bom) => Object.assign(bom.components.at(-1).hashes[0], { content: "beef" }),
      (bom) => Object.assign(bom.metadata, { timestamp: "yesterday" }),
      (bom) => Object.assign(bom, { author: "x" }),
    ];
    for (const damage of damages) expect(validator().validate(changed(damage)).valid).toBe(false);
  });

  test("names each runtime library, Bun and the SQLite in it as required, tools as excluded", () => {
    const bom = billOfMaterials(undefined);
    for (const [name, version] of Object.entries(manifest.dependencies)) {
      const purl = `pkg:npm/${name.replace("@", "%40")}@${version}`;
      expect(bom.components.find((one) => one.purl === purl)).toMatchObject({ scope: "required", "bom-ref": purl });
    }
    expect(find(bom, "bun")).toMatchObject({ version: Bun.version, scope: "required", type: "platform" });
    expect(find(bom, "sqlite")).toMatchObject({ version: process.versions["sqlite"], scope: "required" });
    expect(find(bom, "typescript")).toMatchObject({ version: manifest.devDependencies.typescript, scope: "excluded" });
  });

  test("its graph holds every component once and leads from keyhold to all that is required", () => {
    const bom = billOfMaterials(undefined);
    const own = bom.metadata.component["bom-ref"];
    const edges = new Map(bom.dependencies.map(({ ref, dependsOn }) => [ref, dependsOn]));
    expect([...edges.keys()].sort()).toEqual([own, ...bom.components.map((one) => one["bom-ref"])].sort());
    const reached = new Set<string>([own]);
    for (const ref of reached) for (const next of edges.get(ref) ?? []) reached.add(next);
    const required = bom.components.filter(({ scope }) => scope === "required").map((one) => one["bom-ref"]);
    expect([...reached].sort()).toEqual([own, ...required].sort());
  });

  test("is the same each time, and has a time only from SOURCE_DATE_EPOCH", async () => {
    const folder = mkdtempSync(join(tmpdir(), "keyhold-sbom-"));
    try {
      const make = async (name: string, epoch?: string) => {
        const file = join(folder, name, "bom.json");
        const { SOURCE_DATE_EPOCH: _, ...env } = process.env;
        const child = Bun.spawn([process.execPath, join(PROJECT, "scripts", "sbom.ts"), file], {
          env: epoch === undefined ? env : { ...env, SOURCE_DATE_EPOCH: epoch },
          cwd: folder,
          stdin: "ignore",
          stdout: "ignore",
          stderr: "pipe",
        });
        const errors = await child.stderr.text();
        if ((await child.exited) !== 0) throw new Error(errors);
        return readFileSync(file, "utf8");
      };
      const [one, two, dated] = await Promise.all([make("a"), make("b"), make("c", "1700000000")]);
      expect(two).toBe(one);
      expect(one).not.toMatch(/timestamp|serialNumber/);
      expect(one).not.toContain(folder);
      expect(one).not.toContain(PROJECT);
      expect(JSON.parse(dated).metadata.timestamp).toBe("2023-11-14T22:13:20.000Z");
      await expect(make("d", "now")).rejects.toThrow("SOURCE_DATE_EPOCH");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe("bun.lock", () => {
  const sha = "sha512-AA==";
  const lock = (packages: string, wants = '"a": "1.0.0"') =>
    `{ "workspaces": { "": { "dependencies": { ${wants} }, "devDependencies": { "t": "1.0.0" }, } }, "packages": {
      "t": ["t@3.0.0", "", { "dependencies": { "a": "1" } }, "${sha}"], ${packages} }, }`;

  test("gives what Node would load, runtime apart from tools, without what is for one platform only", () => {
    const { direct, packages } = readLock(
      lock(`"a": ["a@1.0.0", "", { "dependencies": { "@s/b": "*" }, "optionalDependencies": { "x": "1", "y": "1" } }, "${sha}"],
        "@s/b": ["@s/b@2.0.0", "", { "dependencies": { "c": "1" } }, "${sha}"], "c": ["c@2.0.0", "", {}, "${sha}"],
        "@s/b/c": ["c@1.0.0", "", {}, "${sha}"], "x": ["x@1.0.0", "", { "os": "aix" }, "${sha}"],`),
    );
    expect(direct).toEqual(["a"]);
    expect(packages.map(({ path, version, runtime, dependsOn }) => ({ path, version, runtime, dependsOn }))).toEqual([
      { path: "@s/b", version: "2.0.0", runtime: true, dependsOn: ["@s/b/c"] },
      { path: "@s/b/c", version: "1.0.0", runtime: true, dependsOn: [] },
      { path: "a", version: "1.0.0", runtime: true, dependsOn: ["@s/b"] },
      { path: "t", version: "3.0.0", runtime: false, dependsOn: ["a"] },
    ]);
  });

  test("is refused without a checksum or with a dependency that it lacks", () => {
    expect(() => readLock(lock('"a": ["a@1.0.0", "", {}, ""],'))).toThrow("a has no SHA-512");
    const lacking = lock(`"a": ["a@1.0.0", "", { "dependencies": { "b": "1" } }, "${sha}"],`);
    expect(() => readLock(lacking)).toThrow("a depends on b, which is not there");
  });
});
