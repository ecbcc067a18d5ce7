import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { type LoggedIn, logIn } from "../../src/client/login.ts";
import { newDevice, prepareRegistration } from "../../src/client/register.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { createServerSetup, serverLoginStart, serverRegister } from "../../src/crypto/opaque.ts";
import { type DeviceId, type IncarnationId, newId, type SessionId, type UserId } from "../../src/ids.ts";
import { wrapAccountKey } from "../../src/protocol/account.ts";
import { type Settings, type SignedState, settingsHash, signState, stateHash } from "../../src/protocol/state.ts";
import { decodeJson, type Of } from "../../src/wire/codec.ts";
import { type loginReply, operations } from "../../src/wire/operations.ts";
import {
  addTestDevice,
  type Middle,
  passwordOf,
  random,
  registerDevice,
  type TestDevice,
  testSurroundings,
} from "../support/harness.ts";
import {
  asking,
  detected,
  EVERYTHING,
  editing,
  onDisk,
  rejected,
  startVillain,
  storing,
  textOf,
  type Villain,
} from "../support/hostile.ts";
import { atLogin, clear } from "../support/hostilelogin.ts";
import { startTimeMachine, type TimeMachine } from "../support/timemachine.ts";

const PASSWORD = "a password of ada";
const CHEAP = { url: "https://127.0.0.1:1", kdf: "test", deviceToken: null } as const;
const devices: TestDevice[] = [];
const kept = (device: TestDevice): TestDevice => {
  devices.push(device);
  return device;
};
afterEach(async () => {
  for (const device of devices.splice(0)) await device.end();
});

describe("the past", () => {
  let machine: TimeMachine;
  let villain: Villain;
  let count = 0;
  beforeAll(async () => {
    machine = await startTimeMachine();
    ({ villain } = machine);
  });
  afterAll(() => machine.close());

  test("serve yesterday's whole account: every command notices, and none is taken in", async () => {
    const ada = kept(await registerDevice(villain.link, `ada ${count++}`, PASSWORD));
    await ada.client.store(storing("a", "first", { where: "server" }));
    const yesterday = await machine.snapshot();
    await ada.client.store(storing("a", "second", { where: "server" }));
    const today = await machine.snapshot();
    const work: Record<string, () => Promise<unknown>> = {
      sync: () => ada.client.sync(),
      list: () => ada.client.list(EVERYTHING),
      "list without fresh": () => ada.client.list({ ...EVERYTHING, fresh: false }),
      get: () => ada.client.get(asking("a")),
      "get of the old version": () => ada.client.get(asking("a", { version: 1 })),
      history: () => ada.client.history({ name: "a" }),
      sessions: () => ada.client.sessions(),
      "audit verify": () => ada.client.auditVerify(),
      store: () => ada.client.store(storing("b", "third")),
      // last: it is built and kept before an answer can warn, so that the honest server gets it
      rename: () => ada.client.rename({ from: "a", to: "renamed" }),
    };
    const before = onDisk(ada);
    for (const one of Object.values(work)) {
      await machine.serve(yesterday);
      const fault = await rejected(one(), "integrity");
      expect(fault.exit).toBe(8);
      expect(onDisk(ada)).toBe(before);
    }
    await machine.serve(today);
    expect(await textOf(ada.client, "renamed")).toBe("second");
    expect((await ada.client.auditVerify()).ok).toBe(true);
  });

  test("cut the log back without touching the account", async () => {
    const ada = kept(await registerDevice(villain.link, `ada ${count++}`, PASSWORD));
    await ada.client.store(storing("a", "first"));
    const yesterday = await machine.snapshot();
    await ada.client.get(asking("a", { fresh: true }));
    await ada.client.get(asking("a", { fresh: true }));
    const today = await machine.snapshot();
    await machine.serve(yesterday);
    await rejected(ada.client.get(asking("a", { fresh: true })), "integrity");
    await machine.serve(today);
    expect((await ada.client.auditVerify()).ok).toBe(true);
  });

  test("fork two devices: each is shown its own continuation", async () => {
    const account = `ada ${count++}`;
    const ada = kept(await registerDevice(villain.link, account, PASSWORD));
    const bob = kept(await addTestDevice(villain.link, account, PASSWORD));
    await ada.client.sync();
    const base = await machine.snapshot();
    await ada.client.store(storing("of ada", "value"));
    const forkA = await machine.snapshot();
    await machine.serve(base);
    await bob.client.store(storing("of bob", "value"));
    await bob.client.store(storing("more of bob", "value"));
    const forkB = await machine.snapshot();
    await machine.serve(forkA);
    await rejected(bob.client.sync(), "integrity");
    await machine.serve(forkB);
    const before = onDisk(ada);
    await rejected(ada.client.sync(), "integrity");
    await rejected(ada.client.list({ ...EVERYTHING, fresh: false }), "integrity");
    await rejected(ada.client.store(storing("c", "value")), "integrity");
    expect(onDisk(ada)).toBe(before);
    await machine.serve(forkA);
    expect(await textOf(ada.client, "of ada")).toBe("value");
  });

  test("fork at the same revision: equal counts, another state", async () => {
    const account = `ada ${count++}`;
    const ada = kept(await registerDevice(villain.link, account, PASSWORD));
    const bob = kept(await addTestDevice(villain.link, account, PASSWORD));
    await ada.client.sync();
    const base = await machine.snapshot();
    await ada.client.store(storing("a", "of ada"));
    await machine.serve(base);
    await bob.client.store(storing("a", "of bob"));
    await rejected(ada.client.sync(), "integrity");
    await rejected(ada.client.get(asking("a")), "integrity");
  });

  test("a server that claims to have been restored is another incarnation", async () => {
    const ada = kept(await registerDevice(villain.link, `ada ${count++}`, PASSWORD));
    Object.assign(villain.server.ctx, { incarnation: newId<IncarnationId>(random) });
    const before = onDisk(ada);
    await rejected(ada.client.store(storing("a", "value")), "bad_input", "integrity");
    expect(onDisk(ada)).toBe(before);
  });
});

