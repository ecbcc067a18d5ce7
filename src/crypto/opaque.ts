import * as library from "@serenity-kit/opaque";
import { Fault } from "../errors.ts";
import { fromBase64url, toBase64url } from "./bytes.ts";
import type { Argon2Cost } from "./kdf.ts";

/**
 * OPAQUE (RFC 9807: ristretto255, 3DH, SHA-512, Argon2id) by `@serenity-kit/opaque`, in bytes. Its WASM draws its
 * own randomness and its memory never shrinks: call it in a Worker that ends (docs/protocol.md §3).
 */
export async function opaqueReady(): Promise<void> {
  await library.ready;
}

/** Enters the envelope; the same for ever, whatever the server is called. */
const SERVER_IDENTIFIER = "keyhold/v1";

const identifiers = (account: string) => ({ client: account, server: SERVER_IDENTIFIER });

function guarded<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("bad_input", `${what} is not a valid OPAQUE message`);
  }
}

function stretching(cost: Argon2Cost) {
  return {
    "argon2id-custom": { memory: cost.memoryKib, iterations: cost.passes, parallelism: cost.lanes },
  } as const;
}

/** Makes a server's set-up: OPRF seed and AKE key as one text; secret. */
export function createServerSetup(): string {
  return library.server.createSetup();
}

/** The server's static public key, 32 bytes. @throws Fault corrupt for a damaged set-up. */
export function serverPublicKey(setup: string): Uint8Array {
  try {
    return fromBase64url(library.server.getPublicKey(setup));
  } catch {
    throw new Fault("corrupt", "the OPAQUE set-up is damaged");
  }
}

/** Answers a registration request; an evaluation of the OPRF, so it counts as a guess. */
export function serverRegister(setup: string, credentialId: Uint8Array, request: Uint8Array): Uint8Array {
  return guarded("the registration request", () =>
    fromBase64url(
      library.server.createRegistrationResponse({
        serverSetup: setup,
        userIdentifier: toBase64url(credentialId),
        registrationRequest: toBase64url(request),
      }).registrationResponse,
    ),
  );
}

/** KE2 and the secret server state (holds the session key). Without a record the answer is a fake one. */
export function serverLoginStart(
  setup: string,
  credentialId: Uint8Array,
  account: string,
  record: Uint8Array | null,
  request: Uint8Array,
): { response: Uint8Array; state: Uint8Array } {
  return guarded("the login request", () => {
    const made = library.server.startLogin({
      serverSetup: setup,
      userIdentifier: toBase64url(credentialId),
      registrationRecord: record === null ? undefined : toBase64url(record),
      startLoginRequest: toBase64url(request),
      identifiers: identifiers(account),
    });
    return { response: fromBase64url(made.loginResponse), state: fromBase64url(made.serverLoginState) };
  });
}

/** Checks KE3: the session key (64 bytes), or `undefined` when it does not fit. */
export function serverLoginFinish(state: Uint8Array, account: string, finish: Uint8Array): Uint8Array | undefined {
  try {
    const made = library.server.finishLogin({
      serverLoginState: toBase64url(state),
      finishLoginRequest: toBase64url(finish),
      identifiers: identifiers(account),
    });
    return fromBase64url(made.sessionKey);
  } catch {
    return undefined;
  }
}

/** First message of a registration, with the client's state (secret text). */
export function clientRegisterStart(password: string): { request: Uint8Array; state: string } {
  const made = library.client.startRegistration({ password });
  return { request: fromBase64url(made.registrationRequest), state: made.clientRegistrationState };
}

/** Record for the server, export key (64 bytes) and the server's static public key. */
export function clientRegisterFinish(
  password: string,
  account: string,
  state: string,
  response: Uint8Array,
  cost: Argon2Cost,
): { record: Uint8Array; exportKey: Uint8Array; serverKey: Uint8Array } {
  return guarded("the registration response", () => {
    const made = library.client.finishRegistration({
      password,
      clientRegistrationState: state,
      registrationResponse: toBase64url(response),
      identifiers: identifiers(account),
      keyStretching: stretching(cost),
    });
    return {
      record: fromBase64url(made.registrationRecord),
      exportKey: fromBase64url(made.exportKey),
      serverKey: fromBase64url(made.serverStaticPublicKey),
    };
  });
}

/** First message of a login (KE1), with the client's state (secret text). */
export function clientLoginStart(password: string): { request: Uint8Array; state: string } {
  const made = library.client.startLogin({ password });
  return { request: fromBase64url(made.startLoginRequest), state: made.clientLoginState };
}

/** KE3, session key and export key (64 bytes each) and the server's static key; `undefined` for a wrong password. */
export function clientLoginFinish(
  password: string,
  account: string,
  state: string,
  response: Uint8Array,
  cost: Argon2Cost,
): { finish: Uint8Array; sessionKey: Uint8Array; exportKey: Uint8Array; serverKey: Uint8Array } | undefined {
  return guarded("the login response", () => {
    const made = library.client.finishLogin({
      password,
      clientLoginState: state,
      loginResponse: toBase64url(response),
      identifiers: identifiers(account),
      keyStretching: stretching(cost),
    });
    if (!made) return undefined;
    return {
      finish: fromBase64url(made.finishLoginRequest),
      sessionKey: fromBase64url(made.sessionKey),
      exportKey: fromBase64url(made.exportKey),
      serverKey: fromBase64url(made.serverStaticPublicKey),
    };
  });
}
