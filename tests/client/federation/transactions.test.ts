import { expect, test } from "bun:test";
import { schnorr } from "@noble/curves/secp256k1.js";
import { p2wpkh } from "@scure/btc-signer/payment.js";
import { addr, Transaction as EvmTransaction } from "micro-eth-signer";
import { factsOf, signedFacts } from "../../../src/client/federation/facts.ts";
import { generateKey } from "../../../src/client/federation/generate.ts";
import type { HeldKey } from "../../../src/client/federation/held.ts";
import { signWithKey } from "../../../src/client/federation/use.ts";
import { concat } from "../../../src/crypto/bytes.ts";
import { Fault } from "../../../src/errors.ts";
import type { FederatedType } from "../../../src/protocol/federation/kinds.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { signableOf } from "../../../src/protocol/transaction/index.ts";
import { bodies, request } from "../../support/policies.ts";
import { BOB, evmBytes, evmPayment, psbtOf, testKey } from "../../support/transactions.ts";
import { type ClientWorld, clientWorld, WISH } from "./clientworld.ts";

async function withKey(type: FederatedType): Promise<{ readonly world: ClientWorld; readonly key: HeldKey }> {
  const world = await clientWorld(3, 2);
  await generateKey(world.ground, { ...WISH, type });
  const [key] = world.disk.keys;
  if (!key) throw new Error("no key");
  return { world, key };
}

const wallet = testKey("secp256k1", 7);
const stranger = testKey("secp256k1", 11).script;
const spending = (script: Uint8Array) =>
  psbtOf({
    inputs: [
      { script, amount: 9_000n },
      { script, amount: 8_000n },
    ],
    outputs: [{ script: stranger, amount: 15_000n }],
  });

async function caught(work: Promise<unknown>): Promise<Fault> {
  try {
    await work;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
  throw new Error("it was to fail");
}

test("a PSBT is signed input by input by the servers, each another use", async () => {
  const { world, key } = await withKey("schnorr");
  const { certificate } = key.certificate;
  const x = certificate.publicKey.subarray(1);
  const message = spending(concat(Uint8Array.of(0x51, 0x20), x)).toPSBT();
  const made = await Promise.all(
    [0, 1].map((input) => signWithKey(world.ground, key, message, null, { form: "bitcoin", input })),
  );
  expect(made.map(({ scheme }) => scheme)).toEqual(["bip340", "bip340"]);
  for (const [input, { signatureHex }] of made.entries()) {
    const { bytes } = signableOf({ ...certificate, form: "bitcoin", message, input });
    expect(schnorr.verify(Uint8Array.fromHex(signatureHex ?? ""), bytes, x)).toBe(true);
  }
});

test("an EVM transaction is signed in the client by released shares; the foreign library recovers the account", async () => {
  const { world, key } = await withKey("secp256k1");
  const transaction = evmPayment();
  const { signatureHex, scheme } = await signWithKey(world.ground, key, evmBytes(transaction), null, {
    form: "evm",
    input: 0,
  });
  expect(scheme).toBe("ecdsa-secp256k1");
  const [r, s] = [0, 64].map((at) => BigInt(`0x${signatureHex?.slice(at, at + 64)}`));
  const senders = [0, 1].map(
    (yParity) =>
      new EvmTransaction("eip1559", { ...transaction.raw, r: r ?? 0n, s: s ?? 0n, yParity }, { strict: false }).sender,
  );
  expect(senders).toContain(addr.fromPublicKey(key.certificate.certificate.publicKey));
});

test("a P2WPKH input and a digest are signed without being hashed again", async () => {
  const { world, key } = await withKey("secp256k1");
  const { certificate } = key.certificate;
  const { script } = p2wpkh(certificate.publicKey);
  const message = spending(script).toPSBT();
  const spent = await signWithKey(world.ground, key, message, null, { form: "bitcoin", input: 1 });
  const { bytes } = signableOf({ ...certificate, form: "bitcoin", message, input: 1 });
  expect(signatureHolds(certificate, bytes, Uint8Array.fromHex(spent.signatureHex ?? ""), true)).toBe(true);
  const digest = new Uint8Array(32).fill(4);
  const blind = await signWithKey(world.ground, key, digest, null, { form: "digest", input: 0 });
  expect(signatureHolds(certificate, digest, Uint8Array.fromHex(blind.signatureHex ?? ""), true)).toBe(true);
  // the same bytes as a message are another use
  const plain = await signWithKey(world.ground, key, digest, null);
  expect([plain.scheme, plain.signatureHex]).not.toEqual([blind.scheme, blind.signatureHex]);
  expect(signatureHolds(certificate, digest, Uint8Array.fromHex(plain.signatureHex ?? ""))).toBe(true);
});

test("what no server would sign is not asked for", async () => {
  const { world, key } = await withKey("schnorr");
  world.calls.length = 0;
  const ask = (message: Uint8Array, form: "evm" | "bitcoin" | "digest", amount = null as never) =>
    caught(signWithKey(world.ground, key, message, amount, { form, input: 0 }));
  expect((await ask(spending(stranger).toPSBT(), "bitcoin")).message).toContain("does not belong to this key");
  expect((await ask(evmBytes(evmPayment()), "evm")).code).toBe("bad_input");
  expect((await ask(new Uint8Array(31), "digest")).code).toBe("bad_input");
  expect(world.calls).toEqual([]);
  expect(world.disk.requests).toEqual([]);
});

test("approvers see what a transaction does, not what is said of it", () => {
  const message = spending(wallet.script).toPSBT();
  const body = { ...bodies.release, form: "bitcoin" as const, message, amount: { unit: "sat", value: "1" } };
  const facts = factsOf(request(body));
  const saidOf = (label: string) => facts.find((one) => one.label === label)?.value;
  expect(saidOf("leaves the key")).toBe("17000 sat (0.00017 BTC)");
  expect(saidOf("fee")).toBe("2000 sat (0.00002 BTC)");
  expect(facts.map(({ label }) => label)).not.toContain("declared amount");
  expect(factsOf(request(body), wallet)).toEqual(facts);
  // of a key that is known, its own input alone
  expect(signedFacts(body, testKey("secp256k1", 8))[1]?.value).toContain("does not belong to this key");
  const evm = signedFacts({ ...body, form: "evm", message: evmBytes(evmPayment()) }, null);
  expect(evm).toContainEqual({ label: "pays to", value: BOB });
});

test("approvers are told where nothing can be read", () => {
  const message = new Uint8Array(32).fill(0xab);
  const body = { ...bodies.sign, message, amount: { unit: "EUR", value: "5" } };
  expect(signedFacts({ ...body, form: "digest" }, null)).toEqual([
    { label: "declared amount", value: "5 EUR" },
    { label: "digest", value: "ab".repeat(32) },
    { label: "caution", value: "a digest does not say what is signed" },
  ]);
  const unread = signedFacts({ ...body, form: "bitcoin" }, null);
  expect(unread.map(({ label }) => label)).toEqual(["declared amount", "caution", "message length", "message (hex)"]);
  expect(signedFacts({ ...bodies.export }, null)).toEqual([]);
});
