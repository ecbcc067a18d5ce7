import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { schnorr } from "@noble/curves/secp256k1.js";
import { Transaction } from "@scure/btc-signer/transaction.js";
import { addr, Transaction as EvmTransaction } from "micro-eth-signer";
import { concat } from "../../src/crypto/bytes.ts";
import type { Fault } from "../../src/errors.ts";
import { signEcdsa } from "../../src/protocol/federation/ecdsa.ts";
import { combineRelease } from "../../src/protocol/federation/release.ts";
import type { ReleaseBody, SignBody, SignedOrder, SignedRequest } from "../../src/protocol/federation/request.ts";
import { completeSignature } from "../../src/protocol/federation/signing.ts";
import { openPartial } from "../../src/protocol/federation/use.ts";
import { signableOf } from "../../src/protocol/transaction/index.ts";
import { type EnclaveWorld, enclaveWorld, type PlantedKey } from "../support/enclaveworld.ts";
import { BOB, evmBytes, evmPayment, psbtOf, testKey } from "../support/transactions.ts";

/** What enclaves sign, and let shares out for: what they have read themselves. */

let world: EnclaveWorld;
beforeEach(async () => {
  world = await enclaveWorld();
});
afterEach(() => world.close());

const begin = (key: PlantedKey, index: number, request: SignedRequest, order: SignedOrder) =>
  world.server(index).enclave.handle("begin", {
    evidence: world.evidence(request, key),
    order,
    share: key.sealed.get(index) ?? null,
  });

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: Fault) => `${error.code}: ${error.message}`,
  );

const stranger = testKey("secp256k1", 11).script;

/** Signs by servers 1 and 2. */
async function sign(key: PlantedKey, body: SignBody): Promise<Uint8Array> {
  const request = world.request(body);
  const order = world.order(request, [1, 2]);
  const nonces = (await Promise.all([1, 2].map((i) => begin(key, i, request, order)))).flatMap((step) => step.messages);
  const { requestId, attempt } = order.order;
  const steps = await Promise.all(
    [1, 2].map((i) => world.server(i).enclave.handle("relay", { requestId, attempt, messages: nonces })),
  );
  const use = { manifest: world.manifest, certificate: key.certificate, request: request.request, order: order.order };
  const partials = steps.flatMap((step) => step.messages.filter((m) => m.message.payload.round === "partial"));
  const opened = await Promise.all(partials.map((m) => openPartial(use, world.recipient, m)));
  const done = completeSignature({ ...use, nonces, partials: opened, owner: null });
  if (done.result !== "signed") throw new Error("not signed");
  return done.signature;
}

describe("a Bitcoin transaction", () => {
  let key: PlantedKey;
  let script: Uint8Array;
  beforeEach(async () => {
    key = await world.plant("schnorr");
    script = concat(Uint8Array.of(0x51, 0x20), key.certificate.publicKey.subarray(1));
  });

  const body = (message: Uint8Array, over: Partial<SignBody> = {}): SignBody => ({
    ...world.signBody(key),
    form: "bitcoin",
    message,
    ...over,
  });
  const payment = () =>
    psbtOf({
      inputs: [
        { script, amount: 9_000n },
        { script, amount: 6_000n },
      ],
      outputs: [{ script: stranger, amount: 14_000n }],
    });

  test("is signed input by input, and the foreign library makes a whole of it", async () => {
    const made = payment();
    const message = made.toPSBT();
    for (const input of [0, 1]) made.updateInput(input, { tapKeySig: await sign(key, body(message, { input })) }, true);
    made.finalize();
    const final = Transaction.fromRaw(made.extract(), { disableScriptCheck: true });
    for (const input of [0, 1]) {
      const digest = final.preimageWitnessV1(input, [script, script], 0, [9_000n, 6_000n]);
      const [witness] = final.getInput(input).finalScriptWitness ?? [];
      expect(schnorr.verify(witness ?? new Uint8Array(0), digest, key.certificate.publicKey.subarray(1))).toBe(true);
    }
  });

  test("is refused by each enclave where it cannot be read, is another key's, or its amount is a lie", async () => {
    const message = payment().toPSBT();
    const foreign = psbtOf({ inputs: [{ script: stranger, amount: 9n }], outputs: [{ script, amount: 1n }] });
    const cases: readonly [SignBody, string][] = [
      [body(message.subarray(1)), "no PSBT"],
      [body(foreign.toPSBT()), "does not belong to this key"],
      [body(message, { input: 2 }), "it has no input 2"],
      [body(message, { amount: { unit: "sat", value: "14000" } }), "not the transaction's: 15000 sat"],
      [body(message, { form: "evm" }), "no EVM account has a key of type schnorr"],
      [body(message, { form: "digest" }), "a digest has 32 bytes"],
    ];
    for (const [refused, why] of cases) {
      const request = world.request(refused);
      for (const index of [1, 2]) {
        const said = await codeOf(begin(key, index, request, world.order(request, [1, 2])));
        expect([why, said]).toEqual([why, expect.stringMatching(/^bad_input: /)]);
        expect(said).toContain(why);
      }
    }
    const sound = world.request(body(message, { amount: { unit: "sat", value: "15000" } }));
    expect(await codeOf(begin(key, 1, sound, world.order(sound, [1, 2])))).toBe("ok");
  });

  test("digests are signed as they are", async () => {
    const digest = new Uint8Array(32).fill(5);
    const signature = await sign(key, body(digest, { form: "digest" }));
    expect(schnorr.verify(signature, digest, key.certificate.publicKey.subarray(1))).toBe(true);
  });
});

