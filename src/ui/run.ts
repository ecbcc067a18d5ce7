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
  return {
    exit,
    fault: new Fault(exit === NO_COMMAND ? "not_found" : "denied", message, {
      hint: exit === NO_COMMAND ? "check its name, and PATH" : "check its permissions",
    }),
  };
}

/** What a child needs to find its way where nothing else of this process's environment is passed on. */
const PLAIN =
  /^(PATH|HOME|USER|LOGNAME|SHELL|PWD|LANG|LC_[A-Z]+|TERM|COLORTERM|TZ|TMPDIR|SYSTEMROOT|USERPROFILE|TEMP|TMP)$/i;

/**
 * The environment of a child: what this process inherited, plus `added`. Left out are keyhold's own variables and those
 * of the engine that it is made with (`BUN_*`), which would act on a keyhold that the child starts.
 *
 * @param options.clean Pass on nothing but PATH, HOME, TERM, the language and the like.
 */
export function childEnvironment(
  inherited: Readonly<Record<string, string | undefined>>,
  added: Readonly<Record<string, string>>,
  options: { readonly clean?: boolean } = {},
): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(inherited)) {
    if (value === undefined || name.startsWith("BUN_") || name.startsWith("KEYHOLD_")) continue;
    if (options.clean === true && !PLAIN.test(name)) continue;
    env[name] = value;
  }
  return { ...env, ...added };
}

const UNSAFE = new Set(
  `PATH PATHEXT ENV BASH_ENV BASH_FUNC SHELLOPTS BASHOPTS IFS PS4 PROMPT_COMMAND ZDOTDIR FPATH CDPATH SHELL EDITOR VISUAL
  PAGER BROWSER LESSOPEN LESSCLOSE MANPAGER NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED
  PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONINSPECT PYTHONBREAKPOINT PERLLIB PERL5LIB PERL5OPT PERL5DB RUBYLIB RUBYOPT
  LUA_INIT LUA_PATH LUA_CPATH JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS CLASSPATH GCONV_PATH LOCPATH NLSPATH
  OPENSSL_CONF SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY GIT_SSH GIT_SSH_COMMAND
  GIT_ASKPASS SSH_ASKPASS GIT_PAGER GIT_EDITOR GIT_SEQUENCE_EDITOR GIT_EXTERNAL_DIFF GIT_PROXY_COMMAND GIT_EXEC_PATH
  GIT_TEMPLATE_DIR HOSTALIASES TERMINFO TERMINFO_DIRS TERMCAP HOME PS0 PS1 PS2 LESS VIMINIT EXINIT INPUTRC SUDO_ASKPASS
  SYSTEMD_EDITOR SYSTEMD_PAGER RSYNC_RSH CVS_RSH MAKEFLAGS RUSTC_WRAPPER DOTNET_STARTUP_HOOKS CORECLR_PROFILER_PATH
  COR_PROFILER_PATH JAVA_OPTS MAVEN_OPTS GRADLE_OPTS PHPRC PHP_INI_SCAN_DIR PYTHONUSERBASE GEM_PATH GEM_HOME
  BUNDLE_GEMFILE R_PROFILE R_PROFILE_USER ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS TCLLIBPATH OPENSSL_MODULES OPENSSL_ENGINES
  CURL_CA_BUNDLE REQUESTS_CA_BUNDLE FTP_PROXY GTK_MODULES QT_PLUGIN_PATH GIO_EXTRA_MODULES XDG_CONFIG_HOME
  XDG_CONFIG_DIRS XDG_DATA_DIRS GNUPGHOME DOCKER_HOST DOCKER_CONFIG KUBECONFIG AWS_CONFIG_FILE`.split(/\s+/),
);
const UNSAFE_PREFIX = /^(LD_|DYLD_|GLIBC_|MALLOC_|BUN_|KEYHOLD_|LUA_INIT_|GIT_CONFIG|BASH_FUNC_|NPM_CONFIG_)/;

/** True for variables that decide which code a child runs or whom it trusts: no secret belongs there. */
export function isUnsafeVariable(name: string): boolean {
  const upper = name.toUpperCase();
  return UNSAFE.has(upper) || UNSAFE_PREFIX.test(upper);
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
  const file = locate(command, env);
  if (typeof file !== "string") return file;
  if (process.platform === "win32" || typeof process.execve !== "function") return await runBeside(file, args, env);
  runCleanups();
  // Bun ignores these two; a signal that is caught goes back to its default in the new program, an ignored one does not.
  process.on("SIGPIPE", () => undefined);
  process.on("SIGXFSZ", () => undefined);
  try {
    return process.execve(file, [name, ...args], env);
  } catch (error) {
    return cannotSpawn(name, error);
  }
}

/** The file of a command, which can be given this environment. @throws Fault bad_input for a variable with a NUL byte. */
export function locate(command: readonly string[], env: Readonly<Record<string, string>>): string | CannotRun {
  const nul = Object.entries(env).find(([variable, value]) => `${variable}${value}`.includes("\0"));
  if (nul !== undefined) {
    // The system ends a variable at its first NUL: the child would silently get less.
    throw new Fault("bad_input", `the value for the variable ${nul[0]} has a NUL byte`, {
      hint: "use --encoding base64url",
    });
  }
  return findCommand(command[0] ?? "", env["PATH"] ?? env["Path"]);
}

async function runBeside(
  file: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<number | CannotRun> {
  let child: Bun.Subprocess;
  try {
    child = Bun.spawn([file, ...args], { env, stdin: "inherit", stdout: "inherit", stderr: "inherit" });
  } catch (error) {
    return cannotSpawn(file, error);
  }
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
  await child.exited;
  return exitOf(child);
}

/** Why a child could not be started, as a shell would say it. */
export function cannotSpawn(file: string, error: unknown): CannotRun {
  const code = errnoOf(error);
  if (code === "ENOEXEC") {
    const fault = new Fault("denied", `cannot execute "${file}": it is no program, and has no #! line`, {
      hint: `name its interpreter: -- sh ${file}`,
    });
    return { exit: CANNOT_EXECUTE, fault };
  }
  if (code === "ENOENT") return cannot(NO_COMMAND, `there is no interpreter for "${file}"`);
  if (code === "E2BIG")
    return cannot(CANNOT_EXECUTE, `cannot execute "${file}": arguments and environment are too large`);
  return cannot(CANNOT_EXECUTE, `cannot execute "${file}" (${code ?? "unknown"})`);
}

/** The exit code of an ended child as shells give it: 128+n for signal n. */
export function exitOf(child: Pick<Bun.Subprocess, "exitCode" | "signalCode">): number {
  const signal = Object.entries(os.signals).find(([name]) => name === child.signalCode);
  return signal === undefined ? (child.exitCode ?? 1) : 128 + signal[1];
}
