import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import type { ServerIdentity } from "../../src/server/directory.ts";
import { silentLog } from "../../src/server/log.ts";
import { authorityOf } from "../../src/server/tls.ts";
import { type RunningServer, startServer } from "../../src/server.ts";
import { encodeJson } from "../../src/wire/codec.ts";
import { plainEnvironment, scrubEnvironment } from "../../src/wire/environment.ts";
import { operations } from "../../src/wire/operations.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { loopbackLeaf, newIdentity, statementOf, tempDir } from "../support/listener.ts";

test("takes out what is unwanted, in any case, and gives it back to the caller", () => {
  const env: Record<string, string | undefined> = {
    HTTPS_PROXY: "a",
    https_proxy: "b",
    All_Proxy: "c",
    NODE_EXTRA_CA_CERTS: "d",
    NODE_TLS_REJECT_UNAUTHORIZED: "0",
    SSL_CERT_FILE: "e",
    SSL_CERT_DIR: "f",
    BUN_CONFIG_VERBOSE_FETCH: "curl",
    BUN_OPTIONS: "--preload=x",
    BUN_BE_BUN: "1",
    PATH: "/bin",
    KEYHOLD_HOME: "/h",
  };
  const removed = scrubEnvironment(env);
  expect(env).toEqual({ PATH: "/bin", KEYHOLD_HOME: "/h" });
  expect(Object.keys(removed)).toHaveLength(10);
  expect(removed["https_proxy"]).toBe("b");
});

test("a process of our own gets only what it needs to know", () => {
  const needed = { PATH: "/bin", HOME: "/h", LANG: "C", TMPDIR: "/t", SystemRoot: "w" };
  const others = {
    KEYHOLD_HOME: "/k",
    LD_PRELOAD: "x",
    BUN_OPTIONS: "x",
    NODE_OPTIONS: "x",
    GITHUB_TOKEN: "x",
    PATHS: "x",
  };
  expect(plainEnvironment({ ...needed, ...others, TZ: undefined })).toEqual(needed);
});

describe("a process under a hostile environment", () => {
  const dir = tempDir();
  let identity: ServerIdentity;
  let rogue: ServerIdentity;
  let honest: RunningServer;
  let foreign: RunningServer;
  let proxy: Server;
  let proxied = 0;
  let hostile: Record<string, string>;

  beforeAll(async () => {
    [identity, rogue] = [await newIdentity(), await newIdentity()];
    const start = async (as: ServerIdentity) =>
      startServer({
        listen: { host: "127.0.0.1", port: 0 },
        tls: await loopbackLeaf(as),
        pin: pinOf(as.publicKey),
        log: silentLog,
        handle: async () => ({
          status: 200,
          contentType: "application/json",
          body: encodeJson(operations["server.statement"].output, statementOf(identity)),
        }),
      });
    [honest, foreign] = [await start(identity), await start(rogue)];
    proxy = createServer((socket) => {
      proxied += 1;
      socket.destroy();
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    const address = proxy.address();
    const proxyUrl = `http://127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;
    const rogueCa = join(dir.path, "rogue.pem");
    writeFileSync(rogueCa, (await authorityOf(rogue)).toString("pem"));
    hostile = {
      HTTPS_PROXY: proxyUrl,
      https_proxy: proxyUrl,
      NODE_EXTRA_CA_CERTS: rogueCa,
      SSL_CERT_FILE: rogueCa,
      NODE_TLS_REJECT_UNAUTHORIZED: "0",
      BUN_CONFIG_VERBOSE_FETCH: "curl",
    };
  });
  afterAll(async () => {
    await honest.stop(0);
    await foreign.stop(0);
    proxy.close();
    dir.remove();
  });

  async function child(url: string): Promise<{ out: string; err: string }> {
    const run = Bun.spawn(
      [process.execPath, join(import.meta.dir, "../support/connect-child.ts"), url, pinOf(identity.publicKey)],
      { env: { PATH: process.env["PATH"] ?? "", ...hostile }, cwd: dir.path, stdout: "pipe", stderr: "pipe" },
    );
    const [out, err] = await Promise.all([run.stdout.text(), run.stderr.text()]);
    await run.exited;
    return { out, err };
  }

  test("reaches the pinned server directly and says nothing of it", async () => {
    const { out, err } = await child(honest.url);
    expect(out).toBe("private");
    // Bun itself warns of the variable before any code runs; no request is traced
    expect(err).not.toContain("server.statement");
    expect(err).not.toContain("curl");
    expect(proxied).toBe(0);
  });

  test("does not take the authority that the environment names", async () => {
    expect((await child(foreign.url)).out).toBe("pin_mismatch");
  });
});
