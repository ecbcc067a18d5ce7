import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { checkFileFields, type Field, isDay } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { SecretType } from "../protocol/secrettype.ts";
import { encodeRecord } from "../wire/content.ts";
import { type PlainItem, type ReadResult, unreadable, utf8Bytes, utf8Text } from "./item.ts";

/** What a file of another program may hold at most. */
export const FOREIGN = { fileBytes: 64 * 1_024 * 1_024, items: 100_000 } as const;

/** An item as another program names it; {@link Gathering.add} makes it one of ours. */
export interface Draft {
  /** Folders and title; what no name may hold is replaced, and a slash divides. */
  readonly path: readonly string[];
  readonly type: SecretType;
  /** Bytes are taken over. */
  readonly value: string | Uint8Array;
  readonly fields?: readonly Field[];
  readonly tags?: readonly string[];
  readonly createdAt?: string | null;
  readonly expiresAt?: string | null;
}

/** The items of one file while it is read. */
export interface Gathering {
  /** Adds an item under a name of its own, which it returns. @throws Fault bad_input, too_large */
  add(draft: Draft): string;
  /** Notes what of the item `name`, or of the file, has no place. */
  lose(name: string | null, what: string): void;
  readonly count: number;
}

/**
 * Reads a file: all of it or nothing. What was gathered is wiped when `work` fails, in whichever way.
 *
 * @throws Fault bad_input, and what `work` throws
 */
export async function gather(
  format: string,
  work: (gathering: Gathering) => Promise<void> | void,
): Promise<ReadResult> {
  const items: PlainItem[] = [];
  const lost: { what: string }[] = [];
  const names = new NameBook();
  const gathering: Gathering = {
    add: (draft) => {
      if (items.length >= FOREIGN.items) throw tooMany(format);
      const name = names.take(draft.path);
      const made = itemsOf(format, name, draft);
      for (const what of made.lost) lost.push({ what: `"${name}": ${what}` });
      if (made.item) items.push(made.item);
      for (const { field, value } of made.spilled) {
        const spilledName = names.take([name, field]);
        items.push({ ...made.shared, name: spilledName, type: "file", value });
      }
      return name;
    },
    lose: (name, what) => {
      lost.push({ what: name === null ? what : `"${name}": ${what}` });
    },
    get count() {
      return items.length;
    },
  };
  try {
    await contained(format, async () => work(gathering));
    return { items, lost };
  } catch (error) {
    wipe(...items.map(({ value }) => value));
    throw error;
  }
}

/** Runs `work`, and gives failures of libraries as one fault that has nothing of the file in it. @throws Fault bad_input */
export async function contained<T>(format: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw unreadable(format, "it is damaged, or of another format");
  }
}

/** The refusal of a file with too many items. */
export function tooMany(format: string): Fault {
  return new Fault("too_large", `cannot read this file as ${format}: it holds more than ${FOREIGN.items} items`, {
    hint: "import it in parts",
  });
}

/** Refuses a file that is too large to be read whole. @throws Fault too_large */
export function boundedFile(format: string, file: Uint8Array): void {
  if (file.length <= FOREIGN.fileBytes) return;
  throw new Fault("too_large", `cannot read this file as ${format}: it has more than ${FOREIGN.fileBytes} bytes`, {
    hint: "import it in parts",
  });
}

/** The text of a file, without a byte-order mark. @throws Fault bad_input, too_large */
export function fileText(format: string, source: Uint8Array | string): string {
  const file = fileBytes(format, source);
  const text = utf8Text(file);
  if (text === null) throw unreadable(format, "it is not text in UTF-8");
  return text.startsWith("\ufeff") ? text.slice(1) : text;
}

/** The bytes of a file, which a directory has not. @throws Fault bad_input, too_large */
export function fileBytes(format: string, source: Uint8Array | string): Uint8Array {
  if (typeof source === "string") throw unreadable(format, "it is a directory");
  boundedFile(format, source);
  return source;
}

/** A time as our items have it, or null for one that is none, before 1970 or after 9999. */
export function isoTime(value: string | number | Date | null | undefined): string | null {
  if (value === null || value === undefined || value === "") return null;
  const time = new Date(value);
  const ms = time.getTime();
  if (typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value) && ms >= 0) {
    if (time.toISOString().startsWith(value.slice(0, 19))) return value;
  }
  return Number.isNaN(ms) || ms < 0 || ms >= 253_402_300_800_000 ? null : time.toISOString();
}

/** A field of kind text, hidden, url or date by its name. */
export const field = (name: string, kind: Field["kind"], value: string): Field => ({ name, kind, value });

const CONTROLS = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]+/gu;

/** Gives each item a valid name that no other one of the file has: the second of a name becomes `name (2)`. */
class NameBook {
  readonly #taken = new Set<string>();
  readonly #next = new Map<string, number>();

  take(path: readonly string[]): string {
    const base = validName(path);
    let name = base;
    for (let n = this.#next.get(base) ?? 2; this.#taken.has(name); n++) {
      name = `${cut(base, DEFAULTS.nameBytes - 12)} (${n})`;
      this.#next.set(base, n + 1);
    }
    this.#taken.add(name);
    return name;
  }
}

