import { describe, expect, test } from "bun:test";
import { Address, OutScript } from "@scure/btc-signer/payment.js";
import { TEST_NETWORK } from "@scure/btc-signer/utils.js";
import fc from "fast-check";
import { addr } from "micro-eth-signer";
import type { PolicyRule } from "../../../src/protocol/federation/policy.ts";
import { factsOf } from "../../../src/protocol/federation/policyaction.ts";
import { checkDocument } from "../../../src/protocol/federation/policychain.ts";
import { decide } from "../../../src/protocol/federation/policyrules.ts";
import { tryPolicy } from "../../../src/protocol/federation/policytrial.ts";
import type { Amount, ReleaseBody, SignBody } from "../../../src/protocol/federation/request.ts";
import { bodies, certificateFor, denial, idOf, NOON, policy, request, rule } from "../../support/policies.ts";
import { BOB, evmBytes, evmPayment, type Paid, psbtOf, testKey, transferData } from "../../support/transactions.ts";

const wallet = testKey("secp256k1", 7);
const vault = testKey("schnorr", 9);
const [ada, eve] = [testKey("secp256k1", 11), testKey("schnorr", 13)];
const addressOf = ({ script }: { readonly script: Uint8Array }) => Address().encode(OutScript.decode(script));

const release = (over: Partial<ReleaseBody>): ReleaseBody => ({ ...bodies.release, ...over });
const evm = (over: Parameters<typeof evmPayment>[0] = {}, amount: Amount | null = null) =>
  release({ form: "evm", message: evmBytes(evmPayment(over)), amount });
const bitcoin = (outputs: readonly Paid[], amount: Amount | null = null): SignBody => ({
  ...bodies.sign,
  form: "bitcoin",
  message: psbtOf({ inputs: [{ script: vault.script, amount: 100_000n }], outputs }).toPSBT(),
  amount,
});

/** What a policy of these rules says of a body. */
function says(rules: readonly PolicyRule[], body: SignBody | ReleaseBody) {
  const { type, publicKey } = body.kind === "sign" ? vault : wallet;
  const asked = request(body);
  return decide({
    request: asked,
    requestId: idOf(asked),
    certificate: { ...certificateFor(body), type, publicKey } as never,
    requesterApproval: null,
    document: policy({ rules }),
    votes: [],
    uses: () => 0,
    nowMs: NOON,
  });
}

const using = (over: Partial<PolicyRule>) => [rule({ actions: ["sign", "release"], ...over })];

