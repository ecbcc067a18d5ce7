import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join } from "node:path";
import { Fault } from "../errors.ts";
import { errnoOf } from "./process.ts";
import { plain } from "./text.ts";

/** The shells that have a completion script. */
export const COMPLETION_SHELLS = ["bash", "zsh", "fish"] as const;
export type CompletionShell = (typeof COMPLETION_SHELLS)[number];

/** Where a shell looks for completions of one user, and what it needs beside the file. */
export interface CompletionPlace {
  readonly shell: CompletionShell;
  readonly file: string;
  /** The shell's own start file and the line that it needs, where it does not look at `file` by itself. */
  readonly start: { readonly file: string; readonly line: string } | null;
}

type Env = Readonly<Record<string, string | undefined>>;

/** The shell that SHELL names, or null. */
export function shellOf(env: Env): CompletionShell | null {
  const name = basename(env["SHELL"] ?? "");
  return COMPLETION_SHELLS.find((shell) => shell === name) ?? null;
}

const DISTRIBUTION = [
  "/usr/share/bash-completion/bash_completion",
  "/usr/local/share/bash-completion/bash_completion",
  "/opt/homebrew/etc/profile.d/bash_completion.sh",
  "/usr/local/etc/profile.d/bash_completion.sh",
];

/** The standard place of a shell's completions for this user (XDG; docs/cli.md §4). */
export function completionPlace(shell: CompletionShell, env: Env, system = DISTRIBUTION): CompletionPlace {
  const home = env["HOME"] || homedir();
  const base = (name: string, fallback: string) => {
    const value = env[name];
    return value && isAbsolute(value) ? value : join(home, fallback);
  };
  if (shell === "fish") {
    const file = join(base("XDG_CONFIG_HOME", ".config"), "fish", "completions", "keyhold.fish");
    return { shell, file, start: null };
  }
  const data = base("XDG_DATA_HOME", ".local/share");
  if (shell === "zsh") {
    const directory = join(data, "zsh", "site-functions");
    const file = join(directory, "_keyhold");
    // sourced at the end of the start file, it needs no place in fpath before compinit
    const line = `(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }; source ${quoted(file)}`;
    return { shell, file, start: { file: join(base("ZDOTDIR", ""), ".zshrc"), line } };
  }
  const own = env["BASH_COMPLETION_USER_DIR"];
  const directory = own && isAbsolute(own) ? own : join(data, "bash-completion");
  const file = join(directory, "completions", "keyhold");
  // the package bash-completion loads it by itself
  const start = system.some((path) => existsSync(path))
    ? null
    : { file: join(home, ".bashrc"), line: `source ${quoted(file)}` };
  return { shell, file, start };
}

const quoted = (path: string) => (/^[\w./@%+=:-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

/** Whether the shell finds a completion script for keyhold at its place, and needs nothing more. */
export function completionInstalled(place: CompletionPlace): boolean {
  return existsSync(place.file) && (place.start === null || hasLine(place.start));
}

/**
 * Writes a completion script to its place, whole or not at all, and makes the directories that lead there.
 *
 * @returns false when the same script lay there already.
 * @throws Fault exists where something that is no script of keyhold is in the way; storage
 */
export function installCompletion(place: CompletionPlace, script: string): boolean {
  const { file } = place;
  const there = content(file);
  if (there === script) return false;
  if (there !== null && !there.includes("completion for keyhold")) {
    throw new Fault("exists", `${JSON.stringify(file)} is no completion script of keyhold`, { hint: "move it away" });
  }
  const temporary = `${file}.tmp-${process.pid}`;
  try {
    mkdirSync(dirname(file), { recursive: true });
    // link or not: what lies at the place is replaced, never what a link leads to
    writeFileSync(temporary, script, { mode: 0o644, flag: "wx" });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new Fault("storage", `cannot write ${JSON.stringify(file)}`, { why: errnoOf(error) ?? "unknown" });
  }
  return true;
}

function content(file: string): string | null {
  try {
    if (!lstatSync(file).isFile()) return "";
    return readFileSync(file, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return null;
    throw new Fault("storage", `cannot read ${JSON.stringify(file)}`, { why: errnoOf(error) ?? "unknown" });
  }
}

/** True when a shell's start file has the line already. */
export function hasLine({ file, line }: NonNullable<CompletionPlace["start"]>): boolean {
  try {
    return readFileSync(file, "utf8").split("\n").includes(line);
  } catch {
    return false;
  }
}

/** Adds the line to a shell's start file, if it is not there; only after its owner was asked. @throws Fault storage */
export function addLine(start: NonNullable<CompletionPlace["start"]>): boolean {
  if (hasLine(start)) return false;
  try {
    const before = existsSync(start.file) ? readFileSync(start.file, "utf8") : "";
    const gap = before === "" || before.endsWith("\n") ? "" : "\n";
    appendFileSync(start.file, `${gap}${start.line}\n`);
    return true;
  } catch (error) {
    throw new Fault("storage", `cannot write ${JSON.stringify(start.file)}`, { why: errnoOf(error) ?? "unknown" });
  }
}

/** What installing a completion did; `line` is what the shell's start file still needs. */
export interface InstalledCompletion {
  readonly shell: CompletionShell;
  readonly file: string;
  readonly changed: boolean;
  readonly start?: { readonly file: string; readonly line: string; readonly added: boolean };
}

/** Gives the completion script of a shell. */
export type ScriptOf = (shell: CompletionShell) => Promise<string>;

/** The shell of that name, or the one that SHELL names. @throws Fault usage */
export function wantedShell(given: string | null, env: Env): CompletionShell {
  const shell = given === null ? shellOf(env) : COMPLETION_SHELLS.find((one) => one === given);
  if (shell) return shell;
  throw new Fault(
    "usage",
    given === null ? "SHELL names no shell that is known" : `there is no completion for "${given}"`,
    {
      hint: "keyhold completion install bash, zsh or fish",
    },
  );
}

/**
 * Writes the script of a shell to the standard place of this user.
 *
 * @param ask Whether the line may be added to the shell's own start file, where it needs one.
 * @throws Fault exists, storage
 */
export async function installFor(
  env: Env,
  shell: CompletionShell,
  scriptOf: ScriptOf,
  ask: (start: { file: string; line: string }) => Promise<boolean>,
): Promise<InstalledCompletion> {
  const place = completionPlace(shell, env);
  const changed = installCompletion(place, await scriptOf(shell));
  const { start, file } = place;
  if (start === null) return { shell, file, changed };
  const added = hasLine(start) || ((await ask(start)) && addLine(start));
  return { shell, file, changed, start: { ...start, added } };
}

/** What was done, in lines for people. */
export function toldOf({ shell, file, changed, start }: InstalledCompletion): string {
  const wrote = changed ? `wrote the completion for ${shell} to` : `the completion for ${shell} is there already:`;
  const lines = [`${wrote} ${plain(file)}`];
  if (start && !start.added) lines.push(`add this line to ${plain(start.file)}:`, `  ${plain(start.line)}`);
  else lines.push(`A new ${shell} has it.`);
  return lines.join("\n");
}
