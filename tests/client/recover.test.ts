import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { takeLink } from "../../src/client/accept.ts";
import { loginNewDevice } from "../../src/client/enrol.ts";
import type { Home } from "../../src/client/home.ts";
import { makeRecoveryKit, type RecoveryKit } from "../../src/client/kit.ts";
import type { Surroundings } from "../../src/client/model.ts";
import { recoverAccount } from "../../src/client/recover.ts";
import { hpkeSeal } from "../../src/crypto/hpke.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { clientRegisterStart, createServerSetup, serverRegister } from "../../src/crypto/opaque.ts";
import { Fault } from "../../src/errors.ts";
import { type IncarnationId, newId } from "../../src/ids.ts";
import { kitSealing, recoveryReplyInfo } from "../../src/protocol/kit.ts";
import { settingsHash, signState } from "../../src/protocol/state.ts";
import type { Handle } from "../../src/server.ts";
import { type Codec, decodeJson, encodeJson, type Of } from "../../src/wire/codec.ts";
import { operations, recoverReply } from "../../src/wire/operations.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import { rejected, storing, textOf } from "../support/hostile.ts";

/** Recovery and device links against a server that lies, and over a line that breaks (docs/protocol.md §5.8, §5.9). */

const NEXT = "another password of ada";
let world: AccountWorld;
let ada: Person;
let kit: RecoveryKit;

beforeEach(async () => {
  world = await openAccountWorld();
  ada = await world.register("ada");
  await (await ada.login()).store(storing("db", "s3cret"));
  ({ kit } = await makeRecoveryKit(ada.home, ada.profile(), passwordOf(PASSWORD), testSurroundings()));
});
afterEach(async () => {
  await world.close();
  expect(world.server.faults).toEqual([]);
});

let homes = 0;
const freshHome = (): Home => {
  homes += 1;
  return { profiles: `${ada.home.profiles}-${homes}`, vaults: `${ada.home.vaults}-${homes}` };
};

const inputOf = (password: string) => {
  const { server } = ada.profile();
  if (!server) throw new Error("no server");
  return {
    profile: "default",
    server: { url: server.url, pin: server.pin, tlsCaPem: null },
    account: "ada",
    password: passwordOf(password),
    kdf: "test" as const,
  };
};

/** Time passes only where the client pauses, and there at once. */
function unhurried(): Surroundings {
  let offset = 0;
  const pause = async (ms: number) => {
    offset += ms;
  };
  return { ...testSurroundings(), now: () => Date.now() + offset, pause };
}

type Known = Partial<Parameters<typeof recoverAccount>[1]["known"]>;
const recover = (home: Home, known: Known = {}, around = testSurroundings()) =>
  recoverAccount(
    home,
    { ...inputOf(NEXT), words: kit.words.join(" "), known: { userId: kit.userId, anchor: kit.anchor, ...known } },
    around,
  );
const rowOf = (userId = kit.userId) => world.server.store.transaction((tx) => tx.account(userId));

type Shown = Of<typeof recoverReply>;

/** The server answers a proof with what it likes: anyone can seal to the kit's public key. */
function answering(edit: (honest: Shown) => Shown | Promise<Shown>): void {
  world.between =
    (honest): Handle =>
    async (name, contentType, body, remote) => {
      const reply = await honest(name, contentType, body, remote);
      if (name !== "account.recover.prove" || reply.status !== 200) return reply;
      const { ctx } = world.server;
      const { sessionId, request } = decodeJson(operations[name].input, body);
      const row = await rowOf();
      if (!row?.settings.kit) throw new Error("no kit");
      const shown = {
        userId: row.userId,
        incarnation: ctx.incarnation,
        response: serverRegister(ctx.keys.opaque.setup, row.credentialId, request),
        ksf: ctx.ksf,
        settings: row.settings,
        head: row.state,
        auditSeq: row.audit.seq,
        auditLink: row.audit.link,
      };
      const text = encodeJson(recoverReply, await edit(shown));
      const info = recoveryReplyInfo(ctx.keys.identity, sessionId, "ada");
      const sealed = await hpkeSeal(kitSealing(row.settings.kit), info, new TextEncoder().encode(text), random);
      return { ...reply, body: encodeJson(operations[name].output as Codec<unknown>, { sealed }) };
    };
}

