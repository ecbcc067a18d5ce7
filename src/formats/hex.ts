import { VISIBLE_TYPES } from "../protocol/secrettype.ts";
import {
  boundedValue,
  FILE_BYTES,
  type Format,
  onlyItem,
  singleName,
  unreadable,
  utf8Bytes,
  utf8Text,
} from "./item.ts";

/** Hexadecimal digits in pairs, either case, white space at the end allowed; lower case and a newline are written. */
export const hex: Format = {
  name: "hex",
  kind: "single",
  binary: false,
  types: VISIBLE_TYPES,
  keeps: [],
  sniff: () => false,
  read: (bytes, options) => {
    const name = singleName("hex", options.name);
    if (bytes.length > FILE_BYTES.single) throw unreadable("hex", "it is too long for one secret");
    const text = (utf8Text(bytes) ?? "?").trimEnd();
    if (!/^[0-9A-Fa-f]*$/.test(text)) throw unreadable("hex", "it holds something other than hexadecimal digits");
    if (text.length % 2 !== 0) throw unreadable("hex", "the number of digits is odd");
    const value = boundedValue("hex", Uint8Array.fromHex(text));
    return { items: [{ name, type: "bytes", value, tags: [], createdAt: null }], lost: [] };
  },
  write: (items) => utf8Bytes(`${onlyItem(hex, items).value.toHex()}\n`),
};
