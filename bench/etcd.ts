import { join } from "node:path";
import { onServerCore } from "./harness.ts";
import { type Framing, openWire, type Target, type Wire } from "./load.ts";
import { eventually, freePort, run, type World } from "./processes.ts";

/** etcd behind TLS and the few frames of HTTP/2 (RFC 9113) that a unary gRPC call takes. */

/** A self-signed certificate for 127.0.0.1 by openssl; gives both paths and the certificate's text. */
export async function selfSigned(world: World): Promise<{ cert: string; key: string; pem: string }> {
  const cert = join(world.dir, "peer.crt");
  const key = join(world.dir, "peer.key");
  const make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
  await run([...make, "-days", "1", "-keyout", key, "-out", cert, ...names]);
  return { cert, key, pem: await Bun.file(cert).text() };
}

/** Starts one etcd on the measured core, one processor for its scheduler too. */
export async function startEtcd(world: World): Promise<{ target: Target; pid: number; count(): Promise<number> }> {
  const { cert, key, pem } = await selfSigned(world);
  const port = freePort();
  const url = `https://127.0.0.1:${port}`;
  const peerUrl = `http://127.0.0.1:${freePort()}`;
  const child = Bun.spawn(
    onServerCore([
      "etcd",
      ...["--data-dir", join(world.dir, "etcd"), "--log-level", "error", "--logger", "zap"],
      ...["--listen-client-urls", url, "--advertise-client-urls", url, "--cert-file", cert, "--key-file", key],
      ...["--listen-peer-urls", peerUrl, "--initial-advertise-peer-urls", peerUrl],
      ...["--initial-cluster", `default=${peerUrl}`],
    ]),
    {
      env: { PATH: process.env["PATH"] ?? "", HOME: world.dir, GOMAXPROCS: "1" },
      stdin: "ignore",
      stdout: "ignore",
      stderr: Bun.file(join(world.dir, "etcd.log")),
    },
  );
  world.stopLater(child);
  const client = ["etcdctl", "--endpoints", url, "--cacert", cert];
  const env = { ETCDCTL_API: "3" };
  await eventually(() => run([...client, "endpoint", "health"], { env }));
  return {
    target: { port, caPem: pem, alpn: "h2" },
    pid: child.pid,
    count: async () => {
      const listed = await run([...client, "get", "", "--prefix", "--limit", "1", "--keys-only", "-w", "json"], {
        env,
      });
      return (JSON.parse(listed.stdout) as { count: number }).count;
    },
  };
}

const FRAME = { data: 0, headers: 1, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 } as const;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;
const HEAD_BYTES = 9;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(HEAD_BYTES + payload.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, (payload.length << 8) | type);
  out[4] = flags;
  view.setUint32(5, stream);
  out.set(payload, HEAD_BYTES);
  return out;
}

/** Headers as HPACK literals (RFC 7541 §6.2.2): never indexed, never Huffman-coded, all shorter than 127 bytes. */
function literals(headers: readonly (readonly [string, string])[]): Uint8Array {
  const parts = headers.flatMap(([name, value]) => [
    Uint8Array.of(0, name.length),
    Buffer.from(name),
    Uint8Array.of(value.length),
    Buffer.from(value),
  ]);
  return Buffer.concat(parts);
}

/** One length-delimited protobuf field. */
function field(number: number, value: Uint8Array): Uint8Array {
  const length: number[] = [];
  for (let rest = value.length; ; rest >>>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  return Buffer.concat([Uint8Array.of((number << 3) | 2, ...length), value]);
}

const PUT_HEADERS = literals([
  [":method", "POST"],
  [":scheme", "https"],
  [":path", "/etcdserverpb.KV/Put"],
  [":authority", "127.0.0.1"],
  ["content-type", "application/grpc"],
  ["te", "trailers"],
]);

/** The bytes of one put on a connection's n-th stream (n from 0). */
export function put(n: number, key: Uint8Array, value: Uint8Array): Uint8Array {
  const message = Buffer.concat([field(1, key), field(2, value)]);
  const prefix = new Uint8Array(5);
  new DataView(prefix.buffer).setUint32(1, message.length);
  const stream = 2 * n + 1;
  return Buffer.concat([
    frame(FRAME.headers, END_HEADERS, stream, PUT_HEADERS),
    frame(FRAME.data, END_STREAM, stream, Buffer.concat([prefix, message])),
  ]);
}

const PREFACE = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  frame(FRAME.settings, 0, 0, new Uint8Array(0)),
]);

/** Opens a connection that answers puts; the peer's settings and pings are acknowledged. */
export async function openEtcdWire(target: Target): Promise<Wire> {
  const owed: Uint8Array[] = [];
  let status = 0;
  const framing: Framing = (received) => {
    if (received.length < HEAD_BYTES) return null;
    const view = new DataView(received.buffer, received.byteOffset, received.length);
    const length = view.getUint32(0) >>> 8;
    const used = HEAD_BYTES + length;
    if (received.length < used) return null;
    const type = received[3] ?? 0;
    const flags = received[4] ?? 0;
    if (type === FRAME.settings && (flags & ACK) === 0) owed.push(frame(FRAME.settings, ACK, 0, new Uint8Array(0)));
    if (type === FRAME.ping && (flags & ACK) === 0)
      owed.push(frame(FRAME.ping, ACK, 0, received.slice(HEAD_BYTES, used)));
    if (type === FRAME.goaway) throw new Error("etcd closed a connection");
    if (type === FRAME.data) {
      // a reply message: the put was made; its bytes are given back to the connection's window
      status = 200;
      const given = new Uint8Array(4);
      new DataView(given.buffer).setUint32(0, length);
      owed.push(frame(FRAME.windowUpdate, 0, 0, given));
    }
    if (type !== FRAME.headers || (flags & END_STREAM) === 0) return { answer: null, used };
    const answer = { status, body: new Uint8Array(0) };
    status = 0;
    return { answer, used };
  };
  const wire = await openWire(target, framing, PREFACE);
  return {
    ask: (request) => wire.ask(owed.length === 0 ? request : Buffer.concat([...owed.splice(0), request])),
    close: wire.close,
  };
}
