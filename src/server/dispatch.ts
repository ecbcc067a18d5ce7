import { equalBytes } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { KeyId, SessionId, UserId } from "../ids.ts";
import {
  type ChannelKeys,
  channelKeys,
  type FrameHead,
  frameHead,
  openRequest,
  sealReply,
  useSequence,
} from "../protocol/channel.ts";
import { type Settings, type SignedState, verifyStateAhead } from "../protocol/state.ts";
import type { AccountRow, AuditPosition, Tx } from "../storage/store.ts";
import { type Codec, decodeJson, encodeJson } from "../wire/codec.ts";
import { isOperation, operations, replyHead, requestHash, type SessionOperation } from "../wire/operations.ts";
import { openSessionKey } from "./accounts.ts";
import { appendEvent } from "./audit.ts";
import type { KeyStoreService } from "./ceremony/service.ts";
import { createClear, type Reply } from "./clear.ts";
import type {
  Caller,
  HandlerResult,
  HouseOperation,
  Refusal,
  Remote,
  ServerContext,
  SessionHandler,
} from "./context.ts";
import { demandFactor } from "./factor.ts";
import { asFault, faultReply } from "./faultreply.ts";
import type { FederationService } from "./federation/service.ts";
import { isFederated, isKeyStore, isRegistry, needsSession, sessionHandlers } from "./handlers/index.ts";
import { sessionAlive } from "./handlers/session.ts";
import type { RegistryService } from "./keyring/service.ts";
import { namedKeys } from "./namedkeys.ts";
import { promiseOf } from "./promise.ts";
import { createRoleWork, type Done, positionOf, SESSION_OVER, UNRECORDED } from "./rolework.ts";

export type { Reply };

const encoder = new TextEncoder();

interface Cached {
  readonly userId: UserId;
  readonly keys: ChannelKeys;
}

/** Answers requests: decode, authenticate, dispatch, encode (docs/protocol.md §4). */
export interface Dispatcher {
  handle(
    name: string,
    contentType: string,
    body: Uint8Array,
    remote: Pick<Remote, "address"> & Partial<Remote>,
  ): Promise<Reply>;
}

const CACHE_MAX = 10_000;
const SETTINGS_MAX = 1_024;

/** True for the input of a mutation, which brings the account's next state. */
function carriesState(input: unknown): input is { readonly state: SignedState } {
  return typeof input === "object" && input !== null && "state" in input;
}

/**
 * Makes the one entry point of all operations.
 *
 * @param federation The server's role in federations; null where it can have none.
 * @param registry Its role as a registry; null where it is none.
 * @param keyStore Its ceremonies and stored keys; null where it has no enclave of its own.
 */
