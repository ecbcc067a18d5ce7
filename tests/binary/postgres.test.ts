import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newId, type RequestId } from "../../src/ids.ts";
import type { Reply } from "../../src/server/dispatch.ts";
import {
  call,
  commitOf,
  exchange,
  frameOf,
  leafOf,
  logInRaw,
  outputOf,
  registerRaw,
  reserveRaw,
  utf8,
} from "../support/attacker.ts";
import type { TestServer } from "../support/harness.ts";
import { hasPostgres, POSTGRES_MS, startPostgres, type TestPostgres } from "../support/postgres.ts";
import { binary, type Home, keyhold, openWorld, SETUP_MS, type Server, serve, type World } from "./world.ts";

/** Several processes of the executable on one PostgreSQL. */

let postgres: TestPostgres;
let dir: string;

beforeAll(async () => {
  if (!hasPostgres) return;
  await binary();
  postgres = await startPostgres();
  dir = mkdtempSync(join(tmpdir(), "keyhold-processes-"));
}, SETUP_MS);
afterAll(async () => {
  await postgres?.close();
  if (dir) rmSync(dir, { recursive: true, force: true });
});

/** An address without a password, and what else gives it. */
function without(url: string): { address: string; env: Record<string, string> } {
  return { address: url.replace(/:[^:@/]+@/, "@"), env: { PGPASSWORD: postgres.password } };
}

let made = 0;
function directory(from?: string): string {
  made += 1;
  const path = join(dir, `server-${made}`);
  mkdirSync(path, { mode: 0o700 });
  if (from !== undefined) cpSync(join(from, "keys"), join(path, "keys"), { recursive: true });
  return path;
}

const ON = (port: number | string) => ["--listen", `127.0.0.1:${port}`, "--reuse-port"];

async function world(server: Server): Promise<{ world: World; alice: Home }> {
  const made = await openWorld({ server: false });
  made.server = server;
  const alice = made.home("alice");
  await alice.register("alice");
  return { world: made, alice };
}

