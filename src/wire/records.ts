import type { DeviceId, IncarnationId, KeyId, RequestId, SessionId, UserId } from "../ids.ts";
import type { AuditEntry, SaltedEntry } from "../protocol/audit.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { LEAF_STATUSES, type LeafRecord } from "../protocol/leaf.ts";
import { WRAPPED_BYTES } from "../protocol/secret.ts";
import type { AccountState, Device, Rotation, Settings, SignedState } from "../protocol/state.ts";
import { bytes, type Codec, id, list, nullable, oneOf, struct, text, u53, uint } from "./codec.ts";

/** Codecs of the records that several operations share. Limits in bytes (docs/protocol.md §1.4). */

export const hash32 = bytes({ length: 32 });
export const signature = bytes({ length: 64 });

export const inviteCode = text({ min: 1, max: 64, pattern: /^[0-9A-Z-]+$/ });

/** Sealed value: 64 KiB, its padding and the wrapped data key. */
export const SEALED_MAX = 74_000;
export const META_MAX = 16_384;

/** A wrapped key and at least an empty padded value. */
export const SEALED_MIN = WRAPPED_BYTES + 1;

export const wrappedKey = bytes({ length: WRAPPED_BYTES });

export const sealedValue = bytes({ min: SEALED_MIN, max: SEALED_MAX });

export const leafRecord: Codec<LeafRecord> = struct({
  keyId: id<KeyId>(),
  serial: uint(0xffff_ffff, 1),
  version: uint(0xffff_ffff, 1),
  sealedHash: hash32,
  metaHash: hash32,
  meta: nullable(bytes({ min: SEALED_MIN, max: META_MAX })),
  publicKey: nullable(bytes({ min: 1, max: 2_048 })),
  status: oneOf(LEAF_STATUSES),
  previous: hash32,
});

const accountState: Codec<AccountState> = struct({
  incarnation: id<IncarnationId>(),
  userId: id<UserId>(),
  deviceId: id<DeviceId>(),
  revision: uint(Number.MAX_SAFE_INTEGER, 1),
  previous: hash32,
  requestId: id<RequestId>(),
  requestHash: hash32,
  root: hash32,
  settingsHash: hash32,
  auditSeq: u53,
  auditLink: hash32,
});

export const signedState: Codec<SignedState> = struct({
  state: accountState,
  identitySignature: signature,
  deviceSignature: signature,
});

const device: Codec<Device> = struct({
  id: id<DeviceId>(),
  publicKey: hash32,
  name: bytes({ min: 1, max: 512 }),
  tokenHash: hash32,
  addedAtMs: u53,
});

const rotation: Codec<Rotation> = struct({
  revision: uint(Number.MAX_SAFE_INTEGER, 2),
  identity: hash32,
  wrapped: wrappedKey,
  handover: signature,
});

export const settings: Codec<Settings> = struct({
  identity: hash32,
  devices: list(device, { min: 1, max: DEFAULTS.devicesPerAccount }),
  wrappedAccountKey: bytes({ min: 1, max: 256 }),
  masterCommitment: hash32,
  wrappedIdentity: bytes({ min: 1, max: 256 }),
  credentialTag: hash32,
  credentialRevision: uint(Number.MAX_SAFE_INTEGER, 1),
  kit: nullable(bytes({ length: 64 })),
  kitWrapped: nullable(bytes({ min: 1, max: 512 })),
  rotations: list(rotation, { max: DEFAULTS.rotations }),
});

/** Position of an account: what every answer carries, so that a rollback shows at once. */
export const headSummary = struct({
  revision: u53,
  stateHash: hash32,
  auditSeq: u53,
  auditLink: hash32,
});

const auditEntry: Codec<AuditEntry> = struct({
  seq: u53,
  userId: id<UserId>(),
  atMs: u53,
  action: text({ min: 1, max: 64 }),
  status: text({ min: 1, max: 64 }),
  keyId: nullable(id<KeyId>()),
  requestId: nullable(id<RequestId>()),
  session: nullable(id<SessionId>()),
  bodyHash: hash32,
  stateHash: nullable(hash32),
  count: u53,
  previous: hash32,
});

export const saltedEntry: Codec<SaltedEntry> = struct({ entry: auditEntry, salt: hash32 });

/** Argon2id setting of OPAQUE's key stretching. */
export const ksfCost = struct({ memoryKib: uint(4_194_304, 8), passes: uint(64, 1), lanes: uint(64, 1) });
