/** Every failure keyhold can name. `http` is the status on the wire, `exit` the process exit code (docs/cli.md). */
interface CodeRow {
  readonly http: number;
  readonly exit: number;
  readonly hint?: string;
}

const CODES = {
  bad_input: { http: 400, exit: 2 },
  too_large: { http: 413, exit: 2, hint: "send less at once" },
  method_not_allowed: { http: 405, exit: 2 },
  unsupported: { http: 415, exit: 2 },
  usage: { http: 400, exit: 2 },
  input_needed: { http: 400, exit: 2 },
  not_found: { http: 404, exit: 3 },
  login_failed: { http: 401, exit: 4, hint: "check the account name and the password" },
  wrong_password: { http: 401, exit: 4, hint: "check the password" },
  factor_required: { http: 401, exit: 4, hint: "keyhold login   (scripts: --factor-file FILE)" },
  factor_failed: { http: 401, exit: 4, hint: "wait for the next code, or give a recovery code" },
  session_invalid: { http: 401, exit: 4, hint: "keyhold login" },
  not_logged_in: { http: 401, exit: 4, hint: "keyhold login" },
  locked: { http: 401, exit: 4, hint: "keyhold unlock   (scripts: --password-fd 3)" },
  password_needed: { http: 401, exit: 4, hint: "keyhold login   (scripts: --password-file FILE)" },
  denied: { http: 403, exit: 5 },
  exists: { http: 409, exit: 6 },
  conflict: { http: 409, exit: 6 },
  stale: { http: 409, exit: 6, hint: "run the command again" },
  ambiguous: { http: 409, exit: 6, hint: "give the whole name" },
  replayed: { http: 409, exit: 8 },
  unreachable: { http: 503, exit: 7, hint: "is the server running, and is the URL right?" },
  tls_refused: { http: 503, exit: 7 },
  pin_mismatch: { http: 503, exit: 7, hint: "compare the pin with the one that `keyhold serve` prints" },
  unavailable: { http: 503, exit: 7, hint: "try again shortly" },
  outcome_unknown: { http: 503, exit: 7, hint: "run the command again: it repeats the same request" },
  integrity: { http: 422, exit: 8, hint: "do not trust this server's answers; compare with another device" },
  corrupt: { http: 422, exit: 8 },
  pending: { http: 202, exit: 9 },
  partly_done: { http: 200, exit: 10 },
  timed_out: { http: 408, exit: 11 },
  rate_limited: { http: 429, exit: 12, hint: "wait, then try again" },
  storage: { http: 507, exit: 1, hint: "free disk space or mend permissions, then try again" },
  interrupted: { http: 499, exit: 130 },
  internal: { http: 500, exit: 1, hint: "this is a bug in keyhold: please report it" },
} as const satisfies Record<string, CodeRow>;

export type ErrorCode = keyof typeof CODES;

/** True when `text` names a known code. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(CODES, text);
}

/** What may go beside the message of a {@link Fault}. */
export interface FaultDetails {
  /** The reason, for people: one clause without a secret in it. */
  readonly why?: string;
  /** How to mend it; replaces the code's own hint. */
  readonly hint?: string;
  /** Milliseconds until a new try makes sense (rate limits). */
  readonly retryAfterMs?: number;
  /** What is known all the same, for programs: what the command's data would say. */
  readonly data?: Readonly<Record<string, unknown>>;
  /** Names of servers whose message failed verification. */
  readonly culprits?: readonly string[];
  /** The request that failed, where one was made; never at login. */
  readonly requestId?: string;
}

/**
 * The only error class. Its code fixes HTTP status, exit code and hint (docs/cli.md).
 * Never put a secret, a password or a ciphertext into message, why, hint or data.
 */
export class Fault extends Error {
  readonly code: ErrorCode;
  readonly why: string | undefined;
  readonly hint: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly data: Readonly<Record<string, unknown>> | undefined;
  readonly culprits: readonly string[];
  readonly requestId: string | undefined;

  constructor(code: ErrorCode, message: string, details: FaultDetails = {}) {
    super(message);
    this.name = "Fault";
    this.code = code;
    this.why = details.why;
    const row: CodeRow = CODES[code];
    this.hint = details.hint ?? row.hint;
    this.retryAfterMs = details.retryAfterMs;
    this.data = details.data;
    this.culprits = details.culprits ?? [];
    this.requestId = details.requestId;
  }

  /** HTTP status of this fault's code. */
  get http(): number {
    return CODES[this.code].http;
  }

  /** Process exit code of this fault's code. */
  get exit(): number {
    return CODES[this.code].exit;
  }
}

/** Every code with its exit status, for `keyhold help exit-codes` and docs. */
export function errorTable(): readonly { code: ErrorCode; exit: number; http: number }[] {
  return (Object.keys(CODES) as ErrorCode[]).map((code) => ({
    code,
    exit: CODES[code].exit,
    http: CODES[code].http,
  }));
}
