import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { AGENT_LIMITS, type Connection, newConnection, takeLines } from "../../src/client/agentconnection.ts";
import { AGENT_MESSAGE_MAX_BYTES } from "../../src/client/agentmessage.ts";
import { type AgentListener, callAgent, listenAgent } from "../../src/client/agentsocket.ts";
import { testUnless } from "../support/skip.ts";

let home: string;
let path: string;
let listener: AgentListener | undefined;
const sockets: Socket[] = [];

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "keyhold-agent-"));
  path = join(home, "run", "agent.sock");
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  never.resolve();
  await listener?.stop();
  listener = undefined;
  rmSync(home, { recursive: true, force: true });
});

const BIG = 5 * 1_024 * 1_024;
let never = Promise.withResolvers<void>();

async function start(stalledMs?: number): Promise<void> {
  never = Promise.withResolvers<void>();
  const handler = async (method: string, params: unknown) => {
    if (method === "big") return new Uint8Array(BIG);
    if (method === "never") await never.promise;
    return params;
  };
  listener = await listenAgent(path, handler, stalledMs === undefined ? {} : { stalledMs });
}

/** Others are served: a small call and a large one. */
async function expectServed(): Promise<void> {
  expect(await callAgent(path, "echo", "hello", { timeoutMs: 30_000 })).toBe("hello");
  const large = new Uint8Array(BIG).fill(5);
  expect(await callAgent(path, "echo", large, { timeoutMs: 30_000 })).toEqual(large);
}

/** An open connection and what becomes of it. */
async function open(): Promise<{ socket: Socket; closed: Promise<void>; isOpen: () => boolean }> {
  const socket = connect(path);
  sockets.push(socket);
  let gone = false;
  const closed = new Promise<void>((resolve) =>
    socket.on("close", () => {
      gone = true;
      resolve();
    }),
  );
  socket.on("error", () => undefined);
  await new Promise<void>((resolve) => socket.on("connect", () => resolve()));
  return { socket, closed, isOpen: () => !gone };
}

const request = (id: number, method: string, params: unknown = null) =>
  `${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`;

describe("a local client that behaves badly does not keep the agent from the others", () => {
  test("half a message and no more: its connection ends, a connection that is merely idle does not", async () => {
    await start(100);
    const idle = await open();
    const half = await open();
    half.socket.write(request(1, "echo").slice(0, 20));
    await expectServed();
    await half.closed;
    expect(idle.isOpen()).toBe(true);
    await expectServed();
  });

  test("answers that it does not fetch: its connection ends", async () => {
    await start(100);
    const deaf = await open();
    deaf.socket.pause();
    deaf.socket.write(request(1, "big"));
    await expectServed();
    // the end is seen by who reads on
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    let received = 0;
    deaf.socket.on("data", (data) => {
      received += data.length;
    });
    deaf.socket.resume();
    await deaf.closed;
    expect(received).toBeLessThan(BIG);
    await expectServed();
  });

  test("many answers that it does not fetch: they are not all kept", async () => {
    await start();
    const deaf = await open();
    deaf.socket.pause();
    const count = Math.ceil((2 * AGENT_LIMITS.heldBytes) / BIG);
    deaf.socket.write(Array.from({ length: count }, (_, i) => request(i, "big")).join(""));
    await expectServed();
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    deaf.socket.resume();
    await deaf.closed;
    await expectServed();
  });

  test("more requests at once than one connection may have: told so, and ended", async () => {
    await start();
    const busy = await open();
    let got = "";
    busy.socket.on("data", (data) => {
      got += data.toString();
    });
    const count = AGENT_LIMITS.requests + 1;
    busy.socket.write(Array.from({ length: count }, (_, i) => request(i, "never")).join(""));
    while (!got.includes("\n")) await new Promise((resolve) => busy.socket.once("data", resolve));
    expect(JSON.parse(got.split("\n")[0] ?? "")).toMatchObject({ id: null, error: { data: { code: "rate_limited" } } });
    await expectServed();
    never.resolve();
    await busy.closed;
  });

  test("a flood of empty lines, and of garbage", async () => {
    await start();
    for (const text of ["\n".repeat(300_000), "garbage\n".repeat(50_000), "\u0000".repeat(1_000_000)]) {
      const flood = await open();
      flood.socket.resume();
      flood.socket.write(text);
      await expectServed();
      flood.socket.destroy();
    }
  });

  test("a thousand connections of another process: that process loses them, this one's idle connection stays", async () => {
    await start();
    const idle = await open();
    const crowd = Bun.spawn(
      [
        process.execPath,
        "-e",
        `const all = [];
         for (let i = 0; i < 1000; i++) {
           all.push(await Bun.connect({ unix: ${JSON.stringify(path)}, socket: { data() {}, connectError() {} } })
             .then((s) => { s.write('{"jsonrpc":'); return s; }, () => null));
         }
         process.stdout.write("there");
         await new Promise(() => {});`,
      ],
      { stdin: "ignore", stdout: "pipe", stderr: "inherit" },
    );
    try {
      const { value } = await crowd.stdout.getReader().read();
      expect(new TextDecoder().decode(value)).toBe("there");
      for (let i = 0; i < 5; i++) await expectServed();
      let answered = "";
      idle.socket.on("data", (data) => {
        answered += data.toString();
      });
      idle.socket.write(request(7, "echo", "still here"));
      while (!answered.includes("\n")) await new Promise((resolve) => idle.socket.once("data", resolve));
      expect(JSON.parse(answered)).toEqual({ jsonrpc: "2.0", id: 7, result: "still here" });
    } finally {
      crowd.kill("SIGKILL");
      await crowd.exited;
    }
  });
});

