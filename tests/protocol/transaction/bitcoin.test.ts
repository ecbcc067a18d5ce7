import { describe, expect, test } from "bun:test";
import { schnorr } from "@noble/curves/secp256k1.js";
import { Address, OutScript } from "@scure/btc-signer/payment.js";
import { RawTx } from "@scure/btc-signer/script.js";
import { Transaction } from "@scure/btc-signer/transaction.js";
import fc from "fast-check";
import { concat } from "../../../src/crypto/bytes.ts";
import { Fault } from "../../../src/errors.ts";
import { signEcdsa } from "../../../src/protocol/federation/ecdsa.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { readBitcoin } from "../../../src/protocol/transaction/bitcoin.ts";
import { signableOf, transactionFacts } from "../../../src/protocol/transaction/index.ts";
import { type Paid, psbtOf, type Spending, type TestKey, testKey } from "../../support/transactions.ts";
import bip341 from "../../vectors/bip341.json" with { type: "json" };

const hex = (text: string) => Uint8Array.fromHex(text);
const wallet = testKey("secp256k1", 7);
const vault = testKey("schnorr", 9);
const KEYS = [wallet, vault];
const stranger = testKey("secp256k1", 11).script;
const other = testKey("schnorr", 13).script;

const read = (key: Pick<TestKey, "type" | "publicKey"> | null, made: Transaction | Uint8Array, input = 0) =>
  readBitcoin(made instanceof Transaction ? made.toPSBT() : made, input, key);

function refusal(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault && error.code === "bad_input") return error.message;
    throw error;
  }
  return "nothing";
}

/** A PSBT of a raw transaction and of what its inputs spend. */
function around(raw: string, spent: readonly Paid[], sighashTypes: Readonly<Record<number, number>> = {}) {
  const { version, lockTime, inputs, outputs } = RawTx.decode(hex(raw));
  const made = new Transaction({
    version,
    lockTime,
    allowUnknownOutputs: true,
    allowUnknownInputs: true,
    disableScriptCheck: true,
  });
  for (const [at, { txid, index, sequence }] of inputs.entries()) {
    const witnessUtxo = spent[at];
    const sighashType = sighashTypes[at];
    made.addInput({
      txid,
      index,
      sequence,
      ...(witnessUtxo && { witnessUtxo }),
      ...(sighashType !== undefined && { sighashType }),
    });
  }
  for (const output of outputs) made.addOutput(output);
  return made;
}

describe("published vectors", () => {
  // BIP-143, "P2SH-P2WPKH": its sighash is that of the P2WPKH output of the same key
  const BIP143 =
    "0100000001db6b1b20aa0fd7b23880be2ecbd4a98130974cf4748fb66092ac4d3ceb1a54770100000000feffffff02b8b4eb0b000000001976a914a457b684d7f0d539a46a45bbc043f35b59d0d96388ac0008af2f000000001976a914fd270b1ee6abcaea97fea7ad0402e8bd8ad6d77c88ac92040000";

  test("BIP-143: the sighash and the facts of a P2WPKH input", () => {
    const script = hex("001479091972186c449eb1ded22b78e40d009bdf0089");
    const publicKey = hex("03ad1d8e89212f0b92c74d23bb710c00662ad1470198ac48c43f7d6f93a2a26873");
    const made = around(BIP143, [{ script, amount: 1_000_000_000n }]);
    const { sighash, facts } = read({ type: "secp256k1", publicKey }, made);
    expect(sighash.toHex()).toBe("64f3b0f4dd2bb3aa1ce8566d220cc74dda9df97d8490cc81d89d735c92e59fb6");
    expect(facts.amount).toEqual({ unit: "sat", value: "1000000000" });
    expect(facts.recipients).toHaveLength(2);
  });

  // BIP-143, "Native P2WPKH": two inputs, whose previous transactions the example does not give
  const TWO =
    "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffffef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb206000000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa815988ac11000000";

  test("BIP-143: two inputs without the transactions that they spend from are refused", () => {
    const script = hex("00141d0f172a0ecb48aee1be1f2687d2963ae33f71a1");
    const publicKey = hex("025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357");
    const first = hex("2103c9f4836b9a4f77fc0d81f7bcb01b7f1b35916864b9476c241ce9fc198bd25432ac");
    const made = around(TWO, [
      { script: first, amount: 625_000_000n },
      { script, amount: 600_000_000n },
    ]);
    expect(refusal(() => read({ type: "secp256k1", publicKey }, made, 1))).toContain("input 0 must bring the whole");
  });

  const spent = bip341.utxosSpent.map(({ scriptPubKey, amountSats }) => ({
    script: hex(scriptPubKey),
    amount: BigInt(amountSats),
  }));

  test.each(bip341.inputSpending)("BIP-341, input $txinIndex of sighash type $hashType", (vector) => {
    const { txinIndex, hashType, sigHash, witness } = vector;
    const x = spent[txinIndex]?.script.subarray(2) ?? new Uint8Array(0);
    const publicKey = concat(Uint8Array.of(2), x);
    const made = around(bip341.rawUnsignedTx, spent, { [txinIndex]: hashType });
    const whole = () => read({ type: "schnorr", publicKey }, made, txinIndex);
    if (hashType > 1) return expect(refusal(whole)).toContain("only whole transactions are signed");
    expect(whole().sighash.toHex()).toBe(sigHash);
    expect(schnorr.verify(hex(witness).subarray(0, 64), whole().sighash, x)).toBe(true);
  });
});

