import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { connect, logIn } from "../../src/client/login.ts";
import { newDevice, prepareRegistration } from "../../src/client/register.ts";
import type { Session } from "../../src/client/session.ts";
import { type HpkeKeyPair, hpkeKeyPair, hpkeOpen } from "../../src/crypto/hpke.ts";
import { Fault } from "../../src/errors.ts";
import { newAgeIdentity } from "../../src/formats/age.ts";
import type { StoredKeyId, UserId } from "../../src/ids.ts";
import { otpCode, otpUri } from "../../src/protocol/otp.ts";
import { handoutInfo, type OtpAsk } from "../../src/protocol/otphandout.ts";
import { decodeJson } from "../../src/wire/codec.ts";
import type { OutputOf } from "../../src/wire/operations.ts";
import { handoutText } from "../../src/wire/otp/operations.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import { seeded } from "../support/seeded.ts";
import { linkTo, untilTrue } from "./ceremonyguests.ts";
import { occursBytes, readings, steal } from "./federationloot.ts";
import { type Home, keyhold, openWorld, SETUP_MS, type Server, serve, serverFlags, type World } from "./world.ts";

/** One-time codes that servers hand out, kill and restore included (docs/protocol.md §10.8). */

setDefaultTimeout(60_000);
const SEED = Number(process.env["KEYHOLD_TEST_SEED"] ?? Date.now() % 1_000_000);
const chance = seeded(SEED);

/** A counted key that the test knows too; ten digits, so that a search for its codes finds no others. */
function drawnKey(): { readonly uri: string; readonly counters: ReadonlyMap<string, number> } {
  const about = { kind: "hotp", issuer: "test", label: "door", algorithm: "SHA1", digits: 10, period: 30 } as const;
  const key = { ...about, secret: random(20), counter: 0 };
  const codes = Array.from({ length: 5_000 }, (_, counter) => otpCode({ ...key, counter }, 0).code);
  return { uri: otpUri(key), counters: new Map(codes.map((code, counter) => [code, counter])) };
}

let world: World;
let codes: Server;
let keeper: Home;
let ria: Home;
let rob: Home;
beforeAll(async () => {
  world = await openWorld();
  const dir = join(world.dir, "codes");
  mkdirSync(dir, { mode: 0o700 });
  codes = await serve(dir);
  const person = (name: string) => world.home(name).register(name);
  [keeper, ria, rob] = await Promise.all(
    ["keeper", "ria", "rob"].map(person) as [Promise<Home>, Promise<Home>, Promise<Home>],
  );
}, SETUP_MS);
afterAll(async () => {
  await codes?.stop("SIGKILL");
  await world?.close();
});

const logs: string[] = [];
async function killed(meanwhile: () => Promise<unknown> = async () => undefined): Promise<void> {
  const { port } = world.server;
  await world.server.stop("SIGKILL");
  await meanwhile();
  logs.push(world.server.log());
  world.server = await serve(join(world.dir, "server"), ["--listen", `127.0.0.1:${port}`]);
}

/** Every code that anybody was given. */
const given = new Set<string>();

/** Brings a key to the store that the test knows too. */
async function brought(
  name: string,
  ...more: string[]
): Promise<{ keyId: StoredKeyId; counters: ReadonlyMap<string, number> }> {
  const { uri, counters } = drawnKey();
  await keeper.ok(["otp", "add", `${name}-mine`], { stdin: uri });
  const { data } = await keeper.ok(["otp", "issue", name, "--from", `${name}-mine`, ...more]);
  return { keyId: data.keyId, counters };
}

async function requested(home: Home, key: string, ...more: string[]): Promise<string> {
  const { value } = (await home.ok(["otp", "request", key, ...more])).data;
  given.add(value);
  return value;
}

/** Gives ria a grant that is over when this returns; one that was over before the server had it is none. */
async function issuedUntilSoon(key: string): Promise<void> {
  for (let lastsMs = 1_000; ; lastsMs *= 3) {
    const endsAtMs = Date.now() + lastsMs;
    const until = ["--until", new Date(endsAtMs).toISOString()];
    const ran = await keeper.run(["otp", "issue", key, "--to", "ria", ...until, "--json"]);
    if (ran.code !== 0 && Date.now() < endsAtMs) throw new Error(ran.err);
    await Bun.sleep(Math.max(0, endsAtMs - Date.now()));
    if (ran.code === 0) return;
  }
}

