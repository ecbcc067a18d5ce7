import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createPublicKey, verify } from "node:crypto";
import { writeFileSync } from "node:fs";
import { p256 } from "@noble/curves/nist.js";
import { schnorr, secp256k1 } from "@noble/curves/secp256k1.js";
import { p2tr, p2wpkh } from "@scure/btc-signer/payment.js";
import { Transaction } from "@scure/btc-signer/transaction.js";
import { TEST_NETWORK } from "@scure/btc-signer/utils.js";
import { Transaction as EvmTransaction } from "micro-eth-signer";
import { BOB, evmPayment, psbtOf } from "../support/transactions.ts";
import vectors from "../vectors/addresses.json" with { type: "json" };
import {
  asked,
  balances,
  FEES,
  forKey,
  fulfilled,
  INDICES,
  type Keyrings,
  keysAtServers,
  keysOf,
  openKeyrings,
  type ShownKey,
  START_CREDITS,
  shown,
  sumOf,
  treasury,
} from "./keyringfleet.ts";
import { SETUP_MS } from "./world.ts";

/** Two owners, three parties, all in processes of their own: what they make is used with other people's libraries. */

setDefaultTimeout(60_000);

let all: Keyrings;
beforeAll(async () => {
  all = await openKeyrings();
}, SETUP_MS);
afterAll(() => all?.close());

const REGTEST = { ...TEST_NETWORK, bech32: "bcrt" };
const TYPES = ["secp256k1", "schnorr", "ed25519", "p256"] as const;
const keys = new Map<string, ShownKey>();
const keyOf = (type: (typeof TYPES)[number]): ShownKey => {
  const key = keys.get(type);
  if (!key) throw new Error(`there is no key of type ${type}`);
  return key;
};
const bytesOf = (type: (typeof TYPES)[number]) => Uint8Array.fromHex(keyOf(type).publicKeyHex);
const xOf = (publicKey: Uint8Array) => publicKey.slice(-32);

const addressOf = async (argv: readonly string[]): Promise<string> =>
  (await all.ann.ok(["key", "address", ...argv])).data.address;

describe("a key request of two owners who must both agree", () => {
  test.each(TYPES)("%s: waits for the other owner, then the parties make it, and all confirm it", async (type) => {
    const before = await treasury(all);
    const id = await asked(all.ann, forKey(type));
    expect(await treasury(all)).toEqual({ balance: before.balance - FEES.key, escrowed: FEES.key });
    expect(await shown(all.ann, id)).toMatchObject({ kind: "key", status: "pending", approved: false, fee: FEES.key });
    // the requester is not asked, and the other owner is
    expect((await all.ann.ok(["workspace", "inbox"])).data.items).toEqual([]);
    expect((await all.ben.ok(["workspace", "inbox"])).data.items).toMatchObject([{ requestId: id }]);
    await all.ben.ok(["approval", "approve", id.slice(0, 10), "--yes"]);
    const { data } = await all.ann.ok(["request", "watch", id.slice(0, 10)]);
    expect(data).toMatchObject({ requestId: id, status: "fulfilled", why: "" });
    const [key, ...more] = await keysOf(all, type);
    if (!key) throw new Error("no key is shown");
    expect(more).toEqual([]);
    expect(data.items).toMatchObject([{ keyId: key.keyId, publicKeyHex: key.publicKeyHex }]);
    expect(key).toMatchObject({ type, shown: "delegated" });
    expect(key.confirmedBy.length).toBeGreaterThanOrEqual(2);
    for (const atServer of keysAtServers(all)) expect(atServer).toContain(key.keyId);
    keys.set(type, key);
    expect(await treasury(all)).toEqual({ balance: before.balance - FEES.key, escrowed: 0 });
  });

  test("of a fee of ten each of three parties has three, and one goes to the first", async () => {
    const all4 = TYPES.length * FEES.key;
    const now = await balances(all);
    const earned = ["north", "east", "south"].map((name) => now.get(`party:${all.keyringId}:${name}`));
    expect(earned).toEqual([16, 12, 12]);
    expect(sumOf(earned.map(Number))).toBe(all4);
    expect(now.get(`workspace:${all.workspaceId}`)).toBe(START_CREDITS - all4);
    expect(sumOf(now.values())).toBe(0);
  });
});

