import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openRegistrySeed, readKeyFiles } from "../../../src/server/directory.ts";
import { putStored } from "../../../src/server/documents.ts";
import { BALANCE } from "../../../src/server/keyring/documents.ts";
import { type KeyServer, openKeyServer } from "../../../src/server/keyserver.ts";
import { silentLog } from "../../../src/server/log.ts";
import { decodeJson } from "../../../src/wire/codec.ts";
import { operations } from "../../../src/wire/operations.ts";
import { codeOf } from "../../support/registryworld.ts";

/** The role of a registry in a whole server: its key, its answers, its operator. */

let dir: string;
const open: KeyServer[] = [];
const umask = process.umask();
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-role-"));
});
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
  process.umask(umask);
  rmSync(dir, { recursive: true, force: true });
});

const seedFile = () => join(dir, "server", "keys", "registry.x25519");

async function start(registry: boolean): Promise<KeyServer> {
  const server = await openKeyServer({
    dir: join(dir, "server"),
    database: null,
    registration: "open",
    version: "1.2.3",
    log: silentLog,
    opaqueWorkers: 1,
    registry,
  });
  open.push(server);
  return server;
}

async function stop(server: KeyServer): Promise<void> {
  open.splice(open.indexOf(server), 1);
  await server.close();
}

async function info(server: KeyServer) {
  const reply = await server.dispatcher.handle("keyring.info", "application/json", new TextEncoder().encode("{}"), {
    address: "127.0.0.1",
  });
  if (reply.status !== 200) return reply.outcome;
  return decodeJson(operations["keyring.info"].output, new TextEncoder().encode(String(reply.body)));
}

const administration = (server: KeyServer) => server.administration({ url: () => "", requests: () => 0 });

test("a server is a registry when it is told to, and the same one from then on", async () => {
  const plain = await start(false);
  expect(await info(plain)).toBe("unsupported");
  expect(existsSync(seedFile())).toBe(false);
  expect(await codeOf(administration(plain)["registry.balances"]({}))).toBe("unsupported");
  await stop(plain);

  const first = await start(true);
  const told = await info(first);
  expect(told).toMatchObject({ registry: first.keys.identity.publicKey, enabled: true, version: "1.2.3" });
  expect(statSync(seedFile()).mode & 0o777).toBe(0o600);
  expect((await readKeyFiles(join(dir, "server"))).get("registry.x25519")).toEqual(
    new Uint8Array(readFileSync(seedFile())),
  );
  await stop(first);

  const again = await start(true);
  expect(await info(again)).toEqual({ ...(told as object), atMs: expect.any(Number) as number } as never);
  await stop(again);
  // its data stay while it is none
  expect(await info(await start(false))).toBe("unsupported");
});

test("its key is never made anew beside what was sealed to it, nor another's taken", async () => {
  await stop(await start(true));
  renameSync(seedFile(), join(dir, "away"));
  expect(await codeOf(start(true))).toBe("corrupt");
  expect(existsSync(seedFile())).toBe(false);
  writeFileSync(seedFile(), new Uint8Array(32).fill(7), { mode: 0o600 });
  expect(await codeOf(start(true))).toBe("corrupt");
  renameSync(join(dir, "away"), seedFile());
  expect(await codeOf(start(true))).toBe("ok");
});

test("two processes that start it at once agree on one key", async () => {
  await stop(await start(false));
  const at = join(dir, "server");
  const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
  const seeds = await Promise.all(Array.from({ length: 8 }, () => openRegistrySeed(at, random, false)));
  expect(new Set(seeds.map((seed) => seed.toHex()))).toEqual(new Set([readFileSync(seedFile()).toHex()]));
  // what the slower ones left behind goes with the next start
  await stop(await start(true));
  expect(readdirSync(join(at, "keys")).filter((name) => name.startsWith("registry"))).toEqual(["registry.x25519"]);
});

test("the operator's checks cover the ledger", async () => {
  const server = await start(true);
  const handlers = administration(server);
  expect(await handlers["registry.balances"]({})).toEqual({ items: [], entries: 0, sound: true, problems: [] });
  expect((await handlers.check({})).items).toContainEqual({ name: "ledger", ok: true, detail: null });
  await server.ctx.store.transaction((tx) =>
    putStored(tx, BALANCE, { id: "operator", owner: "operator", place: 0, value: { amount: 5 } }, 0),
  );
  const problem = "the balance of operator is not what its entries say";
  expect(await handlers["registry.balances"]({})).toMatchObject({ sound: false, problems: [problem] });
  const checked = await handlers.check({});
  expect(checked.ok).toBe(false);
  expect(checked.items).toContainEqual({ name: "ledger", ok: false, detail: problem });
});

test("a server that never was a registry has no ledger to check", async () => {
  const server = await start(false);
  const { items } = await administration(server).check({});
  expect(items.map(({ name }) => name)).toEqual(["database", "server-wide log"]);
});
