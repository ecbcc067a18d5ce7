import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { LogFields, LogLevel } from "../../src/server/log.ts";
import { windowedLog } from "../../src/server/logwindow.ts";

const WINDOW = 1_000;

function start(lines = 3) {
  const written: [LogLevel, LogFields][] = [];
  let at = 0;
  const log = windowedLog({ write: (level, fields) => written.push([level, fields]) }, () => at, {
    windowMs: WINDOW,
    lines,
  });
  return { written, log, pass: (ms: number) => (at += ms) };
}

const line = (code: string, ms = 1): LogFields => ({ event: "request", op: "session.check", status: 400, ms, code });

describe("a flooded log", () => {
  test("shows the first lines of a kind, then one with their count when the window ends", () => {
    const { written, log, pass } = start();
    for (let i = 0; i < 10; i++) log.write("info", line("bad_input", i));
    expect(written).toEqual([0, 1, 2].map((ms) => ["info", line("bad_input", ms)]));
    pass(WINDOW);
    log.write("info", line("ok"));
    const { ms: _ms, ...same } = line("bad_input");
    expect(written.slice(3)).toEqual([
      ["info", { ...same, count: 7 }],
      ["info", line("ok")],
    ]);
  });

  test("keeps kinds apart: a flood of one hides no other", () => {
    const { written, log } = start();
    for (let i = 0; i < 50; i++) log.write("info", line("bad_input"));
    log.write("error", line("internal"));
    log.write("info", { event: "draining", count: 4 });
    expect(written.slice(3)).toEqual([
      ["error", line("internal")],
      ["info", { event: "draining", count: 4 }],
    ]);
  });

  test("starts anew with each window", () => {
    const { written, log, pass } = start();
    for (let window = 0; window < 4; window++) {
      for (let i = 0; i < 3; i++) log.write("info", line("ok"));
      pass(WINDOW);
    }
    expect(written).toHaveLength(12);
  });

  test("writes the count although no further line comes", async () => {
    const written: LogFields[] = [];
    const log = windowedLog({ write: (_level, fields) => written.push(fields) }, () => performance.now(), {
      windowMs: 20,
      lines: 1,
    });
    for (let i = 0; i < 3; i++) log.write("info", line("ok"));
    while (written.length < 2) await Bun.sleep(5);
    expect(written[1]).toMatchObject({ code: "ok", count: 2 });
  });

  test("loses no event: lines and counts give what was written", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom("ok", "stale", "busy"), fc.nat(400))), (steps) => {
        const { written, log, pass } = start(2);
        for (const [code, ms] of steps) {
          log.write("info", line(code));
          pass(ms);
        }
        log.flush();
        for (const code of ["ok", "stale", "busy"]) {
          const seen = written.filter(([, fields]) => fields.code === code);
          const sum = seen.reduce((total, [, { count }]) => total + (count ?? 1), 0);
          expect(sum).toBe(steps.filter(([kind]) => kind === code).length);
        }
      }),
    );
  });
});
