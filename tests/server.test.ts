import { afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { connect as netConnect } from "node:net";
import { connect as tlsConnect } from "node:tls";
import fc from "fast-check";
import { Fault } from "../src/errors.ts";
import type { ServerIdentity } from "../src/server/directory.ts";
import { silentLog } from "../src/server/log.ts";
import { authorityOf, type TlsFiles } from "../src/server/tls.ts";
import { type Handle, type RunningServer, type ServeOptions, startServer } from "../src/server.ts";
import { decodeJson } from "../src/wire/codec.ts";
import { REQUEST_MAX } from "../src/wire/http.ts";
import { errorBody } from "../src/wire/operations.ts";
import { pinOf } from "../src/wire/pin.ts";
import { loopbackLeaf, newIdentity } from "./support/listener.ts";

const hasOpenssl = Bun.which("openssl") !== null;
let identity: ServerIdentity;
let files: TlsFiles;
let ca: string;
let server: RunningServer;
let handle: Handle;
let calls: { name: string; contentType: string; length: number; address: string }[];
const closers: (() => Promise<void>)[] = [];

beforeAll(async () => {
  identity = await newIdentity();
  files = await loopbackLeaf(identity);
  ca = (await authorityOf(identity)).toString("pem");
});
beforeEach(() => {
  calls = [];
  handle = async () => ({ status: 200, contentType: "application/json", body: "{}" });
});
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function start(more: Partial<ServeOptions> = {}): Promise<RunningServer> {
  server = await startServer({
    listen: { host: "127.0.0.1", port: 0 },
    tls: "plaintext",
    pin: pinOf(identity.publicKey),
    log: silentLog,
    handle: (name, contentType, body, remote) => {
      calls.push({ name, contentType, length: body.length, address: remote.address });
      return handle(name, contentType, body, remote);
    },
    ...more,
  });
  const started = server;
  closers.push(() => started.stop(0));
  return server;
}

const op = (name: string) => `${server.url}/v1/op/${name}`;
const post = (name: string, body: Bun.BodyInit = "{}", type = "application/json") =>
  fetch(op(name), { method: "POST", body, headers: { "content-type": type } });

async function expectFault(response: Response, status: number, code: string): Promise<void> {
  expect(response.status).toBe(status);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(decodeJson(errorBody, await response.bytes())).toMatchObject({ code });
}

/** Sends bytes as they are and returns all that comes until the server closes, or until `until` appears. */
function raw(text: string | Uint8Array, until?: string): Promise<string> {
  return new Promise((resolve) => {
    let out = "";
    const socket = netConnect(server.port, "127.0.0.1", () => socket.write(text));
    socket.on("data", (chunk) => {
      out += chunk.toString("latin1");
      if (until !== undefined && out.includes(until)) socket.destroy();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(out));
  });
}

describe("operations", () => {
  test("reach the handler with name, type, body and address", async () => {
    await start();
    const reply = await post("server.statement", "{}", "application/json; charset=utf-8");
    expect(reply.status).toBe(200);
    expect(await reply.text()).toBe("{}");
    await post("secret.get", new Uint8Array(7), "application/octet-stream");
    expect(calls).toEqual([
      { name: "server.statement", contentType: "application/json", length: 2, address: "127.0.0.1" },
      { name: "secret.get", contentType: "application/octet-stream", length: 7, address: "127.0.0.1" },
    ]);
    expect(server.requests()).toBe(2);
  });

  test("are answered with headers that keep browsers out, and without a name of the software", async () => {
    await start();
    const { headers } = await post("server.statement");
    expect(headers.get("cache-control")).toBe("no-store");
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(headers.get("access-control-allow-origin")).toBeNull();
    expect(headers.get("server")).toBeNull();
  });

  test("pass the handler's status and the time of a new try", async () => {
    handle = async () => ({ status: 429, contentType: "application/json", body: "{}", retryAfterMs: 1_200 });
    await start();
    const reply = await post("server.statement");
    expect(reply.status).toBe(429);
    expect(reply.headers.get("retry-after")).toBe("2");
  });

  test("that throw a Fault answer with it; anything else says nothing of itself", async () => {
    handle = async () => {
      throw new Fault("rate_limited", "too many", { retryAfterMs: 1_500.5 });
    };
    await start();
    const limited = await post("server.statement");
    expect(limited.headers.get("retry-after")).toBe("2");
    expect(await limited.json()).toEqual({ code: "rate_limited", message: "too many", retryAfterMs: 1_501 });
    handle = async () => {
      throw new Error("canary-in-an-exception");
    };
    const broken = await post("server.statement");
    expect(broken.status).toBe(500);
    const text = await broken.text();
    expect(text).not.toContain("canary");
    expect(JSON.parse(text)).toMatchObject({ code: "internal" });
  });
});

describe("whatever isn't an operation gets one typed error and reaches no handler", () => {
  beforeEach(async () => {
    await start();
  });
  afterEach(() => expect(calls).toEqual([]));

  test.each([
    "/",
    "/v1/op/",
    "/v1/op/none",
    "/v1/op/toString",
    "/v1/op/server.statement/",
    "/v1/op/server.statement?x=1",
    "/v2/op/server.statement",
    "/v1/op/%73erver.statement",
    "/v1/control/status",
  ])("path %s", async (path) => {
    await expectFault(await fetch(`${server.url}${path}`, { method: "POST", body: "{}" }), 404, "not_found");
  });

  test.each(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])("method %s", async (method) => {
    const reply = await fetch(op("server.statement"), { method });
    expect(reply.headers.get("allow")).toBe("POST");
    await expectFault(reply, 405, "method_not_allowed");
  });

  test.each([
    ["server.statement", "application/octet-stream"],
    ["server.statement", "text/plain"],
    ["server.statement", "application/x-www-form-urlencoded"],
    ["secret.get", "application/json"],
  ])("content type of %s: %s", async (name, type) => {
    await expectFault(await post(name, "{}", type), 415, "unsupported");
  });

  test("no content type, and a compressed body", async () => {
    await expectFault(await fetch(op("server.statement"), { method: "POST" }), 415, "unsupported");
    const packed = await fetch(op("server.statement"), {
      method: "POST",
      body: Bun.gzipSync(new Uint8Array(2)),
      headers: { "content-type": "application/json", "content-encoding": "gzip" },
    });
    await expectFault(packed, 415, "unsupported");
  });

  test("two Host headers, an empty one, none", async () => {
    const head = "POST /v1/op/server.statement HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
    for (const host of ["Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n", "Host: a, b\r\n", "Host:\r\n", ""]) {
      expect(await raw(`${head}${host}\r\n{}`)).toStartWith("HTTP/1.1 400 ");
    }
    expect(await raw("POST /v1/op/server.statement HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")).toStartWith(
      "HTTP/1.1 400 ",
    );
  });

  test("two framings of one body", async () => {
    const head = "POST /v1/op/server.statement HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    expect(await raw(`${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x`)).toStartWith("HTTP/1.1 400 ");
    const both = `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`;
    expect(await raw(both)).toStartWith("HTTP/1.1 400 ");
  });

  test("a body above the limit, announced or not", async () => {
    await expectFault(await post("server.statement", new Uint8Array(REQUEST_MAX + 1)), 413, "too_large");
    async function* chunks() {
      for (let i = 0; i < 5; i += 1) yield new Uint8Array(REQUEST_MAX / 4);
    }
    await expectFault(await post("server.statement", chunks() as unknown as Bun.BodyInit), 413, "too_large");
    // far above it, the listener refuses before us
    expect((await post("server.statement", new Uint8Array(8 * REQUEST_MAX))).status).toBe(413);
  });

  test("huge headers", async () => {
    const long = `POST /v1/op/server.statement HTTP/1.1\r\nHost: a\r\nX-A: ${"y".repeat(100_000)}\r\n\r\n`;
    expect(await raw(long)).toMatch(/^HTTP\/1\.1 4\d\d /);
  });

  test("random bytes never make it fail", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
        const reply = await raw(Buffer.concat([bytes, Buffer.from("\r\n\r\n")]), "\r\n\r\n");
        // 505 is the listener's own word for a request line without a known version
        expect(reply).toMatch(/^(HTTP\/1\.1 (4|505)|$)/);
      }),
      // a lone byte may look like the start of a method: such sockets wait for the header time-out
      { numRuns: 50, examples: [[new TextEncoder().encode("GARBAGE")], [new Uint8Array(8)]] },
    );
  }, 60_000);
});

