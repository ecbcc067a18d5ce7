import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { silentLog } from "../../src/server/log.ts";
import { type RunningServer, startServer } from "../../src/server.ts";
import { connect } from "./connection.ts";

/** Where a request ends and whom it names: one reading, whatever a sender or a balancer in front makes of it. */

let server: RunningServer;
const bodies: string[] = [];

beforeAll(async () => {
  server = await startServer({
    listen: { host: "127.0.0.1", port: 0 },
    tls: "plaintext",
    pin: "",
    log: silentLog,
    handle: async (_name, contentType, body) => {
      bodies.push(new TextDecoder().decode(body));
      return { status: 200, contentType, body: "{}" };
    },
  });
});
afterAll(() => server.stop(0));

const POST = "POST /v1/op/server.statement HTTP/1.1\r\n";
const TYPE = "Content-Type: application/json\r\n";
const HEAD = `${POST}Host: a\r\n${TYPE}`;
/** A body that is a request of its own where its framing is misread. */
const INNER = `0\r\n\r\n${HEAD}Content-Length: 8\r\n\r\nSMUGGLED`;
const CHUNKED = "Transfer-Encoding: chunked\r\n\r\n";
const TWO = "Content-Length: 2\r\n\r\n{}";

/** Statuses of all answers, and what reached the handler. */
async function say(text: string): Promise<{ statuses: string[]; open: boolean; handled: string[] }> {
  bodies.length = 0;
  const connection = await connect({ port: server.port, tls: false });
  await connection.exchange(Buffer.from(text, "latin1"), 10_000);
  // what was pipelined behind it
  const later = await connection.exchange(Buffer.from("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"), 10_000);
  const statuses = later.bytes.length === 0 ? [] : [String(later.status)];
  connection.end();
  return { statuses, open: !later.closed, handled: [...bodies] };
}

describe("refused, and the connection closed, so that nothing behind it is read as a request", () => {
  test.each([
    ["two lengths that differ", `${HEAD}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x`],
    ["a list of lengths", `${HEAD}Content-Length: 2, 2\r\n\r\n{}`],
    ["a length with a sign", `${HEAD}Content-Length: +2\r\n\r\n{}`],
    ["a negative length", `${HEAD}Content-Length: -2\r\n\r\n{}`],
    ["a hexadecimal length", `${HEAD}Content-Length: 0x2\r\n\r\n{}`],
    ["a length beyond any number", `${HEAD}Content-Length: 99999999999999999999\r\n\r\n{}`],
    ["an empty length", `${HEAD}Content-Length: \r\n\r\n{}`],
    ["length, then chunks", `${HEAD}Content-Length: ${INNER.length}\r\n${CHUNKED}${INNER}`],
    ["chunks, then length", `${HEAD}Transfer-Encoding: chunked\r\nContent-Length: ${INNER.length}\r\n\r\n${INNER}`],
    [
      "chunks with a space before the colon",
      `${HEAD}Transfer-Encoding : chunked\r\nContent-Length: 99\r\n\r\n${INNER}`,
    ],
    ["an unknown transfer encoding", `${HEAD}Transfer-Encoding: xchunked\r\n\r\n${INNER}`],
    ["a compressed transfer", `${HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`],
    ["chunked, but not last", `${HEAD}Transfer-Encoding: chunked, identity\r\n\r\n${INNER}`],
    ["two transfer encodings", `${HEAD}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n${INNER}`],
    ["a chunk's size with 0x", `${HEAD}${CHUNKED}0x2\r\n{}\r\n0\r\n\r\n`],
    ["a chunk of negative size", `${HEAD}${CHUNKED}-2\r\n{}\r\n0\r\n\r\n`],
    ["a chunk's size beyond 64 bits", `${HEAD}${CHUNKED}10000000000000002\r\n{}\r\n0\r\n\r\n`],
    ["chunks with bare line feeds", `${HEAD}${CHUNKED}2\n{}\n0\n\n`],
    ["a chunk longer than it says", `${HEAD}${CHUNKED}2\r\n{}XX0\r\n\r\n`],
    ["a line feed in a chunk's extension", `${HEAD}${CHUNKED}2;a\nb\r\n{}\r\n0\r\n\r\n`],
    ["bare line feeds", `${HEAD}${TWO}`.replaceAll("\r\n", "\n")],
    ["bare carriage returns", `${HEAD}${TWO}`.replaceAll("\r\n", "\r")],
    ["a folded header", `${HEAD}X: a\r\n b\r\n${TWO}`],
    ["a folded Host", `${POST}Host: a\r\n b\r\n${TYPE}${TWO}`],
    ["a header without a colon", `${HEAD}X\r\n${TWO}`],
    ["a zero byte in a value", `${HEAD}X: \0\r\n${TWO}`],
    ["a zero byte in a name", `${HEAD}X\0: y\r\n${TWO}`],
    ["a carriage return in a value", `${HEAD}X: a\rb\r\n${TWO}`],
    ["a space before a colon", `${HEAD}X : a\r\n${TWO}`],
    ["two hosts", `${HEAD}Host: b\r\n${TWO}`],
    ["no host", `${POST}${TYPE}${TWO}`],
    ["another version of HTTP", `${HEAD}${TWO}`.replace("HTTP/1.1", "HTTP/2.0")],
    ["a header of 20 KB", `${HEAD}X: ${"y".repeat(20_000)}\r\n${TWO}`],
    ["three hundred headers", `${HEAD}${"X: y\r\n".repeat(300)}${TWO}`],
    ["a header that never ends", `${HEAD}X: ${"y".repeat(2_000_000)}`],
  ])("%s", async (_what, text) => {
    expect(await say(text)).toEqual({ statuses: [], open: false, handled: [] });
  });
});

