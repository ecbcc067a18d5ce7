import { open } from "../../src/crypto/aead.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { openStored } from "../../src/enclave/storedvalue.ts";
import type { UserId } from "../../src/ids.ts";
import { ceremonyKeyHash } from "../../src/protocol/ceremony/records.ts";
import { sealFactorKey } from "../../src/server/factor.ts";
import type { Place } from "./ciphertexts.ts";
import { draftOf, type EntropyWorld, OUTPUTS, people, signDraft } from "./entropyworld.ts";
import type { TestServer } from "./harness.ts";
import { drawn } from "./storedworld.ts";

/** Of an enclave's ceremonies and its key store: a key pair, seeds, stored values, two of each. */
export async function placesOfCeremonies(world: EntropyWorld): Promise<Place[]> {
  const { enclave, keys, random } = world;
  const server = keys.signer.publicKey;
  const places: Place[] = [];
  for (const number of [1, 2]) {
    const made = await enclave.handle("ceremony.key", { server: random.bytes(32), number });
    const statementHash = ceremonyKeyHash(made.key);
    places.push({
      kind: "ceremony-key",
      name: `key pair ${number}`,
      sealed: made.sealed,
      open: (sealed) => open(keys.ceremonyKey, { kind: "ceremony-key", server, number, statementHash }, sealed),
    });
    const organiser = signerFromSeed(random.bytes(32));
    const draft = draftOf(world.key.statement, organiser, await people(random, 2), random);
    const opened = await enclave.handle("ceremony.open", { draft, signature: signDraft(organiser, draft) });
    const { seedHash } = opened.manifest.manifest;
    places.push({
      kind: "ceremony-seed",
      name: `seed ${number}`,
      sealed: opened.seed,
      open: (sealed) => open(keys.ceremonyKey, { kind: "ceremony-seed", server, seedHash }, sealed),
    });
    const { record, sealed: value } = await drawn(world, OUTPUTS.hotp);
    places.push({
      kind: "stored-key",
      name: `stored value ${number}`,
      sealed: value,
      open: (sealed) => openStored(keys, { record, sealed }),
    });
  }
  return places;
}

/** The key of an account's second factor, as its server seals it. */
export function placeOfFactor({ ctx }: TestServer, userId: UserId): Place {
  return {
    kind: "second-factor",
    name: `second factor of ${userId}`,
    sealed: sealFactorKey(ctx, userId, ctx.random(20)),
    open: (sealed) => open(ctx.keys.sealing, { kind: "second-factor", userId }, sealed),
  };
}
