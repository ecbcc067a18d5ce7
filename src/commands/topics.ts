import { errorTable, Fault } from "../errors.ts";
import { type Group, isGroup } from "../ui/command.ts";
import { SETTINGS, type SettingName, variableOf } from "../ui/config.ts";
import { type Result, result } from "../ui/output.ts";
import { table } from "../ui/table.ts";
import { textWidth, wrapped } from "../ui/wrap.ts";
import type { Topic } from "./topicnames.ts";

/** A topic as `keyhold help TOPIC` shows it, fitted to the terminal, with its table as data. */
export async function topic(root: Group, name: Topic): Promise<Result> {
  switch (name) {
    case "exit-codes":
      return exitCodes();
    case "formats":
      return await formats(root);
    case "environment":
      return environment();
    case "references":
      return prose(name, REFERENCES);
    case "passwords":
      return prose(name, PASSWORDS);
  }
}

const paged = (made: Result): Result => ({ ...made, paged: true });

function prose(name: Topic, text: string): Result {
  return paged(result({ topic: name, text }, (width) => wrapped(text, textWidth(width)).join("\n")));
}

/** Meaning of each exit code (docs/cli.md §1). */
const MEANINGS: Readonly<Record<number, string>> = {
  0: "done (a write: acknowledged by every place it was asked to reach)",
  1: "unexpected failure",
  2: "usage or bad input; input missing and no prompt possible",
  3: "not found",
  4: "not authenticated: wrong password, locked, no session, password needed and none given",
  5: "denied by policy or permission",
  6: "exists already, conflict, ambiguous name",
  7: "server unreachable, TLS or pin refused",
  8: "integrity failure: tampering, rollback, bad proof",
  9: "pending: waits for an approval or for other parties",
  10: "partly done: import with losses, write queued offline, federation degraded",
  11: "timed out",
  12: "rate limited",
  126: "run: the command cannot be executed",
  127: "run: there is no such command",
  130: "interrupted (128+n: ended by signal n)",
};

function exitCodes(): Result {
  const rows = Object.entries(MEANINGS).map(([exit, meaning]) => ({
    exit: Number(exit),
    meaning,
    codes: errorTable()
      .filter((row) => row.exit === Number(exit))
      .map((row) => row.code),
  }));
  return paged(
    result({ items: rows }, (width) =>
      rows
        .flatMap(({ exit, meaning, codes }) => {
          const [first = "", ...more] = wrapped(`      ${meaning}`, textWidth(width));
          const names = codes.length === 0 ? [] : wrapped(`      ${codes.join(", ")}`, textWidth(width));
          return [`${String(exit).padStart(4)}  ${first.trimStart()}`, ...more, ...names];
        })
        .join("\n"),
    ),
  );
}

/** What each format is (docs/formats.md). */
const FORMATS: Readonly<Record<string, string>> = {
  raw: "the bytes of one secret",
  hex: "one secret as hexadecimal digits",
  base64: "one secret as base64",
  len8: "one length byte, then the secret",
  json: "keyhold's own, with everything that a secret has",
  jwk: "one key, RFC 7517",
  jwks: "a set of keys, RFC 7517",
  pem: "one key, PKCS#8",
  openssh: "one key, as ssh-keygen writes it",
  age: "encrypted archive of the native JSON",
  bitwarden: "Bitwarden's JSON",
  "1pux": "1Password's export",
  kdbx: "KeePass 4 database",
  pass: "tree of pass or gopass",
  csv: "a browser's passwords, or any table by --map",
  dotenv: "lines of NAME=value",
  otpauth: "one-time password URIs",
  "otpauth-migration": "export of Google Authenticator, as a URI or QR code",
  bip39: "24 words",
};

async function formats(root: Group): Promise<Result> {
  const [reads, writes] = await Promise.all([options(root, "import", "from"), options(root, "export", "to")]);
  const items = [...new Set([...reads, ...writes])].map((format) => ({
    format,
    meaning: FORMATS[format] ?? "",
    imports: reads.includes(format),
    exports: writes.includes(format),
  }));
  const way = (one: (typeof items)[number]) => [one.imports && "in", one.exports && "out"].filter(Boolean).join(", ");
  return paged(
    result({ items }, (width) =>
      table(
        ["FORMAT", "WAY", "WHAT"],
        items.map((one) => [one.format, way(one), one.meaning]),
        width,
      ),
    ),
  );
}

/** The choices of a flag of a command. */
async function options(root: Group, name: string, flag: string): Promise<readonly string[]> {
  const node = root.commands[name];
  if (node === undefined || isGroup(node)) throw new Fault("internal", `there is no command ${name}`);
  const arg = (await node.load()).args[flag];
  return arg?.type === "enum" ? arg.options : [];
}

/** Variables that are no settings. */
const VARIABLES: Readonly<Record<string, string>> = {
  KEYHOLD_HOME: "directory for settings, vaults and sockets, instead of the system's own places",
  KEYHOLD_NO_INPUT: "not empty: never ask (also: a non-empty CI)",
  KEYHOLD_PAGER: "pager for long lists and help (else PAGER, else less -FRX); empty or cat: none",
  CREDENTIALS_DIRECTORY: "directory of systemd with the file keyhold-password",
  NO_COLOR: "not empty: no colour",
  FORCE_COLOR: "not empty: colour, also into pipes",
  TERM: "dumb: no colour, no progress, no pager",
  EDITOR: "the editor for `keyhold edit` (VISUAL goes before it)",
};

function environment(): Result {
  const settings = Object.entries(SETTINGS).map(([name, { description }]) => ({
    variable: variableOf(name as SettingName),
    meaning: description,
  }));
  const items = [...settings, ...Object.entries(VARIABLES).map(([variable, meaning]) => ({ variable, meaning }))];
  const rows = items.map(({ variable, meaning }) => [variable, meaning]);
  return paged(result({ items }, (width) => table(["VARIABLE", "WHAT IT SETS"], rows, width)));
}

const REFERENCES = `A reference names one value of one secret:
  kh://NAME[?version=N&profile=P][#field]

NAME is the secret's name. Characters that mean something in a URL are percent-encoded: a space is %20, ? is %3F, # is %23, % is %25; the / between parts stays.
version is a number that "keyhold history NAME" shows; without it the newest is meant. profile is another profile than the one in use. #field is one field of a secret that has several, such as user of a login.

References stand where a value is wanted, never the value itself:
  keyhold read kh://db/prod
  keyhold run --env DATABASE_KEY=kh://db/prod -- ./app
  keyhold read 'kh://web/mail#user'

They hold no secret, so they may stand in files and in the history of a shell.`;

const PASSWORDS = `A password never stands in argv or in an environment variable. It is taken from the first of these that is there:
  1. --password-fd N          an open file descriptor
  2. --password-file FILE     refused if others than its owner can read it
  3. --password-stdin         standard input
  4. $CREDENTIALS_DIRECTORY/keyhold-password
  5. the running agent        keyhold login, keyhold unlock
  6. a question at the terminal, unless --no-input or CI forbids it

A password that is given is always checked, even if the agent is unlocked. One newline at its end is taken off, nothing else.
One password opens account and vault. A new one is given by --new-password-fd or --new-password-file; that of an archive by --archive-password-fd or --archive-password-file.

In scripts, without a file:
  keyhold list --password-fd 3 3< <(printf %s "$PASSWORD")`;
