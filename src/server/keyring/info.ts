import { hpkeKeyPair } from "../../crypto/hpke.ts";
import type { RegistryService, RegistrySite } from "./service.ts";

/** Who a registry is: what requests, policies and enrolments name (docs/protocol.md §9.1). */
export function createInfo({
  identity,
  sealingSeed,
  version,
  ctx,
}: RegistrySite): Pick<RegistryService, "keyring.info"> {
  let sealing: Promise<Uint8Array> | undefined;
  return {
    async "keyring.info"() {
      sealing ??= hpkeKeyPair(sealingSeed).then((pair) => pair.publicKey);
      return { registry: identity.publicKey, sealing: await sealing, enabled: true, version, atMs: ctx.now() };
    },
  };
}
