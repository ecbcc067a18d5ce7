import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { AGENT_MESSAGE_MAX_BYTES } from "../../src/client/agentmessage.ts";
import { type AgentListener, agentSocketPath, callAgent, listenAgent } from "../../src/client/agentsocket.ts";
import { Fault } from "../../src/errors.ts";
import { libc } from "../../src/wire/libc.ts";

let home: string;
let path: string;
const listeners: AgentListener[] = [];
const ask = { timeoutMs: 10_000 };

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "keyhold-agent-"));
  path = join(home, "run", "agent.sock");
});

afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener.stop();
  rmSync(home, { recursive: true, force: true });
});

async function handler(method: string, params: unknown): Promise<unknown> {
  if (method === "echo") return params;
  if (method === "nothing") return undefined;
  if (method === "slow") {
    await Bun.sleep(50);
    return params;
  }
  if (method === "never") return await new Promise(() => undefined);
  if (method === "locked") throw new Fault("locked", "the vault is locked", { why: "idle", retryAfterMs: 3 });
  if (method === "bug") throw new Error("canary secret");
  if (method === "huge") return new Uint8Array(AGENT_MESSAGE_MAX_BYTES);
  throw new Fault("unsupported", "no such method");
}

async function start(where = path, options: { uid?: number } = {}): Promise<AgentListener> {
  const listener = await listenAgent(where, handler, options);
  listeners.push(listener);
  return listener;
}

/** A raw connection: sends chunks, gathers lines until the other side closes or `lines` have come. */
async function raw(chunks: readonly (string | Uint8Array)[], lines: number): Promise<string[]> {
  const socket: Socket = connect(agentSocketPath(path));
  let got = "";
  const closed = new Promise<void>((resolve) => {
    socket.on("data", (data) => {
      got += data.toString();
      if (got.split("\n").length > lines) resolve();
    });
    socket.on("close", () => resolve());
    socket.on("error", () => resolve());
  });
  for (const chunk of chunks) {
    socket.write(chunk);
    await Bun.sleep(1);
  }
  await closed;
  socket.destroy();
  return got.split("\n").filter((line) => line !== "");
}

const codeOf = (line: string | undefined): unknown => JSON.parse(line ?? "{}").error?.code;

describe("calls", () => {
  test("results, bytes among them, come back; none is null", async () => {
    await start();
    const params = { name: "a/b", value: crypto.getRandomValues(new Uint8Array(70_000)), list: [1, null, "ä"] };
    expect(await callAgent(path, "echo", params, ask)).toEqual(params);
    expect(await callAgent(path, "nothing", null, ask)).toBeNull();
  });

  test("faults cross whole, other exceptions without their text, unknown methods by JSON-RPC's code", async () => {
    await start();
    const locked = { code: "locked", message: "the vault is locked", why: "idle", retryAfterMs: 3 };
    await expect(callAgent(path, "locked", {}, ask)).rejects.toMatchObject(locked);
    const bug = { code: "internal", message: "the agent failed" };
    await expect(callAgent(path, "bug", {}, ask)).rejects.toMatchObject(bug);
    await expect(callAgent(path, "other", {}, ask)).rejects.toMatchObject({ code: "unsupported" });
    const [line] = await raw(['{"jsonrpc":"2.0","id":"x","method":"other"}\n'], 1);
    expect(codeOf(line)).toBe(-32_601);
  });

  test("forty at once, small and large, keep apart", async () => {
    await start();
    const calls = Array.from({ length: 40 }, (_, i) => {
      const params = { i, value: new Uint8Array(i % 4 === 0 ? 400_000 : 10).fill(i) };
      return callAgent(path, i % 2 === 0 ? "slow" : "echo", params, ask).then((result) =>
        expect(result).toEqual(params),
      );
    });
    expect((await Promise.all(calls)).length).toBe(40);
  });

  test("several requests on one connection are answered, the quick ones first", async () => {
    await start();
    const request = (id: number, method: string) => `${JSON.stringify({ jsonrpc: "2.0", id, method, params: id })}\n`;
    const lines = await raw([request(1, "slow") + request(2, "echo") + request(3, "echo")], 3);
    expect(lines.map((line) => JSON.parse(line).id)).toEqual([2, 3, 1]);
  });

  test("nobody there: undefined", async () => {
    expect(await callAgent(path, "echo", {}, ask)).toBeUndefined();
    mkdirSync(dirname(path), { mode: 0o700 });
    expect(await callAgent(path, "echo", {}, ask)).toBeUndefined();
    await (await start()).stop();
    expect(await callAgent(path, "echo", {}, ask)).toBeUndefined();
    writeFileSync(path, "no socket");
    expect(await callAgent(path, "echo", {}, ask)).toBeUndefined();
  });

  test("no answer in time: timed_out", async () => {
    const silent = await foreign((socket) => socket.resume());
    await expect(callAgent(path, "echo", {}, { timeoutMs: 30 })).rejects.toMatchObject({ code: "timed_out" });
    silent.close();
  });

  test("gone before the answer: outcome_unknown; half an answer too", async () => {
    for (const text of ["", '{"jsonrpc":"2.0","id":1,"res']) {
      const rude = await foreign((socket) => socket.once("data", () => socket.end(text)));
      await expect(callAgent(path, "echo", {}, ask)).rejects.toMatchObject({ code: "outcome_unknown" });
      rude.close();
    }
  });

  test("garbage or an endless answer: unavailable or bad_input, never a result", async () => {
    const garbage = await foreign((socket) => socket.once("data", () => socket.write("garbage\n")));
    await expect(callAgent(path, "echo", {}, ask)).rejects.toMatchObject({ code: "bad_input" });
    garbage.close();
    const endless = await foreign((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.write(new Uint8Array(AGENT_MESSAGE_MAX_BYTES + 1).fill(0x20)));
    });
    await expect(callAgent(path, "echo", {}, ask)).rejects.toMatchObject({ code: "unavailable" });
    endless.close();
  });
});

