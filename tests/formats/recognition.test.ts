import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { FORMAT_NAMES, formatNamed, sniffFormat } from "../../src/formats/index.ts";
import { utf8 } from "./foreign.ts";
import { kdbx4, kdbxXml } from "./kdbxfile.ts";
import { zipOf } from "./zipfile.ts";

const URI = "otpauth://totp/a?secret=JBSWY3DPEHPK3PXP";
const SAMPLES: readonly (readonly [string, Uint8Array])[] = [
  ["bitwarden", new Uint8Array(readFileSync(new URL("../vectors/formats/bitwarden.json", import.meta.url)))],
  ["1pux", zipOf([{ name: "export.attributes", bytes: utf8("{}") }])],
  ["kdbx", kdbx4(kdbxXml([]))],
  ["otpauth", utf8(`${URI}\n`)],
  ["otpauth-migration", utf8("otpauth-migration://offline?data=CgA%3D\n")],
  ["csv", utf8("name,url,username,password\n")],
  ["csv", utf8("name,type,value,tags,created,expires\n")],
  ["json", utf8(`{"keyhold":"export","v":1,"items":[]}`)],
];

test.each(SAMPLES)("%s is recognised, and no other format takes it for its own", async (name, bytes) => {
  expect(await sniffFormat(bytes)).toBe(name as never);
  for (const other of FORMAT_NAMES.filter((one) => one !== name)) {
    expect((await formatNamed(other)).sniff(bytes, "")).toBe(false);
  }
});

test("what holds another's file as text is not taken for it", async () => {
  for (const [name, bytes] of SAMPLES) {
    const quoted = utf8(`a note about ${name}:\n${Buffer.from(bytes).toString("latin1")}`);
    for (const format of ["bitwarden", "1pux", "kdbx", "otpauth", "otpauth-migration", "csv"]) {
      expect((await formatNamed(format)).sniff(quoted, "")).toBe(false);
    }
  }
});

test("no bytes whatever make recognition fail", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(fc.uint8Array({ maxLength: 64 }), fc.string().map(utf8)),
      fc.string(),
      async (bytes, path) => {
        for (const name of FORMAT_NAMES) expect(typeof (await formatNamed(name)).sniff(bytes, path)).toBe("boolean");
      },
    ),
    { numRuns: 200 },
  );
});
