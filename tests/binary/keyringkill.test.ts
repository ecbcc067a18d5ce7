import { afterAll, beforeAll, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { seeded } from "../support/seeded.ts";
import {
  approve,
  asked,
  balances,
  forKey,
  INDICES,
  type Keyrings,
  keysAtServers,
  keysOf,
  lifeOf,
  openKeyrings,
  short,
  shown,
  stageOf,
  sumOf,
  treasury,
  until,
  watched,
} from "./keyringfleet.ts";
import { SETUP_MS } from "./world.ts";

/**
 * Processes that die or stand still in the middle of requests: afterwards one key for each request, one answer of each
 * party, and every fee moved once (docs/protocol.md §9.6).
 */

setDefaultTimeout(60_000);

let all: Keyrings;
beforeAll(async () => {
  all = await openKeyrings();
}, SETUP_MS);
afterAll(() => all?.close());

/** Keys that each request so far has made. */
const made = new Map<string, string>();
const MESSAGE = new TextEncoder().encode("pay 3 coins to the harbour master");

/** One key a request, at every server; one answer a party; no fee held; and nothing made or lost. */
async function whole(...ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    // also who was away answers in the end
    await until(() => lifeOf(all, id).items.every(({ responses }) => responses.length === INDICES.length), 100);
    const life = lifeOf(all, id);
    expect(life).toMatchObject({ status: "fulfilled", approved: true, accepted: true });
    expect(life.parties.map(({ excluded }) => excluded)).toEqual([false, false, false]);
    for (const { responses, value } of life.items) {
      expect(new Set(responses.map(({ response }) => response.key.toHex())).size).toBe(INDICES.length);
      expect(responses.map(({ response }) => response.verdict)).toEqual(["fulfilled", "fulfilled", "fulfilled"]);
      expect(value).toHaveLength(32);
      const keyIds = new Set(responses.map(({ response }) => response.keyId));
      expect(keyIds.size).toBe(1);
      if (life.kind === "key") made.set(id, String([...keyIds][0]));
    }
  }
  const listed = (await keysOf(all)).map(({ keyId }) => keyId);
  expect(listed.toSorted()).toEqual([...made.values()].toSorted());
  for (const atServer of keysAtServers(all)) expect(atServer).toEqual(listed.toSorted());
  expect((await treasury(all)).escrowed).toBe(0);
  expect(sumOf((await balances(all)).values())).toBe(0);
}

/** Has ann ask and ben agree. */
async function begun(argv: readonly string[]): Promise<string> {
  const id = await asked(all.ann, argv);
  await approve(all.ben, id);
  return id;
}

/** A key to sign with, made while everything is well. */
let signing: { readonly keyId: string; readonly publicKeyHex: string };
beforeAll(async () => {
  const id = await begun(forKey("ed25519"));
  const [item] = (await watched(all.ann, id)).items;
  if (!item?.keyId || !item.publicKeyHex) throw new Error("no key");
  signing = { keyId: item.keyId, publicKeyHex: item.publicKeyHex };
  await whole(id);
}, SETUP_MS);

let messages = 0;
/** Words that ask for a signature of a message that nothing else signs. */
function forSignature(): { readonly argv: string[]; readonly message: Uint8Array } {
  messages += 1;
  const message = Uint8Array.of(...MESSAGE, messages);
  return {
    argv: ["signature", "--key", signing.keyId, "--message-file", all.fleet.world.file(`m${messages}`, message)],
    message,
  };
}

const holds = (message: Uint8Array, signatureHex: string | null | undefined): boolean => {
  const x = Buffer.from(signing.publicKeyHex, "hex").toString("base64url");
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return verify(null, message, key, Buffer.from(signatureHex ?? "", "hex"));
};

