import { Fault } from "../errors.ts";
import { checkFields, FIELD_KINDS, type Field, type FieldKind, isDay } from "../protocol/content.ts";
import { VISIBLE_TYPES, type VisibleType } from "../protocol/secrettype.ts";
import { parseTime } from "./args.ts";
import { kindOfName, usualFields } from "./recordfields.ts";

/** A secret as it is edited: text alone. */
export interface RecordText {
  readonly type: VisibleType;
  /** ISO 8601 in UTC, or null. */
  readonly expiresAt: string | null;
  /** null: the value is no text, and stays as it is. */
  readonly value: string | null;
  readonly fields: readonly Field[];
}

/** Words that stand for no field; a field of such a name is written in quotes. */
const HEADS: ReadonlySet<string> = new Set(["type", "expires", "value"]);
const BARE = /^[\p{L}\p{N}_](?:[\p{L}\p{N}_ .-]*[\p{L}\p{N}_.-])?$/u;
const INDENT = "  ";
const HEADER = `# Lines "name: value"; lines that begin with # count for nothing. A field without a value goes away.
# A value of several lines is "name: |", and below it its lines, each behind two spaces.
# A value in double quotes is read as JSON text. Behind a name may stand what it holds:
# (text), (hidden), (url), (otp) or (date). url may stand here more than once.`;

/**
 * The text form of a secret (docs/records.md §4): every value comes back from {@link readRecord} as it is.
 *
 * @param name Shown in a comment.
 */
export function writeRecord(record: RecordText, name: string): string {
  const { type, expiresAt, value, fields } = record;
  const lines = [`# ${JSON.stringify(name)}`, HEADER, ""];
  lines.push(`type: ${type}`, `expires: ${expiresAt === null ? "never" : shortTime(expiresAt)}`, "");
  if (value === null) lines.push("# The value is no text and stays as it is: keyhold store NAME --in-file FILE");
  else lines.push(...(type === "login" ? ["# value: the password"] : []), ...entry("value", value));
  const missing = usualFields(type).filter((usual) => !fields.some((field) => field.name === usual));
  const notes = fields.filter((field) => field.name === "notes");
  for (const field of fields.filter((one) => one.name !== "notes")) lines.push(...entry(headOf(field), field.value));
  for (const usual of missing.filter((one) => one !== "notes")) lines.push(`${usual}:`);
  for (const field of notes) lines.push(...entry(headOf(field), field.value));
  if (missing.includes("notes")) lines.push("notes:");
  return `${lines.join("\n")}\n`;
}

function shortTime(at: string): string {
  return at.endsWith("T00:00:00.000Z") && isDay(at.slice(0, 10)) ? at.slice(0, 10) : at;
}

function headOf({ name, kind }: Field): string {
  const written = BARE.test(name) && !HEADS.has(name) ? name : JSON.stringify(name);
  return kind === kindOfName(name) ? written : `${written} (${kind})`;
}

function entry(head: string, value: string): readonly string[] {
  if (isLine(value)) return [`${head}: ${value}`];
  const lines = value.split("\n");
  const isBlock = lines.length > 1 && lines.at(-1) !== "" && lines.every((line) => !/[^\P{Cc}\t]|\s$/u.test(line));
  if (!isBlock) return [`${head}: ${JSON.stringify(value)}`];
  return [`${head}: |`, ...lines.map((line) => (line === "" ? "" : INDENT + line))];
}

/** True for text that can stand behind a name as it is. */
function isLine(value: string): boolean {
  return value !== "" && value !== "|" && value === value.trim() && !value.startsWith('"') && !/\p{Cc}/u.test(value);
}

/**
 * Reads what {@link writeRecord} wrote and somebody edited. Fields of kind `otp` may hold a bare key in base32.
 *
 * @param before The record that was edited: whether its value is text, and the kinds of its fields.
 * @throws Fault bad_input naming a line, never what stands in it
 */
