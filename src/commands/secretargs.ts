import type { SecretInfo, Written } from "../client/api.ts";
import { toBase64url } from "../crypto/bytes.ts";
import { isTextType, VISIBLE_TYPES } from "../protocol/secrettype.ts";
import type { Values } from "../ui/args.ts";
import { type Result, result } from "../ui/output.ts";
import { decodeText, plain } from "../ui/text.ts";

/** What people are told of a value that a server's enclave has seen (P12). */
export const CUSTODIAL = "custodial (a server has seen the value)";

/** The secret that a command is about. */
export const SECRET_ARG = {
  name: { type: "positional", complete: "secret", description: "name of the secret", ask: "Name of the secret" },
} as const;

/** Flags of commands that write a secret. */
export const WRITE_ARGS = {
  tag: { type: "list", hint: "TAG", description: "attach a tag (repeatable)" },
  store: {
    type: "enum",
    options: ["server", "local", "both"],
    description: "where to keep it (default: both, or local without a server)",
  },
} as const;

export const TYPE_ARG = {
  type: { type: "enum", options: VISIBLE_TYPES, description: "what kind of secret it is" },
} as const;

export const ENCODING_ARG = {
  encoding: {
    type: "enum",
    options: ["base64url", "base64", "hex"],
    description: "how bytes become text (default base64url)",
  },
} as const;

/** A value as text: text types as they are, bytes encoded. */
export function valueText(type: string, value: Uint8Array, encoding: Values<typeof ENCODING_ARG>["encoding"]): string {
  if (encoding === null && isText(type)) return decodeText(value);
  if (encoding === "hex") return value.toHex();
  if (encoding === "base64") return value.toBase64();
  return toBase64url(value);
}

/** True for a type whose value is text. */
export function isText(type: string): boolean {
  const known = VISIBLE_TYPES.find((one) => one === type);
  return known !== undefined && isTextType(known);
}

/** What `--json` shows of a secret; never the value. */
export function infoData(info: SecretInfo) {
  const { publicKey, ...rest } = info;
  return publicKey === null ? rest : { ...rest, publicKeyHex: publicKey.toHex() };
}

/** What a write answers (docs/cli.md §4). */
export function writtenData(info: SecretInfo) {
  const { name, keyId, type, version, tags, where, publicKey, custody } = info;
  const base = { name, keyId, type, version, tags, where, ...(custody === undefined ? {} : { custody }) };
  return publicKey === null ? base : { ...base, publicKeyHex: publicKey.toHex() };
}

/** One line for people about a written secret. */
export function writtenLine(info: SecretInfo): string {
  const key = info.publicKey === null ? "" : `\npublic key  ${info.publicKey.toHex()}`;
  const seen = info.custody === undefined ? "" : `\ncustody  ${CUSTODIAL}`;
  return `${plain(info.name)}  ${info.type}  version ${info.version}  ${info.keyId}${key}${seen}`;
}

/** What is said of a write that waits. */
export const QUEUED = "queued: goes to the server with the next command that reaches it";

/** A write as a result: exit 10 where it waits for a server that is away. */
export function writtenResult(
  { info, requestId, queued }: Written,
  human: () => string = () => writtenLine(info),
): Result {
  const data = { ...writtenData(info), ...(queued ? { queued } : {}) };
  const lines = () => (queued ? `${human()}\n${QUEUED}` : human());
  return result(data, lines, { requestId, exit: queued ? 10 : 0 });
}