describe("what is signed", () => {
  /** Signs as the owner of the whole private key would, over what servers compute. */
  function sign(key: TestKey, made: Transaction, input: number): Uint8Array {
    const use = { ...key, form: "bitcoin", message: made.toPSBT(), input } as const;
    const { bytes, prehashed } = signableOf(use);
    expect(prehashed).toBe(true);
    const signature =
      key.type === "secp256k1"
        ? signEcdsa("secp256k1", key.scalar, bytes, prehashed).compact
        : schnorr.sign(bytes, key.scalar, new Uint8Array(32));
    expect(signatureHolds(key, bytes, signature, prehashed)).toBe(true);
    return signature;
  }

  test.each(KEYS.flatMap((key) => ([0, 2] as const).map((version) => [key.type, version, key] as const)))(
    "%s, PSBT of version %i: the foreign library signs the same, and finalizes it",
    (_type, version, key) => {
      const spending: Spending = {
        inputs: [
          { script: key.script, amount: 70_000n },
          { script: key.script, amount: 40_000n },
        ],
        outputs: [
          { script: stranger, amount: 60_000n },
          { script: key.script, amount: 49_000n },
        ],
        version,
      };
      const ours = psbtOf(spending);
      for (const input of [0, 1]) {
        const signature = sign(key, ours, input);
        if (key.type === "schnorr") ours.updateInput(input, { tapKeySig: signature }, true);
        else {
          const der = concat(
            signEcdsa(
              "secp256k1",
              key.scalar,
              signableOf({ ...key, form: "bitcoin", message: psbtOf(spending).toPSBT(), input }).bytes,
              true,
            ).der,
            Uint8Array.of(1),
          );
          ours.updateInput(input, { partialSig: [[key.publicKey, der]] }, true);
        }
      }
      const theirs = psbtOf(spending);
      if (key.type === "secp256k1") {
        theirs.sign(key.scalar);
        theirs.finalize();
        ours.finalize();
        expect(ours.extract().toHex()).toBe(theirs.extract().toHex());
      } else {
        ours.finalize();
        const final = Transaction.fromRaw(ours.extract(), { allowUnknownOutputs: true, disableScriptCheck: true });
        const scripts = spending.inputs.map(({ script }) => script);
        const amounts = spending.inputs.map(({ amount }) => amount);
        for (const input of [0, 1]) {
          const [witness] = final.getInput(input).finalScriptWitness ?? [];
          const digest = final.preimageWitnessV1(input, scripts, 0, amounts);
          expect(schnorr.verify(witness ?? new Uint8Array(0), digest, key.publicKey.subarray(1))).toBe(true);
        }
      }
    },
  );

  test("a change of anything that moves money changes the hash", () => {
    const base: Spending = {
      inputs: [{ script: wallet.script, amount: 9_000n }],
      outputs: [{ script: stranger, amount: 5_000n }],
    };
    const hash = (over: Partial<Spending>, key = wallet) => read(key, psbtOf({ ...base, ...over })).sighash.toHex();
    const all = [
      hash({}),
      hash({ outputs: [{ script: stranger, amount: 5_001n }] }),
      hash({ outputs: [{ script: other, amount: 5_000n }] }),
      hash({ outputs: [...base.outputs, { script: other, amount: 1n }] }),
      hash({ inputs: [{ script: wallet.script, amount: 9_001n }] }),
      hash({ inputs: [{ script: wallet.script, amount: 9_000n, tag: 8 }] }),
    ];
    expect(new Set(all).size).toBe(all.length);
    // and the version of the envelope does not
    expect(hash({ version: 2 })).toBe(hash({}));
    expect(hash({ inputs: [{ script: wallet.script, amount: 9_000n, sighashType: 1 }] })).toBe(hash({}));
  });
});

