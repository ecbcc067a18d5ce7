import type { Field } from "../protocol/content.ts";
import { VISIBLE_TYPES } from "../protocol/secrettype.ts";
import type { ForeignFormat, PlainItem } from "./foreign.ts";
import { utf8Text } from "./item.ts";
import { sameFields, sameOtp, sameTime } from "./same.ts";

/** How both forms begin; Bitwarden writes `encrypted` first. */
const START =
  /^\ufeff?\s*\{\s*"encrypted"\s*:\s*(?:true|false)\s*,\s*"(?:folders|collections|items|passwordProtected|encKeyValidation_DO_NOT_EDIT)"\s*:/;

/** Bitwarden's JSON export (docs/formats.md): reads the plain and the password-protected form, writes the plain one. */
export const bitwarden: ForeignFormat = {
  name: "bitwarden",
  kind: "many",
  binary: false,
  encrypted: false,
  types: VISIBLE_TYPES.filter((type) => type !== "file"),
  keeps: ["name", "createdAt"],
  same: sameInBitwarden,
  sniff: (start) => START.test(utf8Text(start.subarray(0, 256).filter((byte) => byte < 0x80)) ?? ""),
  read: async (source, { asks }) => {
    const { readBitwarden } = await import("./bitwardenread.ts");
    return readBitwarden(source, asks);
  },
  write: async (items) => {
    const { writeBitwarden } = await import("./bitwardenwrite.ts");
    return writeBitwarden(items);
  },
};

/** The same format, which writes the password-protected form. */
export const bitwardenProtected: ForeignFormat = {
  ...bitwarden,
  encrypted: true,
  write: async (items, { asks }) => {
    const { writeBitwarden } = await import("./bitwardenwrite.ts");
    const { protect } = await import("./bitwardencrypt.ts");
    const plain = writeBitwarden(items);
    try {
      return { file: await protect(plain.file, asks), lost: plain.lost };
    } finally {
      plain.file.fill(0);
    }
  },
};

/** Compares what Bitwarden has a place for: kinds of fields are text or hidden, and other types logins or notes. */
function sameInBitwarden(written: PlainItem, read: PlainItem): boolean {
  if (written.name !== read.name || !sameTime(written.createdAt, read.createdAt)) return false;
  const before = Buffer.from(written.value);
  const after = Buffer.from(read.value);
  const facts = ({ name, value }: Field) => [name, value];
  if (written.type === "totp" || written.type === "hotp") {
    const otp = (read.fields ?? []).find(({ kind }) => kind === "otp");
    const rest = (read.fields ?? []).filter((field) => field !== otp);
    // what is no URI as Bitwarden takes it stands in the notes
    const same = otp === undefined ? before.equals(after) : sameOtp(otp.value, before.toString());
    return same && sameFields(written.fields ?? [], rest, facts);
  }
  if (!sameFields(written.fields ?? [], read.fields ?? [], facts)) return false;
  if (before.equals(after)) return true;
  return read.type === "note" && before.equals(Buffer.from(after.toString(), "base64"));
}