describe("limits", () => {
  test("a body of exactly the limit passes", async () => {
    await start();
    expect((await post("server.statement", new Uint8Array(REQUEST_MAX))).status).toBe(200);
    expect(calls[0]?.length).toBe(REQUEST_MAX);
  });

  test("unfinished headers, bodies and handshakes are closed by the server", async () => {
    await start();
    const plain = server;
    const secure = await start({ tls: files });
    const head = "POST /v1/op/server.statement HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    const hang = (port: number, text: string) =>
      new Promise<void>((resolve) => {
        const socket = netConnect(port, "127.0.0.1", () => {
          if (text) socket.write(text);
        });
        // drop by drop, where something was begun
        const timer = setInterval(() => text && socket.writable && socket.write("x"), 1_000);
        socket.on("data", () => undefined);
        socket.on("error", () => undefined);
        socket.on("close", () => {
          clearInterval(timer);
          resolve();
        });
      });
    await Promise.all([
      hang(plain.port, `${head}X-A: `),
      hang(plain.port, `${head}Content-Length: 1000\r\n\r\n`),
      hang(plain.port, ""),
      hang(secure.port, ""),
      hang(secure.port, "\x16\x03\x01\x02\x00\x01"),
    ]);
    expect(calls).toEqual([]);
  }, 60_000);
});

describe("health", () => {
  test("healthz is about the process, readyz about serving", async () => {
    let ready = false;
    await start({ ready: () => ready });
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    await expectFault(await fetch(`${server.url}/readyz`), 503, "unavailable");
    ready = true;
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
    expect((await fetch(`${server.url}/readyz`, { method: "HEAD" })).status).toBe(200);
    await expectFault(await fetch(`${server.url}/healthz`, { method: "POST" }), 405, "method_not_allowed");
  });
});

