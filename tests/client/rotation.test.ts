import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { KeyholdClient } from "../../src/client/api.ts";
import { vaultPath } from "../../src/client/home.ts";
import { makeRecoveryKit } from "../../src/client/kit.ts";
import { boundOf, type Model } from "../../src/client/model.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { readPreviousVaultFile, readVaultFile } from "../../src/client/vaultfile.ts";
import type { AadContext } from "../../src/crypto/aead.ts";
import { open as openSealed } from "../../src/crypto/aead.ts";
import { Fault } from "../../src/errors.ts";
import type { KeyId, UserId } from "../../src/ids.ts";
import { accountKeys } from "../../src/protocol/account.ts";
import { kitEntropy, kitKeys, openWithKit } from "../../src/protocol/kit.ts";
import { openVaultWithAccountKey, openVaultWithKey, openVaultWithPassword } from "../../src/protocol/vault.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { passwordOf, testSurroundings } from "../support/harness.ts";
import { asking, EVERYTHING, rejected, storing, textOf } from "../support/hostile.ts";

const NEXT = "another password of ada";

let world: AccountWorld;
let desk: Person;

beforeEach(async () => {
  world = await openAccountWorld();
  desk = await world.register("ada");
});
afterEach(async () => {
  expect(world.server.faults).toEqual([]);
  await world.close();
});

/** How many wrapped keys the server holds in all, and how many an account key opens. */
function openedBy(accountKey: Uint8Array, userId: UserId): { total: number; opened: number } {
  const { index, record } = accountKeys(accountKey, userId);
  const metas = world.file.sql<{ key_id: Uint8Array; serial: number; meta: Uint8Array }>(
    "SELECT key_id, serial, meta FROM leaf WHERE meta IS NOT NULL",
  );
  const values = world.file.sql<{ key_id: Uint8Array; version: number; sealed: Uint8Array }>(
    "SELECT key_id, version, sealed FROM sealed_value",
  );
  const opens = (key: Uint8Array, context: AadContext, sealed: Uint8Array): boolean => {
    try {
      return openSealed(key, context, sealed.subarray(0, 73)).length === 32;
    } catch {
      return false;
    }
  };
  const keyId = (row: { key_id: Uint8Array }) => row.key_id.toHex() as KeyId;
  const opened =
    metas.filter((row) => opens(index, { kind: "meta-key", userId, keyId: keyId(row), serial: row.serial }, row.meta))
      .length +
    values.filter((row) =>
      opens(record, { kind: "data-key", userId, keyId: keyId(row), version: row.version }, row.sealed),
    ).length;
  return { total: metas.length + values.length, opened };
}

/** How many wrapped keys of what a vault itself keeps an account key opens. */
function keptOpenedBy({ secrets, owner }: Model, accountKey: Uint8Array): number {
  const { record, index } = accountKeys(accountKey, owner);
  let opened = 0;
  const count = (key: Uint8Array, context: AadContext, sealed: Uint8Array | null) => {
    try {
      if (sealed && openSealed(key, context, sealed.subarray(0, 73)).length === 32) opened += 1;
    } catch {
      // another key's
    }
  };
  for (const [keyId, secret] of secrets) {
    const at = { userId: owner, keyId };
    const leaves = secret.place === "local" ? secret.leaves : [secret.leaf];
    for (const { serial, meta } of leaves) count(index, { kind: "meta-key", ...at, serial }, meta);
    const values = secret.place === "local" ? secret.values : [{ version: secret.leaf.version, sealed: secret.sealed }];
    for (const { version, sealed } of values) count(record, { kind: "data-key", ...at, version }, sealed);
  }
  return opened;
}

async function fill(client: KeyholdClient): Promise<void> {
  await client.store(storing("a", "a, first"));
  await client.store(storing("a", "a, second"));
  await client.store(storing("b", "b", { where: "server" }));
  await client.store(storing("here", "here alone", { where: "local" }));
  await client.store(storing("gone", "gone"));
  await client.remove({ name: "gone", purge: true });
  await client.store(storing("removed", "removed"));
  await client.remove({ name: "removed", purge: false });
}

async function expectAll(client: KeyholdClient, local = true): Promise<void> {
  expect(await textOf(client, "a")).toBe("a, second");
  expect(await textOf(client, "a", 1)).toBe("a, first");
  expect(await textOf(client, "b")).toBe("b");
  if (local) expect(await textOf(client, "here")).toBe("here alone");
  const { items } = await client.history({ name: "removed" });
  expect(items.map(({ name, status }) => [name, status])).toEqual([
    ["removed", "live"],
    ["removed", "removed"],
  ]);
  expect((await client.auditVerify()).ok).toBe(true);
}

/** What the vault has of a value, without the server. */
const kept = async (client: KeyholdClient, name: string): Promise<string> =>
  new TextDecoder().decode((await client.get(asking(name, { fresh: false }))).value ?? undefined);

