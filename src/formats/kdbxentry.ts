import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { base32Key } from "../protocol/otp.ts";
import { field, type Gathering, isoTime } from "./gathering.ts";
import { otpField, totpUri } from "./otpfield.ts";

/** A group of a database; names and identifiers come before or after what it holds. */
export interface KdbxGroup {
  id: string;
  name: string;
  readonly parent: KdbxGroup | null;
}

/** An entry as it stands in the XML. */
export interface KdbxEntry {
  id: string;
  readonly group: KdbxGroup | null;
  readonly strings: { readonly key: string; readonly value: string; readonly isHidden: boolean }[];
  /** Attachments: bytes, or the number of one that the database holds. */
  readonly binaries: { readonly name: string; readonly content: string | Uint8Array }[];
  tags: string;
  created: string;
  expires: boolean;
  expiry: string;
  /** How many former versions it has. */
  former: number;
}

/** What entries refer to. */
export interface Lookup {
  entry(id: string): KdbxEntry | null;
  binary(ref: string): Uint8Array | null;
}

/** Adds an entry and its attachments. @throws Fault bad_input, too_large */
export function addEntry(gathering: Gathering, entry: KdbxEntry, lookup: Lookup): void {
  const lost: string[] = [];
  const strings = new Map<string, { value: string; isHidden: boolean }>();
  for (const { key, value, isHidden } of entry.strings) {
    strings.set(key, { value: resolved(value, lookup, lost), isHidden });
  }
  const take = (key: string): string => {
    const value = strings.get(key)?.value ?? "";
    strings.delete(key);
    return value;
  };
  const title = take("Title");
  const password = take("Password");
  const notes = take("Notes");
  const user = field("user", "text", take("UserName"));
  const urls = [field("url", "url", take("URL"))];
  for (const [key] of [...strings]) if (/^KP2A_URL(?:_\d+)?$/.test(key)) urls.push(field("url", "url", take(key)));
  const otps = otpFields(strings, take, title || "one-time password");
  const custom = [...strings].map(([key, { value, isHidden }]) => field(key, isHidden ? "hidden" : "text", value));
  const others = [user, ...urls, ...otps, ...custom].filter(({ value }) => value !== "");
  const isNote = password === "" && others.length === 0 && notes !== "";
  const path = [...groupPath(entry.group), title];
  if (!isNote && password === "" && others.length === 0 && notes === "" && entry.binaries.length > 0) {
    addBinaries(gathering, entry, path, lookup, []);
    return;
  }
  const tags = entry.tags.split(/[;,]/);
  const name = gathering.add({
    path,
    type: isNote ? "note" : "login",
    value: isNote ? notes : password,
    fields: isNote ? [] : [...others, field("notes", "text", notes)],
    tags,
    createdAt: kdbxTime(entry.created),
    expiresAt: entry.expires ? kdbxTime(entry.expiry) : null,
  });
  if (entry.former > 0) lost.push(`${entry.former} former versions`);
  for (const what of lost) gathering.lose(name, what);
  addBinaries(gathering, entry, [name], lookup, tags);
}

function addBinaries(
  gathering: Gathering,
  entry: KdbxEntry,
  place: readonly string[],
  lookup: Lookup,
  tags: readonly string[],
): void {
  for (const { name, content } of entry.binaries) {
    const bytes = typeof content === "string" ? lookup.binary(content) : content;
    const where = place.filter((part) => part !== "").join("/");
    if (!bytes) gathering.lose(where, "an attachment that the database does not hold");
    else if (bytes.length > DEFAULTS.fileBytes) gathering.lose(where, "an attachment of more than 16 MiB");
    else {
      const path = [...place, name.replaceAll("/", "-") || "attachment"];
      gathering.add({ path, type: "file", value: bytes.slice(), tags, createdAt: kdbxTime(entry.created) });
    }
  }
}

/** Groups from the one below the root, whose name is the database's own. */
function groupPath(group: KdbxGroup | null): readonly string[] {
  const path: string[] = [];
  for (let at = group; at?.parent; at = at.parent) path.unshift(at.name);
  return path;
}

const REFERENCE = /^\{REF:([TUPAN])@I:([0-9A-Fa-f]{32})\}$/;
const REFERRED: Readonly<Record<string, string>> = { T: "Title", U: "UserName", P: "Password", A: "URL", N: "Notes" };

