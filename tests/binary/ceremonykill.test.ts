import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { ownValue } from "../../src/protocol/ceremony/contribution.ts";
import { decodeInvite, encodeInvite } from "../../src/protocol/ceremony/invite.ts";
import { decodeOpening } from "../../src/wire/ceremony/transcript.ts";
import { seeded } from "../support/seeded.ts";
import { type Cutter, startCutter } from "./ceremonycutter.ts";
import { inTime, killEnclave, laidTable, recomputed, type Table, untilTrue } from "./ceremonyguests.ts";
import { type Loot, occursBytes, readings, steal } from "./federationloot.ts";
import { exitOf, type Home, openWorld, SETUP_MS, serve, spawn, type World } from "./world.ts";

/**
 * Servers, enclaves and participants that are killed in the middle of ceremonies: what was acknowledged stays, it goes
 * on where it was, and nothing lies anywhere in clear (docs/protocol.md §10.4).
 */

setDefaultTimeout(60_000);
const SEED = Number(process.env["KEYHOLD_TEST_SEED"] ?? Date.now() % 1_000_000);
const chance = seeded(SEED);
let world: World;
let keeper: Home;
beforeAll(async () => {
  world = await openWorld();
  keeper = await world.home("keeper").register("keeper");
}, SETUP_MS);
afterAll(() => world.close());

const serverDir = () => join(world.dir, "server");
async function killed(): Promise<void> {
  const { port } = world.server;
  await world.server.stop("SIGKILL");
  world.server = await serve(serverDir(), ["--listen", `127.0.0.1:${port}`]);
}

let looted = 0;
/** A copy of the server's directory as it is now. */
const loot = (): Loot => steal(serverDir(), join(world.dir, `loot-${++looted}`));

const HOTP = ["--output", "hotp", "--digits", "10"];
let tables = 0;
const laid = (...more: string[]) => laidTable(world, keeper, `kill-${++tables}`, 3, ...HOTP, ...more);

/** A secret and the forms in which it could lie in a file. */
const forms = (bytes: Uint8Array) => [
  bytes,
  Buffer.from(bytes.toHex()),
  Buffer.from(bytes.toBase64({ alphabet: "base64url", omitPadding: true })),
  Buffer.from(bytes.toBase64({ omitPadding: true })),
];

/** Asks for something, and kills the server before the answer is there, perhaps. */
async function cutShort(work: Promise<unknown>): Promise<void> {
  const done = work.catch(() => undefined);
  await Promise.race([done, Bun.sleep(chance.int(40))]);
  await killed();
  await done;
}

/** All that must hold of a ceremony that came to its good end, whatever was killed on the way. */
async function whole(table: Table, acknowledged: readonly Uint8Array[] = []): Promise<void> {
  const { transcript, state } = { transcript: await table.transcript(), state: await table.state() };
  expect([state.status, state.joins.length, state.reveals.size]).toEqual(["stored", 3, 3]);
  expect(transcript.entries.map(({ entry }) => entry.body.kind).toSorted()).toEqual([
    "freeze",
    "join",
    "join",
    "join",
    "result",
    "reveal",
    "reveal",
    "reveal",
  ]);
  const signatures = transcript.entries.map(({ signature }) => signature.toHex());
  for (const one of acknowledged) expect(signatures).toContain(one.toHex());
  const made = await recomputed(table, state);
  expect(state.result?.keyHash.toHex()).toBe(made.keyHash.toHex());
}

