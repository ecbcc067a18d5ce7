import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { signerFromSeed, verifySignature } from "../../src/crypto/identity.ts";
import { ATTEMPTS_MAX } from "../../src/enclave/attempts.ts";
import type { EnclaveOutput } from "../../src/enclave/frames.ts";
import type { Fault } from "../../src/errors.ts";
import type { Certificate } from "../../src/protocol/federation/certificate.ts";
import { certificateHash } from "../../src/protocol/federation/certificate.ts";
import { erasureHolds } from "../../src/protocol/federation/erasure.ts";
import { federationIdOf, manifestHash, signManifest } from "../../src/protocol/federation/manifest.ts";
import type { SignedMessage } from "../../src/protocol/federation/message.ts";
import type { RequestBody, SignedOrder, SignedRequest } from "../../src/protocol/federation/request.ts";
import { requestIdOf, signDecision } from "../../src/protocol/federation/request.ts";
import { completeSignature } from "../../src/protocol/federation/signing.ts";
import { openPartial } from "../../src/protocol/federation/use.ts";
import { certify, type EnclaveWorld, enclaveWorld, type PlantedKey } from "../support/enclaveworld.ts";

let world: EnclaveWorld;
let key: PlantedKey;
beforeEach(async () => {
  world = await enclaveWorld();
  key = await world.plant("ed25519");
});
afterEach(() => world.close());

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "ok",
    (error: Fault) => error.code,
  );
const begin = (index: number, request: SignedRequest, order: SignedOrder, change = {}) =>
  world.server(index).enclave.handle("begin", {
    evidence: world.evidence(request, key, change),
    order,
    share: key.sealed.get(index) ?? null,
  });
const relay = (index: number, order: SignedOrder, messages: readonly SignedMessage[]) =>
  world.server(index).enclave.handle("relay", {
    ...order.order,
    requestId: order.order.requestId,
    attempt: order.order.attempt,
    messages,
  } as never);
const rounds = (step: EnclaveOutput<"begin">) => step.messages.map(({ message }) => message.payload.round);

/** Signs with servers 1 and 2; gives the signature. */
async function sign(request: SignedRequest, attempt = 1): Promise<Uint8Array> {
  const order = world.order(request, [1, 2], attempt);
  const nonces = (await Promise.all([1, 2].map((i) => begin(i, request, order)))).flatMap((step) => step.messages);
  const steps = await Promise.all([1, 2].map((i) => relay(i, order, nonces)));
  const use = { manifest: world.manifest, certificate: key.certificate, request: request.request, order: order.order };
  const partials = steps.flatMap((step) => step.messages.filter((m) => m.message.payload.round === "partial"));
  const opened = await Promise.all(partials.map((m) => openPartial(use, world.recipient, m)));
  const result = completeSignature({ ...use, nonces, partials: opened, owner: null });
  if (result.result !== "signed") throw new Error("not signed");
  return result.signature;
}

