import type { KeyStoreService, KeyStoreSite } from "../ceremony/service.ts";
import { createEntries } from "./entries.ts";
import { createMoves } from "./moves.ts";
import { createRequests } from "./requests.ts";
import { createSweep } from "./sweeping.ts";
import { createTokens } from "./tokens.ts";
import { createVerifying } from "./verifying.ts";

/** The distribution server's operations (docs/protocol.md §10.8). */
export type DistributionPart = Pick<
  KeyStoreService,
  Extract<keyof KeyStoreService, `otp.${string}`> | "admitToken" | "sweep" | "close"
>;

/** Makes the distribution server's part of the key store. */
export function createDistribution(site: KeyStoreSite): DistributionPart {
  return {
    ...createEntries(site),
    ...createRequests(site),
    ...createVerifying(site),
    ...createTokens(site),
    ...createMoves(site),
    sweep: createSweep(site.ctx),
    close: async () => undefined,
  };
}
