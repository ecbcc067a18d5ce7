import { Fault } from "../errors.ts";
import type { KeyId } from "../ids.ts";
import { DEFAULTS } from "./defaults.ts";

/** What a field holds: `hidden` ones are shown on request alone, `otp` is an otpauth:// URI, `date` is YYYY-MM-DD. */
export const FIELD_KINDS = ["text", "hidden", "url", "otp", "date"] as const;
export type FieldKind = (typeof FIELD_KINDS)[number];

/** A named text beside a secret's value (docs/protocol.md §5.3). */
export interface Field {
  /** 1 to 128 bytes of NFC without control characters; only `url` may stand in a secret more than once. */
  readonly name: string;
  readonly kind: FieldKind;
  /** At most 65,536 bytes in UTF-8. */
  readonly value: string;
}

/** What a version of a secret holds: its value, and fields beside it. */
export interface Content {
  /** Empty where the fields are all there is; the holder wipes it. */
  readonly value: Uint8Array;
  readonly fields: readonly Field[];
  /** Where the value is too long for one secret: what it is kept in, and `value` is empty. */
  readonly file?: FileParts;
}

/** A file that is kept in parts (docs/protocol.md §5.11). */
export interface FileParts {
  /** Bytes of the whole, at most 16 MiB. */
  readonly size: number;
  /** SHA-256 of the whole, 32 bytes. */
  readonly sha256: Uint8Array;
  /** Secrets of type `part`, in order. */
  readonly parts: readonly KeyId[];
}

/** Names that are no field's: they stand for the value and for what is derived from it. */
const RESERVED: ReadonlySet<string> = new Set(["value", "public-key", "name", "type", "tags"]);

const MANY: ReadonlySet<string> = new Set(["url"]);

/** Refuses fields that could not be told apart or read again. @throws Fault bad_input */
export function checkFields(fields: readonly Field[]): void {
  if (fields.length > DEFAULTS.fields) throw refused(`a secret has at most ${DEFAULTS.fields} fields`);
  const seen = new Set<string>();
  for (const { name, kind, value } of fields) {
    const length = Buffer.byteLength(name);
    if (length < 1 || length > DEFAULTS.tagBytes || name !== name.normalize("NFC") || !name.isWellFormed()) {
      throw refused(`a field's name has 1 to ${DEFAULTS.tagBytes} bytes of Unicode text in form NFC`);
    }
    if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(name)) throw refused("a field's name holds a control character");
    if (RESERVED.has(name)) throw refused(`"${name}" is no name for a field`);
    if (seen.has(name) && !MANY.has(name)) throw refused("two fields have the same name");
    seen.add(name);
    if (!value.isWellFormed()) throw refused("a field's value is not Unicode text");
    if (kind === "date" && !isDay(value)) throw refused("a field of kind date is a day as YYYY-MM-DD");
    if (kind === "otp" && !/^otpauth:\/\/[th]otp\//.test(value))
      throw refused("a field of kind otp is an otpauth:// URI");
  }
}

/** Bytes of a file's fields as JSON: they go to the server in one request with its last part. */
const FILE_FIELDS_BYTES = 16_384;

/** Refuses fields that a file cannot have (docs/protocol.md §5.11). @throws Fault bad_input, too_large */
export function checkFileFields(fields: readonly Field[]): void {
  checkFields(fields);
  if (Buffer.byteLength(JSON.stringify(fields)) <= FILE_FIELDS_BYTES) return;
  throw new Fault("too_large", `the fields of a file have at most ${FILE_FIELDS_BYTES} bytes`, {
    hint: "keep them as a secret of type note",
  });
}

function refused(why: string): Fault {
  return new Fault("bad_input", `cannot keep these fields: ${why}`);
}

/** True for a day of the calendar as YYYY-MM-DD. */
export function isDay(text: string): boolean {
  const [, year = "", month = "", day = ""] = /^(\d{4})-(\d\d)-(\d\d)$/.exec(text) ?? [];
  const [y, m, d] = [Number(year), Number(month), Number(day)];
  const leap = (y % 4 === 0 && y % 100 !== 0) || y % 400 === 0;
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][m - 1] ?? 0;
  return year !== "" && d >= 1 && d <= days;
}

/** False for a field that is shown on request alone. */
export function isShown({ kind }: Pick<Field, "kind">): boolean {
  return kind !== "hidden" && kind !== "otp";
}

/** The value of the first field of that name, or null. */
export function fieldValue(fields: readonly Field[], name: string): string | null {
  return fields.find((field) => field.name === name)?.value ?? null;
}

/** What the metadata shows of fields, so that a secret can be found without opening it. */
export function shownFields(fields: readonly Field[]): { user: string | null; urls: readonly string[] } {
  const user = fieldValue(fields, "user");
  const urls = fields.filter(({ kind, value }) => kind === "url" && Buffer.byteLength(value) <= DEFAULTS.nameBytes);
  return {
    user: user !== null && user !== "" && Buffer.byteLength(user) <= DEFAULTS.nameBytes ? user : null,
    urls: urls
      .map(({ value }) => value)
      .filter((value) => value !== "")
      .slice(0, DEFAULTS.shownUrls),
  };
}
