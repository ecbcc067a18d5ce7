import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Signer } from "../../src/crypto/identity.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import type { Reply } from "../../src/server/dispatch.ts";
import { type KeyServer, openKeyServer } from "../../src/server/keyserver.ts";
import type { ServerLog } from "../../src/server/log.ts";
import { certificateNames, serverCertificate } from "../../src/server/tls.ts";
import { startServer } from "../../src/server.ts";
import { contentTypeOf } from "../../src/wire/http.ts";
import type { OperationName } from "../../src/wire/operations.ts";
import { type Home, openWorld, type World } from "../binary/world.ts";
import { type Middle, random } from "./harness.ts";
import type { Liar } from "./hostile.ts";

/**
 * A malicious server as a client meets it: the real listener with TLS and the real handlers, over a directory as
 * `keyhold serve` makes it, and between them somebody who holds its keys. The clients are the executable.
 */
export interface HostileWorld extends Liar {
  /** Homes of clients; its server is the malicious one. */
  readonly world: World;
  /** The key that the pin names. */
  readonly identity: Signer;
  /** The server's directory: keys and database. */
  readonly dir: string;
  /** Unexpected failures of the honest part. */
  readonly faults: string[];
  /** Plays `attack` while `work` runs, then is honest again; counts the requests in which it was not honest. */
  during<T>(attack: Middle, work: () => Promise<T>): Promise<{ result: T; lies: number }>;
  /** Changes the server's directory while the server is down. */
  offline(work: (dir: string) => void | Promise<void>): Promise<void>;
  /** Brings everything that was promised into the server-wide log now. */
  flushLog(): Promise<void>;
  /** Copies the directory as it is now; gives the copy's path. */
  snapshot(): Promise<string>;
  /** Serves a copy from now on (the copy itself stays as it is). */
  serve(snapshot: string): Promise<void>;
  close(): Promise<void>;
}

const silent = (faults: string[]): ServerLog => ({
  write(level, fields) {
    // an answer that a lie made is logged too, as that of a request
    if (level === "error" && fields.event !== "request") faults.push(JSON.stringify(fields));
  },
});

/** Starts one, honest at first. */
export async function openHostileWorld(): Promise<HostileWorld> {
  const world = await openWorld({ server: false });
  const dir = join(world.dir, "server");
  mkdirSync(dir, { mode: 0o700 });
  const faults: string[] = [];
  const log = silent(faults);
  const open = async (): Promise<KeyServer> => {
    const opened = await openKeyServer({
      dir,
      database: null,
      registration: "open",
      version: "0.0.0",
      log,
      opaqueWorkers: 1,
    });
    // attacks on logins would otherwise wait for each other
    const limits = { ...DEFAULTS, loginFreeFailures: 10_000, loginFreeFailuresPerAddress: 10_000 };
    Object.assign(opened.ctx, { limits });
    return opened;
  };
  let server = await open();
  let attack: Middle | null = null;
  let lies = 0;
  const handle = async (
    name: OperationName,
    contentType: string,
    body: Uint8Array,
    remote: { readonly address: string },
  ): Promise<Reply> => {
    if (!attack) return server.dispatcher.handle(name, contentType, body, remote);
    const forwarded: { operation: string; bytes: Uint8Array; reply: Reply }[] = [];
    const forward = async (operation: string, bytes: Uint8Array): Promise<Reply> => {
      const type = operation === name ? contentType : contentTypeOf(operation as OperationName);
      const reply = await server.dispatcher.handle(operation, type, bytes, remote);
      forwarded.push({ operation, bytes, reply });
      return reply;
    };
    const reply = await attack(name, body, forward);
    const [only, more] = forwarded;
    const honest = !more && only?.reply === reply && only.operation === name && Buffer.compare(only.bytes, body) === 0;
    if (!honest) lies += 1;
    return reply;
  };
  const names = certificateNames("127.0.0.1", []);
  const running = await startServer({
    listen: { host: "127.0.0.1", port: 0 },
    tls: await serverCertificate(dir, { identity: server.keys.identity, names, nowMs: Date.now(), random }),
    pin: server.pin,
    handle,
    ready: () => server.ready(),
    log,
  });
  world.server = {
    url: running.url,
    pin: running.pin,
    port: running.port,
    pid: process.pid,
    invite: undefined,
    log: () => faults.join("\n"),
    stop: async () => 0,
  };
  const offline: HostileWorld["offline"] = async (work) => {
    await server.close();
    await work(dir);
    server = await open();
  };
  let count = 0;
  return {
    world,
    dir,
    faults,
    identity: server.keys.identity,
    get server() {
      return { ctx: server.ctx, store: server.ctx.store, dispatcher: server.dispatcher };
    },
    async during(middle, work) {
      attack = middle;
      lies = 0;
      try {
        return { result: await work(), lies };
      } finally {
        attack = null;
      }
    },
    offline,
    flushLog: () => server.logbook.flush(),
    async snapshot() {
      const copy = join(world.dir, `server-copy-${count++}`);
      await offline((from) => cpSync(from, copy, { recursive: true }));
      return copy;
    },
    serve: (snapshot) =>
      offline((to) => {
        rmSync(to, { recursive: true });
        cpSync(snapshot, to, { recursive: true });
      }),
    async close() {
      await running.stop(0);
      await server.close();
      await world.close();
    },
  };
}

/** A home's vault as text to compare; empty where there is none. */
export function vaultOf(home: Pick<Home, "dir">): string {
  const path = join(home.dir, "data", "vaults", "default.vault");
  return existsSync(path) ? readFileSync(path).toHex() : "";
}