const renew = (person: Person, more: { next?: string; revoke?: string; password?: string } = {}) =>
  renewAccount(
    person.home,
    person.profile(),
    passwordOf(more.password ?? PASSWORD),
    { next: more.next === undefined ? null : passwordOf(more.next), revoke: more.revoke ?? null },
    testSurroundings(person.notices),
  );

const revisionOf = async (person: Person, password?: string) =>
  (await person.model(password)).bound?.head.state.revision ?? 0;

describe("a rotation", () => {
  test("everything opens as before, and nothing on the server with the old key; the log is whole", async () => {
    const client = await desk.login();
    await fill(client);
    await client.close();
    const { accountKey, owner } = await desk.model();
    const before = openedBy(accountKey, owner);
    expect(before.opened).toBe(before.total);
    const path = vaultPath(desk.home, desk.profile());
    const oldVault = openVaultWithAccountKey(readVaultFile(path) ?? new Uint8Array(), accountKey).vault;

    const { rewrapped, revoked } = await renew(desk);
    expect([rewrapped, revoked]).toEqual([before.total, null]);
    expect(openedBy(accountKey, owner)).toEqual({ total: before.total, opened: 0 });
    const now = await desk.model();
    expect(Buffer.compare(now.accountKey, accountKey)).not.toBe(0);
    expect(openedBy(now.accountKey, owner)).toEqual(before);
    expect(now.bound?.rewrapping).toBeNull();
    // the vault has a new key too, and its own values are wrapped anew
    const bytes = readVaultFile(path) ?? new Uint8Array();
    expect(() => openVaultWithAccountKey(bytes, accountKey)).toThrow();
    expect(() => openVaultWithKey(bytes, oldVault.key)).toThrow();
    const previous = readPreviousVaultFile(path);
    if (previous) expect(() => openVaultWithKey(previous, oldVault.key)).toThrow();
    expect(keptOpenedBy(now, accountKey)).toBe(0);
    expect(keptOpenedBy(now, now.accountKey)).toBe(7);

    const again = await desk.login();
    await expectAll(again);
    await again.store(storing("after", "after"));
    expect(await textOf(again, "after")).toBe("after");
    expect((await again.devices()).items.map(({ name }) => name.length > 0)).toEqual([true]);
  });

  test("with a new password: the old one opens neither account nor vault", async () => {
    await fill(await desk.login());
    await renew(desk, { next: NEXT });
    await rejected(desk.login(), "login_failed");
    await rejected(desk.offline(), "wrong_password");
    await expectAll(await desk.login(NEXT));
    expect(await kept(await desk.offline(NEXT), "here")).toBe("here alone");
  });

  test("again and again: all values are read, the newest key alone opens them", async () => {
    await fill(await desk.login());
    const first = (await desk.model()).accountKey;
    for (let i = 0; i < 3; i++) await renew(desk);
    const { accountKey, owner, bound } = await desk.model();
    expect(bound?.settings.rotations.length).toBe(3);
    expect(openedBy(first, owner).opened).toBe(0);
    const { total, opened } = openedBy(accountKey, owner);
    expect(opened).toBe(total);
    await expectAll(await desk.login());
    // a new device learns all of it by the password alone
    await expectAll(await (await world.another("ada")).login(), false);
  });

  test("the recovery kit opens the account as before, and nothing older with it", async () => {
    const { kit } = await makeRecoveryKit(desk.home, desk.profile(), passwordOf(PASSWORD), testSurroundings());
    const keys = await kitKeys(kitEntropy(kit.words.join(" ")));
    const before = boundOf(await desk.model()).settings;
    for (let i = 0; i < 2; i++) await renew(desk);
    const { accountKey, owner, bound } = await desk.model();
    expect(await openWithKit(keys, owner, bound?.settings ?? before)).toEqual(accountKey);
    expect(bound?.settings.kit).toEqual(before.kit);
    expect(bound?.settings.kitWrapped).not.toEqual(before.kitWrapped);
  });

  test("a wrong password, and a profile without a server, change nothing", async () => {
    const before = await revisionOf(desk);
    await rejected(renew(desk, { password: "not the password" }), "login_failed");
    expect(await revisionOf(desk)).toBe(before);
  });
});

