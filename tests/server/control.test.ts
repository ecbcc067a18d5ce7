import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../../src/errors.ts";
import type { IncarnationId, UserId } from "../../src/ids.ts";
import { type ControlHandlers, type RunningControl, startControl } from "../../src/server/control.ts";
import { createLog, silentLog } from "../../src/server/log.ts";
import { CONTROL_PATH, callControl, controlSocketPath } from "../../src/wire/control.ts";
import { tempDir } from "../support/listener.ts";

const userId = "ab".repeat(16) as UserId;
const status = {
  pid: 7,
  version: "0.1.0",
  url: "https://127.0.0.1:7443",
  pin: "sha256:x",
  startedAtMs: 1,
  registration: "invite" as const,
  engine: "sqlite",
  incarnation: "00".repeat(16) as IncarnationId,
  accounts: 1,
  disabled: 0,
  sessions: 2,
  invites: 3,
  requests: 4,
  ceremonyKey: null,
};

function handlers(more: Partial<ControlHandlers> = {}): ControlHandlers {
  const changed = async ({ account }: { account: string }) => ({ account, userId });
  return {
    status: async () => status,
    check: async () => ({ ok: false, checks: 3, items: [{ name: "database", ok: false, detail: "row 3" }] }),
    backup: async () => ({ bytes: 4_096, accounts: 1 }),
    rotate: async ({ key }) => ({ key, restart: false, remaining: 0 }),
    "invite.create": async ({ expiresMs }) => ({ code: "ABCD-EFGH", hint: "ABCD", expiresAtMs: expiresMs ?? 1 }),
    "invite.list": async () => ({ items: [{ hint: "ABCD", createdAtMs: 1, expiresAtMs: 2, state: "open" }] }),
    "invite.revoke": async () => ({ revoked: 1 }),
    "user.list": async () => ({ items: [], next: null }),
    "ceremony.list": async () => ({ items: [], next: null }),
    "federation.list": async () => ({ items: [] }),
    "federation.accept": async () => ({ state: "accepted" }),
    "federation.leave": async () => ({ drafts: 0, left: true }),
    "policy.show": async () => ({ policyId: null, policy: null, remotes: [], operator: new Uint8Array(32) }),
    "policy.set": async () => ({ policyId: null, version: 0 }),
    "connector.allow": async ({ account, registry }) => ({ account, userId, registry, addedAtMs: 1 }),
    "connector.list": async () => ({ items: [] }),
    "connector.revoke": async ({ account }) => ({ account, userId, revoked: 1 }),
    "registry.credit": async () => ({ balance: 1 }),
    "registry.balances": async () => ({ items: [], entries: 0, sound: true, problems: [] }),
    "registry.payout": async () => ({ balance: 0 }),
    "registry.events": async () => ({ items: [], more: false }),
    "user.disable": changed,
    "user.enable": changed,
    "user.remove": changed,
    "user.factor-reset": changed,
    ...more,
  };
}