describe("a signature", () => {
  test("comes of two enclaves and verifies", async () => {
    const request = world.request(world.signBody(key));
    const signature = await sign(request);
    expect(verifySignature(key.certificate.publicKey, new TextEncoder().encode("message"), signature)).toBe(true);
  });

  test("step by step: nonces, then a partial; the same again is the same", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const [one, two] = await Promise.all([begin(1, request, order), begin(2, request, order)]);
    expect([rounds(one), one.outcome]).toEqual([["nonces"], null]);
    expect(await begin(1, request, order)).toEqual(one);
    expect(await relay(1, order, [])).toEqual(one);
    const done = await relay(1, order, two.messages);
    expect([rounds(done), done.outcome?.result]).toEqual([["nonces", "partial"], "done"]);
    expect(await relay(1, order, two.messages)).toEqual(done);
    expect(await begin(1, request, order)).toEqual(done);
  });

  test("two beginnings at once are one", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const [one, same] = await Promise.all([begin(1, request, order), begin(1, request, order)]);
    expect(same).toEqual(one);
  });

  test("another server's nonces said twice name it, and nothing is signed", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    await begin(1, request, order);
    const first = await begin(2, request, order);
    // server 2 lies: its process forgets, its journal too
    const liar = await enclaveWorld();
    try {
      const twin = liar.server(2);
      const second = await twin.enclave.handle("begin", {
        evidence: world.evidence(request, key),
        order,
        share: key.sealed.get(2) ?? null,
      });
      const done = await relay(1, order, [...first.messages, ...second.messages]);
      expect(done.outcome?.culprits.map(({ index, reason }) => [index, reason])).toEqual([[2, "equivocation"]]);
      expect([rounds(done), done.outcome?.result]).toEqual([["nonces"], "failed"]);
    } finally {
      liar.close();
    }
  });

  test("messages of another attempt, and forged ones, are refused; the attempt goes on", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const other = world.order(request, [1, 2, 3]);
    await begin(1, request, order);
    const foreign = await begin(3, request, other);
    expect(await codeOf(relay(1, order, foreign.messages))).toBe("integrity");
    const two = await begin(2, request, order);
    const forged = two.messages.map((m) => ({ ...m, signature: new Uint8Array(64) }));
    expect(await codeOf(relay(1, order, forged))).toBe("integrity");
    expect((await relay(1, order, two.messages)).outcome?.result).toBe("done");
  });
});

describe("spent", () => {
  test("another attempt of the same request has fresh nonces and signs the same", async () => {
    const request = world.request(world.signBody(key));
    const [first, second] = [await sign(request, 1), await sign(request, 2)];
    expect(first).not.toEqual(second);
  });

  test("the ninth attempt is refused", async () => {
    const request = world.request(world.signBody(key));
    expect(await codeOf(begin(1, request, world.order(request, [1, 2], 8)))).toBe("ok");
    expect(await codeOf(begin(1, request, world.order(request, [1, 2], 9)))).toBe("replayed");
  });

  test("another order for the same attempt is refused, a lower attempt too; the newest lives", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2], 2);
    const said = await begin(1, request, order);
    expect(await codeOf(begin(1, request, world.order(request, [1, 3], 2)))).toBe("conflict");
    const lower = world.order(request, [1, 2], 1);
    expect(await codeOf(begin(1, request, lower))).toBe("stale");
    expect(await codeOf(relay(1, lower, []))).toBe("stale");
    expect(await relay(1, order, [])).toEqual(said);
  });

  test("the mark is on disk before the first message leaves, and outlives a crash", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const { journalPath } = world.server(1);
    const before = readFileSync(journalPath, "utf8");
    await begin(1, request, order);
    expect(readFileSync(journalPath, "utf8").slice(before.length)).toContain(order.order.requestId);
    world.server(1).restart();
    // its nonces are gone: the same attempt is never said again
    expect(await codeOf(begin(1, request, order))).toBe("unavailable");
    expect(await codeOf(relay(1, order, []))).toBe("unavailable");
    expect(await codeOf(begin(1, request, world.order(request, [1, 2], 2)))).toBe("ok");
  });

  test("nothing leaves where the journal cannot be written", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    world.server(1).enclave.close();
    expect(await codeOf(begin(1, request, order))).toBe("storage");
    expect(await codeOf(relay(1, order, []))).toBe("unavailable");
  });

  test("a forgotten attempt is gone; its number stays used", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    await begin(1, request, order);
    await world.server(1).enclave.handle("forget", { requestId: order.order.requestId });
    expect(await codeOf(relay(1, order, []))).toBe("unavailable");
    expect(await codeOf(begin(1, request, order))).toBe("unavailable");
  });
});

