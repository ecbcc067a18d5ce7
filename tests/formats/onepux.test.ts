import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { strToU8, zipSync } from "fflate";
import { onePux } from "../../src/formats/onepux.ts";
import {
  fieldsOf,
  flipped,
  itemNamed,
  MARKER,
  outcome,
  readApart,
  readWith,
  refusal,
  text,
  truncated,
  utf8,
} from "./foreign.ts";
import { zipOf } from "./zipfile.ts";

const bitwarden: { items: { sshKey?: { privateKey: string } }[] } = JSON.parse(
  readFileSync(new URL("../vectors/formats/bitwarden.json", import.meta.url), "utf8"),
);
const SSH_KEY = bitwarden.items.find(({ sshKey }) => sshKey)?.sshKey?.privateKey ?? "";

const attributes = {
  name: "export.attributes",
  bytes: utf8('{"version":3,"description":"1Password Unencrypted Export","createdAt":1700000000}'),
};
const data = (items: unknown, more: object = {}) =>
  utf8(
    JSON.stringify({
      accounts: [{ attrs: { accountName: "Ada" }, vaults: [{ attrs: { name: "Personal" }, items }], ...more }],
    }),
  );
const archive = (items: unknown, files: readonly { name: string; bytes: Uint8Array }[] = []) =>
  zipOf([attributes, { name: "export.data", bytes: data(items) }, ...files]);

const value = (title: string, kind: string, given: unknown, id = `${title}-id`) => ({
  title,
  id,
  value: { [kind]: given },
});
const item = (more: object = {}) => ({
  uuid: "u",
  favIndex: 0,
  createdAt: 1_600_000_000,
  updatedAt: 1_600_000_001,
  state: "active",
  categoryUuid: "001",
  details: {
    loginFields: [
      { value: "ada", id: "", name: "username", fieldType: "T", designation: "username" },
      { value: MARKER, id: "", name: "password", fieldType: "P", designation: "password" },
    ],
    notesPlain: "",
    sections: [],
    passwordHistory: [],
  },
  overview: {
    title: "Example",
    url: "https://example.com",
    urls: [{ label: "website", url: "https://example.com" }],
    tags: [],
  },
  ...more,
});
const categorised = (categoryUuid: string, title: string, fields: unknown[], notesPlain = "") =>
  item({ categoryUuid, overview: { title }, details: { notesPlain, sections: [{ title: "", name: "s", fields }] } });

