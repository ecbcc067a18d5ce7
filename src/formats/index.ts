import { equalBytes, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { base64 } from "./base64.ts";
import { hex } from "./hex.ts";
import type { Format, PlainItem } from "./item.ts";
import { json } from "./json.ts";
import { jwk } from "./jwk.ts";
import { len8 } from "./len8.ts";
import { pem } from "./pem.ts";
import { raw } from "./raw.ts";

export type { Format, PlainItem } from "./item.ts";
export { checkName } from "./item.ts";

const FORMATS: readonly Format[] = [raw, hex, base64, len8, json, jwk, pem].map(refusingOtherTypes);

/** Every format's name, in the order in which help shows them. */
export const FORMAT_NAMES: readonly string[] = FORMATS.map((format) => format.name);

/**
 * The format of that name; its `write` refuses types that it cannot hold and names the formats that can.
 *
 * @throws Fault bad_input for an unknown name.
 */
export function formatNamed(name: string): Format {
  const format = FORMATS.find((candidate) => candidate.name === name);
  if (format) return format;
  throw new Fault("bad_input", "cannot use this format: its name is unknown", {
    hint: `choose one of ${FORMAT_NAMES.join(", ")}`,
  });
}

/** The format that the bytes name themselves; null where only the user can know (`raw`, `hex`, `base64`, `len8`). */
export function sniffFormat(bytes: Uint8Array): Format | null {
  return FORMATS.find((format) => format.sniff(bytes)) ?? null;
}

/** Names of the formats that can hold a type. */
export function formatsFor(type: SecretType): readonly string[] {
  return FORMATS.filter((format) => format.types.includes(type)).map((format) => format.name);
}

/**
 * Reads back a file that was just written and compares all that the format keeps.
 *
 * @throws Fault corrupt when it does not give the same items again.
 */
export function verifyWritten(format: Format, items: readonly PlainItem[], file: Uint8Array): void {
  let again: readonly PlainItem[] = [];
  try {
    again = format.read(file, { name: format.kind === "single" ? (items[0]?.name ?? null) : null }).items;
    if (again.length === items.length && again.every((item, i) => same(format, item, items[i]))) return;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
  } finally {
    wipe(...again.map((item) => item.value));
  }
  throw new Fault("corrupt", `cannot read back what was written as ${format.name}`, {
    hint: "delete the file and export again",
  });
}

function same(format: Format, a: PlainItem, b: PlainItem | undefined): boolean {
  if (!b || !equalBytes(a.value, b.value)) return false;
  return format.keeps.every((field) => JSON.stringify(a[field]) === JSON.stringify(b[field]));
}

function refusingOtherTypes(format: Format): Format {
  return {
    ...format,
    write: (items) => {
      const other = items.find((item) => !format.types.includes(item.type));
      if (other) {
        throw new Fault("bad_input", `cannot write type "${other.type}" as ${format.name}`, {
          why: `${format.name} holds ${format.types.join(", ")}`,
          hint: `use --to ${formatsFor(other.type).join(", ")}`,
        });
      }
      return format.write(items);
    },
  };
}
