import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import { isTextType, SECRET_TYPES } from "../protocol/secrettype.ts";
import { bytes, type Codec, decodeJson, encodeJson, list, nullable, oneOf, struct, text, uint } from "../wire/codec.ts";
import {
  boundedItem,
  checkName,
  FILE_BYTES,
  type Format,
  type PlainItem,
  unreadable,
  utf8Bytes,
  utf8Text,
} from "./item.ts";

/** Keyhold's own format: every field of every secret (docs/formats.md). Text as text, other values as base64url. */
export const json: Format = {
  name: "json",
  kind: "many",
  binary: false,
  types: SECRET_TYPES,
  keeps: ["name", "type", "tags", "createdAt"],
  sniff: (file) => {
    const value = parseObject(file, FILE_BYTES.many);
    return value !== null && value["keyhold"] === "export";
  },
  read: (file) => {
    if (file.length > FILE_BYTES.many) throw unreadable("json", tooLarge, "import it in parts");
    const items = inFormat(() => decodeJson(document, file).items);
    refuseDuplicates(items, (why) => unreadable("json", why));
    return { items: [...items], lost: [] };
  },
  write: (items) => {
    for (const item of items) {
      checkName(item.name);
      boundedItem("json", item);
    }
    refuseDuplicates(items, (why) => new Fault("bad_input", "cannot write as json", { why }));
    const file = utf8Bytes(`${encodeJson(document, { keyhold: "export", v: 1, items })}\n`);
    if (file.length > FILE_BYTES.many) {
      throw new Fault("too_large", `cannot write as json: ${tooLarge}`, { hint: "export in parts, by prefix or name" });
    }
    return file;
  },
};

const tooLarge = `a file has at most ${FILE_BYTES.many} bytes`;
const MAX_ITEMS = 100_000;

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$/;

/** A time that exists, not only one of the right shape. */
const time: Codec<string> = {
  decode: (value, path) => {
    const written = text({ max: 24, pattern: TIME }).decode(value, path);
    const parsed = new Date(written);
    if (Number.isNaN(parsed.getTime()) || parsed.toISOString().slice(0, 19) !== written.slice(0, 19)) {
      throw new Fault("bad_input", `${path} must be a time that exists`);
    }
    return written;
  },
  encode: (value) => value,
};

const head = {
  name: text({ min: 1, max: DEFAULTS.nameBytes }),
  type: oneOf(SECRET_TYPES),
};
const tail = {
  tags: list(text({ min: 1, max: DEFAULTS.tagBytes }), { max: DEFAULTS.tags }),
  createdAt: nullable(time),
};
const asText = struct({ ...head, value: text({ min: 1, max: DEFAULTS.secretBytes }), ...tail });
const asBytes = struct({ ...head, valueB64: bytes({ min: 1, max: DEFAULTS.secretBytes }), ...tail });

const plainItem: Codec<PlainItem> = {
  decode: (value, path) => {
    if (typeof value === "object" && value !== null && Object.hasOwn(value, "valueB64")) {
      const { valueB64, ...rest } = asBytes.decode(value, path);
      return checked({ ...rest, value: valueB64 }, path);
    }
    const item = asText.decode(value, path);
    if (!isTextType(item.type)) throw new Fault("bad_input", `${path}.valueB64 is missing: the type is not text`);
    return checked({ ...item, value: utf8Bytes(item.value) }, path);
  },
  encode: (item) => {
    const written = isTextType(item.type) ? utf8Text(item.value) : null;
    const { name, type, value, tags, createdAt } = item;
    return written === null
      ? asBytes.encode({ name, type, valueB64: value, tags, createdAt })
      : asText.encode({ name, type, value: written, tags, createdAt });
  },
};

/** The rules that the shape alone does not show: names, and keys that are keys. */
function checked(item: PlainItem, path: string): PlainItem {
  try {
    checkName(item.name);
    publicKeyOf(item.type, item.value);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("bad_input", `${path}: ${error.message}`);
  }
  return item;
}

const document = struct({
  keyhold: oneOf(["export"]),
  v: uint(1, 1),
  items: list(plainItem, { max: MAX_ITEMS }),
});

function inFormat<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("json", error.message);
  }
}

function refuseDuplicates(items: readonly PlainItem[], fault: (why: string) => Fault): void {
  if (new Set(items.map((item) => item.name)).size !== items.length) throw fault("a name stands there twice");
}

/** The JSON object in a file of at most `max` bytes, or null. */
export function parseObject(file: Uint8Array, max: number): Record<string, unknown> | null {
  if (file.length > max || file.length < 2) return null;
  try {
    const value: unknown = JSON.parse(utf8Text(file) ?? "");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : null;
  } catch {
    return null;
  }
}
