import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { boundOf } from "../../src/client/model.ts";
import { renewModel } from "../../src/client/renew.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import { unwrapIdentity } from "../../src/protocol/account.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import type { Settings } from "../../src/protocol/state.ts";
import type { InputOf, OutputOf } from "../../src/wire/operations.ts";
import {
  addTestDevice,
  random,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
} from "../support/harness.ts";
import { rejected, storing } from "../support/hostile.ts";
import { rotationOf } from "../support/rotating.ts";
import { type HookedStore, hookedStore } from "../support/storeprobe.ts";

let server: TestServer;
let hooked: HookedStore;
let desk: TestDevice;
let phone: TestDevice;

beforeEach(async () => {
  hooked = hookedStore();
  server = await startTestServer({ limits: { loginFreeFailures: 1_000 }, wrap: hooked.wrap });
  desk = await registerDevice(server.link(), "ada", "a password of ada");
  phone = await addTestDevice(server.link(), "ada", "a password of ada");
  await desk.client.store(storing("a", "value"));
});
afterEach(async () => {
  await desk.end();
  await phone.end();
  await server.close();
  expect(server.faults).toEqual([]);
});

const row = () => server.store.transaction((tx) => tx.account(desk.open.box.model.owner));
const rotate = (edit?: Parameters<typeof rotationOf>[2], signedBy?: Uint8Array, by: TestDevice = desk) => {
  const { input, requestId } = rotationOf(by.open.box.model, by.login.exportKey, edit, signedBy);
  const { session } = by.open;
  if (!session) throw new Error("no session");
  return session.call("account.rotate", input, requestId);
};
const sessionOf = (device: TestDevice) => {
  const { session } = device.open;
  if (!session) throw new Error("no session");
  return session;
};

const last = (settings: Settings) => {
  const found = settings.rotations.at(-1);
  if (!found) throw new Error("no rotation");
  return found;
};
const withLast = (settings: Settings, change: Partial<Settings["rotations"][number]>): Settings => ({
  ...settings,
  rotations: [...settings.rotations.slice(0, -1), { ...last(settings), ...change }],
});

describe("account.rotate", () => {
  test("an honest one is taken: other sessions end, this one stays, the devices stay", async () => {
    const before = await row();
    await rotate();
    const after = await row();
    expect(after?.state.state.revision).toBe((before?.state.state.revision ?? 0) + 1);
    expect(after?.settings.devices.map(({ id }) => id)).toEqual(before?.settings.devices.map(({ id }) => id));
    expect(after?.recordVersion).toBe(before?.recordVersion);
    await sessionOf(desk).call("session.check", {});
    await rejected(sessionOf(phone).call("session.check", {}), "session_invalid");
  });

  test("with a device fewer: its token is void", async () => {
    const gone = boundOf(phone.open.box.model).deviceId;
    const before = await row();
    const token = before?.settings.devices.find(({ id }) => id === gone)?.tokenHash ?? random(32);
    const failures = () => server.store.transaction((tx) => tx.tokenFailures(desk.open.box.model.owner, token));
    expect(await failures()).toBe(0);
    await rotate((settings) => ({ ...settings, devices: settings.devices.filter(({ id }) => id !== gone) }));
    expect(await failures()).toBeUndefined();
    expect((await row())?.settings.devices.length).toBe(1);
  });

  const WRONG: Record<string, (settings: Settings, before: Settings) => Settings> = {
    "no rotation at all": (settings, before) => ({ ...settings, rotations: before.rotations }),
    "two rotations": (settings) => ({ ...settings, rotations: [...settings.rotations, last(settings)] }),
    "a handover of another revision": (settings) => withLast(settings, { revision: last(settings).revision - 1 }),
    "a handover of nobody": (settings) => withLast(settings, { handover: random(64) }),
    "a handover from another identity": (settings) => withLast(settings, { identity: random(32) }),
    "the identity of before": (settings, before) => ({ ...settings, identity: before.identity }),
    "credentials of another revision": (settings, before) => ({
      ...settings,
      credentialRevision: before.credentialRevision,
    }),
    "a device of another key": (settings) => ({
      ...settings,
      devices: settings.devices.map((device, i) => (i === 1 ? { ...device, publicKey: random(32) } : device)),
    }),
    "a device of another token": (settings) => ({
      ...settings,
      devices: settings.devices.map((device, i) => (i === 1 ? { ...device, tokenHash: random(32) } : device)),
    }),
    "devices in another order": (settings) => ({ ...settings, devices: settings.devices.toReversed() }),
    "a device twice": (settings) => ({ ...settings, devices: [...settings.devices, ...settings.devices.slice(0, 1)] }),
    "a device more": (settings) => ({
      ...settings,
      devices: [
        ...settings.devices,
        ...settings.devices.slice(0, 1).map((device) => ({ ...device, id: newId<typeof device.id>(random) })),
      ],
    }),
    "no device that signs": (settings) => ({ ...settings, devices: settings.devices.slice(1) }),
    "a kit from nowhere": (settings) => ({ ...settings, kit: random(64), kitWrapped: random(100) }),
  };
  for (const [what, edit] of Object.entries(WRONG)) {
    test(`${what} is refused, and nothing changes`, async () => {
      const before = await row();
      await rejected(rotate(edit), "bad_input");
      expect((await row())?.stateHash).toEqual(before?.stateHash ?? random(32));
      expect((await row())?.settings).toEqual(before?.settings as Settings);
      await sessionOf(phone).call("session.check", {});
    });
  }

  test("a state signed by the identity of before is refused", async () => {
    const { model } = desk.open.box;
    const seed = unwrapIdentity(model.keys, model.owner, boundOf(model).settings.wrappedIdentity);
    await rejected(rotate(undefined, seed), "bad_input");
  });

  test("the second of two is stale", async () => {
    const { model } = desk.open.box;
    const late = rotationOf(model, desk.login.exportKey);
    await rotate();
    await rejected(sessionOf(desk).call("account.rotate", late.input, late.requestId), "stale");
  });

  test("it needs a login of this moment", async () => {
    server.advance(6 * 60_000);
    const fault = await rejected(rotate(), "denied");
    expect(fault.message).toContain("fresh login");
  });

  test("the same request again gives the same answer and writes nothing", async () => {
    const { input, requestId } = rotationOf(desk.open.box.model, desk.login.exportKey);
    const first = await sessionOf(desk).call("account.rotate", input, requestId);
    const again = await sessionOf(desk).call("account.rotate", input, requestId);
    expect(again.output).toEqual(first.output);
    expect(again.head).toEqual(first.head);
  });

  test("after 64 the oldest goes, and only then", async () => {
    const { model } = desk.open.box;
    const short = (settings: Settings): Settings => ({ ...settings, rotations: settings.rotations.slice(1) });
    for (let i = 0; i < DEFAULTS.rotations + 2; i++) {
      const full = i >= DEFAULTS.rotations;
      if (i % 32 === 31 || full) await rejected(rotate(full ? undefined : short), "bad_input");
      const { input, requestId, accountKey } = rotationOf(model, desk.login.exportKey, full ? short : undefined);
      await sessionOf(desk).call("account.rotate", input, requestId);
      const bound = boundOf(model);
      renewModel(model, accountKey, input.settings, input.state.state.revision, random);
      Object.assign(bound, { head: input.state, settings: input.settings });
    }
    expect((await row())?.settings.rotations.length).toBe(DEFAULTS.rotations);
  }, 30_000);

  for (const statement of ["swapState", "appendState", "closeSessionsOf", "putRequest", "appendAudit"]) {
    test(`a server that fails at ${statement} leaves the account as it was`, async () => {
      const before = await row();
      let failed = false;
      hooked.hook = (method, args, run) => {
        if (method !== statement || failed) return run(...args);
        failed = true;
        throw new Error("cut");
      };
      await rejected(rotate(), "internal");
      hooked.hook = null;
      expect(failed).toBe(true);
      server.faults.length = 0;
      const after = await row();
      expect(after?.stateHash).toEqual(before?.stateHash ?? random(32));
      expect(after?.settings).toEqual(before?.settings as Settings);
      await sessionOf(phone).call("session.check", {});
      await rotate();
    });
  }

  test("other mutations of the settings do not bring a rotation", async () => {
    const { model } = desk.open.box;
    const { input } = rotationOf(model, desk.login.exportKey);
    const requestId = newId<RequestId>(random);
    await rejected(
      sessionOf(desk).call(
        "account.password",
        { record: random(192), settings: input.settings, state: input.state },
        requestId,
      ),
      "bad_input",
    );
  });
});