/** The verdict on a code, as the issuer is told it. */
async function verdict(key: string, code: string): Promise<string> {
  const ran = await keeper.run([
    "otp",
    "verify",
    key,
    "--json",
    "--in-file",
    world.file("code", code),
    ...keeper.password,
  ]);
  if (ran.code === 0) return JSON.parse(ran.out).data.verdict;
  const { error } = JSON.parse(ran.err.trimEnd().split("\n").at(-1) ?? "");
  return /used|expired|revoked|unknown/.exec(`${error.message} ${error.why ?? ""}`)?.[0] ?? error.code;
}

describe("a code", () => {
  test("is its requester's alone, good once, and nobody else's who asks at the same time", async () => {
    const { counters } = await brought("door", "--to", "ria", "--to", "rob");
    const both = () => Promise.all([ria, rob].map((home) => requested(home, "door")));
    const all = [...(await both()), ...(await both())];
    expect(all.map((code) => counters.get(code)).toSorted()).toEqual([0, 1, 2, 3]);
    for (const code of all.slice(0, 2))
      expect([await verdict("door", code), await verdict("door", code)]).toEqual(["accepted", "used"]);
    const { items } = (await keeper.ok(["otp", "handouts", "door"])).data;
    expect(items.map(({ state }: { state: string }) => state).toSorted()).toEqual(["open", "open", "used", "used"]);
  });

  test("is not handed to who has no grant, nor after its end, and is worth nothing once revoked", async () => {
    const { keyId } = await brought("gate", "--to", "ria");
    expect((await rob.fails(3, ["otp", "request", "gate"])).code).toBe("not_found");
    expect((await rob.fails(5, ["otp", "request", keyId])).code).toBe("denied");
    const first = await requested(ria, "gate");
    const second = await requested(ria, "gate");
    const handouts = (await keeper.ok(["otp", "handouts", "gate"])).data.items as { askId: string; at: string }[];
    const [newest] = handouts.toSorted((a, b) => (a.at < b.at ? 1 : -1));
    await keeper.ok(["otp", "revoke", "gate", "--handout", newest?.askId ?? "", "--yes"]);
    expect(await verdict("gate", second)).toBe("revoked");
    expect(await verdict("gate", first)).toBe("accepted");
    await issuedUntilSoon("gate");
    expect((await ria.fails(5, ["otp", "request", keyId])).code).toBe("denied");
    await keeper.ok(["otp", "issue", "gate", "--to", "ria"]);
    const third = await requested(ria, "gate");
    await keeper.ok(["otp", "revoke", "gate", "--yes"]);
    expect(await verdict("gate", third)).toBe("revoked");
    expect((await ria.fails(5, ["otp", "request", keyId])).code).toBe("denied");
  });

  test("goes to a device without an account, and to no other device", async () => {
    const device = world.home("device");
    const other = world.home("other");
    const keys: string[] = [];
    for (const home of [device, other]) {
      await home.ok(["init", "--local", "--kdf", "test", ...home.password]);
      keys.push((await home.ok(["otp", "device", ...home.password])).data.keyHex);
    }
    const { keyId, counters } = await brought("tablet", "--to-device", keys[0] ?? "");
    const { url, pin } = world.server;
    const at = ["--server", url, "--pin", pin];
    const code = await requested(device, keyId, ...at, ...device.password);
    expect(counters.get(code)).toBe(0);
    expect((await other.fails(5, ["otp", "request", keyId, ...at, ...other.password])).code).toBe("denied");
    expect(await verdict("tablet", code)).toBe("accepted");
    const { items } = (await keeper.ok(["otp", "handouts", "tablet"])).data;
    expect(items.map(({ to }: { to: unknown }) => to)).toEqual([{ kind: "device", name: keys[0] }]);
  });

  test("is verified by a relying service with a token: yes once, and no more than no", async () => {
    await brought("shop", "--to", "ria");
    const { token, tokenId } = (await keeper.ok(["otp", "token", "create", "shop", "--name", "till"])).data;
    const { url, pin } = world.server;
    const place = { url, pin, tlsCaPem: null, caPem: null, statementNumber: 0 };
    const { server } = await connect(place, testSurroundings());
    const ca = server.caPem ?? "";
    const ask = async (body: unknown, bearer = token) => {
      const headers = { authorization: `Bearer ${bearer}`, "content-type": "application/json" };
      const how = { method: "POST", headers, body: JSON.stringify(body), tls: { ca } };
      const reply = await fetch(`${url}/v1/op/otp.verify`, how);
      return { status: reply.status, retryAfter: reply.headers.get("retry-after"), body: await reply.json() };
    };
    const code = await requested(ria, "shop");
    expect(await ask({ code })).toMatchObject({ status: 200, body: { accepted: true } });
    expect(await ask({ code })).toMatchObject({ status: 200, body: { accepted: false } });
    expect((await ask({ code: "12x456" })).status).toBe(400);
    expect((await ask({ code }, `kho_${"A".repeat(43)}`)).status).toBe(401);
    const right = await requested(ria, "shop");
    const replies: Awaited<ReturnType<typeof ask>>[] = [];
    for (let i = 0; i < 6; i++) replies.push(await ask({ code: `000000000${i}` }));
    expect(replies.at(-1)?.status).toBe(429);
    expect(Number(replies.at(-1)?.retryAfter)).toBeGreaterThan(0);
    // a right one waits like a wrong one, and is good afterwards
    expect((await ask({ code: right })).status).toBe(429);
    await keeper.ok(["otp", "token", "revoke", "shop", tokenId, "--yes"]);
    expect((await ask({ code: right })).status).toBe(401);
  });
});

