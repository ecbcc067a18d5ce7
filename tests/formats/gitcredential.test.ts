import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { fitOf, GIT_INPUT_BYTES, readGitCredential, writeGitCredential } from "../../src/formats/gitcredential.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const refusal = expect.objectContaining({ name: "Fault", code: "bad_input" });

describe("git's question", () => {
  test("is read up to an empty line, with what is not known passed over", () => {
    const text =
      "protocol=HTTPS\nhost=Example.org:8443\npath=a/b.git\ncapability[]=authtype\nwwwauth[]=Basic\nnew=1\n\nx";
    expect(readGitCredential(ascii(text))).toEqual({
      protocol: "https",
      host: "example.org:8443",
      path: "a/b.git",
      username: null,
      password: null,
      expiryS: null,
    });
    const all = "url=https://ada@example.org/x\npassword=a=b c\npassword_expiry_utc=1700000000\n";
    expect(readGitCredential(ascii(all))).toMatchObject({
      host: "example.org",
      path: "x",
      username: "ada",
      password: "a=b c",
      expiryS: 1_700_000_000,
    });
  });

  test.each([
    ["nothing", ""],
    ["no host", "protocol=https\n"],
    ["a line without =", "protocol=https\nhost=x\nnonsense\n"],
    ["a zero byte", "protocol=https\nhost=x\0y\n"],
    ["a carriage return", "protocol=https\r\nhost=x\r\n"],
    ["a url that is none", "url=nothing\n"],
    ["a user in the host", "protocol=https\nhost=evil.test@example.org\n"],
    ["a path in the host", "protocol=https\nhost=example.org/x\n"],
    ["a backslash in the host", "protocol=https\nhost=example.org\\x\n"],
    ["too much", `protocol=https\nhost=x\npath=${"p".repeat(GIT_INPUT_BYTES)}\n`],
  ])("with %s is refused", (_, text) => {
    expect(() => readGitCredential(ascii(text))).toThrow(refusal);
  });

  test("has no expiry that cannot be written as a time", () => {
    const expiry = (text: string) =>
      readGitCredential(ascii(`protocol=https\nhost=x\npassword_expiry_utc=${text}\n`)).expiryS;
    expect(["0", "253402300799", "253402300800", "999999999999", "-1", "1e3"].map(expiry)).toEqual([
      0,
      253_402_300_799,
      null,
      null,
      null,
      null,
    ]);
  });

  test("keeps one host apart from another that only looks like it, and takes damaged percent-encoding as it is", () => {
    expect(readGitCredential(ascii("protocol=https\nhost=\u212aernel.test\n")).host).toBe("\u212aernel.test");
    expect(readGitCredential(ascii("url=https://%zz@example.org/x\n")).username).toBe("%zz");
  });

  test("never gets an answer of more lines than it has fields", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "grapheme" }), (username, password) => {
        const broken = /[\n\r\0]/.test(username + password);
        const write = () => writeGitCredential({ username, password, expiryS: 7 });
        if (broken) expect(write).toThrow(refusal);
        else expect(new TextDecoder().decode(write()).split("\n")).toHaveLength(4);
      }),
    );
  });
});

describe("an address", () => {
  const asked = (host: string, path: string | null = null, protocol = "https") => ({ protocol, host, path });
  test.each([
    ["https://example.org", asked("example.org"), 1],
    ["example.org", asked("example.org"), 1],
    ["https://example.org:443/", asked("example.org"), 1],
    ["https://example.org", asked("example.org:443"), 1],
    ["https://example.org:8443", asked("example.org:8443"), 1],
    ["https://example.org/my%20team", asked("example.org", "my team/repo.git"), 8],
    ["https://example.org/team", asked("example.org", "team/../other/repo.git"), -1],
    ["https://example.org/team", asked("example.org", "team/%2E%2e/other/repo.git"), -1],
    ["https://example.org/team", asked("example.org", "team/..%2fother/repo.git"), -1],
    ["https://example.org/team", asked("example.org", "team/.."), -1],
    ["https://example.org/team", asked("example.org", "team\\..\\other"), -1],
    ["https://example.org/team", asked("example.org", "team/..git"), 5],
    ["https://example.org", asked("example.org", "team/../other"), 0],
    ["https://example.org/team", asked("example.org", "team/repo.git"), 5],
    ["https://example.org/team/repo", asked("example.org", "team/repo.git"), 10],
    ["https://example.org/login", asked("example.org"), 0],
    ["https://example.org", asked("example.org", "team/repo.git"), 0],
    ["https://example.org/team", asked("example.org", "teams/repo.git"), -1],
    ["https://example.org:8443", asked("example.org"), -1],
    ["https://example.org", asked("example.org:8443"), -1],
    ["http://example.org", asked("example.org"), -1],
    ["https://example.org", asked("example.org", null, "http"), -1],
    ["https://sub.example.org", asked("example.org"), -1],
    ["https://example.org.evil.test", asked("example.org"), -1],
    ["https://example.org@evil.test", asked("example.org"), -1],
    ["https://evil.test/example.org", asked("example.org"), -1],
    ["::not a url", asked("example.org"), -1],
  ] as const)("%s for %o fits by %i", (address, question, fit) => {
    expect(fitOf(address, question)).toBe(fit);
  });
});