describe("reading", () => {
  test("a login with sections of every kind", async () => {
    const sections = [
      {
        title: "More",
        name: "m",
        fields: [
          value("one-time password", "totp", "JBSWY3DPEHPK3PXP"),
          value("answer", "concealed", "blue"),
          value("site", "url", "https://b.example"),
          value("born", "date", 946_684_800),
          value("long ago", "date", -1_000_000_000),
          value("until", "monthYear", 203_103),
          value("mail", "email", { email_address: "a@b.example", provider: null }),
          value("old mail", "email", "c@d.example"),
          value("home", "address", { street: "12 Square", city: "London", zip: "SW1", state: "", country: "gb" }),
          value("tel", "phone", "+44"),
          value("plain", "string", "text"),
          value("kind", "menu", "choice"),
          value("link", "reference", "xyz"),
          value("empty", "string", ""),
        ],
      },
    ];
    const login = item({
      favIndex: 1,
      state: "archived",
      details: {
        ...item().details,
        notesPlain: "notes",
        sections,
        passwordHistory: [{ value: "old", time: 1 }],
        passkey: {},
      },
      overview: { title: "Example", urls: [{ url: "https://a" }, { url: "https://b" }], tags: ["t1"] },
    });
    const read = await readWith(onePux, archive([login]));
    const [one] = read.items;
    expect(one).toMatchObject({
      name: "Personal/Example",
      type: "login",
      tags: ["archived", "favorite", "t1"],
      createdAt: "2020-09-13T12:26:40.000Z",
    });
    const fields = one ? fieldsOf(one) : {};
    expect(fields["otp"]).toContain("secret=JBSWY3DPEHPK3PXP");
    const expected: Record<string, string | string[]> = {
      user: "ada",
      url: ["https://a", "https://b"],
      otp: "",
      answer: "blue",
      site: "https://b.example",
      born: "2000-01-01",
      "long ago": "1938-04-24",
      until: "03/2031",
      mail: "a@b.example",
      "old mail": "c@d.example",
      home: "12 Square\nLondon\nSW1\ngb",
      tel: "+44",
      plain: "text",
      kind: "choice",
      notes: "notes",
    };
    expect<Record<string, string | string[]>>({ ...fields, otp: "" }).toEqual(expected);
    expect(one?.fields?.find(({ name }) => name === "answer")?.kind).toBe("hidden");
    expect(one?.fields?.find(({ name }) => name === "born")?.kind).toBe("date");
    expect(read.lost.map(({ what }) => what)).toEqual([
      '"Personal/Example": field "link"',
      '"Personal/Example": 1 former passwords',
      '"Personal/Example": a passkey',
    ]);
  });

  test("every category", async () => {
    const items = [
      categorised("002", "Card", [
        value("number", "creditCardNumber", "4111", "ccnum"),
        value("cardholder name", "string", "Ada", "cardholder"),
        value("expiry date", "monthYear", 203_103, "expiry"),
        value("verification number", "concealed", "123", "cvv"),
        value("PIN", "concealed", "9876", "pin"),
      ]),
      categorised("003", "Note", [], "text of it"),
      categorised("004", "Me", [
        value("first name", "string", "Ada", "firstname"),
        value("born", "date", 946_684_800, "birthdate"),
      ]),
      item({ categoryUuid: "005", overview: { title: "Password" }, details: { password: "pw" } }),
      categorised("112", "Token", [
        value("credential", "concealed", "tok", "credential"),
        value("type", "string", "bearer"),
      ]),
      categorised("114", "SSH", [
        { title: "key", id: "private_key", value: { sshKey: { privateKey: SSH_KEY, metadata: {} } } },
      ]),
      categorised("114", "Old", [
        { title: "key", id: "private_key", value: { sshKey: { privateKey: "-----BEGIN PRIVATE KEY-----" } } },
      ]),
      categorised("101", "Bank", [value("IBAN", "string", "GB33", "iban")], "remark"),
      categorised("999", "Unknown", [value("x", "string", "y")]),
    ];
    const read = await readWith(onePux, archive(items));
    expect(read.items.map(({ name, type, value: bytes }) => [name.slice(9), type, text(bytes).slice(0, 10)])).toEqual([
      ["Card", "card", "4111"],
      ["Note", "note", "text of it"],
      ["Me", "identity", ""],
      ["Password", "password", "pw"],
      ["Token", "token", "tok"],
      ["SSH", "ssh", "-----BEGIN"],
      ["Old", "note", "-----BEGIN"],
      ["Bank", "note", "remark"],
      ["Unknown", "note", ""],
    ]);
    expect(fieldsOf(itemNamed(read, "Personal/Card"))).toEqual({
      holder: "Ada",
      expiry: "03/2031",
      code: "123",
      pin: "9876",
    });
    expect(fieldsOf(itemNamed(read, "Personal/Me"))).toEqual({ "first-name": "Ada", "date-of-birth": "2000-01-01" });
    expect(fieldsOf(itemNamed(read, "Personal/Bank"))).toEqual({ IBAN: "GB33" });
    expect(read.lost).toEqual([{ what: `"Personal/Old": that it is an SSH key: it is not in OpenSSH's form` }]);
  });

  test("documents and attached files, packed by another library", async () => {
    const document = item({
      categoryUuid: "006",
      overview: { title: "Deed" },
      details: { documentAttributes: { fileName: "deed.pdf", documentId: "d1", decryptedSize: 4 } },
    });
    const attached = item({
      details: {
        ...item().details,
        sections: [
          {
            fields: [
              value("f", "file", { fileName: "../../x.txt", documentId: "d2" }),
              value("g", "file", { fileName: "y", documentId: "d3" }),
            ],
          },
        ],
      },
    });
    const file = zipSync({
      "export.attributes": strToU8("{}"),
      "export.data": data([document, attached]),
      "files/d1__deed.pdf": strToU8("deed"),
      "files/d2__....x.txt": strToU8("attached"),
    });
    const read = await readWith(onePux, file);
    expect(read.items.map(({ name, type }) => [name, type])).toEqual([
      ["Personal/Deed", "file"],
      ["Personal/Example", "login"],
      ["Personal/Example/..-..-x.txt", "file"],
    ]);
    expect(text(itemNamed(read, "Personal/Deed").value)).toBe("deed");
    expect(text(itemNamed(read, "Personal/Example/..-..-x.txt").value)).toBe("attached");
    expect(read.lost).toEqual([{ what: '"Personal/Example": an attached file, which is missing in the archive' }]);
  });

  test("several accounts are told apart by their names", async () => {
    const vault = { attrs: { name: "V" }, items: [item()] };
    const both = {
      accounts: [
        { attrs: { accountName: "A" }, vaults: [vault] },
        { attrs: { accountName: "B" }, vaults: [vault] },
      ],
    };
    const read = await readWith(
      onePux,
      zipOf([attributes, { name: "export.data", bytes: utf8(JSON.stringify(both)) }]),
    );
    expect(read.items.map(({ name }) => name)).toEqual(["A/V/Example", "B/V/Example"]);
  });
});

