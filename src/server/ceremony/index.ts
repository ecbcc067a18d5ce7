import type { KeyStoreService, KeyStoreSite } from "./service.ts";
import { noKeyStore } from "./service.ts";

/** Ceremonies of a server: their operations but those of the distribution server. */
export type CeremonyPart = Pick<
  KeyStoreService,
  Extract<keyof KeyStoreService, `ceremony.${string}`> | "sweep" | "close"
>;

/** Makes the ceremonies' part of the key store. */
export function createCeremonies(_site: KeyStoreSite): CeremonyPart {
  const none = async (): Promise<never> => {
    throw noKeyStore();
  };
  return {
    "ceremony.keys": none,
    "ceremony.open": none,
    "ceremony.list": none,
    "ceremony.seat": none,
    "ceremony.close": none,
    "ceremony.get": none,
    "ceremony.join": none,
    "ceremony.reveal": none,
    "ceremony.part": none,
    "ceremony.collect": none,
    "ceremony.approve": none,
    sweep: async () => undefined,
    close: async () => undefined,
  };
}