describe("a server that lies in a recovery", () => {
  test("the forged answer is taken when it is the honest one", async () => {
    answering((shown) => shown);
    const { client } = await recover(freshHome());
    expect(await textOf(client, "db")).toBe("s3cret");
    await client.close();
  });

  const LIES: readonly [string, (honest: Shown) => Shown | Promise<Shown>][] = [
    [
      "another account's settings",
      async (shown) => {
        const bob = await world.register("bob");
        await makeRecoveryKit(bob.home, bob.profile(), passwordOf(PASSWORD), testSurroundings());
        const row = await rowOf(bob.profile().userId ?? undefined);
        if (!row) throw new Error("no account");
        return { ...shown, userId: row.userId, settings: row.settings, head: row.state };
      },
    ],
    [
      "another account's under this one's id",
      async (shown) => {
        const bob = await world.register("bob");
        const row = await rowOf(bob.profile().userId ?? undefined);
        if (!row) throw new Error("no account");
        return { ...shown, settings: row.settings, head: row.state };
      },
    ],
    [
      "an account of its own making, sealed to the kit",
      (shown) => {
        const [identity, device] = [signerFromSeed(random(32)), signerFromSeed(random(32))];
        const [first] = shown.settings.devices;
        if (!first) throw new Error("no device");
        const settings = {
          ...shown.settings,
          identity: identity.publicKey,
          devices: [{ ...first, publicKey: device.publicKey }],
          rotations: [],
        };
        const state = { ...shown.head.state, deviceId: first.id, settingsHash: settingsHash(settings) };
        return { ...shown, settings, head: signState(state, identity, device) };
      },
    ],
    ["settings that the state does not name", (shown) => ({ ...shown, settings: { ...shown.settings, devices: [] } })],
    [
      "a state with another signature",
      (shown) => ({ ...shown, head: { ...shown.head, identitySignature: random(64) } }),
    ],
    ["another incarnation than it signs", (shown) => ({ ...shown, incarnation: newId<IncarnationId>(random) })],
    [
      "a password hashing that is cheap to guess",
      (shown) => ({ ...shown, ksf: { memoryKib: 8, passes: 1, lanes: 1 } }),
    ],
    [
      "another OPAQUE key",
      async (shown) => {
        const { request } = clientRegisterStart(NEXT);
        return { ...shown, response: serverRegister(createServerSetup(), random(32), request) };
      },
    ],
  ];
  test.each(LIES)("%s: nothing is sent after it, nothing is left here", async (what, lie) => {
    const before = await rowOf();
    answering(lie);
    const home = freshHome();
    const cheap = what.startsWith("a password hashing");
    const input = {
      ...inputOf(NEXT),
      ...(cheap && { kdf: "default" as const }),
      words: kit.words.join(" "),
      known: { userId: kit.userId, anchor: kit.anchor },
    };
    const fault = await recoverAccount(home, input, testSurroundings()).then(
      () => new Error("taken"),
      (error: unknown) => error,
    );
    expect(fault).toBeInstanceOf(Fault);
    expect((await rowOf())?.recordVersion).toBe(before?.recordVersion ?? 0);
    expect(existsSync(home.vaults)).toBe(false);
    world.between = null;
    expect(await textOf(await ada.login(), "db")).toBe("s3cret");
  });

  test("an account older than the head on the kit, or another one at it", async () => {
    const { revision, stateHash } = kit.anchor;
    await rejected(recover(freshHome(), { anchor: { revision: revision + 1, stateHash } }), "integrity");
    await rejected(recover(freshHome(), { anchor: { revision, stateHash: random(32) } }), "integrity");
    expect((await rowOf())?.recordVersion).toBe(1);
  });

  test("an acknowledgement of another change", async () => {
    world.between =
      (honest): Handle =>
      async (name, ...rest) => {
        const reply = await honest(name, ...rest);
        if (name !== "account.recover" || reply.status !== 200) return reply;
        const output = decodeJson(operations[name].output, new TextEncoder().encode(String(reply.body)));
        return { ...reply, body: encodeJson(operations[name].output, { ...output, stateHash: random(32) }) };
      };
    await rejected(recover(freshHome()), "integrity");
  });

  test("a profile that is there is refused before the account is touched", async () => {
    await rejected(recover(ada.home), "exists");
    expect((await rowOf())?.recordVersion).toBe(1);
  });
});

