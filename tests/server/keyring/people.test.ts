import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { hpkeKeyPair } from "../../../src/crypto/hpke.ts";
import { keyringEnrolmentBytes } from "../../../src/protocol/keyring/keyring.ts";
import { isEnrolled, ownerKeyOf, partyKeyOf, userOfKey } from "../../../src/server/keyring/people.ts";
import { signerOf } from "../../support/policies.ts";
import { codeOf, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";

let world: RegistryWorld;
let ada: RegistryPerson;
let bob: RegistryPerson;
beforeEach(async () => {
  world = await registryWorld();
  ada = await world.stranger("ada");
  bob = await world.stranger("bob");
});
afterEach(() => world.close());

const inTx = <T>(work: Parameters<typeof world.store.transaction<T>>[0]) => world.store.transaction(work);

test("info names the registry's identity and the key that results are sealed to", async () => {
  const info = await world.service["keyring.info"]({ address: "127.0.0.1" }, {});
  const pair = await hpkeKeyPair(world.site.sealingSeed);
  expect(info).toEqual({
    registry: world.registry.publicKey,
    sealing: pair.publicKey,
    enabled: true,
    version: "test",
    atMs: world.nowMs,
  });
});

describe("enrolment", () => {
  test("ties a key to an account; again it changes nothing", async () => {
    await world.enrol(ada, "owner");
    await world.enrol(ada, "owner");
    await world.enrol(ada, "party");
    expect(await inTx((tx) => ownerKeyOf(tx, ada.userId))).toEqual(ada.owner.publicKey);
    expect(await inTx((tx) => partyKeyOf(tx, ada.userId))).toEqual(ada.party.publicKey);
    expect(await inTx((tx) => userOfKey(tx, "owner", ada.owner.publicKey))).toBe(ada.userId);
    expect(await inTx((tx) => userOfKey(tx, "party", ada.owner.publicKey))).toBeUndefined();
  });

  test("nobody is enrolled from the start", async () => {
    expect(await codeOf(inTx((tx) => ownerKeyOf(tx, ada.userId)))).toBe("denied");
    expect(await codeOf(inTx((tx) => partyKeyOf(tx, ada.userId)))).toBe("denied");
    expect(await inTx((tx) => isEnrolled(tx, ada.userId))).toBe(false);
  });

  const proofOf = (change: object) =>
    ada.owner.sign(
      keyringEnrolmentBytes({
        registry: world.registry.publicKey,
        userId: ada.userId,
        role: "owner",
        key: ada.owner.publicKey,
        ...change,
      }),
    );

  test.each([
    ["another registry", () => ({ registry: signerOf("other registry").publicKey })],
    ["another account", () => ({ userId: bob.userId })],
    ["another role", () => ({ role: "party" })],
    ["another key", () => ({ key: bob.owner.publicKey })],
  ])("a proof for %s does not enrol", async (_, change) => {
    expect(await codeOf(world.enrol(ada, "owner", { proof: proofOf(change()) }))).toBe("integrity");
    expect(await inTx((tx) => isEnrolled(tx, ada.userId))).toBe(false);
  });

  test("one key a role and account, one account and role a key", async () => {
    await world.enrol(ada, "owner");
    const second = signerOf("second");
    const with_ = (who: RegistryPerson, role: "owner" | "party", signer: typeof second) =>
      world.enrol(who, role, {
        key: signer.publicKey,
        proof: signer.sign(
          keyringEnrolmentBytes({
            registry: world.registry.publicKey,
            userId: who.userId,
            role,
            key: signer.publicKey,
          }),
        ),
      });
    expect(await codeOf(with_(ada, "owner", second))).toBe("conflict");
    expect(await codeOf(with_(bob, "owner", ada.owner))).toBe("conflict");
    expect(await codeOf(with_(ada, "party", ada.owner))).toBe("conflict");
    expect(await codeOf(with_(bob, "owner", second))).toBe("ok");
  });

  test("the key of an account that has ended is free again", async () => {
    await world.enrol(ada, "owner");
    await inTx((tx) => tx.removeAccount(ada.userId));
    expect(await codeOf(world.enrol(ada, "owner"))).toBe("session_invalid");
    expect(await inTx((tx) => userOfKey(tx, "owner", ada.owner.publicKey))).toBeUndefined();
    const again = { ...bob, owner: ada.owner };
    expect(await codeOf(world.enrol(again, "owner"))).toBe("ok");
  });
});
