import type { ForeignFormat } from "./foreign.ts";
import { utf8Text } from "./item.ts";
import { otpOf, sameOtp } from "./same.ts";

/** One otpauth:// URI a line, as authenticator programs export them (docs/formats.md). */
export const otpauth: ForeignFormat = {
  name: "otpauth",
  kind: "many",
  binary: false,
  encrypted: false,
  types: ["totp", "hotp", "login"],
  keeps: [],
  sniff: (start) => /^(?:\ufeff)?\s*otpauth:\/\/[th]otp\//i.test(utf8Text(start.subarray(0, 64)) ?? ""),
  read: async (source) => {
    const { readOtpauth } = await import("./otplines.ts");
    return readOtpauth(source);
  },
  write: async (items) => {
    const { writeOtpauth } = await import("./otplines.ts");
    return writeOtpauth(items);
  },
  same: (written, read) => {
    const [before, after] = [otpOf(written), otpOf(read)];
    return before !== null && after !== null && sameOtp(before, after);
  },
};
