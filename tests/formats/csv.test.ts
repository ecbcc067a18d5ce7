import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { csv } from "../../src/formats/csv.ts";
import type { PlainItem } from "../../src/formats/item.ts";
import {
  anyFields,
  anyName,
  anyText,
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
  writeWith,
} from "./foreign.ts";
import { SAMPLES } from "./samples.ts";

const CHROME = `name,url,username,password,note\r\nexample.com,https://example.com/,ada,"pass,word","a ""note"""\r\n`;

describe("tables of other programs", () => {
  test.each([
    ["Chrome and Edge", CHROME],
    ["older Chrome", 'name,url,username,password\nexample.com,https://example.com/,ada,"pass,word"\n'],
    [
      "Firefox",
      `"url","username","password","httpRealm","formActionOrigin","guid","timeCreated","timeLastUsed","timePasswordChanged"\n"https://example.com","ada","pass,word",,"https://example.com","{7f}","1700000000123","1700000000123","1700000000123"\n`,
    ],
    ["Safari", `Title,URL,Username,Password,Notes,OTPAuth\nexample.com,https://example.com/,ada,"pass,word",,\n`],
    [
      "1Password",
      `Title,Url,Username,Password,OTPAuth,Favorite,Archived,Tags,Notes\nexample.com,https://example.com/,ada,"pass,word",,false,false,,\n`,
    ],
    [
      "Bitwarden",
      `folder,favorite,type,name,notes,fields,reprompt,login_uri,login_username,login_password,login_totp\n,,login,example.com,,,0,"https://example.com/",ada,"pass,word",\n`,
    ],
    [
      "LastPass",
      `url,username,password,totp,extra,name,grouping,fav\nhttps://example.com/,ada,"pass,word",,,example.com,,0\n`,
    ],
    [
      "KeePassXC",
      `"Group","Title","Username","Password","URL","Notes","TOTP","Icon","Last Modified","Created"\n"Root","example.com","ada","pass,word","https://example.com/","","","0","2024-01-01T00:00:00Z","2024-01-01T00:00:00Z"\n`,
    ],
    [
      "KeePass 1",
      `"Account","Login Name","Password","Web Site","Comments"\n"example.com","ada","pass,word","https://example.com/",""\n`,
    ],
  ])("%s: recognised and read", async (program, file) => {
    expect(csv.sniff(utf8(file), "")).toBe(true);
    const { items, lost } = await readWith(csv, utf8(file));
    const [item] = items;
    expect(items.length).toBe(1);
    expect(item?.name).toBe(program === "Firefox" ? "example.com/ada" : "example.com");
    expect(item?.type).toBe("login");
    expect(text(item?.value)).toBe("pass,word");
    expect(item && fieldsOf(item)).toMatchObject({
      user: "ada",
      url: program === "Firefox" ? "https://example.com" : "https://example.com/",
    });
    expect(lost).toEqual([]);
  });

  test("Firefox: the time, and the realm of a server that asks for a password", async () => {
    const file = `url,username,password,httpRealm,formActionOrigin,guid,timeCreated,timeLastUsed,timePasswordChanged\nhttps://h:8443/x,ada,p,${MARKER},,,1700000000123,0,0\n`;
    const { items, lost } = await readWith(csv, utf8(file));
    expect(items[0]).toMatchObject({ name: "h:8443/ada", createdAt: "2023-11-14T22:13:20.123Z" });
    expect(lost).toEqual([{ what: '"h:8443/ada": column "httpRealm"' }]);
  });

  test("Bitwarden: notes, several addresses, fields, one-time passwords, folders", async () => {
    const file = `folder,favorite,type,name,notes,fields,reprompt,login_uri,login_username,login_password,login_totp
Work/Mail,1,login,Ex,hello,"pin: 12
colour: blue: dark",0,"https://a.example,https://b.example/x,y",ada,pw,JBSWY3DPEHPK3PXP
,,note,Wi-Fi,attic,,0,,,,
`;
    const read = await readWith(csv, utf8(file));
    const login = itemNamed(read, "Work/Mail/Ex");
    expect(login.tags).toEqual(["favorite"]);
    expect(fieldsOf(login)).toMatchObject({
      url: ["https://a.example", "https://b.example/x,y"],
      pin: "12",
      colour: "blue: dark",
      notes: "hello",
      otp: expect.stringContaining("secret=JBSWY3DPEHPK3PXP"),
    });
    expect(itemNamed(read, "Wi-Fi")).toMatchObject({ type: "note", value: utf8("attic") });
  });

  test("LastPass: notes, folders with a backslash, favourites", async () => {
    const file = `url,username,password,extra,name,grouping,fav\nhttp://sn,,,"NoteType:Server\nHost:x",Server,Work\\Ops,1\n`;
    const { items } = await readWith(csv, utf8(file));
    expect(items).toMatchObject([
      { name: "Work/Ops/Server", type: "note", value: utf8("NoteType:Server\nHost:x"), tags: ["favorite"] },
    ]);
    expect(items[0]?.fields).toBeUndefined();
  });

  test("KeePassXC: groups below the root, one-time passwords", async () => {
    const file = `"Group","Title","Username","Password","URL","Notes","TOTP","Icon","Last Modified","Created"\n"Passwords/A/B","t","u","p","","","otpauth://totp/x?secret=JBSWY3DPEHPK3PXP","0","2024-01-01T00:00:00Z","2023-01-01T00:00:00Z"\n`;
    const { items } = await readWith(csv, utf8(file));
    expect(items[0]).toMatchObject({ name: "A/B/t", createdAt: "2023-01-01T00:00:00Z" });
    expect(items[0]?.fields?.find(({ kind }) => kind === "otp")?.value).toStartWith("otpauth://totp/");
  });
});

