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
