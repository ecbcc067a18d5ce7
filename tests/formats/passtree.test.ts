import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Encrypter, generateIdentity, identityToRecipient } from "age-encryption";
import { passDraft } from "../../src/formats/passentry.ts";
import { passTree } from "../../src/formats/passtree.ts";
import { testNeeding } from "../support/skip.ts";
import { fieldsOf, flipped, itemNamed, MARKER, outcome, readWith, refusal, text, truncated, utf8 } from "./foreign.ts";

const GPG = Bun.which("gpg") ?? "gpg";

let scratch = "";
let identity = "";
beforeAll(async () => {
  // short, since gpg's agent has its socket in it
  scratch = mkdtempSync(join(tmpdir(), "kh-pass-"));
  identity = await generateIdentity();
});
afterAll(() => rmSync(scratch, { recursive: true }));

let trees = 0;
/** A tree with those files. */
function tree(files: Readonly<Record<string, Uint8Array | string>>): string {
  const root = join(scratch, `tree-${trees++}`);
  mkdirSync(root);
  for (const [path, bytes] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), bytes);
  }
  return root;
}

async function sealed(plain: Uint8Array | string): Promise<Uint8Array> {
  const encrypter = new Encrypter();
  encrypter.addRecipient(await identityToRecipient(identity));
  return encrypter.encrypt(plain);
}

const readAge = (root: string) => readWith(passTree, root, { identities: [utf8(identity)] });
const refuseAge = (root: string) => refusal(passTree, root, { identities: [utf8(identity)] });

/** The one item that a text becomes. */
const draft = (content: string | Uint8Array) =>
  passDraft(["mail", "x"], typeof content === "string" ? utf8(content) : content.slice());

describe("an entry", () => {
  test("is its first line, fields, one-time password and notes", () => {
    const one = draft(
      `p@ss\nlogin: ada\nURL: https://a\nsite: https://b\notpauth://totp/x?secret=JBSWY3DPEHPK3PXP\npin: 1234\ncolour: blue\nnot a field\n\nlast: \n`,
    );
    expect(one).toMatchObject({ type: "login", value: "p@ss", path: ["mail", "x"] });
    expect(one.fields?.map(({ name, kind, value }) => `${name} ${kind} ${value}`)).toEqual([
      "user text ada",
      "url url https://a",
      "url url https://b",
      "otp otp otpauth://totp/x?secret=JBSWY3DPEHPK3PXP",
      "pin hidden 1234",
      "colour text blue",
      "notes text not a field\n\nlast:",
    ]);
  });

  test.each([
    ["pw\n", "password", "pw"],
    ["pw", "password", "pw"],
    ["pw\r\nuser: a\r\n", "login", "pw"],
    ["\nonly notes\nof two lines\n", "note", "only notes\nof two lines"],
    ["otpauth://totp/x?secret=JBSWY3DPEHPK3PXP\n", "totp", "otpauth://totp/x?secret=JBSWY3DPEHPK3PXP"],
    [
      "otpauth://hotp/x?secret=JBSWY3DPEHPK3PXP&counter=1\n",
      "hotp",
      "otpauth://hotp/x?secret=JBSWY3DPEHPK3PXP&counter=1",
    ],
    ["otpauth://totp/broken\n", "password", "otpauth://totp/broken"],
    ["GOPASS-SECRET-1.0\nPassword: pw\nUser: a\n\nbody", "login", "pw"],
  ] as const)("%j is of type %s", (content, type, value) => {
    expect(draft(content)).toMatchObject({ type, value });
  });

  test("of gopass with YAML, and a file that gopass keeps", () => {
    expect(draft("pw\n---\nuser: a\nport: 22\n").fields).toMatchObject(
      [{ name: "user" }, { name: "port" }, { value: "" }].slice(0, 2),
    );
    const file = draft(
      `\ncontent-disposition: attachment; filename="k"\ncontent-transfer-encoding: Base64\n\n${btoa("\0file")}\n`,
    );
    expect(file).toMatchObject({ type: "file", value: utf8("\0file") });
  });

  test("of bytes is a file", () => {
    expect(draft(Uint8Array.of(0xff, 1, 2))).toMatchObject({ type: "file", value: Uint8Array.of(0xff, 1, 2) });
    expect(draft("a\0b")).toMatchObject({ type: "file" });
    expect(draft("x".repeat(70_000))).toMatchObject({ type: "file" });
  });
});

