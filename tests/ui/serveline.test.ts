import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type NoServeLine, parseServeLine, type ServeLine } from "../../src/ui/wizard/serveline.ts";

const LAST = "AEIMQUYcgkosw048";
const BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const characters = (from: string, length: number) =>
  fc.array(fc.constantFrom(...from), { minLength: length, maxLength: length }).map((all) => all.join(""));
const pin = fc.tuple(characters(BASE64URL, 42), characters(LAST, 1)).map(([body, last]) => `sha256:${body}${last}`);
const host = fc.constantFrom("127.0.0.1", "[::1]", "keys.example.org", "xn--bcher-kva.example", "192.168.0.17");
const url = fc.tuple(host, fc.integer({ min: 1, max: 65_535 })).map(([name, port]) => `https://${name}:${port}`);
const account = fc.constantFrom("NAME", "ada", "ada.lovelace", "a-b_c");
const invite = fc.option(fc.constantFrom("CODE", "K7QX-9M2P-4TRW", "ABCDEF234567"));

interface Printed extends ServeLine {
  readonly banner: string;
  readonly line: string;
}

/** What serve prints, and what must be read in it. */
const printed: fc.Arbitrary<Printed> = fc.record({ url, pin, account, invite }).map((of) => {
  const code = of.invite === null ? "" : ` --invite ${of.invite}`;
  const line = `keyhold register --server ${of.url} --pin ${of.pin} --account ${of.account}${code}`;
  const banner = [
    `keyhold serves ${of.url}`,
    `  pin           ${of.pin}`,
    "  directory     /home/ada/.local/share/keyhold/server",
    `  registration  ${of.invite === null ? "open" : "invite   (new codes: keyhold server invite create)"}`,
    "",
    "Register from a client:",
    `  ${line}`,
    "",
    "Ctrl-C stops it.",
  ].join("\n");
  return {
    banner,
    line,
    server: of.url,
    pin: of.pin,
    account: of.account === "NAME" ? null : of.account,
    invite: of.invite === "CODE" ? null : of.invite,
  };
});
const wanted = ({ server, pin, account, invite }: ServeLine): ServeLine => ({ server, pin, account, invite });
const hardWrapped = (text: string, width: number, end: string) =>
  text.match(new RegExp(`.{1,${width}}`, "g"))?.join(end) ?? "";
/** As a terminal copies it that drops blanks at the end of a row. */
const trimmed = (text: string) => text.replace(/ +\n/g, "\n");
const problem = (text: string): string => (parseServeLine(text) as Partial<NoServeLine>).problem ?? "(it was read)";