/** Something else that listens at the agent's path. */
async function foreign(serve: (socket: Socket) => void): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  rmSync(path, { force: true });
  const server = createServer(serve);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return server;
}

describe("bad messages", () => {
  test("garbage gets an error each, and the connection goes on", async () => {
    await start();
    const good = '{"jsonrpc":"2.0","id":7,"method":"echo","params":1}\n';
    const lines = await raw(["garbage\n", Uint8Array.of(0xff, 0x0a), "\n", "[]\n", good], 5);
    expect(lines.map((line) => codeOf(line))).toContain(-32_600);
    expect(lines.filter((line) => JSON.parse(line).id === null).length).toBe(4);
    expect(lines.filter((line) => JSON.parse(line).id === 7)).toEqual(['{"jsonrpc":"2.0","id":7,"result":1}']);
  });

  test("params that cannot be read are refused under the request's own id", async () => {
    await start();
    const bad = ['{"$b64":"!"}', '{"$x":1}', `${"[".repeat(70)}${"]".repeat(70)}`];
    const lines = await raw(
      bad.map((params) => `{"jsonrpc":"2.0","id":"mine","method":"echo","params":${params}}\n`),
      3,
    );
    expect(lines.map((line) => [JSON.parse(line).id, codeOf(line)])).toEqual(bad.map(() => ["mine", -32_602]));
  });

  test("a message in pieces is put together, cut characters too", async () => {
    await start();
    const bytes = new TextEncoder().encode('{"jsonrpc":"2.0","id":1,"method":"echo","params":"zoë"}\n');
    const pieces = Array.from(bytes, (byte) => Uint8Array.of(byte));
    expect(await raw(pieces, 1)).toEqual(['{"jsonrpc":"2.0","id":1,"result":"zoë"}']);
  });

  test("half a message and gone: the agent serves on", async () => {
    await start();
    for (let i = 0; i < 20; i++) {
      const socket = connect(path);
      await new Promise<void>((resolve) => socket.write('{"jsonrpc":"2.0","id":1,"meth', () => resolve()));
      socket.destroy();
    }
    expect(await callAgent(path, "echo", 1, ask)).toBe(1);
  });

  test("gone while the answer is made: the agent serves on", async () => {
    await start();
    const socket = connect(path);
    await new Promise<void>((resolve) => socket.write('{"jsonrpc":"2.0","id":1,"method":"slow"}\n', () => resolve()));
    socket.destroy();
    expect(await callAgent(path, "slow", 1, ask)).toBe(1);
  });

  test("a message above 8 MiB is refused and the connection closed; the agent serves on", async () => {
    await start();
    const lines = await raw([new Uint8Array(AGENT_MESSAGE_MAX_BYTES + 1).fill(0x20)], 1);
    expect(JSON.parse(lines[0] ?? "{}")).toMatchObject({ id: null, error: { data: { code: "too_large" } } });
    expect(await callAgent(path, "echo", 1, ask)).toBe(1);
  });

  test("a request or result above 8 MiB is too_large before it is sent", async () => {
    await start();
    const value = new Uint8Array(AGENT_MESSAGE_MAX_BYTES);
    await expect(callAgent(path, "echo", value, ask)).rejects.toMatchObject({ code: "too_large" });
    await expect(callAgent(path, "huge", {}, ask)).rejects.toMatchObject({ code: "too_large" });
  });

  test("a message just below 8 MiB passes both ways", async () => {
    await start();
    const value = new Uint8Array(6_290_000).fill(9);
    expect(await callAgent(path, "echo", value, ask)).toEqual(value);
  });
});

