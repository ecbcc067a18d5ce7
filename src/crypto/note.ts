import { concat } from "./bytes.ts";
import { ED25519, type Signer, verifySignature } from "./identity.ts";
import { sha256 } from "./kdf.ts";

/**
 * Signed notes (C2SP signed-note): a text, an empty line, and signature lines `— NAME base64(key id ‖ signature)`.
 * Signatures of keys that the reader does not know are ignored, so that others can co-sign.
 */

const ED25519_TYPE = 1;
const KEY_ID_BYTES = 4;
const SIGNATURES_MAX = 100;
const NOTE_MAX = 1_000_000;
const encoder = new TextEncoder();

/** Key id of an Ed25519 key under a name: SHA-256(name ‖ 0x0A ‖ 0x01 ‖ key), the first 4 bytes. */
export function noteKeyId(name: string, publicKey: Uint8Array): Uint8Array {
  return sha256(concat(encoder.encode(name), Uint8Array.of(0x0a, ED25519_TYPE), publicKey)).slice(0, KEY_ID_BYTES);
}

/** Signs a text (its last character is a newline) under one name with each key, in order. */
export function signNote(text: string, name: string, signers: readonly Signer[]): string {
  if (!wellFormed(text) || !text.endsWith("\n")) throw new RangeError("note: this text cannot be signed");
  if (!validName(name)) throw new RangeError("note: not a key name");
  const message = encoder.encode(text);
  const lines = signers.map((signer) => {
    const blob = concat(noteKeyId(name, signer.publicKey), signer.sign(message));
    return `— ${name} ${blob.toBase64()}\n`;
  });
  return `${text}\n${lines.join("")}`;
}

/**
 * The text of a note that carries a good signature of this key under this name; null for any other. One bad signature
 * of the key spoils the note.
 */
export function openNote(note: string, name: string, publicKey: Uint8Array): string | null {
  if (note.length > NOTE_MAX || !wellFormed(note) || !note.endsWith("\n")) return null;
  const cut = note.lastIndexOf("\n\n");
  if (cut === -1) return null;
  const text = note.slice(0, cut + 1);
  const lines = note.slice(cut + 2, -1).split("\n");
  if (lines.length > SIGNATURES_MAX) return null;
  const keyId = noteKeyId(name, publicKey);
  const message = encoder.encode(text);
  let good = false;
  for (const line of lines) {
    const found = signatureLine(line);
    if (!found) return null;
    if (found.name !== name || Buffer.compare(found.blob.subarray(0, KEY_ID_BYTES), keyId) !== 0) continue;
    const signature = found.blob.subarray(KEY_ID_BYTES);
    if (signature.length !== ED25519.signatureBytes || !verifySignature(publicKey, message, signature)) return null;
    good = true;
  }
  return good ? text : null;
}

function signatureLine(line: string): { name: string; blob: Uint8Array } | null {
  const [dash, name, base64, ...rest] = line.split(" ");
  if (dash !== "—" || name === undefined || base64 === undefined || rest.length > 0 || !validName(name)) return null;
  try {
    const blob = Uint8Array.fromBase64(base64);
    return blob.length > KEY_ID_BYTES && blob.toBase64() === base64 ? { name, blob } : null;
  } catch {
    return null;
  }
}

/** A name has at least one character, no white space and no plus. */
const validName = (name: string): boolean => /^[^\s+]+$/u.test(name);

/** UTF-8 without control characters but the newline. */
function wellFormed(text: string): boolean {
  if (!text.isWellFormed()) return false;
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) < 0x20 && text[i] !== "\n") return false;
  return true;
}
