import { concat } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { VISIBLE_TYPES } from "../protocol/secrettype.ts";
import { type Format, onlyItem, singleName, unreadable } from "./item.ts";

/** One byte with the length, 1 to 255, then that many bytes and nothing more. */
export const len8: Format = {
  name: "len8",
  kind: "single",
  binary: true,
  types: VISIBLE_TYPES,
  keeps: [],
  sniff: () => false,
  read: (bytes, options) => {
    const name = singleName("len8", options.name);
    const length = bytes[0];
    if (length === undefined) throw unreadable("len8", "it is empty");
    if (length === 0) throw unreadable("len8", "it holds no value");
    if (bytes.length !== length + 1) {
      throw unreadable("len8", `its first byte promises ${length} bytes, ${bytes.length - 1} follow`);
    }
    return { items: [{ name, type: "bytes", value: bytes.slice(1), tags: [], createdAt: null }], lost: [] };
  },
  write: (items) => {
    const { value } = onlyItem(len8, items);
    if (value.length > 255) {
      throw new Fault("bad_input", "cannot write as len8: the value has more than 255 bytes", {
        hint: "use --to raw, base64 or json",
      });
    }
    return concat(Uint8Array.of(value.length), value);
  },
};
