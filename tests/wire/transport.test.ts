import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createServer as createTcp } from "node:net";
import type { TLSSocket } from "node:tls";
import { Fault } from "../../src/errors.ts";
import type { ServerIdentity } from "../../src/server/directory.ts";
import { silentLog } from "../../src/server/log.ts";
import { authorityOf, type TlsFiles } from "../../src/server/tls.ts";
import { type RunningServer, startServer } from "../../src/server.ts";
import { encodeJson } from "../../src/wire/codec.ts";
import { wasUndelivered } from "../../src/wire/failure.ts";
import { operations } from "../../src/wire/operations.ts";
import { pinOf } from "../../src/wire/pin.ts";
import type { Statement } from "../../src/wire/statement.ts";
import { type ConnectInput, connectServer, postOperation, reachServer } from "../../src/wire/transport.ts";
import { loopbackLeaf, newIdentity, random, rawTlsServer, statementOf } from "../support/listener.ts";

const DAY = 86_400_000;
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

let identity: ServerIdentity;
let pin: string;
beforeAll(async () => {
  identity = await newIdentity();
  pin = pinOf(identity.publicKey);
});

async function serve(
  tls: TlsFiles | "plaintext",
  statement: Statement = statementOf(identity),
): Promise<RunningServer> {
  const body = encodeJson(operations["server.statement"].output, statement);
  const server = await startServer({
    listen: { host: "127.0.0.1", port: 0 },
    tls,
    pin,
    log: silentLog,
    handle: async () => ({ status: 200, contentType: "application/json", body }),
  });
  closers.push(() => server.stop(0));
  return server;
}

async function raw(tls: TlsFiles, reply?: (socket: TLSSocket) => void, options?: { maxVersion: "TLSv1.2" }) {
  const server = await rawTlsServer(tls, reply, options);
  closers.push(() => server.close());
  return server;
}

const connect = (url: string, more: Partial<ConnectInput> = {}) =>
  connectServer({ url, pin, caPem: null, minStatement: 0, now: Date.now, ...more });

const caPem = async (of: ServerIdentity) => (await authorityOf(of)).toString("pem");

