import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  errorLine,
  fromAgentJson,
  readReply,
  readRequest,
  requestLine,
  toAgentJson,
} from "../../src/client/agentmessage.ts";
import { errorTable, Fault } from "../../src/errors.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);
const badInput = expect.objectContaining({ code: "bad_input" });
const internal = expect.objectContaining({ code: "internal" });

/** Plain data as the client API uses it, with keys that look like the encoding's own. */
const { plain } = fc.letrec<{ plain: unknown }>((tie) => ({
  plain: fc.oneof(
    { depthSize: "small" },
    fc.constant(null),
    fc.boolean(),
    fc.string(),
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).filter((value) => !Object.is(value, -0)),
    fc.uint8Array().map((bytes) => new Uint8Array(bytes)),
    fc.array(tie("plain"), { maxLength: 5 }),
    fc.dictionary(fc.oneof(fc.string(), fc.constantFrom("$b64", "$$b64", "$", "__proto__")), tie("plain"), {
      maxKeys: 5,
      noNullPrototype: true,
    }),
  ),
}));

test("plain data comes back, bytes and dollar keys too", () => {
  fc.assert(
    fc.property(plain, (value) => {
      const line = requestLine(1, "echo", value);
      expect(line.indexOf(0x0a)).toBe(line.length - 1);
      const { params, ...rest } = readRequest(line.subarray(0, -1));
      expect(rest).toEqual({ id: 1, method: "echo" });
      expect(fromAgentJson(params)).toEqual(value);
    }),
  );
});

test("an own __proto__ key stays an own key", () => {
  const value: unknown = fromAgentJson(JSON.parse('{"__proto__":{"polluted":true}}'));
  expect(Object.keys(value as object)).toEqual(["__proto__"]);
  expect((value as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test("a field without a value is left out", () => {
  expect(toAgentJson({ a: undefined, b: 1 })).toEqual({ b: 1 });
});

test.each([[Number.NaN], [Number.POSITIVE_INFINITY], [1n], [() => 1], [new Date(0)], [new Map()], [Symbol("x")]])(
  "no plain data: %p",
  (value) => {
    expect(() => toAgentJson({ value })).toThrow(internal);
  },
);

test("nesting is bounded both ways", () => {
  let deep: unknown = 1;
  for (let i = 0; i < 100; i++) deep = [deep];
  expect(() => toAgentJson(deep)).toThrow(internal);
  expect(() => fromAgentJson(deep)).toThrow(badInput);
  expect(() => readRequest(utf8(`{"jsonrpc":"2.0","id":1,"method":"a","params":${"[".repeat(500_000)}`))).toThrow(
    badInput,
  );
});

test.each([
  { $b64: 1 },
  { $b64: "=" },
  { $b64: "AB==" },
  { $b64: "A" },
  { $b64: "AB" },
  { $x: 1 },
  { $b64: "AA", a: 1 },
])("no encoding: %j", (value) => {
  expect(() => fromAgentJson(value)).toThrow(badInput);
});

test.each([
  "",
  "null",
  "1",
  "[]",
  "{",
  "{}",
  '{"jsonrpc":"1.0","id":1,"method":"a"}',
  '{"jsonrpc":"2.0","method":"a"}',
  '{"jsonrpc":"2.0","id":null,"method":"a"}',
  '{"jsonrpc":"2.0","id":{},"method":"a"}',
  '{"jsonrpc":"2.0","id":1e999,"method":"a"}',
  '{"jsonrpc":"2.0","id":1}',
  '{"jsonrpc":"2.0","id":1,"method":1}',
  '{"jsonrpc":"2.0","id":1,"method":""}',
  '{"jsonrpc":"2.0","id":1,"method":"__proto__"}',
  '{"jsonrpc":"2.0","id":1,"method":"a","extra":1}',
  '[{"jsonrpc":"2.0","id":1,"method":"a"}]',
])("no request: %s", (line) => {
  expect(() => readRequest(utf8(line))).toThrow(badInput);
});

test("no request: bytes that are not UTF-8", () => {
  expect(() => readRequest(Uint8Array.of(0xff, 0xfe))).toThrow(badInput);
});

test("every fault crosses with code, message, why, hint, delay, culprits and request id", () => {
  for (const { code } of errorTable()) {
    const sent = new Fault(code, `message ${code}`, {
      why: "why",
      hint: "hint",
      retryAfterMs: 5,
      culprits: ["s1"],
      requestId: "r",
    });
    let got: unknown;
    try {
      readReply(1, errorLine(1, sent));
    } catch (error) {
      got = error;
    }
    expect(got).toBeInstanceOf(Fault);
    const { message, why, hint, retryAfterMs, culprits, requestId } = sent;
    expect(got).toMatchObject({ code, message, why, hint, retryAfterMs, culprits, requestId });
  }
});

test("an exception that is no fault crosses without its text", () => {
  const line = new TextDecoder().decode(errorLine(1, new Error("canary secret")));
  expect(line).not.toContain("canary");
  expect(() => readReply(1, utf8(line))).toThrow(internal);
});

test.each([
  "{}",
  '{"jsonrpc":"2.0","id":2,"result":1}',
  '{"jsonrpc":"2.0","id":null,"result":1}',
  '{"jsonrpc":"2.0","id":1}',
])("no reply: %s", (line) => {
  expect(() => readReply(1, utf8(line))).toThrow(expect.objectContaining({ code: "unavailable" }));
});

test.each(["null", '"text"', '{"message":"m"}', '{"message":"m","data":{"code":"no_such_code"}}'])(
  "an error of another form is internal: %s",
  (error) => {
    expect(() => readReply(1, utf8(`{"jsonrpc":"2.0","id":1,"error":${error}}`))).toThrow(internal);
  },
);
