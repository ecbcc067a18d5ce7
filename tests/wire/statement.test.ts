import { beforeAll, describe, expect, test } from "bun:test";
import type { IncarnationId } from "../../src/ids.ts";
import { DEFAULTS } from "../../src/protocol/defaults.ts";
import type { ServerIdentity } from "../../src/server/directory.ts";
import { decodeJson, encodeJson } from "../../src/wire/codec.ts";
import { operations } from "../../src/wire/operations.ts";
import { pinOf } from "../../src/wire/pin.ts";
import { type Statement, statementBytes, verifyStatement } from "../../src/wire/statement.ts";
import { newIdentity, random, statementOf } from "../support/listener.ts";

describe("statement", () => {
  let identity: ServerIdentity;
  let good: Statement;
  const nowMs = 1_800_000_000_000;
  const check = (statement: Statement, minNumber = 0, at = nowMs) =>
    verifyStatement(statement, { pin: pinOf(identity.publicKey), minNumber, nowMs: at });

  beforeAll(async () => {
    identity = await newIdentity();
    good = statementOf(identity, { expiresAtMs: nowMs + 1_000 });
  });

  test("verifies, also after a trip over the wire", () => {
    const codec = operations["server.statement"].output;
    const back = decodeJson(codec, new TextEncoder().encode(encodeJson(codec, good)));
    expect(check(back)).toEqual(good);
    expect(check(good, good.number)).toEqual(good);
  });

  const changes: { [K in Exclude<keyof Statement, "identity" | "signature">]: Statement[K] } = {
    number: 6,
    expiresAtMs: nowMs + 2_000,
    opaqueKeys: [new Uint8Array(32)],
    logKey: new Uint8Array(32),
    nextIdentity: new Uint8Array(32),
    incarnation: "11".repeat(16) as IncarnationId,
    registration: "closed",
  };
  test.each(Object.keys(changes) as (keyof typeof changes)[])("a changed %s breaks the signature", (field) => {
    expect(() => check({ ...good, [field]: changes[field] })).toThrow(expect.objectContaining({ code: "integrity" }));
  });

  test("a second OPAQUE key that was added breaks the signature", () => {
    const more = { ...good, opaqueKeys: [...good.opaqueKeys, random(32)] };
    expect(() => check(more)).toThrow(expect.objectContaining({ code: "integrity" }));
  });

  test("another identity is a pin mismatch, whoever signed", async () => {
    const other = statementOf(await newIdentity(), { expiresAtMs: nowMs + 1_000 });
    expect(() => check(other)).toThrow(expect.objectContaining({ code: "pin_mismatch" }));
    expect(() => check({ ...other, signature: good.signature })).toThrow(
      expect.objectContaining({ code: "pin_mismatch" }),
    );
  });

  test("the pinned identity with another's signature is refused", async () => {
    const other = await newIdentity();
    const forged = { ...good, signature: other.sign(statementBytes(good)) };
    expect(() => check(forged)).toThrow(expect.objectContaining({ code: "integrity" }));
  });

  test("expires, with the allowed skew", () => {
    const end = good.expiresAtMs + DEFAULTS.clockSkewMs;
    expect(check(good, 0, end - 1)).toEqual(good);
    expect(() => check(good, 0, end)).toThrow(expect.objectContaining({ code: "integrity" }));
  });

  test("an older number than one seen is refused", () => {
    expect(() => check(good, good.number + 1)).toThrow(expect.objectContaining({ code: "integrity" }));
  });
});
