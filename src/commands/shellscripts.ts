import type { Completes, CompletionModel, FlagModel, Place } from "./completion.ts";

/*
 * The three scripts only compare what is typed. Names of secrets and profiles come from `keyhold __names`, one a line;
 * they are quoted by the shell's own means and never evaluated.
 */

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const flagNames = (flags: readonly FlagModel[]) => flags.map(({ name }) => `--${name}`);

/** Flags with a value, each with the places where it has this meaning ("" stands for all). */
function valued({ places, globals }: CompletionModel): readonly { readonly at: string | null; flag: FlagModel }[] {
  return [
    ...places.flatMap(({ path, flags }) => flags.map((flag) => ({ at: path.join(" "), flag }))),
    ...globals.map((flag) => ({ at: null, flag })),
  ].filter(({ flag }) => flag.takesValue);
}

const valueFlags = (model: CompletionModel) => [...new Set(valued(model).map(({ flag }) => `--${flag.name}`))];
const pattern = (at: string | null, name: string) =>
  at === null ? `*${quote(`:--${name}`)}` : quote(`${at}:--${name}`);

/** Cases of `$place:$previous` for the values of flags. */
function valueCases(model: CompletionModel, body: (flag: FlagModel) => string): string {
  return valued(model)
    .map(({ at, flag }) => `    ${pattern(at, flag.name)}) ${body(flag)}; return 0 ;;`)
    .join("\n");
}

const known = (places: readonly Place[]) =>
  places.map(({ path }) => path.join(" ")).filter((path) => path !== "" && path !== "help");

/** Shared by bash and zsh: walks the words before the cursor; sets `place` and `profile`. */
function walker(model: CompletionModel, words: string, current: string, first: number, rest: string): string {
  return `  local place='' profile='' word next i
  for ((i = ${first}; i < ${current}; i++)); do
    word="${words.replace("@", "i")}"
    case "$word" in
      --) ${rest} ;;
      --profile=*) profile="\${word#--profile=}" ;;
      ${valueFlags(model).join("|")})
        ((i++))
        [ "${words.replace("@", "i")}" = '=' ] && ((i++))
        [ "$word" = --profile ] && profile="${words.replace("@", "i")}"
        ;;
      -*|=) ;;
      *)
        next="$word"
        [ -n "$place" ] && next="$place $word"
        case "$next" in
          ${[...known(model.places), "help"].map(quote).join("|")}) place="$next" ;;
        esac
        ;;
    esac
  done`;
}

