import { paint, plain } from "./text.ts";

const GAP = 2;
/** A column is not squeezed below this; a table that needs less room becomes a list of records. */
const MIN_COLUMN = 8;

/**
 * Rows under heads, fitted to `width` columns (null: no terminal, nothing is cut). Cells are made safe for terminals.
 * Too narrow a terminal gets one line a cell instead.
 */
export function table(heads: readonly string[], rows: readonly (readonly string[])[], width: number | null): string {
  const cells = rows.map((row) => heads.map((_, column) => plain(row[column] ?? "")));
  if (rows.length === 0) return "";
  const natural = heads.map((head, column) =>
    Math.max(...[head, ...cells.map((row) => row[column] ?? "")].map((text) => Bun.stringWidth(text))),
  );
  const room = width === null || width <= 0 ? Number.POSITIVE_INFINITY : width;
  const widths = columnWidths(natural, room - GAP * (heads.length - 1));
  if (widths === null) return records(heads, cells);
  const line = (row: readonly string[]) =>
    row
      .map((text, column) =>
        column === row.length - 1
          ? cut(text, widths[column] ?? 0)
          : pad(cut(text, widths[column] ?? 0), widths[column] ?? 0),
      )
      .join(" ".repeat(GAP))
      .trimEnd();
  return [paint.bold(line(heads)), ...cells.map(line)].join("\n");
}

/** Takes room from the widest columns first; null if even the least widths do not fit. */
function columnWidths(natural: readonly number[], room: number): readonly number[] | null {
  const widths = [...natural];
  let excess = widths.reduce((sum, size) => sum + size, 0) - room;
  while (excess > 0) {
    const widest = Math.max(...widths);
    if (widest <= MIN_COLUMN) return null;
    widths[widths.indexOf(widest)] = widest - 1;
    excess--;
  }
  return widths;
}

function records(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  return rows
    .map((row) => row.map((text, column) => `${paint.bold(`${heads[column] ?? ""}:`)} ${text}`).join("\n"))
    .join("\n\n");
}

function cut(text: string, width: number): string {
  if (Bun.stringWidth(text) <= width) return text;
  let out = "";
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (Bun.stringWidth(out + segment) > width - 1) break;
    out += segment;
  }
  return `${out}…`;
}

function pad(text: string, width: number): string {
  return text + " ".repeat(Math.max(0, width - Bun.stringWidth(text)));
}
