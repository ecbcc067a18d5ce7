import { describe, expect, test } from "bun:test";
import { ristretto255_oprf } from "@noble/curves/ed25519.js";
import fc from "fast-check";
import {
  acceptLogin,
  createSetup,
  envelopeKeys,
  fakeRecord,
  finishLogin,
  finishRegistration,
  identityKsf,
  maskingKeyOf,
  multiply,
  oprfBlind,
  oprfFinalize,
  oprfKey,
  parseKe2,
  publicKeyOf,
  randomizedPassword,
  randomScalar,
  respondLogin,
  respondRegistration,
  startLogin,
  startRegistration,
} from "../support/opaque-oracle.ts";
import vectors from "../vectors/opaque-rfc9807.json";

const hex = (text: string): Uint8Array => Uint8Array.fromHex(text);
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("RFC 9807 vectors", () => {
  const context = hex(vectors.configuration.Context);

  function replay(i: typeof vectors.real1.inputs, identifiers: { client?: Uint8Array; server?: Uint8Array }) {
    const terms = { ksf: identityKsf, context, identifiers };
    const setup = createSetup({ oprfSeed: hex(i.oprf_seed), privateKey: hex(i.server_private_key) });
    const credentialId = hex(i.credential_identifier);
    const password = hex(i.password);
    const begun = startRegistration(password, { blind: hex(i.blind_registration) });
    const response = respondRegistration(setup, credentialId, begun.request);
    const registered = finishRegistration(begun.state, response, terms, { envelopeNonce: hex(i.envelope_nonce) });
    const login = startLogin(password, {
      blind: hex(i.blind_login),
      nonce: hex(i.client_nonce),
      keyshareSeed: hex(i.client_keyshare_seed),
    });
    const answer = respondLogin(setup, credentialId, registered.record, login.ke1, terms, {
      maskingNonce: hex(i.masking_nonce),
      nonce: hex(i.server_nonce),
      keyshareSeed: hex(i.server_keyshare_seed),
    });
    const done = finishLogin(login.state, answer.ke2, terms);
    if (!done) throw new Error("the vector's login was refused");
    const outputs = {
      registration_request: begun.request.toHex(),
      registration_response: response.toHex(),
      registration_upload: registered.record.toHex(),
      KE1: login.ke1.toHex(),
      KE2: answer.ke2.toHex(),
      KE3: done.ke3.toHex(),
      export_key: registered.exportKey.toHex(),
      session_key: done.sessionKey.toHex(),
    };
    return { setup, credentialId, password, begun, response, registered, answer, done, outputs };
  }

  test("C.1.1: every output", () => {
    const { setup, outputs, done, answer, registered } = replay(vectors.real1.inputs, {});
    expect(setup.publicKey.toHex()).toBe(vectors.real1.inputs.server_public_key);
    expect(outputs).toEqual(vectors.real1.outputs);
    expect(done.exportKey).toEqual(registered.exportKey);
    expect(acceptLogin(answer, done.ke3)?.toHex()).toBe(vectors.real1.outputs.session_key);
  });

  test("C.1.1: every intermediate value", () => {
    const { inputs, intermediates } = vectors.real1;
    const { setup, credentialId, password, begun, response, registered, answer } = replay(inputs, {});
    const randomized = randomizedPassword(password, begun.state.blind, response.slice(0, 32), identityKsf);
    const keys = envelopeKeys(randomized, hex(inputs.envelope_nonce));
    expect({
      client_public_key: keys.client.publicKey.toHex(),
      auth_key: keys.authKey.toHex(),
      randomized_password: randomized.toHex(),
      masking_key: maskingKeyOf(randomized).toHex(),
      envelope: registered.record.slice(96).toHex(),
      handshake_secret: answer.keys.handshakeSecret.toHex(),
      server_mac_key: answer.keys.serverMacKey.toHex(),
      client_mac_key: answer.keys.clientMacKey.toHex(),
      oprf_key: oprfKey(setup.oprfSeed, credentialId).toHex(),
    }).toEqual(intermediates);
  });

  test("C.1.2: every output, with identities", () => {
    const { inputs, outputs } = vectors.real2;
    const identifiers = { client: hex(inputs.client_identity), server: hex(inputs.server_identity) };
    expect(replay(inputs, identifiers).outputs).toEqual(outputs);
  });

  test("C.2.1: the fake answer", () => {
    const i = vectors.fake1.inputs;
    const setup = createSetup({ oprfSeed: hex(i.oprf_seed), privateKey: hex(i.server_private_key) });
    expect(setup.publicKey.toHex()).toBe(i.server_public_key);
    const record = fakeRecord({ clientPublicKey: hex(i.client_public_key), maskingKey: hex(i.masking_key) });
    const answer = respondLogin(
      setup,
      hex(i.credential_identifier),
      record,
      hex(i.KE1),
      { context, identifiers: { client: hex(i.client_identity), server: hex(i.server_identity) } },
      { maskingNonce: hex(i.masking_nonce), nonce: hex(i.server_nonce), keyshareSeed: hex(i.server_keyshare_seed) },
    );
    expect(answer.ke2.toHex()).toBe(vectors.fake1.outputs.KE2);
  });
});

test("the OPRF agrees with the one of @noble/curves", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (input) => {
      const { secretKey } = ristretto255_oprf.oprf.generateKeyPair();
      const blind = randomScalar();
      const blinded = oprfBlind(input, blind);
      const evaluated = multiply(secretKey, blinded);
      expect(evaluated).toEqual(ristretto255_oprf.oprf.blindEvaluate(secretKey, blinded));
      const output = oprfFinalize(input, blind, evaluated);
      expect(output).toEqual(ristretto255_oprf.oprf.finalize(input, blind, evaluated));
    }),
    { numRuns: 10 },
  );
});

test("the oracle refuses malformed elements and lengths", () => {
  const setup = createSetup();
  const id = utf8("id");
  expect(() => respondRegistration(setup, id, new Uint8Array(32))).toThrow();
  expect(() => respondRegistration(setup, id, new Uint8Array(32).fill(0xff))).toThrow();
  expect(() => respondRegistration(setup, id, new Uint8Array(31))).toThrow();
  expect(() => respondLogin(setup, id, fakeRecord(), new Uint8Array(95))).toThrow();
  expect(() => parseKe2(new Uint8Array(319))).toThrow();
  expect(() => parseKe2(new Uint8Array(321))).toThrow();
  expect(() => publicKeyOf(new Uint8Array(32).fill(0xff))).toThrow();
});
