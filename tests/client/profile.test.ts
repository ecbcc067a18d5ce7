import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, lstatSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  asProfileName,
  defaultProfile,
  listProfiles,
  type Profile,
  readProfile,
  removeProfile,
  useProfile,
  writeProfile,
} from "../../src/client/profile.ts";
import { asId, type UserId } from "../../src/ids.ts";

let directory: string;

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "keyhold-profile-")), "config");
});

afterEach(() => rmSync(join(directory, ".."), { recursive: true, force: true }));

const local: Profile = {
  v: 1,
  name: "local",
  server: null,
  account: null,
  userId: null,
  deviceToken: null,
  loggedOut: false,
  kdf: "default",
  vault: "local.vault",
};

const full: Profile = {
  v: 1,
  name: "work.example_1-a",
  server: {
    url: "https://127.0.0.1:7443",
    pin: `sha256:${"A".repeat(43)}`,
    caPem: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    tlsCaPem: null,
    statementNumber: 7,
  },
  account: "zoë@example.org",
  userId: asId<UserId>("0123456789abcdef0123456789abcdef"),
  deviceToken: new Uint8Array(32).fill(7),
  loggedOut: true,
  kdf: "test",
  vault: "work.vault",
};

const file = (name: string) => join(directory, "profiles", `${name}.json`);
const mode = (path: string) => lstatSync(path).mode & 0o777;
const denied = expect.objectContaining({ code: "denied" });
const corrupt = expect.objectContaining({ code: "corrupt" });

test("there are none at first", () => {
  expect(listProfiles(directory)).toEqual([]);
  expect(readProfile(directory, "default")).toBeNull();
  expect(defaultProfile(directory)).toBeNull();
});

test("profiles come back as written, listed in order, 0600 in 0700", async () => {
  const umask = process.umask(0);
  try {
    await writeProfile(directory, full);
    await writeProfile(directory, local);
    await useProfile(directory, "local");
  } finally {
    process.umask(umask);
  }
  expect(readProfile(directory, full.name)).toEqual(full);
  expect(readProfile(directory, "local")).toEqual(local);
  expect(listProfiles(directory)).toEqual(["local", full.name]);
  expect([mode(directory), mode(join(directory, "profiles"))]).toEqual([0o700, 0o700]);
  expect([file("local"), file(full.name), join(directory, "default-profile")].map(mode)).toEqual([0o600, 0o600, 0o600]);
});

test("a second write replaces; no temporary file stays, also not a killed writer's", async () => {
  await writeProfile(directory, local);
  writeFileSync(`${file("local")}.tmp-123-0123456789abcdef`, "{");
  await writeProfile(directory, { ...local, loggedOut: true });
  expect(readProfile(directory, "local")?.loggedOut).toBe(true);
  expect(readdirSync(join(directory, "profiles"))).toEqual(["local.json"]);
});

test("the default is a profile that exists, and goes with it", async () => {
  await writeProfile(directory, local);
  await writeProfile(directory, full);
  await expect(useProfile(directory, "other")).rejects.toMatchObject({ code: "not_found" });
  await useProfile(directory, full.name);
  expect(defaultProfile(directory)).toBe(full.name);
  await removeProfile(directory, "local");
  expect(defaultProfile(directory)).toBe(full.name);
  await removeProfile(directory, full.name);
  expect(defaultProfile(directory)).toBeNull();
  await expect(removeProfile(directory, full.name)).rejects.toMatchObject({ code: "not_found" });
});

test.each(["", ".", "..", "a/b", "../a", "a b", "ä", "a\n", "a\0", "x".repeat(65)])("no name: %j", async (name) => {
  const refused = expect.objectContaining({ code: "bad_input" });
  expect(() => asProfileName(name)).toThrow(refused);
  expect(() => readProfile(directory, name)).toThrow(refused);
  await expect(writeProfile(directory, { ...local, name })).rejects.toEqual(refused);
  await expect(removeProfile(directory, name)).rejects.toEqual(refused);
  await expect(useProfile(directory, name)).rejects.toEqual(refused);
});

test.each(["a", "A.b_c-9", "...", "x".repeat(64)])("a name: %j", async (name) => {
  await writeProfile(directory, { ...local, name });
  expect(readProfile(directory, name)?.name).toBe(name);
  expect(listProfiles(directory)).toEqual([name]);
});

test.each([0o640, 0o604, 0o620, 0o602, 0o644])(
  "a profile or marker that others can touch (%o) is refused",
  async (m) => {
    await writeProfile(directory, local);
    await useProfile(directory, "local");
    chmodSync(file("local"), m);
    expect(() => readProfile(directory, "local")).toThrow(denied);
    chmodSync(join(directory, "default-profile"), m);
    expect(() => defaultProfile(directory)).toThrow(denied);
  },
);

test("a symbolic link is refused", async () => {
  await writeProfile(directory, local);
  symlinkSync(file("local"), file("linked"));
  expect(() => readProfile(directory, "linked")).toThrow(denied);
  await expect(writeProfile(directory, { ...local, name: "linked" })).rejects.toEqual(denied);
});

test("anything but the exact form is corrupt", async () => {
  await writeProfile(directory, full);
  const good = JSON.parse(await Bun.file(file(full.name)).text()) as Record<string, unknown>;
  const server = good["server"] as Record<string, unknown>;
  const { account: _account, ...without } = good;
  const wrong: unknown[] = [
    null,
    [],
    without,
    { ...good, extra: 1 },
    { ...good, v: 2 },
    { ...good, name: "other" },
    { ...good, kdf: "none" },
    { ...good, loggedOut: 0 },
    { ...good, userId: "x" },
    { ...good, deviceToken: "AAAA" },
    { ...good, vault: "../vault" },
    { ...good, vault: ".." },
    { ...good, vault: "" },
    { ...good, account: "" },
    { ...good, server: { ...server, url: "file:///etc/passwd" } },
    { ...good, server: { ...server, pin: "sha256:short" } },
    { ...good, server: { ...server, statementNumber: -1 } },
    { ...good, server: { ...server, caPem: "no certificate" } },
    { ...good, server: { ...server, more: 1 } },
  ];
  const texts = [...wrong.map((value) => JSON.stringify(value)), "", "{", "\ufffe", " ".repeat(300_000)];
  for (const text of texts) {
    writeFileSync(file(full.name), text);
    expect(() => readProfile(directory, full.name), text.slice(0, 400)).toThrow(corrupt);
  }
});

test("what cannot be read back is not written", async () => {
  await writeProfile(directory, local);
  const bad = { ...local, vault: "../vault" };
  await expect(writeProfile(directory, bad)).rejects.toMatchObject({ code: "bad_input" });
  expect(readProfile(directory, "local")).toEqual(local);
});

test("a damaged marker is corrupt", async () => {
  await writeProfile(directory, local);
  await useProfile(directory, "local");
  writeFileSync(join(directory, "default-profile"), "../x\n");
  expect(() => defaultProfile(directory)).toThrow(corrupt);
});

test("many writers at once leave whole profiles", async () => {
  await Promise.all(Array.from({ length: 20 }, (_, i) => writeProfile(directory, { ...full, name: `p${i % 4}` })));
  expect(listProfiles(directory)).toEqual(["p0", "p1", "p2", "p3"]);
  for (const name of listProfiles(directory)) expect(readProfile(directory, name)).toEqual({ ...full, name });
});
