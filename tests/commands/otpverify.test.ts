import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { addProfile, localProfile } from "../../src/client/profile.ts";
import { codesIn, refusalHint, relyingAnswer } from "../../src/commands/otprequest.ts";
import { Fault } from "../../src/errors.ts";
import { lastError, onTerminal, run, withDirectory } from "../cli/support.ts";
import { dataOf, entry, errorOf, PIN, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(60_000);

const AT = ["--server", "https://127.0.0.1:1", "--pin", PIN];

test("codes are read as people write them", () => {
  expect(codesIn(" 123456\n", false)).toEqual({ code: "123456", next: null });
  expect(codesIn("123 456", false)).toEqual({ code: "123456", next: null });
  expect(codesIn("123456 654321", true)).toEqual({ code: "123456", next: "654321" });
  for (const text of ["", "12345", "12345678901", "12345a", "123456 654321"])
    expect(() => codesIn(text, false)).toThrow(Fault);
  for (const text of ["123456", "1 2", "123456 654321 111111"]) expect(() => codesIn(text, true)).toThrow(Fault);
});

test("who is refused a code is told what helps, and of an authenticator by the clock nothing of counters", () => {
  expect(refusalHint("used", "hotp", false)).toContain("another code");
  expect(refusalHint("unknown", "hotp", false)).toContain("--next");
  // it was tried
  for (const kind of ["hotp", null] as const) expect(refusalHint("unknown", kind, true)).not.toContain("--next");
  expect(refusalHint("unknown", "totp", false)).not.toContain("--next");
  expect(refusalHint("unknown", "totp", false)).toContain("clock");
});

test("a relying service is told yes or no, for programs too", () => {
  expect(relyingAnswer(true).data).toEqual({ accepted: true });
  expect(() => relyingAnswer(false)).toThrow(
    expect.objectContaining({ code: "denied", message: "the code is not accepted", data: { accepted: false } }),
  );
});

describe.concurrent("otp verify", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const verdicts = (verdict: "accepted" | "used" | "expired" | "revoked" | "unknown"): Partial<KeyholdClient> => ({
    otpCheck: async () => ({ verdict, handedTo: verdict === "unknown" ? null : { kind: "account", name: "ria" } }),
    otpEntries: async () => [entry()],
  });

  test("takes the code from stdin, a file or a prompt, never from the command line", async () => {
    await withHome(verdicts("accepted"), async (home) => {
      const file = join(home.dir, "code");
      writeFileSync(file, "123456\n");
      const ran = await home.run(["otp", "verify", "door", "--json"], bytes("123 456\n"));
      expect(dataOf(ran)).toEqual({ verdict: "accepted", handedTo: { kind: "account", name: "ria" } });
      expect((await home.run(["otp", "verify", "door", "--in-file", file, "--json"])).code).toBe(0);
      expect((await home.run(["otp", "verify", "door", "--next", "--json"], bytes("123456\n654321"))).code).toBe(0);
      const asked = await onTerminal("$KEYHOLD otp verify door", [{ expect: "Code", type: "123456\r" }], home.env);
      expect([asked.code, asked.out, asked.shown.includes("123456")]).toEqual([0, "accepted: handed to ria\n", false]);
      const next = { key: "door", code: "123456", next: null };
      expect(home.calls.map(({ input }) => input)).toEqual([next, next, { ...next, next: "654321" }, next]);
      expect((await home.run(["otp", "verify", "door", "123456", "--json"])).code).toBe(2);
      const none = await home.run(["otp", "verify", "door", "--json"]);
      expect([none.code, errorOf(none).code]).toEqual([2, "input_needed"]);
    });
  });

  test.each(["used", "expired", "revoked", "unknown"] as const)(
    "a code that is %s is told to the issuer: exit 5",
    async (verdict) => {
      await withHome(verdicts(verdict), async (home) => {
        const ran = await home.run(["otp", "verify", "door", "--json"], bytes("123456"));
        expect([ran.code, ran.out, errorOf(ran).message.startsWith(`${verdict}: `)]).toEqual([5, "", true]);
        const handedTo = verdict === "unknown" ? null : { kind: "account", name: "ria" };
        expect(errorOf(ran).data).toEqual({ verdict, handedTo });
        expect(ran.err).not.toContain("123456");
      });
    },
  );

  test("a relying service asks with a token that only it can read, and no vault that is there is opened for it", async () => {
    await withHome(verdicts("accepted"), async (home) => {
      const token = join(home.dir, "token");
      writeFileSync(token, "kho_token\n", { mode: 0o600 });
      const asked = await home.run(["otp", "verify", "--token-file", token, ...AT, "--json"], bytes("123456"));
      expect([asked.code, errorOf(asked).code, home.calls]).toEqual([7, "unreachable", []]);
      writeFileSync(join(home.dir, "open"), "kho_token\n", { mode: 0o644 });
      const open = ["otp", "verify", "--token-file", join(home.dir, "open"), ...AT, "--json"];
      expect((await home.run(open, bytes("123456"))).code).toBe(5);
      expect((await home.run(["otp", "verify", "--token-file", token, "--json"], bytes("123456"))).code).toBe(2);
      expect((await home.run(["otp", "verify", "door", ...AT, "--json"], bytes("123456"))).code).toBe(2);
    });
  });
});

test("a relying service needs no vault, makes none, and asks for no password of one that is locked", async () => {
  await withDirectory(async (dir) => {
    const token = join(dir, "token");
    writeFileSync(token, "kho_token\n", { mode: 0o600 });
    const home = join(dir, "home");
    const argv = ["otp", "verify", "--token-file", token, ...AT, "--json"];
    const verify = () => run(argv, { env: { KEYHOLD_HOME: home }, stdin: new TextEncoder().encode("123456") });
    const ran = await verify();
    expect([ran.code, lastError(ran).error["code"]]).toEqual([7, "unreachable"]);
    expect(existsSync(join(home, "data"))).toBe(false);
    await addProfile(join(home, "config", "profiles"), localProfile("default", "test", "default.vault"));
    const beside = await verify();
    expect([beside.code, lastError(beside).error["code"]]).toEqual([7, "unreachable"]);
  });
});
