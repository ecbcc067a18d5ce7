import { describe, expect, test } from "bun:test";
import { Fault } from "../../src/errors.ts";
import { createLog, faultFields, type LogFields, type LogLevel } from "../../src/server/log.ts";

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

  test("an unexpected failure leaves its kind and its place, never its message", () => {
    const here = /^log\.test\.ts:\d+:\d+$/;
    const thrown = (make: () => unknown): LogFields => {
      try {
        throw make();
      } catch (error) {
        return faultFields(error);
      }
    };
    expect(thrown(() => new RangeError("canary"))).toEqual({
      event: "fault",
      code: "RangeError",
      place: expect.stringMatching(here),
    });
    expect(thrown(() => new Fault("internal", "canary"))).toMatchObject({
      code: "internal",
      place: expect.stringMatching(here),
    });
    // a message in the form of a frame is still a message
    expect(thrown(() => new Error("x\n    at canary (/canary.ts:1:2)"))).toMatchObject({
      code: "Error",
      place: expect.stringMatching(here),
    });
    const named = new Error("canary");
    named.name = "canary with spaces";
    const unplaced = new Error("canary");
    unplaced.stack = "Error: canary\n    at canary (native)\n    at f (/x/node_modules/canary/index.js:1:2)";
    const written = lines("info", (log) => {
      for (const error of ["canary", null, { stack: "canary", name: 1 }, named, unplaced]) {
        log.write("error", faultFields(error));
      }
    });
    expect(JSON.stringify(written)).not.toContain("canary/");
    expect(written.map(({ code }) => code)).toEqual(["unknown", "unknown", "unknown", undefined, "Error"]);
    expect(written.map(({ place }) => place !== undefined)).toEqual([false, false, false, true, false]);
  });

  test("a place outside the listed form is dropped", () => {
    const places = ["login.ts:1:2", "/home/ada/login.ts:1:2", "canary", "login.ts", `${"x".repeat(80)}.ts:1:2`];
    const written = lines("info", (log) => {
      for (const place of places) log.write("error", { event: "fault", place });
    });
    expect(written.map(({ place }) => place)).toEqual(["login.ts:1:2", undefined, undefined, undefined, undefined]);
  });

  test("a stream that fails does not stop the server", () => {
    const log = createLog("info", () => {
      throw new Error("EPIPE");
    });
    expect(() => log.write("error", { event: "x" })).not.toThrow();
  });
});