describe("time", () => {
  test("an expired request begins nothing and goes on no more; one from the future neither", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const [, two] = [await begin(1, request, order), await begin(2, request, order)];
    world.nowMs += 600_000;
    expect(await codeOf(relay(1, order, two.messages))).toBe("conflict");
    expect(await codeOf(begin(1, request, world.order(request, [1, 2], 2)))).toBe("conflict");
    const ahead = world.request(world.signBody(key), { createdAtMs: world.nowMs + 60_001 });
    expect(await codeOf(begin(1, ahead, world.order(ahead, [1, 2])))).toBe("denied");
    const near = world.request(world.signBody(key), {
      createdAtMs: world.nowMs + 60_000,
      expiresAtMs: world.nowMs + 1_000,
    });
    expect(await codeOf(begin(1, near, world.order(near, [1, 2])))).toBe("ok");
  });

  test("what was said is said again after the expiry", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const said = await begin(1, request, order);
    world.nowMs += 600_000;
    expect(await begin(1, request, order)).toEqual(said);
  });
});

describe("evidence", () => {
  const attempt = (request: SignedRequest, change = {}, order = world.order(request, [1, 2])) =>
    codeOf(begin(1, request, order, change));

  test("each forged part is refused", async () => {
    const request = world.request(world.signBody(key));
    const stranger = signerFromSeed(world.random.bytes(32));
    const zero = new Uint8Array(64);
    const own = world.server(1).keys.signer.publicKey;
    const unsigned = {
      ...world.signed,
      signatures: world.signed.signatures.filter((s) => !Buffer.from(s.identity).equals(own)),
    };
    const other = await enclaveWorld({ seed: 9 });
    const certificate = key.signed;
    const cases: [string, string, () => Promise<string>][] = [
      ["the requester's signature", "integrity", () => attempt({ ...request, signature: zero })],
      [
        "another's order",
        "integrity",
        () => attempt(request, {}, { ...world.order(request, [1, 2]), signature: zero }),
      ],
      [
        "an order for another request",
        "integrity",
        () => attempt(request, {}, world.order(world.request(world.signBody(key)), [1, 2])),
      ],
      ["a manifest that this enclave has not signed", "integrity", () => attempt(request, { manifest: unsigned })],
      ["a manifest of strangers", "integrity", () => attempt(request, { manifest: other.signed })],
      [
        "a manifest that was changed",
        "bad_input",
        () => attempt(request, { manifest: { ...world.signed, manifest: { ...world.manifest, name: "other" } } }),
      ],
      ["no certificate", "bad_input", () => attempt(request, { certificate: null })],
      [
        "too few signatures of holders",
        "integrity",
        () => attempt(request, { certificate: { ...certificate, signatures: certificate.signatures.slice(1) } }),
      ],
      [
        "one signature twice",
        "integrity",
        () =>
          attempt(request, {
            certificate: { ...certificate, signatures: certificate.signatures.map(() => certificate.signatures[0]) },
          }),
      ],
      [
        "no acceptance",
        "integrity",
        () =>
          attempt(request, {
            certificate: { ...certificate, acceptance: { ...certificate.acceptance, signature: zero } },
          }),
      ],
      [
        "a certificate that was changed",
        "integrity",
        () =>
          attempt(request, { certificate: { ...certificate, certificate: { ...key.certificate, control: "shared" } } }),
      ],
      ["another requester", "denied", () => attempt(world.request(world.signBody(key), {}, stranger), {})],
      [
        "another federation",
        "integrity",
        () => attempt(world.request(world.signBody(key), { federationId: other.manifest.federationId })),
      ],
      ["another epoch", "integrity", () => attempt(world.request(world.signBody(key), { epoch: 2 }))],
      ["an older generation", "stale", () => attempt(world.request({ ...world.signBody(key), generation: 1 }))],
    ];
    try {
      for (const [name, code, run] of cases) expect([name, await run()]).toEqual([name, code]);
      expect(await attempt(request)).toBe("ok");
    } finally {
      other.close();
    }
  });

  test("rosters: in order, of holders, enough, with this server", async () => {
    const request = world.request(world.signBody(key));
    for (const roster of [[2, 1], [1, 1, 2], [1], [2, 3], [1, 4], [1, 2, 9]]) {
      expect([roster, await attempt(request, {}, world.order(request, roster))]).toEqual([roster, "bad_input"]);
    }
  });

  test("a certificate of another key does not serve", async () => {
    const other = await world.plant("ed25519");
    const request = world.request(world.signBody(key));
    expect(await attempt(request, { certificate: other.signed })).toBe("integrity");
  });

  test("nothing that was refused is in the journal", async () => {
    const { journalPath } = world.server(1);
    const before = readFileSync(journalPath, "utf8");
    const request = world.request(world.signBody(key));
    await attempt({ ...request, signature: new Uint8Array(64) });
    await attempt(request, { certificate: null });
    await attempt(request, {}, world.order(request, [2, 1]));
    await attempt(request, {}, world.order(request, [1]));
    expect(readFileSync(journalPath, "utf8")).toBe(before);
  });
});

