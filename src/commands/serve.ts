import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { createInvite } from "../server/administration.ts";
import { startControl } from "../server/control.ts";
import { demandDatabase } from "../server/database.ts";
import { type KeyServer, openKeyServer } from "../server/keyserver.ts";
import { createLog, faultFields, type ServerLog } from "../server/log.ts";
import { windowedLog } from "../server/logwindow.ts";
import type { Metrics } from "../server/metrics.ts";
import type { RunningScrape } from "../server/scrape.ts";
import { certificateNames, operatorCertificate, serverCertificate } from "../server/tls.ts";
import { type RunningServer, startServer } from "../server.ts";
import { defineCommand } from "../ui/command.ts";
import { sealProcess, selfCommand } from "../ui/process.ts";
import { plain } from "../ui/text.ts";
import { COMMIT, VERSION } from "../version.ts";
import { isLoopback } from "../wire/http.ts";

/** Takes HOST:PORT apart; IPv6 in brackets. */
function addressOf(flag: string, text: string): { host: string; port: number } {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:\s]+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (!match?.[1] || port > 65_535) {
    throw new Fault("usage", `${flag} takes HOST:PORT`, {
      hint: `${flag} 127.0.0.1:7443, or [::1]:0 for a free port`,
    });
  }
  return { host: match[1], port };
}

interface Figures {
  readonly metrics: Metrics;
  readonly scrape: RunningScrape;
}

/** The figures and their own listener; loaded only where they are asked for. */
async function figures(text: string, open: boolean, log: ServerLog): Promise<Figures> {
  const listen = addressOf("--metrics", text);
  const [{ createMetrics }, { startScrape }] = await Promise.all([
    import("../server/metrics.ts"),
    import("../server/scrape.ts"),
  ]);
  const metrics = createMetrics({ version: VERSION, commit: COMMIT });
  const scrape = startScrape({ listen, open, contentType: metrics.contentType, text: () => metrics.text(), log });
  return { metrics, scrape };
}

/** A first code for an empty server that lets nobody in without one. */
async function firstInvite(server: KeyServer): Promise<string | null> {
  if (server.ctx.registration !== "invite") return null;
  const empty = await server.ctx.store.transaction(async (tx) => {
    const accounts = await tx.accounts(null, 1);
    return (
      accounts.length === 0 &&
      (await tx.invites()).every((row) => row.usedAtMs !== null || row.expiresAtMs <= Date.now())
    );
  });
  return empty ? (await createInvite(server.ctx, null)).code : null;
}

/** The connector of a directory beside the server; where it cannot go on, the server does. */
async function besideConnector(
  dir: string,
  notice: (text: string) => void,
  log: ServerLog,
): Promise<() => Promise<void>> {
  const { LOOP, createConnectorLog, startConnector } = await import("../connector/index.ts");
  const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
  const running = await startConnector({
    dir: resolve(dir),
    version: VERSION,
    around: { now: Date.now, random, notice },
    log: createConnectorLog("info", (line) => void process.stderr.write(line), Date.now),
    concurrency: LOOP.concurrency,
    listen: null,
  });
  const ended = running.ended.catch((error: unknown) => {
    log.write("error", { ...faultFields(error), event: "connector" });
  });
  return async () => {
    running.drain();
    await ended;
  };
}

const scraped = (shown: Figures | undefined) => (shown ? { metrics: shown.scrape.url } : {});

function banner(running: RunningServer, dir: string, registration: string, invite: string | null): string {
  const code = registration === "invite" ? ` --invite ${invite ?? "CODE"}` : "";
  return [
    `keyhold serves ${running.url}`,
    `  pin           ${running.pin}`,
    `  directory     ${plain(dir)}`,
    `  registration  ${registration}${registration === "invite" ? "   (new codes: keyhold server invite create)" : ""}`,
    "",
    "Register from a client:",
    `  keyhold register --server ${running.url} --pin ${running.pin} --account NAME${code}`,
    "",
    "Ctrl-C stops it.",
  ].join("\n");
}

