import { mutateBytes } from "./mutators.ts";
import type { Prng } from "./prng.ts";

const encoder = new TextEncoder();

/** A good request in its parts. */
export interface GoodRequest {
  readonly operation: string;
  readonly contentType: string;
  readonly body: Uint8Array;
}

type Case = (choose: Prng, good: GoodRequest) => string | Uint8Array;

const path = ({ operation }: GoodRequest): string => `/v1/op/${operation}`;
const text = ({ body }: GoodRequest): string => new TextDecoder("latin1").decode(body);
const plain = (good: GoodRequest): string => `Host: localhost\r\nContent-Type: ${good.contentType}\r\n`;
const sized = (good: GoodRequest): string => `${plain(good)}Content-Length: ${good.body.length}\r\n`;
const whole = (good: GoodRequest): string => `POST ${path(good)} HTTP/1.1\r\n${sized(good)}\r\n${text(good)}`;
const chunked = (good: GoodRequest, body: string, more = ""): string =>
  `POST ${path(good)} HTTP/1.1\r\n${plain(good)}Transfer-Encoding: chunked\r\n${more}\r\n${body}`;
const withLine =
  (...lines: string[]): Case =>
  (choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\n${choose.pick(lines)}\r\n${sized(good)}\r\n${text(good)}`;

const METHODS = [
  ..."GET PUT DELETE PATCH OPTIONS TRACE CONNECT HEAD PRI post P \u0000 POST\u0000 PROPFIND".split(" "),
  "A".repeat(5_000),
];
const PATHS = [
  ...[
    "",
    "*",
    "//",
    "/v1/op/",
    "/v1/op/..",
    "/v1/op/%00",
    "/v1/op/server.statement%20",
    "/v1/op/__proto__",
    "/v1/op/toString",
  ],
  ...[
    "/../../etc/passwd",
    "http://other/v1/op/server.statement",
    "/v1/op/server.statement?x",
    "/v1/op/server.statement#x",
  ],
  ...["/v1//op/server.statement", "\\v1\\op", "/v1/op/\u00e9", "/%", "/%zz", "?", "[::1]:80", "/v1/op/constructor"],
  `/${"a".repeat(20_000)}`,
  `/${"%41".repeat(3_000)}`,
  `/v1/op/server.statement?${"a=b&".repeat(4_000)}`,
];
const VERSIONS = [
  "HTTP/1.0",
  "HTTP/0.9",
  "HTTP/2.0",
  "HTTP/1.2",
  "HTTP/11.1",
  "http/1.1",
  "HTTP/1.1 ",
  "HTTP",
  "",
  "ICY",
];
const LENGTHS = [
  "-1",
  "0x10",
  "1e3",
  "+2",
  " 2 2",
  "2,2",
  "99999999999999999999",
  "18446744073709551616",
  "",
  "NaN",
  "2;",
  "01",
];
const CHUNKS = [
  ...[
    "zz\r\n{}\r\n0\r\n\r\n",
    "-1\r\n{}\r\n0\r\n\r\n",
    "ffffffffffffffff\r\n{}",
    "10000000000000000\r\n{}",
    "2\r\n{}0\r\n\r\n",
  ],
  ...[
    "2\n{}\n0\n\n",
    "2;a=b\r\n{}\r\n0\r\n\r\n",
    "2;\u0000\r\n{}\r\n0\r\n\r\n",
    " 2\r\n{}\r\n0\r\n\r\n",
    "2\r\n{}\r\n0\r\nHost: b\r\n\r\n",
  ],
  ...["0x2\r\n{}\r\n0\r\n\r\n", "\r\n\r\n", "0\r\n", "2\r\n{}\r\n", "2\r\n{}\r\n0\r\nX: ", "0002\r\n{}\r\n0\r\n\r\n"],
  `${"0".repeat(3_000)}2\r\n{}\r\n0\r\n\r\n`,
  `2;${"a".repeat(20_000)}\r\n{}\r\n0\r\n\r\n`,
  `2\r\n{}\r\n0\r\n${"X-T: y\r\n".repeat(400)}\r\n`,
  `${"1\r\n \r\n".repeat(2_000)}0\r\n\r\n`,
];

const CASES: readonly Case[] = [
  (choose, good) => `${choose.pick(METHODS)} ${path(good)} HTTP/1.1\r\n${sized(good)}\r\n${text(good)}`,
  (choose, good) => `POST ${choose.pick(PATHS)} HTTP/1.1\r\n${sized(good)}\r\n${text(good)}`,
  (choose, good) => `POST ${path(good)} ${choose.pick(VERSIONS)}\r\n${sized(good)}\r\n${text(good)}`,
  (choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\n${plain(good)}Content-Length: ${choose.pick(LENGTHS)}\r\n\r\n${text(good)}`,
  (choose, good) => chunked(good, choose.pick(CHUNKS)),
  withLine("Host: localhost", "Host: other", "Host:", "Host : x", "host: a\r\nHOST: b", "Host: a, b", "Host: \u0000"),
  withLine("Content-Length: 1", "Content-Length: 0", "Content-Length: 2, 2", "content-length:3", "Content-Length: -2"),
  withLine(
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "TE: trailers",
  ),
  withLine("Expect: 100-continue", "Expect: 200-ok", "Expect: ", "Expect: 100-continue\r\nExpect: 100-continue"),
  withLine(
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13",
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
    "Upgrade: TLS/1.2\r\nConnection: Upgrade",
  ),
  withLine(
    "Connection: close",
    "Connection: keep-alive, close, Host",
    "Connection: Content-Length",
    "Keep-Alive: timeout=99999999",
    "Proxy-Connection: keep-alive",
  ),
  withLine(
    "X-Folded: a\r\n b",
    "X-Folded: a\r\n\tb",
    " leading: space",
    ": no name",
    "no colon",
    "X\u0000Y: z",
    "X: \u0000",
    "X: \u0001\u007f",
    "X: \r y",
    "X: \n y",
  ),
  withLine(
    "Content-Encoding: gzip",
    "Content-Encoding: identity, identity",
    "Content-Encoding: br",
    "Accept-Encoding: *",
    "Range: bytes=0-1",
    "If-None-Match: *",
  ),
  withLine(
    "Origin: https://evil.example",
    "Cookie: a=b",
    "X-Forwarded-For: 1.2.3.4",
    "Forwarded: for=1.2.3.4",
    "X-HTTP-Method-Override: DELETE",
    "Authorization: Basic AAAA",
  ),
  (choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\n${sized(good)}X: ${"y".repeat(choose.below(120_000))}\r\n\r\n${text(good)}`,
  (choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\n${sized(good)}${"X-H: y\r\n".repeat(choose.below(4_000))}\r\n${text(good)}`,
  (_choose, good) => whole(good).replaceAll("\r\n", "\n"),
  (_choose, good) => whole(good).replaceAll("\r\n", "\r"),
  (choose, good) => `${choose.pick(["\r\n", "\n\n", " ", "\u0000", "\ufeff"])}${whole(good)}`,
  (choose, good) => whole(good).repeat(2 + choose.below(20)),
  (_choose, good) => `${whole(good)}GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n${whole(good)}`,
  (choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\n${sized(good).split("\r\n").reverse().join("\r\n")}\r\n\r\n${text(good)}`.slice(
      choose.below(3),
    ),
  (_choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\nhOsT: x\r\ncOnTeNt-TyPe: ${good.contentType.toUpperCase()}\r\nCONTENT-LENGTH: ${good.body.length}\r\n\r\n${text(good)}`,
  (choose, good) =>
    `POST ${path(good)} HTTP/1.1\r\nHost: a\r\nContent-Type: ${choose.pick(["", ";", "application/json;charset=\u0000", "application/json, application/json", "*/*", "a".repeat(9_000)])}\r\nContent-Length: ${good.body.length}\r\n\r\n${text(good)}`,
  (choose, good) => whole(good).slice(0, choose.below(whole(good).length)),
  (_choose, good) =>
    chunked(
      good,
      `${good.body.length.toString(16)}\r\n${text(good)}\r\n0\r\n\r\n`,
      `Content-Length: ${good.body.length}\r\n`,
    ),
  () => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\u0000\u0000\u0012\u0004\u0000\u0000\u0000\u0000\u0000",
  (choose) =>
    `GET ${choose.pick(["/healthz", "/readyz", "/", "/metrics", "/v1/control/status"])} HTTP/1.1\r\nHost: a\r\n\r\n`,
  (choose, good) => Buffer.from(mutateBytes(choose, Buffer.from(whole(good), "latin1"), choose.bytes(100))),
  (choose, good) =>
    Buffer.from(mutateBytes(choose, Buffer.from(whole(good), "latin1"), Buffer.from(whole(good), "latin1"))),
  (choose) => choose.bytes(1 + choose.below(400)),
];

/** How many kinds of HTTP-level mutations there are. */
export const HTTP_CASES: number = CASES.length;

/** Bytes of a request that is wrong as HTTP, or odd. */
export function mutateHttp(choose: Prng, good: GoodRequest): Uint8Array {
  const made = choose.pick(CASES)(choose, good);
  return typeof made === "string" ? Buffer.from(made, "latin1") : made;
}

/** A ClientHello as TLS 1.2 clients sent it: no extension names a newer version. */
function oldHello(choose: Prng): Uint8Array {
  const random = choose.bytes(32);
  const suites = Uint8Array.of(0, 6, 0xc0, 0x2f, 0xc0, 0x30, 0, 0x9c);
  const body = Buffer.concat([Uint8Array.of(3, 3), random, Uint8Array.of(0), suites, Uint8Array.of(1, 0)]);
  const handshake = Buffer.concat([Uint8Array.of(1, 0, body.length >>> 8, body.length & 255), body]);
  const record = Uint8Array.of(22, 3, 1, handshake.length >>> 8, handshake.length & 255);
  return Buffer.concat([record, handshake]);
}

/** Bytes for a TCP connection to a port that speaks TLS. */
export function mutateTls(choose: Prng): Uint8Array {
  const hello = oldHello(choose);
  const length = choose.below(600);
  switch (choose.below(9)) {
    case 0:
      return choose.bytes(1 + length);
    case 1:
      return hello;
    case 2:
      return hello.subarray(0, choose.below(hello.length));
    case 3:
      return mutateBytes(choose, hello, hello);
    case 4:
      return Buffer.concat([
        Uint8Array.of(choose.pick([20, 21, 22, 23, 24, 255]), 3, choose.below(5), length >>> 8, length & 255),
        choose.bytes(length),
      ]);
    case 5:
      return encoder.encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    case 6:
      // an SSL 2 hello, and a record that says to be longer than any may be
      return choose.pick([
        Uint8Array.of(0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10),
        Uint8Array.of(22, 3, 3, 0xff, 0xff, 1),
      ]);
    case 7:
      // an alert, then more
      return Buffer.concat([Uint8Array.of(21, 3, 3, 0, 2, 2, choose.below(256)), hello]);
    default:
      return Buffer.concat([hello, hello, choose.bytes(length)]);
  }
}