describe("first contact", () => {
  test("finds the pinned authority, and the next contact uses it", async () => {
    const server = await serve(await loopbackLeaf(identity));
    const first = await connect(server.url);
    expect(first.mode).toBe("private");
    expect(first.statement.identity).toEqual(identity.publicKey);
    expect(first.caPem?.trim()).toBe((await caPem(identity)).trim());
    const again = await connect(server.url, { caPem: first.caPem, minStatement: first.statement.number });
    expect(again.caPem).toBe(first.caPem);
  });

  test("works by host name and by IPv4 address", async () => {
    const server = await serve(await loopbackLeaf(identity));
    expect((await connect(`https://localhost:${server.port}`)).mode).toBe("private");
    expect((await connect(`https://127.0.0.1:${server.port}`)).mode).toBe("private");
  });

  test("nothing is sent to a server with another identity", async () => {
    const server = await raw(await loopbackLeaf(await newIdentity()));
    await expect(connect(server.url)).rejects.toMatchObject({ code: "pin_mismatch", exit: 7 });
    expect(server.connections()).toBeGreaterThan(0);
    expect(await server.received()).toBe("");
  });

  test("the recorder does see bytes once the pin fits", async () => {
    const server = await raw(await loopbackLeaf(identity), (socket) => socket.end());
    await expect(connect(server.url)).rejects.toMatchObject({ code: "unreachable" });
    expect(await server.received()).toContain("POST /v1/op/server.statement");
  });

  test("nothing is sent when the pinned authority is shown with a foreign leaf", async () => {
    const foreign = await loopbackLeaf(await newIdentity());
    const leafOnly = foreign.certPem.slice(0, foreign.certPem.indexOf("-----END") + 26);
    const server = await raw({ certPem: `${leafOnly}${await caPem(identity)}`, keyPem: foreign.keyPem });
    await expect(connect(server.url)).rejects.toMatchObject({
      code: "tls_refused",
      why: "it is not signed by the pinned identity",
    });
    expect(await server.received()).toBe("");
  });

  test("nothing is sent when a leaf itself has the pinned key without being an authority", async () => {
    // another authority vouches for a leaf whose key is the pinned one: valid TLS, but no private CA
    const other = await newIdentity();
    const x509 = await import("@peculiar/x509");
    const authority = await authorityOf(other);
    const seed = random(32);
    const { identityFromSeed } = await import("../../src/server/directory.ts");
    const pinned = await identityFromSeed(seed);
    const leaf = await x509.X509CertificateGenerator.create({
      serialNumber: "05",
      subject: "CN=leaf",
      issuer: authority.subject,
      notBefore: new Date(Date.now() - DAY),
      notAfter: new Date(Date.now() + DAY),
      publicKey: pinned.certificateKeys.publicKey,
      signingKey: other.certificateKeys.privateKey,
      signingAlgorithm: { name: "Ed25519" },
      extensions: [new x509.SubjectAlternativeNameExtension([{ type: "ip", value: "127.0.0.1" }])],
    });
    const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
    const keyPem = `-----BEGIN PRIVATE KEY-----\n${pkcs8.toString("base64")}\n-----END PRIVATE KEY-----\n`;
    const server = await raw({ certPem: `${leaf.toString("pem")}\n${authority.toString("pem")}\n`, keyPem });
    await expect(connect(server.url, { pin: pinOf(pinned.publicKey) })).rejects.toMatchObject({
      code: "tls_refused",
      why: "the certificate with the pinned key is not an authority",
    });
    expect(await server.received()).toBe("");
  });

  test.each([
    ["an expired leaf", { nowMs: Date.now() - 2_000 * DAY }, "it has expired"],
    ["a leaf that is not valid yet", { nowMs: Date.now() + 10 * DAY }, "it is not valid yet; check the clock"],
    ["a leaf for another host", { names: ["keys.example"] }, "it is not made for the host 127.0.0.1"],
    ["a leaf with the address as a host name", { names: ["localhost"] }, "it is not made for the host 127.0.0.1"],
  ])("%s is refused with the reason, before anything is sent", async (_what, options, why) => {
    const server = await raw(await loopbackLeaf(identity, options));
    await expect(connect(server.url)).rejects.toMatchObject({ code: "tls_refused", exit: 7, why });
    expect(await server.received()).toBe("");
  });

  test.each([
    ["expired", { nowMs: Date.now() - 2_000 * DAY }, "its certificate has expired"],
    ["for another host", { names: ["keys.example"] }, "its certificate is not made for this host"],
  ])("a kept authority does not let a leaf through that is %s", async (_what, options, why) => {
    const server = await raw(await loopbackLeaf(identity, options));
    await expect(connect(server.url, { caPem: await caPem(identity) })).rejects.toMatchObject({
      code: "tls_refused",
      why,
    });
    expect(await server.received()).toBe("");
  });

  test("a kept authority does not let another server through", async () => {
    const server = await raw(await loopbackLeaf(await newIdentity()));
    await expect(connect(server.url, { caPem: await caPem(identity) })).rejects.toMatchObject({ code: "pin_mismatch" });
    expect(await server.received()).toBe("");
  });

  test("a kept authority with another key than the pin is refused before connecting", async () => {
    const other = await newIdentity();
    const server = await raw(await loopbackLeaf(other));
    for (const kept of [await caPem(other), "not PEM"]) {
      await expect(connect(server.url, { caPem: kept })).rejects.toMatchObject({ code: "pin_mismatch" });
    }
    expect(server.connections()).toBe(0);
  });

  test("TLS 1.2 is refused, with and without a kept authority", async () => {
    const server = await raw(await loopbackLeaf(identity), undefined, { maxVersion: "TLSv1.2" });
    await expect(connect(server.url)).rejects.toMatchObject({ code: "tls_refused", why: "it does not speak TLS 1.3" });
    await expect(connect(server.url, { caPem: await caPem(identity) })).rejects.toMatchObject({ code: "tls_refused" });
    expect(await server.received()).toBe("");
  });

  test("an older statement than one seen before is refused", async () => {
    const server = await serve(await loopbackLeaf(identity), statementOf(identity, { number: 4 }));
    await expect(connect(server.url, { minStatement: 5 })).rejects.toMatchObject({ code: "integrity" });
  });

  test("a statement of another identity is refused inside the pinned TLS too", async () => {
    const server = await serve(await loopbackLeaf(identity), statementOf(await newIdentity()));
    await expect(connect(server.url)).rejects.toMatchObject({ code: "pin_mismatch" });
  });
});

