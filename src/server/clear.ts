import { type Codec, decodeJson, encodeJson } from "../wire/codec.ts";
import type { TokenOperation } from "../wire/operations.ts";
import { type OperationName, operations, type SessionOperation } from "../wire/operations.ts";
import { type KeyStoreAnonymousWork, type KeyStoreService, noKeyStore, type RelyingWork } from "./ceremony/service.ts";
import type {
  AnonymousHandler,
  AnonymousOperation,
  FederatedAnonymousOperation,
  KeyStoreAnonymousOperation,
  KeyStoreTokenOperation,
  RegistryAnonymousOperation,
  Remote,
  ServerContext,
} from "./context.ts";
import { type FederatedAnonymousWork, type FederationService, noRole } from "./federation/service.ts";
import { anonymousHandlers, isFederated, isKeyStore, isRegistry, needsToken } from "./handlers/index.ts";
import {
  noRegistry,
  type RegistryAnonymousWork,
  type RegistryService,
  type RegistryTokenOperation,
  type TokenWork,
} from "./keyring/service.ts";

/** What goes back over HTTP. */
export interface Reply {
  readonly status: number;
  readonly contentType: "application/json" | "application/octet-stream";
  readonly body: Uint8Array | string;
  readonly retryAfterMs?: number;
  /** Code of the outcome for logs and figures: `ok` or an error code. */
  readonly outcome: string;
}

/** Operations whose bodies are JSON inside TLS. */
export type ClearOperation = Exclude<OperationName, SessionOperation>;

/** Makes the entry point of operations without a session: for anyone, and with a token (docs/protocol.md §9.7). */
export function createClear(
  ctx: ServerContext,
  federation: FederationService | null,
  registry: RegistryService | null,
  keyStore: KeyStoreService | null,
): (name: ClearOperation, body: Uint8Array, remote: Remote) => Promise<Reply> {
  async function anonymous(
    name: AnonymousOperation | FederatedAnonymousOperation | RegistryAnonymousOperation | KeyStoreAnonymousOperation,
    input: unknown,
    remote: Remote,
  ): Promise<unknown> {
    if (isFederated(name)) {
      if (!federation) throw noRole();
      return (federation[name] as FederatedAnonymousWork<FederatedAnonymousOperation>)(remote, input as never);
    }
    if (isRegistry(name)) {
      if (!registry) throw noRegistry();
      return (registry[name] as RegistryAnonymousWork<RegistryAnonymousOperation>)(remote, input as never);
    }
    if (isKeyStore(name)) {
      if (!keyStore) throw noKeyStore();
      return (keyStore[name] as KeyStoreAnonymousWork<KeyStoreAnonymousOperation>)(remote, input as never);
    }
    return (anonymousHandlers[name] as unknown as AnonymousHandler<AnonymousOperation>)(ctx, remote, input as never);
  }

  /** The token first: who has none learns nothing of the input's form. */
  async function withToken(name: TokenOperation, body: Uint8Array, remote: Remote): Promise<unknown> {
    if (isKeyStore(name)) {
      if (!keyStore) throw noKeyStore();
      const relying = await keyStore.admitToken(name, remote);
      const asked = decodeJson(operations[name].input as Codec<unknown>, body);
      return (keyStore[name] as RelyingWork<KeyStoreTokenOperation>)(relying, asked as never);
    }
    if (!registry) throw noRegistry();
    const caller = await registry.admitToken(name, remote);
    const input = decodeJson(operations[name].input as Codec<unknown>, body);
    return (registry[name] as TokenWork<RegistryTokenOperation>)(caller, input as never);
  }

  return async (name, body, remote) => {
    const shape = operations[name] as { input: Codec<unknown>; output: Codec<unknown> };
    const output = needsToken(name)
      ? await withToken(name, body, remote)
      : await anonymous(name, decodeJson(shape.input, body), remote);
    return { status: 200, contentType: "application/json", body: encodeJson(shape.output, output), outcome: "ok" };
  };
}
