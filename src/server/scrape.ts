import { isIP } from "node:net";
import { Fault } from "../errors.ts";
import { isLoopback } from "../wire/http.ts";
import { faultFields, type ServerLog } from "./log.ts";

/** Where figures can be fetched. */
export interface RunningScrape {
  readonly url: string;
  readonly port: number;
  stop(): Promise<void>;
}

export interface ScrapeOptions {
  /** Port 0 picks a free one. */
  readonly listen: { readonly host: string; readonly port: number };
  /** True where others than this machine may read the figures. */
  readonly open: boolean;
  readonly contentType: string;
  text(): Promise<string>;
  readonly log: ServerLog;
}

const HEADERS = { "cache-control": "no-store", "x-content-type-options": "nosniff" } as const;
const IDLE_SECONDS = 10;
/** A scrape carries no body. */
const BODY_MAX = 1_024;

/**
 * Listens for scrapes on a port of its own: `GET /metrics`, without TLS and without authentication, so on loopback
 * unless `open` says otherwise.
 *
 * @throws Fault bad_input for another machine's reach without `open` or an unusable address, conflict for a port in use
 */
export function startScrape(options: ScrapeOptions): RunningScrape {
  const { listen, open, log } = options;
  if (!open && !isLoopback(listen.host)) {
    throw new Fault("bad_input", "the figures are refused beyond this machine", {
      hint: "use --metrics 127.0.0.1:PORT, or --metrics-open for a network that you trust",
    });
  }
  const hostname = listen.host.replace(/^\[(.*)\]$/, "$1");
  let server: Bun.Server<undefined>;
  try {
    server = Bun.serve({
      hostname,
      port: listen.port,
      development: false,
      reusePort: false,
      maxRequestBodySize: BODY_MAX,
      idleTimeout: IDLE_SECONDS,
      fetch: (request) => answer(request, hostname, options),
      error: () => plain(500, "the figures could not be read\n"),
    });
  } catch (error) {
    const code = typeof error === "object" && error !== null && "code" in error ? error.code : "";
    const at = `${listen.host}:${listen.port}`;
    if (code === "EADDRINUSE") throw new Fault("conflict", `cannot listen on ${at}: the port is in use`);
    if (code === "EACCES") throw new Fault("denied", `cannot listen on ${at}: permission denied`);
    throw new Fault("bad_input", `cannot listen on ${at}`, { why: "the address is not one of this machine" });
  }
  const port = server.port ?? listen.port;
  log.write("info", { event: "metrics", port });
  const shown = isIP(hostname) === 6 ? `[${hostname}]` : hostname;
  return { url: `http://${shown}:${port}/metrics`, port, stop: () => server.stop(true) };
}

function plain(status: number, body: string, type = "text/plain; charset=utf-8", allow?: string): Response {
  const headers = { ...HEADERS, "content-type": type, ...(allow === undefined ? {} : { allow }) };
  return new Response(body, { status, headers });
}

/** A web page that made its own name point here sends that name: only an address or the name listened on is served. */
function namesUs(request: Request, hostname: string): boolean {
  const host = request.headers.get("host") ?? "";
  const bare = host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
  return isIP(bare) !== 0 || bare === "localhost" || bare === hostname;
}

async function answer(request: Request, hostname: string, options: ScrapeOptions): Promise<Response> {
  if (!namesUs(request, hostname)) return plain(421, "ask by address\n");
  if (URL.parse(request.url)?.pathname !== "/metrics") return plain(404, "GET /metrics\n");
  if (request.method !== "GET" && request.method !== "HEAD") {
    return plain(405, "GET /metrics\n", undefined, "GET, HEAD");
  }
  try {
    return plain(200, await options.text(), options.contentType);
  } catch (error) {
    options.log.write("error", faultFields(error));
    return plain(500, "the figures could not be read\n");
  }
}
