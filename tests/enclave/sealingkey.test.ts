import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { enclaveKeys } from "../../src/enclave/keys.ts";
import {
  CREDENTIAL_NAME,
  credentialSource,
  fileSource,
  openSealingKey,
  type SealingKeySource,
  sourceOf,
} from "../../src/enclave/sealingkey.ts";
import { seeded } from "../support/seeded.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
const refused = (work: Promise<unknown>): Promise<{ code: string; hint?: string }> =>
  work.then(
    () => ({ code: "ok" }),
    (error) => error,
  );

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-enclave-"));
});
afterEach(() => {
  rmSync(dir, { recursive: true, force: true });
});

describe("the file back end", () => {
  test("draws a key on first start, private, and gives it again", async () => {
    const key = await openSealingKey(dir, fileSource, random);
    expect(key.length).toBe(32);
    expect(statSync(join(dir, "enclave")).mode & 0o777).toBe(0o700);
    expect(statSync(join(dir, "enclave/sealing.key")).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(dir, "enclave/journal")).length).toBe(0);
    expect(await openSealingKey(dir, fileSource, random)).toEqual(key);
    expect(readdirSync(dir)).toEqual(["enclave"]);
  });

  test("never makes a key where a directory is", async () => {
    await openSealingKey(dir, fileSource, random);
    rmSync(join(dir, "enclave/sealing.key"));
    expect((await refused(openSealingKey(dir, fileSource, random))).code).toBe("not_found");
    expect(readdirSync(join(dir, "enclave"))).toEqual(["journal"]);
  });

  test("refuses a key that others may read, one through a link, one of another length", async () => {
    await openSealingKey(dir, fileSource, random);
    const path = join(dir, "enclave/sealing.key");
    chmodSync(path, 0o640);
    expect(await refused(openSealingKey(dir, fileSource, random))).toMatchObject({
      code: "denied",
      hint: expect.stringContaining("chmod 600"),
    });
    chmodSync(path, 0o600);
    chmodSync(join(dir, "enclave"), 0o750);
    expect(await refused(openSealingKey(dir, fileSource, random))).toMatchObject({
      code: "denied",
      hint: expect.stringContaining("chmod 700"),
    });
    chmodSync(join(dir, "enclave"), 0o700);
    writeFileSync(path, new Uint8Array(31));
    expect((await refused(openSealingKey(dir, fileSource, random))).code).toBe("corrupt");
    rmSync(path);
    writeFileSync(join(dir, "elsewhere"), new Uint8Array(32), { mode: 0o600 });
    symlinkSync(join(dir, "elsewhere"), path);
    expect((await refused(openSealingKey(dir, fileSource, random))).code).toBe("denied");
  });
});

describe("the credential of a service", () => {
  let credentials: string;
  beforeEach(() => {
    credentials = join(dir, "credentials");
    mkdirSync(credentials);
  });
  const put = (content: Uint8Array) => writeFileSync(join(credentials, CREDENTIAL_NAME), content, { mode: 0o440 });

  test("is the key; nothing of it is written", async () => {
    const key = random(32);
    put(key);
    const source = sourceOf({ CREDENTIALS_DIRECTORY: credentials });
    expect(source.name).toBe("credential");
    expect(await openSealingKey(dir, source, random)).toEqual(key);
    expect(readdirSync(join(dir, "enclave"))).toEqual(["journal"]);
  });

  test("is taken only where it is there", () => {
    expect(sourceOf({ CREDENTIALS_DIRECTORY: credentials }).name).toBe("file");
    expect(sourceOf({}).name).toBe("file");
  });

  test("of another length is refused, and one beside a file too", async () => {
    put(random(33));
    expect((await refused(openSealingKey(dir, credentialSource(credentials), random))).code).toBe("corrupt");
    put(random(32));
    writeFileSync(join(dir, "enclave/sealing.key"), random(32), { mode: 0o600 });
    expect((await refused(openSealingKey(dir, credentialSource(credentials), random))).code).toBe("conflict");
  });
});

test("a back end of one's own keeps what it needs in the directory", async () => {
  // a TPM would put a blob there that it alone opens
  const source: SealingKeySource = {
    name: "tpm",
    provision: async () => new Map([["blob", Uint8Array.of(7)]]),
    load: async (directory) => new Uint8Array(32).fill(readFileSync(join(directory, "blob"))[0] ?? 0),
  };
  expect(await openSealingKey(dir, source, random)).toEqual(new Uint8Array(32).fill(7));
  expect(readdirSync(join(dir, "enclave")).sort()).toEqual(["blob", "journal"]);
});

test("one sealing key gives the same four keys, another one others", async () => {
  const key = seeded(1).bytes(32);
  const [one, same, other] = await Promise.all([enclaveKeys(key), enclaveKeys(key), enclaveKeys(seeded(2).bytes(32))]);
  const shown = (k: typeof one) =>
    [k.signer.publicKey, k.hpke.publicKey, k.shareKey, k.journalKey].map((b) => b.toHex());
  expect(shown(one)).toEqual(shown(same));
  expect(new Set([...shown(one), ...shown(other), key.toHex()]).size).toBe(9);
});
