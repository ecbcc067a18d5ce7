import { type Stats, statSync } from "node:fs";
import { basename } from "node:path";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { ForeignFormat, FormatName } from "../formats/index.ts";
import type { ReadResult } from "../formats/item.ts";
import { SNIFF_BYTES } from "../formats/sniff.ts";
import type { Context } from "../ui/command.ts";
import { readSecretFile, readStandardInput } from "../ui/password.ts";
import type { ArchiveKeys } from "./archivekeys.ts";

/** What is to be imported: a path, or `-`, and what the flags say of it. */
export interface Source {
  readonly path: string;
  readonly from: FormatName | null;
  readonly name: string | null;
  readonly map: ReadonlyMap<string, string>;
}

/** Reads a file or directory by the format that it shows, or that is named. @throws Fault bad_input, too_large, … */
export async function readSource(
  ctx: Pick<Context, "stdin">,
  source: Source,
  keys: ArchiveKeys,
): Promise<ReadResult & { format: ForeignFormat }> {
  const { formatNamed, factsOf, sniffFormat } = await import("../formats/index.ts");
  const { path } = source;
  const tree = path !== "-" && statOf(path)?.isDirectory() === true;
  const start = tree
    ? new Uint8Array(0)
    : path === "-"
      ? readAll(ctx, path)
      : readSecretFile(path, SNIFF_BYTES, "accept");
  let whole: Uint8Array | undefined;
  try {
    const named = source.from ?? (await sniffFormat(start, path === "-" ? "" : path));
    if (named === null) throw unknown(tree);
    const facts = factsOf(named);
    if ((facts.kind === "tree") !== tree) {
      throw new Fault("bad_input", `cannot read ${tree ? "a directory" : "a file"} as ${named}`, {
        hint: tree ? "name the file, not its directory" : "name the directory",
      });
    }
    const format = await formatNamed(named);
    if (format.read === undefined) throw new Fault("bad_input", `${named} is written, and not read`);
    if (!tree) whole = path === "-" ? start : readAll(ctx, path, facts.fileBytes);
    if ((whole?.length ?? 0) > facts.fileBytes) {
      throw new Fault("too_large", `a file to import as ${named} has at most ${facts.fileBytes / 1_024} KiB`, {
        hint: "export and import it in parts",
      });
    }
    const own = path === "-" ? null : basename(path).replace(/\.[A-Za-z0-9]{1,8}$/, "");
    const name = format.kind === "single" ? (source.name ?? own) : null;
    return { ...(await format.read(whole ?? path, { name, map: source.map, asks: keys })), format };
  } finally {
    wipe(start, whole);
  }
}

/** A file as it is now, or stdin; one byte more than `limit` where it is longer. */
function readAll(ctx: Pick<Context, "stdin">, path: string, limit = STDIN_BYTES): Uint8Array {
  if (path === "-") return readStandardInput(ctx, "the file to import", limit + 1);
  const size = statOf(path)?.size ?? 0;
  return readSecretFile(path, Math.min(limit, size) + 1, "accept");
}

/** What is known of a path; where nothing is, opening it tells why. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/** More than any format takes. */
const STDIN_BYTES = 129 * 1_024 * 1_024;

function unknown(tree: boolean): Fault {
  return new Fault("bad_input", `cannot tell the ${tree ? "directory" : "file"}'s format`, {
    why: "nothing in it names one",
    hint: tree ? "--from pass" : "--from raw, hex, base64, len8 or csv   (keyhold help formats)",
  });
}

/** `--map name=COLUMN,user=COLUMN`. @throws Fault usage */
export function mapOf(text: string | null): ReadonlyMap<string, string> {
  const map = new Map<string, string>();
  for (const pair of text === null ? [] : text.split(",")) {
    const at = pair.indexOf("=");
    const [name, column] = [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    if (at < 1 || name === "" || column === "" || map.has(name)) {
      throw new Fault("usage", "--map takes pairs such as name=Title,user=Login", { hint: "--map name=COLUMN,…" });
    }
    map.set(name, column);
  }
  return map;
}
