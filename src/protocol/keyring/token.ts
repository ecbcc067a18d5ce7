import { fromBase64url, toBase64url } from "../../crypto/bytes.ts";
import { hashCanon } from "../../crypto/kdf.ts";

/** Random bytes of a workspace's token. */
export const TOKEN_BYTES = 32;
/** Begins the text of every token, so that scanners for leaked secrets find it. */
const PREFIX = "kht_";
const LENGTH = PREFIX.length + Math.ceil((TOKEN_BYTES * 4) / 3);

/** The text of a token of {@link TOKEN_BYTES}: 47 characters (docs/protocol.md §9.7). */
export function tokenText(bytes: Uint8Array): string {
  return `${PREFIX}${toBase64url(bytes)}`;
}

/** What a registry keeps of a token, 32 bytes; null for a text that is none. */
export function tokenHash(text: string): Uint8Array | null {
  if (text.length !== LENGTH || !text.startsWith(PREFIX)) return null;
  try {
    return hashCanon("keyhold/v1/workspace-token", fromBase64url(text.slice(PREFIX.length)));
  } catch {
    return null;
  }
}