describe("a tree of age files", () => {
  test("is read in the order of its names; what is no entry is named or ignored", async () => {
    const root = tree({
      "b.age": await sealed("two"),
      "a/c.age": await sealed("one\nuser: ada"),
      "a/u\u0308.age": await sealed("three"),
      ".git/config": "x",
      ".age-recipients": "age1",
      "a/.hidden.age": "x",
      "README.md": "x",
    });
    symlinkSync("a/c.age", join(root, "link.age"));
    symlinkSync("a", join(root, "loop"));
    symlinkSync(".", join(root, "self"));
    expect(passTree.sniff(new Uint8Array(), root)).toBe(true);
    const read = await readAge(root);
    expect(read.items.map(({ name, type, value }) => [name, type, text(value)])).toEqual([
      ["a/c", "login", "one"],
      ["a/\u00fc", "password", "three"],
      ["b", "password", "two"],
      ["link", "login", "one"],
    ]);
    expect(read.lost.map(({ what }) => what)).toEqual([
      '"README.md": a file that is no encrypted entry',
      '"loop": a link to a directory of the tree',
      '"self": a link to a directory of the tree',
    ]);
    expect(await readAge(root)).toEqual(read);
  });

  test("progress is told, up to the whole", async () => {
    const root = tree({ "a.age": await sealed("1"), "b.age": await sealed("2") });
    const told: number[] = [];
    await passTree.read?.(root, {
      name: null,
      map: new Map(),
      asks: {
        password: async () => utf8(""),
        identities: async () => [utf8(identity)],
        progress: (at) => told.push(at),
      },
    });
    expect(told).toEqual([0.5, 1]);
  });
});