describe("other tables", () => {
  const TABLE = "site;account;pass;remark;colour\nMail;ada;pw;hello;blue\n";

  test("are read by --map, and columns that it does not name are named as lost", async () => {
    const map = { name: "site", value: "PASS", user: "account", "answer:hidden": "remark" };
    const { items, lost } = await readWith(csv, utf8(TABLE), { map });
    expect(items).toMatchObject([
      {
        name: "Mail",
        type: "login",
        value: utf8("pw"),
        fields: [
          { name: "user", kind: "text", value: "ada" },
          { name: "answer", kind: "hidden", value: "hello" },
        ],
      },
    ]);
    expect(lost).toEqual([{ what: 'column "colour"' }]);
  });

  test("a map with an unknown column, a column twice or no value is refused", async () => {
    for (const map of [
      { name: "site", value: "nothing" },
      { name: "site", value: "site" },
      { name: "site", user: "account" },
      { value: "pass" },
    ]) {
      expect(await refusal(csv, utf8(TABLE), { map })).toMatchObject({ code: "bad_input" });
    }
  });

  test("without a map, columns with the usual names are enough; others become fields", async () => {
    const { items } = await readWith(csv, utf8("Title\tPassword\tcustomer\nA\tpw\t4711\nB\tpw2\t\n"));
    expect(items.map(({ name, type }) => [name, type])).toEqual([
      ["A", "login"],
      ["B", "password"],
    ]);
    expect(items[0]?.fields).toEqual([{ name: "customer", kind: "text", value: "4711" }]);
    expect((await refusal(csv, utf8(TABLE))).hint).toContain("--map");
  });

  test("a second column of the name or the value is kept beside the first, and nothing is dropped", async () => {
    const { items, lost } = await readWith(csv, utf8("name,password,password,Secret,title\na,b,c,d,e\n"));
    expect(items.map(({ name, value }) => [name, text(value)])).toEqual([["a", "b"]]);
    expect(items[0]?.fields).toEqual([
      { name: "password", kind: "hidden", value: "c" },
      { name: "Secret", kind: "hidden", value: "d" },
      { name: "title", kind: "hidden", value: "e" },
    ]);
    expect(lost).toEqual([]);
  });

  test("line ends of all systems, a byte-order mark, empty lines", async () => {
    for (const end of ["\n", "\r\n", "\r"]) {
      const file = `\ufeffname,value${end}a,"1"${end}${end}b,2`;
      const { items } = await readWith(csv, utf8(file));
      expect(items.map(({ name, value }) => [name, text(value)])).toEqual([
        ["a", "1"],
        ["b", "2"],
      ]);
    }
  });
});

describe("writing", () => {
  const ours = fc
    .uniqueArray(
      fc.record({
        name: anyName,
        type: fc.constantFrom("login" as const, "note" as const, "password" as const, "bytes" as const),
        value: fc.oneof(
          anyText.filter((value) => value !== "").map(utf8),
          fc.uint8Array({ minLength: 1, maxLength: 40 }),
        ),
        tags: fc.uniqueArray(fc.constantFrom("one", "zwei ü", "a,b;c", '"q"')),
        createdAt: fc.constantFrom(null, "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05Z"),
        expiresAt: fc.constantFrom(null, "2030-01-01T00:00:00.000Z"),
        fields: anyFields,
      }),
      { minLength: 1, maxLength: 6, selector: ({ name }) => name },
    )
    .map((items): PlainItem[] => items);

  test("is read back as it was, whatever stands in it", async () => {
    await fc.assert(
      fc.asyncProperty(ours, async (items) => {
        const { file } = await writeWith(csv, items);
        expect(csv.sniff(file, "")).toBe(true);
        const read = await readWith(csv, file);
        expect(read.items.length).toBe(items.length);
        for (const [i, written] of items.entries()) {
          const again = read.items[i];
          expect(again && csv.same?.(written, again)).toBe(true);
        }
        expect((await writeWith(csv, items)).file).toEqual(file);
      }),
      { numRuns: 200 },
    );
  }, 30_000);

  test("takes every type", async () => {
    const { file, lost } = await writeWith(csv, SAMPLES);
    const read = await readWith(csv, file);
    expect(lost).toEqual([]);
    expect(SAMPLES.map((item, i) => csv.same?.(item, read.items[i] ?? { ...item, name: "" }))).not.toContain(false);
  }, 30_000);

  test("leaves values that a spreadsheet takes for formulas as they are", async () => {
    const item: PlainItem = { name: "a", type: "password", value: utf8("=1+1"), tags: [], createdAt: null };
    expect(text((await writeWith(csv, [item])).file)).toBe(
      "name,type,value,tags,created,expires\r\na,password,=1+1,,,\r\n",
    );
  });

  test("the comparison notices another value, field, kind, tag and time", async () => {
    const [one] = SAMPLES.filter(({ type }) => type === "password");
    if (!one) throw new Error("no sample");
    expect(csv.same?.(one, { ...one })).toBe(true);
    for (const other of [
      { ...one, value: utf8("y") },
      { ...one, tags: ["other"] },
      { ...one, createdAt: "1999-01-01T00:00:00.000Z" },
      { ...one, expiresAt: "1999-01-01T00:00:00.000Z" },
      { ...one, fields: [{ name: "a", kind: "text" as const, value: "b" }] },
    ]) {
      expect(csv.same?.(one, other)).toBe(false);
    }
  });
});

