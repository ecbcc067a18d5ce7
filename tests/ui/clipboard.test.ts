import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { clipboardWay, copyToClipboard } from "../../src/ui/clipboard.ts";
import { run, withDirectory } from "../cli/support.ts";

const value = new TextEncoder().encode("hunter22 grün");

/** A directory with programs that stand for clipboards: they keep what they get in a file of their own. */
function fakes(directory: string, names: Readonly<Record<string, string>>): Record<string, string> {
  const bin = join(directory, "bin");
  mkdirSync(bin);
  for (const [name, body] of Object.entries(names)) {
    writeFileSync(join(bin, name), `#!/bin/sh\necho "$0 $*" >>"${directory}/log"\n${body}\n`, { mode: 0o700 });
  }
  return { PATH: `${bin}:/usr/bin:/bin` };
}

const xclip = (directory: string) =>
  `case "$*" in *-o*) cat "${directory}/clip";; *) cat >"${directory}/clip.new"; mv "${directory}/clip.new" "${directory}/clip";; esac`;

async function until(done: () => boolean): Promise<void> {
  while (!done()) await Bun.sleep(20);
}

describe("ladder", () => {
  const device = "/dev/null/none";
  test("is known before anything is copied; a terminal counts only if it opens, where that is asked", async () => {
    await withDirectory(async (directory) => {
      const none = { PATH: directory, TERM: "xterm" };
      expect(clipboardWay(none, "linux")).toContain("OSC 52");
      expect(clipboardWay(none, "linux", "/dev/null")).toContain("OSC 52");
      expect(clipboardWay(none, "linux", device)).toBeNull();
      expect(clipboardWay({ ...none, TERM: "dumb" }, "linux", "/dev/null")).toBeNull();
      const env = { ...fakes(directory, { xclip: "exit 0" }), DISPLAY: ":9" };
      expect(clipboardWay(env, "linux", device)).toBe("xclip");
    });
  });

  test("takes the first that works; the value goes by stdin, never argv", async () => {
    await withDirectory(async (directory) => {
      const env = {
        ...fakes(directory, { "wl-copy": "exit 1", xclip: xclip(directory), xsel: "exit 0" }),
        DISPLAY: ":9",
        WAYLAND_DISPLAY: "w",
      };
      const copied = await copyToClipboard({ value, clearAfterMs: 0, env, device, platform: "linux" });
      expect(copied).toMatchObject({ via: "xclip", confirmed: true, clearsAfterMs: null });
      expect(new Uint8Array(readFileSync(join(directory, "clip")))).toEqual(value);
      const log = readFileSync(join(directory, "log"), "utf8");
      expect(log).not.toContain("hunter22");
      expect(log).not.toContain("xsel");
    });
  });

  test("clip.exe gets UTF-16 where the text is not ASCII", async () => {
    await withDirectory(async (directory) => {
      const env = { ...fakes(directory, { "clip.exe": `cat >"${directory}/clip"` }), WSL_DISTRO_NAME: "Debian" };
      expect(await copyToClipboard({ value, clearAfterMs: 0, env, device, platform: "linux" })).toMatchObject({
        via: "clip.exe",
      });
      expect(readFileSync(join(directory, "clip")).toString("utf16le")).toBe("\ufeffhunter22 grün");
    });
  });

  test("clip.exe gets a byte order mark that is the value's own beside its own", async () => {
    await withDirectory(async (directory) => {
      const env = { ...fakes(directory, { "clip.exe": `cat >"${directory}/clip"` }), WSL_DISTRO_NAME: "Debian" };
      const marked = new TextEncoder().encode("\ufeffa");
      await copyToClipboard({ value: marked, clearAfterMs: 0, env, device, platform: "linux" });
      expect(readFileSync(join(directory, "clip")).toString("utf16le")).toBe("\ufeff\ufeffa");
    });
  });

  test("tmux forwards and forgets; nobody confirms", async () => {
    await withDirectory(async (directory) => {
      const tmux = `case "$*" in load*) cat >"${directory}/buffer";; delete*) rm "${directory}/buffer"; touch "${directory}/deleted";; esac`;
      const env = { ...fakes(directory, { tmux }), TMUX: "x" };
      const copied = await copyToClipboard({ value, clearAfterMs: 30_000, env, device, platform: "linux" });
      expect(copied).toMatchObject({ via: "tmux", confirmed: false, clearsAfterMs: null });
      expect(copied.message).toContain("sent to the terminal");
      expect(existsSync(join(directory, "deleted"))).toBe(true);
    });
  });

  test("OSC 52 to the terminal is the last; over SSH the far side's clipboard is passed over", async () => {
    await withDirectory(async (directory) => {
      const terminal = join(directory, "tty");
      writeFileSync(terminal, "");
      const env = { ...fakes(directory, { pbcopy: "exit 0" }), SSH_CONNECTION: "x", TERM: "xterm" };
      const copied = await copyToClipboard({ value, clearAfterMs: 30_000, env, device: terminal, platform: "darwin" });
      expect(copied).toMatchObject({ via: "osc52", confirmed: false });
      expect(readFileSync(terminal, "utf8")).toBe(`\u001b]52;c;${Buffer.from(value).toString("base64")}\u0007`);
    });
  });

  test("no way: says so", async () => {
    const failed = copyToClipboard({ value, clearAfterMs: 0, env: { PATH: "" }, device, platform: "linux" });
    await expect(failed).rejects.toMatchObject({ code: "unavailable" });
  });
});

