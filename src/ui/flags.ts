import type { Args, Values } from "./args.ts";
import type { Command } from "./command.ts";

/** The flags that every command takes (docs/cli.md §2). */
export const GLOBAL_ARGS = {
  json: { type: "boolean", description: "print one JSON line instead of text" },
  quiet: { type: "boolean", short: "q", description: "no notices and no progress" },
  verbose: { type: "boolean", short: "v", description: "say more on stderr" },
  color: { type: "enum", options: ["auto", "always", "never"], description: "when to use colour (default: auto)" },
  noInput: { type: "boolean", description: "never ask; fail instead (also: a non-empty CI)" },
  yes: { type: "boolean", short: "y", description: "answer yes to confirmations" },
  noPager: { type: "boolean", description: "print long lists and help without a pager" },
  profile: {
    type: "string",
    hint: "NAME",
    complete: "profile",
    description: "use this profile instead of the default one",
  },
  config: { type: "string", hint: "FILE", description: "read this configuration file first" },
  passwordFd: { type: "integer", hint: "N", max: 65_535, description: "read the password from file descriptor N" },
  passwordFile: {
    type: "string",
    hint: "FILE",
    description: "read the password from FILE, readable by its owner only",
  },
  passwordStdin: { type: "boolean", description: "read the password from stdin" },
  factorFd: {
    type: "integer",
    hint: "N",
    max: 65_535,
    description: "read a code of the second factor from file descriptor N",
  },
  factorFile: {
    type: "string",
    hint: "FILE",
    description: "read a code of the second factor from FILE, readable by its owner only",
  },
  kdf: {
    type: "enum",
    options: ["test"],
    hidden: true,
    description: "insecure key derivation for tests (loopback only)",
  },
} as const satisfies Args;

export type GlobalFlags = Values<typeof GLOBAL_ARGS>;

/** For commands with `list: true`; the frame adds them. */
export const LIST_ARGS = {
  plain: { type: "boolean", description: "tab-separated cells without heads and colours" },
  null: { type: "boolean", short: "0", description: "the names alone, each ended by NUL (for xargs -0)" },
} as const satisfies Args;

/** The words and flags of a command, those that the frame adds included; without the flags of every command. */
export function argsOf(command: Pick<Command, "args" | "list">): Args {
  return command.list === true ? { ...command.args, ...LIST_ARGS } : command.args;
}

/** For commands that set a password: `account password`, `vault rekey`. */
export const NEW_PASSWORD_ARGS = {
  newPasswordFd: {
    type: "integer",
    hint: "N",
    max: 65_535,
    description: "read the new password from file descriptor N",
  },
  newPasswordFile: {
    type: "string",
    hint: "FILE",
    description: "read the new password from FILE, readable by its owner only",
  },
} as const satisfies Args;

/** For commands that read or write an archive with a password of its own (docs/cli.md §4). */
export const ARCHIVE_PASSWORD_ARGS = {
  archivePasswordFd: {
    type: "integer",
    hint: "N",
    max: 65_535,
    description: "read the archive's password from file descriptor N",
  },
  archivePasswordFile: {
    type: "string",
    hint: "FILE",
    description: "read the archive's password from FILE, readable by its owner only",
  },
} as const satisfies Args;

/** For commands that take a secret value. */
export const VALUE_ARGS = {
  inFile: { type: "string", hint: "FILE", description: "read the value from FILE (- is stdin)" },
} as const satisfies Args;
