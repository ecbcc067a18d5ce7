import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { AGENT_METHODS, type AgentMethod, agentMethods, readCall } from "../../src/client/agentapi.ts";
import { fromAgentJson, toAgentJson } from "../../src/client/agentmessage.ts";
import type { Params } from "../../src/client/agentparams.ts";
import { Fault } from "../../src/errors.ts";

const METHODS = Object.keys(AGENT_METHODS) as AgentMethod[];

/** Anything that JSON can hold, fields of the real names among it. */
const names = [...new Set(METHODS.flatMap((method) => AGENT_METHODS[method].params.names))].map((name) =>
  name.replace("?", ""),
);
const anything = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.constantFrom(
      null,
      true,
      false,
      "",
      "a",
      "both",
      "note",
      "get",
      "export",
      -0,
      0,
      1,
      1.5,
      2 ** 40,
      "ab".repeat(16),
    ),
    fc.string(),
    fc.uint8Array({ maxLength: 8 }),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(fc.oneof(fc.constantFrom(...names, "name", "value"), fc.string()), tie("value"), { maxKeys: 6 }),
  ),
})).value;

/** A method with anything, or with its own fields holding anything. */
const call = fc.constantFrom(...METHODS).chain((method) => {
  const own = AGENT_METHODS[method].params.names.map((name) => name.replace("?", ""));
  const fitting = own.length === 0 ? anything : fc.dictionary(fc.constantFrom(...own), anything, { maxKeys: 4 });
  return fc.tuple(fc.constant(method), fc.oneof(anything, fitting));
});

describe("params", () => {
  test("whatever comes, either a Fault bad_input or exactly the fields that there are", () => {
    let passed = 0;
    fc.assert(
      fc.property(call, ([method, given]) => {
        const crossed = fromAgentJson(JSON.parse(JSON.stringify(toAgentJson(given))));
        let input: unknown;
        try {
          input = readCall(method, crossed).input;
        } catch (error) {
          expect(error).toBeInstanceOf(Fault);
          expect((error as Fault).code).toBe("bad_input");
          return;
        }
        passed++;
        const known = AGENT_METHODS[method].params.names.map((name) => name.replace("?", ""));
        expect(Object.keys(input as object).filter((key) => !known.includes(key))).toEqual([]);
        const needed = AGENT_METHODS[method].params.names.filter((name) => !name.endsWith("?"));
        expect(needed.filter((name) => !Object.hasOwn(input as object, name))).toEqual([]);
      }),
      { numRuns: 3_000 },
    );
    expect(passed).toBeGreaterThan(10);
  });

  test("what is slim is read as what it was", () => {
    const full = { name: "a", version: null, reveal: false, fresh: true, save: false };
    const { slim, decode } = AGENT_METHODS.get.params;
    expect(slim(full)).toEqual({ name: "a", fresh: true });
    expect(decode(slim(full), "params")).toEqual(full);
    const store = { name: "a", type: null, value: Uint8Array.of(1), tags: [], where: null };
    const { params } = AGENT_METHODS.store;
    expect(params.slim(store)).toEqual({ name: "a", value: Uint8Array.of(1) });
    expect(params.decode(params.slim(store), "params")).toEqual(store);
    // left out is not the same as empty: the former keeps the fields that there are
    expect(params.decode(params.slim({ ...store, fields: [], expiresAt: null }), "params")).toEqual({
      ...store,
      fields: [],
      expiresAt: null,
    });
    for (const method of METHODS) {
      const { names: all, slim: thin } = AGENT_METHODS[method].params as Params<object>;
      expect(Object.keys(thin(Object.fromEntries(all.map((name) => [name, "x"])))).length).toBe(all.length);
    }
  });

  test("lists and texts are bounded", () => {
    const item = { name: "a", type: "note", value: Uint8Array.of(1) };
    const items = Array.from({ length: 100_001 }, () => item);
    const tooLong: [AgentMethod, object][] = [
      ["importItems", { items, origin: "json" }],
      ["getMany", { refs: items.map(({ name }) => ({ name })) }],
      ["get", { name: "x".repeat(2_049) }],
      ["tag", { name: "a", add: Array(1_000).fill("t") }],
      ["store", { name: "a", value: null, fields: Array(1_000).fill({ name: "a", kind: "text", value: "" }) }],
      ["store", { name: "a", value: null, fields: [{ name: "a", kind: "text", value: "x".repeat(200_000) }] }],
      ["auditExport", { cursor: "x".repeat(5_000) }],
      ["importItems", { items: [], origin: "x".repeat(65) }],
    ];
    for (const [method, params] of tooLong) {
      expect(() => readCall(method, params)).toThrow(expect.objectContaining({ code: "bad_input" }));
    }
  });

  test("a change has the fields of its kind, and no others", () => {
    const read = (method: AgentMethod, given: object) => readCall(method, given).input;
    const workspace = "w";
    const change = { kind: "quorums", admin: 2 };
    expect(read("changeWorkspace", { workspace, change })).toEqual({
      workspace,
      change: { kind: "quorums", admin: 2, sign: null },
    });
    expect(read("changeKeyring", { keyring: "k", change: { kind: "partyCleared", name: "p" } })).toEqual({
      keyring: "k",
      change: { kind: "partyCleared", name: "p" },
    });
    for (const wrong of [
      null,
      [],
      new Uint8Array(1),
      {},
      { kind: "toString" },
      { kind: "adminAdded", userId: "u" },
      { kind: "approve" },
      { kind: "approve", hashHex: "ab", name: "x" },
      { kind: "ownerAdded", name: "x" },
    ]) {
      expect(() => readCall("changeWorkspace", { workspace, change: wrong })).toThrow(
        expect.objectContaining({ code: "bad_input" }),
      );
    }
    const items = [{ key: "ab", message: Uint8Array.of(1) }];
    expect(read("requestSignatures", { items })).toEqual({
      items: [{ key: "ab", message: Uint8Array.of(1), form: "message", input: 0, amount: null }],
    });
    for (const method of ["voteKeyring", "requestKey", "continueKeyringRequest", "createToken"] as const) {
      const given = { requestId: "ab", verdict: "approve", workspace, keyring: "k", type: "ed25519", name: "n" };
      const names = AGENT_METHODS[method].params.names.map((name) => name.replace("?", ""));
      const own = Object.fromEntries(
        Object.entries({ ...given, expiresInMs: 1 }).filter(([name]) => names.includes(name)),
      );
      expect(readCall(method, own).touched, method).toBe("account");
    }
  });

  test("names of objects' own methods are no fields and no methods", () => {
    for (const key of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      const given = JSON.parse(`{"name":"a","${key}":1}`);
      expect(() => readCall("get", given)).toThrow(expect.objectContaining({ code: "bad_input" }));
      expect(() => readCall(key, {})).toThrow(expect.objectContaining({ code: "unsupported" }));
    }
    expect(new Set(agentMethods()).size).toBe(METHODS.length + 3);
  });
});
