import { describe, expect, test } from "bun:test";
import { p256 } from "@noble/curves/nist.js";
import { schnorr } from "@noble/curves/secp256k1.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { Address, OutScript } from "@scure/btc-signer/payment.js";
import { NETWORK } from "@scure/btc-signer/utils.js";
import fc from "fast-check";
import { signerFromSeed } from "../../../src/crypto/identity.ts";
import { Fault } from "../../../src/errors.ts";
import { addressOf, NETWORKS } from "../../../src/formats/address.ts";
import { signEcdsa } from "../../../src/protocol/federation/ecdsa.ts";
import { FEDERATED_TYPES, SIGN_FORMS } from "../../../src/protocol/federation/kinds.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { isTransactionUnit } from "../../../src/protocol/transaction/facts.ts";
import {
  checkSignable,
  type SignInput,
  signableOf,
  transactionFacts,
} from "../../../src/protocol/transaction/index.ts";
import { recipientForm, scriptRecipient } from "../../../src/protocol/transaction/recipient.ts";
import { BOB, evmBytes, evmPayment, psbtOf, testKey } from "../../support/transactions.ts";

const wallet = testKey("secp256k1", 7);
const vault = testKey("schnorr", 9);
const curve = { type: "p256", scalar: wallet.scalar, publicKey: p256.getPublicKey(wallet.scalar, true) } as const;
const ed = { type: "ed25519", publicKey: signerFromSeed(wallet.scalar).publicKey } as const;
const digest = new Uint8Array(32).fill(3);
const use = (over: Partial<SignInput>): SignInput => ({
  ...wallet,
  form: "message",
  message: digest,
  input: 0,
  ...over,
});

const refusal = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof Fault && error.code === "bad_input") return error.message;
    throw error;
  }
  return "nothing";
};

describe("messages and digests", () => {
  test("a message is signed as before, by each type that signs", () => {
    for (const key of [wallet, vault, curve, ed]) {
      expect(signableOf(use({ ...key, message: new Uint8Array(5) }))).toEqual({
        bytes: new Uint8Array(5),
        prehashed: false,
      });
    }
    const { compact } = signEcdsa("secp256k1", wallet.scalar, new Uint8Array(5));
    expect(signatureHolds(wallet, new Uint8Array(5), compact)).toBe(true);
  });

  test("a digest is not hashed again: the signature over a message's SHA-256 is the message's", () => {
    const message = new TextEncoder().encode("pay 3 to Ada");
    for (const key of [wallet, curve]) {
      const { bytes, prehashed } = signableOf(use({ ...key, form: "digest", message: sha256(message) }));
      const made = signEcdsa(key.type as "p256", key.scalar, bytes, prehashed);
      expect(made).toEqual(signEcdsa(key.type as "p256", key.scalar, message));
      expect(signatureHolds(key, message, made.compact)).toBe(true);
      expect(signatureHolds(key, sha256(message), made.compact, true)).toBe(true);
      expect(signatureHolds(key, sha256(message), made.compact)).toBe(false);
      expect(signatureHolds(key, message, made.compact.with(40, (made.compact[40] ?? 0) ^ 1))).toBe(false);
      expect(signatureHolds(key, message, made.compact.subarray(1))).toBe(false);
    }
    const { bytes, prehashed } = signableOf(use({ ...vault, form: "digest" }));
    expect([bytes, prehashed]).toEqual([digest, true]);
    expect(signatureHolds(vault, bytes, schnorr.sign(bytes, vault.scalar))).toBe(true);
  });

  test("a digest of another length, or for Ed25519, is refused", () => {
    for (const length of [0, 20, 31, 33, 64]) {
      expect(refusal(() => signableOf(use({ form: "digest", message: new Uint8Array(length) })))).toContain("32 bytes");
    }
    expect(refusal(() => signableOf(use({ ...ed, form: "digest" })))).toContain("Ed25519 signs messages");
  });

  test("keys that do not sign sign nothing, in any form; only PSBTs have inputs", () => {
    for (const type of ["bytes", "ristretto255"] as const) {
      for (const form of SIGN_FORMS) expect(refusal(() => signableOf(use({ type, form })))).toContain("do not sign");
    }
    for (const form of ["message", "digest", "evm"] as const) {
      expect(refusal(() => signableOf(use({ form, input: 1 })))).toContain("only Bitcoin transactions have inputs");
    }
  });

  test("each form by each type: bytes, or a fault", () => {
    const psbts = [wallet, vault].map(({ script }) =>
      psbtOf({ inputs: [{ script, amount: 9n }], outputs: [{ script, amount: 8n }] }).toPSBT(),
    );
    const messages = [digest, new Uint8Array(0), evmBytes(evmPayment()), ...psbts];
    const keys = [wallet, vault, curve, ed, { type: "bytes", publicKey: digest }] as const;
    const signs: string[] = [];
    for (const key of keys) {
      for (const form of SIGN_FORMS) {
        for (const [at, message] of messages.entries()) {
          const why = refusal(() => signableOf(use({ ...key, form, message })));
          if (why === "nothing") signs.push(`${key.type} ${form} ${at}`);
        }
      }
    }
    const always = [wallet, vault, curve, ed].flatMap(({ type }) => messages.map((_, at) => `${type} message ${at}`));
    const digests = [wallet, vault, curve].map(({ type }) => `${type} digest 0`);
    const transactions = ["secp256k1 evm 2", "secp256k1 bitcoin 3", "schnorr bitcoin 4"];
    expect(signs.toSorted()).toEqual([...always, ...digests, ...transactions].toSorted());
    expect(FEDERATED_TYPES).toHaveLength(6);
  });
});