describe("clearing", () => {
  const order = (text: string) => {
    const key = new Uint8Array(32).fill(7);
    const hash = new Bun.CryptoHasher("sha256", key).update(text).digest();
    const b64 = (bytes: Uint8Array) => bytes.toBase64({ alphabet: "base64url", omitPadding: true });
    return new TextEncoder().encode(JSON.stringify({ via: "xclip", afterMs: 1, keyB64: b64(key), hashB64: b64(hash) }));
  };

  test("the helper clears what is unchanged and leaves what is not", async () => {
    await withDirectory(async (directory) => {
      const env = { ...fakes(directory, { xclip: xclip(directory) }), DISPLAY: ":9" };
      const clip = join(directory, "clip");
      for (const [held, left] of [
        ["hunter22", ""],
        ["hunter22\n", ""],
        ["another", "another"],
        ["hunter22\n\n", "hunter22\n\n"],
      ] as const) {
        writeFileSync(clip, held);
        const ran = await run(["__clear-clipboard"], { env, stdin: order("hunter22") });
        expect([ran.code, ran.out, ran.err]).toEqual([0, "ok\n", ""]);
        expect(readFileSync(clip, "utf8")).toBe(left);
      }
    });
  });

  test("the helper refuses an order that is none", async () => {
    for (const text of ["", "{}", '{"via":"sh","afterMs":1,"keyB64":"","hashB64":""}']) {
      expect((await run(["__clear-clipboard"], { stdin: new TextEncoder().encode(text) })).code).toBe(2);
    }
  });

  test("a copy outlives its command and is cleared by itself", async () => {
    await withDirectory(async (directory) => {
      const env = { ...fakes(directory, { xclip: xclip(directory) }), DISPLAY: ":9" };
      const script = join(directory, "copy.ts");
      const main = join(import.meta.dir, "..", "..", "src");
      writeFileSync(
        script,
        `import { clearClipboardLater, copyToClipboard } from "${main}/ui/clipboard.ts";
if (process.argv[2] === "__clear-clipboard") process.exit(await clearClipboardLater());
const copied = await copyToClipboard({ value: new TextEncoder().encode("hunter22"), clearAfterMs: 700, env: process.env });
process.stdout.write(JSON.stringify(copied));
process.exit(0);`,
      );
      const ran = await run([], { env, script });
      expect(JSON.parse(ran.out)).toMatchObject({ via: "xclip", clearsAfterMs: 700 });
      expect(readFileSync(join(directory, "clip"), "utf8")).toBe("hunter22");
      await until(() => readFileSync(join(directory, "clip"), "utf8") === "");
    });
  });
});
