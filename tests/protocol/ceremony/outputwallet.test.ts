import { describe, expect, test } from "bun:test";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import { p2ms, p2wsh } from "@scure/btc-signer/payment.js";
import { Transaction } from "@scure/btc-signer/transaction.js";
import { type BTC_NETWORK, NETWORK, TEST_NETWORK } from "@scure/btc-signer/utils.js";
import fc from "fast-check";
import { Fault } from "../../../src/errors.ts";
import { type CeremonyId, hashId } from "../../../src/ids.ts";
import type { OutputSpec } from "../../../src/protocol/ceremony/model.ts";
import { makeOutput, walletKeyOf } from "../../../src/protocol/ceremony/output.ts";
import { descriptorChecksum, walletDescriptor } from "../../../src/protocol/ceremony/outputwallet.ts";

type Wallet = Extract<OutputSpec, { kind: "multisig" }>;

const { Point, utils, getPublicKey } = secp256k1;
const ORDER = Point.CURVE().n;
const KEY = Uint8Array.from({ length: 64 }, (_, i) => i);
const ceremonyId = hashId<CeremonyId>(new Uint8Array(32).fill(0xce));
const scalarOf = (n: number) => new Uint8Array(32).fill(n);
const big = (bytes: Uint8Array) => BigInt(`0x${bytes.toHex()}`);
const wallet = (threshold: number, network: Wallet["network"] = "mainnet"): Wallet => ({
  kind: "multisig",
  threshold,
  network,
});
const joinsOf = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ join: { index: i + 1, share: getPublicKey(scalarOf(i + 1), true) } }));

/** A wallet of `count` participants whose own scalars are 01 01 …, 02 02 …, and the private key of each. */
async function walletOf(threshold: number, count: number, network?: Wallet["network"]) {
  const made = await makeOutput(wallet(threshold, network), KEY, { ceremonyId, joins: joinsOf(count) });
  const secrets = made.parts.map(({ index, secret }) => walletKeyOf(scalarOf(index), secret));
  return { ...made, secrets, points: made.public.keys.map((one) => one.publicKey) };
}

const REGTEST: BTC_NETWORK = { ...TEST_NETWORK, bech32: "bcrt" };

/** The script and address that another library makes of these keys. */
function paymentOf(threshold: number, points: readonly Uint8Array[], network = NETWORK) {
  const sorted = [...points].sort((a, b) => (a.toHex() < b.toHex() ? -1 : 1));
  return p2wsh(p2ms(threshold, sorted), network);
}

/** A payment out of the wallet, signed with these keys and finished. */
function spend(threshold: number, points: readonly Uint8Array[], secrets: readonly Uint8Array[]): Transaction {
  const payment = paymentOf(threshold, points);
  const transaction = new Transaction();
  transaction.addInput({
    txid: new Uint8Array(32).fill(0xab),
    index: 0,
    witnessUtxo: { amount: 100_000n, script: payment.script },
    witnessScript: payment.witnessScript,
  });
  transaction.addOutputAddress(payment.address ?? "", 90_000n, NETWORK);
  const read = Transaction.fromPSBT(transaction.toPSBT());
  for (const secret of secrets) read.sign(secret);
  read.finalize();
  return read;
}

/** From a program of its own in Python, the checksum and the addresses by embit. */
const DESCRIPTOR =
  "wsh(sortedmulti(2,0283373a04ec520fae9de99daa5f1c0b6033f26878b4567b57369823d2922df0c3,028a60eb85bf12fbc83c09fc3e59ad23f0c54c2f694612f2d93dbc702790ae3501,029356e1f5d16e4d8967065042468087a9dc5d9d7e509d10d6d1ab74d41d8d56c6))#kvaeq0a0";
const ADDRESSES = {
  mainnet: "bc1q0uypar36rgsqd4dhkx5v6rggwa0h9qg45tv8n22nu0vwe97dgwysy87e64",
  testnet: "tb1q0uypar36rgsqd4dhkx5v6rggwa0h9qg45tv8n22nu0vwe97dgwysn0gkq6",
  regtest: "bcrt1q0uypar36rgsqd4dhkx5v6rggwa0h9qg45tv8n22nu0vwe97dgwys7kzs4q",
} as const;

