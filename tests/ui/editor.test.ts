import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fault } from "../../src/errors.ts";
import { type EditorContext, withDraft } from "../../src/ui/editor.ts";

let dir: string;
let runtime: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-editor-"));
  runtime = join(dir, "runtime");
  mkdirSync(runtime, { mode: 0o700 });
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function script(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, `#!/bin/bash\n${text}\n`);
  chmodSync(path, 0o700);
  return path;
}

function context(editor: string, env: Record<string, string> = {}): EditorContext {
  const all = {
    PATH: `${dir}:${process.env["PATH"] ?? ""}`,
    XDG_RUNTIME_DIR: runtime,
    EDITOR: editor,
    OUT: dir,
    ...env,
  };
  const dirs = { config: dir, data: dir, state: join(dir, "state"), runtime: dir, server: dir };
  return { env: all, inherited: all, dirs, onTerminate: () => undefined, out: {} } as unknown as EditorContext;
}

const args = () => readFileSync(join(dir, "args"), "utf8").trimEnd().split("\n");
const ARGS = 'printf "%s\\n" "$@" > "$OUT/args"';

describe("a draft", () => {
  test("is overwritten, whatever the editor made of it and beside it", async () => {
    const editor = script(
      "editor",
      `ln "$1" "$OUT/first"; cp "$1" "$1.bak"; ln "$1.bak" "$OUT/backup"; mkdir "$(dirname "$1")/sub"
cp "$1" "$(dirname "$1")/sub/swap"; ln "$(dirname "$1")/sub/swap" "$OUT/swap"; echo more >> "$1"`,
    );
    const left = await withDraft(context(editor), "secret\n", (draft) => draft.edit());
    expect(left).toBe("secret\nmore\n");
    for (const name of ["first", "backup", "swap"]) {
      const bytes = readFileSync(join(dir, name));
      expect([name, bytes.length > 0, bytes.every((byte) => byte === 0)]).toEqual([name, true, true]);
    }
    expect(readdirSync(runtime)).toEqual([]);
  });

  test("lies in the runtime directory, where that is the user's own, and never in one that others write to", async () => {
    const editor = script("editor", `dirname "$1" > "$OUT/where"; stat -c %a "$1" "$(dirname "$1")" >> "$OUT/where"`);
    await withDraft(context(editor), "x", (draft) => draft.edit());
    const [where = "", ...modes] = readFileSync(join(dir, "where"), "utf8").trimEnd().split("\n");
    expect(where).toStartWith(`${runtime}/keyhold-edit-${process.pid}-`);
    expect(modes).toEqual(["600", "700"]);
    chmodSync(runtime, 0o777);
    await withDraft(context(editor), "x", (draft) => draft.edit());
    expect(readFileSync(join(dir, "where"), "utf8")).not.toStartWith(runtime);
    expect(existsSync(readFileSync(join(dir, "where"), "utf8").split("\n")[0] ?? "")).toBe(false);
  });

  test("goes also when the work fails, and nothing that another process edits", async () => {
    const stale = join(runtime, "keyhold-edit-4194305-abcdef");
    const alive = join(runtime, `keyhold-edit-${process.ppid}-abcdef`);
    const other = join(runtime, "keyhold-editor-4194305");
    for (const path of [stale, alive, other]) {
      mkdirSync(path);
      writeFileSync(join(path, "record.txt"), "old");
    }
    await expect(withDraft(context("true"), "x", () => Promise.reject(new Error("fails")))).rejects.toThrow("fails");
    expect(readdirSync(runtime).sort()).toEqual([alive, other].map((path) => path.slice(runtime.length + 1)).sort());
  });

  test("an editor that fails, is missing or leaves no text is told apart", async () => {
    const failing = async (editor: string): Promise<Fault> => {
      try {
        await withDraft(context(editor), "x", (draft) => draft.edit());
      } catch (error) {
        if (error instanceof Fault) return error;
        throw error;
      }
      throw new Error("no fault");
    };
    expect((await failing("false")).code).toBe("interrupted");
    expect((await failing("/nowhere/editor")).why).toContain("no command");
    expect((await failing(script("bytes", `printf '\\xff' > "$1"`))).code).toBe("bad_input");
    expect((await failing(script("removes", `rm "$1"`))).code).toBe("not_found");
    expect((await failing(script("long", `head -c 1048577 /dev/zero > "$1"`))).code).toBe("too_large");
    expect(readdirSync(runtime)).toEqual([]);
  });
});

describe("the editor's command line", () => {
  const run = (editor: string, env: Record<string, string> = {}) =>
    withDraft(context(editor, env), "x", async (draft) => {
      await draft.edit();
      return args();
    });

  test("VISUAL comes before EDITOR; words and variables of it are kept", async () => {
    const mine = script("mine", `${ARGS}; echo "$FOO" > "$OUT/foo"; echo "$TMPDIR" > "$OUT/tmp"`);
    expect(await run("false", { VISUAL: `FOO=bar ${mine} --flag` })).toEqual([
      "--flag",
      expect.stringContaining(runtime),
    ]);
    expect(readFileSync(join(dir, "foo"), "utf8")).toBe("bar\n");
    expect(readFileSync(join(dir, "tmp"), "utf8")).toStartWith(runtime);
  });

  test("vim writes no copies; editors with windows wait", async () => {
    const vim = await run(script("vim", ARGS));
    expect(vim.slice(0, 4)).toEqual(["-n", "-i", "NONE", "-c"]);
    expect(vim.join(" ")).toMatch(/nobackup.*noswapfile.*noundofile/);
    script("code", ARGS);
    expect((await run("code")).slice(0, -1)).toEqual(["--wait"]);
    expect((await run("code --wait -n")).slice(0, -1)).toEqual(["--wait", "-n"]);
    expect(await run(script("nano", ARGS))).toHaveLength(1);
  });

  test("has no variables of keyhold's own", async () => {
    const env = { KEYHOLD_PROFILE: "x", BUN_BE_BUN: "1" };
    await run(script("dump", `${ARGS}; env > "$OUT/env"`), env);
    expect(readFileSync(join(dir, "env"), "utf8")).not.toMatch(/^(KEYHOLD|BUN)_/m);
    expect(statSync(join(dir, "env")).size).toBeGreaterThan(0);
  });
});