describe("a message in pieces", () => {
  const fake = (): Connection => newConnection({ fd: -1 } as unknown as Parameters<typeof newConnection>[0]);

  test("of one byte each, as many as fit, is put together without a copy for each", () => {
    const connection = fake();
    let early = 0;
    for (let i = 0; i < 300_000; i++)
      early += takeLines(connection, Uint8Array.of(i % 10 === 0 ? 9 : i % 10)).lines.length;
    expect(early).toBe(0);
    const { lines, tooLong } = takeLines(connection, Uint8Array.of(7, 0x0a, 8));
    expect([lines.length, lines[0]?.length, lines[0]?.at(-1), tooLong, connection.received]).toEqual([
      1,
      300_001,
      7,
      false,
      1,
    ]);
  });

  test("one byte too many is refused, and nothing of it kept", () => {
    const connection = fake();
    expect(takeLines(connection, new Uint8Array(AGENT_MESSAGE_MAX_BYTES - 1)).tooLong).toBe(false);
    const buffer = connection.buffer;
    buffer.fill(1);
    expect(takeLines(connection, Uint8Array.of(1)).tooLong).toBe(true);
    expect([connection.received, buffer.some((byte) => byte !== 0)]).toEqual([0, false]);
  });

  test("leaves nothing of a message behind in the chunk or the buffer", () => {
    const connection = fake();
    const chunk = new TextEncoder().encode("hunter2\nhun");
    const { lines } = takeLines(connection, chunk);
    expect(new TextDecoder().decode(lines[0])).toBe("hunter2");
    expect(chunk.every((byte) => byte === 0)).toBe(true);
    expect(new TextDecoder().decode(connection.buffer)).toStartWith("hun\u0000");
  });
});

const notRoot = process.getuid?.() === 0 ? undefined : "needs root, who may become another user";
const noPython = Bun.which("python3") === null ? "needs python3" : undefined;
testUnless(
  notRoot ?? noPython,
  "another user of the system is refused by the socket's mode, and without it unheard",
  async () => {
    await start();
    const attempt = async () => {
      const child = Bun.spawn(["python3", "-c", PROBE, path], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
      return child.stdout.text();
    };
    expect(await attempt()).toBe("refused\n");
    chmodSync(path, 0o666);
    for (let folder = dirname(path); folder !== tmpdir() && folder !== "/"; folder = dirname(folder))
      chmodSync(folder, 0o755);
    expect(await attempt()).toBe("''\n");
  },
);

const PROBE = `import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
agent = socket.socket(socket.AF_UNIX)
try:
    agent.connect(sys.argv[1])
    agent.sendall(b'{"jsonrpc":"2.0","id":1,"method":"echo","params":"mine"}\\n')
    print(repr(agent.makefile().read()))
except PermissionError: print("refused")
except ConnectionError: print("''")`;
