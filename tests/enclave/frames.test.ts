import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  FRAME_MAX,
  faultFrame,
  frameOf,
  frameReader,
  frameWriter,
  outputFrame,
  readReply,
  readRequest,
  requestFrame,
} from "../../src/enclave/frames.ts";
import { Fault } from "../../src/errors.ts";
import type { FederatedRequestId } from "../../src/ids.ts";

const requestId = "ab".repeat(32) as FederatedRequestId;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

describe("frames", () => {
  test("come out as they went in, however the stream is cut", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ maxLength: 300 }), { maxLength: 6 }), fc.array(fc.nat(60)), (texts, cuts) => {
        const stream = Buffer.concat(texts.map(frameOf));
        const reader = frameReader();
        const found: string[] = [];
        let at = 0;
        for (const cut of [...cuts, stream.length]) {
          const chunk = new Uint8Array(stream.subarray(at, at + cut));
          found.push(...reader.take(chunk).map(text));
          at += cut;
        }
        if (at < stream.length) found.push(...reader.take(new Uint8Array(stream.subarray(at))).map(text));
        expect(found).toEqual(texts.map((one) => text(new TextEncoder().encode(one))));
      }),
    );
  });

  test("one that is too long is refused by its head alone, and never sent", () => {
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, FRAME_MAX + 1);
    expect(() => frameReader().take(head)).toThrow(expect.objectContaining({ code: "too_large" }));
    new DataView(head.buffer).setUint32(0, FRAME_MAX);
    expect(frameReader().take(head)).toEqual([]);
    expect(() => frameOf("x".repeat(FRAME_MAX + 1))).toThrow(expect.objectContaining({ code: "too_large" }));
  });

  test("questions and answers keep number, operation and content", () => {
    const [body = new Uint8Array(0)] = frameReader().take(requestFrame(7, "forget", { requestId }));
    const request = readRequest(body);
    expect([request.id, request.operation, request.input()]).toEqual([7, "forget", { requestId }]);
    const keys = { identity: new Uint8Array(32).fill(1), sealing: new Uint8Array(32).fill(2) };
    const [reply = new Uint8Array(0)] = frameReader().take(outputFrame(7, "info", keys));
    expect([readReply(reply).id, readReply(reply).output("info")]).toEqual([7, keys]);
  });

  test("what is no question is refused; an input that does not fit names its field", () => {
    for (const wrong of [
      "",
      "[]",
      '{"id":1}',
      '{"id":1,"operation":"open","input":{}}',
      '{"id":-1,"operation":"info","input":{}}',
    ]) {
      expect(() => readRequest(new TextEncoder().encode(wrong))).toThrow(
        expect.objectContaining({ code: "bad_input" }),
      );
    }
    const request = readRequest(new TextEncoder().encode('{"id":1,"operation":"forget","input":{"requestId":"x"}}'));
    expect(() => request.input()).toThrow(/requestId/);
  });

  test("a Fault crosses whole, anything else without its text", () => {
    const fault = new Fault("rate_limited", "too many", { why: "w", hint: "h", retryAfterMs: 5.5 });
    const [body = new Uint8Array(0)] = frameReader().take(faultFrame(3, fault));
    expect(() => readReply(body).output("info")).toThrow(
      expect.objectContaining({ code: "rate_limited", message: "too many", why: "w", hint: "h", retryAfterMs: 6 }),
    );
    const frame = faultFrame(3, new Error("secret"));
    expect(text(frame)).not.toContain("secret");
    expect(() => readReply(frameReader().take(frame)[0] ?? new Uint8Array(0)).output("info")).toThrow(
      expect.objectContaining({ code: "internal" }),
    );
  });
});

describe("a frame writer", () => {
  const pipe = () => {
    const calls: string[] = [];
    return {
      calls,
      write: (bytes: Uint8Array) => calls.push(new TextDecoder().decode(bytes)),
      flush: async () => void calls.push("flush"),
    };
  };
  const bytes = (text: string) => new TextEncoder().encode(text);

  test("sends frames that come together at once, in their order, and a later one by itself", async () => {
    const to = pipe();
    const say = frameWriter(to);
    await Promise.all([say(bytes("a")), say(bytes("b")), say(bytes("c"))]);
    expect(to.calls).toEqual(["a", "b", "c", "flush"]);
    await say(bytes("d"));
    expect(to.calls).toEqual(["a", "b", "c", "flush", "d", "flush"]);
  });

  test("sends what comes while a flush is under way with the next one", async () => {
    const to = pipe();
    let later: Promise<void> | undefined;
    const say = frameWriter({
      ...to,
      flush: async () => {
        to.calls.push("flush");
        later ??= say(bytes("b"));
      },
    });
    await say(bytes("a"));
    await later;
    expect(to.calls).toEqual(["a", "flush", "b", "flush"]);
  });

  test("says to each frame that the other end has gone, and goes on", async () => {
    let gone = true;
    const to = pipe();
    const say = frameWriter({ ...to, flush: async () => (gone ? Promise.reject(new Error("EPIPE")) : to.flush()) });
    const said = await Promise.allSettled([say(bytes("a")), say(bytes("b"))]);
    expect(said.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    gone = false;
    await say(bytes("c"));
    expect(to.calls).toEqual(["a", "b", "c", "flush"]);
  });
});
