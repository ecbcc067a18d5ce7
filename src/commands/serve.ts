import { availableParallelism } from "node:os";
import { resolve } from "node:path";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { createInvite } from "../server/administration.ts";
import { startControl } from "../server/control.ts";
import { type KeyServer, openKeyServer } from "../server/keyserver.ts";
import { createLog } from "../server/log.ts";
import { certificateNames, operatorCertificate, serverCertificate } from "../server/tls.ts";
import { type RunningServer, startServer } from "../server.ts";
import { defineCommand } from "../ui/command.ts";
import { sealProcess } from "../ui/process.ts";
import { VERSION } from "../version.ts";
import { isLoopback } from "../wire/http.ts";

/** Takes HOST:PORT apart; IPv6 in brackets. */
function listenAddress(text: string): { host: string; port: number } {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:\s]+):(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (!match?.[1] || port > 65_535) {
    throw new Fault("usage", "--listen takes HOST:PORT", {
      hint: "--listen 127.0.0.1:7443, or [::1]:0 for a free port",
    });
  }
  return { host: match[1], port };
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

function banner(running: RunningServer, dir: string, registration: string, invite: string | null): string {
  const code = registration === "invite" ? ` --invite ${invite ?? "CODE"}` : "";
  return [
    `keyhold serves ${running.url}`,
    `  pin           ${running.pin}`,
    `  directory     ${dir}`,
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
    database: { type: "string", hint: "sqlite:PATH", description: "the database (default DIR/keyhold.db)" },
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
    plaintext: { type: "boolean", description: "no TLS; on a loopback address only" },
  },
  examples: [
    ["keyhold serve", `listen on ${DEFAULTS.listen}, make everything on first start`],
    [
      "keyhold serve --listen 0.0.0.0:7443 --name keys.example.org",
      "serve a team; codes by `keyhold server invite create`",
    ],
  ],
  run: async (args, ctx) => {
    sealProcess();
    const settings = await ctx.settings();
    const listen = listenAddress(settings.get("listen", args.listen));
    const tlsCert = settings.get("tlsCert", args.tlsCert);
    const tlsKey = settings.get("tlsKey", args.tlsKey);
    if ((tlsCert === null) !== (tlsKey === null)) {
      throw new Fault("usage", "--tls-cert and --tls-key go together");
    }
    if (args.plaintext && !isLoopback(listen.host)) {
      throw new Fault("bad_input", "plaintext is refused beyond this machine", { hint: "leave --plaintext out" });
    }
    const dir = resolve(settings.get("dir", args.dir) ?? ctx.dirs.server);
    const registration =
      settings.get("registration", args.registration) ?? (isLoopback(listen.host) ? "open" : "invite");
    const log = createLog(ctx.flags.quiet ? "warn" : ctx.flags.verbose ? "debug" : "info");
    const opaqueWorkers = Math.min(4, Math.max(1, availableParallelism() - 1));
    const server = await openKeyServer({
      dir,
      database: settings.get("database", args.database),
      registration,
      version: VERSION,
      log,
      opaqueWorkers,
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
        log,
      });
      const { url, requests } = running;
      const control = startControl(dir, server.administration({ url: () => url, requests }), log);
      try {
        const invite = await firstInvite(server);
        const ready = { url, pin: running.pin, pid: process.pid, ...(invite === null ? {} : { invite }) };
        if (ctx.flags.json) ctx.out.jsonLine({ v: 1, ready });
        else ctx.out.lines(banner(running, dir, registration, invite));
        await end;
        log.write("info", { event: "draining" });
        await running.stop(DEFAULTS.drainMs);
      } finally {
        await control.stop();
      }
    } finally {
      await running?.stop(0);
      await server.close();
      log.write("info", { event: "stopped" });
    }
  },
});
