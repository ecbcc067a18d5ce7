import { wipe } from "../crypto/bytes.ts";
import type { GeneratedValue, SeededType } from "../protocol/keygen.ts";

/**
 * Gives generated material the text that its type is kept as: an OpenSSH private key, an otpauth:// URI, a mnemonic.
 * Other types stay as they are.
 *
 * @param name The secret's name, as comment or label.
 * @param made Taken over: wiped where another value takes its place.
 */
export async function shapeGenerated(type: SeededType, name: string, made: GeneratedValue): Promise<GeneratedValue> {
  switch (type) {
    case "ssh": {
      const { getKeys } = await import("micro-key-producer/ssh.js");
      const { privateKey, publicKeyBytes } = getKeys(made.value, sshComment(name), made.value.slice(0, 4));
      const { sshPublicKey } = await import("../formats/openssh.ts");
      wipe(made.value, publicKeyBytes);
      const value = new TextEncoder().encode(privateKey);
      return { value, publicKey: sshPublicKey(value) };
    }
    case "totp":
    case "hotp": {
      const { HOTP, Secret, TOTP } = await import("otpauth");
      const config = { issuer: "", label: name, secret: new Secret({ buffer: made.value.slice().buffer }) };
      const uri = type === "totp" ? new TOTP(config).toString() : new HOTP(config).toString();
      wipe(made.value);
      return { value: new TextEncoder().encode(uri), publicKey: null };
    }
    case "bip39": {
      const { entropyToMnemonic } = await import("@scure/bip39");
      const { wordlist } = await import("@scure/bip39/wordlists/english.js");
      const words = entropyToMnemonic(made.value, wordlist);
      wipe(made.value);
      return { value: new TextEncoder().encode(words), publicKey: null };
    }
    default:
      return made;
  }
}

/** A comment must be one line of printable text. */
const sshComment = (name: string): string => name.replace(/[^!-~]/g, "_");
