import type { RandomSource } from "../crypto/bytes.ts";
import type { Signer } from "../crypto/identity.ts";
import type { Argon2Cost } from "../crypto/kdf.ts";
import type { Fault } from "../errors.ts";
import type { AnyHashId, IncarnationId, KeyId, RequestId, SessionId } from "../ids.ts";
import type { DEFAULTS } from "../protocol/defaults.ts";
import type { AccountRow, Store, Tx } from "../storage/store.ts";
import type { InputOf, OperationName, OutputOf, SessionOperation, TokenOperation } from "../wire/operations.ts";
import type { OpaquePool } from "./opaque.ts";

/** Limits and times; DEFAULTS unless a test passes others. */
export type Limits = { readonly [K in keyof typeof DEFAULTS]: (typeof DEFAULTS)[K] extends number ? number : string };

/** One OPAQUE server set-up and the name under which records refer to it. */
export interface OpaqueSetup {
  readonly id: string;
  readonly setup: string;
}

/** Secrets of the server that lie outside the database (docs/operations.md). */
export interface HandlerKeys {
  /** Ed25519 public key of the server's identity, 32 bytes. */
  readonly identity: Uint8Array;
  /** HMAC key that turns account names into credential ids; never rotates. */
  readonly accountName: Uint8Array;
  readonly sealing: Uint8Array;
  /** The sealing key before, while names are sealed anew; otherwise null. */
  readonly previousSealing: Uint8Array | null;
  /** Makes the pseudo-accounts of unknown names. */
  readonly shadow: Uint8Array;
  readonly opaque: OpaqueSetup;
  /** The set-up before, while its window is open; otherwise null. */
  readonly previousOpaque: OpaqueSetup | null;
}

/** Name and keys of the server-wide log. */
export interface LogKeys {
  /** `logOrigin` of the server's identity and incarnation. */
  readonly origin: string;
  /** The current key first, which signs promises; while a rotation lasts the old one too, which signs checkpoints. */
  readonly signers: readonly [Signer, ...Signer[]];
}

/** Everything a handler depends on. */
export interface ServerContext {
  readonly store: Store;
  readonly now: () => number;
  readonly random: RandomSource;
  readonly keys: HandlerKeys;
  readonly pool: OpaquePool;
  readonly limits: Limits;
  readonly ksf: Argon2Cost;
  readonly registration: "open" | "invite" | "closed";
  /** `required`: a session of an account without a second factor can do nothing but enrol one. Left out: optional. */
  readonly secondFactor?: "optional" | "required";
  readonly incarnation: IncarnationId;
  readonly log: LogKeys;
  /** The signed statement of this moment. */
  readonly statement: () => OutputOf<"server.statement">;
}

/** Operations that ask the enclave or other machines: they cannot run inside a transaction (docs/protocol.md §8.10). */
export type FederatedOperation = Extract<SessionOperation, `federation.${string}`>;

/** Operations of the registry of workspaces and keyrings: each brings its own transactions (docs/protocol.md §9). */
export type RegistryOperation = Extract<
  SessionOperation,
  `keyring.${string}` | `workspace.${string}` | `party.${string}`
>;

/** Operations of the key store: ceremonies and one-time passwords; likewise (docs/protocol.md §10). */
export type KeyStoreOperation = Extract<SessionOperation, `ceremony.${string}` | `otp.${string}`>;

/** Where a request came from. */
export interface Remote {
  readonly address: string;
  /** What stood in the header `Authorization` of an operation for tokens; else null. */
  readonly authorization: string | null;
}

/** Who asks, inside a session. */
export interface Caller {
  readonly account: AccountRow;
  readonly sessionId: SessionId;
  readonly requestId: RequestId;
  readonly address: string;
  /** Hash of the request's body without its state. */
  readonly bodyHash: Uint8Array;
}

/** Who asks for a federated operation; the account's row is that of the moment when the session was checked. */
export interface FederatedCaller extends Caller {
  /**
   * Says which key or request the audit entry names: the first 128 bits of its id. The last word counts; without one
   * it is what the input names.
   */
  concerns(id: AnyHashId): void;
}

/**
 * Who asks for an operation whose first and last transactions are the dispatcher's too: one commit less at each end.
 * What work throws in either undoes that transaction, and the failure is recorded in one of its own.
 */
export interface StagedCaller {
  /** Admits the session, with the work: before anything else, once. */
  first<T>(work: (tx: Tx, account: AccountRow) => Promise<T>): Promise<T>;
  /** Does the work and, where `answer` has the operation's output, records it as what came of the request. */
  last<T>(work: (tx: Tx) => Promise<T>, answer: (value: T) => object | null, near: string): Promise<T>;
}

/**
 * Work of one session operation inside its transaction. A thrown Fault undoes its writes and becomes a failed audit
 * entry.
 */
export type SessionHandler<N extends HouseOperation> = (
  ctx: ServerContext,
  tx: Tx,
  caller: Caller,
  input: InputOf<N>,
) => Promise<HandlerResult<OutputOf<N>> | Refusal>;

/** A refusal whose writes stay, such as the count of a wrong code. */
export interface Refusal {
  readonly refused: Fault;
}

/** A handler's answer. */
export interface HandlerResult<O> {
  readonly output: O;
  /** Keys that get an audit entry each; none means one entry without a key. */
  readonly keyIds?: readonly KeyId[];
  /** Hash of the state that a mutation made current. */
  readonly stateHash?: Uint8Array;
  /** Runs at the end of the transaction, after answer and audit entry were written. */
  readonly last?: () => Promise<void>;
}

/** Session operations that run in one transaction. */
export type HouseOperation = Exclude<SessionOperation, FederatedOperation | RegistryOperation | KeyStoreOperation>;
export type FederatedAnonymousOperation = Extract<Exclude<OperationName, SessionOperation>, `federation.${string}`>;
export type RegistryAnonymousOperation = Extract<Exclude<OperationName, SessionOperation>, `keyring.${string}`>;
export type KeyStoreTokenOperation = Extract<TokenOperation, `otp.${string}`>;
export type KeyStoreAnonymousOperation = Extract<
  Exclude<OperationName, SessionOperation | TokenOperation>,
  `ceremony.${string}` | `otp.${string}`
>;
export type AnonymousOperation = Exclude<
  OperationName,
  | SessionOperation
  | TokenOperation
  | FederatedAnonymousOperation
  | RegistryAnonymousOperation
  | KeyStoreAnonymousOperation
>;

/** Work of one operation without a session: brings its own transactions and audit entries. */
export type AnonymousHandler<N extends AnonymousOperation> = (
  ctx: ServerContext,
  remote: { readonly address: string },
  input: InputOf<N>,
) => Promise<OutputOf<N>>;
