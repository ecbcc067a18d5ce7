import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** What came back for one request. */
export interface Outcome {
  /** HTTP status of the first answer; null if nothing that looks like one came. */
  readonly status: number | null;
  readonly contentType: string;
  readonly body: Uint8Array;
  /** True once the server has closed the connection. */
  readonly closed: boolean;
  /** Everything received since the last exchange. */
  readonly bytes: Uint8Array;
}

/** One connection, on which whatever bytes are sent. */
export interface Connection {
  readonly open: boolean;
  /** Sends bytes and waits for a whole answer, the connection's end, or `capMs`, whichever is first. */
  exchange(bytes: Uint8Array, capMs: number): Promise<Outcome>;
  /** Sends bytes and waits for nothing. */
  send(bytes: Uint8Array): void;
  end(): void;
}

export interface Target {
  readonly port: number;
  /** Address of the loopback network that the connection comes from. */
  readonly from?: string;
  /** False for plain TCP. */
  readonly tls: boolean;
}

const HEAD_END = Buffer.from("\r\n\r\n");

/** The first whole HTTP answer in `bytes`; null while it is incomplete. */
function answerIn(bytes: Buffer, closed: boolean): Omit<Outcome, "closed" | "bytes"> | null {
  const end = bytes.indexOf(HEAD_END);
  if (end < 0) return null;
  const head = bytes.subarray(0, end).toString("latin1");
  const status = /^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1];
  if (status === undefined) return null;
  const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
  const body = bytes.subarray(end + HEAD_END.length);
  if (status === "100") return answerIn(body, closed);
  if (body.length < length && !closed) return null;
  const contentType = (/^content-type: *([^\r\n;]*)/im.exec(head)?.[1] ?? "").toLowerCase();
  return { status: Number(status), contentType, body: new Uint8Array(body.subarray(0, length)) };
}

/** Connects; an error while connecting gives a connection that is not open. */
export function connect({ port, from, tls }: Target): Promise<Connection> {
  return new Promise((resolve) => {
    let parts: Buffer[] = [];
    let closed = false;
    let wake: () => void = () => undefined;
    const local = from === undefined ? {} : { localAddress: from };
    const socket: Socket = tls
      ? connectTls({ host: "127.0.0.1", port, rejectUnauthorized: false, ...local })
      : connectTcp({ host: "127.0.0.1", port, ...local });
    const connection: Connection = {
      get open() {
        return !closed;
      },
      exchange: (bytes, capMs) =>
        new Promise((settle) => {
          parts = [];
          const timer = setTimeout(() => finish(), capMs);
          const finish = () => {
            clearTimeout(timer);
            wake = () => undefined;
            const all = Buffer.concat(parts);
            const answer = answerIn(all, true) ?? { status: null, contentType: "", body: new Uint8Array(0) };
            settle({ ...answer, closed, bytes: all });
          };
          wake = () => {
            if (closed || answerIn(Buffer.concat(parts), false)) finish();
          };
          if (closed) finish();
          else socket.write(bytes);
        }),
      send: (bytes) => void (closed || socket.write(bytes)),
      end: () => socket.destroy(),
    };
    socket.setNoDelay(true);
    socket.on("data", (part: Buffer) => {
      parts.push(part);
      wake();
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      closed = true;
      wake();
      resolve(connection);
    });
    socket.on(tls ? "secureConnect" : "connect", () => resolve(connection));
  });
}

/**
 * Makes a sound TLS connection, sends `bytes` under it, where records belong, and ends it without a word.
 *
 * @returns True if the handshake was done.
 */
export function underTls(port: number, bytes: Uint8Array, capMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    let shaken = false;
    const done = () => {
      clearTimeout(timer);
      tcp.destroy();
      resolve(shaken);
    };
    const timer = setTimeout(done, capMs);
    const tcp = connectTcp(port, "127.0.0.1", () => {
      const tls = connectTls({ socket: tcp, rejectUnauthorized: false }, () => {
        shaken = true;
        if (bytes.length === 0) done();
        else tcp.write(bytes);
      });
      tls.on("error", () => undefined);
      tls.on("data", () => undefined);
    });
    tcp.on("error", () => undefined);
    tcp.on("close", done);
  });
}

const encoder = new TextEncoder();

/** A well-formed POST of an operation. */
export function postBytes(operation: string, contentType: string, body: Uint8Array): Uint8Array {
  const head =
    `POST /v1/op/${operation} HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${contentType}\r\n` +
    `Content-Length: ${body.length}\r\n\r\n`;
  return Buffer.concat([encoder.encode(head), body]);
}
