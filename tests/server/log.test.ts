import { describe, expect, test } from "bun:test";
import { createLog, type LogFields, type LogLevel } from "../../src/server/log.ts";

function lines(level: LogLevel, write: (log: ReturnType<typeof createLog>) => void): Record<string, unknown>[] {
  const out: string[] = [];
  write(createLog(level, (line) => out.push(line)));
  for (const line of out) expect(line).toEndWith("\n");
  return out.map((line) => JSON.parse(line));
}

describe("log", () => {
  test("is one JSON line an event", () => {
    const [line] = lines("info", (log) =>
      log.write("info", { event: "request", op: "secret.get", status: 200, ms: 1.23456, code: "ok" }),
    );
    expect(line).toEqual({
      at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      level: "info",
      event: "request",
      op: "secret.get",
      status: 200,
      ms: 1.23,
      code: "ok",
    });
  });

  test("drops what is not on the list and what does not look like a word or a number", () => {
    const fields = {
      event: "request",
      op: "canary with spaces",
      code: "canary\ninjected",
      status: "canary",
      ms: Number.NaN,
      account: "canary",
      error: new Error("canary"),
      message: "canary",
      args: ["canary"],
      level: "canary",
      at: "canary",
    } as unknown as LogFields;
    const written = lines("info", (log) => log.write("error", fields));
    expect(JSON.stringify(written)).not.toContain("canary");
    expect(written).toEqual([{ at: expect.any(String), level: "error", event: "request" }]);
  });

  test("keeps to its level and throttles nothing", () => {
    const written = lines("warn", (log) => {
      log.write("info", { event: "request" });
      log.write("debug", { event: "request" });
      for (let i = 0; i < 50; i += 1) log.write("warn", { event: "same", count: 1 });
    });
    expect(written).toHaveLength(50);
  });

  test("a stream that fails does not stop the server", () => {
    const log = createLog("info", () => {
      throw new Error("EPIPE");
    });
    expect(() => log.write("error", { event: "x" })).not.toThrow();
  });
});
