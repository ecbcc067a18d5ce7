import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { openAccountName } from "../../src/server/accounts.ts";
import { finishRaw, logInRaw, startRaw, utf8 } from "../support/attacker.ts";
import { addTestDevice, registerDevice, startTestServer, type TestDevice } from "../support/harness.ts";
import { fileStore } from "../support/storeprobe.ts";

/** The thief of the database (protocol.md, adversary B): what lies in the files, in whatever common form. */

const ACCOUNT = "canary-account-9f3b";
const PASSWORD = "canary-password-77ac";
const NEW_NAME = "canary-renamed-0b1d";
const NAME = "canary-name-51d2";
const NOTE = "canary-note-value-e6a0";
const TAG = "canary-tag-d41c";
const UNKNOWN = "canary-unknown-8c7e";
const BINARY = Uint8Array.from({ length: 64 }, (_, i) => (i * 37 + 11) & 255);

/** A text or bytes in each form in which it could have been written down. */
function forms(value: Uint8Array): string[] {
  const buffer = Buffer.from(value);
  // base64 at each of the three alignments, without the characters that its neighbours touch
  const shifted = [0, 1, 2].flatMap((pad) => {
    const text = Buffer.concat([Buffer.alloc(pad), buffer]).toString("base64");
    const inner = text.slice(pad === 0 ? 0 : 4, -4);
    return [inner, inner.replaceAll("+", "-").replaceAll("/", "_")];
  });
  return [
    buffer.toString("latin1"),
    buffer.toString("hex"),
    buffer.toString("hex").toUpperCase(),
    Buffer.from(buffer.toString("latin1"), "utf16le").toString("latin1"),
    ...shifted,
  ];
}

function readAll(path: string): string {
  return [path, `${path}-wal`, `${path}-shm`, `${path}-journal`]
    .filter((name) => existsSync(name))
    .map((name) => readFileSync(name).toString("latin1"))
    .join("");
}

test("the search finds what is there, in each form", () => {
  const value = utf8("some canary value");
  for (const pad of ["", "a", "ab"]) {
    const hidden = Buffer.from(`${pad}some canary value and more`).toString("base64");
    expect(forms(value).some((form) => hidden.includes(form))).toBe(true);
  }
  expect(forms(value).some((form) => `x${Buffer.from(value).toString("hex")}y`.includes(form))).toBe(true);
});

test("finds no name, value, tag, account name or password, not even of what was deleted", async () => {
  const file = fileStore();
  const server = await startTestServer({ path: file.path });
  const devices: TestDevice[] = [];
  try {
    const first = await registerDevice(server.link(), ACCOUNT, PASSWORD);
    devices.push(first);
    const { client } = first;
    const tags = [TAG];
    await client.store({ name: NAME, type: null, value: utf8(NOTE), tags, where: null });
    await client.store({ name: NAME, type: null, value: utf8(`${NOTE} second`), tags, where: null });
    await client.store({ name: "binary", type: "bytes", value: BINARY, tags, where: null });
    await client.generate({ name: "generated", type: "bytes", length: 32, tags, replace: false, where: null });
    await client.rename({ from: NAME, to: NEW_NAME });
    await client.tag({ name: "binary", add: [`${TAG}-two`], remove: [] });
    const second = await addTestDevice(server.link(), ACCOUNT, PASSWORD);
    devices.push(second);
    const read = { version: null, reveal: true, fresh: true, save: true };
    const got = await second.client.get({ name: "generated", ...read });
    expect((await second.client.get({ name: "binary", ...read })).value).toEqual(BINARY);
    await second.client.list({ prefix: NEW_NAME, search: null, tag: TAG, fresh: true });
    await second.client.auditList({
      name: NEW_NAME,
      action: null,
      fromMs: null,
      untilMs: null,
      requestId: null,
      limit: null,
      cursor: null,
      purpose: "list",
    });
    await client.remove({ name: NEW_NAME, purge: true });
    await finishRaw(server, await startRaw(server, UNKNOWN, PASSWORD));
    const session = await logInRaw(server, ACCOUNT, PASSWORD);
    await startRaw(server, ACCOUNT, PASSWORD);

    const all = readAll(file.path);
    expect(all.length).toBeGreaterThan(50_000);
    const generated = got.value ?? new Uint8Array(0);
    expect(generated).toHaveLength(32);
    const { model } = first.open.box;
    const secrets: [string, Uint8Array][] = [
      ...[ACCOUNT, PASSWORD, NAME, NEW_NAME, NOTE, TAG, UNKNOWN, "first device"].map((text): [string, Uint8Array] => [
        text,
        utf8(text),
      ]),
      ["the binary value", BINARY],
      ["the generated value", generated],
      ["the account key", model.accountKey],
      ["the record key", model.keys.record],
      ["the index key", model.keys.index],
      ["the export key", first.login.exportKey],
      ["a session key", session.sessionKey],
      ["a channel key", session.keys.request],
      ["the device's seed", model.bound?.deviceSeed ?? new Uint8Array(0)],
      ["the sealing key", server.ctx.keys.sealing],
      ["the account-name key", server.ctx.keys.accountName],
      ["the shadow key", server.ctx.keys.shadow],
      ["the OPAQUE set-up", Buffer.from(server.ctx.keys.opaque.setup, "base64url").subarray(0, 64)],
    ];
    for (const [what, value] of secrets) {
      expect(value.length).toBeGreaterThan(8);
      for (const form of forms(value)) {
        expect(form.length).toBeGreaterThan(7);
        if (all.includes(form)) throw new Error(`the database holds ${what}`);
      }
    }
    // it is the real database that was searched
    const userId = model.owner;
    expect(all.includes(Buffer.from(userId, "hex").toString("latin1"))).toBe(true);
    const account = await server.store.transaction((tx) => tx.account(userId));
    expect(account && openAccountName(server.ctx, account)).toBe(ACCOUNT);
    expect(server.faults).toEqual([]);
  } finally {
    for (const device of devices) await device.end();
    await server.close();
    file.end();
  }
}, 20_000);

test("a stolen record opens nothing without the OPAQUE set-up: another server with the same database refuses", async () => {
  const file = fileStore();
  const server = await startTestServer({ path: file.path });
  const first = await registerDevice(server.link(), ACCOUNT, PASSWORD);
  await first.end();
  await server.close();
  const { keys } = server.ctx;
  const { createServerSetup } = await import("../../src/crypto/opaque.ts");
  const thief = await startTestServer({
    path: file.path,
    keys: { ...keys, opaque: { id: "1", setup: createServerSetup() } },
  });
  try {
    const started = await startRaw(thief, ACCOUNT, PASSWORD);
    expect(started.fitting).toBeUndefined();
  } finally {
    await thief.close();
    file.end();
  }
});