describe("bad input", () => {
  const HOSTILE: readonly [string, () => Promise<string> | string][] = [
    ["no directory", () => join(scratch, "nothing")],
    ["a file", () => join(tree({ a: "x" }), "a")],
    ["an empty tree", () => tree({})],
    ["a tree without entries", () => tree({ "a.txt": MARKER })],
    ["hidden entries alone", async () => tree({ ".a.age": await sealed("x") })],
    ["an empty file", () => tree({ "a.age": "" })],
    ["text", () => tree({ "a.age": MARKER })],
    [
      "armour around nothing",
      () => tree({ "a.age": "-----BEGIN AGE ENCRYPTED FILE-----\n-----END AGE ENCRYPTED FILE-----\n" }),
    ],
    ["a header alone", () => tree({ "a.age": `age-encryption.org/v1\n-> X25519 ${MARKER}\n` })],
    ["a header without end", () => tree({ "a.age": `age-encryption.org/v1\n${"-> x\n\n".repeat(50_000)}` })],
    [
      "a file for another key",
      async () => {
        const other = new Encrypter();
        other.addRecipient(await identityToRecipient(await generateIdentity()));
        return tree({ "a.age": await other.encrypt("x") });
      },
    ],
    [
      "a file that is sealed by a passphrase",
      async () => {
        const other = new Encrypter();
        other.setScryptWorkFactor(1);
        other.setPassphrase("p");
        return tree({ "a.age": await other.encrypt("x") });
      },
    ],
    [
      "one bad file among good ones",
      async () => tree({ "a.age": await sealed("x"), "b.age": MARKER, "c.age": await sealed("y") }),
    ],
    [
      "a link out of the tree",
      async () => {
        const outside = tree({ "x.age": await sealed(MARKER) });
        const root = tree({ "a.age": await sealed("x") });
        symlinkSync(join(outside, "x.age"), join(root, "b.age"));
        return root;
      },
    ],
    [
      "a link upwards",
      async () => {
        const root = tree({ "a.age": await sealed("x") });
        symlinkSync("../../../../etc/passwd", join(root, "b.age"));
        return root;
      },
    ],
    [
      "a directory that is a link out of the tree",
      async () => {
        const root = tree({ "a.age": await sealed("x") });
        symlinkSync(tmpdir(), join(root, "b"));
        return root;
      },
    ],
    [
      "a link to nothing",
      async () => {
        const root = tree({ "a.age": await sealed("x") });
        symlinkSync("gone.age", join(root, "b.age"));
        return root;
      },
    ],
    [
      "a link to itself",
      async () => {
        const root = tree({ "a.age": await sealed("x") });
        symlinkSync("b.age", join(root, "b.age"));
        return root;
      },
    ],
    [
      "a sibling whose name begins like the tree's",
      async () => {
        const root = tree({ "a.age": await sealed("x") });
        mkdirSync(`${root}-more`);
        writeFileSync(`${root}-more/x.age`, await sealed(MARKER));
        symlinkSync(`${root}-more/x.age`, join(root, "b.age"));
        return root;
      },
    ],
    ["directories without end", async () => tree({ [`${"d/".repeat(40)}a.age`]: await sealed("x") })],
    [
      "an entry of many megabytes",
      () => {
        const root = tree({ "a.age": "x" });
        truncateSync(join(root, "a.age"), 30_000_000);
        return root;
      },
    ],
    [
      "entries of too many bytes together",
      () => {
        const root = tree(Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`${i}.age`, "x"])));
        for (let i = 0; i < 30; i++) truncateSync(join(root, `${i}.age`), 20_000_000);
        return root;
      },
    ],
  ];
  test.each(HOSTILE)(
    "%s: a fault, and nothing read",
    async (_, make) => {
      await refuseAge(await make());
    },
    30_000,
  );

  test("a file in place of a directory", async () => {
    await refusal(passTree, utf8(MARKER));
  });

  test("identities that are none", async () => {
    const root = tree({ "a.age": await sealed("x") });
    for (const identities of [[], [utf8(MARKER)], [utf8("AGE-SECRET-KEY-1XXXX")]])
      await refusal(passTree, root, { identities });
  });

  test("truncated and changed files end in a fault", async () => {
    const file = await sealed("x\nuser: y");
    for (const part of [...truncated(file, 25), ...flipped(file, 40)]) {
      const end = await outcome(passTree, tree({ "a.age": part }), { identities: [utf8(identity)] });
      expect("code" in end).toBe(true);
    }
  }, 30_000);

  test("hostile names become valid ones", async () => {
    const root = tree({ "a\u0007\nb.age": await sealed("x"), "...age": "never read", "-rf.age": await sealed("y") });
    const read = await readAge(root);
    expect(read.items.map(({ name }) => name)).toEqual(["-rf", "a b"]);
  });
});

