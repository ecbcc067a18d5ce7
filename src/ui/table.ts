import { isPrintableAscii, paint, plain } from "./text.ts";

/** Made with the first text that needs it: making it takes milliseconds. */
let graphemes: Intl.Segmenter | undefined;
const GAP = 2;
/** A column is not squeezed below this; a table that needs less room becomes a list of records. */
const MIN_COLUMN = 8;

/**
 * Rows under heads, fitted to `width` columns (null: no terminal, nothing is cut). Cells are made safe for terminals.
 * Too narrow a terminal gets one line a cell instead.
 */
export function table(heads: readonly string[], rows: readonly (readonly string[])[], width: number | null): string {
  if (rows.length === 0) return "";
  const measured = rows.map((row) => measure(row, heads.length));
  const head: Row = { cells: heads, sizes: heads.map(widthOf) };
  const room = width === null || width <= 0 ? Number.POSITIVE_INFINITY : width;
  const widths = columnWidths(naturalWidths([head, ...measured]), room - GAP * (heads.length - 1));
  if (widths === null) {
    return records(
      heads,
      measured.map(({ cells }) => cells),
    );
  }
  return [paint.bold(line(head, widths)), ...measured.map((row) => line(row, widths))].join("\n");
}

/** A row made safe. */
interface Row {
  readonly cells: readonly string[];
  /** Columns that each cell takes; null where it is one a character. */
  readonly sizes: readonly number[] | null;
}

function measure(row: readonly string[], columns: number): Row {
  const cells = row.length === columns ? row : Array.from({ length: columns }, (_, column) => row[column] ?? "");
  if (isPrintableAscii(cells.join(""))) return { cells, sizes: null };
  const safe = cells.map(plain);
  return { cells: safe, sizes: safe.map(widthOf) };
}

function naturalWidths(rows: readonly Row[]): number[] {
  const widths: number[] = [];
  for (const { cells, sizes } of rows) {
    for (let column = 0; column < cells.length; column++) {
      const size = sizes?.[column] ?? cells[column]?.length ?? 0;
      if (size > (widths[column] ?? 0)) widths[column] = size;
      else widths[column] ??= 0;
    }
  }
  return widths;
}

function line({ cells, sizes }: Row, widths: readonly number[]): string {
  let out = "";
  for (let column = 0; column < cells.length; column++) {
    const most = widths[column] ?? 0;
    let text = cells[column] ?? "";
    let size = sizes?.[column] ?? text.length;
    if (size > most) {
      text = cut(text, most);
      size = widthOf(text);
    }
    if (column === cells.length - 1) out += text;
    else out += text.padEnd(text.length + most - size + GAP);
  }
  return out.trimEnd();
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

/** The start of a text that is wider than `width` columns. */
function cut(text: string, width: number): string {
  if (isPrintableAscii(text)) return `${text.slice(0, Math.max(0, width - 1))}…`;
  graphemes ??= new Intl.Segmenter();
  let out = "";
  let used = 0;
  for (const { segment } of graphemes.segment(text)) {
    used += Bun.stringWidth(segment);
    if (used > width - 1) break;
    out += segment;
  }
  return `${out}…`;
}

/** Columns that a safe text takes. */
function widthOf(text: string): number {
  return isPrintableAscii(text) ? text.length : Bun.stringWidth(text);
}