describe("keys and devices", () => {
  let villain: Villain;
  let count = 0;
  beforeAll(async () => {
    villain = await startVillain();
  });
  afterAll(() => villain.close());

  /** One device, and a change by another that it has not seen. */
  async function behind(): Promise<{ ada: TestDevice; bob: TestDevice }> {
    const account = `ada ${count++}`;
    const ada = kept(await registerDevice(villain.link, account, PASSWORD));
    const bob = kept(await addTestDevice(villain.link, account, PASSWORD));
    await ada.client.sync();
    await bob.client.store(storing("of bob", "value"));
    return { ada, bob };
  }

  type Sync = { states: readonly SignedState[]; settings: Settings | null };
  const syncing = (edit: (settings: Settings, states: readonly SignedState[]) => Sync): Middle =>
    editing(villain, {
      "state.sync": (output) => (output.settings ? { ...output, ...edit(output.settings, output.states) } : output),
    });

  const foreign = signerFromSeed(random(32));
  const SETTINGS: Record<string, (settings: Settings) => Settings> = {
    "swap the account's identity key": (s) => ({ ...s, identity: foreign.publicKey }),
    "swap a device's public key": (s) => ({
      ...s,
      devices: s.devices.map((d) => ({ ...d, publicKey: foreign.publicKey })),
    }),
    "swap the public keys of two devices": (s) => ({
      ...s,
      devices: s.devices.map((d, i) => ({
        ...d,
        publicKey: s.devices[(i + 1) % s.devices.length]?.publicKey ?? d.publicKey,
      })),
    }),
    "list a device that nobody signed": (s) => ({
      ...s,
      devices: [
        ...s.devices,
        { ...(s.devices[0] as Settings["devices"][number]), id: newId<DeviceId>(random), publicKey: foreign.publicKey },
      ],
    }),
    "drop a device": (s) => ({ ...s, devices: s.devices.slice(1) }),
    "reorder the devices": (s) => ({ ...s, devices: s.devices.toReversed() }),
    "change a device's token": (s) => ({
      ...s,
      devices: s.devices.map((d) => ({ ...d, tokenHash: new Uint8Array(32) })),
    }),
    "change the wrapped account key": (s) => ({ ...s, wrappedAccountKey: random(73) }),
    "change the credential tag": (s) => ({ ...s, credentialTag: random(32) }),
    "plant a recovery kit": (s) => ({ ...s, kit: random(64), kitWrapped: random(80) }),
  };
  for (const [name, edit] of Object.entries(SETTINGS)) {
    test(name, async () => {
      const { ada } = await behind();
      const attack = syncing((settings, states) => ({ settings: edit(settings), states }));
      await detected(villain, ada, attack, () => ada.client.sync());
      expect(ada.open.box.model.bound?.settings.identity).not.toEqual(foreign.publicKey);
      expect(await textOf(ada.client, "of bob")).toBe("value");
    });
  }

  test("swap keys and sign the state anew with the server's own key", async () => {
    const { ada } = await behind();
    for (const edit of Object.values(SETTINGS)) {
      const attack = syncing((settings, states) => {
        const forged = edit(settings);
        const last = states.at(-1);
        if (!last) return { settings, states };
        const device = forged.devices[0]?.id ?? last.state.deviceId;
        const state = { ...last.state, deviceId: device, settingsHash: settingsHash(forged) };
        return { settings: forged, states: [...states.slice(0, -1), signState(state, foreign, foreign)] };
      });
      await villain.during(attack, () => rejected(ada.client.sync(), "integrity"));
    }
    await ada.client.sync();
  });

  const STATES: Record<string, (state: SignedState) => SignedState> = {
    "without the owner's signature": (s) => ({ ...s, identitySignature: new Uint8Array(64) }),
    "without the device's signature": (s) => ({ ...s, deviceSignature: new Uint8Array(64) }),
    "with both signatures swapped": (s) => ({
      ...s,
      identitySignature: s.deviceSignature,
      deviceSignature: s.identitySignature,
    }),
    "of another user": (s) => ({ ...s, state: { ...s.state, userId: newId<UserId>(random) } }),
    "of another incarnation": (s) => ({ ...s, state: { ...s.state, incarnation: newId<IncarnationId>(random) } }),
    "of another root": (s) => ({ ...s, state: { ...s.state, root: random(32) } }),
    "by another device": (s) => ({ ...s, state: { ...s.state, deviceId: newId<DeviceId>(random) } }),
    "with a later revision": (s) => ({ ...s, state: { ...s.state, revision: s.state.revision + 1 } }),
    "not linked to what came before": (s) => ({ ...s, state: { ...s.state, previous: random(32) } }),
  };
  for (const [name, edit] of Object.entries(STATES)) {
    test(`a newest state ${name}`, async () => {
      const { ada } = await behind();
      const attack = syncing((settings, states) => ({ settings, states: states.map(edit) }));
      await detected(villain, ada, attack, () => ada.client.sync());
    });
  }

  test("a mutation that the server invents on top, signed by itself", async () => {
    const { ada } = await behind();
    const attack = syncing((settings, states) => {
      const last = states.at(-1);
      if (!last) return { settings, states };
      const state = { ...last.state, revision: last.state.revision + 1, previous: stateHash(last.state) };
      return { settings, states: [...states, signState(state, foreign, foreign)] };
    });
    await detected(villain, ada, attack, () => ada.client.sync());
  });

  test("a new device is announced to the others", async () => {
    const account = `ada ${count++}`;
    const ada = kept(await registerDevice(villain.link, account, PASSWORD));
    kept(await addTestDevice(villain.link, account, PASSWORD));
    await ada.client.sync();
    expect(ada.notices.join("\n")).toContain("a new device was added to your account: ");
    expect((await ada.client.devices()).items.map(({ current }) => current)).toEqual([true, false]);
  });

  const login = (account: string, password = PASSWORD, kdf: "default" | "test" = "test"): Promise<LoggedIn> =>
    logIn(villain.link, { ...CHEAP, kdf }, account, passwordOf(password), testSurroundings());

  test("lower the cost of password hashing at login and registration", async () => {
    const account = `ada ${count++}`;
    kept(await registerDevice(villain.link, account, PASSWORD));
    const floor = { memoryKib: 65_536, passes: 3, lanes: 4 };
    const weak = [
      { ...floor, memoryKib: 65_535 },
      { ...floor, passes: 2 },
      { memoryKib: 8, passes: 1, lanes: 1 },
    ];
    for (const ksf of weak) {
      const lowered = clear("session.login.start", (output) => ({ ...output, ksf: [ksf] }));
      await villain.during(lowered, () => rejected(login(account, PASSWORD, "default"), "integrity"));
      const atRegistration = clear("account.register.start", (output) => ({ ...output, ksf }));
      const around = testSurroundings();
      const input = { account: `eve ${count++}`, invite: null, device: newDevice("d", around) };
      const register = () =>
        prepareRegistration(villain.link, { ...CHEAP, kdf: "default" }, input, passwordOf(PASSWORD), around);
      await villain.during(atRegistration, () => rejected(register(), "integrity"));
    }
  });

  test("ask for absurd costs of password hashing", async () => {
    const account = `ada ${count++}`;
    kept(await registerDevice(villain.link, account, PASSWORD));
    for (const ksf of [
      { memoryKib: 4_194_304, passes: 3, lanes: 4 },
      { memoryKib: 65_536, passes: 64, lanes: 4 },
    ]) {
      const raised = clear("session.login.start", (output) => ({ ...output, ksf: [ksf] }));
      await villain.during(raised, () => rejected(login(account, PASSWORD, "default"), "integrity"));
    }
  });

  test("log in or register with another OPAQUE key than the identity signed", async () => {
    const account = `ada ${count++}`;
    const setup = createServerSetup();
    const credential = random(32);
    const around = testSurroundings();
    const input = { account, invite: null, device: newDevice("d", around) };
    villain.seen.length = 0;
    const other: Middle = async (operation, body, forward) => {
      if (operation !== "account.register.start") return forward(operation, body);
      const { request } = decodeJson(operations[operation].input, body);
      return clear(operation, (output) => ({ ...output, response: serverRegister(setup, credential, request) }))(
        operation,
        body,
        forward,
      );
    };
    const register = () => prepareRegistration(villain.link, CHEAP, input, passwordOf(PASSWORD), around);
    await villain.during(other, () => rejected(register(), "integrity"));

    // an account that was made under the other set-up: its KE2 is sound, but not of this server
    const link = { ...villain.link, opaqueKeys: [] };
    kept(await registerDevice(villain.link, account, PASSWORD));
    await rejected(logIn(link, CHEAP, account, passwordOf(PASSWORD), around), "integrity");
    expect(villain.seen.filter(({ operation }) => operation === "session.login").length).toBe(1);
    await login(account);
  });

  test("answer a login with garbage, another account's or another set-up's KE2", async () => {
    const account = `ada ${count++}`;
    kept(await registerDevice(villain.link, account, PASSWORD));
    const responses: [Uint8Array, "integrity" | "login_failed"][] = [
      [random(320), "integrity"],
      [random(32), "integrity"],
      [new Uint8Array(320), "integrity"],
    ];
    for (const [response, code] of responses) {
      const garbage = clear("session.login.start", (output) => ({ ...output, responses: [response] }));
      await villain.during(garbage, () => rejected(login(account), code));
    }
    const setup = createServerSetup();
    const other: Middle = async (operation, body, forward) => {
      if (operation !== "session.login.start") return forward(operation, body);
      const { request } = decodeJson(operations[operation].input, body);
      const made = serverLoginStart(setup, random(32), account, null, request);
      return clear(operation, (output) => ({ ...output, responses: [made.response] }))(operation, body, forward);
    };
    await villain.during(other, () => rejected(login(account), "login_failed"));
    await login(account);
  });

  test("settings of another password, of another user, of nobody", async () => {
    const account = `ada ${count++}`;
    const ada = kept(await registerDevice(villain.link, account, PASSWORD));
    const eve = kept(await registerDevice(villain.link, `eve ${count++}`, PASSWORD));
    const hers = eve.login.reply;
    const userId = ada.open.box.model.owner;
    const attacks: ((reply: Of<typeof loginReply>) => Of<typeof loginReply> | Uint8Array)[] = [
      () => hers,
      (reply) => ({ ...reply, settings: hers.settings }),
      (reply) => ({ ...reply, settings: hers.settings, head: hers.head }),
      (reply) => ({ ...reply, userId: hers.userId }),
      (reply) => {
        const settings = { ...reply.settings, ...wrapAccountKey(random(64), userId, 1, random(32), random) };
        return { ...reply, settings };
      },
      (reply) => {
        // the server knows neither export key nor identity, but signs all that it can
        const settings = { ...reply.settings, identity: foreign.publicKey };
        const state = { ...reply.head.state, settingsHash: settingsHash(settings) };
        return { ...reply, settings, head: signState(state, foreign, foreign) };
      },
      (reply) => ({ ...reply, head: { ...reply.head, identitySignature: new Uint8Array(64) } }),
      (reply) => ({ ...reply, head: { ...reply.head, state: { ...reply.head.state, revision: 9 } } }),
      () => new TextEncoder().encode("[]"),
      () => new Uint8Array(0),
    ];
    for (const attack of attacks) {
      await villain.during(atLogin(villain, attack), () => rejected(login(account), "integrity"));
    }
    await login(account);
  });

  test("replay the reply of an earlier login, or of another session", async () => {
    const account = `ada ${count++}`;
    kept(await registerDevice(villain.link, account, PASSWORD));
    let old: Awaited<ReturnType<Middle>> | undefined;
    await villain.during(
      async (operation, body, forward) => {
        const reply = await forward(operation, body);
        if (operation === "session.login") old = reply;
        return reply;
      },
      () => login(account),
    );
    const replay: Middle = async (operation, body, forward) =>
      operation === "session.login" && old ? old : forward(operation, body);
    await villain.during(replay, () => rejected(login(account), "integrity"));
    const renamed = clear("session.login.start", (output) => ({ ...output, sessionId: newId<SessionId>(random) }));
    await villain.during(renamed, () => rejected(login(account), "login_failed", "integrity"));
    await login(account);
  });
});
