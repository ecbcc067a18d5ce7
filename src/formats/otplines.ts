import { Fault } from "../errors.ts";
import { parseOtpUri } from "../protocol/otp.ts";
import type { PlainItem, Written } from "./foreign.ts";
import { FOREIGN, fileText, gather, tooMany } from "./gathering.ts";
import { type ReadResult, unreadable, utf8Bytes, utf8Text } from "./item.ts";

/** Longest line that is looked at. */
const LINE_MAX = 16_384;

/** The lines of a file that hold something. @throws Fault bad_input, too_large */
export function otpLines(format: string, source: Uint8Array | string): readonly string[] {
  const text = fileText(format, source);
  const lines: string[] = [];
  for (let at = 0; at <= text.length; ) {
    const end = text.indexOf("\n", at);
    const line = text.slice(at, end < 0 ? text.length : end).trim();
    at = end < 0 ? text.length + 1 : end + 1;
    if (line === "") continue;
    if (line.length > LINE_MAX) throw unreadable(format, "a line is too long");
    if (lines.push(line) > FOREIGN.items) throw tooMany(format);
  }
  if (lines.length === 0) throw unreadable(format, "it is empty");
  return lines;
}

/** Folder and title of a key: its issuer, and its account, of which the issuer may be the beginning. */
export function otpPath(issuer: string, label: string): readonly string[] {
  const bare = label.startsWith(`${issuer}:`) ? label.slice(issuer.length + 1).trim() : label;
  return [issuer, bare === "" && issuer === "" ? "one-time password" : bare];
}

/** Reads otpauth:// lines; the value of an item is its line. @throws Fault bad_input, too_large */
export function readOtpauth(source: Uint8Array | string): Promise<ReadResult> {
  const lines = otpLines("otpauth", source);
  return gather("otpauth", (gathering) => {
    for (const [index, line] of lines.entries()) {
      const { kind, issuer, label } = parsed(line, `line ${index + 1}`);
      const value = line.replace(/^otpauth:\/\/[th]otp\//i, `otpauth://${kind}/`);
      gathering.add({ path: otpPath(issuer, label), type: kind, value });
    }
  });
}

function parsed(uri: string, where: string) {
  try {
    const key = parseOtpUri(uri);
    key.secret.fill(0);
    return key;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw unreadable("otpauth", `${where} is no usable otpauth:// URI`);
  }
}

/** The URIs of items: values of one-time passwords, and the field `otp` of others. @throws Fault bad_input */
export function otpUris(
  format: string,
  items: readonly PlainItem[],
): { uris: readonly { name: string; uri: string }[]; lost: { what: string }[] } {
  const lost: { what: string }[] = [];
  const uris = items.map(({ name, type, value, fields = [] }) => {
    const otp = fields.find(({ kind }) => kind === "otp");
    const own = type === "totp" || type === "hotp";
    const uri = own ? utf8Text(value) : (otp?.value ?? null);
    if (uri === null) {
      throw new Fault("bad_input", `cannot write "${name}" as ${format}: it has no one-time password`, {
        hint: "--skip-unsupported leaves it out",
      });
    }
    if (!own) lost.push({ what: `"${name}": all but its one-time password` });
    else if (fields.length > 0) lost.push({ what: `"${name}": its fields` });
    return { name, uri };
  });
  return { uris, lost };
}

/** Writes one URI a line. @throws Fault bad_input */
export function writeOtpauth(items: readonly PlainItem[]): Written {
  const { uris, lost } = otpUris("otpauth", items);
  for (const { name, uri } of uris) {
    if (/\s/.test(uri) || uri.length > LINE_MAX) throw unwritable(name);
    try {
      parseOtpUri(uri).secret.fill(0);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      throw unwritable(name);
    }
  }
  return { file: utf8Bytes(uris.map(({ uri }) => `${uri}\n`).join("")), lost };
}

function unwritable(name: string): Fault {
  return new Fault("bad_input", `cannot write "${name}" as otpauth: its value is no otpauth:// URI`);
}
