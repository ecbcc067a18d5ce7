import { chmodSync, lstatSync, rmSync } from "node:fs";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type Codec, decodeJson, encodeJson } from "../wire/codec.ts";
import {
  CONTROL_PATH,
  type ControlInput,
  type ControlName,
  type ControlOutput,
  controlError,
  controlSocketPath,
  controls,
  isControl,
} from "../wire/control.ts";
import { errno, fileFault, shown } from "../wire/keyfiles.ts";
import { faultFields, type ServerLog } from "./log.ts";

/** One handler for each operation of the table: a missing one does not compile. */
export type ControlHandlers = {
  readonly [N in ControlName]: (input: ControlInput<N>) => Promise<ControlOutput<N>>;
};

/** A control socket that listens. */
export interface RunningControl {
  /** Closes it and removes the file. */
  stop(): Promise<void>;
}

/**
 * Listens on `DIR/control.sock`, mode 0600 inside the 0700 directory. The caller holds the lock of the database, so
 * that a socket found there is a dead server's.
 *
 * @throws Fault exists for something else in its place, storage
 */
export function startControl(dir: string, handlers: ControlHandlers, log: ServerLog): RunningControl {
  const path = controlSocketPath(dir);
  removeStale(path);
  const umask = process.umask(0o177);
  let server: Bun.Server<undefined>;
  try {
    server = Bun.serve({
      unix: path,
      development: false,
      maxRequestBodySize: DEFAULTS.bodyBytes,
      fetch: (request, listener) => {
        // a check of a large database takes longer than the idle time-out
        listener.timeout(request, 0);
        return answer(request, handlers, log);
      },
      error: () => fault(new Fault("internal", "the server failed")),
    });
    chmodSync(path, 0o600);
  } catch (error) {
    throw fileFault(error, "listen on", path);
  } finally {
    process.umask(umask);
  }
  return {
    stop: async () => {
      await server.stop(true);
      rmSync(path, { force: true });
    },
  };
}

function removeStale(path: string): void {
  try {
    if (!lstatSync(path).isSocket()) throw new Fault("exists", `${shown(path)} exists and is not a socket`);
    rmSync(path);
  } catch (error) {
    if (errno(error) !== "ENOENT") throw fileFault(error, "listen on", path);
  }
}

function fault(of: Fault): Response {
  const { code, message, why = null, hint = null, retryAfterMs = null } = of;
  return json(of.http, encodeJson(controlError, { code, message, why, hint, retryAfterMs }));
}

function json(status: number, body: string): Response {
  return new Response(body, { status, headers: { "content-type": "application/json" } });
}

async function answer(request: Request, handlers: ControlHandlers, log: ServerLog): Promise<Response> {
  const path = URL.parse(request.url)?.pathname ?? "";
  const name = path.startsWith(CONTROL_PATH) ? path.slice(CONTROL_PATH.length) : "";
  try {
    if (!isControl(name)) throw new Fault("not_found", "there is no such control operation");
    if (request.method !== "POST") throw new Fault("method_not_allowed", "control operations are posted");
    const body = await run(name, handlers, await request.bytes());
    log.write("info", { event: "control", op: name, status: 200 });
    return json(200, body);
  } catch (error) {
    const known = error instanceof Fault ? error : new Fault("internal", "the server failed");
    if (known.code === "internal") log.write("error", faultFields(error));
    log.write(known.code === "internal" ? "error" : "info", {
      event: "control",
      op: isControl(name) ? name : "unknown",
      status: known.http,
      code: known.code,
    });
    return fault(known);
  }
}

async function run<N extends ControlName>(name: N, handlers: ControlHandlers, body: Uint8Array): Promise<string> {
  const { input, output } = controls[name] as unknown as {
    input: Codec<ControlInput<N>>;
    output: Codec<ControlOutput<N>>;
  };
  return encodeJson(output, await handlers[name](decodeJson(input, body)));
}
