import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { keccak_256 } from "@noble/hashes/sha3.js";
import { concat } from "../../src/crypto/bytes.ts";
import { evmBytes, evmPayment, psbtOf, testKey } from "../support/transactions.ts";
import { laidTable } from "./ceremonyguests.ts";
import { dataAt, type Fleet, localHome, openFleet, placeOf } from "./fleet.ts";
import { type Home, SETUP_MS, type World } from "./world.ts";

const MESSAGE = new TextEncoder().encode("pay 3 coins to the harbour master");
const ED25519_SPKI = Buffer.from("302a300506032b6570032100", "hex");
const P256_SPKI = Buffer.from("3039301306072a8648ce3d020106082a8648ce3d030107032200", "hex");

let fleet: Fleet;
let owner: Home;

beforeAll(async () => {
  fleet = await openFleet(3);
  owner = await localHome(fleet.world, "owner");
  await fleet.form(owner, "custody", 2);
  await owner.ok(["federation", "join", placeOf(fleet.server(1))]);
  fleet.world.file("message", MESSAGE);
}, SETUP_MS);
afterAll(() => fleet.close());

const signing = (name: string) => ["key", "sign", name, "--message-file", fleet.world.file("message")];
const spki = (prefix: Buffer, key: Uint8Array) =>
  createPublicKey({ key: Buffer.concat([prefix, key]), format: "der", type: "spki" });

/** Whether somebody else's code takes the signature. */
function holds(type: string, publicKey: Uint8Array, signature: Uint8Array): boolean {
  if (type === "secp256k1") return secp256k1.verify(signature, MESSAGE, publicKey, { format: "compact", lowS: false });
  if (type === "ed25519") return verify(null, MESSAGE, spki(ED25519_SPKI, publicKey), signature);
  if (type === "schnorr") return schnorr.verify(signature, MESSAGE, publicKey.slice(-32));
  return verify("sha256", MESSAGE, { key: spki(P256_SPKI, publicKey), dsaEncoding: "ieee-p1363" }, signature);
}

async function verified(home: Home, name: string, code = 0): Promise<boolean> {
  const { signatureHex } = await dataAt(home, code, signing(name));
  const { data } = await home.ok(["key", "show", name]);
  return holds(data.type, Uint8Array.fromHex(data.publicKeyHex), Uint8Array.fromHex(String(signatureHex)));
}

describe("keys of three servers", () => {
  for (const type of ["ed25519", "schnorr", "p256"]) {
    for (const custody of ["self", "delegated"]) {
      test(`${type}, ${custody}: what they sign, others verify`, async () => {
        const name = `${type}-${custody}`;
        const { data } = await owner.ok(["key", "generate", name, "--type", type, "--custody", custody]);
        expect(data.status).toBe("fulfilled");
        expect(data.keyId).toMatch(/^[0-9a-f]{64}$/);
        expect(await verified(owner, name)).toBe(true);
      });
    }
  }

  test("transactions are read and signed: a PSBT in base64, an EVM transaction in hex digits, a digest", async () => {
    const keyOf = async (name: string) => Uint8Array.fromHex((await owner.ok(["key", "show", name])).data.publicKeyHex);
    const signed = async (name: string, ...how: readonly string[]) => {
      const { signatureHex, scheme } = await dataAt(owner, 0, ["key", "sign", name, ...how]);
      return { signature: Uint8Array.fromHex(String(signatureHex)), scheme };
    };
    const taproot = (await keyOf("schnorr-delegated")).slice(-32);
    const script = concat(Uint8Array.of(0x51, 0x20), taproot);
    const psbt = psbtOf({
      inputs: [
        { script, amount: 9_000n },
        { script, amount: 8_000n },
      ],
      outputs: [{ script: testKey("secp256k1", 7).script, amount: 16_000n }],
    });
    const file = fleet.world.file("spend.psbt", `${psbt.toPSBT().toBase64()}\n`);
    const spent = await signed("schnorr-delegated", "--psbt-file", file, "--input", "1");
    const sighash = psbt.preimageWitnessV1(1, [script, script], 0, [9_000n, 8_000n]);
    expect([spent.scheme, schnorr.verify(spent.signature, sighash, taproot)]).toEqual(["bip340", true]);

    await owner.ok(["key", "generate", "account", "--type", "secp256k1", "--custody", "delegated"]);
    const account = await keyOf("account");
    const unsigned = fleet.world.file("unsigned.hex", `0x${evmBytes(evmPayment()).toHex()}`);
    const paid = await signed("account", "--evm-file", unsigned);
    expect(paid.scheme).toBe("ecdsa-secp256k1");
    const options = { prehash: false, format: "compact" } as const;
    expect(secp256k1.verify(paid.signature, keccak_256(evmBytes(evmPayment())), account, options)).toBe(true);
    const blind = await signed("account", "--digest", "ab".repeat(32));
    expect(secp256k1.verify(blind.signature, new Uint8Array(32).fill(0xab), account, options)).toBe(true);
    const der = await signed("account", "--digest", "ab".repeat(32), "--format", "der");
    expect(secp256k1.Signature.fromBytes(der.signature, "der").toBytes("compact")).toEqual(blind.signature);

    // what is none of these is refused before any server hears of it
    const sign = ["key", "sign", "account"];
    await owner.fails(2, [...sign, "--psbt-file", file]);
    await owner.fails(2, [...sign, "--evm-file", file]);
    await owner.fails(2, [...sign, "--evm-file", unsigned, "--amount", "5 sat"]);
    await owner.fails(2, [...sign, "--evm-file", unsigned, "--digest", "ab".repeat(32)]);
    await owner.fails(2, [...sign, "--evm-file", unsigned, "--input", "1"]);
    await owner.fails(2, [...sign, "--digest", "ab"]);
    await owner.fails(2, sign);
  });

  test("bytes come back the same, and the key is marked for good", async () => {
    await owner.ok(["key", "generate", "seed", "--type", "bytes", "--bytes", "48"]);
    const get = async () => (await owner.ok(["key", "retrieve", "seed", "--reveal"])).data.value;
    const value = await get();
    expect(value).toMatch(/^[0-9a-f]{96}$/);
    expect(await get()).toBe(value);
    expect((await owner.ok(["key", "show", "seed"])).data.shown).toContain("released");
  });

  test("any two of them sign while the third is down", async () => {
    await fleet.kill(2);
    expect(await verified(owner, "schnorr-delegated")).toBe(true);
    await fleet.start(2);
    await fleet.kill(1);
    expect(await verified(owner, "ed25519-self")).toBe(true);
    await fleet.start(1);
  });

  test("refreshed shares make the same key", async () => {
    const before = (await owner.ok(["key", "show", "schnorr-delegated"])).data;
    await owner.ok(["key", "refresh", "schnorr-delegated"]);
    const after = (await owner.ok(["key", "show", "schnorr-delegated"])).data;
    expect(after).toMatchObject({ publicKeyHex: before.publicKeyHex, generation: before.generation + 1 });
    expect(await verified(owner, "schnorr-delegated")).toBe(true);
  });

  test("check finds every server well, and every key with a share to spare", async () => {
    const { data } = await owner.ok(["federation", "check"]);
    expect(data.ok).toBe(true);
    expect(data.servers.map(({ state }: { state: string }) => state)).toEqual(["ok", "ok", "ok"]);
    expect((await owner.ok(["audit", "verify", "--federation"])).data.ok).toBe(true);
  });

  test("a key's name is taken once; an unknown one is not found; wrong input is usage", async () => {
    await owner.fails(6, ["key", "generate", "seed", "--type", "ed25519"]);
    await owner.fails(6, ["generate", "seed"]);
    await owner.fails(3, ["key", "refresh", "nothing"]);
    await owner.fails(2, ["key", "generate", "x", "--control", "shared"]);
    await owner.fails(2, ["federation", "join", "https://127.0.0.1:1"]);
    await owner.fails(3, ["request", "show", "ffffffffff"]);
  });
});

