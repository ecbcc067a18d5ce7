import { afterEach, describe, expect, test } from "bun:test";
import type { MemberPlace, Membership } from "../../src/client/federation/membership.ts";
import { BACK_MS, isAway, sessionEnd } from "../../src/connector/ends.ts";
import { createFigures } from "../../src/connector/figures.ts";
import { startListener } from "../../src/connector/listener.ts";
import { createConnectorLog } from "../../src/connector/log.ts";
import { Fault } from "../../src/errors.ts";
import { random } from "../support/harness.ts";

const PLACES: readonly MemberPlace[] = ["a", "b", "c"].map((name) => ({ index: 0, url: `https://${name}`, pin: "p" }));

/** Places of one registry that can be away, or have ended a session. */
function places() {
  const away = new Set<string>();
  const opened: string[] = [];
  const asked: string[] = [];
  let invalid = false;
  const clock = { nowMs: 1_000 };
  const end = sessionEnd(
    PLACES,
    async (place) => {
      if (away.has(place.url)) throw new Fault("unreachable", "nothing listens there");
      opened.push(place.url);
      const session = {
        async call() {
          if (invalid) {
            invalid = false;
            throw new Fault("session_invalid", "the session has ended");
          }
          if (away.has(place.url)) throw new Fault("unreachable", "nothing listens there");
          asked.push(place.url);
          return { output: {} };
        },
        away: () => away.has(place.url),
        forget: () => undefined,
      };
      return { session } as unknown as Membership<MemberPlace>;
    },
    { now: () => clock.nowMs, random },
  );
  return {
    away,
    opened,
    asked,
    clock,
    endSession: () => {
      invalid = true;
    },
    ask: () => end.call("party.report", { reports: [] }),
    end,
  };
}

describe("places of one registry", () => {
  test("the first is used while it answers, with one session", async () => {
    const at = places();
    for (let n = 0; n < 3; n++) await at.ask();
    expect(at.opened).toEqual(["https://a"]);
    expect(at.asked).toEqual(["https://a", "https://a", "https://a"]);
  });

  test("the next one is used where one is away, and the first again in time", async () => {
    const at = places();
    await at.ask();
    at.away.add("https://a");
    await at.ask();
    at.away.add("https://b");
    await at.ask();
    expect(at.asked).toEqual(["https://a", "https://b", "https://c"]);
    at.away.clear();
    await at.ask();
    expect(at.asked.at(-1)).toBe("https://c");
    at.clock.nowMs += BACK_MS + 1;
    await at.ask();
    expect(at.asked.at(-1)).toBe("https://a");
  });

  test("where all are away the failure says so, and the next call tries again", async () => {
    const at = places();
    for (const { url } of PLACES) at.away.add(url);
    const fault = await at.ask().catch((error: unknown) => error);
    expect(isAway(fault)).toBe(true);
    at.away.clear();
    await at.ask();
    expect(at.asked).toHaveLength(1);
  });

  test("a session that has ended is opened again at the same place", async () => {
    const at = places();
    await at.ask();
    at.endSession();
    await at.ask();
    expect(at.opened).toEqual(["https://a", "https://a"]);
  });
});

describe("figures and health", () => {
  const stops: (() => Promise<void>)[] = [];
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop();
  });

  function listening(health: { ready: boolean; draining: boolean }) {
    const figures = createFigures("1.2.3", {
      counts: () => ({ open: 1, answered: 2, over: 3, dead: 4, unsent: 5 }),
      running: () => 6,
      ready: () => health.ready,
      draining: () => health.draining,
      lastContactMs: () => 7_000,
    });
    figures.task("begin", "said", 20);
    figures.reported("response");
    figures.away("registry");
    const listener = startListener({
      host: "127.0.0.1",
      port: 0,
      contentType: figures.contentType,
      text: () => figures.text(),
      health: () => health,
    });
    stops.push(() => listener.stop());
    return listener;
  }

  test("are told by address alone, and to nobody else's names", async () => {
    const health = { ready: true, draining: false };
    const { url, port } = listening(health);
    const text = await (await fetch(`${url}/metrics`)).text();
    for (const line of [
      'keyhold_connector_tasks_total{task="begin",result="said"} 1',
      'keyhold_connector_items{state="dead"} 4',
      "keyhold_connector_dead_letters 4",
      "keyhold_connector_responses_unsent 5",
      "keyhold_connector_tasks_running 6",
      "keyhold_connector_ready 1",
      "keyhold_connector_last_contact_seconds 7",
      'keyhold_connector_build_info{version="1.2.3"} 1',
    ])
      expect(text).toContain(line);
    expect((await fetch(`${url}/health`)).status).toBe(200);
    health.draining = true;
    const drained = await fetch(`${url}/health`);
    expect([drained.status, await drained.json()]).toEqual([503, health]);
    expect((await fetch(`${url}/else`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: "POST" })).status).toBe(405);
    const rebound = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { host: "evil.example" } });
    expect(rebound.status).toBe(421);
  });

  test("are refused beyond this machine, and on a port in use", () => {
    const { port } = listening({ ready: true, draining: false });
    const start = (host: string, at: number) => () =>
      startListener({
        host,
        port: at,
        contentType: "text/plain",
        text: async () => "",
        health: () => ({ ready: true, draining: false }),
      });
    expect(start("0.0.0.0", 0)).toThrow("on this machine alone");
    expect(start("127.0.0.1", port)).toThrow("in use");
  });
});

test("log lines are JSON, of the level that was asked for, and nothing in them escapes its line", () => {
  const lines: string[] = [];
  const log = createConnectorLog(
    "info",
    (line) => void lines.push(line),
    () => 0,
  );
  log.write("debug", { event: "quiet" });
  log.write("warn", { event: "why", why: "two\nlines\u001b[31m" });
  expect(lines).toHaveLength(1);
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    at: "1970-01-01T00:00:00.000Z",
    level: "warn",
    event: "why",
    why: "two?lines?[31m",
  });
  const broken = createConnectorLog(
    "info",
    () => {
      throw new Error("EPIPE");
    },
    () => 0,
  );
  expect(() => broken.write("error", { event: "x" })).not.toThrow();
});
