import { open } from "../crypto/aead.ts";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { seedHashOf } from "../protocol/ceremony/records.ts";
import type { Of } from "../wire/codec.ts";
import type { sealedItem } from "./api.ts";
import type { CeremonyKeys } from "./ceremonykeys.ts";
import { ceremonySeedContext, type EnclaveKeys } from "./keys.ts";
import type { EnclaveParts, Handlers } from "./parts.ts";
import { openStored } from "./storedvalue.ts";

type Item = Of<typeof sealedItem>;

function seedHolds(keys: EnclaveKeys, { nonce, seedHash, sealed }: Item & { readonly kind: "seed" }): boolean {
  const seed = open(keys.ceremonyKey, ceremonySeedContext(keys, seedHash), sealed);
  try {
    return equalBytes(seedHashOf(seed, nonce), seedHash);
  } finally {
    wipe(seed);
  }
}

/** Says of what the parent keeps whether it is whole: for `keyhold server check` (docs/operations.md). */
export function createSealedChecks({ keys }: EnclaveParts, ceremonyKeys: CeremonyKeys): Handlers<"sealed.check"> {
  async function opens(item: Item): Promise<boolean> {
    switch (item.kind) {
      case "key":
        return ceremonyKeys.holds(item.key);
      case "seed":
        return seedHolds(keys, item);
      case "stored":
        wipe(openStored(keys, item));
        return true;
    }
  }
  const holds = (item: Item): Promise<boolean> =>
    opens(item).catch((error: unknown) => {
      if (error instanceof Fault) return false;
      throw error;
    });
  return {
    "sealed.check": async ({ items }) => {
      const found: boolean[] = [];
      for (const item of items) found.push(await holds(item));
      return { holds: found };
    },
  };
}
