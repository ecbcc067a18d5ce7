import type { Output } from "./output.ts";
import { safeLines } from "./text.ts";
import { clipped } from "./wrap.ts";

/** Lines on stderr that are drawn anew in place. */
export interface LiveBlock {
  /** Takes the place of what was shown. */
  show(lines: readonly string[]): void;
  /** Leaves what is shown, with the cursor below it. */
  end(): void;
}

const clear = (rows: number) => (rows === 0 ? "\r\u001b[J" : `\r\u001b[${rows}A\u001b[J`);

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
      const fits = lines.slice(0, Math.max(1, rows - 2)).map((line) => clipped(safeLines(line, false), columns));
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
