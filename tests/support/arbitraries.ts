import fc from "fast-check";
import type { AnyId } from "../../src/ids.ts";
import type { AuditEntry, SaltedEntry } from "../../src/protocol/audit.ts";
import { LEAF_STATUSES, type LeafRecord } from "../../src/protocol/leaf.ts";
import type { AccountState, Device, Settings } from "../../src/protocol/state.ts";

/** fast-check generators of protocol records, and a way to bend them. */

/** Exactly `length` bytes. */
export function bytesOf(length: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: length, maxLength: length });
}

export const hash = bytesOf(32);

/** An id in its text form. */
export function anyId<T extends AnyId>(): fc.Arbitrary<T> {
  return bytesOf(16).map((bytes) => bytes.toHex() as T);
}

const count = fc.integer({ min: 1, max: 0xffff_ffff });
const time = fc.nat({ max: 4_102_444_800_000 });
const maybe = <T>(inner: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(inner, { nil: null });

export const leafArbitrary: fc.Arbitrary<LeafRecord> = fc.record({
  keyId: anyId<LeafRecord["keyId"]>(),
  serial: count,
  version: count,
  sealedHash: hash,
  metaHash: hash,
  meta: maybe(fc.uint8Array({ minLength: 74, maxLength: 120 })),
  publicKey: maybe(fc.uint8Array({ minLength: 1, maxLength: 40 })),
  status: fc.constantFrom(...LEAF_STATUSES),
  previous: hash,
});

export const deviceArbitrary: fc.Arbitrary<Device> = fc.record({
  id: anyId<Device["id"]>(),
  publicKey: hash,
  name: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  tokenHash: hash,
  addedAtMs: time,
});

export const settingsArbitrary: fc.Arbitrary<Settings> = fc.record({
  identity: hash,
  devices: fc.array(deviceArbitrary, { minLength: 1, maxLength: 3 }),
  wrappedAccountKey: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  masterCommitment: hash,
  wrappedIdentity: fc.uint8Array({ minLength: 1, maxLength: 40 }),
  credentialTag: hash,
  credentialRevision: count,
  kit: maybe(bytesOf(64)),
  kitWrapped: maybe(fc.uint8Array({ minLength: 1, maxLength: 40 })),
  rotations: fc.array(
    fc.record({
      revision: fc.integer({ min: 2, max: 0xffff_ffff }),
      identity: hash,
      wrapped: bytesOf(73),
      handover: bytesOf(64),
    }),
    { maxLength: 3 },
  ),
});

export const stateArbitrary: fc.Arbitrary<AccountState> = fc.record({
  incarnation: anyId<AccountState["incarnation"]>(),
  userId: anyId<AccountState["userId"]>(),
  deviceId: anyId<AccountState["deviceId"]>(),
  revision: count,
  previous: hash,
  requestId: anyId<AccountState["requestId"]>(),
  requestHash: hash,
  root: hash,
  settingsHash: hash,
  auditSeq: count,
  auditLink: hash,
});

/** Entries without place in a chain: `seq`, `userId` and `previous` are set by who links them. */
export const entryArbitrary: fc.Arbitrary<AuditEntry> = fc.record({
  seq: count,
  userId: anyId<AuditEntry["userId"]>(),
  atMs: time,
  action: fc.constantFrom("secret.get", "secret.store", "session.login", "audit.list"),
  status: fc.constantFrom("ok", "login_failed", "conflict"),
  keyId: maybe(anyId<NonNullable<AuditEntry["keyId"]>>()),
  requestId: maybe(anyId<NonNullable<AuditEntry["requestId"]>>()),
  session: maybe(anyId<NonNullable<AuditEntry["session"]>>()),
  bodyHash: hash,
  stateHash: maybe(hash),
  count,
  previous: hash,
});

export const saltedArbitrary: fc.Arbitrary<SaltedEntry> = fc.record({ entry: entryArbitrary, salt: hash });

/** Copies of a value that each differ from it in one small way, but keep its type as far as that goes. */
export function bent(value: unknown): unknown[] {
  if (value === null) return [new Uint8Array(32)];
  if (typeof value === "boolean") return [!value];
  if (typeof value === "number") return value === 0 ? [1] : [value + 1, value - 1];
  if (typeof value === "string") {
    const [first, ...rest] = Array.from(value);
    return [`${first === "0" ? "1" : "0"}${rest.join("")}`];
  }
  if (value instanceof Uint8Array) {
    const first = value.slice();
    const last = value.slice();
    first[0] = (first[0] ?? 0) ^ 0x80;
    last[last.length - 1] = (last.at(-1) ?? 0) ^ 0x01;
    return [first, last, value.slice(1), Uint8Array.of(...value, 0)];
  }
  if (Array.isArray(value)) {
    const items: readonly unknown[] = value;
    const inside = items.flatMap((item, i) => bent(item).map((other) => items.with(i, other)));
    return items.length === 0 ? inside : [...inside, items.slice(1), [...items, ...items.slice(0, 1)]];
  }
  if (typeof value === "object") {
    const record = value as Readonly<Record<string, unknown>>;
    return Object.keys(record).flatMap((key) => bent(record[key]).map((other) => ({ ...record, [key]: other })));
  }
  throw new TypeError("no way to bend this value");
}

/** {@link bent} for a record, with the name of the field that differs. */
export function bentFields<T extends object>(record: T): { field: keyof T & string; value: T }[] {
  return (Object.keys(record) as (keyof T & string)[]).flatMap((field) =>
    bent(record[field]).map((other) => ({ field, value: { ...record, [field]: other } })),
  );
}