describe("public mode", () => {
  test("an operator's certificate with the pinned server's statement", async () => {
    const operator = await newIdentity();
    const server = await serve(await loopbackLeaf(operator));
    const found = await connect(server.url, { tlsCaPem: await caPem(operator) });
    expect(found).toMatchObject({ mode: "public", caPem: null });
  });

  test("an operator's certificate with another server's statement is a pin mismatch", async () => {
    const operator = await newIdentity();
    const server = await serve(await loopbackLeaf(operator), statementOf(await newIdentity()));
    await expect(connect(server.url, { tlsCaPem: await caPem(operator) })).rejects.toMatchObject({
      code: "pin_mismatch",
    });
  });

  test("an operator's expired certificate is refused as such", async () => {
    const operator = await newIdentity();
    const server = await serve(await loopbackLeaf(operator, { nowMs: Date.now() - 2_000 * DAY }));
    await expect(connect(server.url, { tlsCaPem: await caPem(operator) })).rejects.toMatchObject({
      code: "tls_refused",
      why: "its certificate has expired",
    });
  });

  test("a known server that suddenly shows an operator's certificate is refused: a relay could do that", async () => {
    const operator = await newIdentity();
    const server = await serve(await loopbackLeaf(operator));
    const known = { caPem: await caPem(identity), tlsCaPem: await caPem(operator) };
    await expect(connect(server.url, known)).rejects.toMatchObject({ code: "pin_mismatch" });
    // at first contact nothing was promised
    expect(await connect(server.url, { ...known, caPem: null })).toMatchObject({ mode: "public", caPem: null });
  });

  test("plain http on loopback is held against the pin as well", async () => {
    const server = await serve("plaintext");
    expect(await connect(server.url)).toMatchObject({ mode: "public", caPem: null });
    const lying = await serve("plaintext", statementOf(await newIdentity()));
    await expect(connect(lying.url)).rejects.toMatchObject({ code: "pin_mismatch" });
  });

  test("plain http to a port that speaks TLS, or that nobody listens on, is a fault like any other", async () => {
    const server = await serve(await loopbackLeaf(identity));
    const { port } = new URL(server.url);
    await expect(connect(`http://127.0.0.1:${port}`)).rejects.toMatchObject({ name: "Fault", code: "unreachable" });
    await server.stop(0);
    await expect(connect(`http://127.0.0.1:${port}`)).rejects.toMatchObject({ name: "Fault", code: "unreachable" });
  });
});

