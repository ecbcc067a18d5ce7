import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { initLocal } from "../../src/client/enrol.ts";
import { type Home, openOffline, vaultPath } from "../../src/client/home.ts";
import { kitText, readKit, vaultKitText } from "../../src/client/kit.ts";
import { rekeyLocal } from "../../src/client/password.ts";
import { kitState, noteKit, type Profile, readProfile, writeProfile } from "../../src/client/profile.ts";
import { backupVault, restoreVault } from "../../src/client/vaultcare.ts";
import { readPreviousVaultFile } from "../../src/client/vaultfile.ts";
import { checkVaultKit, makeVaultKit, recoverVault } from "../../src/client/vaultkit.ts";
import { Fault } from "../../src/errors.ts";
import { newId, type UserId } from "../../src/ids.ts";
import { passwordOf, random, testSurroundings } from "../support/harness.ts";
import { storing } from "../support/hostile.ts";

const PASSWORD = "a password of ada";
const NEXT = "the next password of ada";
const around = testSurroundings();
const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0)) end();
});

/** The fault that work ends with. */
async function refusal(work: Promise<unknown>): Promise<Fault> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

async function localHome(): Promise<{ home: Home; profile: Profile; path: string; directory: string }> {
  const directory = mkdtempSync(join(tmpdir(), "keyhold-kit-"));
  ends.push(() => rmSync(directory, { recursive: true, force: true }));
  const home = { profiles: join(directory, "config"), vaults: join(directory, "data") };
  await initLocal(home, { profile: "default", password: passwordOf(PASSWORD), kdf: "test" }, around);
  const profile = readProfile(home.profiles, "default");
  if (!profile) throw new Error("no profile");
  const client = await openOffline(home, profile, passwordOf(PASSWORD), around);
  await client.store(storing("a", "value"));
  await client.close();
  return { home, profile, path: vaultPath(home, profile), directory };
}

const opens = (at: { home: Home; profile: Profile }, password: string) =>
  openOffline(at.home, at.profile, passwordOf(password), around).then(async (client) => {
    const { items } = await client.list({ prefix: null, search: null, tag: null, fresh: false });
    await client.close();
    return items.length;
  });
const making = (at: { home: Home; profile: Profile }, password = PASSWORD) =>
  makeVaultKit(at.home, at.profile, passwordOf(password), around);
const recovering = (at: { home: Home; profile: Profile }, text: string, next = NEXT) =>
  recoverVault(at.home, at.profile, readKit(text), passwordOf(next), around);

