import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { acceptRestore } from "../../src/client/adopt.ts";
import { deleteAccount } from "../../src/client/closing.ts";
import { detachProfile } from "../../src/client/detach.ts";
import { vaultPath } from "../../src/client/home.ts";
import { boundOf } from "../../src/client/model.ts";
import { changePassword } from "../../src/client/password.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { passwordOf, testSurroundings } from "../support/harness.ts";
import { asking, EVERYTHING, rejected, storing, textOf } from "../support/hostile.ts";

/** What waits in a vault outlives whatever becomes of the account meanwhile. */

const NEXT = "another password of ada";
let world: AccountWorld;
let desk: Person;
let phone: Person;

beforeEach(async () => {
  world = await openAccountWorld();
  desk = await world.register("ada");
  const client = await desk.login();
  await client.store(storing("a", "first"));
  await client.store(storing("there", "on the server alone", { where: "server" }));
  await client.close();
  phone = await world.another("ada");
  const other = await phone.login();
  await other.sync();
  await other.get(asking("a", { save: true }));
  await other.close();
});
afterEach(async () => {
  expect(world.server.faults).toEqual([]);
  await world.close();
});

/** Writes on a device without the server. */
async function queue(person: Person, password = PASSWORD): Promise<void> {
  const client = await person.offline(password);
  expect((await client.store(storing("a", "second"))).queued).toBe(true);
  await client.store(storing("new", "n1", { tags: ["t"] }));
  await client.store(storing("new", "n2"));
  await client.store(storing("there", "written over"));
  await client.close();
}

const text = (value: Uint8Array | null): string => new TextDecoder().decode(value ?? undefined);

async function arrived(person: Person, password: string): Promise<void> {
  const client = await person.login(password);
  expect(await textOf(client, "a")).toBe("second");
  expect(await textOf(client, "new")).toBe("n2");
  expect(await textOf(client, "new", 1)).toBe("n1");
  expect(await textOf(client, "there")).toBe("written over");
  expect((await client.status()).sync).toMatchObject({ queued: 0, conflicts: [] });
  expect((await client.auditVerify()).ok).toBe(true);
  await client.close();
}

/** What a vault without a server has. */
async function left(person: Person): Promise<string[]> {
  const client = await person.offline();
  const { items } = await client.list({ ...EVERYTHING, fresh: false });
  const all: string[] = [];
  for (const { name, version, where } of items) {
    all.push(`${name} ${version} ${where} ${text((await client.get(asking(name))).value)}`);
  }
  await client.close();
  return all;
}

test("the password is changed on another device: the next login sends it", async () => {
  await queue(phone);
  const passwords = { old: passwordOf(PASSWORD), next: passwordOf(NEXT) };
  await changePassword(desk.home, desk.profile(), passwords, testSurroundings());
  await arrived(phone, NEXT);
});

test("the account's keys are renewed elsewhere: what waits opens with the new ones alone", async () => {
  await queue(phone);
  await renewAccount(desk.home, desk.profile(), passwordOf(PASSWORD), { next: null, revoke: null }, testSurroundings());
  const before = (await phone.model()).queue;
  // the vault follows; nothing is asked for yet
  await (await phone.login()).close();
  const model = await phone.model();
  expect(model.queue.map(({ id }) => id)).toEqual(before.map(({ id }) => id));
  expect(model.queue.every(({ sealed }, i) => sealed?.toHex() !== before[i]?.sealed?.toHex())).toBe(true);
  model.older = [];
  const { openEntry } = await import("../../src/client/queue.ts");
  expect(model.queue.map((entry) => text(openEntry([model.keys.record], model.owner, entry)))).toEqual([
    "second",
    "n1",
    "n2",
    "written over",
  ]);
  await arrived(phone, PASSWORD);
});

test("the device itself renews the keys with changes waiting: they are sent first", async () => {
  await queue(phone);
  await renewAccount(
    phone.home,
    phone.profile(),
    passwordOf(PASSWORD),
    { next: null, revoke: null },
    testSurroundings(),
  );
  await arrived(phone, PASSWORD);
});

test("the device is revoked: nothing of it is sent, and detaching keeps it", async () => {
  await queue(phone);
  await (await desk.login()).sync();
  const revoke = boundOf(await phone.model()).deviceId;
  await renewAccount(desk.home, desk.profile(), passwordOf(PASSWORD), { next: null, revoke }, testSurroundings());
  const fault = await rejected(phone.login(), "denied");
  expect(fault.hint).toContain("keyhold vault detach");
  const counts = await detachProfile(
    { profiles: phone.home.profiles, profile: phone.profile(), vault: vaultPath(phone.home, phone.profile()) },
    passwordOf(PASSWORD),
    testSurroundings(),
  );
  expect(counts).toEqual({ kept: 3, dropped: 0 });
  expect(await left(phone)).toEqual(["a 2 local second", "new 2 local n2", "there 1 local written over"]);
  const client = await phone.offline();
  expect(text((await client.get(asking("a", { version: 1 }))).value)).toBe("first");
  expect(text((await client.get(asking("new", { version: 1 }))).value)).toBe("n1");
  expect((await client.store(storing("a", "third"))).queued).toBe(false);
  await client.close();
  expect((await phone.model()).queue).toEqual([]);
});

test("the account is deleted with changes waiting: they stay in the vault, and never reach the server", async () => {
  await queue(phone);
  const stores: string[] = [];
  world.between =
    (handle) =>
    (name, ...rest) => {
      stores.push(name);
      return handle(name, ...rest);
    };
  const done = await deleteAccount(phone.home, phone.profile(), passwordOf(PASSWORD), testSurroundings());
  expect([done.kept, done.dropped]).toEqual([3, 0]);
  expect(stores).not.toContain("secret.store");
  expect(await left(phone)).toEqual(["a 2 local second", "new 2 local n2", "there 1 local written over"]);
});

test("the server is restored: what waits goes on from what was given back", async () => {
  const backup = join(world.file.directory, "backup.db");
  await world.server.store.backup(backup);
  const client = await desk.login();
  await client.store(storing("a", "after the backup"));
  await client.close();
  const other = await phone.login();
  await other.sync();
  await other.get(asking("a", { save: true }));
  await other.close();
  await queue(phone);
  await world.restore(backup);
  await rejected(phone.login(), "integrity");
  const adopted = await acceptRestore(phone.home, phone.profile(), passwordOf(PASSWORD), testSurroundings());
  expect(adopted.uploaded).toEqual(["a"]);
  const model = await phone.model();
  expect(model.queue).toHaveLength(4);
  const after = await phone.login();
  expect((await after.sync()).conflicts).toBe(0);
  expect(await textOf(after, "a")).toBe("second");
  expect(await textOf(after, "a", 2)).toBe("after the backup");
  expect(await textOf(after, "new")).toBe("n2");
  expect((await after.status()).sync).toMatchObject({ queued: 0, conflicts: [] });
  await after.close();
});