describe(`a server that is killed (KEYHOLD_TEST_SEED=${SEED})`, () => {
  const STAGES: Record<string, (table: Table, kept: Uint8Array[]) => Promise<void>> = {
    "after it was opened": () => killed(),
    "at the first commitment": (table) => cutShort(table.join(1)),
    "between commitments": async (table, kept) => {
      kept.push((await table.join(2)).signature);
      await killed();
    },
    "at the last commitment, with the freeze": async (table, kept) => {
      for (const index of [1, 2]) kept.push((await table.join(index)).signature);
      await cutShort(table.join(3));
    },
    "after the freeze": async (table) => {
      for (const index of [1, 2, 3]) await table.join(index);
      await untilTrue(async () => (await table.state()).t1 !== null);
      await killed();
    },
    "at the first reveal": async (table) => {
      for (const index of [1, 2, 3]) await table.join(index);
      await cutShort(table.reveal(1));
    },
    "between reveals": async (table, kept) => {
      for (const index of [1, 2, 3]) await table.join(index);
      kept.push((await table.reveal(3)).signature);
      await killed();
    },
    "at the last reveal, with the combination": async (table, kept) => {
      for (const index of [1, 2, 3]) await table.join(index);
      for (const index of [1, 2]) kept.push((await table.reveal(index)).signature);
      await cutShort(table.reveal(3));
    },
    "after the end": async (table, kept) => {
      await table.goOn();
      await untilTrue(async () => (await table.state()).status === "stored");
      kept.push(...(await table.transcript()).entries.map(({ signature }) => signature));
      await killed();
    },
  };
  test.each(Object.keys(STAGES))("%s goes on, with all that it has acknowledged", async (stage) => {
    const table = await laid();
    const kept: Uint8Array[] = [];
    await STAGES[stage]?.(table, kept);
    const again = await table.goOn();
    if (again.status !== "stored") await untilTrue(async () => (await table.goOn()).status === "stored");
    await whole(table, kept);
  });

  test("while a stage ends names who was missing once it is back, and nobody else", async () => {
    const quick = (seconds: number) => laid("--reveal-time", `${seconds}s`);
    const { table, seconds } = await inTime(quick, async ({ join, reveal }) => {
      for (const index of [1, 2, 3]) await join(index);
      for (const index of [1, 2]) await reveal(index);
      await world.server.stop("SIGKILL");
    });
    const { port } = world.server;
    await Bun.sleep(seconds * 1_000);
    world.server = await serve(serverDir(), ["--listen", `127.0.0.1:${port}`]);
    await untilTrue(async () => (await table.state()).status === "aborted");
    expect((await table.state()).abort).toMatchObject({ reason: "withheld", culprits: [3] });
  });
});

describe("an enclave that is killed alone", () => {
  test("before each step is started again, and nothing is lost", async () => {
    // one that ends again and again is started more and more slowly: each server sees three
    await killed();
    const table = await laid();
    for (const index of [1, 2, 3]) {
      if (index !== 2) await killEnclave(world.server);
      await untilTrue(() => table.join(index).then(Boolean, () => false));
    }
    await killed();
    await untilTrue(async () => (await table.state()).status === "reveal");
    for (const index of [1, 2, 3]) {
      if (index !== 1) await killEnclave(world.server);
      await untilTrue(() => table.reveal(index).then(Boolean, () => false));
    }
    await untilTrue(async () => (await table.state()).status === "stored");
    await whole(table);
  });

  test("in the middle of the combination: the key is made nevertheless", async () => {
    const table = await laid();
    for (const index of [1, 2, 3]) await table.join(index);
    for (const index of [1, 2]) await table.reveal(index);
    const last = table.reveal(3).catch(() => undefined);
    await Bun.sleep(chance.int(30));
    await killEnclave(world.server);
    await last;
    await untilTrue(async () => (await table.goOn()).status === "stored");
    await whole(table);
  });
});

describe("the server's directory", () => {
  test("has no seed before the freeze, no opening and no key in clear at any time, and no code", async () => {
    const table = await laid();
    const before = loot();
    await table.join(1);
    await table.join(2);
    const committed = loot();
    await table.join(3);
    await untilTrue(async () => (await table.state()).t1 !== null);
    const frozen = loot();
    await table.reveal(1);
    await table.reveal(2);
    const revealed = loot();
    await table.reveal(3);
    await untilTrue(async () => (await table.state()).status === "stored");
    const { name } = table;
    await keeper.ok(["otp", "issue", name, "--to", "keeper"]);
    const codes: string[] = [];
    for (let i = 0; i < 3; i++) codes.push((await keeper.ok(["otp", "request", name])).data.value);
    await keeper.ok(["otp", "verify", name, "--in-file", world.file("code", codes[0])]);
    const after = loot();
    await killed();
    const restarted = loot();

    const state = await table.state();
    const { key, value } = await recomputed(table, state);
    const { seed } = state;
    if (!seed || !value) throw new Error("no key");
    const shares = await Promise.all(
      table.guests.map((guest) => ownValue(guest.function, guest.opening, seed, table.id, guest.index)),
    );
    const secrets = [key, key.slice(0, 32), key.slice(32), value, ...shares, ...table.guests.map((one) => one.opening)];
    const all = [before, committed, frozen, revealed, after, restarted].map(({ pieces }) => readings(pieces));
    for (const [at, pieces] of all.entries()) {
      const found = secrets.findIndex((secret) => occursBytes(pieces, ...forms(secret)));
      expect({ at, found }).toEqual({ at, found: -1 });
      const digits = codes.filter((code) => occursBytes(pieces, Buffer.from(code)));
      expect({ at, digits }).toEqual({ at, digits: [] });
      // the seed is public from the freeze on: then the same search finds it
      expect({ at, seed: occursBytes(pieces, ...forms(seed)) }).toEqual({ at, seed: at >= 2 });
    }
    expect(codes.map((code) => /^\d{10}$/.test(code))).toEqual([true, true, true]);
    expect(occursBytes([Buffer.from(world.server.log())], ...codes.map((code) => Buffer.from(code)))).toBe(false);
  });
});

