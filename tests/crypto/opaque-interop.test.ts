import { beforeAll, describe, expect, test } from "bun:test";
import { client, ready, server } from "@serenity-kit/opaque";
import fc from "fast-check";
import { fromBase64url, toBase64url } from "../../src/crypto/bytes.ts";
import {
  argon2idKsf,
  createSetup,
  finishLogin,
  finishRegistration,
  identityKsf,
  multiply,
  OPAQUE_SIZES,
  oprfKey,
  parseKe2,
  randomizedPassword,
  recoverCredentials,
  respondLogin,
  respondRegistration,
  setupFromLibrary,
  startLogin,
  startRegistration,
} from "../support/opaque-oracle.ts";
import {
  clients,
  ksf,
  libraryClient,
  libraryServer,
  type Names,
  oracleClient,
  oracleNames,
  oracleServer,
  type ServerSide,
  servers,
} from "../support/opaque-sides.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

beforeAll(async () => {
  await ready;
});

const names: Names = { client: "alice", server: "keyhold-server" };
const credentialId = "8d1f0e";
const password = "correct horse bättery";

describe.each([
  ["oracle", "library"],
  ["library", "oracle"],
  ["oracle", "oracle"],
  ["library", "library"],
] as const)("%s client, %s server", (clientKind, serverKind) => {
  const side = clients[clientKind];
  let setup: string;
  let host: ServerSide;
  beforeAll(() => {
    setup = server.createSetup();
    host = servers[serverKind](setup);
  });

  function register(withNames = names) {
    const made = side.register(password, withNames, (request) => host.register(credentialId, request));
    expect(made.record.length).toBe(OPAQUE_SIZES.record);
    expect(toBase64url(made.serverPublicKey)).toBe(server.getPublicKey(setup));
    return made;
  }

  function login(record: Uint8Array, typed: string, clientNames: Names, serverNames: Names, id = credentialId) {
    let begun: ReturnType<ServerSide["login"]> | undefined;
    const made = side.login(typed, clientNames, (ke1) => {
      expect(ke1.length).toBe(OPAQUE_SIZES.ke1);
      begun = host.login(id, record, serverNames, ke1);
      expect(begun.ke2.length).toBe(OPAQUE_SIZES.ke2);
      return begun.ke2;
    });
    return { made, begun };
  }

  test.each([
    ["both identifiers", names],
    ["no identifiers", {}],
    ["a client identifier", { client: "bob" }],
    ["a server identifier", { server: "host" }],
  ])("registers and logs in with %s", (_, used) => {
    const { record, exportKey } = register(used);
    const { made, begun } = login(record, password, used, used);
    expect(made?.exportKey).toEqual(exportKey);
    expect(made?.ke3.length).toBe(OPAQUE_SIZES.ke3);
    expect(made && begun?.finish(made.ke3)).toEqual(made?.sessionKey ?? new Uint8Array(1));
    expect(made?.sessionKey.length).toBe(OPAQUE_SIZES.hash);
    if (made) expect(toBase64url(made.serverPublicKey)).toBe(server.getPublicKey(setup));
  });

  test("another client registers the record that this one opens", () => {
    const other = clients[clientKind === "oracle" ? "library" : "oracle"];
    const { record, exportKey } = other.register(password, names, (request) => host.register(credentialId, request));
    expect(login(record, password, names, names).made?.exportKey).toEqual(exportKey);
  });

  test("refuses a wrong password", () => {
    const { record } = register();
    expect(login(record, "correct horse battery", names, names).made).toBeUndefined();
  });

  test.each([
    ["client name", { ...names, client: "mallory" }],
    ["server name", { ...names, server: "another" }],
    ["missing client name", { server: "keyhold-server" }],
    ["missing server name", { client: "alice" }],
  ])("refuses a wrong %s on either side", (_, wrong) => {
    const { record } = register();
    expect(login(record, password, wrong, wrong).made).toBeUndefined();
    expect(login(record, password, wrong, names).made).toBeUndefined();
    expect(login(record, password, names, wrong).made).toBeUndefined();
  });

  test("refuses another credential id", () => {
    const { record } = register();
    expect(login(record, password, names, names, "8d1f0f").made).toBeUndefined();
  });

  test("refuses a KE2 with any bit of any field changed", () => {
    const { record } = register();
    for (const at of [0, 31, 32, 63, 64, 95, 96, 191, 192, 223, 224, 255, 256, 319]) {
      let refused = false;
      try {
        refused =
          side.login(password, names, (ke1) => {
            const { ke2 } = host.login(credentialId, record, names, ke1);
            ke2[at] = (ke2[at] ?? 0) ^ 1;
            return ke2;
          }) === undefined;
      } catch {
        refused = true; // the changed element is none
      }
      expect({ at, refused }).toEqual({ at, refused: true });
    }
  });

  test("the server refuses a KE3 with a bit changed, and one of another login", () => {
    const { record } = register();
    const first = login(record, password, names, names);
    const second = login(record, password, names, names);
    const ke3 = first.made?.ke3 ?? new Uint8Array(OPAQUE_SIZES.ke3);
    expect(second.begun?.finish(ke3)).toBeUndefined();
    const bent = ke3.slice();
    bent[63] = (bent[63] ?? 0) ^ 0x80;
    expect(first.begun?.finish(bent)).toBeUndefined();
    expect(first.begun?.finish(ke3)).toEqual(first.made?.sessionKey ?? new Uint8Array(1));
  });
});

