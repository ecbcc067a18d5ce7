import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { otpCode, parseOtpUri } from "../../src/protocol/otp.ts";
import { testNeeding } from "../support/skip.ts";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
const KEY = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const URI = `otpauth://totp/web:ada?issuer=web&secret=${KEY}`;
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
}, SETUP_MS);
afterAll(() => world.close());

describe("one-time passwords", () => {
  test("are added from a bare key, and their code is all that stands on stdout", async () => {
    const { data } = await home.ok(["otp", "add", "web", "--digits", "8", "--algorithm", "SHA256"], {
      stdin: `${KEY}\n`,
    });
    expect(data).toMatchObject({ name: "web", type: "totp", version: 1 });
    const before = Date.now();
    const ran = await home.run(["otp", "code", "web"]);
    expect(ran.code).toBe(0);
    const key = parseOtpUri(`${URI}&digits=8&algorithm=SHA256`);
    expect([otpCode(key, before).code, otpCode(key, Date.now()).code]).toContain(ran.out.trimEnd());
    expect(ran.out).toMatch(/^\d{8}\n$/);
    expect(ran.err).toMatch(/good for \d+ s/);
    expect(ran.err + ran.out).not.toContain(KEY);
  });

  test("of a counter are used up by asking", async () => {
    await home.ok(["otp", "add", "bank", "--counter", "0"], { stdin: KEY });
    for (const code of ["755224", "287082", "359152"]) {
      expect((await home.ok(["otp", "code", "bank"])).data).toEqual({ name: "bank", code });
    }
  });

  test("become a field of a login, once", async () => {
    await home.ok(["generate", "site", "--type", "login"]);
    const { data } = await home.ok(["otp", "add", "site"], { stdin: URI });
    expect(data).toMatchObject({ name: "site", type: "login", version: 2, field: "otp" });
    expect((await home.ok(["otp", "code", "site"])).data.code).toMatch(/^\d{6}$/);
    expect((await home.fails(6, ["otp", "add", "site"], { stdin: URI })).code).toBe("exists");
    await home.ok(["otp", "add", "site", "--replace"], { stdin: `${URI}&digits=7` });
    expect((await home.ok(["otp", "code", "site"])).data.code).toMatch(/^\d{7}$/);
  });

  testNeeding(["qrencode", "zbarimg"], "go from a screenshot into the vault and out as a picture", async () => {
    const [shot, out] = [join(home.dir, "shot.png"), join(home.dir, "out.png")];
    expect(Bun.spawnSync(["qrencode", "-o", shot, URI]).exitCode).toBe(0);
    await home.ok(["otp", "add", "shot", "--qr", shot]);
    await home.ok(["otp", "qr", "shot", "--out", out]);
    expect(statSync(out).mode & 0o777).toBe(0o600);
    const read = Bun.spawnSync(["zbarimg", "--quiet", "--raw", out]).stdout.toString().trim();
    expect(parseOtpUri(read)).toEqual(parseOtpUri(URI));
    expect((await home.fails(6, ["otp", "qr", "shot", "--out", out])).code).toBe("exists");
    const shown = await home.run(["otp", "qr", "shot"]);
    expect(shown.out.split("\n")[10]).toMatch(/^[█▀▄ ]{30,}$/);
  });

  test("refuse what is none, with nothing kept and not a word of it shown", async () => {
    const canary = "JBSWY3DPEHPK3PXPCANARY1";
    writeFileSync(join(home.dir, "no.png"), readFileSync("/dev/null"));
    for (const [argv, stdin] of [
      [["otp", "add", "bad"], canary],
      [["otp", "add", "bad", "--digits", "11"], KEY],
      [["otp", "add", "bad", "--digits", "8"], URI],
      [["otp", "add", "bad"], "otpauth-migration://offline?data=AAAA"],
      [["otp", "add", "bad"], `otpauth://totp/x?secret=${canary}`],
      [["otp", "add", "bad", "--qr", join(home.dir, "no.png")], ""],
    ] as const) {
      const ran = await home.run(argv, { stdin });
      expect({ argv, code: ran.code }).toEqual({ argv, code: 2 });
      expect(ran.out + ran.err).not.toContain("CANARY");
    }
    expect((await home.fails(3, ["otp", "code", "bad"])).code).toBe("not_found");
    expect((await home.fails(3, ["otp", "code", "web/none"])).code).toBe("not_found");
    expect(existsSync(join(home.dir, "bad"))).toBe(false);
  });
});