describe("a multisig wallet of a ceremony", () => {
  test("the same key makes the same wallet, whatever the order of the joins", async () => {
    const made = await walletOf(2, 3);
    expect(made.value).toBeNull();
    expect(made.public.publicKey).toBeNull();
    expect(made.public.descriptor).toBe(DESCRIPTOR);
    const turned = await makeOutput(wallet(2), KEY, { ceremonyId, joins: joinsOf(3).reverse() });
    expect(turned).toEqual({ value: made.value, public: made.public, parts: made.parts });
    expect(turned.public.keys.map((one) => one.index)).toEqual([1, 2, 3]);
  });

  test("its address by @scure/btc-signer is that of other programs", async () => {
    const { points } = await walletOf(2, 3);
    expect(paymentOf(2, points).address).toBe(ADDRESSES.mainnet);
    expect(paymentOf(2, points, TEST_NETWORK).address).toBe(ADDRESSES.testnet);
    expect(paymentOf(2, points, REGTEST).address).toBe(ADDRESSES.regtest);
  });

  test("each participant's key is its own scalar plus the ceremony's, and neither alone", async () => {
    const { parts, points, secrets } = await walletOf(2, 3);
    for (const [i, { index, secret }] of parts.entries()) {
      const own = scalarOf(index);
      const key = secrets[i] ?? new Uint8Array();
      expect(big(key)).toBe((big(own) + big(secret)) % ORDER);
      expect(getPublicKey(key, true).toHex()).toBe(points[i]?.toHex() ?? "");
      for (const alone of [own, secret]) expect(getPublicKey(alone, true).toHex()).not.toBe(points[i]?.toHex());
    }
    expect(new Set(parts.map((part) => part.secret.toHex())).size).toBe(3);
  });

  test("m of its keys spend, m - 1 do not, nor does a stranger's", async () => {
    const { points, secrets } = await walletOf(2, 3);
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [2, 1],
    ] as const) {
      const two = [secrets[a], secrets[b]] as [Uint8Array, Uint8Array];
      const { hex } = spend(2, points, two);
      expect(hex).toContain("abababab");
    }
    expect(() => spend(2, points, secrets.slice(0, 1))).toThrow();
    expect(() => spend(2, points, [...secrets.slice(0, 1), scalarOf(2)])).toThrow();
  });

  test("15 participants, of whom all must sign", async () => {
    const { points, secrets, public: open } = await walletOf(15, 15);
    expect(open.keys).toHaveLength(15);
    expect(spend(15, points, secrets).isFinal).toBe(true);
    expect(() => spend(15, points, secrets.slice(1))).toThrow();
  });

  test("another key of the ceremony and another ceremony make other wallets", async () => {
    const other = KEY.slice();
    other[0] = 1;
    const run = { ceremonyId, joins: joinsOf(2) };
    const elsewhere = { ceremonyId: hashId<CeremonyId>(new Uint8Array(32)), joins: joinsOf(2) };
    const descriptors = [
      (await makeOutput(wallet(1), KEY, run)).public.descriptor,
      (await makeOutput(wallet(1), other, run)).public.descriptor,
      (await makeOutput(wallet(1), KEY, elsewhere)).public.descriptor,
      (await makeOutput(wallet(2), KEY, run)).public.descriptor,
    ];
    expect(new Set(descriptors).size).toBe(4);
  });

  test("two participants with one point still get two keys", async () => {
    const share = getPublicKey(scalarOf(1), true);
    const joins = [1, 2].map((index) => ({ join: { index, share } }));
    const { public: open } = await makeOutput(wallet(2), KEY, { ceremonyId, joins });
    expect(open.keys[0]?.publicKey).not.toEqual(open.keys[1]?.publicKey);
  });

  test("a share that is no point, or cancels the ceremony's, is refused", async () => {
    const { parts } = await walletOf(1, 2);
    const cancelling = Point.BASE.multiply(ORDER - big(parts[0]?.secret ?? new Uint8Array())).toBytes(true);
    const bad: (Uint8Array | null)[] = [
      null,
      new Uint8Array(0),
      new Uint8Array(33),
      Uint8Array.of(0),
      getPublicKey(scalarOf(1), false),
      getPublicKey(scalarOf(1), true).slice(1),
      // an x that is on no point of the curve
      Uint8Array.fromHex(`02${"00".repeat(31)}05`),
      // an x that is not below the field's prime
      Uint8Array.fromHex(`02${"ff".repeat(32)}`),
      cancelling,
    ];
    const second = { join: { index: 2, share: getPublicKey(scalarOf(2), true) } };
    for (const share of bad) {
      const joins = [{ join: { index: 1, share } }, second];
      const refusal = await makeOutput(wallet(1), KEY, { ceremonyId, joins }).catch((error: unknown) => error);
      expect([share?.toHex(), refusal instanceof Fault && refusal.code]).toEqual([share?.toHex(), "bad_input"]);
    }
  });

  test("own scalar and part add up modulo the order, for all of them", () => {
    const scalar = fc.bigInt({ min: 1n, max: ORDER - 1n });
    const bytes = (n: bigint) => Uint8Array.fromHex(n.toString(16).padStart(64, "0"));
    fc.assert(
      fc.property(scalar, scalar, (a, h) => {
        fc.pre((a + h) % ORDER !== 0n);
        expect(big(walletKeyOf(bytes(a), bytes(h)))).toBe((a + h) % ORDER);
      }),
    );
    expect(big(walletKeyOf(bytes(ORDER - 1n), bytes(2n)))).toBe(1n);
    expect(() => walletKeyOf(bytes(ORDER - 1n), bytes(1n))).toThrow(Fault);
    for (const bad of [bytes(0n), bytes(ORDER), new Uint8Array(31).fill(1), new Uint8Array(33).fill(1)]) {
      expect(() => walletKeyOf(bad, bytes(1n))).toThrow(Fault);
      expect(() => walletKeyOf(bytes(1n), bad)).toThrow(Fault);
    }
    expect(utils.isValidSecretKey(walletKeyOf(bytes(1n), bytes(1n)))).toBe(true);
  });
});

