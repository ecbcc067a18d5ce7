import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { KeyholdClient } from "../../src/client/api.ts";
import { untilOf } from "../../src/commands/otpissue.ts";
import { goodFor, otpRequest } from "../../src/commands/otprequest.ts";
import { Fault } from "../../src/errors.ts";
import { dataOf, entry, errorOf, KEY, PIN, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(60_000);

const HANDED = {
  keyId: "e7".repeat(32),
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

test("how long a code is good is told, and when it becomes good", () => {
  const now = Date.UTC(2026, 0, 1);
  const at = (ms: number) => new Date(now + ms).toISOString();
  expect(goodFor({ from: null, expiresAt: at(45_000) }, now)).toBe("good once, for 45 s");
  expect(goodFor({ from: at(20_000), expiresAt: at(80_000) }, now)).toBe("good in 20 s, once, for 80 s from now");
});

describe.concurrent("otp issue", () => {
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

  test("of two keys of one name none is guessed; the beginning of an id means one of them", async () => {
    const other = entry({ keyId: "0b3c".repeat(16) });
    for (const status of ["active", "moved"] as const) {
      const two = [entry({ status }), { ...other, status }];
      const otpSend = async () => new TextEncoder().encode("parcel");
      await withHome({ ...client, otpEntries: async () => two, otpSend }, async (home) => {
        const at = ["--at", `https://127.0.0.1:1#${PIN}`, "--yes", "--out", join(home.dir, "p")];
        const rest = status === "active" ? ["--to", "ria"] : at;
        const ran = await home.run(["otp", "issue", "door", ...rest, "--json"]);
        expect([ran.code, errorOf(ran)]).toEqual([
          6,
          expect.objectContaining({ code: "ambiguous", why: `${KEY}, ${other.keyId}` }),
        ]);
        expect(home.calls.map(({ method }) => method)).toEqual(["otpEntries"]);
        expect((await home.run(["otp", "issue", "0b3c0b3c", ...rest, "--json"])).code).toBe(0);
        expect(home.calls.at(-1)?.input).toMatchObject({ key: other.keyId });
        // a new key may be called what an id begins with
        expect((await home.run(["otp", "issue", "0b3c", "--output", "hotp", "--json"])).code).toBe(0);
        expect(home.calls.at(-1)?.input).toMatchObject({ name: "0b3c" });
      });
    }
  });

  test("the name of a key that is over is free for a new one; without a new one it is said how", async () => {
    for (const over of [entry({ status: "revoked" }), entry({ status: "moved", movedTo: PIN })]) {
      await withHome({ ...client, otpEntries: async () => [over] }, async (home) => {
        const ran = await home.run(["otp", "issue", "door", "--to", "ria", "--json"]);
        expect([ran.code, errorOf(ran).hint]).toEqual([6, expect.stringContaining("its name is free")]);
        expect(home.calls.map(({ method }) => method)).toEqual(["otpEntries"]);
        expect((await home.run(["otp", "issue", "door", "--output", "totp", "--json"])).code).toBe(0);
        expect(home.calls.at(-1)?.method).toBe("otpCreate");
      });
    }
    const both = [entry({ status: "revoked", keyId: "77".repeat(32) }), entry()];
    await withHome({ ...client, otpEntries: async () => both }, async (home) => {
      expect((await home.run(["otp", "issue", "door", "--to", "ria", "--json"])).code).toBe(0);
      expect(home.calls.at(-1)?.input).toMatchObject({ key: KEY });
    });
    // and the parcel of one that has left can be had again
    const left = both.map((one) =>
      one.status === "active" ? { ...one, status: "moved" as const, movedTo: PIN } : one,
    );
    const otpSend = async () => new TextEncoder().encode("parcel");
    await withHome({ ...client, otpEntries: async () => left, otpSend }, async (home) => {
      const argv = [
        "otp",
        "issue",
        "door",
        "--at",
        `https://127.0.0.1:1#${PIN}`,
        "--out",
        join(home.dir, "p"),
        "--yes",
      ];
      expect((await home.run([...argv, "--json"])).code).toBe(0);
      expect(home.calls.at(-1)?.input).toMatchObject({ key: KEY });
    });
  });

  test("an account that nobody may ask about is named, so that its name is looked at", async () => {
    await withHome({ ...client, otpEntries: async () => [entry()] }, async (home) => {
      const ran = await home.run(["otp", "issue", "door", "--to", "nosuchuser"]);
      expect([ran.code, ran.err]).toEqual([0, expect.stringContaining("be sure that nosuchuser is spelt right")]);
      expect((await home.run(["otp", "issue", "door", "--to-device", "AB".repeat(32)])).err).toBe("");
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

describe.concurrent("otp request", () => {
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
      // it is no code, which would be good once and for minutes
      const key = await home.run(["otp", "request", "door", "--provision"]);
      expect([key.code, key.out, key.err.includes("good once"), key.err.includes("whole key")]).toEqual([
        0,
        `${uri}\n`,
        false,
        true,
      ]);
      const kept = await home.run(["otp", "request", "door", "--provision", "--store", "mine"]);
      expect([kept.code, (kept.out + kept.err).includes("otpauth")]).toEqual([0, false]);
      expect(home.calls.at(-1)?.input).toMatchObject({
        name: "mine",
        type: "totp",
        value: new TextEncoder().encode(uri),
        ifVersion: 0,
        // the distribution server has it still
        origin: `provisioned:${"e7".repeat(16)}`,
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

test("an example of the help for another server names the key as that server wants it", () => {
  const lines = (otpRequest.examples ?? []).map(([line]) => line).filter((line) => line.includes("--server"));
  expect(lines.length).toBeGreaterThan(0);
  for (const line of lines) expect(line).toMatch(/^keyhold otp request [0-9a-f]{64} --server /);
});

describe("--copy", () => {
  const client = {
    otpRequest: async () => HANDED,
    otp: async () => ({ name: "k", code: "755224", expiresAt: null, periodS: null, requestId: null, queued: false }),
  } as never as Partial<KeyholdClient>;
  const COMMANDS = [
    ["otp", "request", "door", "--copy"],
    ["otp", "code", "k", "--copy"],
  ];

  test.each(COMMANDS)("%s %s: without a clipboard nothing is asked for", async (...argv) => {
    await withHome(client, async (home) => {
      const ran = await home.run([...argv, "--json"]);
      expect([ran.code, errorOf(ran).code, home.calls]).toEqual([7, "unavailable", []]);
    });
  });

  test.each(COMMANDS)("%s %s: a code that cannot be copied is printed, with exit 10", async (...argv) => {
    await withHome(client, async (home) => {
      const bin = join(home.dir, "bin");
      mkdirSync(bin);
      writeFileSync(join(bin, "xclip"), "#!/bin/sh\nexit 1\n", { mode: 0o700 });
      Object.assign(home.env, { PATH: `${bin}:/usr/bin:/bin`, DISPLAY: ":9" });
      const code = argv[1] === "code" ? "755224" : HANDED.value;
      const ran = await home.run(argv);
      expect([ran.code, ran.out.trimEnd(), ran.err.includes("so that it is not lost")]).toEqual([10, code, true]);
      const { data } = JSON.parse((await home.run([...argv, "--json"])).out);
      expect(argv[1] === "code" ? data.code : data.value).toBe(code);
    });
  });
});
