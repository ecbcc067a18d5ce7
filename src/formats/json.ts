import { Fault } from "../errors.ts";
import { checkFields } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { publicKeyOf } from "../protocol/keygen.ts";
import { CUSTODIAL_ORIGIN } from "../protocol/provenance.ts";
import { isTextType, type SecretType, VISIBLE_TYPES, type VisibleType } from "../protocol/secrettype.ts";
import { bytes, type Codec, decodeJson, encodeJson, list, nullable, oneOf, struct, text, uint } from "../wire/codec.ts";
import { fieldsCodec } from "../wire/content.ts";
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
import { isParsable } from "./jsontext.ts";
import { sniffJson } from "./sniff.ts";

/** Keyhold's own format: every field of every secret (docs/formats.md). Text as text, other values as base64url. */
export const json: Format = {
  name: "json",
  kind: "many",
  binary: false,
  types: VISIBLE_TYPES,
  keeps: ["name", "type", "tags", "createdAt", "fields", "expiresAt", "origin"],
  sniff: sniffJson,
  read: (file) => {
    if (file.length > FILE_BYTES.archive) throw unreadable("json", tooLarge, "import it in parts");
    if (!isParsable(file)) throw unreadable("json", "it holds too many parts", "import it in parts");
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
    const file = utf8Bytes(`${encodeJson(document, { items })}\n`);
    if (file.length > FILE_BYTES.archive) {
      throw new Fault("too_large", `cannot write as json: ${tooLarge}`, { hint: "export in parts, by prefix or name" });
    }
    return file;
  },
};

const tooLarge = `a file has at most ${FILE_BYTES.archive} bytes`;
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
  type: oneOf(VISIBLE_TYPES),
};
const tail = {
  tags: list(text({ min: 1, max: DEFAULTS.tagBytes }), { max: DEFAULTS.tags }),
  createdAt: nullable(time),
};
const later = { fields: fieldsCodec, expiresAt: nullable(time) };
const latest = { ...later, origin: nullable(text({ min: 1, max: 64, pattern: CUSTODIAL_ORIGIN })) };
const textValue = { value: text({ max: DEFAULTS.secretBytes }) };
const bytesValue = { valueB64: bytes({ max: DEFAULTS.fileBytes }) };

/**
 * Items of the first form; those of the second, which have fields and a time of expiry too; and those of the third,
 * which say where a value comes from that a server has seen.
 */
const SHAPES = {
  1: { text: struct({ ...head, ...textValue, ...tail }), bytes: struct({ ...head, ...bytesValue, ...tail }) },
  2: {
    text: struct({ ...head, ...textValue, ...tail, ...later }),
    bytes: struct({ ...head, ...bytesValue, ...tail, ...later }),
  },
  3: {
    text: struct({ ...head, ...textValue, ...tail, ...latest }),
    bytes: struct({ ...head, ...bytesValue, ...tail, ...latest }),
  },
} as const;

type Version = keyof typeof SHAPES;

/** An item without an origin where it says of none. */
function said({ origin, ...item }: Omit<PlainItem, "origin"> & { origin?: string | null }): PlainItem {
  return { ...item, ...(typeof origin === "string" ? { origin } : {}) };
}

/** An item under the rules of one version of the form; what of it is `undefined` stands nowhere. */
const itemCodec = (v: Version): Codec<PlainItem> => ({
  decode: (value, path) => {
    if (typeof value === "object" && value !== null && Object.hasOwn(value, "valueB64")) {
      const { valueB64, ...rest } = SHAPES[v].bytes.decode(value, path);
      return checked(said({ ...rest, value: valueB64 }), path);
    }
    const item = SHAPES[v].text.decode(value, path);
    if (!isTextType(item.type)) throw new Fault("bad_input", `${path}.valueB64 is missing: the type is not text`);
    return checked(said({ ...item, value: utf8Bytes(item.value) }), path);
  },
  encode: (item) => {
    const written = isTextType(item.type) ? utf8Text(item.value) : null;
    const { value, fields = [], expiresAt = null, origin = null } = item;
    const shape = SHAPES[v];
    const rest = { ...item, type: visible(item.type), fields, expiresAt, origin };
    return written === null
      ? shape.bytes.encode({ ...rest, valueB64: value })
      : shape.text.encode({ ...rest, value: written });
  },
});

function visible(type: SecretType): VisibleType {
  if (type !== "part") return type;
  throw new Fault("bad_input", "the parts of a file are exported as the file");
}

/** True for an item that only the second form can hold. */
const needsFields = ({ fields, expiresAt }: PlainItem): boolean =>
  (fields !== undefined && fields.length > 0) || (expiresAt ?? null) !== null;

/** The rules that the shape alone does not show: names, and keys that are keys. */
function checked(item: PlainItem, path: string): PlainItem {
  try {
    checkName(item.name);
    checkFields(item.fields ?? []);
    boundedItem("json", item);
    if (item.value.length > 0) publicKeyOf(item.type, item.value);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("bad_input", `${path}: ${error.message}`);
  }
  return item;
}

const documentOf = (v: Version) =>
  struct({ keyhold: oneOf(["export"]), v: uint(v, v), items: list(itemCodec(v), { max: MAX_ITEMS }) });
const DOCUMENTS = { 1: documentOf(1), 2: documentOf(2), 3: documentOf(3) } as const;

/** The version that a document says it is of; the first where it says none that is known. */
const versionOf = (value: unknown): Version =>
  typeof value === "object" && value !== null && "v" in value && (value.v === 2 || value.v === 3) ? value.v : 1;

const document: Codec<{ readonly items: readonly PlainItem[] }> = {
  decode: (value, path) => DOCUMENTS[versionOf(value)].decode(value, path),
  encode: ({ items }) => {
    const v = items.some(({ origin }) => origin !== undefined) ? 3 : items.some(needsFields) ? 2 : 1;
    return DOCUMENTS[v].encode({ keyhold: "export", v, items });
  },
};

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