test("the rest of a body that was refused half-way is skipped, not read as requests", async () => {
  bodies.length = 0;
  const health = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
  const half = Buffer.alloc(50_000, health);
  for (const path of ["/x", "/v1/op/server.statement"]) {
    const connection = await connect({ port: server.port, tls: false });
    const head = Buffer.from(`POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n`);
    expect((await connection.exchange(Buffer.concat([head, half]), 10_000)).status).toBe(path === "/x" ? 404 : 415);
    connection.send(half);
    const { status, bytes } = await connection.exchange(Buffer.from(health), 10_000);
    expect([status, new TextDecoder().decode(bytes).match(/HTTP\/1\.1/g)?.length]).toEqual([200, 1]);
    connection.end();
  }
  expect(bodies).toEqual([]);
});

describe("read in one way", () => {
  test.each([
    ["one length twice", `${HEAD}Content-Length: 2\r\n${TWO}`, ["{}"]],
    ["chunked in odd letters", `${HEAD}Transfer-Encoding:\tcHuNkEd\r\n\r\n2\r\n{}\r\n0\r\n\r\n`, ["{}"]],
    ["an extension of a chunk", `${HEAD}${CHUNKED}2;a=b\r\n{}\r\n0\r\n\r\n`, ["{}"]],
    [
      "an upgrade nobody offers",
      `${HEAD}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AA==\r\n${TWO}`,
      ["{}"],
    ],
    ["an expectation", `${HEAD}Expect: 200-ok\r\n${TWO}`, ["{}"]],
    [
      "a body of a health check",
      `GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: ${INNER.length}\r\n\r\n${INNER}`,
      [],
    ],
    ["a body of an unknown path", `POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ${INNER.length}\r\n\r\n${INNER}`, []],
    [
      "a body of the wrong type",
      `${POST}Host: a\r\n${CHUNKED}${INNER.length.toString(16)}\r\n${INNER}\r\n0\r\n\r\n`,
      [],
    ],
    ["another method in a header", `${HEAD.replace("POST", "GET")}X-HTTP-Method-Override: POST\r\n${TWO}`, []],
  ])("%s", async (_what, text, handled) => {
    expect(await say(text)).toEqual({ statuses: ["200"], open: true, handled });
  });
});