describe("shares", () => {
  const withShare = (share: Uint8Array | null, k = key) => {
    const request = world.request(world.signBody(k));
    return codeOf(
      world
        .server(1)
        .enclave.handle("begin", { evidence: world.evidence(request, k), order: world.order(request, [1, 2]), share }),
    );
  };
  const nothing = new Uint8Array(0);

  test("of another key or server open nowhere", async () => {
    expect(await withShare(key.sealed.get(1) ?? nothing)).toBe("ok");
    expect(await withShare(key.sealed.get(2) ?? nothing)).toBe("integrity");
    expect(await withShare((await world.plant("ed25519")).sealed.get(1) ?? nothing)).toBe("integrity");
  });

  test("each changed bit is refused, and one that is missing", async () => {
    const sealed = key.sealed.get(1) ?? nothing;
    for (let at = 0; at < sealed.length; at += 7) {
      const bent = sealed.slice();
      bent[at] = (bent[at] ?? 0) ^ 1;
      expect(await withShare(bent)).toBe("integrity");
    }
    expect(await withShare(null)).toBe("not_found");
  });

  test("that do not lie on the key's polynomial are refused", async () => {
    const other = await world
      .plant("ed25519", { ...key.certificate, requestId: world.random.bytes(32).toHex() as never, generation: 0 })
      .catch((error: Fault) => error.code);
    // the same key id with other commitments is a second certificate of one generation
    expect(other).toBe("conflict");
  });
});

describe("a release", () => {
  const body = (purpose: "retrieve" | "export"): RequestBody => ({
    kind: "release",
    form: "message" as const,
    input: 0,
    keyId: key.certificate.keyId,
    generation: 0,
    purpose,
    message: null,
    amount: null,
    recipient: world.recipient.publicKey,
  });

  test("gives each server's share, sealed to the requester alone, at once", async () => {
    const request = world.request(body("export"));
    const order = world.order(request, [1, 2]);
    const step = await begin(1, request, order);
    expect([rounds(step), step.outcome?.result]).toEqual([["partial"], "done"]);
    const use = {
      manifest: world.manifest,
      certificate: key.certificate,
      request: request.request,
      order: order.order,
    };
    const [message] = step.messages;
    if (!message) throw new Error("nothing was said");
    expect((await openPartial(use, world.recipient, message)).value).toEqual(key.shares.get(1) ?? null);
    expect(JSON.stringify(step)).not.toContain(Buffer.from(key.shares.get(1) ?? []).toString("base64url"));
  });

  test("of an Ed25519 key is no retrieval", async () => {
    const request = world.request(body("retrieve"));
    expect(await codeOf(begin(1, request, world.order(request, [1, 2])))).toBe("bad_input");
  });
});

