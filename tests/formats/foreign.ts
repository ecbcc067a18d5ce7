import { expect } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import type { Asks, ForeignFormat, ReadResult } from "../../src/formats/foreign.ts";
import type { PlainItem } from "../../src/formats/item.ts";
import { checkName } from "../../src/formats/item.ts";
import { checkFields, type Field } from "../../src/protocol/content.ts";

/** Stands in every hostile sample; no fault may show it. */
export const MARKER = "hunter2-marker";

/** Answers for a reader: a password, identities, or a refusal of either. */
export function asksFor(password: string | null = null, identities: readonly Uint8Array[] | null = null): Asks {
  return {
    password: async () => {
      if (password === null) throw new Fault("usage", "no password can be had");
      return new TextEncoder().encode(password);
    },
    identities: async () => {
      if (identities === null) throw new Fault("usage", "no identity can be had");
      return identities.map((one) => one.slice());
    },
    progress: () => {},
  };
}

interface Given {
  readonly password?: string;
  readonly identities?: readonly Uint8Array[];
  readonly map?: Readonly<Record<string, string>>;
}

/** Reads with the answers given; checks that every item is one that a vault takes. */
export async function readWith(
  format: ForeignFormat,
  source: Uint8Array | string,
  given: Given = {},
): Promise<ReadResult> {
  if (!format.read) throw new Error(`${format.name} is not read`);
  const result = await format.read(source, {
    name: null,
    map: new Map(Object.entries(given.map ?? {})),
    asks: asksFor(given.password ?? null, given.identities ?? null),
  });
  const names = new Set<string>();
  for (const { name, fields = [], value, tags } of result.items) {
    checkName(name);
    checkFields(fields);
    expect(names.has(name)).toBe(false);
    names.add(name);
    expect(value.length > 0 || fields.length > 0).toBe(true);
    expect(tags.length).toBeLessThanOrEqual(64);
  }
  return result;
}

/** Writes with a password at hand. */
export async function writeWith(format: ForeignFormat, items: readonly PlainItem[], password?: string) {
  if (!format.write) throw new Error(`${format.name} is not written`);
  return format.write(items, { recipients: [], asks: asksFor(password ?? null) });
}

const REFUSALS = ["bad_input", "too_large", "unsupported", "wrong_password"];

/** The fault that a read ends with, of a kind that a reader may have and without anything of the file in it. */
export async function refusal(format: ForeignFormat, source: Uint8Array | string, given: Given = {}): Promise<Fault> {
  const end = await outcome(format, source, given);
  if (!(end instanceof Fault)) throw new Error(`read ${end.items.length} items`);
  return end;
}

/** What a read gives: its result, or a proper fault. */
export async function outcome(
  format: ForeignFormat,
  source: Uint8Array | string,
  given: Given = {},
): Promise<ReadResult | Fault> {
  try {
    return await readWith(format, source, given);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    expect(REFUSALS).toContain(error.code);
    expect(`${error.message} ${error.why} ${error.hint}`).not.toContain(MARKER);
    return error;
  }
}

/** A file with its end cut off, at about `count` places. */
export function* truncated(file: Uint8Array, count: number): Generator<Uint8Array> {
  for (let i = 0; i < count; i++) yield file.slice(0, Math.floor((file.length * i) / count));
}

/** A file with one bit changed, at about `count` places. */
export function* flipped(file: Uint8Array, count: number): Generator<Uint8Array> {
  for (let i = 0; i < count; i++) {
    const copy = file.slice();
    const at = Math.floor((file.length * i) / count);
    copy[at] = (copy[at] ?? 0) ^ (1 << (i % 8));
    yield copy;
  }
}

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (bytes: Uint8Array | undefined): string =>
  new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

/** The item of that name. */
export function itemNamed({ items }: ReadResult, name: string): PlainItem {
  const item = items.find((one) => one.name === name);
  if (!item) throw new Error(`no item "${name}" among ${items.map((one) => one.name).join(", ")}`);
  return item;
}

/** The values of an item's fields by their names. */
export function fieldsOf({ fields = [] }: PlainItem): Record<string, string | string[]> {
  const all: Record<string, string | string[]> = {};
  for (const { name, value } of fields) {
    const before = Object.hasOwn(all, name) ? all[name] : undefined;
    all[name] = before === undefined ? value : [before, value].flat();
  }
  return all;
}

/** Reads a file in a process of its own: how it ended, and the most memory that it had, in MiB. */
export async function readApart(
  format: string,
  file: Uint8Array,
  password = "",
): Promise<{ code: string; peakMib: number }> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-formats-"));
  try {
    const path = join(directory, "file");
    writeFileSync(path, file);
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "readchild.ts"), format, path, password], {
      stdout: "pipe",
      stderr: "inherit",
    });
    const line = await new Response(child.stdout).text();
    expect(await child.exited).toBe(0);
    const { code, peakMib }: { code: string; peakMib: number } = JSON.parse(line);
    return { code, peakMib };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const character = fc.oneof(
  fc.constantFrom(..."abcXYZ019 ,;:'\"`\\\n\r\t=#$@+-|{}[]<>&%ü€😀\ufeff"),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 1 }),
);

/** Text with everything that quoting must survive. */
export const anyText = fc.array(character, { maxLength: 24 }).map((parts) => parts.join("").toWellFormed());

const namePart = fc
  .array(character, { minLength: 1, maxLength: 8 })
  .map((parts) =>
    parts
      .join("")
      .toWellFormed()
      .normalize("NFC")
      .replace(/[\p{Cc}\p{Zl}\p{Zp}/]/gu, "_"),
  )
  .filter((part) => part !== "." && part !== "..");

/** Valid names of one to three parts. */
export const anyName = fc
  .array(namePart, { minLength: 1, maxLength: 3 })
  .map((parts) => parts.join("/"))
  .filter((name) => !/^[a-z][a-z0-9+.-]*:\/\//i.test(name) && isName(name));

function isName(name: string): boolean {
  try {
    checkName(name);
    return true;
  } catch {
    return false;
  }
}

/** Valid fields, no two of a name. */
export const anyFields: fc.Arbitrary<Field[]> = fc
  .uniqueArray(
    fc.record({
      name: fc.oneof(
        fc.constantFrom(
          "user",
          "url",
          "otp",
          "notes",
          "holder",
          "code",
          "expiry",
          "pin",
          "title",
          "x:hidden",
          "created",
        ),
        namePart.map((part) => part.replaceAll("/", "_").trim() || "field"),
      ),
      kind: fc.constantFrom("text" as const, "hidden" as const, "url" as const),
      value: anyText,
    }),
    { maxLength: 5, selector: ({ name }) => name },
  )
  .filter((fields) => isFields(fields));

function isFields(fields: readonly Field[]): boolean {
  try {
    checkFields(fields);
    return true;
  } catch {
    return false;
  }
}
