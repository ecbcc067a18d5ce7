import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault } from "../../src/errors.ts";
import type { FederatedRequestId } from "../../src/ids.ts";
import { type EnclaveClient, type EnclaveTimes, startEnclave } from "../../src/server/enclave.ts";
import type { LogFields } from "../../src/server/log.ts";

const COMMAND = [process.execPath, join(import.meta.dir, "../../src/main.ts"), "__enclave"] as const;
const QUICK: Partial<EnclaveTimes> = { backoffFirstMs: 10, backoffMaxMs: 40 };
const requestId = "ab".repeat(32) as FederatedRequestId;

let dir: string;
let events: LogFields[];
const clients: EnclaveClient[] = [];

function start(
  options: {
    command?: readonly [string, ...string[]];
    times?: Partial<EnclaveTimes>;
    env?: Record<string, string>;
    demand?: () => Promise<void>;
  } = {},
) {
  const client = startEnclave({
    dir,
    command: options.command ?? COMMAND,
    log: { write: (_, fields) => void events.push(fields) },
    times: { ...QUICK, ...options.times },
    env: options.env ?? process.env,
    ...(options.demand && { demand: options.demand }),
  });
  clients.push(client);
  return client;
}

const pidOf = (): number => events.findLast(({ event }) => event === "enclave-started")?.pid ?? 0;
const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: Fault) => error.code,
  );
const alive = (pid: number): boolean =>
  existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(5);
}

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-enclave-"));
  events = [];
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  rmSync(dir, { recursive: true, force: true });
});

