import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import type { KeyholdClient, StoreInput } from "../../src/client/api.ts";
import { createClient } from "../../src/client/client.ts";
import { logIn } from "../../src/client/login.ts";
import { decodeModel } from "../../src/client/model.ts";
import type { Open } from "../../src/client/opened.ts";
import type { HeadSummary, Link, Session, ShownPromise } from "../../src/client/session.ts";
import { readVaultFile } from "../../src/client/vaultfile.ts";
import { type ErrorCode, Fault } from "../../src/errors.ts";
import type { UserId } from "../../src/ids.ts";
import { auditPseudonym } from "../../src/protocol/audit.ts";
import {
  type ChannelKeys,
  channelKeys,
  frameHead,
  openReply,
  openRequest,
  sealReply,
} from "../../src/protocol/channel.ts";
import { signPromise } from "../../src/protocol/log.ts";
import { openVaultWithKey } from "../../src/protocol/vault.ts";
import { openSessionKey } from "../../src/server/accounts.ts";
import type { Reply } from "../../src/server/dispatch.ts";
import { type Codec, decodeJson, encodeJson } from "../../src/wire/codec.ts";
import {
  errorBody,
  type InputOf,
  type OutputOf,
  operations,
  replyHead,
  type SessionOperation,
} from "../../src/wire/operations.ts";
import {
  type Middle,
  passwordOf,
  random,
  startTestServer,
  type TestDevice,
  type TestServer,
  testSurroundings,
} from "./harness.ts";

/** Somebody who holds a server's keys and database: can open, edit and seal again whatever it says in a session. */
export interface Liar {
  readonly server: Pick<TestServer, "ctx" | "store" | "dispatcher">;
}

