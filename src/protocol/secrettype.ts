/** Types of secrets that this version makes or keeps (docs/cli.md §4). */
export const SECRET_TYPES = [
  "bytes",
  "password",
  "passphrase",
  "pin",
  "token",
  "uuid",
  "note",
  "secp256k1",
  "p256",
  "ed25519",
  "x25519",
  "rsa",
] as const;
export type SecretType = (typeof SECRET_TYPES)[number];

/** Types that `generate` makes: all but those that only people can write. */
export const GENERATED_TYPES = SECRET_TYPES.filter((t) => t !== "note");

/** Types whose value is UTF-8 text; the others are binary. */
const TEXT_TYPES: ReadonlySet<string> = new Set(["password", "passphrase", "pin", "token", "uuid", "note"]);

/** True where a value is text for people. */
export function isTextType(type: SecretType): boolean {
  return TEXT_TYPES.has(type);
}