/**
 * A value that is one reference to a field of another entry as what that holds; others stay as they are written,
 * which is named: put together, references could make any text grow without end.
 */
function resolved(value: string, lookup: Lookup, lost: string[]): string {
  let text = value;
  for (let steps = 0; steps < 8; steps++) {
    const [, what = "", id = ""] = REFERENCE.exec(text) ?? [];
    const key = REFERRED[what.toUpperCase()];
    const target = lookup.entry(Buffer.from(id, "hex").toString("base64"));
    const found = target?.strings.find((one) => one.key === key);
    if (!found) break;
    text = found.value;
  }
  if (/\{REF:/i.test(text)) lost.push("a reference to another entry, kept as it is written");
  return text;
}

/** Seconds since the year 1 in base64 (version 4), or ISO 8601 (version 3). */
function kdbxTime(text: string): string | null {
  if (text.includes(":")) return isoTime(text);
  const bytes = Buffer.from(text, "base64");
  if (bytes.length !== 8) return null;
  const seconds = bytes.readBigUInt64LE() - 62_135_596_800n;
  return seconds < 0n || seconds > 253_402_300_799n ? null : isoTime(Number(seconds) * 1_000);
}

type Strings = ReadonlyMap<string, { readonly value: string }>;

/** One-time passwords as KeePassXC, KeePass 2.47 and the plug-ins TrayTotp and KeeOtp keep them. */
function otpFields(strings: Strings, take: (key: string) => string, label: string): Field[] {
  const fields: Field[] = [];
  const otp = take("otp");
  if (otp !== "") fields.push(keeOtp(otp, label));
  const seed = take("TOTP Seed");
  if (seed !== "") {
    const [, period, digits] = /^(\d{1,5});(\d{1,2})$/.exec(take("TOTP Settings")) ?? [];
    fields.push(timed(() => base32Key(seed), { label, period, digits, algorithm: undefined }, seed));
  }
  const found = SECRETS.find(({ key }) => strings.has(key));
  if (found) {
    const secret = take(found.key);
    const period = take("TimeOtp-Period") || undefined;
    const digits = take("TimeOtp-Length") || undefined;
    const algorithm = take("TimeOtp-Algorithm") || undefined;
    fields.push(timed(() => found.decode(secret), { label, period, digits, algorithm }, secret));
  }
  return fields;
}

const SECRETS: readonly { readonly key: string; decode(text: string): Uint8Array }[] = [
  { key: "TimeOtp-Secret-Base32", decode: base32Key },
  { key: "TimeOtp-Secret-Base64", decode: (text) => Uint8Array.fromBase64(text) },
  { key: "TimeOtp-Secret-Hex", decode: (text) => Uint8Array.fromHex(text) },
  { key: "TimeOtp-Secret", decode: (text) => new TextEncoder().encode(text) },
];

/** `otpauth://…`, a bare key, or `key=…&step=…&size=…` of the plug-in KeeOtp. */
function keeOtp(text: string, label: string): Field {
  if (!/^key=/i.test(text)) return otpField(text, label);
  const given = new URLSearchParams(text);
  const period = given.get("step") ?? undefined;
  const digits = given.get("size") ?? undefined;
  const algorithm = given.get("otpHashMode") ?? undefined;
  return timed(() => base32Key(given.get("key") ?? ""), { label, period, digits, algorithm }, text);
}

function timed(
  key: () => Uint8Array,
  given: { label: string; period: string | undefined; digits: string | undefined; algorithm: string | undefined },
  original: string,
): Field {
  const algorithm = { "1": "SHA1", "256": "SHA256", "512": "SHA512" } as const;
  const size = /(1|256|512)$/.exec(given.algorithm ?? "1")?.[1];
  try {
    const value = totpUri({
      key: key(),
      label: given.label,
      period: Number(given.period ?? 30),
      digits: Number(given.digits ?? 6),
      algorithm: algorithm[size === "256" || size === "512" ? size : "1"],
    });
    return { name: "otp", kind: "otp", value };
  } catch (error) {
    if (!(error instanceof Fault) && !(error instanceof SyntaxError)) throw error;
    return { name: "otp-secret", kind: "hidden", value: original };
  }
}
