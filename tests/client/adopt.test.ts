import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { acceptRestore } from "../../src/client/adopt.ts";
import { createClient } from "../../src/client/client.ts";
import { detachProfile } from "../../src/client/detach.ts";
import { loginNewDevice } from "../../src/client/enrol.ts";
import { logInFreshly, vaultPath } from "../../src/client/home.ts";
import type { Surroundings } from "../../src/client/model.ts";
import { changePassword } from "../../src/client/password.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { readPending } from "../../src/client/vaultfile.ts";
import { checkServer } from "../../src/server/check.ts";
import type { Handle } from "../../src/server.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { passwordOf, type TestServer, testSurroundings } from "../support/harness.ts";
import { asking, EVERYTHING, rejected, storing, textOf } from "../support/hostile.ts";

/** Going on with a server that was restored from a backup (docs/protocol.md §6.5). */

const NEXT = "another password of ada";
let world: AccountWorld;
let ada: Person;
let backup: string;

beforeEach(async () => {
  world = await openAccountWorld();
  ada = await world.register("ada");
  await (await ada.login()).store(storing("kept", "kept 1"));
  await (await ada.login()).store(storing("changed", "changed 1"));
  backup = join(world.file.directory, "backup.db");
  await world.server.store.backup(backup);
});
afterEach(async () => {
  await world.close();
  expect(world.server.faults).toEqual([]);
});

/** Time passes only where the client pauses, and there at once. */
function unhurried(): Surroundings {
  let offset = 0;
  const pause = async (ms: number) => {
    offset += ms;
  };
  return { ...testSurroundings(), now: () => Date.now() + offset, pause };
}

const accept = (person: Person, password = PASSWORD, around = testSurroundings()) =>
  acceptRestore(person.home, person.profile(), passwordOf(password), around);
const edit = async (person: Person, ...pairs: [string, string][]) => {
  const client = await person.login();
  for (const [name, value] of pairs) await client.store(storing(name, value));
};
const names = async (person: Person, password = PASSWORD) =>
  (await (await person.login(password)).list(EVERYTHING)).items.map(({ name }) => name).sort();
const inputOf = (person: Person, password: string) => {
  const { server, account } = person.profile();
  if (!server || !account) throw new Error("no server");
  return {
    profile: "default",
    server: { url: server.url, pin: server.pin, tlsCaPem: null },
    account,
    password: passwordOf(password),
    kdf: "test" as const,
  };
};

describe("cut short", () => {
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
  const cuts = [1, 2, 3, 4, 5, 6, 7].flatMap((nth) =>
    (["before", "after"] as const).map((when) => [nth, when] as const),
  );

  test.each(cuts)(
    "at request %d, %s the server has it: the same call completes it, with one version of each",
    async (nth, when) => {
      await edit(ada, ["changed", "changed 2"], ["later", "later 1"]);
      await (await ada.login()).remove({ name: "kept", purge: false });
      await world.restore(backup);
      const { seen } = dying(nth, when);
      await rejected(accept(ada, PASSWORD, unhurried()), "unavailable", "outcome_unknown", "unreachable", "storage");
      expect(seen.length).toBeGreaterThanOrEqual(nth);
      world.between = null;
      // until then the vault is as it was
      await rejected(ada.login(), "integrity");
      const done = await accept(ada);
      expect(done.lost).toEqual([]);
      expect(await names(ada)).toEqual(["changed", "later"]);
      const client = await ada.login();
      expect(await textOf(client, "changed")).toBe("changed 2");
      expect(await textOf(client, "later")).toBe("later 1");
      // what a call that was cut short gave back is not given back twice
      expect((await client.history({ name: "later" })).items).toHaveLength(1);
      expect((await client.auditVerify()).ok).toBe(true);
    },
  );
});

describe("who is believed", () => {
  test("a claim alone moves no device, whatever it asks", async () => {
    const back = await world.restore(backup);
    const client = ada.login();
    await rejected(client, "integrity");
    await rejected(world.another("nobody"), "login_failed");
    expect(await back.store.transaction((tx) => tx.counts(Date.now(), 0))).toMatchObject({ accounts: 1 });
  });

  test("without a restore the call changes nothing", async () => {
    await rejected(accept(ada), "bad_input");
    expect(await names(ada)).toEqual(["changed", "kept"]);
  });

  test("each restore needs the word anew; a device that slept through one waits for another to go ahead", async () => {
    await edit(ada, ["later", "later 1"]);
    const twin = world.copyOf(ada);
    const back = await world.restore(backup);
    await accept(ada);
    const other = join(world.file.directory, "other.db");
    await back.store.backup(other);
    await world.restore(other);
    await rejected(ada.login(), "integrity");
    // its newest state is of an incarnation that this device never saw, and that the server no longer is
    await rejected(accept(twin), "integrity");
    await accept(ada);
    expect((await accept(twin)).lost).toEqual([]);
    for (const person of [ada, twin]) expect(await names(person)).toEqual(["changed", "kept", "later"]);
  });
});

