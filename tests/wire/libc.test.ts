import { expect } from "bun:test";
import { join } from "node:path";
import { testUnless } from "../support/skip.ts";

const LIBC = join(import.meta.dir, "..", "..", "src", "wire", "libc.ts");
const SCRIPT = `
import { dlopen } from "bun:ffi";
import { readFileSync } from "node:fs";
import { libc } from ${JSON.stringify(LIBC)};
const PR_GET_DUMPABLE = 3;
const name = process.versions.bun && readFileSync("/proc/self/maps", "utf8").includes("musl") ? "libc.so" : "libc.so.6";
const { symbols } = dlopen(name, { prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" } });
const facts = () => [symbols.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0),
  /^Max core file size +(\\S+) +(\\S+)/m.exec(readFileSync("/proc/self/limits", "utf8")).slice(1)];
const before = facts();
libc().seal();
console.log(JSON.stringify([before, facts()]));
`;

testUnless(
  process.platform === "linux" ? undefined : "needs Linux",
  "a sealed process is not dumpable and has no core",
  async () => {
    const child = Bun.spawn([process.execPath, "-e", SCRIPT], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
    const [[dumpable], after] = JSON.parse(await child.stdout.text());
    expect(dumpable).toBe(1);
    expect(after).toEqual([0, ["0", "0"]]);
  },
);
