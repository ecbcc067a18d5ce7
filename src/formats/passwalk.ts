import { lstat, readdir, realpath, stat } from "node:fs/promises";
import { join, sep } from "node:path";
import { Fault } from "../errors.ts";
import { FOREIGN, tooMany } from "./gathering.ts";
import { unreadable } from "./item.ts";

const FORMAT = "pass";

/** What a tree may hold at most. */
const MOST = { depth: 32, fileBytes: 24 * 1_024 * 1_024, bytes: 512 * 1_024 * 1_024 } as const;

/** One encrypted file of a tree. */
export interface PassFile {
  /** Below the root, without the ending. */
  readonly path: readonly string[];
  readonly file: string;
  readonly by: "gpg" | "age";
}

/** What was found in a tree. */
export interface PassTree {
  readonly files: readonly PassFile[];
  readonly lost: readonly string[];
}

/**
 * Finds the encrypted files of a tree, in the order of their names. What begins with a dot is no entry; links are
 * followed to files of the tree alone.
 *
 * @throws Fault bad_input, too_large
 */
export async function walkPassTree(root: string): Promise<PassTree> {
  const files: PassFile[] = [];
  const lost: string[] = [];
  let total = 0;
  const base = await realpath(root).catch(() => {
    throw unreadable(FORMAT, "there is no such directory");
  });
  if (!(await stat(base)).isDirectory()) throw unreadable(FORMAT, "it is a file, not the directory of a store");
  const walk = async (path: readonly string[]): Promise<void> => {
    if (path.length > MOST.depth) throw unreadable(FORMAT, `it nests deeper than ${MOST.depth} directories`);
    const names = await readdir(join(base, ...path)).catch(() => {
      throw unreadable(FORMAT, "a directory of it cannot be opened", "check who may read it");
    });
    names.sort();
    for (const name of names) {
      if (name.startsWith(".")) continue;
      const at = join(base, ...path, name);
      const found = await lstat(at);
      if (found.isDirectory()) await walk([...path, name]);
      else await entry(path, name, at, found.isSymbolicLink());
    }
  };
  const entry = async (path: readonly string[], name: string, at: string, isLink: boolean): Promise<void> => {
    const shown = [...path, name].join("/").replace(/\p{C}+/gu, " ");
    const file = isLink ? await linked(base, at, shown) : at;
    const target = await stat(file);
    if (target.isDirectory()) {
      lost.push(`"${shown}": a link to a directory of the tree`);
      return;
    }
    const [, title, by] = /^(.+)\.(gpg|age)$/s.exec(name) ?? [];
    if (title === undefined || !target.isFile()) {
      lost.push(`"${shown}": a file that is no encrypted entry`);
      return;
    }
    if (target.size > MOST.fileBytes) throw tooLarge(`"${shown}" has more than ${MOST.fileBytes} bytes`);
    total += target.size;
    if (total > MOST.bytes) throw tooLarge(`it has more than ${MOST.bytes} bytes`);
    if (files.length >= FOREIGN.items) throw tooMany(FORMAT);
    files.push({ path: [...path, title], file, by: by === "gpg" ? "gpg" : "age" });
  };
  await walk([]);
  if (files.length === 0) throw unreadable(FORMAT, "it holds no file that ends in .gpg or .age");
  return { files, lost };
}

function tooLarge(why: string): Fault {
  return new Fault("too_large", "cannot read this directory as pass", { why, hint: "import it in parts" });
}

async function linked(base: string, at: string, shown: string): Promise<string> {
  const target = await realpath(at).catch(() => null);
  if (target === base || target?.startsWith(base + sep)) return target;
  throw unreadable(
    FORMAT,
    `"${shown}" is a link that ${target === null ? "leads nowhere" : "leaves the tree"}`,
    "remove the link, or put the file in its place",
  );
}
