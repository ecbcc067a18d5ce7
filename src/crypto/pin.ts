import { toBase64url } from "./bytes.ts";
import { spkiOf } from "./identity.ts";
import { sha256 } from "./kdf.ts";

/** Pin of a SubjectPublicKeyInfo in DER: `sha256:` and the hash as base64url (docs/protocol.md §3.1). */
export function pinOfSpki(spki: Uint8Array): string {
  return `sha256:${toBase64url(sha256(spki))}`;
}

/** Pin of a server: of its Ed25519 identity key, 32 bytes (docs/protocol.md §3.1). */
export function pinOf(identityPublicKey: Uint8Array): string {
  return pinOfSpki(spkiOf(identityPublicKey));
}