describe("bad input", () => {
  const own = (row: string, more = "") => utf8(`name,type,value,value-base64,tags,created,expires${more}\n${row}\n`);
  const HOSTILE: readonly [string, Uint8Array | string][] = [
    ["nothing", utf8("")],
    ["blank lines", utf8("\n\n")],
    ["text", utf8(`hello ${MARKER}`)],
    ["a header without a name", utf8(`user,password\na,${MARKER}\n`)],
    ["a header without a value", utf8(`name,user\na,${MARKER}\n`)],
    ["a quotation mark that is never closed", utf8(`name,value\na,"${MARKER}`)],
    ["a quotation mark inside a cell", utf8(`name,value\na,x"${MARKER}\n`)],
    ["text after a quotation", utf8(`name,value\na,"x"${MARKER}\n`)],
    ["a row with a cell too many", utf8(`name,value\na,b,${MARKER}\n`)],
    ["a row with a cell too few", utf8(`name,value\n${MARKER}\n`)],
    ["NUL in the header", utf8(`name,value\0\na,${MARKER}\n`)],
    ["UTF-16", new Uint8Array(Buffer.from("\ufeffname,value\na,b\n", "utf16le"))],
    ["invalid UTF-8", Uint8Array.from([...utf8("name,value\na,"), 0xff, 0x0a])],
    ["a thousand columns", utf8(`name,value,${Array.from({ length: 1_000 }, (_, i) => `c${i}`).join(",")}\n`)],
    ["a type that nobody knows", own(`a,${MARKER},x,,,,`)],
    ["a type that is the name of a method", own("a,constructor,x,,,,")],
    ["a part of a file", own("a,part,x,,,,")],
    ["base64 that is none", own(`a,bytes,,${MARKER}!,,,`)],
    ["a key that is none", own("a,ed25519,,AAAA,,,")],
    ["a row longer than can be", utf8(`name,value\na,${"x".repeat(30_000_000)}\n`)],
    ["more rows than can be", utf8(`name,value\n${"a,b\n".repeat(100_001)}`)],
    ["a million rows", utf8(`name,value\n${"a,b\n".repeat(1_000_001)}`)],
    ["a million cells in one row", utf8(`name,value\n${",".repeat(1_000_000)}\n`)],
    ["a directory", "/tmp"],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, source) => {
      await refusal(csv, source);
    },
    30_000,
  );

  test("names of methods are names like others", async () => {
    const { items } = await readWith(csv, utf8("name,value,__proto__,constructor,toString\n__proto__,1,2,3,4\n"));
    expect(items).toMatchObject([
      { name: "__proto__", fields: [{ name: "__proto__" }, { name: "constructor" }, { name: "toString" }] },
    ]);
    const { items: mapped } = await readWith(csv, utf8("a,b\nx,y\n"), { map: { name: "a", value: "b" } });
    expect(mapped.length).toBe(1);
    expect(Object.hasOwn(Object.prototype, "2")).toBe(false);
  });

  test("truncated and changed files end in a fault, or are read", async () => {
    const { file } = await writeWith(
      csv,
      SAMPLES.filter(({ type }) => type !== "rsa"),
    );
    for (const source of [file, utf8(CHROME)]) {
      for (const part of truncated(source, 50)) await outcome(csv, part);
      for (const part of flipped(source, 150)) await outcome(csv, part);
    }
  }, 30_000);

  test("a million rows cost no memory to speak of", async () => {
    const { code, peakMib } = await readApart("csv", utf8(`name,value\n${"a,b\n".repeat(1_000_001)}`));
    expect(code).toBe("too_large");
    expect(peakMib).toBeLessThan(400);
  }, 30_000);
});

describe("recognition", () => {
  test("by the header, and nothing else", () => {
    for (const other of ["name,value\na,b\n", "a,b,c\n", "", "username,password\nx,y\n", "name,name,url\n", "{}"]) {
      expect(csv.sniff(utf8(other), "a.csv")).toBe(false);
    }
  });
});