/** Bash: needs 3.2 or later, and no bash-completion. */
export function bash(model: CompletionModel): string {
  const { places, globals } = model;
  const what = (completes: Completes): string => {
    if (completes === "file") return "_keyhold_files -f";
    if (completes === "directory") return "_keyhold_files -d";
    return completes === "none" ? ":" : `_keyhold_names ${completes}`;
  };
  const ofFlag = ({ options, completes }: FlagModel) =>
    options.length === 0 ? what(completes) : `_keyhold_choose ${quote(options.join(" "))}`;
  const cases = places.map(
    ({ path, words, flags, completes }) =>
      `    ${quote(path.join(" "))}) words=${quote(words.map(({ name }) => name).join(" "))}; flags=${quote(flagNames(flags).join(" "))}; what=${quote(what(completes))} ;;`,
  );
  return `# bash completion for keyhold: source <(keyhold completion bash)
_keyhold_choose() {
  local choice
  for choice in $1; do
    [[ "$choice" == "$current"* ]] && COMPREPLY+=("$choice")
  done
}
_keyhold_files() {
  # readline completes and quotes the names of files itself
  compopt -o default 2>/dev/null
  [ "$1" = -d ] && compopt -o dirnames +o default 2>/dev/null
}
_keyhold_names() {
  local name typed="$whole" inside='' cut='' kind="$1"
  case "$typed" in
    \\'*) inside="'"; typed="\${typed:1}" ;;
    \\"*) inside='"'; typed="\${typed:1}" ;;
    *) typed="\${typed//\\\\/}" ;;
  esac
  [[ "$kind" == reference && "$typed" != kh:* ]] && kind=secret
  # readline replaces only what stands behind the last of these
  [[ -z "$inside" && "$whole" == *[:=@]* ]] && cut="\${whole%"\${whole##*[:=@]}"}"
  while IFS= read -r name; do
    [[ "$name" == "$typed"* ]] || continue
    case "$inside" in
      "'") [[ "$name" == *"'"* ]] && continue ;;
      '"') [[ "$name" == *[\\"\\$\\\`\\\\\\!]* ]] && continue ;;
      *) printf -v name %q "$name"; name="\${name#"$cut"}" ;;
    esac
    COMPREPLY+=("$name")
  done < <(command keyhold __names "$kind" "$profile" 2>/dev/null </dev/null)
}
_keyhold() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous='' words='' flags='' what=':' whole at line="\${COMP_LINE:0:COMP_POINT}"
  COMPREPLY=()
  ((COMP_CWORD > 0)) && previous="\${COMP_WORDS[COMP_CWORD-1]}"
  # "=" and ":" part words; these are joined again
  whole="$current"
  if [ "$current" = '=' ]; then
    current=''
    [[ "$previous" == -* ]] && whole=''
  elif [ "$previous" = '=' ] && ((COMP_CWORD > 1)); then
    previous="\${COMP_WORDS[COMP_CWORD-2]}"
  fi
  for ((at = COMP_CWORD - 1; at > 0; at--)); do
    [[ "\${COMP_WORDS[at]}" == -* || "\${COMP_WORDS[at]}\${COMP_WORDS[at-1]}" == =-* ]] && break
    [[ "$line" == *"\${COMP_WORDS[at]}$whole" ]] || break
    whole="\${COMP_WORDS[at]}$whole"
  done
  compopt +o default 2>/dev/null
${walker(model, `\${COMP_WORDS[@]}`, "COMP_CWORD", 1, "_keyhold_files -f; return 0")}
  case "$place:$previous" in
${valueCases(model, ofFlag)}
  esac
  case "$place" in
${cases.join("\n")}
  esac
  case "$current" in
    -*) _keyhold_choose "$flags ${flagNames(globals).join(" ")}" ;;
    *) _keyhold_choose "$words"; $what ;;
  esac
  return 0
}
complete -o default -F _keyhold keyhold
`;
}

