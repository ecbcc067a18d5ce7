import type { SecretInfo } from "../client/api.ts";
import { toBase64url } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { isTextType, SECRET_TYPES } from "../protocol/secrettype.ts";
import type { Values } from "../ui/args.ts";
import { decodeText, plain } from "../ui/text.ts";

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
  type: { type: "enum", options: SECRET_TYPES, description: "what kind of secret it is" },
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
  const known = SECRET_TYPES.find((one) => one === type);
  return known !== undefined && isTextType(known);
}

/** What `--json` shows of a secret; never the value. */
export function infoData(info: SecretInfo) {
  const { publicKey, ...rest } = info;
  return publicKey === null ? rest : { ...rest, publicKeyHex: publicKey.toHex() };
}

/** What a write answers (docs/cli.md §4). */
export function writtenData(info: SecretInfo) {
  const { name, keyId, type, version, tags, where, publicKey } = info;
  const base = { name, keyId, type, version, tags, where };
  return publicKey === null ? base : { ...base, publicKeyHex: publicKey.toHex() };
}

/** One line for people about a written secret. */
export function writtenLine(info: SecretInfo): string {
  const key = info.publicKey === null ? "" : `\npublic key  ${info.publicKey.toHex()}`;
  return `${plain(info.name)}  ${info.type}  version ${info.version}  ${info.keyId}${key}`;
}

/** A `kh://` reference taken apart (docs/cli.md §3). */
export interface Reference {
  readonly name: string;
  readonly version: number | null;
  readonly profile: string | null;
  readonly field: string | null;
}

/** Reads `kh://NAME[?version=N&profile=P][#field]`. @throws Fault bad_input */
export function parseReference(text: string): Reference {
  const bad = (why: string) =>
    new Fault("bad_input", `${JSON.stringify(text)} is not a reference`, {
      why,
      hint: "write kh://NAME[?version=N&profile=P]",
    });
  if (!text.startsWith("kh://")) throw bad("it does not start with kh://");
  const [, path = "", query = "", field = ""] = /^kh:\/\/([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/.exec(text) ?? [];
  let name: string;
  let version: number | null = null;
  let profile: string | null = null;
  try {
    name = decodeURIComponent(path);
    for (const part of query === "" ? [] : query.split("&")) {
      const [key = "", raw = ""] = part.split("=", 2);
      const value = decodeURIComponent(raw);
      if (key === "version" && /^[1-9]\d{0,9}$/.test(value)) version = Number(value);
      else if (key === "profile" && value !== "") profile = value;
      else throw bad(`"${key}" is not known or has no such value`);
    }
    if (name === "") throw bad("the name is missing");
    return { name, version, profile, field: field === "" ? null : decodeURIComponent(field) };
  } catch (error) {
    throw error instanceof Fault ? error : bad("its percent-encoding is damaged");
  }
}