describe("what it does", () => {
  test("recipients, change and fee", () => {
    const spending: Spending = {
      inputs: [
        { script: wallet.script, amount: 100_000n },
        { script: other, amount: 50_000n },
      ],
      outputs: [
        { script: stranger, amount: 60_000n },
        { script: wallet.script, amount: 30_000n },
        { script: stranger, amount: 10_000n },
        { script: hex("6a026869"), amount: 0n },
      ],
    };
    const address = Address().encode(OutScript.decode(stranger));
    expect(read(wallet, psbtOf(spending)).facts).toEqual({
      amount: { unit: "sat", value: "70000" },
      recipients: [address, "script:6a026869"],
      lines: [
        { label: "transaction", value: "Bitcoin, input 0 of 2" },
        { label: "spends of the key", value: "100000 sat (0.001 BTC)" },
        { label: "spends of others", value: "50000 sat (0.0005 BTC)" },
        { label: "pays to", value: `${address}: 60000 sat (0.0006 BTC)` },
        { label: "pays to", value: `${address}: 10000 sat (0.0001 BTC)` },
        { label: "pays to", value: "script:6a026869: 0 sat (0 BTC)" },
        { label: "back to the key", value: "30000 sat (0.0003 BTC)" },
        { label: "fee", value: "50000 sat (0.0005 BTC)" },
        { label: "leaves the key", value: "70000 sat (0.0007 BTC)" },
      ],
    });
    expect(read(null, psbtOf(spending)).facts).toEqual(read(wallet, psbtOf(spending)).facts);
  });

  test("all that leaves is what all own inputs spend and nothing brings back, for whichever input it is asked", () => {
    const amount = fc.bigInt({ min: 0n, max: 10n ** 12n });
    const place = fc.record({ own: fc.boolean(), amount });
    const places = fc.array(place, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(fc.constantFrom(...KEYS), places, places, (key, inputs, outputs) => {
        const placed = ({ own, amount: sats }: { own: boolean; amount: bigint }, at: number) => ({
          script: own ? key.script : stranger,
          amount: sats,
          tag: at + 1,
        });
        const first = { script: key.script, amount: 1n, tag: 99 };
        const spending = { inputs: [first, ...inputs.map(placed)], outputs: outputs.map(placed) };
        const sum = (list: readonly Paid[], own: boolean) =>
          list.filter(({ script }) => (script === key.script) === own).reduce((all, one) => all + one.amount, 0n);
        const [taken, back] = [sum(spending.inputs, true), sum(spending.outputs, true)];
        const fee = taken + sum(spending.inputs, false) - back - sum(spending.outputs, false);
        const made = psbtOf(spending);
        if (fee < 0n) return expect(refusal(() => read(key, made))).toContain("pays more than it spends");
        const { facts } = read(key, made);
        expect(facts.amount?.value).toBe(String(taken > back ? taken - back : 0n));
        expect(facts.recipients).toHaveLength(spending.outputs.some(({ script }) => script === stranger) ? 1 : 0);
        expect(facts.lines).toContainEqual({ label: "fee", value: expect.stringContaining(`${fee} sat`) as never });
      }),
      { numRuns: 60 },
    );
  });
});