describe("unreachable", () => {
  async function tcp(onSocket: (socket: import("node:net").Socket) => void): Promise<string> {
    const server = createTcp((socket) => {
      socket.on("error", () => undefined);
      onSocket(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    closers.push(() => server.close());
    const address = server.address();
    return `https://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
  }
  const timeouts = { connectMs: 200, requestMs: 200 };

  test("nothing listens", async () => {
    const url = await tcp(() => undefined);
    await closers.pop()?.();
    await expect(connect(url)).rejects.toMatchObject({ code: "unreachable", exit: 7, why: "nothing listens there" });
  });

  test("a host name that does not exist", async () => {
    await expect(connect("https://no-such-host.invalid")).rejects.toMatchObject({ code: "unreachable" });
  });

  test("a server that accepts and says nothing", async () => {
    const url = await tcp(() => undefined);
    await expect(connect(url, { timeouts })).rejects.toMatchObject({
      code: "unreachable",
      why: "it did not answer in time",
    });
  });

  test("a server that closes at once", async () => {
    const url = await tcp((socket) => socket.destroy());
    await expect(connect(url)).rejects.toMatchObject({ code: "unreachable" });
  });

  test("a server that does not speak TLS", async () => {
    const url = await tcp((socket) => socket.end("220 smtp ready\r\n"));
    await expect(connect(url)).rejects.toMatchObject({ code: "tls_refused", why: "it does not speak TLS" });
  });

  test("a bad URL or pin is refused before connecting", async () => {
    await expect(connect("http://192.0.2.1:7443")).rejects.toMatchObject({ code: "bad_input" });
    await expect(connect("https://127.0.0.1:1", { pin: "sha256:short" })).rejects.toMatchObject({ code: "bad_input" });
  });
});

describe("a lying server", () => {
  const limits = { timeoutMs: 1_000, maxReplyBytes: 10_000 };
  const post = async (reply: (socket: TLSSocket) => void, timeoutMs = limits.timeoutMs) => {
    const server = await raw(await loopbackLeaf(identity), reply);
    const address = { url: server.url, caPem: await caPem(identity) };
    return postOperation(address, "secret.get", random(40), "application/octet-stream", { ...limits, timeoutMs });
  };
  const endless = (socket: TLSSocket, chunk: string) => {
    const push = () => {
      while (!socket.destroyed && socket.write(chunk));
      if (!socket.destroyed) socket.once("drain", push);
    };
    push();
  };

  test("a short honest reply passes, with its type in one form", async () => {
    const reply = await post((socket) =>
      socket.write("HTTP/1.1 409 Conflict\r\nContent-Type: Application/JSON; x=y\r\nContent-Length: 2\r\n\r\n{}"),
    );
    expect(reply).toEqual({ status: 409, contentType: "application/json", dateMs: null, body: Buffer.from("{}") });
  });

  test("an endless body is cut off", async () => {
    const reply = post((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      endless(socket, `3e8\r\n${"x".repeat(1_000)}\r\n`);
    });
    await expect(reply).rejects.toMatchObject({ code: "integrity", exit: 8 });
  });

  test("a huge announced body is not read", async () => {
    const reply = post((socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx"));
    await expect(reply).rejects.toMatchObject({ code: "integrity" });
  });

  test("a body one byte too long is refused, one of the right length not", async () => {
    const of = (length: number) => (socket: TLSSocket) =>
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n${"x".repeat(length)}`);
    expect((await post(of(limits.maxReplyBytes))).body.length).toBe(limits.maxReplyBytes);
    await expect(post(of(limits.maxReplyBytes + 1))).rejects.toMatchObject({ code: "integrity" });
  });

  test("a compressed body is not unpacked", async () => {
    const packed = Bun.gzipSync(new Uint8Array(5_000_000));
    const reply = await post((socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ${packed.length}\r\n\r\n`);
      socket.write(packed);
    });
    expect(reply.body.length).toBe(packed.length);
  });

  test("endless headers end", async () => {
    const reply = post((socket) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      endless(socket, `X-A: ${"y".repeat(1_000)}\r\n`);
    });
    await expect(reply).rejects.toMatchObject({ code: "outcome_unknown" });
  });

  test("a body that never ends, drop by drop, is bounded by the time-out", async () => {
    const reply = post((socket) => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      const timer = setInterval(() => (socket.destroyed ? clearInterval(timer) : socket.write("1\r\nx\r\n")), 20);
    }, 300);
    await expect(reply).rejects.toMatchObject({ code: "outcome_unknown", why: "it did not answer in time" });
  });

  test("silence and a broken reply leave the outcome unknown", async () => {
    await expect(post(() => undefined, 200)).rejects.toMatchObject({ code: "outcome_unknown", exit: 7 });
    const cut = post((socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"));
    await expect(cut).rejects.toMatchObject({ code: "outcome_unknown" });
    await expect(post((socket) => socket.end("nonsense\r\n\r\n"))).rejects.toMatchObject({ code: "outcome_unknown" });
  });

  test("a redirect is not followed", async () => {
    const target = await raw(await loopbackLeaf(identity));
    const reply = post((socket) =>
      socket.write(`HTTP/1.1 307 Moved\r\nLocation: ${target.url}/\r\nContent-Length: 0\r\n\r\n`),
    );
    await expect(reply).rejects.toMatchObject({ code: "integrity" });
    expect(target.connections()).toBe(0);
  });

  test("a statement that is not one is an integrity fault", async () => {
    for (const body of ["{}", "[", '{"identity":1}', "x".repeat(50_000)]) {
      const server = await raw(await loopbackLeaf(identity), (socket) =>
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
      );
      await expect(connect(server.url)).rejects.toMatchObject({ code: "integrity" });
    }
  });

  test("an error's text cannot steer a terminal", async () => {
    const body = JSON.stringify({ code: "denied", message: "no\u001b[2Jway\n", retryAfterMs: null });
    const server = await raw(await loopbackLeaf(identity), (socket) =>
      socket.write(`HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\n\r\n${body}`),
    );
    await expect(connect(server.url)).rejects.toMatchObject({ code: "denied", message: "no?[2Jway?" });
  });
});

test("requests share a connection, and one connection's trust is not another's", async () => {
  const server = await raw(await loopbackLeaf(identity), (socket) => {
    const answer = () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    answer();
    socket.on("data", answer);
  });
  const limits = { timeoutMs: 2_000, maxReplyBytes: 100 };
  const address = { url: server.url, caPem: await caPem(identity) };
  for (let i = 0; i < 3; i += 1) await postOperation(address, "server.statement", "{}", "application/json", limits);
  expect(server.connections()).toBe(1);
  const other = { url: server.url, caPem: await caPem(await newIdentity()) };
  await expect(postOperation(other, "server.statement", "{}", "application/json", limits)).rejects.toMatchObject({
    code: "tls_refused",
  });
});

describe("the limit of a connection", () => {
  const limits = { timeoutMs: 60_000, maxReplyBytes: 1_000, connectMs: 200 };

  test("a server that takes connections and says nothing is given up, long before the limit of a request", async () => {
    const silent = createTcp(() => undefined);
    await new Promise<void>((done) => silent.listen(0, "127.0.0.1", () => done()));
    closers.push(() => silent.close());
    const address = silent.address();
    const url = `https://127.0.0.1:${typeof address === "object" ? address?.port : 0}`;
    const posting = postOperation(
      { url, caPem: await caPem(identity) },
      "session.check",
      "{}",
      "application/json",
      limits,
    );
    const error = await posting.catch((failure: unknown) => failure);
    expect(error).toMatchObject({ code: "outcome_unknown", why: "it did not answer in time" });
    // it was connected to: whether a request was delivered is not known
    expect(wasUndelivered(error)).toBe(false);
    const looking = await reachServer({ url, caPem: await caPem(identity) }).catch((failure: unknown) => failure);
    expect([(looking as Fault).code, wasUndelivered(looking)]).toEqual(["unreachable", true]);
  });

  test("a server that can be connected to has the whole time of a request", async () => {
    const body =
      "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    const server = await raw(await loopbackLeaf(identity), (socket) => setTimeout(() => socket.end(body), 2_500));
    const slow = { ...limits, connectMs: 2_000 };
    const address = { url: server.url, caPem: await caPem(identity) };
    const reply = await postOperation(address, "session.check", "{}", "application/json", slow);
    expect(new TextDecoder().decode(reply.body)).toBe("{}");
    // the second look connects and sends nothing
    expect(server.connections()).toBe(2);
  });

  test("a token goes into its header, and into no other request", async () => {
    const seen: (string | null)[] = [];
    const server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        seen.push(request.headers.get("authorization"));
        return new Response("{}", { headers: { "content-type": "application/json" } });
      },
    });
    closers.push(() => void server.stop(true));
    const address = { url: `http://127.0.0.1:${server.port}`, caPem: null };
    const body = '{"code":"123456"}';
    await postOperation(address, "otp.verify", body, "application/json", { ...limits, token: "kht_abc" });
    await postOperation(address, "otp.verify", body, "application/json", limits);
    expect(seen).toEqual(["Bearer kht_abc", null]);
  });

  test("while it answers others, nobody looks whether a server is there", async () => {
    const body =
      "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let asked = 0;
    const server = await raw(await loopbackLeaf(identity), (socket) => {
      asked += 1;
      if (asked === 1) setTimeout(() => socket.end(body), 2_500);
      else socket.end(body);
    });
    const patient = { ...limits, connectMs: 8_000 };
    const address = { url: server.url, caPem: await caPem(identity) };
    const post = () => postOperation(address, "session.check", "{}", "application/json", patient);
    const slow = post();
    while (asked === 0) await Bun.sleep(1);
    await post();
    await slow;
    expect(server.connections()).toBe(2);
  });

  test("where nothing listens, nothing was delivered; what a server says of itself is no such thing", async () => {
    const server = await serve(await loopbackLeaf(identity));
    const address = { url: server.url, caPem: await caPem(identity) };
    await server.stop(0);
    const error = await postOperation(address, "session.check", "{}", "application/json", limits).catch(
      (e: unknown) => e,
    );
    expect([(error as Fault).code, wasUndelivered(error)]).toEqual(["unreachable", true]);
    expect(wasUndelivered(new Fault("unreachable", "so says the server"))).toBe(false);
  });
});
