import type { Output } from "./output.ts";
import { safeLines } from "./text.ts";

/** Lines on stderr that are drawn anew in place. */
export interface LiveBlock {
  /** Takes the place of what was shown. */
  show(lines: readonly string[]): void;
  /** Leaves what is shown, with the cursor below it. */
  end(): void;
}

const clear = (rows: number) => (rows === 0 ? "\r\u001b[J" : `\r\u001b[${rows}A\u001b[J`);

/** Cut to what a terminal shows in one row, so that rows can be counted. */
function cut(line: string, columns: number): string {
  if (Bun.stringWidth(line) < columns) return line;
  let kept = "";
  for (const letter of line) {
    if (Bun.stringWidth(kept + letter) >= columns - 1) break;
    kept += letter;
  }
  return `${kept}…`;
}

/**
 * A block of lines on a terminal; not to be mixed with other output before its end. Where stderr cannot be animated,
 * nothing is drawn: say what changed by notices.
 *
 * @param size Columns and rows of the terminal now.
 */
export function liveBlock(out: Output, size: () => { readonly columns: number; readonly rows: number }): LiveBlock {
  let drawn = 0;
  let last = "";
  return {
    show(lines) {
      const { columns, rows } = size();
      const fits = lines.slice(0, Math.max(1, rows - 2)).map((line) => cut(safeLines(line, false), columns));
      const text = fits.join("\n");
      if (text === last) return;
      out.draw(`${clear(drawn)}${text}\n`);
      drawn = fits.length;
      last = text;
    },
    end() {
      drawn = 0;
      last = "";
    },
  };
}
