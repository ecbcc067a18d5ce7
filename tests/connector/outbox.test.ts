import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { lstatSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DEAD_MAX, isSameResponse, type Outbox, openOutbox } from "../../src/connector/outbox.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { asHashId, type FederatedRequestId } from "../../src/ids.ts";
import { requestIdOf, signDecision, signOrder } from "../../src/protocol/federation/request.ts";
import { signResponse } from "../../src/protocol/keyring/response.ts";
import type { Task } from "../../src/wire/keyring/views.ts";
import { KEYRING, keyringGenerateBody, makeKeyringRequest, makeWorkspacePolicy } from "../support/keyringrequests.ts";
import { FEDERATION, NOON } from "../support/policies.ts";

let dir: string;
let path: string;
let outbox: Outbox;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "keyhold-outbox-"));
  path = join(dir, "outbox.db");
  outbox = openOutbox(path);
});
afterEach(() => {
  outbox.close();
  rmSync(dir, { recursive: true, force: true });
});

/** As after a crash: what was not durable is gone. */
function reopen(): void {
  outbox.close();
  outbox = openOutbox(path);
}

const signer = signerFromSeed(new Uint8Array(32).fill(7));
const workspace = makeWorkspacePolicy({ registry: signer.publicKey });

function taskOf(n: number, seq = 1, work: Task["work"] = { do: "drop" }): Task {
  const request = makeKeyringRequest({
    federationId: FEDERATION,
    workspace,
    body: keyringGenerateBody(workspace.workspaceId),
    nonce: new Uint8Array(32).fill(n),
    nowMs: NOON,
  });
  const itemId = requestIdOf(request.request);
  return {
    keyringId: KEYRING,
    requestId: asHashId("ab".repeat(32)),
    itemId,
    seq,
    policyHash: workspace.headHash,
    request,
    work,
  };
}

const responseTo = (itemId: FederatedRequestId, reason = "no") =>
  signResponse(signer, {
    keyringId: KEYRING,
    requestId: itemId,
    verdict: "rejected",
    attempt: 0,
    keyId: null,
    publicKey: null,
    certificateHash: null,
    policyHash: workspace.headHash,
    reason,
  });

describe("what must outlast a crash", () => {
  test("the first response stays, whatever comes later, until the registry has taken it and after", () => {
    const { itemId } = outbox.take(taskOf(1), NOON);
    const first = responseTo(itemId);
    expect(isSameResponse(outbox.keepResponse(first, NOON), first)).toBe(true);
    reopen();
    expect(isSameResponse(outbox.keepResponse(responseTo(itemId, "another"), NOON + 1), first)).toBe(true);
    expect(outbox.unsent()).toEqual([{ seq: 1, response: first }]);
    outbox.sent(itemId, NOON + 2);
    reopen();
    expect(outbox.unsent()).toEqual([]);
    expect(outbox.response(itemId)).toEqual(first);
  });

  test("the first order of an attempt and the first decision stay", () => {
    const { itemId } = outbox.take(taskOf(1), NOON);
    const order = (roster: number[], attempt = 1) =>
      signOrder(signer, { requestId: itemId, attempt, roster, contributions: [], ownerNonces: null });
    expect(outbox.keepOrder(itemId, order([1, 2, 3]))).toBe(true);
    reopen();
    expect(outbox.keepOrder(itemId, order([1, 2, 3]))).toBe(true);
    expect(outbox.keepOrder(itemId, order([1, 2]))).toBe(false);
    expect(outbox.keepOrder(itemId, order([1, 2], 2))).toBe(true);
    expect(outbox.order(itemId, 1)).toEqual(order([1, 2, 3]));
    const decision = (verdict: "accept" | "cancel", attempt = 0) =>
      signDecision(signer, { requestId: itemId, verdict, attempt, certificateHash: null });
    expect(outbox.keepDecision(itemId, decision("cancel"))).toBe(true);
    reopen();
    expect(outbox.keepDecision(itemId, decision("cancel"))).toBe(true);
    expect(outbox.keepDecision(itemId, decision("accept", 1))).toBe(false);
  });

  test("what is written together is all there afterwards, or nothing of it", () => {
    const [one, two] = [taskOf(1), taskOf(2)];
    const rows = outbox.together(() => [one, two].map((task) => outbox.take(task, 5)));
    reopen();
    expect(rows.map(({ itemId }) => outbox.item(itemId)?.state)).toEqual(["open", "open"]);
    const three = taskOf(3);
    expect(() =>
      outbox.together(() => {
        outbox.take(three, 6);
        outbox.settle(one.itemId, "over", 6);
        throw new RangeError("in the middle");
      }),
    ).toThrow(RangeError);
    expect([outbox.item(three.itemId), outbox.item(one.itemId)?.state]).toEqual([null, "open"]);
    // and it can be used after that
    outbox.settle(one.itemId, "over", 7);
    reopen();
    expect(outbox.item(one.itemId)?.state).toBe("over");
  });

  test("tries count within one seq, a later one begins anew, an earlier one changes nothing", () => {
    const { itemId } = outbox.take(taskOf(1, 5), NOON);
    outbox.wait(itemId, "away", NOON + 10);
    expect(outbox.take(taskOf(1, 5), NOON)).toMatchObject({ seq: 5, tries: 1, nextAtMs: NOON + 10, why: "away" });
    expect(outbox.take(taskOf(1, 4), NOON)).toMatchObject({ seq: 5, tries: 1 });
    expect(outbox.take(taskOf(1, 6), NOON)).toMatchObject({ seq: 6, tries: 0, nextAtMs: 0 });
  });

  test("says what open items wait for, each reason once, until they are done", () => {
    const ids = [taskOf(1, 1), taskOf(2, 1), taskOf(3, 1)].map((task) => outbox.take(task, NOON).itemId);
    for (const id of ids) outbox.wait(id, "the own server is away", NOON + 10);
    expect(outbox.waits()).toEqual(["the own server is away"]);
    for (const id of ids) outbox.settle(id, "answered", NOON);
    expect(outbox.waits()).toEqual([]);
  });

  test("its file is the user's alone", () => {
    expect(lstatSync(path).mode & 0o777).toBe(0o600);
  });
});

