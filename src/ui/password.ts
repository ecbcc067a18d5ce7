import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { Values } from "./args.ts";
import type { Context } from "./command.ts";
import type { ARCHIVE_PASSWORD_ARGS, NEW_PASSWORD_ARGS } from "./flags.ts";
import { normalizePassword } from "./passwordtext.ts";
import { closeQuietly, errnoOf, hideProcess } from "./process.ts";

type Sources = Pick<Context, "flags" | "term" | "env" | "stdin">;

/** Room for a password of full length in NFD, its newline and one byte that shows excess. */
const READ_LIMIT = 4 * DEFAULTS.passwordMaxBytes + 3;
const PASSWORD_FIX = "--password-file FILE, --password-fd N or --password-stdin";

/**
 * The password that was given without a prompt: `--password-fd` › `--password-file` › `--password-stdin` ›
 * `$CREDENTIALS_DIRECTORY/keyhold-password` (docs/cli.md §2). It is checked even if an agent is unlocked.
 *
 * @returns NFC, 1 to 1,024 bytes, owned by the caller, who wipes it; null if none was given.
 * @throws Fault bad_input, denied, usage
 */
export async function givenPassword({ flags, env, stdin }: Sources): Promise<Uint8Array | null> {
  hideProcess();
  if (flags.passwordFd !== null) {
    if (flags.passwordFd === 0) stdin.claim("the password");
    return normalizePassword(readDescriptor(flags.passwordFd, "--password-fd"));
  }
  if (flags.passwordFile !== null) return normalizePassword(readSecretFile(flags.passwordFile, READ_LIMIT, "refuse"));
  if (flags.passwordStdin) {
    stdin.claim("the password");
    return normalizePassword(readDescriptor(0, "--password-stdin"));
  }
  const credentials = env["CREDENTIALS_DIRECTORY"];
  if (!credentials) return null;
  try {
    return normalizePassword(readSecretFile(`${credentials}/keyhold-password`, READ_LIMIT, "accept"));
  } catch (error) {
    if (error instanceof Fault && error.code === "not_found") return null;
    throw error;
  }
}

/**
 * The password of the account or vault: given, else asked for. Ask the agent between {@link givenPassword} and
 * {@link askPassword} where one may answer.
 *
 * @returns As {@link givenPassword}.
 * @throws Fault password_needed where nobody can be asked.
 */
export async function needPassword(sources: Sources, message = "Password"): Promise<Uint8Array> {
  return (await givenPassword(sources)) ?? (await askPassword(sources, message));
}

/** Asks for a password. @throws Fault password_needed, interrupted, bad_input */
export async function askPassword({ term }: Pick<Context, "term">, message = "Password"): Promise<Uint8Array> {
  hideProcess();
  const text = await term.password(message, {
    needed: "the password",
    fix: PASSWORD_FIX,
  });
  return normalizePassword(new TextEncoder().encode(text));
}

/**
 * A password for a new account or vault: given by `--password-*`, and then its strength is the giver's affair; else
 * asked for twice with its strength shown, again after a slip (src/ui/newpassword.ts).
 *
 * @param known Names that an attacker knows of the owner: they make a password no stronger.
 * @returns NFC, 8 to 1,024 bytes, owned by the caller.
 * @throws Fault bad_input (given, and too short), password_needed, interrupted
 */
export async function choosePassword(
  sources: Sources,
  message = "Password",
  known: readonly string[] = [],
): Promise<Uint8Array> {
  return (await givenNewPassword(sources)) ?? (await askTwice(sources, message, PASSWORD_FIX, known));
}

/** {@link givenPassword} for something new. @throws Fault bad_input (too short), and as there */
export async function givenNewPassword(sources: Sources): Promise<Uint8Array | null> {
  hideProcess();
  const given = await givenPassword(sources);
  return given && checkedLength(given);
}

/**
 * The new password of `account password` and `vault rekey`: `--new-password-fd` › `--new-password-file` › asked twice.
 *
 * @returns As {@link choosePassword}.
 * @throws As {@link choosePassword}.
 */
