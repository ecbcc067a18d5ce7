/** Closed-loop load over raw TLS connections: one request in flight a connection, everything bounded in count and time. */

/** One connection that answers one request at a time. */
export interface Wire {
  /** Sends bytes as they are; resolves with the answer's status and body. */
  ask(request: Uint8Array): Promise<Answer>;
  close(): void;
}

export interface Answer {
  readonly status: number;
  readonly body: Uint8Array;
}

/** Takes the next whole piece off the front of what was received, an answer or not; null while it is incomplete. */
export type Framing = (received: Uint8Array) => { readonly answer: Answer | null; readonly used: number } | null;

/** What a TLS connection needs. */
export interface Target {
  readonly port: number;
  readonly caPem: string;
  /** Protocol to offer; nothing for HTTP/1.1. */
  readonly alpn?: string;
}

const EMPTY = new Uint8Array(0);

/** Opens one TLS 1.3 connection to loopback. */
export async function openWire(target: Target, framing: Framing, hello: Uint8Array = EMPTY): Promise<Wire> {
  let waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | null = null;
  let received: Uint8Array = EMPTY;
  let unsent: Uint8Array = EMPTY;
  const ready = Promise.withResolvers<void>();
  // a refused connection also rejects the connect call below
  ready.promise.catch(() => undefined);
  const broken = (why: string) => {
    const error = new Error(why);
    ready.reject(error);
    waiting?.reject(error);
    waiting = null;
  };
  function flush(socket: Bun.Socket): void {
    if (unsent.length > 0) unsent = unsent.subarray(socket.write(unsent));
  }
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: target.port,
    tls: {
      ca: target.caPem,
      rejectUnauthorized: true,
      // in the form of RFC 7301: length, then name
      ...(target.alpn === undefined ? {} : { ALPNProtocols: String.fromCharCode(target.alpn.length) + target.alpn }),
    },
    socket: {
      handshake: (_socket, success, error) => (success ? ready.resolve() : broken(`TLS: ${error?.message}`)),
      data(_socket, chunk) {
        received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
        for (let whole = framing(received); whole; whole = framing(received)) {
          received = received.subarray(whole.used);
          if (whole.answer === null) continue;
          const asked = waiting;
          waiting = null;
          asked?.resolve(whole.answer);
        }
      },
      drain: flush,
      close: () => broken("the server closed a connection"),
      error: (_socket, error) => broken(error.message),
      connectError: (_socket, error) => broken(error.message),
    },
  });
  await ready.promise;
  const send = (bytes: Uint8Array) => {
    unsent = unsent.length === 0 ? bytes : Buffer.concat([unsent, bytes]);
    flush(socket);
  };
  if (hello.length > 0) send(hello);
  return {
    ask: (request) =>
      new Promise((resolve, reject) => {
        waiting = { resolve, reject };
        send(request);
      }),
    close: () => socket.end(),
  };
}

/** HTTP/1.1 answers with a Content-Length. */
export const http1: Framing = (received) => {
  const view = Buffer.from(received.buffer, received.byteOffset, received.length);
  const end = view.indexOf("\r\n\r\n");
  if (end < 0) return null;
  const head = view.toString("latin1", 0, end);
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? Number.NaN);
  if (Number.isNaN(length)) throw new Error("an answer without Content-Length");
  const used = end + 4 + length;
  if (received.length < used) return null;
  return { answer: { status: Number(head.slice(9, 12)), body: received.slice(end + 4, used) }, used };
};

/** The bytes of one POST. */
export function post(path: string, contentType: string, body: Uint8Array): Uint8Array {
  const head = `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: ${contentType}\r\ncontent-length: ${body.length}\r\n\r\n`;
  return Buffer.concat([Buffer.from(head, "latin1"), body]);
}

/** One round's result. */
export interface Round {
  readonly count: number;
  readonly seconds: number;
  /** Milliseconds of each request. */
  readonly latencies: readonly number[];
}

/**
 * Sends each connection its own requests one after another; ends when all are answered.
 *
 * @param seen Takes each answer with the place of its request.
 * @throws Error when the round takes longer than `limitSeconds`.
 */
export async function closedLoop(
  wires: readonly Wire[],
  requests: readonly (readonly Uint8Array[])[],
  limitSeconds: number,
  seen: (wire: number, request: number, answer: Answer) => void,
): Promise<Round> {
  const latencies: number[] = [];
  let over = false;
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    over = true;
    late.reject(new Error(`a round took longer than ${limitSeconds} s`));
  }, limitSeconds * 1_000);
  const startedAt = performance.now();
  const work = wires.map(async (wire, at) => {
    for (const [index, request] of (requests[at] ?? []).entries()) {
      if (over) return;
      const sentAt = performance.now();
      const answer = await wire.ask(request);
      latencies.push(performance.now() - sentAt);
      seen(at, index, answer);
    }
  });
  try {
    await Promise.race([Promise.all(work), late.promise]);
  } finally {
    clearTimeout(timer);
  }
  return { count: latencies.length, seconds: (performance.now() - startedAt) / 1_000, latencies };
}
