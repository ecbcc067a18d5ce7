import { CsvError, parse } from "csv-parse/sync";
import { Fault } from "../errors.ts";
import { FIELD_KINDS, type Field, type FieldKind } from "../protocol/content.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import { type SecretType, VISIBLE_TYPES } from "../protocol/secrettype.ts";
import { delimiterOf, isOwn, type Target, tableOf } from "./csvheaders.ts";
import { FOREIGN, field, fileText, type Gathering, gather, isoTime, tooMany } from "./gathering.ts";
import { type ReadResult, unreadable, utf8Bytes } from "./item.ts";
import { otpField } from "./otpfield.ts";

const FORMAT = "csv";

/** One cell and its row, as the parser may hold them at most. */
const RECORD_BYTES = 24 * 1_024 * 1_024;
const COLUMNS = 512;

/** A column as it is read: what it becomes, and what its header says. */
interface Column {
  readonly target: Target;
  readonly header: string;
}

/** How a table is read. */
interface Plan {
  readonly columns: readonly Column[];
  /** True for a table that keyhold wrote, which is read back exactly. */
  readonly own: boolean;
  readonly program: string | null;
}

/**
 * Reads a table.
 *
 * @param map Names of ours (`name`, `value`, `folder`, `tags`, `type`, `created`, `expires`, or a field) and the columns
 *   that hold them.
 * @throws Fault bad_input, too_large
 */
export function readCsv(source: Uint8Array | string, map: ReadonlyMap<string, string>): Promise<ReadResult> {
  const text = fileText(FORMAT, source);
  const [header, ...rows] = table(text);
  if (header === undefined) throw unreadable(FORMAT, "it is empty");
  const plan = planOf(header, map);
  return gather(FORMAT, (gathering) => {
    for (const { target, header: column } of plan.columns) {
      if (target === "lose" && map.size > 0) gathering.lose(null, `column "${shown(column)}"`);
    }
    for (const row of rows) readRow(gathering, plan, row);
  });
}

const shown = (text: string): string => text.replace(/\p{C}+/gu, " ").slice(0, 64);

function table(text: string): string[][] {
  const [first = ""] = text.split(/\r?\n|\r/, 1);
  if (first.includes("\0")) throw unreadable(FORMAT, "it is no text");
  try {
    const rows: string[][] = parse(text, {
      delimiter: delimiterOf(first),
      record_delimiter: ["\r\n", "\n", "\r"],
      skip_empty_lines: true,
      max_record_size: RECORD_BYTES,
      to: FOREIGN.items + 2,
    });
    if (rows.length > FOREIGN.items + 1) throw tooMany(FORMAT);
    return rows;
  } catch (error) {
    if (!(error instanceof CsvError)) throw error;
    throw unreadable(FORMAT, reasonOf(error));
  }
}

function reasonOf(error: CsvError): string {
  if (error.code === "CSV_QUOTE_NOT_CLOSED") return "a quotation mark is never closed";
  if (error.code.includes("FIELDS_LENGTH")) return "a row has more or fewer cells than the header";
  if (error.code === "CSV_MAX_RECORD_SIZE") return "a row is too long";
  return "its quotation marks are damaged";
}

/** Names that columns go by where nothing else says what they are. */
const SYNONYMS: Readonly<Record<string, Target>> = {
  name: "name",
  title: "name",
  folder: "folder",
  group: "folder",
  type: "type",
  value: "value",
  password: "value",
  secret: "value",
  "value-base64": "value-base64",
  tags: "tags",
  created: "created",
  expires: "expires",
  user: "field:user",
  username: "field:user",
  login: "field:user",
  url: "field:url",
  website: "field:url",
  otp: "otp",
  totp: "otp",
  notes: "field:notes",
  note: "field:notes",
};