/** An account whose client runs in this process. */
interface Asker {
  readonly userId: UserId;
  readonly session: Session;
}

const PLACE = () => ({ url: world.server.url, kdf: "test", deviceToken: null }) as const;
const PASSWORD = () => passwordOf("a password for load");

async function entered(name: string, register: boolean): Promise<Asker> {
  const link = await linkTo(world.server);
  const around = testSurroundings();
  if (register) {
    const input = { account: name, invite: null, device: newDevice("load", around) };
    await (await prepareRegistration(link, PLACE(), input, PASSWORD(), around)).finish();
  }
  return logIn(link, PLACE(), name, PASSWORD(), around);
}

type Handed = OutputOf<"otp.request">;

/** One ask, and what came of it. */
interface Asked {
  readonly name: string;
  readonly ask: OtpAsk;
  readonly pair: HpkeKeyPair;
  handed: Handed | null;
}

describe(`a server that is killed under load (KEYHOLD_TEST_SEED=${SEED})`, () => {
  const NAMES = ["load-1", "load-2", "load-3", "load-4"];
  // a key has its own rate: several of them let the load go on
  const KEYS = ["gold", "silver", "brass"];
  const KILLS = 2;

  test("hands no counter and no code out twice, keeps what it acknowledged, and answers the same ask the same", async () => {
    for (const name of NAMES) await entered(name, true);
    const to = NAMES.flatMap((name) => ["--to", name]);
    const keys = await Promise.all(KEYS.map((key) => brought(key, ...to, "--per-hour", "100000")));
    const asks: Asked[] = [];

    const send = async ({ session }: Asker, asked: Asked): Promise<void> => {
      const { output } = await session.call("otp.request", { ask: asked.ask });
      // the same ask, the same bytes, however often it was asked
      if (asked.handed) expect(output).toEqual(asked.handed);
      asked.handed = output;
    };
    /** Asks until the server is gone. */
    const load = async (name: string, asker: Asker): Promise<void> => {
      const server = asker.session.statement.identity;
      try {
        for (let i = 0; i < 24; i++) {
          const { keyId } = chance.pick(keys);
          const pair = await hpkeKeyPair(random(32));
          const nonce = random(32);
          const ask: OtpAsk = { server, keyId, want: "code", recipient: pair.publicKey, nonce, atMs: Date.now() };
          const asked: Asked = { name, ask, pair, handed: null };
          asks.push(asked);
          await send(asker, asked);
        }
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        expect(["unreachable", "timed_out", "unavailable"]).toContain(error.code);
      }
    };

    const lost: number[] = [];
    for (let round = 0; round <= KILLS; round++) {
      const askers = new Map(await Promise.all(NAMES.map(async (name) => [name, await entered(name, false)] as const)));
      // what was lost, and what was not: asked again all the same
      await Promise.all(
        NAMES.map(async (name) => {
          const asker = askers.get(name);
          if (!asker) throw new Error("no session");
          const mine = asks.filter((one) => one.name === name);
          for (const asked of mine) if (asked.handed === null || chance.chance(0.2)) await send(asker, asked);
        }),
      );
      expect(asks.every(({ handed }) => handed !== null)).toBe(true);
      if (round === KILLS) break;
      // two loops of each account
      const running = [...askers, ...askers].map(([name, asker]) => load(name, asker));
      // at most a third of what they ask for
      const enough = asks.length + 16 + chance.int(48);
      const unanswered = () => asks.filter(({ handed }) => handed === null).length;
      await untilTrue(() => asks.length >= enough && unanswered() > 0);
      lost.push(unanswered());
      if (round === 1) {
        // it is back at once: the clients themselves ask again
        await killed();
        await Promise.all(running);
      } else {
        await killed(() => Promise.all(running));
      }
    }
    expect(lost.filter((inFlight) => inFlight > 0)).toHaveLength(KILLS);
    expect(asks.length).toBeGreaterThan(20);

    const opened = await Promise.all(
      asks.map(async ({ ask, pair, handed }) => {
        if (!handed) throw new Error("not answered");
        const plain = await hpkeOpen(pair, handoutInfo(handed.askId, ask.want, handed.record), handed.sealed);
        return decodeJson(handoutText, plain).value;
      }),
    );
    for (const code of opened) given.add(code);
    const { items } = (await keeper.ok(["otp", "entries"])).data;
    for (const [at, { keyId, counters }] of keys.entries()) {
      const mine = opened.filter((_, i) => asks[i]?.ask.keyId === keyId);
      const numbers = mine.map((code) => counters.get(code) ?? -1);
      expect(new Set(numbers).size).toBe(mine.length);
      expect(Math.min(...numbers)).toBe(0);
      // none is handed out that the counter has not passed
      const { counter } = items.find((one: { keyId: string }) => one.keyId === keyId);
      expect(counter).toBeGreaterThan(Math.max(...numbers));
      const name = KEYS[at] ?? "";
      const handouts = (await keeper.ok(["otp", "handouts", name])).data.items as { askId: string; state: string }[];
      const open = handouts.filter(({ state }) => state === "open").map(({ askId }) => askId);
      const handed = asks.flatMap((one) => (one.ask.keyId === keyId && one.handed ? [one.handed.askId as string] : []));
      expect(open.toSorted()).toEqual(handed.toSorted());
      if (at > 0) continue;
      for (const code of [mine[0] ?? "", mine.at(-1) ?? ""]) {
        expect([await verdict(name, code), await verdict(name, code)]).toEqual(["accepted", "used"]);
      }
    }
  });
});

