import { open as openSealed, seal } from "../../src/crypto/aead.ts";
import { loginReplyKey } from "../../src/protocol/channel.ts";
import { openSessionKey } from "../../src/server/accounts.ts";
import { type Codec, decodeJson, encodeJson, type Of } from "../../src/wire/codec.ts";
import { loginReply, type OperationName, type OutputOf, operations } from "../../src/wire/operations.ts";
import { type Middle, random } from "./harness.ts";
import type { Liar } from "./hostile.ts";

/** Lies around a login: before there is a session, and in the sealed answer that opens one. */

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Edits the JSON of one successful answer without a session. */
export function clear<N extends OperationName>(
  name: N,
  edit: (output: OutputOf<N>) => OutputOf<N> | Promise<OutputOf<N>>,
): Middle {
  return async (operation, body, forward) => {
    const reply = await forward(operation, body);
    if (operation !== name || reply.status !== 200) return reply;
    const codec = operations[name].output as unknown as Codec<OutputOf<N>>;
    return { ...reply, body: encodeJson(codec, await edit(decodeJson(codec, utf8(String(reply.body))))) };
  };
}

type LoginReply = Of<typeof loginReply>;

/** Edits the sealed answer that ends a login, with the session's own key. */
export function atLogin(liar: Liar, edit: (reply: LoginReply) => LoginReply | Uint8Array): Middle {
  return async (operation, body, forward) => {
    if (operation !== "session.login") return forward(operation, body);
    const { sessionId } = decodeJson(operations[operation].input, body);
    const reply = await forward(operation, body);
    const { ctx, store } = liar.server;
    const row = await store.transaction((tx) => tx.session(sessionId));
    if (!row) return reply;
    const key = loginReplyKey(openSessionKey(ctx, row), ctx.keys.identity, sessionId);
    const context = { kind: "login-reply", sessionId } as const;
    const { sealed } = decodeJson(operations[operation].output, utf8(String(reply.body)));
    const made = edit(decodeJson(loginReply, openSealed(key, context, sealed)));
    const plain = made instanceof Uint8Array ? made : utf8(encodeJson(loginReply, made));
    return { ...reply, body: encodeJson(operations[operation].output, { sealed: seal(key, context, plain, random) }) };
  };
}
