import { Fault } from "../../errors.ts";
import { parsePin } from "../../wire/pin.ts";
import { type Ground, sayNoKeyStore } from "../ceremony/ground.ts";
import type { CeremonyClient } from "../ceremonyapi.ts";
import type { Reaching } from "../federation/members.ts";
import { callClear, connect } from "../login.ts";
import type { Surroundings } from "../model.ts";
import { ownKeyId, requesterInfo } from "./entries.ts";

type Client = CeremonyClient;

/** A code as people type it: spaces between the digits do not matter. @throws Fault bad_input */
export function codeOf(text: string): string {
  const digits = text.replace(/[\s-]/g, "");
  if (/^[0-9]{6,10}$/.test(digits)) return digits;
  throw new Fault("bad_input", "a code has 6 to 10 digits");
}

/** What is true of a code, as its issuer may know it. */
export async function checkCode(ground: Ground, input: Parameters<Client["otpCheck"]>[0]) {
  const code = codeOf(input.code);
  const next = input.next === null ? null : codeOf(input.next);
  const keyId = await ownKeyId(ground, input.key);
  const { verdict, handedTo } = await ground.call("otp.check", { keyId, code, next });
  return { verdict, handedTo: handedTo && requesterInfo(handedTo) };
}

/** A token with which a relying service has codes of one key verified. */
export async function createToken(ground: Ground, { key, name, untilMs }: Parameters<Client["otpTokenCreate"]>[0]) {
  const keyId = await ownKeyId(ground, key);
  return ground.call("otp.token.create", { keyId, name, expiresAtMs: untilMs });
}

export async function tokensOf(ground: Ground, key: string): ReturnType<Client["otpTokens"]> {
  const { items } = await ground.call("otp.token.list", { keyId: await ownKeyId(ground, key) });
  return items.map(({ tokenId, name, expiresAtMs }) => ({
    ...{ tokenId, name },
    expiresAt: new Date(expiresAtMs).toISOString(),
  }));
}

export async function revokeToken(ground: Ground, { key, tokenId }: Parameters<Client["otpTokenRevoke"]>[0]) {
  if (!/^[0-9a-f]{64}$/.test(tokenId)) {
    throw new Fault("bad_input", "a token is named by its id: 64 hexadecimal digits");
  }
  await ground.call("otp.token.revoke", { keyId: await ownKeyId(ground, key), tokenId });
}

type VerifyInput = Parameters<Client["otpVerify"]>[0];

function tokenOf(token: string): string {
  if (/^[\x21-\x7e]{1,128}$/.test(token)) return token;
  throw new Fault("bad_input", "this is no token");
}

/** A token is no session: no login mends it. */
function sayNoToken(error: unknown): never {
  if (!(error instanceof Fault) || error.code !== "session_invalid") throw error;
  throw new Fault("session_invalid", error.message, {
    why: "it has expired, was revoked, or is of a key that is over",
    hint: "the key's issuer makes another one: keyhold otp token create NAME",
  });
}

/** Verifies a code as a relying service does. */
export async function verifyCode(ground: Ground, { server, token, code }: VerifyInput) {
  return { accepted: await ground.verify(server, tokenOf(token), codeOf(code)).catch(sayNoToken) };
}

/** The same where there is no vault: a relying service needs none. @throws Fault unreachable, pin_mismatch … */
export async function verifyByToken(
  around: Surroundings,
  { server, token, code }: VerifyInput,
  { reach = connect }: Reaching = {},
) {
  const given = { token: tokenOf(token), code: codeOf(code) };
  const pinned = { url: server.url, pin: parsePin(server.pin), tlsCaPem: null, caPem: null, statementNumber: 0 };
  const { link } = await reach(pinned, around);
  const verifying = callClear(link, "otp.verify", { code: given.code }, given.token);
  const { accepted } = await verifying.catch(sayNoKeyStore).catch(sayNoToken);
  return { accepted };
}
