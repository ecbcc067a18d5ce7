import { expect, test } from "bun:test";
import { secp256k1 } from "@noble/curves/secp256k1.js";
import type { SignatureItem } from "../../../src/client/keyringapi.ts";
import { addressOf } from "../../../src/formats/address.ts";
import { signatureHolds } from "../../../src/protocol/federation/signing.ts";
import { signableOf } from "../../../src/protocol/transaction/index.ts";
import type { KeyringRequestView } from "../../../src/wire/keyring/views.ts";
import { rejected } from "../../support/hostile.ts";
import { type Person, REGISTRY_URL, type Scripted, scripted } from "./scripted.ts";

type Type = "ed25519" | "schnorr" | "secp256k1" | "p256";
const text = (value: string) => new TextEncoder().encode(value);
/** The example of EIP-155, unsigned: 1 ether on chain 1, and 0.00042 for its execution. */
const EIP155 = Uint8Array.fromHex(
  "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080",
);

/** A workspace of two, one of whom decides, with a key of each type. */
async function withKeys(types: readonly Type[]) {
  const world = await scripted();
  const [ada, bob] = [world.person("ada"), world.person("bob")];
  const owners = [{ name: "bob", keyHex: (await bob.client.keyringOwner()).keyHex }];
  await ada.client.createWorkspace({ name: "treasury", owners, self: "ada", admin: 1, sign: 1 });
  const keys: string[] = [];
  for (const type of types) {
    const { requestId } = await ada.client.requestKey({ workspace: "treasury", keyring: "vault", type });
    keys.push((await world.makeKey(requestId)).certificate.keyId);
  }
  const [key = "", another = ""] = keys;
  return { world, ada, bob, key, another };
}

const item = (key: string, change: Partial<SignatureItem> = {}): SignatureItem => ({
  key,
  form: "message",
  message: text("pay bob"),
  input: 0,
  amount: null,
  ...change,
});

const sign = ({ client }: Person, ...items: readonly SignatureItem[]) => client.requestSignatures({ items });
const show = ({ client }: Person, requestId: string) => client.keyringRequest({ requestId });

/** Alters what the registry shows of requests for signatures. */
function altered(world: Scripted, alter: (view: KeyringRequestView) => KeyringRequestView): void {
  world.meddle = (name, output) => {
    const view = output as KeyringRequestView;
    return name === "keyring.request.get" && view.kind === "signature" ? alter(view) : output;
  };
}

test("a batch of two keys of different types: facts are shown, results verified before they are", async () => {
  const { world, ada, bob, key, another } = await withKeys(["ed25519", "schnorr"]);
  const amount = { unit: "eur", value: "12" };
  const asked = await sign(ada, item(key.slice(0, 10), { amount }), item(another, { message: text("two") }));
  expect(asked).toMatchObject({
    kind: "signature",
    approved: true,
    finishable: false,
    items: [
      { keyId: key, type: "ed25519", signatureHex: null, facts: { amount, recipients: [] } },
      { keyId: another, type: "schnorr", signatureHex: null },
    ],
  });
  expect(asked.items[0]?.facts.lines).toContainEqual({ label: "message", value: "pay bob" });
  expect(asked.items[0]?.facts.lines).toContainEqual({ label: "declared amount", value: "12 eur" });
  await world.signItems(asked.requestId);
  const done = await show(bob, asked.requestId);
  expect(done).toMatchObject({ status: "fulfilled", items: [{ scheme: "ed25519" }, { scheme: "bip340" }] });
  const [first] = done.items;
  const publicKey = Uint8Array.fromHex(first?.publicKeyHex ?? "");
  const signature = Uint8Array.fromHex(first?.signatureHex ?? "");
  expect(signatureHolds({ type: "ed25519", publicKey }, text("pay bob"), signature)).toBe(true);
});

