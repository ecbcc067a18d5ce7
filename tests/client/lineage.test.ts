import { describe, expect, test } from "bun:test";
import { lineageOf } from "../../src/client/lineage.ts";
import type { Session } from "../../src/client/session.ts";
import { type DeviceId, type IncarnationId, newId, type RequestId, type UserId } from "../../src/ids.ts";
import { type SignedState, stateHash } from "../../src/protocol/state.ts";
import { random } from "../support/harness.ts";
import { rejected } from "../support/hostile.ts";

/** What the states of an account that a restore brought back must show (docs/protocol.md §6.5). */

const [began, first, second] = [1, 2, 3].map(() => newId<IncarnationId>(random)) as [
  IncarnationId,
  IncarnationId,
  IncarnationId,
];
const userId = newId<UserId>(random);
const deviceId = newId<DeviceId>(random);

/** States of these incarnations, each linked to the one before. */
function chain(...incarnations: IncarnationId[]): SignedState[] {
  const states: SignedState[] = [];
  for (const incarnation of incarnations) continueWith(states, incarnation);
  return states;
}

function continueWith(states: SignedState[], incarnation: IncarnationId): void {
  const before = states.at(-1);
  const state = {
    incarnation,
    userId,
    deviceId,
    revision: states.length + 1,
    previous: before ? stateHash(before.state) : new Uint8Array(32),
    requestId: newId<RequestId>(random),
    requestHash: random(32),
    root: random(32),
    settingsHash: random(32),
    auditSeq: 0,
    auditLink: new Uint8Array(32),
  };
  states.push({ state, identitySignature: random(64), deviceSignature: random(64) });
}

const showing = (states: readonly SignedState[]) =>
  ({
    call: async (_name: string, { since }: { since: number }) => ({
      output: { leaves: [], more: false, states: states.slice(since), settings: {} },
      head: { revision: states.length },
    }),
  }) as unknown as Session;

const at = (states: readonly SignedState[], revision: number): SignedState => {
  const found = states[revision - 1];
  if (!found) throw new Error("no such state");
  return found;
};
const lineage = (states: readonly SignedState[], pin: SignedState, now: IncarnationId) =>
  lineageOf(showing(states), pin, at(states, states.length), now);

describe("the states that a restored server shows", () => {
  const before = chain(began, began, first, first, first);

  test("may lack what was pinned, and may go on in the new incarnation", async () => {
    const pin = at(before, 5);
    expect((await lineage(before.slice(0, 4), pin, second)).shared).toBe(4);
    expect((await lineage(before, pin, second)).shared).toBe(5);
    const adopted = before.slice(0, 3);
    continueWith(adopted, second);
    continueWith(adopted, second);
    expect((await lineage(adopted, pin, second)).shared).toBe(3);
    // older than the incarnation of the pin
    expect((await lineage(before.slice(0, 2), pin, second)).shared).toBe(0);
  });

  test("must hold the pin where they hold its revision, and be linked", async () => {
    const fork = before.slice(0, 4);
    continueWith(fork, first);
    await rejected(lineage(fork, at(before, 5), second), "integrity");
    const longer = [...fork];
    continueWith(longer, first);
    await rejected(lineage(longer, at(before, 5), second), "integrity");
    const torn = before.with(2, at(chain(began, began, first), 3));
    await rejected(lineage(torn, at(before, 5), second), "integrity");
    const short = showing(before.slice(0, 4));
    await rejected(lineageOf(short, at(before, 5), at(before, 5), second), "integrity");
  });

  test("are those of no server that goes back to the incarnation it was restored from", async () => {
    const fault = await rejected(lineage(before.slice(0, 2), at(before, 5), began), "integrity");
    expect(fault.why).toContain("began in");
  });
});