describe("the socket", () => {
  test("is 0600 in a 0700 directory, also when that was looser", async () => {
    mkdirSync(dirname(path));
    chmodSync(dirname(path), 0o755);
    await start();
    expect(lstatSync(path).mode & 0o777).toBe(0o600);
    expect(lstatSync(dirname(path)).mode & 0o777).toBe(0o700);
  });

  test("a second agent is refused, the first serves on", async () => {
    await start();
    await expect(listenAgent(path, handler)).rejects.toMatchObject({ code: "exists" });
    expect(await callAgent(path, "echo", 1, ask)).toBe(1);
  });

  test("of twenty that start at once, one wins", async () => {
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => start()));
    expect(tries.filter(({ status }) => status === "fulfilled").length).toBe(1);
    expect(await callAgent(path, "echo", 1, ask)).toBe(1);
  });

  test("one left by a killed agent is replaced", async () => {
    const agent = new URL("../support/agentchild.ts", import.meta.url).pathname;
    const child = Bun.spawn([process.execPath, agent, path], { stdout: "pipe" });
    await child.stdout.getReader().read();
    expect(await callAgent(path, "who", {}, ask)).toBe(child.pid);
    child.kill("SIGKILL");
    await child.exited;
    expect(existsSync(path)).toBe(true);
    expect(await callAgent(path, "who", {}, ask)).toBeUndefined();
    await start();
    expect(await callAgent(path, "echo", 1, ask)).toBe(1);
  });

  test("one that somebody else answers at is not replaced", async () => {
    const server = await foreign((socket) => socket.resume());
    await expect(listenAgent(path, handler)).rejects.toMatchObject({ code: "exists" });
    expect(existsSync(path)).toBe(true);
    server.close();
  });

  test.each(["file", "link"])("a %s in its way is refused and kept", async (kind) => {
    mkdirSync(dirname(path));
    const target = join(home, "target");
    writeFileSync(target, "precious");
    if (kind === "file") writeFileSync(path, "precious");
    else symlinkSync(target, path);
    await expect(listenAgent(path, handler)).rejects.toMatchObject({ code: "denied" });
    expect(lstatSync(path).isSymbolicLink()).toBe(kind === "link");
    expect(await Bun.file(path).text()).toBe("precious");
  });

  test("stopping answers what is under way, then removes the socket; stopping twice is fine", async () => {
    const arrived = Promise.withResolvers<void>();
    const listener = await listenAgent(path, async (_method, params) => {
      arrived.resolve();
      await Bun.sleep(20);
      return params;
    });
    const call = callAgent(path, "slow", 1, ask);
    await arrived.promise;
    await listener.stop();
    await listener.stop();
    expect(await call).toBe(1);
    expect(existsSync(path)).toBe(false);
    await start();
  });

  test("a caller does not trust a directory that others can enter", async () => {
    await start();
    chmodSync(dirname(path), 0o755);
    expect(await callAgent(path, "echo", 1, ask)).toBeUndefined();
  });

  test("a path too long for the system is replaced by a short one of the user's own", async () => {
    const long = join(home, "d".repeat(150), "agent.sock");
    const short = agentSocketPath(long);
    expect(Buffer.byteLength(short)).toBeLessThan(100);
    expect(short).toBe(agentSocketPath(long));
    expect(short).not.toBe(agentSocketPath(`${long}2`));
    const listener = await start(long);
    try {
      expect(listener.path).toBe(short);
      expect(lstatSync(dirname(short)).mode & 0o777).toBe(0o700);
      expect(await callAgent(long, "echo", 1, ask)).toBe(1);
    } finally {
      await listener.stop();
      rmSync(`${short}.lock`, { force: true });
      // stays if an agent of this user has its socket there
      if (readdirSync(dirname(short)).length === 0) rmdirSync(dirname(short));
    }
  });
});

describe.skipIf(process.platform !== "linux")("the peer's user id", () => {
  test("is known to the system on both ends", async () => {
    const peers: unknown[] = [];
    const uid = (socket: object) => libc()?.peerUid(Reflect.get(socket, "fd") as number);
    mkdirSync(dirname(path));
    const server = Bun.listen({ unix: path, socket: { open: (socket) => void peers.push(uid(socket)), data() {} } });
    const client = await Bun.connect({ unix: path, socket: { data() {} } });
    peers.push(uid(client));
    while (peers.length < 2) await Bun.sleep(1);
    expect(peers).toEqual([process.geteuid?.(), process.geteuid?.()]);
    client.terminate();
    server.stop(true);
    expect(libc()?.peerUid(1_000_000)).toBeUndefined();
  });

  test("of another user is turned away unheard", async () => {
    let heard = false;
    const other = (process.geteuid?.() ?? 0) + 1;
    const hear = async () => {
      heard = true;
    };
    listeners.push(await listenAgent(path, hear, { uid: other }));
    await expect(callAgent(path, "echo", 1, ask)).rejects.toMatchObject({ code: "outcome_unknown" });
    expect(heard).toBe(false);
  });
});
