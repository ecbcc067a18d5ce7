import { Fault } from "../errors.ts";
import { flagName, isFlag, placeholder } from "./args.ts";
import { type Command, type Context, type Group, isGroup, type StandardInput } from "./command.ts";
import { loadSettings, type Settings } from "./config.ts";
import { commandText, describeCommand, describeGroup, findNode, groupText } from "./help.ts";
import { createOutput, type Output, type Result, result } from "./output.ts";
import { parse, type Resolved, resolve } from "./parse.ts";
import { answeredPath, directories } from "./paths.ts";
import { createTerminal, type Terminal } from "./terminal.ts";
import type { ColorMode } from "./text.ts";

/** What the process gives the frame. */
export interface Host {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly inherited: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
  readonly now: () => number;
  /** Takes over SIGHUP, SIGINT and SIGTERM, once; null gives them back. */
  onTerminate(handler: ((signal: NodeJS.Signals) => void) | null): void;
  /** Tells the output in use to the host's own failure path. */
  useOutput(out: Output): void;
}

/** Runs one command line and gives the exit code; failures are thrown. */
export async function runLine(root: Group, argv: readonly string[], host: Host): Promise<number> {
  const { noPager: _, ...early } = glimpse(argv);
  host.useOutput(createOutput({ ...early, env: host.env }));
  const found = resolve(root, argv);
  if (found.kind === "help") {
    const { noPager, ...shape } = glimpse(argv);
    return await show(createOutput({ ...shape, env: host.env }), await helpFor(root, found.path), noPager, host);
  }
  const command = await found.entry.load();
  try {
    return await runCommandLine(root, found, command, host);
  } catch (error) {
    throw withHint(error, found.path);
  }
}

/** What was given wrong and has no better fix: the command's help says what it takes. */
function withHint(error: unknown, path: readonly string[]): unknown {
  if (!(error instanceof Fault) || error.hint !== undefined || error.exit !== 2) return error;
  const { code, message, why, culprits, requestId } = error;
  return new Fault(code, message, {
    hint: ["keyhold help", ...path].join(" "),
    culprits,
    ...(why !== undefined && { why }),
    ...(requestId !== undefined && { requestId }),
  });
}

async function runCommandLine(
  root: Group,
  found: Resolved & { kind: "run" },
  command: Command,
  host: Host,
): Promise<number> {
  const { values, flags, form, rest, missing } = await parse(command, found, host.now());
  const out = createOutput({
    json: flags.json,
    quiet: flags.quiet,
    verbose: flags.verbose,
    color: flags.color ?? "auto",
    form,
    env: host.env,
  });
  host.useOutput(out);
  const term = createTerminal({ out, noInput: flags.noInput, yes: flags.yes, env: host.env, signal: host.signal });
  const complete = await askMissing(command, values, missing, term, found.path);
  const dirs = directories(host.env);
  let settings: Settings | null = null;
  const context: Context = {
    out,
    term,
    flags,
    asked: missing,
    rest,
    env: host.env,
    inherited: host.inherited,
    dirs,
    stdin: standardInput(),
    signal: host.signal,
    root,
    settings: async () => {
      settings ??= loadSettings({
        env: host.env,
        file: flags.config,
        userDirectory: dirs.config,
        flags: { profile: flags.profile },
      });
      return settings;
    },
    onTerminate: host.onTerminate,
  };
  const done = await command.run(complete, context);
  if (done === undefined) return 0;
  if (typeof done === "number") return done;
  return await show(out, done, flags.noPager || flags.noInput, host);
}

/** Prints a result, through a pager where it is a long list or help at a terminal. Gives the exit code. */
async function show(out: Output, done: Result, noPager: boolean, host: Host): Promise<number> {
  const text = noPager || host.env["CI"] || host.env["KEYHOLD_NO_INPUT"] ? null : out.pageable(done);
  const options = { env: host.env, onTerminate: host.onTerminate };
  const ended = text === null ? "not shown" : await (await import("./pager.ts")).page(text, options);
  if (ended === "not shown") out.result(done);
  else if (ended !== "shown") return out.fail(new Fault("interrupted", `ended by ${ended.signal}`), ended.exit);
  return done.exit;
}

/** The flags that shape output, before anything is known to be well-formed: a usage error needs them too. */
function glimpse(argv: readonly string[]): {
  json: boolean;
  quiet: boolean;
  verbose: boolean;
  color: ColorMode;
  noPager: boolean;
} {
  const end = argv.indexOf("--");
  const words = end === -1 ? argv : argv.slice(0, end);
  const at = words.lastIndexOf("--color");
  const inline = words.findLast((word) => word.startsWith("--color="))?.slice("--color=".length);
  const color = inline ?? (at === -1 ? undefined : words[at + 1]);
  return {
    json: words.includes("--json") || words.includes("--json=true"),
    quiet: words.includes("--quiet") || words.includes("-q"),
    verbose: words.includes("--verbose") || words.includes("-v"),
    color: color === "always" || color === "never" ? color : "auto",
    noPager: words.includes("--no-pager") || words.includes("--no-input"),
  };
}

/** Asks for required values that were not given. */
async function askMissing(
  command: Command,
  values: Readonly<Record<string, unknown>>,
  missing: readonly string[],
  term: Terminal,
  path: readonly string[],
): Promise<Parameters<Command["run"]>[0]> {
  const complete: Record<string, unknown> = { ...values };
  const words = Object.entries(command.args).filter(([, arg]) => arg.type === "positional" && arg.required !== false);
  for (const key of missing) {
    const arg = command.args[key];
    if (arg === undefined) throw new Fault("internal", "a missing argument is not declared");
    const name = placeholder(key, arg);
    const flag = `--${flagName(key)}`;
    const otherwise = isFlag(arg)
      ? { needed: flag, fix: `${flag} ${name}` }
      : { needed: name, fix: ["keyhold", ...path, ...words.map(([word, one]) => placeholder(word, one))].join(" ") };
    if (arg.type === "enum") {
      complete[key] = await term.select(
        arg.description,
        arg.options.map((value) => ({ value, label: value })),
        otherwise,
      );
    } else {
      const { ask, check } = arg.type === "positional" || arg.type === "string" ? arg : {};
      const answer = await term.text(ask ?? arg.description, otherwise, check);
      complete[key] = name === "FILE" ? answeredPath(answer) : answer;
    }
  }
  return complete as Parameters<Command["run"]>[0];
}

function standardInput(): StandardInput {
  let taken: string | null = null;
  return {
    claim(purpose) {
      if (taken !== null && taken !== purpose) {
        throw new Fault("usage", `stdin cannot give both ${taken} and ${purpose}`, {
          hint: "give one of them by file",
        });
      }
      taken = purpose;
    },
  };
}

/**
 * The help of a command or group.
 *
 * @throws Fault usage naming the nearest command.
 */
export async function helpFor(root: Group, path: readonly string[]): Promise<Result> {
  const node = findNode(root, path);
  if (isGroup(node)) {
    const help = describeGroup(path, node);
    return { ...result(help, (width) => groupText(help, width)), paged: true };
  }
  const help = describeCommand(path, node, await node.load());
  return { ...result(help, (width) => commandText(help, width)), paged: true };
}
