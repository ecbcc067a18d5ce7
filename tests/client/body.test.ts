import { expect, test } from "bun:test";
import fc from "fast-check";
import { bodyCodec, bodyText } from "../../src/client/body.ts";
import { NOTHING_HELD } from "../../src/client/federation/held.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedKeyId, FederationId, UserId, WorkspaceId } from "../../src/ids.ts";
import { decodeJson, encodeJson, type Of } from "../../src/wire/codec.ts";
import { bytesOf, leafArbitrary } from "../support/arbitraries.ts";

type Body = Of<typeof bodyCodec>;
const stored = fc.record({ leaf: leafArbitrary, sealed: fc.option(bytesOf(90)) });
const bodyWith = (secrets: Body["secrets"]): Body => ({
  owner: "ab".repeat(16) as UserId,
  accountKey: new Uint8Array(32).fill(7),
  bound: null,
  secrets,
  local: [],
  queue: [],
  conflicts: [],
  ...NOTHING_HELD,
});

test("a body's text is the codec's own, the first time and after secrets were replaced, added and taken away", () => {
  fc.assert(
    fc.property(
      fc.array(stored, { maxLength: 5 }),
      fc.array(stored, { minLength: 1, maxLength: 3 }),
      (before, after) => {
        for (const secrets of [before, [...before, ...after], [...after, ...before.slice(1)], before.slice(1), []]) {
          expect(bodyText(bodyWith(secrets))).toBe(encodeJson(bodyCodec, bodyWith(secrets)));
        }
      },
    ),
  );
});

test("a secret of which another version took the place is encoded as it is now", () => {
  const [one] = fc.sample(stored, 1);
  if (!one) throw new Error("no sample");
  bodyText(bodyWith([one]));
  const next = { ...one, leaf: { ...one.leaf, serial: (one.leaf.serial % 1_000) + 1 } };
  expect(bodyText(bodyWith([next]))).toBe(encodeJson(bodyCodec, bodyWith([next])));
});

test("each version of a body is read, and the oldest that will do is written", () => {
  const plain = bodyWith([]);
  const shape = (body: Body) => JSON.parse(bodyText(body)) as { v: number };
  expect(shape(plain)).toMatchObject({ v: 1 });
  expect(shape(plain)).not.toHaveProperty("federations");
  const secret = new Uint8Array(32).fill(3);
  const federated = { ...plain, federationSecret: secret };
  expect(shape(federated)).toMatchObject({ v: 3, federations: [], federatedKeys: [], federatedRequests: [] });
  expect(decodeJson(bodyCodec, new TextEncoder().encode(bodyText(federated))).federationSecret).toEqual(secret);
  for (const [v, more] of [
    [1, {}],
    [2, { queue: [], conflicts: [] }],
  ] as const) {
    const old = { ...shape(plain), ...more, v };
    expect(decodeJson(bodyCodec, new TextEncoder().encode(JSON.stringify(old)))).toMatchObject(plain);
  }
  // a program of before refuses what it would lose
  const cut = { ...shape(federated), v: 2 };
  expect(() => decodeJson(bodyCodec, new TextEncoder().encode(JSON.stringify(cut)))).toThrow("v must be");
});

test("what belongs to keyrings makes it the newest version, which a program of before refuses", () => {
  const hash = new Uint8Array(32).fill(4);
  const pin = { registry: hash, workspaceId: "cd".repeat(32) as WorkspaceId, name: "treasury", version: 2, hash };
  const pinned = { ...bodyWith([]), federationSecret: new Uint8Array(32).fill(3), workspacePins: [pin] };
  const text = bodyText(pinned);
  expect(JSON.parse(text)).toMatchObject({ v: 4, keyringPins: [], keyringDrafts: [], keyringReleased: [] });
  expect(decodeJson(bodyCodec, new TextEncoder().encode(text))).toMatchObject({ ...pinned, v: 4 });
  const { workspacePins: _, ...without } = JSON.parse(text) as { workspacePins: unknown };
  for (const wrong of [{ ...without }, { ...JSON.parse(text), v: 3 }]) {
    expect(() => decodeJson(bodyCodec, new TextEncoder().encode(JSON.stringify(wrong)))).toThrow(Fault);
  }
  // a vault that has no federation and no queue, and has seen a workspace, is of the newest version too
  const alone = { ...bodyWith([]), keyringReleased: ["ab".repeat(32) as FederatedKeyId] };
  expect(JSON.parse(bodyText(alone))).toMatchObject({ v: 4, federations: [], queue: [] });
  const broken = { ...pinned, workspacePins: [{ ...pin, version: 0 }] };
  expect(() => bodyText(broken)).toThrow(expect.objectContaining({ code: "internal" }));
});

test("what belongs to ceremonies makes it the newest version, and nothing else does", () => {
  const hash = new Uint8Array(32).fill(4);
  const pinned = { ...bodyWith([]), ceremonyKeyPins: [{ server: hash, number: 1, hash }] };
  const text = bodyText(pinned);
  expect(JSON.parse(text)).toMatchObject({ v: 5, ceremonies: [], otpAsks: [], otpDeviceSeed: null, workspacePins: [] });
  expect(decodeJson(bodyCodec, new TextEncoder().encode(text))).toMatchObject({ ...pinned, v: 5 });
  const { ceremonies: _, ...without } = JSON.parse(text) as { ceremonies: unknown };
  for (const wrong of [{ ...without }, { ...JSON.parse(text), v: 4 }]) {
    expect(() => decodeJson(bodyCodec, new TextEncoder().encode(JSON.stringify(wrong)))).toThrow(Fault);
  }
  expect(JSON.parse(bodyText({ ...bodyWith([]), otpDeviceSeed: hash }))).toMatchObject({ v: 5 });
  const keyrings = { ...bodyWith([]), keyringReleased: ["ab".repeat(32) as FederatedKeyId] };
  expect(bodyText(keyrings)).not.toContain("ceremon");
  const broken = { ...pinned, ceremonyKeyPins: [{ server: hash, number: 0, hash }] };
  expect(() => bodyText(broken)).toThrow(expect.objectContaining({ code: "internal" }));
});

const written = (body: Body) => new TextEncoder().encode(bodyText(body));

test("a body that could not be read back is never written", () => {
  const federated = { ...bodyWith([]), federationSecret: new Uint8Array(32).fill(3) };
  expect(decodeJson(bodyCodec, written(federated))).toMatchObject({ v: 3 });
  const pin = { federationId: "cd".repeat(32) as FederationId, epoch: 1, hash: new Uint8Array(32) };
  const named = (name: string) => ({
    ...federated,
    federationPins: [{ ...pin, name, contacts: [{ url: "https://a.example:7443", pin: `sha256:${"A".repeat(43)}` }] }],
  });
  expect(decodeJson(bodyCodec, written(named("custody")))).toMatchObject({ federationPins: [{ name: "custody" }] });
  expect(() => bodyText(named("Custody!"))).toThrow(expect.objectContaining({ code: "internal" }));
});
