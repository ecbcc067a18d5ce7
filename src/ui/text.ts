/** Control, format and separator characters that could change what a terminal shows or hides. */
const UNSAFE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** The colour sequences that {@link paint} writes; everything else that starts with ESC is escaped. */
const OWN_SEQUENCE = /(\u001b\[(?:0|1|2|22|31|32|33|36|39)m)/;

function visible(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\r") return "\\r";
  if (character === "\t") return "\\t";
  const code = character.charCodeAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** Makes untrusted text one safe line: control, direction and invisible characters become `\xNN` or `\uNNNN`. */
export function plain(text: string): string {
  return text.replace(UNSAFE, visible);
}

/** Like {@link plain} for text of several lines: keeps `\n`, `\t` and, with `color`, the sequences of {@link paint}. */
export function safeLines(text: string, color: boolean): string {
  return text
    .split(OWN_SEQUENCE)
    .map((part, index) => {
      if (index % 2 === 1) return color ? part : "";
      return part.replace(UNSAFE, (character) =>
        character === "\n" || character === "\t" ? character : visible(character),
      );
    })
    .join("");
}

const wrap = (open: number, close: number) => (text: string) => `\u001b[${open}m${text}\u001b[${close}m`;

/** Colours for human output; the output layer removes them where colour is off. */
export const paint = {
  bold: wrap(1, 22),
  dim: wrap(2, 22),
  red: wrap(31, 39),
  green: wrap(32, 39),
  yellow: wrap(33, 39),
  cyan: wrap(36, 39),
} as const;

export type ColorMode = "auto" | "always" | "never";

/**
 * Whether a stream gets colour (docs/cli.md §2): `--color` decides, then NO_COLOR, FORCE_COLOR, TERM=dumb, then
 * whether the stream is a terminal. Empty variables count as absent.
 */
export function wantsColor(
  mode: ColorMode,
  env: Readonly<Record<string, string | undefined>>,
  isTerminal: boolean,
): boolean {
  if (mode !== "auto") return mode === "always";
  if (env["NO_COLOR"]) return false;
  const force = env["FORCE_COLOR"];
  if (force) return force !== "0" && force !== "false";
  return env["TERM"] !== "dumb" && isTerminal;
}

/** UTF-8 as text, a byte order mark at its start included. */
export function decodeText(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** The member of `names` that is nearest to `text`, or null when none is near enough to be meant. */
export function nearest(text: string, names: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(1, Math.floor(text.length / 2)) + 0.5;
  for (const name of names) {
    const distance = editDistance(text, name);
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best ?? names.find((name) => text.length > 1 && name.startsWith(text)) ?? null;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let cost = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
      );
      if (a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return last[b.length] ?? 0;
}
