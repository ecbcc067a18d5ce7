import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { logInFreshly } from "../../src/client/home.ts";
import { kitText, makeRecoveryKit } from "../../src/client/kit.ts";
import type { Surroundings } from "../../src/client/model.ts";
import { changePassword } from "../../src/client/password.ts";
import { recoverAccount } from "../../src/client/recover.ts";
import { renewAccount } from "../../src/client/rotate.ts";
import type { Handle } from "../../src/server.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../support/accountworld.ts";
import { passwordOf, testSurroundings } from "../support/harness.ts";
import { rejected, storing, textOf } from "../support/hostile.ts";

/** Time passes only where the client pauses, and there at once. */
function unhurried(): Surroundings {
  let offset = 0;
  const pause = async (ms: number) => {
    offset += ms;
  };
  return { ...testSurroundings(), now: () => Date.now() + offset, pause };
}

/** What a client does in the window of a rotated OPAQUE set-up (docs/protocol.md §3.5). */

const NEXT = "another password of ada";
let world: AccountWorld;
let ada: Person;
let phone: Person;

beforeEach(async () => {
  world = await openAccountWorld();
  ada = await world.register("ada");
  phone = await world.another("ada");
  const client = await ada.login();
  await client.store(storing("db", "s3cret"));
});
afterEach(async () => {
  await world.close();
  expect(world.server.faults).toEqual([]);
});

const rowOf = () => world.server.store.transaction(async (tx) => (await tx.accounts(null, 1))[0]);
const newest = () => world.server.ctx.keys.opaque.id;
const moved = async () => (await rowOf())?.setupId === newest();
const actions = async () =>
  world.file.sql<{ action: string; status: string }>("SELECT action, status FROM audit_entry ORDER BY seq");

const NOTICE = /renewed its login keys/;
const said = (person: Person) => person.notices.filter((text) => NOTICE.test(text)).length;

describe("the first login in the window", () => {
  test("registers the same password under the newest set-up, says so once, and ends no session", async () => {
    const other = await phone.login();
    world.openWindow();
    const client = await ada.login();
    expect([await moved(), said(ada)]).toEqual([true, 1]);
    expect(await textOf(client, "db")).toBe("s3cret");
    expect((await other.sessions()).items.length).toBeGreaterThan(1);
    world.closeWindow();
    for (const person of [ada, phone]) expect(await textOf(await person.login(), "db")).toBe("s3cret");
    await rejected(ada.login("a wrong password"), "login_failed");
    expect((await ada.offline()).status).toBeFunction();
    expect([said(ada), said(phone)]).toEqual([1, 0]);
    expect((await actions()).filter(({ action }) => action === "account.reregister")).toHaveLength(1);
    expect((await (await ada.login()).auditVerify()).ok).toBe(true);
  });

  test("of a new device does too", async () => {
    world.openWindow();
    await world.another("ada");
    expect(await moved()).toBe(true);
    world.closeWindow();
    expect(await textOf(await ada.login(), "db")).toBe("s3cret");
  });

  test("of two processes at once: one registers, both go on", async () => {
    world.openWindow();
    const clients = await Promise.all([ada.login(), ada.login(), phone.login()]);
    for (const client of clients) expect(await textOf(client, "db")).toBe("s3cret");
    expect((await actions()).filter((one) => one.action === "account.reregister" && one.status === "ok")).toHaveLength(
      1,
    );
    expect(await moved()).toBe(true);
  });

  test("with a wrong password moves nothing", async () => {
    world.openWindow();
    await rejected(ada.login("a wrong password"), "login_failed");
    expect(await moved()).toBe(false);
  });
});

describe("cut short at each request", () => {
  /** Loses the nth request from now on that fits, before or after the server has it, and all that follow. */
  function dying(nth: number, when: "before" | "after"): { readonly seen: string[] } {
    const seen: string[] = [];
    world.between =
      (honest): Handle =>
      async (name, ...rest) => {
        seen.push(name);
        if (seen.length < nth) return honest(name, ...rest);
        if (seen.length === nth && when === "after") await honest(name, ...rest);
        return {
          status: 503,
          contentType: "application/json",
          body: `{"code":"unavailable","message":"away","retryAfterMs":null}`,
          outcome: "dropped",
        };
      };
    return { seen };
  }

  /** The requests of such a login, in their order. */
  const REQUESTS = [
    "server.statement",
    "session.login.start",
    "session.login",
    "account.password.start",
    "account.reregister",
  ];

  test("these are its requests", async () => {
    world.openWindow();
    const { seen } = dying(Number.POSITIVE_INFINITY, "before");
    await logInFreshly(ada.home, ada.profile(), passwordOf(PASSWORD), testSurroundings());
    expect(seen).toEqual(REQUESTS);
  });

  test.each([
    [3, "after"],
    [4, "before"],
    [4, "after"],
    [5, "before"],
    [5, "after"],
  ] as const)("%d, %s the server has it: the next login goes on", async (nth, when) => {
    world.openWindow();
    const { seen } = dying(nth, when);
    const around = unhurried();
    const login = logInFreshly(ada.home, ada.profile(), passwordOf(PASSWORD), around);
    // a login that succeeded stays one
    if (nth > 3) await login;
    else await rejected(login, "unavailable");
    expect(seen.length).toBeGreaterThanOrEqual(nth);
    world.between = null;
    expect(await textOf(await ada.login(), "db")).toBe("s3cret");
    expect(await moved()).toBe(true);
    world.closeWindow();
    expect(await textOf(await ada.login(), "db")).toBe("s3cret");
  });
});

describe("what brings its own record", () => {
  test("a change of the password in the window", async () => {
    world.openWindow();
    await changePassword(
      ada.home,
      ada.profile(),
      { old: passwordOf(PASSWORD), next: passwordOf(NEXT) },
      testSurroundings(),
    );
    expect(await moved()).toBe(true);
    world.closeWindow();
    expect(await textOf(await ada.login(NEXT), "db")).toBe("s3cret");
  });

  test("a rotation of the account's keys keeps the record of its login; the next login moves it", async () => {
    world.openWindow();
    await renewAccount(ada.home, ada.profile(), passwordOf(PASSWORD), { next: null, revoke: null }, testSurroundings());
    expect(await moved()).toBe(false);
    expect(await textOf(await ada.login(), "db")).toBe("s3cret");
    expect(await moved()).toBe(true);
    world.closeWindow();
    expect(await textOf(await phone.login(), "db")).toBe("s3cret");
  });
});

test("who did not log in while it was open comes back by the kit alone", async () => {
  const { kit } = await makeRecoveryKit(ada.home, ada.profile(), passwordOf(PASSWORD), testSurroundings());
  world.openWindow();
  world.closeWindow();
  await rejected(ada.login(), "login_failed");
  const fresh = { profiles: `${ada.home.profiles}-new`, vaults: `${ada.home.vaults}-new` };
  const server = ada.profile().server;
  if (!server) throw new Error("no server");
  expect(kitText(kit, 0)).toContain("keyhold recovery kit");
  const { client } = await recoverAccount(
    fresh,
    {
      profile: "default",
      server: { url: server.url, pin: server.pin, tlsCaPem: null },
      account: "ada",
      password: passwordOf(NEXT),
      kdf: "test",
      words: kit.words.join(" "),
      known: { userId: kit.userId, anchor: kit.anchor },
    },
    testSurroundings(),
  );
  expect(await textOf(client, "db")).toBe("s3cret");
  await client.close();
  expect(await moved()).toBe(true);
});
