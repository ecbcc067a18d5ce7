import { concat, wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { idBytes, type KeyId } from "../ids.ts";
import { type Content, checkFields, FIELD_KINDS, type Field, type FileParts } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { bytes, decodeJson, encodeJson, list, oneOf, struct, text, uint } from "./codec.ts";

/** Fields as they stand in a record and in the native format. */
export const fieldsCodec = list(
  struct({
    name: text({ min: 1, max: DEFAULTS.tagBytes }),
    kind: oneOf(FIELD_KINDS),
    value: text({ max: DEFAULTS.secretBytes }),
  }),
  { max: DEFAULTS.fields },
);

const recordCodec = struct({ v: uint(1, 1), value: bytes({ max: DEFAULTS.secretBytes }), fields: fieldsCodec });

/** A secret with fields as it is sealed (docs/protocol.md §5.3). Wipe the result. @throws Fault bad_input, too_large */
export function encodeRecord({ value, fields }: Content): Uint8Array {
  checkFields(fields);
  const record = new TextEncoder().encode(encodeJson(recordCodec, { v: 1, value, fields }));
  if (record.length <= DEFAULTS.secretBytes) return record;
  wipe(record);
  throw new Fault("too_large", `a secret has at most ${DEFAULTS.secretBytes} bytes with its fields`, {
    hint: "keep the large part as a secret of type file",
  });
}

/** Inverse of {@link encodeRecord}. @throws Fault integrity */
export function decodeRecord(record: Uint8Array): Content {
  try {
    const { value, fields } = decodeJson(recordCodec, record);
    checkFields(fields);
    return { value, fields: fields as readonly Field[] };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("integrity", "a decrypted secret is not the record that it must be");
  }
}

/** Parts of one file; the last one may be shorter. */
const FILE_PARTS_MAX = 512;
const ID_BYTES = 16;

const partsCodec = struct({
  v: uint(1, 1),
  size: uint(DEFAULTS.fileBytes, 1),
  sha256: bytes({ length: 32 }),
  parts: bytes({ min: ID_BYTES, max: FILE_PARTS_MAX * ID_BYTES }),
  fields: fieldsCodec,
});

/** What is sealed in place of a file that is kept in parts (docs/protocol.md §5.11). @throws Fault bad_input, too_large */
export function encodeFile({ size, sha256, parts }: FileParts, fields: readonly Field[]): Uint8Array {
  checkFields(fields);
  const ids = concat(...parts.map(idBytes));
  const record = new TextEncoder().encode(encodeJson(partsCodec, { v: 1, size, sha256, parts: ids, fields }));
  if (record.length <= DEFAULTS.secretBytes) return record;
  throw new Fault("too_large", "the fields of a file are too long");
}

/** Inverse of {@link encodeFile}. @throws Fault integrity */
export function decodeFile(record: Uint8Array): Content {
  try {
    const { size, sha256, parts: ids, fields } = decodeJson(partsCodec, record);
    checkFields(fields);
    const count = ids.length / ID_BYTES;
    if (!Number.isInteger(count)) throw new Fault("bad_input", "half an id");
    const parts = Array.from({ length: count }, (_, i) => ids.subarray(i * ID_BYTES, (i + 1) * ID_BYTES).toHex());
    if (new Set(parts).size !== count) throw new Fault("bad_input", "a part stands twice");
    const file = { size, sha256, parts: parts as KeyId[] };
    return { value: new Uint8Array(0), fields: fields as readonly Field[], file };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("integrity", "a decrypted file is not the list of parts that it must be");
  }
}
