import type { Fault } from "../errors.ts";
import type { RequestId } from "../ids.ts";

/** What mends a login to a server that asks every account for a second factor. */
export const ENROL_HINT = "keyhold account factor enable";

/** An account's second factor. */
export interface FactorStatus {
  enabled: boolean;
  enabledAt: string | null;
  /** Those that were not used. */
  recoveryCodes: number;
  /** The server demands one of every account. */
  required: boolean;
  /** This session brought a code a moment ago: changes need no further one. */
  proven: boolean;
  requestId: RequestId | null;
}

/** Calls of the client API about the second factor. */
export interface FactorClient {
  /** How the account stands towards its second factor (docs/protocol.md §10.9). */
  factor(): Promise<FactorStatus>;
  /**
   * Sets the second factor, or replaces it: `key` are 20 random bytes (not retained), `code` one of their codes,
   * `recovery` ten recovery codes that the owner keeps; `proof` is a code of the factor before. Needs a login of the
   * last five minutes, and ends every other session of the account.
   */
  enableFactor(input: {
    key: Uint8Array;
    code: string;
    recovery: readonly string[];
    /** null: there was none, or this session brought a code at its login. */
    proof: string | null;
  }): Promise<{ enabled: boolean; requestId: RequestId | null }>;
  /** Ten new recovery codes, kept nowhere; those before are void. */
  renewFactorCodes(input: {
    proof: string | null;
  }): Promise<{ recovery: readonly string[]; requestId: RequestId | null }>;
  /** Takes it off the account; `disabled` is false where there was none. */
  disableFactor(input: { proof: string | null }): Promise<{ disabled: boolean; requestId: RequestId | null }>;
}

/** Answers what a login asks for beyond the password (docs/protocol.md §10.9). */
export interface FactorSource {
  /**
   * A code of the authenticator or a recovery code, as typed; null where there is none to give.
   *
   * @param refused Why the one before was not taken.
   */
  code(refused: Fault | null): Promise<string | null>;
  /** Makes a second factor for an account that the server asks for one; absent: the login fails. */
  readonly enrol?: (refused: Fault | null) => Promise<NewFactor>;
}

/** A second factor that is to be set. */
export interface NewFactor {
  /** 20 random bytes, as the authenticator has them now. */
  readonly key: Uint8Array;
  /** A code of it, as typed. */
  readonly code: string;
  /** Ten recovery codes, which the owner keeps. */
  readonly recovery: readonly string[];
}