function validName(path: readonly string[]): string {
  const parts = path.flatMap((one) =>
    one
      .toWellFormed()
      .normalize("NFC")
      .replace(/^[a-z][a-z0-9+.-]*:\/\//i, "")
      .split("/")
      .map((part) => (part.search(CONTROLS) < 0 ? part : part.replace(CONTROLS, " ").trim()))
      .filter((part) => part !== "" && part !== "." && part !== ".."),
  );
  const name = cut(parts.join("/"), DEFAULTS.nameBytes);
  return name === "" ? "unnamed" : name;
}

/** The longest beginning of at most `max` bytes that ends with a whole character and no slash. */
function cut(text: string, max: number): string {
  if (Buffer.byteLength(text) <= max) return text;
  const bytes = utf8Bytes(text);
  let end = max;
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return new TextDecoder().decode(bytes.subarray(0, end)).replace(/(?:\/\.{0,2})+$/, "");
}

interface Made {
  readonly item: PlainItem | null;
  readonly shared: Pick<PlainItem, "tags" | "createdAt">;
  readonly spilled: readonly { readonly field: string; readonly value: Uint8Array }[];
  readonly lost: readonly string[];
}

function itemsOf(format: string, name: string, draft: Draft): Made {
  const lost: string[] = [];
  let { type } = draft;
  const value = typeof draft.value === "string" ? utf8Bytes(wellFormed(format, draft.value)) : draft.value;
  let fields = validFields(format, draft.fields ?? [], lost);
  const shared = { tags: validTags(draft.tags ?? [], lost), createdAt: draft.createdAt ?? null };
  const none = { item: null, shared, spilled: [], lost };
  if (value.length === 0 && fields.length === 0) {
    lost.push("it holds nothing");
    return none;
  }
  if (value.length > DEFAULTS.secretBytes) type = "file";
  if (type === "file") {
    if (value.length > DEFAULTS.fileBytes) {
      wipe(value);
      lost.push(`the whole of it: a file has at most ${DEFAULTS.fileBytes} bytes`);
      return none;
    }
    if (fields.length > 0 && !fitFile(fields)) {
      for (const { name: unkept } of fields) lost.push(`field "${unkept}" of a file`);
      fields = [];
    }
  }
  const spilled: { field: string; value: Uint8Array }[] = [];
  while (type !== "file" && fields.length > 0 && !fits(value, fields)) {
    const largest = fields.reduce((a, b) => (b.value.length > a.value.length ? b : a));
    fields = fields.filter((one) => one !== largest);
    spilled.push({ field: largest.name, value: utf8Bytes(largest.value) });
  }
  const item: PlainItem = {
    name,
    type,
    value,
    ...shared,
    ...(fields.length > 0 ? { fields } : {}),
    ...(draft.expiresAt ? { expiresAt: draft.expiresAt } : {}),
  };
  return { item: value.length === 0 && fields.length === 0 ? null : item, shared, spilled, lost };
}

function fitFile(fields: readonly Field[]): boolean {
  try {
    checkFileFields(fields);
    return true;
  } catch (error) {
    if (error instanceof Fault && error.code === "too_large") return false;
    throw error;
  }
}

/** True where value and fields fit one secret; counted roughly first, since most are small. */
function fits(value: Uint8Array, fields: readonly Field[]): boolean {
  let most = 64 + value.length * 1.4;
  for (const one of fields) most += 64 + 6 * (one.name.length + one.value.length) * 3;
  if (most < DEFAULTS.secretBytes) return true;
  try {
    wipe(encodeRecord({ value, fields }));
    return true;
  } catch (error) {
    if (error instanceof Fault && error.code === "too_large") return false;
    throw error;
  }
}

function wellFormed(format: string, text: string): string {
  if (!text.isWellFormed()) throw unreadable(format, "it holds text that is not Unicode");
  return text;
}

/** Names that mean the value or what is derived from it. */
const RESERVED = ["value", "public-key", "name", "type", "tags"];

/** The fields that hold something, with names that are valid and differ. */
function validFields(format: string, given: readonly Field[], lost: string[]): Field[] {
  const taken = new Set(RESERVED);
  const fields: Field[] = [];
  let over = 0;
  for (const one of given) {
    if (one.value === "") continue;
    if (fields.length >= DEFAULTS.fields) {
      over++;
      continue;
    }
    const plain = one.name.toWellFormed().normalize("NFC").replace(CONTROLS, " ").trim() || "field";
    const base = cut(plain, DEFAULTS.tagBytes - 8);
    let name = Buffer.byteLength(plain) <= DEFAULTS.tagBytes ? plain : base;
    for (let n = 2; taken.has(name); n++) name = `${base} (${n})`;
    if (name !== "url") taken.add(name);
    const kind = one.kind === "date" && !isDay(one.value) ? "text" : one.kind;
    fields.push({ name, kind, value: wellFormed(format, one.value) });
  }
  if (over > 0) lost.push(`${over} fields: a secret has at most ${DEFAULTS.fields}`);
  return fields;
}

function validTags(given: readonly string[], lost: string[]): string[] {
  const tags = new Set<string>();
  for (const one of given) {
    const tag = cut(one.toWellFormed().normalize("NFC").replace(CONTROLS, " ").trim(), DEFAULTS.tagBytes);
    if (tag !== "") tags.add(tag);
  }
  const sorted = [...tags].sort();
  if (sorted.length > DEFAULTS.tags) lost.push(`${sorted.length - DEFAULTS.tags} tags: a secret has at most 64`);
  return sorted.slice(0, DEFAULTS.tags);
}
