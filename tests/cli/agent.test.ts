import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import about from "../../package.json" with { type: "json" };
import { orderBytes, readOrder } from "../../src/ui/agentprocess.ts";
import { testUnless } from "../support/skip.ts";
import { lastError, MAIN, run, withDirectory } from "./support.ts";

const PASSWORD = "correct horse battery";
const data = (ran: { out: string }) => JSON.parse(ran.out).data;
const notLinux = process.platform === "linux" ? undefined : "needs /proc";

interface Keyhold {
  (...argv: readonly string[]): ReturnType<typeof run>;
  readonly directory: string;
}

/** A home with a local vault; its agent is locked at the end. */
async function withLocalVault(work: (keyhold: Keyhold) => Promise<void>): Promise<void> {
  await withDirectory(async (directory) => {
    for (const [name, text] of [
      ["right", PASSWORD],
      ["wrong", "a wrong password"],
    ] as const) {
      writeFileSync(join(directory, name), text, { mode: 0o600 });
    }
    const env = { KEYHOLD_HOME: join(directory, "home") };
    const keyhold: Keyhold = Object.assign(
      (...argv: readonly string[]) => run([...argv, "--json", "--kdf", "test"], { env }),
      { directory },
    );
    expect((await keyhold("init", "--local", "--password-file", join(directory, "right"))).code).toBe(0);
    try {
      await work(keyhold);
    } finally {
      await keyhold("lock");
    }
  });
}

const unlock = (keyhold: Keyhold, which: "right" | "wrong") =>
  keyhold("unlock", "--password-file", join(keyhold.directory, which));

describe("the agent", () => {
  test("a wrong password leaves the one that runs alone; the right one replaces it", async () => {
    await withLocalVault(async (keyhold) => {
      const wrongFirst = await unlock(keyhold, "wrong");
      expect([wrongFirst.code, lastError(wrongFirst).error["code"]]).toEqual([4, "wrong_password"]);
      expect((await unlock(keyhold, "right")).code).toBe(0);
      const { pid } = data(await keyhold("agent", "status"));
      expect((await unlock(keyhold, "wrong")).code).toBe(4);
      expect(data(await keyhold("agent", "status"))).toMatchObject({ running: true, pid });
      expect((await unlock(keyhold, "right")).code).toBe(0);
      const now = data(await keyhold("agent", "status"));
      expect(now.running).toBe(true);
      expect(now.pid).not.toBe(pid);
    });
  });

  testUnless(notLinux, "leaves no core dump, and no other process of the user reads its memory", async () => {
    await withLocalVault(async (keyhold) => {
      await unlock(keyhold, "right");
      const { pid } = data(await keyhold("agent", "status"));
      expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/^Max core file size +0 +0 /m);
      // the files of a process that cannot be dumped are root's
      expect(statSync(`/proc/${pid}/environ`).uid).toBe(0);
    });
  });

  test("its order carries the password as bytes behind the line, and what was read is wiped", () => {
    const password = new TextEncoder().encode("pass\nword {}");
    const order = {
      profiles: "/p",
      vaults: "/v",
      runtime: "/r",
      profile: "default",
      kdf: "test" as const,
      options: null,
      device: null,
      factor: null,
      vaultAlone: false,
    };
    const sent = orderBytes({ ...order, password });
    const line = new TextDecoder().decode(sent.subarray(0, sent.indexOf(10)));
    expect(JSON.parse(line)).toEqual(order);
    expect(readOrder(sent)).toEqual({ ...order, password });
    expect(sent.every((byte) => byte === 0)).toBe(true);
    for (const bad of [new Uint8Array(0), orderBytes({ ...order, password: new Uint8Array(0) })]) {
      expect(() => readOrder(bad)).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
  });
});

describe("how long the agent runs", () => {
  test("--for and --idle set its ends, settings too; status tells all of it", async () => {
    await withLocalVault(async (keyhold) => {
      const right = ["--password-file", join(keyhold.directory, "right")];
      const spans = async (...flags: string[]) => {
        expect((await keyhold("unlock", ...right, ...flags)).code).toBe(0);
        const facts = data(await keyhold("agent", "status"));
        const at = (when: string) => Math.round((Date.parse(when) - Date.parse(facts.startedAt)) / 60_000);
        return [at(facts.locksAt), at(facts.endsAt)];
      };
      expect(await spans()).toEqual([15, 720]);
      expect(await spans("--for", "2h", "--idle", "0")).toEqual([120, 120]);
      expect(await spans("--for", "5m")).toEqual([5, 5]);
      expect(await spans("--idle", "1h")).toEqual([60, 720]);
      const facts = data(await keyhold("agent", "status"));
      expect(facts).toEqual({
        running: true,
        socket: join(keyhold.directory, "home", "run", "agent-default.sock"),
        pid: expect.any(Number),
        profile: "default",
        version: about.version,
        api: 1,
        startedAt: expect.any(String),
        locksAt: expect.any(String),
        endsAt: expect.any(String),
        idleMs: 3_600_000,
        lockOnSuspend: true,
        confirm: { patterns: [], program: false },
        calls: 0,
        server: null,
        session: null,
      });
      for (const flags of [
        ["--for", "0"],
        ["--for", "31d"],
        ["--idle", "500ms"],
        ["--confirm", "a*b"],
      ]) {
        const ran = await keyhold("unlock", ...right, ...flags);
        expect([ran.code, lastError(ran).error["code"]]).toEqual([2, "bad_input"]);
      }
      // none of these touched the one that runs
      expect(data(await keyhold("agent", "status")).pid).toBe(facts.pid);
    });
  });

  test("status for people", async () => {
    await withLocalVault(async (keyhold) => {
      const env = { KEYHOLD_HOME: join(keyhold.directory, "home") };
      expect((await run(["agent", "status"], { env })).out).toBe("no agent runs: keyhold unlock\n");
      await keyhold("unlock", "--password-file", join(keyhold.directory, "right"), "--confirm", "prod/*");
      await keyhold("list");
      const { out } = await run(["agent", "status"], { env });
      expect(out).toMatch(/^running +pid \d+, keyhold \S+, API 1$/m);
      expect(out).toContain(`keyhold ${about.version},`);
      expect(out).toMatch(/^limits +locks at .*Z if unused, at .*Z at the latest, when the system slept$/m);
      expect(out).toMatch(/^confirms +prod\/\* \(refused: no confirmCommand is set\)$/m);
      expect(out).toMatch(/^calls +1$/m);
      expect(out).toMatch(/^session +-$/m);
    });
  });
});

