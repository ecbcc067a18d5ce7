import { randomBytes } from "node:crypto";
import { newMeta, valueChange } from "../src/client/changes.ts";
import { connect, logIn } from "../src/client/login.ts";
import { type Model, type Surroundings, signersOf } from "../src/client/model.ts";
import { newDevice, prepareRegistration } from "../src/client/register.ts";
import type { Link, Session } from "../src/client/session.ts";
import { hpkeKeyPair } from "../src/crypto/hpke.ts";
import { idBytes, type KeyId, newId, type RequestId } from "../src/ids.ts";
import { leafHash } from "../src/protocol/leaf.ts";
import { type SignedState, signState, stateHash } from "../src/protocol/state.ts";
import { OPERATION_PATH } from "../src/wire/http.ts";
import { requestHash } from "../src/wire/operations.ts";
import { type Answer, post, type Target } from "./load.ts";

/**
 * Accounts whose requests are sealed beforehand and whose answers are opened afterwards, both by the client's own
 * session: while the clock runs, the load only moves bytes.
 */

const around: Surroundings = {
  now: Date.now,
  random: (length) => new Uint8Array(randomBytes(length)),
  notice: () => undefined,
};

/** A request that waits for its answer. */
interface Held {
  readonly request: Uint8Array;
  readonly answer: (reply: Answer) => void;
}

/** One account with one open session. */
export interface Account {
  /** Requests that store `count` new secrets of 32 bytes, their ids reserved before. */
  stores(count: number): Promise<Batch>;
  /** Requests that read `count` secrets that were stored. */
  gets(count: number): Promise<Batch>;
  /** A key of one-time codes of this account's own, of which it may have codes itself. */
  hotp(name: string): Promise<Codes>;
  /** Asks for the session's own facts once, over the client's own transport. */
  check(): Promise<void>;
}

/** Sealed requests of one session, in the order in which they must be sent. */
export interface Batch {
  readonly requests: readonly Uint8Array[];
  /** Takes the answer to one request. */
  answer(index: number, reply: Answer): void;
  /** Resolves when the client has authenticated every answer; each must be a success. */
  verified(): Promise<void>;
}

/** Codes of one HOTP key. */
export interface Codes {
  /** Requests for `count` codes, each an ask of its own. */
  asks(count: number): Promise<Batch>;
  /** The key's next counter. */
  counter(): Promise<number>;
}

/** Where the raw load connects to. */
export interface Found {
  readonly target: Target;
  newAccount(name: string): Promise<Account>;
}

/** Finds a server by its pin, as a client does. */
export async function findServer(url: string, pin: string): Promise<Found> {
  const found = await connect({ url, pin, caPem: null, tlsCaPem: null, statementNumber: 0 }, around);
  const caPem = found.server.caPem;
  if (caPem === null) throw new Error("the server has no authority of its own");
  return {
    target: { port: Number(new URL(url).port), caPem },
    newAccount: (name) => openAccount(found.link, url, name),
  };
}

/** Lets a link hold requests back instead of sending them. */
function holding(link: Link): { link: Link; hold: (on: boolean) => void; held: Held[] } {
  const held: Held[] = [];
  let on = false;
  return {
    held,
    hold: (next) => {
      on = next;
    },
    link: {
      ...link,
      post: (operation, contentType, body) => {
        if (!on) return link.post(operation, contentType, body);
        if (typeof body === "string") throw new Error("only sealed requests are held");
        return new Promise((resolve) => {
          held.push({
            request: post(OPERATION_PATH + operation, contentType, body),
            answer: ({ status, body: reply }) =>
              resolve({
                status,
                contentType: reply[0] === 0x7b ? "application/json" : "application/octet-stream",
                body: reply,
              }),
          });
        });
      },
    },
  };
}

/** A new account's session over a link as it is. */
export async function openAccountSession(link: Link, url: string, name: string): Promise<Session> {
  return (await newSession(link, link, url, name)).session;
}

async function openAccount(link: Link, url: string, name: string): Promise<Account> {
  const holder = holding(link);
  const { model, session } = await newSession(link, holder.link, url, name);
  return accountOf(name, model, session, holder);
}

