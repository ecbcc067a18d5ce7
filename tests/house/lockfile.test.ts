import { expect, test } from "bun:test";
import { join } from "node:path";
import manifest from "../../package.json" with { type: "json" };

const PROJECT = join(import.meta.dir, "..", "..");

test("bun.lock names no registry and no machine", async () => {
  const lock = await Bun.file(join(PROJECT, "bun.lock")).text();
  expect(lock).toContain('"packages": {');
  expect(lock.match(/[a-z+]+:\/\/\S*|\/(root|home|Users|tmp|work)\/\S*/gi) ?? []).toEqual([]);
});

test("every dependency has one exact version", () => {
  const wanted = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies });
  expect(wanted.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
});

test("this runs on the Bun of package.json", () => {
  expect(Bun.version).toBe(manifest.devDependencies.bun);
});