describe("listening", () => {
  test("plaintext is refused beyond loopback", async () => {
    for (const host of ["0.0.0.0", "::", "192.0.2.1", "keys.example"]) {
      await expect(start({ listen: { host, port: 0 } })).rejects.toMatchObject({ code: "bad_input" });
    }
  });

  test("a port in use and an address that isn't ours are named", async () => {
    const { port } = await start();
    await expect(start({ listen: { host: "127.0.0.1", port } })).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining(String(port)),
    });
    await expect(start({ listen: { host: "192.0.2.77", port: 0 }, tls: files })).rejects.toBeInstanceOf(Fault);
  });

  test("the URL has the port that was picked, brackets for IPv6 and the given name", async () => {
    await start({ tls: files, name: "localhost" });
    expect(server.url).toBe(`https://localhost:${server.port}`);
    expect(server.port).toBeGreaterThan(0);
    await start({ name: "::1" });
    expect(server.url).toBe(`http://[::1]:${server.port}`);
  });
});

describe("TLS", () => {
  const versions = (max: "TLSv1.2" | "TLSv1.3") =>
    new Promise<string>((resolve) => {
      const socket = tlsConnect({ host: "127.0.0.1", port: server.port, ca, maxVersion: max }, () => {
        resolve(socket.getProtocol() ?? "");
        socket.destroy();
      });
      socket.on("error", () => resolve("refused"));
    });

  test("is 1.3 and nothing else", async () => {
    await start({ tls: files });
    expect(await versions("TLSv1.3")).toBe("TLSv1.3");
    expect(await versions("TLSv1.2")).toBe("refused");
  });

  test.skipIf(!hasOpenssl)("openssl s_client -tls1_2 is refused, -tls1_3 is not", async () => {
    await start({ tls: files });
    const client = async (version: string) => {
      const run = Bun.spawn(["openssl", "s_client", version, "-connect", `127.0.0.1:${server.port}`], {
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const out = await run.stdout.text();
      return { code: await run.exited, out };
    };
    expect((await client("-tls1_2")).code).not.toBe(0);
    const good = await client("-tls1_3");
    expect(good.code).toBe(0);
    expect(good.out).toContain("TLSv1.3");
  });

  test("garbage on the port leaves the server well", async () => {
    await start({ tls: files });
    await raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    await raw(new Uint8Array(5_000).fill(0x16));
    const reply = await fetch(`${server.url}/healthz`, { tls: { ca, rejectUnauthorized: true } });
    expect(reply.status).toBe(200);
    expect(calls).toEqual([]);
  });
});

describe("stop", () => {
  test("lets a running request end, takes no new one, then closes", async () => {
    const gate = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    handle = async (_name, contentType) => {
      entered.resolve();
      await gate.promise;
      return { status: 200, contentType, body: new Uint8Array(2_000_000).fill(65) };
    };
    await start({ tls: files });
    const running = fetch(op("server.statement"), {
      method: "POST",
      body: "{}",
      headers: { "content-type": "application/json" },
      tls: { ca, rejectUnauthorized: true },
    });
    await entered.promise;
    const stopped = server.stop(30_000);
    const late = fetch(`${server.url}/healthz`, { keepalive: false, tls: { ca, rejectUnauthorized: true } });
    await expect(late).rejects.toMatchObject({ code: "ECONNREFUSED" });
    gate.resolve();
    const reply = await running;
    expect((await reply.bytes()).length).toBe(2_000_000);
    await stopped;
    expect(calls).toHaveLength(1);
  });

  test("a request that comes on a connection still open is told to come back", async () => {
    const gate = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    handle = async (_name, contentType) => {
      entered.resolve();
      await gate.promise;
      return { status: 200, contentType, body: "{}" };
    };
    await start();
    const head = "POST /v1/op/server.statement HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    const begun = Promise.withResolvers<string>();
    let out = "";
    const socket = netConnect(server.port, "127.0.0.1", () => socket.write(`${head}Content-Le`));
    socket.on("data", (chunk) => {
      out += chunk.toString("latin1");
    });
    socket.on("error", () => undefined);
    socket.on("close", () => begun.resolve(out));
    const running = post("server.statement");
    await entered.promise;
    const stopped = server.stop(30_000);
    socket.write("ngth: 2\r\n\r\n{}");
    const late = await begun.promise;
    // refused with the typed error, or closed while its headers were unfinished: never handled
    if (late !== "") expect(late).toStartWith("HTTP/1.1 503 ");
    expect(calls).toHaveLength(1);
    gate.resolve();
    expect((await running).status).toBe(200);
    await stopped;
  });

  test("ends without a request that never does, and can be asked for twice", async () => {
    const entered = Promise.withResolvers<void>();
    handle = () => {
      entered.resolve();
      return new Promise(() => undefined);
    };
    await start();
    const running = post("server.statement").then(
      () => "answered",
      () => "cut",
    );
    await entered.promise;
    await Promise.all([server.stop(50), server.stop(50)]);
    expect(await running).toBe("cut");
  });
});