describe("what the library does", () => {
  test("its registration answers are the oracle's, byte for byte", () => {
    const setup = server.createSetup();
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 60 }), fc.uint8Array({ maxLength: 60 }), (id, word) => {
        const { request } = startRegistration(word);
        expect(libraryServer(setup).register(id, request)).toEqual(oracleServer(setup).register(id, request));
      }),
      { numRuns: 15 },
    );
  });

  test("a name in its `userIdentifier` is UTF-8, not decoded base64url", () => {
    const setup = server.createSetup();
    const { request } = startRegistration(utf8("x"));
    const own = setupFromLibrary(fromBase64url(setup));
    const answer = libraryServer(setup).register("QUJD", request);
    expect(answer).toEqual(respondRegistration(own, utf8("QUJD"), request));
    expect(answer).not.toEqual(respondRegistration(own, utf8("ABC"), request));
  });

  test.each([
    { memory: 64, iterations: 1, parallelism: 1 },
    { memory: 128, iterations: 2, parallelism: 1 },
    { memory: 256, iterations: 1, parallelism: 4 },
  ])("argon2id-custom %p is Argon2id over 16 zero bytes of salt", (custom) => {
    const setup = createSetup();
    const begun = client.startRegistration({ password });
    const response = respondRegistration(setup, utf8("id"), fromBase64url(begun.registrationRequest));
    const made = client.finishRegistration({
      password,
      clientRegistrationState: begun.clientRegistrationState,
      registrationResponse: toBase64url(response),
      keyStretching: { "argon2id-custom": custom },
    });
    const stretch = argon2idKsf({ memoryKib: custom.memory, passes: custom.iterations, lanes: custom.parallelism });
    const login = startLogin(utf8(password));
    const answer = respondLogin(setup, utf8("id"), fromBase64url(made.registrationRecord), login.ke1);
    const done = finishLogin(login.state, answer.ke2, { ksf: stretch });
    expect(done && toBase64url(done.exportKey)).toBe(made.exportKey);
    expect(finishLogin(login.state, answer.ke2, { ksf: identityKsf })).toBeUndefined();
  });

  test("its default key stretching, and `memory-constrained`, are 64 MiB, 3 passes, 4 lanes", () => {
    const setup = createSetup();
    const begun = client.startRegistration({ password });
    const response = toBase64url(respondRegistration(setup, utf8("id"), fromBase64url(begun.registrationRequest)));
    const exportKeyOf = (record: string, stretching: Parameters<typeof client.finishLogin>[0]["keyStretching"]) => {
      const login = client.startLogin({ password });
      const { ke2 } = respondLogin(setup, utf8("id"), fromBase64url(record), fromBase64url(login.startLoginRequest));
      return client.finishLogin({
        password,
        clientLoginState: login.clientLoginState,
        loginResponse: toBase64url(ke2),
        ...(stretching === undefined ? {} : { keyStretching: stretching }),
      })?.exportKey;
    };
    const made = client.finishRegistration({
      password,
      clientRegistrationState: begun.clientRegistrationState,
      registrationResponse: response,
      keyStretching: { "argon2id-custom": { memory: 65_536, iterations: 3, parallelism: 4 } },
    });
    expect(exportKeyOf(made.registrationRecord, "memory-constrained")).toBe(made.exportKey);
    expect(exportKeyOf(made.registrationRecord, undefined)).toBe(made.exportKey);
  }, 60_000);

  test("it puts an empty context into the transcript and ignores a field of that name", () => {
    const setup = server.createSetup();
    const own = setupFromLibrary(fromBase64url(setup));
    const begun = startRegistration(utf8(password));
    const response = libraryServer(setup).register("id", begun.request);
    const { record } = finishRegistration(begun.state, response, { ksf });
    const login = startLogin(utf8(password));
    const params = {
      serverSetup: setup,
      userIdentifier: "id",
      registrationRecord: toBase64url(record),
      startLoginRequest: toBase64url(login.ke1),
      context: "keyhold",
    };
    const ke2 = fromBase64url(server.startLogin(params).loginResponse);
    expect(finishLogin(login.state, ke2, { ksf })).toBeDefined();
    expect(finishLogin(login.state, ke2, { ksf, context: utf8("keyhold") })).toBeUndefined();
    expect(own.publicKey.toBase64({ alphabet: "base64url", omitPadding: true })).toBe(server.getPublicKey(setup));
  });

  test("two key stretching settings can be tried on one KE2", () => {
    const setup = server.createSetup();
    const made = libraryClient.register(password, names, (request) => libraryServer(setup).register("id", request));
    const login = client.startLogin({ password });
    const begun = server.startLogin({
      serverSetup: setup,
      userIdentifier: "id",
      registrationRecord: toBase64url(made.record),
      startLoginRequest: login.startLoginRequest,
      identifiers: names,
    });
    const attempt = (stretching: { memory: number; iterations: number; parallelism: number }) =>
      client.finishLogin({
        password,
        clientLoginState: login.clientLoginState,
        loginResponse: begun.loginResponse,
        identifiers: names,
        keyStretching: { "argon2id-custom": stretching },
      });
    expect(attempt({ memory: 72, iterations: 1, parallelism: 1 })).toBeUndefined();
    expect(attempt({ memory: 64, iterations: 1, parallelism: 1 })?.exportKey).toBe(toBase64url(made.exportKey));
  });

  test("its fake answer has the form of a true one, and no password opens it", () => {
    const setup = server.createSetup();
    const login = startLogin(utf8(password));
    const begun = server.startLogin({
      serverSetup: setup,
      userIdentifier: "nobody",
      registrationRecord: undefined,
      startLoginRequest: toBase64url(login.ke1),
      identifiers: names,
    });
    const ke2 = fromBase64url(begun.loginResponse);
    expect(ke2.length).toBe(OPAQUE_SIZES.ke2);
    expect(finishLogin(login.state, ke2, { ksf, identifiers: oracleNames(names) })).toBeUndefined();
    const own = setupFromLibrary(fromBase64url(setup));
    expect(parseKe2(ke2).evaluated).toEqual(
      multiply(oprfKey(own.oprfSeed, utf8("nobody")), login.ke1.slice(0, OPAQUE_SIZES.element)),
    );
  });

  test("the server's login state begins with the session key in clear", () => {
    const setup = server.createSetup();
    const made = oracleClient.register(password, names, (request) => libraryServer(setup).register("id", request));
    const login = startLogin(utf8(password));
    const begun = server.startLogin({
      serverSetup: setup,
      userIdentifier: "id",
      registrationRecord: toBase64url(made.record),
      startLoginRequest: toBase64url(login.ke1),
      identifiers: names,
    });
    const done = finishLogin(login.state, fromBase64url(begun.loginResponse), {
      ksf,
      identifiers: oracleNames(names),
    });
    const at = done ? Buffer.from(fromBase64url(begun.serverLoginState)).indexOf(done.sessionKey) : -1;
    expect(at).toBe(0);
  });
});

test("any OPRF answer under an account's credential id tests a guess against any of its KE2s", () => {
  const setup = server.createSetup();
  const host = libraryServer(setup);
  const { record } = oracleClient.register(password, names, (request) => host.register(credentialId, request));
  const { ke2 } = host.login(credentialId, record, names, startLogin(utf8("not known")).ke1);
  const guess = (word: string, id: string): boolean => {
    const begun = startRegistration(utf8(word));
    const evaluated = host.register(id, begun.request).slice(0, OPAQUE_SIZES.element);
    const randomized = randomizedPassword(utf8(word), begun.state.blind, evaluated, ksf);
    return recoverCredentials(randomized, parseKe2(ke2), oracleNames(names)) !== undefined;
  };
  expect(guess("wrong", credentialId)).toBe(false);
  expect(guess(password, credentialId)).toBe(true);
  expect(guess(password, "another account")).toBe(false);
});