export function createDispatcher(
  ctx: ServerContext,
  onFault: (error: unknown) => void,
  federation: FederationService | null = null,
  registry: RegistryService | null = null,
  keyStore: KeyStoreService | null = null,
): Dispatcher {
  const inClear = createClear(ctx, federation, registry, keyStore);
  /** Keys only: whether a session lives is asked of the store every time. */
  const cache = new Map<SessionId, Cached>();
  /** A guess which keys the next state will be signed with: what is verified ahead by it counts for nothing else. */
  const lastSettings = new Map<UserId, Settings>();

  async function keysOf(sessionId: SessionId): Promise<Cached> {
    const known = cache.get(sessionId);
    if (known) return known;
    const row = await ctx.store.transaction((tx) => tx.session(sessionId));
    if (!row) throw SESSION_OVER();
    const sessionKey = openSessionKey(ctx, row);
    const made = { userId: row.userId, keys: channelKeys(sessionKey, ctx.keys.identity, row.userId, sessionId) };
    sessionKey.fill(0);
    if (cache.size >= CACHE_MAX) cache.clear();
    cache.set(sessionId, made);
    return made;
  }

  /**
   * Session, replay window and account in the caller's transaction: nothing happens without them.
   *
   * @param name What is to be done, which a restricted session may refuse; null: the refusal is noted.
   */
  async function enter(tx: Tx, head: FrameHead, userId: UserId, name: SessionOperation | null): Promise<AccountRow> {
    const row = await tx.session(head.sessionId);
    // the keys that opened the frame are of this account: a row that was moved meanwhile serves no other
    if (!row || row.userId !== userId || !sessionAlive(ctx, row)) throw SESSION_OVER();
    const used = useSequence(row, head.sequence);
    if (!used) throw new Fault("replayed", "this frame was used before");
    if (name !== null) demandFactor(row.factor, name);
    await tx.touchSession(head.sessionId, { lastUsedMs: ctx.now(), ...used });
    const account = await tx.account(userId);
    if (!account || account.disabled) throw SESSION_OVER();
    if (lastSettings.size >= SETTINGS_MAX) lastSettings.clear();
    lastSettings.set(userId, account.settings);
    return account;
  }

  async function record(
    tx: Tx,
    caller: Caller,
    name: SessionOperation,
    status: string,
    keyIds: readonly KeyId[],
    stateHash: Uint8Array | null,
  ): Promise<AuditPosition> {
    const event = {
      userId: caller.account.userId,
      action: name,
      status,
      requestId: caller.requestId,
      session: caller.sessionId,
      bodyHash: caller.bodyHash,
      stateHash,
    };
    let head = await appendEvent(ctx, tx, { ...event, keyId: keyIds[0] ?? null });
    for (const keyId of keyIds.slice(1)) head = await appendEvent(ctx, tx, { ...event, keyId });
    return head;
  }

  const outside = createRoleWork(ctx, { enter, record, onFault }, { federation, registry, keyStore });

  async function attempt<N extends HouseOperation>(
    name: N,
    head: FrameHead,
    userId: UserId,
    input: unknown,
    hash: Uint8Array,
    address: string,
  ): Promise<Done> {
    return ctx.store.transaction(async (tx) => {
      const account = await enter(tx, head, userId, name);
      const caller: Caller = { account, sessionId: head.sessionId, requestId: head.requestId, address, bodyHash: hash };
      const { mutation, output } = operations[name] as { mutation: boolean; output: Codec<unknown> };
      if (mutation) {
        const before = await tx.request(account.userId, head.requestId);
        if (before) {
          if (!equalBytes(before.bodyHash, hash))
            throw new Fault("conflict", "this request id was used for another request");
          return {
            position: positionOf(account),
            audit: await tx.auditPosition(account.userId),
            ok: before.status === "ok",
            body: before.reply,
          };
        }
      }
      const run = sessionHandlers[name] as unknown as SessionHandler<HouseOperation>;
      const result = (await run(ctx, tx, caller, input as never)) as HandlerResult<unknown> | Refusal;
      if ("refused" in result) {
        const { refused: fault } = result;
        const audit = await record(tx, caller, name, fault.code, [], null);
        return { position: positionOf(account), audit, ok: false, body: String(faultReply(fault).body), fault };
      }
      const body = encodeJson(output, result.output);
      if (mutation) {
        await tx.putRequest({
          userId,
          requestId: head.requestId,
          bodyHash: hash,
          operation: name,
          status: "ok",
          reply: body,
        });
      }
      const audit = await record(tx, caller, name, "ok", result.keyIds ?? [], result.stateHash ?? null);
      await result.last?.();
      // a mutation moves the account by exactly one state: no second look at the row
      const position = result.stateHash
        ? { revision: account.state.state.revision + 1, stateHash: result.stateHash }
        : positionOf(account);
      return { position, audit, ok: true, body };
    }, userId);
  }

  /** A failure is an event too; a stale state is also the final answer to its request id. */
  async function fail(
    name: SessionOperation,
    head: FrameHead,
    userId: UserId,
    fault: Fault,
    keyIds: readonly KeyId[],
    hash: Uint8Array,
    address: string,
  ): Promise<Done> {
    const body = String(faultReply(fault).body);
    return ctx.store.transaction(async (tx) => {
      const account = await enter(tx, head, userId, null);
      const caller = { account, sessionId: head.sessionId, requestId: head.requestId, address, bodyHash: hash };
      if (fault.code === "stale") {
        await tx.putRequest({
          userId,
          requestId: head.requestId,
          bodyHash: hash,
          operation: name,
          status: "stale",
          reply: body,
        });
      }
      const audit = await record(tx, caller, name, fault.code, keyIds, null);
      return { position: positionOf(account), audit, ok: false, body, fault };
    }, userId);
  }

  async function inSession(name: SessionOperation, frame: Uint8Array, address: string): Promise<Reply> {
    const head = frameHead(frame);
    const { userId, keys } = await keysOf(head.sessionId);
    let plain: Uint8Array;
    try {
      plain = openRequest(keys, head, name, frame);
    } catch {
      // one answer for a wrong key, another operation, a flipped bit
      throw new Fault("bad_input", "the frame does not belong to this session and operation");
    }
    let done: Done;
    let input: unknown;
    let hash: Uint8Array = new Uint8Array(32);
    try {
      input = decodeJson(operations[name].input as Codec<unknown>, plain);
      hash = requestHash(name, input as never);
      const expected = lastSettings.get(userId);
      if (expected && carriesState(input)) await verifyStateAhead(input.state, expected);
      const run =
        isFederated(name) || isRegistry(name) || isKeyStore(name)
          ? outside(name, head, userId, input, hash, address)
          : attempt(name, head, userId, input, hash, address);
      done = await run;
    } catch (error) {
      const fault = asFault(error);
      if (fault.code === "internal") onFault(error);
      if (fault.code === "session_invalid") cache.delete(head.sessionId);
      if (UNRECORDED.has(fault.code)) throw fault;
      done = await fail(name, head, userId, fault, namedKeys(input), hash, address);
    } finally {
      plain.fill(0);
    }
    if (name === "session.close") cache.delete(head.sessionId);
    const summary = encodeJson(replyHead, {
      head: {
        revision: done.position.revision,
        stateHash: done.position.stateHash,
        auditSeq: done.audit.seq,
        auditLink: done.audit.link,
      },
      ok: done.ok,
      promise: operations[name].mutation ? promiseOf(ctx, userId, done.audit) : null,
    });
    const body = sealReply(keys, head, name, frame, encoder.encode(`${summary}\n${done.body}`), ctx.random);
    const status = done.fault?.http ?? 200;
    return { status, contentType: "application/octet-stream", body, outcome: done.fault?.code ?? "ok" };
  }

  return {
    async handle(name, contentType, body, remote) {
      try {
        if (!isOperation(name)) throw new Fault("not_found", "no such operation");
        const wanted = needsSession(name) ? "application/octet-stream" : "application/json";
        if (contentType !== wanted) throw new Fault("unsupported", `this operation takes ${wanted}`);
        if (needsSession(name)) return await inSession(name, body, remote.address);
        return await inClear(name, body, { authorization: null, ...remote });
      } catch (error) {
        const fault = asFault(error);
        if (fault.code === "internal") onFault(error);
        return faultReply(fault);
      }
    },
  };
}
