import { expect, test } from "bun:test";
import { groupOf } from "../../../src/protocol/federation/groups.ts";
import { type Culprit, type SignedMessage, signMessage } from "../../../src/protocol/federation/message.ts";
import { nonceBlameHolds } from "../../../src/protocol/federation/noncesblame.ts";
import { orderHash } from "../../../src/protocol/federation/request.ts";
import type { Use } from "../../../src/protocol/federation/use.ts";
import { bodies, certificate, idOf, request } from "../../support/policies.ts";
import { manifestOf, serverKey } from "../../support/registryworld.ts";

const { manifest } = manifestOf();
const asked = request(bodies.sign);
const order = { requestId: idOf(asked), attempt: 1, roster: [1, 2], contributions: [], ownerNonces: null };
const use: Use = { manifest, certificate: certificate(), request: asked, order };
const { base, encodePoint } = groupOf("ed25519");
const point = (n: bigint) => encodePoint(base.multiply(n));

function nonces(hiding: Uint8Array, by = 1, from = by, hash = orderHash(order)): SignedMessage {
  const payload = { round: "nonces", hiding, binding: point(7n) } as const;
  return signMessage(serverKey(by), {
    requestId: order.requestId,
    attempt: 1,
    orderHash: hash,
    from,
    to: 0,
    payload,
  });
}
const blame = (reason: Culprit["reason"], ...evidence: SignedMessage[]) =>
  nonceBlameHolds(use, { index: 1, reason, evidence });

test("two different nonces of one server in one attempt are proof, by its own signatures alone", () => {
  const [a, b] = [nonces(point(2n)), nonces(point(3n))];
  expect(blame("equivocation", a, b)).toBe(true);
  expect(blame("equivocation", a, a)).toBe(false);
  expect(blame("equivocation", a)).toBe(false);
  expect(blame("equivocation", a, nonces(point(3n), 2, 1))).toBe(false);
  expect(blame("equivocation", a, nonces(point(3n), 2))).toBe(false);
  expect(blame("equivocation", a, nonces(point(3n), 1, 1, new Uint8Array(32)))).toBe(false);
});

test("nonces that are no points are proof; good ones, and other reasons, are none", () => {
  const bad = nonces(new Uint8Array(32).fill(0xff));
  expect(blame("bad_commitments", bad)).toBe(true);
  expect(blame("bad_commitments", nonces(point(2n)))).toBe(false);
  expect(blame("bad_commitments")).toBe(false);
  expect(blame("bad_partial", bad)).toBe(false);
  expect(blame("bad_commitments", nonces(new Uint8Array(32).fill(0xff), 2, 1))).toBe(false);
});
