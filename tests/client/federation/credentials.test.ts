import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { takeLink } from "../../../src/client/accept.ts";
import { loginNewDevice } from "../../../src/client/enrol.ts";
import { fetchPinned, infoOf } from "../../../src/client/federation/joining.ts";
import { heldIn, joinedFederation } from "../../../src/client/federation/keeping.ts";
import { openMembers } from "../../../src/client/federation/members.ts";
import { keepParcel } from "../../../src/client/federation/parcel.ts";
import { type Home, logInFreshly } from "../../../src/client/home.ts";
import { makeRecoveryKit } from "../../../src/client/kit.ts";
import type { Open } from "../../../src/client/opened.ts";
import { readProfile } from "../../../src/client/profile.ts";
import { recoverAccount } from "../../../src/client/recover.ts";
import { renewAccount } from "../../../src/client/rotate.ts";
import { refresh } from "../../../src/client/vaultbox.ts";
import { toBase64url } from "../../../src/crypto/bytes.ts";
import { hpkeKeyPair, hpkeSeal } from "../../../src/crypto/hpke.ts";
import { accountKeys } from "../../../src/protocol/account.ts";
import { openFederationParcel } from "../../../src/protocol/federation/parcel.ts";
import { kitEntropy, kitKeys, kitSealing } from "../../../src/protocol/kit.ts";
import { type AccountWorld, openAccountWorld, PASSWORD, type Person } from "../../support/accountworld.ts";
import { passwordOf, random, testSurroundings } from "../../support/harness.ts";
import { rejected } from "../../support/hostile.ts";
import { type ClientWorld, clientWorld, formed, join1 } from "./world.ts";

/** The federation secret F: where it goes, and where it does not (docs/protocol.md §8.2). */

setDefaultTimeout(60_000);
const NEXT = "another password of ada";
let servers: ClientWorld;
let world: AccountWorld;
let ada: Person;
let homes = 0;

beforeAll(async () => {
  servers = await clientWorld();
  const { open } = await servers.vault();
  await formed(servers, open);
});
afterAll(() => servers.close());
beforeEach(async () => {
  await world?.close();
  world = await openAccountWorld();
  ada = await world.register("ada");
});
afterAll(() => world.close());

const fresh = async (person = ada, password = PASSWORD) =>
  (await logInFreshly(person.home, person.profile(), passwordOf(password), testSurroundings(person.notices))).open;

/** Ada's first device, which has joined the federation. */
async function joined(): Promise<Open> {
  const open = await fresh();
  await join1(servers, open);
  return open;
}

const kitOf = async () =>
  (await makeRecoveryKit(ada.home, ada.profile(), passwordOf(PASSWORD), testSurroundings(ada.notices))).kit;

const freshHome = (): Home => {
  homes += 1;
  return { profiles: `${ada.home.profiles}-${homes}`, vaults: `${ada.home.vaults}-${homes}` };
};
const inputOf = (password: string) => {
  const { server } = ada.profile();
  if (!server) throw new Error("no server");
  const at = { url: server.url, pin: server.pin, tlsCaPem: null };
  return { profile: "default", server: at, account: "ada", password: passwordOf(password), kdf: "test" as const };
};

/** The device of a home, opened; with what it holds of federations. */
async function opened(home: Home, password: string): Promise<Open> {
  const profile = readProfile(home.profiles, "default");
  if (!profile) throw new Error("no profile");
  return (await logInFreshly(home, profile, passwordOf(password), testSurroundings())).open;
}

async function recovered(words: readonly string[], notices: string[] = []): Promise<Open> {
  const home = freshHome();
  const input = { ...inputOf(NEXT), words: words.join(" "), known: {} };
  await (await recoverAccount(home, input, testSurroundings(notices))).client.close();
  return opened(home, NEXT);
}

