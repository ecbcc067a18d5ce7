import type { SignatureScheme } from "../crypto/schemes.ts";
import { Fault } from "../errors.ts";
import { utf8Bytes } from "./item.ts";
import { sshMpint, sshString, sshUint32 } from "./sshwire.ts";

/** Names of signatures (RFC 8709 §6, RFC 5656 §3.1.2, RFC 8332 §3); ssh has none for the others. */
const NAMES: { readonly [S in SignatureScheme]?: string } = {
  ed25519: "ssh-ed25519",
  "ecdsa-p256-sha256": "ecdsa-sha2-nistp256",
  "ecdsa-p384-sha384": "ecdsa-sha2-nistp384",
  "rsa-pkcs1-sha256": "rsa-sha2-256",
  "rsa-pkcs1-sha512": "rsa-sha2-512",
};

/**
 * A signature as ssh sends it.
 *
 * @param signature As `signMessage` gives it: r ‖ s for ECDSA.
 * @throws Fault bad_input for a scheme that ssh has no name for
 */
export function sshSignature(scheme: SignatureScheme, signature: Uint8Array): Uint8Array {
  const name = NAMES[scheme];
  if (name === undefined) throw new Fault("bad_input", `ssh has no name for signatures by ${scheme}`);
  const half = signature.length / 2;
  const body = scheme.startsWith("ecdsa-")
    ? sshString(sshMpint(signature.subarray(0, half)), sshMpint(signature.subarray(half)))
    : sshString(signature);
  return Buffer.concat([sshString(utf8Bytes(name)), body]);
}

const MAGIC = utf8Bytes("SSHSIG");
const HASH = "sha512";

/**
 * What is signed for a file by `ssh-keygen -Y` (PROTOCOL.sshsig §3).
 *
 * @param digest SHA-512 of the file, 64 bytes.
 */
export function sshsigMessage(namespace: string, digest: Uint8Array): Uint8Array {
  const parts = [utf8Bytes(namespace), new Uint8Array(0), utf8Bytes(HASH), digest].map((part) => sshString(part));
  return Buffer.concat([MAGIC, ...parts]);
}

/**
 * The file that `ssh-keygen -Y verify` takes (PROTOCOL.sshsig §1).
 *
 * @param publicBlob The public key, and `signature` the signature of {@link sshsigMessage}, as ssh sends them.
 */
export function sshsigFile(publicBlob: Uint8Array, namespace: string, signature: Uint8Array): string {
  const fields = [publicBlob, utf8Bytes(namespace), new Uint8Array(0), utf8Bytes(HASH), signature];
  const whole = Buffer.concat([MAGIC, sshUint32(1), ...fields.map((field) => sshString(field))]);
  const lines = whole.toString("base64").match(/.{1,70}/g) ?? [];
  return `-----BEGIN SSH SIGNATURE-----\n${lines.join("\n")}\n-----END SSH SIGNATURE-----\n`;
}
