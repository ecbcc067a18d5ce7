/**
 * What could change what a terminal shows or hides: control, format (direction, zero width, tags) and separator
 * characters, lone surrogates, and letters and marks that are not drawn (joiners, fillers).
 */
const UNSAFE =
  /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u115f\u1160\u2065\u3164\uffa0\u{e0000}-\u{e0fff}]|\u034f|\u17b4|\u17b5/gu;

const PRINTABLE_ASCII = /^[ -~]*$/;

/** The colour sequences that {@link paint} writes; everything else that starts with ESC is escaped. */
const OWN_SEQUENCE = /(\u001b\[(?:0|1|2|22|31|32|33|36|39)m)/;

function visible(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\r") return "\\r";
  if (character === "\t") return "\\t";
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x1_0000 ? `\\u${hex.padStart(4, "0")}` : `\\u{${hex}}`;
}

/** Makes untrusted text one safe line: control, direction and invisible characters become `\xNN`, `\uNNNN` or `\u{N}`. */
export function plain(text: string): string {
  return isPrintableAscii(text) ? text : text.replace(UNSAFE, visible);
}

/** True for text of visible ASCII characters and spaces alone: safe as it is, a column a character. */
export function isPrintableAscii(text: string): boolean {
  return PRINTABLE_ASCII.test(text);
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
