import { VISIBLE_TYPES } from "../protocol/secrettype.ts";
import { firstHeader, isOwn, tableOf } from "./csvheaders.ts";
import type { ForeignFormat } from "./foreign.ts";
import { sameContent } from "./same.ts";

/**
 * Tables: those of browsers and password managers are recognised by their header, others are read with `--map`
 * (docs/formats.md).
 */
export const csv: ForeignFormat = {
  name: "csv",
  kind: "many",
  binary: false,
  encrypted: false,
  types: VISIBLE_TYPES,
  keeps: ["name", "type", "tags", "createdAt", "fields", "expiresAt"],
  sniff: (start) => {
    const header = firstHeader(new TextDecoder().decode(start.subarray(0, 4_096)));
    return isOwn(header) || tableOf(header) !== null;
  },
  same: sameContent,
  read: async (source, { map }) => {
    const { readCsv } = await import("./csvread.ts");
    return readCsv(source, map);
  },
  write: async (items) => {
    const { writeCsv } = await import("./csvwrite.ts");
    return writeCsv(items);
  },
};
