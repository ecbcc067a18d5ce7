import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { Validator } from "@cfworker/json-schema";
import { ADDRESS_KINDS, type AddressKind, NETWORKS } from "../../../src/formats/address.ts";
import type { FederatedKeyId, KeyringId, KeyringRequestId, WorkspaceId } from "../../../src/ids.ts";
import type { FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { recorded } from "../../../src/server/keyring/events.ts";
import type { RegistryTokenOperation, TokenCaller } from "../../../src/server/keyring/service.ts";
import { type Codec, decodeJson, encodeJson, schemaOf } from "../../../src/wire/codec.ts";
import { type InputOf, type OutputOf, operations } from "../../../src/wire/operations.ts";
import { keyringGenerateBody, keyringUseBody } from "../../support/keyringrequests.ts";
import { certificateFor, hashIdFor, PARTIES, putKey, putRequest, responseOf } from "../../support/keyringrows.ts";
import { codeOf, type RegistryPerson, type RegistryWorld, registryWorld } from "../../support/registryworld.ts";
import shared from "../../vectors/addresses.json" with { type: "json" };

const hex = (text: string) => Uint8Array.fromHex(text);
/** A point of secp256k1, and a key of Ed25519. */
const POINT = hex("03ca27ea7b0641497b19a723e3b92590801c7e79b114253fc1e99df1fd9730526b");
const EDWARDS = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");

let world: RegistryWorld;
let ann: RegistryPerson;
let eve: RegistryPerson;
let own: TokenCaller;
let foreign: TokenCaller;

/** What the registry does when it is asked to end what time has ended. */
let sweep: () => Promise<void>;

beforeEach(async () => {
  sweep = async () => undefined;
  world = await registryWorld({ rest: { sweep: () => sweep() } });
  ann = await world.person("ann");
  eve = await world.person("eve");
  const callerOf = (workspaceId: WorkspaceId, { userId }: RegistryPerson) => ({ workspaceId, tokenId: "t", userId });
  own = callerOf((await world.workspace([ann])).workspaceId, ann);
  foreign = callerOf((await world.workspace([eve], { name: "other" })).workspaceId, eve);
});
afterEach(() => world.close());

/** Through both codecs, and held against the schema that programs are told. */
async function ask<N extends RegistryTokenOperation>(name: N, input: InputOf<N>, caller = own): Promise<OutputOf<N>> {
  const shape = operations[name] as unknown as { input: Codec<InputOf<N>>; output: Codec<OutputOf<N>> };
  const work = world.service[name] as unknown as (caller: TokenCaller, input: InputOf<N>) => Promise<OutputOf<N>>;
  const given = decodeJson(shape.input, new TextEncoder().encode(encodeJson(shape.input, input)));
  const text = encodeJson(shape.output, await work(caller, given));
  expect(new Validator(schemaOf(shape.output) as object, "2020-12").validate(JSON.parse(text)).errors).toEqual([]);
  return decodeJson(shape.output, new TextEncoder().encode(text));
}

const store = <T>(work: Parameters<typeof world.store.transaction<T>>[0]) => world.store.transaction(work);
const ALL = { keyringId: null, type: null, after: null } as const;

describe("events", () => {
  test("come in order, page by page, from any number on, and only those of the workspace", async () => {
    const { last: before } = await ask("integrator.events", { after: 0 });
    await recorded(world.site, async (_tx, tell) => {
      for (let i = 0; i < 100; i++) {
        await tell({ event: `test.${i}`, workspaceId: own.workspaceId, detail: `the ${i}th` });
        await tell({ event: "test.foreign", workspaceId: foreign.workspaceId });
      }
    });
    const seen: string[] = [];
    let after = before;
    for (let pages = 0; ; pages++) {
      const page = await ask("integrator.events", { after });
      seen.push(...page.items.map(({ event }) => event));
      expect(page.items.map(({ seq }) => seq)).toEqual(page.items.map((_, i) => after + 1 + i));
      expect(page.last).toBe(page.items.at(-1)?.seq ?? after);
      after = page.last;
      if (!page.more) {
        expect(pages).toBe(1);
        break;
      }
    }
    expect(seen).toEqual(Array.from({ length: 100 }, (_, i) => `test.${i}`));
    // nothing new: the number asked for is the one to ask for again
    expect(await ask("integrator.events", { after })).toEqual({ items: [], more: false, last: after });
    const [{ atMs, detail } = { atMs: 0, detail: "" }] = (await ask("integrator.events", { after: before })).items;
    expect([atMs, detail]).toEqual([world.nowMs, "the 0th"]);
  });
});

describe("the workspace", () => {
  test("tells its credits and who owns it", async () => {
    await world.control["registry.credit"]({ workspaceId: own.workspaceId, amount: 500, note: "" } as never);
    expect(await ask("integrator.workspace", {})).toEqual({
      workspaceId: own.workspaceId,
      name: "treasury",
      version: 1,
      owners: ["ann"],
      balance: 500,
      escrowed: 0,
      createdAtMs: world.nowMs,
    });
  });
});

describe("keys", () => {
  const put = (name: string, type: FederatedType, over: Partial<Parameters<typeof putKey>[1]> = {}) =>
    store((tx) =>
      putKey(tx, {
        ...{ name, type, workspaceId: own.workspaceId, atMs: world.nowMs++ },
        publicKey: type === "ed25519" ? EDWARDS : POINT,
        ...over,
      }),
    );

  test("are listed newest first, by keyring and type, page by page", async () => {
    const made: FederatedKeyId[] = [];
    for (let i = 0; i < 70; i++) made.unshift(await put(`key ${i}`, i % 2 ? "ed25519" : "secp256k1"));
    const second = await put("elsewhere", "ed25519", { keyring: "second" });
    await put("foreign", "ed25519", { workspaceId: foreign.workspaceId });
    const page = await ask("integrator.keys", ALL);
    expect([page.items.length, page.more]).toEqual([64, true]);
    const rest = await ask("integrator.keys", { ...ALL, after: page.items.at(-1)?.keyId ?? null });
    expect([...page.items, ...rest.items].map(({ keyId }) => keyId)).toEqual([second, ...made]);
    expect(rest.more).toBe(false);
    const edwards = await ask("integrator.keys", { ...ALL, type: "ed25519" });
    expect(edwards.items.map(({ keyId }) => keyId)).toEqual([second, ...made.filter((_, i) => i % 2 === 0)]);
    const keyringId = hashIdFor<KeyringId>("second");
    expect((await ask("integrator.keys", { ...ALL, keyringId })).items.map(({ keyId }) => keyId)).toEqual([second]);
    expect((await ask("integrator.keys", { ...ALL, keyringId, type: "p256" })).items).toEqual([]);
  });

  test("say who confirmed them and whether they were let out", async () => {
    const keyId = await put("key", "secp256k1", { released: true, confirmedBy: ["p1", "p3"] });
    await store((tx) =>
      putRequest(tx, {
        ...{ name: "key", workspaceId: own.workspaceId, userId: ann.userId, atMs: world.nowMs },
        bodies: [keyringGenerateBody(own.workspaceId, "secp256k1")],
      }),
    );
    const key = await ask("integrator.key", { keyId });
    expect(key).toMatchObject({ type: "secp256k1", publicKey: POINT.toHex(), shown: "released", threshold: 2 });
    expect(key.confirmedBy).toEqual(["p1", "p3"]);
  });

  test("of others are like none, in every operation", async () => {
    const keyId = await put("foreign", "ed25519", { workspaceId: foreign.workspaceId });
    const unknown = hashIdFor<FederatedKeyId>("unknown");
    expect((await ask("integrator.key", { keyId }, foreign)).keyId).toBe(keyId);
    for (const id of [keyId, unknown]) {
      const address = { keyId: id, as: "solana", network: null, prefix: null } as const;
      expect(await codeOf(ask("integrator.key", { keyId: id }))).toBe("not_found");
      expect(await codeOf(ask("integrator.keys", { ...ALL, after: id }))).toBe("not_found");
      expect(await codeOf(ask("integrator.address", address))).toBe("not_found");
    }
  });
});

describe("addresses", () => {
  const addressOf = async (
    publicKey: Uint8Array,
    type: FederatedType,
    as: AddressKind,
    network: string | undefined,
    prefix: string | undefined,
  ) => {
    const name = `${publicKey.toHex()} ${type}`;
    const given = { name, workspaceId: own.workspaceId, type, publicKey, atMs: world.nowMs };
    const keyId = await store((tx) => putKey(tx, given));
    const net = NETWORKS.find((one) => one === network) ?? null;
    return (await ask("integrator.address", { keyId, as, network: net, prefix: prefix ?? null })).address;
  };
  const kindOf = (text: string): AddressKind => ADDRESS_KINDS.find((one) => one === text) ?? "evm";
  const TYPES: { readonly [K in AddressKind]: FederatedType } = {
    ...{ evm: "secp256k1", "btc-p2wpkh": "secp256k1", "btc-p2tr": "schnorr" },
    ...{ cosmos: "secp256k1", solana: "ed25519", "zcash-p2pkh": "secp256k1" },
  };

  for (const v of shared.vectors.filter(({ internalKey }) => internalKey === undefined)) {
    test(`${v.type} ${v.network ?? v.prefix ?? ""}: ${v.address}`, async () => {
      const as = kindOf(v.type);
      expect(await addressOf(hex(v.publicKey ?? ""), TYPES[as], as, v.network, v.prefix)).toBe(v.address);
    });
  }

  test("a schnorr key is an output key: it is never tweaked again", async () => {
    // BIP-341: internal key cc8a… gives output key a608…
    const output = hex("a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c");
    const address = "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr";
    expect(await addressOf(output, "schnorr", "btc-p2tr", undefined, undefined)).toBe(address);
    const point = new Uint8Array([2, ...output]);
    expect(await addressOf(point, "schnorr", "btc-p2tr", undefined, undefined)).toBe(address);
  });

  test("are of kinds that fit the key", async () => {
    for (const [type, key] of [
      ["secp256k1", POINT],
      ["ed25519", EDWARDS],
      ["schnorr", POINT],
      ["p256", POINT],
    ] as const) {
      for (const as of ADDRESS_KINDS) {
        const code = await codeOf(addressOf(key, type, as, undefined, undefined));
        expect([type, as, code]).toEqual([type, as, TYPES[as] === type ? "ok" : "bad_input"]);
      }
    }
    expect(await codeOf(addressOf(POINT, "secp256k1", "evm", "testnet", undefined))).toBe("bad_input");
    expect(await codeOf(addressOf(POINT, "secp256k1", "evm", undefined, "cosmos"))).toBe("bad_input");
  });
});

describe("requests", () => {
  const put = (name: string, over: Partial<Parameters<typeof putRequest>[1]> = {}) =>
    store((tx) =>
      putRequest(tx, {
        ...{ name, workspaceId: own.workspaceId, userId: ann.userId, atMs: world.nowMs++ },
        bodies: [keyringGenerateBody(own.workspaceId)],
        ...over,
      }),
    );

  test("are listed newest first, by status, page by page", async () => {
    const made: KeyringRequestId[] = [];
    for (let i = 0; i < 20; i++) made.unshift(await put(`r${i}`, i % 2 ? { life: { status: "expired" } } : {}));
    await put("foreign", { workspaceId: foreign.workspaceId });
    const pages = async (status: "expired" | null) => {
      const first = await ask("integrator.requests", { status, after: null });
      const next = first.more
        ? await ask("integrator.requests", { status, after: first.items.at(-1)?.requestId ?? null })
        : null;
      return [...first.items, ...(next?.items ?? [])].map(({ requestId }) => requestId);
    };
    expect(await pages(null)).toEqual(made);
    expect(await pages("expired")).toEqual(made.filter((_, i) => i % 2 === 0));
    expect((await ask("integrator.requests", { status: "rejected", after: null })).items).toEqual([]);
    expect(await ask("integrator.request", { requestId: made[0] ?? hashIdFor("x") })).toMatchObject({
      ...{ kind: "key", status: "expired", approved: false, why: "it waits", fee: 30, threshold: 2 },
      items: [{ keyId: null, type: "ed25519", publicKey: null, signature: null }],
    });
  });

  test("tell where each party stands", async () => {
    const [p1, p2, p3] = PARTIES;
    if (!p1 || !p2 || !p3) throw new Error("no parties");
    const requestId = await put("r", {
      bodies: [keyringGenerateBody(own.workspaceId)],
      responses: (id) => [responseOf(p1, id), responseOf(p2, id, { verdict: "rejected", reason: "no" })],
    });
    const states = async () => (await ask("integrator.request", { requestId })).parties.map(({ state }) => state);
    expect(await states()).toEqual(["answered", "rejected", "waiting"]);
    const excluded = await put("excluded", {
      responses: (id) => [responseOf(p3, id)],
      life: { parties: PARTIES.map(({ key, name }) => ({ key, excluded: name === "p3" })) },
    });
    const { parties } = await ask("integrator.request", { requestId: excluded });
    expect(parties).toEqual([
      { name: "p1", state: "waiting" },
      { name: "p2", state: "waiting" },
      { name: "p3", state: "excluded" },
    ]);
  });

  test("tell a new key and signatures only once they are fulfilled", async () => {
    const given = { name: "made", workspaceId: own.workspaceId, type: "ed25519", publicKey: EDWARDS, atMs: 1 } as const;
    const certificate = certificateFor(given);
    const item = { certificate, result: new Uint8Array(64).fill(7) };
    const itemsOf = async (requestId: KeyringRequestId) => (await ask("integrator.request", { requestId })).items[0];
    expect(await itemsOf(await put("partial", { item, life: { status: "partial" } }))).toMatchObject({
      ...{ keyId: null, publicKey: null, signature: null },
    });
    expect(await itemsOf(await put("made", { item, life: { status: "fulfilled" } }))).toMatchObject({
      ...{ keyId: hashIdFor("made"), publicKey: EDWARDS.toHex(), signature: "07".repeat(64) },
    });
    const use = keyringUseBody(certificate.certificate, new Uint8Array(32));
    const open = await put("use", { bodies: [use, use], item, life: { status: "partial", kind: "signature" } });
    expect((await ask("integrator.request", { requestId: open })).items).toMatchObject([
      { keyId: hashIdFor("made"), type: "ed25519", publicKey: EDWARDS.toHex(), signature: null },
      { keyId: hashIdFor("made"), signature: null },
    ]);
  });

  test("are never shown as open after their time", async () => {
    const requestId = await put("late");
    let sweeps = 0;
    sweep = async () => {
      sweeps += 1;
      const [row] = await store((tx) => tx.documents("keyringRequest", own.workspaceId, null, 1));
      if (!row) throw new Error("no request");
      const body = new TextEncoder().encode(new TextDecoder().decode(row.body).replace('"pending"', '"expired"'));
      await store((tx) => tx.putDocument({ ...row, body }, row.version));
    };
    const statuses = async () => {
      const { items } = await ask("integrator.requests", { status: null, after: null });
      return [(await ask("integrator.request", { requestId })).status, items.map(({ status }) => status)];
    };
    expect([await statuses(), sweeps]).toEqual([["pending", ["pending"]], 0]);
    world.nowMs += 60_000;
    expect([await statuses(), sweeps]).toEqual([["expired", ["expired"]], 1]);
  });

  test("of others are like none", async () => {
    const theirs = await put("foreign", { workspaceId: foreign.workspaceId });
    expect((await ask("integrator.request", { requestId: theirs }, foreign)).requestId).toBe(theirs);
    for (const requestId of [theirs, hashIdFor<KeyringRequestId>("unknown")]) {
      expect(await codeOf(ask("integrator.request", { requestId }))).toBe("not_found");
      expect(await codeOf(ask("integrator.requests", { status: null, after: requestId }))).toBe("not_found");
      expect(await codeOf(ask("integrator.requests", { status: "pending", after: requestId }))).toBe("not_found");
    }
  });
});
