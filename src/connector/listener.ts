import { isIP } from "node:net";
import { Fault } from "../errors.ts";
import { isLoopback } from "../wire/http.ts";

/** Where figures and health can be fetched. */
export interface Listener {
  readonly url: string;
  readonly port: number;
  stop(): Promise<void>;
}

export interface Health {
  readonly ready: boolean;
  readonly draining: boolean;
}

const HEADERS = { "cache-control": "no-store", "x-content-type-options": "nosniff" } as const;
const IDLE_SECONDS = 10;
const BODY_MAX = 1_024;

/** A web page that made its own name point here sends that name: only an address is served. */
function namesUs(request: Request): boolean {
  const bare = (request.headers.get("host") ?? "").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  return isIP(bare) !== 0 || bare === "localhost";
}

/**
 * Listens for `GET /metrics` and `GET /health` on this machine alone; `/health` is 200 while tasks are taken, else 503.
 *
 * @throws Fault bad_input beyond this machine or for an unusable address, conflict for a port in use
 */
export function startListener(options: {
  readonly host: string;
  readonly port: number;
  readonly contentType: string;
  text(): Promise<string>;
  health(): Health;
}): Listener {
  const { host, port } = options;
  if (!isLoopback(host)) {
    throw new Fault("bad_input", "figures and health are told on this machine alone", {
      hint: "use --listen 127.0.0.1:PORT",
    });
  }
  const reply = (status: number, body: string, type = "text/plain; charset=utf-8"): Response =>
    new Response(body, { status, headers: { ...HEADERS, "content-type": type } });
  async function answer(request: Request): Promise<Response> {
    if (!namesUs(request)) return reply(421, "ask by address\n");
    if (request.method !== "GET" && request.method !== "HEAD") return reply(405, "GET alone\n");
    switch (URL.parse(request.url)?.pathname) {
      case "/metrics":
        return reply(200, await options.text(), options.contentType);
      case "/health": {
        const health = options.health();
        const fit = health.ready && !health.draining;
        return reply(fit ? 200 : 503, `${JSON.stringify(health)}\n`, "application/json");
      }
      default:
        return reply(404, "GET /metrics or /health\n");
    }
  }
  try {
    const server = Bun.serve({
      hostname: host.replace(/^\[(.*)\]$/, "$1"),
      port,
      development: false,
      reusePort: false,
      maxRequestBodySize: BODY_MAX,
      idleTimeout: IDLE_SECONDS,
      fetch: answer,
      error: () => reply(500, "the figures could not be read\n"),
    });
    const bound = server.port ?? port;
    return { url: `http://${host}:${bound}`, port: bound, stop: () => server.stop(true) };
  } catch (error) {
    const code = typeof error === "object" && error !== null && "code" in error ? error.code : "";
    if (code === "EADDRINUSE") throw new Fault("conflict", `cannot listen on ${host}:${port}: the port is in use`);
    if (code === "EACCES") throw new Fault("denied", `cannot listen on ${host}:${port}: permission denied`);
    throw new Fault("bad_input", `cannot listen on ${host}:${port}`);
  }
}
