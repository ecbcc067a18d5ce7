import { describe, expect, test } from "bun:test";
import { Fault } from "../../../src/errors.ts";
import { hashId, type KeyringId } from "../../../src/ids.ts";
import { verifyEvidence } from "../../../src/protocol/keyring/evidence.ts";
import {
  advance,
  BATCH_MAX,
  type KeyringLife,
  type KeyringLifeEvent,
  type KeyringStep,
  type LifeInput,
  openLife,
} from "../../../src/protocol/keyring/requestlife.ts";
import { signResponse, verifyResponse } from "../../../src/protocol/keyring/response.ts";
import { EXPIRES_MS, itemIdOf, KEYRING, newLife, responseOf, resultOf, signerOf } from "./lifecase.ts";
import type { Word } from "./lifemodel.ts";

const allow: KeyringLifeEvent = { type: "ruled", ruling: "allow" };
const says = (party: number, word: Word, item = 0): KeyringLifeEvent => ({
  type: "response",
  response: responseOf(party, item, word),
});
const result = (item = 0, word: "1" | "2" = "1"): KeyringLifeEvent => ({
  type: "result",
  itemId: itemIdOf(item),
  value: resultOf(item, word),
});
const effectsOf = (step: KeyringStep) => step.effects.map((e) => e.do);

/** All events in their order and in time. */
function went(life: KeyringLife, ...events: readonly KeyringLifeEvent[]): KeyringLife {
  return events.reduce((now, e) => advance(now, e, 0).life, life);
}

function codeOf(work: () => unknown): string {
  try {
    work();
    return "nothing";
  } catch (error) {
    return error instanceof Fault ? error.code : `no Fault: ${String(error)}`;
  }
}

const begun = () => went(newLife(3, 2, 1), allow);
const fulfilled = () => went(begun(), result(), says(0, "1"), says(1, "1"));

describe("the way to a key", () => {
  test("pending, approved, partial, fulfilled: paid once, to all parties of the snapshot", () => {
    const call = advance(newLife(3, 2, 1), allow, 0);
    expect([call.life.status, effectsOf(call)]).toEqual(["pending", ["call"]]);
    const first = advance(went(call.life, result()), says(0, "1"), 0);
    expect([first.life.status, effectsOf(first)]).toEqual(["partial", ["record"]]);
    const second = advance(first.life, says(1, "1"), 0);
    expect([second.life.status, effectsOf(second)]).toEqual(["fulfilled", ["record", "pay"]]);
    expect(second.effects.at(-1)).toEqual({ do: "pay", parties: [0, 1, 2].map((p) => signerOf(p).publicKey) });
    const third = advance(second.life, says(2, "1"), 0);
    expect([third.life.status, effectsOf(third)]).toEqual(["fulfilled", ["record"]]);
  });

  test("fewer than the threshold never fulfil, and nothing does without the registry's own result", () => {
    expect(went(begun(), result(), says(0, "1"), says(0, "1")).status).toBe("partial");
    expect(went(begun(), says(0, "1"), says(1, "1"), says(2, "1")).status).toBe("partial");
  });

  test("parties that agree on something else than the result fulfil nothing", () => {
    const life = went(begun(), says(0, "2"), says(1, "2"));
    const step = advance(life, result(), 0);
    expect([step.life.status, effectsOf(step)]).toEqual(["rejected", ["refund", "forget"]]);
  });

  test("one rejection does not reject, the one that makes it impossible does", () => {
    const one = went(begun(), says(0, "R"));
    expect(one.status).toBe("partial");
    const two = advance(one, says(1, "Rb"), 0);
    expect([two.life.status, effectsOf(two)]).toEqual(["rejected", ["record", "refund", "forget"]]);
    expect(went(one, result(), says(1, "1"), says(2, "1")).status).toBe("fulfilled");
  });

  test("a batch is fulfilled as a whole, by each item's own threshold", () => {
    const batch = went(newLife(3, 2, 2), allow, result(0), says(0, "1", 0), says(1, "1", 0), says(2, "1", 0));
    expect(batch.status).toBe("partial");
    const second = went(batch, says(0, "1", 1), says(1, "1", 1));
    expect(second.status).toBe("partial");
    expect(went(second, result(1)).status).toBe("fulfilled");
    expect(went(batch, says(0, "R", 1), says(1, "R", 1)).status).toBe("rejected");
  });
});

