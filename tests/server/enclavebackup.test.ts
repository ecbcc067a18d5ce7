import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openJournal } from "../../src/enclave/journal.ts";
import { enclaveKeys } from "../../src/enclave/keys.ts";
import { enclavePaths } from "../../src/enclave/sealingkey.ts";
import { newAgeIdentity } from "../../src/formats/age.ts";
import { demandOwnEnclave, openEnclaveCopy, readEnclaveFiles, restoredFiles } from "../../src/server/enclavebackup.ts";
import { createEnclaveSite, enclaveToAsk, giveUpEnclave } from "../../src/server/enclavesite.ts";
import { enclaveArchive, keyArchive } from "../../src/server/keyarchive.ts";
import { codeOf } from "../support/registryworld.ts";
import { type CeremonyServer, ceremonyServer, opened } from "./ceremony/world.ts";

/** An enclave's files in and out of a backup (docs/operations.md §3, §21). */

let dir: string;
const paths = () => enclavePaths(dir);
const KEY = new Uint8Array(32).fill(7);
const parts = { now: Date.now, random: (length: number) => new Uint8Array(length).fill(1) };
const mark = { scope: "key", id: "ab".repeat(32), number: 1, hash: new Uint8Array(32) } as never;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-enclavebackup-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function plant(key: Uint8Array | null = KEY): void {
  mkdirSync(paths().directory, { mode: 0o700 });
  if (key) writeFileSync(paths().sealingKey, key, { mode: 0o600 });
  writeFileSync(paths().journal, "", { mode: 0o600 });
}

test("a server without an enclave has no files of one; with a credential it has the journal alone", async () => {
  expect(await readEnclaveFiles(dir)).toBeNull();
  plant(null);
  expect([...((await readEnclaveFiles(dir)) ?? [])]).toEqual([["journal", new Uint8Array(0)]]);
});

test("come out of their archive as they went in, an empty journal too, and out of no other", async () => {
  plant();
  const files = await readEnclaveFiles(dir);
  const { identity, recipient } = await newAgeIdentity();
  const by = { identities: [identity] };
  const sealed = await enclaveArchive.seal(files ?? new Map(), 5, { recipients: [recipient] });
  expect(await enclaveArchive.open(sealed, by)).toEqual({ files: files ?? new Map(), madeAtMs: 5 });
  expect(await codeOf(keyArchive.open(sealed, by))).toBe("bad_input");
  const keys = await keyArchive.seal(new Map([["a.key", KEY]]), 5, { recipients: [recipient] });
  expect(await codeOf(enclaveArchive.open(keys, by))).toBe("bad_input");
});

test("a record that is written meanwhile is left out whole, and what is there before it opens", async () => {
  plant();
  const keys = await enclaveKeys(KEY);
  const journal = openJournal(paths().journal, keys.journalKey);
  journal.mark(mark);
  const { length } = (await readEnclaveFiles(dir))?.get("journal") ?? new Uint8Array(0);
  journal.mark({ ...(mark as object), number: 2 } as never);
  journal.close();
  truncateSync(paths().journal, length + 20);
  const files = (await readEnclaveFiles(dir)) ?? new Map<string, Uint8Array>();
  expect(files.get("journal")?.length).toBe(length);
  const copy = await openEnclaveCopy(paths().directory, files, parts);
  expect(copy?.ask.identity).toEqual(keys.signer.publicKey);
  copy?.close();
});

test("a journal of another enclave is corrupt, other files are refused; without a key nothing is opened", async () => {
  plant();
  const other = openJournal(paths().journal, (await enclaveKeys(new Uint8Array(32))).journalKey);
  other.mark(mark);
  other.close();
  const files = (await readEnclaveFiles(dir)) ?? new Map<string, Uint8Array>();
  expect(await codeOf(openEnclaveCopy(paths().directory, files, parts))).toBe("corrupt");
  const journal = new Map([["journal", new Uint8Array(0)]]);
  expect(await openEnclaveCopy(paths().directory, journal, parts)).toBeNull();
  expect([...restoredFiles(journal).keys()]).toEqual(["journal", "restored"]);
  for (const names of [["sealing.key"], ["journal", "restored"], ["journal", "other"]])
    expect(() => restoredFiles(new Map(names.map((name) => [name, KEY])))).toThrow("other files");
});

test("where keys are there and the enclave's directory is not, none is started until it is given up", async () => {
  const server: CeremonyServer = await ceremonyServer();
  try {
    const site = createEnclaveSite(server.store, dir);
    expect(await site.lost()).toBeNull();
    await site.demand();
    await giveUpEnclave(site, false);
    await opened(server, 2);
    const [key] = (await server.call("ceremony.keys", {})).items;
    await demandOwnEnclave(server.store, { identity: key?.key.enclave ?? KEY });
    expect(await codeOf(demandOwnEnclave(server.store, { identity: KEY }))).toBe("corrupt");
    expect(await site.lost()).toEqual({ openCeremonies: 1, storedKeys: 0 });
    expect(await codeOf(site.demand())).toBe("not_found");
    const call = () => Promise.reject(new Error("asked"));
    expect(await enclaveToAsk(site, { call })).toContain("directory is missing");
    expect(await codeOf(giveUpEnclave(site, false))).toBe("conflict");
    expect(await codeOf(site.demand())).toBe("not_found");
    await giveUpEnclave(site, true);
    await site.demand();
    const again = createEnclaveSite(server.store, dir);
    plant();
    await again.demand();
    expect([await again.lost(), existsSync(paths().journal)]).toEqual([null, true]);
  } finally {
    await server.close();
  }
});
