import { fromBase64url, toBase64url } from "../../crypto/bytes.ts";
import { hashCanon } from "../../crypto/kdf.ts";

/** What a token opens: a workspace (docs/protocol.md §9.7), or the codes of one key (§10.8). */
export type TokenKind = "workspace" | "otp";

/** Random bytes of a token. */
export const TOKEN_BYTES = 32;

/** Begins the text of every token, so that scanners for leaked secrets find it and say what it is. */
const PREFIXES: { readonly [K in TokenKind]: string } = { workspace: "kht_", otp: "kho_" };
const BODY = Math.ceil((TOKEN_BYTES * 4) / 3);

/** The text of a token of {@link TOKEN_BYTES}: 47 characters. */
export function tokenText(bytes: Uint8Array, kind: TokenKind = "workspace"): string {
  return `${PREFIXES[kind]}${toBase64url(bytes)}`;
}

/** What a server keeps of a token, 32 bytes; null for a text that is none of its kind. */
export function tokenHash(text: string, kind: TokenKind = "workspace"): Uint8Array | null {
  const prefix = PREFIXES[kind];
  if (text.length !== prefix.length + BODY || !text.startsWith(prefix)) return null;
  try {
    const bytes = fromBase64url(text.slice(prefix.length));
    return kind === "otp" ? hashCanon("keyhold/v1/otp-token", bytes) : hashCanon("keyhold/v1/workspace-token", bytes);
  } catch {
    return null;
  }
}