describe("dead letters", () => {
  test("stay dead whatever is asked, until somebody puts them back: then each comes once", () => {
    const tasks = [taskOf(1), taskOf(2), taskOf(3)];
    for (const task of tasks) {
      outbox.take(task, NOON);
      outbox.bury(task, "it cannot be", NOON);
    }
    reopen();
    expect(outbox.dead().map(({ task, why }) => [task.itemId, why])).toHaveLength(3);
    const [first] = tasks;
    if (!first) throw new Error("no task");
    expect(outbox.take({ ...first, seq: 9 }, NOON)).toMatchObject({ state: "dead" });
    expect(outbox.counts()).toMatchObject({ dead: 3, open: 0 });
    expect(outbox.revive(first.itemId, NOON)).toBe(1);
    reopen();
    expect(outbox.revived()).toEqual([first]);
    expect(outbox.revived()).toEqual([]);
    expect(outbox.revive(null, NOON)).toBe(2);
    expect(outbox.revive(null, NOON)).toBe(0);
    expect(outbox.revived()).toHaveLength(2);
    expect(outbox.counts()).toMatchObject({ dead: 0, open: 3 });
  });

  test("are no more than a bound, the newest: a registry fills no disk with them", () => {
    outbox.together(() => {
      for (let n = 0; n < DEAD_MAX + 3; n++) {
        const task: Task = { ...taskOf(1), itemId: asHashId(n.toString(16).padStart(64, "0")) };
        outbox.take(task, NOON + n);
        outbox.bury(task, "it cannot be", NOON + n);
      }
    });
    expect(outbox.counts()).toMatchObject({ dead: DEAD_MAX, over: 3 });
    expect(outbox.dead()[0]?.itemId.endsWith("003")).toBe(true);
  });

  test("a look beside a connector that runs sees them, and changes nothing", () => {
    const task = taskOf(1);
    outbox.take(task, NOON);
    outbox.bury(task, "it cannot be", NOON);
    const beside = openOutbox(path, { readonly: true });
    try {
      expect(beside.dead()).toHaveLength(1);
      expect(() => beside.revive(null, NOON)).toThrow();
    } finally {
      beside.close();
    }
  });
});
