import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect as netConnect, type Socket } from "node:net";
import { connect as tlsConnect } from "node:tls";
import { silentLog } from "../../src/server/log.ts";
import type { TlsFiles } from "../../src/server/tls.ts";
import { type Handle, type RunningServer, startServer } from "../../src/server.ts";
import { REQUEST_MAX } from "../../src/wire/http.ts";
import { loopbackLeaf, newIdentity } from "../support/listener.ts";
import { connect } from "./connection.ts";

/** Those who send slowly, without end, or nothing: the server ends it by itself. */

// each waits for the server's own time-out of about 12 s
setDefaultTimeout(90_000);

let files: TlsFiles;
const servers: RunningServer[] = [];

beforeAll(async () => {
  files = await loopbackLeaf(await newIdentity());
});
afterAll(() => Promise.all(servers.map((server) => server.stop(0))));

async function start(handle?: Handle) {
  let handled = 0;
  const server = await startServer({
    listen: { host: "127.0.0.1", port: 0 },
    tls: files,
    pin: "",
    log: silentLog,
    handle: (...args) => {
      handled += 1;
      return handle?.(...args) ?? Promise.resolve({ status: 200, contentType: "application/json", body: "{}" });
    },
  });
  servers.push(server);
  return { port: server.port, handled: () => handled, running: () => server.running() };
}

const POST = "POST /v1/op/server.statement HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
const GOOD = `${POST}Content-Length: 2\r\n\r\n{}`;

/** Sends `first`, then `drop` every half second, until the server closes the connection; gives what it said. */
function drip(port: number, how: "tcp" | "tls", first: string, drop: string): Promise<string> {
  return new Promise((resolve) => {
    let said = "";
    const begin = () => void (first && socket.write(Buffer.from(first, "latin1")));
    const options = { port, host: "127.0.0.1" };
    const socket: Socket =
      how === "tls" ? tlsConnect({ ...options, rejectUnauthorized: false }, begin) : netConnect(options, begin);
    const timer = setInterval(() => drop && socket.writable && socket.write(drop), 500);
    socket.on("data", (part) => {
      said += part.toString("latin1");
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      clearInterval(timer);
      resolve(said.slice(0, 15));
    });
  });
}

describe("drop by drop", () => {
  test.concurrent("nothing that is unfinished keeps a TLS connection for long", async () => {
    const { port, handled, running } = await start();
    const said = await Promise.all([
      drip(port, "tcp", "", ""),
      drip(port, "tcp", "\x16", ""),
      drip(port, "tcp", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "x"),
      drip(port, "tls", "", ""),
      drip(port, "tls", "", "P"),
      drip(port, "tls", POST, "X-A: b\r\n"),
      drip(port, "tls", `${POST}X-A: `, "x"),
      drip(port, "tls", `${POST}Content-Length: 100000\r\n\r\n`, "x"),
      drip(port, "tls", `${POST}Content-Length: 100000\r\n\r\n`, ""),
      drip(port, "tls", `${POST}Transfer-Encoding: chunked\r\n\r\n`, "1\r\nx\r\n"),
      drip(port, "tls", `${POST}Transfer-Encoding: chunked\r\n\r\n`, "0"),
      drip(port, "tls", `${POST}Transfer-Encoding: chunked\r\n\r\n1;`, "a"),
    ]);
    // closed without a word, or told what is wrong: never answered as if it were whole
    expect(said.filter((text) => text !== "" && !/^HTTP\/1\.1 (400|408|413|431)/.test(text))).toEqual([]);
    expect(handled()).toBe(0);
    expect(running()).toBe(0);
  });

  test.concurrent("a good request first gives what follows no more time, unlike a request that is being answered", async () => {
    const gate = Promise.withResolvers<void>();
    const { port } = await start(async (_name, contentType, body) => {
      if (body.length > 2) await gate.promise;
      return { status: 200, contentType, body: "{}" };
    });
    const slowly = drip(port, "tls", `${POST}Connection: close\r\nContent-Length: 4\r\n\r\n{  }`, "");
    // the others end long before the time that a handler may take
    const said = await Promise.all([
      drip(port, "tls", GOOD, ""),
      drip(port, "tls", `${GOOD}POST / HTTP/1.1\r\nX:`, "x"),
      drip(port, "tls", `${GOOD}${POST}Content-Length: 1000\r\n\r\n`, "x"),
      drip(port, "tls", GOOD.replace("/v1/op/", "/none/"), ""),
    ]);
    expect(said).toEqual(["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 404 No"]);
    gate.resolve();
    expect(await slowly).toBe("HTTP/1.1 200 OK");
  });

  test.concurrent("a reader who takes nothing is let go, and its answer with it", async () => {
    const reply = new Uint8Array(30_000_000);
    const { port, handled } = await start(async (_name, contentType) => ({
      status: 200,
      contentType,
      body: reply,
    }));
    const socket = tlsConnect({ port, host: "127.0.0.1", rejectUnauthorized: false }, () => socket.write(GOOD));
    socket.on("error", () => undefined);
    socket.pause();
    while (handled() === 0) await Bun.sleep(10);
    const left = () =>
      Bun.file("/proc/net/tcp")
        .text()
        .then((table) => {
          const own = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
          return table.split("\n").filter((line) => {
            const [, local, , state] = line.trim().split(/\s+/);
            return local === own && state === "01";
          }).length;
        });
    // by the system's own table: the paused socket would not learn of it
    if (process.platform === "linux") while ((await left()) > 0) await Bun.sleep(100);
    socket.destroy();
  });
});

describe("bodies without end", () => {
  test.concurrent.each([
    ["announced", `${POST}Content-Length: 1000000000000\r\n\r\n`],
    ["announced just above the limit", `${POST}Content-Length: ${REQUEST_MAX + 1}\r\n\r\n`],
  ])("%s: refused before they come", async (_what, head) => {
    const { port, handled } = await start();
    const connection = await connect({ port, tls: true });
    const { status } = await connection.exchange(Buffer.from(head), 30_000);
    expect(status).toBe(413);
    expect(handled()).toBe(0);
    connection.end();
  });

  test.concurrent("in chunks: refused as soon as they are above the limit, and the connection ends", async () => {
    const { port, handled } = await start();
    let sent = 0;
    const said = await new Promise<string>((resolve) => {
      let out = "";
      const chunk = Buffer.from(`4000\r\n${"x".repeat(0x4000)}\r\n`);
      const socket = tlsConnect({ port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
        socket.write(`${POST}Transfer-Encoding: chunked\r\n\r\n`);
        const more = () => {
          if (!socket.writable) return;
          sent += chunk.length;
          socket.write(chunk, () => setTimeout(more, 1));
        };
        more();
      });
      socket.on("data", (part) => {
        out += part.toString("latin1");
      });
      socket.on("error", () => undefined);
      socket.on("close", () => resolve(out));
    });
    expect(said).toStartWith("HTTP/1.1 413 ");
    // what fills the buffers between the two, not what a patient sender would have sent
    expect(sent).toBeLessThan(64 * REQUEST_MAX);
    expect(handled()).toBe(0);
  });

  test.concurrent("in chunks of one byte: refused by size or by time", async () => {
    const { port, handled } = await start();
    const said = await drip(port, "tls", `${POST}Transfer-Encoding: chunked\r\n\r\n`, "1\r\nx\r\n".repeat(20_000));
    expect(said === "" || said.startsWith("HTTP/1.1 413")).toBe(true);
    expect(handled()).toBe(0);
  });
});