describe("the other devices", () => {
  for (const next of [undefined, NEXT]) {
    test(`follow at their next login (${next ? "another" : "the same"} password); sessions end at once`, async () => {
      const phone = await world.another("ada");
      await fill(await desk.login());
      const open = await phone.login();
      await open.sync();
      await open.get(asking("b", { save: true }));
      await open.store(storing("phone only", "on the phone alone", { where: "local" }));
      const agent = await desk.login();
      const old = await phone.model();

      await renew(desk, next === undefined ? {} : { next });
      for (const client of [open, agent]) {
        const fault = await rejected(client.store(storing("x", "x", { where: "server" })), "session_invalid", "locked");
        expect(fault.exit).toBe(4);
        expect(fault.hint).toMatch(/keyhold (login|unlock)/);
      }
      // without the server the vault opens with the password of its time
      expect(await kept(await phone.offline(), "phone only")).toBe("on the phone alone");

      const client = await phone.login(next);
      expect(phone.notices.join("\n")).toContain("the account's keys were renewed");
      await expectAll(client, false);
      expect(await textOf(client, "phone only")).toBe("on the phone alone");
      await client.store(storing("from the phone", "written after"));
      await client.close();
      const now = await phone.model(next);
      expect(now.bound?.rewrapping).toBeNull();
      expect(Buffer.compare(now.accountKey, old.accountKey)).not.toBe(0);
      const bytes = readVaultFile(vaultPath(phone.home, phone.profile())) ?? new Uint8Array();
      expect(() => openVaultWithAccountKey(bytes, old.accountKey)).toThrow();
      if (next) {
        const opening = openVaultWithPassword(bytes, passwordOf(PASSWORD), { allowTestKdf: true });
        await rejected(opening, "wrong_password");
      }
      expect(await kept(await phone.offline(next), "b")).toBe("b");
      expect(await textOf(await desk.login(next), "from the phone")).toBe("written after");
    });
  }

  test("one that slept through several rotations and changes follows them all", async () => {
    const phone = await world.another("ada");
    await fill(await desk.login());
    for (let i = 0; i < 3; i++) {
      await renew(desk);
      await (await desk.login()).store(storing(`after ${i}`, `value ${i}`));
    }
    await world.another("ada");
    const client = await phone.login();
    await expectAll(client, false);
    for (let i = 0; i < 3; i++) expect(await textOf(client, `after ${i}`)).toBe(`value ${i}`);
    expect(phone.notices.join("\n")).toContain("a new device was added");
  });

  test("two commands of a device follow at once", async () => {
    const phone = await world.another("ada");
    await fill(await desk.login());
    await renew(desk);
    const clients = await Promise.all([phone.login(), phone.login()]);
    // the one whose vault the other gave a new key says so, and works the next time
    const listed = await Promise.allSettled(clients.map((client) => client.list(EVERYTHING)));
    expect(listed.some(({ status }) => status === "fulfilled")).toBe(true);
    for (const one of listed) if (one.status === "rejected") expect(one.reason).toMatchObject({ code: "locked" });
    await expectAll(await phone.login(), false);
  });

  test("two devices renew at once: one does, the other is told; both go on", async () => {
    const phone = await world.another("ada");
    await fill(await desk.login());
    const done = await Promise.allSettled([
      renew(desk, { next: "password of the desk" }),
      renew(phone, { next: NEXT }),
    ]);
    const won = done.map(({ status }) => status === "fulfilled");
    expect(won.filter(Boolean).length).toBe(1);
    for (const one of done) {
      if (one.status === "rejected") expect([3, 4, 6]).toContain(one.reason.exit);
    }
    const password = won[0] ? "password of the desk" : NEXT;
    for (const person of [desk, phone]) {
      const client = await person.login(password);
      await expectAll(client, person === desk);
      await client.store(storing(`by ${person === desk}`, "value"));
    }
    const { accountKey, owner } = await desk.model(password);
    const { total, opened } = openedBy(accountKey, owner);
    expect(opened).toBe(total);
  });

  test("a store whose outcome another device's rotation left unknown is told, and nothing is lost", async () => {
    const phone = await world.another("ada");
    const client = await phone.login();
    let lost = false;
    world.between = (honest) => async (name, contentType, body, remote) => {
      if (name !== "secret.store") return honest(name, contentType, body, remote);
      if (!lost) {
        lost = true;
        world.between = null;
        await renew(desk);
      }
      return honest(name, contentType, body, remote);
    };
    const fault = await rejected(client.store(storing("x", "value of x")), "session_invalid", "locked");
    expect(fault.exit).toBe(4);
    await client.close();
    const later = await phone.login();
    await later.sync();
    expect(phone.notices.join("\n")).toContain("an earlier change was not made (secret.store)");
    await rejected(later.get(asking("x")), "not_found");
    await later.store(storing("x", "value of x"));
    expect(await textOf(await desk.login(), "x")).toBe("value of x");
  });
});