/** What each type can be paid to: the kinds of the shared vectors, and every network. */
const KINDS = {
  secp256k1: [
    ["evm"],
    ["btc-p2wpkh"],
    ["btc-p2wpkh", "--network", "testnet"],
    ["btc-p2wpkh", "--network", "signet"],
    ["btc-p2wpkh", "--network", "regtest"],
    ["cosmos"],
    ["cosmos", "--prefix", "zen"],
    ["zcash-p2pkh"],
    ["zcash-p2pkh", "--network", "testnet"],
  ],
  schnorr: [
    ["btc-p2tr"],
    ["btc-p2tr", "--network", "testnet"],
    ["btc-p2tr", "--network", "signet"],
    ["btc-p2tr", "--network", "regtest"],
  ],
  ed25519: [["solana"]],
} as const;

/** Of one string of an address what does not depend on the key: prefix and length. */
const formOf = (address: string) => /^(0x|(?:bc|tb|bcrt)1[pq]|cosmos1|zen1|t1|tm)/.exec(address)?.[0] ?? "base58";

describe("addresses", () => {
  for (const [type, kinds] of Object.entries(KINDS)) {
    for (const as of kinds) {
      test(`${type} as ${as.join(" ")}: that of the public key alone`, async () => {
        const { keyId, publicKeyHex } = keyOf(type as keyof typeof KINDS);
        const own = await addressOf([keyId.slice(0, 12), "--as", ...as]);
        const flag = type === "schnorr" ? ["--output-key", xOf(bytesOf("schnorr")).toHex()] : undefined;
        expect(await addressOf([...(flag ?? ["--public-key", publicKeyHex]), "--as", ...as])).toBe(own);
        const [kind, option, value] = as;
        const network = option === "--network" ? value : "mainnet";
        const like = vectors.vectors.find(
          (one) =>
            one.type === kind &&
            (one.network ?? "mainnet") === network &&
            (option !== "--prefix" || one.prefix === value),
        );
        if (like)
          expect([formOf(own), Math.abs(own.length - like.address.length) <= 1]).toEqual([formOf(like.address), true]);
      });
    }
  }

  test("a schnorr key is the output's own: never tweaked, as btc-signer has it", async () => {
    const own = await addressOf([keyOf("schnorr").keyId.slice(0, 12), "--as", "btc-p2tr", "--network", "regtest"]);
    const internal = ["--public-key", xOf(bytesOf("schnorr")).toHex(), "--as", "btc-p2tr", "--network", "regtest"];
    const tweaked = p2tr(xOf(bytesOf("schnorr")), undefined, REGTEST);
    expect(await addressOf(internal)).toBe(tweaked.address ?? "");
    expect(own).not.toBe(tweaked.address ?? "");
    const script = Uint8Array.of(0x51, 0x20, ...xOf(bytesOf("schnorr")));
    const paid = new Transaction({ allowUnknownOutputs: true });
    paid.addOutputAddress(own, 1n, REGTEST);
    expect(paid.getOutput(0).script).toEqual(script);
  });

  test("of a kind that the type has not are refused", async () => {
    for (const [type, as] of [
      ["ed25519", "evm"],
      ["schnorr", "evm"],
      ["secp256k1", "solana"],
      ["p256", "btc-p2wpkh"],
    ] as const) {
      const failed = await all.ann.fails(2, ["key", "address", keyOf(type).keyId.slice(0, 12), "--as", as]);
      expect([type, failed.code]).toEqual([type, "bad_input"]);
    }
  });
});

const b64url = (bytes: Uint8Array) => bytes.toBase64({ alphabet: "base64url", omitPadding: true });

/** By node's own crypto where it knows the curve, else by noble. */
function holds(type: (typeof TYPES)[number], message: Uint8Array, signature: Uint8Array): boolean {
  const point = bytesOf(type);
  switch (type) {
    case "ed25519": {
      const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: b64url(point) }, format: "jwk" });
      return verify(null, message, key, signature);
    }
    case "p256": {
      const whole = p256.Point.fromHex(point.toHex()).toBytes(false);
      const jwk = { kty: "EC", crv: "P-256", x: b64url(whole.slice(1, 33)), y: b64url(whole.slice(33)) };
      const key = createPublicKey({ key: jwk, format: "jwk" });
      return verify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature);
    }
    case "schnorr":
      return schnorr.verify(signature, message, xOf(point));
    case "secp256k1":
      return secp256k1.verify(signature, message, point);
  }
}

