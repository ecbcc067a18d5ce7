import { utf8Text } from "./item.ts";

/** How much of a file is looked at, in bytes. */
export const SNIFF_BYTES = 65_536;

/** Text at the beginning of a file; a character that is cut off at the end does no harm. */
function textOf(start: Uint8Array): string {
  const text = new TextDecoder("utf-8").decode(start.subarray(0, SNIFF_BYTES));
  return text.startsWith("\ufeff") ? text.slice(1) : text;
}

/** The members of the JSON object that a file of at most 64 KiB holds, else null. */
function membersOf(start: Uint8Array): Readonly<Record<string, unknown>> | null {
  if (start.length > SNIFF_BYTES) return null;
  try {
    const value: unknown = JSON.parse(utf8Text(start) ?? "");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : null;
  } catch {
    return null;
  }
}

/** True for keyhold's own JSON: the mark stands first, or anywhere in a short file. */
export function sniffJson(start: Uint8Array): boolean {
  return /^\s*\{\s*"keyhold"\s*:\s*"export"/.test(textOf(start)) || membersOf(start)?.["keyhold"] === "export";
}

/** True for a JSON Web Key, and for an encrypted one, which is refused by name. */
export function sniffJwk(start: Uint8Array): boolean {
  const members = membersOf(start);
  return typeof members?.["kty"] === "string" || isJwe(members, start);
}

/** True for a set of JSON Web Keys. */
export function sniffJwks(start: Uint8Array): boolean {
  const text = textOf(start);
  return /^\s*\{\s*"keys"\s*:\s*\[/.test(text) || Array.isArray(membersOf(start)?.["keys"]);
}

/** True for the JSON or compact form of encrypted content (RFC 7516 §7). */
export function isJwe(members: Readonly<Record<string, unknown>> | null, file: Uint8Array): boolean {
  if (members !== null) return typeof members["ciphertext"] === "string" && typeof members["iv"] === "string";
  return file.length <= SNIFF_BYTES && /^eyJ[\w-]*(\.[\w-]*){4}\s*$/.test(textOf(file));
}

/** True for a PEM block of anything but OpenSSH's and age's forms. */
export function sniffPem(start: Uint8Array): boolean {
  return /^\s*-----BEGIN (?!OPENSSH PRIVATE KEY|AGE ENCRYPTED FILE)[A-Z0-9 ]{1,64}-----/.test(textOf(start));
}

/** True for a private key in OpenSSH's form. */
export function sniffOpenssh(start: Uint8Array): boolean {
  return /^\s*-----BEGIN OPENSSH PRIVATE KEY-----/.test(textOf(start));
}

/** True for an age file, binary or armoured. */
export function sniffAge(start: Uint8Array): boolean {
  return /^(age-encryption\.org\/v1\n|\s*-----BEGIN AGE ENCRYPTED FILE-----)/.test(textOf(start.subarray(0, 256)));
}