describe("cut short", () => {
  const RESUMED = ["account.rotate", "account.wraps", "account.rewrap"] as const;
  for (const operation of RESUMED) {
    for (const moment of ["before", "after"] as const) {
      test(`${operation} gets no answer ${moment} it ran: the next command goes on`, async () => {
        const phone = await world.another("ada");
        const filling = await desk.login();
        await fill(filling);
        await filling.close();
        const old = await desk.model();
        world.between = (honest) => async (name, contentType, body, remote) => {
          if (name !== operation) return honest(name, contentType, body, remote);
          if (moment === "after") await honest(name, contentType, body, remote);
          // as a killed client or server: no answer, to this or anything after
          world.between = () => async () => {
            throw new Fault("bad_input", "no answer");
          };
          throw new Fault("bad_input", "no answer");
        };
        await rejected(renew(desk, { next: NEXT }), "bad_input", "outcome_unknown", "integrity");
        world.between = null;
        const committed = operation !== "account.rotate" || moment === "after";
        // either the old or the new password works, for both devices
        const password = committed ? NEXT : PASSWORD;
        await rejected(desk.login(committed ? PASSWORD : NEXT), "login_failed");
        const client = await desk.login(password);
        if (committed) expect((await client.status()).sync?.rewrapping).toBe(true);
        await expectAll(client);
        expect((await client.status()).sync).toMatchObject({ rewrapping: false, pending: false });
        await client.close();
        const after = await desk.login(NEXT);
        await expectAll(after);
        await after.close();
        const { accountKey, owner } = await desk.model(NEXT);
        expect(openedBy(old.accountKey, owner).opened).toBe(0);
        const { total, opened } = openedBy(accountKey, owner);
        expect(opened).toBe(total);
        await expectAll(await phone.login(NEXT), false);
      });
    }
  }

  test("renewing again instead goes on where it stopped, before it renews", async () => {
    const filling = await desk.login();
    await fill(filling);
    await filling.close();
    const first = await desk.model();
    const seen: string[] = [];
    world.between =
      (honest) =>
      (name, ...rest) => {
        seen.push(name);
        if (name !== "account.rewrap") return honest(name, ...rest);
        throw new Fault("bad_input", "no answer");
      };
    await rejected(renew(desk), "bad_input");
    expect((await desk.model()).bound?.rewrapping).not.toBeNull();
    seen.length = 0;
    world.between =
      (honest) =>
      (name, ...rest) => {
        seen.push(name);
        return honest(name, ...rest);
      };
    await renew(desk);
    expect(seen.indexOf("account.rewrap")).toBeLessThan(seen.indexOf("account.rotate"));
    expect(seen.lastIndexOf("account.rewrap")).toBeGreaterThan(seen.indexOf("account.rotate"));
    const { accountKey, owner } = await desk.model();
    expect(openedBy(first.accountKey, owner).opened).toBe(0);
    const { total, opened } = openedBy(accountKey, owner);
    expect(opened).toBe(total);
    await expectAll(await desk.login());
  });

  test("where the device that renewed is gone for good, a new one goes on", async () => {
    const filling = await desk.login();
    await fill(filling);
    await filling.close();
    const { accountKey, owner } = await desk.model();
    world.between =
      (honest) =>
      (name, ...rest) => {
        if (name !== "account.wraps") return honest(name, ...rest);
        throw new Fault("bad_input", "no answer");
      };
    await rejected(renew(desk), "bad_input");
    world.between = null;
    expect(openedBy(accountKey, owner).opened).toBeGreaterThan(0);
    const tablet = await world.another("ada");
    await expectAll(await tablet.login(), false);
    expect(openedBy(accountKey, owner).opened).toBe(0);
  });

  test("a wrapped key that the server damaged is told, hinders nothing else, and is tampering to who reads it", async () => {
    const filling = await desk.login();
    await fill(filling);
    await filling.close();
    const first = await desk.model();
    world.file.sql(
      "UPDATE sealed_value SET sealed = CAST(zeroblob(73) || substr(sealed, 74) AS BLOB) WHERE version = 2",
    );
    await renew(desk);
    expect(desk.notices.join("\n")).toContain("1 wrapped keys on the server open with no key");
    expect(keptOpenedBy(await desk.model(), first.accountKey)).toBe(0);
    const client = await desk.login();
    await rejected(client.get(asking("a")), "integrity");
    expect(await textOf(client, "a", 1)).toBe("a, first");
    expect(await textOf(client, "b")).toBe("b");
  });

  test("an old session finds a rotation pending that was never made: it is refused, and the old key stays", async () => {
    const agent = await desk.login();
    await agent.store(storing("a", "value"));
    world.between = (honest) => async (name, contentType, body, remote) => {
      if (name !== "account.rotate") return honest(name, contentType, body, remote);
      throw new Fault("bad_input", "no answer");
    };
    await rejected(renew(desk), "bad_input", "outcome_unknown", "integrity");
    world.between = null;
    world.server.advance(10 * 60_000);
    expect(await textOf(agent, "a")).toBe("value");
    expect(desk.notices.join("\n")).toContain("an earlier change was not made (account.rotate): denied");
    expect((await desk.model()).bound?.settings.rotations).toEqual([]);
  });
});
