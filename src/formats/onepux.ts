import type { ForeignFormat } from "./foreign.ts";

/** 1Password's export, a zip archive with a JSON document (docs/formats.md). */
export const onePux: ForeignFormat = {
  name: "1pux",
  kind: "many",
  binary: true,
  encrypted: false,
  types: [],
  keeps: [],
  sniff: (start, path) => {
    const isZip = start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4;
    return isZip && (/\.1pux$/i.test(path) || firstName(start) === "export.attributes");
  },
  read: async (source) => {
    const { readOnePux } = await import("./onepuxread.ts");
    return readOnePux(source);
  },
};

/** The name of the first file in an archive (APPNOTE.TXT §4.3.7). */
function firstName(start: Uint8Array): string {
  if (start.length < 30) return "";
  const length = new DataView(start.buffer, start.byteOffset).getUint16(26, true);
  return new TextDecoder().decode(start.subarray(30, 30 + length));
}
