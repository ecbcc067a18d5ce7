import { connect, createServer, type Socket } from "node:net";

/** What a {@link Wirecut} does at the next COMMIT that a client sends. */
export type Cut =
  /** The server gets it and answers; the client never hears. */
  | "reply"
  /** The server never gets it, and the connection ends for both. */
  | "request"
  /** The client's connection ends; the server gets it when `release` is called, as from a buffer on the way. */
  | "late"
  /** Nothing passes any more, in either direction, and nobody is told. */
  | "hole";

/** A line between a client and PostgreSQL that can be cut at a commit. */
export interface Wirecut {
  readonly port: number;
  /** What to do at the next COMMIT; undefined lets it pass. `refusing`: from then on no connection is taken. */
  arm(cut: Cut | undefined, refusing?: boolean): void;
  /** How many COMMITs were cut. */
  cuts(): number;
  /** Refuses new connections, or takes them again. */
  refuse(refused: boolean): void;
  /** Delivers what `late` held back. */
  release(): void;
  close(): Promise<void>;
}

const COMMIT = "COMMIT\0";

/** Listens on the loopback address and passes bytes on to `port`. */
export async function wirecut(port: number): Promise<Wirecut> {
  let armed: Cut | undefined;
  let cuts = 0;
  let refused = false;
  let refusing = false;
  const held: (() => void)[] = [];
  const open = new Set<Socket>();

  function quiet(socket: Socket): Socket {
    open.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => open.delete(socket));
    return socket;
  }

  const server = createServer((client) => {
    quiet(client);
    if (refused) return void client.destroy();
    const upstream = quiet(connect(port, "127.0.0.1"));
    let mute = false;
    client.on("data", (data) => {
      if (mute) return;
      const cut = armed;
      if (cut === undefined || !data.toString("latin1").includes(COMMIT)) return void upstream.write(data);
      armed = undefined;
      cuts += 1;
      refused ||= refusing;
      mute = true;
      if (cut === "hole") return;
      if (cut === "reply") {
        // heard by nobody
        upstream.once("data", () => {
          client.destroy();
          upstream.destroy();
        });
        upstream.write(data);
      } else if (cut === "late") {
        held.push(() => upstream.write(data));
        client.destroy();
      } else {
        client.destroy();
        upstream.destroy();
      }
    });
    upstream.on("data", (data) => {
      if (!mute) client.write(data);
    });
    client.on("close", () => {
      if (held.length === 0) upstream.destroy();
    });
    upstream.on("close", () => {
      if (!mute) client.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    port: typeof address === "object" && address ? address.port : 0,
    arm: (cut, then = false) => {
      armed = cut;
      refusing = then;
    },
    cuts: () => cuts,
    refuse: (value) => {
      refused = value;
    },
    release: () => {
      for (const deliver of held.splice(0)) deliver();
    },
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
