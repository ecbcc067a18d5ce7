/**
 * Breaks text at its spaces so that no line is wider than `width` columns (at least 20); its own line ends and the
 * indent of each line stay. A word that is wider stays whole: it is a command or a path to be copied.
 */
export function wrapped(text: string, width: number): readonly string[] {
  const limit = Math.max(20, width);
  return text.split("\n").flatMap((line) => {
    if (Bun.stringWidth(line) <= limit) return [line];
    const indent = /^ */.exec(line)?.[0] ?? "";
    const lines: string[] = [];
    let now = indent;
    for (const word of line.trim().split(/ +/)) {
      if (now === indent) now += word;
      else if (Bun.stringWidth(now) + 1 + Bun.stringWidth(word) <= limit) now += ` ${word}`;
      else {
        lines.push(now);
        now = indent + word;
      }
    }
    return [...lines, now];
  });
}

/** Words that end a command within running text. */
const AFTER_COMMAND =
  /^(?:goes|shows|lists|gives|says|keeps|prints|starts|asks|comes|makes|brings|wrote|tells|with|then|and|or|there|on|at|in|by|for|which|that|is|once|again)$/;
/** Where a command may begin: at the beginning of a line, after a colon, in brackets or marks. */
const COMMAND_START = /(?:^ *|: |\(|`)(?=keyhold [a-z])/;

/** A command at the beginning of a text: up to a mark, a gap, or a word that no command goes on with. */
function commandAt(text: string): string {
  const [plainly = ""] = /^[^`;)]*?(?=$|[`;)]| {2,}| \(|[,.:](?: |$))/.exec(text) ?? [];
  const words = plainly.trimEnd().split(" ");
  const end = words.findIndex((word, at) => at > 1 && AFTER_COMMAND.test(word));
  return (end < 0 ? words : words.slice(0, end)).join(" ");
}

/** One line that is too wide: running text is broken at spaces, each command stands on a line of its own. */
function foldedLine(line: string, width: number): readonly string[] {
  const indent = /^ */.exec(line)?.[0] ?? "";
  const lines: string[] = [];
  let rest = line.slice(indent.length);
  const say = (text: string) => {
    const trimmed = text.trim();
    if (trimmed !== "") lines.push(...wrapped(indent + trimmed, width));
  };
  for (let start = COMMAND_START.exec(rest); start !== null; start = COMMAND_START.exec(rest)) {
    const at = start.index + start[0].length;
    const command = commandAt(rest.slice(at));
    say(rest.slice(0, at).replace(/[(`]$/, ""));
    lines.push(lines.length === 0 ? indent + command : `${indent}  ${command}`);
    rest = rest.slice(at + command.length).replace(/^[`)]?[,;.]? */, "");
  }
  say(rest);
  return lines;
}

/**
 * Breaks a message as {@link wrapped} does; a command to be copied stands whole on a line of its own wherever the line
 * that has it is too wide.
 */
export function folded(text: string, width: number): readonly string[] {
  return text.split("\n").flatMap((line) => (Bun.stringWidth(line) <= width ? [line] : foldedLine(line, width)));
}

/** A line cut so that a terminal of so many columns shows it in one row. */
export function clipped(line: string, columns: number): string {
  if (Bun.stringWidth(line) < columns) return line;
  let kept = "";
  for (const letter of line) {
    if (Bun.stringWidth(kept + letter) >= columns - 1) break;
    kept += letter;
  }
  return `${kept}…`;
}

/** Columns for running text: at most 100 of the terminal's; without a terminal lines are not broken. */
export function textWidth(width: number | null): number {
  return width === null || width <= 0 ? Number.POSITIVE_INFINITY : Math.min(width, 100);
}
