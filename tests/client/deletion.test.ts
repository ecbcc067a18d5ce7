import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { deleteAccount } from "../../src/client/closing.ts";
import { detachProfile } from "../../src/client/detach.ts";
import { openProfile, vaultPath } from "../../src/client/home.ts";
import { boundOf, signersOf } from "../../src/client/model.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { Fault } from "../../src/errors.ts";
import type { UserId } from "../../src/ids.ts";
import { closedHash, type SignedState, settingsHash, signState } from "../../src/protocol/state.ts";
import { encodeJson } from "../../src/wire/codec.ts";
import { operations } from "../../src/wire/operations.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { errorOf, postInput } from "../support/attacker.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import { asking, EVERYTHING, rejected, storing, textOf } from "../support/hostile.ts";
import { recorder } from "../support/storeprobe.ts";

let world: AccountWorld;
let desk: Person;
let phone: Person;

beforeEach(async () => {
  world = await openAccountWorld();
  desk = await world.register("ada");
  phone = await world.another("ada");
  const client = await desk.login();
  await client.store(storing("both", "in both places", { tags: ["kept"] }));
  await client.store(storing("both", "in both places, newer"));
  await client.store(storing("server", "on the server alone", { where: "server" }));
  await client.store(storing("local", "in the vault alone", { where: "local" }));
  await client.close();
  const other = await phone.login();
  await other.sync();
  await other.get(asking("server", { save: true }));
  await other.close();
});
afterEach(async () => {
  expect(world.server.faults).toEqual([]);
  await world.close();
});

const remove = (person: Person, password = PASSWORD) =>
  deleteAccount(person.home, person.profile(), passwordOf(password), testSurroundings(person.notices));

const countOf = (table: string, userId: UserId): number =>
  world.file.sql<{ n: number }>(`SELECT count(*) AS n FROM ${table} WHERE user_id = ?1`, Uint8Array.fromHex(userId))[0]
    ?.n ?? -1;

/** What a person without a server has. */
async function localOf(person: Person) {
  const { client } = await openProfile(person.home, person.profile(), passwordOf(PASSWORD), testSurroundings(), {
    keep: false,
  });
  const { items } = await client.list({ ...EVERYTHING, fresh: false });
  const values = new Map<string, string>();
  for (const { name } of items) {
    const { value } = await client.get(asking(name, { fresh: false }));
    values.set(name, new TextDecoder().decode(value ?? undefined));
  }
  return { client, items, values };
}

