import { VISIBLE_TYPES } from "../protocol/secrettype.ts";
import { boundedValue, type Format, onlyItem, singleName, utf8Text } from "./item.ts";

/** The bytes themselves: read as a `note` where they are UTF-8, else as `bytes`. */
export const raw: Format = {
  name: "raw",
  kind: "single",
  binary: true,
  types: VISIBLE_TYPES,
  keeps: [],
  sniff: () => false,
  read: (bytes, options) => {
    const name = singleName("raw", options.name);
    const value = boundedValue("raw", bytes).slice();
    const type = utf8Text(value) === null ? "bytes" : "note";
    return { items: [{ name, type, value, tags: [], createdAt: null }], lost: [] };
  },
  write: (items) => onlyItem(raw, items).value.slice(),
};
