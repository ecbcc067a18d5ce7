import { Fault } from "../errors.ts";
import { type Args, flagName, isFlag, takesValue } from "../ui/args.ts";
import { defineCommand, type Group, isGroup, visibleNames } from "../ui/command.ts";
import { GLOBAL_ARGS } from "../ui/flags.ts";
import { allCommands } from "../ui/help.ts";
import { result } from "../ui/output.ts";

/** What may follow a command path: the static model that each shell's script is written from. */
interface Place {
  readonly path: readonly string[];
  readonly words: readonly { readonly name: string; readonly summary: string }[];
  readonly flags: readonly FlagModel[];
}
interface FlagModel {
  readonly name: string;
  readonly short: string | null;
  readonly description: string;
  readonly takesValue: boolean;
  readonly options: readonly string[];
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
          },
        ]
      : [],
  );
}

async function places(root: Group): Promise<readonly Place[]> {
  const groups: Place[] = [];
  const walk = (group: Group, path: readonly string[]) => {
    const words = visibleNames(group).map((name) => ({ name, summary: group.commands[name]?.summary ?? "" }));
    groups.push({ path, words, flags: [] });
    for (const { name } of words) {
      const node = group.commands[name];
      if (node !== undefined && isGroup(node)) walk(node, [...path, name]);
    }
  };
  walk(root, []);
  const leaves = (await allCommands(root)).map(({ path, command }) => ({
    path,
    words:
      path.join(" ") === "help"
        ? [...visibleNames(root), "exit-codes"].map((name) => ({ name, summary: "" }))
        : staticWords(command.args),
    flags: flagModels(command.args),
  }));
  return [...groups, ...leaves];
}

/** Words of a positional with fixed choices, written `a|b|c` in its hint. */
function staticWords(args: Args): Place["words"] {
  return Object.values(args).flatMap((arg) =>
    arg.type === "positional" && arg.hint?.includes("|") === true
      ? arg.hint.split("|").map((name) => ({ name, summary: "" }))
      : [],
  );
}

const GLOBALS: readonly FlagModel[] = [
  ...flagModels(GLOBAL_ARGS),
  { name: "help", short: "h", description: "explain the command", takesValue: false, options: [] },
];

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const valueFlags = (all: readonly Place[]) => [
  ...new Set(
    [...GLOBALS, ...all.flatMap(({ flags }) => flags)].filter((flag) => flag.takesValue).map(({ name }) => `--${name}`),
  ),
];

/** Shared by bash and zsh: walks the words before the cursor, sets `place`. The typed line is only compared. */
function walker(all: readonly Place[], words: string, current: string, first: number): string {
  const known = all.map(({ path }) => quote(path.join(" "))).filter((path) => path !== "''");
  return `  local place='' word next i
  for ((i = ${first}; i < ${current}; i++)); do
    word="${words}"
    case "$word" in
      --) return 0 ;;
      ${valueFlags(all).join("|")}) ((i++)) ;;
      -*) ;;
      *)
        next="$word"
        [ -n "$place" ] && next="$place $word"
        case "$next" in
          ${known.join("|")}) place="$next" ;;
        esac
        ;;
    esac
  done`;
}

function optionCases(all: readonly Place[], indent: string, body: (options: string) => string): string {
  const seen = new Map<string, string>();
  for (const { path, flags } of all) {
    for (const { name, options } of flags)
      if (options.length > 0) seen.set(`${path.join(" ")}:--${name}`, options.join(" "));
  }
  for (const { name, options } of GLOBALS) if (options.length > 0) seen.set(`*:--${name}`, options.join(" "));
  return [...seen]
    .map(
      ([pattern, options]) =>
        `${indent}${pattern.startsWith("*:") ? `*${quote(pattern.slice(1))}` : quote(pattern)}) ${body(options)} ;;`,
    )
    .join("\n");
}

const names = (flags: readonly FlagModel[]) => flags.map(({ name }) => `--${name}`).join(" ");

function bash(all: readonly Place[]): string {
  const cases = all.map(
    ({ path, words, flags }) =>
      `    ${quote(path.join(" "))}) words=${quote(words.map(({ name }) => name).join(" "))}; flags=${quote(names(flags))} ;;`,
  );
  return `# bash completion for keyhold: source <(keyhold completion bash)
_keyhold() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="" words='' flags=''
  ((COMP_CWORD > 0)) && previous="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
${walker(all, `\${COMP_WORDS[i]}`, "COMP_CWORD", 1)}
  case "$place:$previous" in
${optionCases(all, "    ", (options) => `COMPREPLY=($(compgen -W ${quote(options)} -- "$current")); return 0`)}
  esac
  case "$previous" in
    ${valueFlags(all).join("|")}) return 0 ;;
  esac
  case "$place" in
${cases.join("\n")}
  esac
  case "$current" in
    -*) words="$flags ${names(GLOBALS)}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _keyhold keyhold
`;
}

