import type { MemberPlace, Membership } from "../../src/client/federation/membership.ts";
import { openMembership } from "../../src/client/federation/membership.ts";
import { askServer } from "../../src/client/federation/reaching.ts";
import { connect } from "../../src/client/login.ts";
import { NO_LOG } from "../../src/client/logpin.ts";
import { readConfig, readSecret } from "../../src/connector/directory.ts";
import { type Entering, enterRegistry, enterServer, partySigner } from "../../src/connector/init.ts";
import { ZERO_HASH_BYTES } from "../../src/crypto/bytes.ts";
import type { Signer } from "../../src/crypto/identity.ts";
import type { KeyringId, WorkspaceId } from "../../src/ids.ts";
import { approvalSigner } from "../../src/protocol/federation/credentials.ts";
import type { Manifest } from "../../src/protocol/federation/manifest.ts";
import {
  type RequestBody,
  registryScope,
  type SignedRequest,
  signRequest,
} from "../../src/protocol/federation/request.ts";
import { keyringEnrolmentBytes } from "../../src/protocol/keyring/keyring.ts";
import type { InputOf, OutputOf, SessionOperation } from "../../src/wire/operations.ts";
import { random, testSurroundings } from "../support/harness.ts";
import type { Keyrings } from "./keyringfleet.ts";

/** An account whose client runs in this process, so that a test sends with its session whatever it likes. */
export interface Account {
  /** Its owner key or party key. */
  readonly signer: Signer;
  call<N extends SessionOperation>(operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
  end(): void;
}

const accountOf = ({ session }: Membership<MemberPlace>, signer: Signer): Account => ({
  signer,
  async call(operation, input) {
    return (await session.call(operation, input)).output;
  },
  end: () => session.forget(),
});

const placeOf = ({ registry }: Keyrings): MemberPlace => {
  const { url, pin } = registry.server();
  return { url, pin, index: 0 };
};

/** What anybody learns of the registry: Ed25519 identity, X25519 key, 32 bytes each. */
export async function registryKeys(
  all: Keyrings,
): Promise<{ readonly registry: Uint8Array; readonly sealing: Uint8Array }> {
  const { ask } = await askServer(placeOf(all), connect, testSurroundings());
  return ask("keyring.info", {});
}

const newHeld = (index: number) => ({
  index,
  userId: null,
  enrolled: false,
  caPem: null,
  statementNumber: 0,
  verified: { seq: 0, link: ZERO_HASH_BYTES, revision: 0 },
  log: NO_LOG,
});

/** A new account at the registry with a key of this role. */
export async function newAccount(all: Keyrings, role: "owner" | "party"): Promise<Account> {
  const { registry } = await registryKeys(all);
  const [secret, scope] = [random(32), registryScope(registry)];
  const signer = approvalSigner(secret, scope);
  const key = signer.publicKey;
  const membership = await openMembership({
    secret,
    federationId: scope,
    server: placeOf(all),
    held: newHeld(0),
    invite: null,
    reach: connect,
    around: testSurroundings(),
    async enrol(session, userId) {
      const proof = signer.sign(keyringEnrolmentBytes({ registry, userId, role, key }));
      await session.call("keyring.enrol", { role, key, proof });
    },
  });
  return accountOf(membership, signer);
}

/** What the thief of a connector's directory enters with; nothing is written to it. */
function entering(all: Keyrings, index: number): Entering {
  const dir = all.connectorDir(index);
  const [secret, read] = [readSecret(dir), readConfig(dir)];
  if (!secret || !read) throw new Error(`there is no connector ${index}`);
  let config = read;
  return {
    secret,
    around: testSurroundings(),
    reach: connect,
    config: () => config,
    keep(change) {
      config = change(config);
    },
  };
}

/** The party's own account at the registry, with its real key. */
export async function partyAccount(all: Keyrings, index: number): Promise<Account> {
  const thief = entering(all, index);
  const { registry } = await registryKeys(all);
  return accountOf(await enterRegistry(thief, placeOf(all), null), partySigner(thief.secret, registry));
}

/** The connector's account at its own server, which its operator has allowed. */
export async function connectorAccount(all: Keyrings, index: number): Promise<Account> {
  const thief = entering(all, index);
  const { registry } = await registryKeys(all);
  const { server } = thief.config();
  return accountOf(await enterServer(thief, server, null), partySigner(thief.secret, registry));
}

/** The newest manifest that a connector knows. */
export function manifestOf(all: Keyrings): Manifest {
  const newest = readConfig(all.connectorDir(1))?.manifests.at(-1);
  if (!newest) throw new Error("no manifest");
  return newest.manifest;
}

export const keyringIdOf = (all: Keyrings): KeyringId => all.keyringId as KeyringId;

/** Where a request belongs, and how long it lasts. */
export interface Terms {
  readonly registry: Uint8Array;
  readonly workspaceId: string;
  /** In milliseconds. */
  readonly lastsMs: number;
}

/** A request that an owner, or somebody else, signs with whatever key he has. */
export function signedItem(all: Keyrings, signer: Signer, terms: Terms, body: RequestBody): SignedRequest {
  const { federationId, epoch } = manifestOf(all);
  const createdAtMs = Date.now();
  return signRequest(signer, {
    federationId,
    epoch,
    requester: signer.publicKey,
    nonce: random(32),
    createdAtMs,
    expiresAtMs: createdAtMs + terms.lastsMs,
    keyring: {
      registry: terms.registry,
      keyringId: keyringIdOf(all),
      workspaceId: terms.workspaceId as WorkspaceId,
    },
    body,
  });
}

/** Asks for a key of a workspace. */
export const keyBody = (type: "ed25519" | "schnorr", workspaceId: string): RequestBody => ({
  kind: "generate",
  type,
  length: 32,
  custody: "delegated",
  control: "shared",
  policy: workspaceId as WorkspaceId,
  owner: null,
});