/** Registers over one link and logs in over the other. */
async function newSession(link: Link, over: Link, url: string, name: string) {
  const password = new TextEncoder().encode("correct horse battery staple");
  const server = { url, kdf: "test", deviceToken: null } as const;
  const device = newDevice("bench", around);
  const input = { account: name, invite: null, device };
  const prepared = await prepareRegistration(link, server, input, password, around);
  await prepared.finish();
  const { session } = await logIn(over, server, name, password, around);
  return { model: prepared.model, session };
}

function accountOf(name: string, model: Model, session: Session, holder: ReturnType<typeof holding>): Account {
  const { bound } = model;
  if (!bound) throw new Error("an account without a server");
  const signers = signersOf(model);
  let head: SignedState = bound.head;
  const known: KeyId[] = [];

  /** The next state over one new secret, and the call that commits it. */
  function store(keyId: KeyId): Promise<unknown> {
    const meta = newMeta(`bench/${keyId}`, "bytes", [], "bench", null, around.now());
    const content = { value: around.random(32), fields: [] };
    const { leaf, sealed } = valueChange(model, keyId, undefined, meta, content, false, around.random);
    const requestId = newId<RequestId>(around.random);
    const body = { changes: [{ leaf, sealed }] };
    model.map = model.map.with(idBytes(keyId), leafHash(leaf));
    const next = {
      ...head.state,
      revision: head.state.revision + 1,
      previous: stateHash(head.state),
      requestId,
      requestHash: requestHash("secret.store", { ...body, state: head }),
      root: model.map.root(),
    };
    head = signState(next, signers.identity, signers.device);
    known.push(keyId);
    return session.call("secret.store", { ...body, state: head }, requestId);
  }

  async function prepare(calls: readonly (() => Promise<unknown>)[]): Promise<Batch> {
    holder.hold(true);
    const answers = calls.map((call) => call());
    // a session seals and posts within the call's first microtasks
    for (let turn = 0; turn < 10 && holder.held.length < calls.length; turn++) await Bun.sleep(0);
    holder.hold(false);
    const held = holder.held.splice(0);
    if (held.length !== calls.length) throw new Error("a request was not sealed");
    return {
      requests: held.map(({ request }) => request),
      answer: (index, reply) => held[index]?.answer(reply),
      verified: async () => {
        await Promise.all(answers);
      },
    };
  }

  return {
    async stores(count) {
      const ids: KeyId[] = [];
      while (ids.length < count) {
        const { output } = await session.call("secret.reserve", { count: Math.min(50, count - ids.length) });
        ids.push(...output.items.map(({ keyId }) => keyId));
      }
      return prepare(ids.map((keyId) => () => store(keyId)));
    },
    gets: (count) =>
      prepare(
        Array.from({ length: count }, (_, at) => () => {
          const keyId = known[at % known.length];
          if (keyId === undefined) throw new Error("nothing was stored");
          return session.call("secret.get", { keys: [{ keyId, version: 1 }] });
        }),
      ),
    async hotp(key) {
      const label = { issuer: "bench", label: key };
      // so many digits that no two codes are equal by chance, for which a counter would be left out
      const output = { kind: "hotp", algorithm: "SHA1", digits: 10, ...label } as const;
      const made = await session.call("otp.create", { name: key, output, nonce: around.random(32), value: null });
      const { keyId } = made.output.record;
      const to = { kind: "account", account: name } as const;
      const grant = { keyId, to, wants: ["code"] as const, perHour: 1_000_000, untilMs: null };
      await session.call("otp.grant", grant);
      const server = session.statement.identity;
      const recipient = (await hpkeKeyPair(around.random(32))).publicKey;
      return {
        asks: (count) =>
          prepare(
            Array.from({ length: count }, () => () => {
              const nonce = around.random(32);
              const ask = { server, keyId, want: "code", recipient, nonce, atMs: around.now() } as const;
              return session.call("otp.request", { ask });
            }),
          ),
        async counter() {
          const { output } = await session.call("otp.entries", { after: null });
          return output.items.find(({ record }) => record.keyId === keyId)?.counter ?? 0;
        },
      };
    },
    check: async () => {
      await session.call("session.check", {});
    },
  };
}
