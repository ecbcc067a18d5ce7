import { readFileSync } from "node:fs";
import { Fault } from "../../src/errors.ts";
import { formatNamed } from "../../src/formats/index.ts";
import { asksFor } from "./foreign.ts";

const [name = "", path = "", password = ""] = process.argv.slice(2);
const format = await formatNamed(name);
let code = "read";
try {
  await format.read?.(new Uint8Array(readFileSync(path)), { name: null, map: new Map(), asks: asksFor(password) });
} catch (error) {
  if (!(error instanceof Fault)) throw error;
  code = error.code;
}
process.stdout.write(JSON.stringify({ code, peakMib: peakMib() }));

/** Of this program alone: on Linux `maxRSS` counts what the process was before it became this program, too. */
function peakMib(): number {
  if (process.platform !== "linux") return process.resourceUsage().maxRSS / 1_048_576;
  const [, kib] = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8")) ?? [];
  return Number(kib) / 1_024;
}
