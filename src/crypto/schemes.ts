/** Ways to sign with a stored key, by the names that the local API uses (docs/agent.md). */
export const SIGNATURE_SCHEMES = [
  "ed25519",
  "ecdsa-p256-sha256",
  "ecdsa-p384-sha384",
  "ecdsa-secp256k1-sha256",
  "rsa-pss-sha256",
  "rsa-pkcs1-sha256",
  "rsa-pkcs1-sha512",
] as const;
export type SignatureScheme = (typeof SIGNATURE_SCHEMES)[number];
export type EcdsaScheme = Extract<SignatureScheme, `ecdsa-${string}`>;

/** True for the schemes whose signatures take a {@link "./hedge.ts"}. */
export function isEcdsa(scheme: SignatureScheme): scheme is EcdsaScheme {
  return scheme.startsWith("ecdsa-");
}

/** The hash that a scheme signs; null for Ed25519, which signs the message itself. */
export function hashOfScheme(scheme: SignatureScheme): "sha256" | "sha384" | "sha512" | null {
  if (scheme === "ed25519") return null;
  return scheme.endsWith("-sha384") ? "sha384" : scheme.endsWith("-sha512") ? "sha512" : "sha256";
}

/** The curve of an ECDSA scheme. */
export function curveOf(scheme: EcdsaScheme): "p256" | "p384" | "secp256k1" {
  return scheme === "ecdsa-p256-sha256" ? "p256" : scheme === "ecdsa-p384-sha384" ? "p384" : "secp256k1";
}