describe("a distribution server of its own", () => {
  test("takes a key once, goes on ahead of every code of before, and both are killed in between", async () => {
    const { counters, keyId } = await brought("moved", "--to", "ria");
    const before = [await requested(ria, "moved"), await requested(ria, "moved")];
    const [parcel, again] = ["p1", "p2"].map((name) => world.file(name)) as [string, string];
    const at = ["otp", "issue", "moved", "--at", `${codes.url}#${codes.pin}`, "--yes", "--out"];
    await keeper.ok([...at, parcel]);
    await killed();
    await keeper.ok([...at, again]);
    expect(readFileSync(again)).toEqual(readFileSync(parcel));
    expect((await ria.run(["otp", "request", keyId])).code).not.toBe(0);
    expect(await verdict("moved", before[0] ?? "")).not.toBe("accepted");

    const issuer = world.home("issuer");
    await issuer.ok(["register", ...serverFlags(codes, "issuer"), ...issuer.password, "--kdf", "test"]);
    await issuer.ok(["login", ...issuer.password, "--kdf", "test"]);
    const received = (await issuer.ok(["otp", "receive", parcel])).data;
    await codes.stop("SIGKILL");
    logs.push(codes.log());
    codes = await serve(join(world.dir, "codes"), ["--listen", `127.0.0.1:${codes.port}`]);
    expect((await issuer.ok(["otp", "receive", again])).data.keyId).toBe(received.keyId);
    const device = world.home("device");
    const other = world.home("other");
    const keyOf = async (home: Home) => (await home.ok(["otp", "device", ...home.password])).data.keyHex;
    const to = ["--to-device", await keyOf(device), "--to-device", await keyOf(other)];
    await issuer.ok(["otp", "issue", "moved", ...to]);
    const place = ["--server", codes.url, "--pin", codes.pin];
    // each its own code, and none of those that the first server handed out
    const asked = await Promise.all(
      [device, other].map((home) => requested(home, received.keyId, ...place, ...home.password)),
    );
    const numbers = asked.map((code) => counters.get(code) ?? -1);
    expect(new Set(numbers).size).toBe(2);
    expect(Math.min(...numbers)).toBeGreaterThan(Math.max(...before.map((code) => counters.get(code) ?? 1e9)));
    const check = (code: string) =>
      issuer.run(["otp", "verify", "moved", "--in-file", world.file("code", code)]).then((ran) => ran.code === 0);
    expect([await check(asked[0] ?? ""), await check(asked[0] ?? ""), await check(before[0] ?? "")]).toEqual([
      true,
      false,
      false,
    ]);
  });

  test("has no code in its directory or log, nor has the other one", () => {
    expect(given.size).toBeGreaterThan(30);
    const texts = [...logs, world.server.log(), codes.log()].map((text) => new TextEncoder().encode(text));
    const dirs = ["server", "codes"].map((name) =>
      readings(steal(join(world.dir, name), world.file(`loot-${name}`)).pieces),
    );
    for (const pieces of [texts, ...dirs]) {
      const haystack = Buffer.concat(pieces).toString("latin1");
      expect([...given].filter((code) => haystack.includes(code))).toEqual([]);
    }
    expect(occursBytes(texts, new TextEncoder().encode("enclave-started"))).toBe(true);
  });
});

