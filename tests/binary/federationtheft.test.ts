import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ed25519 } from "@noble/curves/ed25519.js";
import { schnorr } from "@noble/curves/secp256k1.js";
import { generateKey, ownerPartOf } from "../../src/client/federation/generate.ts";
import { releaseKey, signWithKey } from "../../src/client/federation/use.ts";
import { clientLoginFinish, clientLoginStart, opaqueReady, serverLoginStart } from "../../src/crypto/opaque.ts";
import { KDF } from "../../src/protocol/defaults.ts";
import { memberName, opaqueSecret } from "../../src/protocol/federation/credentials.ts";
import { evaluateCommitments, groupOf, interpolate } from "../../src/protocol/federation/groups.ts";
import { pointOf } from "../../src/protocol/federation/owner.ts";
import { bytesOf } from "../../src/protocol/federation/sharedvalue.ts";
import { memoryHolds } from "../supply/processes.ts";
import { random } from "../support/harness.ts";
import { testUnless } from "../support/skip.ts";
import {
  candidates,
  crack,
  type Loot,
  type OpenedShare,
  occurs,
  occursBytes,
  openShares,
  readings,
  shareAt,
  steal,
} from "./federationloot.ts";
import { type Owner, openOwner } from "./federationowner.ts";
import { type Fleet, localHome, openFleet } from "./fleet.ts";
import { SETUP_MS } from "./world.ts";

/**
 * Whoever took one directory of a 2-of-3 federation with its sealing key, and everything that the relay carried
 * (docs/protocol.md §8.11): no key, no test of a password. The same thief with two directories has the delegated keys.
 */

setDefaultTimeout(SETUP_MS);

const PASSWORD = "canary vault password numbat 77";
const MESSAGE = new TextEncoder().encode("pay 3 coins to the harbour master");
const WISH = { control: "unilateral", policy: null, bytes: 32 } as const;
const OTHERS = [2, 3] as const;

let fleet: Fleet;
let owner: Owner;
/** What went through the relay, in both directions. */
const relayed: string[] = [];
const secrets = new Map<string, Uint8Array>();
const loots = new Map<number, Loot>();
const opened = new Map<number, readonly OpenedShare[]>();
/** All that the thief of server 1 and the relay's log has, in every reading. */
let haystack: readonly Uint8Array[];

const shown = (_name: string, value: unknown): unknown =>
  value instanceof Uint8Array ? Buffer.from(value).toString("base64url") : value;

const keyNamed = (name: string) => owner.key(name);
const certificateOf = (name: string) => keyNamed(name).certificate.certificate;
const lootOf = (index: number): Loot => {
  const loot = loots.get(index);
  if (!loot) throw new Error(`nothing was stolen from ${index}`);
  return loot;
};
const shareOf = (index: number, name: string): OpenedShare => {
  const { keyId } = certificateOf(name);
  const found = opened.get(index)?.find(({ certificate }) => certificate.keyId === keyId);
  if (!found) throw new Error(`server ${index} has no share of ${name}`);
  return found;
};

beforeAll(async () => {
  await opaqueReady();
  fleet = await openFleet(3);
  const drafter = await localHome(fleet.world, "drafter");
  await fleet.form(drafter, "custody", 2);
  owner = await openOwner(fleet, "custody", PASSWORD);
  // as a relay sees it that reads along
  owner.seen = (index, operation, input, output) => {
    relayed.push(JSON.stringify({ index, operation, input, output }, shown));
  };
  const { ground } = owner;

  await generateKey(ground, { name: "treasury", type: "schnorr", custody: "delegated", ...WISH });
  await generateKey(ground, { name: "own", type: "ed25519", custody: "self", ...WISH });
  await generateKey(ground, { name: "seed", type: "bytes", custody: "delegated", ...WISH });
  for (const name of ["treasury", "own"]) {
    // both of them at least once among those who sign
    for (let i = 0; i < 2; i++)
      expect((await signWithKey(ground, keyNamed(name), MESSAGE, null)).status).toBe("fulfilled");
  }
  const { value } = await releaseKey(ground, keyNamed("seed"), "retrieve");
  if (!value) throw new Error("no value");
  secrets.set("seed", value);
  for (const index of [1, ...OTHERS]) {
    const to = join(fleet.world.dir, `stolen-${index}`);
    mkdirSync(to, { mode: 0o700 });
    const loot = steal(fleet.dirs[index] ?? "", to);
    loots.set(index, loot);
    opened.set(index, await openShares(loot));
  }
  const encode = (text: string) => new TextEncoder().encode(text);
  const mine = opened.get(1)?.map(({ share }) => share) ?? [];
  haystack = readings([...lootOf(1).pieces, ...relayed.map(encode), ...mine, encode(fleet.server(1).log())]);
}, SETUP_MS);
afterAll(async () => {
  await owner.end();
  await fleet.close();
});