describe("connectors", () => {
  const SEED = Number(process.env["KEYHOLD_TEST_SEED"] ?? Date.now() % 1_000_000);
  test(`one is killed again and again, another stands still for a while (KEYHOLD_TEST_SEED=${SEED})`, async () => {
    const chance = seeded(SEED);
    const sign = forSignature();
    const ids = [await asked(all.ann, forKey("schnorr")), await asked(all.ann, forKey("secp256k1"))];
    const signed = await asked(all.ann, sign.argv);
    const approving = (async () => {
      for (const id of [...ids, signed]) await approve(all.ben, id);
    })();
    const freezing = (async () => {
      await Bun.sleep(chance.int(800));
      all.freeze(2, true);
      await Bun.sleep(500 + chance.int(1_500));
      all.freeze(2, false);
    })();
    for (let i = 0; i < 6; i++) {
      await Bun.sleep(chance.int(600));
      await all.killConnector(3);
      await all.startConnector(3);
    }
    await Promise.all([approving, freezing]);
    for (const id of ids) expect(await watched(all.ann, id)).toMatchObject({ status: "fulfilled" });
    const done = await watched(all.ann, signed);
    expect(holds(sign.message, done.items[0]?.signatureHex)).toBe(true);
    await whole(...ids, signed);
  });

  test("a signature needs two of three; the third answers late, and it counts as said", async () => {
    const sign = forSignature();
    all.freeze(1, true);
    const id = await begun(sign.argv);
    const done = await watched(all.ann, id);
    expect(holds(sign.message, done.items[0]?.signatureHex)).toBe(true);
    const states = new Map(done.parties.map(({ name, state }) => [name, state]));
    expect([states.get("north"), states.get("east"), states.get("south")]).toEqual(["waiting", "answered", "answered"]);
    const before = await balances(all);
    all.freeze(1, false);
    await whole(id);
    // it was paid with the others: an answer more moves nothing
    expect(await balances(all)).toEqual(before);
    expect((await shown(all.ann, id)).parties.map(({ state }) => state)).toEqual(["answered", "answered", "answered"]);
  });

  test("all of them are down while owners ask and agree, and one after the other comes back", async () => {
    for (const index of INDICES) await all.killConnector(index);
    const id = await begun(forKey("schnorr"));
    expect(await shown(all.ann, id)).toMatchObject({ status: "pending", approved: true });
    for (const index of INDICES) await all.startConnector(index);
    await watched(all.ann, id);
    await whole(id);
  });
});

describe("the registry is killed and comes back", () => {
  const STAGES = ["waiting", "preparing", "running", "settling"] as const;
  /** Waits until a request stands there or further, and kills it at once. */
  async function killedAt(id: string, stage: (typeof STAGES)[number]): Promise<void> {
    const later: readonly string[] = [...STAGES.slice(STAGES.indexOf(stage)), "over"];
    await until(() => later.includes(stageOf(all, id)), 1);
    await all.registry.kill();
  }

  test.each(STAGES)("while a key request is %s", async (stage) => {
    const id = await asked(all.ann, forKey("schnorr"));
    // to prepare takes a moment: with one away nothing can begin
    if (stage === "preparing") all.freeze(3, true);
    if (stage !== "waiting") await approve(all.ben, id);
    await killedAt(id, stage);
    expect((await all.ann.run(["request", "show", short(id), "--json"])).code).not.toBe(0);
    await all.registry.start();
    if (stage === "preparing") all.freeze(3, false);
    if (stage === "waiting") await approve(all.ben, id);
    await watched(all.ann, id);
    await whole(id);
  });

  test.each(["preparing", "running", "settling"] as const)("while a signature is %s", async (stage) => {
    const sign = forSignature();
    const id = await begun(sign.argv);
    await killedAt(id, stage);
    await all.registry.start();
    const done = await watched(all.ann, id);
    expect(holds(sign.message, done.items[0]?.signatureHex)).toBe(true);
    await whole(id);
  });

  test("after the end nothing changes any more", async () => {
    const [id] = [...made.keys()].slice(-1);
    if (id === undefined) throw new Error("nothing was made");
    const before = [await balances(all), lifeOf(all, id), await treasury(all)];
    await all.registry.kill();
    await all.registry.start();
    expect([await balances(all), lifeOf(all, id), await treasury(all)]).toEqual(before);
    expect(await shown(all.ann, id)).toMatchObject({ status: "fulfilled" });
    await whole();
  });
});

describe("a server of the federation", () => {
  beforeEach(() => whole());

  test("is killed in the middle of the making of a key, and comes back: another attempt makes it", async () => {
    const id = await begun(forKey("p256"));
    await until(() => stageOf(all, id) !== "preparing", 1);
    await all.fleet.kill(2);
    await all.fleet.start(2);
    await watched(all.ann, id);
    await whole(id);
  });

  test("is down while a signature is made by the others, and hears of it when it is back", async () => {
    await all.fleet.kill(3);
    const sign = forSignature();
    const id = await begun(sign.argv);
    const done = await watched(all.ann, id);
    expect(holds(sign.message, done.items[0]?.signatureHex)).toBe(true);
    await all.fleet.start(3);
    await whole(id);
  });
});