test("a server that is put back from a backup never goes back to a counter: it jumps ahead", async () => {
  const { counters, keyId } = await brought("kept", "--to", "ria");
  const old = await requested(ria, "kept");
  const { identity, recipient } = await newAgeIdentity();
  const [data, keys] = [world.file("kept.db"), world.file("kept.age")];
  const operator = (...argv: string[]) => keyhold(world.dir, ["server", ...argv, "--json", "--no-input"]);
  const dir = join(world.dir, "server");
  const saved = await operator("backup", "--dir", dir, "--data", data, "--keys", keys, "--recipient", recipient);
  expect([saved.code, saved.err]).toEqual([0, ""]);
  const enclave = join(world.dir, "enclave.copy");
  cpSync(join(dir, "enclave"), enclave, { recursive: true });
  const lost: string[] = [];
  for (let i = 0; i < 3; i++) lost.push(await requested(ria, "kept"));
  const { port } = world.server;
  await world.server.stop("SIGKILL");
  const restored = join(world.dir, "restored");
  const by = ["--identity", world.file("age.txt", `${identity}\n`)];
  const ran = await operator("restore", "--dir", restored, "--data", data, "--keys", keys, ...by);
  expect([ran.code, ran.err]).toEqual([0, ""]);
  // without its enclave's directory nothing is handed out, and no other enclave takes its place (docs/operations.md §21)
  expect(JSON.parse(ran.out).data.lost.storedKeys).toBeGreaterThan(0);
  world.server = await serve(restored, ["--listen", `127.0.0.1:${port}`]);
  for (const home of [ria, keeper]) await home.ok(["sync", "--accept-restore", "--yes", ...home.password]);
  expect((await ria.fails(3, ["otp", "request", keyId, ...ria.password])).code).toBe("not_found");
  await world.server.stop("SIGKILL");
  cpSync(enclave, join(restored, "enclave"), { recursive: true, errorOnExist: true, force: false });
  world.server = await serve(restored, ["--listen", `127.0.0.1:${port}`]);
  const fresh = [await requested(ria, keyId, ...ria.password), await requested(ria, keyId, ...ria.password)];
  const numbers = fresh.map((code) => counters.get(code) ?? -1);
  expect([new Set(numbers).size, Math.min(...numbers) > 1_000]).toEqual([2, true]);
  expect(await verdict("kept", old)).toBe("expired");
  for (const code of lost) expect(await verdict("kept", code)).toBe("unknown");
  expect([await verdict("kept", fresh[1] ?? ""), await verdict("kept", fresh[1] ?? "")]).toEqual(["accepted", "used"]);
});
