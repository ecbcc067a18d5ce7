import { Fault } from "../errors.ts";

/** Milliseconds since 1970 of a time of expiry, null for none. @throws Fault bad_input */
export function expiryMs(expiresAt: string | null): number | null {
  if (expiresAt === null) return null;
  const at = Date.parse(expiresAt);
  if (Number.isSafeInteger(at) && at >= 0) return at;
  throw new Fault("bad_input", "the time of expiry is no time", { hint: "write it as 2027-01-31" });
}