describe("the recovery kit of a vault without a server", () => {
  test("gives the vault a new password; the old one opens nothing, also of the generation before", async () => {
    const at = await localHome();
    const { kit, replaced } = await making(at);
    expect([replaced, kit.words.length]).toEqual([false, 24]);
    const text = vaultKitText(kit, 0);
    expect(readKit(text)).toMatchObject({ vaultId: kit.vaultId, account: null, server: null });
    await recovering(at, text);
    expect(await opens(at, NEXT)).toBe(1);
    expect((await refusal(opens(at, PASSWORD))).code).toBe("wrong_password");
    expect(readPreviousVaultFile(at.path)).toBeNull();
    // it stays in force, as bare words too
    await recovering(at, kit.words.join(" ").toUpperCase(), "a third password");
    expect(await opens(at, "a third password")).toBe(1);
  });

  test("survives a new password and every other write", async () => {
    const at = await localHome();
    const { kit } = await making(at);
    await rekeyLocal(at.home, at.profile, { old: passwordOf(PASSWORD), next: passwordOf("between") }, around);
    const client = await openOffline(at.home, at.profile, passwordOf("between"), around);
    await client.store(storing("b", "value"));
    await client.close();
    await recovering(at, vaultKitText(kit, 0));
    expect(await opens(at, NEXT)).toBe(2);
  });

  test("one made later replaces it, and the generation that the first one opens is gone", async () => {
    const at = await localHome();
    const first = await making(at);
    const second = await making(at);
    expect(second.replaced).toBe(true);
    const before = readFileSync(at.path);
    const refused = await refusal(recovering(at, vaultKitText(first.kit, 0)));
    expect([refused.code, refused.why]).toEqual(["wrong_password", expect.stringContaining("a kit made later")]);
    expect(readFileSync(at.path)).toEqual(before);
    expect(readPreviousVaultFile(at.path)).toBeNull();
    await recovering(at, vaultKitText(second.kit, 0));
  });

  test("a copy from before the kit does not open with it; one from its time does, as the format says", async () => {
    const at = await localHome();
    const early = join(at.directory, "early");
    const late = join(at.directory, "late");
    backupVault(at.path, early);
    const { kit } = await making(at);
    backupVault(at.path, late);
    const options = { allowTestKdf: true, userId: null };
    await restoreVault(at.path, early, passwordOf(PASSWORD), options);
    const none = await refusal(recovering(at, vaultKitText(kit, 0)));
    expect([none.code, none.message]).toEqual(["wrong_password", "the vault has no recovery kit"]);
    await restoreVault(at.path, late, passwordOf(PASSWORD), options);
    await recovering(at, vaultKitText(kit, 0));
  });

  test("another vault's kit is named as such; as bare words it just does not open", async () => {
    const [at, other] = [await localHome(), await localHome()];
    await making(at);
    const { kit } = await making(other);
    const named = await refusal(recovering(at, vaultKitText(kit, 0)));
    expect([named.code, named.message]).toEqual(["wrong_password", "this is the recovery kit of another vault"]);
    expect((await refusal(recovering(at, kit.words.join(" ")))).code).toBe("wrong_password");
    const forged = vaultKitText({ ...kit, vaultId: "not an id" }, 0);
    expect((await refusal(recovering(at, forged))).code).toBe("wrong_password");
  });

  test("a wrong word is named by its place, and never itself", async () => {
    const at = await localHome();
    const { kit } = await making(at);
    const strange = kit.words.with(6, "keyholdish");
    const named = await refusal(recovering(at, strange.join(" ")));
    expect([named.code, named.message]).toEqual(["bad_input", "word 7 is not a word of a recovery kit"]);
    expect(JSON.stringify([named.message, named.why, named.hint])).not.toContain("keyholdish");
    const [a = "", b = "", ...rest] = kit.words;
    const swapped = a === b ? kit.words.slice(1) : [b, a, ...rest];
    expect((await refusal(recovering(at, swapped.join(" ")))).code).toMatch(/^(bad_input|wrong_password)$/);
    expect((await refusal(recovering(at, "abandon"))).code).toBe("bad_input");
    expect((await refusal(recovering(at, ""))).code).toBe("bad_input");
    expect(await opens(at, PASSWORD)).toBe(1);
  });

  test("needs the password to be made; an account's kit and an account's vault are told apart", async () => {
    const at = await localHome();
    expect((await refusal(making(at, "wrong"))).code).toBe("wrong_password");
    const { kit } = await making(at);
    const ofAccount = kitText(
      {
        server: "https://127.0.0.1:7443",
        pin: `sha256:${"A".repeat(43)}`,
        account: "ada",
        userId: newId<UserId>(random),
        anchor: { revision: 1, stateHash: new Uint8Array(32) },
        words: kit.words,
      },
      0,
    );
    const refused = await refusal(recovering(at, ofAccount));
    expect([refused.code, refused.hint]).toEqual(["bad_input", "keyhold account recover --kit-file FILE"]);
    const server = { url: "https://127.0.0.1:1", pin: "", caPem: null, tlsCaPem: null, statementNumber: 0 };
    const bound = { home: at.home, profile: { ...at.profile, server } };
    expect((await refusal(making(bound))).hint).toBe("keyhold account recovery-kit");
    expect((await refusal(recovering(bound, vaultKitText(kit, 0)))).code).toBe("bad_input");
  });

  test("can be checked without changing anything", async () => {
    const at = await localHome();
    const { kit } = await making(at);
    const before = readFileSync(at.path);
    checkVaultKit(at.home, at.profile, readKit(vaultKitText(kit, 0)));
    expect(readFileSync(at.path)).toEqual(before);
  });
});

describe("the profile's note of a kit", () => {
  test("is absent, unconfirmed or confirmed, and stays with the profile", async () => {
    const { home } = await localHome();
    const read = () => readProfile(home.profiles, "default");
    const now = () => kitState(read() ?? {});
    expect(now()).toBe("none");
    await noteKit(home.profiles, "default", { madeAtMs: 5, confirmed: false });
    expect(now()).toBe("unconfirmed");
    await noteKit(home.profiles, "default", { madeAtMs: 6, confirmed: true });
    const noted = read();
    if (!noted) throw new Error("no profile");
    await writeProfile(home.profiles, { ...noted, loggedOut: true });
    expect([now(), read()?.loggedOut]).toEqual(["confirmed", true]);
    expect((await refusal(noteKit(home.profiles, "other", { madeAtMs: 6, confirmed: true }))).code).toBe("not_found");
  });

  test("a profile without one is written without the field, and read; a damaged note is damage", async () => {
    const { home, profile } = await localHome();
    const file = join(home.profiles, "profiles", "default.json");
    expect(readFileSync(file, "utf8")).not.toContain("kit");
    const json = JSON.parse(readFileSync(file, "utf8"));
    for (const kit of [
      null,
      {},
      { madeAtMs: -1, confirmed: true },
      { madeAtMs: 1, confirmed: "yes" },
      { madeAtMs: 1 },
    ]) {
      writeFileSync(file, JSON.stringify({ ...json, kit }));
      expect(() => readProfile(home.profiles, profile.name)).toThrow("cannot read the profile");
    }
  });
});
