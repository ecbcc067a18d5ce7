import type { KeyStoreService, KeyStoreSite } from "../ceremony/service.ts";
import { noKeyStore } from "../ceremony/service.ts";

/** The distribution server's operations (docs/protocol.md §10.8). */
export type DistributionPart = Pick<
  KeyStoreService,
  Extract<keyof KeyStoreService, `otp.${string}`> | "admitToken" | "sweep" | "close"
>;

/** Makes the distribution server's part of the key store. */
export function createDistribution(_site: KeyStoreSite): DistributionPart {
  const none = async (): Promise<never> => {
    throw noKeyStore();
  };
  return {
    "otp.create": none,
    "otp.entries": none,
    "otp.grant": none,
    "otp.revoke": none,
    "otp.handouts": none,
    "otp.request": none,
    "otp.request.device": none,
    "otp.check": none,
    "otp.token.create": none,
    "otp.token.list": none,
    "otp.token.revoke": none,
    "otp.send": none,
    "otp.receive": none,
    "otp.verify": none,
    admitToken: none,
    sweep: async () => undefined,
    close: async () => undefined,
  };
}
