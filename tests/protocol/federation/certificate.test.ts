import { expect, test } from "bun:test";
import type { Fault } from "../../../src/errors.ts";
import { type Certificate, verifyCertificate } from "../../../src/protocol/federation/certificate.ts";
import { certify, enclaveWorld } from "../../support/enclaveworld.ts";

test("holders and threshold that no ceremony comes to make no certificate, whoever has signed it", async () => {
  const world = await enclaveWorld({ n: 5, threshold: 3 });
  try {
    const { certificate: made } = await world.plant("ed25519");
    const codeOf = (change: Partial<Certificate>) => {
      try {
        const certificate = { ...made, ...change };
        verifyCertificate(certify(world, certificate), world.manifest);
        return "ok";
      } catch (error) {
        return (error as Fault).code;
      }
    };
    const two = made.commitments.slice(0, 2);
    expect(codeOf({})).toBe("ok");
    // two servers of five and an owner would make a first certificate of a generated key by themselves
    expect(codeOf({ holders: [1, 2], threshold: 2, commitments: two })).toBe("integrity");
    expect(codeOf({ holders: [1, 2, 3], commitments: made.commitments })).toBe("integrity");
    // and two of many holders a later one
    const later = { generation: 1, predecessor: new Uint8Array(32) };
    expect(codeOf({ ...later, holders: [1, 2], threshold: 2, commitments: two })).toBe("ok");
    expect(codeOf({ ...later, threshold: 2, commitments: two })).toBe("integrity");
    expect(codeOf({ ...later, holders: [2, 1], threshold: 2, commitments: two })).toBe("integrity");
    expect(codeOf({ ...later, threshold: 2 })).toBe("integrity");
  } finally {
    world.close();
  }
});
