import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import serve from "../../src/commands/serve.ts";
import { SETTINGS, variableOf } from "../../src/ui/config.ts";
import { testNeeding } from "../support/skip.ts";

const DEPLOY = join(import.meta.dir, "..", "..", "deploy");
const UNITS = ["keyhold.service", "keyhold@.service"];
const dir = mkdtempSync(join(tmpdir(), "keyhold-deploy-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const textOf = (name: string) => readFileSync(join(DEPLOY, name), "utf8");

/** The values of a unit's settings; comments left out. */
function unit(name: string): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>();
  for (const line of textOf(name).split("\n")) {
    const [, key, value] = /^([A-Za-z]+)=(.*)$/.exec(line) ?? [];
    if (key !== undefined && value !== undefined) found.set(key, [...(found.get(key) ?? []), value]);
  }
  return found;
}

/** Names of the flags that `serve` takes, as the command line has them. */
const FLAGS = Object.keys(serve.args).map((name) => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`);

describe.each(UNITS)("%s", (name) => {
  const of = (key: string) => unit(name).get(key)?.join(" ");

  test("takes everything from the process that it does not need", () => {
    const wanted = {
      NoNewPrivileges: "yes",
      CapabilityBoundingSet: "",
      AmbientCapabilities: "",
      ProtectSystem: "strict",
      ProtectHome: "yes",
      PrivateTmp: "yes",
      PrivateDevices: "yes",
      RestrictSUIDSGID: "yes",
      RestrictNamespaces: "yes",
      ProtectKernelTunables: "yes",
      RestrictAddressFamilies: "AF_INET AF_INET6 AF_UNIX",
      SystemCallArchitectures: "native",
      UMask: "0077",
      StateDirectoryMode: "0700",
      LimitCORE: "0",
      MemorySwapMax: "0",
    };
    for (const [key, value] of Object.entries(wanted)) expect([key, of(key)]).toEqual([key, value]);
    expect(of("SystemCallFilter")).toStartWith("@system-service ");
    // compiled code is mapped writable and executable: with it the server would not start
    expect(of("MemoryDenyWriteExecute")).toBeUndefined();
    for (const variable of ["BUN_BE_BUN", "BUN_OPTIONS", "LD_PRELOAD"])
      expect(of("UnsetEnvironment")).toContain(variable);
  });

  test("uses flags and variables that there are, and no password on a command line", () => {
    const flags = of("ExecStart")?.match(/--[a-z-]+/g) ?? [];
    expect(flags).toContain("--dir");
    for (const flag of flags) expect(FLAGS).toContain(flag);
    const variables = textOf(name).match(/\bKEYHOLD_[A-Z_]+(?==)/g) ?? [];
    const known = (Object.keys(SETTINGS) as (keyof typeof SETTINGS)[]).map(variableOf);
    expect(variables.length).toBeGreaterThan(1);
    for (const variable of variables) expect(known).toContain(variable);
    expect(textOf(name)).not.toMatch(/postgres:\/\/[^@\s]*:[^@\s]*@/);
  });

  testNeeding("systemd-analyze", "is a unit that systemd understands, and exposes little", () => {
    // the executable is looked for where the unit says: one of that name stands in
    const stand = join(dir, "keyhold");
    writeFileSync(stand, "#!/bin/sh\n");
    chmodSync(stand, 0o755);
    const copy = join(dir, name);
    writeFileSync(copy, textOf(name).replaceAll("/usr/local/bin/keyhold", stand));
    const run = (...argv: string[]) => Bun.spawnSync(["systemd-analyze", ...argv], { stdout: "pipe", stderr: "pipe" });
    const verified = run("verify", copy);
    expect([verified.exitCode, verified.stderr.toString()]).toEqual([0, ""]);
    const judged = run("security", "--offline=true", "--no-pager", "--threshold=20", copy);
    expect([judged.exitCode, /Overall exposure level.*/.exec(judged.stdout.toString())?.[0]]).toEqual([
      0,
      expect.stringMatching(/: 1\.\d/),
    ]);
  });
});

test("the container runs without a shell, not as root, and keeps its state in a volume", () => {
  const lines = textOf("Containerfile")
    .split("\n")
    .filter((line) => /^[A-Z]/.test(line));
  expect(lines.filter((line) => line.startsWith("FROM ")).at(-1)).toBe("FROM scratch");
  expect(lines.find((line) => line.startsWith("USER "))).toBe("USER 65532:65532");
  expect(lines).toContain('VOLUME ["/var/lib/keyhold"]');
  const entry = /^ENTRYPOINT (\[.*\])$/m.exec(textOf("Containerfile"))?.[1] ?? "[]";
  for (const flag of (JSON.parse(entry) as string[]).filter((word) => word.startsWith("--"))) {
    expect(FLAGS).toContain(flag);
  }
});