describe("what is refused", () => {
  const one = (over: Partial<Spending> = {}, key: TestKey = wallet) =>
    psbtOf({
      inputs: [{ script: key.script, amount: 9_000n }],
      outputs: [{ script: stranger, amount: 5_000n }],
      ...over,
    });
  const why = (made: Transaction | Uint8Array, key: TestKey = wallet, input = 0) =>
    refusal(() => read(key, made, input));

  test.each([
    ["SIGHASH_NONE", 2],
    ["SIGHASH_SINGLE", 3],
    ["SIGHASH_ALL | ANYONECANPAY", 0x81],
    ["SIGHASH_NONE | ANYONECANPAY", 0x82],
    ["SIGHASH_SINGLE | ANYONECANPAY", 0x83],
  ])("%s of either key", (_name, sighashType) => {
    for (const key of KEYS) {
      const made = one({ inputs: [{ script: key.script, amount: 9_000n, sighashType }] });
      expect(why(made, key)).toContain("only whole transactions are signed");
    }
  });

  test("SIGHASH_DEFAULT where it is none; SIGHASH_ALL of Taproot is another hash", () => {
    const typed = (key: TestKey, sighashType: number) =>
      one({ inputs: [{ script: key.script, amount: 9_000n, sighashType }] });
    expect(why(typed(wallet, 0))).toContain("only whole transactions are signed");
    const all = read(vault, typed(vault, 1)).sighash;
    const plain = read(vault, typed(vault, 0)).sighash;
    expect(all).not.toEqual(plain);
    expect(read(vault, one({}, vault)).sighash).toEqual(plain);
  });

  test("another key's input, the same key's in another kind of output, and a tweaked key", () => {
    expect(why(one({ inputs: [{ script: stranger, amount: 9_000n }] }))).toContain("does not belong to this key");
    const hash = wallet.script.subarray(2);
    for (const script of [
      OutScript.encode({ type: "pkh", hash }),
      OutScript.encode({ type: "sh", hash }),
      OutScript.encode({ type: "wsh", hash: new Uint8Array(32) }),
    ]) {
      const made = one({ inputs: [{ script, amount: 9_000n }] });
      expect(why(made)).toContain("does not belong to this key");
      expect(refusal(() => read(null, made))).toContain("neither P2WPKH nor P2TR");
    }
    expect(why(one({ inputs: [{ script: vault.script, amount: 9_000n }] }), testKey("schnorr", 10))).toContain(
      "does not belong to this key (P2TR of this output key)",
    );
    // the x coordinate is the output key: whatever internal key the PSBT claims
    const made = one({}, vault);
    made.updateInput(0, { tapInternalKey: vault.publicKey.subarray(1) }, true);
    expect(read(vault, made).sighash).toEqual(read(vault, one({}, vault)).sighash);
  });

  test("an amount that the previous transaction does not have", () => {
    // two requests, each of which lies about the other input, would together hide a fee
    const lie = (at: number) => {
      const made = psbtOf({
        inputs: [
          { script: wallet.script, amount: 50_000n },
          { script: wallet.script, amount: 60_000n },
        ],
        outputs: [{ script: stranger, amount: 10_000n }],
      });
      const input = made.getInput(at);
      delete (input as { nonWitnessUtxo?: unknown }).nonWitnessUtxo;
      return psbtOf({
        inputs: [0, 1].map((place) => ({
          script: wallet.script,
          amount: place === at ? 10_000n : 50_000n,
          bare: place === at,
        })),
        outputs: [{ script: stranger, amount: 10_000n }],
      });
    };
    expect(why(lie(1))).toContain("input 1 must bring the whole transaction");
    expect(why(lie(0), wallet, 1)).toContain("input 0 must bring the whole transaction");
    expect(why(lie(0))).toContain("input 0 must bring the whole transaction");
    // one input alone is covered by its own signature, and so is everything under Taproot
    expect(why(one({ inputs: [{ script: wallet.script, amount: 9_000n, bare: true }] }))).toBe("nothing");
    const taproot = { script: vault.script, amount: 9_000n, bare: true };
    expect(why(one({ inputs: [taproot, { ...taproot, tag: 5 }] }), vault)).toBe("nothing");
  });

  /** Exchanges bytes of a PSBT, the same number, everywhere. */
  function exchanged(made: Transaction, from: Uint8Array, to: Uint8Array): Uint8Array {
    const text = made.toPSBT().toHex();
    expect(text).toContain(from.toHex());
    return hex(text.replaceAll(from.toHex(), to.toHex()));
  }

  test("a previous transaction of another id, or that differs from the claimed output", () => {
    const made = psbtOf({
      inputs: [
        { script: wallet.script, amount: 0x1234_5678n },
        { script: wallet.script, amount: 0x2234_5678n },
      ],
      outputs: [{ script: stranger, amount: 1n }],
    });
    const [amount, more] = [0x1234_5678n, 0x1234_5679n].map((n) => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, n, true);
      return bytes;
    });
    // in witness UTXO and previous transaction alike: then the id is another
    const lie = exchanged(made, amount ?? new Uint8Array(8), more ?? new Uint8Array(8));
    expect(why(lie)).toContain("bring a transaction that it does not spend from");
    const half = made.toPSBT().toHex();
    const at = half.lastIndexOf((amount ?? new Uint8Array(8)).toHex());
    const one = half.slice(0, at) + (more ?? new Uint8Array(8)).toHex() + half.slice(at + 16);
    expect(why(hex(one))).toContain("bring a transaction that it does not spend from");
  });

  test("an input that says nothing of what it spends, one that is not there, one that is signed", () => {
    const bare = new Transaction();
    bare.addInput({ txid: new Uint8Array(32).fill(1), index: 0 });
    bare.addOutput({ script: stranger, amount: 1n });
    expect(why(bare)).toContain("does not say what its input 0 spends");
    for (const input of [1, -1, 0.5, Number.NaN, 0xffff])
      expect(why(one(), wallet, input)).toContain("it has no input");
    const signed = one();
    signed.sign(wallet.scalar);
    signed.finalize();
    expect(why(signed)).toContain("input 0 is signed");
  });

  test("a transaction that pays nobody, more than it spends, more than there is, or twice", () => {
    expect(why(one({ outputs: [] }))).toContain("pays nobody");
    expect(why(one({ outputs: [{ script: stranger, amount: 9_001n }] }))).toContain("more than it spends");
    const rich = { script: wallet.script, amount: 21n * 10n ** 14n + 1n, bare: true };
    expect(why(one({ inputs: [rich] }))).toContain("more than there is");
    const same = { script: wallet.script, amount: 9_000n, tag: 3 };
    expect(why(one({ inputs: [same, same] }))).toContain("spends something twice");
  });

  test("more than fits", () => {
    const outputs = Array.from({ length: 257 }, () => ({ script: stranger, amount: 1n }));
    expect(why(one({ outputs }))).toContain("at most 256 inputs and 256 outputs");
    const inputs = Array.from({ length: 257 }, (_, tag) => ({ script: vault.script, amount: 90n, bare: true, tag }));
    expect(why(one({ inputs: inputs.map((input) => ({ ...input, tag: input.tag + 1 })) }), vault)).toContain(
      "at most 256",
    );
    expect(why(new Uint8Array(65_537))).toContain("at most 65536 bytes");
  });

  const none = "these bytes are no PSBT";
  test.each([0, 2] as const)("bytes of version %i that are more, fewer or doubled", (version) => {
    const psbt = one({ version }).toPSBT();
    expect(why(psbt)).toBe("nothing");
    expect(why(concat(psbt, Uint8Array.of(0)))).toContain(none);
    expect(why(concat(psbt, Uint8Array.of(1)))).toContain(none);
    expect(why(concat(psbt, psbt))).toContain(none);
    for (let length = 0; length < psbt.length; length += 1) expect(why(psbt.subarray(0, length))).toContain(none);
    // the first field of the global map, once more
    const field = psbt.subarray(5, 5 + 1 + (psbt[5] ?? 0) + 1 + (psbt[5 + 1 + (psbt[5] ?? 0)] ?? 0));
    expect(why(concat(psbt.subarray(0, 5), field, psbt.subarray(5)))).toContain(none);
  });

  test("a raw transaction, a message, nothing", () => {
    const raw = one().unsignedTx;
    for (const bytes of [raw, new TextEncoder().encode("cHNidP8="), new Uint8Array(0)])
      expect(why(bytes)).toContain(none);
  });

  test("anything else: a fault, or a transaction whose facts are those of its bytes", () => {
    const psbts = [one().toPSBT(), one({ version: 2 }).toPSBT(), one({}, vault).toPSBT()];
    const mutated = fc
      .tuple(fc.constantFrom(...psbts), fc.nat(600), fc.nat(255), fc.nat(2))
      .map(([psbt, place, byte, cut]) => psbt.with(place % psbt.length, byte).subarray(0, psbt.length - cut));
    const arbitrary = fc.oneof(
      mutated,
      fc.uint8Array({ maxLength: 200 }).map((bytes) => concat(hex("70736274ff"), bytes)),
    );
    fc.assert(
      fc.property(arbitrary, fc.constantFrom(null, ...KEYS), fc.nat(2), (message, key, input) => {
        const use = { form: "bitcoin", message, input } as const;
        try {
          const facts = transactionFacts(use, key);
          expect(BigInt(facts?.amount?.value ?? -1)).toBeGreaterThanOrEqual(0n);
          if (key !== null) expect(signableOf({ ...key, ...use }).bytes).toHaveLength(32);
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
