import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHook, type HookOptions, readHookCommand } from "../../../src/server/federation/hook.ts";
import type { LogFields } from "../../../src/server/log.ts";

setDefaultTimeout(30_000);
let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-hook-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A hook that runs a script of Bun, and what it logs. */
function hookOf(script: string, over: Partial<HookOptions> = {}) {
  const path = join(dir, "hook.mjs");
  writeFileSync(path, script);
  const logged: LogFields[] = [];
  const argv = [process.execPath, path, dir, "two words; touch $HOME"];
  const hook = createHook({ argv, log: { write: (_level, fields) => logged.push(fields) }, ...over });
  return { hook, logged, codes: () => logged.map(({ event, code }) => `${event} ${code}`) };
}

const KEEP = `
import { renameSync, writeFileSync } from "node:fs";
const input = await new Response(Bun.stdin.stream()).text();
const file = process.argv[2] + "/got-" + process.pid + ".json";
// whole or not there: the test looks while it is written
writeFileSync(file + ".tmp", JSON.stringify({ input, argv: process.argv.slice(2), env: process.env, cwd: process.cwd() }));
renameSync(file + ".tmp", file);
`;
const got = () =>
  readdirSync(dir)
    .filter((name) => name.startsWith("got-") && name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(join(dir, name), "utf8")));

const EVENT = { event: "approval-needed", requestId: "00".repeat(32), action: "sign", expiresAtMs: 5 } as const;

/** Resolves once a file is there: what a test waits for is an event, not a time. */
async function appears(name: string): Promise<void> {
  while (!existsSync(join(dir, name))) await Bun.sleep(5);
}

describe("a hook", () => {
  test("gets one line of JSON with the request's words, its arguments as they are, and nothing of keyhold's", async () => {
    process.env["KEYHOLD_TEST_CANARY"] = "canary";
    process.env["LD_PRELOAD_CANARY"] = "canary";
    try {
      const { hook, logged } = hookOf(KEEP);
      hook.notify(EVENT);
      await hook.close();
      const [ran, ...more] = got();
      expect(more).toEqual([]);
      expect(ran.input.endsWith("}\n")).toBe(true);
      const words = "abandon abandon abandon abandon abandon abandon";
      expect(JSON.parse(ran.input)).toEqual({ ...EVENT, words });
      expect(ran.argv).toEqual([dir, "two words; touch $HOME"]);
      expect(ran.cwd).toBe("/");
      expect(Object.keys(ran.env).filter((name) => /KEYHOLD|CANARY|BUN_|NODE_/.test(name))).toEqual([]);
      expect(logged).toEqual([]);
    } finally {
      delete process.env["KEYHOLD_TEST_CANARY"];
      delete process.env["LD_PRELOAD_CANARY"];
    }
  });

  test("an event without a request has no words", async () => {
    const { hook } = hookOf(KEEP);
    hook.notify({ event: "federation.joined", name: "three\nfour" });
    await hook.close();
    expect(JSON.parse(got()[0].input)).toEqual({ event: "federation.joined", name: "three\nfour" });
    expect(got()[0].input.split("\n")).toHaveLength(2);
  });

  test("a command that fails, is not there, or reads nothing is logged, and stops nothing", async () => {
    const failing = hookOf("process.exit(3)");
    failing.hook.notify(EVENT);
    await failing.hook.close();
    expect(failing.codes()).toEqual(["hook exit_3"]);

    const absent = hookOf("", { argv: [join(dir, "nothing")] });
    expect(() => absent.hook.notify(EVENT)).not.toThrow();
    await absent.hook.close();
    expect(absent.codes()).toEqual(["hook not_started"]);

    const deaf = hookOf("process.exit(0)");
    deaf.hook.notify({ event: "large", text: "x".repeat(1_000_000) });
    await deaf.hook.close();
    expect(deaf.codes()).toEqual([]);
  });

  test("a command that does not end is ended with all that it started", async () => {
    const { hook, codes } = hookOf(
      `
import { writeFileSync } from "node:fs";
const child = Bun.spawn([process.execPath, "-e", "setInterval(() => {}, 1000)"], { stdio: ["ignore", "ignore", "ignore"] });
writeFileSync(process.argv[2] + "/pid", String(child.pid));
setInterval(() => {}, 1000);`,
      { timeoutMs: 2_000 },
    );
    hook.notify(EVENT);
    await appears("pid");
    await hook.close();
    expect(codes()).toEqual(["hook timed_out"]);
    const pid = Number(readFileSync(join(dir, "pid"), "utf8"));
    const alive = () => {
      try {
        // a zombie still has its number, but runs no more
        return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
      } catch {
        return false;
      }
    };
    while (alive()) await Bun.sleep(5);
    expect(alive()).toBe(false);
  });

  test("so many run at once and so many wait; more are dropped and logged", async () => {
    const script = `
import { existsSync, renameSync, writeFileSync } from "node:fs";
writeFileSync(process.argv[2] + "/started-" + process.pid, "");
while (!existsSync(process.argv[2] + "/go")) await Bun.sleep(5);
${KEEP.replace('import { renameSync, writeFileSync } from "node:fs";', "")}`;
    const { hook, codes } = hookOf(script, { runningMax: 2, waitingMax: 3 });
    const started = () => readdirSync(dir).filter((name) => name.startsWith("started-"));
    for (let n = 0; n < 7; n++) hook.notify({ event: "event", n });
    while (started().length < 2) await Bun.sleep(5);
    // two of seven were dropped; three wait, and have not begun
    expect(codes()).toEqual(["hook overflow", "hook overflow"]);
    expect(started()).toHaveLength(2);
    writeFileSync(join(dir, "go"), "");
    while (got().length < 5) await Bun.sleep(5);
    await hook.close();
    const numbers = got().map(({ input }) => JSON.parse(input).n);
    expect(numbers.toSorted()).toEqual([0, 1, 2, 3, 4]);
  });

  test("closing drops what waits and takes no more", async () => {
    const { hook } = hookOf(KEEP, { runningMax: 1 });
    for (let n = 0; n < 3; n++) hook.notify({ event: "event", n });
    await hook.close();
    hook.notify({ event: "late" });
    expect(got().map(({ input }) => JSON.parse(input).n)).toEqual([0]);
  });
});

