import { equalBytes } from "../../crypto/bytes.ts";
import type { Certificate } from "./certificate.ts";
import type { FederatedType } from "./kinds.ts";
import type { FederatedRequest, KeyringMark } from "./request.ts";

/** Types whose partial signatures the servers give. */
const SIGNED: readonly FederatedType[] = ["ed25519", "schnorr"];
/** Types whose shares are released to the owner's client to sign. */
const RELEASED: readonly FederatedType[] = ["secp256k1", "p256"];

/** True for a key of the workspace and registry that a request names. */
function isOfWorkspace({ registry, workspaceId }: KeyringMark, c: Certificate): boolean {
  const shared = c.control === "shared" && c.custody === "delegated";
  return shared && c.policy === workspaceId && equalBytes(c.owner, registry);
}

/**
 * Why a request cannot go through the keyring that it names (docs/protocol.md §9.2): a workspace asks for delegated
 * keys under its own policy, and to sign with them; null for one that can, and for every request without a mark.
 *
 * @param certificate Of the key that the request is about; null for one that makes a key.
 */
export function keyringRefusal(request: FederatedRequest, certificate: Certificate | null): string | null {
  const { keyring, requester, body } = request;
  if (keyring === null) return null;
  if (equalBytes(requester, keyring.registry)) return "a registry asks for nothing itself";
  if (body.kind === "import" || body.kind === "reshare") return `a keyring serves no request to ${body.kind}`;
  if (body.kind === "generate") {
    if (body.custody !== "delegated" || body.owner !== null) return "a keyring's keys are in delegated custody";
    if (body.control !== "shared" || body.policy !== keyring.workspaceId)
      return "the policy of a keyring's key is that of its workspace";
    if (![...SIGNED, ...RELEASED].includes(body.type)) return `a keyring makes no keys of type ${body.type}`;
    if (body.length !== 32) return "a keyring's keys have 32 bytes";
    return null;
  }
  if (certificate === null || !isOfWorkspace(keyring, certificate)) return "this key is not the workspace's";
  if (body.kind === "sign")
    return SIGNED.includes(certificate.type) ? null : "servers do not sign with keys of this type";
  if (body.purpose !== "sign") return `a keyring serves no request to ${body.purpose}`;
  return RELEASED.includes(certificate.type) ? null : "keys of this type sign without their shares";
}
