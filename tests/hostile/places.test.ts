import { afterAll, beforeAll, expect, test } from "bun:test";
import type { UserId } from "../../src/ids.ts";
import { startRaw } from "../support/attacker.ts";
import { placeOfFactor, placesOfCeremonies } from "../support/ceremonyplaces.ts";
import { type Place, placesOfAccount, placesOfLife, placesOfServer, placesOfVault } from "../support/ciphertexts.ts";
import { kindsInSource } from "../support/contexts.ts";
import { type EnclaveWorld, enclaveWorld } from "../support/enclaveworld.ts";
import { type EntropyWorld, entropyWorld } from "../support/entropyworld.ts";
import { placesOfFederation } from "../support/federationplaces.ts";
import {
  addTestDevice,
  registerDevice,
  startTestServer,
  type TestDevice,
  type TestServer,
} from "../support/harness.ts";
import { storing } from "../support/hostile.ts";
import { type FileStore, fileStore } from "../support/storeprobe.ts";

/**
 * Every ciphertext of a live system, of two users on two devices each, put in the place of every other one: opened as
 * the server and the clients open it there, each is refused (docs/protocol.md §2.2).
 */

let file: FileStore;
let world: EnclaveWorld;
let ceremonies: EntropyWorld;
let server: TestServer;
const devices: TestDevice[] = [];
const places: Place[] = [];

beforeAll(async () => {
  file = fileStore();
  server = await startTestServer({ path: file.path });
  for (const account of ["ada", "eve"]) {
    const password = `a password of ${account}`;
    const first = await registerDevice(server.link(), account, password);
    devices.push(first, await addTestDevice(server.link(), account, password));
    await first.client.sync();
    for (const [name, value] of [
      ["a", "first"],
      ["a", "second"],
      ["b", "other"],
    ] as const) {
      await first.client.store(storing(name, value));
    }
    await first.client.generate({ name: "c", type: "ed25519", length: null, tags: ["t"], replace: false, where: null });
    // half a login, and a second one of the same account
    for (let i = 0; i < 2; i++) await startRaw(server, account, password);
    places.push(
      ...(await placesOfAccount(server, account, first)),
      ...(await placesOfLife(server, account, first)),
      ...(await placesOfVault(account, first)),
    );
  }
  places.push(...(await placesOfServer(server, file)));
  world = await enclaveWorld();
  places.push(...(await placesOfFederation(world)));
  for (const digit of ["a", "b"]) places.push(placeOfFactor(server, digit.repeat(32) as UserId));
  ceremonies = await entropyWorld();
  places.push(...(await placesOfCeremonies(ceremonies)));
}, 30_000);
afterAll(async () => {
  for (const device of devices) await device.end();
  world.close();
  ceremonies.close();
  await server.close();
  file.end();
});

/** Kinds that nobody keeps: tried in tests/crypto/aead.test.ts. */
const ELSEWHERE = ["frame", "login-reply"];

const opens = async (place: Place, sealed: Uint8Array): Promise<boolean> => {
  try {
    await place.open(sealed);
    return true;
  } catch (error) {
    if (error instanceof Error && error.name === "Fault") return false;
    throw error;
  }
};

test("there is one of every kind that is stored, and each opens in its own place", async () => {
  const kinds = new Set<string>([...places.map(({ kind }) => kind), ...ELSEWHERE]);
  expect([...kinds].sort()).toEqual([...kindsInSource()].sort());
  for (const place of places) expect([place.name, await opens(place, place.sealed)]).toEqual([place.name, true]);
});

test("none opens in another's place", async () => {
  let pairs = 0;
  for (const place of places) {
    for (const other of places) {
      if (other === place || Buffer.compare(other.sealed, place.sealed) === 0) continue;
      pairs += 1;
      if (await opens(place, other.sealed)) throw new Error(`${other.name} opens as ${place.name}`);
    }
  }
  expect(pairs).toBeGreaterThan(1_500);
}, 60_000);

test("none opens with a bit flipped", async () => {
  for (const place of places) {
    for (const at of [0, 1, 24, 25, place.sealed.length - 1]) {
      const bent = place.sealed.map((byte, i) => (i === at ? byte ^ 1 : byte));
      expect([place.name, at, await opens(place, bent)]).toEqual([place.name, at, false]);
    }
  }
});