describe("confirm and erase", () => {
  const next = (change: Partial<Certificate> = {}): Certificate => ({
    ...key.certificate,
    generation: 1,
    requestId: "cd".repeat(32) as never,
    predecessor: certificateHash(key.certificate),
    ...change,
  });
  const erase = (index: number, certificate: Certificate, signed = certify(world, certificate)) =>
    world.server(index).enclave.handle("erase", { manifest: world.signed, certificate: signed });

  test("confirm again gives the same share again", async () => {
    const input = { manifest: world.signed, certificate: key.signed, sealed: key.sealed.get(1) ?? new Uint8Array(64) };
    const { sealed } = await world.server(1).enclave.handle("confirm", input);
    key = { ...key, sealed: new Map(key.sealed).set(1, sealed) };
    const request = world.request(world.signBody(key));
    expect(await codeOf(begin(1, request, world.order(request, [1, 2])))).toBe("ok");
  });

  test("confirm refuses forged certificates, strangers' manifests and shares of other attempts", async () => {
    const confirm = (change: object) =>
      codeOf(
        world.server(1).enclave.handle("confirm", {
          manifest: world.signed,
          certificate: key.signed,
          sealed: key.sealed.get(1) ?? new Uint8Array(64),
          ...change,
        }),
      );
    expect(await confirm({})).toBe("ok");
    expect(await confirm({ certificate: { ...key.signed, signatures: [] } })).toBe("integrity");
    expect(await confirm({ manifest: { ...world.signed, signatures: world.signed.signatures.slice(1) } })).toBe(
      "integrity",
    );
    expect(await confirm({ sealed: key.sealed.get(2) })).toBe("integrity");
    const cancelled = signDecision(world.owner, {
      requestId: key.certificate.requestId,
      verdict: "cancel",
      attempt: 0,
      certificateHash: null,
    });
    expect(await confirm({ certificate: { ...key.signed, acceptance: cancelled } })).toBe("integrity");
  });

  test("one request has one certificate: a second acceptance is refused, no further attempt begins", async () => {
    const second = { ...key.certificate, attempt: 2, keyId: "ef".repeat(32) as never };
    expect(await codeOf(erase(1, second))).toBe("conflict");
    const generate = world.request({
      kind: "generate",
      type: "ed25519",
      length: 32,
      custody: "delegated",
      control: "unilateral",
      policy: null,
      owner: null,
    });
    const made = { ...key.certificate, requestId: requestIdOf(generate.request), keyId: "12".repeat(32) as never };
    await erase(1, made);
    const order = world.order(generate, [1, 2, 3], 2);
    const input = { evidence: world.evidence(generate), order, share: null };
    expect(await codeOf(world.server(1).enclave.handle("begin", input))).toBe("conflict");
  });

  test("an erasure is signed for the generation before, and ends its shares here", async () => {
    expect(await erase(1, key.certificate)).toEqual({ erasures: [] });
    const { erasures } = await erase(1, next());
    expect(erasures.map(({ index, generation }) => [index, generation])).toEqual([[1, 0]]);
    const [erasure] = erasures;
    if (!erasure) throw new Error("no erasure");
    expect(erasureHolds(world.manifest, erasure)).toBe(true);
    for (const bent of [{ generation: 1 }, { index: 2 }, { keyId: "aa".repeat(32) as never }]) {
      expect(erasureHolds(world.manifest, { ...erasure, ...bent })).toBe(false);
    }
    const request = world.request(world.signBody(key));
    expect(await codeOf(begin(1, request, world.order(request, [1, 2])))).toBe("stale");
    world.server(1).restart();
    expect(await codeOf(begin(1, request, world.order(request, [1, 2])))).toBe("stale");
  });

  test("a signature that was under way does not come of erased shares", async () => {
    const request = world.request(world.signBody(key));
    const order = world.order(request, [1, 2]);
    const nonces = (await Promise.all([1, 2].map((i) => begin(i, request, order)))).flatMap((step) => step.messages);
    await erase(1, next());
    expect(await codeOf(relay(1, order, nonces))).toBe("stale");
    expect(rounds(await relay(2, order, nonces))).toEqual(["nonces", "partial"]);
  });

  test("two certificates of one generation: the second is refused", async () => {
    await erase(1, next());
    expect(await codeOf(erase(1, next({ requestId: "ab".repeat(32) as never })))).toBe("conflict");
    expect(await codeOf(erase(1, next()))).toBe("ok");
  });
});