describe("an amount", () => {
  const limit = using({ amount: { unit: "sat", max: "60000" } });

  test("of a transaction is read from its bytes: fee and all that does not come back", () => {
    const change = { script: vault.script, amount: 40_000n };
    expect(says(limit, bitcoin([{ script: ada.script, amount: 50_000n }, change])).decision).toBe("allow");
    expect(says(limit, bitcoin([{ script: ada.script, amount: 50_000n }])).why).toContain("more than 60000 sat");
    expect(says(limit, bitcoin([{ script: ada.script, amount: 1n }])).why).toContain("more than 60000 sat");
  });

  test("is never the declared one", () => {
    const lie = { unit: "sat", value: "1" };
    expect(says(limit, bitcoin([{ script: ada.script, amount: 90_000n }], lie)).decision).toBe("deny");
    const wei = using({ amount: { unit: "wei.1", max: "5" } });
    expect(says(wei, evm({}, { unit: "wei.1", value: "1" })).why).toContain("more than 5 wei.1");
  });

  test("of a message or digest is none in a unit that only transactions have; a digest has none at all", () => {
    const declared = (unit: string, form: "message" | "digest") =>
      says(using({ amount: { unit, max: "60000" } }), {
        ...bodies.sign,
        form,
        message: new Uint8Array(32),
        amount: { unit, value: "1" },
      });
    expect(declared("EUR", "message").decision).toBe("allow");
    expect(declared("sat", "message").why).toContain("amounts in sat are read from transactions, and this is none");
    expect(declared("wei.1", "message").decision).toBe("deny");
    for (const unit of ["EUR", "sat"]) expect(declared(unit, "digest").why).toContain("a digest does not say");
    const blind = says(using({}), { ...bodies.sign, form: "digest", message: new Uint8Array(32), amount: null });
    expect(blind.decision).toBe("allow");
  });

  test("names its chain and its token", () => {
    const wei = using({ amount: { unit: "wei.1", max: "9".repeat(40) } });
    expect(says(wei, evm()).decision).toBe("allow");
    expect(says(wei, evm({ chainId: 10n })).why).toContain("not for amounts in wei.10");
    const token = `0x${"ab".repeat(20)}`;
    const tokens = using({ amount: { unit: `erc20.${token.slice(2)}.1`, max: "5" } });
    const transfer = (amount: bigint, to = token) => evm({ to, value: 0n, data: transferData(BOB, amount) });
    const checked = addr.addChecksum(token);
    expect(says(tokens, transfer(5n, checked)).decision).toBe("allow");
    expect(says(tokens, transfer(6n, checked)).why).toContain("more than 5");
    expect(says(tokens, transfer(5n, BOB)).why).toContain("not for amounts in erc20.3535");
    expect(says(wei, transfer(5n, checked)).decision).toBe("deny");
  });

  test("that cannot be read is none: calls and contracts are beyond every limit", () => {
    const call = evm({ data: "0x12345678" });
    expect(says(using({ amount: { unit: "wei.1", max: "9".repeat(40) } }), call).why).toContain("cannot be read");
    expect(says(using({ recipients: [BOB] }), call).why).toContain("pays nobody who can be read");
    expect(says(using({}), call).decision).toBe("allow");
  });
});

describe("recipients", () => {
  const rules = using({ recipients: [addressOf(ada), BOB] });

  test("hold when each is listed", () => {
    const both = [
      { script: ada.script, amount: 5n },
      { script: eve.script, amount: 5n },
    ];
    expect(says(rules, bitcoin(both.slice(0, 1))).decision).toBe("allow");
    expect(says(rules, bitcoin(both)).why).toContain(`${addressOf(eve)} is not among its recipients`);
    expect(says(using({ recipients: [addressOf(ada), addressOf(eve)] }), bitcoin(both)).decision).toBe("allow");
    expect(says(rules, evm()).decision).toBe("allow");
    expect(says(rules, evm({ to: "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed" })).decision).toBe("deny");
  });

  test("are the same on every network and in every case", () => {
    const testnet = Address(TEST_NETWORK).encode(OutScript.decode(ada.script));
    expect(says(using({ recipients: [testnet] }), bitcoin([{ script: ada.script, amount: 5n }])).decision).toBe(
      "allow",
    );
    const mixed = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    expect(says(using({ recipients: [mixed.toLowerCase()] }), evm({ to: mixed })).decision).toBe("allow");
  });

  test("of a token's transfer are whom the call names, not the token", () => {
    const token = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    const transfer = evm({ to: token, value: 0n, data: transferData(BOB, 1n) });
    expect(says(using({ recipients: [BOB] }), transfer).decision).toBe("allow");
    expect(says(using({ recipients: [token] }), transfer).decision).toBe("deny");
  });

  test("are nobody's in a message, a digest, a release of another kind, or a payment to the key itself", () => {
    const none = "read from transactions alone";
    for (const form of ["message", "digest"] as const) {
      expect(says(rules, { ...bodies.sign, form, message: new Uint8Array(32) }).why).toContain(none);
    }
    expect(says([rule({ actions: ["release"], recipients: [BOB] })], bodies.export).decision).toBe("deny");
    expect(says(rules, bitcoin([{ script: vault.script, amount: 5n }])).why).toContain("pays nobody");
  });

  test("an output without an address is a recipient too", () => {
    const burn = { script: Uint8Array.fromHex("6a0101"), amount: 5n };
    expect(says(rules, bitcoin([{ script: ada.script, amount: 5n }, burn])).why).toContain(
      "script:6a0101 is not among",
    );
    const listed = using({ recipients: [addressOf(ada), "script:6a0101"] });
    expect(says(listed, bitcoin([{ script: ada.script, amount: 5n }, burn])).decision).toBe("allow");
  });

  test("against a model: allowed exactly where everything that leaves is small and goes to the listed", () => {
    const people = [ada, eve, testKey("schnorr", 15), vault];
    const outputs = fc.array(fc.record({ who: fc.nat(3), amount: fc.integer({ min: 0, max: 30_000 }) }), {
      minLength: 1,
      maxLength: 3,
    });
    const listed = fc.subarray([0, 1, 2], { minLength: 1 });
    fc.assert(
      fc.property(outputs, listed, fc.nat(100_000), (paid, may, max) => {
        const body = bitcoin(
          paid.map(({ who, amount }) => ({ script: people[who]?.script ?? ada.script, amount: BigInt(amount) })),
        );
        const recipients = may.map((who) => addressOf(people[who] ?? ada));
        const { decision } = says(using({ recipients, amount: { unit: "sat", max: String(max) } }), body);
        const others = paid.filter(({ who }) => who !== 3);
        const back = paid.filter(({ who }) => who === 3).reduce((all, { amount }) => all + amount, 0);
        const allowed = others.length > 0 && others.every(({ who }) => may.includes(who)) && 100_000 - back <= max;
        expect(decision).toBe(allowed ? "allow" : "deny");
      }),
      { numRuns: 80 },
    );
  });
});

