import { expect, test } from "bun:test";
import { recipientOf } from "../../../src/client/keyring/owner.ts";
import {
  approvalSigner,
  identitySeed,
  keyringRecipientSeed,
  labelKey,
  requestSigner,
} from "../../../src/protocol/federation/credentials.ts";
import { registryScope } from "../../../src/protocol/federation/request.ts";
import { seedOf } from "../../support/policies.ts";
import { scripted } from "./scripted.ts";

test("what opens the shares of a request follows from secret, registry and nonce, and from nothing else's seed", () => {
  const secret = seedOf("secret");
  const scope = registryScope(seedOf("registry"));
  const nonce = seedOf("nonce");
  const seed = keyringRecipientSeed(secret, scope, nonce);
  expect(seed).toHaveLength(32);
  expect(keyringRecipientSeed(secret, scope, nonce)).toEqual(seed);
  const others = [
    keyringRecipientSeed(seedOf("another"), scope, nonce),
    keyringRecipientSeed(secret, registryScope(seedOf("another")), nonce),
    keyringRecipientSeed(secret, scope, seedOf("another")),
    labelKey(secret, scope),
    identitySeed(secret, scope, 0),
    requestSigner(secret, scope).publicKey,
    approvalSigner(secret, scope).publicKey,
  ];
  expect(new Set([seed, ...others].map((one) => one.toHex())).size).toBe(others.length + 1);
});

test("another device of the account has the same pair, another account has not", async () => {
  const world = await scripted();
  const [ada, bob] = [world.person("ada"), world.person("bob")];
  const nonce = seedOf("nonce");
  const { publicKey } = await recipientOf(ada.ground, nonce);
  expect((await recipientOf(world.device(ada).ground, nonce)).publicKey).toEqual(publicKey);
  expect((await recipientOf(bob.ground, nonce)).publicKey).not.toEqual(publicKey);
});