function planOf(header: readonly string[], map: ReadonlyMap<string, string>): Plan {
  if (header.length > COLUMNS) throw unreadable(FORMAT, `it has more than ${COLUMNS} columns`);
  if (map.size > 0) return { columns: mappedColumns(header, map), own: false, program: null };
  if (isOwn(header)) return { columns: header.map(ownColumn), own: true, program: null };
  const known = tableOf(header);
  if (known) {
    const columns = header.map((name): Column => {
      const target = known.columns[name.trim().toLowerCase()] ?? "ignore";
      return { target, header: name };
    });
    return { columns, own: false, program: known.program };
  }
  const columns = header.map((name): Column => {
    const key = name.trim().toLowerCase();
    const target = Object.hasOwn(SYNONYMS, key) ? SYNONYMS[key] : undefined;
    return { target: target ?? `field:${name.trim()}`, header: name };
  });
  secondsAsFields(columns);
  const has = (one: Target) => columns.some(({ target }) => target === one);
  if (!has("name") || !(has("value") || has("value-base64"))) {
    throw unreadable(
      FORMAT,
      "its first line does not say which columns hold the name and the value",
      "say which with --map name=COLUMN,value=COLUMN,user=COLUMN",
    );
  }
  return { columns, own: false, program: null };
}

/** What a secret has once: a second column of it is kept beside, not in the place of the first. */
const ONCE: readonly Target[] = ["name", "folder", "type", "value", "value-base64", "created", "expires", "otp"];

function secondsAsFields(columns: Column[]): void {
  const seen = new Set<Target>();
  for (const [i, { target, header }] of columns.entries()) {
    if (seen.has(target)) columns[i] = { target: `field:${header.trim()}:hidden`, header };
    else if (ONCE.includes(target)) seen.add(target);
  }
}

function ownColumn(header: string): Column {
  const own: readonly Target[] = ["name", "type", "value", "value-base64", "tags", "created", "expires"];
  return { target: own.find((one) => one === header) ?? `field:${header}`, header };
}

function mappedColumns(header: readonly string[], map: ReadonlyMap<string, string>): readonly Column[] {
  const targets = new Map<number, Target>();
  for (const [ours, column] of map) {
    let index = header.indexOf(column);
    if (index < 0) index = header.findIndex((one) => one.trim().toLowerCase() === column.trim().toLowerCase());
    if (index < 0) {
      throw new Fault("bad_input", `cannot read this file as csv: it has no column "${shown(column)}"`, {
        hint: "names of columns stand in the first line",
      });
    }
    if (targets.has(index)) throw new Fault("bad_input", `column "${shown(column)}" is mapped twice`);
    const target = Object.hasOwn(SYNONYMS, ours) ? SYNONYMS[ours] : undefined;
    targets.set(index, target ?? `field:${ours}`);
  }
  const all = [...targets.values()];
  if (!all.includes("name") || !(all.includes("value") || all.includes("value-base64"))) {
    throw new Fault("bad_input", "cannot read this file as csv: --map names no column for name and value", {
      hint: "--map name=COLUMN,value=COLUMN,user=COLUMN",
    });
  }
  return header.map((name, i) => ({ target: targets.get(i) ?? "lose", header: name }));
}

interface Row {
  name: string;
  folder: string;
  type: string;
  value: string | Uint8Array;
  fields: Field[];
  tags: string[];
  createdAt: string | null;
  expiresAt: string | null;
  otp: string;
  lost: string[];
}

function readRow(gathering: Gathering, plan: Plan, cells: readonly string[]): void {
  const row: Row = {
    name: "",
    folder: "",
    type: "",
    value: "",
    fields: [],
    tags: [],
    createdAt: null,
    expiresAt: null,
    otp: "",
    lost: [],
  };
  for (const [i, column] of plan.columns.entries()) {
    const cell = cells[i] ?? "";
    if (cell !== "") take(row, column, cell, plan);
  }
  if (plan.program === "LastPass") lastPass(row);
  if (plan.program === "KeePassXC") row.folder = row.folder.replace(/^[^/]*\/?/, "");
  const user = row.fields.find((one) => one.name === "user")?.value ?? "";
  const url = row.fields.find((one) => one.name === "url")?.value ?? "";
  const title = row.name === "" ? `${hostOf(url)}/${user}` : row.name;
  if (row.otp !== "") row.fields.push(otpField(row.otp, title));
  const type = typeOf(row, plan);
  if (type === "note" && row.value.length === 0 && !plan.own) {
    row.value = row.fields.find((one) => one.name === "notes")?.value ?? "";
    row.fields = row.fields.filter((one) => one.name !== "notes");
  }
  if (plan.own && row.value.length > 0) publicKeyOf(type, asBytes(row.value));
  const { fields, tags, createdAt, expiresAt, value } = row;
  const name = gathering.add({ path: [row.folder, title], type, value, fields, tags, createdAt, expiresAt });
  for (const what of row.lost) gathering.lose(name, what);
}

