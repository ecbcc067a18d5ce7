import { parse } from "dotenv";
import { Fault } from "../errors.ts";
import type { PlainItem, Written } from "./foreign.ts";
import { FOREIGN, fileText, gather, tooMany } from "./gathering.ts";
import { checkName, type ReadResult, unreadable, utf8Bytes, utf8Text } from "./item.ts";

const FORMAT = "dotenv";

/** Where a variable may begin, as the parser sees it. */
const ASSIGNMENT = /^[ \t]*(?:export[ \t]+)?([\w.-]+)(?:[ \t]*=|:\s)/gm;

/** Such files are small; the parser looks for the end of a quotation through all that follows. */
const MOST = { bytes: 8 * 1_024 * 1_024, steps: 1_000_000_000 } as const;

/**
 * Reads variables; the name of one is the name of its secret. A variable that is set twice has its last value, as in
 * every program that reads such files.
 *
 * @throws Fault bad_input, too_large
 */
export function readDotenv(source: Uint8Array | string): Promise<ReadResult> {
  const text = fileText(FORMAT, source);
  if (text.includes("\0")) throw unreadable(FORMAT, "it is no text");
  let seen = 0;
  let quotes = 0;
  for (const _ of text.matchAll(/['"`]/g)) quotes++;
  for (const [, name] of text.matchAll(ASSIGNMENT)) {
    if (++seen > FOREIGN.items) throw tooMany(FORMAT);
    // the parser's result is a plain object, in which this name is no variable
    if (name === "__proto__") throw unreadable(FORMAT, "a variable has a name that no program can read");
  }
  if (text.length > MOST.bytes || seen * quotes > MOST.steps) {
    throw new Fault("too_large", "cannot read this file as dotenv: it is too large", { hint: "import it in parts" });
  }
  const variables = Object.entries(parse(text, { fast: true }));
  if (variables.length === 0) throw unreadable(FORMAT, "it sets no variable");
  return gather(FORMAT, (gathering) => {
    for (const [name, value] of variables) gathering.add({ path: [name], type: "password", value });
  });
}

/**
 * Writes one variable a secret: the name in capitals, other characters as `_`.
 *
 * @throws Fault bad_input for names that meet, and for values that such a file cannot hold
 */
export function writeDotenv(items: readonly PlainItem[]): Written {
  const lost: { what: string }[] = [];
  const owners = new Map<string, string>();
  const lines = items.map(({ name, type, value, fields = [] }) => {
    checkName(name);
    const variable = variableName(name);
    const other = owners.get(variable);
    if (other !== undefined) {
      throw new Fault("bad_input", `cannot write as dotenv: "${other}" and "${name}" would both be ${variable}`);
    }
    owners.set(variable, name);
    for (const field of fields) lost.push({ what: `"${name}": field "${field.name}"` });
    const text = type === "file" ? null : utf8Text(value);
    const able = text !== null && text !== "" && !text.includes("\0");
    const line = able ? assignment(variable, text) : null;
    if (line !== null) return line;
    throw new Fault("bad_input", `cannot write "${name}" as dotenv: such files cannot hold its value`, {
      why: whyNot(text),
      hint: "--skip-unsupported leaves it out; --to json holds it",
    });
  });
  return { file: utf8Bytes(lines.join("")), lost };
}

function whyNot(text: string | null): string {
  if (text === "") return "it has fields alone";
  if (text === null || text.includes("\0")) return "it is not text";
  return "its quotation marks or line ends cannot be written";
}

/** The variable for a name: `db/password` is `DB_PASSWORD`. */
function variableName(name: string): string {
  const plain = name.toUpperCase().replace(/[^A-Z0-9_]/g, "_");
  return /^[0-9]/.test(plain) ? `_${plain}` : plain;
}

/**
 * A line in the plainest quoting that both of the parser's ways read back as the same value; null where none is. What
 * is quoted holds no such mark and ends with no backslash, so that the quotation ends where it should whatever follows.
 */
function assignment(variable: string, value: string): string | null {
  const quoted = (mark: string, text: string) =>
    text.includes(mark) || text.endsWith("\\") ? [] : [`${mark}${text}${mark}`];
  const escaped = value.replaceAll("\n", "\\n").replaceAll("\r", "\\r");
  const forms = /^[\w./:@%+,=-]+$/.test(value) ? [value] : [];
  forms.push(...quoted("'", value), ...quoted('"', value), ...quoted('"', escaped), ...quoted("`", value));
  if (/^[^\s'"`#][^'"`#\p{Cc}\p{Zl}\p{Zp}]*$/u.test(value)) forms.push(value);
  for (const form of forms) {
    const line = `${variable}=${form}\n`;
    // followed by another line, since quoting that does not end would take it in
    const whole = `${line}_KEYHOLD_END=1\n`;
    if ([false, true].every((fast) => isRead(parse(whole, { fast }), variable, value))) return line;
  }
  return null;
}

function isRead(read: Record<string, string>, variable: string, value: string): boolean {
  return (
    Object.keys(read).length === (variable === "_KEYHOLD_END" ? 1 : 2) &&
    read["_KEYHOLD_END"] === "1" &&
    read[variable] === value
  );
}
