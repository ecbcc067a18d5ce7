import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { connect } from "../../src/client/login.ts";
import { connectorFacts, initConnector, outboxState, replayDeadLetters } from "../../src/connector/index.ts";
import { Fault } from "../../src/errors.ts";
import { assembleRegistry } from "../../src/server/keyring/index.ts";
import { lockDirectory } from "../../src/storage/lock.ts";
import { undelivered } from "../../src/wire/failure.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { type FederatedServer, federate, startFederated } from "../support/federatedserver.ts";
import { random, startTestServer, type TestServer, testSurroundings } from "../support/harness.ts";

setDefaultTimeout(60_000);

const URLS = {
  registry: "https://registry.example.org",
  other: "https://other.example.org",
  own: "https://s1.example.org:7443",
};

let dir: string;
let servers: FederatedServer[];
let registry: TestServer;
let calls: string[];
/** Calls after which the connection is lost. */
let cut: (operation: string) => boolean;
let gone: Set<string>;

beforeEach(async () => {
  dir = join(mkdtempSync(join(tmpdir(), "keyhold-connector-")), "c");
  servers = await Promise.all([1, 2].map(() => startFederated()));
  await federate(servers);
  registry = await startTestServer({
    registry: (ctx, identity) =>
      assembleRegistry({ ctx, version: "1", identity, sealingSeed: random(32), notify: () => undefined }),
  });
  calls = [];
  cut = () => false;
  gone = new Set();
});
afterEach(async () => {
  await registry.close();
  for (const one of servers) await one.close();
  rmSync(join(dir, ".."), { recursive: true, force: true });
});

const reach: typeof connect = async (known) => {
  const found = known.url === URLS.own ? servers[0]?.server : registry;
  if (!found || gone.has(known.url)) throw undelivered(new Fault("unreachable", `nothing listens at ${known.url}`));
  if (pinOf(found.ctx.keys.identity) !== known.pin) throw new Fault("pin_mismatch", "another identity");
  const link = found.link("127.0.0.1", async (operation, body, forward) => {
    calls.push(operation);
    const reply = await forward(operation, body);
    if (cut(operation)) throw new Fault("integrity", "killed here");
    return reply;
  });
  return { link, server: { ...known, caPem: null, statementNumber: 1 } };
};

const pinAt = (server: TestServer | undefined) => pinOf(server?.ctx.keys.identity ?? new Uint8Array(32));

const init = (change: Partial<Parameters<typeof initConnector>[0]> = {}) =>
  initConnector({
    dir,
    registry: [{ url: URLS.registry, pin: pinAt(registry) }],
    server: { url: URLS.own, pin: pinAt(servers[0]?.server) },
    name: null,
    federation: null,
    inviteRegistry: null,
    inviteServer: null,
    around: testSurroundings(),
    reach,
    ...change,
  });

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof Fault ? error.code : String(error)),
  );

