import { accessSync, constants, statSync } from "node:fs";
import { constants as os } from "node:os";
import { delimiter, join } from "node:path";
import { Fault } from "../errors.ts";
import { errnoOf, runCleanups } from "./process.ts";

/** Exit codes that shells give: found but not executable, not found. */
const CANNOT_EXECUTE = 126;
const NO_COMMAND = 127;

/** What kept a child from starting, and the exit code for it: `return out.fail(fault, exit)`. */
export interface CannotRun {
  readonly exit: 126 | 127;
  readonly fault: Fault;
}

function cannot(exit: 126 | 127, message: string): CannotRun {
  return { exit, fault: new Fault(exit === NO_COMMAND ? "not_found" : "denied", message) };
}

/**
 * The environment of a child: what this process inherited, without keyhold's own variables and BUN_BE_BUN, plus `added`.
 */
export function childEnvironment(
  inherited: Readonly<Record<string, string | undefined>>,
  added: Readonly<Record<string, string>>,
): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(inherited)) {
    if (value === undefined || name === "BUN_BE_BUN" || name.startsWith("KEYHOLD_")) continue;
    env[name] = value;
  }
  return { ...env, ...added };
}

/** Finds a command as a shell does: as a path if it has a slash, else in PATH. */
export function findCommand(
  command: string,
  path: string | undefined,
  platform: NodeJS.Platform = process.platform,
): string | CannotRun {
  const hasSlash = command.includes("/") || (platform === "win32" && command.includes("\\"));
  const extensions = platform === "win32" ? ["", ".exe", ".com", ".cmd", ".bat"] : [""];
  // An empty PATH entry means the working directory to a shell; nothing is taken from there unasked.
  const folders = hasSlash
    ? [""]
    : (path ?? "/usr/local/bin:/usr/bin:/bin").split(delimiter).filter((folder) => folder !== "");
  let present = false;
  for (const folder of command === "" ? [] : folders) {
    for (const extension of extensions) {
      const file = folder === "" ? command + extension : join(folder, command + extension);
      const state = executable(file);
      if (state === "yes") return file;
      present ||= state === "no";
    }
  }
  return present
    ? cannot(CANNOT_EXECUTE, `cannot execute "${command}"`)
    : cannot(NO_COMMAND, `there is no command "${command}"`);
}

function executable(file: string): "yes" | "no" | "absent" {
  try {
    if (!statSync(file).isFile()) return "no";
  } catch (error) {
    return errnoOf(error) === "EACCES" ? "no" : "absent";
  }
  try {
    accessSync(file, constants.X_OK);
    return "yes";
  } catch {
    return "no";
  }
}

/**
 * Becomes the command: the child replaces this process and keeps its terminal, standard streams and process id; its
 * signals are as by default. Descriptors above 2, such as that of `--password-fd`, do not reach it.
 * Where a process cannot be replaced (Windows) the child runs beside it, with signals forwarded.
 *
 * @returns Only if the command could not be started, or with the child's exit code (128+n for signal n).
 * @throws Fault bad_input for a variable with a NUL byte.
 */
export async function become(command: readonly string[], env: Record<string, string>): Promise<number | CannotRun> {
  const [name = "", ...args] = command;
  const nul = Object.entries(env).find(([variable, value]) => `${variable}${value}`.includes("\0"));
  if (nul !== undefined) {
    // The system ends a variable at its first NUL: the child would silently get less.
    throw new Fault("bad_input", `the value for the variable ${nul[0]} has a NUL byte`, {
      hint: "use --encoding base64url",
    });
  }
  const file = findCommand(name, env["PATH"] ?? env["Path"]);
  if (typeof file !== "string") return file;
  if (process.platform === "win32" || typeof process.execve !== "function") return await runBeside(file, args, env);
  runCleanups();
  // Bun ignores these two; a signal that is caught goes back to its default in the new program, an ignored one does not.
  process.on("SIGPIPE", () => undefined);
  process.on("SIGXFSZ", () => undefined);
  try {
    return process.execve(file, [name, ...args], env);
  } catch (error) {
    const code = errnoOf(error);
    if (code === "ENOENT") return cannot(NO_COMMAND, `there is no interpreter for "${name}"`);
    if (code === "E2BIG")
      return cannot(CANNOT_EXECUTE, `cannot execute "${name}": arguments and environment are too large`);
    return cannot(CANNOT_EXECUTE, `cannot execute "${name}" (${code ?? "unknown"})`);
  }
}

async function runBeside(
  file: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<number | CannotRun> {
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([file, ...args], { env, stdin: "inherit", stdout: "inherit", stderr: "inherit" });
  } catch {
    return cannot(CANNOT_EXECUTE, `cannot execute "${file}"`);
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
  await child.exited;
  const signal = Object.entries(os.signals).find(([name]) => name === child.signalCode);
  return signal === undefined ? (child.exitCode ?? 1) : 128 + signal[1];
}
