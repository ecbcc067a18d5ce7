import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { createOutput } from "../../src/ui/output.ts";
import { createTerminal } from "../../src/ui/terminal.ts";
import { folded } from "../../src/ui/wrap.ts";

const COMMAND = "keyhold ceremony join --ceremony a-very-long-name-of-a-ceremony-that-has-no-end";

/** An output whose stderr is a terminal of so many columns. */
function output(columns: number | null, color: "never" | "always" = "never") {
  let shown = "";
  const write = (fd: 1 | 2, bytes: Uint8Array) => {
    if (fd === 2) shown += new TextDecoder().decode(bytes);
  };
  const out = createOutput({
    ...{ json: false, quiet: false, verbose: true, color, env: {}, write },
    columns: () => columns,
  });
  return { out, lines: () => shown.trimEnd().split("\n"), shown: () => shown };
}

const wide = (line: string): number => Bun.stringWidth(line);

describe("text for a terminal", () => {
  test("is broken at spaces, and a command stands whole on a line of its own", () => {
    const text = `Leave this running, it is not over yet. After an interruption: ${COMMAND}`;
    expect(folded(text, 40)).toEqual([
      "Leave this running, it is not over yet.",
      "After an interruption:",
      `  ${COMMAND}`,
    ]);
    expect(folded(text, 500)).toEqual([text]);
    expect(folded(text, Number.POSITIVE_INFINITY)).toEqual([text]);
  });

  test.each([
    ["keyhold unlock   (starts an agent of this version in its place)", "keyhold unlock"],
    ["its issuer, who is somebody else, sees it with: keyhold otp entries", "keyhold otp entries"],
    [
      "they who have a part in it agree with: keyhold ceremony approve k; then run this again",
      "keyhold ceremony approve k",
    ],
    ["link this device (keyhold account device link on another one), or not", "keyhold account device link"],
    ["keyhold ceremony status shows all; with an invite: keyhold ceremony join INVITE", "keyhold ceremony join INVITE"],
    ["keyhold ceremony join --ceremony abc goes on with it where it was", "keyhold ceremony join --ceremony abc"],
    ["name the file that `keyhold server backup --dir /a` wrote, please", "keyhold server backup --dir /a"],
    [
      "  keyhold ceremony transcript backup --out backup.ceremony",
      "keyhold ceremony transcript backup --out backup.ceremony",
    ],
  ])("finds the command in %j", (text, command) => {
    expect(folded(text, 30).map((line) => line.trim())).toContain(command);
  });

  test("a name in running text is no command", () => {
    expect(folded("run the keyhold that wrote it, or restore a backup", 30)).toEqual([
      "run the keyhold that wrote it,",
      "or restore a backup",
    ]);
  });

  test("what is too wide is one word or a command; nothing is lost", () => {
    const words = fc.array(fc.stringMatching(/^[a-z-]{1,9}$/), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(words, fc.integer({ min: 20, max: 60 }), fc.boolean(), (some, width, asked) => {
        const text = some.join(" ") + (asked ? `: ${COMMAND}` : "");
        const lines = folded(text, width);
        for (const line of lines) expect(wide(line) <= width || line.trim() === COMMAND).toBe(true);
        expect(lines.join(" ").split(/ +/)).toEqual(text.split(" "));
        if (asked && lines.length > 1) expect(lines).toContain(`  ${COMMAND}`);
      }),
    );
  });
});

describe("on stderr", () => {
  test("notices, warnings and details fit the terminal", () => {
    const { out, lines } = output(40);
    out.notice("You have committed. What was drawn for you lies in this vault, and nowhere else.");
    out.warn("who has the openings of all participants has the key: delete the file after use");
    out.detail("a detail that is as long as that one, and is broken in the same way as it");
    expect(lines().every((line) => wide(line) <= 40)).toBe(true);
    expect(lines().slice(0, 4)).toEqual([
      "You have committed. What was drawn for",
      "you lies in this vault, and nowhere",
      "else.",
      "! who has the openings of all",
    ]);
    expect(lines()[4]).toStartWith("  participants");
  });

  test("faults do, and what to type is whole", () => {
    const { out, lines } = output(50);
    const why = "your device and the server differ in what they hold of it, which cannot be";
    expect(
      out.fail(
        new Fault("timed_out", "the ceremony is not over: 1 of 2 has committed", { why, hint: `${COMMAND} goes on` }),
      ),
    ).toBe(11);
    expect(lines().filter((line) => wide(line) > 50)).toEqual([`    ${COMMAND}`]);
    expect(lines()).toContain("  Fix:");
    expect(lines().at(-1)).toBe("  [timed_out, exit 11]");
    expect(lines()[0]).toBe("keyhold: the ceremony is not over: 1 of 2 has");
  });

  test("the end of a short fault stays on its line", () => {
    const { out, lines } = output(50);
    out.fail(new Fault("locked", "the vault is locked", { hint: "keyhold unlock" }));
    expect(lines()).toEqual(["keyhold: the vault is locked.", "  Fix: keyhold unlock     [locked, exit 4]"]);
  });

  test("the code of a fault is whole, however narrow the terminal is", () => {
    const { out, lines } = output(20);
    out.fail(new Fault("not_found", "no such secret", { hint: "keyhold list" }));
    expect(lines().slice(-2)).toEqual(["  Fix: keyhold list", "  [not_found, exit 3]"]);
    const bare = output(20);
    bare.out.fail(new Fault("integrity", "it is not whole"));
    expect(bare.lines().at(-1)).toBe("  [integrity, exit 8]");
  });

  test("colours count for nothing, and without a terminal nothing is broken", () => {
    const long = "x ".repeat(60).trim();
    const coloured = output(40, "always");
    coloured.out.detail(long);
    expect(coloured.lines()).toHaveLength(3);
    const { out, lines } = output(null);
    out.notice(long);
    expect(lines()).toEqual([long]);
  });

  test("a line of progress is cut to one row, so that it can be drawn over", async () => {
    const { out, shown } = output(30);
    const animated = Object.create(out, { animated: { value: true } });
    const term = createTerminal({
      out: animated,
      noInput: true,
      yes: false,
      env: {},
      signal: new AbortController().signal,
    });
    const end = Promise.withResolvers<void>();
    const poll = setInterval(() => shown() !== "" && end.resolve(), 5);
    await term.step("Asking a server whose name is much longer than the terminal is wide", end.promise);
    clearInterval(poll);
    const rows = shown()
      .split("\r\u001b[K")
      .filter((row) => row !== "");
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) expect(wide(row)).toBeLessThan(30);
    expect(rows[0]).toEndWith("…");
  });
});
