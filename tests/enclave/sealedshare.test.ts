import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { openLive, openPending, sealLive, sealPending } from "../../src/enclave/sealedshare.ts";
import type { Fault } from "../../src/errors.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import { type EnclaveWorld, enclaveWorld, type PlantedKey } from "../support/enclaveworld.ts";

let world: EnclaveWorld;
let key: PlantedKey;
beforeAll(async () => {
  world = await enclaveWorld();
  key = await world.plant("ed25519");
});
afterAll(() => world.close());

const random = (length: number) => world.random.bytes(length);
const codeOf = (work: () => unknown): string => {
  try {
    work();
    return "ok";
  } catch (error) {
    return (error as Fault).code;
  }
};

describe("a share at rest", () => {
  const id = "ab".repeat(32) as never;
  const changes: Partial<Certificate>[] = [
    { keyId: id },
    { epoch: 2 },
    { generation: 1 },
    { type: "ristretto255" },
    { custody: "self" },
  ];

  test("opens as what it was sealed, and under no other key id, epoch, generation, type or custody", () => {
    const { keys } = world.server(1);
    const share = random(32);
    const sealed = sealLive(keys, key.certificate, share, random);
    expect(openLive(keys, key.certificate, sealed)).toEqual(share);
    for (const change of changes) {
      expect([change, codeOf(() => openLive(keys, { ...key.certificate, ...change }, sealed))]).toEqual([
        change,
        "integrity",
      ]);
    }
  });

  test("opens at its own server alone", () => {
    const [one, two] = [world.server(1).keys, world.server(2).keys];
    const sealed = sealLive(one, key.certificate, random(32), random);
    expect(codeOf(() => openLive(two, key.certificate, sealed))).toBe("integrity");
    // even with the other's sealing key its identity tells
    expect(codeOf(() => openLive({ ...one, signer: two.signer }, key.certificate, sealed))).toBe("integrity");
  });

  test("is no share for use while it waits for the acceptance, nor the other way round", () => {
    const { keys } = world.server(1);
    const share = random(32);
    const pending = sealPending(keys, key.certificate, share, random);
    expect(openPending(keys, key.certificate, pending)).toEqual(share);
    expect(codeOf(() => openLive(keys, key.certificate, pending))).toBe("integrity");
    expect(codeOf(() => openPending(keys, key.certificate, sealLive(keys, key.certificate, share, random)))).toBe(
      "integrity",
    );
  });

  test("waits for one certificate: another attempt's, or one changed in anything, does not open it", () => {
    const { keys } = world.server(1);
    const pending = sealPending(keys, key.certificate, random(32), random);
    for (const change of [
      ...changes,
      { attempt: 2 },
      { requestId: id },
      { transcript: random(32) },
      { control: "shared" as const },
    ]) {
      expect([change, codeOf(() => openPending(keys, { ...key.certificate, ...change }, pending))]).toEqual([
        change,
        "integrity",
      ]);
    }
  });

  test("looks different each time", () => {
    const { keys } = world.server(1);
    const share = random(32);
    expect(sealLive(keys, key.certificate, share, random)).not.toEqual(sealLive(keys, key.certificate, share, random));
  });
});
