import type { AadContext } from "../../src/crypto/aead.ts";
import type {
  DeviceId,
  EntryId,
  FederatedKeyId,
  FederatedRequestId,
  FederationId,
  KeyId,
  RequestId,
  SessionId,
  StoredKeyId,
  UserId,
} from "../../src/ids.ts";
import { bentFields } from "./arbitraries.ts";
import { projectText } from "./doctables.ts";

const digit = (n: number): string => n.toString(16).padStart(2, "0").repeat(16);
const userId = digit(1) as UserId;
const keyId = digit(2) as KeyId;
const sessionId = digit(3) as SessionId;
const requestId = digit(4) as RequestId;
const deviceId = digit(5) as DeviceId;
const blob = new Uint8Array(32).fill(6);

/** One context of each kind; a new kind does not compile until it stands here. */
export const EXAMPLES: { readonly [K in AadContext["kind"]]: AadContext & { kind: K } } = {
  secret: { kind: "secret", userId, keyId, version: 1, type: "bytes" },
  "data-key": { kind: "data-key", userId, keyId, version: 1 },
  meta: { kind: "meta", userId, keyId, serial: 1 },
  "meta-key": { kind: "meta-key", userId, keyId, serial: 1 },
  "account-key": { kind: "account-key", userId, revision: 1 },
  "account-identity": { kind: "account-identity", userId },
  "previous-account-key": { kind: "previous-account-key", userId, revision: 1 },
  "device-link": { kind: "device-link", linkId: blob },
  "device-name": { kind: "device-name", userId, deviceId },
  "login-reply": { kind: "login-reply", sessionId },
  frame: {
    kind: "frame",
    sessionId,
    direction: "request",
    sequence: 1,
    operation: "secret.get",
    requestId,
    requestFrameHash: null,
  },
  "login-state": { kind: "login-state", sessionId, credentialId: blob, recordVersion: 1, expiresAtMs: 1 },
  session: { kind: "session", sessionId, userId },
  "account-name": { kind: "account-name", credentialId: blob },
  "vault-key": { kind: "vault-key", vaultId: blob, slot: "password", header: blob },
  "vault-body": { kind: "vault-body", vaultId: blob, generation: 1, header: blob },
  "vault-pending": { kind: "vault-pending", vaultId: blob },
  queued: { kind: "queued", userId, entryId: digit(6) as EntryId, type: "bytes" },
  "key-share": {
    kind: "key-share",
    server: blob,
    keyId: digit(7).repeat(2) as FederatedKeyId,
    manifestEpoch: 1,
    shareGeneration: 1,
    type: "ed25519",
    custody: "self",
  },
  "pending-share": {
    kind: "pending-share",
    server: blob,
    requestId: digit(8).repeat(2) as FederatedRequestId,
    attempt: 1,
    certificateHash: blob,
  },
  "federation-label": {
    kind: "federation-label",
    federationId: digit(9).repeat(2) as FederationId,
    requestId: digit(8).repeat(2) as FederatedRequestId,
  },
  "federated-value": {
    kind: "federated-value",
    federationId: digit(9).repeat(2) as FederationId,
    requester: blob,
    nonce: blob,
  },
  "ceremony-key": { kind: "ceremony-key", server: blob, number: 1, statementHash: blob },
  "ceremony-seed": { kind: "ceremony-seed", server: blob, seedHash: blob },
  "stored-key": {
    kind: "stored-key",
    server: blob,
    keyId: digit(10).repeat(2) as StoredKeyId,
    version: 1,
    recordHash: blob,
  },
  "second-factor": { kind: "second-factor", userId },
};

function withoutKind(context: AadContext): Record<string, unknown> {
  const { kind: _, ...rest } = context;
  return rest;
}

/** Each example, each with each field changed in each way, and what the types admit beside. */
export const CONTEXTS: AadContext[] = [
  ...Object.values(EXAMPLES).flatMap((example) => [
    example,
    ...bentFields(withoutKind(example)).map(({ value }) => ({ kind: example.kind, ...value }) as AadContext),
  ]),
  { ...EXAMPLES.frame, direction: "reply" },
  { ...EXAMPLES.frame, direction: "reply", requestFrameHash: blob },
  { ...EXAMPLES.frame, operation: "secret.gets" },
  { ...EXAMPLES["vault-key"], slot: "account" },
  // ids that change places
  { kind: "secret", userId: digit(2) as UserId, keyId: digit(1) as KeyId, version: 1, type: "bytes" },
  { kind: "session", sessionId: digit(1) as SessionId, userId: digit(3) as UserId },
  { kind: "vault-body", vaultId: blob, generation: 1, header: new Uint8Array(0) },
];

/** Kinds as the source of crypto/aead.ts lists them: a test that ran without a compiler still sees a new one. */
export function kindsInSource(): readonly string[] {
  const source = projectText("src/crypto/aead.ts");
  const type = source.slice(
    source.indexOf("export type AadContext ="),
    source.indexOf("/** First byte of each sealed"),
  );
  return [...type.matchAll(/\bkind: "([a-z-]+)"/g)].map((match) => match[1] ?? "");
}
