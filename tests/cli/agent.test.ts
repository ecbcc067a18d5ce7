import { describe, expect, test } from "bun:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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
      idleMs: 1,
      device: null,
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
