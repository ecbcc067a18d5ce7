import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, type Server, type TLSSocket } from "node:tls";
import type { IncarnationId } from "../../src/ids.ts";
import { identityFromSeed, type ServerIdentity } from "../../src/server/directory.ts";
import { issueLeaf, type TlsFiles } from "../../src/server/tls.ts";
import { type Statement, signStatement } from "../../src/wire/statement.ts";

/** Real randomness for tests of whole parts. */
export const random = (length: number): Uint8Array => crypto.getRandomValues(new Uint8Array(length));

/** A new directory of mode 0700 under the system's temporary one. */
export function tempDir(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "keyhold-test-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export const newIdentity = (): Promise<ServerIdentity> => identityFromSeed(random(32));

/** A chain of an identity for loopback names, as of `nowMs`. */
export function loopbackLeaf(
  identity: ServerIdentity,
  { names = ["localhost", "127.0.0.1", "::1"], nowMs = Date.now() }: { names?: string[]; nowMs?: number } = {},
): Promise<TlsFiles> {
  return issueLeaf({ identity, names, nowMs, random });
}

/** A valid statement of an identity. */
export function statementOf(identity: ServerIdentity, changed: Partial<Statement> = {}): Statement {
  return signStatement(identity, {
    number: 5,
    expiresAtMs: Date.now() + 1_000_000,
    opaqueKeys: [random(32)],
    logKey: random(32),
    nextIdentity: null,
    incarnation: "00".repeat(16) as IncarnationId,
    registration: "open",
    ...changed,
  });
}

/** A TLS server that records each application byte it gets and answers as it likes. */
export interface RawServer {
  readonly url: string;
  readonly port: number;
  /** Application bytes received on all connections, once every one of them has ended. */
  received(): Promise<string>;
  connections(): number;
  close(): void;
}

/** Starts one on 127.0.0.1; `reply` is called once for each connection that sent something. */
export async function rawTlsServer(
  tls: TlsFiles,
  reply: (socket: TLSSocket) => void = () => undefined,
  options: { maxVersion?: "TLSv1.2" | "TLSv1.3" } = {},
): Promise<RawServer> {
  let received = "";
  let connections = 0;
  let ended = 0;
  let wake: () => void = () => undefined;
  const end = () => {
    ended += 1;
    wake();
  };
  const sockets = new Set<TLSSocket>();
  const server: Server = createServer({ cert: tls.certPem, key: tls.keyPem, ...options }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => {
      sockets.delete(socket);
      end();
    });
    socket.once("data", () => reply(socket));
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
    });
  });
  server.on("connection", () => {
    connections += 1;
  });
  server.on("tlsClientError", end);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  return {
    url: `https://127.0.0.1:${port}`,
    port,
    received: async () => {
      while (ended < connections)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      return received;
    },
    connections: () => connections,
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
