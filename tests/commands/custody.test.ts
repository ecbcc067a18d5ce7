import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Got, KeyholdClient, SecretInfo } from "../../src/client/api.ts";
import type { FederatedKeyInfo } from "../../src/client/federationapi.ts";
import type { KeyId } from "../../src/ids.ts";
import { dataOf, withHome } from "./ceremonyhome.ts";

setDefaultTimeout(60_000);

/** Whatever shows a secret or a key says that a server has seen it (P12). */

const ORIGIN = `ceremony:${"5a".repeat(16)}`;
const value = () => new TextEncoder().encode("the very value");
const infoOf = (name: string, origin: string): SecretInfo => ({
  ...{ name, keyId: name.padEnd(32, "0") as KeyId, type: "note", version: 1, tags: [], where: "both", origin },
  ...{ createdAt: "2026-01-02T03:04:05.678Z", updatedAt: "2026-01-02T03:04:05.678Z" },
  ...{ publicKey: null, expiresAt: null, user: null, urls: [] },
  ...(origin === ORIGIN ? { custody: "custodial" } : {}),
});
const infos = [infoOf("aa", ORIGIN), infoOf("bb", "stored")];
const gotOf = (info: SecretInfo): Got => ({
  ...{ info, version: 1, value: value(), fields: [], shown: [], requestId: null, from: "vault", syncedAt: null },
});
function named(name: string): SecretInfo {
  const found = infos.find((one) => one.name === name || one.keyId === name);
  if (!found) throw new Error(`no secret ${name}`);
  return found;
}
const client: Partial<KeyholdClient> = {
  list: async () => ({ items: infos, next: null, requestId: null, from: "vault", syncedAt: null }),
  get: async ({ name }) => gotOf(named(name)),
  getMany: async ({ refs }) => refs.map(({ name }) => gotOf(named(name))),
  federatedKeys: async () => [],
  history: async () => ({
    items: [1, 2].map((version) => ({
      ...{ version, status: "live" as const, updatedAt: null, name: "aa", current: version === 2 },
      ...(version === 1 ? { custody: "custodial" as const } : {}),
    })),
    requestId: null,
  }),
  auditList: async () => ({
    items: infos.map(({ name, custody }, i) => ({
      ...{ seq: i + 1, at: "2026-01-02T03:04:05.678Z", action: "secret.get", status: "ok", keyId: null, name },
      ...{ requestId: null, session: null, count: 1, signed: false, linkHex: "00", ...(custody && { custody }) },
    })),
    next: null,
    requestId: null,
  }),
};

test("list, get, history and the log, to people and to programs", async () => {
  await withHome(client, async (home) => {
    const told = async (...argv: string[]) => (await home.run(argv)).out.split("\n").filter((line) => line !== "");
    const rows = (lines: readonly string[]) => lines.map((line) => line.includes("custodial"));
    expect(rows((await told("list")).slice(1))).toEqual([true, false]);
    expect(rows((await told("audit", "list")).slice(1))).toEqual([true, false]);
    expect(rows((await told("history", "aa")).slice(1))).toEqual([true, false]);
    expect((await told("get", "aa")).some((line) => line.includes("custodial (a server has seen the value)"))).toBe(
      true,
    );
    expect((await told("get", "bb")).some((line) => line.includes("custod"))).toBe(false);
    for (const argv of [["list"], ["audit", "list"], ["history", "aa"]]) {
      const { items } = dataOf(await home.run([...argv, "--json"])) as { items: readonly { custody?: string }[] };
      expect(items.map(({ custody }) => custody)).toEqual(["custodial", undefined]);
    }
    expect(dataOf(await home.run(["get", "aa", "--json"]))).toMatchObject({ custody: "custodial", origin: ORIGIN });
  });
});

test("an archive holds the mark; with a format that does not, the names are said", async () => {
  await withHome(client, async (home) => {
    const file = join(home.dir, "all.json");
    const whole = await home.run(["export", "--all", "--to", "json", "--out", file, "--json"]);
    expect([whole.code, whole.err.includes("a server has seen")]).toEqual([0, false]);
    const { v, items } = JSON.parse(readFileSync(file, "utf8")) as { v: number; items: { origin: string | null }[] };
    expect([v, items.map(({ origin }) => origin)]).toEqual([3, [ORIGIN, null]]);
    const csv = await home.run(["export", "--all", "--to", "csv", "--out", join(home.dir, "all.csv")]);
    expect([csv.code, csv.err.includes("does not say that a server has seen aa (")]).toEqual([0, true]);
    const plain = await home.run(["export", "bb", "--to", "csv", "--out", join(home.dir, "bb.csv")]);
    expect([plain.code, plain.err.includes("a server has seen")]).toEqual([0, false]);
  });
});

test("a federation's key says what is its owner's, and what was let out besides", async () => {
  const key: FederatedKeyInfo = {
    ...{ name: "k", federation: "trio", keyId: "5e".repeat(32), type: "ed25519", custody: "self" },
    ...{ control: "unilateral", shown: "custodial", origin: "custodial", released: true, publicKeyHex: "00" },
    ...{ threshold: 2, holders: [1, 2, 3], generation: 4, frozen: false },
  };
  const shown = { ...client, federatedKeys: async () => [key], federatedKey: async () => key };
  await withHome(shown, async (home) => {
    const { out } = await home.run(["key", "show", "k"]);
    expect(out).toContain("custodial (a ceremony's server has seen it); a part is yours; released");
    const { items } = dataOf(await home.run(["key", "list", "--json"])) as { items: readonly unknown[] };
    expect(items).toMatchObject([{ name: "k", custody: "custodial" }]);
  });
});
