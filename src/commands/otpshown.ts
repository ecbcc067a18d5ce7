import type { OtpEntryInfo, OtpRequester } from "../client/ceremonyapi.ts";
import { Fault } from "../errors.ts";
import { plain } from "../ui/text.ts";

export const ENTRY_DATA =
  "{keyId, name, version, kind, own, status, movedTo, counter, provisioned, ceremonyId, issuer, grants:[{grantId, to: {kind, name}, wants, perHour, until}]}";

/** The key that a command is about. */
export const OTP_KEY = {
  type: "positional",
  description: "its name, its id, or the start of the id",
  ask: "Key (keyhold otp entries)",
} as const;

/** Flags that name a server without a profile. */
export const SERVER_ARGS = {
  server: {
    type: "string",
    hint: "URL",
    description: "at this server, with --pin: with this device's key instead of an account",
  },
  pin: { type: "string", hint: "PIN", description: "pin of that server" },
} as const;

/** The server that was named, or null for the profile's. @throws Fault usage */
export function serverOf(args: { readonly server: string | null; readonly pin: string | null }) {
  const { server: url, pin } = args;
  if (url === null && pin === null) return null;
  if (url === null || pin === null) throw new Fault("usage", "--server URL and --pin PIN go together");
  if (!URL.canParse(url)) throw new Fault("usage", `--server takes a URL, not "${url}"`);
  if (!/^sha256:[A-Za-z0-9_-]{43}$/.test(pin)) throw new Fault("usage", "--pin takes a pin: sha256: and 43 characters");
  return { url, pin };
}

export const requesterText = ({ kind, name }: OtpRequester): string =>
  kind === "account" ? plain(name) : `device ${plain(name.slice(0, 16))}…`;

/** A key of the distribution server for people. */
export function entryLines(entry: OtpEntryInfo): string {
  const grants = entry.grants.map((grant) => {
    const limits = [
      ...(grant.perHour === null ? [] : [`${grant.perHour} an hour`]),
      ...(grant.until === null ? [] : [`until ${grant.until}`]),
    ];
    return `  ${grant.grantId.slice(0, 16)}  ${requesterText(grant.to)}: ${grant.wants.join(" and ")}${limits.length === 0 ? "" : `, ${limits.join(", ")}`}`;
  });
  const state = entry.movedTo === null ? entry.status : `moved to ${plain(entry.movedTo)}`;
  return [
    `${plain(entry.name)}  ${entry.kind}  version ${entry.version}  ${entry.keyId}  ${state}${entry.provisioned ? ", provisioned" : ""}`,
    ...(grants.length === 0 ? ["  nobody may ask for it yet: keyhold otp issue NAME --to ACCOUNT"] : grants),
  ].join("\n");
}
