import { Fault } from "../errors.ts";
import { isReference, parseReference, type Reference } from "./references.ts";

/** What a template holds at most. */
export const TEMPLATE_LIMITS = { bytes: 4_194_304, placeholders: 10_000, placeholderBytes: 4_096 } as const;

/** How a value is written into a file, applied from left to right. */
export const FILTERS = ["json", "base64", "base64url", "hex", "url", "shell"] as const;
export type Filter = (typeof FILTERS)[number];

/** A reference in a template, with the filters behind it. */
export interface Placeholder {
  readonly reference: Reference;
  readonly filters: readonly Filter[];
  /** Counted from 1. */
  readonly line: number;
}

/** A template taken apart; the parts are views of its bytes. */
export type TemplatePart = Uint8Array | Placeholder;

const OPEN = new Uint8Array([0x7b, 0x7b]);
const CLOSE = new Uint8Array([0x7d, 0x7d]);
/** `{{ "{{" }}` writes two braces. */
const LITERAL = /^(?:"\{\{"|'\{\{')$/;

/**
 * Takes a template apart. `{{ kh://NAME#FIELD | FILTER }}` is a placeholder, `{{ "{{" }}` writes `{{`; everything else
 * is bytes that stay.
 *
 * @param other What `{{` with anything else behind it is: refused, or kept as it is.
 * @throws Fault bad_input with the line, too_large
 */
export function parseTemplate(template: Uint8Array, other: "refuse" | "keep"): readonly TemplatePart[] {
  if (template.length > TEMPLATE_LIMITS.bytes) {
    throw new Fault("too_large", `a template has at most ${TEMPLATE_LIMITS.bytes} bytes`, { hint: "split it" });
  }
  const text = Buffer.from(template.buffer, template.byteOffset, template.byteLength);
  const parts: TemplatePart[] = [];
  let placeholders = 0;
  let line = 1;
  let counted = 0;
  let from = 0;
  for (let open = text.indexOf(OPEN); open >= 0; ) {
    for (; counted < open; counted++) if (text[counted] === 0x0a) line++;
    const found = placeholderAt(text, open, line, other);
    if (found === null) {
      open = text.indexOf(OPEN, open + OPEN.length);
      continue;
    }
    parts.push(template.subarray(from, open), found.part);
    from = found.end;
    placeholders++;
    if (placeholders > TEMPLATE_LIMITS.placeholders) {
      throw new Fault("too_large", `a template has at most ${TEMPLATE_LIMITS.placeholders} references`, {
        hint: "split it",
      });
    }
    open = text.indexOf(OPEN, from);
  }
  parts.push(template.subarray(from));
  return parts;
}

/** The placeholder that begins at `open`, and where it ends; null where it is somebody else's. */
function placeholderAt(
  text: Buffer,
  open: number,
  line: number,
  other: "refuse" | "keep",
): { part: TemplatePart; end: number } | null {
  const bad = (why: string) =>
    new Fault("bad_input", `line ${line} of the template has no reference after {{`, {
      why,
      hint: `write {{ kh://NAME }}; for two braces {{ "{{" }}, or --keep-other`,
    });
  const start = open + OPEN.length;
  const close = text.indexOf(CLOSE, start);
  const newline = text.indexOf(0x0a, start);
  const closed = close >= 0 && (newline < 0 || close < newline);
  const room = text.subarray(start, closed ? close : start + TEMPLATE_LIMITS.placeholderBytes);
  const body = room.toString("utf8").trim();
  if (!isReference(body)) {
    if (other === "keep") return null;
    if (!closed) throw bad("}} is missing on the line");
    if (LITERAL.test(body)) return { part: OPEN, end: close + CLOSE.length };
    throw bad(body === "" ? "it is empty" : "it does not start with kh://");
  }
  if (!closed) throw bad("}} is missing on the line");
  if (room.length > TEMPLATE_LIMITS.placeholderBytes) throw bad("it is too long");
  const [reference = "", ...filters] = body.split("|").map((part) => part.trim());
  return {
    part: { reference: referenceOn(line, reference), filters: filters.map(filter), line },
    end: close + CLOSE.length,
  };

  function filter(name: string): Filter {
    const known = FILTERS.find((one) => one === name);
    if (known !== undefined) return known;
    throw new Fault("bad_input", `line ${line} of the template has an unknown filter`, {
      hint: `filters: ${FILTERS.join(", ")}; in names write %7C for |`,
    });
  }
}

function referenceOn(line: number, text: string): Reference {
  try {
    return parseReference(text);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("bad_input", `line ${line} of the template: ${error.message}`, {
      ...(error.why === undefined ? {} : { why: error.why }),
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }
}

/**
 * Applies filters to a value.
 *
 * @param plainText The value as text, for a template without a filter that takes bytes.
 * @returns Bytes of their own.
 * @throws Fault bad_input for a zero byte in a shell's word.
 */
export function applyFilters(value: Uint8Array, plainText: string, filters: readonly Filter[]): Uint8Array {
  const encoder = new TextEncoder();
  const [first, ...more] = filters;
  if (first === undefined) return encoder.encode(plainText);
  let text = filtered(first, value, plainText);
  for (const filter of more) text = filtered(filter, encoder.encode(text), text);
  return encoder.encode(text);
}

function filtered(filter: Filter, bytes: Uint8Array, text: string): string {
  switch (filter) {
    case "json":
      return JSON.stringify(text);
    case "base64":
      return bytes.toBase64();
    case "base64url":
      return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
    case "hex":
      return bytes.toHex();
    case "url":
      return percentEncoded(bytes);
    case "shell":
      if (text.includes("\0")) throw new Fault("bad_input", "a value with a zero byte is no word of a shell");
      return `'${text.replaceAll("'", "'\\''")}'`;
  }
}

/** RFC 3986: letters, digits and `-._~` stay. */
function percentEncoded(bytes: Uint8Array): string {
  return [...bytes]
    .map((byte) => {
      const character = String.fromCharCode(byte);
      return /[A-Za-z0-9\-._~]/.test(character) ? character : `%${byte.toString(16).padStart(2, "0").toUpperCase()}`;
    })
    .join("");
}
