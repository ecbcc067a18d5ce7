import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import type { KeyholdClient } from "../../src/client/api.ts";
import { ageSeal } from "../../src/formats/age.ts";
import { ageOpenTo, ageSealTo } from "../../src/formats/agestream.ts";
import { ageRecipientFor } from "../../src/formats/publickey.ts";
import { writeSshPrivate } from "../../src/formats/sshkey.ts";
import type { SecretType } from "../../src/protocol/secrettype.ts";
import { registerDevice, startTestServer, type TestDevice, type TestServer } from "../support/harness.ts";
import { rejected } from "../support/hostile.ts";

let server: TestServer;
let ada: TestDevice;
beforeAll(async () => {
  server = await startTestServer();
  ada = await registerDevice(server.link(), "ada", "a password of ada");
});
afterAll(async () => {
  await ada.end();
  await server.close();
});

const plain = { tags: [], replace: false, where: null } as const;
async function recipientOf(name: string): Promise<string> {
  const { info } = await ada.client.get({ name, version: null, reveal: false, fresh: false, save: false });
  return (info.publicKey && (await ageRecipientFor(info.type, info.publicKey))) ?? "";
}

/** A source over bytes that hands out `step` of them at most. */
function reader(bytes: Uint8Array, step = 10_000) {
  let at = 0;
  return async (limit: number) => {
    const piece = bytes.slice(at, at + Math.min(limit, step));
    at += piece.length;
    return piece;
  };
}

async function opened(name: string, file: Uint8Array, step?: number): Promise<{ text: Uint8Array; sizes: number[] }> {
  const pieces: Uint8Array[] = [];
  const unwrap = async (stanzas: Parameters<KeyholdClient["unwrapFileKey"]>[0]["stanzas"]) =>
    (await ada.client.unwrapFileKey({ name, version: null, stanzas })).fileKey;
  await ageOpenTo(reader(file, step), unwrap, (piece) => void pieces.push(piece));
  return { text: new Uint8Array(Buffer.concat(pieces)), sizes: pieces.map(({ length }) => length) };
}

const message = crypto.getRandomValues(new Uint8Array(65_536)).slice(0, 5_000);

describe("unwrapFileKey", () => {
  test.each(["x25519", "ed25519", "rsa", "ssh"] as const)(
    "a stored %s key opens what is encrypted to it",
    async (type) => {
      const [name, other] = [`opens/${type}`, `another/${type}`];
      for (const one of [name, other]) {
        await ada.client.generate({ name: one, type, length: type === "rsa" ? 2_048 : null, ...plain });
      }
      const file = await ageSeal(message, { recipients: [await recipientOf(name)] });
      expect((await opened(name, file)).text).toEqual(message);
      await rejected(opened(other, file), "bad_input");
      const both = await ageSeal(message, { recipients: [await recipientOf(other), await recipientOf(name)] });
      expect((await opened(name, both)).text).toEqual(message);
      expect((await opened(other, both)).text).toEqual(message);
    },
  );

  test("an RSA key in an OpenSSH file", async () => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
    const value = writeSshPrivate("rsa", new Uint8Array(privateKey.export({ format: "der", type: "pkcs8" })), "me");
    await ada.client.store({ name: "ssh/rsa", type: "ssh", value, tags: [], where: null });
    const file = await ageSeal(message, { recipients: [await recipientOf("ssh/rsa")] });
    expect((await opened("ssh/rsa", file)).text).toEqual(message);
  });

  test("other types open nothing", async () => {
    await ada.client.generate({ name: "token", type: "token", length: null, ...plain });
    for (const type of ["p256", "secp256k1"] satisfies SecretType[]) {
      await ada.client.generate({ name: `no/${type}`, type, length: null, ...plain });
    }
    const stanzas = [{ args: ["X25519", "AA"], body: new Uint8Array(32) }];
    for (const name of ["token", "no/p256", "no/secp256k1"]) {
      const fault = await rejected(ada.client.unwrapFileKey({ name, version: null, stanzas }), "bad_input");
      expect(fault.message).toContain("opens no files");
    }
    await rejected(ada.client.unwrapFileKey({ name: "nobody", version: null, stanzas }), "not_found");
  });

  test("malformed stanzas, and a share that anybody knows the secret of", async () => {
    const share = (bytes: Uint8Array) => bytes.toBase64({ omitPadding: true });
    const good = share(new Uint8Array(32).fill(9));
    const cases: [string[], number][] = [
      [["X25519"], 32],
      [["X25519", good, good], 32],
      [["X25519", `${good}=`], 32],
      [["X25519", good], 31],
      [["X25519", share(new Uint8Array(31))], 32],
    ];
    for (const [args, size] of cases) {
      const stanzas = [{ args, body: new Uint8Array(size) }];
      const fault = await rejected(
        ada.client.unwrapFileKey({ name: "opens/x25519", version: null, stanzas }),
        "bad_input",
      );
      expect([args, fault.message]).toEqual([args, "the header of this file is malformed"]);
    }
    for (const point of [new Uint8Array(32), new Uint8Array(32).fill(1, 0, 1)]) {
      const stanzas = [{ args: ["X25519", share(point)], body: new Uint8Array(32) }];
      const fault = await rejected(
        ada.client.unwrapFileKey({ name: "opens/x25519", version: null, stanzas }),
        "bad_input",
      );
      expect(fault.message).toContain("not encrypted to this key");
    }
  });
});

