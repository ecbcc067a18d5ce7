import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { contentTypeOf } from "../../src/wire/http.ts";
import { type Server, serve } from "../binary/world.ts";
import { frameOf, type RawSession } from "../support/attacker.ts";
import { type Connection, connect, postBytes, underTls } from "./connection.ts";
import { mutateHttp, mutateTls } from "./httpcases.ts";
import { mutateBytes, mutateJson } from "./mutators.ts";
import { type Prng, prng } from "./prng.ts";
import { type Recorded, record } from "./recorder.ts";

/** What a run of malformed requests came to. */
export interface Malformed {
  readonly sent: number;
  /** Answers of 500 to 599 but 505, the listener's own word for a request line of another HTTP version. */
  readonly fiveHundreds: number;
  /** How often the server process ended. */
  readonly restarts: number;
  /** Resident memory at the end against that after the warm-up. */
  readonly memoryGrowthPercent: number;
  readonly residentMib: { readonly warm: number; readonly end: number };
  /** How many answers had which status; `none` where nothing came. */
  readonly statuses: Readonly<Record<string, number>>;
  readonly perLevel: Readonly<Record<Level, number>>;
  /** Of the TLS level: sound handshakes with something else behind them than records of theirs. */
  readonly shaken: number;
  /** Cases that were answered by 5xx: the seed and these numbers make them again. */
  readonly failed: readonly { readonly index: number; readonly level: Level; readonly status: number }[];
  /** Operations of the recording; `bad` are those of the main job that did not succeed. */
  readonly recorded: { readonly operations: number; readonly bad: readonly string[] };
  /** Error lines in the server's log. */
  readonly faults: readonly string[];
}

type Level = "frame" | "json" | "http" | "tls";

/** How many of 20 requests belong to a level. */
const SHARES: Readonly<Record<Level, number>> = { frame: 8, json: 6, http: 4, tls: 2 };
const LEVELS: readonly Level[] = Object.entries(SHARES).flatMap(([level, share]) =>
  Array.from({ length: share }, () => level as Level),
);
const LANES = 8;
/** An answer to a whole request comes at once; what is no whole request is not waited for. */
const WHOLE_MS = 20_000;
const BROKEN_MS = 40;
/** Requests on one connection, before the next comes from another address. */
const PER_CONNECTION = 100;
/** The share that fills caches and the heap. */
const WARM_SHARE = 0.5;

interface Lane {
  connection: Connection | undefined;
  uses: number;
  session: RawSession | undefined;
}

/** Mutated JSON: by its structure, or now and then as mere bytes. */
function mutatedJson(choose: Prng, { json }: Recorded, other: Recorded): Uint8Array {
  return choose.below(5) === 0 ? mutateBytes(choose, Buffer.from(json), other.body) : mutateJson(choose, json);
}

const residentMib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1_024;

/** The least of some looks at the resident memory: a collection may be due at any of them. */
async function settledMib(pid: number): Promise<number> {
  const seen: number[] = [];
  for (let i = 0; i < 24; i++) {
    seen.push(residentMib(pid));
    await Bun.sleep(125);
  }
  return Math.min(...seen);
}

/**
 * Sends malformed requests, made from recorded good ones, to a server process of its own: mutated at TLS, HTTP, JSON
 * and frame level. The choices of a case depend on nothing but the seed and its index.
 *
 * @param progress Learns of the number sent, now and then.
 */
