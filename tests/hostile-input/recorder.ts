import type { Link } from "../../src/client/session.ts";
import { ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";
import { newId, type RequestId } from "../../src/ids.ts";
import type { LeafRecord } from "../../src/protocol/leaf.ts";
import type { Codec, Json } from "../../src/wire/codec.ts";
import { contentTypeOf, JSON_TYPE } from "../../src/wire/http.ts";
import {
  type CommitName,
  type InputOf,
  type OperationName,
  operations,
  type SessionOperation,
} from "../../src/wire/operations.ts";
import {
  commitOf,
  exchange,
  frameOf,
  leafOf,
  logInRaw,
  outputOf,
  post,
  type RawOwner,
  type RawSession,
  registerRaw,
  reserveRaw,
  storeRaw,
  utf8,
} from "../support/attacker.ts";
import { shapeOf, smallest } from "../support/codec-shape.ts";
import { random, type TestServer } from "../support/harness.ts";
import { connect, postBytes } from "./connection.ts";

/** A request as a well-behaved client sends it. */
export interface Recorded {
  readonly operation: OperationName;
  readonly contentType: string;
  /** The HTTP body: JSON, or a sealed frame that was already used. */
  readonly body: Uint8Array;
  /** JSON of the input, inside the frame where there is one. */
  readonly json: string;
  /** False for a request that is only well formed: the server cannot do what it asks for. */
  readonly meant: boolean;
  /** True if the server did what was asked. */
  readonly good: boolean;
}

/** A server process seen as the tests' tools see one in this process, with all that was sent to it. */
export interface Remote {
  readonly server: TestServer;
  readonly sent: { operation: OperationName; contentType: string; body: Uint8Array; status: number }[];
}

const ANSWER_MS = 30_000;

/** A stand-in for a server of this process: requests go over TLS to the one at `port`. */
export async function remote(port: number): Promise<Remote> {
  const sent: Remote["sent"] = [];
  let addresses = 0;
  const handle = async (operation: string, contentType: string, body: Uint8Array) => {
    addresses += 1;
    // another address each time: the limits of one would soon refuse all that follows
    const from = `127.77.${(addresses >>> 8) & 255}.${addresses & 255}`;
    const connection = await connect({ port, from, tls: true });
    const reply = await connection.exchange(postBytes(operation, contentType, body), ANSWER_MS);
    connection.end();
    if (reply.status === null) throw new Error(`${operation}: no answer`);
    sent.push({ operation: operation as OperationName, contentType, body, status: reply.status });
    const text = reply.contentType === JSON_TYPE ? new TextDecoder().decode(reply.body) : reply.body;
    return { status: reply.status, contentType: reply.contentType, body: text, outcome: "" };
  };
  const dispatcher = { handle } as unknown as TestServer["dispatcher"];
  const ctx = { keys: { identity: ZERO_HASH_BYTES } };
  const server = { dispatcher, ctx } as unknown as TestServer;
  const statement = outputOf("server.statement", await post(server, "server.statement", {}));
  ctx.keys.identity = statement.identity;
  const link: TestServer["link"] = (_address, middle) => {
    const made: Link = {
      identity: statement.identity,
      statementNumber: statement.number,
      statement,
      opaqueKeys: statement.opaqueKeys,
      async post(operation, contentType, body) {
        const bytes = typeof body === "string" ? utf8(body) : body;
        const forward = (name: string, passed: Uint8Array) =>
          dispatcher.handle(name, contentType, passed, { address: "" });
        const reply = middle ? await middle(operation, bytes, forward) : await forward(operation, bytes);
        const { body: got } = reply;
        return { ...reply, body: typeof got === "string" ? utf8(got) : got };
      },
    };
    return made;
  };
  return { server: Object.assign(server, { link }), sent };
}

/** What a main job recorded, with the account to go on with. */
export interface Recording {
  readonly items: readonly Recorded[];
  readonly owner: RawOwner;
  /** Opens a further session of the account. */
  logIn(): Promise<RawSession>;
}

const jsonOf = (name: OperationName, input: unknown): string =>
  JSON.stringify((operations[name].input as Codec<unknown>).encode(input));

const isSession = (name: OperationName): name is SessionOperation => operations[name].auth === "session";

/** Runs the main job against a server process: every operation is sent once, as a client would, and kept. */
export async function record(port: number): Promise<Recording> {
  const { server, sent } = await remote(port);
  const items: Recorded[] = [];
  const account = `recorded ${random(4).toHex()}`;
  const owner = await registerRaw(server, account);
  // by the device's own bucket: mutated logins fill that of the account
  const logIn = () => logInRaw(server, account, owner.password, { token: owner.token });
  const session = await logInRaw(server, account, owner.password);

  async function send(operation: SessionOperation, json: string, requestId: RequestId, meant = true): Promise<string> {
    const frame = frameOf(session, operation, utf8(json), { requestId });
    const answer = await exchange(server, session, frame);
    items.push({
      operation,
      contentType: contentTypeOf(operation),
      body: frame.bytes,
      json,
      meant,
      good: answer.code === "ok",
    });
    return answer.code;
  }
  const ask = <N extends SessionOperation>(operation: N, input: InputOf<N>) =>
    send(operation, jsonOf(operation, input), newId<RequestId>(random));

  await ask("session.check", {});
  await ask("session.list", {});
  await ask("secret.reserve", { count: 3 });
  const kept = await storeRaw(server, session, owner);
  let newest = await storeRaw(server, session, owner);
  async function commit(operation: CommitName, leaf: LeafRecord, sealed: Uint8Array | null): Promise<void> {
    const requestId = newId<RequestId>(random);
    const made = commitOf(owner, operation, [{ leaf, sealed }], requestId);
    if ((await send(operation, jsonOf(operation, made.input), requestId)) !== "ok") return;
    made.done();
    newest = leaf;
  }
  for (const operation of ["secret.generate", "secret.import", "secret.store"] as const) {
    const sealed = random(120);
    await commit(operation, leafOf(await reserveRaw(server, session), sealed, null), sealed);
  }
  const { keyId } = newest;
  const restored = random(120);
  await commit("secret.update", leafOf(keyId, null, newest), null);
  await commit("secret.restore", leafOf(keyId, restored, newest), restored);
  await commit("secret.remove", leafOf(keyId, null, newest, { status: "removed" }), null);
  const erased = { status: "purged", meta: null, metaHash: ZERO_HASH_BYTES } as const;
  await commit("secret.purge", leafOf(keyId, null, newest, erased), null);
  const page = { after: 0, limit: 50, keyId: null, action: null, fromMs: null, untilMs: null, requestId: null };
  await ask("state.sync", { since: 0, after: null, what: "leaves" });
  await ask("secret.list", { since: 0, after: null, what: "leaves" });
  await ask("secret.get", { keys: [{ keyId: kept.keyId, version: 1 }] });
  await ask("secret.export", { keys: [{ keyId: kept.keyId, version: 1 }] });
  await ask("secret.history", { keyId: kept.keyId, afterSerial: 0 });
  for (const operation of ["audit.list", "audit.verify", "audit.export"] as const) await ask(operation, page);

  for (const one of sent) {
    if (isSession(one.operation)) continue;
    const json = new TextDecoder().decode(one.body);
    items.push({ ...one, json, meant: true, good: one.status === 200 });
  }
  // whatever the job did not come by: well formed, and refused for what it says
  for (const operation of Object.keys(operations) as OperationName[]) {
    if (items.some((item) => item.operation === operation) || operation === "session.close") continue;
    const json = JSON.stringify(smallest(shapeOf(operations[operation].input)) as Json);
    if (isSession(operation)) await send(operation, json, newId<RequestId>(random), false);
    else
      items.push({
        operation,
        contentType: contentTypeOf(operation),
        body: utf8(json),
        json,
        meant: false,
        good: false,
      });
  }
  // of a session that is open: this one goes on, so that its frames are more than those of a closed one
  await ask("session.close", { sessionId: (await logIn()).sessionId, all: false });
  return { items, owner, logIn };
}