describe("against pass and gpg", () => {
  /** A home of gpg's own with one key; its agent is ended afterwards. */
  async function withGpg(
    passphrase: string,
    work: (run: (...args: string[]) => string) => Promise<void>,
  ): Promise<void> {
    const home = mkdtempSync(join(scratch, "g"));
    const before = process.env["GNUPGHOME"];
    const env = {
      PATH: process.env["PATH"] ?? "",
      HOME: home,
      GNUPGHOME: home,
      PASSWORD_STORE_DIR: join(home, "store"),
    };
    const run = (...args: string[]) => {
      const [file = "", ...rest] = args;
      return execFileSync(file, rest, { env, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
    };
    writeFileSync(join(home, "gpg-agent.conf"), "pinentry-program /bin/false\n");
    process.env["GNUPGHOME"] = home;
    try {
      const batch = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", passphrase];
      run(...batch, "--quick-generate-key", "ada@example.com", "future-default", "default", "never");
      await work(run);
    } finally {
      run("gpgconf", "--kill", "all");
      if (before === undefined) delete process.env["GNUPGHOME"];
      else process.env["GNUPGHOME"] = before;
    }
  }
  const insert = (store: string, name: string, content: string | Uint8Array) => {
    mkdirSync(dirname(join(store, name)), { recursive: true });
    const args = ["--batch", "--quiet", "--trust-model", "always", "-r", "ada@example.com", "--encrypt"];
    writeFileSync(join(store, `${name}.gpg`), execFileSync(GPG, args, { input: content, env: { ...process.env } }));
  };

  testNeeding(
    ["pass", "gpg", "gpgconf"],
    "a tree that pass made, and one with many entries",
    () =>
      withGpg("", async (run) => {
        const store = join(process.env["GNUPGHOME"] ?? "", "store");
        run("pass", "init", "ada@example.com");
        const script = `printf 'p@ss wörd\\nuser: ada\\nurl: https://example.com\\n' | pass insert -m 'Work/Mail'`;
        run("sh", "-c", script);
        run("pass", "generate", "Home/Wi-Fi", "24");
        for (let i = 0; i < 9; i++) insert(store, `many/${i}`, `value ${i}`);
        insert(store, "blob", Uint8Array.of(0, 1, 2, 255));
        expect(passTree.sniff(new Uint8Array(), store)).toBe(true);
        const read = await readWith(passTree, store);
        expect(read.items.map(({ name }) => name)).toEqual([
          "Home/Wi-Fi",
          "Work/Mail",
          "blob",
          ...Array.from({ length: 9 }, (_, i) => `many/${i}`),
        ]);
        const mail = itemNamed(read, "Work/Mail");
        expect(text(mail.value)).toBe("p@ss wörd");
        expect(fieldsOf(mail)).toEqual({ user: "ada", url: "https://example.com" });
        expect(text(itemNamed(read, "Home/Wi-Fi").value)).toBe(run("pass", "show", "Home/Wi-Fi").trim());
        expect(text(itemNamed(read, "many/7").value)).toBe("value 7");
        expect(itemNamed(read, "blob")).toMatchObject({ type: "file", value: Uint8Array.of(0, 1, 2, 255) });
        expect(read.lost).toEqual([]);
        insert(store, "bomb", Buffer.alloc(60_000_000));
        expect(await refusal(passTree, store)).toMatchObject({ code: "too_large" });
        rmSync(join(store, "bomb.gpg"));
        writeFileSync(join(store, "zero.gpg"), MARKER);
        expect(await refusal(passTree, store)).toMatchObject({
          code: "bad_input",
          message: 'cannot decrypt the entry "zero"',
        });
      }),
    60_000,
  );

  testNeeding(
    ["gpg", "gpgconf"],
    "a message that is not encrypted, and a passphrase that nobody gives",
    () =>
      withGpg("secret", async (run) => {
        const home = process.env["GNUPGHOME"] ?? "";
        const store = join(home, "store");
        insert(store, "locked", "x");
        run("gpgconf", "--kill", "gpg-agent");
        expect(await refusal(passTree, store)).toMatchObject({ code: "wrong_password" });
        const plain = tree({
          "a.gpg": execFileSync(GPG, ["--batch", "--store"], { input: MARKER, env: { ...process.env } }),
        });
        expect(await refusal(passTree, plain)).toMatchObject({ code: "bad_input" });
      }),
    60_000,
  );
});

test("is recognised as a directory of such files alone", () => {
  expect(passTree.sniff(new Uint8Array(), tree({ ".gpg-id": "x" }))).toBe(true);
  expect(passTree.sniff(new Uint8Array(), tree({ "a.gpg": "x" }))).toBe(true);
  expect(passTree.sniff(new Uint8Array(), tree({ "a.txt": "x" }))).toBe(false);
  expect(passTree.sniff(new Uint8Array(), join(tree({ "a.gpg": "x" }), "a.gpg"))).toBe(false);
  expect(passTree.sniff(new Uint8Array(), join(scratch, "nothing"))).toBe(false);
});
