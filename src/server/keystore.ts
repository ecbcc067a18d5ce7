import { createCeremonies } from "./ceremony/index.ts";
import type { KeyStoreService, KeyStoreSite } from "./ceremony/service.ts";
import { createDistribution } from "./otp/index.ts";

/** The key store of a server: ceremonies that make keys, and the distribution of their codes (docs/protocol.md §10). */
export function createKeyStore(site: KeyStoreSite): KeyStoreService {
  const ceremonies = createCeremonies(site);
  const distribution = createDistribution(site);
  return {
    ...ceremonies,
    ...distribution,
    async sweep() {
      // combinations that wait in line hold up nothing else
      await Promise.all([ceremonies.sweep(), distribution.sweep()]);
    },
    async close() {
      await ceremonies.close();
      await distribution.close();
    },
  };
}
