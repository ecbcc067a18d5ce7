import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import type { OtpEntryInfo } from "../../src/client/ceremonyapi.ts";
import { untilOf } from "../../src/commands/otpissue.ts";
import { codesIn, goodFor } from "../../src/commands/otprequest.ts";
import { Fault } from "../../src/errors.ts";
import { lastError, onTerminal, run, withDirectory } from "../cli/support.ts";
import { dataOf, errorOf, PIN, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(30_000);

const KEY = "42".repeat(32);
const entry = (change: Partial<OtpEntryInfo> = {}): OtpEntryInfo => ({
  keyId: KEY,
  name: "door",
  version: 1,
  kind: "hotp",
  own: true,
  status: "active",
  movedTo: null,
  counter: 0,
  provisioned: false,
  ceremonyId: null,
  grants: [],
  ...change,
});
const HANDED = {
  askId: "9c".repeat(32),
  name: "door",
  value: "123456",
  expiresAt: "2030-01-01T00:00:00.000Z",
  from: null,
};
const AT = ["--server", "https://127.0.0.1:1", "--pin", PIN];

test("a moment to come is read as a date or as a span from now", () => {
  const now = Date.UTC(2026, 0, 1);
  expect(untilOf(null, now)).toBeNull();
  expect(untilOf("30d", now)).toBe(now + 30 * 86_400_000);
  expect(untilOf("2026-02-01", now)).toBe(Date.UTC(2026, 1, 1));
  expect(untilOf("2026-02-01T12:00:00+01:00", now)).toBe(Date.UTC(2026, 1, 1, 11));
  // as keyhold itself writes times, and the shortest spans
  expect(untilOf(new Date(now + 1_500).toISOString(), now)).toBe(now + 1_500);
  expect(untilOf("90s", now)).toBe(now + 90_000);
  for (const text of ["2025-01-01", "0d", "soon", "2026-13-01", "2026-02-31", "-3d", ""])
    expect(() => untilOf(text, now)).toThrow(Fault);
});

test("codes are read as people write them", () => {
  expect(codesIn(" 123456\n", false)).toEqual({ code: "123456", next: null });
  expect(codesIn("123 456", false)).toEqual({ code: "123456", next: null });
  expect(codesIn("123456 654321", true)).toEqual({ code: "123456", next: "654321" });
  for (const text of ["", "12345", "12345678901", "12345a", "123456 654321"])
    expect(() => codesIn(text, false)).toThrow(Fault);
  for (const text of ["123456", "1 2", "123456 654321 111111"]) expect(() => codesIn(text, true)).toThrow(Fault);
});

test("how long a code is good is told, and when it becomes good", () => {
  const now = Date.UTC(2026, 0, 1);
  const at = (ms: number) => new Date(now + ms).toISOString();
  expect(goodFor({ from: null, expiresAt: at(45_000) }, now)).toBe("good once, for 45 s");
  expect(goodFor({ from: at(20_000), expiresAt: at(80_000) }, now)).toBe("good in 20 s, once, for 80 s from now");
});

describe("otp issue", () => {
  const client: Partial<KeyholdClient> = {
    otpEntries: async () => [],
    otpCreate: async () => entry(),
    otpGrant: async ({ to }) =>
      entry({ grants: [{ grantId: "aa".repeat(32), to, wants: ["code"], perHour: null, until: null }] }),
  };

  test("makes the key and grants it, in this order", async () => {
    await withHome(client, async (home) => {
      const argv = [
        "--output",
        "hotp",
        "--digits",
        "8",
        "--to",
        "ria",
        "--to-device",
        "AB".repeat(32),
        "--per-hour",
        "3",
      ];
      const ran = await home.run(["otp", "issue", "door", ...argv, "--json"]);
      expect([ran.code, dataOf(ran).name]).toEqual([0, "door"]);
      const output = { kind: "hotp", algorithm: "SHA1", digits: 8, issuer: "", label: "door" };
      const grant = { key: KEY, wants: ["code"], perHour: 3, untilMs: null };
      expect(home.calls).toEqual([
        { method: "otpEntries", input: {} },
        { method: "otpCreate", input: { name: "door", output, from: null } },
        { method: "otpGrant", input: { ...grant, to: { kind: "account", name: "ria" } } },
        { method: "otpGrant", input: { ...grant, to: { kind: "device", name: "ab".repeat(32) } } },
      ]);
    });
  });

  test("a key that is there is not made again, and one that is not there is not guessed", async () => {
    await withHome({ ...client, otpEntries: async () => [entry()] }, async (home) => {
      expect((await home.run(["otp", "issue", "door", "--output", "totp", "--json"])).code).toBe(6);
      const ran = await home.run(["otp", "issue", "door", "--to", "ria", "--provision", "--json"]);
      expect(ran.code).toBe(0);
      expect(home.calls.at(-1)?.input).toMatchObject({ key: KEY, wants: ["provision"] });
    });
    await withHome({ ...client, otpEntries: async () => [entry({ own: false })] }, async (home) => {
      const ran = await home.run(["otp", "issue", "door", "--to", "ria", "--json"]);
      expect([ran.code, errorOf(ran).hint.includes("--output totp")]).toEqual([3, true]);
    });
  });

  test("--at asks, then writes a parcel that receive hands over", async () => {
    const moving: Partial<KeyholdClient> = {
      otpEntries: async () => [entry()],
      otpSend: async () => new TextEncoder().encode("parcel"),
      otpReceive: async () => entry(),
    };
    await withHome(moving, async (home) => {
      const out = join(home.dir, "door.parcel");
      const argv = ["otp", "issue", "door", "--at", `https://127.0.0.1:1#${PIN}`, "--out", out, "--json"];
      expect((await home.run(argv)).code).toBe(2);
      const ran = await home.run([...argv, "--yes"]);
      expect(dataOf(ran)).toEqual({ keyId: KEY, name: "door", to: "https://127.0.0.1:1", out });
      expect([readFileSync(out, "utf8"), statSync(out).mode & 0o777]).toEqual(["parcel", 0o600]);
      expect((await home.run([...argv, "--yes"])).code).toBe(6);
      expect(home.calls.filter(({ method }) => method === "otpSend").length).toBe(1);
      expect((await home.run(["otp", "receive", out, "--json"])).code).toBe(0);
      expect(home.calls.at(-1)?.input).toEqual({ parcel: new TextEncoder().encode("parcel") });
    });
  });

  test.each([
    [["--output", "totp", "--from", "x"]],
    [["--digits", "6", "--to", "ria"]],
    [["--output", "hotp", "--period", "30"]],
    [["--provision"]],
    [["--per-hour", "3"]],
    [["--to-device", "abc"]],
    [["--to", "ria", "--until", "2020-01-01"]],
    [["--out", "x"]],
    [["--at", "https://127.0.0.1:1"]],
    [["--at", `https://127.0.0.1:1#${PIN}`, "--to", "ria"]],
  ])("%j exits 2 and does nothing", async (argv) => {
    await withHome(client, async (home) => {
      const ran = await home.run(["otp", "issue", "door", ...argv, "--json"]);
      expect([ran.code, home.calls.filter(({ method }) => method !== "otpEntries")]).toEqual([2, []]);
    });
  });
});

describe("otp request", () => {
  const uri = "otpauth://totp/demo:door?secret=GEZDGNBVGY3TQOJQ&issuer=demo";
  const client: Partial<KeyholdClient> = {
    otpRequest: async ({ want }) => (want === "code" ? HANDED : { ...HANDED, value: uri }),
    store: async ({ name, type }) =>
      ({
        info: { name, keyId: "00", type, version: 1, tags: [], where: "local", publicKey: null },
        requestId: null,
      }) as never,
  };

  test("prints the bare code, all else on stderr", async () => {
    await withHome(client, async (home) => {
      const ran = await home.run(["otp", "request", "door"]);
      expect([ran.code, ran.out]).toEqual([0, "123456\n"]);
      expect(ran.err).toMatch(/^good once, for \d+ days\n$/);
      expect(dataOf(await home.run(["otp", "request", "door", ...AT, "--json"]))).toEqual(HANDED);
      expect(home.calls.map(({ input }) => input)).toEqual([
        { key: "door", want: "code", server: null },
        { key: "door", want: "code", server: { url: "https://127.0.0.1:1", pin: PIN } },
      ]);
    });
  });

  test("provisioning is shown as a QR code, or kept in the vault without being shown", async () => {
    await withHome(client, async (home) => {
      const qr = await home.run(["otp", "request", "door", "--provision", "--qr"]);
      expect([qr.code, qr.out.includes("▀"), qr.out.includes("otpauth")]).toEqual([0, true, false]);
      const kept = await home.run(["otp", "request", "door", "--provision", "--store", "mine"]);
      expect([kept.code, (kept.out + kept.err).includes("otpauth")]).toEqual([0, false]);
      expect(home.calls.at(-1)?.input).toMatchObject({
        name: "mine",
        type: "totp",
        value: new TextEncoder().encode(uri),
        ifVersion: 0,
      });
    });
  });

  test("waits that the server asks for are said", async () => {
    const limited = {
      otpRequest: async () => {
        throw new Fault("rate_limited", "too many codes", { retryAfterMs: 61_000 });
      },
    };
    await withHome(limited, async (home) => {
      const ran = await home.run(["otp", "request", "door"]);
      expect([ran.code, ran.out, ran.err.includes("When: in 61 s")]).toEqual([12, "", true]);
    });
  });

  test.each([
    [["--qr"]],
    [["--store", "x"]],
    [["--provision", "--invert"]],
    [["--provision", "--qr", "--copy"]],
    [["--server", "https://a"]],
    [["--server", "https://a", "--pin", "x"]],
  ])("%j exits 2", async (argv) => {
    await withHome(client, async (home) => {
      expect((await home.run(["otp", "request", "door", ...argv, "--json"])).code).toBe(2);
      expect(home.calls).toEqual([]);
    });
  });
});

describe("otp verify", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const verdicts = (verdict: "accepted" | "used" | "expired" | "revoked" | "unknown"): Partial<KeyholdClient> => ({
    otpCheck: async () => ({ verdict, handedTo: verdict === "unknown" ? null : { kind: "account", name: "ria" } }),
    otpVerify: async () => ({ accepted: verdict === "accepted" }),
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
        expect(ran.err).not.toContain("123456");
      });
    },
  );

  test("a relying service learns yes or no, with a token that only it can read", async () => {
    for (const verdict of ["accepted", "used"] as const) {
      await withHome(verdicts(verdict), async (home) => {
        const token = join(home.dir, "token");
        writeFileSync(token, "kho_token\n", { mode: 0o600 });
        const ran = await home.run(["otp", "verify", "--token-file", token, ...AT, "--json"], bytes("123456"));
        if (verdict === "accepted") expect(dataOf(ran)).toEqual({ accepted: true });
        else
          expect([ran.code, errorOf(ran).message, /used/.test(ran.err)]).toEqual([
            5,
            "the code is not accepted",
            false,
          ]);
        expect(home.calls[0]?.input).toMatchObject({ token: "kho_token", code: "123456" });
        writeFileSync(join(home.dir, "open"), "kho_token\n", { mode: 0o644 });
        const open = ["otp", "verify", "--token-file", join(home.dir, "open"), ...AT, "--json"];
        expect((await home.run(open, bytes("123456"))).code).toBe(5);
        expect((await home.run(["otp", "verify", "--token-file", token, "--json"], bytes("123456"))).code).toBe(2);
        expect((await home.run(["otp", "verify", "door", ...AT, "--json"], bytes("123456"))).code).toBe(2);
      });
    }
  });
});

