import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { Fault } from "../../src/errors.ts";
import type { RequestId, SessionId, UserId } from "../../src/ids.ts";
import {
  channelKeys,
  FRAME_OVERHEAD,
  type FrameHead,
  frameHead,
  loginReplyKey,
  openReply,
  openRequest,
  sealReply,
  sealRequest,
  useSequence,
  WINDOW_BYTES,
} from "../../src/protocol/channel.ts";
import { anyId, bent, bentFields, bytesOf } from "../support/arbitraries.ts";

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));

function expectIntegrity(work: () => unknown): void {
  let caught: unknown;
  try {
    work();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(Fault);
  expect((caught as Fault).code).toBe("integrity");
}

const head: fc.Arbitrary<FrameHead> = fc.record({
  sessionId: anyId<SessionId>(),
  sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER - 1 }),
  requestId: anyId<RequestId>(),
});
const facts = fc.record({
  sessionKey: bytesOf(64),
  identity: bytesOf(32),
  userId: anyId<UserId>(),
  sessionId: anyId<SessionId>(),
});
type Facts = { sessionKey: Uint8Array; identity: Uint8Array; userId: UserId; sessionId: SessionId };
const keysOf = (f: Facts) => channelKeys(f.sessionKey, f.identity, f.userId, f.sessionId);

describe("channel keys", () => {
  test("differ by direction, session key, server identity, account and session", () => {
    fc.assert(
      fc.property(facts, (f) => {
        const keys = keysOf(f);
        const seen = new Set([keys.request.toHex(), keys.reply.toHex()]);
        seen.add(loginReplyKey(f.sessionKey, f.identity, f.sessionId).toHex());
        expect(seen.size).toBe(3);
        for (const { value } of bentFields<Facts>(f)) {
          const other = keysOf(value);
          expect(seen.has(other.request.toHex())).toBe(false);
          expect(seen.has(other.reply.toHex())).toBe(false);
        }
        expect(keysOf(f)).toEqual(keys);
      }),
      { numRuns: 40 },
    );
  });
});