describe("bad input", () => {
  const inner = data([item()]);
  const entry = { name: "export.data", bytes: inner };
  const good = zipOf([attributes, entry]);
  const withData = (bytes: Uint8Array) => zipOf([attributes, { name: "export.data", bytes }]);
  const deep = `${"[".repeat(50_000)}${"]".repeat(50_000)}`;
  const changed = (at: number, byte: number) => {
    const copy = good.slice();
    copy[at < 0 ? copy.length + at : at] = byte;
    return copy;
  };
  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["text", utf8(MARKER)],
    ["an empty archive", zipOf([])],
    ["an archive without export.data", zipOf([attributes])],
    ["data that is no JSON", withData(utf8(MARKER))],
    ["data that is a list", withData(utf8(`["${MARKER}"]`))],
    ["data without accounts", withData(utf8("{}"))],
    ["accounts that are text", withData(utf8(`{"accounts":"${MARKER}"}`))],
    ["items that are text", archive(MARKER)],
    ["an item that is null", archive([null])],
    ["details that are a list", archive([item({ details: [MARKER] })])],
    ["sections that are an object", archive([item({ details: { sections: { a: MARKER } } })])],
    ["a value that is a list", archive([categorised("003", "a", [{ value: [MARKER] }])])],
    ["a title that is an object", archive([item({ overview: { title: { a: MARKER } } })])],
    ["data that is no UTF-8", withData(Uint8Array.of(0x7b, 0xff, 0x7d))],
    ["half a surrogate", withData(utf8(text(inner).replace(MARKER, "\\udc00")))],
    ["deep nesting", withData(utf8(`{"accounts":${deep}}`))],
    ["more items than can be", archive(Array.from({ length: 100_001 }, () => ({ details: { password: "x" } })))],
    ["a million items", withData(utf8(`{"accounts":[{"vaults":[{"items":[${"{},".repeat(1_000_001)}{}]}]}]}`))],
    ["a bomb that says what it is", zipOf([attributes, { ...entry, size: 0xf000_0000 }])],
    [
      "a bomb that says that it is small",
      zipOf([attributes, { name: "export.data", bytes: new Uint8Array(50_000_000), size: 1_000 }]),
    ],
    ["files that overlap", zipOf([attributes, entry, { ...entry, name: "files/a", offset: 20 }])],
    ["one file under two names", zipOf([attributes, entry, { ...entry, name: "b", offset: 0 }])],
    ["two files of one name", zipOf([attributes, entry, entry])],
    ["more files than can be", zipOf(Array.from({ length: 20_001 }, (_, i) => ({ name: `${i}`, bytes: utf8("") })))],
    ["a file beyond the end", zipOf([attributes, { ...entry, packed: 0x7fff_ffff }])],
    ["an offset beyond the end", zipOf([attributes, { ...entry, offset: 0xffff_fff0 }])],
    ["a wrong checksum", zipOf([attributes, { ...entry, crc: 1 }])],
    ["a size that is too small", zipOf([attributes, { ...entry, size: 5 }])],
    ["a size that is too large", zipOf([attributes, { ...entry, size: inner.length + 1 }])],
    ["an unknown compression", zipOf([attributes, { ...entry, method: 99 }])],
    ["a file that is not compressed as it says", zipOf([attributes, { ...entry, stored: true, method: 8 }])],
    ["an encrypted archive", zipOf([attributes, { ...entry, flags: 1 }])],
    ["a ZIP64 archive", zipOf([attributes, entry], { start: 0xffff_ffff })],
    ["a directory that begins elsewhere", zipOf([attributes, entry], { start: 3 })],
    ["a directory of another size", zipOf([attributes, entry], { size: 3 })],
    ["more files than the directory holds", zipOf([attributes, entry], { count: 3 })],
    ["fewer files than the directory holds", zipOf([attributes, entry], { count: 1 })],
    ["a comment longer than the file", changed(-2, 9)],
    ["bytes after the end", Uint8Array.from([...good, 1])],
    ["a directory on disk", "/tmp"],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(onePux, source);
    },
    30_000,
  );

  test("names of methods and of prototypes are names like others", async () => {
    const hostile = utf8(
      text(data([categorised("constructor", "__proto__", [value("__proto__", "string", "v", "__proto__")])])),
    );
    const read = await readWith(onePux, withData(hostile));
    expect(read.items).toMatchObject([{ name: "Personal/__proto__", fields: [{ name: "__proto__", value: "v" }] }]);
  });

  test("truncated and changed archives end in a fault, or give the same", async () => {
    for (const part of truncated(good, 80)) await refusal(onePux, part);
    const whole = await readWith(onePux, good);
    for (const part of flipped(good, 250)) {
      const end = await outcome(onePux, part);
      if ("items" in end) expect(end).toEqual(whole);
    }
  }, 30_000);

  test("bombs cost no memory to speak of", async () => {
    const quiet = zipOf([attributes, { name: "export.data", bytes: new Uint8Array(200_000_000), size: 1_000 }]);
    const loud = zipOf([attributes, { name: "export.data", bytes: new Uint8Array(200_000_000) }]);
    const items = withData(utf8(`{"accounts":[{"vaults":[{"items":[${"{},".repeat(1_000_001)}{}]}]}]}`));
    for (const bomb of [quiet, loud, items]) {
      const { code, peakMib } = await readApart("1pux", bomb);
      expect(["bad_input", "too_large"]).toContain(code);
      expect(peakMib).toBeLessThan(250);
    }
  }, 60_000);
});

test("is recognised by its first file, or by its name", () => {
  const file = archive([item()]);
  expect(onePux.sniff(file, "")).toBe(true);
  expect(onePux.sniff(zipOf([{ name: "a", bytes: utf8("b") }]), "a.zip")).toBe(false);
  expect(onePux.sniff(zipOf([{ name: "a", bytes: utf8("b") }]), "A.1PUX")).toBe(true);
  expect(onePux.sniff(utf8("PK"), "a.1pux")).toBe(false);
});