/** A fully malicious server in this process: the honest one, and before it a {@link Liar}. */
export interface Villain extends Liar {
  server: TestServer;
  /** Runs before each request reaches the honest server; null: honest. */
  attack: Middle | null;
  readonly link: Link;
  /** Operations that reached the honest server, with the frames or bodies as they came. */
  readonly seen: { operation: string; body: Uint8Array }[];
  /** Plays `attack` while `work` runs, then is honest again. */
  during<T>(attack: Middle, work: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

const bytesOf = (body: Uint8Array | string): Uint8Array =>
  typeof body === "string" ? new TextEncoder().encode(body) : body;

/** Starts one. */
export async function startVillain(options: Parameters<typeof startTestServer>[0] = {}): Promise<Villain> {
  const server = await startTestServer({
    ...options,
    limits: { loginFreeFailures: 10_000, loginFreeFailuresPerAddress: 10_000, ...options.limits },
  });
  return villainOver(server);
}

/** A villain over a server that is there already. */
export function villainOver(first: TestServer): Villain {
  const base = first.link();
  const villain: Villain = {
    server: first,
    attack: null,
    seen: [],
    link: {
      identity: base.identity,
      statementNumber: base.statementNumber,
      statement: base.statement,
      opaqueKeys: base.opaqueKeys,
      async post(operation, contentType, body) {
        const forward = (name: string, bytes: Uint8Array): Promise<Reply> => {
          villain.seen.push({ operation: name, body: bytes });
          return villain.server.dispatcher.handle(name, contentType, bytes, { address: "127.0.0.1" });
        };
        const { attack } = villain;
        const reply = await (attack ? attack(operation, bytesOf(body), forward) : forward(operation, bytesOf(body)));
        return { status: reply.status, contentType: reply.contentType, body: bytesOf(reply.body) };
      },
    },
    async during(attack, work) {
      villain.attack = attack;
      try {
        return await work();
      } finally {
        villain.attack = null;
      }
    },
    close: () => villain.server.close(),
  };
  return villain;
}

/** The keys of the session that a frame belongs to, as the server knows them. */
async function keysOfFrame(villain: Liar, frame: Uint8Array): Promise<ChannelKeys & { userId: UserId }> {
  const { ctx, store } = villain.server;
  const { sessionId } = frameHead(frame);
  const row = await store.transaction((tx) => tx.session(sessionId));
  if (!row) throw new Error("no such session");
  const keys = channelKeys(openSessionKey(ctx, row), ctx.keys.identity, row.userId, sessionId);
  return { ...keys, userId: row.userId };
}

/** What a session operation's reply says, opened. */
interface Opened<N extends SessionOperation> {
  readonly operation: N;
  readonly request: InputOf<N>;
  readonly userId: UserId;
  head: HeadSummary;
}

export type Edits = {
  readonly [N in SessionOperation]?: (output: OutputOf<N>, call: Opened<N>) => OutputOf<N> | Promise<OutputOf<N>>;
};

/** Edits successful replies by operation; with `head` also the position that every reply shows. The rest stays as it is. */
export function editing(
  villain: Liar,
  edits: Edits,
  head?: (head: HeadSummary, userId: UserId) => HeadSummary | Promise<HeadSummary>,
  promise: (promise: ShownPromise | null, head: HeadSummary, userId: UserId) => ShownPromise | null = (given) => given,
): Middle {
  return async (operation, frame, forward) => {
    if (!Object.hasOwn(operations, operation) || operations[operation as SessionOperation].auth !== "session") {
      return forward(operation, frame);
    }
    const name = operation as SessionOperation;
    const keys = await keysOfFrame(villain, frame);
    const at = frameHead(frame);
    const reply = await forward(operation, frame);
    if (reply.contentType !== "application/octet-stream") return reply;
    const plain = openReply(keys, at, name, frame, bytesOf(reply.body));
    const cut = plain.indexOf(10);
    const summary = decodeJson(replyHead, plain.subarray(0, cut));
    const call = {
      operation: name,
      request: decodeJson(operations[name].input as Codec<unknown>, openRequest(keys, at, name, frame)),
      userId: keys.userId,
      head: head ? await head(summary.head, keys.userId) : summary.head,
    };
    let text = new TextDecoder().decode(plain.subarray(cut + 1));
    const edit = edits[name] as ((output: unknown, call: unknown) => unknown) | undefined;
    if (edit && summary.ok) {
      const output = decodeJson(operations[name].output as Codec<unknown>, plain.subarray(cut + 1));
      text = encodeJson(operations[name].output as Codec<unknown>, await edit(output, call));
    }
    const moved = call.head === summary.head ? summary.promise : await promiseFor(villain, keys.userId, call.head);
    const promised = promise(summary.promise && moved, call.head, keys.userId);
    const honest =
      promised === summary.promise &&
      text === new TextDecoder().decode(plain.subarray(cut + 1)) &&
      call.head === summary.head;
    if (honest) return reply;
    return sealed(
      keys,
      at,
      name,
      frame,
      encodeJson(replyHead, { ...summary, head: call.head, promise: promised }),
      text,
    );
  };
}

/** The promise that the server's log key signs for any position that it shows. */
async function promiseFor({ server }: Liar, userId: UserId, head: HeadSummary): Promise<ShownPromise> {
  const { log, now } = server.ctx;
  const { logSalt } = await server.store.transaction((tx) => tx.auditPosition(userId));
  if (!logSalt) throw new Error("no such log");
  const position = { seq: head.auditSeq, link: head.auditLink, pseudonym: auditPseudonym(userId, logSalt) };
  const atMs = now();
  return { salt: logSalt, atMs, signature: signPromise(log.signers[0], { ...position, origin: log.origin, atMs }) };
}

function sealed(
  keys: ChannelKeys,
  at: ReturnType<typeof frameHead>,
  name: string,
  frame: Uint8Array,
  first: string,
  second: string,
): Reply {
  const body = sealReply(keys, at, name, frame, new TextEncoder().encode(`${first}\n${second}`), random);
  return { status: 200, contentType: "application/octet-stream", body, outcome: "ok" };
}

/** Answers one operation without executing it: sealed, from the account's true position unless told otherwise. */
export function inventing<N extends SessionOperation>(
  villain: Liar,
  name: N,
  make: (
    request: InputOf<N>,
    head: HeadSummary,
  ) => { output: OutputOf<N>; head?: HeadSummary } | { error: ErrorCode; head?: HeadSummary },
): Middle {
  return async (operation, frame, forward) => {
    if (operation !== name) return forward(operation, frame);
    const keys = await keysOfFrame(villain, frame);
    const at = frameHead(frame);
    const request = decodeJson(operations[name].input as Codec<unknown>, openRequest(keys, at, name, frame));
    const account = await villain.server.store.transaction((tx) => tx.account(keys.userId));
    if (!account) throw new Error("no such account");
    const head = {
      revision: account.state.state.revision,
      stateHash: account.stateHash,
      auditSeq: account.audit.seq,
      auditLink: account.audit.link,
    };
    const made = make(request as InputOf<N>, head);
    const shown = made.head ?? head;
    const promise = operations[name].mutation ? await promiseFor(villain, keys.userId, shown) : null;
    const first = encodeJson(replyHead, { head: shown, ok: "output" in made, promise });
    const second =
      "output" in made
        ? encodeJson(operations[name].output as Codec<unknown>, made.output)
        : encodeJson(errorBody, { code: made.error, message: "so says the server", retryAfterMs: null });
    return sealed(keys, at, name, frame, first, second);
  };
}

/** Seals whatever text as the reply to one operation, after executing it. */
export function babbling(villain: Liar, name: SessionOperation, make: (honest: string) => Uint8Array | string): Middle {
  return async (operation, frame, forward) => {
    if (operation !== name) return forward(operation, frame);
    const keys = await keysOfFrame(villain, frame);
    const at = frameHead(frame);
    const reply = await forward(operation, frame);
    const plain = new TextDecoder().decode(openReply(keys, at, name, frame, bytesOf(reply.body)));
    const body = sealReply(keys, at, name, frame, bytesOf(make(plain)), random);
    return { status: 200, contentType: "application/octet-stream", body, outcome: "ok" };
  };
}

/** A typed error in clear, as anybody on the way into the server can make it. */
export function unsealed(code: string, status = 400): Reply {
  const body = encodeJson(errorBody, { code, message: "so says the server", retryAfterMs: null });
  return { status, contentType: "application/json", body, outcome: code };
}

/** Expects a Fault of this code; gives it back. */
export async function rejected(work: Promise<unknown>, ...codes: ErrorCode[]): Promise<Fault> {
  let result: unknown;
  try {
    result = await work;
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    expect(codes as string[]).toContain(error.code);
    return error;
  }
  throw new Error(`was accepted: ${JSON.stringify(result)}`);
}

/** The vault file's bytes. */
export const onDisk = (device: Pick<TestDevice, "open">): string => readFileSync(device.open.box.path).toHex();

/** Expects that `work` fails with integrity (exit 8), leaves the vault file byte for byte, and that honesty helps. */
export async function detected(
  villain: Villain,
  device: TestDevice,
  attack: Middle,
  work: () => Promise<unknown>,
): Promise<Fault> {
  const before = onDisk(device);
  const fault = await villain.during(attack, () => rejected(work(), "integrity"));
  expect(fault.exit).toBe(8);
  expect(onDisk(device)).toBe(before);
  await device.client.sync();
  await device.client.list({ prefix: null, search: null, tag: null, fresh: true });
  return fault;
}

/** Gives up at the first failure instead of trying for ten seconds. */
export function impatient(device: Pick<TestDevice, "open">): void {
  let now = Date.now();
  Object.assign(device.open.around, { now: () => (now += 20_000) });
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** A store with defaults. */
export const storing = (name: string, value: string | Uint8Array, more: Partial<StoreInput> = {}): StoreInput => ({
  name,
  type: null,
  value: typeof value === "string" ? text(value) : value,
  tags: [],
  where: null,
  ...more,
});

/** A get with defaults: revealed. */
export const asking = (name: string, more: Partial<Parameters<KeyholdClient["get"]>[0]> = {}) => ({
  name,
  version: null,
  reveal: true,
  fresh: false,
  save: false,
  ...more,
});

export const EVERYTHING = { prefix: null, search: null, tag: null, fresh: true } as const;

/** The value of a secret as text. */
export async function textOf(client: KeyholdClient, name: string, version: number | null = null): Promise<string> {
  const got = await client.get(asking(name, { version, fresh: true }));
  return new TextDecoder().decode(got.value ?? new Uint8Array(0));
}

/** Opens a device's vault again as a new process would, with a new session or none. */
export async function reopened(
  link: Link | null,
  device: Pick<TestDevice, "open">,
  account: string,
  password: string,
): Promise<{ client: KeyholdClient; open: Open; notices: string[]; session: Session | null }> {
  const { box } = device.open;
  const notices: string[] = [];
  const around = testSurroundings(notices);
  const url = "https://127.0.0.1:1";
  const login = link
    ? await logIn(link, { url, kdf: "test", deviceToken: null }, account, passwordOf(password), around)
    : null;
  const opened = openVaultWithKey(readVaultFile(box.path) ?? new Uint8Array(0), box.vault.key);
  const open: Open = {
    box: { path: box.path, vault: opened.vault, model: decodeModel(opened.body) },
    session: login?.session ?? null,
    around,
  };
  const client = createClient(open, { profile: "test", server: { url, pin: "" } }, async () => undefined);
  return { client, open, notices, session: open.session };
}