const asBytes = (value: string | Uint8Array): Uint8Array => (typeof value === "string" ? utf8Bytes(value) : value);

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : url;
}

function take(row: Row, { target, header }: Column, cell: string, { own, program }: Plan): void {
  switch (target) {
    case "name":
    case "folder":
    case "type":
    case "value":
      row[target] = cell;
      return;
    case "value-base64":
      row.value = base64Cell(cell);
      return;
    case "tags":
      row.tags.push(...cell.split(own ? /\r?\n/ : /[,;\n]/));
      return;
    case "favorite":
    case "archived":
      if (!/^(?:0|false|no)$/i.test(cell)) row.tags.push(target);
      return;
    case "created":
    case "expires": {
      const time = isoTime(/^\d{9,15}$/.test(cell) ? Number(cell) : cell);
      if (time === null) row.lost.push(`a time in column "${shown(header)}"`);
      else row[target === "created" ? "createdAt" : "expiresAt"] = time;
      return;
    }
    case "otp":
      if (own) row.fields.push(ownField("otp", cell));
      else row.otp = cell;
      return;
    case "pairs":
      for (const line of cell.split("\n")) {
        const [, name, value] = /^(.*?): (.*)$/.exec(line) ?? [];
        row.fields.push(field(name || "field", "text", value ?? line));
      }
      return;
    case "lose":
      if (program !== null) row.lost.push(`column "${shown(header)}"`);
      return;
    case "ignore":
      return;
    default:
      takeField(row, target.slice("field:".length), cell, program);
  }
}

function takeField(row: Row, name: string, cell: string, program: string | null): void {
  const isUrls = name === "url" && program === "Bitwarden";
  for (const value of isUrls ? cell.split(/,(?=[a-z][a-z0-9+.-]*:\/\/)/i) : [cell]) {
    row.fields.push(ownField(name, value));
  }
}

/** A field by the header of its column: `NAME` or `NAME:KIND`. */
function ownField(header: string, value: string): Field {
  const [, name, given] = /^(.*):([a-z]+)$/.exec(header) ?? [];
  const kind = FIELD_KINDS.find((one) => one === given);
  if (name !== undefined && kind) return checkedKind(name, kind, value);
  return checkedKind(header, header === "url" ? "url" : header === "otp" ? "otp" : "text", value);
}

function checkedKind(name: string, kind: FieldKind, value: string): Field {
  return kind === "otp" && !/^otpauth:\/\/[th]otp\//.test(value) ? field(name, "hidden", value) : { name, kind, value };
}

function base64Cell(cell: string): Uint8Array {
  try {
    return Uint8Array.fromBase64(cell);
  } catch {
    throw unreadable(FORMAT, "a cell is no base64");
  }
}

function typeOf(row: Row, { own, program }: Plan): SecretType {
  const written = row.type.trim().toLowerCase();
  const known = VISIBLE_TYPES.find((one) => one === written);
  if (known) return known;
  if (own) throw unreadable(FORMAT, "a row has a type that this version does not know");
  if (written !== "" && program === null) throw unreadable(FORMAT, "a row has a type that this version does not know");
  if (row.value.length === 0 && row.fields.every(({ name }) => name === "notes")) return "note";
  return row.fields.length > 0 ? "login" : "password";
}

/** LastPass keeps notes as entries of a certain address, and divides folders by a backslash. */
function lastPass(row: Row): void {
  row.folder = row.folder.replaceAll("\\", "/");
  const isNote = row.fields.some(({ name, value }) => name === "url" && value === "http://sn");
  row.fields = row.fields.filter(({ name, value }) => name !== "url" || (value !== "http://sn" && value !== "http://"));
  if (isNote) row.type = "note";
}
