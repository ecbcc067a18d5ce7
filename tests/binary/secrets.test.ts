import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { readFileSync } from "node:fs";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("home").register("owner");
}, SETUP_MS);
afterAll(() => world.close());

async function generated(type: string, ...more: string[]) {
  const name = `type/${type}${more.join("")}`;
  const { data } = await home.ok(["generate", name, "--type", type, ...more]);
  const { data: got } = await home.ok(["get", name, "--reveal", "--fresh"]);
  return { name, data, value: "value" in got ? got.value : Buffer.from(got.valueB64, "base64url") };
}

describe("a generated secret is usable as what it is:", () => {
  const texts: [string, string[], RegExp][] = [
    ["password", [], /^[a-zA-Z0-9\-_.!@#%+]{24}$/],
    ["password", ["--length", "40"], /^[a-zA-Z0-9\-_.!@#%+]{40}$/],
    ["passphrase", [], /^[a-z-]{23,}$/],
    ["pin", ["--length", "9"], /^\d{9}$/],
    ["token", [], /^[A-Za-z0-9_-]{43}$/],
    ["uuid", [], /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/],
  ];
  for (const [type, more, form] of texts) {
    test([type, ...more].join(" "), async () => {
      expect((await generated(type, ...more)).value).toMatch(form);
    });
  }

  test("bytes of a given length", async () => {
    expect((await generated("bytes", "--bytes", "65536")).value).toHaveLength(65_536);
    expect((await generated("bytes", "--bytes", "1")).value).toHaveLength(1);
    expect((await home.fails(2, ["generate", "too/long", "--bytes", "65537"])).code).toMatch(/usage|bad_input/);
    expect((await home.fails(2, ["generate", "too/short", "--type", "password", "--length", "3"])).code).toBe(
      "bad_input",
    );
  });

  test("secp256k1 signs", async () => {
    const { value, data } = await generated("secp256k1");
    const message = Buffer.from("a message");
    const publicKey = Buffer.from(data.publicKeyHex, "hex");
    expect(Buffer.from(secp256k1.getPublicKey(value)).toString("hex")).toBe(data.publicKeyHex);
    expect(secp256k1.verify(secp256k1.sign(message, value), message, publicKey)).toBe(true);
  });

  for (const type of ["p256", "ed25519", "rsa"]) {
    test(`${type} signs, read from PEM and JWK by another implementation`, async () => {
      const { name, data } = await generated(type);
      const keys = await exported(name);
      for (const key of keys) {
        const digest = type === "ed25519" ? null : "sha256";
        const message = Buffer.from("a message");
        const signature = sign(digest, message, key);
        expect(verify(digest, message, createPublicKey(key), signature)).toBe(true);
        const spki = createPublicKey(key).export({ type: "spki", format: "der" });
        // the x coordinate stands in the compressed point as in the whole one
        const component = type === "p256" ? data.publicKeyHex.slice(2) : data.publicKeyHex;
        expect(spki.toString("hex")).toContain(component);
      }
    });
  }

  test("x25519 agrees on a secret", async () => {
    const { name, data } = await generated("x25519");
    const other = generateKeyPairSync("x25519");
    for (const key of await exported(name)) {
      const spki = createPublicKey(key).export({ type: "spki", format: "der" });
      expect(spki.toString("hex").endsWith(data.publicKeyHex)).toBe(true);
      const mine = diffieHellman({ privateKey: key, publicKey: other.publicKey });
      const theirs = diffieHellman({ privateKey: other.privateKey, publicKey: createPublicKey(key) });
      expect(mine.equals(theirs)).toBe(true);
    }
  });

  test("an existing name is refused without --replace; with it the old value stays in the history", async () => {
    await home.ok(["generate", "again"]);
    const first = (await home.run(["read", "again"])).bytes;
    expect((await home.fails(6, ["generate", "again"])).code).toBe("exists");
    expect((await home.ok(["generate", "again", "--replace"])).data.version).toBe(2);
    const second = (await home.run(["read", "again"])).bytes;
    expect(Buffer.compare(first, second)).not.toBe(0);
    expect(Buffer.compare((await home.run(["read", "kh://again?version=1"])).bytes, first)).toBe(0);
  });
});

/** The key of a secret as node:crypto reads it from both formats; Bun has no JWK of RSA by DER, so both must agree. */
async function exported(name: string): Promise<KeyObject[]> {
  const pem = world.file(`${name.replaceAll("/", "-")}.pem`);
  const jwk = world.file(`${name.replaceAll("/", "-")}.jwk`);
  await home.ok(["export", name, "--to", "pem", "--out", pem]);
  await home.ok(["export", name, "--to", "jwk", "--out", jwk]);
  return [
    createPrivateKey(readFileSync(pem)),
    createPrivateKey({ key: JSON.parse(readFileSync(jwk, "utf8")), format: "jwk" }),
  ];
}

describe("names and versions", () => {
  test("search, tag, rename, history, restore, remove, purge", async () => {
    await home.ok(["store", "life/a", "--tag", "one"], { stdin: "first" });
    const { data: second } = await home.ok(["store", "life/a"], { stdin: "second" });
    expect(second).toMatchObject({ version: 2, tags: ["one"] });
    await home.ok(["tag", "life/a", "--add", "two", "--add", "three", "--remove", "one"]);
    const names = async (...argv: string[]) =>
      (await home.ok(argv)).data.items.map(({ name }: { name: string }) => name);
    expect(await names("search", "thr")).toEqual(["life/a"]);
    expect(await names("list", "life/", "--tag", "two")).toEqual(["life/a"]);
    expect(await names("list", "life/", "--tag", "one")).toEqual([]);
    await home.ok(["store", "life/taken"], { stdin: "x" });
    expect((await home.fails(6, ["rename", "life/a", "life/taken"])).code).toBe("exists");
    const { data: renamed } = await home.ok(["rename", "life/a", "life/b"]);
    expect(renamed.keyId).toBe(second.keyId);
    await home.fails(3, ["get", "life/a"]);
    const { data: history } = await home.ok(["history", "life/b"]);
    expect(history.items.map(({ version }: { version: number }) => version)).toEqual([1, 2, 2, 2]);
    expect((await home.run(["read", "kh://life/b?version=1"])).out).toBe("first");
    expect((await home.fails(3, ["get", "life/b", "--version", "9"])).code).toBe("not_found");
    const { data: restored } = await home.ok(["restore", "life/b", "--version", "1"]);
    expect(restored.version).toBe(3);
    expect((await home.run(["read", "life/b", "--fresh"])).out).toBe("first");
    // by a prefix of the key id, never by a guess
    expect((await home.ok(["get", second.keyId.slice(0, 8)])).data.name).toBe("life/b");
    await home.fails(3, ["get", "life"]);
    expect((await home.fails(2, ["remove", "life/b"])).code).toBe("input_needed");
    await home.ok(["remove", "life/b", "--yes"]);
    await home.fails(3, ["get", "life/b"]);
    expect(await names("list", "life/")).toEqual(["life/taken"]);
    const { data: back } = await home.ok(["restore", "life/b", "--version", "2"]);
    expect(back.version).toBe(4);
    expect((await home.run(["read", "life/b", "--fresh"])).out).toBe("second");
    await home.ok(["remove", "life/b", "--purge", "--yes"]);
    await home.fails(3, ["restore", "life/b", "--version", "1"]);
    await home.fails(3, ["read", "life/b"]);
    // the tombstone stays in the log
    const { data: log } = await home.ok(["audit", "list", "--action", "secret.purge"]);
    expect(log.items.map(({ keyId }: { keyId: string }) => keyId)).toContain(second.keyId);
    expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
  });

  test("what is no name is refused; what could disturb a terminal is shown escaped", async () => {
    const before = (await home.ok(["list"])).data.items.length;
    for (const name of ["", "/a", "a//b", "a/", "a/../b", ".", "a\nb", "a\u001b[31mb", "a\u0007", "x".repeat(513)]) {
      const ran = await home.run(["generate", name]);
      expect([name, ran.code]).toEqual([name, 2]);
      expect([name, /[\u0007\u001b]/.test(ran.err)]).toEqual([name, false]);
      expect((await home.fails(2, ["generate", name])).code).toBe("bad_input");
      expect((await home.fails(2, ["store", name], { stdin: "x" })).code).toBe("bad_input");
      expect((await home.fails(2, ["rename", "again", name])).code).toBe("bad_input");
    }
    expect((await home.ok(["list"])).data.items).toHaveLength(before);
    // allowed, but a right-to-left override would show another name than it is
    const tricky = "trick/\u202efdp.exe";
    await home.ok(["generate", tricky]);
    const ran = await home.run(["list", "trick/"]);
    expect(ran.out).not.toContain("\u202e");
    expect(ran.out).toContain("\\u202e");
    expect((await home.ok(["list", "trick/"])).data.items[0].name).toBe(tricky);
    expect((await home.run(["generate", tricky])).err).not.toContain("\u202e");
  });

  test("composed and decomposed letters are one name, upper and lower case two", async () => {
    await home.ok(["store", "nfc/\u00e9"], { stdin: "composed" });
    expect((await home.run(["read", "nfc/e\u0301"])).out).toBe("composed");
    await home.ok(["store", "nfc/\u00c9"], { stdin: "upper" });
    expect((await home.run(["read", "nfc/\u00e9"])).out).toBe("composed");
  });

  test("--store keeps a secret here, there, or in both places", async () => {
    await home.ok(["store", "place/local", "--store", "local"], { stdin: "l" });
    await home.ok(["store", "place/server", "--store", "server"], { stdin: "s" });
    await home.ok(["store", "place/both", "--store", "both"], { stdin: "b" });
    const { data } = await home.ok(["list", "place/"]);
    expect(data.items.map(({ name, where }: Record<string, string>) => [name, where]).sort()).toEqual([
      ["place/both", "both"],
      ["place/local", "local"],
      ["place/server", "server"],
    ]);
    const other = world.home("place-other", "correct horse battery staple home");
    await other.login("owner");
    expect((await other.run(["read", "place/server"])).out).toBe("s");
    expect((await other.run(["read", "place/both"])).out).toBe("b");
    await other.fails(3, ["read", "place/local"]);
    expect((await home.run(["read", "place/local"])).out).toBe("l");
  });

  test("many commands of one device at once are no rollback to each other", async () => {
    await home.ok(["store", "crowd"], { stdin: "one" });
    for (let round = 0; round < 3; round++) {
      const crowd = Array.from({ length: 8 }, () => home.run(["read", "crowd", "--fresh", ...home.password]));
      for (const { code, out, err } of await Promise.all(crowd)) {
        expect({ code, out, err: code === 0 ? "" : err }).toEqual({ code: 0, out: "one", err: "" });
      }
    }
    expect((await home.ok(["audit", "verify"])).data.ok).toBe(true);
  });

  test("two devices at once lose nothing", async () => {
    const other = world.home("both-other", "correct horse battery staple home");
    await other.login("owner");
    const writes = Array.from({ length: 12 }, (_, i) =>
      (i % 2 === 0 ? home : other).run(["store", `both/${i}`], { stdin: `${i}` }),
    );
    expect((await Promise.all(writes)).map(({ code }) => code)).toEqual(writes.map(() => 0));
    for (const one of [home, other]) {
      const { data } = await one.ok(["list", "both/", "--fresh"]);
      expect(data.items).toHaveLength(12);
    }
    // the same name at once: each acknowledged value is a version of it
    const ran = await Promise.all(
      [home, other, home, other].map((one, i) => one.run(["store", "both/same"], { stdin: `v${i}` })),
    );
    const kept = ran.flatMap(({ code }, i) => (code === 0 ? [`v${i}`] : []));
    const { data } = await home.ok(["get", "both/same", "--fresh"]);
    expect(data.version).toBe(kept.length);
    const values = await Promise.all(
      kept.map(async (_, i) => (await home.run(["read", `kh://both/same?version=${i + 1}`])).out),
    );
    expect(values.sort()).toEqual(kept.sort());
    for (const { code } of ran) expect([0, 6]).toContain(code);
  });
});