describe("manifests", () => {
  const sign = (index: number, manifest: EnclaveWorld["manifest"], before: EnclaveWorld["signed"] | null) =>
    codeOf(world.server(index).enclave.handle("manifest.sign", { manifest, before }));
  const second = () => ({
    ...world.manifest,
    epoch: 2,
    createdAtMs: world.nowMs,
    previous: Uint8Array.fromHex("00".repeat(32)),
  });

  test("an enclave signs only what names it with its own keys", async () => {
    const other = await enclaveWorld({ seed: 5 });
    expect(await sign(1, other.manifest, null)).toBe("bad_input");
    other.close();
    const bent = {
      ...world.manifest,
      servers: world.manifest.servers.map((s) => (s.index === 1 ? { ...s, sealing: world.random.bytes(32) } : s)),
    };
    expect(await sign(1, { ...bent, federationId: federationIdOf(bent) }, null)).toBe("integrity");
    const follows = { ...second(), previous: manifestHash(world.manifest) };
    expect(await sign(1, follows, world.signed)).toBe("ok");
    expect(await sign(1, follows, null)).toBe("bad_input");
    expect(await sign(1, second(), world.signed)).toBe("integrity");
    expect(await sign(1, { ...follows, epoch: 3 }, world.signed)).toBe("integrity");
    expect(await sign(1, follows, { ...world.signed, signatures: world.signed.signatures.slice(1) })).toBe("integrity");
    expect(await sign(1, { ...follows, threshold: 1 }, world.signed)).toBe("bad_input");
    const moved = {
      ...follows,
      servers: follows.servers.map((s, i) => ({
        ...s,
        identity: world.manifest.servers[(i + 1) % 3]?.identity ?? s.identity,
      })),
    };
    expect(
      await sign(
        1,
        {
          ...moved,
          servers: moved.servers.map((s) =>
            Buffer.from(s.identity).equals(world.server(1).keys.signer.publicKey)
              ? { ...s, sealing: world.server(1).keys.hpke.publicKey }
              : s,
          ),
        },
        world.signed,
      ),
    ).toBe("bad_input");
    const gone = { ...follows, servers: follows.servers.filter((s) => s.index !== 1) };
    expect(await sign(1, gone, world.signed)).toBe("ok");
    expect(signManifest(world.server(1).keys.signer, follows).identity).toEqual(world.server(1).keys.signer.publicKey);
  });
});

test("after the first request of a later epoch none of an earlier one is heard", async () => {
  const later = { ...world.manifest, epoch: 2, previous: manifestHash(world.manifest) };
  const handle = (index: number) =>
    world.server(index).enclave.handle("manifest.sign", { manifest: later, before: world.signed });
  const signatures = await Promise.all([1, 2, 3].map(handle));
  const old = world.request(world.signBody(key));
  expect(await codeOf(begin(1, old, world.order(old, [1, 2])))).toBe("ok");
  const request = world.request(world.signBody(key), { epoch: 2 });
  const manifest = { manifest: later, signatures };
  expect(await codeOf(begin(1, request, world.order(request, [1, 2]), { manifest }))).toBe("ok");
  const again = world.request(world.signBody(key, "again"));
  expect(await codeOf(begin(1, again, world.order(again, [1, 2])))).toBe("stale");
  world.server(1).restart();
  expect(await codeOf(begin(1, again, world.order(again, [1, 2])))).toBe("stale");
});

test("attempts are bounded: what is expired or over makes room, what runs does not", async () => {
  const requests = Array.from({ length: ATTEMPTS_MAX.ofOne + 1 }, (_, n) =>
    world.request(world.signBody(key, `message ${n}`)),
  );
  const codes: string[] = [];
  for (const request of requests) codes.push(await codeOf(begin(1, request, world.order(request, [1, 2]))));
  expect(codes.filter((code) => code === "ok").length).toBe(ATTEMPTS_MAX.ofOne);
  expect(codes.at(-1)).toBe("rate_limited");
  world.nowMs += 600_000;
  const late = world.request(world.signBody(key, "late"));
  expect(await codeOf(begin(1, late, world.order(late, [1, 2])))).toBe("ok");
});
