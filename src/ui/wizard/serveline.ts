import { Fault } from "../../errors.ts";
import { parseServerUrl } from "../../wire/http.ts";
import { parsePin } from "../../wire/pin.ts";

/** What the line that `keyhold serve` prints says; what it leaves open is null. */
export interface ServeLine {
  readonly server: string;
  readonly pin: string;
  readonly account: string | null;
  readonly invite: string | null;
}

/** Why a text is no such line, as a sentence for the one who pasted it. */
export interface NoServeLine {
  readonly problem: string;
}

const MAX_CHARACTERS = 8_192;
/** More line ends than this are not tried out as breaks inside a word. */
const MAX_BREAKS = 8;
const FLAGS = ["server", "pin", "account", "invite", "tls-ca", "profile"] as const;
/** What stands where a name and a code go. */
const PLACEHOLDERS: ReadonlySet<string> = new Set(["NAME", "CODE"]);

/**
 * Reads the line that `keyhold serve` prints (`keyhold register --server … --pin … --account …`), alone or with all that
 * is printed around it, quoted, wrapped by a terminal, or as the JSON that `serve --json` prints. Never throws.
 */
export function parseServeLine(pasted: string): ServeLine | NoServeLine {
  if (pasted.length > MAX_CHARACTERS) return { problem: "this is far too long for the line that serve prints" };
  const text = cleaned(pasted);
  if (text.trim() === "") return { problem: "nothing was pasted" };
  const json = fromJson(text);
  if (json) return json;
  let first: NoServeLine | undefined;
  for (const candidate of candidates(commandIn(text))) {
    const read = readWords(candidate);
    if (!("problem" in read)) return read;
    first ??= read;
  }
  return first ?? { problem: "this is not the line that serve prints" };
}

/** Without colours, prompts, typographic quotes and the other things that come along when text is copied. */
function cleaned(text: string): string {
  return text
    .replace(/\u001b\[[0-9;?]*[A-Za-z~]/g, "")
    .replace(/[\u200b-\u200d\u2060\ufeff]/g, "")
    .replace(/[“”„«»‘’‚`]/g, '"')
    .replace(/[–—](?=(server|pin|account|invite)\b)/g, "--")
    .replace(/\u00a0/g, " ")
    .replace(/\r\n?/g, "\n");
}

/** The command in what was copied: from `keyhold register`, or the first flag, to the next empty line. */
function commandIn(text: string): string {
  const starts = [...text.matchAll(/keyhold(?:\.exe)?["']?\s+register\b/g)];
  // the last one: what was pasted before may have been wrong
  const at = starts.at(-1)?.index ?? text.search(/--(?:server|pin)/);
  const from = at < 0 ? text : text.slice(at);
  return from.replace(/\n[ \t]*\n[\s\S]*$/, "").replace(/\\\n/g, "\n");
}

/** The text with each line end as a space or as nothing, and with flags that a lost line end glued to their neighbour. */
function candidates(text: string): readonly string[] {
  const parts = text.trim().split(/[ \t]*\n[ \t>|│]*/);
  const breaks = parts.length - 1;
  const joined =
    breaks > MAX_BREAKS
      ? [parts.join(" "), parts.join("")]
      : Array.from({ length: 2 ** breaks }, (_, bits) =>
          parts.reduce((all, part, i) => `${all}${((bits >> (i - 1)) & 1) === 0 ? " " : ""}${part}`),
        );
  const glued = new RegExp(`--(${FLAGS.join("|")})[= ]?`, "g");
  return [...new Set([...joined, ...joined.map((one) => one.replace(glued, " --$1 "))])];
}

/** Words as a shell splits them; null for a quote without its partner. */
function words(line: string): readonly string[] | null {
  const out: string[] = [];
  const token = /\s+|((?:"[^"]*"|'[^']*'|\\.|[^\s"'\\])+)|(.)/g;
  for (const [, word, stray] of line.matchAll(token)) {
    if (stray !== undefined) return null;
    if (word !== undefined) out.push(word.replace(/"([^"]*)"|'([^']*)'|\\(.)/g, "$1$2$3"));
  }
  return out;
}

function readWords(line: string): ServeLine | NoServeLine {
  const all = words(line) ?? words(line.replace(/["']/g, ""));
  if (!all) return { problem: "its quotes do not fit" };
  const found = new Map<string, string>();
  const start = all.indexOf("register");
  for (let at = start + 1; at < all.length; at++) {
    const [, name = "", inline] = /^--([a-z-]+)(?:=(.*))?$/.exec(all[at] ?? "") ?? [];
    if (!FLAGS.some((flag) => flag === name)) {
      const bare = bareUrl(all[at] ?? "");
      if (bare && found.size === 0) return { problem: "this is an address: the whole line with --pin is needed, too" };
      return {
        problem: found.size === 0 ? "it has no --server and no --pin" : "it holds more than the line that serve prints",
      };
    }
    const value = inline ?? all[++at];
    if (value === undefined || value === "") return { problem: `nothing follows --${name}: the line is cut short` };
    if (found.has(name)) return { problem: `it has --${name} twice` };
    found.set(name, value);
  }
  return check(found);
}

const bareUrl = (word: string): boolean => /^https?:\/\//.test(word);

function check(found: ReadonlyMap<string, string>): ServeLine | NoServeLine {
  const server = found.get("server");
  const pin = found.get("pin");
  if (server === undefined || pin === undefined) {
    const missing = [server === undefined ? "--server" : "", pin === undefined ? "--pin" : ""];
    return { problem: `it has no ${missing.filter((name) => name !== "").join(" and no ")}` };
  }
  const problem = problemOfUrl(server) ?? problemOfPin(pin);
  if (problem !== null) return { problem };
  const given = (name: string) => {
    const value = found.get(name);
    return value === undefined || PLACEHOLDERS.has(value) ? null : value;
  };
  return { server, pin, account: given("account"), invite: given("invite") };
}

/** What is wrong with a server's URL, or null. */
export function problemOfUrl(text: string): string | null {
  try {
    parseServerUrl(text);
    return null;
  } catch (error) {
    return error instanceof Fault ? error.message : "the URL cannot be read";
  }
}

/** What is wrong with a server's pin, or null. */
export function problemOfPin(text: string): string | null {
  const body = /^sha256:([A-Za-z0-9_-]*)$/.exec(text)?.[1];
  if (body !== undefined && body.length < 43) return `the pin is cut short: ${body.length} of 43 characters`;
  try {
    parsePin(text);
    return null;
  } catch (error) {
    return error instanceof Fault ? error.message : "the pin cannot be read";
  }
}

/** What `serve --json` prints. */
function fromJson(text: string): ServeLine | null {
  try {
    const ready = (JSON.parse(text) as { ready?: Record<string, unknown> } | null)?.ready;
    const [url, pin, invite] = [ready?.["url"], ready?.["pin"], ready?.["invite"]];
    if (typeof url !== "string" || typeof pin !== "string") return null;
    if (problemOfUrl(url) !== null || problemOfPin(pin) !== null) return null;
    return { server: url, pin, account: null, invite: typeof invite === "string" ? invite : null };
  } catch {
    return null;
  }
}