describe("the command's file", () => {
  const file = (content: string, mode = 0o644): string => {
    const path = join(dir, "command.json");
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  };

  test("holds a list", async () => {
    expect(await readHookCommand(file('["/bin/echo", "-n", "a b"]'))).toEqual(["/bin/echo", "-n", "a b"]);
  });

  test.each(["", "echo", '"/bin/echo"', "[]", "[1]", '["/bin/echo", ""]', '{"0":"/bin/echo"}'])(
    "not %j",
    async (content) => {
      await expect(readHookCommand(file(content))).rejects.toMatchObject({ code: "bad_input" });
    },
  );

  test.each(['["echo"]', '["./echo"]', '["/bin/echo", "\\u0000"]'])(
    "no path that depends on anything: %s",
    async (content) => {
      await expect(readHookCommand(file(content))).rejects.toMatchObject({ code: "bad_input" });
    },
  );

  test.each([0o664, 0o646, 0o666])("not one that others may write: %o", async (mode) => {
    await expect(readHookCommand(file('["/bin/echo"]', mode))).rejects.toMatchObject({ code: "denied" });
  });

  test("not a link, a directory, or a long one", async () => {
    const link = join(dir, "link");
    symlinkSync(file('["/bin/echo"]'), link);
    await expect(readHookCommand(link)).rejects.toMatchObject({ code: "denied" });
    await expect(readHookCommand(dir)).rejects.toMatchObject({ code: "denied" });
    await expect(readHookCommand(file(`["/bin/echo"]${" ".repeat(16_384)}`))).rejects.toMatchObject({
      code: "bad_input",
    });
    await expect(readHookCommand(join(dir, "nothing"))).rejects.toMatchObject({ code: "not_found" });
  });
});
