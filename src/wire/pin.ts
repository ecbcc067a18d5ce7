import { toBase64url } from "../crypto/bytes.ts";
import { spkiOf } from "../crypto/identity.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";

const PIN_TEXT = /^sha256:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;

/** Pin of a SubjectPublicKeyInfo in DER: `sha256:` and the hash as base64url (docs/protocol.md §3.1). */
export function pinOfSpki(spki: Uint8Array): string {
  return `sha256:${toBase64url(sha256(spki))}`;
}

/** Pin of a server: of its Ed25519 identity key, 32 bytes (docs/protocol.md §3.1). */
export function pinOf(identityPublicKey: Uint8Array): string {
  return pinOfSpki(spkiOf(identityPublicKey));
}

/**
 * Checks the form of a pin that a person typed.
 *
 * @throws Fault bad_input
 */
export function parsePin(text: string): string {
  if (!PIN_TEXT.test(text)) {
    throw new Fault("bad_input", "a pin is sha256: and 43 characters", {
      hint: "copy the pin that `keyhold serve` prints",
    });
  }
  return text;
}
