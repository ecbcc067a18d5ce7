import { client, server } from "@serenity-kit/opaque";
import { fromBase64url, toBase64url } from "../../src/crypto/bytes.ts";
import {
  acceptLogin,
  argon2idKsf,
  finishLogin,
  finishRegistration,
  respondLogin,
  respondRegistration,
  setupFromLibrary,
  startLogin,
  startRegistration,
} from "./opaque-oracle.ts";

/**
 * The shipped OPAQUE library and the oracle behind one interface: bytes in and out, names as text. The library's wire
 * form is base64url of the RFC's messages; its transcript context is empty.
 */

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Cheap key stretching, the same for both. */
export const keyStretching = { "argon2id-custom": { memory: 64, iterations: 1, parallelism: 1 } } as const;
export const ksf = argon2idKsf({ memoryKib: 64, passes: 1, lanes: 1 });

/** Identifiers of a login, as text. */
export interface Names {
  readonly client?: string;
  readonly server?: string;
}

/** {@link Names} as the oracle takes them. */
export function oracleNames(names: Names): { client?: Uint8Array; server?: Uint8Array } {
  return {
    ...(names.client === undefined ? {} : { client: utf8(names.client) }),
    ...(names.server === undefined ? {} : { server: utf8(names.server) }),
  };
}

/** One implementation's client; bytes in and out. */
export interface ClientSide {
  register(
    password: string,
    names: Names,
    respond: (request: Uint8Array) => Uint8Array,
  ): { record: Uint8Array; exportKey: Uint8Array; serverPublicKey: Uint8Array };
  login(
    password: string,
    names: Names,
    respond: (ke1: Uint8Array) => Uint8Array,
  ): { ke3: Uint8Array; sessionKey: Uint8Array; exportKey: Uint8Array; serverPublicKey: Uint8Array } | undefined;
}

/** One implementation's server, over the set-up that both can read. */
export interface ServerSide {
  register(credentialId: string, request: Uint8Array): Uint8Array;
  login(
    credentialId: string,
    record: Uint8Array,
    names: Names,
    ke1: Uint8Array,
  ): { ke2: Uint8Array; finish: (ke3: Uint8Array) => Uint8Array | undefined };
}

export const libraryClient: ClientSide = {
  register(password, names, respond) {
    const begun = client.startRegistration({ password });
    const made = client.finishRegistration({
      password,
      clientRegistrationState: begun.clientRegistrationState,
      registrationResponse: toBase64url(respond(fromBase64url(begun.registrationRequest))),
      identifiers: names,
      keyStretching,
    });
    return {
      record: fromBase64url(made.registrationRecord),
      exportKey: fromBase64url(made.exportKey),
      serverPublicKey: fromBase64url(made.serverStaticPublicKey),
    };
  },
  login(password, names, respond) {
    const begun = client.startLogin({ password });
    const made = client.finishLogin({
      password,
      clientLoginState: begun.clientLoginState,
      loginResponse: toBase64url(respond(fromBase64url(begun.startLoginRequest))),
      identifiers: names,
      keyStretching,
    });
    return (
      made && {
        ke3: fromBase64url(made.finishLoginRequest),
        sessionKey: fromBase64url(made.sessionKey),
        exportKey: fromBase64url(made.exportKey),
        serverPublicKey: fromBase64url(made.serverStaticPublicKey),
      }
    );
  },
};

export const oracleClient: ClientSide = {
  register(password, names, respond) {
    const begun = startRegistration(utf8(password));
    return finishRegistration(begun.state, respond(begun.request), { ksf, identifiers: oracleNames(names) });
  },
  login(password, names, respond) {
    const begun = startLogin(utf8(password));
    return finishLogin(begun.state, respond(begun.ke1), { ksf, identifiers: oracleNames(names) });
  },
};

export function libraryServer(setup: string): ServerSide {
  return {
    register: (userIdentifier, request) =>
      fromBase64url(
        server.createRegistrationResponse({
          serverSetup: setup,
          userIdentifier,
          registrationRequest: toBase64url(request),
        }).registrationResponse,
      ),
    login(userIdentifier, record, names, ke1) {
      const begun = server.startLogin({
        serverSetup: setup,
        userIdentifier,
        registrationRecord: toBase64url(record),
        startLoginRequest: toBase64url(ke1),
        identifiers: names,
      });
      return {
        ke2: fromBase64url(begun.loginResponse),
        finish(ke3) {
          try {
            const { sessionKey } = server.finishLogin({
              serverLoginState: begun.serverLoginState,
              finishLoginRequest: toBase64url(ke3),
              identifiers: names,
            });
            return fromBase64url(sessionKey);
          } catch {
            return undefined;
          }
        },
      };
    },
  };
}

export function oracleServer(setup: string): ServerSide {
  const own = setupFromLibrary(fromBase64url(setup));
  return {
    register: (credentialId, request) => respondRegistration(own, utf8(credentialId), request),
    login(credentialId, record, names, ke1) {
      const identifiers = oracleNames(names);
      const begun = respondLogin(own, utf8(credentialId), record, ke1, { identifiers });
      return { ke2: begun.ke2, finish: (ke3) => acceptLogin(begun, ke3) };
    },
  };
}

export const clients = { library: libraryClient, oracle: oracleClient };
export const servers = { library: libraryServer, oracle: oracleServer };
