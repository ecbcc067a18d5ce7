import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { SecretType } from "../protocol/secrettype.ts";

/** One secret in clear, as formats read and write it. */
export interface PlainItem {
  name: string;
  type: SecretType;
  /** At most 65,536 bytes together with its fields, of a file 16 MiB; empty only where there are fields. */
  value: Uint8Array;
  tags: readonly string[];
  /** ISO 8601 in UTC, or null where it is unknown. */
  createdAt: string | null;
  /** Left out: none. */
  fields?: readonly Field[];
  /** ISO 8601 in UTC; left out or null: never. */
  expiresAt?: string | null;
  /** Of a value that a server's enclave has seen (docs/protocol.md §5.3); left out of any other. */
  origin?: string;
}

/** What of an item, beside its value, survives a write and a read. */
export type Kept = "name" | "type" | "tags" | "createdAt" | "fields" | "expiresAt" | "origin";

/** What reading a file gave. */
export interface ReadResult {
  /** The values are the caller's to wipe. */
  items: PlainItem[];
  /** What stood in the file and has no place in an item; never a value. */
  lost: { what: string }[];
}

/** One file format: how it is recognised, read and written (docs/cli.md §4). */
export interface Format {
  readonly name: string;
  /** Whether a file holds one secret or any number. */
  readonly kind: "single" | "many";
  /** True where a file is not text, and must not go to a terminal. */
  readonly binary: boolean;
  /** Types it can hold. */
  readonly types: readonly SecretType[];
  /** What is kept beside the value; the rest is the reader's default. */
  readonly keeps: readonly Kept[];
  /** True when the bytes name their format themselves; formats without a mark of their own are never guessed. */
  sniff(bytes: Uint8Array): boolean;
  /**
   * Reads a whole file; `bytes` is not retained.
   *
   * @param options `name` for the one secret of a `single` file; files that hold names ignore it.
   * @throws Fault bad_input
   */
  read(bytes: Uint8Array, options: { readonly name: string | null }): ReadResult;
  /**
   * Writes a whole file, deterministically; the caller wipes it.
   *
   * @throws Fault bad_input for a type or a number of items that the format cannot hold, too_large
   */
  write(items: readonly PlainItem[]): Uint8Array;
  /** Whether an item that was read back is the one that was written; left out: by its value and what is kept. */
  same?(written: PlainItem, read: PlainItem): boolean;
}

/**
 * Largest file that is read or written, in bytes: an archive, which may hold files of 16 MiB; other formats of many
 * secrets; and of one. Reading and writing need up to twelve times as much memory.
 */
export const FILE_BYTES = {
  archive: 128 * 1_024 * 1_024,
  many: 8 * 1_024 * 1_024,
  single: 256 * 1_024,
} as const;

/** A failed read: names the format and the reason, never the content. */
export function unreadable(format: string, why: string, hint?: string): Fault {
  return new Fault("bad_input", `cannot read this file as ${format}`, {
    why,
    hint: hint ?? "check the file, or name its format with --from",
  });
}

/** A value of 1 to 65,536 bytes. @throws Fault bad_input */
export function boundedValue(format: string, value: Uint8Array): Uint8Array {
  if (value.length < 1) throw unreadable(format, "it holds no value");
  if (value.length > DEFAULTS.secretBytes) {
    throw unreadable(format, `a value has at most ${DEFAULTS.secretBytes} bytes`, "split the value, or shorten it");
  }
  return value;
}

/** The name of the one secret of a file, brought to NFC since some file systems decompose. @throws Fault bad_input */
export function singleName(format: string, name: string | null): string {
  if (name === null) throw unreadable(format, "the file holds no name for its secret", "give the secret a name");
  const normal = name.normalize("NFC");
  checkName(normal);
  return normal;
}

/**
 * Checks the form of a secret's name (docs/cli.md §3): 1 to 512 bytes, NFC, parts between `/`, no control characters,
 * no empty part, no `.` or `..`.
 *
 * @throws Fault bad_input
 */
export function checkName(name: string): void {
  const wrong = nameProblem(name);
  if (wrong !== null) {
    throw new Fault("bad_input", `cannot use this name: ${wrong}`, { hint: "choose a path such as mail/work" });
  }
}

function nameProblem(name: string): string | null {
  if (!name.isWellFormed() || name !== name.normalize("NFC")) return "it is not Unicode text in form NFC";
  const length = Buffer.byteLength(name);
  if (length < 1 || length > DEFAULTS.nameBytes) return `it must have 1 to ${DEFAULTS.nameBytes} bytes`;
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(name)) return "it holds a control character";
  if (name.split("/").some((part) => part === "" || part === "." || part === "..")) {
    return "a part between slashes is empty, `.` or `..`";
  }
  return null;
}

/** The one item of a `single` file, of a type it can hold. @throws Fault bad_input */
export function onlyItem(format: Pick<Format, "name" | "types">, items: readonly PlainItem[]): PlainItem {
  const [item] = items;
  if (item === undefined || items.length !== 1) {
    throw new Fault("bad_input", `cannot write ${items.length} secrets as ${format.name}: a file holds one`, {
      hint: "export one secret at a time, or use --to json",
    });
  }
  boundedItem(format.name, item);
  if (item.value.length > DEFAULTS.secretBytes) {
    throw new Fault("bad_input", `cannot write as ${format.name}: it holds at most ${DEFAULTS.secretBytes} bytes`, {
      hint: "keyhold read NAME --out FILE   (or --to age, --to json)",
    });
  }
  return item;
}

/** Refuses a value of a size that no secret has; one with fields may be empty. @throws Fault bad_input */
export function boundedItem(format: string, { type, value, fields = [] }: PlainItem): void {
  const least = fields.length > 0 ? 0 : 1;
  const most = type === "file" ? DEFAULTS.fileBytes : DEFAULTS.secretBytes;
  if (value.length < least || value.length > most) {
    throw new Fault("bad_input", `cannot use an item of ${format}: a value has 1 to ${most} bytes`);
  }
}

/** Strict UTF-8; null for anything else. A leading byte-order mark is kept as a character. */
export function utf8Text(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

const encoder = new TextEncoder();

/** UTF-8 of well-formed text. */
export function utf8Bytes(text: string): Uint8Array {
  return encoder.encode(text);
}
