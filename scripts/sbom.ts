import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import manifest from "../package.json" with { type: "json" };
import { licenceOf, type Package, readLock } from "./dependencies.ts";

const PROJECT = dirname(import.meta.dir);

/** A component of a CycloneDX 1.6 bill of materials, as far as it is used here. */
export interface Component {
  readonly type: "application" | "library" | "platform";
  readonly "bom-ref": string;
  readonly group?: string;
  readonly name: string;
  readonly version: string;
  /** `excluded`: used to build and test, not in the executable. */
  readonly scope?: "required" | "excluded";
  readonly hashes?: readonly { readonly alg: "SHA-512"; readonly content: string }[];
  readonly licenses: readonly (
    | { readonly license: { readonly id: string } | { readonly name: string } }
    | { readonly expression: string }
  )[];
  readonly purl: string;
}

/** A CycloneDX 1.6 bill of materials, as far as it is used here. */
export interface Bom {
  readonly $schema: string;
  readonly bomFormat: "CycloneDX";
  readonly specVersion: "1.6";
  readonly version: 1;
  readonly metadata: {
    readonly timestamp?: string;
    readonly lifecycles: readonly { readonly phase: "build" }[];
    readonly component: Component;
  };
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
}

/**
 * Licences of what Bun links statically, by their names in `process.versions`
 * (https://bun.com/docs/project/license); names without SPDX identifier in capitals.
 */
const LINKED: Readonly<Record<string, string>> = {
  ares: "MIT",
  boringssl: "BORINGSSL",
  icu: "Unicode-3.0",
  libarchive: "BSD-2-Clause",
  libdeflate: "MIT",
  llhttp: "MIT",
  lolhtml: "BSD-3-Clause",
  lshpack: "MIT",
  mimalloc: "MIT",
  picohttpparser: "MIT",
  sqlite: "blessing",
  tinycc: "LGPL-2.1-or-later",
  usockets: "Apache-2.0",
  uwebsockets: "Apache-2.0",
  webkit: "LGPL-2.0-or-later",
  zlib: "Zlib",
  zstd: "BSD-3-Clause",
};

/** Entries of `process.versions` that are no libraries: interfaces, emulated versions, Bun itself, build tools. */
const NO_LIBRARIES = new Set(["bun", "modules", "napi", "node", "openssl", "typescript", "unicode", "uv", "v8", "zig"]);

function licensed(expression: string): Component["licenses"] {
  if (/^[A-Z]+SSL$/.test(expression)) return [{ license: { name: expression } }];
  return / (?:AND|OR) /.test(expression) ? [{ expression }] : [{ license: { id: expression } }];
}

function npmUrl(name: string, version: string): string {
  return `pkg:npm/${name.replace("@", "%40")}@${version}`;
}

function component(one: Package): Component {
  const [name = "", group] = one.name.split("/").reverse();
  const purl = npmUrl(one.name, one.version);
  const bun = one.name === "bun";
  return {
    type: bun ? "platform" : "library",
    "bom-ref": purl,
    ...(group === undefined ? {} : { group }),
    name,
    version: one.version,
    scope: one.runtime || bun ? "required" : "excluded",
    hashes: [{ alg: "SHA-512", content: one.sha512 }],
    licenses: licensed(licenceOf(one).expression),
    purl,
  };
}

/** What is linked into the Bun that runs this, which is the one that executables get. @throws Error for an unknown one */
function linked(versions: NodeJS.ProcessVersions): readonly Component[] {
  return Object.entries(versions)
    .filter(([name]) => !NO_LIBRARIES.has(name))
    .map(([name, version = ""]) => {
      const expression = LINKED[name];
      if (expression === undefined) throw new Error(`sbom: the licence of ${name}, which Bun links, is not known`);
      const purl = `pkg:generic/${name}@${version}`;
      const licenses = licensed(expression);
      return { type: "library", "bom-ref": purl, name, version, scope: "required", licenses, purl } as const;
    });
}

const byRef = (a: { "bom-ref": string }, b: { "bom-ref": string }) => (a["bom-ref"] < b["bom-ref"] ? -1 : 1);

/**
 * The bill of materials of this version: keyhold, its libraries, Bun with what it links, and the tools that build and
 * test it. The same sources give the same bytes.
 *
 * @param epoch `SOURCE_DATE_EPOCH`, seconds: only with it a time is named.
 */
export function billOfMaterials(epoch: string | undefined): Bom {
  const { direct, packages } = readLock();
  const refOf = new Map(packages.map((one) => [one.path, npmUrl(one.name, one.version)]));
  const refs = (paths: readonly string[]) => paths.flatMap((path) => refOf.get(path) ?? []).sort();
  const parts = linked(process.versions);
  const bun = npmUrl("bun", Bun.version);
  const own = npmUrl(manifest.name, manifest.version);
  const unique = new Map([...packages.map(component), ...parts].map((one) => [one["bom-ref"], one]));
  const edges = new Map(packages.map((one) => [npmUrl(one.name, one.version), refs(one.dependsOn)]));
  for (const part of parts) edges.set(part["bom-ref"], []);
  edges.set(bun, parts.map((part) => part["bom-ref"]).sort());
  edges.set(own, [...refs(direct), bun].sort());
  if (epoch !== undefined && !/^\d{1,11}$/.test(epoch)) throw new Error("SOURCE_DATE_EPOCH is no number of seconds");
  return {
    $schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      ...(epoch === undefined ? {} : { timestamp: new Date(Number(epoch) * 1_000).toISOString() }),
      lifecycles: [{ phase: "build" }],
      component: {
        type: "application",
        "bom-ref": own,
        name: manifest.name,
        version: manifest.version,
        licenses: licensed(manifest.license),
        purl: own,
      },
    },
    components: [...unique.values()].sort(byRef),
    dependencies: [...edges].sort(([a], [b]) => (a < b ? -1 : 1)).map(([ref, dependsOn]) => ({ ref, dependsOn })),
  };
}

if (import.meta.main) {
  const file = process.argv[2] ?? join(PROJECT, "dist", "keyhold.cdx.json");
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(billOfMaterials(process.env["SOURCE_DATE_EPOCH"]), null, 2)}\n`);
  process.stdout.write(`${file}\n`);
}
