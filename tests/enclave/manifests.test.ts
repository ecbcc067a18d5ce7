import { afterEach, beforeEach, expect, test } from "bun:test";
import type { Fault } from "../../src/errors.ts";
import { signManifest } from "../../src/protocol/federation/manifest.ts";
import { type EnclaveWorld, enclaveWorld, type PlantedKey } from "../support/enclaveworld.ts";

let world: EnclaveWorld;
let key: PlantedKey;
beforeEach(async () => {
  world = await enclaveWorld();
  key = await world.plant("ed25519");
});
afterEach(() => world.close());

test("a manifest whose signatures held once is verified anew where any byte of it or of them is another", async () => {
  const request = world.request(world.signBody(key));
  const codeOf = (change: Parameters<EnclaveWorld["evidence"]>[2]) =>
    world
      .server(1)
      .enclave.handle("evaluate", { evidence: world.evidence(request, key, change) })
      .then(
        () => "ok",
        (error: Fault) => error.code,
      );
  const { manifest, signatures } = world.signed;
  const [first, second, third] = signatures;
  if (!first || !second || !third) throw new Error("too few signatures");
  const own = world.server(1).keys.signer;
  const renamed = { ...manifest, epoch: 2, name: "other" };
  const forgeries = [
    { manifest, signatures: [first, second] },
    { manifest, signatures: [first, second, second] },
    { manifest, signatures: [first, second, { ...third, signature: third.signature.map((byte) => byte ^ 1) }] },
    {
      manifest,
      signatures: [first, { ...second, signature: third.signature }, { ...third, signature: second.signature }],
    },
    { manifest: renamed, signatures },
    { manifest: renamed, signatures: [signManifest(own, renamed), second, third] },
  ];
  for (let time = 0; time < 2; time++) {
    expect(await codeOf({})).toBe("ok");
    for (const forged of forgeries) {
      expect(await codeOf({ manifest: forged })).toBe("integrity");
      expect(await codeOf({ certificateManifest: forged })).toBe("integrity");
    }
  }
});