export async function malformedRequests({
  count,
  seed,
  progress,
}: {
  readonly count: number;
  readonly seed: number;
  readonly progress?: (sent: number) => void;
}): Promise<Malformed> {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-hostile-"));
  const servers: Server[] = [];
  try {
    let server = await serve(dir);
    servers.push(server);
    const { port, pid } = server;
    const recording = await record(port);
    const anonymous = recording.items.filter(({ operation }) => contentTypeOf(operation) === "application/json");
    const sealed = recording.items.filter(({ operation }) => contentTypeOf(operation) !== "application/json");
    const statuses: Record<string, number> = {};
    const perLevel: Record<Level, number> = { frame: 0, json: 0, http: 0, tls: 0 };
    const failed: { index: number; level: Level; status: number }[] = [];
    let shaken = 0;
    let restarts = 0;
    let next = 0;
    let end = 0;

    async function revive(): Promise<void> {
      if (servers.at(-1) !== server) return;
      const health = await connect({ port, tls: true });
      if (health.open) {
        health.end();
        return;
      }
      restarts += 1;
      await server.stop("SIGKILL");
      server = await serve(dir, ["--listen", `127.0.0.1:${port}`]);
      servers.push(server);
    }

    async function connected(lane: Lane, choose: Prng): Promise<Connection> {
      if (lane.connection?.open && lane.uses < PER_CONNECTION) {
        lane.uses += 1;
        return lane.connection;
      }
      lane.connection?.end();
      lane.uses = 1;
      const from = `127.${1 + choose.below(250)}.${choose.below(256)}.${1 + choose.below(250)}`;
      lane.connection = await connect({ port, from, tls: true });
      if (!lane.connection.open) await revive();
      return lane.connection;
    }

    async function one(lane: Lane, index: number): Promise<void> {
      const choose = prng(seed, index);
      const level = choose.pick(LEVELS);
      perLevel[level] += 1;
      let status: number | null;
      if (level === "frame" || level === "json") {
        const from = level === "frame" ? sealed : anonymous;
        const item = choose.pick(from);
        const other = choose.pick(from);
        // half of the frames are soundly sealed: what is wrong with them shows only inside
        const sound = level === "json" || choose.below(2) === 0;
        let body: Uint8Array = sound ? mutatedJson(choose, item, other) : Buffer.from(item.json);
        if (level === "frame") {
          lane.session ??= await recording.logIn();
          const { bytes } = frameOf(lane.session, item.operation, body);
          body = sound ? bytes : mutateBytes(choose, bytes, other.body);
        }
        const connection = await connected(lane, choose);
        const outcome = await connection.exchange(postBytes(item.operation, item.contentType, body), WHOLE_MS);
        ({ status } = outcome);
        // a request that is still sound may have closed the session
        if (status === 401 && sound && level === "frame") lane.session = undefined;
      } else if (level === "tls" && choose.below(4) === 0) {
        status = null;
        if (await underTls(port, choose.below(8) === 0 ? new Uint8Array(0) : mutateTls(choose), BROKEN_MS)) shaken += 1;
      } else {
        const connection = await connect({ port, tls: level === "http" || choose.below(4) === 0 });
        const bytes = level === "http" ? mutateHttp(choose, choose.pick(recording.items)) : mutateTls(choose);
        ({ status } = await connection.exchange(bytes, BROKEN_MS));
        connection.end();
      }
      statuses[status ?? "none"] = (statuses[status ?? "none"] ?? 0) + 1;
      if (status !== null && status >= 500 && status !== 505) failed.push({ index, level, status });
    }

    async function run(until: number): Promise<void> {
      end = until;
      const lanes: Lane[] = Array.from({ length: LANES }, () => ({
        connection: undefined,
        uses: 0,
        session: undefined,
      }));
      await Promise.all(
        lanes.map(async (lane) => {
          while (next < end) {
            const index = next++;
            await one(lane, index);
            if (index % 1_000 === 999) progress?.(index + 1);
          }
          lane.connection?.end();
        }),
      );
    }

    await run(Math.ceil(count * WARM_SHARE));
    const warm = await settledMib(pid);
    await run(count);
    const alive = server.pid === pid && (await connect({ port, tls: true })).open;
    if (!alive && server.pid === pid) restarts += 1;
    const residentEnd = alive ? await settledMib(pid) : Number.NaN;
    await server.stop("SIGTERM");
    return {
      sent: next,
      fiveHundreds: failed.length,
      restarts,
      memoryGrowthPercent: Math.round((residentEnd / warm - 1) * 1_000) / 10,
      residentMib: { warm: Math.round(warm), end: Math.round(residentEnd) },
      statuses,
      perLevel,
      shaken,
      failed,
      recorded: {
        operations: new Set(recording.items.map(({ operation }) => operation)).size,
        bad: recording.items.filter(({ meant, good }) => meant && !good).map(({ operation }) => operation),
      },
      faults: servers.flatMap((each) =>
        each
          .log()
          .split("\n")
          .filter((line) => line.includes('"level":"error"')),
      ),
    };
  } finally {
    for (const each of servers) await each.stop("SIGKILL").catch(() => undefined);
    rmSync(dir, { recursive: true, force: true });
  }
}