/** Zsh: as a file in \`$fpath\` or sourced. */
export function zsh(model: CompletionModel): string {
  const { places, globals } = model;
  const what = (completes: Completes): string => {
    if (completes === "file") return "_files";
    if (completes === "directory") return "_files -/";
    return completes === "none" ? ":" : `_keyhold_names ${completes}`;
  };
  const ofFlag = ({ options, completes }: FlagModel) =>
    options.length === 0 ? what(completes) : `compadd -- ${options.map(quote).join(" ")}`;
  const described = (rows: readonly (readonly [string, string])[]) =>
    rows.map(([name, text]) => quote(text === "" ? name : `${name}:${text.replaceAll(":", "\\:")}`)).join(" ");
  const ofFlags = (flags: readonly FlagModel[]) =>
    described(flags.map(({ name, description }) => [`--${name}`, description]));
  const cases = places.map(
    ({ path, words, flags, completes }) =>
      `    ${quote(path.join(" "))}) words_here=(${described(words.map(({ name, summary }) => [name, summary]))}); flags_here=(${ofFlags(flags)}); what=(${what(completes)}) ;;`,
  );
  return `#compdef keyhold
# zsh completion for keyhold: source <(keyhold completion zsh), or save it as _keyhold in a directory of $fpath
_keyhold_names() {
  local kind="$1"
  local -a names
  [[ "$kind" == reference && "$PREFIX" != kh:* ]] && kind=secret
  names=("\${(@f)$(command keyhold __names "$kind" "$profile" 2>/dev/null </dev/null)}")
  names=("\${(@)names:#}")
  compadd -a names
}
_keyhold() {
  local current="\${words[CURRENT]}" previous="\${words[CURRENT-1]}"
  local -a words_here flags_here what
  what=(:)
  if [[ "$current" == --?*=* ]]; then
    previous="\${current%%=*}"
    compset -P 1 '*='
  fi
${walker(model, `\${words[@]}`, "CURRENT", 2, `words=("\${(@)words[i+1,-1]}"); ((CURRENT -= i)); _normal; return`)}
  case "$place:$previous" in
${valueCases(model, ofFlag)}
  esac
  case "$place" in
${cases.join("\n")}
  esac
  if [[ "$current" == -* ]]; then
    flags_here+=(${ofFlags(globals)})
    _describe -o flag flags_here
  else
    ((\${#words_here})) && _describe command words_here
    $what
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

/** Fish 3.0 or later. */
export function fish(model: CompletionModel): string {
  const { places, globals } = model;
  const ofKind = (completes: Completes): string => {
    if (completes === "file") return " -F";
    if (completes === "directory") return " -f -a '(__fish_complete_directories)'";
    return completes === "none" ? " -f" : ` -f -a '(__keyhold_names ${completes})'`;
  };
  const flagLine = (flag: FlagModel, condition: string) => {
    const short = flag.short === null ? "" : ` -s ${flag.short}`;
    const choices = flag.options.length === 0 ? ofKind(flag.completes) : ` -f -a ${fishQuote(flag.options.join(" "))}`;
    const value = flag.takesValue ? ` -r${choices}` : "";
    return `complete -c keyhold${condition} -l ${flag.name}${short}${value} -d ${fishQuote(flag.description)}`;
  };
  const lines = places.flatMap(({ path, words, flags, completes }) => {
    const condition = ` -n ${fishQuote(`__keyhold_at ${fishQuote(path.join(" "))}`)}`;
    return [
      ...words.map(
        ({ name, summary }) =>
          `complete -c keyhold${condition} -f -a ${fishQuote(name)}${summary === "" ? "" : ` -d ${fishQuote(summary)}`}`,
      ),
      ...(completes === "none" ? [] : [`complete -c keyhold${condition}${ofKind(completes)}`]),
      ...flags.map((flag) => flagLine(flag, condition)),
    ];
  });
  return `# fish completion for keyhold: keyhold completion fish | source
function __keyhold_walk
    set -g __keyhold_place ''
    set -g __keyhold_profile ''
    set -l skip ''
    set -l tokens (commandline -opc)
    for word in $tokens[2..-1]
        if test -n "$skip"
            test "$skip" = --profile; and set -g __keyhold_profile $word
            set skip ''
            continue
        end
        switch $word
            case --
                set -g __keyhold_place --
                return
            case '--profile=*'
                set -g __keyhold_profile (string replace -- --profile= '' $word)
            case ${valueFlags(model).join(" ")}
                set skip $word
            case '-*'
                continue
            case '*'
                set -l next (string trim -- "$__keyhold_place $word")
                if contains -- "$next" ${[...known(places), "help"].map(fishQuote).join(" ")}
                    set -g __keyhold_place $next
                end
        end
    end
end
function __keyhold_at
    __keyhold_walk
    test "$__keyhold_place" = "$argv[1]"
end
function __keyhold_names
    __keyhold_walk
    set -l kind $argv[1]
    if test $kind = reference; and not string match -q 'kh:*' -- (commandline -ct)
        set kind secret
    end
    command keyhold __names $kind "$__keyhold_profile" 2>/dev/null </dev/null
end
complete -c keyhold -f
complete -c keyhold -n '__keyhold_at --' -F
${[...globals.map((flag) => flagLine(flag, "")), ...lines].join("\n")}
`;
}