describe("the line that serve prints", () => {
  test("is read alone and with all that is printed around it", () => {
    fc.assert(
      fc.property(printed, fc.constantFrom("", "$ ", "> ", "sudo ", "% "), (of, prompt) => {
        expect(parseServeLine(`${prompt}${of.line}`)).toEqual(wanted(of));
        expect(parseServeLine(`\n  ${of.line}  \n`)).toEqual(wanted(of));
        expect(parseServeLine(of.banner)).toEqual(wanted(of));
        expect(parseServeLine(of.banner.replaceAll("\n", "\r\n"))).toEqual(wanted(of));
        expect(parseServeLine(of.line.replace("keyhold", "/usr/local/bin/keyhold"))).toEqual(wanted(of));
        expect(parseServeLine(`\u001b[1m${of.line}\u001b[0m`)).toEqual(wanted(of));
      }),
    );
  });

  test("is read in any quotes, with = and with a backslash at each line's end", () => {
    fc.assert(
      fc.property(printed, fc.constantFrom(['"', '"'], ["“", "”"]), ({ line, ...of }, [open = "", close = ""]) => {
        const inQuotes = line
          .replace(of.server, `${open}${of.server}${close}`)
          .replace(of.pin, `${open}${of.pin}${close}`);
        expect(parseServeLine(inQuotes)).toEqual(wanted(of));
        expect(parseServeLine(line.replace(/--(server|pin|invite) /g, "--$1="))).toEqual(wanted(of));
        expect(parseServeLine(line.replaceAll(" --", " \\\n  --"))).toEqual(wanted(of));
        expect(parseServeLine(line.replace(/^.*?register /, ""))).toEqual(wanted(of));
        expect(parseServeLine(line.replaceAll(" --", " —"))).toEqual(wanted(of));
      }),
    );
    const single = `keyhold register --server 'https://h:1' --pin 'sha256:${"A".repeat(43)}' --account 'ada'`;
    expect(parseServeLine(single)).toMatchObject({ server: "https://h:1", account: "ada" });
  });

  test("is read however a terminal of 20 to 200 columns wraps it", () => {
    const ends = fc.constantFrom("\n", "\r\n", "\n  ", "\r");
    fc.assert(
      fc.property(printed, fc.integer({ min: 20, max: 200 }), ends, (of, width, end) => {
        expect(parseServeLine(hardWrapped(of.line, width, end))).toEqual(wanted(of));
        // a prompt takes the line ends away
        expect(parseServeLine(hardWrapped(of.line, width, ""))).toEqual(wanted(of));
        expect(parseServeLine(trimmed(hardWrapped(of.line, width, "\n")).replaceAll("\n", ""))).toEqual(wanted(of));
      }),
      { numRuns: 500 },
    );
  });

  test("is read as the JSON that serve --json prints", () => {
    fc.assert(
      fc.property(printed, (of) => {
        const ready = { url: of.server, pin: of.pin, pid: 7, ...(of.invite === null ? {} : { invite: of.invite }) };
        expect(parseServeLine(JSON.stringify({ v: 1, ready }))).toEqual({ ...wanted(of), account: null });
      }),
    );
  });

  test("cut anywhere, it is refused or read as it is, never as another server or pin", () => {
    fc.assert(
      fc.property(printed, fc.double({ min: 0, max: 1, noNaN: true }), (of, share) => {
        const read = parseServeLine(of.line.slice(0, Math.floor(of.line.length * share)));
        if ("problem" in read) return;
        expect([read.server, read.pin]).toEqual([of.server, of.pin]);
      }),
      { numRuns: 500 },
    );
  });

  test("what is wrong is said", () => {
    const pinned = `--pin sha256:${"A".repeat(43)}`;
    expect(problem("")).toContain("nothing");
    expect(problem("https://127.0.0.1:7443")).toContain("an address");
    expect(problem("hello there")).toContain("no --server and no --pin");
    expect(problem("keyhold register --server https://h:1 --account ada")).toBe("it has no --pin");
    expect(problem(`keyhold register ${pinned}`)).toBe("it has no --server");
    expect(problem("--server https://h:1 --pin sha256:AAAA")).toBe("the pin is cut short: 4 of 43 characters");
    expect(problem("--server https://h:1 --pin")).toContain("cut short");
    expect(problem(`--server https://h:1 --server https://h:2 ${pinned}`)).toContain("twice");
    expect(problem(`--server ftp://h ${pinned}`)).toContain("https://HOST:PORT");
    expect(problem(`--server http://example.org ${pinned}`)).toContain("plain http");
    expect(problem(`--server https://h:1 ${pinned} ; rm -rf /`)).toContain("more than the line");
    expect(problem("x".repeat(10_000))).toContain("too long");
  });

  test("garbage never throws, and never takes long", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary", maxLength: 500 }),
      fc
        .array(
          fc.constantFrom(
            "--pin",
            "--server",
            "\n",
            '"',
            "'",
            "\\",
            "=",
            "sha256:",
            "https://",
            "keyhold register",
            "A",
          ),
          { maxLength: 60 },
        )
        .map((parts) => parts.join("")),
      fc.json(),
    );
    fc.assert(
      fc.property(text, (pasted) => {
        const read = parseServeLine(pasted);
        expect("problem" in read ? typeof read.problem : typeof read.pin).toBe("string");
      }),
      { numRuns: 1_000 },
    );
  });
});
