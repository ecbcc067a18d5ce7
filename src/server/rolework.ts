import { equalBytes } from "../crypto/bytes.ts";
import { type ErrorCode, Fault } from "../errors.ts";
import type { AnyHashId, KeyId, UserId } from "../ids.ts";
import type { FrameHead } from "../protocol/channel.ts";
import type { AccountRow, AuditPosition, Tx } from "../storage/store.ts";
import { type Codec, encodeJson } from "../wire/codec.ts";
import { operations, type SessionOperation } from "../wire/operations.ts";
import { namedByKeyStore } from "./ceremony/named.ts";
import { isStaged, type KeyStoreService, noKeyStore } from "./ceremony/service.ts";
import type {
  Caller,
  FederatedCaller,
  FederatedOperation,
  KeyStoreOperation,
  RegistryOperation,
  ServerContext,
  StagedCaller,
} from "./context.ts";
import { asFault, faultReply } from "./faultreply.ts";
import { namedBy, shortId } from "./federation/named.ts";
import { type FederationService, noRole } from "./federation/service.ts";
import { isFederated, isKeyStore } from "./handlers/index.ts";
import { namedByRegistry } from "./keyring/named.ts";
import { noRegistry, type RegistryService } from "./keyring/service.ts";

/** Where an account stands, as each reply says. */
export interface Position {
  readonly revision: number;
  readonly stateHash: Uint8Array;
}

/** What came of a request of a session. */
export interface Done {
  readonly position: Position;
  readonly audit: AuditPosition;
  readonly ok: boolean;
  readonly body: string;
  readonly fault?: Fault;
}

export const positionOf = (account: AccountRow): Position => ({
  revision: account.state.state.revision,
  stateHash: account.stateHash,
});

export const SESSION_OVER = () => new Fault("session_invalid", "the session is over or was never open");

/** Failures that leave no entry: nobody is known to have asked, or the store cannot take one. */
export const UNRECORDED: ReadonlySet<string> = new Set<ErrorCode>([
  "session_invalid",
  "replayed",
  "unavailable",
  // the request id decides: what the client sends again finds the recorded answer, or is done now
  "outcome_unknown",
  "storage",
]);

/** Polls that find what they ask for or nothing leave no entry; what they bring about does (docs/protocol.md §9.6). */
const UNNOTED: ReadonlySet<string> = new Set<SessionOperation>(["party.tasks"]);

/** Operations of the server's roles: each brings its own transactions. */
export type RoleOperation = FederatedOperation | RegistryOperation | KeyStoreOperation;

/** What an operation of a role is about, by its input. */
function namedByRole(name: RoleOperation, input: unknown): AnyHashId | undefined {
  if (isFederated(name)) return namedBy(name, input as never);
  return isKeyStore(name) ? namedByKeyStore(name, input as never) : namedByRegistry(name, input as never);
}

/** The server's roles; null where it can have none. */
interface Roles {
  readonly federation: FederationService | null;
  readonly registry: RegistryService | null;
  readonly keyStore: KeyStoreService | null;
}

/** What the dispatcher does in its own transactions. */
interface House {
  /** Session, replay window and account: nothing happens without them. */
  enter(tx: Tx, head: FrameHead, userId: UserId, name: SessionOperation): Promise<AccountRow>;
  record(
    tx: Tx,
    caller: Caller,
    name: SessionOperation,
    status: string,
    keyIds: readonly KeyId[],
    stateHash: Uint8Array | null,
  ): Promise<AuditPosition>;
  onFault(error: unknown): void;
}

/** Makes the way of all requests whose work is outside a transaction: one admits the caller, another one records. */
export function createRoleWork(ctx: ServerContext, house: House, roles: Roles) {
  function workOf(name: RoleOperation): (caller: never, input: never) => Promise<unknown> {
    if (isFederated(name)) {
      if (!roles.federation) throw noRole();
      return roles.federation[name];
    }
    if (isKeyStore(name)) {
      if (!roles.keyStore) throw noKeyStore();
      return roles.keyStore[name];
    }
    if (!roles.registry) throw noRegistry();
    return roles.registry[name];
  }

  /** The account as it is now: most often as it was when the session was admitted. @throws Fault session_invalid */
  async function accountNow(tx: Tx, before: AccountRow): Promise<AccountRow> {
    const hash = await tx.stateHashOf(before.userId);
    if (hash && equalBytes(hash, before.stateHash)) return before;
    const account = hash && (await tx.account(before.userId));
    if (!account) throw SESSION_OVER();
    return account;
  }

  return async (
    name: RoleOperation,
    head: FrameHead,
    userId: UserId,
    input: unknown,
    bodyHash: Uint8Array,
    address: string,
  ): Promise<Done> => {
    const about = { sessionId: head.sessionId, requestId: head.requestId, address, bodyHash };
    const output = operations[name].output as Codec<unknown>;
    let named = namedByRole(name, input);
    let entered: AccountRow | undefined;
    let done: Done | undefined;

    async function admit<T>(work: (tx: Tx, account: AccountRow) => Promise<T>): Promise<T> {
      const { account, value } = await ctx.store.transaction(async (tx) => {
        const account = await house.enter(tx, head, userId, name);
        return { account, value: await work(tx, account) };
      }, userId);
      entered = account;
      return value;
    }

    async function conclude(tx: Tx, account: AccountRow, body: string, fault?: Fault): Promise<Done> {
      if (!fault && UNNOTED.has(name))
        return { position: positionOf(account), audit: await tx.auditPosition(userId), ok: true, body };
      const keyIds = named === undefined ? [] : [shortId(named)];
      const audit = await house.record(tx, { account, ...about }, name, fault?.code ?? "ok", keyIds, null);
      return { position: positionOf(account), audit, ok: !fault, body, ...(fault && { fault }) };
    }

    const staged: StagedCaller = {
      first: admit,
      async last(work, answer, near) {
        const ended = await ctx.store.transaction(async (tx) => {
          const value = await work(tx);
          const said = answer(value);
          if (said === null) return { value, done: undefined };
          if (!entered) throw SESSION_OVER();
          return { value, done: await conclude(tx, await accountNow(tx, entered), encodeJson(output, said)) };
        }, near);
        done = ended.done;
        return ended.value;
      },
    };

    async function callerNow(): Promise<StagedCaller | FederatedCaller> {
      if (isStaged(name)) return staged;
      const account = await admit(async (_, row) => row);
      const concerns = (id: AnyHashId) => {
        named = id;
      };
      return { account, ...about, concerns };
    }

    const caller = await callerNow();
    let body: string;
    let fault: Fault | undefined;
    try {
      const said = await workOf(name)(caller as never, input as never);
      if (done) return done;
      body = encodeJson(output, said);
    } catch (error) {
      fault = asFault(error);
      if (fault.code === "internal") house.onFault(error);
      if (UNRECORDED.has(fault.code)) throw fault;
      body = String(faultReply(fault).body);
    }
    return ctx.store.transaction(async (tx) => {
      // a failure of the first transaction has undone that the session was used; one that may not ask learns no other
      const account = entered ? await accountNow(tx, entered) : await house.enter(tx, head, userId, name);
      return conclude(tx, account, body, fault);
    }, userId);
  };
}