describe("wrapped keys", () => {
  const place = async () => {
    const { output } = await sessionOf(desk).call("account.wraps", { after: null });
    return output.items;
  };

  test("pages show those of the own account alone, in order", async () => {
    const eve = await registerDevice(server.link(), "eve", "a password of eve");
    await eve.client.store(storing("e", "value of eve"));
    for (let i = 0; i < 4; i++) await desk.client.store(storing("a", `value ${i}`));
    const all = await place();
    expect(all.length).toBe(10);
    Object.assign(server.ctx, { limits: { ...server.ctx.limits, wrapsPerRequest: 3 } });
    type Page = OutputOf<"account.wraps">;
    const paged: Page["items"][number][] = [];
    for (let after: Page["items"][number] | null = null; ; ) {
      const at: InputOf<"account.wraps">["after"] = after && {
        keyId: after.keyId,
        kind: after.kind,
        number: after.number,
      };
      const page: Page = (await sessionOf(desk).call("account.wraps", { after: at })).output;
      expect(page.items.length).toBeLessThanOrEqual(3);
      paged.push(...page.items);
      after = page.items.at(-1) ?? null;
      if (!page.more) break;
    }
    expect(paged).toEqual([...all]);
    await eve.end();
  });

  test("are replaced after a rotation only, all or none, and another account's are not found", async () => {
    const eve = await registerDevice(server.link(), "eve", "a password of eve");
    await eve.client.store(storing("e", "value of eve"));
    const [theirs] = (await sessionOf(eve).call("account.wraps", { after: null })).output.items;
    if (!theirs) throw new Error("nothing");
    const [mine] = await place();
    if (!mine) throw new Error("nothing");
    const anew = { ...mine, wrapped: random(73) };
    await rejected(sessionOf(desk).call("account.rewrap", { items: [anew] }), "bad_input");
    await rotate();
    for (const strange of [theirs, { ...mine, number: 99 }, { ...mine, kind: "value" as const, number: 7 }]) {
      await rejected(sessionOf(desk).call("account.rewrap", { items: [anew, strange] }), "not_found");
    }
    expect((await place())[0]).toEqual(mine);
    expect((await sessionOf(desk).call("account.rewrap", { items: [anew] })).output).toEqual({ rewrapped: 1 });
    expect((await place())[0]).toEqual(anew);
    expect((await sessionOf(eve).call("account.wraps", { after: null })).output.items[0]).toEqual(theirs);
    await eve.end();
  });
});