describe("one of three directories, with its sealing key, and the relay's log", () => {
  test("the thief opens a share of each key, and what he looks for he would find", () => {
    for (const name of ["treasury", "own", "seed"]) {
      const { certificate, index, share } = shareOf(1, name);
      expect(certificate.commitments).toHaveLength(2);
      expect(index).toBe(1);
      const point = evaluateCommitments(groupOf(certificate.type), certificate.commitments, 1);
      expect(pointOf(certificate.type, share)).toEqual(point);
      // he has it, so the search must say so; in another place, the other way round and base64url too
      expect(occurs(haystack, certificate.type, share)).toBe(true);
      const hidden = Buffer.concat([random(7), share.toReversed(), random(5)]);
      expect(occurs([hidden], certificate.type, share)).toBe(true);
      const written = Buffer.from(`{"a":"${Buffer.from(share).toString("base64url")}"}`);
      expect(occurs(readings([written]), certificate.type, share)).toBe(true);
      expect(occurs([random(200)], certificate.type, share)).toBe(false);
    }
    expect(relayed.filter((line) => line.includes('"federation.relay"')).length).toBeGreaterThan(20);
    expect(relayed.some((line) => line.includes('"federation.begin"'))).toBe(true);
    expect(candidates(haystack).length).toBeGreaterThan(100);
  });

  for (const name of ["treasury", "own", "seed"]) {
    test(`${name}: no window of 32 bytes is another server's share, or any point of the polynomial, or the key`, () => {
      const { type, custody, publicKey, commitments } = certificateOf(name);
      const group = groupOf(type);
      const whole = [1, 2].map((index) => shareOf(index, name));
      // a candidate for index i is of use if and only if it is the polynomial at i; at 0 it is the key
      for (const index of [0, 2, 3, 4, 5]) {
        const value = shareAt(type, whole, index);
        const point = index === 0 ? commitments[0] : evaluateCommitments(group, commitments, index);
        expect(pointOf(type, value)).toEqual(point ?? new Uint8Array());
        expect(occurs(haystack, type, value)).toBe(false);
      }
      for (const index of OTHERS) expect(shareAt(type, whole, index)).toEqual(shareOf(index, name).share);
      const keyNonce = keyNamed(name).nonce;
      const own = custody === "self" && keyNonce ? ownerPartOf(owner.ground, type, keyNonce) : null;
      expect(own !== null).toBe(name === "own");
      if (!own) return;
      const servers = interpolate(group, whole);
      const x = group.encodeScalar(group.add(servers, group.parseScalar(own)));
      expect(pointOf(type, x)).toEqual(publicKey);
      for (const secret of [own, x]) expect(occurs(haystack, type, secret)).toBe(false);
    });

    test(`${name}: no key-like value, alone or with the stolen share, is the key; nor a hash of one`, () => {
      const found = candidates(haystack);
      const hashed = found.map((one) => new Uint8Array(createHash("sha256").update(one).digest()));
      const guesses = [PASSWORD, "password", "custody"].flatMap((text) =>
        ["sha256", "sha512-256"].map((hash) => new Uint8Array(createHash(hash).update(text).digest())),
      );
      const tried = [...found.slice(0, 400), ...hashed.slice(0, 100), ...guesses];
      expect(crack(certificateOf(name), [shareOf(1, name)], tried)).toBeNull();
    });
  }

  test("a value that was retrieved lies nowhere", () => {
    const value = secrets.get("seed") ?? new Uint8Array();
    expect(value).toHaveLength(32);
    expect(occursBytes(haystack, value)).toBe(false);
  });
});

describe("two of three directories", () => {
  test("the same thief has the delegated keys: what he misses with one is the other's share alone", () => {
    const { type, keyId, length } = certificateOf("treasury");
    const key = crack(certificateOf("treasury"), [shareOf(1, "treasury"), shareOf(2, "treasury")], []);
    if (!key) throw new Error("two shares make no key");
    expect(pointOf(type, key)).toEqual(certificateOf("treasury").publicKey);
    const forged = schnorr.sign(MESSAGE, key);
    expect(schnorr.verify(forged, MESSAGE, certificateOf("treasury").publicKey.slice(-32))).toBe(true);
    // and as a value found among others
    const found = [random(32), shareOf(3, "treasury").share, random(32)];
    expect(crack(certificateOf("treasury"), [shareOf(1, "treasury")], found)).toEqual(key);
    expect([keyId.length, length]).toEqual([64, 32]);

    const seed = crack(certificateOf("seed"), [shareOf(1, "seed"), shareOf(2, "seed")], []);
    if (!seed) throw new Error("two shares make no value");
    expect(bytesOf(seed, certificateOf("seed").keyId, 32)).toEqual(secrets.get("seed") ?? new Uint8Array());
  });
});