describe("the enclave's process", () => {
  test("starts at the first call, is the same one at each start, ends with its client", async () => {
    const client = start();
    expect(readdirSync(dir)).toEqual([]);
    expect(client.figures()).toEqual({ running: false, starts: 0, crashes: 0 });
    const keys = await client.call("info", {});
    expect([keys.identity.length, keys.sealing.length]).toEqual([32, 32]);
    expect(client.figures()).toEqual({ running: true, starts: 1, crashes: 0 });
    const pid = pidOf();
    await client.close();
    expect(alive(pid)).toBe(false);
    expect(await codeOf(client.call("info", {}))).toBe("unavailable");
    expect(await start().call("info", {})).toEqual(keys);
    expect(events.map(({ event }) => event)).toEqual(["enclave-started", "enclave-started"]);
  });

  test("answers many calls at once, each its own", async () => {
    const client = start();
    const answers = await Promise.all(
      Array.from({ length: 64 }, (_, n) => (n % 2 ? client.call("forget", { requestId }) : client.call("info", {}))),
    );
    expect(answers.map((answer) => Object.keys(answer).length)).toEqual(answers.map((_, n) => (n % 2 ? 0 : 2)));
  });

  test("a refusal is the enclave's own, and it lives on", async () => {
    const client = start();
    expect(await codeOf(client.call("relay", { requestId, attempt: 1, messages: [] }))).toBe("unavailable");
    expect(client.figures()).toEqual({ running: true, starts: 1, crashes: 0 });
  });

  test("killed: who waits is told to order anew, it is reported, and another one comes up by itself", async () => {
    const client = start();
    const keys = await client.call("info", {});
    const pid = pidOf();
    // stopped it cannot answer: the call is under way when it dies
    process.kill(pid, "SIGSTOP");
    const waiting = client.call("info", {});
    process.kill(pid, "SIGKILL");
    const fault: Fault = await waiting.then(
      () => Promise.reject(new Error("answered")),
      (error) => error,
    );
    expect([fault.code, fault.message]).toEqual(["unavailable", "the enclave restarted: order a new attempt"]);
    await until(() => client.figures().starts === 2);
    expect(client.figures().crashes).toBe(1);
    expect(await client.call("info", {})).toEqual(keys);
    expect(events.map(({ event }) => event)).toEqual(["enclave-started", "enclave-ended", "enclave-started"]);
  });

  test("one that answers nothing is ended and replaced", async () => {
    const client = start({ times: { answerMs: 1_500 } });
    await client.call("info", {});
    process.kill(pidOf(), "SIGSTOP");
    expect(await codeOf(client.call("info", {}))).toBe("unavailable");
    expect(await codeOf(client.call("info", {}))).toBe("ok");
    expect(client.figures()).toEqual({ running: true, starts: 2, crashes: 1 });
  });

  test("signals to its group leave it to its server; without its server it ends", async () => {
    const client = start();
    await client.call("info", {});
    const pid = pidOf();
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.kill(pid, signal);
    expect(await codeOf(client.call("info", {}))).toBe("ok");
    expect(client.figures().crashes).toBe(0);
    const child = Bun.spawn([...COMMAND, "--dir", mkdtempSync(join(dir, "other-"))], { stdin: "pipe", stdout: "pipe" });
    await child.stdout.getReader().read();
    await child.stdin.end();
    expect(await child.exited).toBe(0);
  });

  test("one that cannot start says why, and is tried again", async () => {
    await start().call("info", {});
    await clients[0]?.close();
    const path = join(dir, "enclave/journal");
    writeFileSync(path, "x\n");
    const client = start();
    expect(await codeOf(client.call("info", {}))).toBe("corrupt");
    expect(client.figures()).toEqual({ running: false, starts: 0, crashes: 0 });
    expect(events.at(-1)).toEqual({ event: "enclave-failed", code: "corrupt" });
    writeFileSync(path, "");
    expect(await codeOf(client.call("info", {}))).toBe("ok");
  });

  test("is not started while its server says why not, and is told at once when it may be", async () => {
    let missing = true;
    const demand = async () => {
      if (missing) throw new Fault("not_found", "its directory is missing");
    };
    const client = start({ demand });
    for (let i = 0; i < 3; i++) expect(await codeOf(client.call("info", {}))).toBe("not_found");
    expect([readdirSync(dir), events, client.figures()]).toEqual([[], [], { running: false, starts: 0, crashes: 0 }]);
    missing = false;
    expect(await codeOf(client.call("info", {}))).toBe("ok");
  });

  test("after a restore notes it in its journal before it answers, and once", async () => {
    const first = start();
    await first.call("info", {});
    await first.close();
    const [note, journal] = [join(dir, "enclave", "restored"), join(dir, "enclave", "journal")];
    writeFileSync(note, "from a backup\n");
    const second = start();
    await second.call("info", {});
    const text = readFileSync(journal, "utf8");
    expect([existsSync(note), text.match(/"restore"/g)?.length]).toEqual([false, 1]);
    await second.close();
    await start().call("info", {});
    expect(readFileSync(journal, "utf8")).toBe(text);
  });

  test("two on one directory: the second is refused", async () => {
    await start().call("info", {});
    expect(await codeOf(start().call("info", {}))).toBe("conflict");
  }, 20_000);

  test("a program that is no enclave is no enclave", async () => {
    for (const command of [
      ["/bin/true"],
      ["/bin/sh", "-c", "echo hello there; sleep 60"],
      ["/bin/sh", "-c", "printf '\\377\\377\\377\\377'; sleep 60"],
    ] as const) {
      expect(await codeOf(start({ command: command as readonly [string, ...string[]] }).call("info", {}))).toBe(
        "unavailable",
      );
    }
    expect(await codeOf(start({ command: ["/no/such/program"] }).call("info", {}))).toBe("unavailable");
  });

  test("sees nothing of its server's environment, and takes a credential", async () => {
    const credentials = join(dir, "credentials");
    mkdirSync(credentials);
    writeFileSync(join(credentials, "keyhold-enclave-key"), new Uint8Array(32).fill(5));
    const env = { PATH: "/usr/bin", KEYHOLD_DATABASE: "secret-of-the-server", CREDENTIALS_DIRECTORY: credentials };
    const client = start({ env });
    await client.call("info", {});
    expect(readdirSync(join(dir, "enclave"))).toEqual(["journal"]);
    expect(readFileSync(`/proc/${pidOf()}/environ`, "utf8")).not.toContain("secret-of-the-server");
  });

  test("the rests of a first start that was killed are swept", async () => {
    mkdirSync(join(dir, ".enclave-0123456789abcdef"));
    writeFileSync(join(dir, ".enclave-0123456789abcdef/sealing.key"), new Uint8Array(32));
    await start().call("info", {});
    expect(readdirSync(dir).sort()).toEqual(["enclave", "enclave.lock"]);
  });
});
