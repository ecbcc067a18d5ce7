import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import type { DeviceId } from "../../src/ids.ts";
import {
  type AccountState,
  bodyHash,
  type Settings,
  settingsHash,
  signState,
  stateHash,
  stateSignaturesHold,
} from "../../src/protocol/state.ts";
import { bent, bentFields, bytesOf, settingsArbitrary, stateArbitrary } from "../support/arbitraries.ts";

const identity = signerFromSeed(new Uint8Array(32).fill(1));
const device = signerFromSeed(new Uint8Array(32).fill(2));
const stranger = signerFromSeed(new Uint8Array(32).fill(3));

/** A state signed by the identity and the first device of its settings. */
const signedArbitrary = fc.tuple(stateArbitrary, settingsArbitrary).map(([state, drawn]) => {
  const settings: Settings = {
    ...drawn,
    identity: identity.publicKey,
    devices: drawn.devices.map((d, i) => (i === 0 ? { ...d, id: state.deviceId, publicKey: device.publicKey } : d)),
  };
  const bound: AccountState = { ...state, settingsHash: settingsHash(settings) };
  return { settings, signed: signState(bound, identity, device) };
});
const runs = { numRuns: 20 };

describe("stateHash", () => {
  test("depends on every field", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(stateArbitrary, (state) => {
        for (const { field, value } of bentFields(state)) {
          seen.add(field);
          expect({ field, same: Buffer.compare(stateHash(value), stateHash(state)) }).not.toEqual({ field, same: 0 });
        }
      }),
    );
    expect(seen.size).toBe(11);
  });

  test("tells apart the fields of one form", () => {
    fc.assert(
      fc.property(stateArbitrary, (state) => {
        const swaps: AccountState[] = [
          { ...state, previous: state.root, root: state.previous },
          { ...state, requestHash: state.settingsHash, settingsHash: state.requestHash },
          { ...state, auditLink: state.root, root: state.auditLink },
        ];
        for (const other of swaps) expect(stateHash(other)).not.toEqual(stateHash(state));
      }),
      runs,
    );
  });
});

describe("settingsHash", () => {
  test("depends on every field, of each device too", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(settingsArbitrary, (settings) => {
        const hash = settingsHash(settings).toHex();
        for (const { field, value } of bentFields(settings)) {
          seen.add(field);
          expect({ field, same: settingsHash(value).toHex() === hash }).toEqual({ field, same: false });
        }
      }),
    );
    expect(seen.size).toBe(10);
  });

  test("depends on the order and the number of devices", () => {
    fc.assert(
      fc.property(settingsArbitrary, settingsArbitrary, (settings, other) => {
        const two = [...settings.devices, ...other.devices];
        const hash = settingsHash({ ...settings, devices: two });
        expect(settingsHash({ ...settings, devices: two.toReversed() })).not.toEqual(hash);
        expect(settingsHash({ ...settings, devices: two.slice(1) })).not.toEqual(hash);
        expect(settingsHash({ ...settings, devices: [...two, ...two] })).not.toEqual(hash);
      }),
    );
  });
});

describe("stateSignaturesHold", () => {
  test("for the state as signed", () => {
    fc.assert(
      fc.property(signedArbitrary, ({ signed, settings }) => expect(stateSignaturesHold(signed, settings)).toBe(true)),
      runs,
    );
  });

  test("not with any field of the state changed", () => {
    fc.assert(
      fc.property(signedArbitrary, ({ signed, settings }) => {
        for (const { field, value } of bentFields(signed.state)) {
          expect({ field, holds: stateSignaturesHold({ ...signed, state: value }, settings) }).toEqual({
            field,
            holds: false,
          });
        }
      }),
      runs,
    );
  });

  test("not with the acting device renamed to another listed one", () => {
    fc.assert(
      fc.property(signedArbitrary, ({ signed, settings }) => {
        const id = "f".repeat(32) as DeviceId;
        const other = { ...settings, devices: settings.devices.map((d, i) => (i === 0 ? { ...d, id } : d)) };
        expect(stateSignaturesHold({ ...signed, state: { ...signed.state, deviceId: id } }, other)).toBe(false);
      }),
      runs,
    );
  });

  test("not with any bit of either signature changed, or the two exchanged", () => {
    fc.assert(
      fc.property(signedArbitrary, fc.nat({ max: 511 }), ({ signed, settings }, bit) => {
        const flip = (signature: Uint8Array): Uint8Array => {
          const out = signature.slice();
          out[bit >> 3] = (out[bit >> 3] ?? 0) ^ (1 << (bit & 7));
          return out;
        };
        const { identitySignature, deviceSignature } = signed;
        const holds = (change: Partial<typeof signed>) => stateSignaturesHold({ ...signed, ...change }, settings);
        expect(holds({ identitySignature: flip(identitySignature) })).toBe(false);
        expect(holds({ deviceSignature: flip(deviceSignature) })).toBe(false);
        expect(holds({ identitySignature: deviceSignature, deviceSignature: identitySignature })).toBe(false);
        expect(holds({ identitySignature: deviceSignature })).toBe(false);
        expect(holds({ deviceSignature: identitySignature })).toBe(false);
        expect(holds({ deviceSignature: new Uint8Array(0) })).toBe(false);
      }),
      runs,
    );
  });

  test("not when a stranger signed in either place", () => {
    fc.assert(
      fc.property(signedArbitrary, ({ signed, settings }) => {
        expect(stateSignaturesHold(signState(signed.state, stranger, device), settings)).toBe(false);
        expect(stateSignaturesHold(signState(signed.state, identity, stranger), settings)).toBe(false);
        expect(stateSignaturesHold(signState(signed.state, device, identity), settings)).toBe(false);
      }),
      runs,
    );
  });

  test("not when the device is not in the settings, or with another key", () => {
    fc.assert(
      fc.property(signedArbitrary, ({ signed, settings }) => {
        const [first, ...rest] = settings.devices;
        if (!first) throw new Error("no device");
        expect(stateSignaturesHold(signed, { ...settings, devices: rest })).toBe(false);
        const otherKey = { ...first, publicKey: stranger.publicKey };
        expect(stateSignaturesHold(signed, { ...settings, devices: [otherKey, ...rest] })).toBe(false);
        expect(stateSignaturesHold(signed, { ...settings, identity: stranger.publicKey })).toBe(false);
      }),
      runs,
    );
  });

  test("changed settings show in the hash that the signature covers", () => {
    fc.assert(
      fc.property(signedArbitrary, ({ signed, settings }) => {
        expect(settingsHash(settings)).toEqual(signed.state.settingsHash);
        for (const { value } of bentFields(settings)) {
          expect(settingsHash(value)).not.toEqual(signed.state.settingsHash);
        }
      }),
      runs,
    );
  });
});

describe("bodyHash", () => {
  test("depends on operation, body and the border between them", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" }), (operation, body) => {
        const hash = bodyHash(operation, body).toHex();
        expect(hash.length).toBe(64);
        for (const other of bent(body)) expect(bodyHash(operation, String(other)).toHex()).not.toBe(hash);
        for (const other of bent(operation)) expect(bodyHash(String(other), body).toHex()).not.toBe(hash);
        const [first, ...rest] = Array.from(body);
        if (first) expect(bodyHash(operation + first, rest.join("")).toHex()).not.toBe(hash);
      }),
    );
  });

  test("is not the hash of a state, even of equal bytes", () => {
    fc.assert(
      fc.property(stateArbitrary, bytesOf(4), (state, noise) => {
        expect(bodyHash("secret.store", noise.toHex())).not.toEqual(stateHash(state));
      }),
      runs,
    );
  });
});