describe("what parties and strangers say", () => {
  test("a non-party changes nothing, whatever it says and however often", () => {
    const life = went(begun(), result());
    for (const word of ["1", "2", "R"] as const) {
      for (let stranger = 10; stranger < 20; stranger++) {
        expect(advance(life, says(stranger, word), 0)).toEqual({ life, effects: [] });
      }
    }
  });

  test("nor does a party of another keyring, or a word on another item", () => {
    const life = went(begun(), result());
    const foreign = { ...responseOf(0, 0, "1").response, keyringId: hashId<KeyringId>(new Uint8Array(32).fill(7)) };
    expect(advance(life, { type: "response", response: signResponse(signerOf(0), foreign) }, 0).life).toBe(life);
    expect(advance(life, says(0, "1", 3), 0).life).toBe(life);
  });

  test("a wrongly signed response does not come so far", () => {
    const forged = { response: responseOf(0, 0, "1").response, signature: responseOf(1, 0, "1").signature };
    expect(codeOf(() => verifyResponse(forged))).toBe("integrity");
  });

  test("a duplicate is no second voice", () => {
    const life = went(begun(), result(), says(0, "1"));
    expect(advance(life, says(0, "1"), 0)).toEqual({ life, effects: [] });
  });

  test("a contradiction is evidence, excludes the party, and takes its voice and its pay", () => {
    const life = went(begun(), result(), says(0, "1"));
    const caught = advance(life, says(0, "R"), 0);
    expect(effectsOf(caught)).toEqual(["quarantine"]);
    const [found] = caught.effects;
    if (found?.do !== "quarantine") throw new Error("no evidence");
    verifyEvidence({ keyring: KEYRING, party: found.party, first: found.first, second: found.second });
    expect([found.first, found.second]).toEqual([responseOf(0, 0, "1"), responseOf(0, 0, "R")]);
    expect(went(caught.life, says(1, "1")).status).toBe("partial");
    const done = advance(went(caught.life, says(1, "1")), says(2, "1"), 0);
    expect(done.life.status).toBe("fulfilled");
    expect(done.effects.at(-1)).toEqual({ do: "pay", parties: [1, 2].map((p) => signerOf(p).publicKey) });
  });

  test("the same with a newer policy in it is a contradiction: a party says one thing", () => {
    const life = went(begun(), result(), says(0, "1"));
    expect(effectsOf(advance(life, says(0, "1b"), 0))).toEqual(["quarantine"]);
  });

  test("an excluded party is heard no more, on no item", () => {
    const life = went(newLife(3, 2, 2), allow, says(0, "1", 0), says(0, "2", 0));
    for (const event of [says(0, "1", 0), says(0, "R", 0), says(0, "1", 1)]) {
      expect(advance(life, event, 0)).toEqual({ life, effects: [] });
    }
  });

  test("a party that contradicts itself can make a request impossible", () => {
    const life = went(begun(), result(), says(0, "R"), says(1, "1"));
    const step = advance(life, says(1, "2"), 0);
    expect([step.life.status, effectsOf(step)]).toEqual(["rejected", ["quarantine", "refund", "forget"]]);
  });
});