describe("a recovery kit", () => {
  test("brings F and the federations to a new machine, which is then the same member", async () => {
    const first = await joined();
    const { words } = await kitOf();
    const open = await recovered(words);
    expect(heldIn(open).federationSecret).toEqual(heldIn(first).federationSecret);
    expect(heldIn(open).federationPins.map(({ name }) => name)).toEqual(["trio"]);
    servers.server(1).away = true;
    await fetchPinned(open, servers);
    servers.server(1).away = false;
    expect(heldIn(open).federationPins).toEqual([]);
    const info = infoOf(open, joinedFederation(open, "trio"));
    expect(info).toEqual(infoOf(first, joinedFederation(first, "trio")));
    const before = servers.calls.length;
    const entered = await openMembers(open, joinedFederation(open, "trio"), servers).openAll();
    expect(entered.map(({ ok }) => ok)).toEqual([true, true, true]);
    // the accounts were there already
    expect(servers.calls.slice(before)).not.toContain("account.register");
  });

  test("made before the federation was joined follows; a later kit, and a rotation, are followed too", async () => {
    const early = await kitOf();
    const open = await joined();
    if (!open.session) throw new Error("no session");
    await keepParcel(open, open.session);
    const stamp = heldIn(open).federationParcel;
    await keepParcel(open, open.session);
    expect(heldIn(open).federationParcel).toEqual(stamp);
    const late = await kitOf();
    await renewAccount(ada.home, ada.profile(), passwordOf(PASSWORD), { next: null, revoke: null }, testSurroundings());
    const again = await recovered(late.words);
    expect(heldIn(again).federationSecret).toEqual(heldIn(open).federationSecret);
    expect(early.words).not.toEqual(late.words);
  });

  test("a parcel that the owner did not sign brings no secret, and does not keep the account back", async () => {
    await joined();
    const { words } = await kitOf();
    const kit = await kitKeys(kitEntropy(words.join(" ")));
    const forged = await hpkeSeal(kitSealing(kit.publicKeys), new Uint8Array(0), random(200), random);
    const userId = (await ada.model()).owner;
    await world.server.store.transaction(async (tx) => {
      const row = await tx.document("parcel", userId);
      if (!row) throw new Error("no parcel");
      const body = new TextEncoder().encode(
        JSON.stringify({ sealed: forged.toBase64({ alphabet: "base64url", omitPadding: true }) }),
      );
      expect(await tx.putDocument({ ...row, body }, row.version)).toBe(true);
    });
    const notices: string[] = [];
    const open = await recovered(words, notices);
    expect(heldIn(open).federationSecret).toBeNull();
    expect(notices.join()).toContain("federation secret");
  });
});

test("a device link brings F and the federations", async () => {
  const first = await joined();
  const client = await ada.login();
  const { code } = await client.linkDevice();
  const home = freshHome();
  const linked = await takeLink(home, "default", { code, tlsCaPem: null }, testSurroundings());
  await (await loginNewDevice(home, inputOf(PASSWORD), testSurroundings(), linked.known)).client.close();
  const open = await opened(home, PASSWORD);
  expect(heldIn(open).federationSecret).toEqual(heldIn(first).federationSecret);
  await fetchPinned(open, servers);
  expect(infoOf(open, joinedFederation(open, "trio"))).toEqual(infoOf(first, joinedFederation(first, "trio")));
});

describe("a login by the password alone", () => {
  test("brings no F: commands say what does, and no second one is drawn", async () => {
    await joined();
    await kitOf();
    const home = freshHome();
    await (await loginNewDevice(home, inputOf(PASSWORD), testSurroundings())).client.close();
    const open = await opened(home, PASSWORD);
    expect(heldIn(open).federationSecret).toBeNull();
    expect(() => joinedFederation(open, "trio")).toThrow(
      expect.objectContaining({ code: "not_found", hint: expect.stringContaining("link this device") }),
    );
    await rejected(join1(servers, open), "denied");
    expect(heldIn(open).federationSecret).toBeNull();
  });

  test("and the server's database hold nothing that opens it", async () => {
    const open = await joined();
    const { words } = await kitOf();
    refresh(open.box);
    const secret = new Uint8Array(heldIn(open).federationSecret ?? []);
    const { owner, accountKey, bound } = open.box.model;
    const disk = readFileSync(world.file.path).toString("latin1");
    for (const form of [
      Buffer.from(secret).toString("latin1"),
      secret.toHex(),
      secret.toBase64(),
      secret.toBase64({ alphabet: "base64url" }).slice(0, 40),
    ]) {
      expect(disk).not.toContain(form);
    }
    const row = await world.server.store.transaction((tx) => tx.document("parcel", owner));
    const { sealed } = JSON.parse(new TextDecoder().decode(row?.body)) as { sealed: string };
    const parcel = Uint8Array.fromBase64(sealed, { alphabet: "base64url" });
    const kit = bound?.settings.kit;
    if (!kit || !bound) throw new Error("no kit");
    // everything that the password gives: the account key and what derives from it
    const known = [accountKey, ...Object.values(accountKeys(accountKey, owner)), passwordOf(PASSWORD.padEnd(32, "x"))];
    for (const seed of known) {
      const hpke = await hpkeKeyPair(seed);
      const guess = { ...(await kitKeys(random(32))), publicKeys: kit, hpke };
      await rejected(openFederationParcel(guess, owner, bound.settings.identity, parcel), "integrity");
    }
    const real = await kitKeys(kitEntropy(words.join(" ")));
    const opening = await openFederationParcel(real, owner, bound.settings.identity, parcel);
    expect(new TextDecoder().decode(opening)).toContain(toBase64url(secret));
  });
});
