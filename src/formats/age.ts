import { armor, Decrypter, Encrypter, generateIdentity, identityToRecipient } from "age-encryption";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { passphraseIdentity, passphraseRecipient } from "./agescrypt.ts";
import { sshIdentity, sshRecipient } from "./agessh.ts";
import { utf8Text } from "./item.ts";
import type { SshPrivateKey } from "./sshkey.ts";

/** First line of each file (age-encryption.org/v1). */
const VERSION = new TextEncoder().encode("age-encryption.org/v1\n");
/** The most that a header may have: a hundred recipients and more. */
export const AGE_HEADER_BYTES = 65_536;
/** scrypt for a passphrase runs 2^20 times at most when somebody else wrote the file: 1 GiB of memory. */
const MAX_WORK_FACTOR = 20;
/** A file in text form. */
export const AGE_ARMOUR_BYTES = 32 * 1_024 * 1_024;

/** To whom an age file is sealed: recipients (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`), or a passphrase. */
export type AgeSeal = { readonly recipients: readonly string[] } | { readonly passphrase: string };

/** With what an age file is opened: identities (`AGE-SECRET-KEY-1…`, keys of ssh), or a passphrase. */
export type AgeOpen =
  | { readonly identities: readonly (string | Pick<SshPrivateKey, "type" | "key">)[] }
  | { readonly passphrase: string };

/** Refuses a recipient that is none. @throws Fault bad_input */
export function checkAgeRecipient(recipient: string): void {
  addAgeRecipient(new Encrypter(), recipient);
}

/** Lets a file be opened by one more. @throws Fault bad_input for a recipient that is none */
export function addAgeRecipient(encrypter: Encrypter, recipient: string): void {
  if (/^(ssh|ecdsa|sk-)/.test(recipient)) {
    encrypter.addRecipient(sshRecipient(recipient));
    return;
  }
  try {
    encrypter.addRecipient(recipient);
  } catch {
    throw new Fault("bad_input", "this is not an age recipient", {
      hint: "a recipient begins with age1, ssh-ed25519 or ssh-rsa; age-keygen makes one",
    });
  }
}

function encrypterFor(to: AgeSeal): Encrypter {
  const encrypter = new Encrypter();
  if ("passphrase" in to) encrypter.addRecipient(passphraseRecipient(to.passphrase));
  else for (const recipient of to.recipients) addAgeRecipient(encrypter, recipient);
  return encrypter;
}

/** Encrypts in the age format, version 1. @throws Fault bad_input for a recipient that is none */
export async function ageSeal(plaintext: Uint8Array, to: AgeSeal): Promise<Uint8Array> {
  return encrypterFor(to).encrypt(plaintext);
}

/**
 * {@link ageSeal} to recipients, opened again and compared: with the file's own key, since nobody here has theirs. What
 * this cannot see is whether a recipient holds the key that belongs to the text that was given.
 *
 * @throws Fault bad_input, corrupt
 */
export async function ageSealChecked(plaintext: Uint8Array, recipients: readonly string[]): Promise<Uint8Array> {
  const encrypter = encrypterFor({ recipients });
  let key = new Uint8Array(0);
  encrypter.addRecipient({
    wrapFileKey: (fileKey) => {
      key = fileKey.slice();
      return [];
    },
  });
  let again: Uint8Array | undefined;
  try {
    const file = await encrypter.encrypt(plaintext);
    const decrypter = new Decrypter();
    decrypter.addIdentity({ unwrapFileKey: () => key.slice() });
    again = await decrypter.decrypt(file);
    if (equalBytes(again, plaintext) && ageStanzas(file).length === recipients.length) return file;
  } catch (error) {
    if (error instanceof Fault) throw error;
  } finally {
    wipe(key, again);
  }
  throw new Fault("corrupt", "cannot read back what was written as age", { hint: "export again" });
}

/** The stanzas of a file's header: for whom it is, as words. @throws Fault bad_input for what is no age file */
export function ageStanzas(file: Uint8Array): readonly (readonly string[])[] {
  if (!equalBytes(file.subarray(0, VERSION.length), VERSION)) {
    throw new Fault("bad_input", "this is not an age file", { hint: "is it the right file?" });
  }
  const head = Buffer.from(file.subarray(0, AGE_HEADER_BYTES)).toString("latin1");
  const end = head.indexOf("\n--- ");
  if (end < 0) throw new Fault("bad_input", "cannot read this age file: its header is cut off, or too long");
  const lines = head.slice(0, end).split("\n");
  return lines.filter((line) => line.startsWith("-> ")).map((line) => line.slice(3).split(" "));
}

/** The binary form of a file that may be in text form. @throws Fault bad_input */
export function ageDearmour(file: Uint8Array): Uint8Array {
  if (equalBytes(file.subarray(0, VERSION.length), VERSION)) return file;
  const text = file.length <= AGE_ARMOUR_BYTES ? utf8Text(file) : null;
  if (text?.trimStart().startsWith("-----BEGIN AGE ENCRYPTED FILE-----")) {
    try {
      return armor.decode(text);
    } catch {
      throw new Fault("bad_input", "cannot read this age file: its text form is damaged, or over 32 MiB");
    }
  }
  return file;
}

/**
 * Decrypts an age file.
 *
 * @throws Fault wrong_password when nothing given opens it, or it was changed; bad_input for what is no age file, for a
 * work factor beyond bounds, and for an identity that is none.
 */
export async function ageOpen(sealed: Uint8Array, by: AgeOpen): Promise<Uint8Array> {
  for (const [type, , factor = ""] of ageStanzas(sealed)) {
    if (type === "scrypt" && (!/^[1-9]\d?$/.test(factor) || Number(factor) > MAX_WORK_FACTOR)) {
      throw new Fault("bad_input", "cannot open this age file: its passphrase asks for too much work", {
        why: `the work factor must be at most ${MAX_WORK_FACTOR}`,
      });
    }
  }
  const decrypter = new Decrypter();
  try {
    if ("passphrase" in by) decrypter.addIdentity(passphraseIdentity(by.passphrase));
    else {
      for (const identity of by.identities) {
        decrypter.addIdentity(typeof identity === "string" ? identity : sshIdentity(identity));
      }
    }
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("bad_input", "this is not an age identity", { hint: "an identity begins with AGE-SECRET-KEY-1" });
  }
  try {
    return await decrypter.decrypt(sealed);
  } catch {
    throw new Fault("wrong_password", "cannot open the age file: the key is another one, or the file was changed");
  }
}

/** The identities of an identity file: lines that are neither empty nor comments. */
export function ageIdentities(text: string): readonly string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

/** A new identity and its recipient. */
export async function newAgeIdentity(): Promise<{ identity: string; recipient: string }> {
  const identity = await generateIdentity();
  return { identity, recipient: await identityToRecipient(identity) };
}