describe("request frames", () => {
  test("open under their own head and operation alone", () => {
    fc.assert(
      fc.property(facts, head, fc.uint8Array({ maxLength: 200 }), (f, at, body) => {
        const keys = keysOf(f);
        const frame = sealRequest(keys, at, "secret.get", body, random);
        expect(frame.length).toBe(body.length + FRAME_OVERHEAD);
        expect(frameHead(frame)).toEqual(at);
        expect(openRequest(keys, at, "secret.get", frame).toHex()).toBe(body.toHex());
        for (const { value } of bentFields(at)) expectIntegrity(() => openRequest(keys, value, "secret.get", frame));
        for (const name of ["secret.list", "secret.gets", "Secret.get", ""]) {
          expectIntegrity(() => openRequest(keys, at, name, frame));
        }
        expectIntegrity(() => openRequest({ ...keys, request: keys.reply }, at, "secret.get", frame));
      }),
      { numRuns: 40 },
    );
  });

  test("a head changed in the clear part does not open", () => {
    const keys = { request: random(32), reply: random(32) };
    const at = fc.sample(head, 1)[0] as FrameHead;
    const frame = sealRequest(keys, at, "secret.get", random(20), random);
    for (let i = 0; i < frame.length; i++) {
      const bentFrame = frame.slice();
      bentFrame[i] = (bentFrame[i] ?? 0) ^ 0x10;
      let read: FrameHead;
      try {
        read = frameHead(bentFrame);
      } catch (error) {
        expect(error).toMatchObject({ code: "bad_input" });
        continue;
      }
      expectIntegrity(() => openRequest(keys, read, "secret.get", bentFrame));
    }
  });

  test("short frames and sequences out of range are refused before any key is used", () => {
    for (const length of [0, 1, 16, 40, FRAME_OVERHEAD - 1]) {
      expect(() => frameHead(new Uint8Array(length))).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
    const keys = { request: random(32), reply: random(32) };
    const frame = sealRequest(keys, fc.sample(head, 1)[0] as FrameHead, "secret.get", random(1), random);
    for (const sequence of [0n, 2n ** 53n, 2n ** 64n - 1n]) {
      new DataView(frame.buffer, frame.byteOffset).setBigUint64(16, sequence);
      expect(() => frameHead(frame)).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
  });

  test("the same request sealed again looks unlike: nonces are drawn, not counted", () => {
    const keys = { request: random(32), reply: random(32) };
    const at = fc.sample(head, 1)[0] as FrameHead;
    const body = random(10);
    const seen = new Set(
      Array.from({ length: 50 }, () => sealRequest(keys, at, "secret.get", body, random).slice(40, 65).toHex()),
    );
    expect(seen.size).toBe(50);
  });
});

describe("reply frames", () => {
  test("open for the very request frame that they answer, and for no other", () => {
    fc.assert(
      fc.property(facts, head, fc.uint8Array({ maxLength: 200 }), (f, at, body) => {
        const keys = keysOf(f);
        const frame = sealRequest(keys, at, "secret.get", body, random);
        const again = sealRequest(keys, at, "secret.get", body, random);
        const reply = sealReply(keys, at, "secret.get", frame, body, random);
        expect(openReply(keys, at, "secret.get", frame, reply).toHex()).toBe(body.toHex());
        expectIntegrity(() => openReply(keys, at, "secret.get", again, reply));
        expectIntegrity(() => openReply(keys, at, "secret.list", frame, reply));
        for (const { value } of bentFields(at))
          expectIntegrity(() => openReply(keys, value, "secret.get", frame, reply));
        for (const other of bent(reply)) {
          expectIntegrity(() => openReply(keys, at, "secret.get", frame, other as Uint8Array));
        }
      }),
      { numRuns: 40 },
    );
  });

  test("a request reflected as its own reply does not open, even under one key for both directions", () => {
    const key = random(32);
    const keys = { request: key, reply: key };
    const at = fc.sample(head, 1)[0] as FrameHead;
    const frame = sealRequest(keys, at, "secret.get", random(30), random);
    expectIntegrity(() => openReply(keys, at, "secret.get", frame, frame));
    expectIntegrity(() => openReply(keys, at, "secret.get", frame, frame.subarray(40)));
    const reply = sealReply(keys, at, "secret.get", frame, random(30), random);
    const forged = new Uint8Array(40 + reply.length);
    forged.set(frame.subarray(0, 40));
    forged.set(reply, 40);
    expectIntegrity(() => openRequest(keys, at, "secret.get", forged));
  });
});

describe("replay window", () => {
  const WIDTH = WINDOW_BYTES * 8;
  const fresh = () => ({ high: 0, window: new Uint8Array(WINDOW_BYTES) });

  /** Remembers all sequences for ever. */
  function slowModel() {
    const used = new Set<number>();
    let high = 0;
    return (sequence: number): boolean => {
      if (used.has(sequence) || sequence <= high - WIDTH) return false;
      used.add(sequence);
      high = Math.max(high, sequence);
      return true;
    };
  }

  const steps = fc.array(
    fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: -40, max: 40 }) },
      { weight: 2, arbitrary: fc.integer({ min: -WIDTH - 3, max: WIDTH + 3 }) },
      { weight: 1, arbitrary: fc.constantFrom(WIDTH - 1, WIDTH, WIDTH + 1, -WIDTH, -WIDTH + 1, 5_000) },
    ),
    { minLength: 1, maxLength: 60 },
  );

  test("accepts exactly what a set of all sequences accepts", () => {
    fc.assert(
      fc.property(steps, (moves) => {
        const model = slowModel();
        let state = fresh();
        for (const move of moves) {
          const sequence = Math.max(1, state.high + move);
          const before = { high: state.high, window: state.window.slice() };
          const next = useSequence(state, sequence);
          expect(next !== undefined).toBe(model(sequence));
          expect(state).toEqual(before);
          if (next) {
            expect(next.high).toBe(Math.max(before.high, sequence));
            expect(next.window.length).toBe(WINDOW_BYTES);
            state = { high: next.high, window: next.window.slice() };
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("the last one inside the window passes once, the first one below it never", () => {
    const at = useSequence(fresh(), 5_000);
    if (!at) throw new Error("refused");
    const inside = useSequence(at, 5_000 - WIDTH + 1);
    expect(inside).toBeDefined();
    expect(inside && useSequence(inside, 5_000 - WIDTH + 1)).toBeUndefined();
    expect(useSequence(at, 5_000 - WIDTH)).toBeUndefined();
    expect(useSequence(at, 5_000)).toBeUndefined();
  });

  test("a jump as far as numbers go forgets nothing that could still be used", () => {
    const one = useSequence(fresh(), 1);
    const far = one && useSequence(one, Number.MAX_SAFE_INTEGER);
    expect(far && useSequence(far, 1)).toBeUndefined();
    expect(far && useSequence(far, Number.MAX_SAFE_INTEGER - 1)).toBeDefined();
  });
});