export function readRecord(text: string, before: RecordText): RecordText {
  const lines = text.split("\n").map((line) => line.replace(/\r$/, ""));
  let type: VisibleType = before.type;
  let expiresAt: string | null = before.expiresAt;
  let value: string | null = before.value === null ? null : "";
  const fields: Field[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? "";
    const at = i + 1;
    if (line.trim() === "" || line.startsWith("#")) continue;
    const head = splitHead(line, at);
    let content = head.rest;
    if (content === "|") {
      const block: string[] = [];
      for (
        let next = lines[i + 1];
        next !== undefined && (next.startsWith(INDENT) || next.trim() === "");
        next = lines[i + 1]
      ) {
        block.push(next.trim() === "" ? "" : next.slice(INDENT.length));
        i++;
      }
      while (block.at(-1) === "") block.pop();
      content = block.join("\n");
    } else if (content.startsWith('"')) content = quoted(content, at);
    const isHead = !head.quoted && HEADS.has(head.name);
    if (isHead) {
      if (seen.has(head.name)) throw wrong(at, `"${head.name}" stands twice`);
      seen.add(head.name);
      if (head.kind !== null) throw wrong(at, `"${head.name}" takes no kind`);
    }
    if (isHead && head.name === "type") type = typeOf(content, at);
    else if (isHead && head.name === "expires") expiresAt = timeOf(content, at);
    else if (isHead) {
      if (before.value === null) throw wrong(at, "the value is no text, and cannot be written here");
      value = content;
    } else if (content !== "" || head.rest !== "") {
      const name = head.name.normalize("NFC");
      fields.push({ name, kind: head.kind ?? kindOfName(name), value: content });
    }
  }
  // a bare key is as good as a URI: whoever takes the record brings it into that form
  checkFields(fields.map((field) => (field.kind === "otp" ? { ...field, kind: "hidden" } : field)));
  return { type, expiresAt, value, fields };
}

function wrong(line: number, why: string): Fault {
  return new Fault("bad_input", `line ${line} of the record cannot be read`, { why });
}

interface Head {
  readonly name: string;
  readonly quoted: boolean;
  readonly kind: FieldKind | null;
  /** What stands behind the colon, without spaces around it. */
  readonly rest: string;
}

function splitHead(line: string, at: number): Head {
  const quotedName = /^("(?:[^"\\]|\\.)*")/.exec(line)?.[1];
  const bareName = quotedName === undefined ? /^[^:("]*/.exec(line)?.[0] : undefined;
  const written = quotedName ?? bareName ?? "";
  const [, kindText, rest] = /^\s*(?:\(([a-z]*)\)\s*)?:(.*)$/s.exec(line.slice(written.length)) ?? [];
  if (rest === undefined) throw wrong(at, 'it is not "name: value", and no line of a value either');
  const name = quotedName === undefined ? written.trim() : quoted(quotedName, at);
  if (name === "") throw wrong(at, "there is no name before the colon");
  const kind = kindText === undefined ? null : FIELD_KINDS.find((one) => one === kindText);
  if (kind === undefined) throw wrong(at, `in brackets stands one of ${FIELD_KINDS.join(", ")}`);
  return { name, quoted: quotedName !== undefined, kind, rest: rest.trim() };
}

function quoted(text: string, at: number): string {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "string") return value;
  } catch {
    // falls through to the one error
  }
  throw wrong(at, 'text in double quotes is JSON text: a quote in it is \\", a backslash \\\\');
}

function typeOf(text: string, at: number): VisibleType {
  const found = VISIBLE_TYPES.find((one) => one === text);
  if (found === undefined) throw wrong(at, `the type is one of ${VISIBLE_TYPES.join(", ")}`);
  return found;
}

function timeOf(text: string, at: number): string | null {
  if (text === "never" || text === "") return null;
  const ms = /^\d{4}-/.test(text) ? parseTime(text, 0) : null;
  if (ms === null) throw wrong(at, "expires is a day such as 2027-01-31, or never");
  return new Date(ms).toISOString();
}
