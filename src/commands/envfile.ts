import { Fault } from "../errors.ts";
import { readSecretFile } from "../ui/password.ts";

/** Largest env file in bytes. */
const ENV_FILE_MAX_BYTES = 1_048_576;

const HEAD = /^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(["'`]?)/;
/** What may follow a closing quote. */
const TAIL = /^[ \t]*(?:#.*)?$/;

/** One assignment of an env file. */
export interface Assignment {
  readonly name: string;
  readonly value: string;
  /** Counted from 1. */
  readonly line: number;
}

/** Reads an env file as {@link parseEnv} does. @throws Fault not_found, denied, bad_input, too_large */
export async function readEnvFile(path: string): Promise<readonly Assignment[]> {
  const bytes = readSecretFile(path, ENV_FILE_MAX_BYTES + 1, "accept");
  if (bytes.length > ENV_FILE_MAX_BYTES) {
    throw new Fault("too_large", `an env file has at most ${ENV_FILE_MAX_BYTES} bytes`, { hint: "split it" });
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Fault("bad_input", `${JSON.stringify(path)} is not UTF-8 text`);
  }
  return await parseEnv(text, path);
}

/**
 * Reads lines `NAME=VALUE` in the syntax of the dotenv package: quotes, values of several lines, `export`, comments.
 * Nothing is expanded or run. What is neither an assignment, a comment nor empty is refused.
 *
 * @param file Its name, for messages, which name a line by its number alone.
 * @throws Fault bad_input
 */
export async function parseEnv(text: string, file: string): Promise<readonly Assignment[]> {
  const { default: dotenv } = await import("dotenv");
  const lines = text.replace(/^\ufeff/, "").split(/\r\n?|\n/);
  const found: Assignment[] = [];
  for (let at = 0; at < lines.length; at++) {
    const first = lines[at] ?? "";
    if (/^\s*(?:#.*)?$/.test(first)) continue;
    const line = at + 1;
    const bad = (why: string) =>
      new Fault("bad_input", `line ${line} of ${JSON.stringify(file)} is not NAME=VALUE`, {
        why,
        hint: "one NAME=VALUE on a line; quote values of several lines",
      });
    const [head, name = "", quote = ""] = HEAD.exec(first) ?? [];
    if (head === undefined) throw bad("a name has letters, digits and _, and = after it");
    let statement = first;
    if (quote !== "") {
      const last = closingLine(lines, at, head.length, quote);
      if (last === null) throw bad(`the quote ${quote} is not closed, or something follows it`);
      statement = lines.slice(at, last + 1).join("\n");
      at = last;
    }
    const parsed = dotenv.parse(statement);
    const bare = quote === "" ? bareReference(first.slice(head.length)) : undefined;
    const value = bare ?? (Object.hasOwn(parsed, name) ? parsed[name] : undefined);
    if (value === undefined || name === "__proto__") throw bad("it cannot be read");
    if (value.includes("\0")) throw bad("it holds a zero byte");
    found.push({ name, value, line });
  }
  return found;
}

/** A reference without quotes: dotenv would take its #FIELD for a comment. A comment after it stands apart. */
function bareReference(rest: string): string | undefined {
  return /^(kh:\/\/\S*)[ \t]*(?:[ \t]#.*)?$/.exec(rest)?.[1];
}

/** The line on which a quoted value ends, with nothing but a comment after it; null if there is none. */
function closingLine(lines: readonly string[], start: number, from: number, quote: string): number | null {
  for (let at = start; at < lines.length; at++) {
    const text = lines[at] ?? "";
    for (let i = at === start ? from : 0; i < text.length; i++) {
      if (text[i] === "\\" && text[i + 1] === quote) i++;
      else if (text[i] === quote) return TAIL.test(text.slice(i + 1)) ? at : null;
    }
  }
  return null;
}
