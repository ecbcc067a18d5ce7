import { canon } from "../crypto/canon.ts";
import { type Signer, verifySignature } from "../crypto/identity.ts";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { OutputOf } from "./operations.ts";
import { pinOf } from "./pin.ts";

/** Signed facts about a server: the output of `server.statement` (docs/protocol.md §3.1). */
export type Statement = OutputOf<"server.statement">;

/** What is signed: every field but the signature, under its own label. */
export function statementBytes(statement: Omit<Statement, "signature">): Uint8Array {
  return canon(
    "keyhold/v1/server-statement",
    statement.identity,
    statement.number,
    statement.expiresAtMs,
    statement.opaqueKeys,
    statement.logKey,
    statement.nextIdentity,
    statement.incarnation,
    statement.registration,
  );
}

/** Completes a statement with the identity and its signature. */
export function signStatement(identity: Signer, facts: Omit<Statement, "identity" | "signature">): Statement {
  const unsigned = { ...facts, identity: identity.publicKey };
  return { ...unsigned, signature: identity.sign(statementBytes(unsigned)) };
}

/** What a client holds a statement against. */
export interface StatementExpectation {
  readonly pin: string;
  /** Number of the newest statement seen from this server; 0 at first contact. */
  readonly minNumber: number;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
}

/**
 * Accepts a statement of the pinned server: identity, signature, expiry (with the allowed clock skew), number.
 *
 * @throws Fault pin_mismatch for another identity; integrity for a bad signature, an expired or an older statement.
 */
export function verifyStatement(statement: Statement, expected: StatementExpectation): Statement {
  const pin = pinOf(statement.identity);
  if (pin !== expected.pin) {
    throw new Fault("pin_mismatch", "the server's identity is not the pinned one", { why: `it shows ${pin}` });
  }
  if (!verifySignature(statement.identity, statementBytes(statement), statement.signature)) {
    throw new Fault("integrity", "the server's statement does not carry its identity's signature");
  }
  if (statement.expiresAtMs + DEFAULTS.clockSkewMs <= expected.nowMs) {
    throw new Fault("integrity", "the server's statement has expired", {
      why: "it is an old copy, or this machine's clock is wrong",
    });
  }
  if (statement.number < expected.minNumber) {
    throw new Fault("integrity", "the server's statement is older than one seen before", {
      why: `number ${statement.number}, seen ${expected.minNumber}`,
    });
  }
  return statement;
}
