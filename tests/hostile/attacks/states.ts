import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { type DeviceId, type IncarnationId, newId, type UserId } from "../../../src/ids.ts";
import { type Settings, type SignedState, settingsHash, signState, stateHash } from "../../../src/protocol/state.ts";
import { random } from "../../support/harness.ts";
import { type Attack, type Attempt, attacks } from "../attack.ts";
import type { Stage } from "../stage.ts";
import { behind, syncing } from "./lists.ts";

/** The account's signed states and the settings that they name: keys, devices, the owner's signature. */

interface Shown {
  readonly states: readonly SignedState[];
  readonly settings: Settings;
}

const shown =
  (edit: (shown: Shown) => Shown) =>
  async (stage: Stage): Promise<Attempt> => {
    await behind(stage);
    const lie = syncing(stage, (output) =>
      output.settings === null ? output : { ...output, ...edit({ states: output.states, settings: output.settings }) },
    );
    return { lie, command: ["sync"], ends: "integrity" };
  };

const settled = (edit: (settings: Settings) => Settings) =>
  shown(({ states, settings }) => ({ states, settings: edit(settings) }));
const stated = (edit: (signed: SignedState) => SignedState) =>
  shown(({ states, settings }) => ({ states: states.map(edit), settings }));

/** A key pair of the server's own. */
const own = signerFromSeed(random(32));

const firstDevice = (settings: Settings): Settings["devices"][number] => {
  const [device] = settings.devices;
  if (!device) throw new Error("there are no devices");
  return device;
};

/** Settings with a device of the server's in them. */
const planted = (settings: Settings): Settings => ({
  ...settings,
  devices: [...settings.devices, { ...firstDevice(settings), id: newId<DeviceId>(random), publicKey: own.publicKey }],
});

/** Signs the newest state anew, for other settings, with keys of the server's own. */
const resigned = (edit: (settings: Settings) => Settings) =>
  shown((before) => {
    const settings = edit(before.settings);
    const last = before.states.at(-1);
    if (!last) throw new Error("there are no states");
    const deviceId = settings.devices.at(-1)?.id ?? last.state.deviceId;
    const state = { ...last.state, deviceId, settingsHash: settingsHash(settings) };
    return { settings, states: [...before.states.slice(0, -1), signState(state, own, own)] };
  });

export const STATES: readonly Attack[] = [
  ...attacks("swap public keys", ["5.3", "5.4"], {
    "another account identity": settled((s) => ({ ...s, identity: own.publicKey })),
    "another public key for a device": settled((s) => ({
      ...s,
      devices: s.devices.map((device) => ({ ...device, publicKey: own.publicKey })),
    })),
    "two devices with their public keys in exchange": settled((s) => ({
      ...s,
      devices: s.devices.map((device, i) => ({
        ...device,
        publicKey: s.devices[(i + 1) % s.devices.length]?.publicKey ?? device.publicKey,
      })),
    })),
    "a device that nobody signed": settled(planted),
    "a device fewer": settled((s) => ({ ...s, devices: s.devices.slice(1) })),
    "another token for a device": settled((s) => ({
      ...s,
      devices: s.devices.map((device) => ({ ...device, tokenHash: random(32) })),
    })),
    "a recovery kit of the server's": settled((s) => ({ ...s, kit: random(64), kitWrapped: random(80) })),
    "another wrapped account key": settled((s) => ({ ...s, wrappedAccountKey: random(73) })),
    "another credential tag": settled((s) => ({ ...s, credentialTag: random(32) })),
    "another identity, with the state signed anew": resigned((s) => ({ ...s, identity: own.publicKey })),
    "a device of the server's, with the state signed anew": resigned(planted),
    "an identity and a device of the server's, with the state signed anew": resigned((s) =>
      planted({ ...s, identity: own.publicKey }),
    ),
  }),
  ...attacks("invent a mutating request", ["5.4", "5.6"], {
    "a newest state without the owner's signature": stated((s) => ({ ...s, identitySignature: new Uint8Array(64) })),
    "a newest state without a device's signature": stated((s) => ({ ...s, deviceSignature: new Uint8Array(64) })),
    "a newest state of another user": stated((s) => ({ ...s, state: { ...s.state, userId: newId<UserId>(random) } })),
    "a newest state of another incarnation": stated((s) => ({
      ...s,
      state: { ...s.state, incarnation: newId<IncarnationId>(random) },
    })),
    "a newest state by an unlisted device": stated((s) => ({
      ...s,
      state: { ...s.state, deviceId: newId<DeviceId>(random) },
    })),
    "a newest state with another root": stated((s) => ({ ...s, state: { ...s.state, root: random(32) } })),
    "a newest state with a higher revision": stated((s) => ({
      ...s,
      state: { ...s.state, revision: s.state.revision + 1 },
    })),
    "a newest state that is not linked to the one before": stated((s) => ({
      ...s,
      state: { ...s.state, previous: random(32) },
    })),
    "one state more, signed by the server": shown(({ states, settings }) => {
      const last = states.at(-1);
      if (!last) throw new Error("there are no states");
      const state = { ...last.state, revision: last.state.revision + 1, previous: stateHash(last.state) };
      return { settings, states: [...states, signState(state, own, own)] };
    }),
  }),
];
