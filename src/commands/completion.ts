import { Fault } from "../errors.ts";
import { type Arg, type Args, flagName, isFlag, takesValue } from "../ui/args.ts";
import { defineCommand, type Group, isGroup, visibleNames } from "../ui/command.ts";
import { argsOf, GLOBAL_ARGS } from "../ui/flags.ts";
import { allCommands } from "../ui/help.ts";
import { result } from "../ui/output.ts";
import { bash, fish, zsh } from "./shellscripts.ts";

/** What a word or the value of a flag may be, beside fixed choices. */
export type Completes = "secret" | "reference" | "profile" | "ceremony" | "file" | "directory" | "none";

/** A word with what is said about it. */
export interface WordModel {
  readonly name: string;
  readonly summary: string;
}

/** A flag as the shells complete it. */
export interface FlagModel {
  readonly name: string;
  readonly short: string | null;
  readonly description: string;
  readonly takesValue: boolean;
  readonly options: readonly string[];
  readonly completes: Completes;
}

/** What may follow a command path: the static model that each shell's script is written from. */
export interface Place {
  readonly path: readonly string[];
  readonly words: readonly WordModel[];
  /** What its words are beside the fixed ones. */
  readonly completes: Completes;
  readonly flags: readonly FlagModel[];
}

/** The command line as the scripts know it. */
export interface CompletionModel {
  readonly places: readonly Place[];
  /** Flags of every command. */
  readonly globals: readonly FlagModel[];
}

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** The completion script of a shell, made of the command model (docs/cli.md §4). */
export async function completionScript(root: Group, shell: Shell): Promise<string> {
  const model = { places: await places(root), globals: GLOBALS };
  return { bash, zsh, fish }[shell](model);
}

function completes(arg: Arg): Completes {
  if (arg.complete !== undefined) return arg.complete;
  const hint = "hint" in arg ? arg.hint : undefined;
  if (hint === "DIR") return "directory";
  return hint?.startsWith("FILE") === true ? "file" : "none";
}

function flagModels(args: Args): FlagModel[] {
  return Object.entries(args).flatMap(([key, arg]) =>
    isFlag(arg) && arg.hidden !== true
      ? [
          {
            name: flagName(key),
            short: arg.short ?? null,
            description: arg.description,
            takesValue: takesValue(arg),
            options: arg.type === "enum" ? arg.options : [],
            completes: completes(arg),
          },
        ]
      : [],
  );
}

const GLOBALS: readonly FlagModel[] = [
  ...flagModels(GLOBAL_ARGS),
  {
    name: "help",
    short: "h",
    description: "explain the command",
    takesValue: false,
    options: [],
    completes: "none",
  },
];

async function places(root: Group): Promise<readonly Place[]> {
  const groups: Place[] = [];
  const walk = (group: Group, path: readonly string[]) => {
    const words = visibleNames(group).map((name) => ({ name, summary: group.commands[name]?.summary ?? "" }));
    groups.push({ path, words, completes: "none", flags: [] });
    for (const { name } of words) {
      const node = group.commands[name];
      if (node !== undefined && isGroup(node)) walk(node, [...path, name]);
    }
  };
  walk(root, []);
  const topics = Object.entries(root.topics ?? {}).map(([name, summary]) => ({ name, summary }));
  const helped = groups.map((place) =>
    place.path.length === 0
      ? { ...place, path: ["help"], words: [...place.words, ...topics] }
      : { ...place, path: ["help", ...place.path] },
  );
  const leaves = (await allCommands(root))
    .filter(({ path }) => path.join(" ") !== "help")
    .map(({ path, command }) => ({
      path,
      words: staticWords(command.args),
      completes: wordsOf(command.args),
      flags: flagModels(argsOf(command)),
    }));
  return [...groups, ...helped, ...leaves];
}

/** What the words of a command are: the first of them that says so decides. */
function wordsOf(args: Args): Completes {
  const words = Object.entries(args).filter(([, arg]) => !isFlag(arg));
  for (const [key, arg] of words) {
    const found = key === "file" && arg.complete === undefined ? "file" : completes(arg);
    if (found !== "none") return found;
  }
  return "none";
}

/** Words of a positional with fixed choices, written `a|b|c` in its hint. */
function staticWords(args: Args): readonly WordModel[] {
  return Object.values(args).flatMap((arg) =>
    arg.type === "positional" && arg.hint?.includes("|") === true
      ? arg.hint.split("|").map((name) => ({ name, summary: "" }))
      : [],
  );
}

export default defineCommand({
  args: {
    shell: { type: "positional", hint: "bash|zsh|fish|install", description: "the shell; or `install`" },
    of: {
      type: "positional",
      required: false,
      hint: "SHELL",
      description: "for `install`: the shell (default: $SHELL)",
    },
    rc: { type: "boolean", description: "for `install`: add the line that the shell's start file needs" },
  },
  details:
    "The script knows commands, flags and choices. Names of secrets it asks of the running agent alone: it never " +
    "asks for a password, and nothing that is typed or named is evaluated. `install` writes the script to the place where the shell looks for " +
    "those of one user, and says what it did; a start file is changed only with --rc or when you are asked.",
  data: "{shell, script}; of install {shell, file, changed, start?: {file, line, added}}",
  examples: [
    ["source <(keyhold completion bash)", "for this shell"],
    ["keyhold completion fish > ~/.config/fish/completions/keyhold.fish", "for every fish"],
    ["keyhold completion install", "for every shell of your kind"],
  ],
  run: async (args, ctx) => {
    if (args.shell === "install") {
      const { runInstall } = await import("./completioninstall.ts");
      return runInstall(ctx, args.of, args.rc, (shell) => completionScript(ctx.root, shell));
    }
    if (args.of !== null) throw new Fault("usage", `there is nothing to do with "${args.of}"`);
    const { out, root, flags } = ctx;
    const shell = SHELLS.find((one) => one === args.shell);
    if (shell === undefined) {
      throw new Fault("usage", `there is no completion for "${args.shell}"`, {
        hint: "keyhold completion bash, zsh or fish",
      });
    }
    const script = await completionScript(root, shell);
    if (flags.json) return result({ shell, script }, () => "");
    out.bytes(script);
    return undefined;
  },
});
