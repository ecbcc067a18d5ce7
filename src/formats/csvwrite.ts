import { FIELD_KINDS, type Field } from "../protocol/content.ts";
import { isTextType } from "../protocol/secrettype.ts";
import type { PlainItem, Written } from "./foreign.ts";
import { boundedItem, checkName, utf8Bytes, utf8Text } from "./item.ts";

/** Headers that are no field's. */
const OWN = new Set(["name", "type", "value", "value-base64", "tags", "created", "expires"]);

/**
 * Writes a table with a header: one row a secret, one column a field, tags one a line. Values stand as they are: one
 * that begins with `=`, `+`, `-` or `@` is a formula to a spreadsheet.
 *
 * @throws Fault bad_input
 */
export function writeCsv(items: readonly PlainItem[]): Written {
  const lost: { what: string }[] = [];
  const columns = fieldColumns(items);
  const binary = items.some((item) => textOf(item) === null);
  const header = ["name", "type", "value", ...(binary ? ["value-base64"] : []), "tags", "created", "expires"];
  const lines = [[...header, ...columns.map(({ header: one }) => one)]];
  for (const item of items) {
    checkName(item.name);
    boundedItem("csv", item);
    const text = textOf(item);
    const row = [item.name, item.type, text ?? ""];
    if (binary) row.push(text === null ? Buffer.from(item.value).toString("base64") : "");
    row.push(item.tags.join("\n"), item.createdAt ?? "", item.expiresAt ?? "");
    for (const { header: of, nth } of columns) {
      row.push((item.fields ?? []).filter((field) => headerOf(field) === of)[nth]?.value ?? "");
    }
    for (const { name, value } of item.fields ?? []) {
      if (value === "") lost.push({ what: `"${item.name}": field "${name}", which is empty` });
    }
    lines.push(row);
  }
  return { file: utf8Bytes(lines.map((row) => `${row.map(cell).join(",")}\r\n`).join("")), lost };
}

function textOf({ type, value }: PlainItem): string | null {
  return isTextType(type) ? utf8Text(value) : null;
}

/** A column for each field that a row has, and for each time that it has it, in the order in which they are met. */
function fieldColumns(items: readonly PlainItem[]): readonly { readonly header: string; readonly nth: number }[] {
  const most = new Map<string, number>();
  for (const { fields = [] } of items) {
    const counts = new Map<string, number>();
    for (const field of fields) {
      const header = headerOf(field);
      const count = (counts.get(header) ?? 0) + 1;
      counts.set(header, count);
      most.set(header, Math.max(most.get(header) ?? 0, count));
    }
  }
  return [...most].flatMap(([header, count]) => Array.from({ length: count }, (_, nth) => ({ header, nth })));
}

/** `NAME`, or `NAME:KIND` where the name does not tell the kind, or would be read as something else. */
function headerOf({ name, kind }: Pick<Field, "name" | "kind">): string {
  const usual = name === "url" ? "url" : name === "otp" ? "otp" : "text";
  const isPlain = kind === usual && !OWN.has(name) && !FIELD_KINDS.some((one) => name.endsWith(`:${one}`));
  return isPlain ? name : `${name}:${kind}`;
}

function cell(text: string): string {
  return /[",;\t\r\n]|^\s|\s$|^\ufeff/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
