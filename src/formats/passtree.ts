import { lstatSync, readdirSync } from "node:fs";
import type { ForeignFormat } from "./foreign.ts";

/** The directory of pass, gopass or passage, with files encrypted by gpg or age (docs/formats.md). */
export const passTree: ForeignFormat = {
  name: "pass",
  kind: "tree",
  binary: true,
  encrypted: true,
  types: [],
  keeps: [],
  sniff: (_, path) => {
    try {
      if (!lstatSync(path).isDirectory()) return false;
      const names = readdirSync(path);
      return names.some((name) => /^\.(?:gpg-id|age-recipients)$|[^.].*\.(?:gpg|age)$/.test(name));
    } catch {
      return false;
    }
  },
  read: async (source, { asks }) => {
    const { readPassTree } = await import("./passread.ts");
    return readPassTree(source, asks);
  },
};
