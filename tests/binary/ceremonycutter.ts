import { connect, createServer, type Socket } from "node:net";

/** A line between a client and a server on which one request is cut. */
export interface Cutter {
  readonly port: number;
  readonly url: string;
  /** At the `nth` request from now on; `heard` lets the server have it, and cuts the answer. `cut` is called then. */
  arm(nth: number, heard: boolean, cut: () => void): void;
  /** Resolves when the server is done with the request that was cut: it has said nothing more for a while. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

/** First byte of a TLS record with data, RFC 8446 §5.1; a handshake's last flight begins with another one. */
const APPLICATION_DATA = 23;
/** So long after its last word a server is done with a request. */
const SILENCE_MS = 250;

/** Listens on the loopback address and passes bytes on to `port`. */
export async function startCutter(port: number): Promise<Cutter> {
  type Done = PromiseWithResolvers<void>;
  let armed: { left: number; readonly heard: boolean; readonly cut: () => void; readonly done: Done } | null = null;
  const open = new Set<Socket>();
  let settled = Promise.withResolvers<void>();

  function quiet(socket: Socket): Socket {
    open.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => open.delete(socket));
    return socket;
  }

  const server = createServer((client) => {
    quiet(client);
    const upstream = quiet(connect(port, "127.0.0.1"));
    let mute: (() => void) | null = null;
    let done: Done | undefined;
    const end = () => {
      client.destroy();
      upstream.destroy();
      done?.resolve();
    };
    // what comes first need not be the answer: a ticket of TLS 1.3 goes before it (RFC 8446 §4.6.1)
    let silence: ReturnType<typeof setTimeout> | undefined;
    const endSoon = () => {
      clearTimeout(silence);
      silence = setTimeout(end, SILENCE_MS);
    };
    client.on("data", (data) => {
      if (armed && data[0] === APPLICATION_DATA) armed.left -= 1;
      if (armed?.left !== 0) return void upstream.write(data);
      const { heard, cut } = armed;
      done = armed.done;
      armed = null;
      cut();
      if (!heard) return end();
      mute = endSoon;
      upstream.write(data);
    });
    upstream.on("data", (data) => {
      if (mute) mute();
      else client.write(data);
    });
    // a killed client's question still reaches the server
    client.on("close", () => {
      if (!mute) upstream.destroy();
    });
    upstream.on("close", end);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no address");
  return {
    port: address.port,
    url: `https://127.0.0.1:${address.port}`,
    arm(left, heard, cut) {
      settled = Promise.withResolvers<void>();
      armed = { left, heard, cut, done: settled };
    },
    settled: () => settled.promise,
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