describe("an EVM transaction", () => {
  let key: PlantedKey;
  beforeEach(async () => {
    key = await world.plant("secp256k1");
  });
  const body = (message: Uint8Array | null, over: Partial<ReleaseBody> = {}): ReleaseBody => ({
    ...world.signBody(key),
    kind: "release",
    purpose: "sign",
    form: "evm",
    message,
    ...over,
  });

  test("shares are let out for it, and the foreign library recovers the sender of what they sign", async () => {
    const transaction = evmPayment();
    const message = evmBytes(transaction);
    const request = world.request(body(message));
    const order = world.order(request, [1, 2]);
    const use = {
      manifest: world.manifest,
      certificate: key.certificate,
      request: request.request,
      order: order.order,
    };
    const said = await Promise.all([1, 2].map((index) => begin(key, index, request, order)));
    const partials = await Promise.all(
      said.flatMap(({ messages }) => messages).map((one) => openPartial(use, world.recipient, one)),
    );
    const combined = combineRelease({ ...use, partials, ownerScalar: null });
    if (combined.result !== "combined") throw new Error("not combined");
    const { type, publicKey } = key.certificate;
    const { bytes, prehashed } = signableOf({ type, publicKey, form: "evm", message, input: 0 });
    const { compact } = signEcdsa("secp256k1", combined.scalar, bytes, prehashed);
    const [r, s] = [compact.subarray(0, 32), compact.subarray(32)].map((part) => BigInt(`0x${part.toHex()}`));
    const senders = [0, 1].map(
      (yParity) =>
        new EvmTransaction("eip1559", { ...transaction.raw, r: r ?? 0n, s: s ?? 0n, yParity }, { strict: false })
          .sender,
    );
    expect(senders).toContain(addr.fromPublicKey(publicKey));
  });

  test("no share is let out for what cannot be read, nor for a lie", async () => {
    const message = evmBytes(evmPayment());
    const cases: readonly [ReleaseBody, string][] = [
      [body(message.subarray(0, -1)), "no Ethereum transaction"],
      [body(message, { amount: { unit: "wei.1", value: "1" } }), "not the transaction's"],
      [body(evmPayment({ to: BOB }).signBy(testKey("secp256k1", 7).scalar, false).toBytes()), "signed already"],
      [body(message, { input: 1 }), "only Bitcoin transactions have inputs"],
      [body(null, { purpose: "export" }), "has no form and no input"],
      [body(null, { purpose: "export", form: "message", input: 1 }), "has no form and no input"],
    ];
    for (const [refused, why] of cases) {
      const request = world.request(refused);
      const said = await codeOf(begin(key, 1, request, world.order(request, [1, 2])));
      expect(said).toContain(why);
    }
  });
});
