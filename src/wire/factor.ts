import type { UserId } from "../ids.ts";
import { FACTOR } from "../protocol/factor.ts";
import { bool, bytes, type Codec, id, list, nullable, type Of, oneOf, struct, text, u53, uint } from "./codec.ts";
import { op } from "./operation.ts";
import { hash32, settings, signedState } from "./records.ts";

/** A code of the authenticator, or the letters of a recovery code. */
const code = text({ min: 6, max: 20, pattern: /^[0-9A-Z-]{6,20}$/ });

/** Beside a code, so that the hash of a request tells nothing of it: 16 random bytes. */
const blind = bytes({ length: 16 });

/** What a login shows at once where no second factor is asked for. */
const account = { settings, head: signedState };
const opened = struct(account);
const recovery = list(hash32, { min: FACTOR.recoveryCodes, max: FACTOR.recoveryCodes });

/** Operations of the second factor (docs/protocol.md §10.9). */
export const factorOperations = {
  /** Brings the code that a restricted session waits for; the session is whole then, and the answer what login kept. */
  "session.factor": op("session", false, struct({ code, blind }), opened),
  "account.factor": op(
    "session",
    false,
    struct({}),
    struct({
      /** null: the account has none. */
      enabledAtMs: nullable(u53),
      /** Recovery codes that were not used. */
      codes: uint(FACTOR.recoveryCodes),
      /** The server demands one of every account. */
      required: bool,
      /** This session was opened with a code a moment ago: it needs no further one. */
      proven: bool,
    }),
  ),
  /**
   * Sets the factor's key, proved by one of its codes, and the hashes of its recovery codes. Where there is one, `proof`
   * is a code of that one, or null in a session that brought one at its login.
   */
  "account.factor.enable": op(
    "session",
    false,
    struct({ key: bytes({ length: FACTOR.keyBytes }), code, recovery, proof: nullable(code), blind }),
    opened,
  ),
  "account.factor.codes": op(
    "session",
    false,
    struct({ recovery, proof: nullable(code), blind }),
    struct({ codes: uint(FACTOR.recoveryCodes) }),
  ),
  /** True where there was one. */
  "account.factor.disable": op("session", false, struct({ proof: nullable(code), blind }), struct({ disabled: bool })),
} as const;

/** What the reply to `session.login` holds under its seal. */
export const loginReply = struct({
  userId: id<UserId>(),
  expiresAtMs: u53,
  ...account,
  auditSeq: u53,
  auditLink: hash32,
});

/** The same where a second factor is asked for: nothing of the account but its id. */
export const restrictedReply = struct({ userId: id<UserId>(), expiresAtMs: u53, needs: oneOf(["factor", "enrol"]) });

type LoginAnswer = Of<typeof loginReply> | Of<typeof restrictedReply>;

/** True for the reply of a login that is to go on with a second factor. */
export const isRestricted = (reply: LoginAnswer): reply is Of<typeof restrictedReply> => "needs" in reply;

/** Either of the two. */
export const loginAnswer: Codec<LoginAnswer> = {
  decode: (value, path) =>
    typeof value === "object" && value !== null && Object.hasOwn(value, "needs")
      ? restrictedReply.decode(value, path)
      : loginReply.decode(value, path),
  encode: (reply) => (isRestricted(reply) ? restrictedReply.encode(reply) : loginReply.encode(reply)),
};
