import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type Identity, type Recipient, Stanza } from "age-encryption";
import { concat, wipe } from "../crypto/bytes.ts";
import { scryptKey } from "../crypto/passwordkey.ts";
import { utf8Bytes } from "./item.ts";

const LABEL = utf8Bytes("age-encryption.org/v1/scrypt");
const SALT_BYTES = 16;
/** N = 2^18, as age itself: 256 MiB and about a second. */
const WORK_FACTOR = 18;

/** The key of a stanza (C2SP age, scrypt recipient stanza). */
function stanzaKey(passphrase: string, salt: Uint8Array, factor: number): Promise<Uint8Array> {
  const secret = utf8Bytes(passphrase);
  return scryptKey(secret, concat(LABEL, salt), { n: 2 ** factor, r: 8, p: 1 }, 32).finally(() => wipe(secret));
}

/** Encrypts to a passphrase by the platform's scrypt: the library's own is slower, and nothing else runs meanwhile. */
export function passphraseRecipient(passphrase: string): Recipient {
  return {
    wrapFileKey: async (fileKey) => {
      const salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
      const key = await stanzaKey(passphrase, salt, WORK_FACTOR);
      try {
        const body = chacha20poly1305(key, new Uint8Array(12)).encrypt(fileKey);
        return [new Stanza(["scrypt", salt.toBase64({ omitPadding: true }), `${WORK_FACTOR}`], body)];
      } finally {
        wipe(key);
      }
    },
  };
}

/** Decrypts what is encrypted to a passphrase, whose work factor the caller has bounded. */
export function passphraseIdentity(passphrase: string): Identity {
  return {
    unwrapFileKey: async (stanzas) => {
      const [stanza] = stanzas;
      if (!stanzas.some(({ args }) => args[0] === "scrypt")) return null;
      const [, text = "", factor = ""] = stanza?.args ?? [];
      const salt = Uint8Array.fromBase64(text);
      const canonical = salt.length === SALT_BYTES && salt.toBase64({ omitPadding: true }) === text;
      // a passphrase stands alone, or somebody else could open the file too
      if (stanzas.length !== 1 || stanza?.args.length !== 3 || !canonical || stanza.body.length !== 32) {
        throw new Error("malformed stanza");
      }
      const key = await stanzaKey(passphrase, salt, Number(factor));
      try {
        return chacha20poly1305(key, new Uint8Array(12)).decrypt(stanza.body);
      } catch {
        return null;
      } finally {
        wipe(key);
      }
    },
  };
}