export async function chooseNewPassword(sources: Sources, args: Values<typeof NEW_PASSWORD_ARGS>): Promise<Uint8Array> {
  if (args.newPasswordFd !== null) {
    if (args.newPasswordFd === 0) sources.stdin.claim("the new password");
    return checkedLength(normalizePassword(readDescriptor(args.newPasswordFd, "--new-password-fd")));
  }
  if (args.newPasswordFile !== null) {
    return checkedLength(normalizePassword(readSecretFile(args.newPasswordFile, READ_LIMIT, "refuse")));
  }
  return checkedLength(await askTwice(sources, "New password", "--new-password-file FILE or --new-password-fd N"));
}

/**
 * The password of an archive: `--archive-password-fd` › `--archive-password-file` › asked for, twice for a new one.
 *
 * @returns As {@link givenPassword}; a new one has at least 8 bytes.
 * @throws Fault password_needed, bad_input, denied, interrupted
 */
export async function archivePassword(
  sources: Sources,
  args: Values<typeof ARCHIVE_PASSWORD_ARGS>,
  use: "new" | "known",
): Promise<Uint8Array> {
  hideProcess();
  const checked = (password: Uint8Array) => (use === "new" ? checkedLength(password) : password);
  if (args.archivePasswordFd !== null) {
    if (args.archivePasswordFd === 0) sources.stdin.claim("the archive's password");
    return checked(normalizePassword(readDescriptor(args.archivePasswordFd, "--archive-password-fd")));
  }
  if (args.archivePasswordFile !== null) {
    return checked(normalizePassword(readSecretFile(args.archivePasswordFile, READ_LIMIT, "refuse")));
  }
  const fix = "--archive-password-file FILE or --archive-password-fd N";
  if (use === "new") return checked(await askTwice(sources, "Password of the archive", fix));
  const text = await sources.term.password("Password of the archive", { needed: "the archive's password", fix });
  return normalizePassword(new TextEncoder().encode(text));
}

async function askTwice(
  { term }: Sources,
  message: string,
  fix = PASSWORD_FIX,
  known: readonly string[] = [],
): Promise<Uint8Array> {
  const needed = message.toLowerCase() === "password" ? "the password" : `the ${message.toLowerCase()}`;
  const { chooseAtTerminal } = await import("./newpassword.ts");
  const chosen = await chooseAtTerminal(term, { message, otherwise: { needed, fix }, known });
  if (typeof chosen !== "symbol") return chosen;
  throw new Fault("interrupted", "cancelled", { hint: "nothing was done" });
}

function checkedLength(password: Uint8Array): Uint8Array {
  if (password.length >= DEFAULTS.passwordMinBytes) return password;
  wipe(password);
  throw new Fault("bad_input", `a password has at least ${DEFAULTS.passwordMinBytes} bytes`, {
    hint: "choose a longer one",
  });
}

/**
 * A secret value, byte for byte: `--in-file F` (`-` is stdin), else stdin where it is no terminal, else a prompt.
 *
 * @returns 1 to 65,536 bytes, owned by the caller.
 * @throws Fault bad_input (empty), too_large, input_needed, not_found
 */
export async function readValue(
  { term, stdin }: Pick<Context, "term" | "stdin">,
  inFile: string | null,
  options: { readonly message?: string; readonly maxBytes?: number } = {},
): Promise<Uint8Array> {
  hideProcess();
  const maxBytes = options.maxBytes ?? DEFAULTS.secretBytes;
  const value = await rawValue(term, stdin, inFile, maxBytes, options.message ?? "Value");
  if (value.length > maxBytes) {
    wipe(value);
    throw new Fault("too_large", `a value has at most ${maxBytes} bytes`);
  }
  if (value.length === 0)
    throw new Fault("bad_input", "the value is empty", { hint: "give it with --in-file FILE or on stdin" });
  return value;
}

