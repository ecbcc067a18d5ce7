import type { FederatedKeyId, KeyringId, WorkspaceId } from "../../ids.ts";
import { type KnownChain, loadChain } from "./chains.ts";
import type { Ground } from "./ground.ts";
import { type KnownKeyring, keyringById } from "./keyrings.ts";
import { type KnownKey, keyById } from "./keys.ts";

/** What one call has looked up and verified already: each thing is asked for once. */
export interface Looks {
  readonly ground: Ground;
  chain(workspaceId: WorkspaceId): Promise<KnownChain>;
  keyring(keyringId: KeyringId): Promise<KnownKeyring>;
  key(keyId: FederatedKeyId): Promise<KnownKey>;
}

function once<K, V>(load: (key: K) => Promise<V>): (key: K) => Promise<V> {
  const known = new Map<K, Promise<V>>();
  return (key) => {
    const found = known.get(key) ?? load(key);
    known.set(key, found);
    return found;
  };
}

/** Begins one call: nothing that an earlier one saw is taken for what is now. */
export function looksOf(ground: Ground): Looks {
  const looks: Looks = {
    ground,
    chain: once((workspaceId) => loadChain(ground, workspaceId)),
    keyring: once((keyringId) => keyringById(ground, keyringId)),
    key: once((keyId) => keyById(looks, keyId)),
  };
  return looks;
}
