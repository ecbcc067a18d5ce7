import { expect, test } from "bun:test";
import { factsOf } from "../../../src/client/federation/facts.ts";
import { canon } from "../../../src/crypto/canon.ts";
import { certificateBytes } from "../../../src/protocol/federation/certificate.ts";
import { IMPORT_ORIGINS, KEY_ORIGINS } from "../../../src/protocol/federation/kinds.ts";
import { requestBytes, requestIdOf, signRequest, verifyRequest } from "../../../src/protocol/federation/request.ts";
import { decodeJson, encodeJson } from "../../../src/wire/codec.ts";
import { certificate, signedRequest } from "../../../src/wire/federation/records.ts";
import { ceremonyWorld, confirmedOf, importTerms, runCeremony } from "../../support/ceremonyworld.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const world = ceremonyWorld([1, 2, 3], 2);
const termsOf = (origin: (typeof IMPORT_ORIGINS)[number]) =>
  importTerms(world, "p256", 2, [1, 2, 3], new Uint8Array(32).fill(1), origin);

test("an import says where the secret comes from in its signed bytes: the owner's signature holds for nothing else", () => {
  const { request } = termsOf("imported").terms;
  const { body } = request;
  if (body.kind !== "import") throw new Error("no import");
  const signed = signRequest(world.requester, request);
  const seen = { ...request, body: { ...body, origin: "custodial" as const } };
  expect(verifyRequest(signed)).toBe(requestIdOf(request));
  expect(requestIdOf(seen)).not.toBe(requestIdOf(request));
  expect(() => verifyRequest({ ...signed, request: seen })).toThrow("signature");
  const seenSigned = signRequest(world.requester, seen);
  expect(() => verifyRequest({ ...seenSigned, request })).toThrow("signature");
  // as everything else is imported, and always was
  const purpose = [body.type, body.length, body.custody, body.control, body.policy, null];
  const parts = [body.threshold, body.holders, body.commitments, null];
  const { federationId, epoch, requester, nonce, createdAtMs, expiresAtMs } = request;
  const whole = (kind: string) =>
    canon("keyhold/v1/federation-request", ...[federationId, epoch, requester, nonce, createdAtMs, expiresAtMs, null], [
      kind,
      purpose,
      ...parts,
    ]);
  expect(requestBytes(request)).toEqual(whole("import"));
  expect(requestBytes(seen)).toEqual(whole("import-custodial"));
});

test("an import is sent as it always was, and one of what a server has seen under a kind of its own", () => {
  for (const origin of IMPORT_ORIGINS) {
    const signed = signRequest(world.requester, termsOf(origin).terms.request);
    const text = encodeJson(signedRequest, signed);
    const { body } = (JSON.parse(text) as { request: { body: Record<string, unknown> } }).request;
    expect([body["kind"], "origin" in body]).toEqual([origin === "imported" ? "import" : "import-custodial", false]);
    expect(decodeJson(signedRequest, bytes(text))).toEqual(signed);
    for (const wrong of [
      { ...body, origin },
      { ...body, kind: "import-generated" },
    ]) {
      const other = JSON.stringify({ ...JSON.parse(text), request: { ...JSON.parse(text).request, body: wrong } });
      expect(() => decodeJson(signedRequest, bytes(other))).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
    expect(factsOf(signed.request)).toContainEqual({ label: "origin", value: origin });
  }
});

test("a certificate has an origin of the three that there are, which its signatures cover", async () => {
  const { terms, shares } = termsOf("custodial");
  const made = [...confirmedOf(await runCeremony(world, terms, { contributions: shares })).values()][0]?.certificate;
  if (!made) throw new Error("no certificate");
  expect(made.origin).toBe("custodial");
  const all = KEY_ORIGINS.map((origin) => ({ ...made, origin }));
  expect(new Set(all.map((one) => certificateBytes(one).toHex())).size).toBe(3);
  for (const one of all) expect(decodeJson(certificate, bytes(encodeJson(certificate, one)))).toEqual(one);
  const other = encodeJson(certificate, made).replace('"custodial"', '"found"');
  expect(() => decodeJson(certificate, bytes(other))).toThrow(expect.objectContaining({ code: "bad_input" }));
});