describe("output descriptors", () => {
  test("the checksum of BIP-380's examples", () => {
    expect(descriptorChecksum("raw(deadbeef)")).toBe("89f8spxm");
    // an error in the text gives another one
    expect(descriptorChecksum("raw(deedbeef)")).not.toBe("89f8spxm");
    expect(() => descriptorChecksum("raw(Ü)")).toThrow(Fault);
  });

  test("every single change of a character changes the checksum", () => {
    const [text, checksum] = DESCRIPTOR.split("#") as [string, string];
    for (let at = 0; at < text.length; at++) {
      const other = text[at] === "0" ? "1" : "0";
      expect(descriptorChecksum(`${text.slice(0, at)}${other}${text.slice(at + 1)}`)).not.toBe(checksum);
    }
  });

  test("no keys, too many, one twice, and thresholds out of bounds are refused", () => {
    const points = Array.from({ length: 16 }, (_, i) => getPublicKey(scalarOf(i + 1), true));
    const [one, two] = points as [Uint8Array, Uint8Array];
    expect(walletDescriptor(1, [one])).toMatch(/^wsh\(sortedmulti\(1,[0-9a-f]{66}\)\)#[a-z0-9]{8}$/);
    expect(() => walletDescriptor(1, [])).toThrow(Fault);
    expect(() => walletDescriptor(1, points)).toThrow(Fault);
    expect(() => walletDescriptor(1, [one, one])).toThrow(Fault);
    for (const threshold of [0, 3, 1.5, -1]) expect(() => walletDescriptor(threshold, [one, two])).toThrow(Fault);
    expect(() => walletDescriptor(1, [one, new Uint8Array(33)])).toThrow(Fault);
    expect(() => walletDescriptor(1, [getPublicKey(scalarOf(1), false)])).toThrow(Fault);
  });
});
