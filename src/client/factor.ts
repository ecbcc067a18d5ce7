import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import { FACTOR, recoveryCode, typedCode } from "../protocol/factor.ts";
import { factorKey, recoveryHash } from "../protocol/factorcode.ts";
import { otpUri } from "../protocol/otp.ts";
import type { Of } from "../wire/codec.ts";
import type { loginReply, restrictedReply } from "../wire/factor.ts";
import { ENROL_HINT, type FactorClient, type NewFactor } from "./factorapi.ts";
import { boundOf, type Surroundings } from "./model.ts";
import { type Open, online } from "./opened.ts";
import type { Answer, Session } from "./session.ts";

/** A code as the wire takes it. @throws Fault factor_failed for what cannot be one: nothing is counted then */
function codeOf(text: string): string {
  const typed = typedCode(text);
  if (typed) return typed.code;
  throw new Fault("factor_failed", "this is no code: one has 6 digits, a recovery code 20 letters and digits");
}

type Shown = Pick<Of<typeof loginReply>, "settings" | "head">;

/** Goes on with a login that waits for its second factor: what comes back is what a login without one shows. */
export async function completeLogin(
  session: Session,
  restricted: Of<typeof restrictedReply>,
  around: Surroundings,
): Promise<Of<typeof loginReply>> {
  const { userId, expiresAtMs, needs } = restricted;
  try {
    const { output, head } = await (needs === "factor" ? bringCode : enrolFirst)(session, userId, around);
    return { userId, expiresAtMs, ...output, auditSeq: head.auditSeq, auditLink: head.auditLink };
  } catch (error) {
    session.forget();
    throw error;
  }
}

/** Asks until a code is taken, none is given any more, or the server ends the session. */
async function asking<T>(ask: (refused: Fault | null) => Promise<T | null>, none: () => Fault): Promise<T> {
  for (let refused: Fault | null = null; ; ) {
    try {
      const done = await ask(refused);
      if (done !== null) return done;
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // the last wrong code ended the session
      if (error.code === "session_invalid" && refused !== null) throw refused;
      if (error.code !== "factor_failed") throw error;
      refused = error;
      continue;
    }
    throw refused ?? none();
  }
}

function bringCode(session: Session, _userId: UserId, around: Surroundings): Promise<Answer<Shown>> {
  return asking(
    async (refused) => {
      const text = (await around.factor?.code(refused)) ?? null;
      if (text === null) return null;
      return session.call("session.factor", { code: codeOf(text), blind: around.random(16) });
    },
    () => new Fault("factor_required", "this account asks for a code of its second factor"),
  );
}

function enrolFirst(session: Session, userId: UserId, around: Surroundings): Promise<Answer<Shown>> {
  return asking(
    async (refused) => {
      const made = (await around.factor?.enrol?.(refused)) ?? null;
      return made && enable(session, userId, made, null, around);
    },
    () => new Fault("factor_required", "this server asks every account for a second factor", { hint: ENROL_HINT }),
  );
}

async function enable(
  session: Session,
  userId: UserId,
  made: NewFactor,
  proof: string | null,
  around: Surroundings,
): Promise<Answer<Shown>> {
  const recovery = made.recovery.map((text) => recoveryHash(userId, codeOf(text)));
  const input = { key: made.key, code: codeOf(made.code), recovery, proof, blind: around.random(16) };
  return session.call("account.factor.enable", input);
}

/** A new key with ten recovery codes; the caller wipes the key. */
export function draftFactor(random: (length: number) => Uint8Array): Omit<NewFactor, "code"> {
  const recovery = Array.from({ length: FACTOR.recoveryCodes }, () => recoveryCode(random(20)));
  return { key: random(FACTOR.keyBytes), recovery };
}

/** The URI of a key, as authenticator programs take it. @param host Of the server, so that its owner knows it. */
export function factorUri(key: Uint8Array, account: string, host: string): string {
  const copy = key.slice();
  try {
    return otpUri(factorKey(copy, { issuer: "keyhold", label: `${account}@${host}` }));
  } finally {
    wipe(copy);
  }
}

/** Calls of the client API about the second factor. */
export function factorCalls(open: Open): FactorClient {
  const { around } = open;
  /** With the server, whose answer moves this device's view of the account. */
  const asked = <T>(work: (session: Session, userId: UserId) => Promise<T>): Promise<T> =>
    online(open, true, (at) => {
      if (at === null) throw new Fault("unreachable", "the server is away");
      return work(at.session, boundOf(open.box.model).userId);
    });
  const proofOf = (text: string | null): string | null => (text === null ? null : codeOf(text));
  return {
    factor: () =>
      asked(async (session) => {
        const { output, requestId } = await session.call("account.factor", {});
        const { enabledAtMs, codes, required, proven } = output;
        const enabledAt = enabledAtMs === null ? null : new Date(enabledAtMs).toISOString();
        return { enabled: enabledAtMs !== null, enabledAt, recoveryCodes: codes, required, proven, requestId };
      }),
    enableFactor: (input) =>
      asked(async (session, userId) => {
        const { requestId } = await enable(session, userId, input, proofOf(input.proof), around);
        return { enabled: true, requestId };
      }),
    renewFactorCodes: (input) =>
      asked(async (session, userId) => {
        const recovery = Array.from({ length: FACTOR.recoveryCodes }, () => recoveryCode(around.random(20)));
        const hashes = recovery.map((text) => recoveryHash(userId, codeOf(text)));
        const sent = { recovery: hashes, proof: proofOf(input.proof), blind: around.random(16) };
        const { requestId } = await session.call("account.factor.codes", sent);
        return { recovery, requestId };
      }),
    disableFactor: (input) =>
      asked(async (session) => {
        const sent = { proof: proofOf(input.proof), blind: around.random(16) };
        const { output, requestId } = await session.call("account.factor.disable", sent);
        return { disabled: output.disabled, requestId };
      }),
  };
}