describe("deleting an account", () => {
  test("erases all of it on the server; this vault keeps its own secrets and its copies, without a server", async () => {
    const userId = desk.profile().userId as UserId;
    const done = await remove(desk);
    expect(done).toMatchObject({ account: "ada", userId, kept: 2, dropped: 1 });
    for (const table of [
      ...["account", "account_state", "leaf", "secret", "sealed_value", "session"],
      ...["request", "reservation", "device_token", "login_state"],
    ]) {
      expect([table, countOf(table, userId)]).toEqual([table, 0]);
    }
    const entries = world.file.sql<Record<string, unknown>>(
      "SELECT salt, action, state_hash, link FROM audit_entry WHERE user_id = ?1",
      Uint8Array.fromHex(userId),
    );
    expect(entries.length).toBeGreaterThan(5);
    for (const entry of entries) {
      expect(entry).toMatchObject({ salt: null, action: null, state_hash: null, link: expect.anything() });
    }
    expect(desk.profile()).toMatchObject({ server: null, account: null, userId: null, deviceToken: null });
    const { client, values } = await localOf(desk);
    expect([...values]).toEqual([
      ["both", "in both places, newer"],
      ["local", "in the vault alone"],
    ]);
    // and goes on as a vault without a server does
    await client.store(storing("both", "newest"));
    expect((await client.list({ ...EVERYTHING, fresh: false })).items.map(({ where }) => where)).toEqual([
      "local",
      "local",
    ]);
    await client.close();
    expect((await localOf(desk)).values.get("both")).toBe("newest");
  });

  test("the name is free again, for a new account that has nothing of the old", async () => {
    const before = desk.profile().userId;
    await remove(desk);
    const other = await world.register("ada", "a password of another ada");
    expect(other.profile().userId).not.toBe(before);
    expect((await (await other.login("a password of another ada")).list(EVERYTHING)).items).toEqual([]);
  });

  test("a wrong password, or an owner who thinks again, changes nothing", async () => {
    await rejected(remove(desk, "not the password"), "login_failed");
    const thinking = deleteAccount(
      desk.home,
      desk.profile(),
      passwordOf(PASSWORD),
      testSurroundings(),
      async (left) => {
        expect(left).toEqual({ kept: 2, dropped: 1 });
        throw new Fault("interrupted", "not confirmed");
      },
    );
    await rejected(thinking, "interrupted");
    expect(await textOf(await desk.login(), "both")).toBe("in both places, newer");
  });

  for (const moment of ["before", "after"] as const) {
    test(`no answer ${moment} it was committed: the account is there, or gone, and the next command knows`, async () => {
      let down = false;
      world.between = (honest) => async (name, contentType, body, remote) => {
        if (down || name === "account.delete") {
          if (!down && moment === "after") await honest(name, contentType, body, remote);
          down = true;
          throw new Fault("bad_input", "no answer");
        }
        return honest(name, contentType, body, remote);
      };
      await rejected(remove(desk), "bad_input");
      world.between = null;
      if (moment === "before") {
        const client = await desk.login();
        expect(await textOf(client, "both")).toBe("in both places, newer");
        expect((await client.status()).sync?.pending).toBe(false);
        await client.close();
        await remove(desk);
      } else {
        const fault = await rejected(desk.login(), "login_failed");
        expect(fault.message).toContain("deleted by its owner");
      }
      expect((await localOf(desk)).values.size).toBe(2);
    });
  }

  test("only the answer is lost: it is asked for, and the command succeeds", async () => {
    let lost = false;
    world.between = (honest) => async (name, contentType, body, remote) => {
      const reply = await honest(name, contentType, body, remote);
      if (name !== "account.delete" || lost) return reply;
      lost = true;
      throw new Fault("bad_input", "no answer");
    };
    expect((await remove(desk)).kept).toBe(2);
    expect(lost).toBe(true);
  });

  test("a process that dies between the server's answer and its vault finds out at its next login", async () => {
    const copy = world.copyOf(desk);
    await remove(desk);
    const fault = await rejected(copy.login(), "login_failed");
    expect(fault.message).toContain("deleted by its owner");
    expect((await localOf(copy)).values.size).toBe(2);
  });

  for (const statement of ["appendAudit", "removeAccount", "putClosed", "putRequest"]) {
    test(`a server that fails at ${statement} leaves the account whole`, async () => {
      let failed = false;
      let armed = false;
      world.between =
        (honest) =>
        (name, ...rest) => {
          armed = name === "account.delete";
          return honest(name, ...rest);
        };
      world.hooked.hook = (method, args, run) => {
        if (!armed || failed || method !== statement) return run(...args);
        failed = true;
        throw new Error("cut");
      };
      await rejected(remove(desk), "internal");
      world.hooked.hook = null;
      expect(failed).toBe(true);
      world.server.faults.length = 0;
      expect(await textOf(await desk.login(), "server")).toBe("on the server alone");
      await remove(desk);
    });
  }

  test("a store of another device at the same moment comes before or not at all", async () => {
    const other = await phone.login();
    const [stored, deleted] = await Promise.allSettled([other.store(storing("race", "value")), remove(desk)]);
    expect(deleted.status).toBe("fulfilled");
    if (stored.status === "rejected") expect(stored.reason).toMatchObject({ code: "session_invalid" });
    await rejected(phone.login(), "login_failed");
  });
});