describe("all three directories", () => {
  /** An Ed25519 signature by a scalar, as RFC 8032 has it but for where the scalar comes from. */
  function signed(scalar: bigint, publicKey: Uint8Array): Uint8Array {
    const group = groupOf("ed25519");
    const nonce = group.reduceScalar(random(64));
    const point = group.encodePoint(group.base.multiply(nonce));
    const digest = createHash("sha512").update(point).update(publicKey).update(MESSAGE).digest();
    const challenge = ed25519.Point.Fn.create(BigInt(`0x${Buffer.from(digest.toReversed()).toString("hex")}`));
    return Buffer.concat([point, group.encodeScalar(group.add(nonce, group.multiply(challenge, scalar)))]);
  }

  test("do not sign with a self-custodial key: the shares make D, and the key is D + C", () => {
    const certificate = certificateOf("own");
    const group = groupOf("ed25519");
    const shares = [1, 2, 3].map((index) => shareOf(index, "own"));
    const servers = interpolate(group, shares);
    expect(group.encodePoint(group.base.multiply(servers))).toEqual(certificate.commitments[0] ?? new Uint8Array());
    expect(certificate.commitments[0]).not.toEqual(certificate.publicKey);
    expect(ed25519.verify(signed(servers, certificate.publicKey), MESSAGE, certificate.publicKey)).toBe(false);
    const nonce = keyNamed("own").nonce;
    if (!nonce) throw new Error("no nonce");
    const own = ownerPartOf(owner.ground, "ed25519", nonce);
    const all = readings([
      ...[1, 2, 3].flatMap((index) => lootOf(index).pieces),
      ...relayed.map((one) => Buffer.from(one)),
    ]);
    const whole = group.add(servers, group.parseScalar(own));
    for (const secret of [own, group.encodeScalar(whole)]) expect(occurs(all, "ed25519", secret)).toBe(false);
    expect(crack(certificate, shares, candidates(all).slice(0, 200))).toBeNull();
    // with the owner's part the very same signer signs
    expect(ed25519.verify(signed(whole, certificate.publicKey), MESSAGE, certificate.publicKey)).toBe(true);
  });

  test("do not tell a right password from a wrong one, and it stands nowhere", () => {
    const { federationId } = owner.ground.fleet.manifest;
    for (const index of [1, 2, 3]) {
      const loot = lootOf(index);
      const { current } = JSON.parse(readFileSync(join(loot.dir, "keys", "opaque.json"), "utf8"));
      const [row, ...more] = loot.cells("SELECT credential_id, record FROM account");
      expect(more).toEqual([]);
      const account = memberName(owner.ground.secret, federationId);
      const opens = (guess: string): boolean =>
        [KDF.federation, KDF.test].some((cost) => {
          const { request, state } = clientLoginStart(guess);
          const [id, record] = [row?.["credential_id"] as Uint8Array, row?.["record"] as Uint8Array];
          const { response } = serverLoginStart(current.setup, id, account, record, request);
          return clientLoginFinish(guess, account, state, response, cost) !== undefined;
        });
      const derived = createHash("sha256").update(PASSWORD).digest("hex");
      for (const guess of [PASSWORD, "password", "", derived]) expect(opens(guess)).toBe(false);
      // the other servers' credentials do not open it either: one who has them is no nearer to this one
      for (const other of [1, 2, 3]) {
        const credential = opaqueSecret(owner.ground.secret, federationId, other).toHex();
        expect(opens(credential)).toBe(other === index);
      }
    }
    const all = readings([
      ...[1, 2, 3].flatMap((index) => lootOf(index).pieces),
      ...relayed.map((one) => Buffer.from(one)),
    ]);
    const forms = ["utf8", "utf16le"].map((how) => Buffer.from(PASSWORD, how as BufferEncoding));
    expect(occursBytes(all, ...forms, createHash("sha256").update(PASSWORD).digest())).toBe(false);
    expect(occursBytes(all, owner.ground.secret)).toBe(false);
    expect(occursBytes([Buffer.from(`xx${PASSWORD}yy`)], ...forms)).toBe(true);
  });
});

describe("the serving processes themselves", () => {
  const reason =
    process.platform === "linux" && process.getuid?.() === 0 ? undefined : "needs root to read another's memory";
  testUnless(reason, "have neither a share nor the sealing key in memory or log, whatever they did with them", () => {
    const encode = (text: string) => new TextEncoder().encode(text);
    const forms = (bytes: Uint8Array) => [
      bytes,
      bytes.toReversed(),
      encode(bytes.toHex()),
      encode(bytes.toBase64({ alphabet: "base64url", omitPadding: true })),
    ];
    for (const index of [1, ...OTHERS]) {
      const { pid, port, log } = fleet.server(index);
      const sealing = new Uint8Array(readFileSync(join(lootOf(index).dir, "enclave", "sealing.key")));
      const shares = (opened.get(index) ?? []).map(({ share }) => share);
      expect(shares).toHaveLength(3);
      const wanted = [...shares, sealing].flatMap(forms);
      // what it has, the same search finds
      const [address, ...found] = memoryHolds(pid, [encode(`127.0.0.1:${port}`), ...wanted]);
      expect(address).toBe(true);
      expect(found).toEqual(wanted.map(() => false));
      expect(occursBytes([encode(log())], ...wanted)).toBe(false);
    }
  });
});