const signatureOf = (item: { signatureHex: string | null } | undefined) => Uint8Array.fromHex(item?.signatureHex ?? "");

interface Line {
  readonly kind: string;
  readonly amount: number;
  readonly requestId: string | null;
}

describe("signatures", () => {
  test("of one message by four keys at once: a batch pays for each, and each holds", async () => {
    const message = new TextEncoder().encode("the harbour master gets three coins");
    const file = all.fleet.world.file("statement", message);
    const before = await treasury(all);
    const named = TYPES.flatMap((type) => ["--key", keyOf(type).keyId]);
    const done = await fulfilled(all, ["signature", ...named, "--message-file", file]);
    expect(done).toMatchObject({ kind: "signature", status: "fulfilled", fee: TYPES.length * FEES.signature });
    for (const [i, type] of TYPES.entries()) {
      const signature = signatureOf(done.items[i]);
      expect([type, holds(type, message, signature)]).toEqual([type, true]);
      expect([type, holds(type, Uint8Array.of(...message, 33), signature)]).toEqual([type, false]);
    }
    expect(await treasury(all)).toEqual({ balance: before.balance - 4 * FEES.signature, escrowed: 0 });
    expect(sumOf((await balances(all)).values())).toBe(0);
    // shares of the ecdsa keys left the servers: for good; the others' did not
    const marks = new Map((await keysOf(all)).map((key) => [key.type, key.shown]));
    expect(TYPES.map((type) => marks.get(type))).toEqual(["released", "delegated", "delegated", "released"]);
  });

  test("a digest is signed as it is, and Ed25519 signs none", async () => {
    const digest = new Bun.CryptoHasher("sha256").update("terms").digest();
    const hex = digest.toString("hex");
    const done = await fulfilled(all, ["signature", "--key", keyOf("schnorr").keyId, "--digest", hex]);
    expect(schnorr.verify(signatureOf(done.items[0]), new Uint8Array(digest), xOf(bytesOf("schnorr")))).toBe(true);
    const wrong = ["signature", "--key", keyOf("ed25519").keyId, "--digest", hex, "--yes"];
    const failed = await all.ann.fails(2, ["request", ...wrong]);
    expect(failed.code).toBe("bad_input");
  });

  test("two taproot inputs of a PSBT of regtest, signed together and finished by btc-signer", async () => {
    const script = Uint8Array.of(0x51, 0x20, ...xOf(bytesOf("schnorr")));
    const to = p2wpkh(bytesOf("secp256k1"), REGTEST);
    const psbt = psbtOf({
      inputs: [
        { script, amount: 100_000n },
        { script, amount: 50_000n },
      ],
      outputs: [
        { script: to.script, amount: 120_000n },
        { script, amount: 29_000n },
      ],
    });
    const file = all.fleet.world.file("spend.psbt", psbt.toPSBT());
    const { keyId } = keyOf("schnorr");
    const id = await asked(all.ann, ["signature", "--key", keyId, "--key", keyId, "--psbt-file", file]);
    // what leaves the key: 120,000 and the fee of 1,000; change is no amount
    const seen = (await all.ben.ok(["approval", "show", id.slice(0, 16)])).data;
    for (const { facts } of seen.items) expect(facts.amount).toEqual({ unit: "sat", value: "121000" });
    await all.ben.ok(["approval", "approve", id.slice(0, 16), "--yes"]);
    const done = (await all.ann.ok(["request", "watch", id.slice(0, 16)])).data;
    expect(done.items).toHaveLength(2);
    for (const input of [0, 1]) {
      const sighash = psbt.preimageWitnessV1(input, [script, script], 0, [100_000n, 50_000n]);
      const signature = signatureOf(done.items[input]);
      expect(schnorr.verify(signature, sighash, xOf(bytesOf("schnorr")))).toBe(true);
      psbt.updateInput(input, { tapKeySig: signature }, true);
    }
    psbt.finalize();
    expect(psbt.isFinal).toBe(true);
    expect(psbt.fee).toBe(1_000n);
    expect(Transaction.fromRaw(psbt.extract(), { disableScriptCheck: true }).id).toBe(psbt.id);
  });

  test("a taproot and a witness input of different keys in one request", async () => {
    const scripts = [
      Uint8Array.of(0x51, 0x20, ...xOf(bytesOf("schnorr"))),
      p2wpkh(bytesOf("secp256k1"), REGTEST).script,
    ] as const;
    const amounts = [70_000n, 30_000n] as const;
    const psbt = psbtOf({
      inputs: scripts.map((script, i) => ({ script, amount: amounts[i] ?? 0n })),
      outputs: [{ script: scripts[1], amount: 99_000n }],
    });
    const file = all.fleet.world.file("mixed.psbt", psbt.toPSBT());
    const named = ["--key", keyOf("schnorr").keyId, "--key", keyOf("secp256k1").keyId];
    const done = await fulfilled(all, ["signature", ...named, "--psbt-file", file]);
    psbt.updateInput(0, { tapKeySig: signatureOf(done.items[0]) }, true);
    const compact = signatureOf(done.items[1]);
    const der = derOf(compact);
    psbt.updateInput(1, { partialSig: [[bytesOf("secp256k1"), Uint8Array.of(...der, 1)]] }, true);
    psbt.finalize();
    expect(psbt.isFinal).toBe(true);
    const code = Uint8Array.of(0x76, 0xa9, 0x14, ...scripts[1].slice(2), 0x88, 0xac);
    const sighash = psbt.preimageWitnessV0(1, code, 1, amounts[1]);
    expect(secp256k1.verify(compact, sighash, bytesOf("secp256k1"), { prehash: false })).toBe(true);
  });

  test("an EVM transaction, whose sender micro-eth-signer recovers", async () => {
    const { keyId } = keyOf("secp256k1");
    const tx = evmPayment();
    const file = all.fleet.world.file("unsigned.hex");
    writeFileSync(file, tx.toHex({ includeSignature: false }));
    const id = await asked(all.ann, ["signature", "--key", keyId, "--evm-file", file]);
    const seen = (await all.ben.ok(["approval", "show", id.slice(0, 16)])).data;
    const most = tx.raw.value + 21_000n * 2_000_000_000n;
    expect(seen.items[0].facts.amount).toEqual({ unit: "wei.1", value: `${most}` });
    expect(seen.items[0].facts.recipients).toEqual([BOB.toLowerCase()]);
    await all.ben.ok(["approval", "approve", id.slice(0, 16), "--yes"]);
    const done = (await all.ann.ok(["request", "watch", id.slice(0, 16)])).data;
    const signature = signatureOf(done.items[0]);
    const half = (from: number) => BigInt(`0x${signature.slice(from, from + 32).toHex()}`);
    const senders = [0, 1].map(
      (yParity) =>
        new EvmTransaction(tx.type, { ...tx.raw, r: half(0), s: half(32), yParity }, { strict: false }).sender,
    );
    expect(senders).toContain(await addressOf([keyId.slice(0, 12), "--as", "evm"]));
  });

  test("the ledger of the workspace tells each movement, and the parties have what it lost", async () => {
    const items = (await all.ann.ok(["workspace", "ledger", "treasury"])).data.items as Line[];
    const { balance, escrowed } = await treasury(all);
    const total = (kind: string) => sumOf(items.filter((one) => one.kind === kind).map(({ amount }) => amount));
    expect(total("credit")).toBe(START_CREDITS);
    expect(total("credit") + total("escrow") + total("refund")).toBe(balance);
    // what was held was paid, each fee once
    expect([escrowed, total("pay")]).toEqual([0, total("escrow")]);
    const paid = items.flatMap(({ kind, requestId }) => (kind === "pay" ? [requestId] : []));
    expect(new Set(paid).size).toBe(paid.length);
    const now = await balances(all);
    const earned = INDICES.map((i) => now.get(`party:${all.keyringId}:${["north", "east", "south"][i - 1]}`) ?? 0);
    expect(sumOf(earned)).toBe(START_CREDITS - balance);
    expect(sumOf(now.values())).toBe(0);
  });
});

/** DER of a compact signature (SEC 1, C.5). */
function derOf(compact: Uint8Array): Uint8Array {
  const integer = (bytes: Uint8Array) => {
    const lean = bytes.slice(bytes.findIndex((byte) => byte !== 0));
    const value = (lean[0] ?? 0) > 127 ? Uint8Array.of(0, ...lean) : lean;
    return [2, value.length, ...value];
  };
  const both = [...integer(compact.slice(0, 32)), ...integer(compact.slice(32))];
  return Uint8Array.of(0x30, both.length, ...both);
}