describe("another device of a deleted account", () => {
  test("learns when, by whom and from which device; its vault keeps what it has", async () => {
    const before = Date.now();
    await remove(desk);
    const fault = await rejected(phone.login(), "login_failed");
    expect(fault.exit).toBe(4);
    const day = /on (\S+)$/.exec(fault.message)?.[1] ?? "";
    expect(Date.parse(day)).toBeGreaterThanOrEqual(before - 1);
    expect(fault.why).toContain("this vault keeps 1 secrets, of 1 it had no copy");
    expect(fault.why).toContain("signed on the device");
    expect((await localOf(phone)).values).toEqual(new Map([["server", "on the server alone"]]));
    expect(phone.profile().server).toBeNull();
  });

  test("a wrong password says nothing of it", async () => {
    await remove(desk);
    const fault = await rejected(phone.login("not the password"), "login_failed");
    expect(fault.message).not.toContain("deleted");
    expect(phone.profile().server).not.toBeNull();
  });

  test("the administrator's removal looks like a wrong password, and takes nothing from the vault", async () => {
    const userId = desk.profile().userId as UserId;
    await world.server.store.transaction((tx) => tx.removeAccount(userId));
    const fault = await rejected(phone.login(), "login_failed");
    const wrong = await rejected(phone.login("not the password"), "login_failed");
    expect([fault.message, fault.why, fault.hint]).toEqual([wrong.message, wrong.why, wrong.hint]);
    const files = {
      profiles: phone.home.profiles,
      profile: phone.profile(),
      vault: vaultPath(phone.home, phone.profile()),
    };
    await rejected(detachProfile(files, passwordOf("not the password"), testSurroundings()), "wrong_password");
    await detachProfile(files, passwordOf(PASSWORD), testSurroundings());
    expect((await localOf(phone)).values.get("server")).toBe("on the server alone");
  });

  test("a last state that the owner did not sign is not believed, and the vault stays tied", async () => {
    const row = await world.server.store.transaction((tx) => tx.account(desk.profile().userId as UserId));
    if (!row) throw new Error("no account");
    const model = await phone.model();
    const bound = boundOf(model);
    const device = signerFromSeed(bound.deviceSeed);
    const state = {
      ...row.state.state,
      deviceId: bound.deviceId,
      revision: row.state.state.revision + 1,
      previous: row.stateHash,
      root: new Uint8Array(32),
      settingsHash: closedHash(row.userId),
    };
    const identity = signersOf(await desk.model()).identity;
    const honest = signState(state, identity, device);
    const other = signerFromSeed(random(32));
    const lies: Record<string, SignedState> = {
      "another identity": signState(state, other, device),
      "another device": signState(state, identity, other),
      "another state before": signState({ ...state, previous: random(32) }, identity, device),
      "no later revision": signState({ ...state, revision: bound.head.state.revision }, identity, device),
      "another account": signState({ ...state, userId: "0".repeat(32) as UserId }, identity, device),
      "another incarnation": signState({ ...state, incarnation: "0".repeat(32) as never }, identity, device),
      "living settings": signState({ ...state, settingsHash: settingsHash(row.settings) }, identity, device),
      "secrets left": signState({ ...state, root: row.state.state.root }, identity, device),
      "a cut signature": { ...honest, identitySignature: random(64) },
    };
    await world.server.store.transaction((tx) => tx.removeAccount(row.userId));
    let shown = honest;
    world.between = (forward) => async (name, contentType, body, remote) => {
      if (name !== "account.closed") return forward(name, contentType, body, remote);
      const reply = encodeJson(operations[name].output, { state: shown, closedAtMs: 1 });
      return { status: 200, contentType: "application/json", body: reply, outcome: "ok" };
    };
    for (const [what, lie] of Object.entries(lies)) {
      shown = lie;
      const fault = await rejected(phone.login(), "login_failed");
      expect([what, fault.why]).toEqual([what, expect.stringContaining("not signed by keys that this device knows")]);
      expect(phone.profile().server).not.toBeNull();
    }
    shown = honest;
    expect((await rejected(phone.login(), "login_failed")).message).toContain("deleted by its owner");
    expect(phone.profile().server).toBeNull();
  });

  test("one that does not know the newest keys is told so, and keeps its vault by asking for it", async () => {
    await renewAccount(
      desk.home,
      desk.profile(),
      passwordOf(PASSWORD),
      { next: null, revoke: null },
      testSurroundings(),
    );
    await remove(desk);
    const fault = await rejected(phone.login(), "login_failed");
    expect(fault.hint).toContain("keyhold vault detach");
    const files = {
      profiles: phone.home.profiles,
      profile: phone.profile(),
      vault: vaultPath(phone.home, phone.profile()),
    };
    expect(await detachProfile(files, passwordOf(PASSWORD), testSurroundings())).toEqual({ kept: 1, dropped: 1 });
  });
});

describe("account.closed", () => {
  const ask = (userId: UserId, deviceToken: Uint8Array) =>
    postInput(world.server, "account.closed", { userId, deviceToken });

  test("answers a device's token, and everything else alike with the same statements", async () => {
    const userId = desk.profile().userId as UserId;
    const token = phone.profile().deviceToken ?? random(32);
    expect(errorOf(await ask(userId, token)).code).toBe("not_found");
    await remove(desk);
    expect((await ask(userId, token)).status).toBe(200);
    const seen: { reply: string; lines: string }[] = [];
    for (const [id, one] of [
      [userId, random(32)],
      ["0".repeat(32) as UserId, token],
      ["f".repeat(32) as UserId, random(32)],
    ] as const) {
      const { lines, hook } = recorder();
      world.hooked.hook = hook;
      const reply = await ask(id, one);
      world.hooked.hook = null;
      seen.push({ reply: `${reply.status} ${String(reply.body)}`, lines: lines.join("\n") });
    }
    const living = await world.register("bob");
    const { lines, hook } = recorder();
    world.hooked.hook = hook;
    const reply = await ask(living.profile().userId as UserId, living.profile().deviceToken ?? random(32));
    world.hooked.hook = null;
    seen.push({ reply: `${reply.status} ${String(reply.body)}`, lines: lines.join("\n") });
    expect(new Set(seen.map((one) => JSON.stringify(one))).size).toBe(1);
    expect(seen[0]?.reply).toContain("not_found");
    expect(seen[0]?.lines).toBe("closed(32 characters, 32 bytes)");
  });
});
