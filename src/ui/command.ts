/*
 * How to add a command
 *
 * 1. src/commands/NAME.ts (groups: src/commands/GROUP/NAME.ts or several exports in one file):
 *
 *      import { Fault } from "../errors.ts";
 *      import { defineCommand } from "../ui/command.ts";
 *      import { result } from "../ui/output.ts";
 *      import { plain } from "../ui/text.ts";
 *
 *      export default defineCommand({
 *        args: {
 *          name: { type: "positional", description: "name of the secret", ask: "Name of the secret" },
 *          bytes: { type: "integer", min: 1, max: 65_536, default: 32, description: "length in bytes" },
 *          tag: { type: "list", hint: "TAG", description: "attach a tag (repeatable)" },
 *        },
 *        examples: [["keyhold generate db/prod --type token", "a token that is stored and not shown"]],
 *        run: async (args, { term, out, flags }) => {
 *          const made = await term.step("Generating", client.generate({ name: args.name, … }));
 *          return result(made, () => `${plain(made.name)}  ${made.keyId}`, { requestId: made.requestId });
 *        },
 *      });
 *
 * 2. One line in src/commands/index.ts: name, summary, `load: () => import("./NAME.ts").then((m) => m.default)`.
 *    Help, completion, the manual page and docs follow from these two.
 *
 * Values arrive typed: absent single values are null, absent flags false, lists []; keys are camelCase and become
 * kebab-case flags (`inFile` is --in-file). A required value that is missing is asked for at the terminal, or the
 * command exits 2. Positionals are required unless `required: false`, flags if they have `required: true` or an `ask`.
 * With `rest`, the words after `--` arrive in `ctx.rest`.
 * A command that lists has `list: true` and gives `listing(data, { heads, cells }, { requestId })` (src/ui/output.ts):
 * the table that fits, `--plain`, `--null` and the pager follow. Positionals that are names of secrets say
 * `complete: "secret"`.
 * Failures are thrown as Fault; nothing else is caught. Everything a command prints goes through its Result or
 * `ctx.out`; values of others are passed through `plain`.
 *
 * - Password:    src/ui/password.ts, bytes to be wiped: `givenPassword(ctx)` by flag or credential, else null; then the
 *                agent; `askPassword(ctx)` at the terminal. `needPassword(ctx)`: the first and the last in one.
 *                `choosePassword(ctx)` for register and init; `chooseNewPassword(ctx, args)` with
 *                `...NEW_PASSWORD_ARGS` (src/ui/flags.ts) for account password and vault rekey.
 * - Value:       `await readValue(ctx, args.inFile)`, with `...VALUE_ARGS` among the args.
 * - Questions:   `ctx.term.text|select|confirm`; `confirm` throws unless the answer (or --yes) is yes.
 * - Progress:    `await ctx.term.step("Deriving the key", promise)`; `ctx.term.counter("Importing", total)`.
 * - Setting:     `(await ctx.settings()).get("clearAfter", args.clearAfter)`: flag, environment, files, default.
 * - Directories: `ctx.dirs.config|data|state|runtime|server`, made by `makePrivateDirectory` (src/client).
 * - Long runs:   `ctx.onTerminate((signal) => …)` takes over SIGINT and SIGTERM (the second one still ends the
 *                process); `ctx.signal` is aborted by them otherwise. `run` returns void after printing by itself.
 */
import type { Args, Values } from "./args.ts";
import type { Settings } from "./config.ts";
import type { GlobalFlags } from "./flags.ts";
import type { Output, Result } from "./output.ts";
import type { Directories } from "./paths.ts";
import type { Terminal } from "./terminal.ts";

/** Who reads standard input; it can serve one purpose only. */
export interface StandardInput {
  /** @throws Fault usage if stdin already serves another purpose. */
  claim(purpose: string): void;
}

/** What a command gets beside its arguments. */
export interface Context {
  readonly out: Output;
  readonly term: Terminal;
  readonly flags: GlobalFlags;
  /** Arguments that were not given, and that the frame has asked for. */
  readonly asked: readonly string[];
  /** The words after `--`. */
  readonly rest: readonly string[];
  /** This process's environment after clean-up. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The environment as it was inherited, for `run`'s child only. */
  readonly inherited: Readonly<Record<string, string | undefined>>;
  readonly dirs: Directories;
  readonly stdin: StandardInput;
  /** Aborted by SIGINT, SIGTERM and SIGHUP. */
  readonly signal: AbortSignal;
  /** The whole command tree, for help, completion and the manual page. */
  readonly root: Group;
  settings(): Promise<Settings>;
  onTerminate(handler: ((signal: NodeJS.Signals) => void) | null): void;
}

/** A command as a value. */
export interface Command<T extends Args = Args> {
  readonly args: T;
  /** Paragraphs below the summary in the help text. */
  readonly details?: string;
  /** Pairs of command line and explanation. */
  readonly examples?: readonly (readonly [line: string, meaning: string])[];
  /** True for commands that give a `listing`: adds `--plain` and `--null`. */
  readonly list?: true;
  /** What `--json` shows as `data`, in one line. */
  readonly data?: string;
  /** Present if words after `--` belong to somebody else (`run`). */
  readonly rest?: { readonly hint: string; readonly description: string; readonly required: boolean };
  /** Gives the result to print; or, having printed by itself, nothing or an exit code. */
  run(args: Values<T>, context: Context): Promise<Result | number | void>;
}

/** A leaf of the command tree; `load` imports the command when it is run or described. */
export interface Entry {
  readonly summary: string;
  readonly hidden?: boolean;
  readonly section?: string;
  readonly load: () => Promise<Command>;
}

/** A node of the command tree; it does nothing itself. */
export interface Group {
  readonly summary: string;
  readonly hidden?: boolean;
  readonly section?: string;
  readonly commands: Readonly<Record<string, Entry | Group>>;
  /** What `help` explains beside commands, with a summary of each; of the root alone. */
  readonly topics?: Readonly<Record<string, string>>;
}

/** True for nodes with commands of their own. */
export function isGroup(node: Entry | Group): node is Group {
  return "commands" in node;
}

/** Declares a command; its argument types follow from `args`. */
export function defineCommand<const T extends Args>(command: Command<T>): Command<T> {
  return command;
}

/** The names in a group that help shows. */
export function visibleNames(group: Group): readonly string[] {
  return Object.entries(group.commands)
    .filter(([, node]) => node.hidden !== true)
    .map(([name]) => name);
}
