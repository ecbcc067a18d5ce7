import { describe, expect, test } from "bun:test";
import { keccak_256 } from "@noble/hashes/sha3.js";
import fc from "fast-check";
import { addr, Transaction } from "micro-eth-signer";
import { RLP } from "micro-eth-signer/core/rlp.js";
import { concat } from "../../../src/crypto/bytes.ts";
import { Fault } from "../../../src/errors.ts";
import { signEcdsa } from "../../../src/protocol/federation/ecdsa.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { readEvm } from "../../../src/protocol/transaction/evm.ts";
import { signableOf, transactionFacts } from "../../../src/protocol/transaction/index.ts";
import { BOB, evmBytes, evmPayment, testKey, transferData } from "../../support/transactions.ts";

const hex = (text: string) => Uint8Array.fromHex(text);
const key = testKey("secp256k1", 0x46);
const use = (message: Uint8Array) => ({ ...key, form: "evm", input: 0, message }) as const;
const sighash = (message: Uint8Array) => signableOf(use(message)).bytes.toHex();

describe("published vectors", () => {
  // the example of EIP-155, and its signing data and hash
  const EIP155 = "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080";

  test("EIP-155: hash and signature", () => {
    const signable = signableOf(use(hex(EIP155)));
    expect(signable.prehashed).toBe(true);
    expect(signable.bytes.toHex()).toBe("daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
    const { compact } = signEcdsa("secp256k1", key.scalar, signable.bytes, true);
    expect(compact.toHex()).toBe(
      "28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276" +
        "67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83",
    );
  });

  test("EIP-2930: the signing hash that go-ethereum expects", () => {
    const message = evmBytes(
      Transaction.prepare(
        {
          type: "eip2930",
          chainId: 1n,
          nonce: 3n,
          to: addr.addChecksum("0xb94f5374fce5edbc8e2a8697c15331677e6ebf0b"),
          value: 10n,
          gasLimit: 25_000n,
          gasPrice: 1n,
          data: "0x5544",
          accessList: [],
        },
        false,
      ),
    );
    expect(sighash(message)).toBe("49b486f0ec0a60dfbbca2d30cb07c9e8ffb2a2ff41f29a1ab6737475f6ff69f3");
  });

  // ethereumjs, packages/tx/test/json/eip1559.json: signed by this key on chain 7822 (RFC 6979)
  test.each([
    [
      "02f870821e8e8203338301284d8301d97c828ae094000000000000000000000000000000000000aaaa8402933bc980c080a0d067f2167008c59219652f91cbf8788dbca5f771f6e91e2b7657e85b78b472e0a01d305af9fe81fdba43f0dfcd400ed24dcace0a7e30d4e85701dcaaf484cd079e",
      43_203_529n + 35_552n * 121_212n,
    ],
    [
      "02f86d821e8e778260918301a4d182f38594000000000000000000000000000000000000aaaa8403e6c7f380c001a0e38e239770801eb995498c821e55ac9c19ae09184bb27b34be105e02fe3b7615a067c64ca6bd6d9107e85fd581ab2e70a14b637eb36505bb40861ef9d6e800cab6",
      65_456_115n + 62_341n * 107_729n,
    ],
  ])("EIP-1559: %s", (signed, leaves) => {
    const scalar = hex("8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63");
    const transaction = Transaction.fromHex(signed);
    const message = evmBytes(transaction);
    const { compact } = signEcdsa("secp256k1", scalar, hex(sighash(message)), true);
    // the last two fields of the signed transaction
    expect(`a0${compact.subarray(0, 32).toHex()}a0${compact.subarray(32).toHex()}`).toBe(signed.slice(-132));
    expect(readEvm(message).facts.amount).toEqual({ unit: "wei.7822", value: String(leaves) });
  });
});

describe("what is signed", () => {
  const legacy = Transaction.prepare(
    { type: "legacy", chainId: 5n, nonce: 0n, to: BOB, value: 5n, gasLimit: 21_000n, gasPrice: 3n, data: "0x" },
    false,
  );
  const listed = Transaction.prepare(
    {
      type: "eip2930",
      chainId: 10n,
      nonce: 1n,
      to: BOB,
      value: 9n,
      gasLimit: 30_000n,
      gasPrice: 2n,
      accessList: [{ address: BOB, storageKeys: [`0x${"01".repeat(32)}`] }],
    },
    false,
  );

  test.each([
    ["legacy with EIP-155", legacy],
    ["EIP-2930", listed],
    ["EIP-1559", evmPayment()],
  ])("%s: the foreign library recovers the sender of the signed transaction", (kind, transaction) => {
    const message = evmBytes(transaction);
    const { bytes, prehashed } = signableOf(use(message));
    const { compact } = signEcdsa("secp256k1", key.scalar, bytes, prehashed);
    expect(signatureHolds(key, bytes, compact, prehashed)).toBe(true);
    expect(signatureHolds(key, bytes, compact)).toBe(false);
    const [r, s] = [compact.subarray(0, 32), compact.subarray(32)].map((part) => BigInt(`0x${part.toHex()}`));
    const senders = [0, 1].map((yParity) => {
      const raw = { ...transaction.raw, r, s, yParity } as never;
      const signed = Transaction.fromBytes(new Transaction(transaction.type, raw, { strict: false }).toBytes());
      return signed.verifySignature() ? signed.sender : "";
    });
    expect(senders).toContain(addr.fromPublicKey(key.publicKey));
    expect(readEvm(message).facts.lines).toContainEqual({ label: "transaction", value: `EVM, ${kind}` });
  });

  test("the hash of the bytes, whatever they say", () => {
    const uint = (max: bigint) => fc.bigInt({ min: 0n, max });
    const arbitrary = fc.record({
      to: fc.uint8Array({ minLength: 20, maxLength: 20 }).map((bytes) => addr.addChecksum(bytes.toHex())),
      value: uint(2n ** 256n - 1n),
      data: fc.uint8Array({ maxLength: 100 }).map((bytes) => `0x${bytes.toHex()}`),
      chainId: fc.bigInt({ min: 1n, max: 2n ** 53n - 1n }),
      gasLimit: uint(2n ** 64n - 1n),
      nonce: uint(2n ** 64n - 2n),
    });
    fc.assert(
      fc.property(arbitrary, (fields) => {
        const message = evmBytes(evmPayment(fields));
        const { sighash: made, facts } = readEvm(message);
        expect(made).toEqual(keccak_256(message));
        const fee = fields.gasLimit * 2_000_000_000n;
        const pays = fields.data === "0x";
        const amount = pays ? { unit: `wei.${fields.chainId}`, value: String(fields.value + fee) } : null;
        expect([facts.amount, facts.recipients]).toEqual([amount, pays ? [fields.to] : []]);
        expect(facts.amount?.unit.length ?? 0).toBeLessThanOrEqual(64);
      }),
      { numRuns: 100 },
    );
  });
});

describe("what it does", () => {
  const TOKEN = addr.addChecksum("dac17f958d2ee523a2206206994597c13d831ec7");
  const facts = (over: Parameters<typeof evmPayment>[0]) => readEvm(evmBytes(evmPayment(over))).facts;
  const values = (over: Parameters<typeof evmPayment>[0]) => facts(over).lines.map(({ value }) => value);

  test("a payment: value and highest fee leave the key", () => {
    expect(facts({ value: 10n ** 18n })).toEqual({
      amount: { unit: "wei.1", value: "1000042000000000000" },
      recipients: [BOB],
      lines: [
        { label: "transaction", value: "EVM, EIP-1559" },
        { label: "chain", value: "1" },
        { label: "pays to", value: BOB },
        { label: "value", value: "1000000000000000000 wei (1 of the chain's coin)" },
        { label: "fee at most", value: "42000000000000 wei (0.000042 of the chain's coin)" },
        { label: "nonce", value: "7" },
      ],
    });
  });

  test("a fee that eats the account is part of the amount", () => {
    const greedy = facts({ value: 1n, gasLimit: 10n ** 9n });
    expect(greedy.amount?.value).toBe(String(1n + 10n ** 9n * 2n * 10n ** 9n));
  });

  test("an ERC-20 transfer: tokens and their recipient, the fee beside it", () => {
    const to = addr.addChecksum("00000000000000000000000000000000000000ff");
    const made = facts({ to: TOKEN, value: 0n, data: transferData(to, 2n ** 256n - 1n), chainId: 2n ** 53n - 1n });
    const unit = `erc20.${TOKEN.slice(2).toLowerCase()}.9007199254740991`;
    expect(made.amount).toEqual({ unit, value: String(2n ** 256n - 1n) });
    expect(unit).toHaveLength(63);
    expect(made.recipients).toEqual([to]);
    expect(made.lines.map(({ label }) => label)).toEqual([
      "transaction",
      "chain",
      "token",
      "pays to",
      "tokens",
      "fee at most",
      "nonce",
    ]);
  });

  const data = transferData(BOB, 5n);
  test.each([
    ["a transfer that pays coins too", { to: TOKEN, value: 1n, data }, "calls the contract"],
    ["a transfer with a byte more", { to: TOKEN, value: 0n, data: `${data}00` }, "calls the contract"],
    ["a transfer with a byte less", { to: TOKEN, value: 0n, data: data.slice(0, -2) }, "calls the contract"],
    [
      "a transfer whose address is longer than one",
      { to: TOKEN, value: 0n, data: `${data.slice(0, 32)}1${data.slice(33)}` },
      "calls the contract",
    ],
    ["an approval", { to: TOKEN, value: 0n, data: data.replace("a9059cbb", "095ea7b3") }, "calls the contract"],
    ["one byte of call data", { data: "0x00" }, "calls the contract"],
    ["a contract that is made", { to: "0x", value: 0n, data }, "makes a contract"],
    ["a contract of nothing", { to: "0x", value: 5n, data: "0x" }, "makes a contract"],
  ])("%s moves nobody knows what", (_what, over, label) => {
    const made = facts(over);
    expect([made.amount, made.recipients]).toEqual([null, []]);
    expect(made.lines.map((line) => line.label)).toContain(label);
    expect(values(over).join()).toContain("is not known");
  });

  test("long call data is cut where it is shown, and only there", () => {
    const long = `0x${"ab".repeat(5_000)}`;
    const shown = facts({ data: long }).lines.find(({ label }) => label === "call data");
    expect(shown?.value).toBe(`0x${"ab".repeat(512)}… (cut)`);
  });
});

describe("what is refused", () => {
  const refused = (message: Uint8Array): string => {
    try {
      signableOf(use(message));
    } catch (error) {
      if (error instanceof Fault && error.code === "bad_input") return error.message;
      throw error;
    }
    return "nothing";
  };
  const payment = evmBytes(evmPayment());
  const fields = RLP.decode(payment.subarray(1)) as Uint8Array[];
  const typed = (items: readonly (Uint8Array | Uint8Array[])[], type = 2) =>
    concat(Uint8Array.of(type), RLP.encode([...items]));
  const at = (index: number, field: Uint8Array) => typed(fields.with(index, field));
  const none = "these bytes are no Ethereum transaction";
  const word = Uint8Array.of(1);

  test("fields are where the tests believe them", () => {
    expect(typed(fields)).toEqual(payment);
    expect(fields).toHaveLength(9);
  });

  test.each([
    ["nothing", new Uint8Array(0), none],
    ["bytes behind it", concat(payment, Uint8Array.of(0)), none],
    ["a byte less", payment.subarray(0, -1), none],
    ["an unknown type", typed(fields, 5), none],
    ["type 0", typed(fields, 0), none],
    ["a field more", typed([...fields, word]), none],
    ["a field twice", typed([fields[0] ?? word, ...fields]), none],
    ["a field less", typed(fields.slice(0, -1)), none],
    ["a number with a zero in front", at(1, Uint8Array.of(0, 7)), none],
    ["a zero that is spelled out", at(1, Uint8Array.of(0)), none],
    ["a recipient of 19 bytes", at(5, new Uint8Array(19)), none],
    ["a recipient of 21 bytes", at(5, new Uint8Array(21)), none],
    ["a chain id of 0", at(0, new Uint8Array(0)), "chain ids are 1 to 2^53 - 1"],
    ["a chain id of 2^53", at(0, hex("20000000000000")), "chain ids are 1 to 2^53 - 1"],
    ["a tip above the fee", at(2, hex("ff".repeat(8))), none],
    ["a long spelling of a short length", concat(Uint8Array.of(2, 0xf8), payment.subarray(2)), none],
    ["more than 64 KiB", evmBytes(evmPayment({ data: `0x${"00".repeat(65_536)}` })), "has at most 65536 bytes"],
    ["RLP that is nested a thousand times", concat(Uint8Array.of(2), new Uint8Array(60_000).fill(0xc1)), none],
  ])("%s", (_what, message, why) => {
    expect(refused(message)).toContain(why);
  });

  test("a signed one", () => {
    const signed = evmPayment().signBy(key.scalar, false);
    expect(refused(signed.toBytes())).toContain("signed already");
  });

  test("a legacy one that counts on every chain, and a signed legacy one", () => {
    const plain = [...fields.slice(1, 2), word, word, ...fields.slice(5, 8)];
    expect(refused(RLP.encode(plain))).toContain("without chain id");
    const signed = RLP.encode([...plain, Uint8Array.of(37), hex("01".repeat(32)), hex("02".repeat(32))]);
    expect(refused(signed)).toContain("signed already");
    const zero = RLP.encode([...plain, new Uint8Array(0), new Uint8Array(0), new Uint8Array(0)]);
    expect(refused(zero)).not.toBe("nothing");
  });

  test("blobs and authorizations, which move more than they show", () => {
    const hash = hex(`01${"00".repeat(31)}`);
    const [chain = word, nonce = word, tip = word, fee = word, gas = word, to = word, value = word, data = word] =
      fields;
    const common = [chain, nonce, tip, fee, gas, to, value, data, []];
    expect(refused(typed([...common, word, [hash]], 3))).toContain("type eip4844");
    const authorization = [chain, to, nonce, word, hash, hash] as never;
    expect(refused(typed([...common, [authorization]], 4))).toContain("type eip7702");
  });

  test("another curve's key, and an input", () => {
    const message = payment;
    for (const type of ["ed25519", "schnorr", "p256", "bytes", "ristretto255"] as const) {
      expect(() => signableOf({ ...use(message), type })).toThrow(Fault);
    }
    expect(() => signableOf({ ...use(message), input: 1 })).toThrow("only Bitcoin transactions have inputs");
  });

  test("anything else: a fault, or a transaction that is signed as it stands", () => {
    const mutated = fc
      .tuple(fc.nat(payment.length - 1), fc.nat(255), fc.nat(3))
      .map(([place, byte, cut]) => payment.with(place, byte).subarray(0, payment.length - cut));
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), mutated), (message) => {
        try {
          expect(sighash(message)).toBe(keccak_256(message).toHex());
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
        }
        const facts = (() => {
          try {
            return transactionFacts({ form: "evm", message, input: 0 }, null);
          } catch (error) {
            return error;
          }
        })();
        expect(facts instanceof Error && !(facts instanceof Fault)).toBe(false);
      }),
      { numRuns: 2_000 },
    );
  });
});