/** One request over a connection of its own. */
function overOne(port: number, name: string, type: string, body: Uint8Array): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: "127.0.0.1",
        port,
        path: `/v1/op/${name}`,
        method: "POST",
        agent: false,
        rejectUnauthorized: false,
        headers: { "content-type": type, "content-length": body.length, connection: "close" },
      },
      (reply) => {
        const parts: Buffer[] = [];
        reply.on("data", (part: Buffer) => parts.push(part));
        reply.on("error", reject);
        reply.on("end", () => {
          const bytes = new Uint8Array(Buffer.concat(parts));
          const json = reply.headers["content-type"]?.startsWith("application/json") ?? false;
          resolve({
            status: reply.statusCode ?? 0,
            contentType: json ? "application/json" : "application/octet-stream",
            body: json ? new TextDecoder().decode(bytes) : bytes,
            outcome: "",
          });
        });
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

/** A running server as the raw client takes one: nothing but its statement is known of it. */
async function overConnections({ port }: Server): Promise<TestServer> {
  const dispatcher = {
    handle: (name: string, type: string, body: Uint8Array) => overOne(port, name, type, body),
  };
  const statement = outputOf(
    "server.statement",
    await dispatcher.handle("server.statement", "application/json", utf8("{}")),
  );
  const { identity, incarnation, opaqueKeys } = statement;
  const link: TestServer["link"] = (_address, middle) => ({
    identity,
    statementNumber: statement.number,
    statement,
    opaqueKeys,
    async post(operation, contentType, body) {
      const forward = (name: string, bytes: Uint8Array) => dispatcher.handle(name, contentType, bytes);
      const bytes = typeof body === "string" ? utf8(body) : body;
      const reply = await (middle ? middle(operation, bytes, forward) : forward(operation, bytes));
      return { ...reply, body: typeof reply.body === "string" ? utf8(reply.body) : reply.body };
    },
  });
  return { dispatcher, link, ctx: { keys: { identity }, incarnation } } as unknown as TestServer;
}

describe.skipIf(!hasPostgres)("serve on PostgreSQL", () => {
  test(
    "without the database's name the directory begins no empty server",
    async () => {
      const { address, env } = without(await postgres.create());
      const one = directory();
      const served = await serve(one, ["--listen", "127.0.0.1:0", "--database", address], { env });
      expect(await served.stop()).toBe(0);
      const ran = await keyhold(one, ["serve", "--dir", one, "--listen", "127.0.0.1:0", "--json"]);
      expect([ran.code, ran.out]).toEqual([3, ""]);
      expect(ran.err).toContain("KEYHOLD_DATABASE");
      expect(existsSync(join(one, "keyhold.db"))).toBe(false);
      const again = await serve(one, ["--listen", "127.0.0.1:0", "--database", address], { env });
      expect(again.pin).toBe(served.pin);
      expect(await again.stop()).toBe(0);
    },
    POSTGRES_MS,
  );

  test(
    "two processes share a port; one dies, the other goes on",
    async () => {
      const { address, env } = without(await postgres.create());
      const one = directory();
      const first = await serve(one, [...ON(0), "--database", address], { env });
      const copy = directory(one);
      const second = await serve(copy, [...ON(first.port), "--database", address], { env });
      expect(second.pin).toBe(first.pin);
      expect(second.port).toBe(first.port);
      const { world: made, alice } = await world(first);
      try {
        const bodies = Array.from({ length: 12 }, (_, i) => `value ${i}`);
        // each command is a process with connections of its own, over one agent's session
        await Promise.all(bodies.map((body, i) => alice.ok(["store", `db/${i}`], { stdin: body })));
        const read = await Promise.all(bodies.map((_, i) => alice.run(["get", `db/${i}`, "--reveal"])));
        for (const [i, ran] of read.entries()) expect(`${ran.code} ${ran.out}`).toContain(`value ${i}`);
        expect((await alice.ok(["audit", "verify"])).code).toBe(0);

        await first.stop("SIGKILL");
        await alice.ok(["store", "after"], { stdin: "the other one" });
        expect((await alice.run(["get", "after", "--reveal"])).out).toContain("the other one");
        expect(await second.stop()).toBe(0);
        for (const log of [first.log(), second.log()]) {
          expect(log).not.toContain(postgres.password);
          expect(log).not.toContain('"code":"internal"');
        }
      } finally {
        await Promise.all([first.stop("SIGKILL"), second.stop("SIGKILL")]);
        await made.close();
      }
    },
    SETUP_MS,
  );

  test(
    "one session's concurrent requests, each over a connection of its own, reach both processes and are done once",
    async () => {
      const { address, env } = without(await postgres.create());
      const one = directory();
      const first = await serve(one, [...ON(0), "--database", address], { env });
      const second = await serve(directory(one), [...ON(first.port), "--database", address], { env });
      try {
        const over = await overConnections(first);
        const alice = await registerRaw(over, "alice");
        const session = await logInRaw(over, "alice", alice.password);
        const sessionRequests = () =>
          [first, second].map((server) => server.log().split('"op":"session.check"').length - 1);
        let sent = 0;
        // which process a connection reaches is the kernel's choice
        for (let round = 0; round < 20 && Math.min(...sessionRequests()) < 3; round += 1) {
          const frames = Array.from({ length: 16 }, () => frameOf(session, "session.check", utf8("{}")));
          sent += frames.length;
          const answers = await Promise.all(
            frames.flatMap((frame) => [exchange(over, session, frame), exchange(over, session, frame)]),
          );
          expect(answers.filter(({ code }) => code === "ok").length).toBe(frames.length);
          expect(answers.filter(({ code }) => code === "replayed").length).toBe(frames.length);
          await Bun.sleep(50);
        }
        const [byFirst = 0, bySecond = 0] = sessionRequests();
        expect(Math.min(byFirst, bySecond)).toBeGreaterThan(2);
        expect(byFirst + bySecond).toBe(2 * sent);

        const keyId = await reserveRaw(over, session);
        const sealed = new Uint8Array(100).fill(7);
        const requestId = newId<RequestId>((length) => crypto.getRandomValues(new Uint8Array(length)));
        const { input } = commitOf(alice, "secret.store", [{ leaf: leafOf(keyId, sealed, null), sealed }], requestId);
        const answers = await Promise.all(
          Array.from({ length: 8 }, () => call(over, session, "secret.store", input, { requestId })),
        );
        expect(new Set(answers.map(({ code, text }) => `${code} ${text}`)).size).toBe(1);
        expect(answers[0]?.code).toBe("ok");
      } finally {
        await Promise.all([first.stop("SIGKILL"), second.stop("SIGKILL")]);
      }
    },
    SETUP_MS,
  );

  test(
    "a process without the keys of the database, or with others, does not start and changes nothing",
    async () => {
      const url = await postgres.create();
      const { address, env } = without(url);
      const keys = directory();
      const server = await serve(keys, [...ON(0), "--database", address], { env });
      await server.stop();
      const admin = postgres.admin(new URL(url).pathname.slice(1));
      const rows = async () => JSON.stringify(await admin.unsafe("SELECT * FROM setting ORDER BY name"));
      const before = await rows();

      const bare = directory();
      const refused = await keyhold(bare, ["serve", "--dir", bare, ...ON(0), "--database", address], { env });
      expect(refused.code).toBe(8);
      expect(refused.err).toContain("there is a database but no keys");

      for (const file of ["sealing.key", "account-name.key", "identity.ed25519"]) {
        const other = directory(keys);
        writeFileSync(join(other, "keys", file), new Uint8Array(32).fill(7));
        const ran = await keyhold(other, ["serve", "--dir", other, ...ON(0), "--database", address], { env });
        expect(ran.code).toBe(8);
        expect(ran.err).toContain("do not belong to the database");
        expect(ran.err).toContain(file);
        expect([...readFileSync(join(other, "keys", file))]).toEqual(Array.from({ length: 32 }, () => 7));
      }
      expect(await rows()).toBe(before);
    },
    SETUP_MS,
  );

  test(
    "what cannot be used is refused in words, without the password",
    async () => {
      const { address, env } = without(await postgres.create());
      const fails = async (args: readonly string[], extra: Record<string, string> = env) => {
        const home = directory();
        const ran = await keyhold(home, ["serve", "--dir", home, "--listen", "127.0.0.1:0", ...args], { env: extra });
        expect(ran.err).not.toContain("not-the-password");
        expect(ran.err).not.toContain(encodeURIComponent(postgres.password));
        return `${ran.code} ${ran.err}`;
      };
      expect(await fails(["--database", address], { PGPASSWORD: "not-the-password" })).toMatch(
        /^5 .*role or password/s,
      );
      expect(await fails(["--database", address.replace(/\/[^/]*$/, "/absent")])).toMatch(/^3 .*no such database/s);
      expect(await fails(["--database", address.replace(/:\d+\//, ":1/")])).toMatch(/^7 .*does not answer/s);
      expect(await fails(["--database", postgres.url("x", { password: "not-the-password" })])).toMatch(
        /^2 .*does not belong on the command line/s,
      );
      expect(await fails(["--database", "oracle://x:not-the-password@y/z"])).toMatch(/^2 .*kind is unknown/s);
      expect(await fails(["--reuse-port"])).toMatch(/^2 .*several processes share/s);
    },
    SETUP_MS,
  );

  test(
    "the password comes from the variable's address or from a password file; commands beside it find the server",
    async () => {
      const url = await postgres.create();
      const home = directory();
      const server = await serve(home, ["--listen", "127.0.0.1:0"], { env: { KEYHOLD_DATABASE: url } });
      const status = await keyhold(home, ["server", "status", "--dir", home, "--json"]);
      expect(JSON.parse(status.out).data).toMatchObject({ engine: "postgres", accounts: 0 });
      expect(await server.stop()).toBe(0);

      const { address } = without(url);
      const file = join(dir, "pgpass");
      writeFileSync(file, `*:*:*:keyhold:${postgres.password.replaceAll(/[:\\]/g, "\\$&")}\n`, { mode: 0o600 });
      const env = { KEYHOLD_DATABASE: address, PGPASSFILE: file };
      // no server runs: the command opens the database itself
      const alone = await keyhold(home, ["server", "status", "--dir", home, "--json"], { env });
      expect(JSON.parse(alone.out).data).toMatchObject({ engine: "postgres" });
      // other processes may be at work: a rotation wants to hear that they are stopped
      const rotate = ["server", "rotate", "--sealing", "--dir", home, "--json"];
      expect((await keyhold(home, rotate, { env })).code).toBe(2);
      expect((await keyhold(home, [...rotate, "--yes"], { env })).code).toBe(0);
      // untold where the data is, no command begins an empty database and calls it sound
      for (const words of [["status"], ["check"], ["invite", "create"], ["user", "list"]]) {
        const lost = await keyhold(home, ["server", ...words, "--dir", home, "--json"]);
        expect([lost.code, lost.out]).toEqual([3, ""]);
        expect(lost.err).toContain("KEYHOLD_DATABASE");
      }
      expect(existsSync(join(home, "keyhold.db"))).toBe(false);
    },
    SETUP_MS,
  );

  test(
    "while PostgreSQL is away requests are refused at once, and served when it is back",
    async () => {
      const { address, env } = without(await postgres.create());
      const home = directory();
      const server = await serve(home, ["--listen", "127.0.0.1:0", "--database", address], { env });
      const { world: made, alice } = await world(server);
      try {
        await alice.ok(["store", "before"], { stdin: "1" });
        await postgres.stop("immediate");
        const refused = await alice.fails(7, ["get", "before", "--reveal", "--fresh"]);
        expect(refused.code).toBe("unavailable");
        // where the database is, and as whom the server uses it, is nothing for clients
        expect(JSON.stringify(refused)).not.toMatch(/postgres|127\.0\.0\.1/);
        await postgres.start();
        await alice.ok(["store", "after"], { stdin: "2" });
        expect((await alice.run(["get", "before", "--reveal"])).out).toContain("1");
        expect(await server.stop()).toBe(0);
      } finally {
        await server.stop("SIGKILL");
        await made.close();
      }
    },
    SETUP_MS + POSTGRES_MS,
  );
});
