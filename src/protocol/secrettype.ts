/** Types of secrets that this version makes or keeps (docs/cli.md §4). */
export const SECRET_TYPES = [
  "bytes",
  "password",
  "passphrase",
  "pin",
  "token",
  "uuid",
  "login",
  "note",
  "file",
  "card",
  "identity",
  "totp",
  "hotp",
  "secp256k1",
  "p256",
  "p384",
  "ed25519",
  "x25519",
  "rsa",
  "ssh",
  "bip39",
  "part",
] as const;
export type SecretType = (typeof SECRET_TYPES)[number];

/** Types that people see: all but the parts that a file is kept in (docs/protocol.md §5.11). */
export const VISIBLE_TYPES = SECRET_TYPES.filter((t) => t !== "part");
export type VisibleType = (typeof VISIBLE_TYPES)[number];

/** Types whose value only people or other programs can write. */
const WRITTEN = ["note", "file", "card", "identity", "part"] as const;
export type WrittenType = (typeof WRITTEN)[number];

/** True for a type that `generate` makes. */
export function isGenerated(type: SecretType): type is Exclude<SecretType, WrittenType> {
  return !WRITTEN.some((one) => one === type);
}

/** Types that `generate` makes. */
export const GENERATED_TYPES: readonly Exclude<SecretType, WrittenType>[] = SECRET_TYPES.filter(isGenerated);

/** Types whose value is UTF-8 text; the others are binary. */
const TEXT_TYPES: ReadonlySet<string> = new Set([
  "password",
  "passphrase",
  "pin",
  "token",
  "uuid",
  "login",
  "note",
  "card",
  "identity",
  "totp",
  "hotp",
  "ssh",
  "bip39",
]);

/** True where a value is text for people. */
export function isTextType(type: SecretType): boolean {
  return TEXT_TYPES.has(type);
}