describe("a participant", () => {
  let cutter: Cutter;
  beforeAll(async () => {
    cutter = await startCutter(world.server.port);
  });
  afterAll(() => cutter.close());

  /** Runs a command that is killed at its `nth` request; null where it was, otherwise what it gave. */
  async function killedAt(home: Home, argv: readonly string[], nth: number, heard: boolean) {
    const child = await spawn(home.dir, [...argv, "--json", ...home.password]);
    cutter.arm(nth, heard, () => child.kill("SIGKILL"));
    const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return child.signalCode === "SIGKILL" ? null : { code: exitOf(child), out, err };
  }

  test.each([
    ["before the server gets it", false],
    ["after the server has it, before the answer", true],
  ])(
    "that is killed at each of its requests, %s, goes on by the same command with the same commitment",
    async (_, heard) => {
      const table = await laid();
      const home = world.home(`killed-${heard}`);
      await home.ok(["init", "--local", "--kdf", "test", ...home.password]);
      const [line = ""] = table.invites;
      const invite = encodeInvite({ ...decodeInvite(line), url: cutter.url });
      for (const index of [2, 3]) await table.join(index);
      const commitments = new Set<string>();
      const kills = { committing: 0, revealing: 0 };
      // from the first request again once it has committed: then it does other things
      for (let nth = 1; ; nth++) {
        const stage = commitments.size === 0 ? "committing" : "revealing";
        const ran = await killedAt(home, ["ceremony", "join", invite, "--timeout", "20s"], nth, heard);
        if (ran !== null) {
          expect([ran.code, ran.err.includes('"error"')]).toEqual([0, false]);
          expect(JSON.parse(ran.out).data.status).toBe("stored");
          break;
        }
        kills[stage]++;
        await cutter.settled();
        const { joins } = await table.state();
        const mine = joins.find(({ join: { index } }) => index === 1);
        if (!mine) continue;
        if (commitments.size === 0) nth = 0;
        commitments.add(mine.join.commitment.toHex());
        // the others need not wait for it
        for (const index of [2, 3]) await table.reveal(index);
      }
      // once its opening is there the key can be, and then there is less to ask
      expect([kills.committing >= 3, kills.revealing >= 2]).toEqual([true, true]);
      expect(commitments.size).toBe(1);
      const out = world.file(`killed-${heard}.opening`);
      await home.ok(["ceremony", "opening", table.name, "--out", out, ...home.password]);
      const { opening } = decodeOpening(new Uint8Array(await Bun.file(out).arrayBuffer()));
      const own = { ...table, guests: table.guests.map((one) => (one.index === 1 ? { ...one, opening } : one)) };
      await whole(own);
      // and in its home the opening is in the vault alone
      const files = new Bun.Glob("**/*").scanSync({ cwd: home.dir, dot: true, absolute: true });
      const pieces = await Promise.all(
        [...files].map(async (path) => new Uint8Array(await Bun.file(path).arrayBuffer())),
      );
      expect(pieces.length).toBeGreaterThan(1);
      expect(occursBytes(readings(pieces), ...forms(opening))).toBe(false);
    },
  );
});