describe("what a ceremony's enclave combined", () => {
  let keeper: Home;
  let world: World;

  beforeAll(async () => {
    world = Object.assign(fleet.world, { server: fleet.server(1) });
    keeper = await world.home("keeper").register("keeper");
    await keeper.ok(["federation", "join", placeOf(fleet.server(1))]);
  }, SETUP_MS);

  /** A ceremony that has come to its end, and the public key that everyone was shown. */
  async function held(type: string): Promise<{ readonly name: string; readonly publicKeyHex: string | null }> {
    const name = `ceremony-${type}`;
    const table = await laidTable(world, keeper, name, 2, "--output", type, "--collect", "organiser");
    const { status, result } = await table.goOn();
    expect([status, result?.custody]).toEqual(["stored", "custodial"]);
    return { name, publicKeyHex: result?.output.publicKey?.toHex() ?? null };
  }

  for (const type of ["secp256k1", "ed25519"]) {
    test(`${type}: shared out, it is the same key, signs, and is custodial for good`, async () => {
      const { name, publicKeyHex } = await held(type);
      const { data } = await keeper.ok(["ceremony", "collect", name, "--import-into", "custody"]);
      expect(data).toMatchObject({ status: "fulfilled", publicKeyHex });
      const shown = { keyId: data.keyId, publicKeyHex, shown: "custodial", origin: "custodial" };
      expect((await keeper.ok(["key", "show", name])).data).toMatchObject(shown);
      const told = await keeper.run(["key", "show", name]);
      expect([told.code, told.out.includes("custodial (a ceremony's server has seen it)")]).toEqual([0, true]);
      expect(await verified(keeper, name)).toBe(true);
      await keeper.ok(["key", "refresh", name]);
      const { items } = (await keeper.ok(["key", "list"])).data;
      const row = items.find((one: { name: string }) => one.name === name);
      expect(row).toMatchObject({ keyId: data.keyId, custody: "custodial", version: 1 });
    });
  }

  test("bytes come back as the vault keeps them, and both are custodial", async () => {
    const { name } = await held("bytes");
    await keeper.ok(["ceremony", "collect", name, "--import-into", "custody"]);
    const { data } = await keeper.ok(["ceremony", "collect", name, "--store", "kept"]);
    expect(data).toMatchObject({ name: "kept", type: "bytes", custody: "custodial" });
    const value = (await keeper.ok(["key", "retrieve", name, "--reveal", "--encoding", "base64url"])).data.value;
    const got = (await keeper.ok(["get", "kept", "--reveal"])).data;
    expect(got).toMatchObject({ valueB64: value, custody: "custodial" });
    expect(got.origin).toMatch(/^ceremony:[0-9a-f]{32}$/);
    expect((await keeper.ok(["key", "show", name])).data).toMatchObject({ shown: "custodial", released: true });
  });
});