test("what was read before is read alike, and kept apart by key, form and input", () => {
  const { script } = wallet;
  const made = psbtOf({
    inputs: [
      { script, amount: 9n },
      { script, amount: 8n },
    ],
    outputs: [{ script, amount: 8n }],
  });
  const of = (input: number, over: Partial<SignInput> = {}) =>
    use({ form: "bitcoin", message: made.toPSBT(), input, ...over });
  const first = signableOf(of(0));
  const bytes = first.bytes.slice();
  first.bytes.fill(0);
  expect(signableOf(of(0)).bytes).toEqual(bytes);
  expect(signableOf(of(1)).bytes).not.toEqual(bytes);
  const { publicKey } = testKey("secp256k1", 8);
  for (const _ of [1, 2]) {
    expect(refusal(() => signableOf(of(0, { publicKey })))).toContain("does not belong to this key");
    expect(refusal(() => signableOf(of(2)))).toContain("it has no input 2");
    expect(refusal(() => signableOf(of(0, { form: "evm" })))).toContain("no Ethereum transaction");
  }
});

describe("a declared amount", () => {
  const evm = use({ form: "evm", message: evmBytes(evmPayment()) });
  const truth = transactionFacts(evm, wallet)?.amount ?? null;
  const unreadable = use({ form: "evm", message: evmBytes(evmPayment({ data: "0x00" })) });

  test("of a transaction is what the bytes say, or none", () => {
    expect(truth).toEqual({ unit: "wei.1", value: "1042000000000000" });
    expect(checkSignable({ ...evm, amount: null })).toEqual(signableOf(evm));
    expect(checkSignable({ ...evm, amount: truth })).toEqual(signableOf(evm));
    for (const lie of [
      { unit: "wei.1", value: "1" },
      { unit: "wei.2", value: truth?.value ?? "" },
      { unit: "EUR", value: "1" },
    ]) {
      expect(refusal(() => checkSignable({ ...evm, amount: lie }))).toContain(
        "not the transaction's: 1042000000000000",
      );
    }
    expect(refusal(() => checkSignable({ ...unreadable, amount: { unit: "wei.1", value: "0" } }))).toContain("none");
    expect(refusal(() => checkSignable({ ...unreadable, amount: null }))).toBe("nothing");
  });

  test("of a message or a digest is the requester's word", () => {
    for (const form of ["message", "digest"] as const) {
      const amount = { unit: "EUR", value: "5" };
      expect(checkSignable({ ...use({ form }), amount })).toEqual(signableOf(use({ form })));
      expect(transactionFacts(use({ form }), wallet)).toBeNull();
    }
  });

  test("units of transactions are told from others", () => {
    const token = "a".repeat(40);
    for (const unit of ["sat", "wei.1", "wei.11155111", `erc20.${token}.1`]) expect(isTransactionUnit(unit)).toBe(true);
    const others = ["EUR", "Sat", "sats", "wei", "wei.0", "wei.x", "wei.1.1", `erc20.${token}`, `erc20.${token}.`];
    for (const unit of others) expect(isTransactionUnit(unit)).toBe(false);
  });
});

describe("recipients", () => {
  test("one Bitcoin script is one recipient, on whichever network its address was written", () => {
    const addresses = NETWORKS.flatMap((network) => [
      addressOf({ as: "btc-p2wpkh", publicKey: wallet.publicKey, network, prefix: null }),
      addressOf({ as: "btc-p2tr", outputKey: vault.publicKey, network, prefix: null }),
    ]);
    expect(new Set(addresses).size).toBe(6);
    const forms = new Set(addresses.map(recipientForm));
    expect(forms).toEqual(new Set([wallet, vault].map(({ script }) => `script:${script.toHex()}`)));
    expect(recipientForm(addresses[0]?.toUpperCase() ?? "")).toBe(recipientForm(addresses[0] ?? ""));
  });

  test("what an output shows is what a rule may list", () => {
    const hash = wallet.script.subarray(2);
    const kinds = [
      OutScript.encode({ type: "pkh", hash }),
      OutScript.encode({ type: "sh", hash }),
      OutScript.encode({ type: "wsh", hash: digest }),
      wallet.script,
      vault.script,
    ];
    for (const script of kinds) {
      const shown = scriptRecipient(script);
      expect(shown).toBe(Address(NETWORK).encode(OutScript.decode(script)));
      expect(recipientForm(shown)).toBe(`script:${script.toHex()}`);
    }
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 60 }), (script) => {
        expect(recipientForm(scriptRecipient(script))).toBe(`script:${script.toHex()}`);
      }),
      { numRuns: 500 },
    );
  });

  test("EVM addresses are compared without case, and a slip in a checksummed one is seen", () => {
    const checksummed = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    expect(recipientForm(checksummed)).toBe(checksummed.toLowerCase());
    expect(recipientForm(checksummed.toLowerCase())).toBe(checksummed.toLowerCase());
    expect(recipientForm(checksummed.replace("aA", "AA"))).toBeNull();
    expect(recipientForm(BOB)).toBe(BOB);
  });

  test("anything else is no recipient", () => {
    const address = addressOf({ as: "btc-p2wpkh", publicKey: wallet.publicKey, network: "mainnet", prefix: null });
    const wrong = address.endsWith("q") ? `${address.slice(0, -1)}p` : `${address.slice(0, -1)}q`;
    const others = [
      "",
      "alice",
      "0x",
      BOB.slice(0, -1),
      `${BOB}0`,
      wrong,
      `${address} `,
      "script:",
      "script:0",
      "script:AB",
    ];
    for (const text of others) expect(recipientForm(text)).toBeNull();
    fc.assert(fc.property(fc.string({ maxLength: 90 }), (text) => recipientForm(text) === null));
  });
});