test("a relying service needs no vault, and none is made for it", async () => {
  await withDirectory(async (dir) => {
    const token = join(dir, "token");
    writeFileSync(token, "kho_token\n", { mode: 0o600 });
    const home = join(dir, "home");
    const at = ["--server", "https://127.0.0.1:1", "--pin", `sha256:${"A".repeat(43)}`];
    const argv = ["otp", "verify", "--token-file", token, ...at, "--json"];
    const ran = await run(argv, { env: { KEYHOLD_HOME: home }, stdin: new TextEncoder().encode("123456") });
    expect([ran.code, lastError(ran).error["code"]]).toEqual([7, "unreachable"]);
    expect(existsSync(join(home, "data"))).toBe(false);
  });
});

test("lists, revocations and tokens go by the start of an id", async () => {
  const grant = {
    grantId: "aa".repeat(32),
    to: { kind: "account", name: "ria" },
    wants: ["code"],
    perHour: null,
    until: null,
  } as const;
  const handout = {
    askId: "9c".repeat(32),
    to: grant.to,
    want: "code",
    state: "used",
    at: "a",
    expiresAt: "b",
    usedAt: "c",
  } as const;
  const token = { tokenId: "7e".repeat(32), name: "gate", expiresAt: "x" };
  const client: Partial<KeyholdClient> = {
    otpEntries: async () => [entry({ grants: [grant] })],
    otpHandouts: async () => [handout],
    otpRevoke: async () => entry({ status: "revoked" }),
    otpTokens: async () => [token],
    otpTokenCreate: async () => ({ tokenId: token.tokenId, token: "kho_x" }),
    otpTokenRevoke: async () => undefined,
    otpDevice: async () => ({ keyHex: "cb".repeat(32), words: ["one", "two"] }),
  };
  await withHome(client, async (home) => {
    expect(dataOf(await home.run(["otp", "entries", "--json"])).items).toEqual([entry({ grants: [grant] })]);
    expect(dataOf(await home.run(["otp", "handouts", "door", "--json"])).items).toEqual([handout]);
    expect(dataOf(await home.run(["otp", "device", "--json"]))).toEqual({
      keyHex: "cb".repeat(32),
      words: ["one", "two"],
    });
    const revoke = (...argv: string[]) => home.run(["otp", "revoke", "door", ...argv, "--json"]);
    expect((await revoke()).code).toBe(2);
    for (const argv of [["--grant", "aa"], ["--handout", "9C9c"], []])
      expect((await revoke(...argv, "--yes")).code).toBe(0);
    expect(home.calls.filter(({ method }) => method === "otpRevoke").map(({ input }) => input)).toEqual([
      { key: "door", grantId: grant.grantId, askId: null },
      { key: "door", grantId: null, askId: handout.askId },
      { key: "door", grantId: null, askId: null },
    ]);
    expect((await revoke("--grant", "bb", "--yes")).code).toBe(3);
    expect((await revoke("--grant", "aa", "--handout", "9c", "--yes")).code).toBe(2);
    const out = join(home.dir, "token");
    const made = await home.run(["otp", "token", "create", "door", "--name", "gate", "--out", out, "--json"]);
    expect([made.out.includes("kho_x"), readFileSync(out, "utf8"), statSync(out).mode & 0o777]).toEqual([
      false,
      "kho_x\n",
      0o600,
    ]);
    expect((await home.run(["otp", "token", "create", "door", "--name", "gate"])).out).toBe("kho_x\n");
    expect((await home.run(["otp", "token", "revoke", "door", "7e7e", "--yes", "--json"])).code).toBe(0);
    expect((await home.run(["otp", "token", "revoke", "door", "8e", "--yes", "--json"])).code).toBe(3);
  });
});
