import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { acceptRestore } from "../../src/client/adopt.ts";
import { loginProfile } from "../../src/client/home.ts";
import { makeRecoveryKit } from "../../src/client/kit.ts";
import { boundOf } from "../../src/client/model.ts";
import { auditLink } from "../../src/protocol/audit.ts";
import type { Reply } from "../../src/server/dispatch.ts";
import type { Handle } from "../../src/server.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { type Middle, passwordOf, startTestServer, type TestServer, testSurroundings } from "../support/harness.ts";
import { asking, EVERYTHING, editing, rejected, storing, textOf } from "../support/hostile.ts";

/** What devices that know different things make of a restored server, and what a claimed restore cannot smuggle in. */

let world: AccountWorld;
let ada: Person;
let phone: Person;

beforeEach(async () => {
  world = await openAccountWorld();
  ada = await world.register("ada");
  await edit(ada, ["changed", "changed 1"], ["gone", "gone 1"]);
  phone = await world.another("ada");
  await synced(phone);
});
afterEach(async () => {
  await world.close();
  expect(world.server.faults).toEqual([]);
});

const accept = (person: Person, notices: string[] = []) =>
  acceptRestore(person.home, person.profile(), passwordOf(PASSWORD), testSurroundings(notices));

async function edit(person: Person, ...pairs: [string, string][]): Promise<void> {
  const client = await person.login();
  for (const [name, value] of pairs)
    await client.store(storing(name, value, { where: "both", replace: true } as never));
}

async function synced(person: Person): Promise<void> {
  await (await person.login()).sync();
}

async function saved(name = "backup.db"): Promise<string> {
  const path = join(world.file.directory, name);
  await world.server.store.backup(path);
  return path;
}

/** Puts a middle between clients and the server of now. */
function between(middle: Middle): void {
  world.between =
    (honest): Handle =>
    (name, type, body, remote) =>
      middle(name, body, (operation, bytes) => honest(operation as typeof name, type, bytes, remote) as Promise<Reply>);
}

/** Another history of the same server, under the same incarnation: only a liar has one. */
async function forked(path: string): Promise<TestServer> {
  const twin = await startTestServer({ path, as: world.server, limits: world.server.ctx.limits });
  Object.assign(twin.ctx, { statement: world.server.ctx.statement });
  world.between = () => (name, type, body, remote) => twin.dispatcher.handle(name, type, body, remote);
  return twin;
}

const kitOf = async (person: Person) => boundOf(await person.model()).settings.kit?.toHex();
const makeKit = (person: Person) =>
  makeRecoveryKit(person.home, person.profile(), passwordOf(PASSWORD), testSurroundings());

describe("a value that two devices changed", () => {
  test("an older one of many changes does not undo a newer one that was given back", async () => {
    const backup = await saved();
    await edit(phone, ["changed", "changed 2"], ["changed", "changed 3"], ["changed", "changed 4"]);
    await edit(ada, ["changed", "changed 5"]);
    await world.restore(backup);
    await accept(ada);
    await accept(phone);
    for (const person of [ada, phone]) expect(await textOf(await person.login(), "changed")).toBe("changed 5");
  });

  test("nor one that was made since", async () => {
    await edit(phone, ["changed", "changed 2"], ["changed", "changed 3"], ["changed", "changed 4"]);
    await synced(ada);
    const backup = await saved();
    await edit(phone, ["changed", "changed 5"], ["changed", "changed 6"]);
    await world.restore(backup);
    await accept(ada);
    await edit(ada, ["changed", "changed 7"]);
    await accept(phone);
    expect(await textOf(await phone.login(), "changed")).toBe("changed 7");
  });

  test("a clock that is behind decides nothing about what the backup holds", async () => {
    await edit(phone, ["changed", "changed 2"]);
    const behind = { ...testSurroundings(), now: () => Date.now() - 3_600_000 };
    const { client } = await loginProfile(ada.home, ada.profile(), passwordOf(PASSWORD), behind, { keep: false });
    await client.sync();
    await client.store(storing("changed", "changed 3", { where: "both", replace: true } as never));
    await client.close();
    const backup = await saved();
    await world.restore(backup);
    const done = await accept(phone);
    expect(done.uploaded).toEqual([]);
    expect(await textOf(await phone.login(), "changed")).toBe("changed 3");
  });

  test("what was purged is purged again, whatever became of it since", async () => {
    const backup = await saved();
    await (await ada.login()).remove({ name: "gone", purge: true });
    await world.restore(backup);
    await accept(phone);
    await edit(phone, ["gone", "gone 2"], ["gone", "gone 3"]);
    await accept(ada);
    const { items } = await (await ada.login()).list(EVERYTHING);
    expect(items.map(({ name }) => name)).toEqual(["changed"]);
  });

  test("two at once: the one whose turn comes later looks again", async () => {
    const backup = await saved();
    await edit(phone, ["changed", "changed 2"], ["changed", "changed 3"]);
    await edit(ada, ["changed", "changed 4"]);
    await world.restore(backup);
    let first = true;
    between(async (operation, body, forward) => {
      if (operation === "secret.import" && first) {
        first = false;
        // ada's whole adoption comes between the phone's look and its first change
        await accept(ada);
      }
      return forward(operation, body);
    });
    await accept(phone);
    world.between = null;
    expect(await textOf(await ada.login(), "changed")).toBe("changed 4");
  });
});

