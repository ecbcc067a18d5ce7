import { Fault } from "../errors.ts";

/** Modules of light around a code (ISO/IEC 18004 §5.3.8). */
const QUIET = 4;

/** A code's modules, true where dark, with the light around it. */
async function modulesOf(text: string): Promise<readonly (readonly boolean[])[]> {
  const { encodeQR } = await import("qr");
  return encodeQR(text, "raw", { ecc: "low", border: QUIET });
}

/** Refuses a code for which a terminal has no room. @throws Fault bad_input */
function demandRoom(needed: number, width: number | null, otherwise: string): void {
  if (width === null || needed <= width) return;
  throw new Fault("bad_input", `the code needs ${needed} columns, and the terminal has ${width}`, {
    hint: `widen the terminal, or ${otherwise}`,
  });
}

/** Refuses a text whose code {@link qrLines} could not draw. @throws Fault bad_input */
export async function demandRoomForQr(text: string, width: number | null, otherwise: string): Promise<void> {
  demandRoom((await modulesOf(text)).length, width, otherwise);
}

/**
 * A QR code in half blocks, two rows of it a line, light modules drawn: for terminals with light text on dark.
 *
 * @param options.width Columns that there are, or null. @param options.invert For terminals with dark text on light.
 * @param options.otherwise What helps where it does not fit, beside a wider terminal.
 * @throws Fault bad_input where it does not fit
 */
export async function qrLines(
  text: string,
  options: { readonly width: number | null; readonly invert: boolean; readonly otherwise?: string },
): Promise<string> {
  const modules = await modulesOf(text);
  demandRoom(modules.length, options.width, options.otherwise ?? "show it elsewhere");
  const drawn = (row: number, column: number): boolean => (modules[row]?.[column] ?? false) === options.invert;
  const lines: string[] = [];
  for (let row = 0; row < modules.length; row += 2) {
    const cells = Array.from({ length: modules.length }, (_, column) => {
      const [upper, lower] = [drawn(row, column), row + 1 < modules.length && drawn(row + 1, column)];
      return upper ? (lower ? "█" : "▀") : lower ? "▄" : " ";
    });
    lines.push(cells.join(""));
  }
  return lines.join("\n");
}

const SCALE = 8;

/** A QR code as PNG, 8 pixels a module. The caller wipes it. */
export async function qrPng(text: string): Promise<Uint8Array> {
  const modules = await modulesOf(text);
  const { encode } = await import("fast-png");
  const size = modules.length * SCALE;
  const data = new Uint8Array(size * size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      data[y * size + x] = modules[Math.floor(y / SCALE)]?.[Math.floor(x / SCALE)] ? 0 : 255;
    }
  }
  try {
    return encode({ width: size, height: size, data, channels: 1, depth: 8 });
  } finally {
    data.fill(0);
  }
}
