import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Fault } from "../../src/errors.ts";
import { outFile, putFile } from "../../src/ui/outfile.ts";
import { withDirectory } from "../cli/support.ts";

const args = (out: string | null, mode: string | null = null, force = false) => ({ out, mode, force });
const bytes = new TextEncoder().encode("hunter22");

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault) return error.code;
    throw error;
  }
  return "done";
}

describe("--out, --mode, --force", () => {
  test("stdout takes neither mode nor force", () => {
    expect([outFile(args(null)), outFile(args("-"))]).toEqual([null, null]);
    for (const bad of [args(null, "0600"), args("-", "0600"), args(null, null, true), args("")]) {
      expect([bad, codeOf(() => outFile(bad))]).toEqual([bad, "usage"]);
    }
  });

  test("a mode is octal, lets the owner read, and not everybody write", async () => {
    await withDirectory((directory) => {
      const out = join(directory, "f");
      for (const [mode, bits] of [
        [null, 0o600],
        ["0600", 0o600],
        ["640", 0o640],
        ["0400", 0o400],
        ["0755", 0o755],
      ] as const) {
        expect(outFile(args(out, mode))?.mode).toBe(bits);
      }
      for (const mode of [
        "",
        "8",
        "60",
        "0o600",
        "4755",
        "04600",
        "rw-",
        "0602",
        "0666",
        "0777",
        "0200",
        "000",
        "+600",
      ]) {
        expect([mode, codeOf(() => outFile(args(out, mode)))]).toEqual([mode, "usage"]);
      }
    });
  });

  test("what is in the way is refused before anything is read", async () => {
    await withDirectory((directory) => {
      const [file, link, folder] = [join(directory, "file"), join(directory, "link"), join(directory, "folder")];
      writeFileSync(file, "old");
      symlinkSync(file, link);
      mkdirSync(folder);
      const code = (path: string, force = false) => codeOf(() => outFile(args(path, null, force)));
      expect([code(file), code(file, true)]).toEqual(["exists", "done"]);
      expect([code(link), code(link, true), code(folder), code(folder, true)]).toEqual(Array(4).fill("denied"));
      expect([code("/dev/null", true), code(join(directory, "none", "f")), code(join(file, "f"))]).toEqual([
        "denied",
        "not_found",
        "not_found",
      ]);
    });
  });
});

describe("putFile", () => {
  test("makes a file of the mode asked for, whatever the umask", async () => {
    await withDirectory((directory) => {
      for (const mode of [0o600, 0o640, 0o644, 0o400]) {
        const path = join(directory, `f${mode}`);
        putFile({ path, mode, force: false }, bytes);
        expect([statSync(path).mode & 0o7777, readFileSync(path, "utf8")]).toEqual([mode, "hunter22"]);
      }
      expect(readdirSync(directory).filter((name) => name.startsWith("."))).toEqual([]);
    });
  });

  test("replaces only by force, and then whole: another name of the old file keeps its content", async () => {
    await withDirectory((directory) => {
      const path = join(directory, "f");
      writeFileSync(path, "old");
      chmodSync(path, 0o644);
      const before = lstatSync(path).ino;
      expect(codeOf(() => putFile({ path, mode: 0o600, force: false }, bytes))).toBe("exists");
      expect(readFileSync(path, "utf8")).toBe("old");
      putFile({ path, mode: 0o600, force: true }, bytes);
      expect([readFileSync(path, "utf8"), statSync(path).mode & 0o777]).toEqual(["hunter22", 0o600]);
      expect(lstatSync(path).ino).not.toBe(before);
      expect(readdirSync(directory)).toEqual(["f"]);
    });
  });

  test("a link that appeared meanwhile is not followed", async () => {
    await withDirectory((directory) => {
      const [path, elsewhere] = [join(directory, "f"), join(directory, "elsewhere")];
      symlinkSync(elsewhere, path);
      for (const force of [false, true]) {
        expect(codeOf(() => putFile({ path, mode: 0o600, force }, bytes))).toBe("denied");
      }
      expect([existsSync(elsewhere), readdirSync(directory)]).toEqual([false, ["f"]]);
    });
  });

  test("a failure leaves nothing: no directory, or a name too long", async () => {
    await withDirectory((directory) => {
      const at = (path: string) => codeOf(() => putFile({ path, mode: 0o600, force: false }, bytes));
      expect(at(join(directory, "none", "f"))).toBe("not_found");
      expect(at(join(directory, "x".repeat(300)))).toBe("storage");
      // as long as a name may be
      expect(at(join(directory, "x".repeat(255)))).toBe("done");
      expect(readdirSync(directory)).toEqual(["x".repeat(255)]);
    });
  });
});