test("another device's whole turn between login and the first look is no tampering", async () => {
  const backup = await saved();
  await edit(phone, ["from/phone", "1"]);
  await edit(ada, ["from/ada", "1"]);
  await world.restore(backup);
  let first = true;
  between(async (operation, body, forward) => {
    if (operation === "state.sync" && first) {
      first = false;
      await accept(ada);
    }
    return forward(operation, body);
  });
  expect((await accept(phone)).uploaded).toEqual(["from/phone"]);
});

describe("a claimed restore", () => {
  test("of a history that is no earlier one of this device's, but a fork that went further", async () => {
    const path = await saved();
    await edit(ada, ["mine", "1"]);
    const twin = await forked(path);
    await edit(phone, ["fork", "1"], ["fork", "2"]);
    const branch = join(world.file.directory, "branch.db");
    await twin.store.backup(branch);
    await twin.close();
    world.between = null;
    await world.restore(branch);
    const fault = await rejected(accept(ada), "integrity");
    expect(fault.exit).toBe(8);
    expect((await (await ada.offline()).get(asking("mine", { fresh: false }))).from).toBe("vault");
  });

  test("puts back no recovery kit that was replaced", async () => {
    await makeKit(ada);
    const [old, backup] = [await kitOf(ada), await saved()];
    await makeKit(ada);
    await synced(phone);
    await makeKit(ada);
    const newest = await kitOf(ada);
    expect(newest).not.toBe(old);
    await world.restore(backup);
    await accept(ada);
    expect(await kitOf(ada)).toBe(newest);
    // one that knows another kit puts nothing back, and says so
    const notices: string[] = [];
    await accept(phone, notices);
    expect(await kitOf(phone)).toBe(newest);
    expect(notices.join("\n")).toContain("recovery kit");
  });

  test("rewrites nothing of the log that this device had verified and signed", async () => {
    const verified = await (await ada.login()).auditVerify();
    await edit(ada, ["later", "1"]);
    const backup = await saved();
    const { userId } = ada.profile();
    if (!userId) throw new Error("no account");
    const whole = { keyId: null, action: null, fromMs: null, untilMs: null, requestId: null, after: 0, limit: 1_000 };
    const entries = await world.server.store.transaction((tx) => tx.audit(userId, whole));
    const db = new Database(backup);
    let previous = entries[0]?.entry.previous ?? new Uint8Array(32);
    for (const { entry, salt } of entries) {
      const atMs = entry.seq === 2 ? entry.atMs - 1 : entry.atMs;
      const link = auditLink({ entry: { ...entry, atMs, previous }, salt });
      const columns = "at_ms = ?1, previous = ?2, link = ?3";
      const values = [atMs, previous, link, Uint8Array.fromHex(userId)];
      db.query(`UPDATE audit_entry SET ${columns} WHERE user_id = ?4 AND seq = ?5`).run(...values, entry.seq);
      db.query("UPDATE audit_head SET link = ?1 WHERE user_id = ?2").run(link, Uint8Array.fromHex(userId));
      previous = link;
    }
    db.close();
    expect(verified.size).toBeGreaterThan(2);
    await world.restore(backup);
    await accept(ada);
    await rejected((await ada.login()).auditVerify(), "integrity");
  });

  test("takes no change without the promise to log it", async () => {
    const backup = await saved();
    await edit(ada, ["later", "1"]);
    const back = await world.restore(backup);
    between(editing({ server: back }, {}, undefined, () => null));
    await rejected(accept(ada), "integrity");
    world.between = null;
    await accept(ada);
    expect(await textOf(await ada.login(), "later")).toBe("1");
  });
});
