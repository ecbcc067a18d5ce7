import type { ForeignFormat } from "./foreign.ts";
import { utf8Text } from "./item.ts";
import { otpOf, sameOtp } from "./same.ts";

/** The text of Google Authenticator's export codes, one `otpauth-migration://` URI a line (docs/formats.md). */
export const otpauthMigration: ForeignFormat = {
  name: "otpauth-migration",
  kind: "many",
  binary: false,
  encrypted: false,
  types: ["totp", "hotp", "login"],
  keeps: [],
  sniff: (start) => /^(?:\ufeff)?\s*otpauth-migration:\/\//i.test(utf8Text(start.subarray(0, 64)) ?? ""),
  read: async (source) => {
    const { readMigration } = await import("./otpbatches.ts");
    return readMigration(source);
  },
  write: async (items) => {
    const { writeMigration } = await import("./otpbatches.ts");
    return writeMigration(items);
  },
  same: (written, read) => {
    const [before, after] = [otpOf(written), otpOf(read)];
    return before !== null && after !== null && sameOtp(before, after);
  },
};