test("a wrong signature, one of another message and a result that too few parties confirmed are refused", async () => {
  const { world, ada, key } = await withKeys(["ed25519"]);
  const { requestId } = await sign(ada, item(key));
  const other = await sign(ada, item(key, { message: text("another") }));
  await world.signItems(requestId);
  await world.signItems(other.requestId);
  const [honest, strange] = [world.view(requestId).items[0], world.view(other.requestId).items[0]];
  if (!honest || !strange) throw new Error("no items");
  for (const change of [
    { result: strange.result },
    { result: new Uint8Array(64) },
    { result: null },
    { responses: honest.responses.slice(0, 1) },
    { responses: strange.responses },
    { certificate: null, responses: [] },
    { attempt: 2 },
  ]) {
    altered(world, (view) => ({ ...view, items: [{ ...honest, ...change }] }));
    const fault = await rejected(show(ada, requestId), "integrity");
    expect(fault.culprits).toEqual([REGISTRY_URL]);
  }
  // and before it is fulfilled too
  altered(world, (view) => ({ ...view, status: "partial", items: [{ ...honest, result: strange.result }] }));
  await rejected(show(ada, requestId), "integrity");
});

test("ECDSA: shares are let out to the client of who asked, which signs and brings the result", async () => {
  for (const type of ["secp256k1", "p256"] as const) {
    const { world, ada, bob, key } = await withKeys([type]);
    const { requestId, finishable } = await sign(ada, item(key));
    expect(finishable).toBe(false);
    await world.letOut(requestId);
    expect(await show(ada, requestId)).toMatchObject({ finishable: true, status: "partial" });
    expect((await show(bob, requestId)).finishable).toBe(false);
    expect((await bob.client.continueKeyringRequest({ requestId })).status).toBe("partial");
    const done = await ada.client.continueKeyringRequest({ requestId });
    expect(done).toMatchObject({ status: "fulfilled", finishable: false, items: [{ scheme: `ecdsa-${type}-sha256` }] });
    const certificate = world.keys.values().next().value?.certificate.certificate;
    if (!certificate) throw new Error("no key");
    const signature = Uint8Array.fromHex(done.items[0]?.signatureHex ?? "");
    expect(signatureHolds(certificate, text("pay bob"), signature)).toBe(true);
    if (type === "secp256k1") {
      expect(secp256k1.verify(signature, text("pay bob"), certificate.publicKey, { lowS: true })).toBe(true);
    }
    // for good, whatever the registry says
    expect(await ada.client.keyringKey({ key })).toMatchObject({ shown: "released" });
    expect(ada.held.keyringReleased).toContain(certificate.keyId);
    expect(await show(bob, requestId)).toMatchObject({ status: "fulfilled" });
  }
});

test("any device of the owner finishes: what opens the shares follows from the secret and the request", async () => {
  const { world, ada, key } = await withKeys(["secp256k1"]);
  const { requestId } = await sign(ada, item(key));
  await world.letOut(requestId);
  const phone = world.device(ada);
  expect(phone.held.workspacePins).toEqual([]);
  expect(await phone.client.continueKeyringRequest({ requestId })).toMatchObject({ status: "fulfilled" });
});

test("shares that are too few or wrong, and attempts that the registry has not signed, make no signature", async () => {
  const { world, ada, key } = await withKeys(["secp256k1"]);
  const { requestId } = await sign(ada, item(key));
  await world.letOut(requestId);
  const { requestId: otherId } = await sign(ada, item(key, { message: text("else") }));
  await world.letOut(otherId);
  const [honest, strange] = [world.view(requestId).items[0], world.view(otherId).items[0]];
  const [first, second] = honest?.partials ?? [];
  if (!honest || !strange || !first || !second || !honest.order) throw new Error("no shares");
  const finish = () => ada.client.continueKeyringRequest({ requestId });
  for (const partials of [[first], [first, first], [first, ...strange.partials], strange.partials]) {
    altered(world, (view) => ({ ...view, items: [{ ...honest, partials }] }));
    expect(await finish()).toMatchObject({ status: "partial", items: [{ signatureHex: null }] });
  }
  altered(world, (view) => ({ ...view, items: [{ ...honest, order: strange.order }] }));
  await rejected(finish(), "integrity");
  const unsigned = { ...honest.order, signature: new Uint8Array(64) };
  altered(world, (view) => ({ ...view, items: [{ ...honest, order: unsigned }] }));
  await rejected(finish(), "integrity");
  expect(world.calls.some(({ name }) => name === "keyring.finish")).toBe(false);
});

