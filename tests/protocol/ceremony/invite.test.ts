import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { CeremonyId } from "../../../src/ids.ts";
import { type CeremonyInvite, decodeInvite, encodeInvite } from "../../../src/protocol/ceremony/invite.ts";

const INVITE: CeremonyInvite = {
  url: "https://keys.example.org:7443",
  pin: `sha256:${"A".repeat(43)}`,
  ceremonyId: "ab".repeat(32) as CeremonyId,
  index: 3,
  seed: new Uint8Array(32).fill(5),
};
const LINE = encodeInvite(INVITE);
const bad = (message: string) =>
  expect.objectContaining({ code: "bad_input", message: expect.stringContaining(message) });

describe("an invite", () => {
  test("is one line that a person can hand over, and comes back", () => {
    expect(LINE).toMatch(/^keyhold-ceremony:[A-Za-z0-9_-]{150,200}$/);
    expect(decodeInvite(LINE)).toEqual(INVITE);
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        fc.integer({ min: 1, max: 256 }),
        fc.webUrl({ validSchemes: ["https"] }).filter((url) => /^[\x21-\x7e]{1,512}$/.test(url)),
        (seed, hashes, index, url) => {
          const pin = `sha256:${Buffer.from(hashes.subarray(32)).toString("base64url")}`;
          const ceremonyId = Buffer.from(hashes.subarray(0, 32)).toString("hex") as CeremonyId;
          const invite = { url, pin, ceremonyId, index, seed };
          expect(decodeInvite(encodeInvite(invite))).toEqual(invite);
        },
      ),
    );
  });

  test("survives line breaks and blanks of a mail program", () => {
    expect(decodeInvite(`  ${LINE.slice(0, 60)}\r\n${LINE.slice(60)}\n`)).toEqual(INVITE);
  });

  test("every mistyped character is told", () => {
    for (let at = 0; at < LINE.length; at++) {
      for (const other of [LINE[at] === "a" ? "b" : "a", LINE[at] === "Z" ? "Y" : "Z", "."]) {
        const line = LINE.slice(0, at) + other + LINE.slice(at + 1);
        expect(() => decodeInvite(line)).toThrow(bad("this is no whole invite: "));
      }
    }
  });

  test("every cut, every missing character and two exchanged ones are told, with what to do", () => {
    for (let at = 0; at < LINE.length; at++) {
      expect(() => decodeInvite(LINE.slice(0, at))).toThrow(bad("this is no whole invite: "));
      expect(() => decodeInvite(LINE.slice(0, at) + LINE.slice(at + 1))).toThrow(bad("this is no whole invite: "));
      const [a = "", b = ""] = [LINE[at], LINE[at + 1]];
      if (a === b || b === "") continue;
      expect(() => decodeInvite(LINE.slice(0, at) + b + a + LINE.slice(at + 2))).toThrow(
        expect.objectContaining({ code: "bad_input", hint: expect.stringContaining("copy the whole line again") }),
      );
    }
  });

  test.each([
    ["", 'it does not begin with "keyhold-ceremony:"'],
    ["https://keys.example.org", 'it does not begin with "keyhold-ceremony:"'],
    ["keyhold-ceremony:", "it is cut or mistyped"],
    [`keyhold-ceremony:${"A".repeat(900)}`, "it is too long"],
    [" ".repeat(10_000), "it is too long"],
  ])("refuses %j", (text, message) => {
    expect(() => decodeInvite(text)).toThrow(bad(message));
  });

  test.each([
    ["http://keys.example.org", "its address does not begin with https://"],
    ["ftp://keys.example.org", "its address does not begin with https://"],
    ["keys.example.org", "its address is none"],
    ["https://", "its address is none"],
    ["https://user@keys.example.org", "its address is none"],
    ["https://keys.example.org/#fragment", "its address is none"],
    ["https://keys.example.org/\n", "its address is none"],
    [`https://keys.example.org/${"x".repeat(600)}`, "its address is none"],
  ])("is for no address like %j", (url, message) => {
    expect(() => encodeInvite({ ...INVITE, url })).toThrow(bad(message));
  });

  test.each(["", "sha256:", "sha256:AAAA", `sha512:${"A".repeat(43)}`, `sha256:${"A".repeat(42)}B`])(
    "is for no pin like %j",
    (pin) => {
      expect(() => encodeInvite({ ...INVITE, pin })).toThrow(bad("its pin is none"));
    },
  );

  test("is for a seat that there may be, with a whole seed", () => {
    for (const index of [0, 257, 1.5]) expect(() => encodeInvite({ ...INVITE, index })).toThrow(bad("no such seat"));
    expect(() => encodeInvite({ ...INVITE, seed: new Uint8Array(16) })).toThrow(
      expect.objectContaining({ code: "internal" }),
    );
  });

  test("never shows its secret in what it says of a broken one", () => {
    const broken = `${LINE.slice(0, -2)}xx`;
    try {
      decodeInvite(broken);
      throw new Error("accepted");
    } catch (error) {
      expect(JSON.stringify([String(error), error])).not.toContain(LINE.slice(30, 50));
    }
  });
});