describe("control socket", () => {
  let temp: ReturnType<typeof tempDir>;
  let dir: string;
  let running: RunningControl | undefined;
  beforeEach(() => {
    temp = tempDir();
    dir = temp.path;
  });
  afterEach(async () => {
    await running?.stop();
    running = undefined;
    temp.remove();
  });

  test("answers each operation of the table", async () => {
    running = startControl(dir, handlers(), silentLog);
    expect(await callControl(dir, "status", {})).toEqual(status);
    expect((await callControl(dir, "check", {})).items[0]?.detail).toBe("row 3");
    expect(await callControl(dir, "invite.create", { expiresMs: 5 })).toMatchObject({ expiresAtMs: 5 });
    expect(await callControl(dir, "invite.create", { expiresMs: null })).toMatchObject({ expiresAtMs: 1 });
    expect((await callControl(dir, "invite.list", {})).items).toHaveLength(1);
    expect(await callControl(dir, "invite.revoke", { code: "ABCD" })).toEqual({ revoked: 1 });
    expect(await callControl(dir, "user.list", { after: null })).toEqual({ items: [], next: null });
    for (const name of ["user.disable", "user.enable", "user.remove", "user.factor-reset"] as const) {
      expect(await callControl(dir, name, { account: "zoë" })).toEqual({ account: "zoë", userId });
    }
  });

  test.skipIf(process.platform === "win32")(
    "is 0600, replaces a dead server's, and is gone after the stop",
    async () => {
      const umask = process.umask();
      running = startControl(dir, handlers(), silentLog);
      expect(process.umask()).toBe(umask);
      expect(statSync(controlSocketPath(dir)).mode & 0o777).toBe(0o600);
      // as a killed server leaves it: the file without a listener
      const dead = Bun.spawnSync([
        process.execPath,
        "-e",
        `Bun.serve({unix:${JSON.stringify(join(dir, "dead.sock"))},fetch:()=>new Response()});process.kill(process.pid,"SIGKILL")`,
      ]);
      expect(dead.signalCode).toBe("SIGKILL");
      await running.stop();
      expect(existsSync(controlSocketPath(dir))).toBe(false);
      renameSync(join(dir, "dead.sock"), controlSocketPath(dir));
      running = startControl(dir, handlers(), silentLog);
      expect((await callControl(dir, "status", {})).pid).toBe(7);
    },
  );

  test("works in a directory with a very long path", async () => {
    dir = join(temp.path, "d".repeat(100), "e".repeat(100));
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    running = startControl(dir, handlers(), silentLog);
    expect((await callControl(dir, "status", {})).pid).toBe(7);
  });

  test("another file in its place is refused and left alone", () => {
    writeFileSync(controlSocketPath(dir), "mine");
    expect(() => startControl(dir, handlers(), silentLog)).toThrow(expect.objectContaining({ code: "exists" }));
    expect(statSync(controlSocketPath(dir)).size).toBe(4);
  });

  test("no server: unreachable, so that the caller takes the lock", async () => {
    await expect(callControl(dir, "status", {})).rejects.toMatchObject({ code: "unreachable" });
    running = startControl(dir, handlers(), silentLog);
    await running.stop();
    await expect(callControl(dir, "status", {})).rejects.toMatchObject({ code: "unreachable" });
  });

  test("a server that stands still is no absent one: timed_out, and no lock is tried for", async () => {
    running = startControl(dir, handlers({ status: () => new Promise(() => undefined) }), silentLog);
    await expect(callControl(dir, "status", {}, 50)).rejects.toMatchObject({ code: "timed_out" });
  });

  test("faults cross it; other failures say nothing of themselves", async () => {
    const lines: string[] = [];
    running = startControl(
      dir,
      handlers({
        "user.remove": async () => {
          throw new Fault("not_found", "there is no such account", { hint: "user list" });
        },
        rotate: async () => {
          throw new Fault("conflict", "not yet", { why: "one is left" });
        },
        "user.enable": async () => {
          throw new Error("canary");
        },
      }),
      createLog("info", (line) => lines.push(line)),
    );
    await expect(callControl(dir, "user.remove", { account: "canary" })).rejects.toMatchObject({
      code: "not_found",
      message: "there is no such account",
      hint: "user list",
    });
    // the reason and the remedy come along
    const early = callControl(dir, "rotate", { key: "opaque-finish", force: false });
    await expect(early).rejects.toMatchObject({ code: "conflict", why: "one is left", hint: undefined });
    const broken = callControl(dir, "user.enable", { account: "canary" });
    await expect(broken).rejects.toMatchObject({ code: "internal", message: "the server failed" });
    expect(lines.map((line) => JSON.parse(line)).map(({ event, code }) => [event, code])).toEqual([
      ["control", "not_found"],
      ["control", "conflict"],
      ["fault", "Error"],
      ["control", "internal"],
    ]);
    expect(lines.join()).not.toContain("canary");
  });

  test("malformed requests are refused before a handler, malformed answers by the caller", async () => {
    let called = 0;
    running = startControl(
      dir,
      handlers({
        "user.list": async () => ({ items: [], next: "nonsense" as UserId }),
        "invite.revoke": async () => {
          called += 1;
          return { revoked: called };
        },
      }),
      silentLog,
    );
    const send = (name: string, body: string, method = "POST") =>
      fetch(`http://localhost${CONTROL_PATH}${name}`, {
        unix: controlSocketPath(dir),
        method,
        ...(method === "POST" ? { body } : {}),
      });
    for (const body of ["", "{", "{}", '{"code":1}', '{"code":"A","more":1}', "[]", "null"]) {
      const reply = await send("invite.revoke", body);
      expect(reply.status).toBe(400);
      expect(await reply.json()).toMatchObject({ code: "bad_input" });
    }
    expect((await send("none", "{}")).status).toBe(404);
    expect((await send("constructor", "{}")).status).toBe(404);
    expect((await send("status", "", "GET")).status).toBe(405);
    expect(called).toBe(0);
    await expect(callControl(dir, "user.list", { after: null })).rejects.toMatchObject({ code: "integrity" });
  });
});