describe("confirmation", () => {
  test("a program answers for the owner: yes, no, gone; of a batch it is asked once", async () => {
    await withLocalVault(async (keyhold) => {
      const { directory } = keyhold;
      const file = (name: string) => join(directory, name);
      writeFileSync(
        file("asks"),
        `#!/bin/sh\necho "$KEYHOLD_CONFIRM_NAME" >>${file("asked")}\nexec cat ${file("yes")}\n`,
        {
          mode: 0o700,
        },
      );
      writeFileSync(file("value"), "v");
      const home = { KEYHOLD_HOME: file("home") };
      const env = { ...home, KEYHOLD_CONFIRM_COMMAND: file("asks") };
      const json = (...argv: string[]) => run([...argv, "--json", "--kdf", "test"], { env });
      const right = ["--password-file", file("right")];
      expect((await json("unlock", ...right, "--confirm", "prod/*", "--confirm", "exact")).code).toBe(0);
      for (const name of ["prod/a", "prod/b", "dev/a", "exact"]) {
        expect((await json("store", name, "--in-file", file("value"))).code).toBe(0);
      }
      expect((await json("list")).code).toBe(0);
      expect((await json("get", "prod/a")).code).toBe(0);
      expect((await run(["read", "dev/a"], { env })).out).toBe("v");
      const refused = await json("get", "prod/a", "--reveal");
      expect([refused.code, lastError(refused).error["code"]]).toEqual([5, "denied"]);
      const asked = () => readFileSync(file("asked"), "utf8").split("\n").slice(0, -1);
      expect(asked()).toEqual(["prod/a"]);
      writeFileSync(file("yes"), "");
      expect((await run(["read", "exact"], { env })).out).toBe("v");
      const batch = ["run", "--env", "A=kh://prod/a", "--env", "B=kh://prod/b", "--env", "C=kh://dev/a"];
      const child = await run([...batch, "--", "sh", "-c", 'echo "$A$B$C"'], { env });
      expect([child.out, asked()]).toEqual(["vvv\n", ["prod/a", "exact", "2 secrets"]]);
      // whoever can read the vault by itself needs no agent: the password is the confirmation
      expect((await run(["read", "prod/a", ...right, "--kdf", "test"], { env })).out).toBe("v");
      rmSync(file("asks"));
      const gone = await json("get", "prod/a", "--reveal");
      expect([gone.code, lastError(gone).error["hint"]]).toEqual([5, expect.stringContaining("confirmCommand")]);
    });
  });
});

describe("the server", () => {
  testUnless(notLinux, "leaves no core dump, and no other process of its user reads its memory", async () => {
    await withDirectory(async (directory) => {
      const argv = ["serve", "--dir", join(directory, "server"), "--listen", "127.0.0.1:0", "--json", "--quiet"];
      const child = Bun.spawn([process.execPath, MAIN, ...argv], {
        env: { PATH: process.env["PATH"] ?? "", KEYHOLD_HOME: directory },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "ignore",
      });
      try {
        const reader = child.stdout.getReader();
        const { value } = await reader.read();
        expect(JSON.parse(new TextDecoder().decode(value)).ready.pid).toBe(child.pid);
        await reader.cancel();
        expect(readFileSync(`/proc/${child.pid}/limits`, "utf8")).toMatch(/^Max core file size +0 +0 /m);
        expect(statSync(`/proc/${child.pid}/environ`).uid).toBe(0);
      } finally {
        child.kill("SIGTERM");
        await child.exited;
      }
    });
  });
});

describe("values byte for byte", () => {
  test("a byte order mark is part of the value: read, get --reveal, run", async () => {
    await withLocalVault(async (keyhold) => {
      const value = "\ufeffa";
      writeFileSync(join(keyhold.directory, "value"), value);
      await unlock(keyhold, "right");
      expect((await keyhold("store", "bom", "--in-file", join(keyhold.directory, "value"))).code).toBe(0);
      expect(data(await keyhold("get", "bom", "--reveal")).value).toBe(value);
      const env = { KEYHOLD_HOME: join(keyhold.directory, "home") };
      const child = await run(["run", "--env", "A=kh://bom", "--", "sh", "-c", 'printf %s "$A" | od -An -tx1'], {
        env,
      });
      expect(child.out.trim()).toBe("ef bb bf 61");
      const out = join(keyhold.directory, "out");
      expect((await keyhold("read", "bom", "--out", out)).code).toBe(0);
      expect(readFileSync(out).toString("hex")).toBe("efbbbf61");
    });
  });
});