async function rawValue(
  term: Context["term"],
  stdin: Context["stdin"],
  inFile: string | null,
  maxBytes: number,
  message: string,
) {
  if (inFile !== null && inFile !== "-") return readSecretFile(inFile, maxBytes + 1, "accept");
  if (inFile === "-" || stdinHasInput()) {
    stdin.claim("the value");
    return readDescriptor(0, "stdin", maxBytes + 1);
  }
  const text = await term.password(message, {
    code: "input_needed",
    needed: "the value",
    fix: "--in-file FILE, or give it on stdin",
  });
  return new TextEncoder().encode(text);
}

/** True for a pipe, socket or file with content: a terminal, a closed stdin or /dev/null is nobody's value. */
export function stdinHasInput(): boolean {
  try {
    return !fstatSync(0).isCharacterDevice();
  } catch {
    return false;
  }
}

/** Stdin to its end, at most `limit` bytes, for one purpose. @throws Fault usage when it serves another, bad_input */
export function readStandardInput({ stdin }: Pick<Context, "stdin">, purpose: string, limit: number): Uint8Array {
  stdin.claim(purpose);
  return readDescriptor(0, "stdin", limit);
}

/** What a descriptor gives, at most `limit` bytes; it is closed then. @throws Fault bad_input */
export function readGivenFd(fd: number, label: string, limit: number): Uint8Array {
  return readDescriptor(fd, label, limit);
}

function readDescriptor(fd: number, label: string, limit = READ_LIMIT): Uint8Array {
  try {
    return readUpTo(fd, limit);
  } catch (error) {
    throw new Fault("bad_input", `cannot read from ${label}`, { why: errnoOf(error) ?? "unknown" });
  } finally {
    // Not left open for children; stdin stays, so that no other file takes its number.
    if (fd > 2) closeQuietly(fd);
  }
}

/**
 * Reads a file of at most `limit` bytes (a longer one gives exactly `limit`). Symbolic links are followed, since
 * mounted secrets are links; the modes of what they lead to count.
 *
 * @param others `refuse`: a file that its group or others can use is refused.
 * @throws Fault not_found, denied, bad_input
 */
export function readSecretFile(path: string, limit: number, others: "refuse" | "accept"): Uint8Array {
  let fd: number;
  try {
    // O_NONBLOCK: a FIFO must not hang.
    fd = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ENOENT" || code === "ENOTDIR")
      throw new Fault("not_found", `there is no file "${path}"`, { hint: "check the path" });
    throw new Fault("denied", `cannot read "${path}"`, { why: code ?? "unknown", hint: "check its permissions" });
  }
  try {
    const info = fstatSync(fd);
    if (!info.isFile())
      throw new Fault("bad_input", `"${path}" is not a regular file`, {
        hint:
          others === "refuse"
            ? "a pipe is given by its descriptor: --password-fd N"
            : "write it into a file first; what takes - reads a pipe on stdin",
      });
    if (others === "refuse" && process.platform !== "win32" && (info.mode & 0o077) !== 0) {
      throw new Fault("denied", `cannot use "${path}": other users may read or write it`, {
        hint: `chmod 600 "${path}"`,
      });
    }
    return readUpTo(fd, limit);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("bad_input", `cannot read "${path}"`, { why: errnoOf(error) ?? "unknown" });
  } finally {
    closeSync(fd);
  }
}

function readUpTo(fd: number, limit: number): Uint8Array {
  const buffer = new Uint8Array(limit);
  try {
    let length = 0;
    while (length < limit) {
      const count = readSome(fd, buffer, length);
      if (count === 0) break;
      length += count;
    }
    return buffer.slice(0, length);
  } finally {
    wipe(buffer);
  }
}

/** One read; waits while a non-blocking descriptor has nothing yet. */
function readSome(fd: number, buffer: Uint8Array, offset: number): number {
  for (;;) {
    try {
      return readSync(fd, buffer, offset, buffer.length - offset, null);
    } catch (error) {
      const code = errnoOf(error);
      if (code === "EOF") return 0;
      if (code !== "EAGAIN" && code !== "EINTR") throw error;
      Bun.sleepSync(5);
    }
  }
}