describe("what a restore brings back", () => {
  test("an older password: it opens the account again, and the vault takes it", async () => {
    await changePassword(
      ada.home,
      ada.profile(),
      { old: passwordOf(PASSWORD), next: passwordOf(NEXT) },
      testSurroundings(),
    );
    await (await ada.login(NEXT)).store(storing("later", "later 1"));
    await world.restore(backup);
    await rejected(accept(ada, NEXT), "login_failed");
    const done = await accept(ada);
    expect(done.uploaded).toEqual(["later"]);
    await (await ada.offline()).close();
    await rejected(ada.offline(NEXT), "wrong_password");
    expect(await textOf(await ada.login(), "later")).toBe("later 1");
  });

  test("older keys than a rotation: refused with a way on, which is one", async () => {
    await edit(ada, ["later", "later 1"]);
    await renewAccount(ada.home, ada.profile(), passwordOf(PASSWORD), { next: null, revoke: null }, testSurroundings());
    await world.restore(backup);
    const fault = await rejected(accept(ada), "integrity");
    expect(fault.hint).toContain("vault detach");
    const files = { profiles: ada.home.profiles, profile: ada.profile(), vault: vaultPath(ada.home, ada.profile()) };
    const input = inputOf(ada, PASSWORD);
    expect((await detachProfile(files, passwordOf(PASSWORD), testSurroundings())).kept).toBe(3);
    const local = await ada.offline();
    expect((await local.get(asking("later"))).value).toEqual(passwordOf("later 1"));
    const { client } = await loginNewDevice(ada.home, { ...input, profile: "second" }, testSurroundings());
    await client.store(storing("later", "later 1"));
    expect(await textOf(client, "kept")).toBe("kept 1");
    await client.close();
  });

  test("older keys and an older password: the same way", async () => {
    await renewAccount(
      ada.home,
      ada.profile(),
      passwordOf(PASSWORD),
      { next: passwordOf(NEXT), revoke: null },
      testSurroundings(),
    );
    await world.restore(backup);
    const fault = await rejected(accept(ada), "integrity");
    expect(fault.hint).toContain("vault detach");
    const files = { profiles: ada.home.profiles, profile: ada.profile(), vault: vaultPath(ada.home, ada.profile()) };
    const input = inputOf(ada, PASSWORD);
    expect((await detachProfile(files, passwordOf(NEXT), testSurroundings())).kept).toBe(2);
    const { client } = await loginNewDevice(ada.home, { ...input, profile: "second" }, testSurroundings());
    expect(await textOf(client, "kept")).toBe("kept 1");
    await client.close();
  });

  test("no trace of a pending request: its values are given back", async () => {
    world.between =
      (honest): Handle =>
      async (name, ...rest) => {
        if (!name.startsWith("secret.store")) return honest(name, ...rest);
        const body = `{"code":"unavailable","message":"away","retryAfterMs":null}`;
        return { status: 503, contentType: "application/json", body, outcome: "dropped" };
      };
    const fresh = await logInFreshly(ada.home, ada.profile(), passwordOf(PASSWORD), unhurried());
    const client = createClient(fresh.open, { profile: "default", server: null }, async () => undefined);
    await rejected(client.store(storing("pending", "pending 1")), "outcome_unknown", "unavailable");
    world.between = null;
    expect(readPending(vaultPath(ada.home, ada.profile()))).not.toBeNull();
    await world.restore(backup);
    expect((await accept(ada)).uploaded).toEqual(["pending"]);
    expect(readPending(vaultPath(ada.home, ada.profile()))).toBeNull();
    expect(await textOf(await ada.login(), "pending")).toBe("pending 1");
  });
});

describe("several devices", () => {
  test("at once: each gives back what it has, and nothing is there twice", async () => {
    const phone = await world.another("ada");
    await edit(ada, ["changed", "changed 2"], ["from/ada", "1"]);
    await edit(phone, ["from/phone", "1"]);
    const back = await world.restore(backup);
    await Promise.all([accept(ada), accept(phone)]);
    for (const person of [ada, phone]) {
      expect(await names(person)).toEqual(["changed", "from/ada", "from/phone", "kept"]);
      expect(await textOf(await person.login(), "changed")).toBe("changed 2");
    }
    await sound(back);
  });

  test("one that comes later does not undo what was changed since", async () => {
    const phone = await world.another("ada");
    await edit(phone, ["changed", "changed 2"]);
    await world.restore(backup);
    await accept(phone);
    await edit(phone, ["changed", "changed 3"]);
    await accept(ada);
    expect(await textOf(await ada.login(), "changed")).toBe("changed 3");
  });
});

test("many secrets and large values go back in several requests", async () => {
  const client = await ada.login();
  const large = "x".repeat(60_000);
  for (let i = 0; i < 4; i++) await client.store(storing(`large/${i}`, `${large}${i}`));
  await client.importItems({
    items: Array.from({ length: 120 }, (_, i) => ({
      ...{ name: `n/${i}`, type: "note" as const, value: passwordOf(String(i)), tags: [] },
      createdAt: null,
    })),
    ...{ prefix: "", dryRun: false, origin: "json", where: null },
  });
  const back = await world.restore(backup);
  const done = await accept(ada);
  expect(done.uploaded).toHaveLength(124);
  expect(await names(ada)).toHaveLength(126);
  expect(await textOf(await ada.login(), "large/3")).toBe(`${large}3`);
  await sound(back);
}, 30_000);

test("an account that was not adopted yet is sound to the server's check, also after a second restore", async () => {
  const back = await world.restore(backup);
  await sound(back);
  const again = join(world.file.directory, "again.db");
  await back.store.backup(again);
  await sound(await world.restore(again));
  await accept(ada);
  rmSync(again, { force: true });
});

async function sound(server: TestServer): Promise<void> {
  await server.logbook.flush();
  const { items } = await checkServer(server.ctx);
  expect(items.filter(({ ok }) => !ok)).toEqual([]);
}
