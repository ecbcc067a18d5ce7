import { Fault } from "../errors.ts";
import { utf8Bytes, utf8Text } from "./item.ts";

/** What git says and hears of a login (git-credential(1), "Input/output format"). */
export interface GitCredential {
  readonly protocol: string;
  /** With its port, where there is one. */
  readonly host: string;
  readonly path: string | null;
  readonly username: string | null;
  readonly password: string | null;
  /** Seconds since 1970. */
  readonly expiryS: number | null;
}

/** Largest description of a login, in bytes. */
export const GIT_INPUT_BYTES = 64 * 1_024;

/** The last second of the year 9999: later times cannot be written as RFC 3339. */
const EXPIRY_MAX_S = 253_402_300_799;

function unreadable(why: string): Fault {
  return new Fault("bad_input", "cannot read git's question", { why, hint: "git runs this command: see its help" });
}

/** Reads the lines `key=value` that git writes, up to an empty one; keys that are not known are passed over. @throws Fault bad_input */
export function readGitCredential(input: Uint8Array): GitCredential {
  if (input.length > GIT_INPUT_BYTES) throw unreadable("it is too long");
  const text = utf8Text(input);
  if (text === null || text.includes("\0") || text.includes("\r")) throw unreadable("it is not text in lines");
  const found = new Map<string, string>();
  for (const line of text.split("\n")) {
    if (line === "") break;
    const at = line.indexOf("=");
    if (at < 1) throw unreadable("a line is not key=value");
    const [key, value] = [line.slice(0, at), line.slice(at + 1)];
    if (key === "url") for (const [part, known] of ofUrl(value)) found.set(part, known);
    else if (!key.endsWith("[]")) found.set(key, value);
  }
  const expiry = found.get("password_expiry_utc");
  const [protocol = "", host = ""] = [found.get("protocol"), found.get("host")];
  if (protocol === "" || host === "") throw unreadable("it names no protocol and host");
  // a host that an address would read as something else than a host
  if (/[\s/\\?#@]/.test(host)) throw unreadable("its host is none");
  return {
    protocol: asciiLower(protocol),
    host: asciiLower(host),
    path: found.get("path") || null,
    username: found.get("username") || null,
    password: found.get("password") || null,
    expiryS:
      expiry !== undefined && /^\d{1,12}$/.test(expiry) && Number(expiry) <= EXPIRY_MAX_S ? Number(expiry) : null,
  };
}

/** Other capitals stay: `toLowerCase` would take the Kelvin sign for a k, and so one host for another. */
function asciiLower(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

function ofUrl(text: string): [string, string][] {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw unreadable("its url is none");
  }
  const path = url.pathname.replace(/^\//, "");
  const parts: [string, string][] = [
    ["protocol", url.protocol.replace(/:$/, "")],
    ["host", url.host],
  ];
  if (path !== "") parts.push(["path", path]);
  if (url.username !== "") parts.push(["username", decoded(url.username)]);
  return parts;
}

/**
 * The lines with which git is answered; the caller wipes them.
 *
 * @throws Fault bad_input for a name or password that has a line end, which git could not tell from its own
 */
export function writeGitCredential(given: Pick<GitCredential, "username" | "password" | "expiryS">): Uint8Array {
  const { username, password, expiryS } = given;
  const lines: string[] = [];
  for (const [key, value] of Object.entries({ username, password })) {
    if (value === null) continue;
    if (/[\n\r\0]/.test(value)) {
      throw new Fault("bad_input", `cannot hand this ${key} to git: it has a line end`, { hint: "keyhold edit NAME" });
    }
    lines.push(`${key}=${value}\n`);
  }
  if (expiryS !== null) lines.push(`password_expiry_utc=${expiryS}\n`);
  return utf8Bytes(lines.join(""));
}

/** Percent-encoding undone, as git undoes it; the text as it is where that is damaged. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A path that a server may take for another one. */
const CLIMBS = /(^|[/\\])(\.|%2e){1,2}($|[/\\])|%2f|%5c/i;

/**
 * How well a login's address fits what git asks for: -1 not at all; more for more of the path. Where git names no path,
 * an address without one fits better than one with.
 */
export function fitOf(address: string, asked: Pick<GitCredential, "protocol" | "host" | "path">): number {
  let url: URL;
  try {
    url = new URL(address.includes("://") ? address : `https://${address}`);
  } catch {
    return -1;
  }
  // a URL leaves the usual port out; git may name it
  const usual = ({ "http:": "80", "https:": "443" } as Record<string, string>)[url.protocol] ?? "";
  const hosts = url.port === "" ? [url.host, `${url.hostname}:${usual}`] : [url.host];
  if (url.protocol !== `${asked.protocol}:` || !hosts.includes(asked.host)) return -1;
  const path = decoded(url.pathname.replace(/^\/|\/$/g, ""));
  if (asked.path === null) return path === "" ? 1 : 0;
  if (path === "") return 0;
  if (CLIMBS.test(asked.path)) return -1;
  const wanted = asked.path.replace(/\/$/, "");
  return wanted === path || wanted === `${path}.git` || wanted.startsWith(`${path}/`) ? 1 + path.length : -1;
}
