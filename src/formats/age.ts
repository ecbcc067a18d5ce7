import { Decrypter, Encrypter, generateIdentity, identityToRecipient } from "age-encryption";
import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";

/** First line of each file (age-encryption.org/v1). */
const VERSION = new TextEncoder().encode("age-encryption.org/v1\n");

/** To whom an age file is sealed: recipients (`age1…`), or a passphrase. */
export type AgeSeal = { readonly recipients: readonly string[] } | { readonly passphrase: string };

/** With what an age file is opened: identities (`AGE-SECRET-KEY-1…`), or a passphrase. */
export type AgeOpen = { readonly identities: readonly string[] } | { readonly passphrase: string };

/** Refuses a recipient that is none. @throws Fault bad_input */
export function checkAgeRecipient(recipient: string): void {
  try {
    new Encrypter().addRecipient(recipient);
  } catch {
    throw new Fault("bad_input", "this is not an age recipient", {
      hint: "a recipient begins with age1; age-keygen makes one",
    });
  }
}

/** Encrypts in the age format, version 1. @throws Fault bad_input for a recipient that is none */
export async function ageSeal(plaintext: Uint8Array, to: AgeSeal): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  if ("passphrase" in to) encrypter.setPassphrase(to.passphrase);
  else {
    for (const recipient of to.recipients) {
      checkAgeRecipient(recipient);
      encrypter.addRecipient(recipient);
    }
  }
  return encrypter.encrypt(plaintext);
}

/**
 * Decrypts an age file.
 *
 * @throws Fault wrong_password when nothing given opens it, or it was changed; bad_input for what is no age file, and
 * for an identity that is none.
 */
export async function ageOpen(sealed: Uint8Array, by: AgeOpen): Promise<Uint8Array> {
  if (!equalBytes(sealed.subarray(0, VERSION.length), VERSION)) {
    throw new Fault("bad_input", "this is not an age file", { hint: "is it the right file?" });
  }
  const decrypter = new Decrypter();
  try {
    if ("passphrase" in by) decrypter.addPassphrase(by.passphrase);
    else for (const identity of by.identities) decrypter.addIdentity(identity);
  } catch {
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
