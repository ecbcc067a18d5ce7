const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** The one table of defaults (docs/protocol.md §1.5), printed by `keyhold config defaults`. */
export const DEFAULTS = {
  listen: "127.0.0.1:7443",
  sessionAbsoluteMs: 12 * HOUR,
  sessionIdleMs: HOUR,
  sessionsPerAccount: 64,
  replayWindow: 1_024,
  agentIdleMs: 15 * MINUTE,
  agentAbsoluteMs: 12 * HOUR,
  loginStateMs: MINUTE,
  loginFreeFailures: 10,
  loginFreeFailuresPerAddress: 100,
  loginBackoffFirstMs: SECOND,
  loginBackoffMaxMs: 15 * MINUTE,
  loginForgetMs: DAY,
  deviceTokenFailures: 10,
  approvalMs: DAY,
  requestMs: DAY,
  openRequests: 64,
  registryRequests: 10_000,
  registryWorkspaces: 10_000,
  tokenMs: 365 * DAY,
  tokensPerWorkspace: 32,
  reservationMs: DAY,
  ceremonyStageMs: HOUR,
  openCeremonies: 32,
  serverCeremonies: 10_000,
  ceremonyKeyOverlapMs: HOUR,
  ceremonyKeptMs: 90 * DAY,
  otpHandoutMs: 5 * MINUTE,
  otpHandoutKeptMs: DAY,
  otpPerHour: 120,
  otpKeyPerMinute: 1_200,
  otpFreeFailures: 5,
  otpKeys: 1_024,
  otpGrants: 256,
  clockSkewMs: 60 * SECOND,
  statementMs: 30 * DAY,
  bodyBytes: 128 * 1_024,
  headerTimeoutMs: 10 * SECOND,
  secretBytes: 64 * 1_024,
  fileBytes: 16 * 1_024 * 1_024,
  accountNameBytes: 128,
  nameBytes: 512,
  tags: 64,
  tagBytes: 128,
  fields: 64,
  shownUrls: 4,
  passwordMinBytes: 8,
  passwordMaxBytes: 1_024,
  inviteMs: 7 * DAY,
  inviteConflicts: 5,
  auditPage: 1_000,
  shadowAuditMs: DAY,
  changesPerRequest: 50,
  devicesPerAccount: 64,
  rotations: 64,
  wrapsPerRequest: 300,
  deviceLinkMs: 10 * MINUTE,
  deviceLinksPerAccount: 4,
  recoveryMs: 5 * MINUTE,
  freshLoginMs: 5 * MINUTE,
  factorMs: 10 * MINUTE,
  factorTries: 5,
  logBatchMs: SECOND,
  logMergeMs: MINUTE,
  logBatch: 250,
  generateBytes: 32,
  connectTimeoutMs: 2 * SECOND,
  awayMs: 15 * SECOND,
  requestTimeoutMs: 30 * SECOND,
  retryForMs: 10 * SECOND,
  readRetryForMs: 2 * SECOND,
  clipboardClearMs: 30 * SECOND,
  drainMs: 10 * SECOND,
} as const;

/** Argon2id settings by name: of OPAQUE's key stretching and of the local vault (docs/protocol.md §3.2, §7.2). */
export const KDF = {
  /** OPAQUE default and its compiled-in floor. */
  opaque: { memoryKib: 65_536, passes: 3, lanes: 4 },
  /** What a server may ask of a client at most. */
  opaqueCeiling: { memoryKib: 262_144, passes: 8, lanes: 8 },
  vault: { memoryKib: 262_144, passes: 3, lanes: 4 },
  /** The vault's cost where memory is short; also the floor on reading. */
  vaultSmall: { memoryKib: 65_536, passes: 3, lanes: 4 },
  /** Ceiling on reading: a file cannot make the reader allocate more. */
  vaultCeiling: { memoryKib: 1_048_576, passes: 16, lanes: 16 },
  /** For the 256-bit secrets of a federation alone, which cannot be guessed at any cost: no password is ever hashed so. */
  federation: { memoryKib: 64, passes: 1, lanes: 1 },
  /** Only behind `--kdf test` against a loopback server: insecure. */
  test: { memoryKib: 64, passes: 1, lanes: 1 },
} as const;

/** Version of the wire protocol; part of every channel key. */
export const PROTOCOL_VERSION = 1;