/** Loses the nth request from now on, before or after the server has it, and all that follow. */
function dying(nth: number, when: "before" | "after"): { readonly seen: string[] } {
  const seen: string[] = [];
  world.between =
    (honest): Handle =>
    async (name, ...rest) => {
      seen.push(name);
      if (seen.length < nth) return honest(name, ...rest);
      if (seen.length === nth && when === "after") await honest(name, ...rest);
      const body = `{"code":"unavailable","message":"away","retryAfterMs":null}`;
      return { status: 503, contentType: "application/json", body, outcome: "dropped" };
    };
  return { seen };
}

const CUTS = [1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap((nth) =>
  (["before", "after"] as const).map((when) => [nth, when] as const),
);

describe("a recovery that is cut short", () => {
  test.each(CUTS)(
    "at request %d, %s the server has it: the same kit completes it in the same home",
    async (nth, when) => {
      const home = freshHome();
      const { seen } = dying(nth, when);
      await rejected(recover(home, {}, unhurried()), "unavailable", "outcome_unknown", "unreachable");
      expect(seen.length).toBeGreaterThanOrEqual(nth);
      world.between = null;
      // one of the two passwords opens it
      const opens = async (password: string) =>
        loginNewDevice(freshHome(), inputOf(password), testSurroundings()).then(
          ({ client }) => client.close().then(() => true),
          () => false,
        );
      const [old, next] = [await opens(PASSWORD), await opens(NEXT)];
      expect([old, next].filter(Boolean)).toHaveLength(1);
      const { client } = await recover(home);
      expect(await textOf(client, "db")).toBe("s3cret");
      await client.close();
    },
  );
});

describe("a device link", () => {
  const code = async () => {
    const server = ada.profile().server;
    const client = await ada.login();
    const made = await client.linkDevice();
    expect(server).not.toBeNull();
    return made.code;
  };
  const accept = async (home: Home, text: string, around = testSurroundings()) => {
    const { server, account, known } = await takeLink(home, "default", { code: text, tlsCaPem: null }, around);
    return loginNewDevice(home, { ...inputOf(PASSWORD), server, account }, around, known);
  };

  test.each([1, 2, 3, 4, 5, 6].map((nth) => [nth]))(
    "cut short at request %d: an ordinary login completes it",
    async (nth) => {
      const text = await code();
      const home = freshHome();
      dying(nth, "after");
      await rejected(accept(home, text, unhurried()), "unavailable", "outcome_unknown", "unreachable");
      world.between = null;
      const { client } = await loginNewDevice(home, inputOf(PASSWORD), testSurroundings());
      expect(await textOf(client, "db")).toBe("s3cret");
      await client.close();
    },
  );

  test("a server that shows an older account than the one that made the code, or forges the parcel", async () => {
    const text = await code();
    const home = freshHome();
    const linked = await takeLink(home, "default", { code: text, tlsCaPem: null }, testSurroundings());
    const anchor = linked.known.anchor;
    if (!anchor) throw new Error("no anchor");
    const later = { ...linked.known, anchor: { ...anchor, revision: anchor.revision + 1 } };
    const other = { ...linked.known, anchor: { ...anchor, stateHash: random(32) } };
    const input = { ...inputOf(PASSWORD), server: linked.server, account: linked.account };
    for (const known of [later, other, { ...linked.known, userId: "0".repeat(32) as never }]) {
      await rejected(loginNewDevice(home, input, testSurroundings(), known), "integrity");
    }
    world.between =
      (honest): Handle =>
      async (name, ...rest) => {
        const reply = await honest(name, ...rest);
        if (name !== "account.device.accept") return reply;
        return { ...reply, body: encodeJson(operations[name].output as Codec<unknown>, { sealed: random(300) }) };
      };
    await rejected(accept(freshHome(), await code()), "integrity");
  });
});
