import { Fault } from "../errors.ts";

/** First millisecond since 1970 that has no form in RFC 3339. */
export const YEAR_10000_MS = 253_402_300_800_000;

/** Milliseconds since 1970 of a time before the year 10000. @throws Fault bad_input */
export function timeMs(time: string, what = "creation"): number {
  const at = Date.parse(time);
  if (Number.isSafeInteger(at) && at >= 0 && at < YEAR_10000_MS) return at;
  throw new Fault("bad_input", `the time of ${what} is no time`, { hint: "write it as 2027-01-31" });
}

/** Milliseconds since 1970 of a time of expiry, null for none. @throws Fault bad_input */
export function expiryMs(expiresAt: string | null): number | null {
  return expiresAt === null ? null : timeMs(expiresAt, "expiry");
}
