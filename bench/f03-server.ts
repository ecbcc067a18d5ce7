import { DEFAULTS } from "../src/protocol/defaults.ts";
import { createDispatcher } from "../src/server/dispatch.ts";
import { openKeyServer } from "../src/server/keyserver.ts";
import { silentLog } from "../src/server/log.ts";
import { certificateNames, serverCertificate } from "../src/server/tls.ts";
import { startServer } from "../src/server.ts";

/**
 * `keyhold serve` without login limits, which would end a flood from one address at once:
 * `bun f03-server.ts DIR WORKERS [DATABASE]`. All else is the real thing: TLS, store on disk, OPAQUE in Workers.
 */

const [dir = "", workers = "1", database = null] = process.argv.slice(2);
const UNLIMITED = 1_000_000_000;

const server = await openKeyServer({
  dir,
  database,
  registration: "open",
  version: "bench",
  log: silentLog,
  opaqueWorkers: Number(workers),
});
const limits = { ...DEFAULTS, loginFreeFailures: UNLIMITED, loginFreeFailuresPerAddress: UNLIMITED };
const dispatcher = createDispatcher({ ...server.ctx, limits }, () => {
  process.exitCode = 1;
});
const tls = await serverCertificate(dir, {
  identity: server.keys.identity,
  names: certificateNames("127.0.0.1", []),
  nowMs: Date.now(),
  random: server.ctx.random,
});
const running = await startServer({
  listen: { host: "127.0.0.1", port: 0 },
  tls,
  pin: server.pin,
  handle: (op, type, body, remote) => dispatcher.handle(op, type, body, remote),
  log: silentLog,
});
process.stdout.write(`${JSON.stringify({ v: 1, ready: { url: running.url, pin: running.pin } })}\n`);
process.once("SIGTERM", () => {
  void running
    .stop(0)
    .then(() => server.close())
    .then(() => process.exit());
});
