import type { ForeignFormat } from "./foreign.ts";

/** The two signatures of KDBX files, of version 3 and 4. */
const SIGNATURE = [0x03, 0xd9, 0xa2, 0x9a, 0x67, 0xfb, 0x4b, 0xb5];

/** KeePass databases of versions 3.1 and 4 (docs/formats.md). */
export const kdbx: ForeignFormat = {
  name: "kdbx",
  kind: "many",
  binary: true,
  encrypted: true,
  types: [],
  keeps: [],
  sniff: (start) => SIGNATURE.every((byte, i) => start[i] === byte),
  read: async (source, { asks }) => {
    const { readKdbx } = await import("./kdbxread.ts");
    return readKdbx(source, asks);
  },
};