function zsh(all: readonly Place[]): string {
  const cases = all.map(
    ({ path, words, flags }) =>
      `    ${quote(path.join(" "))}) words_here=(${words.map(({ name }) => quote(name)).join(" ")}); flags_here=(${flags.map(({ name }) => quote(`--${name}`)).join(" ")}) ;;`,
  );
  return `#compdef keyhold
# zsh completion for keyhold: source <(keyhold completion zsh), or save it as _keyhold in a directory of $fpath
_keyhold() {
  local current="\${words[CURRENT]}" previous="\${words[CURRENT-1]}"
  local -a words_here flags_here
${walker(all, `\${words[i]}`, "CURRENT", 2)}
  case "$place:$previous" in
${optionCases(all, "    ", (options) => `compadd -- ${options}; return 0`)}
  esac
  case "$previous" in
    ${valueFlags(all).join("|")}) _files; return ;;
  esac
  case "$place" in
${cases.join("\n")}
  esac
  if [[ "$current" == -* ]]; then
    compadd -- $flags_here ${GLOBALS.map(({ name }) => quote(`--${name}`)).join(" ")}
  elif ((\${#words_here})); then
    compadd -- $words_here
  else
    _files
  fi
}
if [[ "\${funcstack[1]-}" == _keyhold ]]; then
  _keyhold "$@"
else
  compdef _keyhold keyhold
fi
`;
}

const fishQuote = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;

function fish(all: readonly Place[]): string {
  const known = all.map(({ path }) => path.join(" ")).filter((path) => path !== "");
  const flagLine = (flag: FlagModel, condition: string) => {
    const short = flag.short === null ? "" : ` -s ${flag.short}`;
    const value = flag.takesValue
      ? ` -r${flag.options.length === 0 ? "" : ` -f -a ${fishQuote(flag.options.join(" "))}`}`
      : "";
    return `complete -c keyhold${condition} -l ${flag.name}${short}${value} -d ${fishQuote(flag.description)}`;
  };
  const lines = all.flatMap(({ path, words, flags }) => {
    const condition = ` -n ${fishQuote(`__keyhold_at ${fishQuote(path.join(" "))}`)}`;
    return [
      ...words.map(
        ({ name, summary }) =>
          `complete -c keyhold${condition} -f -a ${fishQuote(name)}${summary === "" ? "" : ` -d ${fishQuote(summary)}`}`,
      ),
      ...flags.map((flag) => flagLine(flag, condition)),
    ];
  });
  return `# fish completion for keyhold: keyhold completion fish | source
function __keyhold_place
    set -l place ''
    set -l skip 0
    set -l tokens (commandline -opc)
    for word in $tokens[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case --
                echo --
                return
            case ${valueFlags(all).join(" ")}
                set skip 1
            case '-*'
                continue
            case '*'
                set -l next (string trim -- "$place $word")
                if contains -- $next ${known.map(fishQuote).join(" ")}
                    set place $next
                end
        end
    end
    echo $place
end
function __keyhold_at
    test (__keyhold_place) = "$argv[1]"
end
${[...GLOBALS.map((flag) => flagLine(flag, "")), ...lines].join("\n")}
`;
}

const WRITERS = { bash, zsh, fish } as const;

export default defineCommand({
  args: { shell: { type: "positional", hint: "bash|zsh|fish", description: "the shell" } },
  details: "The script knows commands and flags; it asks nothing of this program and evaluates nothing that is typed.",
  examples: [
    ["source <(keyhold completion bash)", "for this shell"],
    ["keyhold completion fish > ~/.config/fish/completions/keyhold.fish", "for every fish"],
  ],
  run: async (args, { out, root, flags }) => {
    const shell = shellName(args.shell);
    const script = WRITERS[shell](await places(root));
    if (flags.json) return result({ shell, script }, () => "");
    out.bytes(script);
    return undefined;
  },
});

function shellName(text: string): keyof typeof WRITERS {
  if (text === "bash" || text === "zsh" || text === "fish") return text;
  throw new Fault("usage", `there is no completion for "${text}"`, { hint: "keyhold completion bash, zsh or fish" });
}
