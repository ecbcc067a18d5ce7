import { expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import { walkXml } from "../../src/formats/xml.ts";

/** What a document says, as it is told. */
function walked(xml: string): string[] {
  const said: string[] = [];
  walkXml("xml", xml, {
    open: (name, attributes) =>
      said.push(`+${name}${[...attributes].map(([key, value]) => ` ${key}=${value}`).join("")}`),
    close: (name, text) => said.push(`-${name} ${JSON.stringify(text)}`),
  });
  return said;
}

test("elements, attributes, text, the five entities, numbers, CDATA, comments and instructions", () => {
  expect(
    walked(
      `\ufeff<?xml version="1.0"?><!-- c --><a x = "1&lt;2" y='"'>one<b/> &amp;&#65;&#x1F600;<![CDATA[<&amp;>]]><?p i?><!-- - --></a>\n`,
    ),
  ).toEqual(['+a x=1<2 y="', "+b", '-b ""', '-a "one &A😀<&amp;>"']);
});

test.each([
  "",
  "text",
  "<",
  "<a",
  "<a>",
  "<a></b>",
  "<a></a",
  "</a>",
  "<a/><b/>",
  "<a/>text",
  "text<a/>",
  "<a b></a>",
  "<a b=c/>",
  "<a b='<'/>",
  '<a b="1"c="2"/>',
  '<a b="1" b="2"/>',
  "<a>&nbsp;</a>",
  "<a>&</a>",
  "<a>&#x110000;</a>",
  "<a>&#xD800;</a>",
  "<a>&#99999999;</a>",
  "<a>&constructor;</a>",
  "<!DOCTYPE a><a/>",
  "<a><!ENTITY b 'c'></a>",
  "<a><![CDATA[</a>",
  "<![CDATA[x]]><a/>",
  "<a><!-- </a>",
  "<a><? </a>",
  "<1/>",
  `${"<a>".repeat(129)}${"</a>".repeat(129)}`,
])("refuses %s", (xml) => {
  expect(() => walked(xml)).toThrow(expect.objectContaining({ code: "bad_input" }));
});

test("128 levels are enough", () => {
  expect(walked(`${"<a>".repeat(128)}${"</a>".repeat(128)}`).length).toBe(256);
});

test("any text that is escaped is read as it was, and any other text ends in a fault or is read", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
      expect(walked(`<a b="${escaped}">${escaped}</a>`)).toEqual([`+a b=${text}`, `-a ${JSON.stringify(text)}`]);
    }),
  );
  const piece = fc.constantFrom(
    "<a>",
    "</a>",
    "<a/>",
    "<",
    ">",
    "&",
    "&lt;",
    "x",
    '"',
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?",
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      try {
        walked(pieces.join(""));
      } catch (error) {
        expect(error).toBeInstanceOf(Fault);
      }
    }),
    { numRuns: 1_000 },
  );
});
