import { describe, expect, test } from "bun:test";
import { contentTypeOf, isLoopback, parseServerUrl } from "../../src/wire/http.ts";

describe("server URL", () => {
  test.each([
    ["https://keys.example", "https://keys.example", "keys.example", 443, true],
    ["https://keys.example:7443/", "https://keys.example:7443", "keys.example", 7443, true],
    ["https://[::1]:7443", "https://[::1]:7443", "::1", 7443, true],
    ["http://127.0.0.1:7443", "http://127.0.0.1:7443", "127.0.0.1", 7443, false],
    ["http://localhost", "http://localhost", "localhost", 80, false],
    ["http://[::1]:1", "http://[::1]:1", "::1", 1, false],
  ] as const)("%s", (text, origin, host, port, secure) => {
    expect(parseServerUrl(text)).toEqual({ origin, host, port, secure });
  });

  test.each([
    "",
    "keys.example",
    "ftp://keys.example",
    "unix:///tmp/x",
    "http://keys.example",
    "http://10.0.0.1:7443",
    "http://127.0.0.1.example",
    "http://localhost.example",
    "http://[::ffff:10.0.0.1]",
    "https://user@keys.example",
    "https://user:pw@keys.example",
    "https://keys.example/path",
    "https://keys.example/?q=1",
    "https://keys.example/#f",
    "https://",
  ])("%p is refused", (text) => {
    expect(() => parseServerUrl(text)).toThrow(expect.objectContaining({ code: "bad_input" }));
  });

  test("loopback", () => {
    for (const host of ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]) {
      expect(isLoopback(host)).toBe(true);
    }
    for (const host of ["0.0.0.0", "::", "128.0.0.1", "127.example", "127.0.0.1.example", ""]) {
      expect(isLoopback(host)).toBe(false);
    }
  });

  test("frames and JSON have their own content types", () => {
    expect(contentTypeOf("server.statement")).toBe("application/json");
    expect(contentTypeOf("secret.get")).toBe("application/octet-stream");
  });
});