describe("time and the end", () => {
  test("at its expiry a request is over, a millisecond before it is not", () => {
    expect(advance(begun(), { type: "tick" }, EXPIRES_MS - 1).effects).toEqual([]);
    const step = advance(begun(), { type: "tick" }, EXPIRES_MS);
    expect([step.life.status, effectsOf(step)]).toEqual(["expired", ["refund", "forget"]]);
    expect(effectsOf(advance(step.life, { type: "tick" }, EXPIRES_MS + 1))).toEqual([]);
  });

  test("the response that would have completed it comes too late even where nobody has swept", () => {
    const life = went(begun(), result(), says(0, "1"));
    const step = advance(life, says(1, "1"), EXPIRES_MS);
    expect([step.life.status, effectsOf(step)]).toEqual(["expired", ["refund", "forget", "record"]]);
    expect(codeOf(() => advance(begun(), result(), EXPIRES_MS))).toBe("conflict");
    expect(codeOf(() => advance(begun(), { type: "cancel" }, EXPIRES_MS))).toBe("conflict");
  });

  test.each([
    ["fulfilled", fulfilled()],
    ["rejected", went(begun(), { type: "failed" })],
    ["expired", advance(begun(), { type: "tick" }, EXPIRES_MS).life],
    ["cancelled", went(begun(), { type: "cancel" })],
  ] as const)("%s is final: late words are recorded and held against their party, and nothing else", (status, life) => {
    expect(life.status).toBe(status);
    const late = advance(life, says(2, "1"), EXPIRES_MS);
    expect(effectsOf(late)).toEqual(["record"]);
    const caught = advance(late.life, says(2, "R"), EXPIRES_MS);
    expect(effectsOf(caught)).toEqual(["quarantine"]);
    expect(caught.life.status).toBe(status);
    for (const event of [allow, { type: "ruled", ruling: "deny" }, { type: "failed" }, { type: "tick" }] as const) {
      expect(advance(life, event, EXPIRES_MS)).toEqual({ life, effects: [] });
    }
    expect(codeOf(() => advance(life, { type: "cancel" }, 0))).toBe(status === "cancelled" ? "nothing" : "conflict");
  });

  test("owners cancel until something has left the registry; time ends it afterwards too", () => {
    for (const event of [result(), { type: "accepted" }] as const) {
      const life = went(begun(), event);
      expect(codeOf(() => advance(life, { type: "cancel" }, 0))).toBe("conflict");
      expect(advance(life, { type: "ruled", ruling: "deny" }, 0).life).toBe(life);
      expect(effectsOf(advance(life, { type: "tick" }, EXPIRES_MS))).toEqual(["refund", "forget"]);
    }
    expect(effectsOf(advance(went(begun(), says(0, "1")), { type: "cancel" }, 0))).toEqual(["refund", "forget"]);
  });

  test("nothing leaves before the workspace approves, nor after it has changed its mind", () => {
    const withdrawn = advance(begun(), { type: "ruled", ruling: "wait" }, 0);
    expect(effectsOf(withdrawn)).toEqual(["recall"]);
    for (const life of [newLife(3, 2, 1), withdrawn.life]) {
      expect(codeOf(() => advance(life, result(), 0))).toBe("pending");
      expect(codeOf(() => advance(life, { type: "accepted" }, 0))).toBe("pending");
    }
  });

  test("an item has one result", () => {
    const life = went(begun(), result());
    expect(advance(life, result(), 0)).toEqual({ life, effects: [] });
    expect(codeOf(() => advance(life, result(0, "2"), 0))).toBe("integrity");
    expect(codeOf(() => advance(life, result(4), 0))).toBe("not_found");
  });
});

describe("the snapshot", () => {
  const input = (change: Partial<LifeInput> = {}): LifeInput => ({
    kind: "key",
    keyringId: KEYRING,
    expiresAtMs: EXPIRES_MS,
    threshold: 2,
    parties: [0, 1, 2].map((p) => signerOf(p).publicKey),
    items: [itemIdOf(0)],
    ...change,
  });

  test("holds when the keyring loses a party or changes its threshold in the middle", () => {
    const keyring = { parties: [0, 1, 2].map((p) => signerOf(p).publicKey), threshold: 2 };
    const life = went(openLife(input(keyring)), allow, result(), says(0, "1"));
    keyring.parties.pop();
    keyring.threshold = 3;
    expect(went(life, says(2, "1")).status).toBe("fulfilled");
    keyring.parties.push(signerOf(3).publicKey);
    expect(advance(life, says(3, "1"), 0).life).toBe(life);
  });

  const many = Array.from({ length: BATCH_MAX + 1 }, (_, i) => itemIdOf(i));
  test.each([
    ["a key request of two items", { items: many.slice(0, 2) }],
    ["no item", { items: [] }],
    ["an empty batch", { kind: "signature", items: [] }],
    ["too many items", { kind: "signature", items: many }],
    ["the same item twice", { kind: "signature", items: [itemIdOf(0), itemIdOf(0)] }],
    ["no threshold", { threshold: 0 }],
    ["a broken threshold", { threshold: 1.5 }],
    ["a threshold above the parties", { threshold: 4 }],
    ["no parties", { parties: [] }],
    ["one party twice", { parties: [signerOf(0).publicKey, signerOf(1).publicKey, signerOf(0).publicKey.slice()] }],
  ] satisfies [string, Partial<LifeInput>][])("is refused with %s", (_, change) => {
    expect(codeOf(() => openLife(input(change)))).toBe("bad_input");
  });

  test("a full batch is taken", () => {
    const life = openLife(input({ kind: "signature", items: many.slice(1) }));
    expect([life.status, life.approved, life.accepted, life.items.length]).toEqual([
      "pending",
      false,
      false,
      BATCH_MAX,
    ]);
  });
});