test("a transaction is read here: amount, recipient and what is signed", async () => {
  const { world, ada, bob, key } = await withKeys(["secp256k1"]);
  const payment = item(key, { form: "evm", message: EIP155 });
  const asked = await sign(ada, payment);
  const [shown] = asked.items;
  expect(shown?.facts.amount).toEqual({ unit: "wei.1", value: "1000420000000000000" });
  expect(shown?.facts.recipients.map((one) => one.toLowerCase())).toEqual([`0x${"35".repeat(20)}`]);
  await world.letOut(asked.requestId);
  const done = await ada.client.continueKeyringRequest({ requestId: asked.requestId });
  const { certificate } = world.keys.values().next().value?.certificate ?? {};
  if (!certificate) throw new Error("no key");
  const { bytes } = signableOf({ ...certificate, form: "evm", message: EIP155, input: 0 });
  const signature = Uint8Array.fromHex(done.items[0]?.signatureHex ?? "");
  expect(signatureHolds(certificate, bytes, signature, true)).toBe(true);
  expect((await show(bob, asked.requestId)).items[0]?.scheme).toBe("ecdsa-secp256k1");
  const wrong = { unit: "wei.1", value: "1" };
  await rejected(sign(ada, { ...payment, amount: wrong }), "bad_input");
  await rejected(sign(ada, item(key, { form: "evm", message: text("no transaction") })), "bad_input");
  await rejected(sign(ada, item(key, { form: "digest", message: text("short") })), "bad_input");
  await rejected(sign(ada, item(key, { form: "bitcoin", message: text("no psbt") })), "bad_input");
});

test("items of two workspaces are not one request, and nothing is none", async () => {
  const { world, ada, bob, key } = await withKeys(["ed25519"]);
  const owners = [{ name: "ada", keyHex: ada.owner.publicKey.toHex() }];
  await bob.client.createWorkspace({ name: "other", owners, self: "bob", admin: 1, sign: 1 });
  const { requestId } = await bob.client.requestKey({ workspace: "other", keyring: "vault", type: "ed25519" });
  const { certificate } = await world.makeKey(requestId);
  await rejected(sign(ada, item(key), item(certificate.keyId)), "bad_input");
  await rejected(sign(ada), "bad_input");
  await rejected(sign(ada, item("ffff")), "not_found");
});

test("a use of another key than the request's, and another certificate beside it, are refused", async () => {
  const { world, ada, key, another } = await withKeys(["ed25519", "schnorr"]);
  const { requestId } = await sign(ada, item(key));
  const strange = [...world.keys.values()].find((one) => one.keyId === another);
  altered(world, (view) =>
    view.requestId === requestId
      ? { ...view, items: view.items.map((one) => ({ ...one, certificate: strange?.certificate ?? null })) }
      : view,
  );
  await rejected(show(ada, requestId), "integrity");
  world.meddle = (name, output) => (name === "keyring.key" ? strange : output);
  await rejected(show(ada, requestId), "integrity");
});

test("addresses are derived here, of the certificate that was verified; a schnorr key is never tweaked again", async () => {
  const { world, ada, key, another } = await withKeys(["secp256k1", "schnorr"]);
  const certificateOf = (id: string) => {
    const found = [...world.keys.values()].find(({ keyId }) => keyId === id);
    if (!found) throw new Error("no key");
    return found.certificate.certificate;
  };
  const { publicKey } = certificateOf(key);
  const none = { network: null, prefix: null };
  for (const kind of ["evm", "btc-p2wpkh", "cosmos", "zcash-p2pkh"] as const) {
    const { address } = await ada.client.keyringAddress({ key, kind, ...none });
    expect(address).toBe(addressOf({ as: kind, publicKey, ...none }));
  }
  const regtest = { kind: "btc-p2tr", network: "regtest", prefix: null } as const;
  const { address } = await ada.client.keyringAddress({ key: another.slice(0, 12), ...regtest });
  const outputKey = certificateOf(another).publicKey;
  expect(address).toBe(addressOf({ as: "btc-p2tr", network: "regtest", prefix: null, outputKey }));
  expect(address).not.toBe(addressOf({ as: "btc-p2tr", network: "regtest", prefix: null, internalKey: outputKey }));
  await rejected(ada.client.keyringAddress({ key, kind: "solana", ...none }), "bad_input");
  await rejected(ada.client.keyringAddress({ key: another, kind: "evm", ...none }), "bad_input");
  await rejected(ada.client.keyringAddress({ key, kind: "evm", network: "regtest", prefix: null }), "bad_input");
});