describe("connector init", () => {
  test("makes accounts at both and enrols the party key, once; again it tells the same", async () => {
    const first = await init();
    expect(first).toMatchObject({ name: "server-1", server: { index: 1 }, registry: { urls: [URLS.registry] } });
    expect(first.allow).toBe(`keyhold server connector allow ${first.account} --registry ${first.registry.keyHex}`);
    expect(first.registry.keyHex).toBe(registry.ctx.keys.identity.toHex());
    // it joins no federation
    const enrols = () => calls.filter((name) => name.endsWith(".enrol"));
    expect(enrols()).toEqual(["keyring.enrol"]);
    calls.length = 0;
    const again = await init();
    expect(again).toEqual(first);
    expect(enrols()).toEqual([]);
    expect(connectorFacts(dir)).toMatchObject({ ...first, running: false });
  });

  test("cut short at any call it goes on, with the same key and one account at each", async () => {
    const keys = new Set<string>();
    for (let nth = 1; ; nth++) {
      let count = 0;
      cut = () => {
        count += 1;
        return count === nth;
      };
      const before = await codeOf(init());
      cut = () => false;
      keys.add((await init()).keyHex);
      if (before === "ok") break;
    }
    expect(keys.size).toBe(1);
    for (const server of [registry, servers[0]?.server]) {
      const accounts = await server?.store.transaction((tx) => tx.accounts(null, 10));
      expect(accounts).toHaveLength(1);
    }
  });

  test("its files are the user's alone, and the secret is in no other file", async () => {
    await init();
    expect(lstatSync(dir).mode & 0o777).toBe(0o700);
    const secret = readFileSync(join(dir, "connector.key"));
    expect(secret).toHaveLength(32);
    for (const name of readdirSync(dir)) {
      expect([name, lstatSync(join(dir, name)).mode & 0o777]).toEqual([name, 0o600]);
      if (name !== "connector.key") {
        const text = readFileSync(join(dir, name)).toString("latin1");
        expect(text).not.toContain(secret.toString("hex"));
        expect(text).not.toContain(secret.toString("base64url"));
      }
    }
  });

  test("refuses another registry or server, places of different registries, and a directory in use", async () => {
    await init();
    expect(await codeOf(init({ server: { url: URLS.own, pin: pinAt(servers[1]?.server) } }))).toBe("conflict");
    const places = [
      { url: URLS.registry, pin: pinAt(registry) },
      { url: URLS.other, pin: pinAt(servers[1]?.server) },
    ];
    rmSync(dir, { recursive: true });
    expect(await codeOf(init({ registry: places }))).toBe("usage");
    expect(await codeOf(init({ registry: [] }))).toBe("usage");
    await init();
    const lock = await lockDirectory(dir);
    expect(await codeOf(init())).toBe("conflict");
    expect(connectorFacts(dir).running).toBe(true);
    await lock.release();
  });

  test("a wrong pin leaves nothing that stands in the way of the right one", async () => {
    const wrong = [{ url: URLS.registry, pin: pinAt(servers[1]?.server) }];
    expect(await codeOf(init({ registry: wrong }))).toBe("pin_mismatch");
    expect(await codeOf(init({ server: { url: URLS.own, pin: pinAt(servers[1]?.server) } }))).toBe("pin_mismatch");
    const made = await init();
    expect(made.registry.pin).toBe(pinAt(registry));
  });

  test("reaches the registry at a further place, and keeps the new list", async () => {
    gone.add(URLS.registry);
    const pin = pinAt(registry);
    const both = [
      { url: URLS.registry, pin },
      { url: URLS.other, pin },
    ];
    const made = await init({ registry: both });
    expect(made.registry.urls).toEqual([URLS.registry, URLS.other]);
  });

  test("what is no registry, or belongs to no federation, is refused", async () => {
    const plain = await startTestServer();
    try {
      const toPlain: typeof connect = async (known) =>
        known.url === URLS.other
          ? { link: plain.link(), server: { ...known, caPem: null, statementNumber: 1 } }
          : reach(known, testSurroundings());
      const place = { url: URLS.other, pin: pinAt(plain) };
      expect(await codeOf(init({ registry: [place], reach: toPlain }))).toBe("unsupported");
    } finally {
      await plain.close();
    }
  });
});

describe("a directory", () => {
  test("without a connector, with a loose secret or a broken file says so", async () => {
    expect(() => connectorFacts(dir)).toThrow("there is no connector");
    expect(() => outboxState(dir)).toThrow("there is no connector");
    await init();
    expect(outboxState(dir)).toMatchObject({ counts: { dead: 0 }, lastContactAtMs: null, deadLetters: [] });
    expect(replayDeadLetters(dir, null, 1)).toBe(0);
    expect(() => replayDeadLetters(dir, "ab", 1)).toThrow("no such dead letter");
    writeFileSync(join(dir, "connector.json"), "{}");
    expect(() => connectorFacts(dir)).toThrow("is not a connector's");
    writeFileSync(join(dir, "connector.key"), new Uint8Array(31));
    expect(await codeOf(init())).toBe("corrupt");
  });
});