test("a transaction that cannot be read is no facts at all", () => {
  const body = release({ form: "evm", message: new Uint8Array(5) });
  const certificate = certificateFor(body, { type: wallet.type, publicKey: wallet.publicKey });
  expect(() => factsOf(request(body), certificate)).toThrow("no Ethereum transaction");
  expect(() => factsOf(request(body), certificateFor(body))).toThrow("no EVM account has a key of type ed25519");
  expect(() => says(using({}), body)).toThrow("no Ethereum transaction");
  // another key's PSBT
  const psbt = bitcoin([{ script: ada.script, amount: 5n }]);
  expect(() => says(using({}), release({ form: "bitcoin", message: psbt.message }))).toThrow(
    "does not belong to this key",
  );
});

describe("a document", () => {
  test.each([
    ["which is no address", { recipients: ["bob"] }],
    ["which is no address", { recipients: ["0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"] }],
    ["twice", { recipients: [BOB, BOB] }],
    ["twice", { recipients: [addressOf(ada), `script:${ada.script.toHex()}`] }],
    ["lists no recipient", { recipients: [] }],
    ["whom a request to export never has", { actions: ["export"] as const, recipients: [BOB] }],
    ["whom a request to generate never has", { actions: ["sign", "generate"] as const, recipients: [BOB] }],
  ])("refuses recipients: %s", (why, over) => {
    expect(() => checkDocument(policy({ rules: [rule(over)] }))).toThrow(why);
  });

  test("takes addresses of both worlds, and no list in a denial", () => {
    checkDocument(policy({ rules: using({ recipients: [BOB, addressOf(ada), addressOf(eve), "script:6a"] }) }));
    const denying = policy({ rules: [denial({ recipients: [BOB] })] });
    expect(() => checkDocument(denying)).toThrow("denies and has a limit");
  });
});

test("a policy is tried out with supposed recipients", () => {
  const document = policy({ rules: using({ recipients: [BOB], amount: { unit: "wei.1", max: "100" } }) });
  const trial = {
    document,
    action: "release",
    type: "secp256k1",
    requester: null,
    approve: [],
    reject: [],
    used: 0,
    nowMs: NOON,
  } as const;
  const amount = { unit: "wei.1", value: "100" };
  expect(tryPolicy({ ...trial, amount, recipients: [BOB] }).decision).toBe("allow");
  expect(tryPolicy({ ...trial, amount, recipients: [addressOf(ada)] }).decision).toBe("deny");
  expect(tryPolicy({ ...trial, amount }).decision).toBe("deny");
});