export default defineCommand({
  args: {
    dir: { type: "string", hint: "DIR", description: "the server's directory, made on first start" },
    listen: {
      type: "string",
      hint: "HOST:PORT",
      description: `where to listen (default ${DEFAULTS.listen}; port 0: a free one)`,
    },
    database: {
      type: "string",
      hint: "sqlite:PATH|postgres://…",
      description: "the database (default DIR/keyhold.db); a password comes from PGPASSWORD or PGPASSFILE",
    },
    reusePort: { type: "boolean", description: "share the port with other processes on one database (Linux)" },
    tlsCert: { type: "string", hint: "FILE", description: "certificate chain of your own, PEM" },
    tlsKey: { type: "string", hint: "FILE", description: "its key, PEM" },
    name: {
      type: "list",
      hint: "HOST",
      description: "a further name or address under which clients call (repeatable)",
    },
    registration: {
      type: "enum",
      options: ["open", "invite", "closed"],
      description: "who may register (default: open on loopback, else invite)",
    },
    secondFactor: {
      type: "enum",
      options: ["optional", "required"],
      description: "required: an account without a second factor can do nothing but enable one (default optional)",
    },
    registry: { type: "boolean", description: "be a registry of workspaces and keyrings, too" },
    connector: { type: "string", hint: "DIR", description: "run the connector of this directory in this process" },
    plaintext: { type: "boolean", description: "no TLS; on a loopback address only" },
    metrics: { type: "string", hint: "HOST:PORT", description: "figures for Prometheus on a port of their own" },
    metricsOpen: { type: "boolean", description: "let other machines read the figures" },
  },
  details:
    "Makes its directory on the first start. It listens on 127.0.0.1:7443 (port 0 picks one), keeps its data in DIR/keyhold.db (a URL of PostgreSQL never holds a password), and shows a certificate of its own, under the server's identity, unless --tls-cert and --tls-key are given. Registration is open on loopback, else by invite. With --reuse-port several processes on one PostgreSQL share the port (Linux). SIGTERM drains; then it exits 0.",
  data: '`{"v":1,"ready":{"url","pin","pid","invite"?,"metrics"?}}`, one line when it is ready',
  examples: [
    ["keyhold serve", `listen on ${DEFAULTS.listen}, make everything on first start`],
    ["keyhold serve --registry", "keep workspaces and keyrings beside accounts"],
    [
      "keyhold serve --listen 0.0.0.0:7443 --name keys.example.org",
      "serve a team; codes by `keyhold server invite create`",
    ],
  ],
  run: async (args, ctx) => {
    sealProcess();
    const settings = await ctx.settings();
    const listen = addressOf("--listen", settings.get("listen", args.listen));
    const tlsCert = settings.get("tlsCert", args.tlsCert);
    const tlsKey = settings.get("tlsKey", args.tlsKey);
    if ((tlsCert === null) !== (tlsKey === null)) {
      throw new Fault("usage", "--tls-cert and --tls-key go together");
    }
    if (args.plaintext && !isLoopback(listen.host)) {
      throw new Fault("bad_input", "plaintext is refused beyond this machine", { hint: "leave --plaintext out" });
    }
    const database = settings.get("database", args.database);
    demandDatabase(database, { flag: args.database, reusePort: args.reusePort });
    const dir = resolve(settings.get("dir", args.dir) ?? ctx.dirs.server);
    const registration =
      settings.get("registration", args.registration) ?? (isLoopback(listen.host) ? "open" : "invite");
    const level = ctx.flags.quiet ? "warn" : ctx.flags.verbose ? "debug" : "info";
    const log = windowedLog(createLog(level), () => performance.now());
    const opaqueWorkers = Math.min(4, Math.max(1, availableParallelism() - 1));
    const metricsAt = settings.get("metrics", args.metrics);
    if (metricsAt === null && args.metricsOpen) {
      throw new Fault("usage", "--metrics-open goes with --metrics", { hint: "--metrics HOST:PORT --metrics-open" });
    }
    const shown = metricsAt === null ? undefined : await figures(metricsAt, args.metricsOpen, log);
    const meter = shown ? { meter: shown.metrics.meter } : {};
    const server = await openKeyServer({
      dir,
      database,
      registration,
      secondFactor: settings.get("secondFactor", args.secondFactor),
      version: VERSION,
      log,
      opaqueWorkers,
      enclaveCommand: selfCommand("__enclave"),
      registry: args.registry,
      ...meter,
    }).catch(async (error: unknown) => {
      await shown?.scrape.stop();
      throw error;
    });
    let running: RunningServer | undefined;
    let ended: () => void = () => undefined;
    const end = new Promise<void>((done) => {
      ended = done;
    });
    ctx.onTerminate(() => ended());
    try {
      const names = certificateNames(listen.host, args.name);
      const tls = args.plaintext
        ? ("plaintext" as const)
        : tlsCert !== null && tlsKey !== null
          ? await operatorCertificate(tlsCert, tlsKey, Date.now())
          : await serverCertificate(dir, {
              identity: server.keys.identity,
              names,
              nowMs: Date.now(),
              random: server.ctx.random,
            });
      const [name] = args.name;
      running = await startServer({
        listen,
        tls,
        pin: server.pin,
        ...(name === undefined ? {} : { name }),
        handle: (op, type, body, remote) => server.dispatcher.handle(op, type, body, remote),
        ready: () => server.ready(),
        reusePort: args.reusePort,
        log,
        ...meter,
      });
      const { url, requests } = running;
      shown?.metrics.watch({
        engine: server.ctx.store.engine,
        inFlight: running.running,
        ready: () => server.ready(),
        counts: () => server.counts(),
        log: async () => {
          const { size, currentAtMs } = server.logbook.figures();
          return { entries: size, checkpointAtMs: currentAtMs };
        },
        enclave: () => server.enclave(),
      });
      // beside another process in the same directory: that one answers for both
      const control = server.holdsDirectory
        ? startControl(dir, server.administration({ url: () => url, requests }), log)
        : undefined;
      let endConnector: () => Promise<void> = async () => undefined;
      try {
        const invite = await firstInvite(server);
        if (args.connector !== null) {
          endConnector = await besideConnector(args.connector, (text) => ctx.out.notice(plain(text)), log);
        }
        const ready = {
          url,
          pin: running.pin,
          pid: process.pid,
          ...(invite === null ? {} : { invite }),
          ...scraped(shown),
        };
        if (ctx.flags.json) ctx.out.jsonLine({ v: 1, ready });
        else ctx.out.lines(banner(running, dir, registration, invite));
        void server.prepare();
        await end;
        // before the server that it works with
        await endConnector();
        const stopped = running.stop(DEFAULTS.drainMs);
        server.drain();
        await stopped;
      } finally {
        await endConnector();
        await control?.stop();
      }
    } finally {
      await running?.stop(0);
      await shown?.scrape.stop();
      await server.close();
      log.flush();
      log.write("info", { event: "stopped" });
    }
  },
});