describe("files piece by piece", () => {
  const sealed = async (bytes: Uint8Array): Promise<Uint8Array> => {
    const pieces: Uint8Array[] = [];
    await ageSealTo(reader(bytes), [await recipientOf("opens/x25519")], (piece) => void pieces.push(piece.slice()));
    return new Uint8Array(Buffer.concat(pieces));
  };

  test.each([0, 1, 65_535, 65_536, 65_537, 131_072, 400_001])("of %d bytes there and back", async (size) => {
    const bytes = new Uint8Array(size).map((_, i) => i * 7);
    const file = await sealed(bytes);
    const { text, sizes } = await opened("opens/x25519", file, 1_000);
    expect(Buffer.compare(text, bytes)).toBe(0);
    expect(Math.max(0, ...sizes)).toBeLessThanOrEqual(65_536);
  });

  test("changed anywhere, cut anywhere, or with more behind it: an error", async () => {
    const bytes = new Uint8Array(140_000).fill(5);
    const file = await sealed(bytes);
    const header = Buffer.from(file).indexOf("\n--- ");
    const codes = new Set<string>();
    const places = [0, 30, header + 10, header + 60, header + 80, 65_800, 66_000, file.length - 1];
    for (const at of places) {
      const changed = file.slice();
      changed[at] = (changed[at] ?? 0) ^ 1;
      codes.add((await rejected(opened("opens/x25519", changed), "bad_input", "corrupt")).code);
      await rejected(opened("opens/x25519", file.slice(0, at)), "bad_input", "corrupt");
    }
    expect([...codes].sort()).toEqual(["bad_input", "corrupt"]);
    await rejected(opened("opens/x25519", Uint8Array.from([...file, 0])), "corrupt");
    // exactly after a whole piece
    const nonce = header + 1 + "--- ".length + 43 + 1 + 16;
    await rejected(opened("opens/x25519", file.slice(0, nonce + 65_552)), "corrupt");
  });

  test("what is no age file, or has an endless header, is refused before it is read", async () => {
    await rejected(opened("opens/x25519", new Uint8Array(0)), "bad_input");
    await rejected(opened("opens/x25519", new TextEncoder().encode("-----BEGIN PGP MESSAGE-----\n")), "bad_input");
    let read = 0;
    const endless = async (limit: number) => {
      const piece = new Uint8Array(limit).fill(0x61);
      if (read === 0) piece.set(new TextEncoder().encode("age-encryption.org/v1\n-> "));
      read += limit;
      return piece;
    };
    const never = () => Promise.reject(new Error("asked for a key"));
    await rejected(
      ageOpenTo(endless, never, () => undefined),
      "bad_input",
    );
    expect(read).toBeLessThan(200_000);
  });

  test("a failing disk and a failing source are told as what they are", async () => {
    const file = await sealed(message);
    const unwrap = async (stanzas: Parameters<KeyholdClient["unwrapFileKey"]>[0]["stanzas"]) =>
      (await ada.client.unwrapFileKey({ name: "opens/x25519", version: null, stanzas })).fileKey;
    const full = () => {
      throw new RangeError("disk");
    };
    expect(await ageOpenTo(reader(file), unwrap, full).catch((error: unknown) => error)).toBeInstanceOf(RangeError);
    const broken = () => Promise.reject(new RangeError("source"));
    expect(
      await ageSealTo(broken, [await recipientOf("opens/x25519")], full).catch((error: unknown) => error),
    ).toBeInstanceOf(RangeError);
  });
});
